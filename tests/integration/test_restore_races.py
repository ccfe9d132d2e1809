"""Changes that others make during a restore stay, or the restore stops and says why."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from clinic_backups.base.backup_record import BackupRecord
from clinic_backups.base.errors import PermanentError
from clinic_backups.restore.clinic_restore import ClinicChanged
from clinic_backups.restore.plan import RestorePlan
from clinic_backups.restore.request import Wish
from tests.postgres_fixtures import DemoDatabase
from tests.shapes import Shaped, shaped

DDL = """
    CREATE TABLE s.kind (id int PRIMARY KEY, clinic_id int NOT NULL REFERENCES s.clinic, code text UNIQUE);
    CREATE TABLE s.item (id int PRIMARY KEY, clinic_id int NOT NULL REFERENCES s.clinic, kind_id int REFERENCES s.kind,
        v text, CHECK (v <> 'never'));
    CREATE TABLE s.part (id int PRIMARY KEY, item_id int NOT NULL REFERENCES s.item);
    CREATE TABLE s.bag (clinic_id int NOT NULL REFERENCES s.clinic, v text);
    INSERT INTO s.kind VALUES (1, 1, 'a'), (2, 1, 'b'), (3, 2, 'c');
    INSERT INTO s.item VALUES (1, 1, 1, 'x'), (2, 1, 2, 'y'), (3, 2, 3, 'z');
    INSERT INTO s.part VALUES (1, 1), (2, 2), (3, 3);
    INSERT INTO s.bag VALUES (1, 'x'), (1, 'y'), (2, 'z')
