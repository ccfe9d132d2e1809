"""After a restore the next number of a sequence is free. If that cannot be told, the plan and `check` say so."""

# ruff: noqa: E501 - a case reads best in one line

from __future__ import annotations

from pathlib import Path

import psycopg2
import pytest

from clinic_backups.base.errors import PermanentError
from tests.integration.test_trial import trial
from tests.postgres_fixtures import DemoDatabase
from tests.shapes import shaped

OWN = "clinic_id = {{ clinic_id }}"
FUNCTION = "CREATE FUNCTION s.{0}() RETURNS trigger LANGUAGE plpgsql AS $f$ {1} $f$;"
ON = "CREATE TRIGGER {0} BEFORE INSERT ON s.{0} FOR EACH ROW EXECUTE FUNCTION s.{0}({1});"
CLINIC = "clinic_id int REFERENCES s.clinic"
FILL = "INSERT INTO s.{0} (clinic_id) SELECT 1 + n % 2 FROM generate_series(1, 30) AS n;"


def triggered(name: str, body: str, *, id_type: str = "int", arguments: str = "", declare: str = "") -> str:
    """A table whose trigger gives ``id``."""
    return (
        f"CREATE SEQUENCE s.q_{name}; CREATE TABLE s.{name} (id {id_type}, {CLINIC});"
        + FUNCTION.format(name, f"{declare} BEGIN {body}\n RETURN NEW; END")
        + ON.format(name, arguments)
    )


STALE = (
    "-- was: NEW.id := nextval('old.other_seq');",
    "IF false THEN NEW.id := nextval('gone.seq'); END IF;",
    "IF false THEN NEW.id := nextval('db.gone.seq'); NEW.id := nextval('a.b.c.d'); END IF;",
    "IF false THEN NEW.id := nextval('no name'); NEW.id := nextval(''); NEW.id := nextval('\"'); END IF;",
    "IF false THEN NEW.id := nextval('s.'); NEW.id := nextval('s.factura_' || NEW.clinic_id); END IF;",
    "IF false THEN NEW.id := nextval(NULL); NEW.id := nextval('pg_class'); NEW.id := nextval('s.clinic'); END IF;",
    "IF false THEN NEW.id := nextval('%s'); NEW.id := nextval(format('%I.%s', 's', NEW.clinic_id)); END IF;",
)


def test_nothing_that_a_text_says_hinders_a_restore(demo_database: DemoDatabase, tmp_path: Path) -> None:
    """Names that are not there, and that are no names: in triggers of all tables, also of one that nobody backs up."""
    ddl = f"CREATE TABLE s.x (id int PRIMARY KEY, {CLINIC}); INSERT INTO s.x VALUES (1, 1), (2, 2);"
    for number, body in enumerate(STALE):
        ddl += triggered(f"t{number}", body) + f"INSERT INTO s.t{number} VALUES (1, 1), (2, 2);"
    ddl += "CREATE TABLE public.other (id int); " + FUNCTION.format("other", f"BEGIN {STALE[0]}\n RETURN NEW; END")
    ddl += "CREATE TRIGGER other BEFORE INSERT ON public.other FOR EACH ROW EXECUTE FUNCTION s.other()"
    kept = {"x": OWN} | {f"t{number}": OWN for number in range(len(STALE))}
    rig = shaped(demo_database, tmp_path, ddl, kept, lists="public.other: shared, x\n", owner=True)
    before, record = rig.everything(), rig.run(1)
    rig.execute("DELETE FROM s.x WHERE id = 1", *(f"DELETE FROM s.t{n} WHERE clinic_id = 1" for n in range(len(STALE))))
    rig.bring_back(record)
    assert rig.everything() == before
    assert not [found for found in trial(rig, rig.database.postgres.uri(rig.database.name)) if found.level == "error"]


