"""Code of a trusted owner of one table, without a right on the others: it runs in restores, and changes nothing unseen.

PostgreSQL calls the functions of a table's indexes, constraints and defaults as the role that plans, reads or writes.
"""

# ruff: noqa: E501 - a case reads best in one line

from __future__ import annotations

from pathlib import Path

import pytest

from clinic_backups.base.backup_record import BackupRecord
from clinic_backups.base.errors import ClinicBackupsError, IntegrityError
from clinic_backups.base.listening import Listener
from clinic_backups.catalog.restores import RestoreMode
from clinic_backups.restore.plan import RestorePlan
from clinic_backups.restore.request import Wish
from tests.integration.test_restore_outside import OWN
from tests.postgres_fixtures import DemoDatabase
from tests.shapes import Shaped, shaped

DDL = """
    CREATE TABLE s.bill (id int PRIMARY KEY, clinic_id int NOT NULL REFERENCES s.clinic, no text);
    CREATE TABLE s.line (id int PRIMARY KEY, clinic_id int, v text);
    INSERT INTO s.bill SELECT k, 1 + k % 2, 'F' || k FROM generate_series(1, 20) AS k;
    INSERT INTO s.line SELECT k, 1 + k % 2, 'l' || k FROM generate_series(1, 40) AS k
"""
OTHER = "; CREATE TABLE s.other (id int, bill_id int REFERENCES s.bill{}); INSERT INTO s.other VALUES (1, 2)"
# An index's condition must be immutable, and is evaluated when a query of the table is planned.
INDEXED = """
    CREATE FUNCTION h.does() RETURNS void VOLATILE LANGUAGE plpgsql AS $f$BEGIN {does}; EXCEPTION WHEN others THEN NULL; END$f$;
    CREATE FUNCTION h.is(int) RETURNS boolean IMMUTABLE LANGUAGE plpgsql AS 'BEGIN RETURN true; END';
    CREATE INDEX planned ON {table} (id) WHERE h.is(1);
    CREATE OR REPLACE FUNCTION h.is(int) RETURNS boolean IMMUTABLE LANGUAGE plpgsql AS 'BEGIN PERFORM h.does(); RETURN true; END';
"""
TAKES_OVER = "UPDATE s.bill SET no = 'taken' WHERE clinic_id = 2 AND no <> 'taken'"
# The row has the backup's value again as soon as it was restored.
LATE = f"IF EXISTS (SELECT FROM s.bill WHERE id = 4 AND no = 'F4') THEN {TAKES_OVER}; END IF"
GIVES_ITSELF_RIGHTS = "EXECUTE format('ALTER ROLE %I SET work_mem = ''63MB''', current_user)"


def owned(rig: Shaped, table: str) -> str:
    """A role that owns this table and a schema h, and that is trusted: else none of its code would run."""
    role = f"owner_{rig.database.name}"
    rig.settings = rig.settings.model_copy(update={"trusted_owners": (role,)})
    rig.execute(
        f"CREATE ROLE {role}", f"CREATE SCHEMA h AUTHORIZATION {role}", "GRANT USAGE ON SCHEMA h TO PUBLIC",
        f"GRANT USAGE, CREATE ON SCHEMA s TO {role}", f"ALTER TABLE {table} OWNER TO {role}", f"GRANT ALL ON {table} TO PUBLIC",
    )  # fmt: skip
    return role


def tried(rig: Shaped, record: BackupRecord, plan: RestorePlan, mode: RestoreMode) -> str:
    """Apply the plan; returns why it was refused, or an empty text."""
    try:
        rig.restore().apply(rig.source(record), Wish(mode), approved=plan.digest, plan=plan)
    except ClinicBackupsError as error:
        return str(error)
    return ""


WHEN = {
    "always": ("s.line", "", "", TAKES_OVER),
    "after the writing": ("s.line", "", "", LATE),
    "a role's setting": ("s.line", "", "", GIVES_ITSELF_RIGHTS),
    "a left-out table": ("s.other", OTHER.format(""), "s.other: an own log", TAKES_OVER),
    "a table that cascades": ("s.other", OTHER.format(" ON DELETE CASCADE"), "s.other: an own log", TAKES_OVER),
    "a derived table": ("s.other", OTHER.format(""), "s.other: derived, x", TAKES_OVER),
}


