"""Only texts of those who could write into the table anyway say where numbers go. Nobody else's move or stop anything.

The hostile role owns a schema of its own, and has no right on the application's tables.
"""

# ruff: noqa: E501 - a case reads best in one line

from __future__ import annotations

from contextlib import closing, suppress
from pathlib import Path

import pytest
from psycopg2 import sql

from clinic_backups.base import connections
from clinic_backups.base.errors import ClinicBackupsError, TransientError
from clinic_backups.restore.request import Wish
from clinic_backups.restore.sequences.advancing import GivenColumn, advance, following_of
from clinic_backups.restore.sequences.numbering import Numbering
from clinic_backups.restore.sequences.sequence_uses import read
from clinic_backups.restore.sequences.table_owners import hold
from clinic_backups.restore.workspace import Workspace
from tests.integration.test_sequences import CLINIC, OWN
from tests.integration.test_trial import trial
from tests.postgres_fixtures import DemoDatabase
from tests.shapes import Shaped, shaped

APPLICATION = """
    CREATE SEQUENCE s.n; CREATE SEQUENCE s.q; CREATE SEQUENCE s.receipt; CREATE SEQUENCE s.free;
    CREATE FUNCTION s.number() RETURNS text LANGUAGE plpgsql AS $$BEGIN RETURN lpad(nextval('s.n')::text, 6, '0'); END$$;
    CREATE TABLE s.bill (id serial PRIMARY KEY, clinic_id int NOT NULL REFERENCES s.clinic, no text UNIQUE DEFAULT s.number(), ref bigint, phone bigint);
    CREATE FUNCTION s.t() RETURNS trigger LANGUAGE plpgsql SET search_path = s AS $$BEGIN NEW.ref := nextval('q'); RETURN NEW; END$$;
    CREATE TRIGGER t BEFORE INSERT ON s.bill FOR EACH ROW EXECUTE FUNCTION s.t();
    CREATE SCHEMA util; CREATE FUNCTION util.fill(int) RETURNS text LANGUAGE sql AS $$SELECT 'x'$$;
    CREATE FUNCTION s.v() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN PERFORM fill(1); RETURN NULL; END$$;
    CREATE TRIGGER v AFTER DELETE ON s.bill FOR EACH STATEMENT EXECUTE FUNCTION s.v(); ALTER TABLE s.bill DISABLE TRIGGER v;
    CREATE TABLE s.receipts (id int PRIMARY KEY DEFAULT nextval('s.receipt'));
    INSERT INTO s.bill (clinic_id, phone) SELECT 1 + k % 2, 2100000000 + k FROM generate_series(1, 20) AS k; GRANT USAGE ON SCHEMA s TO PUBLIC
"""
AFTER = {"s.bill_id_seq": 20, "s.free": None, "s.n": 20, "s.q": 20, "s.receipt": None}
WRITES = "CREATE FUNCTION h.x() RETURNS void LANGUAGE plpgsql AS $$BEGIN INSERT INTO s.bill ({}) VALUES ({}); END$$;"
RAN = "CREATE SEQUENCE h.ran; GRANT ALL ON h.ran TO PUBLIC; CREATE FUNCTION h.evil() RETURNS bigint LANGUAGE plpgsql AS $$BEGIN EXECUTE reverse($e$)'nar.h'(lavtxen TCELES$e$); RETURN 2100000000; END$$;"
OF = "DO $d$ BEGIN EXECUTE format({}, 's.q'::regclass::oid); END $d$;"
LONG = " + ".join(["1"] * 290)
HOSTILE = {
    "nothing": "SELECT 1",
    "a number of everybody's": WRITES.format("phone", "nextval('s.bill_id_seq')"),
    "a number of another table": WRITES.format("phone", "nextval('s.receipt')"),
    "a sequence without grants": "CREATE SEQUENCE h.q2;" + WRITES.format("phone", "nextval('h.q2')"),
    "the same expression": "CREATE SEQUENCE h.q; GRANT ALL ON h.q TO PUBLIC;" + WRITES.format("ref", "nextval('q')"),
    "a function's name": "CREATE SEQUENCE h.z; CREATE FUNCTION h.lpad() RETURNS bigint LANGUAGE sql AS $$SELECT nextval('h.z')$$; CREATE FUNCTION h.lpad(text, int, text) RETURNS text LANGUAGE sql AS $$SELECT nextval('h.z')::text$$; CREATE FUNCTION h.number() RETURNS text LANGUAGE sql AS $$SELECT nextval('h.z')::text$$",
    "a view of the table": RAN + "CREATE VIEW h.v AS SELECT * FROM s.bill; ALTER VIEW h.v ALTER phone SET DEFAULT nextval('s.bill_id_seq') + h.evil(), ALTER ref SET DEFAULT h.evil();",
    "a rule": "CREATE SEQUENCE h.z; CREATE TABLE h.t (id int); CREATE RULE r AS ON INSERT TO h.t DO ALSO INSERT INTO s.bill (phone, clinic_id) VALUES (nextval('s.bill_id_seq'), 1);",
    "a table's default": OF.format("'CREATE TABLE h.t (id smallint DEFAULT nextval(%L::regclass), m bigint DEFAULT 7 + nextval(%1$L::regclass))'") + "GRANT ALL ON h.t TO PUBLIC; INSERT INTO h.t SELECT n, n + 7 FROM generate_series(21, 900) AS n;",
    "a default that runs": RAN + OF.format("'CREATE TABLE h.t (id bigint DEFAULT h.evil() + nextval(%L::regclass))'") + "GRANT ALL ON h.t TO PUBLIC;",
    "a trigger of its own table": "CREATE TABLE h.t (id bigint); GRANT ALL ON h.t TO PUBLIC; INSERT INTO h.t SELECT generate_series(21, 900); CREATE FUNCTION h.g() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN NEW.id := nextval('s.q'); RETURN NEW; END$$; CREATE TRIGGER t BEFORE INSERT ON h.t FOR EACH ROW EXECUTE FUNCTION h.g();",
    "functions of functions": "DO $d$ BEGIN FOR i IN 0..1100 LOOP EXECUTE format('CREATE FUNCTION h.c%s() RETURNS bigint LANGUAGE plpgsql AS %L', i, format('BEGIN PERFORM h.c%s(); INSERT INTO s.bill (phone) VALUES (nextval(''s.q'')); RETURN nextval(''s.q''); END', i + 1)); END LOOP; END $d$;",
    "numbers without end": WRITES.format("no", "left(((('1e60000'::numeric/7 + currval('s.q'))*('1e60000'::numeric/7 + currval('s.q'))) % (('1e60000'::numeric/7 + currval('s.q'))*('1e60000'::numeric/7 + currval('s.q'))))::text, 3)"),
    "a text that grows": "CREATE FUNCTION h.x() RETURNS trigger LANGUAGE plpgsql AS $$DECLARE n bigint := nextval('s.q'); BEGIN " + "".join(f"v := nextval('s.q') + {i} + {LONG};" for i in range(8)) + "w := v || v || v;" + "NEW.x := w;" * 1500 + " END$$",
    "calls of calls": "CREATE FUNCTION h.x() RETURNS void LANGUAGE plpgsql AS $$" + "nextval(" * 3700 + "$$",
    "another language": "CREATE FUNCTION h.x() RETURNS void LANGUAGE plpgsql AS $$BEGIN EXECUTE 'SELECT ' || current_setting('a.b'); END$$",
    "a sequence of its own": "CREATE SEQUENCE h.never; CREATE SEQUENCE h.n; CREATE SEQUENCE h.receipt",
    "a function in a schema that everybody looks into": "CREATE FUNCTION public.fill(int) RETURNS text LANGUAGE sql AS $$INSERT INTO s.bill (phone) VALUES (nextval('s.bill_id_seq')); SELECT 'x'$$;",
    "a function in a view of another table": "CREATE FUNCTION h.x() RETURNS bigint LANGUAGE plpgsql AS $$BEGIN INSERT INTO s.bill (phone) VALUES (nextval('s.bill_id_seq')); RETURN 1; END$$; RESET ROLE; CREATE VIEW s.report AS SELECT h.x() AS n FROM s.receipts",
    "a function in another table's default": RAN + "RESET ROLE; CREATE TABLE public.others (id bigint DEFAULT h.evil() + nextval('s.q')); GRANT ALL ON public.others TO PUBLIC",
    "a column for a sequence": OF.format("'CREATE TABLE h.t (id bigint DEFAULT nextval(%L::regclass))'").replace("s.q", "s.free"),
}  # fmt: skip


