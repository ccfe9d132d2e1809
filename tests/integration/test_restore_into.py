"""A restore into a new schema is complete or absent, and never runs a text of the archive."""

from __future__ import annotations

import hashlib
import io
import json
import shutil
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyrage
import pytest

from clinic_backups.base import connections
from clinic_backups.base.backup_facts import ArchiveInfo
from clinic_backups.base.backup_record import BackupRecord
from clinic_backups.base.errors import ClinicBackupsError, IntegrityError, PermanentError, SettingsError
from clinic_backups.base.listening import Listener
from clinic_backups.base.table import Column, ForeignKey, Table
from clinic_backups.restore import archives
from clinic_backups.restore.archives import Archives, Source
from clinic_backups.restore.clinic_restore import ClinicRestore
from clinic_backups.restore.copying.into_report import IntoReport
from clinic_backups.restore.into_schema import IntoRestore
from clinic_backups.restore.manifest_tables import is_possible
from clinic_backups.stores.configured import Stores
from clinic_backups.stores.file import FileStore
from clinic_backups.tenant.tenant_db import Snapshot
from include.demo import database
from tests.integration.test_archive_reader import write
from tests.integration.test_cli import Run, restore_keys, run  # noqa: F401 - a fixture
from tests.postgres_fixtures import DemoDatabase
from tests.rig import Rig

STOCK, USERS, BILLS = "public.inventario_inventario", "public.usuarios_usuario", "public.sistema_pagos_factura"
AUDIT, GROUPS = "public.auditoria_bitacora", "public.usuarios_usuario_groups"


class Annex(Rig):
    """A rig that makes schemas, as the superuser unless a test says otherwise."""

    def uri(self, name: str | None = None) -> str:
        return self.database.postgres.uri(name or self.database.name)

    def into(self, uri: str | None = None, **options: Any) -> IntoRestore:
        return IntoRestore(
            ClinicRestore(
                settings=self.settings,
                restore_db=connections.parse("restore_target", uri or self.uri()),
                archives=Archives(Stores.of(self.store), [pyrage.x25519.Identity.from_str(self.identity)]),
                **options,
            )
        )

    def source(self, record: BackupRecord) -> Source:
        assert record.size_bytes is not None and record.sha256 and record.md5
        info = ArchiveInfo(record.archive_key, record.size_bytes, record.sha256, record.md5)
        return Source(record.backup_id, record.clinic_id, info)

    def rows_in(self, report: IntoReport, uri: str | None = None) -> dict[str, bytes]:
        """Each made table's CSV, in the backup's order, as the clinics' database describes the table."""
        found: dict[str, bytes] = {}
        with Snapshot(self.clinic_db) as snapshot:
            described = snapshot.tables([table.table for table in report.tables])
        with Snapshot(connections.parse("restore_target", uri or self.uri())) as snapshot:
            for made in report.tables:
                rows: list[bytes] = []
                snapshot.copy(described[made.table], f'SELECT * FROM {report.schema}."{made.name}"', rows.append)
                if rows:
                    found[made.table] = b"".join(rows)
        return found

    def schemas(self, name: str | None = None) -> set[str]:
        with closing(self.database.postgres.connect(name or self.database.name)) as db, db.cursor() as cursor:
            cursor.execute("SELECT nspname FROM pg_namespace WHERE nspname !~ '^pg_'")
            return {schema for (schema,) in cursor.fetchall()}

    def keep(self, *tables: tuple[Table, list[list[bytes]]]) -> Source:
        """Store an archive of tables that no database has, as anybody can who has the public key."""
        sealed = io.BytesIO()
        identity = pyrage.x25519.Identity.from_str(self.identity)
        write(sealed, str(identity.to_public()), dict(tables))
        data = sealed.getvalue()
        key = f"backups/7/{hashlib.sha256(data).hexdigest()}.tar.zst.age"
        self.store.put(key, io.BytesIO(data))
        digests = hashlib.sha256(data).hexdigest(), hashlib.md5(data).hexdigest()
        return Source("7-x", 7, ArchiveInfo(key, len(data), *digests))


