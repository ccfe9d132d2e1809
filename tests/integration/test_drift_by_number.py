"""Columns and tables that exchanged names or were created again are told apart by PostgreSQL's own numbers."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import pytest

from clinic_backups.restore.plan import Refusal
from tests.postgres_fixtures import DemoDatabase
from tests.shapes import Shaped, grants, shaped

OWN = "clinic_id = {{ clinic_id }}"
DDL = """
    CREATE TABLE s.person (
        id int PRIMARY KEY, clinic_id int NOT NULL REFERENCES s.clinic, a text, b text, c int);
    CREATE TABLE s.other (
        id int PRIMARY KEY, clinic_id int NOT NULL REFERENCES s.clinic, a text, b text, c int);
    INSERT INTO s.person VALUES (1, 1, 'a1', 'b1', 10), (2, 1, 'a2', 'b2', 20), (3, 2, 'a3', 'b3', 30);
    INSERT INTO s.other VALUES (1, 1, 'x1', 'y1', 1), (3, 2, 'x3', 'y3', 3)
"""
DAMAGE = "DELETE FROM s.person WHERE id = 1"
LINE = re.compile("`([^`]+)`")


@pytest.fixture
def rig(demo_database: DemoDatabase, tmp_path: Path) -> Shaped:
    return shaped(demo_database, tmp_path, DDL, {"person": OWN, "other": OWN}, owner=True)


def write(rig: Shaped, lines: str) -> None:
    (rig.settings.sql_dir / "drift.txt").write_text(lines)


def proposed(refusal: Refusal) -> str:
    """The lines of the hint, without those of its second sentence."""
    return "\n".join(
        LINE.findall(refusal.hint.partition(" If the names are right")[0].partition(" If s.")[0].partition(" Else")[0])
    )


SWAP = """ALTER TABLE s.person RENAME a TO tmp; ALTER TABLE s.person RENAME b TO a;
          ALTER TABLE s.person RENAME tmp TO b"""


@dataclass(frozen=True)
class Case:
    """``expected``: the row that comes back, once the proposed lines are in drift.txt, followed by ``lines``."""

    migration: str
    message: str
    proposed: str
    expected: str


CASES = {
    "two columns exchanged their names": Case(
        SWAP, "were renamed since the backup, and others have their names: a is b now, b is a now",
        "s.person: a -> a_before\ns.person: b -> a\ns.person: a_before -> b", "(1,1,a1,b1,10)",
    ),
    "three columns went round": Case(
        "ALTER TABLE s.person ADD d text; ALTER TABLE s.person DROP d; ALTER TABLE s.person ADD d text;"
        "ALTER TABLE s.person RENAME a TO d_; ALTER TABLE s.person RENAME b TO a; ALTER TABLE s.person RENAME d TO b;"
        "ALTER TABLE s.person RENAME d_ TO d",
        "a is d now, b is a now", "s.person: a -> d\ns.person: b -> a", "(1,1,a1,b1,10,)",
    ),
    "dropped, and another one took the name": Case(
        "ALTER TABLE s.person DROP a; ALTER TABLE s.person RENAME b TO a; ALTER TABLE s.person ADD b text",
        "b is a now", "s.person: b -> a", "(1,1,b1,10,)",
    ),
    "dropped and made again": Case(
        "ALTER TABLE s.person DROP c; ALTER TABLE s.person ADD c int", "others were created with their names: c",
        "s.person: c (column 5, integer) -> c (column 6, integer)", "(1,1,a1,b1,10)",
    ),
    "added, filled, dropped, renamed": Case(
        "ALTER TABLE s.person ADD c2 bigint; UPDATE s.person SET c2 = c; ALTER TABLE s.person DROP c;"
        "ALTER TABLE s.person RENAME c2 TO c", "others were created with their names: c",
        "s.person: c (column 5, integer) -> c (column 6, bigint)", "(1,1,a1,b1,10)",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES.values(), ids=list(CASES))
def test_names_that_lead_to_another_column_are_refused_until_a_line_says_so(rig: Shaped, case: Case) -> None:
    record = rig.run()
    rig.execute(DAMAGE, *case.migration.split(";"))
    before = rig.everything()
    (refusal,) = rig.plan(record).refusals
    assert case.message in refusal.message
    assert proposed(refusal) == case.proposed
    assert [table.table for table in rig.plan(record, tables=("s.other",)).tables] == ["s.other"]  # no concern of it
    assert rig.everything() == before
    write(rig, case.proposed)
    rig.bring_back(record, ignore_dropped=True)
    assert rig.everything()["s.person"][0] == case.expected
    # What was backed up after the change needs no line, and minds none.
    later = rig.run()
    rig.execute(DAMAGE)
    rig.bring_back(later)
    assert rig.everything()["s.person"][0] == case.expected


@pytest.mark.parametrize(
    "later",
    ["ALTER TABLE s.person DROP c; ALTER TABLE s.person ADD c int", "ALTER TABLE s.person ALTER c TYPE bigint"],
    ids=["made again once more", "retyped"],
)
def test_a_line_is_of_one_change_alone(rig: Shaped, later: str) -> None:
    record = rig.run()
    rig.execute("ALTER TABLE s.person DROP c", "ALTER TABLE s.person ADD c int", DAMAGE)
    write(rig, proposed(*rig.plan(record).refusals))
    assert rig.plan(record).refusals == ()
    rig.execute(*later.split(";"))
    (refusal,) = rig.plan(record).refusals
    assert "others were created with their names: c" in refusal.message


def test_what_was_dropped_and_made_again_may_be_left_out(rig: Shaped) -> None:
    record = rig.run()
    rig.execute(DAMAGE, "ALTER TABLE s.person DROP c", "ALTER TABLE s.person ADD c int DEFAULT 7")
    plan = rig.bring_back(record, ignore_dropped=True)
    assert rig.everything()["s.person"][:2] == ["(1,1,a1,b1,7)", "(2,1,a2,b2,7)"]
    notes = [note for table in plan.tables for note in table.notes]
    assert "Column c was dropped since: its values are left out." in notes


def test_a_generated_column_may_be_made_again(rig: Shaped) -> None:
    rig.execute("ALTER TABLE s.person ADD d int GENERATED ALWAYS AS (c * 2) STORED")
    record = rig.run()
    rig.execute(
        DAMAGE, "ALTER TABLE s.person DROP d", "ALTER TABLE s.person ADD d int GENERATED ALWAYS AS (c * 3) STORED"
    )
    rig.bring_back(record)
    assert rig.everything()["s.person"][0] == "(1,1,a1,b1,10,30)"


def test_tables_that_exchanged_their_names_are_refused_until_lines_say_so(rig: Shaped) -> None:
    record = rig.run()
    rig.execute(
        DAMAGE, "ALTER TABLE s.person RENAME TO tmp", "ALTER TABLE s.other RENAME TO person",
        "ALTER TABLE s.tmp RENAME TO other",
    )  # fmt: skip
    before = rig.everything()
    first, second = rig.plan(record).refusals
    assert {first.table, second.table} == {"s.other", "s.person"}
    assert "others have their names: s.other is s.person now, s.person is s.other now" in first.message
    write(rig, proposed(first))
    rig.bring_back(record)
    assert rig.everything() == before | {"s.other": ["(1,1,a1,b1,10)", *before["s.other"]]}


def test_a_table_that_was_made_again_is_said(rig: Shaped) -> None:
    record = rig.run()
    rig.execute(
        "DROP TABLE s.person", DDL.split(";")[0],
        *grants(rig.database)[1:3],
    )  # fmt: skip
    plan = rig.bring_back(record)
    assert rig.everything()["s.person"] == ["(1,1,a1,b1,10)", "(2,1,a2,b2,20)"]
    (said,) = [note for table in plan.tables for note in table.notes if "created again" in note]
    assert "matched by their names" in said


def test_a_line_that_leads_elsewhere_than_the_database_says_is_not_followed(rig: Shaped) -> None:
    record = rig.run()
    rig.execute(DAMAGE, "ALTER TABLE s.person RENAME a TO x", "ALTER TABLE s.person ADD z text")
    write(rig, "s.person: a -> z")
    (refusal,) = rig.plan(record).refusals
    assert "lacks now: a" in refusal.message
    assert "`s.person: a -> x`" in refusal.hint and "`s.person: a -> z`" not in refusal.hint


def test_another_database_is_matched_by_its_names(rig: Shaped) -> None:
    """As after a dump: numbers and OIDs are others there."""
    rig.execute("ALTER TABLE s.person ADD d text", "ALTER TABLE s.person DROP a")
    record = rig.run()
    rows = rig.everything()
    rig.execute("DROP TABLE s.person", "CREATE TABLE s.person (id int PRIMARY KEY,"
                " clinic_id int NOT NULL REFERENCES s.clinic, b text, c int, d text)",
                *grants(rig.database)[1:3])  # fmt: skip
    rig.bring_back(record)
    assert rig.everything()["s.person"] == rows["s.person"][:2]


def test_parts_of_a_table_may_be_detached_and_attached(demo_database: DemoDatabase, tmp_path: Path) -> None:
    """The numbers are those of the whole table: its parts may have others."""
    rig = shaped(
        demo_database, tmp_path,
        """CREATE TABLE s.t (gone int, id int, clinic_id int NOT NULL REFERENCES s.clinic, n text, PRIMARY KEY (id))
               PARTITION BY RANGE (id);
           ALTER TABLE s.t DROP gone;
           CREATE TABLE s.t1 PARTITION OF s.t FOR VALUES FROM (0) TO (10);
           INSERT INTO s.t VALUES (1, 1, 'x'), (2, 2, 'y')""",
        {"t": OWN}, owner=True,
    )  # fmt: skip
    record = rig.run()
    rig.execute(
        "ALTER TABLE s.t DETACH PARTITION s.t1", "ALTER TABLE s.t ATTACH PARTITION s.t1 FOR VALUES FROM (0) TO (20)",
        "DELETE FROM s.t WHERE id = 1",
    )  # fmt: skip
    plan = rig.bring_back(record)
    assert rig.everything()["s.t1"] == ["(1,1,x)", "(2,2,y)"]
    assert [note for table in plan.tables for note in table.notes] == []


def test_an_incremental_after_a_column_was_made_again_has_the_values_of_the_new_one(rig: Shaped) -> None:
    rig.run()
    rig.execute("ALTER TABLE s.person DROP c", "ALTER TABLE s.person ADD c int", "UPDATE s.person SET c = 7 * id")
    rig.kind = "incremental"
    record = rig.run()
    assert record.kind == "incremental"  # a row's bytes are the same whichever column they come from
    before = rig.everything()
    rig.execute("DELETE FROM s.person WHERE clinic_id = 1")
    rig.bring_back(record)
    assert rig.everything() == before
