"""Code of somebody who may not write all rows of the clinics' tables is not run: not by a backup, plan, restore or check.

Each case's code raises an error, so whoever runs it fails with another message than the one that is expected.
"""

# ruff: noqa: E501 - a case reads best in one line

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Any

import pyrage
import pytest

from clinic_backups.backup import preflight
from clinic_backups.base import connections
from clinic_backups.base.clock import machine_now
from clinic_backups.base.errors import ClinicBackupsError, PermanentError
from clinic_backups.base.findings import Finding
from clinic_backups.restore import trial as restore_trial
from clinic_backups.restore.archives import Archives
from clinic_backups.restore.clinic_restore import ClinicRestore
from clinic_backups.restore.into_schema import IntoRestore
from clinic_backups.restore.request import Wish
from clinic_backups.restore.writing import shut_out, write_and_prove
from clinic_backups.stores.configured import Stores
from clinic_backups.tenant import people
from clinic_backups.tenant.extract import SqlFolder
from clinic_backups.tenant.strangers import strangers_code
from clinic_backups.tenant.tenant_db import Snapshot
from tests.integration.test_owners_code import DDL
from tests.integration.test_restore_outside import OWN
from tests.integration.test_restore_whose import VISIT
from tests.integration.test_trial import trial
from tests.postgres_fixtures import DemoDatabase
from tests.shapes import Shaped, grants, shaped

