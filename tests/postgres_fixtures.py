"""A PostgreSQL server for the whole test session, and demo databases on it that a test may change as it likes."""

from __future__ import annotations

import itertools
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg2
import pytest
from psycopg2 import sql

from include.demo import database
from include.demo.postgres import THROWAWAY, EmbeddedPostgres

CLINICS, PATIENTS = 6, 40
_numbers = itertools.count(1)


@dataclass(frozen=True)
class DemoDatabase:
    """One database of the session's server; the roles are those of ``create_roles``."""

    postgres: EmbeddedPostgres
    name: str
    roles: database.Roles

    def connect(self, **kw: Any) -> psycopg2.extensions.connection:
        """As the superuser unless ``user`` and ``password`` are given."""
        return self.postgres.connect(self.name, **kw)

    @property
    def reader_uri(self) -> str:
        """As the role that backups read with."""
        return self.postgres.uri(self.name, self.roles.reader, self.roles.reader_password)

    @property
    def restorer_uri(self) -> str:
        """As the role that restores write with."""
        return self.postgres.uri(self.name, self.roles.restorer, self.roles.restorer_password)

    @property
    def catalog_uri(self) -> str:
        """As the role that owns the schema ``clinic_backups``."""
        return self.postgres.uri(self.name, self.roles.catalog, self.roles.catalog_password)


@contextmanager
def server_folder() -> Iterator[Path]:
    """A folder for one server, removed afterwards."""
    folder = Path(tempfile.mkdtemp(prefix="clinic-backups-postgres-"))
    folder.chmod(0o711)  # when root runs the tests, the server's unprivileged user has to get through
    try:
        yield folder / "server"
    finally:
        shutil.rmtree(folder)


@pytest.fixture(scope="session")
def postgres() -> Iterator[EmbeddedPostgres]:
    """A running server without databases of ours. Not safe against a crash of the machine, and faster for it."""
    with server_folder() as folder, EmbeddedPostgres(folder, settings=THROWAWAY) as server:
        yield server


@pytest.fixture(scope="session")
def demo_template(postgres: EmbeddedPostgres) -> DemoDatabase:
    """The demo's data at a small scale, for tests that only read. Nobody may stay connected to it."""
    database.load(postgres, "demo_template", clinics=CLINICS, patients=PATIENTS)
    return DemoDatabase(postgres, "demo_template", database.create_roles(postgres, "demo_template"))


@pytest.fixture
def demo_database(demo_template: DemoDatabase) -> Iterator[DemoDatabase]:
    """A fresh copy of the demo's data, dropped after the test."""
    with copy_of(demo_template) as database:
        yield database


@contextmanager
def copy_of(demo_template: DemoDatabase) -> Iterator[DemoDatabase]:
    """A fresh copy of the demo's data while the block lasts: for each example of a property test."""
    server, name = demo_template.postgres, f"demo_{next(_numbers)}"
    copy = sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(sql.Identifier(name), sql.Identifier(demo_template.name))
    with closing(server.connect()) as connection, connection.cursor() as cursor:
        connection.autocommit = True
        cursor.execute(copy)
    try:
        yield DemoDatabase(server, name, database.create_roles(server, name))
    finally:
        database.drop(server, name)
