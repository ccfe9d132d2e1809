"""What could never be restored is reported before the first loss, by writing one row of each table on trial."""

from __future__ import annotations

from pathlib import Path

import pytest

from clinic_backups.base import connections
from clinic_backups.base.findings import Finding, Report
from clinic_backups.restore.trial import try_tables
from tests.postgres_fixtures import DemoDatabase
from tests.shapes import Shaped, shaped

DDL = """
    CREATE SEQUENCE s.numbers;
    CREATE TABLE s.t (id int PRIMARY KEY DEFAULT nextval('s.numbers'), clinic_id int REFERENCES s.clinic,
                      always int GENERATED ALWAYS AS IDENTITY, twice int GENERATED ALWAYS AS (id * 2) STORED);
    CREATE TABLE s.child (id int PRIMARY KEY, t_id int NOT NULL REFERENCES s.t ON DELETE CASCADE);
    INSERT INTO s.t (clinic_id) VALUES (2), (2); INSERT INTO s.child VALUES (1, 1)
"""
EXTRACTS = {
    "t": "clinic_id = {{ clinic_id }}",
    "child": "t_id IN (SELECT id FROM s.t WHERE clinic_id = {{ clinic_id }})",
}
REFUSES = """
    CREATE FUNCTION s.no() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN RAISE 'no %', OLD.id; END$$;
    CREATE TRIGGER no BEFORE UPDATE ON s.t FOR EACH ROW EXECUTE FUNCTION s.no()
"""


def trial(rig: Shaped, uri: str = "") -> list[Finding]:
    report = Report()
    try_tables(rig.settings, connections.parse("restore_db", uri or rig.database.restorer_uri), report)
    return report.findings


def test_a_role_that_may_write_all_is_told_so_and_nothing_changes(demo_database: DemoDatabase, tmp_path: Path) -> None:
    rig = shaped(demo_database, tmp_path, DDL, EXTRACTS)
    before = rig.everything()
    (finding,) = trial(rig)
    assert finding.level == "ok" and "One row of each of 3 tables" in finding.message
    assert rig.everything() == before


def test_a_default_that_hides_its_sequence_is_named(demo_database: DemoDatabase, tmp_path: Path) -> None:
    hidden = """;
        CREATE FUNCTION s.f() RETURNS bigint LANGUAGE plpgsql AS $$
            DECLARE n bigint;
            BEGIN
                EXECUTE 'SELECT next' || 'val(' || quote_literal(reverse('srebmun.s')) || ')' INTO n; RETURN n;
            END $$;
        ALTER TABLE s.t ALTER id SET DEFAULT s.f()
    """
    rig = shaped(demo_database, tmp_path, DDL + hidden, EXTRACTS)
    unused, finding = sorted((each for each in trial(rig) if each.level == "warning"), key=lambda each: each.message)
    assert "s.t.id gets numbers by the default, which calls s.f" in finding.message
    assert "in standard SQL" in finding.hint
    assert "which column gets the numbers of s.numbers" in unused.message


HOOKS = {
    "VACUUM s.t": "VACUUM cannot run inside a transaction block",
    "CREATE INDEX CONCURRENTLY n ON s.t (id)": "CREATE INDEX CONCURRENTLY cannot run inside",
    "UPDATE s.state SET v = {{ clinic_id }}; COMMIT": "has the statement COMMIT",
    "/* x */ BEGIN; UPDATE s.state SET v = 1; END": "has the statement END",
    "UPDATE s.state SET v = 1; ROLLBACK AND CHAIN": "has the statement ROLLBACK",
    "UPDATE s.state SET v = 1; PREPARE TRANSACTION 'x'": "has the statement PREPARE TRANSACTION",
    "DO $$ BEGIN IF true THEN UPDATE s.state SET v = 1; END IF; END $$": "",
    "DO 'BEGIN COMMIT; END'": "SQLSTATE 2D000",
    "UPDATE s.state SET v = 1 WHERE 'a; commit' <> ''; /* ** ; commit */": "",
    "SAVEPOINT a; UPDATE s.state SET v = 1; ROLLBACK TO SAVEPOINT a": "",
    "CREATE FUNCTION pg_temp.f() RETURNS int BEGIN ATOMIC SELECT 1; END; UPDATE s.state SET v = 1": "",
    "UPDATE s.states SET v = 1": 'relation "s.states" does not exist',
    "DELETE FROM s.hidden": "permission denied for table hidden",
    "UPDATE s.state SET v = {{ clinic_id }}": "",
}