@pytest.fixture
def annex(demo_database: DemoDatabase, tmp_path: Path) -> Annex:
    return Annex(demo_database, FileStore(tmp_path / "store"))


@pytest.fixture
def empty_database(demo_database: DemoDatabase) -> Iterator[str]:
    """A database without anything."""
    name = f"{demo_database.name}_empty"
    with closing(demo_database.postgres.connect()) as db, db.cursor() as cursor:
        db.autocommit = True
        cursor.execute(f"CREATE DATABASE {name} TEMPLATE template0")
    yield name
    database.drop(demo_database.postgres, name)


def notes(report: IntoReport) -> dict[str, str]:
    return {table.table: " ".join(table.notes) for table in report.tables if table.notes}


def column(name: str, type_: str, **fields: Any) -> Column:
    values: dict[str, Any] = {"not_null": False, "default": None, "identity": "", "generated": None}
    return Column(name, type_, **(values | fields))


class TestWhole:
    def test_a_clinic_beside_itself(self, annex: Annex) -> None:
        record, steps = annex.run(1), list[str]()
        before = annex.rows_now(1)
        report = annex.into(listener=Listener(steps.append)).run(annex.source(record), "clinic_1_look")
        assert annex.rows_in(report) == before == annex.rows_now(1)
        assert {table.table: table.rows for table in report.tables} == record.rows
        assert (report.rows, report.backup_id, report.clinic_id) == (record.rows_total, record.backup_id, 1)
        assert json.loads(json.dumps(report.to_json()))["rows"] == record.rows_total
        assert f"loading {STOCK}: {record.rows[STOCK]:,} of {record.rows[STOCK]:,} rows" in steps
        assert notes(report) == {
            GROUPS: "There is no foreign key to public.auth_group: that table is not in the copy.",
        }
        # The other foreign keys are those of the clinics' own tables.
        keys = (
            "SELECT conrelid::regclass::text, conname, condeferrable, pg_get_constraintdef(oid) FROM pg_constraint"
            " WHERE contype = 'f' AND connamespace = '{}'::regnamespace AND confrelid <> to_regclass('auth_group')"
        )
        own, copied = (
            {tuple(str(value).replace("clinic_1_look.", "") for value in row) for row in annex.execute_rows(text)}
            for text in (keys.format("public"), keys.format("clinic_1_look"))
        )
        assert copied
        assert copied == {row for row in own if f"public.{row[0]}" in record.rows}
        ((tipo, keys, analyzed),) = annex.execute_rows(
            "SELECT (SELECT format_type(atttypid, atttypmod) FROM pg_attribute"
            "         WHERE attrelid = 'clinic_1_look.usuarios_usuario'::regclass AND attname = 'tipo'),"
            " (SELECT count(*) FROM pg_index AS i JOIN pg_class AS c ON c.oid = indrelid"
            "   WHERE indisprimary AND relnamespace = 'clinic_1_look'::regnamespace),"
            " (SELECT bool_and(reltuples >= 0) FROM pg_class"
            "   WHERE relnamespace = 'clinic_1_look'::regnamespace AND relkind = 'r')"
        )
        assert (tipo, keys, analyzed) == ("clinic_1_look.usuarios_tipo", len(report.tables), True)

    def test_a_clinic_in_a_database_without_its_types(self, annex: Annex, empty_database: str) -> None:
        record = annex.run(1)
        report = annex.into(annex.uri(empty_database)).run(annex.source(record), "mirada")
        assert annex.rows_in(report, annex.uri(empty_database)) == annex.rows_now(1)
        assert notes(report)[BILLS] == "Column total is generated and left out: the backup does not hold it."
        assert "clinic_db is not defined here" in " ".join(report.notes)
        # Labels are texts, and numbers are numbers: these come from the archive.
        with closing(annex.database.postgres.connect(empty_database)) as db, db.cursor() as cursor:
            cursor.execute("SELECT enum_range(NULL::mirada.usuarios_tipo)::text")
            assert cursor.fetchone() == ("{administrador,odontologo,recepcionista,auditor}",)
            cursor.execute("INSERT INTO mirada.usuarios_usuario_groups (usuario_id, group_id)"
                           " SELECT min(id), 99 FROM mirada.usuarios_usuario RETURNING id")  # fmt: skip
            (given,) = cursor.fetchone()
            cursor.execute("SELECT max(id) FROM mirada.usuarios_usuario_groups WHERE group_id <> 99")
            assert cursor.fetchone() == (given - 1,)
        assert annex.schemas(empty_database) == {"information_schema", "public", "mirada"}

    def test_the_clinics_database_does_not_answer(self, annex: Annex) -> None:
        record = annex.run(1)
        gone = connections.parse("clinic_db", "postgres://u:p@127.0.0.1:1/x")
        report = annex.into(clinic_db=gone).run(annex.source(record), "copia")
        assert "The clinics' database could not be asked" in " ".join(report.notes)
        assert annex.rows_in(report) == annex.rows_now(1)

    def test_some_tables(self, annex: Annex) -> None:
        source = annex.source(annex.run(1))
        report = annex.into().run(source, "parte", (STOCK, AUDIT))
        assert (
            "There is no foreign key to public.usuarios_usuario: that table is not in the copy." in notes(report)[AUDIT]
        )
        now = annex.rows_now(1)
        assert annex.rows_in(report) == {STOCK: now[STOCK], AUDIT: now[AUDIT]}
        with pytest.raises(SettingsError, match=r"no table public\.nada"):
            annex.into().run(source, "otra", ("public.nada",))
        assert annex.schemas() >= {"parte"}
        assert "otra" not in annex.schemas()

    def test_types_modifiers_and_keys_are_kept(self, annex: Annex) -> None:
        annex.execute(
            'CREATE TYPE public."Mal ""Tipo""" AS ENUM (\'b\', \'a\')', "CREATE DOMAIN public.dom AS text COLLATE \"C\""
        )  # fmt: skip
        types = {
            "numeric(12,2)": b"1.50", "character varying(20)": b"x", "character(3)": b"x  ", "bit(3)": b"101",
            "timestamp(3) with time zone": b"2026-01-02 03:04:05.678+00", "time(0) without time zone": b"01:02:03",
            "numeric(5,1)[]": b'"{1.5,NULL}"', "text": b'""', '"char"': b"c", "jsonb": b'"{""a"": 1}"',
            'public."Mal ""Tipo"""': b"a", "public.dom": b"", "bytea": b"\\x00ff", "double precision": b"0.1",
            'public."Mal ""Tipo"""[]': b'"{b,a}"', "bit varying": b"1", "interval": b"1 day",
        }  # fmt: skip
        columns = [column("id", "bigint", not_null=True), *(column(f"c {type_}", type_) for type_ in types)]
        table = Table("public.todo", tuple(columns), ("id",), ())
        row = b",".join(types.values())
        report = annex.into().run(annex.keep((table, [[b"%d,%s\n" % (n, row) for n in range(1, 400)]])), "tipos")
        assert notes(report) == {}
        found = annex.execute_rows(
            "SET search_path = pg_catalog; SELECT format_type(atttypid, atttypmod) FROM pg_attribute"
            " WHERE attrelid = 'tipos.todo'::regclass AND attnum > 1 ORDER BY attnum"
        )
        assert [type_ for (type_,) in found] == list(types)

    def test_two_tables_of_one_name_and_a_key_of_another_order(self, annex: Annex) -> None:
        annex.execute("CREATE TYPE public.orden AS ENUM ('b', 'a')")
        key = (column("k", "public.orden", not_null=True),)
        source = annex.keep(
            (Table("a.t", key, ("k",), ()), [[b"a\n", b"b\n"]]), (Table("b.t", key, (), ()), [[b"a\n", b"a\n"]])
        )
        report = annex.into().run(source, "dos")
        assert [(table.name, table.rows) for table in report.tables] == [("a_t", 2), ("b_t", 2)]
        assert notes(report) == {"a.t": "Its rows were counted and not read back: they may be ordered otherwise here."}