@pytest.mark.parametrize("mode", ["exact", "live"])
@pytest.mark.parametrize("case", WHEN)
def test_what_code_does_while_tables_are_read_is_seen(
    demo_database: DemoDatabase, tmp_path: Path, case: str, mode: RestoreMode
) -> None:
    """The index is made after the approval, which covers only the tables that are written."""
    table, more, line, does = WHEN[case]
    rig = shaped(demo_database, tmp_path, DDL + more, {"bill": OWN, "line": OWN}, lists=f"{line}\n")
    role, record = owned(rig, table), rig.run(1)
    rig.execute("UPDATE s.bill SET no = 'x' WHERE clinic_id = 1 AND id > 2", "INSERT INTO s.bill VALUES (100, 1, 'n')")
    plan = rig.plan(record, mode=mode)
    assert plan.refusals == ()
    rig.execute(f"SET ROLE {role}; {INDEXED.format(table=table, does=does)}; RESET ROLE")
    said = tried(rig, record, plan, mode)
    assert rig.execute_rows("SELECT count(*) FROM s.bill WHERE no = 'taken'") == [(0,)]
    settings = "SELECT count(*) FROM pg_db_role_setting WHERE setconfig @> '{work_mem=63MB}'"
    assert rig.execute_rows(settings) == [(0,)]
    assert "Nothing was changed" in said or (mode == "live" and not said)


# What such code does to the temporary tables of a restore. Row 3 is another clinic's.
FORGED = {
    "a value of the backup": "UPDATE pg_temp.wanted_0 SET no = 'forged' WHERE id = 4 AND no <> 'forged'",
    "a value of the backup, by another row": "DELETE FROM pg_temp.wanted_0 WHERE id = 4; INSERT INTO pg_temp.wanted_0 VALUES (4, 1, 'forged')",
    "a row of the backup, in an heir": "CREATE TEMPORARY TABLE heir () INHERITS (pg_temp.wanted_0); INSERT INTO heir VALUES (1000, 1, 'forged')",
    "the names of columns": "ALTER TABLE pg_temp.wanted_0 RENAME no TO other; ALTER TABLE pg_temp.wanted_0 ADD no text DEFAULT 'forged'",
    "a present row": "INSERT INTO pg_temp.present_0 SELECT 3, 2, 'F3' WHERE NOT EXISTS (SELECT FROM pg_temp.present_0 WHERE id = 3)",
    "an operation": "UPDATE pg_temp.ops_0 SET k0 = 3 WHERE op = 'delete' AND k0 = 100",
}  # fmt: skip


def begins_and_is_seen(rig: Shaped, record: BackupRecord, plan: RestorePlan, mode: RestoreMode, said: str) -> None:
    """The code begins after the plan. The restore ends with an error that says this, and nothing was changed."""
    rig.execute("INSERT INTO s.go VALUES (1)")
    before = rig.everything()
    assert said in tried(rig, record, plan, mode)
    assert rig.everything() == before


def damage(rig: Shaped, added: int) -> None:
    """Change, add and delete rows of the clinic. :param added: the key of a new bill."""
    rig.execute(
        "UPDATE s.bill SET no = 'x' WHERE id = 4", f"INSERT INTO s.bill VALUES ({added}, 1, 'n')",
        "UPDATE s.line SET v = 'x' WHERE id = 2", "DELETE FROM s.line WHERE id = 4",
    )  # fmt: skip