RAISES = "LANGUAGE plpgsql AS $f$BEGIN RAISE 'it ran'; END$f$"
FUNCTION = "CREATE FUNCTION h.fits(int) RETURNS boolean IMMUTABLE LANGUAGE plpgsql AS 'BEGIN RETURN true; END'"
LATER = f"CREATE OR REPLACE FUNCTION h.fits(int) RETURNS boolean IMMUTABLE {RAISES}"
JOINED = "SELECT t.* FROM s.line AS t JOIN h.{} AS j ON j.id = 1 WHERE t.clinic_id = {{{{ clinic_id }}}}"
INDEX = f"{FUNCTION}; CREATE INDEX i ON {{}} (id) WHERE h.fits(1); {LATER}"
BESIDE = (
    "a table that refers to them",
    "an heir of a table that refers to them",
    "a key of a partition that is written",
)
PARTED = ("a partition", "a condition of a partition", "a key of partitions")
WHOLE = "CREATE TABLE s.whole (id int, clinic_id int) PARTITION BY LIST (clinic_id); CREATE TABLE s.part PARTITION OF s.whole DEFAULT"
# What the stranger makes, what the tables' owner makes with it, and what is named.
READING: dict[str, tuple[str, str, str]] = {
    "a table without any code": ("", "ALTER TABLE s.line OWNER TO {role}", "The table s.line belongs"),
    "a table with an index": (FUNCTION, "ALTER TABLE s.line OWNER TO {role}; CREATE INDEX i ON s.line (id) WHERE h.fits(1);" + LATER, "The table s.line belongs"),
    "a function in an index of another table": (FUNCTION, "CREATE INDEX i ON s.line (id) WHERE h.fits(1);" + LATER, "The function h.fits(integer) belongs"),
    "an operator in an index": (f"{FUNCTION}; CREATE FUNCTION h.eq(int, int) RETURNS boolean IMMUTABLE LANGUAGE plpgsql AS 'BEGIN RETURN true; END'; CREATE OPERATOR h.=== (LEFTARG = int, RIGHTARG = int, FUNCTION = h.eq)", f"CREATE INDEX i ON s.line (id) WHERE 1 OPERATOR(h.===) 1; CREATE OR REPLACE FUNCTION h.eq(int, int) RETURNS boolean IMMUTABLE {RAISES}", "The function h.eq(integer,integer) belongs"),
    "a joined table": ("CREATE TABLE h.j (id int); INSERT INTO h.j VALUES (1); GRANT SELECT ON h.j TO PUBLIC;" + INDEX.format("h.j"), "", "The table h.j belongs"),
    "a joined view": ("CREATE VIEW h.j AS SELECT 1 AS id; GRANT SELECT ON h.j TO PUBLIC", "", "The view h.j belongs"),
    "a view in the body of an index's function": ("CREATE VIEW h.seen AS SELECT 1 AS id; GRANT SELECT ON h.seen TO PUBLIC", "CREATE FUNCTION s.sees(int) RETURNS boolean IMMUTABLE LANGUAGE sql BEGIN ATOMIC SELECT EXISTS (SELECT FROM h.seen WHERE id > 5); END; CREATE INDEX i ON s.line (id) WHERE s.sees(1)", "The view h.seen belongs"),
    "a partition": ("", "CREATE TABLE s.whole (id int, clinic_id int) PARTITION BY LIST (clinic_id); CREATE TABLE s.part PARTITION OF s.whole FOR VALUES IN (1, 2); ALTER TABLE s.part OWNER TO {role}", "The table s.part belongs"),
    "statistics": (FUNCTION, "CREATE STATISTICS s.st ON (h.fits(1)), id FROM s.line;" + LATER, "The function h.fits(integer) belongs"),
    "a condition of a partition": (FUNCTION, "CREATE TABLE s.whole (id int, clinic_id int, CHECK (h.fits(1))) PARTITION BY LIST (clinic_id); CREATE TABLE s.part PARTITION OF s.whole DEFAULT;" + LATER, "The function h.fits(integer) belongs"),
    "a key of partitions": ("CREATE FUNCTION h.fits(int) RETURNS int IMMUTABLE LANGUAGE plpgsql AS 'BEGIN RETURN $1; END'", "CREATE TABLE s.whole (id int, clinic_id int) PARTITION BY LIST (h.fits(clinic_id)); CREATE TABLE s.part PARTITION OF s.whole DEFAULT", "The function h.fits(integer) belongs"),
    "the negator of an operator": ("CREATE FUNCTION h.ne(int, int) RETURNS boolean IMMUTABLE LANGUAGE plpgsql AS 'BEGIN RETURN true; END'; CREATE OPERATOR h.=== (LEFTARG = int, RIGHTARG = int, FUNCTION = pg_catalog.int4eq, NEGATOR = OPERATOR(h.!==)); CREATE OPERATOR h.!== (LEFTARG = int, RIGHTARG = int, FUNCTION = h.ne, NEGATOR = OPERATOR(h.===))", f"CREATE INDEX i ON s.line (id) WHERE NOT (1 OPERATOR(h.===) 2); CREATE OR REPLACE FUNCTION h.ne(int, int) RETURNS boolean IMMUTABLE {RAISES}", "The function h.ne(integer,integer) belongs"),
    "a table in the body of an index's function": (f"CREATE TABLE h.t (id int); GRANT SELECT ON h.t TO PUBLIC; {FUNCTION}; CREATE INDEX i ON h.t (id) WHERE h.fits(1)", "CREATE FUNCTION s.sees(int) RETURNS boolean IMMUTABLE LANGUAGE sql BEGIN ATOMIC SELECT NOT EXISTS (SELECT FROM h.t WHERE id > 5); END; CREATE INDEX i ON s.line (id) WHERE s.sees(1);" + LATER, "The table h.t belongs"),
    "an enum of a column": ("CREATE TYPE h.mood AS ENUM ('a')", "ALTER TABLE s.line ADD mood h.mood", "The type h.mood belongs"),
    "an enum in an array": ("CREATE TYPE h.mood AS ENUM ('a')", "ALTER TABLE s.line ADD mood h.mood[]", "The type h.mood belongs"),
    "an enum below a domain": ("CREATE TYPE h.mood AS ENUM ('a')", "CREATE DOMAIN s.mood AS h.mood; ALTER TABLE s.line ADD mood s.mood", "The type h.mood belongs"),
    "a composite type of a column": ("CREATE TYPE h.pair AS (a int)", "ALTER TABLE s.line ADD pair h.pair", "The type h.pair belongs"),
    "an enum in a composite type": ("CREATE TYPE h.mood AS ENUM ('a')", "CREATE TYPE s.pair AS (a h.mood); ALTER TABLE s.line ADD pair s.pair", "The type h.mood belongs"),
    "a range of a column": ("CREATE TYPE h.span AS RANGE (SUBTYPE = int)", "ALTER TABLE s.line ADD span h.span", "The type h.span belongs"),
    "a table's row as a column": ("CREATE TABLE h.sheet (a int)", "ALTER TABLE s.line ADD sheet h.sheet", "The table h.sheet belongs"),
    "a table in a policy": ("CREATE TABLE h.t (id int); GRANT SELECT ON h.t TO PUBLIC;" + INDEX.format("h.t"), "CREATE POLICY p ON s.line USING (EXISTS (SELECT FROM h.t WHERE id > 5))", "The table h.t belongs"),
}  # fmt: skip
DERIVED: dict[str, tuple[str, str, str]] = {
    "a table that refers to a derived one": ("", "CREATE TABLE h.x (sum_id int REFERENCES s.sum); ALTER TABLE h.x OWNER TO {role}", "The table h.x belongs"),
    "a derived table that refers to a derived one": ("", "CREATE TABLE s.also (sum_id int REFERENCES s.sum); ALTER TABLE s.also OWNER TO {role}", "The table s.also belongs"),
    "an event trigger": ("CREATE FUNCTION h.logs() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN END'", "CREATE EVENT TRIGGER e_{role} ON ddl_command_end EXECUTE FUNCTION h.logs()", "The function h.logs() belongs"),
}  # fmt: skip
NAMED = {
    "a function": (" AND h.fits(t.id)", "The function h.fits(integer) belongs"),
    "an enum": (" AND t.v::h.mood IS NULL", "The type h.mood belongs"),
    "an array of an enum": (" AND CAST(ARRAY[t.v] AS h.mood[]) IS NULL", "The type h.mood belongs"),
    "a composite type": (" AND t.v::h.pair IS NULL", "The type h.pair belongs"),
    "the rows of a table": (" AND t.v::h.sheet IS NULL", "The table h.sheet belongs"),
    "a domain": (" AND t.id::h.word IS NOT NULL", "The domain h.word belongs"),
    "an operator": (" AND (t.id OPERATOR(h.===) 1)", "The function h.eq(integer,integer) belongs"),
}  # fmt: skip
WRITING: dict[str, tuple[str, str, str]] = {
    "a constraint": (FUNCTION, "ALTER TABLE s.line ADD CHECK (h.fits(id));" + LATER, "The function h.fits(integer) belongs"),
    "a default": (FUNCTION, "ALTER TABLE s.line ADD extra boolean DEFAULT h.fits(1);" + LATER, "The function h.fits(integer) belongs"),
    "a trigger": (f"CREATE FUNCTION h.fires() RETURNS trigger {RAISES}", "CREATE TRIGGER t BEFORE UPDATE ON s.line FOR EACH ROW EXECUTE FUNCTION h.fires()", "The function h.fires() belongs"),
    "a domain without a constraint": ("CREATE DOMAIN h.text AS text", "ALTER TABLE s.line ALTER v TYPE h.text", "The domain h.text belongs"),
    "a domain's constraint": (FUNCTION, "CREATE DOMAIN s.id AS int CHECK (h.fits(VALUE)); ALTER TABLE s.line ADD also s.id;" + LATER, "The function h.fits(integer) belongs"),
    "a rule": ("CREATE TABLE h.log (id int); GRANT ALL ON h.log TO PUBLIC;" + FUNCTION, "CREATE RULE r AS ON DELETE TO s.line DO ALSO SELECT h.fits(1);" + LATER, "The function h.fits(integer) belongs"),
    "a table that refers to them": ("", "CREATE TABLE s.log (id int, bill_id int REFERENCES s.bill); ALTER TABLE s.log OWNER TO {role}", "The table s.log belongs"),
    "an heir of a table that refers to them": ("", "CREATE TABLE s.log (id int, bill_id int REFERENCES s.bill ON DELETE CASCADE); CREATE TABLE s.heir () INHERITS (s.log); ALTER TABLE s.heir OWNER TO {role}", "The table s.heir belongs"),
    "a key of a partition that is written": ("CREATE FUNCTION h.fits(int) RETURNS int IMMUTABLE LANGUAGE plpgsql AS 'BEGIN RETURN $1; END'", "CREATE TABLE s.log (id int, bill_id int REFERENCES s.bill ON DELETE CASCADE) PARTITION BY LIST (h.fits(id)); CREATE TABLE s.heir PARTITION OF s.log DEFAULT", "The function h.fits(integer) belongs"),
}  # fmt: skip