def test_names_that_need_quotes_are_found(demo_database: DemoDatabase, tmp_path: Path) -> None:
    ddl = f"""
        CREATE SCHEMA "Otro.x"; CREATE SEQUENCE "Otro.x"."Q'a""b";
        CREATE TABLE s."d'or" (id serial PRIMARY KEY, {CLINIC},
                               n int UNIQUE DEFAULT nextval('"Otro.x"."Q''a""b"'::text));
        INSERT INTO s."d'or" (clinic_id) SELECT 1 + n % 2 FROM generate_series(1, 30) AS n
    """
    rig = shaped(demo_database, tmp_path, ddl, {"d'or": f'SELECT * FROM s."d\'or" WHERE {OWN}'}, owner=True)
    before, record = rig.everything(), rig.run(1)
    rig.execute(
        'DELETE FROM s."d\'or" WHERE clinic_id = 1',
        """SELECT setval('"Otro.x"."Q''a""b"', 1, false), setval('s."d''or_id_seq"', 1, false)""",
    )
    rig.bring_back(record)
    assert rig.everything() == before
    rig.execute(FILL.format('"d\'or"'))


HOW = {
    "variable": triggered("variable", "SELECT nextval('s.q_variable') INTO n; NEW.id := n;", declare="DECLARE n int;"),
    "declared": triggered(
        "declared", "NEW.id := 'A' || n;", id_type="text", declare="DECLARE n int := nextval('s.q_declared');"
    ),
    "argument": triggered("argument", "NEW.id := nextval(TG_ARGV[0]);", arguments="'s.q_argument'"),
    "its_name": triggered("its_name", "NEW.id := nextval(TG_TABLE_SCHEMA || '.q_' || TG_TABLE_NAME);"),
    "last": triggered("last", "PERFORM nextval('s.q_last'); NEW.id := currval('s.q_last');"),
    "of_row": triggered("of_row", "NEW.id := 'C' || NEW.clinic_id || '-' || nextval('s.q_of_row');", id_type="text"),
    "of_line": triggered("of_line", "NEW.id := NEW.clinic_id * 100000 + nextval('s.q_of_line');"),
    "writes": triggered("writes", "") + "CREATE FUNCTION s.make(clinic int) RETURNS void LANGUAGE plpgsql AS $$"
    " BEGIN INSERT INTO s.writes (id, clinic_id) VALUES (nextval('s.q_writes'), clinic); END$$;",
    "instead": f"CREATE SEQUENCE s.q_instead; CREATE TABLE s.instead (id int, {CLINIC});"
    " CREATE VIEW s.i AS SELECT * FROM s.instead;"
    + FUNCTION.format(
        "i", "BEGIN NEW.id := nextval('s.q_instead');"
        " INSERT INTO s.instead (id, clinic_id) VALUES (NEW.id, NEW.clinic_id); RETURN NEW; END"
    )
    + "CREATE TRIGGER i INSTEAD OF INSERT ON s.i FOR EACH ROW EXECUTE FUNCTION s.i();",
    "after": f"CREATE SEQUENCE s.q_after; CREATE TABLE s.after (id int DEFAULT -random() * 1e9, {CLINIC});"
    + FUNCTION.format("after", "BEGIN UPDATE s.after SET id = nextval('s.q_after') WHERE id = NEW.id; RETURN NULL; END")
    + "CREATE TRIGGER a AFTER INSERT ON s.after FOR EACH ROW EXECUTE FUNCTION s.after();",
    "hex": f"CREATE SEQUENCE s.q_hex; CREATE TABLE s.hex (id text DEFAULT to_hex(nextval('s.q_hex')), {CLINIC});",
    "made": "CREATE SEQUENCE s.q_made; CREATE FUNCTION s.made() RETURNS bigint LANGUAGE plpgsql AS $$DECLARE n bigint;"
    " BEGIN EXECUTE 'SELECT next' || 'val(''s.q_made'')' INTO n; RETURN n; END$$;"
    f"CREATE TABLE s.made (id int DEFAULT s.made(), {CLINIC});",
    "escaped": triggered("escaped", r"NEW.id := nextval(U&'s.q!005fescaped' UESCAPE '!');"),
    "continued": triggered("continued", "NEW.id := nextval('s.q_'\n 'continued');"),
    "quoted": triggered("quoted", r"NEW.id := nextval(quote_ident('s') || E'.q\x5fquoted');"),
    "of_default": triggered("of_default", "NEW.id := nextval(pg_get_serial_sequence('s.of_default', 'n'));")
    + "ALTER TABLE s.of_default ADD n bigint; ALTER SEQUENCE s.q_of_default OWNED BY s.of_default.n;",
    "view": f"CREATE SEQUENCE s.q_view; CREATE TABLE s.view (id int, {CLINIC});"
    " CREATE VIEW s.v AS SELECT * FROM s.view; CREATE VIEW s.w AS SELECT clinic_id, id FROM s.v;"
    " ALTER VIEW s.w ALTER id SET DEFAULT nextval('s.q_view');",
    "rule": f"CREATE SEQUENCE s.q_rule; CREATE TABLE s.rule (id int, {CLINIC});"
    " CREATE VIEW s.r AS SELECT * FROM s.rule; CREATE RULE r AS ON INSERT TO s.r DO INSTEAD"
    " INSERT INTO s.rule (clinic_id, id) VALUES (new.clinic_id, nextval('s.q_rule'));",
}  # fmt: skip
INTO = {"view": "s.w", "rule": "s.r", "instead": "s.i"}


