"""Numbers that code of the database takes in unusual ways: the next one is free, or plan and `check` name the sequence.

The column's sequence is also the one of another table that is not restored. So the sequence is known, and only the
other place shows that there is something to say.
"""

# ruff: noqa: E501 - a case reads best in one line

from __future__ import annotations

from pathlib import Path

import psycopg2
import pytest

from clinic_backups.tenant.sql_tokens import literal, name_of, tokens
from tests.integration.test_sequences import CLINIC, FUNCTION, OWN
from tests.integration.test_trial import trial
from tests.postgres_fixtures import DemoDatabase
from tests.shapes import Shaped, shaped


def _body(body: str, declare: str = "") -> str:
    """A trigger that gives ``id``. The names end in the case's number."""
    return (
        FUNCTION.format("f#", f"{declare} BEGIN {body}\n RETURN NEW; END")
        + "CREATE TRIGGER f# BEFORE INSERT ON s.t# FOR EACH ROW EXECUTE FUNCTION s.f#();"
    )


def _writer(body: str, declare: str = "", rest: str = "") -> str:
    """A procedure that the application calls for each row, with the clinic as ``c``."""
    return f"{rest} CREATE PROCEDURE s.w#(c int) LANGUAGE plpgsql AS $f$ {declare} BEGIN {body} END $f$;"


