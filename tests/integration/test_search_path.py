"""No operator or function that somebody else made is run, however well its types fit what this package writes."""

# ruff: noqa: E501 - a schema reads best with one table a line

from __future__ import annotations

import re
from pathlib import Path

from clinic_backups.base import connections
from clinic_backups.restore.into_schema import IntoRestore
from tests.integration.test_restore_outside import OWN, restored
from tests.integration.test_trial import trial
from tests.postgres_fixtures import DemoDatabase
from tests.shapes import Shaped, shaped

CODE = Path(__file__).parents[2] / "plugins" / "clinic_backups"
NAMES = sorted(
    {
        name.lower()
        for suffix in ("py", "sql")
        for path in CODE.rglob(f"*.{suffix}")
        for name in re.findall(r"\b([a-zA-Z_][a-zA-Z0-9_]*)\(", path.read_text())
    }
)
"""Everything that this package may call, so that a new call is tried as well."""
TRAPS = """
    CREATE SCHEMA h AUTHORIZATION {role}; GRANT USAGE ON SCHEMA h, s TO PUBLIC;
    SET LOCAL search_path = pg_catalog; SET ROLE {role};
    CREATE SEQUENCE h.hit MINVALUE 0; GRANT ALL ON h.hit TO PUBLIC; CREATE TABLE h.traps (n int, what text);
    CREATE FUNCTION h.trapped(n bigint) RETURNS void LANGUAGE plpgsql SET search_path = pg_catalog AS
        -- Written so that a plan does not look for sequences in thousands of functions.
        'BEGIN EXECUTE ''SELECT se'' || ''tval(''''h.hit'''', '' || n || '')''; END';
    DO $do$
    DECLARE l text; r text; called text; n int := 0; gives text; body text;
        numbers text[] := ARRAY['int2', 'int4', 'int8', 'numeric', 'oid'];
        types text[] := numbers || ARRAY['text', 'name', 'varchar', '"char"', 'bool', 'regclass', 'date', 'timestamptz', 's.code'];
    BEGIN
      FOREACH l IN ARRAY types LOOP FOREACH r IN ARRAY types LOOP
        FOREACH called IN ARRAY ARRAY['=', '<>', '<', '>', '<=', '>=', '+', '-', '*', '/', '%', '||'] LOOP
          CONTINUE WHEN called IN ('+', '-', '*', '/', '%') AND NOT (l = ANY (numbers) AND r = ANY (numbers));
          n := n + 1;
          INSERT INTO h.traps VALUES (n, concat_ws(' ', l, called, r));
          gives := CASE WHEN called = '||' THEN 'text' WHEN called IN ('+', '-', '*', '/', '%')
                        THEN 'numeric' ELSE 'bool' END;
          EXECUTE format('CREATE FUNCTION {schema}.trap%s(%s, %s) RETURNS %s LANGUAGE plpgsql AS ''BEGIN PERFORM'
                         ' h.trapped(%s); RETURN NULL; END''', n, l, r, gives, n);
          EXECUTE format('CREATE OPERATOR {schema}.%s (LEFTARG=%s, RIGHTARG=%s, FUNCTION={schema}.trap%s)', called, l, r, n);
        END LOOP;
      END LOOP; END LOOP;
      FOR called, gives IN SELECT DISTINCT p.proname, p.prokind FROM pg_proc p
                          WHERE p.pronamespace = 'pg_catalog'::regnamespace AND p.proname = ANY ({names}) LOOP
        FOREACH l IN ARRAY types LOOP FOREACH r IN ARRAY ARRAY['', ', text'] LOOP
          CONTINUE WHEN r <> '' AND gives <> 'f';
          n := n + 1;
          INSERT INTO h.traps VALUES (n, format('%s(%s%s)', called, l, r));
          IF gives = 'f' THEN
            EXECUTE format('CREATE FUNCTION {schema}.%I(%s%s) RETURNS text LANGUAGE plpgsql AS ''BEGIN PERFORM h.trapped(%s);'
                           ' RETURN NULL; END''', called, l, r, n);
          ELSIF gives = 'a' THEN
            EXECUTE format('CREATE FUNCTION {schema}.step%s(int8, %s) RETURNS int8 LANGUAGE plpgsql AS ''BEGIN PERFORM'
                           ' h.trapped(%s); RETURN 0; END''', n, l, n);
            EXECUTE format('CREATE AGGREGATE {schema}.%I(%s) (SFUNC={schema}.step%s, STYPE=int8, INITCOND=0)', called, l, n);
          END IF;
        END LOOP; END LOOP;
      END LOOP;
    END $do$;
    CREATE DOMAIN {schema}.text AS pg_catalog.int4; CREATE DOMAIN {schema}.int8 AS pg_catalog.text; CREATE TYPE {schema}.record AS (a int);
    CREATE DOMAIN {schema}.date AS pg_catalog.text; CREATE DOMAIN {schema}.uuid AS pg_catalog.int4;
    RESET ROLE
"""
DDL = """
    CREATE SEQUENCE s.q; CREATE DOMAIN s.code AS varchar(20) CHECK (pg_catalog.length(VALUE) OPERATOR(pg_catalog.>) 0);
    CREATE TYPE s.mood AS ENUM ('good', 'bad'); GRANT USAGE ON TYPE s.code, s.mood TO PUBLIC;
    CREATE FUNCTION s.up(text) RETURNS text LANGUAGE sql IMMUTABLE AS 'SELECT pg_catalog.upper($1)';
    CREATE FUNCTION s.same() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
    CREATE TABLE s.bill (id int PRIMARY KEY, clinic_id int NOT NULL REFERENCES s.clinic, no text DEFAULT 'F-' || nextval('s.q') UNIQUE,
                         year bigint DEFAULT 2026000000::numeric + nextval('s.q'), code s.code UNIQUE, mood s.mood, small smallint, EXCLUDE (small WITH =));
    CREATE UNIQUE INDEX bill_up ON s.bill (s.up(code)) WHERE small > 0;
    CREATE TRIGGER same BEFORE INSERT OR UPDATE ON s.bill FOR EACH ROW EXECUTE FUNCTION s.same();
    CREATE TABLE s.line (id bigserial PRIMARY KEY, bill_id bigint REFERENCES s.bill ON DELETE CASCADE, v varchar(9));
    CREATE TABLE s.log (clinic_id int NOT NULL REFERENCES s.clinic, v text, n numeric);
    CREATE TABLE s.word (w s.code PRIMARY KEY, clinic_id int NOT NULL REFERENCES s.clinic, d date, UNIQUE (d, clinic_id));
    INSERT INTO s.bill SELECT k, 1 + k % 2, 'F-' || k, 2026000000 + k, 'c' || k, 'good', k FROM generate_series(1, 20) AS k;
    INSERT INTO s.line (bill_id, v) SELECT 1 + k % 20, 'l' || k FROM generate_series(1, 40) AS k;
    INSERT INTO s.log SELECT 1 + k % 2, 'l', k / 2 FROM generate_series(1, 20) AS k;
    INSERT INTO s.word SELECT 'w' || k, 1 + k % 2, DATE '2020-01-01' + k FROM generate_series(1, 20) AS k
"""
EXTRACTS = {"bill": OWN, "log": OWN, "word": OWN, "line": f"bill_id IN (SELECT id FROM s.bill WHERE {OWN})"}
DAMAGE = (
    ("exact", "DELETE FROM s.bill WHERE clinic_id = 1", "DELETE FROM s.log", "DELETE FROM s.word"),
    ("exact", "UPDATE s.bill SET small = 41 - id, code = 'c' || 41 - id, mood = 'bad'", "UPDATE s.line SET v = 'z'",
                "UPDATE s.log SET n = 3", "UPDATE s.word SET d = d + 100", "DELETE FROM s.line WHERE id > 30"),
    ("exact", "ALTER TABLE s.log ALTER n TYPE text", "ALTER TABLE s.line ALTER v TYPE varchar(3)",
                     "UPDATE s.log SET v = 'x'", "ALTER TABLE s.line ADD w s.code", "DELETE FROM s.line WHERE bill_id = 2"),
    ("live", "UPDATE s.bill SET code = 'c' || 41 - id WHERE id > 10", "DELETE FROM s.line"),
)  # fmt: skip
"""The mode of each restore, and what happens before it."""