def test_the_next_number_is_free_however_it_is_given(demo_database: DemoDatabase, tmp_path: Path) -> None:
    fill = {name: FILL.format(name).replace(f"s.{name}", INTO.get(name, f"s.{name}"), 1) for name in HOW}
    fill["writes"] = "SELECT s.make(1 + n % 2) FROM generate_series(1, 30) AS n;"
    ddl = "".join(f"{HOW[name]} {fill[name]} ALTER TABLE s.{name} ADD PRIMARY KEY (id);" for name in HOW)
    rig = shaped(demo_database, tmp_path, ddl, dict.fromkeys(HOW, OWN), owner=True)
    before, record = rig.everything(), rig.run(1)
    for name in HOW:  # the numbers from 2 on are clinic 1's
        rig.execute(f"DELETE FROM s.{name} WHERE clinic_id = 1", f"SELECT setval('s.q_{name}', 1)")
    plan = rig.bring_back(record)
    assert rig.everything() == before
    assert not [note for table in plan.tables for note in table.notes if "cannot be told" in note]
    taken = {}
    for name in HOW:
        try:
            rig.execute(fill[name])
        except psycopg2.errors.UniqueViolation as error:
            taken[name] = str(error)
    assert not taken


@pytest.mark.parametrize("made", ["'s.bill_' || NEW.clinic_id", "format('bill_%s', NEW.clinic_id)", "q"])
def test_each_clinics_own_sequence_moves_and_no_other(demo_database: DemoDatabase, tmp_path: Path, made: str) -> None:
    ddl = "CREATE SEQUENCE s.bill_1; CREATE SEQUENCE s.bill_2; SET search_path = s, public;" + triggered(
        "t", f"q := 's.bill_' || NEW.clinic_id; NEW.id := nextval({made});", declare="DECLARE q text;"
    )
    rig = shaped(demo_database, tmp_path, ddl + "ALTER TABLE s.t ADD UNIQUE (clinic_id, id);" + FILL.format("t"),
                 {"t": OWN}, owner=True)  # fmt: skip
    record = rig.run(1)
    rig.execute("DELETE FROM s.t; SELECT setval('s.bill_1', 1, false), setval('s.bill_2', 1, false)")
    rig.bring_back(record)
    ((one, two),) = rig.execute_rows("SELECT a.last_value, b.last_value FROM s.bill_1 AS a, s.bill_2 AS b")
    assert (one, two) == (15, 1)
    assert not [found for found in trial(rig, rig.database.postgres.uri(rig.database.name)) if "bill" in found.message]