TAKE = "CREATE FUNCTION s.take#() RETURNS bigint LANGUAGE plpgsql AS $$BEGIN RETURN nextval('s.q#'); END$$;"
N = "DECLARE n bigint;"
TRIGGERS = {
    "a text with U&": _body(r"NEW.id := nextval(U&'s\002Eq#');"),
    "a text with UESCAPE": _body("NEW.id := nextval(U&'s!002Eq#' UESCAPE '!');"),
    "a text with E": _body(r"NEW.id := nextval(E's.\x71#');"),
    "a text with E in octal": _body(r"NEW.id := nextval(E's.\161#' || '');"),
    "a text in two parts": _body("NEW.id := nextval('s.'\n 'q#');"),
    "a name in quotes": _body("NEW.id := \"nextval\"('s.q#');"),
    "a name with U&": _body(r"""NEW.id := U&"n\0065xtval"('s.q#');"""),
    "a schema in quotes": _body("NEW.id := \"pg_catalog\".nextval('s.q#');"),
    "a number of the catalog": _body("NEW.id := nextval('s.q#'::regclass::oid::regclass);"),
    "EXECUTE of format": _body("EXECUTE format('SELECT nextval(%L)', 's.q#') INTO NEW.id;"),
    "EXECUTE of a text": _body("EXECUTE 'SELECT nextval(''s.q#'')' INTO n; NEW.id := n;", N),
    "EXECUTE of a variable": _body("q := 'SELECT nextval(''s.q#'')'; EXECUTE q INTO n; NEW.id := n;", f"{N} q text;"),
    "EXECUTE of parts": _body("EXECUTE 'SELECT next' || 'val(' || quote_literal('s.q#') || ')' INTO NEW.id;"),
    "EXECUTE of a function": TAKE + _body("EXECUTE 'SELECT s.take#()' INTO NEW.id;"),
    "EXECUTE with U&": _body(r"EXECUTE U&'SELECT next\0076al(''s.q#'')' INTO NEW.id;"),
    "setval": _body("NEW.id := setval('s.q#', nextval('s.q#'));"),
    "setval alone": _body("NEW.id := setval('s.q#', (SELECT last_value + 1 FROM s.q#));"),
    "setval of another value": _body("NEW.id := (SELECT last_value + 1 FROM s.q#); PERFORM setval('s.q#', NEW.id);"),
    "last_value": _body("PERFORM nextval('s.q#'); NEW.id := (SELECT last_value FROM s.q#);"),
    "pg_sequence_last_value": _body("PERFORM nextval('s.q#'); NEW.id := pg_sequence_last_value('s.q#'::regclass);"),
    "lastval": TAKE + _body("PERFORM s.take#(); NEW.id := lastval();"),
    "currval": TAKE + _body("PERFORM s.take#(); NEW.id := currval('s.q#');"),
    "a setting": _body("PERFORM set_config('a.n', nextval('s.q#')::text, true); NEW.id := current_setting('a.n');"),
    "a function of the row": "CREATE FUNCTION s.fill#(r s.t#) RETURNS s.t# LANGUAGE plpgsql AS $$BEGIN r.id := nextval('s.q#'); RETURN r; END$$;"
        + FUNCTION.format("f#", "BEGIN RETURN s.fill#(NEW); END") + "CREATE TRIGGER f# BEFORE INSERT ON s.t# FOR EACH ROW EXECUTE FUNCTION s.f#();",
    "a function of a function": TAKE + "CREATE FUNCTION s.outer#() RETURNS bigint LANGUAGE sql AS $$SELECT s.take#()$$;" + _body("NEW.id := s.outer#();"),
    "a function with U&": TAKE + _body(r'NEW.id := s.U&"t\0061ke#"();'),
    "a function in capitals": "CREATE FUNCTION s.\"Take#\"() RETURNS bigint LANGUAGE plpgsql AS $$BEGIN RETURN nextval('s.q#'); END$$;" + _body('NEW.id := s."Take#"();'),
    "a whole row": _body("NEW := jsonb_populate_record(NEW, jsonb_build_object('id', nextval('s.q#')));"),
    "a cursor": _body("OPEN c; FETCH c INTO NEW.id; CLOSE c;", "DECLARE c CURSOR FOR SELECT nextval('s.q#');"),
    "CALL": "CREATE PROCEDURE s.give#(INOUT n bigint) LANGUAGE plpgsql AS $$BEGIN n := nextval('s.q#'); END$$;" + _body("CALL s.give#(n); NEW.id := n;", N),
    "another language": "CREATE FUNCTION s.give#(regclass) RETURNS bigint LANGUAGE internal STRICT AS 'nextval_oid';" + _body("NEW.id := s.give#('s.q#');"),
    "a standard body": "CREATE FUNCTION s.give#() RETURNS bigint BEGIN ATOMIC SELECT nextval('s.q#'); END;" + _body("NEW.id := s.give#();"),
    "an operator": TAKE + "CREATE FUNCTION s.plus#(int) RETURNS bigint LANGUAGE sql AS $$SELECT nextval('s.q#')$$; CREATE OPERATOR s.@# (RIGHTARG = int, FUNCTION = s.plus#);".replace("@#", "@@@") + _body("NEW.id := OPERATOR(s.@@@) 1;"),
    "quote_ident": _body("NEW.id := nextval(quote_ident(TG_TABLE_SCHEMA) || '.' || quote_ident('q' || substr(TG_TABLE_NAME, 2)));"),
    "a name of the table": _body("NEW.id := nextval(format('%I.%I', TG_TABLE_SCHEMA, replace(TG_TABLE_NAME, 't', 'q')));"),
    "the serial sequence": _body("NEW.id := nextval(pg_get_serial_sequence('s.o#', 'id'));"),
    "a path of the function": FUNCTION.format("f#", "BEGIN NEW.id := nextval('q#'); RETURN NEW; END").replace("AS $f$", "SET search_path = pg_temp, s AS $f$")
        + "CREATE TRIGGER f# BEFORE INSERT ON s.t# FOR EACH ROW EXECUTE FUNCTION s.f#();",
    "an ON clause": _body("UPDATE s.t# SET id = x.n FROM (SELECT nextval('s.q#') AS n) AS x WHERE id = -1; NEW.id := (SELECT x.n FROM (SELECT nextval('s.q#') AS n) AS x);"),
    "an alias": _body("r.id := nextval('s.q#');", "DECLARE r ALIAS FOR NEW;"),
    "an argument by number": _body("FOR n IN 0 .. TG_NARGS - 1 LOOP NEW.id := nextval(TG_ARGV[n]); END LOOP;", N).replace("s.f#();", "s.f#('s.q#');").replace("FUNCTION s.f#('s.q#'); RETURNS", "FUNCTION s.f#() RETURNS"),
    "the last argument": _body("NEW.id := nextval(TG_ARGV[TG_NARGS - 1]);").replace("EXECUTE FUNCTION s.f#()", "EXECUTE FUNCTION s.f#('s.q#')"),
    "all arguments": _body("FOREACH q IN ARRAY TG_ARGV LOOP EXECUTE 'SELECT nextval($1)' USING q::regclass INTO NEW.id; END LOOP;", "DECLARE q text;").replace("EXECUTE FUNCTION s.f#()", "EXECUTE FUNCTION s.f#('s.q#')"),
    "a set": "CREATE FUNCTION s.set#() RETURNS SETOF bigint LANGUAGE plpgsql AS $$BEGIN RETURN QUERY SELECT nextval('s.q#'); END$$;" + _body("SELECT * INTO NEW.id FROM s.set#();"),
    "each other": "CREATE FUNCTION s.a#(n int) RETURNS bigint LANGUAGE plpgsql AS $$BEGIN RETURN s.b#(n); END$$; CREATE FUNCTION s.b#(n int) RETURNS bigint LANGUAGE plpgsql AS $$BEGIN IF n > 0 THEN RETURN s.a#(n - 1); END IF; RETURN nextval('s.q#'); END$$;" + _body("NEW.id := s.a#(2);"),
    "a number that is also written": "CREATE TABLE s.d# (id bigint); CREATE FUNCTION s.log#() RETURNS bigint LANGUAGE plpgsql AS $$DECLARE n bigint := nextval('s.q#'); BEGIN INSERT INTO s.d# VALUES (n); INSERT INTO s.d# (id) VALUES (n); RETURN n; END$$;" + _body("NEW.id := s.log#();"),
    "an aggregate": "CREATE FUNCTION s.step#(bigint, int) RETURNS bigint LANGUAGE sql AS $$SELECT nextval('s.q#')$$; CREATE AGGREGATE s.agg#(int) (SFUNC = s.step#, STYPE = bigint);" + _body("SELECT s.agg#(x) INTO NEW.id FROM generate_series(1, 1) AS x;"),
    "an inner block": _body("<<a>> DECLARE m bigint := nextval('s.q#'); BEGIN NEW.id := m; EXCEPTION WHEN division_by_zero THEN NULL; END a;"),
    "a letter that stays great": "CREATE SEQUENCE s.\"año_#\"; ALTER SEQUENCE s.q# RENAME TO \"AÑO_#\"; ALTER SEQUENCE s.\"AÑO_#\" RENAME TO q#;" + _body("NEW.id := nextval('S.Q#');"),
    "texts with backslashes": _body(r"NEW.id := nextval('s.\161#');").replace("plpgsql AS", "plpgsql SET standard_conforming_strings = off AS"),
    "a parameter that comes back": "CREATE FUNCTION s.out#(OUT n bigint) LANGUAGE plpgsql AS $$BEGIN n := nextval('s.q#'); END$$;" + _body("NEW.id := s.out#();"),
    "an expression with SELECT": _body("NEW.id := (SELECT nextval('s.q#'));"),
    "an array": _body("a[1] := nextval('s.q#'); NEW.id := a[1];", "DECLARE a bigint[];"),
    "a path in the text": "CREATE SCHEMA x#; CREATE SEQUENCE x#.q#;" + _body("PERFORM set_config('search_path', 's', true); NEW.id := nextval('q#');").replace("s.f#()", "x#.f#()").replace("ON s.t#", "ON s.t#"),
}  # fmt: skip
WRITERS = {
    "INSERT of a subquery": _writer("INSERT INTO s.t# (id, clinic_id) SELECT x.n, c FROM (SELECT nextval('s.q#') AS n) AS x;"),
    "INSERT WITH": _writer("WITH x AS (SELECT nextval('s.q#') AS n) INSERT INTO s.t# (id, clinic_id) SELECT x.n, c FROM x;"),
    "ON CONFLICT": _writer("INSERT INTO s.t# (id, clinic_id) VALUES (0, c); INSERT INTO s.t# (id, clinic_id) VALUES (0, c) ON CONFLICT (id) DO UPDATE SET id = nextval('s.q#');"),
    "UPDATE FROM": _writer("INSERT INTO s.t# (id, clinic_id) VALUES (0, c); UPDATE s.t# SET id = x.n FROM (SELECT nextval('s.q#') AS n) AS x WHERE id = 0;"),
    "MERGE": _writer("MERGE INTO s.t# AS t USING (SELECT -1) AS x (n) ON t.id = x.n WHEN NOT MATCHED THEN INSERT (id, clinic_id) VALUES (nextval('s.q#'), c);"),
    "EXECUTE USING": _writer("EXECUTE 'INSERT INTO s.t# (id, clinic_id) VALUES ($1, $2)' USING nextval('s.q#'), c;"),
    "EXECUTE of INSERT": _writer("EXECUTE 'INSERT INTO s.t# (id, clinic_id) VALUES (nextval(''s.q#''), $1)' USING c;"),
    "a loop": _writer("FOR n IN SELECT nextval('s.q#') LOOP INSERT INTO s.t# (id, clinic_id) VALUES (n, c); END LOOP;", N),
    "a record": _writer("SELECT nextval('s.q#') AS n INTO r; INSERT INTO s.t# (id, clinic_id) VALUES (r.n, c);", "DECLARE r record;"),
    "an argument": _writer("CALL s.put#(nextval('s.q#'), c);", rest="CREATE PROCEDURE s.put#(n bigint, c int) LANGUAGE sql AS $$INSERT INTO s.t# (id, clinic_id) VALUES (n, c)$$;"),
    "a returned number": TAKE + "CREATE PROCEDURE s.w#(c int) LANGUAGE plpgsql AS $f$BEGIN EXECUTE format('INSERT INTO s.t# (id, clinic_id) VALUES (s.%s(), %s)', 'take' || '#', c); END$f$;",
    "a view": "CREATE VIEW s.v# AS SELECT nextval('s.q#') AS n;" + _writer("INSERT INTO s.t# (id, clinic_id) SELECT n, c FROM s.v#;"),
    "a view of the table": "CREATE VIEW s.v# AS SELECT id, clinic_id FROM s.t#;" + _writer("INSERT INTO s.v# (id, clinic_id) VALUES (nextval('s.q#'), c);"),
    "a rule that calls": TAKE + "CREATE VIEW s.v# AS SELECT id, clinic_id FROM s.t#; CREATE RULE r AS ON INSERT TO s.v# DO INSTEAD INSERT INTO s.t# (id, clinic_id) VALUES (s.take#(), new.clinic_id);" + _writer("INSERT INTO s.v# (clinic_id) VALUES (c);"),
    "a rule on DELETE": "CREATE TABLE s.d# (c int); CREATE RULE r AS ON DELETE TO s.d# DO ALSO INSERT INTO s.t# (id, clinic_id) VALUES (nextval('s.q#'), old.c);" + _writer("INSERT INTO s.d# VALUES (c); DELETE FROM s.d#;"),
    "a trigger on DELETE": "CREATE TABLE s.d# (c int);" + FUNCTION.format("f#", "BEGIN INSERT INTO s.t# (id, clinic_id) VALUES (nextval(TG_ARGV[0]), OLD.c); RETURN OLD; END")
        + "CREATE TRIGGER f# BEFORE DELETE ON s.d# FOR EACH ROW EXECUTE FUNCTION s.f#('s.q#');" + _writer("INSERT INTO s.d# VALUES (c); DELETE FROM s.d#;"),
    "a trigger of the statement": "CREATE TABLE s.d# (c int);" + FUNCTION.format("f#", "DECLARE n bigint := nextval('s.q#'); BEGIN UPDATE s.t# SET id = n WHERE id = 0; RETURN NULL; END")
        + "CREATE TRIGGER f# AFTER INSERT ON s.d# EXECUTE FUNCTION s.f#();" + _writer("INSERT INTO s.t# (id, clinic_id) VALUES (0, c); INSERT INTO s.d# VALUES (c);"),
    "a standard body that writes": "CREATE PROCEDURE s.w#(c int) BEGIN ATOMIC INSERT INTO s.t# (id, clinic_id) VALUES (nextval('s.q#'), c); END;",
    "columns after an alias": _writer("INSERT INTO s.t# AS x (id, clinic_id) VALUES (nextval('s.q#'), c);"),
    "two sets of rows": _writer("INSERT INTO s.t# (id, clinic_id) SELECT -1, c WHERE false UNION ALL SELECT nextval('s.q#'), c;"),
    "a table for the time": _writer("CREATE TEMP TABLE d# ON COMMIT DROP AS SELECT nextval('s.q#') AS id; INSERT INTO s.t# (id, clinic_id) SELECT id, c FROM d#;"),
    "a data-modifying WITH": _writer("WITH x AS (INSERT INTO s.t# (id, clinic_id) VALUES (nextval('s.q#'), c) RETURNING id) SELECT id FROM x INTO n;", N),
}  # fmt: skip
DEFAULTS = {
    "lastval": "lastval()",
    "setval": "setval('s.q#', nextval('s.q#'))",
    "a number of the catalog": "nextval(('s.q#'::regclass)::oid)",
    "XML": "(xpath('//n/text()', query_to_xml('SELECT nextval(''s.q#'') AS n', false, true, '')))[1]::text::int",
}


