"""The view ``respaldo``: its rows, the rights that it needs, and that nothing can be lost through it."""

from __future__ import annotations

from contextlib import closing
from datetime import timedelta
from pathlib import Path
from typing import Any

import psycopg2
import pytest
from alembic import command
from psycopg2 import errors
from sqlalchemy import NullPool, create_engine, text

from clinic_backups.archive.envelope_checks import MAX_NUMBER
from clinic_backups.archive.object_keys import envelope_key_of
from clinic_backups.base import connections
from clinic_backups.base.backup_record import BackupRecord
from clinic_backups.base.errors import PermanentError
from clinic_backups.catalog import migrate
from clinic_backups.catalog.audit import Audit, AuditEntry
from clinic_backups.catalog.backup_list import History
from clinic_backups.catalog.records import Catalog
from clinic_backups.stores.file import FileStore
from tests.fleet import START, Fleet
from tests.integration.test_cli import Run, run  # noqa: F401 - a fixture
from tests.integration.test_rebuild import forge, lose_catalog
from tests.postgres_fixtures import DemoDatabase

APP = "aplicacion de clinicas"
"""A role whose name must be quoted."""
TYPES = {
    "id": "bigint", "clinica_id": "bigint", "tipo": "text", "estado": "text", "nombre_archivo": "text",
    "ruta_nube": "text", "tamano_bytes": "bigint", "hash_md5": "text", "tablas_respaldadas": "jsonb",
    "registros_totales": "bigint", "tiempo_ejecucion": "interval", "fecha_creacion": "timestamp with time zone",
    "fecha_expiracion": "timestamp with time zone", "notas": "text", "error_mensaje": "text",
    "creado_por_id": "bigint", "clinica_nombre": "text", "creado_por_nombre": "text",
    "clinica_clave": "text",
}  # fmt: skip


@pytest.fixture
def database(demo_database: DemoDatabase) -> DemoDatabase:
    """With a completed backup of clinic 1, a failed one of clinic 2 and a running one of clinic 3."""
    catalog = Catalog(connections.parse("backup_catalog", demo_database.catalog_uri))
    for clinic_id in (1, 2, 3):
        record = BackupRecord(
            backup_id=f"{clinic_id}-20260901T060000Z", clinic_id=clinic_id, clinic_name="Clínica", kind="full",
            trigger="manual", state="running", started_at=START, archive_key=f"backups/{clinic_id}/a.age",
            requested_by="ana", run_id=f"web__{clinic_id}",
        )  # fmt: skip
        catalog.begin(record)
    execute(
        demo_database,
        """UPDATE clinic_backups.backup SET state = 'failed', finished_at = started_at + interval '2.5 s', error = 'no'
            WHERE clinic_id = '2'""",
        """UPDATE clinic_backups.backup SET state = 'completed', finished_at = started_at + interval '84 s',
                  expires_at = now(), size_bytes = 10, sha256 = 'ab', md5 = 'cd',
                  rows = '{"public.b": 2, "public.a": 3}'
            WHERE clinic_id = '1'""",
    )
    return demo_database


@pytest.fixture
def app(database: DemoDatabase) -> Any:
    """A role that may do nothing in the catalog; it goes with the test."""
    execute(
        database, f"CREATE ROLE \"{APP}\" LOGIN PASSWORD 'x'", f'GRANT CONNECT ON DATABASE {database.name} TO "{APP}"'
    )
    yield database
    for statement in (f'DROP OWNED BY "{APP}"', f'DROP ROLE "{APP}"'):
        execute(database, statement)


def execute(database: DemoDatabase, *statements: str, **who: Any) -> list[tuple[Any, ...]]:
    """Runs each; returns the rows of the last one, or how many it changed."""
    with closing(database.connect(**who)) as db, db, db.cursor() as cursor:
        for statement in statements:
            cursor.execute(statement)
        return cursor.fetchall() if cursor.description else [(cursor.rowcount,)]


def as_app(database: DemoDatabase, *statements: str) -> list[tuple[Any, ...]]:
    return execute(database, *statements, user=APP, password="x")


