"""A backup has the rows that the application's own query gives, or it is refused: operators outside of pg_catalog."""

# ruff: noqa: E501 - a schema reads best with one table a line

from __future__ import annotations

from collections.abc import Mapping
from contextlib import closing
from pathlib import Path

import pytest

from clinic_backups.backup import preflight
from clinic_backups.base.clock import machine_now
from clinic_backups.base.errors import PermanentError
from clinic_backups.stores.configured import Stores
from clinic_backups.tenant import structure
from clinic_backups.tenant.operator_checks import operator_problems
from clinic_backups.tenant.problems import Problem
from clinic_backups.tenant.tenant_db import Snapshot
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
    CREATE FUNCTION s.is_uno(int) RETURNS boolean LANGUAGE plpgsql STABLE AS 'BEGIN RETURN EXISTS (SELECT FROM s.note n WHERE n.id = $1 AND n.code = ''uno''); END';
    CREATE FUNCTION s.through(int) RETURNS boolean LANGUAGE sql STABLE AS 'SELECT s.is_uno($1)';
    CREATE FUNCTION s.pinned(int) RETURNS boolean LANGUAGE plpgsql STABLE SET search_path = public AS 'BEGIN RETURN EXISTS (SELECT FROM s.note n WHERE n.id = $1 AND n.code = ''uno''); END';
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
    "a function's text": "s.is_uno(t.id)",
    "the text of a function that a function calls": "s.through(t.id)",
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
    "a domain with its schema": "t.word OPERATOR(public.=) 'uno'",
    "a field with its schema": "(t.pair).a OPERATOR(public.=) 'uno'",
    "a function with its schema": "public.strpos(t.code, 'uno') = 1",
    "a function's result with its schema": "s.code_of(t.id) OPERATOR(public.=) 'uno'",
    "a join": "SELECT t.* FROM s.note AS t JOIN s.clinic AS c ON t.code OPERATOR(public.=) c.code WHERE c.id = {{ clinic_id }}",
    "a function with a search path": "s.pinned(t.id)",
    "a query with a name": "WITH c (x) AS (SELECT code FROM s.clinic WHERE id = {{ clinic_id }}) SELECT t.* FROM s.note t, c WHERE c.x OPERATOR(public.=) t.code",
}  # fmt: skip
"""Those that give the same rows wherever is searched."""


def query_of(text: str) -> str:
    return text if text.startswith(("SELECT", "WITH")) else f"SELECT t.* FROM s.note AS t WHERE {text}"


def keys(rig: Shaped, query: str, path: str) -> list[int]:
    """The keys that a query gives clinic 1 where these schemas are searched."""
    text = query.replace("{{ clinic_id }}", "1")
    with closing(rig.database.connect()) as db, db.cursor() as cursor:
        cursor.execute(f"SET search_path = {path}")
        cursor.execute(f"SELECT id FROM ({text}) AS q ORDER BY 1")
        return [int(key) for (key,) in cursor.fetchall()]


def backed_up(rig: Shaped, query: str) -> list[int]:
    """The keys in the backup with this extract."""
    (rig.settings.sql_dir / "extract" / "s.note.sql").write_text(query)
    rows = rig.open(rig.run(1)).tables["s.note"].decode().splitlines()
    return sorted(int(row.partition(",")[0]) for row in rows)


def refused(rig: Shaped, texts: Mapping[str, str]) -> dict[str, Problem]:
    """The queries that are refused, with the problem."""
    with Snapshot(rig.clinic_db) as snapshot:
        facts = structure.read(snapshot)
    queries = {name: query_of(text).replace("{{ clinic_id }}", "1") for name, text in texts.items()}
    return {problem.table: problem for problem in operator_problems(facts, queries)}


def check(rig: Shaped, path: str, silent: Mapping[str, str], plain: Mapping[str, str]) -> None:
    """All queries that give other rows without the application's search path are refused, and no others."""
    changed = {
        name for name, text in (silent | plain).items()
        if keys(rig, query_of(text), path) != keys(rig, query_of(text), "pg_catalog")
    }  # fmt: skip
    assert changed == silent.keys()
    assert refused(rig, silent | plain).keys() == silent.keys()


def test_a_citext_column_is_compared_as_the_application_does_or_the_backup_is_refused(
    demo_database: DemoDatabase, tmp_path: Path
) -> None:
    require_extensions(demo_database, CITEXT)
    rig = shaped(demo_database, tmp_path, CITEXT, {"note": f"code = {MINE}"}, lists="s.note: rows, a test")
    check(rig, "pg_catalog, public", SILENT, PLAIN)
    query = query_of(f"code = {MINE}")
    with pytest.raises(PermanentError, match=r"s\.note uses s\.clinic\.code .*s\.note\.code .*in public") as caught:
        backed_up(rig, query)
    assert "OPERATOR(public.=)" in str(caught.value)
    rig.allow_gaps = True
    assert len(backed_up(rig, query)) == 6 and len(rig.run(1).gaps) == 1
    rig.allow_gaps = False
    assert backed_up(rig, query.replace("code =", "code OPERATOR(public.=)")) == list(range(1, 10))


