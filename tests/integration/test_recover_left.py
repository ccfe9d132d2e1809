"""``clinic-backups recover``: what cannot be made again over the rows is named with its rows, and stops nothing."""

# ruff: noqa: E501 - a schema reads best with one table a line

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from clinic_backups.recovery import old_rows
from clinic_backups.recovery.session import Session
from tests.integration.test_recover import Target, definitions
from tests.integration.test_recover_migrated import back_up
from tests.integration.test_recover_shapes import alone, made
from tests.postgres_fixtures import DemoDatabase
from tests.shapes import Shaped, shaped

MINE = "t.clinic_id = {{ clinic_id }}"
C = "clinic_id int NOT NULL REFERENCES s.clinic"


@pytest.fixture
def rig(demo_database: DemoDatabase, tmp_path: Path) -> Shaped:
    schema = f"""
        CREATE TABLE s.person (id int PRIMARY KEY, {C}, n int, m int, note text);
        CREATE TABLE s.visit (id int PRIMARY KEY, {C}, person_id int, n int, note text);
        INSERT INTO s.person SELECT i, 1 + i % 2, i, i, 'x' FROM generate_series(1, 6) AS i;
        INSERT INTO s.visit SELECT i, 1 + i % 2, i, i, 'x' FROM generate_series(1, 6) AS i
    """
    return alone(shaped(demo_database, tmp_path, schema, {"person": MINE, "visit": MINE}))


@pytest.fixture
def target(
    rig: Shaped, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Target]:
    yield from made(rig, tmp_path, monkeypatch, capsys)


def extract(rig: Shaped, name: str, text: str = "") -> None:
    rig.execute(f"GRANT SELECT ON ALL TABLES IN SCHEMA s TO {rig.database.roles.reader}")
    text = text or f"SELECT t.* FROM s.{name} AS t WHERE {MINE}"
    (rig.settings.sql_dir / "extract" / f"s.{name}.sql").write_text(text)


def said(report: Any) -> str:
    return "\n".join(each["what"] for each in report["left"])


def finish(rig: Shaped, target: Target, report: Any, *first: str) -> None:
    """After what a person has to do, the statements of the report make the definition whole."""
    target.execute(*first, *(each["sql"] for each in report["left"]))
    assert definitions(rig, target.name) == definitions(rig, rig.database.name)


def test_a_loosened_key_is_named_also_if_another_table_has_a_loose_one_of_its_name(rig: Shaped, target: Target) -> None:
    key = "ADD CONSTRAINT of_whom FOREIGN KEY"
    rig.execute(
        f"UPDATE s.visit SET person_id = 99 WHERE id < 3; ALTER TABLE s.person {key} (m) REFERENCES s.person NOT VALID"
    )
    back_up(
        rig, between=("UPDATE s.visit SET person_id = 1", f"ALTER TABLE s.visit {key} (person_id) REFERENCES s.person")
    )
    report = target.report()
    assert "The foreign key of_whom of s.visit does not hold for 2 rows" in said(report)
    assert "of s.person does not hold" not in said(report)


def test_nothing_is_filled_from_a_view_that_could_not_be_made(rig: Shaped, target: Target) -> None:
    rig.execute(f"CREATE TABLE s.loose (id int, {C}, x int)", "INSERT INTO s.loose VALUES (1, 1, 1), (1, 2, 2)")
    extract(rig, "loose")
    back_up(rig, between=(
        "UPDATE s.loose SET id = x", "ALTER TABLE s.loose ADD PRIMARY KEY (id)",
        "CREATE VIEW s.v AS SELECT id, x, count(*) FROM s.loose GROUP BY id",
        "CREATE MATERIALIZED VIEW s.mv AS SELECT * FROM s.v", "CREATE MATERIALIZED VIEW s.mmv AS SELECT * FROM s.mv",
    ))  # fmt: skip
    report = target.report(code=1)
    for name in ("mv", "mmv"):
        assert f"The materialized view s.{name} was not filled. It reads a view that was not made: s.v." in said(report)
        assert f"s.{name}" not in report["tables"]
    finish(rig, target, report, "UPDATE s.loose SET id = x")
    assert target.rows("SELECT * FROM s.mmv ORDER BY 1") == [(1, 1, 1), (2, 2, 1)]


