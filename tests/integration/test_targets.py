"""The server identifies the database that a restore writes to.

It is compared with the backups' database and always named.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from clinic_backups.base import connections
from clinic_backups.base.errors import PermanentError
from clinic_backups.catalog.approvals import NotApproved
from clinic_backups.restore.plan import Target
from clinic_backups.restore.plan_text import as_lines, as_markdown
from clinic_backups.restore.request import RestoreRequest
from clinic_backups.restore.restore_outcomes import transaction_status
from clinic_backups.restore.target import OtherDatabase, ask, compare, target_of
from clinic_backups.stores.file import FileStore
from clinic_backups.tenant.tenant_db import Snapshot
from include.demo import database
from include.demo.postgres import THROWAWAY, EmbeddedPostgres
from tests.integration.test_cli import Run, run  # noqa: F401 - a fixture
from tests.integration.test_restore import STOCK
from tests.integration.test_restore_runner import DAMAGE, Theatre
from tests.postgres_fixtures import CLINICS, PATIENTS, DemoDatabase, copy_files, server_folder, standby_on

REPLICATED = THROWAWAY | {"wal_level": "replica", "max_wal_senders": "4"}
DENY = "REVOKE EXECUTE ON FUNCTION pg_control_system() FROM PUBLIC"


@dataclass(frozen=True)
class Servers:
    """A server, its standby, and a server that runs on a copy of its files: all with one system identifier."""

    primary: EmbeddedPostgres
    standby: EmbeddedPostgres
    copy: EmbeddedPostgres
    roles: database.Roles

    def demo(self, server: EmbeddedPostgres) -> DemoDatabase:
        return DemoDatabase(server, database.DATABASE, self.roles)


@pytest.fixture(scope="module")
def servers() -> Iterator[Servers]:
    with ExitStack() as stack:
        folder = stack.enter_context(server_folder())
        folder.mkdir()
        folder.chmod(0o711)
        primary = stack.enter_context(EmbeddedPostgres(folder / "primary", settings=REPLICATED))
        database.load(primary, clinics=CLINICS, patients=PATIENTS)
        roles = database.create_roles(primary, database.DATABASE)
        copy_files(primary, folder / "standby", folder / "copy")
        standby = standby_on(folder / "standby", primary, REPLICATED)
        copy = EmbeddedPostgres(folder / "copy", settings=REPLICATED)
        stack.enter_context(standby)
        stack.enter_context(copy)
        yield Servers(primary, standby, copy, roles)


def seen(uri: str) -> Target:
    with Snapshot(connections.parse("any", uri)) as snapshot:
        return ask(snapshot)


def execute(server: EmbeddedPostgres, *statements: str, on: str = database.DATABASE) -> None:
    with closing(server.connect(on)) as db, db.cursor() as cursor:
        db.autocommit = True
        for statement in statements:
            cursor.execute(statement)


def value(server: EmbeddedPostgres, query: str) -> Any:
    with closing(server.connect(database.DATABASE)) as db, db.cursor() as cursor:
        cursor.execute(query)
        (found,) = cursor.fetchone() or (None,)
        return found


def test_one_database_is_recognized_through_other_roles_and_hosts(servers: Servers) -> None:
    demo = servers.demo(servers.primary)
    target = seen(demo.restorer_uri)
    assert (target.standby, target.database) == (False, database.DATABASE)
    for uri in (demo.reader_uri, demo.reader_uri.replace("127.0.0.1", "localhost")):
        assert compare(seen(uri), target) == ""
    assert seen(demo.restorer_uri).identity == target.identity


def test_databases_that_look_alike_are_told_apart(servers: Servers, demo_database: DemoDatabase) -> None:
    target = seen(servers.demo(servers.primary).restorer_uri)
    execute(servers.primary, "CREATE DATABASE clinica_2 TEMPLATE clinica")
    try:
        told = {
            "another server": seen(demo_database.reader_uri),
            "a copy of the same server": seen(servers.demo(servers.copy).reader_uri),
            "another database of the same server": seen(servers.primary.uri("clinica_2")),
        }
        for said, source in told.items():
            assert said in compare(source, target)
            assert source.identity != target.identity
            assert said in compare(target, source).replace(target.name, source.name) or source.standby
    finally:
        execute(servers.primary, "DROP DATABASE clinica_2")


def test_whose_standby_the_backups_are_read_from_has_to_be_said(servers: Servers) -> None:
    """A copy of the primary's files has the identifier and timeline that its standby has."""
    standby = connections.parse("clinic_db", servers.demo(servers.standby).reader_uri)
    for server in (servers.primary, servers.copy):
        with Snapshot(connections.parse("restore_db", servers.demo(server).restorer_uri)) as snapshot:
            _, (refusal,) = target_of(snapshot, standby, other_database=False)
            assert "a standby, and whether it follows this server" in refusal.message
            assert target_of(snapshot, standby, other_database=True)[1] == ()


