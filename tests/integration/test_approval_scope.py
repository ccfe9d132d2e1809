"""What an approval covers: what the writing touches and calls. Objects beside it make no approval void."""

# ruff: noqa: E501 - a case reads best in one line

from __future__ import annotations

import re
import time
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from clinic_backups.base.errors import ClinicBackupsError
from clinic_backups.catalog.restores import RestoreMode
from clinic_backups.restore.clinic_restore import ClinicChanged, ClinicRestore
from clinic_backups.restore.request import Wish
from tests.integration.test_sequences import CLINIC, OWN
from tests.integration.test_sequences_owners import hostile
from tests.postgres_fixtures import DemoDatabase
from tests.shapes import shaped

TABLES = f"CREATE SEQUENCE s.receipt; CREATE TABLE s.bill (id serial PRIMARY KEY, {CLINIC}, no bigint UNIQUE DEFAULT nextval('s.receipt'), phone text); CREATE TABLE s.item (id serial PRIMARY KEY, {CLINIC}); INSERT INTO s.bill (clinic_id, phone) VALUES (1, '1'), (1, '2'), (2, '3'); INSERT INTO s.item (clinic_id) VALUES (1), (2)"
TAKES = "CREATE FUNCTION {0}.x(p text) RETURNS bigint LANGUAGE plpgsql AS $$BEGIN INSERT INTO {0}.t (n) VALUES (nextval(p)); RETURN nextval(p); END$$"
RUNS = "CREATE FUNCTION {0}.x(p text) RETURNS void LANGUAGE plpgsql AS $$BEGIN EXECUTE 'SELECT next' || p; END$$"
UNRELATED = {
    "a sequence": "CREATE SEQUENCE {0}.ticket",
    "a sequence of the same name": "CREATE SEQUENCE {0}.receipt",
    "a function that takes numbers": TAKES,
    "a function that runs texts": RUNS,
    "a function in another language": "CREATE FUNCTION {0}.x() RETURNS bigint LANGUAGE sql AS $$SELECT nextval('{0}.x_seq')$$",
    "a table with a sequence": "CREATE TABLE {0}.t (n bigserial, m bigint DEFAULT nextval('{0}.t_n_seq'))",
    "a trigger": "CREATE TABLE {0}.t (n bigint); CREATE SEQUENCE {0}.z; CREATE FUNCTION {0}.g() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN EXECUTE 'x' || NEW.n; NEW.n := nextval(TG_ARGV[0]); RETURN NEW; END$$; CREATE TRIGGER g BEFORE INSERT ON {0}.t FOR EACH ROW EXECUTE FUNCTION {0}.g('{0}.z')",
    "a view": "CREATE SEQUENCE {0}.z; CREATE VIEW {0}.v AS SELECT nextval('{0}.z') AS n",
}  # fmt: skip


@pytest.mark.parametrize("whose", ["somebody's", "the application's"])
def test_objects_beside_the_restored_tables_make_no_approval_void(
    demo_database: DemoDatabase, tmp_path: Path, whose: str
) -> None:
    rig = shaped(demo_database, tmp_path, TABLES, {"bill": OWN, "item": OWN})
    record = rig.run(1)
    rig.execute("DELETE FROM s.bill WHERE clinic_id = 1", "DELETE FROM s.item WHERE clinic_id = 1")
    before = rig.plan(record)
    assert before.writes == 3
    role = hostile(rig, "SELECT 1") if whose == "somebody's" else ""
    for number, (case, ddl) in enumerate(UNRELATED.items()):
        rig.execute(f"CREATE SCHEMA other{number}", *([f"ALTER SCHEMA other{number} OWNER TO {role}"] if role else []))
        made = ddl.replace("{0}", f"other{number}")
        rig.execute(f"SET check_function_bodies = off; {f'SET ROLE {role};' if role else ''} {made}; RESET ROLE")
        now = rig.plan(record)
        changed = [key for key in before.parts.keys() | now.parts.keys() if before.parts.get(key) != now.parts.get(key)]
        assert now.digest == before.digest, f"{case}: {changed} {[each.notes for each in now.tables]}"
    rig.restore().apply(rig.source(record), Wish(), approved=before.digest, plan=before)


