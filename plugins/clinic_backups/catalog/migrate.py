"""Migrations of the catalog's schema, run by Alembic (https://alembic.sqlalchemy.org)."""

from __future__ import annotations

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, text

from clinic_backups.base.errors import PermanentError
from clinic_backups.catalog.owners import STRANGERS, require_own
from clinic_backups.catalog.tables import SCHEMA


def upgrade(connection: Connection) -> str:
    """Bring the schema to its newest version, in one transaction. Returns that version.

    :raises PermanentError: the schema exists already, and a role that could forge the catalog owns something in it.
    """
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
    return MigrationContext.configure(connection, opts={"version_table_schema": SCHEMA}).get_current_revision()


def newest() -> str:
    """The version that this package needs."""
    return str(ScriptDirectory.from_config(_config()).get_current_head())


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
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations").replace("%", "%%"))
    config.attributes["connection"] = connection
    return config