def hostile(rig: Shaped, ddl: str) -> str:
    """Run statements as a role that owns the schema h and nothing else; returns its name."""
    role = f"hostile_{rig.database.name}"
    rig.execute(f"CREATE ROLE {role}", f"CREATE SCHEMA h AUTHORIZATION {role}", "GRANT USAGE ON SCHEMA h TO PUBLIC",
                f"GRANT CREATE ON SCHEMA public TO {role}")  # fmt: skip
    rig.execute(f"SET ROLE {role}; SET check_function_bodies = off; {ddl}; RESET ROLE")
    return role


def _application(database: DemoDatabase, folder: Path) -> Shaped:
    """Its table belongs to the restoring role, which may disable its triggers."""
    rig = shaped(database, folder, APPLICATION, {"bill": OWN}, lists="s.receipts: shared, x\n")
    rig.execute(f"ALTER TABLE s.bill OWNER TO {database.roles.restorer}")
    return rig


@pytest.mark.parametrize("case", HOSTILE)
def test_what_a_stranger_writes_is_not_read(demo_database: DemoDatabase, tmp_path: Path, case: str) -> None:
    """Plan, restore and `check` are the same with it and without it."""
    rig = _application(demo_database, tmp_path)
    record = rig.run(1)
    before = rig.everything()
    rig.execute(
        "DELETE FROM s.bill WHERE clinic_id = 1",
        "SELECT setval(q, 1) FROM unnest('{s.bill_id_seq,s.n,s.q}'::regclass[]) AS q",
    )
    role = hostile(rig, HOSTILE[case])
    changed = {"statement_timeout_seconds": 10, "trusted_owners": (role,)}  # else a trigger's function is refused
    rig.settings = rig.settings.model_copy(update=changed)
    notes = [note for table in rig.bring_back(record).tables for note in table.notes]
    assert rig.everything() == before
    positions = dict(
        rig.execute_rows(
            "SELECT schemaname || '.' || sequencename, last_value FROM pg_sequences WHERE schemaname = 's'"
        )
    )
    assert positions == AFTER, f"{positions} {notes}"
    found = trial(rig)
    assert not [each for each in found if each.level == "error"]
    said = [*notes, *(each.message for each in found)]
    assert not [each for each in said if " h." in each]
    assert [each for each in said if "s.free" in each]
    if "h.evil" in HOSTILE[case]:
        assert rig.execute_rows("SELECT last_value FROM pg_sequences WHERE sequencename = 'ran'") == [(None,)]