@pytest.mark.parametrize("mode", ["exact", "live"])
@pytest.mark.parametrize("what", FORGED)
def test_what_code_does_to_the_temporary_tables_is_seen(
    demo_database: DemoDatabase, tmp_path: Path, what: str, mode: RestoreMode
) -> None:
    """The code was there when the plan was made, and begins later."""
    more = "; CREATE TABLE s.go (id int); GRANT SELECT ON s.go TO PUBLIC"
    rig = shaped(demo_database, tmp_path, DDL + more, {"bill": OWN, "line": OWN}, lists="s.go: a switch\n")
    role, record = owned(rig, "s.line"), rig.run(1)
    does = f"IF EXISTS (SELECT FROM s.go) THEN {FORGED[what]}; END IF"
    rig.execute(f"SET ROLE {role}; {INDEXED.format(table='s.line', does=does)}; RESET ROLE")
    damage(rig, 100)
    plan = rig.plan(record, mode=mode)
    assert plan.refusals == ()
    begins_and_is_seen(rig, record, plan, mode, "a temporary table of the restore")


# A deletion that is taken back lowers what cmin shows: it is a number of pairs of commands then.
AS_BEFORE = """
    CREATE FUNCTION h.forge() RETURNS void LANGUAGE plpgsql AS $f$
    DECLARE was bigint; now bigint; it int; done int[] := '{4}'; BEGIN
        IF to_regclass('pg_temp.ops_0') IS NULL
            OR NOT EXISTS (SELECT FROM pg_temp.wanted_0 WHERE id = 4 AND no <> 'forged') THEN RETURN; END IF;
        SELECT sum(cmin::text::bigint) INTO was FROM pg_temp.wanted_0;
        UPDATE pg_temp.wanted_0 SET no = 'forged' WHERE id = 4;
        FOR n IN 1 .. 5000 LOOP
            SELECT sum(cmin::text::bigint) INTO now FROM pg_temp.wanted_0;
            EXIT WHEN now = was;
            IF now > was THEN
                SELECT id INTO it FROM pg_temp.wanted_0 WHERE id <> ALL (done) ORDER BY cmin::text::bigint DESC LIMIT 1;
                done := done || it;
            END IF;
            BEGIN DELETE FROM pg_temp.wanted_0 WHERE id = it; RAISE 'back'; EXCEPTION WHEN others THEN NULL; END;
        END LOOP; END$f$
"""


# TRUNCATE sets the server's counts back, and lets the first row have its place again.
EMPTIED_AS_BEFORE = """
    CREATE FUNCTION h.forge() RETURNS void LANGUAGE plpgsql AS $f$
    DECLARE was text; BEGIN
        IF to_regclass('pg_temp.ops_0') IS NULL
            OR NOT EXISTS (SELECT FROM pg_temp.wanted_0 WHERE id = 4 AND no <> 'forged') THEN RETURN; END IF;
        SELECT cmin::text INTO was FROM pg_temp.wanted_0 LIMIT 1;
        CREATE TEMP TABLE IF NOT EXISTS keepit ON COMMIT DROP AS SELECT * FROM pg_temp.wanted_0 ORDER BY ctid;
        TRUNCATE pg_temp.wanted_0;
        INSERT INTO pg_temp.wanted_0 SELECT id, clinic_id, CASE WHEN id = 4 THEN 'forged' ELSE no END FROM pg_temp.keepit;
        FOR n IN 1 .. 5000 LOOP
            EXIT WHEN was = (SELECT cmin::text FROM pg_temp.wanted_0 LIMIT 1);
            BEGIN DELETE FROM pg_temp.wanted_0 WHERE ctid = '(0,1)'; RAISE 'back'; EXCEPTION WHEN others THEN NULL; END;
        END LOOP; END$f$
"""


@pytest.mark.parametrize("mode", ["exact", "live"])
@pytest.mark.parametrize("forging", [AS_BEFORE, EMPTIED_AS_BEFORE], ids=["changed", "emptied"])
def test_no_number_of_commands_hides_a_change_of_the_temporary_tables(
    demo_database: DemoDatabase, tmp_path: Path, mode: RestoreMode, forging: str
) -> None:
    ddl = DDL.replace("generate_series(1, 20)", "generate_series(1, 200)")
    switch = "; CREATE TABLE s.go (id int); GRANT SELECT ON s.go TO PUBLIC"
    rig = shaped(demo_database, tmp_path, ddl + switch, {"bill": OWN, "line": OWN}, lists="s.go: a switch\n")
    role, record = owned(rig, "s.line"), rig.run(1)
    does = "IF EXISTS (SELECT FROM s.go) THEN PERFORM h.forge(); END IF"
    rig.execute(f"SET ROLE {role}; {forging}; {INDEXED.format(table='s.line', does=does)}; RESET ROLE")
    damage(rig, 100000)
    plan = rig.plan(record, mode=mode)
    begins_and_is_seen(rig, record, plan, mode, "changed wanted_0, a temporary table of the restore")


