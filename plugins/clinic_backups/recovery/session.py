"""A connection to the database that is recovered."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from types import TracebackType
from typing import Any, Self, cast

import psycopg2
from psycopg2 import sql

from clinic_backups.base.connections import Connection
from clinic_backups.base.database import connect, session_settings
from clinic_backups.base.database_errors import raise_database_error, refusal_of
from clinic_backups.base.errors import ClinicBackupsError, TransientError
from clinic_backups.base.pipeline import ByteChannel
from clinic_backups.base.search_path import APPLICATION_PATH, IN_OWN_PATH
from clinic_backups.tenant.session_settings import SESSION

COPY_BYTES = 256 * 1024
_NO_EVENT_TRIGGERS = """
SELECT CASE WHEN current_setting('server_version_num')::int >= 170000 THEN set_config('event_triggers', 'off', false)
            ELSE set_config('session_replication_role', 'replica', false) END
 WHERE current_setting('is_superuser') = 'on'
"""
"""Before PostgreSQL 17 there was no setting for them alone."""


@dataclass(frozen=True)
class Unfinished:
    """Something that could not be made again.

    :param what: a sentence without rows' values.
    :param sql: the statements that finish it; empty if there are none.
    :param is_problem: the database is not what it was. Otherwise only a person's decision or secret is missing.
    :param kind: pg_dump's word for what was not made, such as ``EXTENSION``; empty if it is no item of a dump.
    """

    what: str
    sql: str = ""
    is_problem: bool = False
    kind: str = ""

    def to_json(self) -> dict[str, Any]:
        """Plain JSON types."""
        return asdict(self)


@dataclass
class Session:
    """One connection. A context manager, which closes it. Nothing is committed by itself."""

    connection: Connection
    _db: Any = field(default=None, init=False, repr=False)

    def __enter__(self) -> Self:
        # The search path of the application is that of the database, and its own functions need it.
        self._db = connect(self.connection, own_path=False)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._db.close()

    def rows(
        self, query: str | sql.Composable, values: Mapping[str, Any] | None = None, doing: str = "reading the catalog"
    ) -> list[tuple[Any, ...]]:
        """All rows of a small query."""
        try:
            with self._db.cursor() as cursor:
                cursor.execute(query, values)
                return cast(list[tuple[Any, ...]], cursor.fetchall())
        except psycopg2.Error as error:
            raise_database_error(error, doing)

    def run(self, statement: str | sql.Composable, values: Mapping[str, Any] | None = None, doing: str = "") -> int:
        """Run statements; returns the number of rows of the last one."""
        try:
            with self._db.cursor() as cursor:
                cursor.execute(statement, values)
                return int(cursor.rowcount)
        except psycopg2.Error as error:
            raise_database_error(error, doing)

    @contextmanager
    def savepoint(self) -> Iterator[None]:
        """What fails inside leaves the transaction usable."""
        self.run("SAVEPOINT recovery", doing="setting a savepoint")
        try:
            yield
        except BaseException:
            self.run("ROLLBACK TO SAVEPOINT recovery; RELEASE SAVEPOINT recovery", doing="going back to the savepoint")
            raise
        self.run("RELEASE SAVEPOINT recovery", doing="releasing the savepoint")

    def refusal(self, statement: str, doing: str) -> ClinicBackupsError | None:
        """Run statements; ``None``, or why the database refuses them. Then the transaction goes on without them.

        :raises ClinicBackupsError: a full disk, a shutdown or the like, which says nothing about the statements.
        """
        try:
            with self.savepoint():
                self.run(statement, doing=doing)
        except ClinicBackupsError as error:
            refused = refusal_of(error)
            if isinstance(error, TransientError) or refused is None or not refused.state:
                raise
            return error
        return None

    def run_alone(self, statement: sql.Composable, doing: str) -> None:
        """Run a statement that cannot be part of a transaction."""
        self._db.set_autocommit(True)
        pins, self._db.pins = self._db.pins, {}  # two statements that are sent as one text are a transaction
        try:
            self.run(statement, doing=doing)
        finally:
            self._db.pins = pins
            if not self._db.closed:
                self._db.set_autocommit(False)

    def without_event_triggers(self) -> None:
        """Event triggers that were made again do not fire in this session, if its role may say so. Commits.

        One that forbids DDL would otherwise keep the recovery from its end.
        """
        self.rows(_NO_EVENT_TRIGGERS, doing="turning event triggers off")
        self.commit("turning event triggers off")

    def prepare_copy(self) -> None:
        """Set, for this transaction, how values in blocks are written."""
        with self._db.cursor() as cursor:
            self.run(session_settings(cursor, SESSION), doing="preparing to load rows")

    def copy(self, statement: sql.Composable, source: ByteChannel | Any, doing: str) -> int:
        """``COPY … FROM STDIN``; returns the number of rows. Call :meth:`prepare_copy` before.

        Checks and domains may call functions of the application, which need its own search path.
        """
        self.run(APPLICATION_PATH, doing=doing)
        try:
            with self._db.cursor() as cursor:
                cursor.copy_expert(statement, source, size=COPY_BYTES)
                count = int(cursor.rowcount)
        except psycopg2.Error as error:
            raise_database_error(error, doing)
        self.run(IN_OWN_PATH, doing=doing)
        return count

    def database(self) -> str:
        """The name of the database."""
        ((name,),) = self.rows("SELECT current_database()")
        return str(name)

    def roles(self) -> set[str]:
        """The names of the server's roles."""
        return {name for (name,) in self.rows("SELECT rolname FROM pg_roles")}

    def text(self, statement: sql.Composable) -> str:
        """A statement for a person to run."""
        return str(statement.as_string(self._db))

    def stop(self) -> None:
        """End a wait, from another thread."""
        self._db.stop()

    def commit(self, doing: str) -> None:
        """Commit the transaction."""
        try:
            self._db.commit()
        except psycopg2.Error as error:
            raise_database_error(error, doing)

    def rollback(self) -> None:
        """End the transaction without a trace."""
        try:
            self._db.rollback()
        except psycopg2.Error as error:
            raise_database_error(error, "ending the transaction")
