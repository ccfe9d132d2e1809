"""Migrations of the catalog's schema, run by Alembic (https://alembic.sqlalchemy.org).

Alembic is imported only to migrate: it takes 0.2 s, and most commands only ask for the version.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import Connection, text

from clinic_backups.base.errors import PermanentError
from clinic_backups.catalog.owners import STRANGERS, require_own
from clinic_backups.catalog.tables import SCHEMA

if TYPE_CHECKING:
    from alembic.config import Config

_MIGRATIONS = Path(__file__).parent / "migrations"
_NUMBERED = re.compile(r"v([0-9]{4})_\w+\Z")
"""The name of a migration's file. They form one line, so the largest number is the newest version."""


def upgrade(connection: Connection) -> str:
    """Bring the schema to its newest version, in one transaction. Returns that version.

    :raises PermanentError: the schema exists already, and a role that could forge the catalog owns something in it.
    """
    from alembic import command

    # Two migrations at once would both create the schema, so the second waits for the first.
    connection.execute(text("SELECT pg_advisory_xact_lock(hashtextextended('clinic_backups:migrate', 0))"))
    exists = text("SELECT to_regnamespace(:schema) IS NOT NULL")
    if not connection.execute(exists, {"schema": SCHEMA}).scalar():
        connection.execute(text(f"CREATE SCHEMA {SCHEMA}"))
    _require_own(connection)
    command.upgrade(_config(connection), "head")
    return newest()


def current(connection: Connection) -> str | None:
    """The schema's version; none before the first migration."""
    # Alembic's own table has one row.
    if not connection.scalar(text(f"SELECT to_regclass('{SCHEMA}.alembic_version') IS NOT NULL")):
        return None
    found = connection.scalar(text(f"SELECT version_num FROM {SCHEMA}.alembic_version"))  # noqa: S608
    return None if found is None else str(found)


def newest() -> str:
    """The version that this package needs."""
    names = (_NUMBERED.match(file.stem) for file in (_MIGRATIONS / "versions").glob("v*.py"))
    return max(found[1] for found in names if found)


def require_newest(connection: Connection) -> None:
    """:raises PermanentError: the schema is another role's, or does not have the version that this package needs."""
    _require_own(connection)
    if (found := current(connection)) != newest():
        raise PermanentError(
            f"The catalog has version {found or 'none'}, but this package needs {newest()}.",
            hint="Run `clinic-backups catalog migrate`.",
        )


def _require_own(connection: Connection) -> None:
    ((_, strangers),) = connection.execute(text(STRANGERS)).all()
    require_own(strangers)


def _config(connection: Connection | None = None) -> Config:
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(_MIGRATIONS).replace("%", "%%"))
    config.attributes["connection"] = connection
    return config