class TestRefused:
    def test_unfit_names(self, annex: Annex) -> None:
        restore = annex.into("postgres://nobody@127.0.0.1:1/none")
        names = ["", "Mayor", "1a", "a-b", 'a"b', "pg_x", "information_schema", "a" * 64, "ñ", "a b", "a;b", "a\n"]
        for name in names:
            with pytest.raises(SettingsError, match="cannot be the name of the new schema"):
                restore.run(Source("x", 1, ArchiveInfo("k", 1, "", "")), name)

    def test_fit_names(self, annex: Annex) -> None:
        source = annex.source(annex.run(1))
        for name in ("_", "a1_", "a" * 63, "select"):
            assert annex.into().run(source, name, (STOCK,)).schema == name
            assert name in annex.schemas()

    def test_a_schema_that_is_there(self, annex: Annex) -> None:
        source = annex.source(annex.run(1))
        annex.into().run(source, "una", (STOCK,))
        kept = annex.execute_rows("SELECT count(*) FROM una.inventario_inventario")
        with pytest.raises(PermanentError, match="has a schema una already") as caught:
            annex.into().run(source, "una")
        assert "DROP SCHEMA una CASCADE" in caught.value.hint
        for other in ("public", "clinic_backups"):
            with pytest.raises(PermanentError, match=f"has a schema {other} already") as caught:
                annex.into().run(source, other)
            assert "DROP" not in caught.value.hint
        assert annex.execute_rows("SELECT count(*) FROM una.inventario_inventario") == kept

    def test_a_role_that_may_not(self, annex: Annex) -> None:
        source, role = annex.source(annex.run(1)), annex.database.roles.restorer
        with pytest.raises(PermanentError, match=f"The role {role} may not make schemas") as caught:
            annex.into(annex.database.restorer_uri).run(source, "una")
        remedy = f"GRANT CREATE ON DATABASE {annex.database.name} TO {role}"
        assert remedy in caught.value.hint
        annex.execute(remedy)
        report = annex.into(annex.database.restorer_uri).run(source, "una")
        assert annex.rows_in(report) == annex.rows_now(1)

    def test_a_type_that_does_not_take_the_values(self, annex: Annex, empty_database: str) -> None:
        """Of a domain the backup knows the name alone, so the one of this database is taken."""
        table = Table("public.t", (column("a", "public.corto"),), (), ())
        with closing(annex.database.postgres.connect(empty_database)) as db, db, db.cursor() as cursor:
            cursor.execute("CREATE DOMAIN public.corto AS text CHECK (length(VALUE) < 3)")
        with pytest.raises(PermanentError, match=r"loading public\.t") as caught:
            annex.into(annex.uri(empty_database)).run(annex.keep((table, [[b"largo\n"]])), "una")
        assert "becomes text" in caught.value.hint
        assert "una" not in annex.schemas(empty_database)


