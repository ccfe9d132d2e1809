"""A type that has its name of before may be another type, and its attributes may be other ones."""

# ruff: noqa: E501 - a schema reads best with one table a line

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from clinic_backups.archive.manifest import Manifest
from clinic_backups.restore import clinic_restore
from clinic_backups.restore.plan import RestorePlan
from tests.integration.test_restore_outside import OWN
from tests.postgres_fixtures import DemoDatabase
from tests.shapes import Shaped, shaped

TABLE = "CREATE TABLE s.note (id int PRIMARY KEY, clinic_id int NOT NULL REFERENCES s.clinic, w text); INSERT INTO s.note VALUES (1, 1, 'a'), (2, 2, 'b'); CREATE TABLE s.t (id int PRIMARY KEY, clinic_id int NOT NULL REFERENCES s.clinic, v {type_}, w text); "
ROWS = "INSERT INTO s.t VALUES (1, 1, {0}, 'w'), (2, 1, {1}, 'w'), (3, 2, {2}, 'w'), (4, 1, {3}, 'w')"
LOST, ALL_LOST = "DELETE FROM s.t WHERE id = 1", "DELETE FROM s.t WHERE clinic_id = 1"
PAIRS = ("'(1,2)'", "'(5,6)'", "'(8,8)'", "'(2,3)'")


def rig_of(database: DemoDatabase, folder: Path, types: str, type_: str, values: tuple[str, ...]) -> Shaped:
    """A table with a column of a type, and one whose types stay."""
    ddl = types + TABLE.format(type_=type_) + ROWS.format(*values)
    return shaped(database, folder, ddl, {"t": OWN, "note": OWN}, lists="s.addr: nothing, a type\n")


def notes_of(plan: RestorePlan) -> list[str]:
    return [note for table in plan.tables for note in table.notes]


def anew(name: str, kind: str, made: str, using: str) -> tuple[str, ...]:
    """A type of the same name takes a column's type's place: the statements that a migration uses."""
    return (
        f"CREATE {kind} s.other AS {made}",
        f"ALTER TABLE s.t ALTER v TYPE s.other USING {using.format('s.other')}",
        f"DROP {kind} s.{name}",
        f"ALTER {kind} s.other RENAME TO {name}",
    )


ENUM = ("CREATE TYPE s.e AS ENUM ('a', 'b', 'c');", "s.e", ("'a'", "'b'", "'a'", "'b'"))
DOMAIN = ("CREATE DOMAIN s.d AS int;", "s.d", ("8", "5", "7", "9"))
PAIR = ("CREATE TYPE s.c AS (x int, y int);", "s.c", PAIRS)
MADE = {
    "a domain of another type": (DOMAIN, ("d", "DOMAIN", "bigint"), "v::{}", "(v * 100)::{}"),
    "a domain of the same type": (DOMAIN, ("d", "DOMAIN", "int"), "v::{}", "(v * 100)::{}"),
    "a composite type": (PAIR, ("c", "TYPE", "(x int, y int)"), "ROW((v).x, (v).y)::{}", "ROW((v).x, (v).y * 100)::{}"),
    "an enum": (ENUM, ("e", "TYPE", "ENUM ('a', 'b', 'c')"), "v::text::{}", "(CASE v WHEN 'a' THEN 'b' ELSE 'a' END)::{}"),
}  # fmt: skip


@pytest.mark.parametrize("damage", [LOST, ALL_LOST], ids=["", "all rows are gone"])
@pytest.mark.parametrize("case", MADE)
def test_values_that_changed_with_a_type_of_the_same_name_are_refused(
    demo_database: DemoDatabase, tmp_path: Path, case: str, damage: str
) -> None:
    made_of, other, _, using = MADE[case]
    rig = rig_of(demo_database, tmp_path, *made_of)
    record = rig.run(1)
    rig.execute(*anew(*other, using), damage)
    before = rig.everything()
    (refusal,) = rig.plan(record).refusals
    assert f"s.t.v has the type s.{other[0]}, which was dropped since the backup and created again: " in refusal.message
    found = "2 rows of 2 have other values" if damage == LOST else "there is no row to show"
    assert found in refusal.message
    line = f"s.t: v (s.{other[0]}) -> v (s.{other[0]})"
    assert f"`{line}`" in refusal.hint
    assert rig.everything() == before
    assert rig.plan(record, tables=("s.note",)).refusals == ()
    (tmp_path / "sql" / "drift.txt").write_text(line)
    assert rig.plan(record).refusals == ()