def test_what_became_of_a_transaction_is_asked_of_the_server_that_ran_it(servers: Servers) -> None:
    """Both count their transactions from the same number on."""
    place = connections.parse("restore_db", servers.demo(servers.copy).restorer_uri)
    elsewhere = connections.parse("clinic_db", servers.demo(servers.primary).reader_uri)
    target = seen(servers.demo(servers.copy).restorer_uri)
    with closing(servers.copy.connect(database.DATABASE)) as db, db.cursor() as cursor:
        cursor.execute("SELECT pg_current_xact_id()::text")
        ((number,),) = cursor.fetchall()
        db.rollback()
    for _ in range(60):
        execute(servers.primary, "SELECT pg_current_xact_id()")
    assert transaction_status(place, number, target) == "aborted"
    with pytest.raises(OtherDatabase):
        transaction_status(elsewhere, number, target)
    # The same server after a restart, or other files at its address: nobody can tell, and it stays so.
    for past in (
        replace(target, started_at="2020-01-01T00:00:00"),
        replace(target, timeline=7),
        replace(target, system=None, started_at="2020-01-01T00:00:00"),
    ):
        assert transaction_status(place, number, past) is None
        with pytest.raises(OtherDatabase):
            transaction_status(elsewhere, number, past)
    with pytest.raises(OtherDatabase):
        transaction_status(place, number, replace(target, system="1"))


def test_what_a_role_may_not_ask_is_told_by_other_ways_or_not_believed(servers: Servers) -> None:
    try:
        for server in (servers.primary, servers.copy):
            execute(server, DENY, on=database.DATABASE)
        target = seen(servers.demo(servers.primary).restorer_uri)
        assert target.system is None
        assert compare(seen(servers.demo(servers.primary).reader_uri), target) == ""
        for other in (servers.copy, servers.standby):
            assert "cannot be told: pg_control_system() is denied" in compare(
                seen(servers.demo(other).reader_uri), target
            )
    finally:
        for server in (servers.primary, servers.copy):
            execute(server, "GRANT EXECUTE ON FUNCTION pg_control_system() TO PUBLIC")


def test_a_difference_is_a_refusal_unless_it_is_meant_and_a_dead_server_is_one(servers: Servers) -> None:
    dead = connections.parse("clinic_db", "postgresql://u:secreto@127.0.0.1:1/clinica")
    with Snapshot(connections.parse("restore_db", servers.demo(servers.copy).restorer_uri)) as snapshot:
        target, (refusal,) = target_of(snapshot, dead, other_database=False)
        assert "could not be compared" in refusal.message
        assert "--other-database" in refusal.hint and '{"other_database": true}' in refusal.hint
        assert "secreto" not in refusal.message + target.difference
        meant, none = target_of(snapshot, dead, other_database=True)
        assert (none, meant) == ((), target)
        assert target_of(snapshot, None, other_database=False)[1] == ()


def test_nothing_is_planned_into_a_standby(servers: Servers, tmp_path: Path, demo_database: DemoDatabase) -> None:
    theatre = Theatre(demo_database, FileStore(tmp_path / "store"))
    theatre.back_up()
    with pytest.raises(PermanentError, match="is a standby: it only follows its primary"):
        theatre.runner(servers.demo(servers.standby)).plan(RestoreRequest(clinic_id=1, other_database=True))


