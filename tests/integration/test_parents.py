"""Parent tables in backups: the rows that a clinic's rows refer to go with them, and no others."""

from __future__ import annotations

import json
import re
from pathlib import Path
from types import SimpleNamespace

import pytest

from clinic_backups.base.errors import PermanentError, SettingsError
from clinic_backups.base.findings import Finding
from clinic_backups.tenant.extract import SqlExtract, SqlFolder
from clinic_backups.tenant.tenant_db import Snapshot
from tests.integration.test_gaps import Guard
from tests.parents import EXTRACTS, LISTS, PARENTS, PICTURES, TABLES, USERS, set_parents, with_parents
from tests.postgres_fixtures import DemoDatabase
from tests.shapes import Shaped, shaped


def findings(rig: Shaped, level: str = "error", *, rows: bool = True) -> list[Finding]:
    guard = Guard(rig.database, rig.store)
    guard.settings = guard.settings.model_copy(update={"sql_dir": rig.settings.sql_dir})
    return [
        item for item in guard.errors(level, rows=rows) if item.check in ("rows", "parents", "coverage", "extracts")
    ]


def ids(rows: bytes) -> list[int]:
    return [int(line.split(b",")[0]) for line in rows.splitlines()]


def test_the_rows_that_a_clinic_refers_to_are_in_its_backup(demo_database: DemoDatabase, tmp_path: Path) -> None:
    rig = with_parents(demo_database, tmp_path)
    assert findings(rig) == [] == findings(rig, "warning")
    found = {clinic: rig.open(rig.run(clinic)) for clinic in (1, 2)}
    users = {clinic: ids(opened.tables["s.auth_user"]) for clinic, opened in found.items()}
    pictures = {clinic: ids(opened.tables["s.picture"]) for clinic, opened in found.items()}
    assert users == {1: [10, 11, 13], 2: [11, 12, 13]}
    assert pictures == {1: [1, 2], 2: [2, 3]}
    classes = {table["name"]: table.get("class") for table in found[1].manifest["tables"]}
    assert classes == {
        "s.clinic": None, "s.staff": None, "s.membership": None, "s.auth_user": "parent", "s.picture": "parent"
    }  # fmt: skip