def stranger(rig: Shaped, case: tuple[str, str, str]) -> str:
    """A role that owns a schema h and what the case says."""
    role = f"stranger_{rig.database.name}"
    rig.execute(
        f"CREATE ROLE {role}", f"CREATE SCHEMA h AUTHORIZATION {role}", "GRANT USAGE ON SCHEMA h TO PUBLIC",
        f"GRANT USAGE, CREATE ON SCHEMA s TO {role}; GRANT REFERENCES ON s.bill TO {role}",
    )  # fmt: skip
    its, others, _ = case
    for statement in (f"SET ROLE {role}; {its}; RESET ROLE" if its else "", others.format(role=role)):
        if statement:
            rig.execute(statement)
    # What it made after the functions were given to others is its own.
    rig.execute(
        *grants(rig.database), f"GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA h TO PUBLIC; ALTER SCHEMA h OWNER TO {role}"
    )
    return role


def checked(rig: Shaped) -> list[Finding]:
    """The findings of the preflight, with the rows of all clinics."""
    return preflight.run(
        settings=rig.settings, clinic_db=lambda: rig.clinic_db, stores=lambda: Stores.of(rig.store), now=machine_now,
        catalog_version=lambda: None,
    )  # fmt: skip


def made(database: DemoDatabase, folder: Path, name: str) -> Shaped:
    extracts = {"bill": OWN, "line": JOINED.format("j") if "joined" in name else OWN}
    if name in PARTED:
        extracts["whole"] = OWN
    lists = "s.log: a log of its own\ns.heir: its heir\n" if name in BESIDE else ""
    return shaped(database, folder, DDL, extracts, lists=lists)


