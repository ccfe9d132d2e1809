"""A plan and its approval cover what else runs: triggers and rules of derived tables, and the hooks."""

from __future__ import annotations

from pathlib import Path

import pytest

from clinic_backups.restore.clinic_restore import ClinicChanged
from clinic_backups.restore.request import Wish
from tests.integration.test_restore_outside import OWN
from tests.integration.test_trial import trial
from tests.postgres_fixtures import DemoDatabase
from tests.shapes import Shaped, shaped

DDL = """
    CREATE SEQUENCE s.mails; GRANT ALL ON s.mails TO PUBLIC; CREATE TABLE s.trash (id int);
    CREATE TABLE s.bill (id int PRIMARY KEY, clinic_id int NOT NULL REFERENCES s.clinic, v text);
    CREATE TABLE s.der (id int, bill_id int REFERENCES s.bill, v text) PARTITION BY LIST (id);
    CREATE TABLE s.der_1 PARTITION OF s.der FOR VALUES IN (1);
    INSERT INTO s.bill SELECT k, 1 + k % 2 FROM generate_series(1, 20) AS k;
    CREATE FUNCTION s.mail() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM nextval(''s.mails''); RETURN OLD; END';
    CREATE FUNCTION s.other() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN OLD; END'
"""
LISTS = "s.der: derived, made every night\ns.trash: shared, x\n"
FIRES = {
    "before": "CREATE TRIGGER mail BEFORE DELETE ON s.der FOR EACH ROW EXECUTE FUNCTION s.mail()",
    "after, of a partition": "CREATE TRIGGER mail AFTER DELETE ON s.der_1 FOR EACH ROW EXECUTE FUNCTION s.mail()",
    "a statement's": "CREATE TRIGGER mail AFTER DELETE ON s.der FOR EACH STATEMENT EXECUTE FUNCTION s.mail()",
}
RULE = "CREATE RULE mail AS ON DELETE TO s.der DO ALSO INSERT INTO s.trash VALUES (1)"


def with_rows(database: DemoDatabase, folder: Path, more: str, *, owner: bool) -> Shaped:
    return shaped(database, folder, f"{DDL}; {more}", {"bill": OWN}, lists=LISTS, owner=owner)


def added(rig: Shaped) -> None:
    rig.execute("INSERT INTO s.bill VALUES (100, 1)", "INSERT INTO s.der VALUES (1, 100, 'x')")


@pytest.mark.parametrize("what", [*FIRES, "a rule"])
@pytest.mark.parametrize("owner", [False, True])
def test_triggers_of_derived_tables_are_turned_off_or_in_the_plan(
    demo_database: DemoDatabase, tmp_path: Path, what: str, owner: bool
) -> None:
    rig = with_rows(demo_database, tmp_path, FIRES.get(what, RULE), owner=owner)
    record = rig.run(1)
    added(rig)
    plan = rig.plan(record)
    (notes,) = [" ".join(table.notes) for table in plan.tables if table.table == "s.der"]
    fired = [(not owner,)]
    if owner:
        assert "turned off meanwhile" in notes and "mail" in notes
    else:
        assert "will fire: this role may not turn them off: mail" in notes
        (warning,) = [found for found in trial(rig) if found.level == "warning" and "s.der" in found.message]
        assert "(mail)" in warning.message and "OWNER" in warning.hint
        if what == "a rule":
            (refusal,) = plan.refusals
            assert "The rule mail of s.der" in refusal.message and "DISABLE RULE mail" in refusal.hint
            return
    rig.restore().apply(rig.source(record), Wish(), approved=plan.digest, plan=plan)
    assert rig.execute_rows("SELECT count(*) FROM s.der") == [(0,)]
    assert rig.execute_rows("SELECT count(*) FROM s.trash") == [(0,)]
    if what != "a rule":
        assert rig.execute_rows("SELECT is_called FROM s.mails") == fired
    query = "SELECT DISTINCT tgenabled::text FROM pg_trigger WHERE tgname = 'mail'"
    assert rig.execute_rows(query) == ([("O",)] if what != "a rule" else [])