@pytest.mark.parametrize("case", MADE)
def test_values_that_were_kept_come_back_in_a_type_of_the_same_name(
    demo_database: DemoDatabase, tmp_path: Path, case: str
) -> None:
    made_of, other, using, _ = MADE[case]
    rig = rig_of(demo_database, tmp_path, *made_of)
    record = rig.run(1)
    rig.execute(*anew(*other, using))
    before = rig.everything()
    rig.execute(LOST, "UPDATE s.t SET w = 'x' WHERE id = 2")
    rig.bring_back(record)
    assert rig.everything() == before


USUAL = {
    "a domain": DOMAIN,
    "an enum": ENUM,
    "a composite type": PAIR,
    "an array of a domain": (DOMAIN[0], "s.d[]", ("'{8}'", "'{5,6}'", "NULL", "'{}'")),
    "a range": ("CREATE TYPE s.r AS RANGE (subtype = int);", "s.r", ("'[1,2)'", "'[3,4)'", "'empty'", "'[5,6)'")),
    "a type of an extension": ("CREATE EXTENSION IF NOT EXISTS citext;", "public.citext", ("'A'", "'b'", "'c'", "'d'")),
}  # fmt: skip


@pytest.mark.parametrize("where", ["here", "with an older manifest", "in another database"])
@pytest.mark.parametrize("case", USUAL)
def test_a_type_that_nobody_changed_is_in_no_restores_way(
    demo_database: DemoDatabase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, case: str, where: str
) -> None:
    rig = rig_of(demo_database, tmp_path, *USUAL[case])
    if where == "with an older manifest":
        older(monkeypatch)
    if where == "in another database":
        monkeypatch.setattr(clinic_restore, "is_same", lambda *_: False)
    record, before = rig.run(1), rig.everything()
    type_, value = USUAL[case][1], USUAL[case][2][1]
    # Of the rows whose values somebody changed, most are like the backup's here: the migration is not the cause.
    for damage in (LOST, ALL_LOST, f"UPDATE s.t SET v = {value}::{type_} WHERE id = 1"):
        rig.execute(damage)
        if where == "here":
            rig.execute(
                "CREATE TABLE s.again AS SELECT * FROM s.t; TRUNCATE s.t; INSERT INTO s.t SELECT * FROM s.again; DROP TABLE s.again"
            )
        plan = rig.bring_back(record)
        assert plan.writes == (3 if damage == ALL_LOST else 1)
        assert notes_of(plan) == []
        assert rig.everything() == before


@pytest.mark.parametrize("case", MADE)
def test_changed_values_are_refused_in_another_database(
    demo_database: DemoDatabase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, case: str
) -> None:
    """Its types have other numbers, so only the rows tell."""
    made_of, other, _, using = MADE[case]
    rig = rig_of(demo_database, tmp_path, *made_of)
    monkeypatch.setattr(clinic_restore, "is_same", lambda *_: False)
    record = rig.run(1)
    rig.execute(*anew(*other, using), LOST)
    (refusal,) = rig.plan(record).refusals
    assert "which may be another one than that of this name in the backup: 2 rows of 2 have other" in refusal.message


def older(monkeypatch: pytest.MonkeyPatch) -> None:
    """The backup says nothing of attributes' numbers, nor of domains, arrays and ranges."""
    made = clinic_restore.migrated

    def told(text: str | None) -> str | None:
        known = ("type", "oid", "labels", "attributes")
        found = [type_ for type_ in json.loads(text or "[]") if type_["labels"] or type_["attributes"]]
        return json.dumps([{name: type_[name] for name in known} for type_ in found]) if found else None

    def of_before(manifest: Manifest, *rest: Any) -> Any:
        tables = {}
        for name, content in manifest.tables.items():
            columns = tuple(replace(column, definition=told(column.definition)) for column in content.table.columns)
            tables[name] = replace(content, table=replace(content.table, columns=columns))
        return made(replace(manifest, tables=tables), *rest)

    monkeypatch.setattr(clinic_restore, "migrated", of_before)