LITERALS = (
    r"'a''b'", r"E'\x41\101\u00d1\U0001F600\n\'x'", r"E'\xc3\x91'", r"U&'\0041\+01F600\\x'", r"U&'d!0061t!!a' UESCAPE '!'",
    r"U&'\D83D\DE00'", "'a'\n  'b'", "'a' -- x\n 'b'", "$a$x'y$a$", "$ñ1$x$ñ1$", "$$a$b$$", "N'a'", r"E'a\\'", r"'a\'",
)  # fmt: skip
NAMES = (
    ('s."aÑo"', "s.AÑO"), ('s."q-1"', "s.q-1"), ('s."x.y"', 's."x.y"'), ("s.q", " S . Q "), ('s."Q"', 's."Q"'),
    ('s."a""b"', 's."a""b"'), ('s."it\'s"', "s.it's"), ('s."u&""z"""', 's."u&""z"""'), ('s."q--"', "s.q--"), ('s."\u00a0"', "s.\u00a0"),
    (f"s.{'n' * 63}", f"s.{'n' * 70}"), ('s."1"', "s.1"),
)  # fmt: skip


def test_texts_and_names_are_read_as_the_server_reads_them(demo_database: DemoDatabase, tmp_path: Path) -> None:
    rig = shaped(demo_database, tmp_path, "", {}, owner=True)
    read = [[token.value for token in tokens(text)] for text in LITERALS]
    assert read == [[rig.execute_rows(f"SELECT {text}::text")[0][0]] for text in LITERALS]
    for made, text in NAMES:
        rig.execute(f"CREATE SEQUENCE IF NOT EXISTS {made}")
        found = rig.execute_rows(
            f"SELECT 's', relname FROM pg_class WHERE oid = to_regclass({literal(text)}) AND relkind = 'S'"
        )
        assert [name_of(text)] == found