@pytest.mark.parametrize("mode", ["exact", "live"])
@pytest.mark.parametrize(
    "does",
    [
        "UPDATE pg_temp.new_wanted_3 SET note = 'forged' WHERE id = 2 AND note <> 'forged'",
        "INSERT INTO pg_temp.new_wanted_3 SELECT 100, 1, 'forged', NULL FROM pg_temp.new_wanted_3 WHERE id = 2"
        " AND NOT EXISTS (SELECT FROM pg_temp.new_wanted_3 WHERE id = 100)",
    ],
)
def test_what_code_does_to_a_temporary_table_while_it_is_made_is_seen(
    demo_database: DemoDatabase, tmp_path: Path, mode: RestoreMode, does: str
) -> None:
    mark = """;
        CREATE TABLE s.go (id int); GRANT SELECT ON s.go TO PUBLIC;
        CREATE TABLE s.mark (id int PRIMARY KEY, clinic_id int, note text);
        INSERT INTO s.mark SELECT k, 1 + k % 2, 'm' || k FROM generate_series(1, 8) AS k
    """
    rig = shaped(demo_database, tmp_path, DDL + mark, {"bill": OWN, "line": OWN, "mark": OWN}, lists="s.go: a switch\n")
    role = owned(rig, "s.line")
    rig.execute(f"""
        SET ROLE {role}; CREATE FUNCTION h.fits(text) RETURNS boolean LANGUAGE plpgsql AS $f$BEGIN
            IF EXISTS (SELECT FROM s.go) AND to_regclass('pg_temp.new_wanted_3') IS NOT NULL
                AND COALESCE(current_setting('app.within', true), '') <> 'it' THEN
                PERFORM set_config('app.within', 'it', true); {does}; PERFORM set_config('app.within', '', true); END IF;
            RETURN true; END$f$;
        CREATE DOMAIN h.word AS text CHECK (h.fits(VALUE)); RESET ROLE;
        ALTER TABLE s.mark ADD w h.word; UPDATE s.mark SET w = 'a' || id
    """)
    record = rig.run(1)
    rig.execute("DELETE FROM s.bill WHERE id = 4", "UPDATE s.mark SET note = 'x' WHERE clinic_id = 1")
    plan = rig.plan(record, mode=mode)
    assert plan.refusals == ()
    begins_and_is_seen(rig, record, plan, mode, "a temporary table of the restore")


@pytest.mark.parametrize("mode", ["exact", "live"])
def test_what_the_function_of_a_cast_does_to_the_temporary_tables_is_seen(
    demo_database: DemoDatabase, tmp_path: Path, mode: RestoreMode
) -> None:
    """The cast exists only while values are converted, so neither question before and after sees it."""
    more = "; CREATE TYPE s.mood AS ENUM ('a', 'b'); CREATE TABLE s.mark (id int PRIMARY KEY, clinic_id int, mood s.mood); INSERT INTO s.mark SELECT k, 1 + k % 2, 'a' FROM generate_series(1, 8) AS k"
    rig = shaped(demo_database, tmp_path, DDL + more, {"bill": OWN, "line": OWN, "mark": OWN})
    record = rig.run(1)
    rig.execute("DELETE FROM s.bill WHERE id = 4", "UPDATE s.mark SET mood = NULL WHERE id = 4")
    plan, before = rig.plan(record, mode=mode), rig.everything()
    cast = (
        "CREATE FUNCTION s.forges(text) RETURNS s.mood LANGUAGE plpgsql AS"
        " $f$BEGIN UPDATE pg_temp.wanted_0 SET no = 'forged' WHERE id = 4; RETURN enum_first(NULL::s.mood); END$f$;"
        " CREATE CAST (text AS s.mood) WITH FUNCTION s.forges(text)"
    )

    def meanwhile(step: str) -> None:
        if step == "comparing":
            rig.execute(cast)
        elif step.startswith(("saving", "writing")):
            rig.execute("DROP FUNCTION IF EXISTS s.forges(text) CASCADE")

    restore = rig.restore()
    restore.listener = Listener(meanwhile)
    with pytest.raises(IntegrityError, match="changed wanted_0, a temporary table of the restore"):
        restore.apply(rig.source(record), Wish(mode), approved=plan.digest, plan=plan)
    assert rig.everything() == before


