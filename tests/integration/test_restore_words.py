"""The messages of a restore that is refused: who, where, and what to do next."""

from __future__ import annotations

import re
from datetime import UTC
from pathlib import Path

import pytest

from clinic_backups.base.errors import ClinicBackupsError, ObjectNotFound, PermanentError, SettingsError, TransientError
from clinic_backups.catalog.locks import AlreadyRunning
from clinic_backups.restore import trial
from clinic_backups.restore.archives import Archives
from clinic_backups.restore.plan_text import as_lines
from clinic_backups.restore.request import RestoreRequest, Wish, parse
from clinic_backups.stores.configured import Stores
from clinic_backups.stores.file import FileStore
from tests.integration.test_cli import Run, restore_keys, run  # noqa: F401 - a fixture
from tests.integration.test_restore_runner import DAMAGE, Theatre
from tests.postgres_fixtures import DemoDatabase
from tests.shapes import Shaped, shaped

OWN = "clinic_id = {{ clinic_id }}"
DDL = """
    CREATE TABLE s.sort (id int PRIMARY KEY, name text);
    CREATE TABLE s.t (id int PRIMARY KEY, clinic_id int REFERENCES s.clinic, sort_id int REFERENCES s.sort, v text);
    INSERT INTO s.sort VALUES (14, 'a'), (19, 'b'), (3, 'c');
    INSERT INTO s.t VALUES (1, 1, 14, 'x'), (2, 1, 14, 'y'), (3, 1, 19, 'z'), (4, 1, 3, 'u'), (5, 2, 3, 'w')
"""


@pytest.fixture
def rig(demo_database: DemoDatabase, tmp_path: Path) -> Shaped:
    return shaped(demo_database, tmp_path, DDL, {"t": OWN}, lists="s.sort: shared, sorts\n")


@pytest.fixture
def theatre(demo_database: DemoDatabase, tmp_path: Path) -> Theatre:
    return Theatre(demo_database, FileStore(tmp_path / "store"))


def test_missing_rows_of_a_shared_table_are_named_by_their_keys(rig: Shaped) -> None:
    record = rig.run(1)
    rig.execute("DELETE FROM s.t WHERE clinic_id = 1", "DELETE FROM s.sort WHERE id IN (14, 19)")
    (refusal,) = rig.plan(record).refusals
    assert refusal.message.startswith("3 rows of s.t refer to rows of s.sort that do not exist (t_sort_id_fkey).")
    assert "Missing: id 14; 19." in refusal.message
    assert refusal.hint == "Bring the rows of s.sort back first with these keys."


@pytest.mark.parametrize(
    ("denied", "said", "hint"),
    [
        ("INSERT, UPDATE ON s.t", "may not INSERT, UPDATE in s.t", "INSERT, UPDATE ON s.t"),
        ("ALL ON s.t", "may not SELECT in s.t", "SELECT ON s.t"),
        ("USAGE ON SCHEMA s", "permission denied for schema s", "USAGE ON SCHEMA s"),
        ("TEMPORARY ON DATABASE {database}", "temporary tables", "TEMPORARY ON DATABASE {database}"),
    ],
)
def test_a_right_that_is_missing_is_said_with_role_database_and_grant(
    rig: Shaped, denied: str, said: str, hint: str
) -> None:
    record, names = rig.run(1), {"role": rig.database.roles.restorer, "database": rig.database.name}
    rig.execute("DELETE FROM s.t WHERE id = 1", "UPDATE s.t SET v = 'n' WHERE id = 2")
    rig.execute(f"REVOKE {denied} FROM PUBLIC, {{role}}".format(**names))
    try:
        found = [(refusal.message, refusal.hint) for refusal in rig.plan(record).refusals]
    except PermanentError as error:
        found = [(error.message, error.hint)]
    ((message, remedy),) = found
    assert said in message and names["role"] in message
    assert re.search(rf"database {rig.database.name} at \S+:\d+", message)
    assert remedy == f"GRANT {hint} TO {{role}};".format(**names)


def test_a_role_that_policies_limit_is_told_which_right_ends_that(rig: Shaped) -> None:
    record, role = rig.run(1), rig.database.roles.restorer
    rig.execute("DELETE FROM s.t WHERE id = 1", "ALTER TABLE s.t ENABLE ROW LEVEL SECURITY")
    with pytest.raises(PermanentError, match=f"row-level security.* uses the role {role}") as refused:
        rig.plan(record)
    assert str(refused.value.hint).startswith(f"ALTER ROLE {role} BYPASSRLS;")
    rig.execute(f"ALTER ROLE {role} BYPASSRLS")
    try:
        rig.bring_back(record)
    finally:
        rig.execute(f"ALTER ROLE {role} NOBYPASSRLS")  # all tests share the role
    assert rig.execute_rows("SELECT count(*) FROM s.t WHERE clinic_id = 1") == [(4,)]


