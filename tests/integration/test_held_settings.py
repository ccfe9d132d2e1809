"""Code of a database's own functions changes settings, or what a restore has loaded: it is seen, or has no effect."""

# ruff: noqa: E501 - a case reads best in one line

from __future__ import annotations

from pathlib import Path

import pytest

from clinic_backups.base.errors import IntegrityError, PermanentError
from clinic_backups.catalog.restores import RestoreMode
from clinic_backups.restore.request import Wish
from clinic_backups.restore.seals import Seals
from tests.integration.test_owners_code import DDL, begins_and_is_seen, damage, owned, tried
from tests.integration.test_restore_outside import OWN
from tests.postgres_fixtures import DemoDatabase
from tests.shapes import Shaped, shaped

MONEY = """;
    CREATE TABLE s.go (id int); GRANT SELECT ON s.go TO PUBLIC;
    CREATE TABLE s.money (id int PRIMARY KEY, clinic_id int, v float8, at timestamptz);
    INSERT INTO s.money SELECT k, 1 + k % 2, 0.1::float8 + 0.2::float8, '2026-01-02 03:04:05.678901+00' FROM generate_series(1, 8) AS k"""
SETTINGS = {
    "extra_float_digits": "PERFORM set_config('extra_float_digits', '0', true)",
    "timezone": "SET LOCAL TIME ZONE 'Asia/Tokyo'",
    "datestyle": "PERFORM set_config('datestyle', 'SQL', false)",
    "client_encoding": "PERFORM set_config('client_encoding', 'LATIN1', true)",
    "row_security": "SET LOCAL row_security = on",
}
# The condition of an index is evaluated when a query of its table is planned.
INDEXED = """
    CREATE FUNCTION h.does() RETURNS void LANGUAGE plpgsql AS $f$BEGIN {}; END$f$;
    CREATE FUNCTION h.is(int) RETURNS boolean IMMUTABLE LANGUAGE plpgsql AS 'BEGIN RETURN true; END';
    CREATE INDEX planned ON s.line (id) WHERE h.is(1);
    CREATE OR REPLACE FUNCTION h.is(int) RETURNS boolean IMMUTABLE LANGUAGE plpgsql AS 'BEGIN PERFORM h.does(); RETURN true; END'
"""


def with_money(database: DemoDatabase, folder: Path) -> tuple[Shaped, str]:
    extracts = {"bill": OWN, "line": OWN, "money": OWN}
    rig = shaped(database, folder, DDL + MONEY, extracts, lists="s.go: a switch\n")
    return rig, owned(rig, "s.line")


@pytest.mark.parametrize("name", SETTINGS)
def test_a_backup_fails_if_code_changed_how_values_are_written(
    demo_database: DemoDatabase, tmp_path: Path, name: str
) -> None:
    rig, role = with_money(demo_database, tmp_path)
    rig.execute(f"SET ROLE {role}; {INDEXED.format(SETTINGS[name])}; RESET ROLE")
    with pytest.raises(PermanentError, match=f"Code of the database changed {name}") as caught:
        rig.run(1)
    assert "h.does" in (caught.value.hint or "")
    assert f"ALTER FUNCTION … SET {name}" in (caught.value.hint or "")


def test_a_function_with_a_setting_of_its_own_disturbs_nothing(demo_database: DemoDatabase, tmp_path: Path) -> None:
    rig, role = with_money(demo_database, tmp_path)
    own = INDEXED.format("RETURN").replace("void LANGUAGE", "void SET timezone = 'Asia/Tokyo' LANGUAGE")
    rig.execute(f"SET ROLE {role}; {own}; RESET ROLE")
    record, before = rig.run(1), rig.everything()
    rig.execute("UPDATE s.money SET v = 0.3 WHERE id IN (2, 4)")
    rig.bring_back(record)
    assert rig.everything() == before


@pytest.mark.parametrize("mode", ["exact", "live"])
def test_a_plan_fails_if_code_hid_a_difference(demo_database: DemoDatabase, tmp_path: Path, mode: RestoreMode) -> None:
    """s.line has another column now, so the restore's own session reads it. Fewer digits hide the difference."""
    rig, role = with_money(demo_database, tmp_path)
    record = rig.run(1)
    does = SETTINGS["extra_float_digits"]
    rig.execute(
        f"SET ROLE {role}; {INDEXED.format(does)}; ALTER TABLE s.line ADD more int; RESET ROLE",
        "UPDATE s.money SET v = 0.3 WHERE id IN (2, 4)", "UPDATE s.line SET v = 'x' WHERE id = 2",
    )  # fmt: skip
    with pytest.raises(PermanentError, match="Code of the database changed extra_float_digits"):
        rig.plan(record, mode=mode)