def test_a_plan_says_what_code_did_meanwhile(demo_database: DemoDatabase, tmp_path: Path) -> None:
    rig = shaped(demo_database, tmp_path, DDL, {"bill": OWN, "line": OWN})
    role, record = owned(rig, "s.line"), rig.run(1)
    rig.execute("UPDATE s.bill SET no = 'x' WHERE clinic_id = 1", "DELETE FROM s.line WHERE clinic_id = 1 AND id < 5")
    rig.execute(f"SET ROLE {role}; {INDEXED.format(table='s.line', does=TAKES_OVER)}; RESET ROLE")
    (refusal,) = rig.plan(record).refusals
    assert "s.bill: update touched" in refusal.message


def test_a_restore_without_anything_to_write_commits_nothing(demo_database: DemoDatabase, tmp_path: Path) -> None:
    rig = shaped(demo_database, tmp_path, DDL, {"bill": OWN, "line": OWN})
    role, record = owned(rig, "s.line"), rig.run(1)
    rig.execute(f"SET ROLE {role}; {INDEXED.format(table='s.line', does=TAKES_OVER)}; RESET ROLE")
    plan = rig.plan(record)
    assert plan.writes == 0
    assert tried(rig, record, plan, "exact") == ""
    assert rig.execute_rows("SELECT count(*) FROM s.bill WHERE no = 'taken'") == [(0,)]


def test_an_approval_covers_a_function_that_somebody_added_to_an_extension(
    demo_database: DemoDatabase, tmp_path: Path
) -> None:
    rig = shaped(demo_database, tmp_path, DDL, {"bill": OWN, "line": OWN})
    role, record = owned(rig, "s.line"), rig.run(1)
    made = "CREATE OR REPLACE FUNCTION h.made() RETURNS text LANGUAGE sql AS $$SELECT '{}'::text$$"
    rig.execute(
        f"GRANT CREATE ON DATABASE {rig.database.name} TO {role}",
        f"SET ROLE {role}; CREATE EXTENSION hstore SCHEMA h; {made.format('good')};"
        " ALTER TABLE s.line ADD w text DEFAULT h.made(); ALTER EXTENSION hstore ADD FUNCTION h.made(); RESET ROLE",
        "DELETE FROM s.line WHERE clinic_id = 1 AND id < 5",
    )
    plan = rig.plan(record)
    assert plan.refusals == ()
    rig.execute(f"SET ROLE {role}; {made.format('bad')}; RESET ROLE")
    assert "Nothing was changed" in tried(rig, record, plan, "exact")
    assert rig.execute_rows("SELECT count(*) FROM s.line WHERE w = 'bad'") == [(0,)]


def test_a_plan_names_a_strangers_function_that_a_text_calls(demo_database: DemoDatabase, tmp_path: Path) -> None:
    """PostgreSQL does not know that it is called. Its owner may have put it in the way of another one."""
    rig = shaped(demo_database, tmp_path, DDL, {"bill": OWN, "line": OWN})
    record, role = rig.run(1), f"owner_{rig.database.name}"
    rig.execute(
        f"CREATE ROLE {role}; CREATE SCHEMA h AUTHORIZATION {role}; GRANT USAGE ON SCHEMA h TO PUBLIC; SET ROLE {role};"
        " CREATE FUNCTION h.fits(text) RETURNS boolean IMMUTABLE LANGUAGE plpgsql AS 'BEGIN RETURN true; END'; RESET ROLE;"
        " CREATE FUNCTION s.fits(text) RETURNS boolean IMMUTABLE LANGUAGE plpgsql AS 'BEGIN RETURN h.fits($1); END';"
        " ALTER TABLE s.line ADD CHECK (s.fits(v)); DELETE FROM s.line WHERE clinic_id = 1 AND id < 5"
    )
    said = " ".join(note for table in rig.plan(record).tables for note in table.notes)
    assert said.count(f"The function h.fits(text) belongs to the role {role}") == 1


