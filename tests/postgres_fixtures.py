"""A PostgreSQL server for the whole test session, and demo databases on it that a test may change as it likes."""

from __future__ import annotations

import itertools
import shutil
import subprocess
import tempfile
import threading
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg2
import pytest
from psycopg2 import sql
from sqlalchemy import NullPool, create_engine

from clinic_backups.catalog import migrate
from include.demo import database
from include.demo.postgres import THROWAWAY, EmbeddedPostgres

CLINICS, PATIENTS = 6, 40
MEMORY, MEMORY_BYTES = Path("/dev/shm"), 2 * 1024**3
_numbers = itertools.count(1)
_ended: defaultdict[EmbeddedPostgres, list[str]] = defaultdict(list)
"""The copies that no test uses any more. The next copy but one drops them: PostgreSQL waits for 100 ms when a session
is still about to end."""

# What CREATE DATABASE leaves out of a copy, as it does not lie in the database: who may connect, and roles' settings.
RIGHTS = """
    UPDATE pg_database AS copy SET datacl = template.datacl FROM pg_database AS template
     WHERE copy.datname = %(copy)s AND template.datname = %(template)s;
    INSERT INTO pg_db_role_setting SELECT copy.oid, setrole, setconfig
      FROM pg_db_role_setting JOIN pg_database AS template ON template.oid = setdatabase, pg_database AS copy
     WHERE copy.datname = %(copy)s AND template.datname = %(template)s
"""


class KeptSession:
    """The superuser's connection to one database, for statement after statement: a new one costs ten milliseconds."""

    def __init__(self, postgres: EmbeddedPostgres, name: str) -> None:
        self._postgres, self._name = postgres, name
        self._lock = threading.Lock()
        self._kept: psycopg2.extensions.connection | None = None

    @contextmanager
    def transaction(self) -> Iterator[psycopg2.extensions.cursor]:
        """Whatever the statements set for the session is as before afterwards.

        While another thread is in the block, this one gets a connection that is not kept: it may be what that one
        waits for.
        """
        if not self._lock.acquire(blocking=False):
            with closing(self._postgres.connect(self._name)) as db, db, db.cursor() as cursor:
                yield cursor
            return
        try:
            if self._kept is None:
                self._kept = self._postgres.connect(self._name)
            with self._kept as db, db.cursor() as cursor:
                yield cursor
            self._kept.autocommit = True
            with self._kept.cursor() as cursor:
                cursor.execute("DISCARD ALL")
            self._kept.autocommit = False
        except BaseException:
            self._drop()  # it may be cut, or in a state that nobody knows
            raise
        finally:
            self._lock.release()

    def close(self) -> None:
        with self._lock:
            self._drop()

    def _drop(self) -> None:
        if self._kept is not None:
            self._kept.close()
        self._kept = None


@dataclass(frozen=True)
class DemoDatabase:
    """One database of the session's server; the roles are those of ``create_roles``."""

    postgres: EmbeddedPostgres
    name: str
    roles: database.Roles
    session: KeptSession = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "session", KeptSession(self.postgres, self.name))

    def connect(self, **kw: Any) -> psycopg2.extensions.connection:
        """Connect as the superuser unless ``user`` and ``password`` are given."""
        return self.postgres.connect(self.name, **kw)

    @property
    def reader_uri(self) -> str:
        """The URI of the role that backups read with."""
        return self.postgres.uri(self.name, self.roles.reader, self.roles.reader_password)

    @property
    def restorer_uri(self) -> str:
        """The URI of the role that restores write with."""
        return self.postgres.uri(self.name, self.roles.restorer, self.roles.restorer_password)

    @property
    def catalog_uri(self) -> str:
        """The URI of the role that owns the schema ``clinic_backups``."""
        return self.postgres.uri(self.name, self.roles.catalog, self.roles.catalog_password)