def _numbered(texts: dict[str, str], first: int) -> dict[int, tuple[str, str]]:
    return {n: (name, text.replace("#", str(n))) for n, (name, text) in enumerate(texts.items(), first)}


def _silent(rig: Shaped, cases: dict[int, tuple[str, str]], fill: str) -> tuple[list[str], list[str]]:
    """Restore clinic 1 of every table; the cases whose next number a row has, where plan or `check` did not say so."""
    for n in cases:
        for clinic in (1, 2, 1, 2, 1):
            rig.execute(fill.format(n=n, clinic=clinic))
    before, record = rig.everything(), rig.run(1)
    for n in cases:
        rig.execute(f"DELETE FROM s.t{n} WHERE clinic_id = 1", f"SELECT setval('s.q{n}', 1, false)")
    wrong = {}
    notes = [note for table in rig.bring_back(record).tables for note in table.notes]
    assert {name: rows for name, rows in rig.everything().items() if ".t" in name} == {
        name: rows for name, rows in before.items() if ".t" in name
    }
    found = [each.message for each in trial(rig, rig.database.postgres.uri(rig.database.name)) if each.level != "ok"]
    for n, (name, _) in cases.items():
        here = [note for note in notes if _tells(note, n)]
        try:
            rig.execute(f"BEGIN; {fill.format(n=n, clinic=1)}; ROLLBACK")
        except (psycopg2.errors.UniqueViolation, psycopg2.errors.ObjectNotInPrerequisiteState):
            if not here or not [said for said in found if _tells(said, n)]:
                wrong[n] = f"{name}: {here}"
    twice = sorted({note for note in notes if notes.count(note) > 1})
    return list(wrong.values()), twice


