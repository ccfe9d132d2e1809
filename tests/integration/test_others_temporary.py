"""Temporary tables, of other sessions or of the restore itself, are no part of what a backup or a plan looks at."""

# ruff: noqa: E501 - a case reads best in one line

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import pytest

from tests.integration.test_owners_code import DDL, damage, owned, tried
from tests.integration.test_restore_outside import OWN
from tests.postgres_fixtures import DemoDatabase
from tests.shapes import shaped

NUMBERED = (
    "CREATE SEQUENCE s.q; CREATE TABLE s.t (id int PRIMARY KEY DEFAULT nextval('s.q'), clinic_id int NOT NULL REFERENCES s.clinic, no {type});"
    " INSERT INTO s.t (clinic_id) SELECT 1 + k % 2 FROM generate_series(1, 6) AS k"
)


@pytest.mark.parametrize("key", [True, False])
def test_a_domain_with_a_sequence_gives_each_plan_the_same_digest(
    demo_database: DemoDatabase, tmp_path: Path, key: bool
) -> None:
    domain = "CREATE SEQUENCE s.q; CREATE DOMAIN s.d AS int DEFAULT nextval('s.q');"
    columns = "id s.d PRIMARY KEY" if key else "id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, no s.d"
    ddl = f"{domain} CREATE TABLE s.t ({columns}, clinic_id int NOT NULL REFERENCES s.clinic); INSERT INTO s.t (clinic_id) SELECT 1 + k % 2 FROM generate_series(1, 6) AS k"
    rig = shaped(demo_database, tmp_path, ddl, {"t": OWN}, owner=True)
    record, before = rig.run(1), rig.everything()
    rig.execute("DELETE FROM s.t WHERE clinic_id = 1")
    plan = rig.plan(record)
    assert plan.digest == rig.plan(record).digest
    assert tried(rig, record, plan, "exact") == ""
    assert rig.everything() == before


@pytest.mark.parametrize("owner", [True, False])
@pytest.mark.parametrize(
    "made",
    [
        "CREATE TEMPORARY TABLE import (LIKE s.t INCLUDING DEFAULTS)",
        "CREATE TEMPORARY VIEW next AS SELECT nextval('s.q') AS n, id FROM s.t",
        "CREATE TEMPORARY TABLE heir () INHERITS (s.t)",
        "CREATE TEMPORARY TABLE heir (more int DEFAULT nextval('s.q')) INHERITS (s.t)",
    ],
)
def test_what_another_session_makes_for_itself_disturbs_no_restore(
    demo_database: DemoDatabase, tmp_path: Path, made: str, owner: bool
) -> None:
    rig = shaped(demo_database, tmp_path, NUMBERED.format(type="text"), {"t": OWN}, owner=owner)
    record, before = rig.run(1), rig.everything()
    rig.execute("DELETE FROM s.t WHERE clinic_id = 1")
    plan = rig.plan(record)
    assert plan.refusals == ()
    with closing(demo_database.connect()) as other, other.cursor() as cursor:
        other.autocommit = True
        cursor.execute(made)
        assert rig.plan(record).digest == plan.digest
        assert tried(rig, record, plan, "exact") == ""
        assert rig.run(1).state == "completed"
    assert rig.everything() == before


# Both run their code at COMMIT, after every question.
LATE = {
    "a deferred trigger": "CREATE TEMPORARY TABLE IF NOT EXISTS bomb (n int) ON COMMIT DROP; DROP TRIGGER IF EXISTS late ON bomb;"
    " CREATE CONSTRAINT TRIGGER late AFTER INSERT ON bomb DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION h.boom();"
    " SET CONSTRAINTS ALL DEFERRED; INSERT INTO bomb VALUES (1)",
    "a held cursor": "IF NOT EXISTS (SELECT FROM pg_cursors WHERE name = 'bomb') THEN EXECUTE 'DECLARE bomb CURSOR WITH HOLD FOR SELECT h.takes()'; END IF",
}


@pytest.mark.parametrize("mode", ["exact", "live"])
@pytest.mark.parametrize("how", LATE)
def test_nothing_is_written_at_the_commit(demo_database: DemoDatabase, tmp_path: Path, how: str, mode: str) -> None:
    more = "; CREATE TABLE s.go (id int); GRANT SELECT ON s.go TO PUBLIC"
    rig = shaped(demo_database, tmp_path, DDL + more, {"bill": OWN, "line": OWN}, lists="s.go: a switch\n")
    role, record = owned(rig, "s.line"), rig.run(1)
    takes = "UPDATE s.bill SET no = 'taken' WHERE clinic_id = 2"
    restored = "EXISTS (SELECT FROM s.go) AND EXISTS (SELECT FROM s.bill WHERE id = 4 AND no = 'F4')"
    rig.execute(f"""
        SET ROLE {role};
        CREATE FUNCTION h.takes() RETURNS int LANGUAGE plpgsql AS $f$BEGIN {takes}; RETURN 1; END$f$;
        CREATE FUNCTION h.boom() RETURNS trigger LANGUAGE plpgsql AS $f$BEGIN PERFORM h.takes(); RETURN NULL; END$f$;
        CREATE FUNCTION h.does() RETURNS void LANGUAGE plpgsql AS $f$BEGIN
            IF {restored} AND current_query() ~ 'COPY [(]|NOT EXISTS' THEN {LATE[how]}; END IF; END$f$;
        CREATE FUNCTION h.is(int) RETURNS boolean IMMUTABLE LANGUAGE plpgsql AS 'BEGIN RETURN true; END';
        CREATE INDEX planned ON s.line (id) WHERE h.is(1);
        CREATE OR REPLACE FUNCTION h.is(int) RETURNS boolean IMMUTABLE LANGUAGE plpgsql AS 'BEGIN PERFORM h.does(); RETURN true; END';
        RESET ROLE""")
    damage(rig, 100)
    plan = rig.plan(record, mode=mode)
    assert plan.refusals == ()
    rig.execute("INSERT INTO s.go VALUES (1)")
    before = rig.everything()
    said = tried(rig, record, plan, mode)  # type: ignore[arg-type]
    assert rig.execute_rows("SELECT count(*) FROM s.bill WHERE no = 'taken'") == [(0,)]
    assert "read-only" in said or "Nothing was changed" in said
    assert rig.everything() == before