def trap(rig: Shaped, schema: str) -> None:
    """Make every operator and function of this package's SQL, for the types that occur, in a schema."""
    role = f"evil_{rig.database.name}"
    rig.execute(f"CREATE ROLE {role}")
    if schema == "public":
        rig.execute(f"GRANT CREATE ON SCHEMA public TO {role}")
        # Here even an operator of the same types comes before PostgreSQL's own.
        for each in (rig.database.roles.restorer, rig.database.roles.reader, rig.database.roles.catalog):
            rig.execute(f"ALTER ROLE {each} IN DATABASE {rig.database.name} SET search_path = public, pg_catalog")
    else:
        rig.execute(f"CREATE SCHEMA {schema} AUTHORIZATION {role}; GRANT USAGE ON SCHEMA {schema} TO PUBLIC")
    rig.execute(TRAPS.format(role=role, schema=schema, names=f"ARRAY{NAMES}"))


def ran(rig: Shaped) -> list[str]:
    """The last trap that ran, and forget it."""
    found = rig.execute_rows(
        "SELECT t.what FROM h.traps AS t, h.hit AS s WHERE s.is_called AND t.n OPERATOR(pg_catalog.=) s.last_value"
    )
    rig.execute("SELECT pg_catalog.setval('h.hit', 0, false)")
    return [str(what) for (what,) in found]