MOVED = {
    "another table that gets the numbers": "CREATE TABLE s.more (n bigint DEFAULT nextval('s.receipt')); GRANT SELECT ON s.more TO PUBLIC",
    "a function that takes the table's numbers": "CREATE FUNCTION s.x(p text) RETURNS void LANGUAGE plpgsql AS $$DECLARE n bigint := nextval('s.receipt'); BEGIN EXECUTE format('INSERT INTO s.%s VALUES (%s)', p, n); END$$",
}


@pytest.mark.parametrize("case", MOVED)
def test_what_is_moved_and_for_whom_stays_approved(demo_database: DemoDatabase, tmp_path: Path, case: str) -> None:
    rig = shaped(demo_database, tmp_path, TABLES, {"bill": OWN, "item": OWN})
    record = rig.run(1)
    rig.execute("DELETE FROM s.bill WHERE clinic_id = 1", "ALTER SEQUENCE s.receipt RESTART")
    before = rig.plan(record)
    rig.execute(MOVED[case])
    with pytest.raises(ClinicBackupsError, match=r"changed since the plan|bill"):
        rig.restore().apply(rig.source(record), Wish(), approved=before.digest, plan=before)


CALLED = f"""
    CREATE SCHEMA util; GRANT USAGE ON SCHEMA util TO PUBLIC;
    CREATE FUNCTION util.deep(int) RETURNS int LANGUAGE sql AS 'SELECT $1 + 0';
    CREATE FUNCTION util.deeper(int) RETURNS int IMMUTABLE LANGUAGE plpgsql AS $$BEGIN RETURN util.deep($1); END$$;
    CREATE FUNCTION s.made() RETURNS text LANGUAGE plpgsql AS $$BEGIN RETURN 'x' || util.deeper(1); END$$;
    CREATE FUNCTION s.doubled(text) RETURNS text IMMUTABLE LANGUAGE sql AS $$SELECT $1 || $1$$;
    CREATE FUNCTION s.is_right(text) RETURNS boolean IMMUTABLE LANGUAGE sql AS 'SELECT true';
    CREATE FUNCTION s.is_one(text) RETURNS boolean IMMUTABLE LANGUAGE sql AS 'SELECT true';
    CREATE FUNCTION s.is_listed(text) RETURNS text IMMUTABLE LANGUAGE sql AS 'SELECT $1';
    CREATE FUNCTION s.told(text) RETURNS text LANGUAGE plpgsql AS $$BEGIN RETURN $1; END$$;
    CREATE FUNCTION s.beside(int) RETURNS int LANGUAGE sql AS 'SELECT 1';
    CREATE DOMAIN s.word AS text CHECK (s.is_one(VALUE)); CREATE DOMAIN s.words AS s.word;
    CREATE TABLE s.bill (id serial PRIMARY KEY, {CLINIC}, made text DEFAULT s.made(), one s.words, phone text CHECK (s.is_right(phone)), twice text GENERATED ALWAYS AS (s.doubled(phone)) STORED);
    CREATE INDEX ON s.bill (s.is_listed(phone));
    CREATE TABLE s.item (id serial PRIMARY KEY, {CLINIC}, n int DEFAULT s.beside(1));
    CREATE FUNCTION s.t() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN NEW.made := s.told(NEW.made); RETURN NEW; END$$;
    CREATE TRIGGER t BEFORE INSERT ON s.bill FOR EACH ROW EXECUTE FUNCTION s.t();
    INSERT INTO s.bill (clinic_id, one, phone) VALUES (1, 'a', '1'), (1, 'b', '2'), (2, 'c', '3'); INSERT INTO s.item (clinic_id) VALUES (1), (2)
"""
CHANGED = {
    "s.made()": "CREATE OR REPLACE FUNCTION s.made() RETURNS text LANGUAGE plpgsql AS $$BEGIN RETURN 'z' || util.deeper(1); END$$",
    "util.deep(integer)": "CREATE OR REPLACE FUNCTION util.deep(int) RETURNS int LANGUAGE sql AS 'SELECT $1 + 1'",
    "s.doubled(text)": "CREATE OR REPLACE FUNCTION s.doubled(text) RETURNS text IMMUTABLE LANGUAGE sql AS 'SELECT $1'",
    "s.is_right(text)": "ALTER FUNCTION s.is_right SECURITY DEFINER",
    "s.is_one(text)": "CREATE OR REPLACE FUNCTION s.is_one(text) RETURNS boolean IMMUTABLE LANGUAGE sql AS 'SELECT NULL::boolean'",
    "s.is_listed(text)": "ALTER FUNCTION s.is_listed SET search_path = s",
    "s.told(text)": "CREATE OR REPLACE FUNCTION s.told(text) RETURNS text LANGUAGE plpgsql AS $$BEGIN RETURN $1 || ''; END$$",
}  # fmt: skip