def test_a_check_that_parent_and_heir_both_define(rig: Shaped, target: Target) -> None:
    rig.execute(
        "CREATE TABLE s.heir (more text) INHERITS (s.visit)", "INSERT INTO s.heir VALUES (9, 1, NULL, -9, 'x', 'y')"
    )
    extract(rig, "visit", f"SELECT t.* FROM ONLY s.visit AS t WHERE {MINE}")
    extract(rig, "heir")
    back_up(rig, before="UPDATE ONLY s.visit SET n = -1 WHERE id = 2", between=(
        "UPDATE s.visit SET n = 1", "ALTER TABLE s.heir ADD CONSTRAINT up CHECK (n > 0)",
        "ALTER TABLE s.visit ADD CONSTRAINT up CHECK (n > 0)",
    ))  # fmt: skip
    report = target.report(code=1)
    assert "The constraint up of s.heir does not hold for 1 row." in said(report)
    assert "The constraint up of s.visit does not hold for 2 rows." in said(report)
    finish(rig, target, report, "UPDATE s.visit SET n = 1")


def test_a_primary_key_of_a_partitioned_table_is_named(rig: Shaped, target: Target) -> None:
    rig.execute(
        f"CREATE TABLE s.part (id int, {C}, n int) PARTITION BY RANGE (n)",
        "CREATE TABLE s.part_1 PARTITION OF s.part FOR VALUES FROM (0) TO (10)",
        "INSERT INTO s.part VALUES (1, 1, 1), (NULL, 2, 2)",
    )
    extract(rig, "part")
    back_up(rig, between=("UPDATE s.part SET id = n", "ALTER TABLE s.part ADD PRIMARY KEY (id, n)"))
    report = target.report(code=1)
    assert "A part of the definition (CONSTRAINT) was not made" in said(report)
    assert any("ADD CONSTRAINT part_pkey PRIMARY KEY" in each["sql"] for each in report["left"])
    finish(rig, target, report, "UPDATE s.part SET id = n")


def test_not_null_of_an_identity_ends_in_a_plain_sentence(rig: Shaped, target: Target) -> None:
    rig.execute("UPDATE s.visit SET n = NULL WHERE id = 2")
    back_up(rig, between=(
        "UPDATE s.visit SET n = id", "ALTER TABLE s.visit ALTER n SET NOT NULL",
        "ALTER TABLE s.visit ALTER n ADD GENERATED BY DEFAULT AS IDENTITY",
        "GRANT SELECT ON ALL SEQUENCES IN SCHEMA s TO clinic_backups_reader",
    ))  # fmt: skip
    code, _, err = target.recover()
    assert code == 1
    assert "column n of s.visit" in " ".join(err.split())
    assert "A migration lies between the two backups." in " ".join(err.split())
    report = target.report("--allow-missing", code=1)
    assert {unit["unit"]: unit["state"] for unit in report["units"]}[2] == "proven"


RAISES = "CREATE FUNCTION s.right_(n int) RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN IF n < 0 THEN RAISE 'no'; END IF; RETURN true; END $$"
READS = "CREATE FUNCTION s.right_(k int) RETURNS boolean LANGUAGE sql AS 'SELECT EXISTS (SELECT FROM s.visit AS v WHERE v.id = k)'"
READS_OR_RAISES = "CREATE FUNCTION s.right_(k int) RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN IF NOT EXISTS (SELECT FROM s.visit AS v WHERE v.id = k) THEN RAISE 'no'; END IF; RETURN true; END $$"


@pytest.mark.parametrize("function", [READS, READS_OR_RAISES], ids=["reads", "reads or raises"])
@pytest.mark.parametrize("by", ["table", "domain"])
def test_a_check_that_reads_another_table(rig: Shaped, target: Target, function: str, by: str) -> None:
    """Without any migration. While rows are loaded, the other table has none yet."""
    rig.execute(function)
    if by == "table":
        rig.execute("ALTER TABLE s.person ADD CONSTRAINT known CHECK (s.right_(n))")
    else:
        rig.execute(
            "CREATE DOMAIN s.known AS int CONSTRAINT known CHECK (s.right_(VALUE))",
            "ALTER TABLE s.person ALTER n TYPE s.known",
        )
    rig.execute("COMMENT ON CONSTRAINT known ON " + ("s.person" if by == "table" else "DOMAIN s.known") + " IS 'x'")
    back_up(rig)
    report = target.report()
    assert report["left"] == []
    assert definitions(rig, target.name) == definitions(rig, rig.database.name)


