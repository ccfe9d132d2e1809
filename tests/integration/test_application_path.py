"""Functions of the application find their tables by its own search path: those of types, constraints and event triggers."""

# ruff: noqa: E501 - a schema reads best with one table a line

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from clinic_backups.base import connections
from clinic_backups.base.errors import PermanentError
from clinic_backups.restore.into_schema import IntoRestore
from tests.integration.test_restore_outside import OWN, restored
from tests.integration.test_trial import trial
from tests.postgres_fixtures import DemoDatabase
from tests.shapes import Shaped, shaped

ALLOWED = """
    SET LOCAL search_path = s, public;
    CREATE TABLE allowed (v text PRIMARY KEY); INSERT INTO allowed SELECT 'a' || k FROM generate_series(0, 99) k;
    CREATE FUNCTION s.ok(text) RETURNS boolean LANGUAGE plpgsql AS 'BEGIN RETURN EXISTS (SELECT FROM allowed WHERE v = $1); END';
    CREATE FUNCTION s.up(text) RETURNS text LANGUAGE plpgsql IMMUTABLE AS 'BEGIN RETURN (SELECT upper(v) FROM allowed WHERE v = $1); END';
    CREATE DOMAIN s.code AS text CHECK (s.ok(VALUE)); CREATE TYPE s.pair AS (a s.code, b int);
"""
TABLES = {
    "a domain": "CREATE TABLE s.bill (id int PRIMARY KEY, clinic_id int NOT NULL REFERENCES s.clinic, v s.code);",
    "a domain as the key": "CREATE TABLE s.bill (id int UNIQUE, clinic_id int NOT NULL REFERENCES s.clinic, v s.code PRIMARY KEY);",
    "a domain in an array and in a composite type": "CREATE TABLE s.bill (id int PRIMARY KEY, clinic_id int NOT NULL REFERENCES s.clinic, v text, w s.code[] DEFAULT '{a1}', p s.pair DEFAULT '(a1,2)');",
    "a generated column in the key": "CREATE TABLE s.bill (id int NOT NULL, clinic_id int NOT NULL REFERENCES s.clinic, v text, g text GENERATED ALWAYS AS (s.up(v)) STORED, PRIMARY KEY (g, id), CHECK (s.up(v) = upper(v)));",
}
FILL = "INSERT INTO s.bill (id, clinic_id, v) SELECT k, 1 + k % 2, 'a' || k FROM generate_series(1, 20) AS k"
PATH = "SET LOCAL search_path = s, public"


def in_public(rig: Shaped) -> None:
    """The restoring roles have the application's path, and may read its tables."""
    role = rig.database.roles.restorer
    rig.execute(PATH, f"ALTER ROLE {role} IN DATABASE {rig.database.name} SET search_path = s, public",
                f"GRANT SELECT ON ALL TABLES IN SCHEMA s TO {role}")  # fmt: skip


def copied(rig: Shaped, record: object) -> IntoRestore:
    restore = rig.restore()
    uri = rig.database.postgres.uri(rig.database.name)
    restore.database = connections.parse("restore_target", f"{uri}?options=-csearch_path%3Ds%2Cpublic")
    return IntoRestore(restore)


@pytest.mark.parametrize("what", TABLES)
def test_a_restore_and_a_copy_call_functions_that_look_a_table_up(
    demo_database: DemoDatabase, tmp_path: Path, what: str
) -> None:
    rig = shaped(
        demo_database, tmp_path, f"{ALLOWED}{TABLES[what]}{FILL}", {"bill": OWN}, lists="s.allowed: shared, x\n"
    )
    in_public(rig)
    record, before = rig.run(1), rig.everything()
    assert [found for found in trial(rig) if found.level != "ok"] == []
    rig.execute(PATH, "DELETE FROM s.bill WHERE id IN (2, 4)", "UPDATE s.bill SET v = 'a77' WHERE id = 6")
    restored(rig, record)
    assert rig.everything() == before
    assert copied(rig, record).run(rig.source(record), "a_copy").rows == 11


LOGGED = """
    SET LOCAL search_path = s, public; CREATE TABLE log (v text); GRANT ALL ON log TO PUBLIC;
    CREATE TYPE s.mood AS ENUM ('a1', 'a2'); GRANT USAGE ON TYPE s.mood TO PUBLIC;
    CREATE TABLE bill (id int PRIMARY KEY, clinic_id int NOT NULL REFERENCES clinic, v text, m s.mood DEFAULT 'a1');
    CREATE FUNCTION s.ddl() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN INSERT INTO log VALUES (tg_tag); END';
"""


@contextmanager
def event_trigger(rig: Shaped, event: str = "ddl_command_end") -> Iterator[None]:
    name = f"log_{rig.database.name}"
    rig.execute(PATH, f"CREATE EVENT TRIGGER {name} ON {event} EXECUTE FUNCTION s.ddl()")
    try:
        yield
    finally:
        rig.execute(PATH, f"DROP EVENT TRIGGER {name}")