"""
OWN = "clinic_id = {{ clinic_id }}"
EXTRACTS = {
    "kind": OWN,
    "item": OWN,
    "part": "item_id IN (SELECT id FROM s.item WHERE clinic_id = {{ clinic_id }})",
    "bag": OWN,
}
LOST = "DELETE FROM s.part WHERE id = 1; DELETE FROM s.item WHERE id = 1; DELETE FROM s.bag WHERE v = 'x'"


@pytest.fixture
def rig(demo_database: DemoDatabase, tmp_path: Path) -> Shaped:
    return shaped(demo_database, tmp_path, DDL, EXTRACTS)


def apply(rig: Shaped, record: BackupRecord, plan: RestorePlan, *meanwhile: str, **wish: Any) -> RestorePlan:
    """Apply a plan; others write after its comparison and before its writing, once."""
    todo = [*meanwhile]

    def save(present: object) -> None:
        while todo:
            rig.execute(todo.pop(0))

    return rig.restore().apply(rig.source(record), Wish(**wish), approved=plan.digest, plan=plan, save=save)


SOME = ("s.kind", "s.item", "s.part")


@pytest.mark.parametrize(("mode", "tables"), [("exact", ()), ("missing", SOME), ("live", SOME)])
@pytest.mark.parametrize(
    "meanwhile",
    [
        "INSERT INTO s.item VALUES (1, 1, 1, 'typed again')",
        "INSERT INTO s.item VALUES (1, 2, 3, 'of another clinic')",
        "INSERT INTO s.kind VALUES (8, 2, 'lost')",
        "DELETE FROM s.kind WHERE id = 1",
    ],
)
def test_who_writes_the_same_at_the_same_moment_never_meets_a_raw_error(
    rig: Shaped, mode: str, tables: tuple[str, ...], meanwhile: str
) -> None:
    rig.execute("INSERT INTO s.kind VALUES (4, 1, 'lost')")
    record = rig.run(1)
    rig.execute(LOST, "DELETE FROM s.kind WHERE id = 4")
    wish: dict[str, Any] = {"mode": mode, "tables": tables}
    plan = rig.plan(record, **wish)
    assert plan.refusals == ()
    try:
        done = apply(rig, record, plan, meanwhile, **wish)
    except PermanentError as error:
        assert mode != "live"
        assert isinstance(error, ClinicChanged) or "is not possible:" in error.message
        assert "SQLSTATE" not in str(error)
        assert rig.execute_rows("SELECT count(*) FROM s.part WHERE id = 1") == [(0,)]
    else:
        assert mode == "live"
        assert "left as they are" in str(done.tables)


@pytest.mark.parametrize("tables", [(), ("s.item", "s.part"), ("s.bag",)], ids=["all", "some", "no key"])
@pytest.mark.parametrize("mode", ["exact", "missing", "live"])
def test_every_combination_that_plans_can_be_applied(rig: Shaped, mode: str, tables: tuple[str, ...]) -> None:
    record, ignore = rig.run(1), "s.item" in tables
    rig.execute(LOST, "UPDATE s.item SET v = 'n' WHERE id = 2")
    if ignore:
        rig.execute("ALTER TABLE s.item DROP COLUMN v")
    wish: dict[str, Any] = {"mode": mode, "tables": tables, "ignore_dropped": ignore}
    plan = rig.plan(record, **wish)
    assert plan.refusals == ()
    assert apply(rig, record, plan, **wish).writes == plan.writes > 0
    assert rig.plan(record, **wish).writes == 0


@pytest.mark.parametrize(
    ("damage", "meanwhile", "stays"),
    [
        (
            "INSERT INTO s.item VALUES (9, 1, 1, 'new')",
            "INSERT INTO s.part VALUES (9, 9)",
            "SELECT count(*) FROM s.item WHERE id = 9",
        ),
        (
            "DELETE FROM s.part WHERE id = 1; DELETE FROM s.item WHERE id = 1",
            "DELETE FROM s.kind WHERE id = 1",
            "SELECT count(*) = 0 FROM s.item WHERE id = 1 UNION SELECT count(*) = 0 FROM s.part WHERE id = 1",
        ),
        (
            "UPDATE s.kind SET code = 'n' WHERE id = 1",
            "INSERT INTO s.kind VALUES (77, 2, 'a')",
            "SELECT code = 'n' FROM s.kind WHERE id = 1",
        ),
        (
            "UPDATE s.kind SET code = 't' WHERE id = 1; UPDATE s.kind SET code = 'a' WHERE id = 2;"
            "UPDATE s.kind SET code = 'b' WHERE id = 1",
            "UPDATE s.kind SET code = 'q' WHERE id = 1; INSERT INTO s.kind VALUES (78, 1, 'b')",
            "SELECT code = 'a' FROM s.kind WHERE id = 2",
        ),
        (
            "DELETE FROM s.part WHERE id = 1; DELETE FROM s.item WHERE id = 1",
            "INSERT INTO s.item VALUES (1, 2, 3, 'of another clinic')",
            "SELECT v = 'of another clinic' FROM s.item WHERE id = 1",
        ),
    ],
    ids=["a child of what goes", "the parent of what comes back", "a unique value", "one row of a swap", "a key"],
)
def test_live_leaves_what_needs_a_row_that_was_left(rig: Shaped, damage: str, meanwhile: str, stays: str) -> None:
    record = rig.run(1)
    # One more change, which can be undone all the same.
    rig.execute(damage, "UPDATE s.item SET v = 'damaged' WHERE id = 2")
    plan = rig.plan(record, mode="live")
    assert plan.refusals == ()
    rig.execute(meanwhile)
    done = apply(rig, record, plan, mode="live")
    assert rig.execute_rows(stays) in ([(True,)], [(1,)])
    assert "left as they are" in str(done.tables)
    assert rig.execute_rows("SELECT v FROM s.item WHERE id = 2") == [("y",)]


@pytest.mark.parametrize("owner", [True, False], ids=["owner", "role"])
@pytest.mark.parametrize("key", ["", "ON UPDATE CASCADE ON DELETE CASCADE"], ids=["no action", "cascade"])
def test_a_value_that_somebody_refers_to_by_now_stays(
    demo_database: DemoDatabase, tmp_path: Path, key: str, owner: bool
) -> None:
    tag = (
        "CREATE TABLE s.tag (id int PRIMARY KEY, clinic_id int NOT NULL REFERENCES s.clinic,"
        f" code text REFERENCES s.kind (code) {key})"
    )
    rig = shaped(demo_database, tmp_path, f"{DDL};{tag}", EXTRACTS | {"tag": OWN}, owner=owner)
    record = rig.run(1)
    rig.execute("UPDATE s.kind SET code = 'n' WHERE id = 1", "UPDATE s.item SET v = 'damaged' WHERE id = 2")
    plan = rig.plan(record, mode="live")
    if plan.refusals:  # a role that may not keep the foreign key from acting
        assert (key, owner) == ("ON UPDATE CASCADE ON DELETE CASCADE", False)
        return
    rig.execute("INSERT INTO s.tag VALUES (1, 1, 'n')")
    done = apply(rig, record, plan, mode="live")
    assert rig.execute_rows("SELECT k.code, t.code FROM s.kind AS k, s.tag AS t WHERE k.id = 1") == [("n", "n")]
    assert "left as they are" in str(done.tables)
    assert rig.execute_rows("SELECT v FROM s.item WHERE id = 2") == [("y",)]
    (refusal,) = rig.plan(record, tables=("s.kind",)).refusals
    told = "1 rows of s.tag refer to values of code of s.kind that the restore would change (tag_code_fkey): 1."
    assert refusal.message == told