def _tells(said: str, n: int) -> bool:
    """Whether it names the sequence. A text may not; then it names the column."""
    return bool({f"s.q{n}", f"s.t{n}.id"} & {word.strip("():,;.") for word in said.split()})


def _tables(cases: dict[int, tuple[str, str]], default: bool = False) -> str:
    return "".join(
        f"CREATE SEQUENCE s.q{n}; CREATE TABLE s.o{n} (id bigint DEFAULT nextval('s.q{n}')); ALTER SEQUENCE s.q{n} OWNED BY s.o{n}.id;"
        f"CREATE TABLE s.t{n} (id int PRIMARY KEY, {CLINIC}, v int); "
        + (f"ALTER TABLE s.t{n} ALTER id SET DEFAULT {text};" if default else text)
        for n, (_, text) in cases.items()
    )  # fmt: skip


@pytest.mark.parametrize(
    ("texts", "fill"),
    [
        (TRIGGERS, "INSERT INTO s.t{n} (clinic_id) VALUES ({clinic})"),
        (WRITERS, "CALL s.w{n}({clinic})"),
        (DEFAULTS, "INSERT INTO s.o{n} DEFAULT VALUES; INSERT INTO s.t{n} (clinic_id) VALUES ({clinic})"),
    ],
    ids=["triggers", "writers", "defaults"],
)
def test_no_sequence_stays_behind_in_silence(
    demo_database: DemoDatabase, tmp_path: Path, texts: dict[str, str], fill: str
) -> None:
    cases = _numbered(texts, 100)
    lists = "".join(f"s.{letter}{n}: shared, x\n" for n, (_, text) in cases.items() for letter in "od"
                    if letter == "o" or f"TABLE s.d{n}" in text)  # fmt: skip
    extracts = {f"t{n}": OWN for n in cases}
    rig = shaped(demo_database, tmp_path, _tables(cases, texts is DEFAULTS), extracts, lists=lists, owner=True)
    silent, twice = _silent(rig, cases, fill)
    assert not silent, "\n".join(silent)
    assert twice == []