def test_its_columns_have_the_types_of_the_applications_model_and_no_gaps(database: DemoDatabase) -> None:
    found = execute(
        database,
        """SELECT attname, format_type(atttypid, atttypmod) FROM pg_attribute
            WHERE attrelid = 'clinic_backups.respaldo'::regclass AND attnum > 0 ORDER BY attnum""",
    )
    assert dict(found) == TYPES
    figures = """SELECT estado, tamano_bytes, hash_md5, tablas_respaldadas, registros_totales, tiempo_ejecucion,
        error_mensaje, creado_por_id, clinica_nombre, creado_por_nombre
        FROM clinic_backups.respaldo ORDER BY clinica_id"""
    assert execute(database, figures) == [
        ("completado", 10, "cd", ["public.a", "public.b"], 5, timedelta(seconds=84), "", None, "Clínica", "ana"),
        ("fallido", 0, "", [], 0, timedelta(seconds=2.5), "no", None, "Clínica", "ana"),
        ("en_proceso", 0, "", [], 0, None, "", None, "Clínica", "ana"),
    ]


@pytest.mark.parametrize("applied", [True, False])
def test_the_command_gives_the_application_what_it_needs_and_no_more(
    app: DemoDatabase,
    run: Run,  # noqa: F811
    applied: bool,
) -> None:
    with pytest.raises(errors.InsufficientPrivilege):
        as_app(app, "SELECT * FROM clinic_backups.respaldo")
    done = run("grant", "respaldo", "--to", APP, *(["--apply"] if applied else []))
    assert (done.code, 'db_table = \'"clinic_backups"."respaldo"\'' in done.out) == (0, True)
    if not applied:
        with pytest.raises(errors.InsufficientPrivilege):
            as_app(app, "SELECT * FROM clinic_backups.respaldo")
        execute(app, done.out)  # as it stands, also with its comments
    assert as_app(app, "SELECT count(*) FROM clinic_backups.respaldo") == [(3,)]
    for forbidden in (
        "SELECT * FROM clinic_backups.backup",
        "DELETE FROM clinic_backups.backup",
        "DELETE FROM clinic_backups.respaldo_rows",
        "TRUNCATE clinic_backups.respaldo",
    ):
        with pytest.raises(psycopg2.Error):
            as_app(app, forbidden)
    for told in (
        "INSERT INTO clinic_backups.respaldo (clinica_id) VALUES (1)",
        "UPDATE clinic_backups.respaldo SET notas = 'x'",
    ):
        with pytest.raises(errors.ObjectNotInPrerequisiteState, match="use its page, its API or its command"):
            as_app(app, told)
    assert as_app(app, "UPDATE clinic_backups.respaldo SET notas = notas") == [(3,)]


@pytest.mark.parametrize("view", ["clinic_backups.respaldo", "public.respaldos_respaldo"])
def test_no_lock_that_is_taken_through_the_view_reaches_the_catalog(
    app: DemoDatabase,
    run: Run,  # noqa: F811
    view: str,
) -> None:
    execute(app, f"GRANT CREATE ON SCHEMA public TO {app.roles.catalog}")
    assert run("grant", "respaldo", "--to", APP, "--synonym", "public.respaldos_respaldo", "--apply").code == 0
    for mode in ("ROW SHARE", "ROW EXCLUSIVE", "SHARE", "EXCLUSIVE", "ACCESS EXCLUSIVE"):
        with pytest.raises(errors.InsufficientPrivilege, match="respaldo_rows"):
            as_app(app, f"LOCK TABLE {view} IN {mode} MODE")
    for strength in ("UPDATE", "NO KEY UPDATE", "SHARE", "KEY SHARE"):
        with pytest.raises(errors.InsufficientPrivilege, match="respaldo_rows"):
            as_app(app, f"SELECT id FROM {view} FOR {strength}")
    # What the application may do holds up no backup, as long as its transaction stays open.
    with closing(app.connect(user=APP, password="x")) as held, held.cursor() as cursor:
        for statement in (
            f"DELETE FROM {view}",
            f"UPDATE {view} SET notas = notas",
            f"UPDATE {view} SET clinica_id = 0",
        ):
            cursor.execute(statement)
        cursor.execute(f"LOCK TABLE {view} IN ACCESS SHARE MODE")
        changed = execute(app, "SET lock_timeout = '200ms'", "LOCK clinic_backups.backup IN SHARE ROW EXCLUSIVE MODE",
                          "UPDATE clinic_backups.backup SET notes = 'x'")  # fmt: skip
    assert changed == [(3,)]


def test_a_list_of_one_clinic_is_read_by_the_index(app: DemoDatabase, run: Run) -> None:  # noqa: F811
    assert run("grant", "respaldo", "--to", APP, "--apply").code == 0
    asked = "EXPLAIN SELECT * FROM clinic_backups.respaldo WHERE clinica_id = 1 ORDER BY fecha_creacion DESC LIMIT 9"
    plan = "\n".join(line for (line,) in as_app(app, "SET enable_seqscan = off", asked))
    assert "Index" in plan and "clinic_number = 1" in plan and "Function Scan on respaldo" not in plan