SETS_ALL = " ".join(
    ["SET LOCAL timezone = 'Asia/Tokyo';", "SET LOCAL datestyle = 'German';", "SET LOCAL extra_float_digits = 0;"]
)


@pytest.mark.parametrize("mode", ["exact", "live"])
@pytest.mark.parametrize(
    "code",
    [
        f"CREATE FUNCTION s.t() RETURNS trigger LANGUAGE plpgsql AS $f$BEGIN {SETS_ALL} RETURN NEW; END$f$;"
        " CREATE TRIGGER t BEFORE INSERT OR UPDATE ON s.bill FOR EACH ROW EXECUTE FUNCTION s.t();"
        " ALTER TABLE s.bill ENABLE ALWAYS TRIGGER t",
        f"CREATE FUNCTION s.c(text) RETURNS boolean LANGUAGE plpgsql AS $f$BEGIN {SETS_ALL} RETURN true; END$f$;"
        " ALTER TABLE s.bill ADD CHECK (s.c(no))",
        f"CREATE FUNCTION s.c(text) RETURNS boolean LANGUAGE plpgsql AS $f$BEGIN {SETS_ALL} RETURN true; END$f$;"
        " CREATE DOMAIN s.word AS text CHECK (s.c(VALUE)); ALTER TABLE s.bill ALTER no TYPE s.word",
    ],
    ids=["a trigger", "a check", "a domain"],
)
def test_code_that_has_to_run_in_a_restore_may_use_set(
    demo_database: DemoDatabase, tmp_path: Path, code: str, mode: RestoreMode
) -> None:
    rig, _ = with_money(demo_database, tmp_path)
    rig.execute(code, "GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA s TO PUBLIC")
    record, before = rig.run(1), rig.everything()
    damage(rig, 100)
    rig.execute("UPDATE s.money SET v = 0.3 WHERE id IN (2, 4)")
    plan = rig.plan(record, mode=mode)
    assert plan.refusals == ()
    assert tried(rig, record, plan, mode) == ""
    assert rig.everything() == before


# TRUNCATE in the transaction that made a table lets it use the same places of the same file again.
EMPTIED = """
    IF EXISTS (SELECT FROM s.go) AND to_regclass('pg_temp.ops_0') IS NOT NULL AND to_regclass('pg_temp.keepit') IS NULL THEN
        CREATE TEMP TABLE probe ON COMMIT DROP AS SELECT 1;
        IF (SELECT bool_and(xmin::text::bigint = pg_current_xact_id()::text::bigint % 4294967296) FROM pg_temp.probe) THEN
            CREATE TEMP TABLE keepit ON COMMIT DROP AS SELECT * FROM pg_temp.{table} ORDER BY ctid;
            TRUNCATE pg_temp.{table};
            INSERT INTO pg_temp.{table} SELECT (CASE WHEN {which} THEN jsonb_populate_record(k, '{to}') ELSE k END).* FROM pg_temp.keepit AS k;
        END IF;
        DROP TABLE probe;
    END IF"""


@pytest.mark.parametrize("mode", ["exact", "live"])
@pytest.mark.parametrize(
    ("table", "which", "to"), [("wanted_0", "id = 4", '{"no": "XX"}'), ("ops_0", "op = 'delete'", '{"k0": 3}')]
)
def test_a_temporary_table_that_was_emptied_and_filled_again_is_seen(
    demo_database: DemoDatabase, tmp_path: Path, mode: RestoreMode, table: str, which: str, to: str
) -> None:
    """Row 3 is another clinic's."""
    rig, role = with_money(demo_database, tmp_path)
    record = rig.run(1)
    does = EMPTIED.format(table=table, which=which, to=to)
    rig.execute(f"SET ROLE {role}; {INDEXED.format(does)}; RESET ROLE")
    damage(rig, 100)
    plan = rig.plan(record, mode=mode)
    assert plan.refusals == ()
    begins_and_is_seen(rig, record, plan, mode, f"changed {table}, a temporary table of the restore")