def test_a_database_without_any_table_of_the_backup_is_named(rig: Shaped) -> None:
    record = rig.run(1)
    rig.execute("ALTER SCHEMA s RENAME TO elsewhere")
    (refusal,) = rig.plan(record).refusals
    assert re.fullmatch(
        rf"database {rig.database.name} at \S+ has none of the 2 tables of the backup\.", refusal.message
    )
    assert "restore_db" in refusal.hint
    for file in list(rig.settings.sql_dir.rglob("*")):
        if file.is_file():
            file.write_text(re.sub(r"\bs\.", "elsewhere.", file.read_text()))
            file.rename(file.with_name(re.sub(r"^s\.", "elsewhere.", file.name)))
    (rig.settings.sql_dir / "drift.txt").write_text("s.t -> elsewhere.t\ns.clinic -> elsewhere.clinic\n")
    rig.execute("DELETE FROM elsewhere.t WHERE clinic_id = 1")
    rig.bring_back(record)
    assert rig.execute_rows("SELECT count(*) FROM elsewhere.t WHERE clinic_id = 1") == [(4,)]


@pytest.mark.parametrize(("given", "meant"), [("t", "s.t"), ("public.t", "s.t"), ("s.clinc", "s.clinic")])
def test_a_table_that_is_misnamed_is_answered_with_the_nearest(rig: Shaped, given: str, meant: str) -> None:
    record = rig.run(1)
    request, _ = parse({"clinic_id": 1, "tables": [given]}, every=[], requested_by="yo", run_id=None, zone=UTC)
    with pytest.raises(SettingsError) as caught:
        rig.plan(record, tables=request.tables)
    assert f"Did you mean {meant}?" in caught.value.hint


def test_a_backup_that_is_in_no_store_names_the_stores_asked(rig: Shaped, tmp_path: Path) -> None:
    record, elsewhere = rig.run(1), FileStore(tmp_path / "elsewhere")
    (tmp_path / "elsewhere").mkdir()
    restore = rig.restore()
    restore.archives = Archives(Stores.of(elsewhere), restore.archives.identities)
    with pytest.raises(ClinicBackupsError) as caught:
        restore.plan(rig.source(record), Wish())
    assert isinstance(caught.value, ObjectNotFound)
    assert elsewhere.url in caught.value.message and record.backup_id in caught.value.message
    assert "CLINIC_BACKUPS_STORE_URL" in caught.value.hint


def test_without_clinic_db_the_plan_says_that_the_target_was_not_compared(rig: Shaped) -> None:
    plan = rig.plan(rig.run(1))
    assert "was not compared with the database that backups are read from" in next(iter(as_lines(plan)))


def test_an_emptied_clinic_hears_of_older_backups_that_hold_rows(theatre: Theatre) -> None:
    full = theatre.back_up()
    # One row stays: a table without any would make the backup suspect, and the older one the one to restore.
    of = "FROM public.inventario_inventario WHERE clinica_id = 1"
    theatre.execute(f"DELETE {of} AND id > (SELECT min(id) {of})")
    theatre.back_up()
    lines = "\n".join(as_lines(theatre.runner().plan(RestoreRequest(clinic_id=1))))
    assert "Nothing differs" in lines
    assert "Older backups hold other rows than this one" in lines and full.backup_id in lines
    assert f"({full.rows_total:,} rows)" in lines


def test_a_restore_beside_another_one_says_where_each_is_seen(theatre: Theatre) -> None:
    theatre.back_up()
    theatre.execute(DAMAGE)
    approved = theatre.approved(RestoreRequest(clinic_id=1))
    with theatre.catalog.lock(1), pytest.raises(AlreadyRunning) as caught:
        theatre.runner().apply(approved)
    assert "runs of clinic_restore" in caught.value.hint