def test_an_approval_and_an_outcome_are_of_one_database(
    servers: Servers, tmp_path: Path, demo_database: DemoDatabase
) -> None:
    theatre = Theatre(demo_database, FileStore(tmp_path / "store"))
    theatre.back_up()
    theatre.execute(DAMAGE)
    copy = servers.demo(servers.copy)
    execute(servers.copy, DAMAGE)
    try:
        request = RestoreRequest(clinic_id=1, other_database=True)
        elsewhere, here = theatre.runner(copy), theatre.runner()
        there, ours = elsewhere.plan(request), here.plan(request)
        # The same rows would be written, and the approval is for one of the two.
        assert [(table.table, table.writes) for table in there.tables] == [
            (table.table, table.writes) for table in ours.tables
        ]
        assert there.digest != ours.digest
        for plan, demo in ((there, copy), (ours, demo_database)):
            place = f"database {demo.name} at 127.0.0.1:{demo.postgres.port}"
            assert next(iter(as_lines(plan))).startswith(f"target: {place}")
            page = as_markdown(plan, requested_by="yo", notes="").replace("\\", "")
            assert f"**Target:** {place}" in page
        assert "which is on another server" in next(iter(as_lines(there)))
        with pytest.raises(NotApproved, match="which is not that database"):
            elsewhere.apply(theatre.approved(request, here))
        with pytest.raises(NotApproved, match="which is not that database"):
            here.apply(theatre.approved(request, elsewhere))
        record = elsewhere.apply(theatre.approved(request, elsewhere))
        assert record.target == f"clinica at 127.0.0.1:{servers.copy.port}"
        assert record.transaction_id is not None
        facts = "SELECT facts->>'target' FROM clinic_backups.notification WHERE kind = 'restore_report'"
        assert theatre.execute_rows(facts) == [(record.target,)]
        reader = connections.parse("clinic_db", demo_database.reader_uri)
        with pytest.raises(OtherDatabase, match="is not that database's primary"):
            transaction_status(reader, record.transaction_id, there.target)
        with pytest.raises(OtherDatabase):
            standby = connections.parse("clinic_db", servers.demo(servers.standby).reader_uri)
            transaction_status(standby, record.transaction_id, there.target)
    finally:
        execute(servers.copy, DAMAGE.replace("+ 5", "- 5"))


def test_the_undo_is_of_the_database_that_was_restored(
    run: Run,  # noqa: F811
    demo_database: DemoDatabase,
    servers: Servers,
    tmp_path: Path,
) -> None:
    """RESTORE_DB is a new server, CLINIC_DB is still the old one: the issue's own case, by the command."""
    copy = servers.demo(servers.copy)
    identity = tmp_path / "identity"
    keys = {"CLINIC_BACKUPS_RECIPIENTS": run("keygen", str(identity)).out.strip()}
    theatre = Theatre(demo_database, FileStore(tmp_path / "store"))
    new = Theatre(copy, FileStore(tmp_path / "store"))
    run("catalog", "migrate")
    run("store", "init")
    assert run("backup", "--clinic", "1", **keys).code == 0
    good = theatre.rows_now(1)
    # Only the new server has these, and only the old one has the others.
    execute(servers.copy, f"INSERT INTO {STOCK} (codigo, nombre, cantidad, precio_unitario, clinica_id)"
            " VALUES ('NUEVO', 'solo aquí', 1, 1, 1)")  # fmt: skip
    theatre.execute(DAMAGE)
    damaged, old = new.rows_now(1), theatre.rows_now(1)
    keys["AIRFLOW_CONN_RESTORE_DB"] = copy.restorer_uri
    words = ("restore", "--clinic", "1", "--identity", str(identity), "--yes")
    unsaid = run(*words, **keys)
    assert (unsaid.code, new.rows_now(1)) == (1, damaged)
    assert f"target: database clinica at 127.0.0.1:{servers.copy.port}" in unsaid.err.replace("\n", " ")
    assert "--other-database" in unsaid.err
    done = run(*words, "--other-database", **keys)
    assert (done.code, new.rows_now(1)) == (0, good), done.err
    assert f"in database clinica at 127.0.0.1:{servers.copy.port}" in done.out
    undo = done.out.strip().splitlines()[-1].rpartition("--backup ")[2]
    # The safety backup is not what a restore without a choice takes.
    again = run(*words, "--other-database", "--plan", "--json", **keys).json()
    assert (again["backup_id"] != undo, again["writes"]) == (True, 0)
    assert run(*words, "--other-database", "--backup", undo, **keys).code == 0
    assert new.rows_now(1) == damaged
    assert theatre.rows_now(1) == old
    execute(servers.copy, f"DELETE FROM {STOCK} WHERE codigo = 'NUEVO'")


def test_a_standby_of_another_history_is_told_apart(servers: Servers) -> None:
    """Last in this module: the standby is promoted."""
    # What the tests before granted must have arrived: a promoted server gets nothing more from its primary.
    at = value(servers.primary, "SELECT pg_current_wal_insert_lsn()")
    while not value(servers.standby, f"SELECT pg_last_wal_replay_lsn() >= '{at}'::pg_lsn"):
        time.sleep(0.05)
    execute(servers.standby, "SELECT pg_promote()")
    promoted = seen(servers.demo(servers.standby).restorer_uri)
    while promoted.standby:
        time.sleep(0.1)
        promoted = seen(servers.demo(servers.standby).restorer_uri)
    source = seen(servers.demo(servers.primary).reader_uri)
    assert "is on timeline 1 and not on 2" in compare(source, promoted)
    assert "is on timeline 2 and not on 1" in compare(promoted, source)