@contextmanager
def server_folder() -> Iterator[Path]:
    """A folder for one server, removed afterwards.

    It lies in memory where there is room: a database has some 400 files, and a disk takes longer to make and remove
    them than most tests take.
    """
    place = MEMORY if MEMORY.is_dir() and shutil.disk_usage(MEMORY).free > MEMORY_BYTES else None
    folder = Path(tempfile.mkdtemp(prefix="clinic-backups-postgres-", dir=place))
    folder.chmod(0o711)  # when root runs the tests, the server's unprivileged user has to get through
    try:
        yield folder / "server"
    finally:
        shutil.rmtree(folder)


def copy_files(server: EmbeddedPostgres, *folders: Path) -> None:
    """Copy a running server's files into new folders, as pg_basebackup would. The server is restarted for that."""
    server.stop()
    for folder in folders:
        subprocess.run(["cp", "-a", server.data_dir, folder], check=True)  # keeps the owner
        (folder / "port").unlink(missing_ok=True)
    server.start()


def standby_on(folder: Path, sender: EmbeddedPostgres, settings: Mapping[str, str]) -> EmbeddedPostgres:
    """A standby on a copy of its sender's files, which may be a standby itself. It is not started yet."""
    (folder / "cluster" / "standby.signal").touch()
    follow = f"host={sender.host} port={sender.port} user={sender.user} password={sender.password}"
    return EmbeddedPostgres(folder, settings={**settings, "primary_conninfo": follow})


@pytest.fixture(scope="session")
def postgres() -> Iterator[EmbeddedPostgres]:
    """A running server without databases of ours. Not safe against a crash of the machine, and faster for it."""
    with server_folder() as folder, EmbeddedPostgres(folder, settings={**THROWAWAY, "autovacuum": "off"}) as server:
        # The same password once more: the server was made before it knew its settings.
        server.psql("postgres", f"ALTER ROLE {server.user} PASSWORD :'same'", {"same": server.password})
        yield server


@pytest.fixture(scope="session")
def demo_template(postgres: EmbeddedPostgres) -> DemoDatabase:
    """The demo's data at a small scale with an empty catalog, for tests that only read. Nobody may stay connected."""
    database.load(postgres, "demo_template", clinics=CLINICS, patients=PATIENTS)
    template = DemoDatabase(postgres, "demo_template", database.create_roles(postgres, "demo_template"))
    with create_engine(template.catalog_uri, poolclass=NullPool).begin() as db:
        migrate.upgrade(db)
    return template


@pytest.fixture
def demo_database(demo_template: DemoDatabase) -> Iterator[DemoDatabase]:
    """A fresh copy of the demo's data with an empty catalog, dropped before the next one is made."""
    with copy_of(demo_template) as database:
        yield database


@pytest.fixture
def new_database(demo_database: DemoDatabase) -> DemoDatabase:
    """The same database, as it was before the catalog's first migration."""
    with closing(demo_database.connect()) as db, db, db.cursor() as cursor:
        cursor.execute("DROP SCHEMA clinic_backups CASCADE")
    database.create_roles(demo_database.postgres, demo_database.name)
    return demo_database


@contextmanager
def copy_of(demo_template: DemoDatabase) -> Iterator[DemoDatabase]:
    """A fresh copy of the demo's data while the block lasts: for each example of a property test."""
    server, name = demo_template.postgres, f"demo_{next(_numbers)}"
    ended, _ended[server] = _ended[server][:-1], _ended[server][-1:]
    copied = DemoDatabase(server, name, demo_template.roles)
    demo_template.session.close()  # PostgreSQL copies no database while somebody is connected to it
    with closing(server.connect()) as connection, connection.cursor() as cursor:
        connection.autocommit = True
        for old in ended:
            cursor.execute(database.dropping(old))
        cursor.execute(
            sql.SQL("CREATE DATABASE {} TEMPLATE {} STRATEGY FILE_COPY").format(
                sql.Identifier(name), sql.Identifier(demo_template.name)
            )
        )
        cursor.execute(RIGHTS, {"copy": name, "template": demo_template.name})
    try:
        yield copied
    finally:
        copied.session.close()
        _ended[server].append(name)