@pytest.mark.parametrize("mode", ["exact", "live"])
def test_a_changed_function_that_the_writing_calls_makes_the_approval_void(
    demo_database: DemoDatabase, tmp_path: Path, mode: RestoreMode
) -> None:
    rig = shaped(demo_database, tmp_path, CALLED, {"bill": OWN, "item": OWN})
    record = rig.run(1)
    rig.execute("DELETE FROM s.bill WHERE clinic_id = 1")
    wish = Wish(mode)
    for name, change in CHANGED.items():
        before = rig.plan(record, mode=mode)
        rig.execute(change)
        with pytest.raises(ClinicChanged, match=rf"since the plan was made: function {re.escape(name)}"):
            rig.restore().apply(rig.source(record), wish, approved=before.digest, plan=before)
    before = rig.plan(record, mode=mode)
    assert len([key for key in before.parts if key.startswith("function ")]) == len(CHANGED) + 1  # util.deeper
    rig.execute("CREATE OR REPLACE FUNCTION s.beside(int) RETURNS int LANGUAGE sql AS 'SELECT 2'")  # nobody calls it
    rig.restore().apply(rig.source(record), wish, approved=before.digest, plan=before)


@pytest.mark.parametrize("mode", ["exact", "live"])
@pytest.mark.parametrize("replaced", [True, False])
def test_casts_that_are_replaced_give_no_other_values(
    demo_database: DemoDatabase, tmp_path: Path, mode: RestoreMode, replaced: bool
) -> None:
    """A column was retyped since the backup, by casts of the application that agree with each other both times."""
    there = "CREATE OR REPLACE FUNCTION s.there(text) RETURNS s.kind LANGUAGE sql IMMUTABLE AS $$SELECT ROW(CASE $1 WHEN 'A' THEN {0} ELSE {0} + 1 END)::s.kind$$"
    back = "CREATE OR REPLACE FUNCTION s.back(s.kind) RETURNS text LANGUAGE sql IMMUTABLE AS $$SELECT CASE ($1).v WHEN {0} THEN 'A' ELSE 'B' END$$"
    table = f"CREATE TABLE s.bill (id int PRIMARY KEY, {CLINIC}, kind text); INSERT INTO s.bill SELECT n, 1 + n % 2, CASE WHEN n % 3 = 0 THEN 'A' ELSE 'B' END FROM generate_series(1, 20) AS n"
    rig = shaped(demo_database, tmp_path, table, {"bill": OWN}, owner=True)
    record = rig.run(1)
    rig.execute(
        "CREATE TYPE s.kind AS (v int)", there.format(1), back.format(1),
        "CREATE CAST (text AS s.kind) WITH FUNCTION s.there(text) AS ASSIGNMENT",
        "CREATE CAST (s.kind AS text) WITH FUNCTION s.back(s.kind)",
        "ALTER TABLE s.bill ALTER kind TYPE s.kind USING s.there(kind)",
    )  # fmt: skip
    (rig.settings.sql_dir / "drift.txt").write_text("s.bill: kind (text) -> kind (s.kind)\n")
    rig.execute("DELETE FROM s.bill WHERE clinic_id = 1")
    plan = rig.plan(record, mode=mode)
    assert plan.refusals == () and plan.writes == 10
    if replaced:
        rig.execute(there.format(666), back.format(666))
        with pytest.raises(ClinicChanged, match=r"values s\.bill"):
            rig.restore().apply(rig.source(record), Wish(mode), approved=plan.digest, plan=plan)
        return
    rig.restore().apply(rig.source(record), Wish(mode), approved=plan.digest, plan=plan)
    assert rig.execute_rows("SELECT DISTINCT (kind).v FROM s.bill WHERE clinic_id = 1 ORDER BY 1") == [(1,), (2,)]