@pytest.mark.parametrize(
    ("synonym", "says"),
    [
        ("clinic_backups.respaldo", "schema of the catalog"), ("clinic_backups.other", "schema of the catalog"),
        ("public.a.b", "schema.name"), ("public.", "schema.name"), (f"public.{'x' * 64}", "schema.name"),
        ("public.ours", "is there already"), ("public.t", "is there already"), ("public.no_column", "is there already"),
    ],
)  # fmt: skip
def test_no_synonym_takes_the_place_of_something_else(app: DemoDatabase, run: Run, synonym: str, says: str) -> None:  # noqa: F811
    execute(
        app,
        f"GRANT CREATE ON SCHEMA public TO {app.roles.catalog}",
        "CREATE TABLE public.t AS TABLE clinic_backups.respaldo",
        "CREATE TABLE public.no_column ()",
        "CREATE VIEW public.ours AS TABLE clinic_backups.respaldo",
        f"ALTER VIEW public.ours OWNER TO {app.roles.catalog}",
    )
    for apply in ([], ["--apply"]):
        refused = run("grant", "respaldo", "--to", APP, "--synonym", synonym, *apply)
        assert (refused.code, says in refused.err) == (2, True)
    assert execute(app, "SELECT count(*) FROM clinic_backups.respaldo") == [(3,)]


def test_a_view_that_cannot_be_read_afterwards_is_not_made(app: DemoDatabase, run: Run) -> None:  # noqa: F811
    execute(app, "CREATE SCHEMA dental", f"GRANT USAGE, CREATE ON SCHEMA dental TO {app.roles.catalog}")
    command = ("grant", "respaldo", "--to", APP, "--synonym", "dental.respaldo", "--apply")
    refused = run(*command)
    assert (refused.code, f'GRANT USAGE ON SCHEMA "dental" TO "{APP}"' in refused.err) == (1, True)
    assert execute(app, "SELECT to_regclass('dental.respaldo')") == [(None,)]
    execute(app, f'GRANT USAGE ON SCHEMA dental TO "{APP}"')
    assert run(*command).code == 0
    assert as_app(app, "SELECT count(*) FROM dental.respaldo") == [(3,)]


@pytest.mark.parametrize(
    ("place", "was", "path"),
    [
        (' IN DATABASE "{db}"', "dental, public", "dental, public, clinic_backups"),
        ("", '"Mi Clínica", PUBLIC', '"Mi Clínica", public, clinic_backups'),
        (' IN DATABASE "{db}"', "'a;b'", '"a;b", clinic_backups'),
        (' IN DATABASE "{db}"', "clinic_backups, public", "clinic_backups, public"),
    ],
)  # fmt: skip
def test_the_search_path_that_a_role_has_is_kept(
    app: DemoDatabase,
    run: Run,  # noqa: F811
    place: str,
    was: str,
    path: str,
) -> None:
    execute(app, f'ALTER ROLE "{APP}"{place.format(db=app.name)} SET search_path = {was}')
    for _ in range(2):
        printed = run("grant", "respaldo", "--to", APP, "--search-path")
        execute(app, printed.out)
        assert as_app(app, "SHOW search_path") == [(path,)]
    assert "already contains clinic_backups" in printed.out


def test_a_search_path_that_may_not_be_set_says_who_may(app: DemoDatabase, run: Run) -> None:  # noqa: F811
    refused = run("grant", "respaldo", "--to", APP, "--search-path", "--apply")
    assert (refused.code, "a superuser" in refused.err, "ALTER ROLE" in refused.err) == (1, True, True)
    with pytest.raises(errors.InsufficientPrivilege):
        as_app(app, "SELECT count(*) FROM clinic_backups.respaldo")
    statement = " ".join(refused.err.replace("\n", " ").split()).partition("run: ")[2].partition(";")[0]
    as_app(app, statement)
    assert as_app(app, "SHOW search_path") == [('"$user", public, clinic_backups',)]