class TestNothingIsLeft:
    def fails(self, annex: Annex, source: Source, kind: type[ClinicBackupsError], said: str, **options: Any) -> None:
        before = annex.schemas()
        with pytest.raises(kind, match=said):
            annex.into(**options).run(source, "una")
        assert annex.schemas() == before

    @pytest.mark.parametrize("back", [1, 40, 5_000])
    def test_of_a_damaged_archive(self, annex: Annex, back: int, monkeypatch: pytest.MonkeyPatch) -> None:
        """Damaged before the first reading; and between the two that there are of one that does not fit into memory."""
        source = annex.source(annex.run(1))
        path = Path(annex.store.url[7:]) / source.archive.key
        kept = path.read_bytes()
        broken = bytearray(kept)
        broken[-back] ^= 1

        path.write_bytes(broken)
        self.fails(annex, source, IntegrityError, "The archive")
        path.write_bytes(kept)
        monkeypatch.setattr(archives, "KEPT_BYTES", 1_000)
        loading = annex.into()
        real, times = loading._restore.archives.read_in, list[int]()

        def read(*arguments: Any) -> Any:
            times.append(1)
            if len(times) == 2:
                path.write_bytes(broken)
            return real(*arguments)

        loading._restore.archives.read_in = read  # type: ignore[method-assign]
        with pytest.raises(IntegrityError, match="The archive"):
            loading.run(source, "una")
        assert len(times) == 2
        assert "una" not in annex.schemas()

    def test_of_an_archive_of_another_clinic(self, annex: Annex) -> None:
        source = annex.source(annex.run(1))
        self.fails(annex, replace(source, clinic_id=2), IntegrityError, "of clinic 1, not backup .* of clinic 2")

    def test_when_the_rows_are_not_what_they_were(self, annex: Annex) -> None:
        """PostgreSQL takes 01 for a bigint and gives 1 back: no backup of it can have held that."""
        table = Table("public.t", (column("n", "bigint", not_null=True),), ("n",), ())
        self.fails(
            annex, annex.keep((table, [[b"01\n", b"2\n"]])), IntegrityError, "would not be what the backup holds"
        )

    def test_when_a_key_comes_twice(self, annex: Annex) -> None:
        table = Table("public.t", (column("n", "bigint", not_null=True),), ("n",), ())
        self.fails(annex, annex.keep((table, [[b"1\n", b"1\n"]])), PermanentError, "primary key")


