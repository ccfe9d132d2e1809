"""Texts that differ in bytes but are equal by their collation: keys, unique values and domains without regard to case.

Such collations need a PostgreSQL with ICU, which that of the test suite lacks. ``make test-matrix`` runs these with 15.
"""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import psycopg2
import pytest

from clinic_backups.base.errors import PermanentError
from tests.postgres_fixtures import DemoDatabase
from tests.shapes import shaped

OWN = "clinic_id = {{ clinic_id }}"
CI = "CREATE COLLATION s.ci (provider = icu, locale = 'und-u-ks-level2', deterministic = false);"
KINDS = (
    CI
    + """
    CREATE DOMAIN s.word AS text COLLATE s.ci;
    CREATE TABLE s.kind (code {code} PRIMARY KEY, clinic_id int REFERENCES s.clinic, v text);
    CREATE TABLE s.item (id int PRIMARY KEY, clinic_id int REFERENCES s.clinic,
                         code {code} REFERENCES s.kind {action}, note s.word, name text COLLATE s.ci UNIQUE);
    INSERT INTO s.kind VALUES ('Ana', 1, 'x'), ('Bea', 1, 'y'), ('Eva', 2, 'z');
    INSERT INTO s.item VALUES (1, 1, 'Ana', 'Uno', 'Lápiz'), (2, 1, 'ANA', 'Dos', 'Goma'),
                              (3, 2, 'Eva', 'Tres', 'Papel');
"""
)
CODES = {"a column": "text COLLATE s.ci", "a domain": "s.word", "a length": "varchar(9) COLLATE s.ci"}
EXTRACTS = {"kind": OWN, "item": OWN}


@pytest.fixture(autouse=True)
def icu(demo_database: DemoDatabase) -> None:
    with closing(demo_database.connect()) as db, db.cursor() as cursor:
        try:
            cursor.execute("CREATE COLLATION public.tried (provider = icu, locale = 'und')")
        except psycopg2.errors.FeatureNotSupported:
            pytest.skip("this PostgreSQL was built without ICU: make test-matrix has one with it")


@dataclass(frozen=True)
class Damage:
    """``counts``: what the plan inserts, updates and deletes of s.kind and s.item."""

    statements: str
    counts: dict[str, tuple[int, int, int]]
    action: str = ""


DAMAGES = {
    "a key's case": Damage("UPDATE s.kind SET code = upper(code) WHERE code = 'ana'", {"s.kind": (0, 1, 0)}),
    "with rows that a deletion would take along": Damage(
        "UPDATE s.kind SET code = upper(code), v = 'w' WHERE code = 'ana'", {"s.kind": (0, 1, 0)}, "ON DELETE CASCADE"
    ),
    "a reference's case": Damage("UPDATE s.item SET code = lower(code) WHERE clinic_id = 1", {"s.item": (0, 2, 0)}),
    "a domain's case": Damage("UPDATE s.item SET note = upper(note) WHERE clinic_id = 1", {"s.item": (0, 2, 0)}),
    "a unique value's case": Damage("UPDATE s.item SET name = upper(name) WHERE clinic_id = 1", {"s.item": (0, 2, 0)}),
    "unique values that were swapped": Damage(
        "UPDATE s.item SET name = 'x' WHERE id = 1; UPDATE s.item SET name = 'LÁPIZ' WHERE id = 2;"
        " UPDATE s.item SET name = 'GOMA' WHERE id = 1", {"s.item": (0, 2, 0)},
    ),
    "a row that is gone, and one in another case": Damage(
        "DELETE FROM s.kind WHERE code = 'bea'; UPDATE s.kind SET code = 'aNA' WHERE code = 'ana'",
        {"s.kind": (1, 1, 0)},
    ),
    "a row in its place": Damage(
        "DELETE FROM s.kind WHERE code = 'bea'; INSERT INTO s.kind VALUES ('BEA', 1, 'y')", {"s.kind": (0, 1, 0)}
    ),
}  # fmt: skip


