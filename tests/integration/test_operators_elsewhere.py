"""A backup has the rows that the application's own query gives, or it is refused: operators outside of pg_catalog."""

# ruff: noqa: E501 - a schema reads best with one table a line

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from clinic_backups.base.errors import PermanentError
from tests.integration.test_gaps import Guard
from tests.integration.test_shapes import require_extensions
from tests.postgres_fixtures import DemoDatabase
from tests.shapes import Shaped, shaped

CITEXT = """
    CREATE EXTENSION citext SCHEMA public;
    CREATE DOMAIN s.word AS public.citext; CREATE TYPE s.both AS (a public.citext, b int);
    GRANT USAGE ON TYPE s.word, s.both TO PUBLIC; GRANT USAGE ON SCHEMA s TO PUBLIC;
    ALTER TABLE s.clinic ADD code public.citext UNIQUE, ADD label text; UPDATE s.clinic SET code = CASE id WHEN 1 THEN 'Uno' ELSE 'Dos' END, label = name;
    CREATE TABLE s.note (id int PRIMARY KEY, code public.citext NOT NULL, word s.word, codes public.citext[], pair s.both, plain text, clinic_id int);
    INSERT INTO s.note SELECT k, v, v, ARRAY[v]::public.citext[], ROW(v, k)::s.both, v, 1
      FROM generate_series(1, 9) AS k CROSS JOIN LATERAL (SELECT CASE WHEN k % 3 = 0 THEN 'UNO' ELSE 'Uno' END) AS x (v);
    CREATE VIEW s.shown AS SELECT id, code AS seen FROM s.note;
    CREATE FUNCTION s.code_of(int) RETURNS public.citext LANGUAGE sql STABLE AS 'SELECT n.code FROM s.note AS n WHERE n.id OPERATOR(pg_catalog.=) $1';
    CREATE FUNCTION s.codes_of() RETURNS TABLE (nid int, called public.citext) LANGUAGE sql STABLE AS 'SELECT n.id, n.code FROM s.note AS n';
    GRANT SELECT ON s.shown TO PUBLIC
"""
MINE = "(SELECT c.code FROM s.clinic c WHERE c.id = {{ clinic_id }})"
SILENT = {
    "equal": f"t.code = {MINE}",
    "not equal": "NOT (t.code <> 'uno')",
    "IN a query": "t.code IN " + MINE,
    "IN a list": "t.code IN ('uno', 'dos')",
    "IN all columns of a query": "t.code IN (SELECT * FROM (SELECT c.code FROM s.clinic c WHERE c.id = {{ clinic_id }}) x)",
    "equal to any": "t.code = ANY (ARRAY(SELECT c.code FROM s.clinic c WHERE c.id = {{ clinic_id }}))",
    "an element of an array": "'uno' = ANY (t.codes)",
    "LIKE": "t.code LIKE 'un%'",
    "NOT LIKE": "NOT (t.code NOT LIKE 'un%')",
    "a pattern": "t.code ~ '^uno$'",
    "SIMILAR TO": "t.code SIMILAR TO 'uno'",
    "BETWEEN": "t.code BETWEEN 'uno' AND 'unp'",
    "greater": "t.code > 'un' AND t.code < 'unz'",
    "IS NOT DISTINCT FROM": "t.code IS NOT DISTINCT FROM 'uno'",
    "CASE": "CASE t.code WHEN 'uno' THEN true END",
    "NULLIF": "NULLIF(t.code, 'uno') IS NULL",
    "a function": "strpos(t.code, 'uno') = 1",
    "an aggregate": "EXISTS (SELECT FROM s.note n HAVING max(n.code) = 'uno')",
    "a row": "(t.code, t.id) = ('uno', t.id)",
    "a row of all columns": "EXISTS (SELECT FROM (SELECT 'uno'::public.citext AS v) a, (SELECT t.code AS v) b WHERE ROW(a.*) = ROW(b.*))",
    "a domain": "t.word = 'uno'",
    "a field": "(t.pair).a = 'uno'",
    "an element": "t.codes[1] = 'uno'",
    "a cast of a text": "t.plain::public.citext = 'uno'",
    "the function form of a cast": "CAST(t.plain AS public.citext) = 'uno'",
    "a cast of the other side": "'uno'::public.citext = t.plain::public.citext",
    "a typed text": "t.plain::public.citext = public.citext 'uno'",
    "a quoted name": "t.\"code\" = 'uno'",
    "a domain's name": "t.plain::s.word = 'uno'",
    "a name of its own": "EXISTS (SELECT FROM (SELECT n.id, n.code AS x FROM s.note n) q WHERE q.id = t.id AND q.x = 'uno')",
    "a name without AS": "EXISTS (SELECT FROM (SELECT n.id, n.code x FROM s.note n) q WHERE q.id = t.id AND q.x = 'uno')",
    "a list of names": "EXISTS (SELECT FROM s.note AS q (i, x) WHERE q.i = t.id AND q.x = 'uno')",
    "a list of names without AS": "EXISTS (SELECT FROM s.note q (i, x) WHERE q.i = t.id AND q.x = 'uno')",
    "a list of names of a query": "EXISTS (SELECT FROM (SELECT n.id, n.code FROM s.note n) AS q (i, x) WHERE q.i = t.id AND q.x = 'uno')",
    "a view": "EXISTS (SELECT FROM s.shown v WHERE v.id = t.id AND v.seen = 'uno')",
    "a function's result": "s.code_of(t.id) = 'uno'",
    "a function's column": "EXISTS (SELECT FROM s.codes_of() f WHERE f.nid = t.id AND f.called = 'uno')",
    "one of two comparisons": "t.code OPERATOR(public.=) 'uno' AND t.code <> 'UNO '::text AND t.code = 'uno'",
    "an operator elsewhere in the text": f"t.id OPERATOR(pg_catalog.=) t.id AND t.code = {MINE}",
    "the wrong side of a query": "EXISTS (SELECT FROM s.clinic c WHERE c.id = {{ clinic_id }} AND c.code = t.code)",
    "USING": "SELECT t.* FROM s.note t JOIN (SELECT code FROM s.clinic WHERE id = {{ clinic_id }}) c USING (code)",
    "NATURAL": "SELECT t.* FROM s.note t NATURAL JOIN (SELECT code FROM s.clinic WHERE id = {{ clinic_id }}) c",
    "ON": "SELECT t.* FROM s.note AS t JOIN s.clinic AS c ON t.code = c.code WHERE c.id = {{ clinic_id }}",
    "WITH": "WITH c (x) AS (SELECT code FROM s.clinic WHERE id = {{ clinic_id }}) SELECT t.* FROM s.note t, c WHERE c.x = t.code",
    "a window": "SELECT id, code, word, codes, pair, plain, clinic_id FROM (SELECT n.*, min(n.code) OVER (PARTITION BY n.clinic_id) AS least FROM s.note n) AS q WHERE q.least = 'uno'",
}  # fmt: skip
"""Conditions, or whole queries, that lose rows where only pg_catalog is searched."""
PLAIN = {
    "only listed": "SELECT id, code, word, codes, pair, plain, clinic_id FROM s.note WHERE clinic_id = {{ clinic_id }}",
    "listed in a query": "SELECT t.* FROM (SELECT id, code, word, codes, pair, plain, clinic_id FROM s.note) AS t WHERE t.clinic_id = {{ clinic_id }}",
    "another column": "clinic_id = {{ clinic_id }} AND plain LIKE 'U%'",
    "DISTINCT": "SELECT DISTINCT t.* FROM s.note AS t WHERE clinic_id = {{ clinic_id }}",
    "DISTINCT ON": "SELECT DISTINCT ON (t.code) t.* FROM s.note AS t WHERE clinic_id = {{ clinic_id }} ORDER BY t.code, t.id",
    "an order": "SELECT t.* FROM s.note AS t WHERE clinic_id = {{ clinic_id }} ORDER BY t.code DESC, t.id LIMIT 4",
    "a union": "SELECT t.id, t.code, t.word, t.codes, t.pair, t.plain, t.clinic_id FROM s.note AS t WHERE clinic_id = {{ clinic_id }} UNION SELECT t.* FROM s.note AS t WHERE id < 3",
    "a group": "EXISTS (SELECT FROM s.note n GROUP BY n.code HAVING count(*) = 9)",
    "IS NOT NULL": "clinic_id = {{ clinic_id }} AND t.code IS NOT NULL",
    "a count": "(SELECT count(n.code) FROM s.note n) = 9",
    "as texts": "t.code::text = 'Uno'::text",
    "as texts of CAST": "CAST(t.code AS text) = 'Uno'",
    "with its schema": "t.code OPERATOR(public.=) " + MINE,
    "the other way round": MINE + " OPERATOR(public.=) t.code",
    "any of a list": "t.code OPERATOR(public.=) ANY (ARRAY['uno', 'dos']::public.citext[])",
    "any of a query": "t.code OPERATOR(public.=) ANY " + MINE,
    "a pattern with its schema": "t.code OPERATOR(public.~~) 'un%'",
    "a cast": "t.plain::public.citext OPERATOR(public.=) 'uno'::public.citext",
    "a domain": "t.word OPERATOR(public.=) 'uno'",
    "a field": "(t.pair).a OPERATOR(public.=) 'uno'",
    "a function with its schema": "public.strpos(t.code, 'uno') = 1",
    "a function's result": "s.code_of(t.id) OPERATOR(public.=) 'uno'",
    "a join": "SELECT t.* FROM s.note AS t JOIN s.clinic AS c ON t.code OPERATOR(public.=) c.code WHERE c.id = {{ clinic_id }}",
    "a query with a name": "WITH c (x) AS (SELECT code FROM s.clinic WHERE id = {{ clinic_id }}) SELECT t.* FROM s.note t, c WHERE c.x OPERATOR(public.=) t.code",
}  # fmt: skip
"""Those that give the same rows wherever is searched."""