ORDINARY = """
    CREATE TABLE s.t (id serial PRIMARY KEY, clinic_id int REFERENCES s.clinic, v text);
    CREATE TABLE s.log (id bigserial PRIMARY KEY, n bigint, v text);
    CREATE SEQUENCE s.bill; CREATE TABLE s.bill_of (id bigint PRIMARY KEY, clinic_id int REFERENCES s.clinic);
    CREATE FUNCTION s.write(v text) RETURNS void LANGUAGE plpgsql AS $$BEGIN
        RAISE NOTICE 'nextval of %', v; INSERT INTO s.log (id, v) VALUES (nextval('s.log_id_seq'), v); END$$;
    CREATE FUNCTION s.audit() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN
        PERFORM s.write(TG_OP); EXECUTE format('INSERT INTO %I.%I (n, v) VALUES (%L, $1)', 's', 'log', NEW.id) USING NEW.v;
        EXECUTE 'INSERT INTO s.' || quote_ident('log') || ' (v) VALUES (' || quote_nullable(NEW.v) || ')'; RETURN NULL; END$$;
    CREATE TRIGGER audit AFTER INSERT ON s.t FOR EACH ROW EXECUTE FUNCTION s.audit();
    CREATE FUNCTION s.charge(c int) RETURNS bigint LANGUAGE plpgsql AS $$DECLARE n bigint; BEGIN
        n := nextval('s.bill'); INSERT INTO s.bill_of (id, clinic_id) VALUES (n, c) ON CONFLICT DO NOTHING;
        IF currval('s.bill') > 1000000 THEN RAISE EXCEPTION 'too many'; END IF; RETURN n; END$$;
    CREATE FUNCTION s.charge_all() RETURNS void LANGUAGE sql AS $$SELECT s.charge(id) FROM s.clinic$$;
    CREATE PROCEDURE s.month(name text) LANGUAGE plpgsql AS $$BEGIN
        EXECUTE 'CREATE TABLE IF NOT EXISTS s.' || name || ' (id int)'; END$$;
    CREATE FUNCTION s.again() RETURNS void LANGUAGE plpgsql AS $$BEGIN
        PERFORM setval('s.bill', (SELECT max(id) FROM s.bill_of)); END$$;
    CREATE FUNCTION s.again_too() RETURNS bigint LANGUAGE sql AS $$SELECT setval('s.bill', max(id)) FROM s.bill_of$$;
    INSERT INTO s.t (clinic_id, v) VALUES (1, 'a'), (2, 'b'); SELECT s.charge_all()
"""