def test_a_partitions_own_default_moves_by_its_own_rows(demo_database: DemoDatabase, tmp_path: Path) -> None:
    ddl = (
        f"CREATE SEQUENCE s.q1; CREATE SEQUENCE s.q2; CREATE TABLE s.t (id int, {CLINIC}, PRIMARY KEY (id, clinic_id))"
    )
    ddl += " PARTITION BY LIST (clinic_id);" + "".join(
        f"CREATE TABLE s.t{n} PARTITION OF s.t FOR VALUES IN ({n});"
        f"ALTER TABLE s.t{n} ALTER id SET DEFAULT nextval('s.q{n}');"
        f"INSERT INTO s.t{n} (clinic_id) SELECT {n} FROM generate_series(1, 6);"
        for n in (1, 2)
    )
    rig = shaped(demo_database, tmp_path, ddl, {"t": OWN}, owner=True)
    record = rig.run(1)
    rig.execute("DELETE FROM s.t; SELECT setval('s.q1', 1, false), setval('s.q2', 1, false)")
    rig.bring_back(record)
    assert rig.execute_rows("SELECT a.last_value, b.last_value FROM s.q1 AS a, s.q2 AS b") == [(6, 1)]


@pytest.mark.parametrize(
    ("column", "other", "first"),
    [
        ("bigint", "smallint", 32768),
        ("bigint", "int", 3000000000),
        ("int", "varchar(5)", 10000),
        ("int", "smallint", 20),
    ],
)
def test_columns_of_different_size_take_from_one_sequence(
    demo_database: DemoDatabase, tmp_path: Path, column: str, other: str, first: int
) -> None:
    default = "'U' || nextval('s.q')" if "var" in other else "nextval('s.q')"
    ddl = f"""
        CREATE SEQUENCE s.q; SELECT setval('s.q', {first}, false);
        CREATE TABLE s.t (id {column} PRIMARY KEY DEFAULT nextval('s.q'), {CLINIC}); {FILL.format("t")}
        CREATE TABLE s.u (id {other} PRIMARY KEY DEFAULT {default}, {CLINIC})
    """
    rig = shaped(demo_database, tmp_path, ddl, {"t": OWN, "u": OWN}, owner=True)
    before, record = rig.everything(), rig.run(1)
    rig.execute(f"DELETE FROM s.t WHERE clinic_id = 1; SELECT setval('s.q', {first})")
    rig.bring_back(record)
    assert rig.everything() == before
    rig.execute(FILL.format("t"))
    assert rig.execute_rows("SELECT last_value FROM s.q") == [(first + 59,)]


UNTOLD = {
    "hidden": (triggered("t", "EXECUTE format('SELECT nextval(%L)', 's.q_t') INTO NEW.id;"), "s.t.id gets numbers"),
    "a setting": (triggered("t", "NEW.id := nextval(current_setting('a.seq'));"), "s.t.id gets numbers"),
    "a loop": (triggered("t", "FOR n IN SELECT nextval('s.q_t') LOOP NEW.id := n; END LOOP;", declare="DECLARE n int;"),
               "into which column of s.t those of s.q_t go"),
    "chance": (triggered("t", "NEW.id := nextval('s.q_t') + 10 * random();"), "s.t.id gets numbers"),
    "a function": ("CREATE FUNCTION s.next() RETURNS bigint LANGUAGE plpgsql AS $$BEGIN RETURN nextval('s.q_t'); END$$;" + triggered("t", "NEW.id := s.next();"), "s.t.id gets numbers"),
    "a name for a function": ("CREATE FUNCTION s.next_of(q text) RETURNS bigint LANGUAGE plpgsql AS $$BEGIN RETURN nextval(q); END$$;" + triggered("t", "NEW.id := s.next_of('s.q_t');"), "s.t.id gets numbers"),
    "a function around it": ("CREATE FUNCTION s.more(n bigint) RETURNS bigint LANGUAGE sql IMMUTABLE RETURN n + 1;" + triggered("t", "NEW.id := s.more(nextval('s.q_t'));"), "how those of s.q_t become values"),
    "a prefix": (triggered("t", "NEW.id := nextval('s.q_' || current_setting('a.seq'));"), "at run time (s.q_t)"),
}  # fmt: skip