def of_application(rig: Shaped, query: str) -> list[int]:
    """The keys that a query gives to the application, whose search path has the schema of the operators."""
    text = query.replace("{{ clinic_id }}", "1")
    rig.execute("DROP VIEW IF EXISTS s.asked")
    found = rig.execute_rows(f"SELECT id FROM ({text}) AS q ORDER BY 1")
    return [int(key) for (key,) in found]


def in_backup(rig: Shaped, query: str, table: str = "note") -> list[int] | str:
    """The keys in the backup with this extract, or why there is none."""
    (rig.settings.sql_dir / "extract" / f"s.{table}.sql").write_text(query)
    try:
        record = rig.run(1)
    except PermanentError as error:
        return str(error)
    rows = rig.open(record).tables[f"s.{table}"].decode().splitlines()
    return sorted(int(row.partition(",")[0]) for row in rows)


def query_of(text: str) -> str:
    return text if text.startswith(("SELECT", "WITH")) else f"SELECT t.* FROM s.note AS t WHERE {text}"


def test_a_citext_column_is_compared_as_the_application_does_or_not_at_all(
    demo_database: DemoDatabase, tmp_path: Path
) -> None:
    require_extensions(demo_database, CITEXT)
    rig = shaped(demo_database, tmp_path, CITEXT, {"note": "clinic_id = {{ clinic_id }}"}, lists="s.note: rows, a test")
    rig.execute(f"ALTER DATABASE {demo_database.name} SET search_path = public, pg_catalog")
    wrong = dict[str, Any]()
    for name, text in SILENT.items():
        found = in_backup(rig, query_of(text))
        if not (isinstance(found, str) and "Operators and functions of that type are in public" in found):
            wrong[name] = found
    for name, text in PLAIN.items():
        found = in_backup(rig, query_of(text))
        if found != of_application(rig, query_of(text)):
            wrong[f"{name} (plain)"] = found
    assert wrong == {}