@pytest.mark.parametrize("name", ["before_restore.sql", "after_restore.sql"])
@pytest.mark.parametrize(("statement", "said"), HOOKS.items())
def test_a_hook_is_tried_and_rolled_back(
    demo_database: DemoDatabase, tmp_path: Path, name: str, statement: str, said: str
) -> None:
    rig = shaped(
        demo_database, tmp_path, f"{DDL}; CREATE TABLE s.state (v int); INSERT INTO s.state VALUES (0)", EXTRACTS
    )
    rig.execute("CREATE TABLE s.hidden (id int)")
    (tmp_path / "sql" / name).write_text(statement)
    found = [finding for finding in trial(rig) if finding.level != "ok"]
    assert len(found) == bool(said)
    assert all(said in finding.message and name in finding.message for finding in found)
    assert rig.execute_rows("SELECT v FROM s.state") == [(0,)]


SHUT = "INSERT INTO s.state VALUES ({{ clinic_id }})"
OPEN = "SELECT 1 / count(*) FROM s.state WHERE v = {{ clinic_id }}; DELETE FROM s.state"


def test_the_second_hook_is_tried_after_the_first_one(demo_database: DemoDatabase, tmp_path: Path) -> None:
    rig = shaped(demo_database, tmp_path, f"{DDL}; CREATE TABLE s.state (v int PRIMARY KEY)", EXTRACTS)
    (tmp_path / "sql" / "after_restore.sql").write_text(OPEN)
    (alone,) = [finding for finding in trial(rig) if finding.level != "ok"]
    assert "DivisionByZero" in alone.message and "after_restore.sql" in alone.message
    (tmp_path / "sql" / "before_restore.sql").write_text(f"{SHUT}; SET LOCAL search_path = ''")
    assert [finding for finding in trial(rig) if finding.level != "ok"] == []
    assert rig.execute_rows("SELECT v FROM s.state") == []


@pytest.mark.parametrize(
    ("spoiled", "said", "remedy"),
    [
        ("REVOKE DELETE ON s.t FROM {role}", "may not DELETE in s.t", "GRANT DELETE ON s.t TO"),
        ("REVOKE INSERT, UPDATE ON s.child FROM {role}", "may not INSERT, UPDATE in s.child", "GRANT INSERT, UPDATE"),
        ("REVOKE UPDATE ON s.numbers FROM {role}", "may not set s.numbers", "GRANT SELECT, UPDATE ON SEQUENCE"),
        (REFUSES, "writing one row of s.t for trial", ""),
        ("CREATE RULE quiet AS ON DELETE TO s.child DO INSTEAD NOTHING;"
         "CREATE RULE still AS ON UPDATE TO s.child DO INSTEAD NOTHING",
         "The rule quiet of s.child changes what is written", "DISABLE RULE quiet"),
        ("CREATE RULE log AS ON UPDATE TO s.child DO ALSO DELETE FROM s.t WHERE false",
         "The rule log of s.child changes what is written", "DISABLE RULE log"),
        ("ALTER TABLE s.t ENABLE ROW LEVEL SECURITY; ALTER TABLE s.t FORCE ROW LEVEL SECURITY", "s.t", ""),
    ],
)  # fmt: skip
def test_what_could_never_be_restored_is_named_with_its_remedy(
    demo_database: DemoDatabase, tmp_path: Path, spoiled: str, said: str, remedy: str
) -> None:
    rig = shaped(demo_database, tmp_path, DDL, EXTRACTS)
    rig.execute(spoiled.format(role=demo_database.roles.restorer) if "{role}" in spoiled else spoiled)
    before = rig.everything()
    errors = [finding for finding in trial(rig) if finding.level == "error"]
    assert any(said in finding.message and remedy in finding.hint for finding in errors)
    assert rig.everything() == before


def test_triggers_that_could_not_be_turned_off_are_a_warning(demo_database: DemoDatabase, tmp_path: Path) -> None:
    rig = shaped(demo_database, tmp_path, DDL + ";" + REFUSES, EXTRACTS)
    assert any("may not turn them off (no)" in finding.message for finding in trial(rig))
    assert not any("turn them off" in f.message for f in trial(rig, rig.database.postgres.uri(rig.database.name)))


@pytest.mark.parametrize(
    ("rule", "said"),
    [
        ("CREATE RULE log AS ON UPDATE TO s.child DO ALSO DELETE FROM s.t", "One row of each of 3 tables"),
        ("CREATE RULE quiet AS ON DELETE TO s.child DO INSTEAD NOTHING", "One row of each of 3 tables"),
        ("CREATE RULE log AS ON UPDATE TO s.child DO ALSO DELETE FROM s.t; ALTER TABLE s.child ENABLE ALWAYS RULE log",
         "Nothing was written to s.child: a restore turns off rules"),
    ],
    ids=["also", "instead", "always"],
)  # fmt: skip
def test_a_rule_that_a_restore_turns_off_is_no_error(
    demo_database: DemoDatabase, tmp_path: Path, rule: str, said: str
) -> None:
    rig = shaped(demo_database, tmp_path, f"{DDL};{rule}", EXTRACTS, owner=True)
    record, before = rig.run(2), rig.everything()
    (finding,) = trial(rig, rig.database.postgres.uri(rig.database.name))
    assert finding.level == "ok" and said in finding.message
    assert rig.everything() == before
    rig.execute("INSERT INTO s.child VALUES (9, 1)")
    rig.bring_back(record)
    assert rig.everything() == before