def test_a_stranger_who_drops_a_sequence_keeps_nobody_waiting(demo_database: DemoDatabase, tmp_path: Path) -> None:
    rig = _application(demo_database, tmp_path)
    rig.settings = rig.settings.model_copy(update={"lock_timeout_seconds": 1})
    record = rig.run(1)
    rig.execute("DELETE FROM s.bill WHERE clinic_id = 1")
    role = hostile(rig, "CREATE SEQUENCE h.q2; GRANT ALL ON h.q2 TO PUBLIC; SELECT nextval('h.q2')")
    with closing(demo_database.connect()) as db, db.cursor() as cursor:
        cursor.execute(f"SET ROLE {role}; DROP SEQUENCE h.q2")
        assert rig.plan(record).refusals == ()
        assert not [each for each in trial(rig) if each.level == "error"]


SWAP = "DROP SEQUENCE h.q; CREATE VIEW h.q AS SELECT h.evil() AS last_value, true AS is_called; GRANT SELECT ON h.q TO PUBLIC"


def test_a_name_that_means_something_else_by_now_is_not_read(demo_database: DemoDatabase, tmp_path: Path) -> None:
    """The application uses a sequence of another role, which makes a view of that name after the plan has found it."""
    rig = _application(demo_database, tmp_path)
    role = hostile(rig, RAN + "CREATE SEQUENCE h.q; GRANT ALL ON h.q TO PUBLIC")
    rig.execute("ALTER TABLE s.bill ALTER phone SET DEFAULT nextval('h.q'::text)")
    connection = connections.parse("restore_db", demo_database.restorer_uri)
    with Workspace(connection) as workspace:
        (use,) = [each for each in read(workspace, ["s.bill"]).uses if each.sequence == "h.q"]
        rig.execute(f"SET ROLE {role}; {SWAP}; RESET ROLE")
        for ask in (
            lambda: following_of(workspace, use),
            lambda: advance(workspace, [GivenColumn(use, Numbering("bigint", factor=1), sql.SQL("s.bill"))]),
        ):
            with suppress(ClinicBackupsError), workspace.attempt():
                ask()
        workspace.commit()
    assert rig.execute_rows("SELECT last_value FROM pg_sequences WHERE sequencename = 'ran'") == [(None,)]