@pytest.mark.parametrize("mode", ["exact", "live"])
def test_a_cast_that_gives_another_value_the_second_time_is_seen(
    demo_database: DemoDatabase, tmp_path: Path, mode: RestoreMode
) -> None:
    extracts, lists = {"bill": OWN, "line": OWN, "mark": OWN}, "s.go: a switch\n"
    mark = "; CREATE TABLE s.go (id int); GRANT SELECT ON s.go TO PUBLIC; CREATE TABLE s.mark (id int PRIMARY KEY, clinic_id int, note text); INSERT INTO s.mark SELECT k, 1 + k % 2, 'm' || k FROM generate_series(1, 8) AS k"
    rig = shaped(demo_database, tmp_path, DDL + mark, extracts, lists=lists)
    role = owned(rig, "s.line")
    rig.execute(f"""
        SET ROLE {role}; CREATE TYPE h.mood AS ENUM ('a', 'b');
        CREATE FUNCTION h.mood(text) RETURNS h.mood LANGUAGE plpgsql AS $f$DECLARE found h.mood; BEGIN
            IF EXISTS (SELECT FROM s.go) AND to_regclass('pg_temp.new_wanted_3') IS NOT NULL THEN RETURN 'b'; END IF;
            EXECUTE format('SELECT %L', $1) INTO found; RETURN found; END$f$;
        RESET ROLE; ALTER TABLE s.mark ADD w h.mood; UPDATE s.mark SET w = 'a';
        SET ROLE {role}; CREATE CAST (text AS h.mood) WITH FUNCTION h.mood(text); RESET ROLE""")
    record = rig.run(1)
    rig.execute("DELETE FROM s.bill WHERE id = 4", "UPDATE s.mark SET note = 'x' WHERE clinic_id = 1")
    plan = rig.plan(record, mode=mode)
    assert plan.refusals == ()
    begins_and_is_seen(rig, record, plan, mode, "4 rows of s.mark got other values when they were converted")


def test_the_proof_compares_with_the_archive_itself(
    demo_database: DemoDatabase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Even if nothing watched the temporary tables, a value that is not the archive's is not believed."""
    rig, role = with_money(demo_database, tmp_path)
    record = rig.run(1)
    does = "IF EXISTS (SELECT FROM s.go) THEN UPDATE pg_temp.wanted_0 SET no = 'forged' WHERE id = 4; END IF; EXCEPTION WHEN others THEN NULL"
    rig.execute(f"SET ROLE {role}; {INDEXED.format(does)}; RESET ROLE")
    damage(rig, 100)
    plan = rig.plan(record)
    rig.execute("INSERT INTO s.go VALUES (1)")
    before = rig.everything()
    monkeypatch.setattr(Seals, "keep", lambda *given: None)
    monkeypatch.setattr(Seals, "require", lambda *given: None)
    with pytest.raises(IntegrityError, match=r"s\.bill would not be what the backup holds"):
        rig.restore().apply(rig.source(record), Wish("exact"), approved=plan.digest, plan=plan)
    assert rig.everything() == before


def test_a_role_whose_writes_are_not_counted_is_refused_with_the_reason(
    demo_database: DemoDatabase, tmp_path: Path
) -> None:
    rig, _ = with_money(demo_database, tmp_path)
    record = rig.run(1)
    rig.execute(f"ALTER DATABASE {rig.database.name} SET track_counts = off")
    with pytest.raises(PermanentError, match="track_counts is off"):
        rig.plan(record)


# An operator for numbers that is not PostgreSQL's, and a path in which it comes first.
ELSEWHERE = """
    CREATE FUNCTION h.eq(int, int) RETURNS boolean LANGUAGE sql AS 'SELECT {}';
    CREATE OPERATOR h.= (LEFTARG = int, RIGHTARG = int, FUNCTION = h.eq);
    """ + INDEXED.format(
    "IF EXISTS (SELECT FROM s.go) THEN PERFORM set_config('search_path', 'h, pg_catalog, pg_temp', false); END IF"
)


@pytest.mark.parametrize("answer", ["true", "$1 OPERATOR(pg_catalog.<>) $2"])
def test_no_backup_looks_up_its_operators_in_a_path_that_code_has_set(
    demo_database: DemoDatabase, tmp_path: Path, answer: str
) -> None:
    rig, role = with_money(demo_database, tmp_path)
    first = rig.run(1)
    rig.execute(f"SET ROLE {role}; {ELSEWHERE.replace('{}', answer)}; RESET ROLE", "INSERT INTO s.go VALUES (1)")
    assert rig.open(rig.run(1)).tables == rig.open(first).tables


@pytest.mark.parametrize("mode", ["exact", "live"])
def test_no_restore_takes_rows_of_another_clinic_for_the_clinics_own(
    demo_database: DemoDatabase, tmp_path: Path, mode: RestoreMode
) -> None:
    rig, role = with_money(demo_database, tmp_path)
    rig.execute(f"SET ROLE {role}; {ELSEWHERE.replace('{}', 'true')}; RESET ROLE", "INSERT INTO s.go VALUES (1)")
    record, before = rig.run(1), rig.everything()
    rig.execute("UPDATE s.money SET v = 0.3 WHERE id = 4", "UPDATE s.bill SET no = 'x' WHERE id = 4")
    plan = rig.plan(record, mode=mode)
    assert plan.refusals == ()
    assert tried(rig, record, plan, mode) == ""
    assert rig.everything() == before