@pytest.mark.parametrize("event", ["ddl_command_start", "ddl_command_end", "sql_drop"])
@pytest.mark.parametrize("owner", [False, True])
def test_an_event_trigger_finds_its_table(demo_database: DemoDatabase, tmp_path: Path, event: str, owner: bool) -> None:
    rig = shaped(demo_database, tmp_path, f"{LOGGED}{FILL}", {"bill": OWN}, lists="s.log: shared, x\n", owner=owner)
    in_public(rig)
    record, before = rig.run(1), rig.everything()["s.bill"]
    if owner:
        rig.execute(f"ALTER DATABASE {demo_database.name} SET search_path = s, public")
    with event_trigger(rig, event):
        uri = demo_database.postgres.uri(demo_database.name) if owner else ""
        assert [found for found in trial(rig, uri) if found.level != "ok"] == []
        rig.execute(PATH, "DELETE FROM s.bill WHERE id IN (2, 4)", "UPDATE s.bill SET v = 'b', m = 'a2' WHERE id = 6")
        restored(rig, record)
        assert rig.everything()["s.bill"] == before
        assert copied(rig, record).run(rig.source(record), "a_copy").rows == 11
    assert rig.execute_rows("SELECT count(*) > 0 FROM s.log") == [(True,)]


@pytest.mark.parametrize(
    ("unsafe", "body"),
    [
        ("GRANT CREATE ON SCHEMA s TO PUBLIC", "INSERT INTO log VALUES (tg_tag)"),
        ("CREATE FUNCTION s.concat(int) RETURNS text LANGUAGE sql AS 'SELECT NULL::text'", "PERFORM s.inner()"),
        ("SELECT", "PERFORM 1 / 0"),
        ("SELECT", "INSERT INTO no_such_table VALUES (1)"),
        ("SELECT", "RAISE check_violation"),
    ],
)
def test_an_event_trigger_that_fails_is_named(
    demo_database: DemoDatabase, tmp_path: Path, unsafe: str, body: str
) -> None:
    """Where another operator could be meant under the application's path, an event trigger does not get it."""
    inner = "CREATE FUNCTION s.inner() RETURNS void LANGUAGE plpgsql AS 'BEGIN INSERT INTO log VALUES (1); END';"
    failing = f"CREATE OR REPLACE FUNCTION s.ddl() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN {body}; END'"
    rig = shaped(demo_database, tmp_path, f"{LOGGED}{inner}{FILL}", {"bill": OWN}, lists="s.log: shared, x\n")
    in_public(rig)
    record, before = rig.run(1), rig.everything()
    rig.execute(PATH, "DELETE FROM s.bill WHERE id = 2", unsafe, failing)
    damaged = rig.everything()
    name, role = f"log_{demo_database.name}", demo_database.roles.restorer
    rig.execute(
        f"CREATE EVENT TRIGGER {name} ON ddl_command_end WHEN TAG IN ('CREATE VIEW', 'CREATE TABLE', 'CREATE TABLE AS') EXECUTE FUNCTION s.ddl()"
    )
    try:
        errors = [found for found in trial(rig) if found.level == "error"]
        with pytest.raises(PermanentError) as caught:
            rig.plan(record)
        for said in (*(found.message for found in errors), str(caught.value)):
            assert name in said and "s.ddl" in said and "SQLSTATE" not in said
        assert errors and rig.everything() == damaged
        rig.execute(f"GRANT SET ON PARAMETER session_replication_role TO {role}")
        rig.bring_back(record)
    finally:
        rig.execute(f"DROP EVENT TRIGGER {name}", f"REVOKE SET ON PARAMETER session_replication_role FROM {role}")
    assert rig.everything()["s.bill"] == before["s.bill"]


def test_a_function_without_schemas_that_planning_calls_is_explained(
    demo_database: DemoDatabase, tmp_path: Path
) -> None:
    """The usual recipe around unaccent(): the function finds what it calls only in the application's own path."""
    tables = """
        CREATE FUNCTION s.plain(int) RETURNS int IMMUTABLE LANGUAGE sql AS 'SELECT $1';
        CREATE FUNCTION s.part(int) RETURNS int IMMUTABLE LANGUAGE sql AS 'SELECT plain($1)';
        CREATE TABLE s.bill (id int, clinic_id int NOT NULL REFERENCES s.clinic) PARTITION BY RANGE (s.part(id));
        CREATE TABLE s.bill_all PARTITION OF s.bill DEFAULT; INSERT INTO s.bill VALUES (1, 1)"""
    rig = shaped(demo_database, tmp_path, f"{PATH};{tables}", {"bill": OWN})
    with pytest.raises(PermanentError) as raised:
        rig.run(1)
    assert "ALTER FUNCTION … SET search_path" in str(raised.value)
    rig.execute("ALTER FUNCTION s.part(int) SET search_path = s")
    assert rig.run(1).rows["s.bill"] == 1