def test_nothing_is_lost_or_changed_through_it_and_on_delete_succeeds(app: DemoDatabase, run: Run) -> None:  # noqa: F811
    assert run("grant", "respaldo", "--to", APP, "--apply").code == 0
    every = "SELECT * FROM clinic_backups.backup ORDER BY id"
    before = execute(app, every)
    # What Django does for CASCADE and SET_NULL.
    assert as_app(app, "DELETE FROM clinic_backups.respaldo WHERE id IN (SELECT id FROM clinic_backups.respaldo)") == [
        (0,)
    ]
    assert as_app(app, "UPDATE clinic_backups.respaldo SET creado_por_id = NULL, clinica_id = NULL") == [(0,)]
    execute(app, f'GRANT ALL ON clinic_backups.respaldo TO "{APP}"')
    # What is saved as it is was saved.
    assert as_app(app, "UPDATE clinic_backups.respaldo SET notas = notas, tiempo_ejecucion = tiempo_ejecucion") == [
        (3,)
    ]
    for refused in (
        "UPDATE clinic_backups.respaldo SET estado = 'fallido'",
        "UPDATE clinic_backups.respaldo SET ruta_nube = '', clinica_id = NULL",
        "INSERT INTO clinic_backups.respaldo (clinica_id, tipo) VALUES (1, 'manual')",
        "INSERT INTO clinic_backups.respaldo (id) VALUES (1) ON CONFLICT DO NOTHING",
    ):
        with pytest.raises(errors.ObjectNotInPrerequisiteState, match="can only be read"):
            as_app(app, refused)
    with pytest.raises(psycopg2.Error):
        as_app(app, "TRUNCATE clinic_backups.respaldo")
    assert as_app(app, "MERGE INTO clinic_backups.respaldo r USING (SELECT 1) x ON true WHEN MATCHED THEN DELETE") == [
        (0,)
    ]
    # Also where triggers are off: nothing takes their place.
    execute(app, "SET session_replication_role = replica", "DELETE FROM clinic_backups.respaldo")
    assert execute(app, every) == before


def test_a_synonym_and_the_search_path_lead_to_it_and_are_as_safe(app: DemoDatabase, run: Run) -> None:  # noqa: F811
    execute(app, f"GRANT CREATE ON SCHEMA public TO {app.roles.catalog}")
    synonym = ("--synonym", "public.respaldos_respaldo", "--apply")
    for _ in range(2):
        assert run("grant", "respaldo", "--to", APP, *synonym).code == 0
    assert as_app(app, "SELECT count(*) FROM public.respaldos_respaldo") == [(3,)]
    assert as_app(app, "DELETE FROM public.respaldos_respaldo") == [(0,)]
    with pytest.raises(errors.ObjectNotInPrerequisiteState):
        as_app(app, "UPDATE public.respaldos_respaldo SET notas = 'x'")
    printed = run("grant", "respaldo", "--to", APP, "--search-path")
    execute(app, printed.out)
    assert as_app(app, "SELECT count(*) FROM respaldo") == [(3,)]
    assert as_app(app, "SHOW search_path") == [('"$user", public, clinic_backups',)]
    wrong = run("grant", "respaldo", "--to", APP, "--synonym", "respaldos")
    assert (wrong.code, "schema.name" in wrong.err) == (2, True)
    unknown = run("grant", "respaldo", "--to", "nadie", "--apply")
    assert (unknown.code, 'role "nadie" does not exist' in unknown.err) == (1, True)


def test_rights_outlive_the_migration_and_a_view_that_is_made_of_it_is_named(app: DemoDatabase) -> None:
    rights = """SELECT grantee, privilege_type, is_grantable FROM information_schema.table_privileges
                 WHERE table_name = 'respaldo' AND grantee <> grantor ORDER BY 1, 2"""
    columns = """SELECT grantee, column_name, privilege_type FROM information_schema.column_privileges
                  WHERE table_name = 'respaldo' AND privilege_type = 'UPDATE' AND grantee <> grantor"""
    execute(
        app,
        "GRANT SELECT ON clinic_backups.respaldo TO PUBLIC",
        "GRANT SELECT ON clinic_backups.respaldo_rows TO PUBLIC",
        "GRANT USAGE ON SCHEMA clinic_backups TO PUBLIC",
        f'GRANT SELECT, DELETE ON clinic_backups.respaldo TO "{APP}" WITH GRANT OPTION',
        f'GRANT UPDATE (creado_por_id) ON clinic_backups.respaldo TO "{APP}"',
    )
    before = (execute(app, rights), execute(app, columns))
    assert len(before[0]) == 3 and len(before[1]) == 1
    engine = create_engine(app.catalog_uri, poolclass=NullPool)
    with engine.begin() as db:
        command.downgrade(migrate._config(db), "0020-1")
        assert db.execute(
            text("SELECT tiempo_ejecucion FROM clinic_backups.respaldo ORDER BY id DESC")
        ).scalars().all() == [None, 2.5, 84]
        migrate.upgrade(db)
    assert (execute(app, rights), execute(app, columns)) == before
    assert as_app(app, "SELECT count(*) FROM clinic_backups.respaldo") == [(3,)]
    execute(app, "CREATE VIEW public.mis_respaldos AS SELECT id FROM clinic_backups.respaldo")
    with pytest.raises(PermanentError, match=r"depend on it: public\.mis_respaldos") as caught, engine.begin() as db:
        command.downgrade(migrate._config(db), "0020-1")
    assert "--synonym" in caught.value.hint
    assert execute(app, "SELECT count(*) FROM public.mis_respaldos") == [(3,)]


