"""Rows of a backup that are still in a table which has left the restored table do not come back twice without a word."""

# ruff: noqa: E501 - a schema reads best with one table a line

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from clinic_backups.base.errors import PermanentError
from clinic_backups.base.table import Table
from clinic_backups.restore.request import Wish
from tests.postgres_fixtures import DemoDatabase
from tests.shapes import Shaped, grants, shaped

OWN = "clinic_id = {{ clinic_id }}"
C = "clinic_id int NOT NULL REFERENCES s.clinic"
ROWS = "INSERT INTO s.t SELECT k, 1 + k % 2, 'v' || k FROM generate_series(1, 12) AS k"
PARTED = f"""
    CREATE TABLE s.t (id int, {C}, v text, PRIMARY KEY (id)) PARTITION BY RANGE (id);
    CREATE TABLE s.t1 PARTITION OF s.t FOR VALUES FROM (0) TO (5);
    CREATE TABLE s.t2 PARTITION OF s.t FOR VALUES FROM (5) TO (50); {ROWS}"""
ANOTHER = "CREATE TABLE s.t1b PARTITION OF s.t FOR VALUES FROM (0) TO (5)"
DETACH = "ALTER TABLE s.t DETACH PARTITION s.t1; " + ANOTHER
KEYLESS = PARTED.replace(", PRIMARY KEY (id)", "")
DEEP = f"""
    CREATE TABLE s.t (id int, {C}, v text, PRIMARY KEY (id)) PARTITION BY RANGE (id);
    CREATE TABLE s.t1 PARTITION OF s.t FOR VALUES FROM (0) TO (5) PARTITION BY RANGE (id);
    CREATE TABLE s.t1x PARTITION OF s.t1 FOR VALUES FROM (0) TO (3);
    CREATE TABLE s.t1y PARTITION OF s.t1 FOR VALUES FROM (3) TO (5);
    CREATE TABLE s.t2 PARTITION OF s.t FOR VALUES FROM (5) TO (50); {ROWS}"""
HEIR = f"""
    CREATE TABLE s.t (id int PRIMARY KEY, {C}, v text); CREATE TABLE s.t1 (PRIMARY KEY (id)) INHERITS (s.t);
    INSERT INTO s.t1 VALUES (2, 1, 'v2'), (4, 1, 'v4'); INSERT INTO s.t VALUES (6, 1, 'v6'), (7, 2, 'v7')"""


@dataclass(frozen=True)
class Left:
    """``rows``: how many rows of the clinic are in ``part``, which ``statements`` take out of s.t."""

    ddl: str
    statements: str
    part: str = "s.t1"
    rows: int = 2


CASES = {
    "another partition in its place": Left(PARTED, DETACH),
    "a default partition in its place": Left(
        PARTED, "ALTER TABLE s.t DETACH PARTITION s.t1; CREATE TABLE s.rest PARTITION OF s.t DEFAULT"
    ),
    "renamed afterwards": Left(PARTED, DETACH + "; ALTER TABLE s.t1 RENAME TO old; CREATE SCHEMA s2; ALTER TABLE s.old SET SCHEMA s2", "s2.old"),
    "attached to an archive": Left(
        PARTED,
        DETACH + f"; CREATE TABLE s.archive (id int, {C}, v text) PARTITION BY LIST (clinic_id); ALTER TABLE s.archive ATTACH PARTITION s.t1 DEFAULT",
    ),
    "changed afterwards": Left(PARTED, DETACH + "; UPDATE s.t1 SET v = 'x'; ALTER TABLE s.t ADD w int; ALTER TABLE s.t1 ADD z int"),
    "its key widened, and not the table's": Left(PARTED, DETACH + "; ALTER TABLE s.t1 ALTER id TYPE bigint"),
    "rows without a key": Left(KEYLESS, DETACH),
    "a partition with partitions": Left(DEEP, DETACH),
    "a partition's partition": Left(
        DEEP, "ALTER TABLE s.t1 DETACH PARTITION s.t1x; CREATE TABLE s.t1b PARTITION OF s.t1 FOR VALUES FROM (0) TO (3)", "s.t1x", 1
    ),
}  # fmt: skip


