"""Whatever a plan says, and whatever decides the written values, belongs to what is approved."""

# ruff: noqa: E501 - a schema reads best with one table a line

from __future__ import annotations

from pathlib import Path
from typing import get_args

import pytest

from clinic_backups.catalog.restores import RestoreMode
from clinic_backups.restore.clinic_restore import ClinicChanged
from clinic_backups.restore.request import Wish
from tests.integration.test_restore_outside import OWN
from tests.postgres_fixtures import DemoDatabase
from tests.shapes import shaped

DDL = """
    CREATE SEQUENCE s.mails; GRANT ALL ON s.mails TO PUBLIC; CREATE TABLE s.audit (v text); GRANT ALL ON s.audit TO PUBLIC;
    CREATE TABLE s.bill (id serial PRIMARY KEY, clinic_id int NOT NULL REFERENCES s.clinic, phone bigint, paid boolean);
    CREATE TABLE s.other (id int PRIMARY KEY, clinic_id int NOT NULL REFERENCES s.clinic);
    INSERT INTO s.bill (clinic_id, phone, paid) SELECT 1 + k % 2, 2100000000 + k, true FROM generate_series(1, 20) AS k;
    CREATE FUNCTION s.mail() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM nextval(''s.mails''); RETURN NULL; END'
"""
TRIGGER = "CREATE TRIGGER mail AFTER INSERT ON s.bill FOR EACH ROW EXECUTE FUNCTION s.mail()"
QUIET, LOUD = ("{} SET ON PARAMETER session_replication_role {} clinic_backups_restorer".format(*words)
               for words in (("GRANT", "TO"), ("REVOKE", "FROM")))  # fmt: skip
LOST = "DELETE FROM s.bill WHERE id = 2"
TEXT = "ALTER TABLE s.bill ALTER paid TYPE text USING paid::text"
# Before the plan, between plan and restore, and what the error names.
BETWEEN = {
    "a trigger is made": ("", TRIGGER, "trigger s.bill: mail"),
    "a trigger is dropped": (TRIGGER, "DROP TRIGGER mail ON s.bill", "trigger s.bill: mail"),
    "a trigger is enabled": (f"{TRIGGER}; ALTER TABLE s.bill DISABLE TRIGGER mail", "ALTER TABLE s.bill ENABLE TRIGGER mail", "trigger s.bill: mail"),
    "a trigger becomes ALWAYS": (f"{TRIGGER}; {QUIET}", "ALTER TABLE s.bill ENABLE ALWAYS TRIGGER mail", "trigger s.bill: mail"),
    "triggers can no longer be kept quiet": (f"{TRIGGER}; {QUIET}", LOUD, "trigger s.bill: mail"),
    "a trigger's function does something else": (
        TRIGGER, "CREATE OR REPLACE FUNCTION s.mail() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM nextval(''s.mails'') + 1; RETURN NULL; END'", "trigger s.bill: mail",
    ),
    "a value gets another text": (TEXT, "UPDATE s.bill SET paid = 't'", "conversion s.bill"),
    "a sequence gets another column": (
        "", "CREATE FUNCTION s.x() RETURNS void LANGUAGE plpgsql AS 'BEGIN INSERT INTO s.bill (phone) VALUES (nextval(''s.bill_id_seq'')); END'", "sequence s.bill_id_seq: s.bill.phone",
    ),
    "a sequence is no longer told": (
        "", "CREATE FUNCTION s.x() RETURNS void LANGUAGE plpgsql AS 'BEGIN INSERT INTO s.bill (phone) VALUES (other.number() + nextval(''s.none'')); END'", "notes of s.bill",
    ),
}  # fmt: skip
ONLY_EXACT = ("a trigger is dropped", "a sequence is no longer told")
"""In the mode live, less than the plan says may happen."""


@pytest.mark.parametrize("what", BETWEEN)
def test_what_the_plan_says_is_what_is_done(demo_database: DemoDatabase, tmp_path: Path, what: str) -> None:
    before, between, named = BETWEEN[what]
    rig = shaped(demo_database, tmp_path, DDL, {"bill": OWN, "other": OWN})
    try:
        record = rig.run(1)
        rig.execute(*filter(None, [before]), LOST)
        plans = {mode: rig.plan(record, mode=mode) for mode in get_args(RestoreMode) if mode in ("exact", "live")}
        assert all(plan.writes == 1 and not plan.refusals for plan in plans.values())
        rig.execute(between)
        now, calls = rig.everything(), rig.execute_rows("SELECT last_value, is_called FROM s.mails")
        for mode, plan in plans.items():
            if mode == "live" and what in ONLY_EXACT:
                continue
            with pytest.raises(ClinicChanged, match=named):
                rig.restore().apply(rig.source(record), Wish(mode=mode), approved=plan.digest, plan=plan)
        assert (rig.everything(), rig.execute_rows("SELECT last_value, is_called FROM s.mails")) == (now, calls)
        # A new plan says it and is applied.
        rig.bring_back(record)
        assert rig.execute_rows("SELECT count(*) FROM s.bill") == [(20,)]
    finally:
        rig.execute(LOUD)


def test_another_extract_is_another_plan(demo_database: DemoDatabase, tmp_path: Path) -> None:
    rig = shaped(demo_database, tmp_path, DDL, {"bill": OWN, "other": OWN})
    record = rig.run(1)
    rig.execute(LOST)
    plan = rig.plan(record)
    (rig.settings.sql_dir / "extract" / "s.bill.sql").write_text(
        "SELECT b.* FROM s.bill AS b WHERE b.clinic_id IN ({{ clinic_id }}, 0)"
    )
    with pytest.raises(ClinicChanged, match=r"extract s\.bill"):
        rig.restore().apply(rig.source(record), Wish(), approved=plan.digest, plan=plan)


def test_in_the_mode_live_less_may_happen_than_planned(demo_database: DemoDatabase, tmp_path: Path) -> None:
    rig = shaped(demo_database, tmp_path, DDL, {"bill": OWN, "other": OWN})
    record = rig.run(1)
    rig.execute(TRIGGER, LOST, "UPDATE s.bill SET phone = 1 WHERE id = 4")
    plan = rig.plan(record, mode="live")
    rig.execute("UPDATE s.bill SET phone = 2 WHERE id = 4", "DROP TRIGGER mail ON s.bill")
    done = rig.restore().apply(rig.source(record), Wish(mode="live"), approved=plan.digest, plan=plan)
    assert (plan.writes, done.writes) == (2, 1)