def test_what_somebody_made_in_public_is_never_run(demo_database: DemoDatabase, tmp_path: Path) -> None:
    rig = shaped(demo_database, tmp_path, DDL, EXTRACTS)
    (rig.settings.sql_dir / "drift.txt").write_text(
        "s.log: n (numeric) -> n (text)\ns.line: w = 'new'\n"
        "s.line: v (character varying(9)) -> v (character varying(3))\n"
    )
    record = rig.run(1)
    trap(rig, "public")
    rig.run(1)
    assert ran(rig) == []
    assert [found for found in trial(rig, rig.database.restorer_uri) if found.level == "error"] == []
    assert ran(rig) == []
    for mode, *statements in DAMAGE:
        rig.execute("SET LOCAL search_path = pg_catalog", *statements)
        plan = rig.plan(record, mode=mode)
        assert (ran(rig), plan.refusals) == ([], ())
        saved = restored(rig, record, plan, mode=mode)
        assert ran(rig) == [] and saved is not None
        restored(rig, saved)
        assert ran(rig) == []
    restore = rig.restore()
    restore.database = connections.parse("restore_target", rig.database.postgres.uri(rig.database.name))
    assert IntoRestore(restore).run(rig.source(record), "a_copy").rows
    assert ran(rig) == []


def test_what_somebody_made_in_a_schema_that_has_a_roles_name_is_never_run(
    demo_database: DemoDatabase, tmp_path: Path
) -> None:
    rig = shaped(demo_database, tmp_path, DDL, EXTRACTS)
    record, roles = rig.run(1), demo_database.roles
    trap(rig, roles.restorer)
    rig.execute("SET LOCAL search_path = pg_catalog", *DAMAGE[0][1:])
    plan = rig.plan(record)
    assert (ran(rig), plan.refusals) == ([], ())
    assert restored(rig, record, plan) is not None
    assert ran(rig) == []
    was = roles.restorer
    for role in (roles.reader, roles.catalog):
        rig.execute(f"ALTER SCHEMA {was} RENAME TO {role}")
        rig.run(1)
        assert ran(rig) == []
        was = role


def test_an_extensions_operator_is_run_and_not_one_beside_it_that_fits_better(
    demo_database: DemoDatabase, tmp_path: Path
) -> None:
    """The extension is in public, where somebody makes operators of the same names for domains and other types."""
    ddl = """
        CREATE EXTENSION citext SCHEMA public; CREATE DOMAIN s.word AS public.citext; GRANT USAGE ON TYPE s.word TO PUBLIC;
        CREATE TABLE s.kind (w s.word PRIMARY KEY, clinic_id int NOT NULL REFERENCES s.clinic, v text);
        CREATE TABLE s.item (w text PRIMARY KEY, clinic_id int NOT NULL REFERENCES s.clinic, kind public.citext REFERENCES s.kind, mark s.word UNIQUE);
        INSERT INTO s.kind SELECT 'k' || k, 1 + k % 2, 'v' FROM generate_series(1, 20) AS k;
        INSERT INTO s.item SELECT 'i' || k, 1 + k % 2, 'K' || k, 'm' || k FROM generate_series(1, 20) AS k
    """
    rig = shaped(demo_database, tmp_path, ddl, {"kind": OWN, "item": OWN})
    record, role = rig.run(1), f"evil_{demo_database.name}"
    rig.execute(
        f"CREATE ROLE {role}; GRANT CREATE ON SCHEMA public TO {role}; CREATE SCHEMA h AUTHORIZATION {role};"
        f" GRANT USAGE ON SCHEMA h, s TO PUBLIC; SET ROLE {role}; CREATE SEQUENCE h.hit MINVALUE 0;"
        " GRANT ALL ON h.hit TO PUBLIC; CREATE TABLE h.traps (n int, what text)"
    )
    types = [("s.word", "s.word"), ("s.word", "text"), ("text", "s.word"), ("public.citext", "text"),
             ("s.word", "public.citext"), ("public.citext", "s.word"), ("text", "public.citext")]  # fmt: skip
    for number, (left, right) in enumerate(types):
        rig.execute(
            f"SET ROLE {role}; INSERT INTO h.traps VALUES ({number}, '{left} = {right}');"
            f" CREATE FUNCTION public.trap{number}({left}, {right}) RETURNS boolean LANGUAGE plpgsql AS"
            f" 'BEGIN PERFORM pg_catalog.setval(''h.hit'', {number}); RETURN false; END';"
            f" CREATE OPERATOR public.= (LEFTARG={left}, RIGHTARG={right}, FUNCTION=public.trap{number})"
        )
    rig.run(1)
    assert ran(rig) == []
    assert [found for found in trial(rig, rig.database.restorer_uri) if found.level == "error"] == []
    assert ran(rig) == []
    for damage in (
        "DELETE FROM s.item WHERE clinic_id = 1",
        "UPDATE s.kind SET v = 'x'",
        "UPDATE s.item SET mark = ('x' || mark::text)::s.word",
    ):
        rig.execute("SET LOCAL search_path = pg_catalog", damage)
        plan = rig.plan(record)
        assert (ran(rig), plan.refusals) == ([], ())
        assert restored(rig, record, plan) is not None
        assert ran(rig) == []