@pytest.mark.parametrize("name", READING)
def test_a_backup_and_the_preflight_refuse_to_read_it(demo_database: DemoDatabase, tmp_path: Path, name: str) -> None:
    rig = made(demo_database, tmp_path, name)
    role = stranger(rig, READING[name])
    with pytest.raises(PermanentError) as raised:
        rig.run(1)
    said = READING[name][2]
    assert raised.value.message.startswith("The backup of clinic 1 would run code of roles")
    assert f"{said} to the role {role}" in raised.value.message
    assert "CLINIC_BACKUPS_TRUSTED_OWNERS" in raised.value.message
    errors = [finding for finding in checked(rig) if finding.level == "error"]
    assert {each.check for each in errors} == {"owners"} and errors[0].message.startswith(said)


@pytest.mark.parametrize("name", [*READING, *WRITING])
def test_a_plan_and_a_check_refuse_to_write_with_it(demo_database: DemoDatabase, tmp_path: Path, name: str) -> None:
    rig = made(demo_database, tmp_path, name)
    case = (READING | WRITING)[name]
    if "joined" in name or name in PARTED:  # what is backed up must be there
        owner_of = {
            "a joined table": "CREATE TABLE h.j AS SELECT 1 AS id",
            "a joined view": "CREATE VIEW h.j AS SELECT 1 AS id",
        }
        rig.execute(
            "CREATE SCHEMA h; GRANT USAGE ON SCHEMA h TO PUBLIC",
            owner_of.get(name, WHOLE),
        )
        rig.execute(*grants(rig.database), "GRANT SELECT ON ALL TABLES IN SCHEMA h TO PUBLIC")
        record = rig.run(1)
        rig.execute("DROP SCHEMA h CASCADE", "DROP TABLE IF EXISTS s.whole")
    else:
        record = rig.run(1)
    role = stranger(rig, case)
    rig.execute(
        "SET session_replication_role = replica; DELETE FROM s.bill WHERE id = 2; RESET session_replication_role"
    )
    with pytest.raises(PermanentError) as raised:
        rig.plan(record)
    assert raised.value.message.startswith("The restore would run code of roles")
    assert f"{case[2]} to the role {role}" in raised.value.message
    found = trial(rig)
    assert {each.level for each in found} == {"error"} and all(each.hint for each in found)
    assert f"{case[2]} to the role {role}" in " ".join(each.message for each in found)


def test_an_approved_plan_is_not_applied_once_a_stranger_owns_a_table(
    demo_database: DemoDatabase, tmp_path: Path
) -> None:
    rig = shaped(demo_database, tmp_path, DDL, {"bill": OWN, "line": OWN})
    record = rig.run(1)
    rig.execute("DELETE FROM s.bill WHERE id = 2")
    plan = rig.plan(record)
    stranger(rig, READING["a table with an index"])
    with pytest.raises(PermanentError, match="would run code of roles"):
        rig.restore().apply(rig.source(record), Wish(), approved=plan.digest, plan=plan)
    assert rig.execute_rows("SELECT count(*) FROM s.bill WHERE id = 2") == [(0,)]


@pytest.mark.parametrize("name", DERIVED)
def test_what_a_restore_deletes_beside_counts(demo_database: DemoDatabase, tmp_path: Path, name: str) -> None:
    ddl = f"{DDL}; CREATE TABLE s.sum (id int PRIMARY KEY, bill_id int REFERENCES s.bill)"
    lists = "s.sum: derived, made anew\ns.also: derived, made anew\nh.x: a table of its own\n"
    rig = shaped(demo_database, tmp_path, ddl, {"bill": OWN, "line": OWN}, lists=lists)
    record = rig.run(1)
    role = stranger(rig, DERIVED[name])
    rig.execute("DELETE FROM s.bill WHERE id = 2")
    try:
        with pytest.raises(PermanentError, match="The restore would run code of roles") as raised:
            rig.plan(record)
        said = f"{DERIVED[name][2]} to the role {role}"
        assert said in raised.value.message
        assert said in " ".join(each.message for each in trial(rig) if each.level == "error")
    finally:
        rig.execute(f"DROP EVENT TRIGGER IF EXISTS e_{role}")