@pytest.mark.parametrize("at_commit", [False, True])
def test_a_connection_that_ends_in_mid_apply_says_what_became_of_the_clinic(rig: Shaped, at_commit: bool) -> None:
    record = rig.run(1)
    rig.execute("DELETE FROM s.t WHERE id = 1")
    plan, ends = (
        rig.plan(record),
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()",
    )

    def end(*arguments: object) -> None:
        rig.execute_rows(f"{ends} AND datname = current_database() AND application_name = 'clinic-backups'")

    restore = rig.restore()
    when = {"on_commit": end} if at_commit else {"save": end}
    with pytest.raises(TransientError) as caught:
        restore.apply(rig.source(record), Wish(), approved=plan.digest, plan=plan, **when)
    if at_commit:
        assert "it is not known whether the restore was committed" in caught.value.message
        assert "if there is nothing to write, it was done" in caught.value.hint
        assert "pg_xact_status" in caught.value.hint
    else:
        assert "was not committed: nothing was changed" in caught.value.message


def test_a_refused_plan_exits_with_1_in_every_mode_and_says_refused(
    run: Run,  # noqa: F811
    demo_database: DemoDatabase,
    tmp_path: Path,
) -> None:
    identity = tmp_path / "identity"
    keys = restore_keys(run, identity, demo_database)
    run("catalog", "migrate")
    run("store", "init")
    assert run("backup", "--clinic", "1", **keys).code == 0
    (backup,) = run("list", "--json").json()
    Shaped(demo_database, FileStore(tmp_path / "store")).execute(
        "ALTER TABLE public.inventario_inventario RENAME COLUMN nombre TO otro"
    )
    words = ("restore", "--clinic", "1", "--identity", str(identity))
    for mode in ("exact", "missing", "live"):
        for more in (("--plan",), ("--yes",), ("--plan", "--archive", backup["key"])):
            done = run(*words, "--mode", mode, *more, **keys)
            assert done.code == 1
            said = done.out + done.err
            assert "columns that public.inventario_inventario lacks now: nombre" in " ".join(said.split())
            assert "Nothing differs" not in said
    assert run(*words, "--plan", "--json", **keys).code == 1


KEYLESS = (
    "CREATE TABLE s.t (a int, clinic_id int NOT NULL REFERENCES s.clinic, v text); INSERT INTO s.t SELECT {} AS k;"
)
DEFAULTED = """
    CREATE TABLE s.doctor (id int PRIMARY KEY, clinic_id int REFERENCES s.clinic);
    INSERT INTO s.doctor VALUES (0, NULL), (1, 1), (2, 2);
    CREATE TABLE s.t (id int PRIMARY KEY, doctor_id int DEFAULT 0 REFERENCES s.doctor ON DELETE SET DEFAULT, v text);
    INSERT INTO s.t VALUES (1, 1, 'a'), (2, 2, 'b')
"""
SINCE = {
    "twice": (
        KEYLESS.format("k % 3, 1 + k % 2, 'v' FROM generate_series(1, 12)"),
        "DELETE FROM s.t AS x USING s.t AS y WHERE x.ctid > y.ctid AND x.a = y.a AND x.clinic_id = y.clinic_id;"
        " ALTER TABLE s.t ALTER a SET NOT NULL; CREATE UNIQUE INDEX ON s.t (a, clinic_id)",
        "6 rows of the backup have the same a, clinic_id in s.t as another row of it",
        "Drop the unique index on (a, clinic_id)",
    ),
    "empty": (
        KEYLESS.format("nullif(k, 2), 1 + k % 2, 'v' FROM generate_series(1, 6)"),
        "UPDATE s.t SET a = 2 WHERE a IS NULL; ALTER TABLE s.t ALTER a SET NOT NULL; ALTER TABLE s.t ADD UNIQUE (a);"
        " UPDATE s.t SET v = 'x' WHERE a = 4",
        "Column a of s.t may no longer be NULL, but is in 1 row",
        "`s.t: a = '…'`",
    ),
    "default": (
        DEFAULTED,
        "DELETE FROM s.doctor WHERE id = 1",
        "have keys in s.t that belong to rows outside of this clinic",
        "ON DELETE SET DEFAULT of t_doctor_id_fkey",
    ),
}


@pytest.mark.parametrize("name", SINCE)
def test_what_a_key_does_not_take_any_more_is_said_with_its_remedy(
    demo_database: DemoDatabase, tmp_path: Path, name: str
) -> None:
    ddl, since, said, remedy = SINCE[name]
    own = "doctor_id IN (SELECT id FROM s.doctor WHERE clinic_id = {{ clinic_id }})"
    extracts = {"doctor": OWN, "t": own} if "doctor" in ddl else {"t": OWN}
    rig = shaped(demo_database, tmp_path, ddl, extracts, owner=True)
    rig.allow_gaps = True
    record = rig.run(1)
    rig.execute(since)
    (refusal,) = rig.plan(record).refusals
    assert said in refusal.message
    assert remedy in refusal.hint
    if name == "empty":  # what is proposed is enough
        (tmp_path / "sql" / "drift.txt").write_text("s.t: a = '2'\n")
        rig.bring_back(record)
        assert rig.execute_rows("SELECT count(*) FROM s.t WHERE v = 'v'") == [(6,)]