def test_ordinary_code_gives_no_notes(demo_database: DemoDatabase, tmp_path: Path) -> None:
    lists = "s.log: shared, x\n"
    rig = shaped(demo_database, tmp_path, ORDINARY, {"t": OWN, "bill_of": OWN}, lists=lists, owner=True)
    record = rig.run(1)
    rig.execute("DELETE FROM s.t WHERE clinic_id = 1; DELETE FROM s.bill_of WHERE clinic_id = 1")
    rig.execute("SELECT setval('s.bill', 1, false), setval('s.t_id_seq', 1, false)")
    notes = [note for table in rig.bring_back(record).tables for note in table.notes]
    assert notes == ["The table's triggers do not fire meanwhile (session_replication_role): audit."]
    rig.execute("INSERT INTO s.t (clinic_id) VALUES (1)")
    found = trial(rig, rig.database.postgres.uri(rig.database.name))
    assert not [each.message for each in found if "sequence" in each.message or "numbers" in each.message]


def test_one_reason_is_said_and_said_once(demo_database: DemoDatabase, tmp_path: Path) -> None:
    """A text that names a sequence is not understood. It is also not said that nothing shows where its numbers go."""
    ddl = (
        "CREATE SCHEMA x; CREATE SEQUENCE s.o; "
        + "".join(f"CREATE SEQUENCE {schema}.q_{n};" for schema in "sx" for n in (1, 2))
        + f"CREATE TABLE s.t (id int, v int, {CLINIC}, n int);"
        + FUNCTION.format(
            "t", "BEGIN NEW.id := nextval('q_' || NEW.v); NEW.n := abs(nextval('s.o') # 1); RETURN NEW; END"
        ).replace(" s.t()", " x.t()")
        + "CREATE TRIGGER t BEFORE INSERT ON s.t FOR EACH ROW EXECUTE FUNCTION x.t(); SET search_path = s;"
        "INSERT INTO s.t (v, clinic_id) VALUES (1, 1), (2, 1), (1, 2);"
    )
    rig = shaped(demo_database, tmp_path, ddl, {"t": OWN}, owner=True)
    record = rig.run(1)
    rig.execute("DELETE FROM s.t WHERE clinic_id = 1")
    notes = [note for table in rig.plan(record).tables for note in table.notes]
    assert len([note for note in notes if "made at run time" in note]) == 1
    (reason,) = [note for note in notes if "s.o" in note]
    assert "how those of s.o become values cannot be told" in reason
    said = [each.message for each in trial(rig, rig.database.postgres.uri(rig.database.name)) if "s.o" in each.message]
    assert said == [reason]