@pytest.mark.parametrize("name", UNTOLD)
def test_what_cannot_be_told_is_said_by_plan_and_check(demo_database: DemoDatabase, tmp_path: Path, name: str) -> None:
    ddl, said = UNTOLD[name]
    ddl += "SET a.seq = 's.q_t';" if name != "a prefix" else "SET a.seq = 't';"
    rig = shaped(demo_database, tmp_path, ddl + "INSERT INTO s.t (clinic_id) VALUES (1), (2)", {"t": OWN}, owner=True)
    record = rig.run(1)
    rig.execute("DELETE FROM s.t WHERE clinic_id = 1")
    notes = [note for table in rig.bring_back(record).tables for note in table.notes]
    by = "the trigger t of s.t (function s.t)"
    assert any(said in note and by in note for note in notes)
    found = trial(rig, rig.database.postgres.uri(rig.database.name))
    assert any(said in each.message and by in each.message for each in found if each.level == "warning")


def test_values_that_a_sequence_gives_much_later_are_said(demo_database: DemoDatabase, tmp_path: Path) -> None:
    """A relation that holds near by and not far away is searched, and what no search finds is counted in the plan."""
    ddl = (
        "CREATE SEQUENCE s.q; SELECT setval('s.q', 9000);"
        f"CREATE TABLE s.t (id text PRIMARY KEY DEFAULT to_hex(nextval('s.q')), {CLINIC}); {FILL.format('t')}"
    )
    rig = shaped(demo_database, tmp_path, ddl, {"t": OWN}, owner=True)
    record = rig.run(1)
    rig.execute("DELETE FROM s.t WHERE clinic_id = 1; SELECT setval('s.q', 1)")
    notes = str([table.notes for table in rig.plan(record).tables])
    assert "15 of the restored values of s.t.id are not among those that s.q gives soon" in notes


INTRUDERS = {
    "a tag that the reader takes for signs": "INSERT INTO s.t(id) VALUES (nextval('s.t_id_seq') + length($€1$ ( ( $€1$))::text FROM (SELECT 1 AS n) AS g; COMMIT; DELETE FROM s.t WHERE clinic_id = 2; INSERT INTO evil.loot SELECT t::text FROM s.t AS t; COMMIT; BEGIN; SELECT $€2$ ' $€2$ --' ",
    "a call": "INSERT INTO s.t(id) VALUES (nextval('s.t_id_seq') + evil.run());",
    "a call in a name": "INSERT INTO s.t(id) VALUES (nextval('s.' || evil.run()));",
    "an operator of its own": "INSERT INTO s.t(id) VALUES (nextval('s.t_id_seq') OPERATOR(evil.+) 1);",
    "a function with a better type": "INSERT INTO s.t(id) VALUES (lpad(nextval('s.t_id_seq'), 6, '0')::int);",
    "a type of its own": "INSERT INTO s.t(id) VALUES (nextval('s.t_id_seq')::evil.number);",
    "a long time": "INSERT INTO s.t(id) VALUES (nextval('s.t_id_seq') + length(pg_sleep(30)::text));",
    "a trick with an escape": "INSERT INTO s.t(id) VALUES (nextval('s.t_id_seq') + length(E'\\' + evil.run() + length('')));",
}