class TestHostile:
    """Whoever has the public key and may write to the store makes archives as they like."""

    def test_types(self, annex: Annex) -> None:
        types = [
            "text; DROP TABLE public.comun_clinica; --", "text) ; DROP TABLE public.comun_clinica",
            "text DEFAULT now()",
            "text, b text", 'text"', 'public."x', "int -- ", "int/**/", "text COLLATE evil", "trigger", "anyelement",
            "integer GENERATED ALWAYS AS IDENTITY", "text NOT NULL", "bigint REFERENCES public", "serial", "numeric(",
            "public.nada", "varchar(3)", "TEXT", " text", "text[", "text[][]", "público.tipo", "pg_catalog.int4",
            "setof text", "public.usuarios_paciente%", "text\n", "(3)", "x" * 5000, 'public."a(3)b"',
        ]  # fmt: skip
        columns = [column(f"c{number}", type_) for number, type_ in enumerate(types)]
        table = Table("public.t", (column("a", "bigint", not_null=True), *columns), ("a",), ())
        rows = [b"1" + b",uno" * len(types) + b"\n", b"2" + b"," * len(types) + b"\n"]
        report = annex.into().run(annex.keep((table, [rows])), "una")
        assert [note.split(":")[0] for note in report.tables[0].notes] == [
            f"Column c{n} is text" for n in range(len(types))
        ]
        found = annex.execute_rows("SELECT * FROM una.t ORDER BY a")
        assert found == [(1, *["uno"] * len(types)), (2, *[None] * len(types))]
        assert annex.execute_rows("SELECT count(*) > 0 FROM public.comun_clinica") == [(True,)]

    def test_names(self, annex: Annex) -> None:
        evil = 'x"; DROP TABLE public.comun_clinica; --'
        tables = [f"public.{evil}", "public.%s", '"; --.t', "public.\x1b[2J", "a.b.c"]
        made = [
            (Table(name, (column(evil, "bigint"), column("%(x)s", "text")), (evil,), ()), [[b"1,a\n"]])
            for name in tables
        ]
        report = annex.into().run(annex.keep(*made), "una")
        assert [table.name for table in report.tables] == [evil, "%s", "t", "\x1b[2J", "b.c"]
        found = annex.execute_rows(
            "SELECT count(*) FROM pg_class WHERE relnamespace = 'una'::regnamespace AND relkind = 'r'"
        )
        assert found == [(len(tables),)]
        assert annex.execute_rows("SELECT count(*) > 0 FROM public.comun_clinica") == [(True,)]

    def test_expressions_are_not_run(self, annex: Annex) -> None:
        evil = "(SELECT pg_terminate_backend(pg_backend_pid()))"
        columns = (
            column("a", "bigint", default=evil, identity="always"),
            column("b", f"text DEFAULT {evil}", generated=evil),
        )
        key = ForeignKey(evil, ("a",), f"public.{evil}", (evil,), False, False)
        source = annex.keep((Table("public.t", columns, ("a", "b"), (key,)), [[b"1\n"]]))
        report = annex.into().run(source, "una")
        said = notes(report)["public.t"]
        assert "Column b is generated and left out" in said
        assert "no primary key" in said
        assert annex.execute_rows("SELECT * FROM una.t") == [(1,)]

    def test_labels_and_numbers(self, annex: Annex) -> None:
        """Of the archive come labels of enums, as texts, and that a column is numbered."""
        evil = "a'); DROP TABLE public.comun_clinica; --"

        def described(name: str, *labels: object) -> str:
            listed = [[label, number] for number, label in enumerate(labels)]
            return json.dumps([{"type": name, "oid": 99999, "labels": listed, "attributes": None}])

        types = {
            f'public."{evil}"': described(f'public."{evil}"', evil, "b\\'", "uno"),
            "public.t": described("public.t", "uno", "dos"),  # the name of the table's own type
            "public.largo": described("public.largo", "uno", "x" * 100),
            "public.doble": described("public.doble", "uno", "uno"),
            "text": described("text", "uno"),
            "public.x, y text": described("public.x, y text", "uno"),
            "public.nulo": '[{"type": "public.nulo", "oid": 1, "labels": [["a\\u0000", 1]], "attributes": null}]',
            "public.roto": '[{"type": 7}]',
        }
        columns = [column(f"c{n}", name, definition=text) for n, (name, text) in enumerate(types.items())]
        key = column("a", "bigint", not_null=True, default=f"nextval('{evil}'::regclass)")
        table = Table("public.t", (key, *columns), ("a",), ())
        report = annex.into().run(annex.keep((table, [[b"7" + b",uno" * len(types) + b"\n"]])), "una")
        assert sorted(note[:17] for note in report.tables[0].notes) == [
            f"Column c{n} is text"[:17] for n in (2, 3, 5, 6, 7)
        ]
        found = annex.execute_rows(
            "SELECT t.typname, array_agg(e.enumlabel::text ORDER BY enumsortorder) FROM pg_enum AS e"
            " JOIN pg_type AS t ON t.oid = enumtypid WHERE t.typnamespace = 'una'::regnamespace GROUP BY 1 ORDER BY 1"
        )
        assert dict(found) == {evil: [evil, "b\\'", "uno"], "public_t": ["uno", "dos"]}
        assert annex.execute_rows("INSERT INTO una.t DEFAULT VALUES RETURNING a") == [(8,)]
        assert annex.execute_rows("SELECT count(*) > 0 FROM public.comun_clinica") == [(True,)]

    def test_descriptions_of_no_table(self, annex: Annex) -> None:
        tables = [
            Table("t", (column("a", "text"),), (), ()),
            Table("public.", (column("a", "text"),), (), ()),
            Table("public.t", (column("a\0", "text"),), (), ()),
            Table("public.t", (column("a", "text"), column("a", "text")), (), ()),
            Table("public.t", (column("a", "text"),), ("b",), ()),
            Table("public.t", (column({"a": 1}, "text"),), (), ()),  # type: ignore[arg-type]
            Table("public.t", (column("a", 7),), (), ()),  # type: ignore[arg-type]
        ]
        # The writer cannot write this one, and JSON can.
        assert not is_possible(Table("public.t", (column("\ud800", "text"),), (), ()))
        for table in tables:
            source = annex.keep((_Hashed(**table.__dict__), []))
            with pytest.raises(
                IntegrityError, match=r"that PostgreSQL cannot have|description of a table is not valid"
            ):
                annex.into().run(source, "una")
            assert "una" not in annex.schemas()

    def test_names_that_meet(self, annex: Annex) -> None:
        columns = (column("a", "text"),)
        made = [(Table(name, columns, (), ()), [[b"a\n"]]) for name in ("a.b_c", "x.b_c", "a_b.c", "x.c")]
        with pytest.raises(PermanentError, match="would be called a_b_c"):
            annex.into().run(annex.keep(*made), "una")
        assert annex.into().run(annex.keep(*made), "una", ("a_b.c",)).tables[0].name == "c"


