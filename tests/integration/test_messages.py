"""The errors of real failures: the first line and the remedy of each."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from alembic import command
from sqlalchemy import text

from clinic_backups.app import Parts
from clinic_backups.base import connections
from clinic_backups.base.errors import ClinicBackupsError, PermanentError
from clinic_backups.catalog import migrate
from clinic_backups.catalog.records import Catalog
from clinic_backups.restore.workspace import Workspace
from tests.postgres_fixtures import DemoDatabase
from tests.servers import free_ports
from tests.shapes import Shaped, shaped

DDL = """
    CREATE TABLE s.t (id int PRIMARY KEY, clinic_id int REFERENCES s.clinic, n int, v text);
    INSERT INTO s.t VALUES (1, 1, 10, 'x'), (2, 1, 20, 'y'), (3, 2, 30, 'z')
"""
LISTED = "SELECT t.id, t.clinic_id, t.n, t.v FROM s.t AS t WHERE t.clinic_id = {{ clinic_id }}"
PSQL = "Run the rendered extract in psql"


@pytest.fixture
def rig(demo_database: DemoDatabase, tmp_path: Path) -> Shaped:
    return shaped(demo_database, tmp_path, DDL, {"t": LISTED})


def extract(rig: Shaped, query: str) -> None:
    (rig.settings.sql_dir / "extract" / "s.t.sql").write_text(query)


def added_column(rig: Shaped) -> None:
    rig.execute('ALTER TABLE s.t ADD COLUMN email2 text, ADD COLUMN "Otro ""dato" text')
    rig.run(1)


def added_column_in_the_copy(rig: Shaped) -> None:
    rig.execute("ALTER TABLE s.t ADD COLUMN email2 text")
    parts = parts_of(rig)
    with parts_snapshot(parts) as snapshot:
        table = snapshot.tables(["s.t"])["s.t"]
        snapshot.copy(table, LISTED.replace("{{ clinic_id }}", "1"), lambda row: None)


def added_column_in_check(rig: Shaped) -> None:
    rig.execute("ALTER TABLE s.t ADD COLUMN email2 text")
    raise_first(parts_of(rig))


def key_is_not_given(rig: Shaped) -> None:
    extract(rig, "SELECT t.clinic_id, t.n, t.v FROM s.t AS t WHERE t.clinic_id = {{ clinic_id }}")
    rig.run(1)


def wrong_column(rig: Shaped) -> None:
    extract(rig, 'SELECT "r"."nada", r.* FROM s.t AS r WHERE r.clinic_id = {{ clinic_id }}')
    rig.run(1)


def wrong_table(rig: Shaped) -> None:
    extract(rig, "SELECT t.* FROM s.nada AS t WHERE t.clinic_id = {{ clinic_id }}")
    rig.run(1)


def divided(rig: Shaped) -> None:
    extract(rig, "SELECT t.* FROM s.t AS t WHERE t.clinic_id = {{ clinic_id }} AND 1 / (t.n - t.n) = 1")
    rig.run(1)


def writing(statement: str) -> Callable[[Shaped], None]:
    """A restore writes."""

    def go(rig: Shaped) -> None:
        with Workspace(connections.parse("restore_db", rig.database.restorer_uri)) as workspace:
            workspace.execute(statement, "writing s.t")

    return go


def checked(rig: Shaped) -> None:
    rig.execute("ALTER TABLE s.t ADD CONSTRAINT small CHECK (n < 15) NOT VALID")
    writing("UPDATE s.t SET n = 77")(rig)


def dead_catalog(rig: Shaped) -> None:
    port = free_ports(1)[0]
    Catalog(connections.parse("backup_catalog", f"postgresql://u:x@127.0.0.1:{port}/c")).get("1-x")


def dead_catalog_lock(rig: Shaped) -> None:
    port = free_ports(1)[0]
    with Catalog(connections.parse("backup_catalog", f"postgresql://u:x@127.0.0.1:{port}/c")).lock(1):
        pass


def empty_catalog(rig: Shaped) -> None:
    rig.execute("DROP SCHEMA clinic_backups CASCADE")
    rig.catalog.get("1-x")


def failed_migration(rig: Shaped) -> None:
    with rig.catalog.database.transaction("x") as db:
        command.downgrade(migrate._config(db), "0015")
        db.execute(text("ALTER TABLE clinic_backups.approval ADD COLUMN reason int"))
    rig.catalog.migrate()


def migration_without_a_table(rig: Shaped) -> None:
    with rig.catalog.database.transaction("x") as db:
        command.downgrade(migrate._config(db), "0015")
        db.execute(text("ALTER TABLE clinic_backups.approval RENAME TO otra"))
    rig.catalog.migrate()


def denied_catalog(rig: Shaped) -> None:
    reader = rig.database.reader_uri
    rig.execute(f"GRANT USAGE ON SCHEMA clinic_backups TO {rig.database.roles.reader}")
    Catalog(connections.parse("backup_catalog", reader)).get("1-x")


def people(rig: Shaped) -> None:
    (rig.settings.sql_dir / "clinic_admins.sql").write_text("SELECT nada AS email, 'A' AS name")
    list(parts_of(rig).admins([1]))


def clinics(rig: Shaped) -> None:
    (rig.settings.sql_dir / "all_clinics.sql").write_text("SELECT id, nada, 'es' AS language FROM s.clinic")
    parts_of(rig).clinics()


def parts_of(rig: Shaped) -> Parts:
    known = {"clinic_db": rig.clinic_db, "backup_catalog": rig.catalog._connection}
    return Parts(rig.settings, known.get)


def parts_snapshot(parts: Parts) -> Any:
    from clinic_backups.tenant.tenant_db import Snapshot

    return Snapshot(parts.clinic_db)


def raise_first(parts: Parts) -> None:
    """The first error of the preflight about an extract, as one."""
    for finding in parts.preflight():
        if finding.level == "error" and finding.check == "extracts":
            raise ClinicBackupsError(finding.message, hint=finding.hint)


@dataclass(frozen=True)
class Case:
    """What fails, what the first line says, what the remedy says, and what it does not."""

    fails: Callable[[Shaped], None]
    says: str
    hint: str
    never: str = PSQL


GIVES = r"The extract of s\.t does not return the column {}, which the table has\."
ADD = r"Add {} to the columns in s\.t\.sql in include/sql, or write SELECT t\.\* there\."
WITHOUT = r"restore --archive URL.*catalog migrate.*catalog rebuild"
LOST = r"^The catalog cannot be reached\. Connection 'backup_catalog': .*refused"
CASES = [
    Case(added_column, GIVES.format("email2"), ADD.format("email2"), "does not have"),
    Case(added_column_in_the_copy, GIVES.format("email2"), ADD.format("email2"), "does not have"),
    Case(added_column_in_check, GIVES.format("email2"), ADD.format("email2"), "does not have"),
    Case(key_is_not_given, GIVES.format("id"), ADD.format("id"), "does not have"),
    Case(wrong_column, "trying the extract of s.t: .*nada", "names a column that the table does not have"),
    Case(wrong_table, "trying the extract of s.t: .*nada", "Write the table with its schema, as in public.orders"),
    Case(divided, r"reading s\.t|the rows of", PSQL, "Nothing was changed"),
    Case(checked, "writing s.t: constraint small of s.t .SQLSTATE 23514", "Drop or widen the constraint for the time"),
    Case(writing("INSERT INTO s.t VALUES (1, 1, 1, '')"), "constraint t_pkey of s.t", "Change or delete the other row"),
    Case(writing("INSERT INTO s.t VALUES (9, 99, 1, '')"), "t_clinic_id_fkey", "both sides of the foreign key"),
    Case(writing("UPDATE s.t SET id = NULL"), "column id of s.t", "Drop the NOT NULL"),
    Case(writing("DROP TABLE s.t"), "must be owner of table t", "connection restore_db"),
    Case(writing("SELECT 1/0"), "SQLSTATE 22012", "Nothing was changed.*server's log"),
    Case(dead_catalog, LOST, WITHOUT),
    Case(dead_catalog_lock, LOST, WITHOUT),
    Case(empty_catalog, "^The catalog has not been set up", "catalog migrate.*catalog rebuild"),
    Case(
        failed_migration,
        "migrating the catalog.*reason.*already exists",
        "is unchanged.*catalog migrate. again",
    ),
    Case(migration_without_a_table, "migrating the catalog.*does not exist", "catalog is unchanged.*manual changes"),
    Case(denied_catalog, "These belong to another role: the schema", "backup_catalog", "extract|SELECT on the table"),
    Case(people, "running clinic_admins.sql: column .nada. does not exist", "correct it in include/sql", "the extract"),
    Case(clinics, "running all_clinics.sql: column .nada. does not exist", "correct it in include/sql", "the extract"),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.fails.__name__)
def test_the_message_names_the_cause_and_the_remedy(rig: Shaped, case: Case) -> None:
    with pytest.raises(ClinicBackupsError) as caught:
        case.fails(rig)
    assert re.search(case.says, caught.value.message.splitlines()[0]), str(caught.value)
    assert re.search(case.hint, caught.value.hint, re.DOTALL), str(caught.value)
    assert not re.search(case.never, str(caught.value)), str(caught.value)


@pytest.mark.parametrize(
    ("statement", "right"),
    [
        ("REVOKE USAGE ON SCHEMA public FROM {role}, PUBLIC", "GRANT USAGE ON SCHEMA public"),
        ("CREATE FUNCTION public.f() RETURNS int LANGUAGE sql AS 'SELECT 1';"
         "REVOKE ALL ON FUNCTION public.f() FROM PUBLIC",
         "GRANT EXECUTE ON FUNCTION f"),
    ],
)  # fmt: skip
def test_another_right_than_one_on_a_table_is_named(rig: Shaped, statement: str, right: str) -> None:
    rig.execute(statement.format(role=rig.database.roles.reader))
    with parts_snapshot(parts_of(rig)) as snapshot, pytest.raises(PermanentError) as caught:
        snapshot.rows("SELECT public.f()" if "f()" in statement else "SELECT FROM public.comun_clinica", None, "trying")
    assert caught.value.hint.startswith(right), caught.value