@pytest.mark.parametrize("owner", [False, True])
@pytest.mark.parametrize("name", INTRUDERS)
def test_what_a_function_says_is_never_run(demo_database: DemoDatabase, tmp_path: Path, name: str, owner: bool) -> None:
    """Any role that has a schema of its own can write such a text. Nobody calls the function."""
    ddl = f"""
        CREATE TABLE s.t (id serial PRIMARY KEY, {CLINIC}); {FILL.format("t")}
        CREATE SCHEMA evil; GRANT USAGE ON SCHEMA evil TO PUBLIC; CREATE TABLE evil.loot (t text);
        GRANT ALL ON evil.loot TO PUBLIC; CREATE SEQUENCE evil.q; GRANT ALL ON SEQUENCE evil.q TO PUBLIC;
        CREATE FUNCTION evil.run() RETURNS bigint LANGUAGE plpgsql AS $$BEGIN PERFORM nextval('evil.q'); RETURN 1; END$$;
        CREATE FUNCTION evil.add(bigint, int) RETURNS bigint LANGUAGE sql RETURN evil.run();
        CREATE OPERATOR evil.+ (LEFTARG = bigint, RIGHTARG = int, FUNCTION = evil.add);
        CREATE OPERATOR public.+ (LEFTARG = bigint, RIGHTARG = text, FUNCTION = evil.run);
        CREATE FUNCTION public.lpad(bigint, int, text) RETURNS text LANGUAGE plpgsql AS $$BEGIN PERFORM evil.run(); RETURN '1'; END$$;
        CREATE DOMAIN evil.number AS bigint CHECK (evil.run() > 0);
        SET check_function_bodies = off;
        CREATE FUNCTION evil.f() RETURNS void LANGUAGE plpgsql AS $body$BEGIN {INTRUDERS[name]} END$body$;
    """.replace("CREATE OPERATOR public.+ (LEFTARG = bigint, RIGHTARG = text, FUNCTION = evil.run);\n", "")
    rig = shaped(demo_database, tmp_path, ddl, {"t": OWN}, owner=owner)
    record = rig.run(1)
    rig.execute("DELETE FROM s.t WHERE clinic_id = 1")
    before = rig.everything()
    rig.plan(record)
    trial(rig)
    assert rig.everything() == before
    rig.bring_back(record)
    assert rig.execute_rows("SELECT (SELECT count(*) FROM evil.loot), last_value, is_called FROM evil.q") == [
        (0, 1, False)
    ]


def test_a_sequence_that_nothing_explains_is_named(demo_database: DemoDatabase, tmp_path: Path) -> None:
    """The application itself may put its numbers into a column."""
    ddl = f"CREATE SEQUENCE s.q; CREATE TABLE s.t (id int PRIMARY KEY, {CLINIC}); INSERT INTO s.t VALUES (1, 1)"
    rig = shaped(demo_database, tmp_path, ddl, {"t": OWN})
    record = rig.run(1)
    rig.execute("DELETE FROM s.t")
    said = "does not show which column gets the numbers of s.q"
    assert said in str([table.notes for table in rig.plan(record).tables])
    assert [found.level for found in trial(rig) if said in found.message] == ["warning"]


def test_a_table_whose_name_needs_quotes_is_named_when_nobody_may_read_it(
    demo_database: DemoDatabase, tmp_path: Path
) -> None:
    """The same fault elsewhere: the name was looked up as if somebody had written it in quotes."""
    rig = shaped(demo_database, tmp_path, f'CREATE TABLE s."Mi tabla" (id int PRIMARY KEY, {CLINIC})',
                 {"Mi tabla": f'SELECT * FROM s."Mi tabla" WHERE {OWN}'})  # fmt: skip
    rig.execute(f'REVOKE SELECT ON s."Mi tabla" FROM {demo_database.roles.reader}')
    with pytest.raises(PermanentError, match=r"may not read s\.Mi tabla") as caught:
        rig.run(1)
    assert "ALTER DEFAULT PRIVILEGES" in caught.value.hint
