"""Parent tables in everything else: chains, copies, one table alone, the trial, rights, other owners and operators."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from clinic_backups.backup import preflight
from clinic_backups.base.clock import machine_now
from clinic_backups.base.compared_rows import ComparedRows
from clinic_backups.base.errors import PermanentError
from clinic_backups.restore.find_backup import source_of
from clinic_backups.restore.into_schema import IntoRestore
from clinic_backups.restore.request import Wish
from clinic_backups.stores.configured import Stores
from clinic_backups.stores.file import FileStore
from tests.integration.test_consolidate import Desk
from tests.integration.test_trial import trial
from tests.parents import PARENTS, PICTURES, USERS, set_parents, with_parents
from tests.postgres_fixtures import DemoDatabase

NOTED = ("s.auth_user", "s.picture")
GONE = (
    "DELETE FROM s.clinic WHERE id = 1; DELETE FROM s.auth_user WHERE id IN (10, 14);DELETE FROM s.picture WHERE id = 1"
)


def test_incremental_and_consolidated_backups_keep_the_class(demo_database: DemoDatabase, tmp_path: Path) -> None:
    rig = with_parents(demo_database, tmp_path)
    desk = Desk(demo_database, FileStore(tmp_path / "one"))
    desk.settings = desk.settings.model_copy(update={"sql_dir": rig.settings.sql_dir})
    rig.execute(
        "INSERT INTO s.auth_user (id, username) SELECT n, 'u' || n FROM generate_series(1000, 3000) AS n;"
        "INSERT INTO s.membership SELECT 1, n FROM generate_series(1000, 3000) AS n"
    )
    first = desk.next()
    rig.execute("UPDATE s.auth_user SET mail = 'm' WHERE id = 1700")
    second = desk.next()
    third = desk.consolidate(second).record
    assert [record.kind for record in (first, second, third)] == ["full", "incremental", "full"]
    for record in (first, second, third):
        tables = desk.open(record).manifest["tables"]
        assert {table["name"] for table in tables if table.get("class") == "parent"} == {*NOTED}
    before = rig.everything()
    rig.execute("DELETE FROM s.membership WHERE clinic_id = 1; DELETE FROM s.auth_user WHERE id > 1500")
    plan = desk.restored(second)
    assert sum(table.insert for table in plan.tables if table.is_parent) == 1500
    assert rig.everything() == before
    rig.execute("DELETE FROM s.membership WHERE clinic_id = 1; DELETE FROM s.auth_user WHERE id > 1500")
    desk.restored(third)
    assert rig.everything() == before
    rig.execute(f"GRANT CREATE ON DATABASE {demo_database.name} TO {demo_database.roles.restorer}")
    copy = IntoRestore(desk.restore()).run(source_of(third), "look")
    assert {table.table: table.rows for table in copy.tables}["s.auth_user"] == 2004
    assert desk.rebuild(desk.stores.primary)


def test_one_table_needs_its_parents(demo_database: DemoDatabase, tmp_path: Path) -> None:
    rig = with_parents(demo_database, tmp_path)
    record, before = rig.run(1), rig.everything()
    rig.execute("DELETE FROM s.staff WHERE id = 100; DELETE FROM s.auth_user WHERE id = 10")
    (refusal,) = rig.plan(record, tables=("s.staff",)).refusals
    assert "1 rows of s.staff refer to rows of s.auth_user that do not exist" in refusal.message
    assert refusal.hint == "Restore s.auth_user with it."
    rig.bring_back(record, tables=("s.staff", "s.auth_user"))
    assert rig.everything() == before


def test_live_goes_on_if_somebody_brings_the_user_back(demo_database: DemoDatabase, tmp_path: Path) -> None:
    """The row appears between the comparison and the writing: the restore compares again."""
    rig = with_parents(demo_database, tmp_path)
    record = rig.run(1)
    rig.execute(GONE)
    plan, once = rig.plan(record, mode="live"), ["INSERT INTO s.auth_user (id, username) VALUES (10, 'other')"]

    def meanwhile(present: object) -> None:
        if once:
            rig.execute(once.pop())

    done = rig.restore().apply(
        rig.source(record), Wish(mode="live"), approved=plan.digest, plan=plan, save=meanwhile
    )  # fmt: skip
    assert {table.table: table.insert for table in done.tables if table.is_parent} == {"s.auth_user": 0, "s.picture": 1}
    assert rig.execute_rows("SELECT username FROM s.auth_user WHERE id = 10") == [("other",)]
    assert len(rig.everything()["s.staff"]) == 4


def test_the_trial_asks_only_for_the_rights_that_a_restore_needs(demo_database: DemoDatabase, tmp_path: Path) -> None:
    rig, role = with_parents(demo_database, tmp_path), demo_database.roles.restorer
    rig.execute(f"REVOKE UPDATE, DELETE ON s.auth_user FROM {role}")
    (found,) = trial(rig)
    assert "Nothing was written to s.auth_user, s.picture: a restore only inserts missing rows" in found.message
    rig.execute(f"REVOKE INSERT, DELETE ON s.picture FROM {role}")
    (found,) = trial(rig)
    assert found.message == f"The role {role} of connection restore_db may not INSERT in s.picture."


def test_a_parent_table_of_a_stranger_is_not_read(demo_database: DemoDatabase, tmp_path: Path) -> None:
    rig = with_parents(demo_database, tmp_path)
    record, role = rig.run(1), f"stranger_{demo_database.name}"
    rig.execute(f"CREATE ROLE {role}; GRANT ALL ON SCHEMA s TO {role}; ALTER TABLE s.picture OWNER TO {role}")
    for act in (lambda: rig.run(1), lambda: rig.plan(record)):
        with pytest.raises(PermanentError, match=rf"The table s\.picture belongs to the role {role}"):
            act()
    assert any("s.picture belongs" in item.message for item in trial(rig))


def test_an_operator_without_its_schema_is_refused(demo_database: DemoDatabase, tmp_path: Path) -> None:
    rig = with_parents(
        demo_database,
        tmp_path,
        more="CREATE EXTENSION citext SCHEMA public; ALTER TABLE s.auth_user ALTER username TYPE public.citext",
        parents=PARENTS | {"auth_user": USERS.replace("WHERE u.id IN", "WHERE u.username <> 'x' AND u.id IN")},
    )
    with pytest.raises(PermanentError, match=r"(?s)s\.auth_user.*citext"):
        rig.run(1)


def test_what_the_preflight_has_compared_is_not_compared_again(demo_database: DemoDatabase, tmp_path: Path) -> None:
    rig, told = with_parents(demo_database, tmp_path), list[ComparedRows]()
    preflight.run(
        settings=rig.settings, clinic_db=lambda: rig.clinic_db, stores=lambda: Stores.of(rig.store), now=machine_now,
        catalog_version=lambda: None, on_compared=told.append,
    )  # fmt: skip
    assert told[0].tables >= {*NOTED, "s.staff"}
    # A table that changed after the preflight is not looked at again in the same run.
    rig.execute("INSERT INTO s.picture VALUES (9, 'late.png'); UPDATE s.auth_user SET picture_id = 9 WHERE id = 10")
    set_parents(rig, PARENTS)
    spoiled = PARENTS | {"picture": PICTURES.replace("WHERE p.id IN", "WHERE p.id <> 9 AND p.id IN")}
    request = replace(rig.request(1), compared=told[0])
    rig.backup().run(request)
    set_parents(rig, spoiled)
    with pytest.raises(PermanentError, match="refers in picture_id"):
        rig.backup().run(request)