READ = f"""
    CREATE TABLE s.conf (v text); INSERT INTO s.conf VALUES ('a');
    CREATE FUNCTION s.of_view() RETURNS text LANGUAGE sql STABLE AS $$SELECT 'a'::text$$;
    CREATE VIEW s.inner_view AS SELECT s.of_view() AS v; CREATE VIEW s.outer_view AS SELECT v FROM s.inner_view;
    CREATE FUNCTION s.cat(text, text) RETURNS text LANGUAGE sql IMMUTABLE AS $$SELECT $1 || $2$$;
    CREATE OPERATOR s.<+> (LEFTARG = text, RIGHTARG = text, FUNCTION = s.cat);
    CREATE TYPE s.pair AS (a int); CREATE FUNCTION s.pair_text(s.pair) RETURNS text LANGUAGE sql IMMUTABLE AS $$SELECT 'a'$$;
    CREATE CAST (s.pair AS text) WITH FUNCTION s.pair_text(s.pair);
    CREATE FUNCTION s.is_ok(text) RETURNS boolean LANGUAGE sql IMMUTABLE AS 'SELECT true';
    CREATE DOMAIN s.ok AS text CHECK (s.is_ok(VALUE)); CREATE TYPE s.whole AS (a s.ok);
    CREATE DOMAIN s.dm AS text; CREATE TYPE s.named AS ENUM ('a'); CREATE TEXT SEARCH CONFIGURATION s.cfg (COPY = pg_catalog.simple);
    CREATE FUNCTION s.f() RETURNS text LANGUAGE plpgsql STABLE AS $$DECLARE r text; q s.dm := (enum_range(NULL::s.named))[1]; BEGIN
        q := to_tsvector('s.cfg', q)::text; EXECUTE 'SELECT v FROM s.outer_view' INTO r; RETURN r OPERATOR(s.<+>) ((ROW(1)::s.pair)::text || current_setting('app.said', true)); END$$;
    CREATE TABLE s.bill (id serial PRIMARY KEY, {CLINIC}, col text DEFAULT s.f(), w s.whole DEFAULT ROW('a'), set text DEFAULT current_setting('app.x', true));
    INSERT INTO s.bill (clinic_id) VALUES (1), (1), (2)
"""
REACHED = {
    "view s.inner_view": "CREATE OR REPLACE VIEW s.inner_view AS SELECT s.of_view() || '' AS v",
    "function s.of_view()": "CREATE OR REPLACE FUNCTION s.of_view() RETURNS text LANGUAGE sql STABLE AS $$SELECT 'z'::text$$",
    "function s.cat(text,text)": "CREATE OR REPLACE FUNCTION s.cat(text, text) RETURNS text LANGUAGE sql IMMUTABLE AS $$SELECT 'z'$$",
    "function s.pair_text(s.pair)": "CREATE OR REPLACE FUNCTION s.pair_text(s.pair) RETURNS text LANGUAGE sql IMMUTABLE AS $$SELECT 'z'$$",
    "function s.is_ok(text)": "CREATE OR REPLACE FUNCTION s.is_ok(text) RETURNS boolean LANGUAGE sql IMMUTABLE AS 'SELECT 1 = 1'",
    "setting app.x": "ALTER DATABASE {0} SET app.x = 'z'",
    "setting app.said": "ALTER DATABASE {0} SET app.said = 'z'",
    "view s.outer_view": "CREATE OR REPLACE VIEW s.outer_view AS SELECT 'z'::text AS v",
    "type s.dm": "ALTER DOMAIN s.dm ADD CHECK (VALUE <> 'z')",
    "type s.named": "ALTER TYPE s.named RENAME VALUE 'a' TO 'z'",
    "text search configuration s.cfg": "ALTER TEXT SEARCH CONFIGURATION s.cfg ALTER MAPPING FOR asciiword WITH english_stem",
}  # fmt: skip
BESIDE = (
    "CREATE VIEW s.beside AS SELECT 1 AS v; CREATE FUNCTION s.unlike(int, int) RETURNS int LANGUAGE sql AS 'SELECT 1';"
    "CREATE OPERATOR s.<-> (LEFTARG = int, RIGHTARG = int, FUNCTION = s.unlike); ALTER DATABASE {0} SET app.other = 'z';"
    "CREATE TYPE s.beside_too AS (a int); ALTER DATABASE {0} SET random_page_cost = 3"
)