@pytest.mark.parametrize("between", [
    "CREATE TRIGGER other BEFORE DELETE ON s.der FOR EACH ROW EXECUTE FUNCTION s.other()",
    "CREATE OR REPLACE FUNCTION s.mail() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN OLD; END'",
    "DROP TRIGGER mail ON s.der",
    RULE,
])  # fmt: skip
def test_another_trigger_of_a_derived_table_is_another_plan(
    demo_database: DemoDatabase, tmp_path: Path, between: str
) -> None:
    rig = with_rows(demo_database, tmp_path, FIRES["before"], owner=True)
    record = rig.run(1)
    added(rig)
    plan = rig.plan(record)
    rig.execute(between)
    with pytest.raises(ClinicChanged):
        rig.restore().apply(rig.source(record), Wish(), approved=plan.digest, plan=plan)
    assert rig.execute_rows("SELECT count(*) FROM s.der") == [(1,)]


def test_a_trigger_that_no_deletion_fires_is_no_part_of_the_plan(demo_database: DemoDatabase, tmp_path: Path) -> None:
    rig = with_rows(demo_database, tmp_path, "", owner=False)
    record = rig.run(1)
    added(rig)
    plan = rig.plan(record)
    rig.execute("CREATE TRIGGER other BEFORE INSERT ON s.der FOR EACH ROW EXECUTE FUNCTION s.other()")
    assert rig.plan(record).digest == plan.digest
    assert [found for found in trial(rig) if found.level == "warning" and "s.der" in found.message] == []


@pytest.mark.parametrize("mode", ["exact", "live"])
@pytest.mark.parametrize("name", ["before_restore.sql", "after_restore.sql"])
@pytest.mark.parametrize("was", ["", "UPDATE s.clinic SET phone = '8' WHERE id = 2"])
def test_another_hook_than_the_plans_does_not_run(
    demo_database: DemoDatabase, tmp_path: Path, mode: str, name: str, was: str
) -> None:
    rig = with_rows(demo_database, tmp_path, "", owner=False)
    hook = rig.settings.sql_dir / name
    if was:
        hook.write_text(was)
    record = rig.run(1)
    rig.execute("DELETE FROM s.bill WHERE id = 2")
    plan, damaged = rig.plan(record, mode=mode), rig.everything()
    hook.write_text("UPDATE s.clinic SET phone = '9' WHERE id = 2")
    with pytest.raises(ClinicChanged, match=f"hook {name}"):
        rig.restore().apply(rig.source(record), Wish(mode=mode), approved=plan.digest, plan=plan)
    assert rig.everything() == damaged
    rig.bring_back(record)
    assert rig.execute_rows("SELECT phone FROM s.clinic WHERE id = 2") == [("9",)]


NOTES = """
    CREATE TABLE s.bill (id int PRIMARY KEY, clinic_id int NOT NULL REFERENCES s.clinic, no text);
    CREATE TABLE s.note (id int PRIMARY KEY, bill_id int REFERENCES s.bill, v text);
    INSERT INTO s.bill SELECT k, 1 + k % 2, 'F' || k FROM generate_series(1, 20) AS k
"""


@pytest.mark.parametrize("planned", ["none", "some"])
@pytest.mark.parametrize("declared", ["before", "after"])
def test_the_mode_live_deletes_no_derived_rows_that_the_plan_does_not_name(
    demo_database: DemoDatabase, tmp_path: Path, planned: str, declared: str
) -> None:
    """Neither those that people wrote since, nor those of a table that is declared since."""
    lists = "s.note: derived, made anew\n"
    rig = shaped(
        demo_database, tmp_path, NOTES, {"bill": OWN}, lists=lists if declared == "before" else "s.note: own\n"
    )
    record = rig.run(1)
    rig.execute("INSERT INTO s.bill VALUES (100, 1, 'new'), (101, 1, 'new')")
    if planned == "some" and declared == "before":
        rig.execute("INSERT INTO s.note VALUES (0, 100, 'computed')")
    plan = rig.plan(record, mode="live")
    assert plan.refusals == ()
    rig.execute("INSERT INTO s.note SELECT k, 100, 'by people' FROM generate_series(1, 5) AS k")
    (rig.settings.sql_dir / "not_backed_up.txt").write_text(lists)
    applied = rig.restore().apply(rig.source(record), Wish(mode="live"), approved=plan.digest, plan=plan)
    assert rig.execute_rows("SELECT count(*) FROM s.note WHERE v = 'by people'") == [(5,)]
    assert rig.execute_rows("SELECT id FROM s.bill WHERE id >= 100") == [(100,)]
    (notes,) = [" ".join(table.notes) for table in applied.tables if table.table == "s.bill"]
    assert "1 row needs others that changed since the plan" in notes


