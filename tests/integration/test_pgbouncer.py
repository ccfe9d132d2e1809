"""Through PgBouncer: in transaction mode a server's session is another client's as soon as a transaction ends."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import psycopg2
import pytest

from clinic_backups.base import connections
from clinic_backups.base.connections import Connection
from clinic_backups.base.kept_connections import KeptConnections
from clinic_backups.catalog.locks import AlreadyRunning
from clinic_backups.catalog.records import Catalog
from clinic_backups.catalog.restores import Restores
from clinic_backups.restore.request import RestoreRequest
from clinic_backups.stores.file import FileStore
from tests import servers
from tests.integration.test_restore import STOCK
from tests.integration.test_restore_runner import DAMAGE, Theatre
from tests.missing import needs
from tests.postgres_fixtures import DemoDatabase, server_folder

pytestmark = needs("pgbouncer")


FOLLOWED = ("client_encoding", "application_name", "DateStyle", "TimeZone", "standard_conforming_strings")
"""PgBouncer itself sets these for each client."""
CONFIGURATION = """
[databases]
* = host=127.0.0.1 port={server}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = scram-sha-256
auth_file = {folder}/users.txt
pool_mode = {mode}
default_pool_size = 6
"""


@pytest.fixture(params=["session", "transaction"])
def pooled(request: pytest.FixtureRequest, demo_database: DemoDatabase) -> Iterator[int]:
    """The port of a PgBouncer before the database: a few of the server's sessions serve everybody."""
    (port,), roles = servers.free_ports(1), demo_database.roles
    users = {
        roles.reader: roles.reader_password, roles.restorer: roles.restorer_password,
        roles.catalog: roles.catalog_password,
    }  # fmt: skip

    def ready() -> bool:
        address = {"host": "127.0.0.1", "port": port, "dbname": demo_database.name}
        with closing(psycopg2.connect(user=roles.reader, password=roles.reader_password, **address)):
            return True

    with server_folder() as folder:
        folder.mkdir()
        (folder / "users.txt").write_text("".join(f'"{name}" "{password}"\n' for name, password in users.items()))
        told = CONFIGURATION.format(server=demo_database.postgres.port, port=port, folder=folder, mode=request.param)
        (folder / "pgbouncer.ini").write_text(told)
        command: list[str | Path] = ["pgbouncer", folder / "pgbouncer.ini"]
        if os.getuid() == 0:  # it refuses to run as root
            command = ["setpriv", "--reuid=nobody", "--clear-groups", "--", *command]
        with servers.running(command, log=folder / "pgbouncer.log", ready=ready):
            yield port


@pytest.fixture
def theatre(demo_database: DemoDatabase, pooled: int, tmp_path: Path) -> Theatre:
    """Everything of it goes through the proxy."""
    theatre = Theatre(demo_database, FileStore(tmp_path / "store"), kind="auto")
    theatre.clinic_db = through(connections.parse("clinic_db", demo_database.reader_uri), pooled)
    theatre.catalog = Catalog(through(connections.parse("backup_catalog", demo_database.catalog_uri), pooled))
    theatre.restores = Restores(theatre.catalog.database)
    return theatre


def through(connection: Connection, port: int) -> Connection:
    return replace(connection, port=port)


def test_a_share_of_backups_and_a_restore(theatre: Theatre, pooled: int) -> None:
    kept = KeptConnections()
    with kept.keeping():
        first = {clinic: theatre.run(clinic, now=theatre.tick, kept=kept) for clinic in (1, 2, 3)}
        theatre.now = theatre.now.replace(hour=theatre.now.hour + 2)
        second = {clinic: theatre.run(clinic, now=theatre.tick, kept=kept) for clinic in (1, 2, 3)}
    assert {record.kind for record in first.values()} == {"full"}
    assert {record.kind for record in second.values()} == {"incremental"}
    good = theatre.rows_now(1)
    theatre.execute(DAMAGE, f"DELETE FROM {STOCK} WHERE clinica_id = 1 AND id % 2 = 0")
    runner = theatre.runner()
    runner._restore.database = runner._restore_db = through(runner._restore.database, pooled)
    done = runner.apply(theatre.approved(RestoreRequest(clinic_id=1, backup_id=second[1].backup_id), runner))
    assert done.state == "completed"
    assert theatre.rows_now(1) == good


def test_a_clinics_lock_holds_although_the_session_may_serve_others(theatre: Theatre) -> None:
    with theatre.catalog.lock(1):
        for _ in range(20):  # others use all of the proxy's sessions meanwhile
            theatre.catalog.find(clinic_id=1)
        with pytest.raises(AlreadyRunning):
            theatre.run(1)
        theatre.run(2)
    assert theatre.run(1).state == "completed"


def test_what_a_session_was_set_to_reaches_no_other_client(theatre: Theatre, pooled: int) -> None:
    before = settings_of(theatre, pooled)
    for _ in range(3):
        theatre.run(1)
        theatre.now = theatre.now.replace(minute=theatre.now.minute + 1)
    assert settings_of(theatre, pooled) == before


def settings_of(theatre: Theatre, port: int) -> list[tuple[str, str]]:
    """What another client finds set, in each of the sessions that the proxy holds."""
    roles, found = theatre.database.roles, set[tuple[str, str]]()
    address = {"host": "127.0.0.1", "port": port, "dbname": theatre.database.name}
    clients = [psycopg2.connect(user=roles.reader, password=roles.reader_password, **address) for _ in range(4)]
    try:
        for client in clients:
            with client.cursor() as cursor:
                cursor.execute("SELECT name, setting FROM pg_settings WHERE source = 'session' ORDER BY 1")
                found |= {(name, value) for name, value in cursor.fetchall() if name not in FOLLOWED}
    finally:
        for client in clients:
            client.close()
    return sorted(found)
