"""``clinic-backups recover`` if a migration lies between the clinics' backups and the definition of the database."""

# ruff: noqa: E501 - a schema reads best with one table a line

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from clinic_backups.base.errors import PermanentError
from clinic_backups.catalog.forgotten import Forgotten
from clinic_backups.maintenance.forgotten_in_stores import ForgottenInStores
from clinic_backups.recovery.definition import Definition
from clinic_backups.recovery.keys_in_dump import foreign_keys_in
from clinic_backups.stores.configured import Stores
from tests.integration.test_recover import Target, definitions, shared
from tests.integration.test_recover_shapes import alone, made
from tests.postgres_fixtures import DemoDatabase
from tests.shapes import Shaped, shaped

SCHEMA = """
    CREATE TABLE s.person (id int PRIMARY KEY, clinic_id int NOT NULL REFERENCES s.clinic, name text);
    CREATE TABLE s."A note" (id int PRIMARY KEY, clinic_id int NOT NULL REFERENCES s.clinic, "of whom" int, n int, code text, at int4range);
    INSERT INTO s.person SELECT i, 1 + i % 2, 'P' || i FROM generate_series(1, 6) AS i;
    INSERT INTO s."A note" SELECT i, 1 + i % 2, i, i - 2, CASE WHEN i > 1 THEN 'c' || i END, int4range(i, i + 1)
      FROM generate_series(1, 6) AS i
"""
NOTE = 's."A note"'
MINE = "t.clinic_id = {{ clinic_id }}"
KEY = f'ALTER TABLE {NOTE} ADD CONSTRAINT "of whom" FOREIGN KEY ("of whom") REFERENCES s.person (id)'


@pytest.fixture
def rig(demo_database: DemoDatabase, tmp_path: Path) -> Shaped:
    extracts = {"person": MINE, "A note": f"SELECT t.* FROM {NOTE} AS t WHERE {MINE}"}
    return alone(shaped(demo_database, tmp_path, SCHEMA, extracts))


@pytest.fixture
def target(
    rig: Shaped, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Target]:
    yield from made(rig, tmp_path, monkeypatch, capsys)


def back_up(rig: Shaped, *, before: str = "", between: tuple[str, ...] = ()) -> None:
    """The clinics, then a migration, then the shared data."""
    if before:
        rig.execute(before)
    for clinic in (1, 2):
        rig.run(clinic)
    rig.execute(*between)
    shared(rig)


def forget(rig: Shaped, person: int) -> None:
    forgotten = Forgotten(rig.catalog.database)
    forgotten.add(1 + person % 2, {"s.person": [str(person)]}, by="ana", reason="Art. 17")
    assert ForgottenInStores(forgotten, rig.settings.recipients).write(Stores.of(rig.store)) == []


@pytest.mark.parametrize("added", ["after the clinics' backups", "before, and dropped after"])
@pytest.mark.parametrize("cascade", [True, False], ids=["cascade", "set null"])
def test_what_belongs_to_a_forgotten_row_by_a_foreign_key_of_either_side(
    rig: Shaped, target: Target, added: str, cascade: bool
) -> None:
    key = f"{KEY} ON DELETE {'CASCADE' if cascade else 'SET NULL'}"
    if added == "after the clinics' backups":
        back_up(rig, between=(key,))
    else:
        back_up(rig, before=key, between=(f'ALTER TABLE {NOTE} DROP CONSTRAINT "of whom"',))
    forget(rig, 3)
    report = target.report()
    assert target.rows("SELECT id FROM s.person WHERE id = 3") == []
    assert target.rows(f'SELECT "of whom" FROM {NOTE} WHERE id = 3') == ([] if cascade else [(None,)])
    assert target.rows(f"SELECT count(*) FROM {NOTE}") == [(5 if cascade else 6,)]
    (unit,) = [unit for unit in report["units"] if unit["unit"] == 2]
    assert unit["state"] == "explained"
    assert report["left"] == [] or all("password" in each["what"] for each in report["left"])