@pytest.mark.parametrize("owner", [True, False], ids=["owner", "role"])
@pytest.mark.parametrize("case", CASES.values(), ids=list(CASES))
def test_rows_that_are_still_in_a_table_which_has_left_are_refused_until_a_line_says_so(
    demo_database: DemoDatabase, tmp_path: Path, case: Left, owner: bool
) -> None:
    rig = shaped(demo_database, tmp_path, case.ddl, {"t": OWN}, owner=owner)
    record = rig.run()
    rig.execute(*case.statements.split(";"), *grants(demo_database))
    if not owner:
        rig.execute(*(text.replace("SCHEMA s ", "SCHEMA s2 ") for text in grants(demo_database) if "s2" in case.part))
    rig.execute("DELETE FROM s.t WHERE id = 6")
    (refusal,) = rig.plan(record).refusals
    many = f"{case.rows} row{'s' if case.rows > 1 else ''} of the backup"
    assert refusal.table == "s.t" and refusal.message.startswith(f"{many}"), refusal
    assert f"still in {case.part}, which was a part of s.t" in refusal.message
    line = f"s.t without {case.part}"
    assert f"`{line}`" in refusal.hint
    (rig.settings.sql_dir / "drift.txt").write_text(line)
    before = rig.execute_rows(f"SELECT t::text FROM {case.part} AS t ORDER BY 1")
    (table,) = [table for table in rig.bring_back(record).tables if table.table == "s.t"]
    assert any(f"in {case.part} too" in note and "(drift.txt)" in note for note in table.notes), table.notes
    assert table.insert == case.rows + 1
    assert rig.execute_rows(f"SELECT t::text FROM {case.part} AS t ORDER BY 1") == before


@pytest.fixture
def parted(demo_database: DemoDatabase, tmp_path: Path) -> Shaped:
    return shaped(demo_database, tmp_path, PARTED, {"t": OWN})


def test_an_heir_that_has_left_still_has_its_rows(demo_database: DemoDatabase, tmp_path: Path) -> None:
    rig = shaped(demo_database, tmp_path, HEIR, {"t": OWN}, owner=True)
    record = rig.backup().run(replace(rig.request(1), allow_gaps=True))
    rig.execute("ALTER TABLE s.t1 NO INHERIT s.t", "DELETE FROM s.t WHERE id = 6")
    (refusal,) = rig.plan(record).refusals
    assert refusal.message.startswith("2 rows of the backup are still in s.t1")
    assert "ALTER TABLE s.t1 INHERIT s.t;" in refusal.hint


def test_the_remedy_is_to_attach_it_again(parted: Shaped) -> None:
    record = parted.run()
    parted.execute(*DETACH.split(";"), *grants(parted.database), "DELETE FROM s.t WHERE id = 6")
    (refusal,) = parted.plan(record).refusals
    assert "ALTER TABLE s.t ATTACH PARTITION s.t1" in refusal.hint
    parted.execute("DROP TABLE s.t1b", "ALTER TABLE s.t ATTACH PARTITION s.t1 FOR VALUES FROM (0) TO (5)")
    (table,) = [table for table in parted.bring_back(record).tables if table.table == "s.t"]
    assert (table.insert, table.notes) == (1, ())


def test_a_clinic_without_rows_there_is_not_refused(parted: Shaped) -> None:
    parted.execute("DELETE FROM s.t WHERE id < 5 AND clinic_id = 1")
    record = parted.run()
    parted.execute(*DETACH.split(";"), *grants(parted.database), "DELETE FROM s.t WHERE id = 6")
    (table,) = [table for table in parted.bring_back(record).tables if table.table == "s.t"]
    assert (table.insert, table.notes) == (1, ())