T = f"CREATE TABLE s.t (id text PRIMARY KEY, {CLINIC}, v int);"
GIVES = "CREATE FUNCTION {0}() RETURNS trigger LANGUAGE plpgsql AS $f$BEGIN NEW.id := {1}; RETURN NEW; END$f$; CREATE TRIGGER t BEFORE INSERT ON s.t FOR EACH ROW EXECUTE FUNCTION {0}();"
PLACES = {
    "of another column's table": (f"CREATE SEQUENCE s.q; {T} ALTER SEQUENCE s.q OWNED BY s.t.id;", "(id, clinic_id) VALUES ('F' || nextval('s.q'), {})", "s.q"),
    "in another schema": (f"CREATE SCHEMA x; CREATE SEQUENCE x.q; {T}", "(id, clinic_id) VALUES (nextval('x.q'), {})", "x.q"),
    "in another schema by the role's path": (f"CREATE SCHEMA x; CREATE SEQUENCE x.q; CREATE SEQUENCE s.q; {T}" + GIVES.format("s.t", "nextval('q')"), "(clinic_id) VALUES ({})", "x.q"),
    "by the path of the function, with the user": (f"CREATE SCHEMA x; CREATE SEQUENCE x.q; CREATE SEQUENCE s.q; {T}" + GIVES.format("s.t", "nextval('q')").replace("plpgsql AS", "plpgsql SET search_path = \"$user\", x, s AS"), "(clinic_id) VALUES ({})", "x.q"),
    "a domain's default": ("CREATE SEQUENCE s.q; CREATE FUNCTION s.f() RETURNS text LANGUAGE plpgsql AS $$DECLARE n text; BEGIN EXECUTE format('SELECT nextval(%L)::text', reverse('q.s')) INTO n; RETURN n; END$$; CREATE DOMAIN s.d AS text DEFAULT s.f(); CREATE DOMAIN s.e AS s.d;"
        f"CREATE TABLE s.t (id s.e PRIMARY KEY, {CLINIC}, v int);", "(clinic_id) VALUES ({})", "s.t.id"),
    "a partition's name": (f"CREATE SEQUENCE s.q_t; CREATE SEQUENCE s.q_t1; CREATE TABLE s.o (id int DEFAULT nextval('s.q_t1')); CREATE TABLE s.t (id text, {CLINIC}, v int, PRIMARY KEY (id, clinic_id)) PARTITION BY LIST (clinic_id);"
        "CREATE TABLE s.t1 PARTITION OF s.t FOR VALUES IN (1, 2);" + GIVES.format("s.t", "nextval('s.q_' || TG_TABLE_NAME)"), "(clinic_id) VALUES ({})", "s.t.id"),
}  # fmt: skip


@pytest.mark.parametrize("name", PLACES)
def test_a_sequence_that_is_elsewhere_is_named(demo_database: DemoDatabase, tmp_path: Path, name: str) -> None:
    ddl, fill, named = PLACES[name]
    lists = "s.o: shared, x\n" if "s.o " in ddl else ""
    rig = shaped(demo_database, tmp_path, f"SET search_path = x, s, public; {ddl}", {"t": OWN}, lists=lists, owner=True)
    for clinic in (1, 2, 1):
        rig.execute(f"SET search_path = x, s, public; INSERT INTO s.t {fill.format(clinic)}")
    record = rig.run(1)
    rig.execute("DELETE FROM s.t WHERE clinic_id = 1")
    notes = str([table.notes for table in rig.bring_back(record).tables])
    found = [
        each.message for each in trial(rig, rig.database.postgres.uri(rig.database.name)) if each.level == "warning"
    ]
    assert named in notes and named in str(found)
