"""Definitions that a process keeps never hide a change since the previous clinic's backup."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from clinic_backups.base.errors import PermanentError
from clinic_backups.stores.file import FileStore
from clinic_backups.tenant import gate, structure, table_locks
from clinic_backups.tenant.schema_memory import SchemaMemory
from tests.postgres_fixtures import DemoDatabase
from tests.rig import Rig

STOCK = "public.inventario_inventario"
STOCK_SQL = "SELECT t.* FROM public.inventario_inventario AS t WHERE t.clinica_id = {{ clinic_id }}"


@pytest.fixture
def rig(demo_database: DemoDatabase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Rig]:
    memory = SchemaMemory()
    for module in (gate, table_locks):
        monkeypatch.setattr(module, "MEMORY", memory)
    rig = Rig(demo_database, FileStore(tmp_path / "store"))
    memory.is_used()  # the first of a process asks for no version
    rig.run(1)
    yield rig


@pytest.fixture
def looked_up(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What was read of the catalog, and not remembered."""
    found: list[str] = []

    def noting(name: str, real: Callable[..., object]) -> Callable[..., object]:
        def call(*given: object, **named: object) -> object:
            found.append(name)
            return real(*given, **named)

        return call

    monkeypatch.setattr(structure, "read", noting("structure", structure.read))
    monkeypatch.setattr(table_locks.TableLocks, "_mentioned", noting("mentioned", table_locks.TableLocks._mentioned))
    return found


def test_another_clinic_of_the_same_process_asks_for_the_version_alone(rig: Rig, looked_up: list[str]) -> None:
    before = rig.rows_now(2)
    record = rig.run(2)
    assert looked_up == []
    assert rig.open(record).tables == before


CHANGES = {
    "a table that leads to the clinic": (
        "CREATE TABLE public.nueva (id int PRIMARY KEY, clinica_id bigint REFERENCES public.comun_clinica)",
        "public.nueva",
    ),
    "a foreign key to another table": (
        "CREATE TABLE public.nueva (id int PRIMARY KEY, paciente_id bigint);"
        " ALTER TABLE public.nueva ADD FOREIGN KEY (paciente_id) REFERENCES public.usuarios_paciente",
        "public.nueva",
    ),
    "a child by INHERITS": ("CREATE TABLE public.hija () INHERITS (public.inventario_inventario)", "public.hija"),
    "unlogged": (f"ALTER TABLE {STOCK} SET UNLOGGED", "unlogged"),
    "a right that was taken away": (
        f"REVOKE ALL ON {STOCK} FROM PUBLIC; REVOKE ALL ON {STOCK} FROM clinic_backups_reader;"
        " REVOKE ALL ON ALL TABLES IN SCHEMA public FROM clinic_backups_reader",
        "SELECT",
    ),
    "a column of type oid, and a large object": (
        f"ALTER TABLE {STOCK} ADD COLUMN foto oid; SELECT lo_create(4711); UPDATE {STOCK} SET foto = 4711",
        "large objects",
    ),
    "a table that is gone": ("DROP TABLE public.usuarios_usuario_groups", "usuarios_usuario_groups"),
}


@pytest.mark.parametrize(("statements", "said"), CHANGES.values(), ids=CHANGES)
def test_what_changed_since_the_clinic_before_fails_the_next(rig: Rig, statements: str, said: str) -> None:
    rig.execute(statements)
    with pytest.raises(PermanentError, match=said):
        rig.run(2)


def test_a_large_object_alone_is_seen(rig: Rig) -> None:
    rig.execute(f"ALTER TABLE {STOCK} ADD COLUMN foto oid; UPDATE {STOCK} SET foto = 4711")
    rig.run(2)
    rig.run(2)
    rig.execute("SELECT lo_create(4711)")
    with pytest.raises(PermanentError, match="large objects"):
        rig.run(2)


def test_the_folder_is_read_again(rig: Rig, tmp_path: Path) -> None:
    rig.with_extracts(tmp_path / "sql", {STOCK: STOCK_SQL})
    rig.run(2)
    (tmp_path / "sql" / "extract" / "inventario_inventario.sql").unlink()
    with pytest.raises(PermanentError, match=STOCK):
        rig.run(2)


@pytest.mark.parametrize(
    "statement",
    [
        f"ALTER TABLE {STOCK} ADD COLUMN color text DEFAULT 'azul'",
        f"ALTER TABLE {STOCK} ALTER COLUMN cantidad TYPE bigint",
        "ALTER TYPE public.citas_estado ADD VALUE 'otra'",
        f"ALTER TABLE {STOCK} DROP CONSTRAINT inventario_inventario_pkey CASCADE",
    ],
)
def test_new_definitions_are_in_the_next_backup(
    rig: Rig, looked_up: list[str], statement: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    rig.execute(statement)
    record = rig.run(2)
    assert "structure" in looked_up and "mentioned" in looked_up
    for module in (gate, table_locks):
        monkeypatch.setattr(module, "MEMORY", SchemaMemory())
    assert rig.open(record).manifest["tables"] == rig.open(rig.run(2)).manifest["tables"]


def test_what_a_view_reads_by_now_is_locked(rig: Rig, tmp_path: Path) -> None:
    rig.execute(
        f"CREATE VIEW public.existencias AS SELECT * FROM {STOCK}",
        f"CREATE TABLE public.otra AS SELECT * FROM {STOCK}",
        "GRANT SELECT ON public.existencias, public.otra TO PUBLIC",
    )
    view = STOCK_SQL.replace("public.inventario_inventario AS t", "public.existencias AS t")
    rig.with_extracts(tmp_path / "sql", {STOCK: view})
    rig.allow_gaps = True
    rig.run(2)
    rig.run(2)
    rig.execute("CREATE OR REPLACE VIEW public.existencias AS SELECT * FROM public.otra")
    held: list[str] = []

    def note(progress: object) -> None:
        if not held:
            held.extend(
                name
                for (name,) in rig.execute_rows(
                    "SELECT relation::regclass::text FROM pg_locks WHERE locktype = 'relation' AND database <> 0"
                    " AND mode = 'AccessShareLock' AND pid <> pg_backend_pid()"
                )
            )

    rig.run(2, on_progress=note)
    assert "otra" in held


def test_temporary_tables_of_others_are_no_change(rig: Rig, looked_up: list[str]) -> None:
    with closing(rig.database.connect()) as db, db.cursor() as cursor:
        db.autocommit = True
        cursor.execute("CREATE TEMP TABLE t (id serial PRIMARY KEY, nombre text)")
        rig.run(2)
    assert looked_up == []