@pytest.mark.parametrize("code", CODES)
@pytest.mark.parametrize("name", DAMAGES)
def test_a_text_that_differs_by_case_alone_comes_back(
    demo_database: DemoDatabase, tmp_path: Path, name: str, code: str
) -> None:
    damage = DAMAGES[name]
    rig = shaped(demo_database, tmp_path, KINDS.format(code=CODES[code], action=damage.action), EXTRACTS, owner=True)
    record, before = rig.run(1), rig.everything()
    rig.execute(damage.statements)
    assert rig.everything() != before
    plan = rig.bring_back(record)
    assert {t.table: (t.insert, t.update, t.delete) for t in plan.tables if t.writes} == damage.counts
    assert rig.everything() == before
    assert rig.plan(record).writes == 0


def test_values_that_only_their_index_compares_without_case_come_back_swapped(
    demo_database: DemoDatabase, tmp_path: Path
) -> None:
    ddl = (
        CI
        + """
        CREATE TABLE s.kind (id int PRIMARY KEY, clinic_id int REFERENCES s.clinic, code text, note text);
        CREATE UNIQUE INDEX ON s.kind (code COLLATE s.ci, (note || '') COLLATE s.ci);
        INSERT INTO s.kind VALUES (1, 1, 'Ana', 'x'), (2, 1, 'Bea', 'x')
    """
    )
    rig = shaped(demo_database, tmp_path, ddl, {"kind": OWN}, owner=True)
    record, before = rig.run(1), rig.everything()
    rig.execute("UPDATE s.kind SET code = 'z' WHERE id = 1; UPDATE s.kind SET code = 'ANA', note = 'X' WHERE id = 2")
    rig.execute("UPDATE s.kind SET code = 'BEA' WHERE id = 1")
    rig.bring_back(record)
    assert rig.everything() == before


def test_what_is_missing_is_what_no_row_is_equal_to(demo_database: DemoDatabase, tmp_path: Path) -> None:
    rig = shaped(demo_database, tmp_path, KINDS.format(code=CODES["a column"], action=""), EXTRACTS, owner=True)
    record = rig.run(1)
    rig.execute("UPDATE s.kind SET code = upper(code) WHERE code = 'ana'; DELETE FROM s.kind WHERE code = 'bea'")
    plan = rig.bring_back(record, mode="missing")
    assert {t.table: (t.insert, t.update, t.delete) for t in plan.tables if t.writes} == {"s.kind": (1, 0, 0)}
    assert rig.execute_rows("SELECT code FROM s.kind WHERE clinic_id = 1 ORDER BY code") == [("ANA",), ("Bea",)]


@pytest.mark.parametrize(
    ("statements", "said"),
    [
        ("DELETE FROM s.kind WHERE code = 'bea'; INSERT INTO s.kind VALUES ('BEA', 2, 'y')", "outside of this clinic"),
        ("DELETE FROM s.item WHERE id = 2; INSERT INTO s.item VALUES (4, 2, 'Eva', '', 'GOMA')", "unique values"),
    ],
)  # fmt: skip
def test_what_another_clinic_has_in_another_case_is_refused_in_the_plan(
    demo_database: DemoDatabase, tmp_path: Path, statements: str, said: str
) -> None:
    rig = shaped(demo_database, tmp_path, KINDS.format(code=CODES["a column"], action=""), EXTRACTS, owner=True)
    record = rig.run(1)
    rig.execute(statements)
    assert any(said in refusal.message for refusal in rig.plan(record).refusals)


@pytest.mark.parametrize("column", ["code", "v"])
def test_an_extract_that_changes_the_case_gives_other_values(
    demo_database: DemoDatabase, tmp_path: Path, column: str
) -> None:
    ddl = CI + "CREATE TABLE s.kind (code text COLLATE s.ci PRIMARY KEY, clinic_id int REFERENCES s.clinic,"
    ddl += "v text COLLATE s.ci); INSERT INTO s.kind VALUES ('Ana', 1, 'x')"
    changed = {"code": "upper(code) AS code, clinic_id, v", "v": "code, clinic_id, upper(v) AS v"}[column]
    rig = shaped(demo_database, tmp_path, ddl, {"kind": f"SELECT {changed} FROM s.kind WHERE {OWN}"})
    with pytest.raises(PermanentError, match=f"other values than the table, of 1 rows in {column}"):
        rig.run(1)