@pytest.mark.parametrize("by", ["table", "domain"])
def test_a_check_whose_function_raises_for_older_rows_is_named(rig: Shaped, target: Target, by: str) -> None:
    rig.execute("UPDATE s.person SET n = -n WHERE id < 3")
    add = (
        "ALTER TABLE s.person ADD CONSTRAINT known CHECK (s.right_(n))" if by == "table"
        else "CREATE DOMAIN s.known AS int CONSTRAINT known CHECK (s.right_(VALUE)); ALTER TABLE s.person ALTER n TYPE s.known"
    )  # fmt: skip
    back_up(rig, between=("UPDATE s.person SET n = abs(n)", RAISES, add))
    report = target.report(code=1)
    assert target.rows("SELECT count(*) FROM s.person WHERE n < 0") == [(2,)]
    assert (
        f"The constraint known of {'s.person could not be proven' if by == 'table' else 'the domain s.known'}"
        in said(report)
    )
    target.execute(
        "UPDATE s.person SET n = abs(n)",
        *(each["sql"].rpartition(";\n")[2] for each in report["left"] if each["sql"]),
    )
    assert definitions(rig, target.name) == definitions(rig, rig.database.name)


def test_match_full_counts_rows_in_which_only_some_columns_are_null(rig: Shaped, target: Target) -> None:
    rig.execute(
        "ALTER TABLE s.person ADD UNIQUE (n, m)",
        "UPDATE s.visit SET person_id = NULL WHERE id = 1",
        "UPDATE s.visit SET n = NULL, person_id = NULL WHERE id = 2",
    )
    back_up(rig, between=(
        "UPDATE s.visit SET person_id = n", "ALTER TABLE s.visit ADD CONSTRAINT both_ FOREIGN KEY (person_id, n) REFERENCES s.person (n, m) MATCH FULL",
    ))  # fmt: skip
    report = target.report()
    (left,) = [each for each in report["left"] if "both_" in each["what"]]
    assert "does not hold for 1 row" in left["what"]
    assert target.rows(left["sql"].partition(";")[0].replace("t.*", "t.id", 1)) == [(1,)]


@pytest.mark.parametrize(
    "constraint", ["CHECK (n > 0) NO INHERIT", "FOREIGN KEY (n) REFERENCES s.person", "UNIQUE (n)"]
)
def test_rows_of_heirs_do_not_count_where_a_constraint_is_not_inherited(
    rig: Shaped, target: Target, constraint: str
) -> None:
    rig.execute(
        "CREATE TABLE s.heir (more text) INHERITS (s.visit)",
        "INSERT INTO s.heir SELECT i, 1, NULL, -9, 'x', 'y' FROM generate_series(11, 14) AS i",
    )
    extract(rig, "visit", f"SELECT t.* FROM ONLY s.visit AS t WHERE {MINE}")
    extract(rig, "heir")
    back_up(rig, before="UPDATE ONLY s.visit SET n = -9 WHERE id < 3", between=(
        "UPDATE ONLY s.visit SET n = id", f"ALTER TABLE s.visit ADD CONSTRAINT mine {constraint}",
    ))  # fmt: skip
    _, out, err = target.recover("--json")
    assert out, err
    (left,) = [each for each in json.loads(out)["left"] if "mine" in each["what"]]
    assert "does not hold for 2 rows" in left["what"]
    query = left["sql"].partition(";")[0]
    assert len(target.rows(query)) == (1 if constraint.startswith("UNIQUE") else 2)


@pytest.mark.parametrize("name", ["load", "take_away"])
def test_a_deadlock_between_two_units_is_tried_again(
    rig: Shaped, target: Target, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """One loads rows into an heir, and another one takes a constraint away from its parent."""
    real, failing = getattr(old_rows, name), [1, 1]

    def first(connection: Any, *arguments: Any, **options: Any) -> Any:
        if failing:
            failing.pop()
            with Session(connection) as session:
                session.run("DO $$ BEGIN RAISE EXCEPTION USING ERRCODE = '40P01'; END $$")
        return real(connection, *arguments, **options)

    monkeypatch.setattr(old_rows, name, first)
    back_up(rig, before="UPDATE s.visit SET n = -1 WHERE id = 2", between=(
        "UPDATE s.visit SET n = 1", "ALTER TABLE s.visit ADD CONSTRAINT up CHECK (n > 0)",
    ))  # fmt: skip
    report = target.report(code=1)
    assert "The constraint up of s.visit does not hold for 1 row." in said(report)
    assert {unit["state"] for unit in report["units"]} == {"proven"}