TRUSTED = {
    "a member of the owner's role": "CREATE ROLE {role}_m; GRANT {owner} TO {role}_m; GRANT CREATE ON SCHEMA s TO {role}_m; SET ROLE {role}_m;" + WRITES.replace("h.x", "s.x").format("phone", "nextval('s.receipt')"),
    "a superuser": WRITES.replace("h.x", "s.x").format("phone", "nextval('s.receipt')"),
    "a stranger whom a trigger calls by oid": "SET ROLE {role}; CREATE FUNCTION h.t() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN NEW.phone := nextval('s.receipt'); RETURN NEW; END$$; RESET ROLE; CREATE TRIGGER u BEFORE INSERT ON s.bill FOR EACH ROW EXECUTE FUNCTION h.t();",
    "a stranger whom a trigger calls by name": "SET ROLE {role}; CREATE FUNCTION h.save(phone bigint) RETURNS void LANGUAGE plpgsql AS $$BEGIN PERFORM h.more(); END$$; CREATE FUNCTION h.more() RETURNS void LANGUAGE plpgsql AS $$BEGIN INSERT INTO s.bill (phone) VALUES (nextval('s.receipt')); END$$; RESET ROLE; CREATE FUNCTION s.u() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN PERFORM h.save(NEW.phone); RETURN NEW; END$$; CREATE TRIGGER u BEFORE INSERT ON s.bill FOR EACH ROW EXECUTE FUNCTION s.u();",
}  # fmt: skip


@pytest.mark.parametrize("case", TRUSTED)
def test_what_the_application_says_moves_another_tables_sequence_and_the_plan_says_so(
    demo_database: DemoDatabase, tmp_path: Path, case: str
) -> None:
    rig = _application(demo_database, tmp_path)
    record = rig.run(1)
    rig.execute("DELETE FROM s.bill WHERE clinic_id = 1")
    role = hostile(rig, "SELECT 1")
    rig.settings = rig.settings.model_copy(update={"trusted_owners": (role,)})  # else its trigger function is refused
    before = rig.plan(record)
    rig.execute(TRUSTED[case].format(role=role, owner=demo_database.roles.restorer) + "; RESET ROLE")
    with pytest.raises(ClinicBackupsError):  # it would move a sequence that the plan does not name
        rig.restore().apply(rig.source(record), Wish(), approved=before.digest, plan=before)
    notes = [note for table in rig.bring_back(record).tables for note in table.notes]
    assert (
        "s.receipt will be moved past 2,100,000,020, a number of a restored row. s.receipts.id gets the next numbers too."
        in notes
    )
    assert rig.execute_rows("SELECT last_value FROM s.receipt") == [(2100000020,)]


TAKES = "CREATE SEQUENCE {0}.own; CREATE FUNCTION {0}.take({1}) RETURNS bigint LANGUAGE plpgsql AS $$BEGIN RETURN nextval('{0}.own'); END$$;"
GIVES = "CREATE FUNCTION s.u() RETURNS trigger LANGUAGE plpgsql{0} AS $$BEGIN NEW.phone := {1}; RETURN NEW; END$$; CREATE TRIGGER u BEFORE INSERT ON s.bill FOR EACH ROW EXECUTE FUNCTION s.u();"
CALLED = {
    "by its path": (GIVES.format(" SET search_path = x", "take()"), "x.own"),
    "by its schema": (GIVES.format("", "s.take()"), "s.own"),
    "near, if there is no path": (GIVES.format("", "take()"), "s.own"),
    "by the number of arguments": (GIVES.format("", "y.take(1)"), None),
    "one of PostgreSQL's, in spite of the same name": ("CREATE FUNCTION s.abs(bigint) RETURNS bigint LANGUAGE sql AS $$SELECT nextval('s.own')$$;" + GIVES.format(" SET search_path = s", "abs(NEW.phone)"), None),
}  # fmt: skip