UNKNOWN = {
    "may not be read": (
        "REVOKE ALL ON s.t1 FROM {role}",
        "The role {role} of connection restore_db may not read it",
        "GRANT SELECT ON s.t1 TO {role};",
    ),
    "is in a schema that may not be used": (
        "GRANT SELECT ON s.t1 TO {role}; CREATE SCHEMA away; ALTER TABLE s.t1 SET SCHEMA away",
        "The role {role} of connection restore_db may not read it",
        "GRANT USAGE ON SCHEMA away TO {role}; GRANT SELECT ON away.t1 TO {role};",
    ),
    "has no key any more": (
        "ALTER TABLE s.t1 DROP id",
        "It lacks columns of s.t by which rows are identified",
        "Make s.t1 a part of s.t again",
    ),
    "has another key": (
        "ALTER TABLE s.t1 ALTER id TYPE numeric",
        "or they have other types",
        "Make s.t1 a part of s.t again",
    ),
}


@pytest.mark.parametrize("case", UNKNOWN)
def test_one_that_cannot_be_compared_is_refused(parted: Shaped, case: str) -> None:
    record, role = parted.run(), parted.database.roles.restorer
    statement, why, hint = (text.format(role=role) for text in UNKNOWN[case])
    parted.execute(*DETACH.split(";"), *grants(parted.database), statement)
    (refusal,) = parted.plan(record).refusals
    assert "it is not known whether rows that would come back into s.t are still there" in refusal.message
    assert why in refusal.message and hint in refusal.hint
    name = "away.t1" if "away" in statement else "s.t1"
    (parted.settings.sql_dir / "drift.txt").write_text(f"s.t without {name}")
    notes = [note for table in parted.plan(record).tables for note in table.notes]
    assert f"Rows that come back may be in {name} too, which was a part of the table (drift.txt)." in notes


def test_one_of_a_stranger_is_not_read(parted: Shaped) -> None:
    record, name = parted.run(), f"stranger_{parted.database.name}"
    parted.execute(
        *DETACH.split(";"), *grants(parted.database), f"CREATE ROLE {name}", f"ALTER TABLE s.t1 OWNER TO {name}"
    )
    try:
        with pytest.raises(PermanentError, match=r"The table s\.t1 belongs to the role"):
            parted.plan(record)
    finally:
        parted.execute("ALTER TABLE s.t1 OWNER TO CURRENT_USER", f"DROP OWNED BY {name}", f"DROP ROLE {name}")


def test_rows_of_a_partition_that_was_detached_after_the_plan_are_left(parted: Shaped) -> None:
    record = parted.run()
    parted.execute("DELETE FROM s.t WHERE id IN (2, 6)")
    plan = parted.plan(record, mode="live")
    assert plan.refusals == () and plan.writes == 2
    parted.execute("INSERT INTO s.t VALUES (2, 1, 'v2')", *DETACH.split(";"), *grants(parted.database))
    parted.restore().apply(parted.source(record), Wish("live"), approved=plan.digest, plan=plan)
    assert parted.execute_rows("SELECT count(*) FROM s.t WHERE id IN (2, 6)") == [(1,)]


def test_a_backup_that_does_not_say_what_partitions_there_were(parted: Shaped, monkeypatch: pytest.MonkeyPatch) -> None:
    made = Table.__init__

    def older(self: Table, *args: object, **named: object) -> None:
        made(self, *args, **named | {"parts": None})  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(Table, "__init__", older)
        record = parted.run()
    parted.execute(*DETACH.split(";"), *grants(parted.database))
    (table,) = [table for table in parted.plan(record).tables if table.table == "s.t"]
    assert table.notes == (
        "The backup does not say which partitions the table had. If one was detached since, rows that it still has come"
        " back a second time.",
    )