@pytest.mark.parametrize("mode", ["exact", "live"])
def test_what_a_functions_text_reaches_belongs_to_the_approval(
    demo_database: DemoDatabase, tmp_path: Path, mode: RestoreMode
) -> None:
    rig = shaped(demo_database, tmp_path, READ, {"bill": OWN}, lists="s.conf: shared, x\n", owner=True)
    record = rig.run(1)
    rig.execute("DELETE FROM s.bill WHERE clinic_id = 1")
    # The mode decides by the kind, which is the first word.
    kinds = {name.split(" ")[0]: name for name in REACHED}
    for name in REACHED if mode == "exact" else kinds.values():
        change, before = REACHED[name], rig.plan(record, mode=mode)
        assert before.refusals == ()
        rig.execute(change.replace("{0}", demo_database.name))
        with pytest.raises(ClinicChanged, match=rf"since the plan was made: .*{re.escape(name)}"):
            rig.restore().apply(rig.source(record), Wish(mode), approved=before.digest, plan=before)
    before = rig.plan(record, mode=mode)
    for statement in BESIDE.replace("{0}", demo_database.name).split(";"):
        rig.execute(statement)
    hostile(
        rig,
        "CREATE VIEW h.outer_view AS SELECT 'z' AS v; CREATE FUNCTION h.f(text, text) RETURNS text LANGUAGE sql AS 'SELECT $1'; CREATE OPERATOR h.<+> (LEFTARG = text, RIGHTARG = text, FUNCTION = h.f)",
    )
    rig.restore().apply(rig.source(record), Wish(mode), approved=before.digest, plan=before)


MEANT = {
    "LIKE": ("~~", "a LIKE 'x'"),
    "NOT ILIKE": ("!~~*", "a NOT ILIKE 'y'"),
    "SIMILAR TO": ("~", "a SIMILAR TO 'x'"),
    "BETWEEN": (">=", "a BETWEEN 'a' AND 'z'"),
    "NOT IN": ("<>", "a NOT IN ('y', 'z')"),
    "!=": ("<>", "a != 'y'"),
    "NULLIF": ("=", "nullif(a, 'x') IS NULL"),
    "IS DISTINCT FROM": ("=", "a IS NOT DISTINCT FROM 'x'"),
    "NATURAL JOIN": ("=", "EXISTS (SELECT FROM (SELECT a) AS p NATURAL JOIN (SELECT 'x'::varchar AS a) AS q)"),
}  # fmt: skip
"""Operators without their sign, and a condition that is true with PostgreSQL's own."""


@pytest.mark.parametrize("words", [*MEANT, "an attribute"])
def test_what_a_text_calls_without_its_name_or_sign_belongs_to_the_approval(
    demo_database: DemoDatabase, tmp_path: Path, words: str
) -> None:
    """A role that may create objects in a schema of the path makes a better fitting operator, after the approval."""
    sign, condition = MEANT.get(words, ("", "(SELECT b.whole FROM s.bill AS b LIMIT 1)"))
    whole = "CREATE OR REPLACE FUNCTION public.whole(s.bill) RETURNS boolean LANGUAGE sql STABLE AS 'SELECT {}'"
    schema = f"""
        CREATE TABLE s.bill (id serial PRIMARY KEY, {CLINIC}); {whole.format("true")};
        CREATE FUNCTION s.f() RETURNS text LANGUAGE plpgsql STABLE AS $f$
            DECLARE a varchar DEFAULT 'x'; BEGIN RETURN CASE WHEN {condition} THEN 'ok' ELSE 'no' END; END$f$;
        INSERT INTO s.bill (clinic_id) VALUES (1), (1), (2)
    """
    rig = shaped(demo_database, tmp_path, schema, {"bill": OWN}, owner=True)
    record = rig.run(1)
    rig.execute("ALTER TABLE s.bill ADD said text DEFAULT s.f()", "DELETE FROM s.bill WHERE clinic_id = 1 AND id = 1")
    plan = rig.plan(record)
    assert plan.refusals == ()
    if sign:
        rig.execute(
            "CREATE FUNCTION public.g(varchar, varchar) RETURNS boolean LANGUAGE sql AS 'SELECT false'",
            f"CREATE OPERATOR public.{sign} (LEFTARG = varchar, RIGHTARG = varchar, FUNCTION = public.g)",
        )
    else:
        rig.execute(whole.format("false"))
    with pytest.raises(ClinicChanged, match=r"since the plan was made: .*function public"):
        rig.restore().apply(rig.source(record), Wish(), approved=plan.digest, plan=plan)