@pytest.mark.parametrize("case", CALLED)
def test_a_call_means_the_function_that_postgresql_would_call(
    demo_database: DemoDatabase, tmp_path: Path, case: str
) -> None:
    ddl, named = CALLED[case]
    rig = _application(demo_database, tmp_path)
    rig.execute("CREATE SCHEMA x; CREATE SCHEMA y", TAKES.format("x", ""), TAKES.format("s", ""), TAKES.format("y", ""))
    rig.execute("CREATE FUNCTION y.take(int) RETURNS bigint LANGUAGE sql AS $$SELECT 1::bigint$$", ddl)
    connection = connections.parse("restore_db", demo_database.restorer_uri)
    with Workspace(connection) as workspace:
        told = [each.said for each in read(workspace, ["s.bill"]).untold if "s.bill.phone gets numbers" in each.said]
    assert [word.strip(",") for said in told for word in said.split() if ".own" in word] == ([named] if named else [])


def test_functions_that_call_each_other_a_thousand_times_are_read(demo_database: DemoDatabase, tmp_path: Path) -> None:
    rig = _application(demo_database, tmp_path)
    chain = (
        HOSTILE["functions of functions"]
        .replace("h.c", "s.c")
        .replace("INSERT INTO s.bill (phone) VALUES (nextval(''s.q'')); ", "")
    )
    rig.execute("SET check_function_bodies = off", chain, GIVES.format("", "s.c0()"))
    connection = connections.parse("restore_db", demo_database.restorer_uri)
    with Workspace(connection) as workspace:
        told = [each.said for each in read(workspace, ["s.bill"]).untold]
    assert [said for said in told if "s.bill.phone gets numbers" in said and "s.q" in said]


def test_a_sequence_that_was_set_and_not_used_gives_no_number_that_a_row_has(
    demo_database: DemoDatabase, tmp_path: Path
) -> None:
    """PostgreSQL does not tell the position of such a sequence by its number."""
    rig = _application(demo_database, tmp_path)
    record = rig.run(1)
    for position in (1, 7, 30):
        rig.execute("DELETE FROM s.bill WHERE clinic_id = 1", f"ALTER SEQUENCE s.bill_id_seq RESTART WITH {position}")
        rig.bring_back(record)
        assert rig.execute_rows("SELECT nextval('s.bill_id_seq')") == [(max(21, position + 1),)]


def test_another_table_that_became_a_view_is_not_read(demo_database: DemoDatabase, tmp_path: Path) -> None:
    rig = _application(demo_database, tmp_path)
    hostile(rig, RAN)
    connection = connections.parse("restore_db", demo_database.restorer_uri)
    with Workspace(connection) as workspace:
        tables = {"s.receipts": read(workspace, ["s.bill"]).oids["s.receipts"]}
        hold(workspace, tables)
    with Workspace(connection) as workspace:
        assert read(workspace, ["s.bill"]).oids["s.receipts"] == tables["s.receipts"]
        rig.execute(
            "DROP TABLE s.receipts; CREATE VIEW s.receipts AS SELECT h.evil() AS id; GRANT SELECT ON s.receipts TO PUBLIC"
        )
        with pytest.raises(TransientError, match=r"s\.receipts was replaced"):
            hold(workspace, tables)


def test_the_owner_of_one_restored_table_says_nothing_of_another(demo_database: DemoDatabase, tmp_path: Path) -> None:
    ddl = f"{APPLICATION}; CREATE TABLE s.own (id serial PRIMARY KEY, {CLINIC}, phone bigint); INSERT INTO s.own (clinic_id, phone) VALUES (1, 77), (2, 78);"
    rig = shaped(demo_database, tmp_path, ddl, {"bill": OWN, "own": OWN}, lists="s.receipts: shared, x\n", owner=True)
    rig.execute(f"ALTER TABLE s.bill OWNER TO {demo_database.roles.restorer}")
    record = rig.run(1)
    rig.execute("DELETE FROM s.bill WHERE clinic_id = 1", "DELETE FROM s.own WHERE clinic_id = 1")
    both = "INSERT INTO s.own (phone) VALUES (nextval('s.own_id_seq')); INSERT INTO s.bill (phone) VALUES (nextval('s.bill_id_seq'));"
    role = hostile(rig, f"CREATE FUNCTION h.x() RETURNS void LANGUAGE plpgsql AS $$BEGIN {both} END$$")
    rig.execute(f"GRANT CREATE ON SCHEMA s TO {role}; ALTER TABLE s.own OWNER TO {role}")
    rig.settings = rig.settings.model_copy(update={"trusted_owners": (role,)})
    rig.bring_back(record)
    assert rig.execute_rows("SELECT o.last_value, b.last_value FROM s.own_id_seq AS o, s.bill_id_seq AS b") == [
        (78, 20)
    ]