REFERS = r"s\.{}: \d rows? of a backup refers? in {} to a row of s\.{} that the query of this parent table leaves out"
BAD = {
    "a shared user is missing": (
        {"auth_user": f"SELECT q.* FROM ({USERS}) AS q WHERE q.id <> 11", "picture": PICTURES},
        [REFERS.format("staff", "user_id", "auth_user"), REFERS.format("membership", "user_id", "auth_user")],
    ),
    "a parent of a parent is missing": (
        PARENTS | {"picture": "SELECT p.* FROM s.picture AS p WHERE p.id = 1 AND {{ clinic_id }} > 0"},
        [REFERS.format("auth_user", "picture_id", "picture")],
    ),
    "a row that its own table refers to is missing": (
        {"auth_user": f"SELECT q.* FROM ({USERS}) AS q WHERE q.id <> 13", "picture": PICTURES},
        [REFERS.format("auth_user", "boss_id", "auth_user")],
    ),
    "rows of strangers": (
        PARENTS | {"picture": "SELECT p.* FROM s.picture AS p WHERE {{ clinic_id }} > 0"},
        [r"s\.picture: \d rows of this parent table are in the backup of a clinic although no row of that clinic"
         " refers to them"],
    ),
    "a table in no backup": (
        {"auth_user": USERS},
        [r"s\.auth_user: \d rows of this parent table refer in picture_id to a row of s\.picture, which is in no"],
    ),
    "a row twice": (
        PARENTS | {"picture": f"SELECT x.* FROM ({PICTURES}) AS x, generate_series(1, 2)"},
        [r"s\.picture: \d rows are twice in one backup"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_rows_too_few_or_too_many_are_gaps(demo_database: DemoDatabase, tmp_path: Path, name: str) -> None:
    parents, said = BAD[name]
    rig = with_parents(demo_database, tmp_path, parents)
    with pytest.raises(PermanentError) as caught:
        rig.run(1)
    found = "\n".join(item.message for item in findings(rig))
    rig.allow_gaps, stored = True, rig.objects()
    gaps = "\n".join(gap.reason for gap in rig.run(1).gaps)
    for sentence in said:
        assert all(re.search(sentence, text) for text in (caught.value.message, found, gaps))
    assert stored == []


def test_rows_that_no_key_asks_for_can_be_declared(demo_database: DemoDatabase, tmp_path: Path) -> None:
    rig = with_parents(demo_database, tmp_path, BAD["rows of strangers"][0], lists=LISTS + "s.picture: rows, all\n")
    assert findings(rig) == []
    assert ids(rig.open(rig.run(1)).tables["s.picture"]) == [1, 2, 3, 4]


def test_a_column_that_names_clinics_needs_a_line(demo_database: DemoDatabase, tmp_path: Path) -> None:
    rig = with_parents(demo_database, tmp_path, lists="")
    (finding,) = findings(rig)
    assert "its column last_clinic_id refers to rows of s.clinic" in finding.message
    assert "`s.auth_user.last_clinic_id: reason`" in finding.hint
    with pytest.raises(PermanentError, match="last_clinic_id"):
        rig.run(1)


def test_the_check_writes_the_query_of_a_parent_that_is_in_no_backup(
    demo_database: DemoDatabase, tmp_path: Path
) -> None:
    extracts = EXTRACTS | {"staff": f"SELECT t.* -- all\n FROM s.staff AS t\n WHERE {EXTRACTS['staff']};"}
    rig = shaped(demo_database, tmp_path, TABLES.replace("last_clinic_id int REFERENCES s.clinic ON DELETE SET NULL",
                                                         "last_clinic_id int"), extracts, lists=LISTS)  # fmt: skip
    written: dict[str, str] = {}
    for name in ("auth_user", "picture"):
        (warning,) = (item for item in findings(rig, "warning", rows=False) if item.check == "parents")
        assert f"s.{name}, which is in no backup" in warning.message
        (written[name],) = re.findall(rf"parents/s\.{name}\.sql: (.*;)$", warning.hint)
        set_parents(rig, written)
    assert findings(rig) == [] == findings(rig, "warning")
    assert ids(rig.open(rig.run(2)).tables["s.auth_user"]) == [11, 12, 13]
    assert ids(rig.open(rig.run(2)).tables["s.picture"]) == [2, 3]


def test_a_parent_table_needs_a_primary_key(demo_database: DemoDatabase, tmp_path: Path) -> None:
    rig = with_parents(demo_database, tmp_path, more="""
        ALTER TABLE s.picture ADD UNIQUE (id);
        ALTER TABLE s.auth_user DROP CONSTRAINT auth_user_picture_id_fkey;
        ALTER TABLE s.picture DROP CONSTRAINT picture_pkey;
        ALTER TABLE s.auth_user ADD FOREIGN KEY (picture_id) REFERENCES s.picture (id)""")  # fmt: skip
    assert any("s.picture is a parent table without a primary key" in item.message for item in findings(rig))
    with pytest.raises(PermanentError, match=r"s\.picture is a parent table without a primary key"):
        rig.run(1)


def test_a_table_is_in_one_folder_only(demo_database: DemoDatabase, tmp_path: Path) -> None:
    rig = with_parents(demo_database, tmp_path, PARENTS | {"staff": "SELECT * FROM s.staff WHERE {{ clinic_id }} > 0"})
    with pytest.raises(SettingsError, match=r"s\.staff cannot be in .*parents"):
        rig.run(1)


def test_a_changed_query_of_a_parent_is_another_folder(demo_database: DemoDatabase, tmp_path: Path) -> None:
    rig = with_parents(demo_database, tmp_path)
    before = SqlFolder(rig.settings.sql_dir).digest()
    set_parents(rig, PARENTS | {"picture": PICTURES + " "})
    assert SqlFolder(rig.settings.sql_dir).digest() != before


def test_archives_without_parents_say_nothing_of_classes(demo_database: DemoDatabase, tmp_path: Path) -> None:
    rig = with_parents(demo_database, tmp_path, {}, lists=f"{LISTS}s.auth_user: shared, all\n")
    assert '"class"' not in json.dumps(rig.open(rig.run(1)).manifest)


def test_a_parent_table_that_becomes_empty_is_not_suspect(demo_database: DemoDatabase, tmp_path: Path) -> None:
    rig = with_parents(demo_database, tmp_path)
    rig.run(1)
    rig.execute("UPDATE s.auth_user SET picture_id = NULL")
    record = rig.run(1)
    assert (record.rows["s.picture"], record.suspect) == (0, None)


def test_a_row_without_its_parent_is_suspect(demo_database: DemoDatabase, tmp_path: Path) -> None:
    rig = with_parents(demo_database, tmp_path)
    rig.run(1)
    rig.execute("SET session_replication_role = replica; DELETE FROM s.auth_user WHERE id = 10")
    record = rig.run(1)
    assert record.suspect is not None
    assert "staff_user_id_fkey): 1 row points to rows of s.auth_user that do not exist" in record.suspect


def test_airflow_shows_the_queries_and_the_snapshot_locks_the_tables(
    demo_database: DemoDatabase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rig = with_parents(demo_database, tmp_path)
    monkeypatch.setenv("CLINIC_BACKUPS_SQL_DIR", str(rig.settings.sql_dir))
    shown = SqlExtract()(context={"task": SimpleNamespace(clinic={"id": 1})}, jinja_env=None)
    assert "-- s.auth_user\nWITH RECURSIVE" in shown and "-- s.picture\n" in shown
    queries = shown.of(2)
    assert "WHERE clinic_id = 2" in queries["s.auth_user"]
    with Snapshot(rig.clinic_db, reads=queries) as snapshot:
        held = "SELECT relation::regclass::text FROM pg_locks WHERE relation IS NOT NULL AND pid = pg_backend_pid()"
        assert {name for (name,) in snapshot.rows(held, None, "asking for locks")} >= {"s.auth_user", "s.picture"}