@pytest.mark.parametrize("name", NAMED)
def test_what_an_extract_names_is_looked_up(demo_database: DemoDatabase, tmp_path: Path, name: str) -> None:
    more, said = NAMED[name]
    rig = shaped(demo_database, tmp_path, DDL, {"bill": OWN, "line": OWN + more})
    its = f"{FUNCTION}; CREATE DOMAIN h.word AS int; CREATE TYPE h.mood AS ENUM ('a'); CREATE TYPE h.pair AS (a int); CREATE TABLE h.sheet (a int); CREATE FUNCTION h.eq(int, int) RETURNS boolean LANGUAGE sql AS 'SELECT true'; CREATE OPERATOR h.=== (LEFTARG = int, RIGHTARG = int, FUNCTION = h.eq)"
    role = stranger(rig, (its, "SELECT", ""))
    with pytest.raises(PermanentError, match="would run code of roles") as raised:
        rig.run(1)
    assert f"{said} to the role {role}" in raised.value.message
    assert f"{said} to the role {role}" in " ".join(each.message for each in checked(rig) if each.level == "error")


@pytest.mark.parametrize("moment", ["plan", "apply", "check"])
def test_a_trigger_that_comes_after_the_question_does_not_fire(
    demo_database: DemoDatabase, tmp_path: Path, moment: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The right TRIGGER is enough to add one beside a restore. It waits for no reader."""
    rig = shaped(demo_database, tmp_path, DDL, {"bill": OWN, "line": OWN})
    record = rig.run(1)
    role = stranger(
        rig, (f"CREATE FUNCTION h.fires() RETURNS trigger {RAISES}", "GRANT TRIGGER ON s.line TO {role}", "")
    )
    rig.execute("UPDATE s.line SET v = 'x' WHERE clinic_id = 1")
    plan = rig.plan(record) if moment == "apply" else None
    locked = shut_out.shut_out_strangers

    def late(*args: Any) -> None:
        with closing(rig.database.connect()) as db, db, db.cursor() as cursor:
            cursor.execute(f"SET lock_timeout = '2s'; SET ROLE {role}")
            cursor.execute(
                "CREATE OR REPLACE TRIGGER t BEFORE UPDATE ON s.line FOR EACH ROW EXECUTE FUNCTION h.fires()"
            )
        locked(*args)

    for module in (write_and_prove, restore_trial):
        monkeypatch.setattr(module, "shut_out_strangers", late)
    said = f"The function h.fires() belongs to the role {role}"
    if moment == "check":
        assert said in " ".join(found.message for found in trial(rig) if found.level == "error")
    elif plan is None:
        assert said in rig.plan(record).refusals[0].message
    else:
        with pytest.raises(PermanentError, match="would run code of roles") as raised:
            rig.restore().apply(rig.source(record), Wish(), approved=plan.digest, plan=plan)
        assert said in raised.value.message
    assert rig.execute_rows("SELECT DISTINCT v FROM s.line WHERE clinic_id = 1") == [("x",)]


LIMITED = {
    "by policies": ["GRANT SELECT, INSERT, UPDATE, DELETE ON s.bill, s.clinic, s.line TO {role}", "ALTER TABLE s.clinic ENABLE ROW LEVEL SECURITY; CREATE POLICY p ON s.clinic TO {role} USING (id = 1)"],
    "by a membership without rights": ["CREATE ROLE app_{role}; ALTER TABLE s.clinic OWNER TO app_{role}; GRANT app_{role} TO {role} WITH INHERIT FALSE, SET FALSE, ADMIN FALSE"],
}  # fmt: skip


@pytest.mark.parametrize("how", LIMITED)
def test_whoever_is_limited_is_a_stranger(demo_database: DemoDatabase, tmp_path: Path, how: str) -> None:
    rig = shaped(demo_database, tmp_path, DDL, {"bill": OWN, "line": OWN})
    version = int(rig.execute_rows("SHOW server_version_num")[0][0])
    if "membership" in how and version < 160000:
        pytest.skip("before PostgreSQL 16, every member can take the rights of the role")
    role = stranger(rig, READING["a function in an index of another table"])
    for statement in LIMITED[how]:
        rig.execute(statement.format(role=role))
    reader = rig.database.roles.reader
    rig.execute(f"ALTER ROLE {reader} BYPASSRLS")
    try:
        with pytest.raises(PermanentError) as raised:
            rig.run(1)
    finally:
        rig.execute(f"ALTER ROLE {reader} NOBYPASSRLS")
    assert f"The function h.fits(integer) belongs to the role {role}" in raised.value.message


TRUSTED = {
    "by the operator": lambda rig, role: {"trusted_owners": (role,)},
    "as it may write into all tables": lambda rig, role: rig.execute(f"GRANT SELECT, INSERT, UPDATE, DELETE ON s.bill, s.clinic, s.line TO {role}"),
    "as a superuser": lambda rig, role: rig.execute(f"ALTER ROLE {role} SUPERUSER"),
    "as the database's owner": lambda rig, role: rig.execute(f"ALTER DATABASE {rig.database.name} OWNER TO {role}"),
    "as the owner of the clinics' own table": lambda rig, role: rig.execute(f"ALTER TABLE s.clinic OWNER TO {role}"),
}  # fmt: skip


MEMBERS = {
    "a member without INHERIT of a role that may write": (["ALTER ROLE {role} NOINHERIT; GRANT y_{role} TO {role}; GRANT SELECT, INSERT, UPDATE, DELETE ON s.bill, s.clinic, s.line TO y_{role}"], True),
    "a member that may only become a role that may write": (["GRANT y_{role} TO {role} WITH INHERIT FALSE, SET TRUE; GRANT SELECT, INSERT, UPDATE, DELETE ON s.bill, s.clinic, s.line TO y_{role}"], True),
    "a member that may become a member of the owner": (["GRANT y_{role} TO {role} WITH INHERIT FALSE, SET TRUE; GRANT app_{role} TO y_{role} WITH INHERIT TRUE, SET FALSE"], True),
    "a role with ADMIN over a member of the owner": (["GRANT app_{role} TO y_{role}; GRANT y_{role} TO {role} WITH INHERIT FALSE, SET FALSE, ADMIN TRUE"], True),
    "a member of a role with ADMIN over the owner": (["GRANT y_{role} TO {role} WITH INHERIT TRUE, SET FALSE; GRANT app_{role} TO y_{role} WITH INHERIT FALSE, SET FALSE, ADMIN TRUE"], True),
    "a member of a role that may become the owner": (["GRANT y_{role} TO {role} WITH INHERIT TRUE, SET FALSE; GRANT app_{role} TO y_{role} WITH INHERIT FALSE, SET TRUE"], False),
    "a member of a role that passes policies by": (["GRANT y_{role} TO {role} WITH INHERIT TRUE, SET FALSE; GRANT SELECT, INSERT, UPDATE, DELETE ON s.bill, s.clinic, s.line TO y_{role}; ALTER ROLE y_{role} BYPASSRLS; ALTER TABLE s.line ENABLE ROW LEVEL SECURITY; CREATE POLICY p ON s.line USING (true)"], False),
    "a member that may become one that passes policies by": (["GRANT y_{role} TO {role} WITH INHERIT FALSE, SET TRUE; GRANT SELECT, INSERT, UPDATE, DELETE ON s.bill, s.clinic, s.line TO y_{role}; ALTER ROLE y_{role} BYPASSRLS; ALTER TABLE s.line ENABLE ROW LEVEL SECURITY; CREATE POLICY p ON s.line USING (true)"], True),
}  # fmt: skip


@pytest.mark.parametrize("how", MEMBERS)
def test_who_can_take_the_rights_is_told_by_each_step_of_the_memberships(
    demo_database: DemoDatabase, tmp_path: Path, how: str
) -> None:
    rig = shaped(demo_database, tmp_path, DDL, {"bill": OWN, "line": OWN})
    if int(rig.execute_rows("SHOW server_version_num")[0][0]) < 160000:
        pytest.skip("before PostgreSQL 16, every member can take the rights of the role")
    role = stranger(
        rig,
        (
            "",
            "CREATE ROLE app_{role}; CREATE ROLE y_{role}; ALTER TABLE s.clinic OWNER TO app_{role}; ALTER TABLE s.bill OWNER TO app_{role}; ALTER TABLE s.line OWNER TO app_{role}",
            "",
        ),
    )
    statements, trusted = MEMBERS[how]
    rig.execute(
        f"CREATE FUNCTION h.fits(int) RETURNS boolean IMMUTABLE LANGUAGE sql AS 'SELECT true'; ALTER FUNCTION h.fits OWNER TO {role}; CREATE INDEX i ON s.line (id) WHERE h.fits(1)"
    )
    for statement in statements:
        rig.execute(statement.format(role=role))
    with Snapshot(rig.clinic_db) as snapshot:
        found = strangers_code(snapshot, ["s.bill", "s.line"], "s.clinic", tables=["s.line"])
    assert [each.owner for each in found] == ([] if trusted else [role])


@pytest.mark.parametrize("why", TRUSTED)
def test_whoever_is_trusted_is_no_stranger(demo_database: DemoDatabase, tmp_path: Path, why: str) -> None:
    rig = shaped(demo_database, tmp_path, DDL, {"bill": OWN, "line": OWN})
    role = stranger(rig, READING["a table without any code"])
    changed: Any = TRUSTED[why](rig, role)
    # The demo's own tables beside these have no class.
    rig.settings = rig.settings.model_copy(update={"shared": False} | (changed or {}))
    record, before = rig.run(1), rig.everything()
    assert [found.message for found in (*checked(rig), *trial(rig)) if found.level == "error"] == []
    rig.execute("DELETE FROM s.bill WHERE id = 2", "DELETE FROM s.line WHERE id = 4")
    rig.bring_back(record)
    assert rig.everything() == before


def test_a_role_is_named_as_the_setting_wants_it(demo_database: DemoDatabase, tmp_path: Path) -> None:
    rig = shaped(demo_database, tmp_path, DDL, {"bill": OWN, "line": OWN})
    role = f"App Owner {rig.database.name}"
    rig.execute(f'CREATE ROLE "{role}"; ALTER TABLE s.line OWNER TO "{role}"')
    with pytest.raises(PermanentError, match=f"if you trust the role {role} with"):
        rig.run(1)


def test_of_two_owners_the_one_that_does_not_own_the_clinics_table_is_named(
    demo_database: DemoDatabase, tmp_path: Path
) -> None:
    """The application's owner may not write into the other's table either, and is still no stranger."""
    rig = shaped(demo_database, tmp_path, DDL, {"bill": OWN, "line": OWN})
    app = f"app_{rig.database.name}"
    rig.execute(f"CREATE ROLE {app}", *(f"ALTER TABLE s.{name} OWNER TO {app}" for name in ("clinic", "bill", "line")))
    other = stranger(rig, READING["a table without any code"])
    with pytest.raises(PermanentError) as raised:
        rig.run(1)
    assert other in raised.value.message and app not in raised.value.message


@pytest.mark.parametrize("chosen", [(), ("s.typed",)])
def test_a_copy_into_a_new_schema_runs_no_code_of_a_type(
    demo_database: DemoDatabase, tmp_path: Path, chosen: tuple[str, ...]
) -> None:
    """Nobody is believed because of a table that the archive, or the person, names."""
    more = "; CREATE DOMAIN s.word AS text; CREATE TABLE s.typed (id int PRIMARY KEY, clinic_id int, v s.word); INSERT INTO s.typed VALUES (1, 1, 'a')"
    rig = shaped(demo_database, tmp_path, DDL + more, {"bill": OWN, "line": OWN, "typed": OWN})
    record = rig.run(1)
    rig.execute(f"GRANT CREATE ON DATABASE {rig.database.name} TO {rig.database.roles.restorer}")
    role = stranger(rig, ("", "ALTER DOMAIN s.word OWNER TO {role}; ALTER TABLE s.typed OWNER TO {role}", ""))
    rig.execute(
        f"SET ROLE {role}; CREATE FUNCTION h.fits(text) RETURNS boolean {RAISES}; ALTER DOMAIN s.word ADD CHECK (h.fits(VALUE)) NOT VALID; RESET ROLE"
    )
    into = IntoRestore(
        ClinicRestore(
            settings=rig.settings,
            restore_db=connections.parse("restore_target", rig.database.restorer_uri),
            archives=Archives(Stores.of(rig.store), [pyrage.x25519.Identity.from_str(rig.identity)]),
        )
    )
    with pytest.raises(ClinicBackupsError) as raised:
        into.run(rig.source(record), "made", chosen)
    assert "The copy would run code of roles" in str(
        raised.value
    ) and f"The domain s.word belongs to the role {role}" in str(raised.value)
    assert rig.execute_rows("SELECT count(*) FROM pg_namespace WHERE nspname = 'made'") == [(0,)]


REGISTRY = (
    f"CREATE FUNCTION h.knows() RETURNS boolean {RAISES}; GRANT SELECT ON s.clinic TO PUBLIC;"
    " CREATE VIEW h.registry AS SELECT id, name, 'es'::text AS language FROM s.clinic WHERE h.knows();"
    " GRANT SELECT ON h.registry TO PUBLIC"
)


def test_a_list_of_clinics_that_reads_a_strangers_view_is_not_run(demo_database: DemoDatabase, tmp_path: Path) -> None:
    """A restore looks into the extracts of all clinics if one of its rows is in no extract. A run asks for the clinics."""
    rig = VISIT.rig(demo_database, tmp_path)
    record = rig.run(1)
    rig.execute("CREATE TABLE s.bill (id int)")
    role = stranger(rig, ("", f"GRANT SELECT ON s.clinic TO {{role}}; SET ROLE {{role}}; {REGISTRY}; RESET ROLE", ""))
    (rig.settings.sql_dir / "all_clinics.sql").write_text("SELECT id, name, language FROM h.registry ORDER BY id")
    rig.execute("UPDATE s.visit SET gone = true WHERE id = 1; DELETE FROM s.doctor WHERE id = 2")
    said = f"The view h.registry belongs to the role {role}"
    with pytest.raises(PermanentError, match="The restore would run code of roles") as raised:
        rig.plan(record)
    assert said in raised.value.message
    with pytest.raises(PermanentError, match="The list of clinics would run code of roles") as raised:
        people.clinics(rig.clinic_db, SqlFolder(rig.settings.sql_dir))
    assert said in raised.value.message


def test_a_list_of_administrators_that_reads_a_strangers_view_is_not_run(
    demo_database: DemoDatabase, tmp_path: Path
) -> None:
    rig = shaped(demo_database, tmp_path, DDL, {"bill": OWN, "line": OWN})
    role = stranger(rig, ("", f"GRANT SELECT ON s.clinic TO {{role}}; SET ROLE {{role}}; {REGISTRY}; RESET ROLE", ""))
    (rig.settings.sql_dir / "clinic_admins.sql").write_text("SELECT name AS email, name FROM h.registry")
    with pytest.raises(PermanentError, match="The list of a clinic's administrators would run code") as raised:
        list(people.admins(rig.clinic_db, SqlFolder(rig.settings.sql_dir), [1]))
    assert f"The view h.registry belongs to the role {role}" in raised.value.message
    with pytest.raises(PermanentError, match=r"refused while running clinic_admins\.sql"):
        list(people.admins(rig.clinic_db, SqlFolder(rig.settings.sql_dir), [1], trusted_owners=[role]))


HOOKS = {
    "a function": ("CREATE FUNCTION h.stops() RETURNS void LANGUAGE plpgsql AS $f$BEGIN RAISE 'it ran'; END$f$", "SELECT h.stops()", "The function h.stops() belongs"),
    "a function without its schema": ("CREATE FUNCTION s.stops() RETURNS void LANGUAGE plpgsql AS $f$BEGIN RAISE 'it ran'; END$f$", "SELECT stops()", "The function s.stops() belongs"),
    "a table with a trigger": (f"CREATE TABLE h.state (open boolean); INSERT INTO h.state VALUES (true); GRANT ALL ON h.state TO PUBLIC; CREATE FUNCTION h.fires() RETURNS trigger {RAISES}; CREATE TRIGGER t BEFORE UPDATE ON h.state FOR EACH ROW EXECUTE FUNCTION h.fires()", "SELECT 1; UPDATE h.state SET open = false", "The table h.state belongs"),
}  # fmt: skip


@pytest.mark.parametrize("name", HOOKS)
def test_a_hook_that_names_what_is_a_strangers_is_not_run(
    demo_database: DemoDatabase, tmp_path: Path, name: str
) -> None:
    its, hook, said = HOOKS[name]
    rig = shaped(demo_database, tmp_path, DDL, {"bill": OWN, "line": OWN})
    record = rig.run(1)
    rig.execute("DELETE FROM s.line WHERE id = 2")
    rig.execute(f"ALTER ROLE {rig.database.roles.restorer} IN DATABASE {rig.database.name} SET search_path = s, public")
    (rig.settings.sql_dir / "before_restore.sql").write_text("SELECT 1")
    plan = rig.plan(record)
    role = stranger(rig, (its, "SELECT", ""))
    rig.execute("GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA s TO PUBLIC")
    (rig.settings.sql_dir / "before_restore.sql").write_text(hook)
    with pytest.raises(PermanentError, match=r"before_restore\.sql or after_restore\.sql would run code") as raised:
        rig.plan(record)
    assert f"{said} to the role {role}" in raised.value.message
    with pytest.raises(PermanentError, match=r"before_restore\.sql or after_restore\.sql would run code"):
        rig.restore().apply(rig.source(record), Wish(), approved=plan.digest)
    assert f"{said} to the role {role}" in " ".join(each.message for each in trial(rig) if each.level == "error")
    assert rig.execute_rows("SELECT count(*) FROM s.line WHERE id = 2") == [(0,)]
