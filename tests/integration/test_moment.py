"""One moment, even beside statements that are not MVCC-safe: they wait, or the backup fails and a retry succeeds.

PostgreSQL manual, "Caveats" of MVCC: after TRUNCATE, or an ALTER TABLE that rewrites, the table looks empty to every
transaction whose snapshot is older.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from contextlib import closing
from pathlib import Path

import psycopg2
import pytest

from clinic_backups.base import connections
from clinic_backups.base.backup_record import BackupRecord
from clinic_backups.base.errors import PermanentError, TransientError
from clinic_backups.restore.workspace import Workspace
from clinic_backups.stores.file import FileStore
from clinic_backups.tenant.extract import SqlFolder
from clinic_backups.tenant.tenant_db import Snapshot
from tests.postgres_fixtures import DemoDatabase
from tests.rig import Rig, once

FIRST, STOCK, INVOICES = "public.auditoria_bitacora", "public.inventario_inventario", "public.sistema_pagos_factura"
VISITS, PATIENTS = "public.citas_consulta", "public.usuarios_paciente"
LAST = "public.usuarios_usuario_groups"


@pytest.fixture
def rig(demo_database: DemoDatabase, tmp_path: Path) -> Rig:
    return Rig(demo_database, FileStore(tmp_path / "store"), allow_gaps=True)


class Beside:
    """Statements of another session, in one transaction and a thread; ``seconds`` is how long they took."""

    def __init__(self, rig: Rig, *statements: str) -> None:
        self.seconds: float | None = None
        self._rig, self._statements = rig, statements
        self._thread = threading.Thread(target=self._run)

    def start(self) -> None:
        self._thread.start()
        # They end by then, or wait for a lock.
        self._thread.join(1)

    def wait(self) -> None:
        self._thread.join(60)
        assert self.seconds is not None, "the statements failed, or never ended"

    def _run(self) -> None:
        began = time.monotonic()
        self._rig.execute(*self._statements)
        self.seconds = time.monotonic() - began


def back_up_beside(rig: Rig, *statements: str, when: Callable[[object], bool] | None = None) -> BackupRecord | None:
    """Back up clinic 1 while the first table is read beside statements; none where that failed as transient."""
    other = Beside(rig, *statements)
    try:
        return rig.run(1, on_progress=once(when or (lambda progress: progress.table == FIRST), other.start))
    except TransientError:
        return None
    finally:
        other.wait()


RELOAD = (
    "CREATE TABLE public.kept AS TABLE {0}",
    "TRUNCATE {0} CASCADE",
    "INSERT INTO {0} SELECT * FROM public.kept",
)
SAFE_AGAINST = {
    "a column with a volatile default": (
        f"ALTER TABLE {INVOICES} ADD COLUMN token uuid NOT NULL DEFAULT gen_random_uuid()",
    ),
    "a column's type": (f"ALTER TABLE {STOCK} ALTER COLUMN cantidad TYPE bigint",),
    "truncated and loaded again": tuple(statement.format(STOCK) for statement in RELOAD),
    "a table that extracts join": (f"ALTER TABLE {PATIENTS} ADD COLUMN sello timestamptz DEFAULT clock_timestamp()",),
    "made anew under the same name": (
        f"CREATE TABLE public.otra (LIKE {STOCK} INCLUDING ALL)",
        f"INSERT INTO public.otra SELECT * FROM {STOCK}",
        f"DROP TABLE {STOCK}",
        f"ALTER TABLE public.otra RENAME TO {STOCK.rpartition('.')[2]}",
        f"GRANT SELECT ON {STOCK} TO PUBLIC",
    ),
    "a generated column": (f"ALTER TABLE {STOCK} ADD COLUMN doble int GENERATED ALWAYS AS (cantidad * 2) STORED",),
    "unlogged": (f"ALTER TABLE {STOCK} SET UNLOGGED",),
    "a renamed column": (f"ALTER TABLE {STOCK} RENAME COLUMN cantidad TO existencias",),
    "a dropped column": (f"ALTER TABLE {STOCK} DROP COLUMN cantidad",),
    "a renamed table": (f"ALTER TABLE {STOCK} RENAME TO almacen",),
}


@pytest.mark.parametrize("statements", SAFE_AGAINST.values(), ids=SAFE_AGAINST)
def test_what_is_not_safe_beside_a_snapshot_waits(rig: Rig, statements: tuple[str, ...]) -> None:
    before = rig.rows_now(1)
    record = back_up_beside(rig, *statements)
    assert record is not None
    assert rig.open(record).tables == before
    assert record.suspect is None


PARTS = (
    "CREATE TABLE public.notas (id int, clinica_id int, texto text, PRIMARY KEY (id, clinica_id))"
    " PARTITION BY LIST (clinica_id)",
    "CREATE TABLE public.notas_1 PARTITION OF public.notas FOR VALUES IN (1)",
    "CREATE TABLE public.notas_2 PARTITION OF public.notas DEFAULT",
    "INSERT INTO public.notas SELECT n, 1 + n % 2, 'nota' FROM generate_series(1, 100) AS n",
    "CREATE TABLE public.base (id int PRIMARY KEY, clinica_id int)",
    "CREATE TABLE public.hija (PRIMARY KEY (id)) INHERITS (public.base)",
    "INSERT INTO public.hija SELECT n, 1 FROM generate_series(1, 50) AS n",
    "CREATE TABLE public.oculta (id int, clinica_id int)",
    "INSERT INTO public.oculta SELECT n, 1 FROM generate_series(1, 30) AS n",
    "CREATE VIEW public.vista AS SELECT * FROM public.oculta",
    "REVOKE ALL ON public.oculta FROM PUBLIC",
    "CREATE TABLE public.detras (id int PRIMARY KEY, clinica_id int)",
    "INSERT INTO public.detras SELECT n, 1 FROM generate_series(1, 20) AS n",
    "CREATE FUNCTION public.de_detras(int) RETURNS SETOF public.detras LANGUAGE plpgsql STABLE AS"
    " $$ BEGIN RETURN QUERY SELECT * FROM public.detras WHERE clinica_id = $1; END $$",
    "CREATE MATERIALIZED VIEW public.resumen AS SELECT * FROM public.detras",
    "CREATE TABLE public.zz_vista (id int, clinica_id int)",
    "CREATE TABLE public.zz_funcion (id int, clinica_id int)",
    "CREATE TABLE public.zz_resumen (id int, clinica_id int)",
    "GRANT SELECT ON public.notas, public.base, public.vista, public.detras, public.resumen, public.zz_vista,"
    " public.zz_funcion, public.zz_resumen TO PUBLIC",
)
EXTRACTS = {
    "notas": "SELECT * FROM public.notas WHERE clinica_id = {{ clinic_id }}",
    "base": "SELECT * FROM public.base WHERE clinica_id = {{ clinic_id }}",
    "zz_vista": "SELECT * FROM public.vista WHERE clinica_id = {{ clinic_id }}",
    "zz_funcion": "SELECT * FROM public.de_detras({{ clinic_id }})",
    "zz_resumen": "SELECT * FROM public.resumen WHERE clinica_id = {{ clinic_id }}",
}
HIDDEN = {
    "one partition": ("TRUNCATE public.notas_1", "INSERT INTO public.notas_1 VALUES (1, 1, 'nueva')"),
    "a child table": ("TRUNCATE public.hija", "INSERT INTO public.hija VALUES (1, 1)"),
    "a table below a view": ("TRUNCATE public.oculta", "INSERT INTO public.oculta VALUES (1, 1)"),
    "a table below a function": ("TRUNCATE public.detras", "INSERT INTO public.detras VALUES (1, 1)"),
    "a materialized view": ("REFRESH MATERIALIZED VIEW public.resumen",),
    "a partition taken away": ("ALTER TABLE public.notas DETACH PARTITION public.notas_1",),
    "another view": ("CREATE OR REPLACE VIEW public.vista AS SELECT * FROM public.oculta WHERE false",),
}


@pytest.mark.parametrize("statements", HIDDEN.values(), ids=HIDDEN)
def test_also_where_the_table_is_not_named_in_the_extract(
    rig: Rig, tmp_path: Path, statements: tuple[str, ...]
) -> None:
    rig.execute(*PARTS)
    rig.with_extracts(tmp_path / "sql", EXTRACTS)
    before = rows_of_settings(rig)
    record = back_up_beside(rig, *statements)
    if record is not None:
        assert rig.open(record).tables == before
    else:
        assert rig.objects() == []
    again = rig.run(1)
    assert rig.open(again).tables == rows_of_settings(rig)


def rows_of_settings(rig: Rig) -> dict[str, bytes]:
    """As ``rig.rows_now``: its extracts are those of the settings."""
    return rig.rows_now(1)


def with_values(rig: Rig, folder: Path, types: Iterable[str], type_: str, value: str) -> None:
    """A table with one value of a type, and its extract. :param types: the statements that create the types."""
    rig.execute(
        *types,
        f"CREATE TABLE public.zz_tonos (id int PRIMARY KEY, tono {type_})",
        f"INSERT INTO public.zz_tonos VALUES (1, {value})",
        "GRANT SELECT ON public.zz_tonos TO PUBLIC",
    )
    rig.with_extracts(folder / "sql", {"public.zz_tonos": "SELECT * FROM public.zz_tonos"})


TONO = "CREATE TYPE public.tono AS ENUM ('rojo', 'azul')"


@pytest.mark.parametrize("type_", ["public.tono", "public.tono[]"])
def test_an_enum_whose_value_is_renamed_is_read_again(rig: Rig, tmp_path: Path, type_: str) -> None:
    with_values(rig, tmp_path, [TONO], type_, "'rojo'" if type_ == "public.tono" else "'{rojo}'")
    assert back_up_beside(rig, "ALTER TYPE public.tono ADD VALUE 'verde'") is not None
    assert back_up_beside(rig, "ALTER TYPE public.tono RENAME VALUE 'rojo' TO 'carmín'") is None
    assert "carmín".encode() in rig.open(rig.run(1)).tables["public.zz_tonos"]


RENAMED = "ALTER TYPE public.tono RENAME VALUE"
SWAPPED = (f"{RENAMED} 'rojo' TO 'x'", f"{RENAMED} 'azul' TO 'rojo'", f"{RENAMED} 'x' TO 'azul'")
ENUMS = {
    "two names swapped": ("public.tono", "'rojo'", SWAPPED),
    "there and back": ("public.tono", "'rojo'", (*SWAPPED, *SWAPPED)),
    "a domain": ("public.tono_dominio", "'rojo'", (f"{RENAMED} 'rojo' TO 'carmín'",)),
    "a composite type": ("public.tono_compuesto", "'(rojo,1)'", (f"{RENAMED} 'rojo' TO 'carmín'",)),
    "a range": ("public.tono_rango", "'[rojo,azul]'", (f"{RENAMED} 'azul' TO 'añil'",)),
}


@pytest.mark.parametrize(("type_", "value", "statements"), ENUMS.values(), ids=ENUMS)
def test_names_of_enums_are_those_of_one_moment(
    rig: Rig, tmp_path: Path, type_: str, value: str, statements: tuple[str, ...]
) -> None:
    types = (
        TONO,
        "CREATE DOMAIN public.tono_dominio AS public.tono",
        "CREATE TYPE public.tono_compuesto AS (tono public.tono, n int)",
        "CREATE TYPE public.tono_rango AS RANGE (subtype = public.tono)",
    )
    with_values(rig, tmp_path, types, type_, value)
    assert back_up_beside(rig, *statements) is None
    assert rig.open(rig.run(1)).tables == rig.rows_now(1)


COMPOSITES = {
    "an attribute dropped": ("ALTER TYPE public.par DROP ATTRIBUTE dosis",),
    "an attribute dropped and added": ("ALTER TYPE public.par DROP ATTRIBUTE dosis, ADD ATTRIBUTE dosis int",),
    "an attribute added": ("ALTER TYPE public.par ADD ATTRIBUTE nota text",),
    "names swapped": tuple(
        f"ALTER TYPE public.par RENAME ATTRIBUTE {old} TO {new}"
        for old, new in (("dosis", "x"), ("unidad", "dosis"), ("x", "unidad"))
    ),
}


@pytest.mark.parametrize("type_", ["public.par", "public.par[]", "public.par_dominio"])
@pytest.mark.parametrize("statements", COMPOSITES.values(), ids=COMPOSITES)
def test_attributes_of_composite_types_are_those_of_one_moment(
    rig: Rig, tmp_path: Path, type_: str, statements: tuple[str, ...]
) -> None:
    value = "'(2,102)'" if type_ != "public.par[]" else "ARRAY['(2,102)'::public.par]"
    types = ("CREATE TYPE public.par AS (dosis int, unidad int)", "CREATE DOMAIN public.par_dominio AS public.par")
    with_values(rig, tmp_path, types, type_, value)
    assert back_up_beside(rig, *statements) is None
    assert rig.open(rig.run(1)).tables == rig.rows_now(1)


ROW_TYPES = {
    "a table": ("CREATE TABLE public.par (dosis int, unidad int)", "TABLE"),
    "a partitioned table": ("CREATE TABLE public.par (dosis int, unidad int) PARTITION BY LIST (dosis)", "TABLE"),
    "a view": ("CREATE VIEW public.par AS SELECT 1 AS dosis, 2 AS unidad", "VIEW"),
}


@pytest.mark.parametrize("type_", ["public.par", "public.par[]", "public.par_dominio"])
@pytest.mark.parametrize("case", ROW_TYPES)
def test_columns_of_a_table_whose_rows_are_values_are_those_of_one_moment(
    rig: Rig, tmp_path: Path, type_: str, case: str
) -> None:
    """No extract reads the table itself, so nothing locks it."""
    created, kind = ROW_TYPES[case]
    value = "'(2,102)'" if type_ != "public.par[]" else "ARRAY['(2,102)'::public.par]"
    with_values(rig, tmp_path, (created, "CREATE DOMAIN public.par_dominio AS public.par"), type_, value)
    swap = (("dosis", "x"), ("unidad", "dosis"), ("x", "unidad"))
    assert back_up_beside(rig, *(f"ALTER {kind} public.par RENAME COLUMN {old} TO {new}" for old, new in swap)) is None
    if kind == "TABLE":
        assert back_up_beside(rig, "ALTER TABLE public.par DROP COLUMN dosis") is None
    assert rig.open(rig.run(1)).tables == rig.rows_now(1)


def test_a_row_type_is_watched_in_a_database_without_functions_enums_and_composite_types(
    demo_database: DemoDatabase,
) -> None:
    """The catalog, whose triggers are functions, is in another database there."""
    server, name = demo_database.postgres, f"{demo_database.name}_bare"
    with closing(server.connect()) as db:
        db.autocommit = True
        db.cursor().execute(f"CREATE DATABASE {name} TEMPLATE template0")
        try:
            with closing(server.connect(name)) as bare:
                bare.autocommit = True
                statements = bare.cursor()
                statements.execute(
                    "CREATE TABLE par (dosis int, unidad int); CREATE TABLE a (id int PRIMARY KEY, par par);"
                    " INSERT INTO a VALUES (1, '(2,102)')"
                )
                with Snapshot(
                    connections.parse("clinic_db", server.uri(name)), reads={"public.a": "SELECT * FROM public.a"}
                ) as snapshot:
                    statements.execute("ALTER TABLE par DROP COLUMN dosis")
                    with pytest.raises(
                        TransientError, match=r"The row type public\.par changed while tables were read"
                    ):
                        snapshot.prove()
        finally:
            db.cursor().execute(f"DROP DATABASE {name} WITH (FORCE)")


def test_a_table_whose_rows_are_no_values_may_change_beside_a_backup(rig: Rig, tmp_path: Path) -> None:
    types = ("CREATE TABLE public.par (dosis int, unidad int)", "CREATE TABLE public.otra (dosis int)")
    with_values(rig, tmp_path, types, "public.par", "'(2,102)'")
    assert back_up_beside(rig, "ALTER TABLE public.otra ADD nota text") is not None


SHEETS = (
    "CREATE TABLE public.fichas (id int PRIMARY KEY, sede int)",
    "INSERT INTO public.fichas SELECT n, 1 FROM generate_series(1, 20) AS n",
    "CREATE TABLE public.zz_funcion (id int PRIMARY KEY, sede int)",
    "GRANT SELECT ON public.fichas, public.zz_funcion TO PUBLIC",
)
READS = "CREATE OR REPLACE FUNCTION public.f(int) RETURNS SETOF public.fichas STABLE LANGUAGE"
FUNCTIONS = {
    "PL/pgSQL": (f"{READS} plpgsql AS 'BEGIN RETURN QUERY SELECT * FROM public.{{}} WHERE sede = $1; END'"),
    "SQL": f"{READS} sql AS 'SELECT * FROM public.{{}} WHERE sede = $1'",
    "dynamic SQL": f"{READS} plpgsql AS 'BEGIN RETURN QUERY EXECUTE ''SELECT * FROM public.{{}}''; END'",
}
NEW_PLACE = (
    "INSERT INTO public.nuevas SELECT * FROM public.fichas WHERE id > 5",
    "DELETE FROM public.fichas WHERE id > 5",
)


@pytest.mark.parametrize("function", FUNCTIONS.values(), ids=FUNCTIONS)
def test_a_function_that_is_replaced_is_read_again(rig: Rig, tmp_path: Path, function: str) -> None:
    rig.execute(
        *SHEETS,
        "CREATE TABLE public.nuevas (LIKE public.fichas INCLUDING ALL)",
        "GRANT SELECT ON public.nuevas TO PUBLIC",
        "INSERT INTO public.nuevas VALUES (100, 1)",
        function.format("fichas"),
    )
    rig.with_extracts(tmp_path / "sql", {"public.zz_funcion": "SELECT * FROM public.f({{ clinic_id }})"})
    assert back_up_beside(rig, *NEW_PLACE, function.format("nuevas")) is None
    assert rig.objects() == []
    assert rig.open(rig.run(1)).tables == rig.rows_now(1)


OWN_FUNCTION = "CREATE OR REPLACE FUNCTION public.vale(public.fichas) RETURNS bool STABLE LANGUAGE sql AS"
OTHERWISE = {
    "a condition": (f"{OWN_FUNCTION} 'SELECT $1.id > 10'",),
    "a setting": ("ALTER FUNCTION public.vale(public.fichas) SET search_path = public",),
    "made anew": ("DROP FUNCTION public.vale(public.fichas) CASCADE", f"{OWN_FUNCTION} 'SELECT $1.id > 10'"),
    "there and back": (f"{OWN_FUNCTION} 'SELECT $1.id > 10'", f"{OWN_FUNCTION} 'SELECT $1.id > 0'"),
}


@pytest.mark.parametrize("statements", OTHERWISE.values(), ids=OTHERWISE)
def test_a_condition_that_is_another_one_is_read_again(rig: Rig, tmp_path: Path, statements: tuple[str, ...]) -> None:
    rig.execute(*SHEETS, f"{OWN_FUNCTION} 'SELECT $1.id > 0'")
    query = "SELECT * FROM public.fichas AS d WHERE sede IN ({{ clinic_id }}) AND public.vale(d)"
    rig.with_extracts(tmp_path / "sql", {"public.zz_funcion": query})
    assert back_up_beside(rig, *statements) is None
    assert rig.open(rig.run(1)).tables == rig.rows_now(1)


def test_a_materialized_view_that_is_not_refreshed_costs_no_retry(rig: Rig, tmp_path: Path) -> None:
    rig.execute(*PARTS)
    rig.with_extracts(tmp_path / "sql", EXTRACTS)
    record = rig.run(1)
    assert record.attempt == 1
    assert record.rows["public.zz_resumen"] == record.rows["public.zz_funcion"] == 20


def test_a_migration_that_is_under_way_is_waited_for(rig: Rig) -> None:
    with closing(rig.database.connect()) as db, db.cursor() as cursor:
        cursor.execute(f"ALTER TABLE {STOCK} ADD COLUMN token uuid NOT NULL DEFAULT gen_random_uuid()")
        timer = threading.Timer(1, db.commit)
        timer.start()
        record = rig.run(1)
        timer.join()
    assert rig.open(record).tables == rig.rows_now(1)
    assert record.rows[STOCK] > 0


@pytest.mark.parametrize(
    "change",
    [
        f"ALTER TABLE {STOCK} RENAME COLUMN cantidad TO existencias",
        f"ALTER TABLE {STOCK} DROP COLUMN cantidad",
        f"ALTER TABLE {STOCK} RENAME TO almacen",
        f"DROP TABLE {STOCK}",
    ],
)
def test_what_a_migration_took_away_just_now_is_worth_a_retry(rig: Rig, tmp_path: Path, change: str) -> None:
    columns = "id, codigo, nombre, cantidad, precio_unitario, clinica_id"
    rig.with_extracts(
        tmp_path / "sql", {STOCK: f"SELECT {columns} FROM {STOCK} WHERE clinica_id = {{{{ clinic_id }}}}"}
    )
    with closing(rig.database.connect()) as db, db.cursor() as cursor:
        cursor.execute(change)
        timer = threading.Timer(1, db.commit)
        timer.start()
        with pytest.raises(TransientError, match="renamed or dropped"):
            rig.run(1)
        timer.join()
    with pytest.raises(PermanentError):
        rig.run(1)


def test_a_column_that_never_was_stays_a_mistake(rig: Rig, tmp_path: Path) -> None:
    rig.with_extracts(tmp_path / "sql", {STOCK: f"SELECT i.*, i.nada FROM {STOCK} AS i"})
    with pytest.raises(PermanentError, match=rf"the extract of {STOCK}.*42703") as caught:
        rig.run(1)
    assert "Correct the extract" in caught.value.hint


def test_a_lock_that_stays_names_the_table_and_the_session(rig: Rig) -> None:
    settings = rig.settings.model_copy(update={"lock_timeout_seconds": 1})
    with closing(rig.database.connect(application_name="migracion")) as db, db.cursor() as cursor:
        cursor.execute(f"LOCK TABLE {STOCK}, {VISITS} IN ACCESS EXCLUSIVE MODE")
        began = time.monotonic()
        with pytest.raises(TransientError, match=f"{VISITS}, {STOCK}") as caught:
            rig.run(1, settings=settings)
        # One wait in all, and not one for each table.
        assert time.monotonic() - began < 3
        assert f"process {db.info.backend_pid}" in caught.value.message
        assert "LOCK TABLE" not in str(caught.value)


def test_a_migration_of_several_tables_never_dies_of_a_deadlock_with_a_backup(rig: Rig) -> None:
    with closing(rig.database.connect()) as db, db.cursor() as cursor:
        cursor.execute("SET deadlock_timeout = '200ms'")
        cursor.execute(f"ALTER TABLE {STOCK} ADD COLUMN uno int")
        done: list[BackupRecord] = []
        thread = threading.Thread(target=lambda: done.append(rig.run(1)))
        thread.start()
        for table in (FIRST, VISITS, PATIENTS):
            time.sleep(0.4)
            cursor.execute(f"ALTER TABLE {table} ADD COLUMN dos int")
        db.commit()
        thread.join(60)
    assert rig.open(done[0]).tables == rig.rows_now(1)


class SlowStore(FileStore):
    """Takes its time for each archive, after the last byte was handed to it."""

    def put(self, key, source, **options):  # type: ignore[no-untyped-def]
        info = super().put(key, source, **options)
        if key.endswith(".age"):
            time.sleep(4)
        return info


def test_locks_end_with_the_reading_and_not_with_the_upload(rig: Rig, tmp_path: Path) -> None:
    rig.store = SlowStore(tmp_path / "slow")
    rig.store.make_place()
    rig.run(2)
    other = Beside(rig, f"ALTER TABLE {STOCK} ADD COLUMN uno int")
    began = time.monotonic()
    record = rig.run(1, on_progress=once(lambda progress: progress.table == LAST, other.start))
    took = time.monotonic() - began
    other.wait()
    assert record.state == "completed"
    assert took > 4
    assert other.seconds is not None
    assert other.seconds < 2.5


def test_a_store_that_is_the_brake_holds_locks_for_a_bounded_time(rig: Rig, tmp_path: Path) -> None:
    folder = tmp_path / "sql"
    settings = rig.settings.model_copy(update={"read_seconds": 1})
    with rig.gate(folder, STOCK):
        began = time.monotonic()
        with pytest.raises(TransientError, match="longer than 1 seconds") as caught:
            rig.run(1, settings=settings.model_copy(update={"sql_dir": folder}))
    assert time.monotonic() - began < 10
    assert "CLINIC_BACKUPS_READ_SECONDS" in caught.value.hint
    assert rig.objects() == []


def test_the_locks_of_an_exported_snapshot_can_be_shared(rig: Rig) -> None:
    queries = {
        name: text.replace("{{ clinic_id }}", "1") for name, text in SqlFolder(rig.settings.sql_dir).extracts().items()
    }
    clinic_db = connections.parse("clinic_db", rig.database.reader_uri)
    with Snapshot(clinic_db, reads=queries) as first:
        ((name,),) = first.rows("SELECT pg_export_snapshot()", None, "exporting")
        rig.execute(f"DELETE FROM {STOCK}")
        with Snapshot(clinic_db, reads=queries, same_as=name) as second:
            tables = second.tables([STOCK])
            rows: list[bytes] = []
            second.copy(tables[STOCK], queries[STOCK], rows.append)
            second.prove()
        assert rows
        first.prove()


def test_an_older_snapshot_is_not_believed_of_a_table_that_was_emptied_before_its_lock(rig: Rig) -> None:
    """Where the exporting transaction held no locks."""
    queries = {STOCK: f"SELECT * FROM {STOCK}"}
    clinic_db = connections.parse("clinic_db", rig.database.reader_uri)
    with Snapshot(clinic_db) as first:
        ((name,),) = first.rows("SELECT pg_export_snapshot()", None, "exporting")
        rig.execute(f"TRUNCATE {STOCK} CASCADE")
        with Snapshot(clinic_db, reads=queries, same_as=name) as second:
            second.copy(second.tables([STOCK])[STOCK], queries[STOCK], lambda row: None)
            with pytest.raises(TransientError, match=STOCK):
                second.prove()


def test_whoever_may_not_lock_reads_with_proof(rig: Rig, tmp_path: Path) -> None:
    """Rights on columns alone let a role read and not lock."""
    reader = rig.database.roles.reader
    columns = "id, codigo, nombre, cantidad, precio_unitario, clinica_id"
    rig.execute(f"REVOKE SELECT ON {STOCK} FROM {reader}", f"GRANT SELECT ({columns}) ON {STOCK} TO {reader}")
    clinic_db = connections.parse("clinic_db", rig.database.reader_uri)
    queries = {STOCK: f"SELECT {columns} FROM {STOCK}"}
    with Snapshot(clinic_db, reads=queries) as snapshot:
        with pytest.raises(psycopg2.errors.LockNotAvailable), closing(rig.database.connect()) as db:
            db.cursor().execute(f"SET lock_timeout = '200ms'; TRUNCATE {STOCK} CASCADE")
        assert snapshot.rows(queries[STOCK], None, "reading")
        snapshot.prove()


def test_a_transaction_that_writes_has_the_same_locks_and_proof(rig: Rig) -> None:
    restore_db = connections.parse("restore_db", rig.database.restorer_uri)
    with Workspace(restore_db, reads={STOCK: f"SELECT * FROM {STOCK}"}) as workspace:
        staged = workspace.stage("zz", [("id", "bigint")])
        other = Beside(rig, f"TRUNCATE {STOCK} CASCADE")
        other.start()
        assert other.seconds is None, "it waits"
        workspace.execute(f"UPDATE {PATIENTS} SET notas = notas", "writing")
        assert workspace.rows(f"SELECT count(*) FROM {STOCK}", None, "reading") != [(0,)]
        workspace.prove()
        assert workspace.export()
        workspace.commit()
        other.wait()
    assert staged


def test_a_mistake_in_an_extract_names_the_extract(rig: Rig, tmp_path: Path) -> None:
    rig.with_extracts(tmp_path / "sql", {STOCK: f"SELECT * FROM {STOCK} WHERE id = 'Secreta'"})
    with pytest.raises(PermanentError, match=rf"the extract of {STOCK} \(SQLSTATE 22P02") as caught:
        rig.run(1)
    assert "Secreta" not in str(caught.value)


SYNTAX = {
    "an operator": "clinica_id = = 1,",
    "an end": "clinica_id = 1 AND",
    "a parenthesis": "clinica_id = 1)",
    "a quote": "nombre = 'x",
    "an escape": "nombre = E'\\xFF'",
    "a comment": "clinica_id = 1 /*",
}


@pytest.mark.parametrize("condition", SYNTAX.values(), ids=SYNTAX)
def test_an_extract_that_is_no_sql_is_named(rig: Rig, tmp_path: Path, condition: str) -> None:
    rig.with_extracts(tmp_path / "sql", {STOCK: f"SELECT * FROM {STOCK} WHERE {condition}"})
    with pytest.raises(PermanentError, match=f"the extract of {STOCK}") as caught:
        rig.run(1)
    assert "SyntaxError" in caught.value.message or "E'" in condition


@pytest.mark.parametrize("end", ["; -- all of them", ";\n-- one\n/* two */\n", " -- none; -- two\n;;"])
def test_a_comment_may_follow_the_end_of_an_extract(rig: Rig, tmp_path: Path, end: str) -> None:
    query = f"SELECT * FROM {STOCK} WHERE clinica_id = {{{{ clinic_id }}}} AND nombre <> '; -- x'{end}"
    rig.with_extracts(tmp_path / "sql", {STOCK: query})
    assert rig.run(1).rows[STOCK]


def test_a_table_behind_a_function_is_not_waited_for_while_others_are_locked(rig: Rig, tmp_path: Path) -> None:
    rig.execute(*SHEETS, FUNCTIONS["PL/pgSQL"].format("fichas"))
    rig.with_extracts(tmp_path / "sql", {"public.zz_funcion": "SELECT * FROM public.f({{ clinic_id }})"})
    with closing(rig.database.connect()) as db, db.cursor() as cursor:

        def migrate() -> None:
            cursor.execute("ALTER TABLE public.fichas ADD COLUMN nueva int")

        with pytest.raises(TransientError, match=r"that a function reads.*reading public\.zz_funcion"):
            rig.run(1, on_progress=once(lambda progress: progress.table == FIRST, migrate))
        cursor.execute(f"ALTER TABLE {STOCK} ADD COLUMN nueva int")
        db.commit()
    assert rig.run(1).rows["public.zz_funcion"] == 20


@pytest.mark.parametrize("locked", [False, True])
def test_a_snapshot_whose_owner_is_gone_is_a_passing_failure(rig: Rig, locked: bool) -> None:
    """The connection of a restore may end between its own beginning and that of its reader, or of its safety backup."""
    with Snapshot(rig.clinic_db) as first:
        ((name,),) = first.rows("SELECT pg_export_snapshot()", None, "exporting")
    reads = {"public.comun_clinica": "SELECT * FROM public.comun_clinica"} if locked else None
    with pytest.raises(TransientError, match="snapshot"), Snapshot(rig.clinic_db, same_as=name, reads=reads):
        pass