COUNTER = """
    CREATE SEQUENCE s.numbers;
    CREATE TABLE s.counter (clinic_id int PRIMARY KEY REFERENCES s.clinic, n int NOT NULL DEFAULT 0);
    INSERT INTO s.counter VALUES (1, 5), (2, 6);
    CREATE FUNCTION s.next_no() RETURNS text LANGUAGE plpgsql AS $$BEGIN UPDATE s.counter SET n = n + 1 WHERE clinic_id = 1; RETURN 'N' || nextval('s.numbers'); END$$;
    CREATE TABLE s.bill (id int PRIMARY KEY, clinic_id int NOT NULL REFERENCES s.clinic, no text DEFAULT s.next_no());
    INSERT INTO s.bill SELECT k, 1 + k % 2, 'N' || k FROM generate_series(1, 20) AS k; SELECT setval('s.numbers', 20);
"""


def test_what_a_default_did_in_a_trial_that_was_rolled_back_is_no_damage(
    demo_database: DemoDatabase, tmp_path: Path
) -> None:
    """Numbers are asked of the default. It also counts in a table that the restore writes."""
    rig = shaped(demo_database, tmp_path, COUNTER, {"bill": OWN, "counter": OWN})
    record, before = rig.run(1), rig.everything()
    rig.execute("DELETE FROM s.bill WHERE clinic_id = 1", "UPDATE s.counter SET n = 9 WHERE clinic_id = 1")
    assert rig.plan(record).refusals == ()
    rig.bring_back(record)
    assert rig.everything() == before


LOGGED = """; CREATE TABLE s.ddl_log (n bigserial, who text);
    CREATE FUNCTION s.logs() RETURNS event_trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog AS $f$
        BEGIN INSERT INTO s.ddl_log (who) VALUES (session_user); END $f$;
    CREATE EVENT TRIGGER {name} ON ddl_command_end EXECUTE FUNCTION s.logs()"""


@pytest.mark.parametrize("mode", ["exact", "live"])
@pytest.mark.parametrize("how_many", [0, 1, 500])
def test_only_event_triggers_may_write_into_their_log(
    demo_database: DemoDatabase, tmp_path: Path, how_many: int, mode: RestoreMode
) -> None:
    name = f"logs_{demo_database.name}"
    more, lists = LOGGED.format(name=name), "s.ddl_log: an own log\n"
    rig = shaped(demo_database, tmp_path, DDL + more, {"bill": OWN, "line": OWN}, lists=lists)
    try:
        role, record = owned(rig, "s.line"), rig.run(1)
        rig.execute("UPDATE s.bill SET no = 'x' WHERE clinic_id = 1 AND id > 2")
        plan = rig.plan(record, mode=mode)
        assert plan.refusals == ()
        does = f"INSERT INTO s.ddl_log (n, who) SELECT -1, 'forged' FROM generate_series(1, {how_many})"
        rig.execute(f"SET ROLE {role}; {INDEXED.format(table='s.line', does=does)}; RESET ROLE")
        said = tried(rig, record, plan, mode)
        assert rig.execute_rows("SELECT count(*) FROM s.ddl_log WHERE who = 'forged'") == [(0,)]
        if how_many and mode == "exact":
            assert "s.ddl_log: insert touched" in said
        elif not how_many:
            assert said == ""
            assert rig.execute_rows("SELECT count(*) FROM s.bill WHERE no = 'x'") == [(0,)]
    finally:
        rig.execute(f"DROP EVENT TRIGGER {name}")