class _Hashed(Table):
    """A table with what JSON may hold in place of texts; found in a dict by itself."""

    __hash__ = object.__hash__


def test_the_command(
    run: Run,  # noqa: F811
    demo_database: DemoDatabase,
    tmp_path: Path,
) -> None:
    identity = tmp_path / "identity"
    keys = restore_keys(run, identity, demo_database)
    annex = Annex(demo_database, FileStore(tmp_path / "store"))
    run("catalog", "migrate")
    run("store", "init")
    for _ in range(2):
        assert run("backup", "--clinic", "1", **keys).code == 0
    newest, oldest = run("list", "--json").json()
    words = ("restore-into", "--clinic", "1", "--identity", str(identity))
    refused = run(*words, "--schema", "mirada", **keys)
    assert (refused.code, "GRANT CREATE ON DATABASE" in refused.err) == (1, True)
    target = keys | {"AIRFLOW_CONN_RESTORE_TARGET": annex.uri()}
    assert run(*words, "--schema", "Mirada", **target).code == 2
    assert run(*words, "--schema", "a", "--archive", "x", "--backup", "y", **target).code == 2
    done = run(*words, "--schema", "mirada", **target)
    assert done.code == 0, done.err
    assert "inventario_inventario" in done.out
    assert "usuarios_usuario_groups: There is no foreign key to public.auth_group" in done.out
    assert "Nothing is masked: include/sql/masks.txt has no lines." in done.out
    assert "patients' data" in done.err
    assert "DROP SCHEMA mirada CASCADE;" in done.err
    masks = tmp_path / "sql"
    shutil.copytree(annex.settings.sql_dir, masks)
    target |= {"CLINIC_BACKUPS_SQL_DIR": str(masks)}
    assert "masks.txt has no lines" in run(*words, "--schema", "velada", "--masked", **target).err
    (masks / "masks.txt").write_text("public.inventario_inventario.nombre: text\n")
    for option, said in {
        "": "nombre (text)",
        "--masked": "nombre (text)",
        "--no-masks": "Nothing is masked, al",
    }.items():
        made = run(*words, "--schema", f"velada{option.replace('-', '_')}", *([option] if option else []), **target)
        assert (made.code, said in made.out) == (0, True), made.err
    # The catalog is gone, and the archive is all there is.
    gone = target | {"AIRFLOW_CONN_BACKUP_CATALOG": "postgres://u:p@127.0.0.1:1/x"}
    archive = f"{(tmp_path / 'store').as_uri()}/{oldest['key']}"
    wrong = run(
        "restore-into", "--clinic", "2", "--identity", str(identity), "--schema", "b", "--archive", archive, **gone
    )
    assert (wrong.code, "is a backup of clinic 1" in wrong.err) == (1, True)
    alone = run(*words, "--schema", "sola", "--archive", archive, "--table", STOCK, "--json", **gone)
    report = alone.json()
    assert (report["backup_id"], report["schema"], len(report["tables"])) == (oldest["backup_id"], "sola", 1)
    named = run(*words, "--schema", "otra", "--backup", oldest["backup_id"], "--table", STOCK, "--json", **target)
    assert named.json()["backup_id"] == oldest["backup_id"] != newest["backup_id"]