SEEN = f"""
    CREATE FUNCTION s.f() RETURNS text LANGUAGE sql STABLE AS $$SELECT current_setting('app.x', true)$$;
    CREATE TABLE s.bill (id serial PRIMARY KEY, {CLINIC}, col text DEFAULT s.f());
    INSERT INTO s.bill (clinic_id) VALUES (1), (1), (2)
"""


def with_options(restore: ClinicRestore, options: str) -> ClinicRestore:
    restore.database = replace(restore.database, extra={"options": options})
    return restore


@pytest.mark.parametrize("mode", ["exact", "live"])
@pytest.mark.parametrize(
    ("before", "after", "changed"),
    [
        ("-c app.x=a", "-c app.x=z", "setting app.x"),
        ("-c app.x=a", "", "setting app.x"),
        ("", "-c app.x=z", "setting app.x"),
        ("-c search_path=s", "-c search_path=public", "setting search_path"),
        ("-c work_mem=5MB -c app.y=a -c DateStyle=German", "-c work_mem=6MB -c app.y=z", ""),
    ],
)
def test_what_the_connection_sets_belongs_to_the_approval(
    demo_database: DemoDatabase, tmp_path: Path, before: str, after: str, changed: str, mode: RestoreMode
) -> None:
    rig = shaped(demo_database, tmp_path, SEEN, {"bill": OWN})
    record = rig.run(1)
    rig.execute("DELETE FROM s.bill WHERE clinic_id = 1")
    source = rig.source(record)
    plan = with_options(rig.restore(), before).plan(source, Wish(mode))
    assert plan.refusals == ()
    restore = with_options(rig.restore(), after)
    if not changed:
        restore.apply(source, Wish(mode), approved=plan.digest, plan=plan)
        return
    with pytest.raises(ClinicChanged, match=rf"since the plan was made: {changed}"):
        restore.apply(source, Wish(mode), approved=plan.digest, plan=plan)


def test_what_the_server_sets_belongs_to_the_approval(demo_database: DemoDatabase, tmp_path: Path) -> None:
    rig = shaped(demo_database, tmp_path, SEEN, {"bill": OWN})
    record = rig.run(1)
    rig.execute("DELETE FROM s.bill WHERE clinic_id = 1")
    plan = rig.plan(record)

    def set_for_all(how: str, value: str | None) -> None:
        """The server reads its files in its own time. New sessions show whether it has."""
        with closing(demo_database.connect()) as db, db.cursor() as cursor:
            db.autocommit = True
            cursor.execute(f"ALTER SYSTEM {how}")
            cursor.execute("SELECT pg_reload_conf()")
        for _ in range(100):
            with closing(demo_database.connect()) as db, db.cursor() as cursor:
                cursor.execute("SELECT current_setting('app.x', true)")
                ((seen,),) = cursor.fetchall()
                if (seen or None) == value:  # a setting that was removed may be empty
                    return
            time.sleep(0.1)
        raise AssertionError(value)

    try:
        set_for_all("SET app.x = 'z'", "z")
        with pytest.raises(ClinicChanged, match=r"since the plan was made: setting app\.x"):
            rig.restore().apply(rig.source(record), Wish(), approved=plan.digest, plan=plan)
    finally:
        set_for_all("RESET app.x", None)
