"""An extract must return the table's own values, because a restore would write changed ones back."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from clinic_backups.base.errors import PermanentError
from clinic_backups.tenant.value_checks import _gives_whole_rows
from tests.integration.test_gaps import Guard
from tests.postgres_fixtures import DemoDatabase
from tests.rig import compared_of
from tests.shapes import Shaped, shaped

TABLES = """
    CREATE TABLE s.visit (id int PRIMARY KEY, clinic_id int REFERENCES s.clinic, name text,
                          "order" numeric, at timestamptz, half numeric GENERATED ALWAYS AS ("order" / 2) STORED);
    INSERT INTO s.visit (id, clinic_id, name, "order", at)
         VALUES (1, 1, 'Ana', 1.50, now()), (2, 1, 'Eva', 2, NULL), (3, 2, 'Iris', 3, now());
    CREATE TABLE s.log (clinic_id int REFERENCES s.clinic, line text);
    INSERT INTO s.log VALUES (1, 'a'), (1, 'a'), (1, NULL), (2, 'b');
    CREATE TABLE s.part (id int PRIMARY KEY, clinic_id int REFERENCES s.clinic, v text) PARTITION BY LIST (id);
    CREATE TABLE s.part_1 PARTITION OF s.part FOR VALUES IN (1);
    CREATE TABLE s.part_2 PARTITION OF s.part DEFAULT;
    INSERT INTO s.part VALUES (1, 1, 'x'), (2, 1, 'y'), (3, 2, 'z');
    CREATE VIEW s.shown AS SELECT id, clinic_id, upper(name) AS name, "order", at FROM s.visit
"""
OWN = "clinic_id = {{ clinic_id }}"
EXTRACTS = {"visit": OWN, "log": OWN, "part": OWN}
ALL = 'id, clinic_id, name, "order", at'
CHANGED = {
    "a key": ("visit", 'SELECT id + 1000000 AS id, clinic_id, name, "order", at FROM s.visit', "2 rows in the columns"),
    "a text": ("visit", 'SELECT id, clinic_id, upper(name) AS name, "order", at FROM s.visit', "of 2 rows in name"),
    "a number's form": ("visit", 'SELECT id, clinic_id, name, "order"::int AS "order", at FROM s.visit', "in order"),
    "a time": ("visit", 'SELECT id, clinic_id, name, "order", now() AS at FROM s.visit', "of 2 rows in at"),
    "a missing value": ("visit", 'SELECT id, clinic_id, NULL AS name, "order", at FROM s.visit', "of 2 rows in name"),
    "two columns": ("visit", 'SELECT id, clinic_id, name || 1 AS name, "order" + 1 AS "order", at FROM s.visit',
                    "in name, order"),
    "another name": ("visit", 'SELECT id, clinic_id, clinic_id::text AS name, "order", at FROM s.visit', "in name"),
    "names for columns": ("visit", 'SELECT v.* FROM s.visit AS v (id, clinic_id, at, "order", name)', "rows in name"),
    "a view": ("visit", "SELECT * FROM s.shown", "of 2 rows in name"),
    "another row": ("visit", 'SELECT a.id, a.clinic_id, b.name, a."order", a.at FROM s.visit a JOIN s.visit b'
                    " ON a.id + b.id = 3", "of 2 rows in name"),
    "within": ("visit", 'WITH v AS MATERIALIZED (SELECT *, lower(name) AS n FROM s.visit)'
               ' SELECT id, clinic_id, n AS name, "order", at FROM v', "of 2 rows in name"),
    "without a key": ("log", "SELECT clinic_id, coalesce(line, '') AS line FROM s.log", "1 rows in the columns that"),
    "of partitions": ("part", "SELECT id, clinic_id, v || v AS v FROM s.part", "of 2 rows in v"),
}  # fmt: skip
SAME = {
    "in another order": ("visit", 'SELECT at, name, "order", clinic_id, id FROM s.visit'),
    "computed, and the same": ("visit", 'SELECT id + 0 AS id, clinic_id, trim(name) AS name, "order", at FROM s.visit'),
    "another type of the same text": ("visit", 'SELECT id::bigint, clinic_id::bigint, name, "order", at FROM s.visit'),
    "a limit": ("visit", f"SELECT {ALL} FROM (SELECT * FROM s.visit ORDER BY id LIMIT 100) AS v"),
    "without a key": ("log", "SELECT clinic_id, line || '' AS line FROM s.log"),
    "of partitions": ("part", "SELECT id, clinic_id, v FROM s.part"),
    "as a union": ("visit", "SELECT * FROM (SELECT * FROM s.visit WHERE id < 2 UNION ALL"
                   " SELECT * FROM s.visit WHERE id > 1) AS v"),
}  # fmt: skip


def rig_of(database: DemoDatabase, folder: Path, table: str, select: str, lists: str = "") -> Shaped:
    extract = f"SELECT q.* FROM ({select}) AS q WHERE q.clinic_id = {{{{ clinic_id }}}}"
    return shaped(database, folder, TABLES, EXTRACTS | {table: extract}, lists=lists)


@pytest.mark.parametrize("name", CHANGED)
def test_a_column_with_other_values_is_refused(demo_database: DemoDatabase, tmp_path: Path, name: str) -> None:
    table, select, said = CHANGED[name]
    rig = rig_of(demo_database, tmp_path, table, select)
    for compared in (None, compared_of(rig)):
        with pytest.raises(PermanentError, match="the extract returns other values than the table") as caught:
            rig.backup().run(replace(rig.request(1), compared=compared))
        assert said in caught.value.message
    assert rig.objects() == []
    guard = Guard(demo_database, rig.store)
    guard.settings = guard.settings.model_copy(update={"sql_dir": tmp_path / "sql"})
    assert any("returns other values" in item.message for item in guard.errors(rows=True))


@pytest.mark.parametrize("name", SAME)
def test_a_column_with_the_same_values_passes(demo_database: DemoDatabase, tmp_path: Path, name: str) -> None:
    assert rig_of(demo_database, tmp_path, *SAME[name]).run(1).gaps == ()


def test_a_column_may_be_changed_on_purpose(demo_database: DemoDatabase, tmp_path: Path) -> None:
    select = 'SELECT id, clinic_id, NULL::text AS name, "order", at FROM s.visit'
    rig = rig_of(demo_database, tmp_path, "visit", select, "s.visit.name: kept by another system\n")
    assert rig.run(1).gaps == ()


@pytest.mark.parametrize(
    ("extract", "whole"),
    [
        ("-- one\nSELECT t.* FROM s.visit AS t WHERE true", True), ("select * from s.visit", True),
        ("SELECT visit.* FROM ONLY s.visit JOIN s.b ON true", True), ("SELECT * FROM s.visit t WHERE a", True),
        ("SELECT b.* FROM s.visit AS t JOIN s.b ON true", False), ("SELECT * FROM s.visit AS t JOIN s.b ON x", False),
        ("SELECT t.*, 1 AS x FROM s.visit t", False), ("SELECT t.* FROM s.visit AS t (b, a)", False),
        ("SELECT * FROM s.visit(1)", False), ("SELECT * FROM s.visit2", False),
        ("SELECT t.* FROM s.visit t UNION SELECT 1", False), ("SELECT DISTINCT t.* FROM s.visit t", False),
    ],
)  # fmt: skip
def test_the_text_of_most_extracts_tells_it(extract: str, whole: bool) -> None:
    assert _gives_whole_rows("s.visit", extract) == whole