def test_who_asked_is_the_applications_user_that_the_audit_knows(database: DemoDatabase) -> None:
    catalog = Catalog(connections.parse("backup_catalog", database.catalog_uri))
    audit = Audit(catalog.database)
    for action, clinic_id, run_id, user in (
        ("back_up", 1, "web__1", 4), ("restore", 1, "web__1", 5), ("back_up", 2, "web__2", None),
        ("back_up", 3, "web__1", 6), ("back_up", 1, "web__1", 7),
    ):  # fmt: skip
        audit.write(AuditEntry(START, "ana", "administrador", action, clinic_id, run_id=run_id, actor_id=user))
    found = execute(database, "SELECT clinica_id, creado_por_id FROM clinic_backups.respaldo ORDER BY 1")
    assert found == [(1, 4), (2, None), (3, None)]
    entries = History(catalog.database).page(visible=None).entries
    assert {entry.record.clinic_id: entry.asked_by for entry in entries} == dict(found)


def test_numbers_are_the_same_in_a_catalog_that_was_lost(demo_database: DemoDatabase, tmp_path: Path) -> None:
    fleet = Fleet(demo_database, FileStore(tmp_path / "store"))
    numbers = "SELECT clinica_id, id FROM clinic_backups.respaldo ORDER BY 1"
    fleet.execute("SELECT setval('clinic_backups.backup_id_seq', 41)")
    made = [fleet.on_day(0, clinic_id) for clinic_id in (3, 2, 1)]
    before = fleet.execute_rows(numbers)
    assert before == [(1, 44), (2, 43), (3, 42)] and [record.number for record in made] == [42, 43, 44]
    # Somebody who writes into the store takes a number that another backup has, and uses none up.
    forge(fleet, made[2], number=43)
    lose_catalog(fleet)
    fleet.rebuild()
    found = dict(fleet.execute_rows(numbers))
    assert (found[3], len(set(found.values()))) == (42, 3)
    lose_catalog(fleet)
    forge(fleet, made[2], number=44)
    forge(fleet, made[1], number=2**62)
    (report,) = [fleet.rebuild()]
    assert dict(fleet.execute_rows(numbers)) == {1: 44, 3: 42}
    assert [key for key, _ in report.conflicts] == [made[1].archive_key]
    assert fleet.on_day(1, 2).number == 45


def test_no_number_of_an_envelope_stops_the_backups_after_it(demo_database: DemoDatabase, tmp_path: Path) -> None:
    fleet = Fleet(demo_database, FileStore(tmp_path / "store"))
    made = fleet.on_day(0, 1)
    forge(fleet, made, number=MAX_NUMBER - 1)
    lose_catalog(fleet)
    fleet.rebuild()
    later = [fleet.on_day(day, clinic_id) for day in (1, 2) for clinic_id in (1, 2)]
    assert [record.state for record in later] == ["completed"] * 4
    assert all(record.number is not None and record.number >= MAX_NUMBER for record in later)
    lose_catalog(fleet)
    assert fleet.rebuild().conflicts == []


def test_an_envelope_of_before_lacks_the_number_and_is_as_good(demo_database: DemoDatabase, tmp_path: Path) -> None:
    fleet = Fleet(demo_database, FileStore(tmp_path / "store"))
    made = fleet.on_day(0, 1)
    key = envelope_key_of(made.archive_key)
    forge(fleet, made, number=None)
    was = [info for info in fleet.store.list() if info.key == key]
    assert fleet.check().discrepancies == []
    fleet.rebuild()
    assert [info for info in fleet.store.list() if info.key == key] == was
    lose_catalog(fleet)
    fleet.rebuild()
    assert fleet.execute_rows("SELECT count(*) FROM clinic_backups.respaldo") == [(1,)]