def test_the_mode_live_deletes_the_derived_rows_of_the_plan(demo_database: DemoDatabase, tmp_path: Path) -> None:
    rig = shaped(demo_database, tmp_path, NOTES, {"bill": OWN}, lists="s.note: derived, made anew\n")
    record = rig.run(1)
    rig.execute("INSERT INTO s.bill VALUES (100, 1, 'new')", "INSERT INTO s.note VALUES (0, 100, 'computed')")
    plan = rig.plan(record, mode="live")
    rig.restore().apply(rig.source(record), Wish(mode="live"), approved=plan.digest, plan=plan)
    assert rig.execute_rows("SELECT count(*) FROM s.bill WHERE clinic_id = 1") == [(10,)]
    assert rig.execute_rows("SELECT count(*) FROM s.note") == [(0,)]


def test_the_mode_live_keeps_derived_rows_that_refer_by_a_key_which_is_newer_than_the_plan(
    demo_database: DemoDatabase, tmp_path: Path
) -> None:
    more = f"{NOTES}; ALTER TABLE s.note ADD other int"
    rig = shaped(demo_database, tmp_path, more, {"bill": OWN}, lists="s.note: derived, made anew\n")
    record = rig.run(1)
    rig.execute(
        "INSERT INTO s.bill VALUES (100, 1, 'new'), (101, 1, 'new')",
        "INSERT INTO s.note (id, bill_id, other) VALUES (0, 100, NULL), (1, NULL, 101)",
    )
    plan = rig.plan(record, mode="live")
    rig.execute("ALTER TABLE s.note ADD FOREIGN KEY (other) REFERENCES s.bill")
    rig.restore().apply(rig.source(record), Wish(mode="live"), approved=plan.digest, plan=plan)
    assert rig.execute_rows("SELECT id FROM s.note ORDER BY id") == [(0,), (1,)]
    assert rig.execute_rows("SELECT id FROM s.bill WHERE clinic_id = 1 AND id > 99 ORDER BY id") == [(100,), (101,)]


@pytest.mark.parametrize(
    "meanwhile",
    ["UPDATE s.note SET v = 'by hand'", "UPDATE s.note SET id = 7, v = 'by hand'"],
)
def test_derived_rows_that_changed_since_the_plan_are_another_plan(
    demo_database: DemoDatabase, tmp_path: Path, meanwhile: str
) -> None:
    rig = shaped(demo_database, tmp_path, NOTES, {"bill": OWN}, lists="s.note: derived, made anew\n")
    record = rig.run(1)
    rig.execute("INSERT INTO s.bill VALUES (100, 1, 'new')", "INSERT INTO s.note VALUES (0, 100, 'computed')")
    plan = rig.plan(record)
    rig.execute(meanwhile)
    with pytest.raises(ClinicChanged, match=r"derived s\.note"):
        rig.restore().apply(rig.source(record), Wish(), approved=plan.digest, plan=plan)
    assert rig.execute_rows("SELECT v FROM s.note") == [("by hand",)]
    plan = rig.plan(record)
    rig.execute("UPDATE s.note SET v = v")  # computed again, with the same values
    rig.restore().apply(rig.source(record), Wish(), approved=plan.digest, plan=plan)
    assert rig.execute_rows("SELECT count(*) FROM s.note") == [(0,)]