OWN_TYPES = """
    CREATE SCHEMA app; GRANT USAGE ON SCHEMA app, s TO PUBLIC;
    CREATE TYPE app.money AS (amount int, unit text); CREATE TYPE app.mood AS ENUM ('bad', 'good', 'fine');
    CREATE DOMAIN app.code AS text; GRANT USAGE ON TYPE app.money, app.mood, app.code TO PUBLIC;
    CREATE FUNCTION app.same(app.money, app.money) RETURNS boolean LANGUAGE sql IMMUTABLE AS 'SELECT ($1).amount OPERATOR(pg_catalog.=) ($2).amount';
    CREATE OPERATOR app.= (LEFTARG = app.money, RIGHTARG = app.money, FUNCTION = app.same);
    CREATE FUNCTION app.same(app.mood, app.mood) RETURNS boolean LANGUAGE sql IMMUTABLE AS 'SELECT ($1 OPERATOR(pg_catalog.=) ''bad'') OPERATOR(pg_catalog.=) ($2 OPERATOR(pg_catalog.=) ''bad'')';
    CREATE OPERATOR app.= (LEFTARG = app.mood, RIGHTARG = app.mood, FUNCTION = app.same);
    CREATE FUNCTION app.same(app.code, app.code) RETURNS boolean LANGUAGE sql IMMUTABLE AS 'SELECT pg_catalog.lower($1) OPERATOR(pg_catalog.=) pg_catalog.lower($2)';
    CREATE OPERATOR app.= (LEFTARG = app.code, RIGHTARG = app.code, FUNCTION = app.same);
    CREATE FUNCTION app.same(varchar, varchar) RETURNS boolean LANGUAGE sql IMMUTABLE AS 'SELECT pg_catalog.lower($1) OPERATOR(pg_catalog.=) pg_catalog.lower($2)';
    CREATE OPERATOR app.= (LEFTARG = varchar, RIGHTARG = varchar, FUNCTION = app.same);
    CREATE TABLE s.note (id int PRIMARY KEY, clinic_id int, price app.money, mood app.mood, code app.code, name varchar(20), more app.money[]);
    INSERT INTO s.note SELECT k, 1, ROW(1, u)::app.money, m::app.mood, c, c, ARRAY[ROW(1, u)::app.money]
      FROM generate_series(1, 9) AS k CROSS JOIN LATERAL (SELECT 'u' || k % 3, (ARRAY['good', 'fine'])[1 + k % 2], (ARRAY['a', 'A'])[1 + k % 2]) AS x (u, m, c)
"""
OWN_SILENT = {
    "a composite type": "t.price = ROW(1, 'u1')::app.money",
    "IN": "t.price IN (SELECT n.price FROM s.note n WHERE n.id = 1)",
    "an array": "ROW(1, 'u1')::app.money = ANY (t.more)",
    "an enum": "t.mood = (SELECT n.mood FROM s.note n WHERE n.id = 1)",
    "a domain": "t.code = (SELECT n.code FROM s.note n WHERE n.id = 1)",
    "PostgreSQL's own type": "t.name = (SELECT n.name FROM s.note n WHERE n.id = 1)",
}
OWN_PLAIN = {
    "the clinic's number": "t.clinic_id = {{ clinic_id }}",
    "a composite type with its schema": "t.price OPERATOR(app.=) ROW(1, 'u1')::app.money",
    "an enum with its schema": "t.mood OPERATOR(app.=) (SELECT n.mood FROM s.note n WHERE n.id = 1)",
    "a domain with its schema": "t.code OPERATOR(app.=) (SELECT n.code FROM s.note n WHERE n.id = 1)",
    "as texts": "t.name::text = (SELECT n.name::text FROM s.note n WHERE n.id = 1)",
}


def test_types_that_a_database_has_made_itself(demo_database: DemoDatabase, tmp_path: Path) -> None:
    rig = shaped(demo_database, tmp_path, OWN_TYPES, {"note": OWN_SILENT["a composite type"]}, lists="s.note: rows, x")
    check(rig, "pg_catalog, app", OWN_SILENT, OWN_PLAIN)
    query = query_of(OWN_SILENT["a composite type"])
    with pytest.raises(PermanentError, match=r"uses app\.money .*s\.note\.price .*in app"):
        backed_up(rig, query)
    assert backed_up(rig, query.replace("price =", "price OPERATOR(app.=)")) == list(range(1, 10))


def test_check_names_the_extract_and_the_file(demo_database: DemoDatabase, tmp_path: Path) -> None:
    """Also the list of clinics: a clinic that it loses is in no backup at all."""
    rig = shaped(demo_database, tmp_path, OWN_TYPES, {"note": OWN_SILENT["an enum"]}, lists="s.note: rows, x")
    query = "SELECT id, name, 'es' AS language FROM s.clinic WHERE id IN (SELECT n.id FROM s.note n WHERE n.price = ROW(1, 'u1')::app.money) ORDER BY id"
    (rig.settings.sql_dir / "active_clinics.sql").write_text(query)
    found = preflight.run(
        settings=rig.settings, clinic_db=lambda: rig.clinic_db, stores=lambda: Stores.of(rig.store), now=machine_now,
        catalog_version=lambda: None, count_rows=False,
    )  # fmt: skip
    texts = [each.message for each in found if each.level == "error" and "Operators and functions" in each.message]
    assert [text.split(" uses ")[0] for text in texts] == ["The extract of s.note", "The query of active_clinics.sql"]


def test_without_such_types_nothing_more_is_asked(demo_database: DemoDatabase, tmp_path: Path) -> None:
    rig = shaped(demo_database, tmp_path, "", {})
    asked = list[str]()
    with Snapshot(rig.clinic_db) as snapshot:
        rows = snapshot.rows
        snapshot.rows = lambda *given: asked.append(given[2]) or rows(*given)  # type: ignore[method-assign,func-returns-value]
        assert structure.read(snapshot).operator_columns == ()
    assert len(asked) == 1