FIRING = {
    "updated_at": (
        "CREATE FUNCTION s.f() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN NEW.v = 'touched'; RETURN NEW; END$$;"
        "CREATE TRIGGER \"Touch\" BEFORE INSERT OR UPDATE ON s.t FOR EACH ROW EXECUTE FUNCTION s.f()",
        "s.t would not be what the backup holds", "s.t",
    ),
    "an audit": (
        "CREATE TABLE s.audit (id int); GRANT ALL ON s.audit TO PUBLIC;"
        "CREATE FUNCTION s.f() RETURNS trigger LANGUAGE plpgsql AS"
        " $$BEGIN INSERT INTO s.audit VALUES (NEW.id); RETURN NULL; END$$;"
        "CREATE TRIGGER \"Touch\" AFTER INSERT OR UPDATE ON s.t FOR EACH ROW EXECUTE FUNCTION s.f()",
        "s.audit: insert touched 2 rows, but the plan has 0", "s.t",
    ),
    "an audit that the role may not write": (
        "CREATE TABLE s.audit (id int);"
        "CREATE FUNCTION s.f() RETURNS trigger LANGUAGE plpgsql AS"
        " $$BEGIN INSERT INTO s.audit VALUES (NEW.id); RETURN NULL; END$$;"
        "CREATE TRIGGER \"Touch\" AFTER INSERT OR UPDATE ON s.t FOR EACH ROW EXECUTE FUNCTION s.f()",
        "SQLSTATE 42501", "s.t",
    ),
    "a column that the backup lacks": (
        "ALTER TABLE s.t ADD at timestamptz DEFAULT '2020-01-01';"
        "CREATE FUNCTION s.f() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN NEW.at = now(); RETURN NEW; END$$;"
        "CREATE TRIGGER \"Touch\" BEFORE INSERT OR UPDATE ON s.t FOR EACH ROW EXECUTE FUNCTION s.f()",
        "would not keep the values of columns that the backup does not have", "s.t",
    ),
    "one that refuses": (
        "CREATE FUNCTION s.f() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN RAISE 'closed'; END$$;"
        "CREATE TRIGGER \"Touch\" BEFORE INSERT OR UPDATE ON s.t FOR EACH ROW EXECUTE FUNCTION s.f()",
        "SQLSTATE P0001", "s.t",
    ),
    "one that owning alone ends": (
        "CREATE FUNCTION s.f() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN NEW.v = 'touched'; RETURN NEW; END$$;"
        "CREATE TRIGGER \"Touch\" BEFORE INSERT OR UPDATE ON s.t FOR EACH ROW EXECUTE FUNCTION s.f();"
        "ALTER TABLE s.t ENABLE ALWAYS TRIGGER \"Touch\"",
        "s.t would not be what the backup holds", "s.t",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", FIRING)
def test_a_trigger_that_fires_is_named_with_the_remedy_of_check(rig: Shaped, case: str) -> None:
    statements, said, table = FIRING[case]
    record = rig.run(1)
    rig.execute("DELETE FROM s.t WHERE id = 1", "UPDATE s.t SET v = 'damaged' WHERE id = 2", statements)
    (refusal,) = rig.plan(record).refusals
    assert said in refusal.message
    assert f'the role of restore_db may not turn them off: "Touch" of {table}.' in refusal.message
    (finding,) = [each for each in trial.findings(rig.settings, rig.restore().database) if "Touch" in each.message]
    assert finding.hint and finding.hint in refusal.hint
    assert finding.hint.startswith("ALTER TABLE s.t OWNER TO" if "owning" in case else "GRANT SET ON PARAMETER")


def test_a_refusal_that_no_trigger_causes_names_none(rig: Shaped) -> None:
    rig.execute(
        "CREATE FUNCTION s.f() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN RETURN NEW; END$$",
        "CREATE TRIGGER touch BEFORE INSERT ON s.t FOR EACH ROW EXECUTE FUNCTION s.f()",
    )
    record = rig.run(1)
    rig.execute("DELETE FROM s.t WHERE id = 1", "ALTER TABLE s.t ADD CHECK (v <> 'x')")
    (refusal,) = rig.plan(record).refusals
    assert "touch" not in refusal.message and "session_replication_role" not in refusal.hint