BAG = """
    CREATE TABLE s.bag (clinic_id int NOT NULL REFERENCES s.clinic, no text);
    INSERT INTO s.bag SELECT 1 + k % 2, 'F' || k FROM generate_series(1, 6) AS k
"""
OWN = "clinic_id = {{ clinic_id }}"
NEVER = """
    CREATE FUNCTION s.never() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN RAISE 'never'; END$$;
    CREATE TRIGGER never BEFORE {} ON {} FOR EACH ROW EXECUTE FUNCTION s.never()
"""
DOCS = """
    CREATE TABLE s.doc (id int PRIMARY KEY, clinic_id int NOT NULL REFERENCES s.clinic);
    CREATE TABLE s.page (id int PRIMARY KEY, clinic_id int NOT NULL REFERENCES s.clinic,
                         doc int REFERENCES s.doc ON DELETE CASCADE);
    INSERT INTO s.doc SELECT k, 1 + k % 2 FROM generate_series(1, 6) AS k;
    INSERT INTO s.page SELECT k, 1 + k % 2, k FROM generate_series(1, {pages}) AS k
"""


@pytest.mark.parametrize(
    "spoiled",
    [
        "ALTER TABLE s.bag ADD CONSTRAINT odd CHECK (clinic_id > 9) NOT VALID",
        NEVER.format("INSERT", "s.bag"),
        NEVER.format("DELETE", "s.bag"),
    ],
)
def test_a_row_without_a_key_is_written_for_trial_too(
    demo_database: DemoDatabase, tmp_path: Path, spoiled: str
) -> None:
    rig = shaped(demo_database, tmp_path, BAG, {"bag": OWN})
    (finding,) = trial(rig)
    assert finding.level == "ok"
    assert "One row of s.clinic was deleted, changed and inserted" in finding.message
    assert "Where rows have no key, a row was only deleted and inserted, as a restore does: s.bag." in finding.message
    rig.execute(spoiled)
    before = rig.everything()
    assert any("writing one row of s.bag for trial" in found.message for found in trial(rig) if found.level == "error")
    assert rig.everything() == before


@pytest.mark.parametrize("event", ["INSERT", "DELETE"])
def test_a_row_that_a_cascade_would_follow_is_deleted_and_inserted_if_nothing_refers_to_it(
    demo_database: DemoDatabase, tmp_path: Path, event: str
) -> None:
    rig = shaped(demo_database, tmp_path, DOCS.format(pages=3), {"doc": OWN, "page": OWN})
    (finding,) = trial(rig)
    assert "each of 3 tables was deleted, changed and inserted" in finding.message
    rig.execute(NEVER.format(event, "s.doc"))
    assert any("writing one row of s.doc for trial" in found.message for found in trial(rig) if found.level == "error")


def test_a_table_that_was_only_changed_for_trial_or_not_written_is_named(
    demo_database: DemoDatabase, tmp_path: Path
) -> None:
    rig = shaped(
        demo_database,
        tmp_path,
        f"{DOCS.format(pages=6)}; CREATE TABLE s.void (id int PRIMARY KEY, clinic_id int REFERENCES s.clinic)",
        {"doc": OWN, "page": OWN, "void": OWN},
    )
    before = rig.everything()
    (finding,) = trial(rig)
    assert finding.message.startswith("One row of each of 2 tables was deleted, changed and inserted")
    assert "a row was only changed: s.doc." in finding.message
    assert "Nothing was written to s.void" in finding.message
    (finding,) = trial(rig, rig.database.postgres.uri(rig.database.name))  # may keep foreign keys from acting
    assert finding.message.startswith("One row of each of 3 tables") and "Only changed" not in finding.message
    rig.execute(NEVER.format("INSERT", "s.doc"), "ALTER TABLE s.doc ENABLE ALWAYS TRIGGER never")
    found = trial(rig, rig.database.postgres.uri(rig.database.name))
    assert any("writing one row of s.doc for trial" in each.message for each in found if each.level == "error")
    assert rig.everything() == before


def test_a_published_table_without_a_replica_identity_is_named_with_the_remedy(
    demo_database: DemoDatabase, tmp_path: Path
) -> None:
    rig = shaped(demo_database, tmp_path, f"{BAG}; CREATE PUBLICATION everything FOR ALL TABLES", {"bag": OWN})
    (finding,) = (found for found in trial(rig) if found.level == "error")
    assert "s.bag has no replica identity, and the publication everything" in finding.message
    assert "ALTER TABLE s.bag REPLICA IDENTITY FULL;" in finding.hint and "SQLSTATE" not in finding.message
    rig.execute("ALTER TABLE s.bag REPLICA IDENTITY FULL")
    assert [found.level for found in trial(rig)] == ["ok"]