BROKEN = {
    "check": (
        "UPDATE {0} SET n = n + 10", f'ALTER TABLE {NOTE} ADD CONSTRAINT "n > 0" CHECK (n > 0)',
        'The constraint "n > 0" of s.A note does not hold for 2 rows.', "UPDATE {0} SET n = 1 WHERE n <= 0",
    ),
    "not null": (
        "UPDATE {0} SET code = 'x' WHERE code IS NULL", f"ALTER TABLE {NOTE} ALTER COLUMN code SET NOT NULL",
        "The column code of s.A note is NULL in 1 row, and the definition says NOT NULL.",
        "UPDATE {0} SET code = 'x' WHERE code IS NULL",
    ),
    "unique": (
        "UPDATE {0} SET n = id", f'ALTER TABLE {NOTE} ADD CONSTRAINT "Once" UNIQUE (clinic_id, n)',
        'The constraint "Once" of s.A note was not made, because rows of several backups have the same value: it does'
        " not hold for 4 rows.", "UPDATE {0} SET n = id",
    ),
    "unique index": (
        "UPDATE {0} SET n = id", f'CREATE UNIQUE INDEX "On ce" ON {NOTE} (abs(n), "clinic_id" DESC) WHERE n > -9',
        'The unique index "On ce" of s.A note was not made, because rows of several backups have the same value: it'
        " does not hold for 4 rows.", "UPDATE {0} SET n = id",
    ),
    "foreign key": (
        'UPDATE {0} SET "of whom" = 1', KEY, 'The foreign key "of whom" of s.A note does not hold for 3 rows',
        'UPDATE {0} SET "of whom" = 1',
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", BROKEN)
def test_a_constraint_that_old_rows_violate_is_named_with_the_sql_to_finish(
    rig: Shaped, target: Target, name: str
) -> None:
    right, constraint, said, mend = BROKEN[name]
    rig.execute(f"UPDATE {NOTE} SET n = -2 WHERE id IN (2, 4, 3, 5) AND {name.startswith('unique')}")
    if name == "foreign key":
        rig.execute(f'UPDATE {NOTE} SET "of whom" = 99 WHERE id > 3')
    back_up(rig, between=(right.format(NOTE), constraint))
    code, out, err = target.recover("--json")
    assert out, err
    (left,) = [each for each in json.loads(out)["left"] if said in each["what"]]
    assert target.rows(f"SELECT count(*) FROM {NOTE}") == [(6,)]
    assert code == (0 if name == "foreign key" else 1), out
    query, _, finish = left["sql"].partition(";")
    assert len(target.rows(query)) > 0
    target.execute(mend.format(NOTE))
    assert target.rows(query) == []
    target.execute(finish)
    assert definitions(rig, target.name) == definitions(rig, rig.database.name)


@pytest.mark.parametrize("migration", [
    "ALTER TABLE {0} ALTER COLUMN code TYPE varchar(1) USING 'x'",
    "CREATE DOMAIN s.short AS text CONSTRAINT one_ CHECK (length(VALUE) = 1); ALTER TABLE {0} ALTER COLUMN code TYPE s.short USING 'x'",
], ids=["shorter", "domain"])  # fmt: skip
def test_a_type_that_old_rows_do_not_fit_says_what_lies_between(rig: Shaped, target: Target, migration: str) -> None:
    back_up(rig, between=(migration.format(NOTE),))
    code, out, err = target.recover()
    said = " ".join((out + err).split())
    assert code == 1
    assert "The database refused while loading s.A note of clinic" in said
    assert "A migration lies between the two backups. Run the same command with --allow-missing" in said
    code, out, err = target.recover("--allow-missing")
    said = " ".join((out + err).split())
    assert code == 1 and "clinic-backups restore --clinic 1 --archive" in said


def test_rows_that_exclude_each_other_are_named(rig: Shaped, target: Target) -> None:
    rig.execute(f"UPDATE {NOTE} SET at = '[1,5]'")
    move = f"UPDATE {NOTE} SET at = int4range(id, id + 1)"
    back_up(rig, between=(move, f'ALTER TABLE {NOTE} ADD CONSTRAINT "Apart" EXCLUDE USING gist (at WITH &&)'))
    report = target.report(code=1)
    (left,) = [each for each in report["left"] if each["is_problem"]]
    assert 'The constraint "Apart" of s.A note was not made, because rows exclude each other' in left["what"]
    target.execute(move, left["sql"])
    assert definitions(rig, target.name) == definitions(rig, rig.database.name)


def test_a_constraint_of_a_partitioned_table(rig: Shaped, target: Target) -> None:
    """PostgreSQL names the part. The constraint is the whole table's."""
    rig.execute(
        "CREATE TABLE s.visit (id int, clinic_id int NOT NULL REFERENCES s.clinic, n int, note text) PARTITION BY RANGE (id)",
        "CREATE TABLE s.visit_1 PARTITION OF s.visit FOR VALUES FROM (0) TO (10)",
        "INSERT INTO s.visit VALUES (1, 1, -1, NULL), (2, 2, -1, 'x'), (3, 1, 1, NULL)",
        f"GRANT SELECT ON s.visit, s.visit_1 TO {rig.database.roles.reader}",
    )
    (rig.settings.sql_dir / "extract" / "s.visit.sql").write_text(f"SELECT t.* FROM s.visit AS t WHERE {MINE}")
    back_up(rig, between=(
        "UPDATE s.visit SET n = 5, note = 'x'", "ALTER TABLE s.visit ADD CONSTRAINT up CHECK (n > 0)",
        "COMMENT ON CONSTRAINT up ON s.visit IS 'since 5.0'", "ALTER TABLE s.visit ALTER COLUMN note SET NOT NULL",
    ))  # fmt: skip
    report = target.report(code=1)
    left = [each for each in report["left"] if each["is_problem"]]
    assert sorted(each["what"].split(". ")[0] for each in left) == [
        "The column note of s.visit is NULL in 2 rows, and the definition says NOT NULL",
        "The constraint up of s.visit does not hold for 2 rows",
    ]
    target.execute("UPDATE s.visit SET n = 5, note = 'x'", *(each["sql"] for each in left))
    assert definitions(rig, target.name) == definitions(rig, rig.database.name)


def test_what_was_taken_away_is_made_again_after_an_interruption(
    rig: Shaped, target: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    right, constraint, said, _ = BROKEN["check"]
    back_up(rig, between=(right.format(NOTE), constraint))

    def broken(*_: Any) -> Any:
        raise PermanentError("broken off", hint="Run it again.")

    with monkeypatch.context() as patch:
        patch.setattr(Definition, "make_after", broken)
        assert target.recover()[0] == 1
    report = target.report(code=1)
    assert said in " ".join(each["what"] for each in report["left"])
    assert {unit["state"] for unit in report["units"]} == {"proven"}


def test_foreign_keys_are_read_as_pg_dump_writes_them() -> None:
    (one,) = foreign_keys_in(
        ['ALTER TABLE ONLY "S".note\n    ADD CONSTRAINT "a ""b" FOREIGN KEY (x, "y, z") REFERENCES s.person(id, "k")'
         " MATCH FULL ON UPDATE CASCADE ON DELETE CASCADE DEFERRABLE;"]
    )  # fmt: skip
    assert (one.name, one.child, one.columns) == ('a "b', "S.note", ("x", "y, z"))
    assert (one.parent, one.parent_columns, one.on_delete, one.match_full) == ("s.person", ("id", "k"), "c", True)
    (other,) = foreign_keys_in(
        ["ALTER TABLE s.a\n    ADD CONSTRAINT k FOREIGN KEY (b) REFERENCES s.c(d) ON UPDATE CASCADE"]
    )
    assert (other.on_delete, other.match_full) == ("a", False)