DROPS = "ALTER TYPE s.c DROP ATTRIBUTE y CASCADE; ALTER TYPE s.c ADD ATTRIBUTE q int CASCADE"
ADDRESS = ("CREATE TABLE s.addr (x int, y int);", "s.addr", PAIRS)
ATTRIBUTES = {
    "one gone and one added": (PAIR, (DROPS,), "q in that of y"),
    "in an array of a domain": (
        (f"{PAIR[0]} CREATE DOMAIN s.d AS s.c;", "s.d[]", ("'{\"(1,2)\"}'", "'{\"(5,6)\"}'", "NULL", "'{}'")), (DROPS,), "q in that of y",
    ),
    "another table's rows": (ADDRESS, ("ALTER TABLE s.addr DROP y; ALTER TABLE s.addr ADD zip int",), "zip in that of y"),
    "made anew": (PAIR, anew("c", "TYPE", "(x int, q int)", "ROW((v).x, (v).y)::{}"), "q in that of y"),
    "both gone": (PAIR, (DROPS, "ALTER TYPE s.c ADD ATTRIBUTE z int; ALTER TYPE s.c DROP ATTRIBUTE x"), "q in that of x, z in that of y"),
    "one renamed, another dropped earlier": (
        ("CREATE TYPE s.c AS (x int, z int, y int); ALTER TYPE s.c DROP ATTRIBUTE z;", "s.c", PAIRS), ("ALTER TYPE s.c RENAME ATTRIBUTE y TO q",), "",
    ),
    "one dropped and made again under its name": (PAIR, ("ALTER TYPE s.c DROP ATTRIBUTE y; ALTER TYPE s.c ADD ATTRIBUTE y int; UPDATE s.t SET v.y = 7",), "another y in that of y"),
    "another table's column, made again": (ADDRESS, ("ALTER TABLE s.addr DROP y; ALTER TABLE s.addr ADD y int",), "another y in that of y"),
    "one renamed": (PAIR, ("ALTER TYPE s.c RENAME ATTRIBUTE y TO q",), ""),
    "another table's column renamed": (ADDRESS, ("ALTER TABLE s.addr RENAME y TO zip",), ""),
}  # fmt: skip


@pytest.mark.parametrize(
    ("case", "is_older"),
    [
        pytest.param(case, is_older, id=f"{case}{', older' * is_older}")
        for case in ATTRIBUTES
        for is_older in (False, True)
        if not is_older or "made again" not in case  # an older manifest does not tell that
    ],
)
def test_an_attribute_in_the_place_of_one_that_is_gone(
    demo_database: DemoDatabase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, case: str, is_older: bool
) -> None:
    made_of, migration, said = ATTRIBUTES[case]
    rig = rig_of(demo_database, tmp_path, *made_of)
    if is_older:
        older(monkeypatch)
    record = rig.run(1)
    rig.execute(*migration)
    before = rig.everything()
    rig.execute(LOST)
    if is_older and case == "one renamed, another dropped earlier":
        said = "q in that of y"  # an older manifest does not tell which attributes there were
    if not said:
        assert rig.bring_back(record).writes == 1
        assert rig.everything() == before
        return
    (refusal,) = rig.plan(record).refusals
    assert f"are gone, and others are in their places: {said}, and column v of s.t has this type" in refusal.message
    assert "former names for the time of the restore, if they were only renamed. Otherwise" in refusal.hint


def test_another_databases_numbers_prove_no_rename(
    demo_database: DemoDatabase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rig = rig_of(demo_database, tmp_path, *PAIR)
    monkeypatch.setattr(clinic_restore, "is_same", lambda *_: False)
    record = rig.run(1)
    rig.execute("ALTER TYPE s.c RENAME ATTRIBUTE y TO q", LOST)
    (refusal,) = rig.plan(record).refusals
    assert "q in that of y" in refusal.message
