"""The clinics' database: one read-only snapshot, what it answers, and one clinic's rows as CSV."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, NoReturn, Protocol, Self

import psycopg2
import psycopg2.errors
from psycopg2 import sql

from clinic_backups.base.connections import Connection
from clinic_backups.base.database import connect, qualified, session_settings
from clinic_backups.base.database_errors import SqlOrigin, raise_database_error
from clinic_backups.base.errors import afterwards
from clinic_backups.base.kept_connections import KeptConnections
from clinic_backups.base.search_path import IN_OWN_PATH
from clinic_backups.base.silence import WatchedConnection
from clinic_backups.base.table import Table
from clinic_backups.tenant.copy_statement import copy_statement, probe_statement, require_column
from clinic_backups.tenant.described_tables import described_tables
from clinic_backups.tenant.lock_errors import require_exported, require_present, require_unlocked
from clinic_backups.tenant.pg_catalog import catalog_query
from clinic_backups.tenant.schema_memory import Version
from clinic_backups.tenant.session_settings import SESSION, held_values
from clinic_backups.tenant.table_locks import (
    PREPARE_LOCK_WAIT_MS,
    Replayed,
    TableLocks,
    prepare_statement,
    settings_changed,
)


class RowSink(Protocol):
    """Takes whole CSV rows, one call each."""

    def __call__(self, row: bytes, /) -> object: ...


class Snapshot:
    """One REPEATABLE READ, READ ONLY transaction: every table shows the same instant. A context manager.

    :param same_as: the name of another transaction's snapshot (``pg_export_snapshot``): this one sees the same.
    :param reads: the SELECTs to be read, by table. Everything that they mention is locked before the snapshot is taken,
        and stays locked until the transaction ends. After reading them, call :meth:`prove` before the rows are trusted.
        See :class:`~clinic_backups.tenant.table_locks.TableLocks`.
    :param pause: sleeps between two attempts to lock. If it raises, the attempts end.
    :param kept: opens the connection, and gets it back after a use without an error.
    :param beside: opens further connections to the same database; by default, they are kept until this one ends.
    :param standby_of_primary: if the server is a standby, its sender is the primary and no other standby.
    :param with_version: also read the version of the definitions, in the same round trip as the locks.
    :param trusted_owners: see :mod:`clinic_backups.tenant.strangers`.
    :ivar beside: opens the further connections to the same database that are needed beside this one.
    """

    READ_ONLY = True
    SOURCE: SqlOrigin = "own"

    def __init__(
        self,
        connection: Connection,
        *,
        statement_timeout_seconds: int = 6 * 3600,
        lock_timeout_seconds: int = 60,
        same_as: str | None = None,
        reads: Mapping[str, str] | None = None,
        pause: Callable[[float], object] = time.sleep,
        kept: KeptConnections | None = None,
        beside: KeptConnections | None = None,
        with_version: bool = False,
        standby_of_primary: bool = False,
        trusted_owners: Sequence[str] = (),
    ) -> None:
        self.trusted_owners = tuple(trusted_owners)
        self._direct = standby_of_primary
        self._connection, self._kept = connection, kept or KeptConnections()
        self.beside = beside or KeptConnections()
        self._with_version = with_version
        self._same_as, self._reads, self._pause = same_as, reads, pause
        self._lock_timeout_seconds = lock_timeout_seconds
        self._settings = SESSION | {
            "statement_timeout": f"{statement_timeout_seconds}s",
            "lock_timeout": f"{lock_timeout_seconds}s",
        }
        self._locks: TableLocks | None = None
        self._may_wait = False

    def __enter__(self) -> Self:
        self._db = self._kept.take(self._connection, self._open)
        try:
            self._db.set_session(isolation_level="REPEATABLE READ", readonly=self.READ_ONLY, deferrable=False)
            if self._reads is not None:
                self._locks = TableLocks(
                    self._db,
                    self._reads,
                    self._settings,
                    lock_timeout_seconds=self._lock_timeout_seconds,
                    same_as=self._same_as,
                    pause=self._pause,
                    with_version=self._with_version,
                    direct=self._direct,
                )
                self._locks.take()
            else:
                self._begin(self._same_as)
        except psycopg2.Error as error:
            self._db.close()
            require_exported(error, self._same_as)
            raise_database_error(error, "opening the snapshot")
        except BaseException:
            self._db.close()
            raise
        return self

    @staticmethod
    def _open(connection: Connection) -> WatchedConnection:
        return connect(connection)

    def _begin(self, same_as: str | None) -> None:
        with self._db.cursor() as cursor:
            if same_as is not None:
                cursor.execute("SET TRANSACTION SNAPSHOT %s", (same_as,))
            cursor.execute(session_settings(cursor, self._settings))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        # Nothing was written, so it is enough to close the connection or to roll back.
        if error is None:
            self._kept.give_back(self._connection, self._db)
        else:
            self._db.close()

    @property
    def host(self) -> str:
        """The host, or the folder of the socket, that the connection has reached."""
        return str(self._db.info.host)

    @property
    def port(self) -> int:
        """The port that the connection has reached."""
        return int(self._db.info.port)

    def prove(self) -> None:
        """Call this after the last of the ``reads``: check that relations read without a lock did not change.

        :raises TransientError: one changed, so it may have looked empty.
        """
        if self._locks is not None:
            self._locks.prove(lambda: self.beside.borrowed(self._connection))
            if not self.READ_ONLY:
                wait = self._settings["lock_timeout"]
                self.rows("SELECT set_config('lock_timeout', %(wait)s, true)", {"wait": wait}, "beginning to write")
                self._may_wait = True

    def prove_and_end(self) -> None:
        """:meth:`prove`, then :meth:`end`, over the only connection. :raises TransientError: see there."""
        if self._locks is not None:
            self._locks.prove(None)
        self.end()

    def require_settings(self, doing: str) -> None:
        """:raises PermanentError: code of the database has changed a setting on which the texts of values depend."""
        if changed := [name for (name,) in self.rows(catalog_query("changed_settings"), held_values(), doing)]:
            with self._db.cursor() as cursor:
                raise settings_changed(cursor, changed, doing)

    def end(self) -> None:
        """End the transaction and thus all its locks. Call :meth:`renew` before the next statement."""
        self._locks = None
        try:
            self._db.rollback()
        except psycopg2.Error as error:
            raise_database_error(error, "ending the snapshot")

    def renew(self) -> None:
        """End the transaction and begin one without locks and with a new snapshot."""
        self.end()
        try:
            self._begin(None)
        except psycopg2.Error as error:
            raise_database_error(error, "opening a fresh snapshot")

    def replayed(self) -> Replayed:
        """The server's answer about the time of its data; with ``reads``, just before the snapshot was taken."""
        if self._locks is not None and self._locks.replayed is not None:
            return self._locks.replayed
        doing = "asking for the data's time"
        ((standby, now),) = self.rows("SELECT pg_is_in_recovery(), clock_timestamp()", None, doing)
        values = {"direct": self._direct}
        ((replayed_at,),) = self.rows(catalog_query("replayed"), values, doing) if standby else ((None,),)
        return Replayed(standby, now, replayed_at)

    @property
    def version(self) -> Version | None:
        """The version of all definitions in this snapshot; unknown without ``reads`` and after :meth:`end`."""
        return self._locks.version if self._locks is not None else None

    def definitions(self) -> str:
        """The version of all definitions in this snapshot as a text, which is the same on each host of a server."""
        if self.version is not None:
            return str(self.version[-1])
        ((version,),) = self.rows(catalog_query("version"), None, "reading the version of the definitions")
        return str(version)

    def time(self) -> datetime:
        """The server's clock now."""
        ((now,),) = self.rows("SELECT clock_timestamp()", None, "asking for the time")
        told: datetime = now
        return told.astimezone(UTC)

    def cancel(self) -> None:
        """Cancel the running statement, from another thread; returns within seconds."""
        self._db.stop()

    def not_waiting(self) -> contextlib.AbstractContextManager[None]:
        """While rows are read, this process works itself, so the server's silence proves nothing."""
        return self._db.not_waiting()

    def rows(
        self,
        query: str | sql.Composable,
        values: Mapping[str, Any] | None,
        doing: str,
        *,
        source: SqlOrigin | None = None,
    ) -> list[tuple[Any, ...]]:
        """All rows of a small query. :param source: whose SQL it is, for the error's remedy."""
        try:
            with self._db.cursor() as cursor:
                cursor.execute(self._as_sent(query), values)
                return cursor.fetchall()
        except psycopg2.Error as error:
            self._raise(error, doing, source)

    def columns_of(self, query: str, doing: str) -> list[tuple[str, int]]:
        """The names and types of a query's columns."""
        with self._db.cursor() as cursor:
            try:
                cursor.execute(self._as_sent(f"SELECT * FROM (\n{query}\n) AS q LIMIT 0"))  # noqa: S608
            except psycopg2.Error as error:
                self._raise(error, doing)
            return [(column.name, column.type_code) for column in cursor.description or ()]

    def _as_sent(self, statement: str | sql.Composable) -> str | sql.Composable:
        """It sets this package's search path first, because code that a statement ran may have set another one."""
        own = self._before_each()
        return own + statement if isinstance(statement, str) else sql.SQL(own) + statement

    def _before_each(self) -> str:
        return f"{IN_OWN_PATH}; "

    def _raise(self, error: psycopg2.Error, doing: str, source: SqlOrigin | None = None) -> NoReturn:
        if self._locks is not None and not self._may_wait:
            require_unlocked(error, doing)
        raise_database_error(error, doing, source=source or self.SOURCE)

    @contextlib.contextmanager
    def savepoint(self, setting: str = "") -> Iterator[None]:
        """A statement that fails inside leaves the snapshot usable. Settings and locks from inside end with it.

        :param setting: a SET LOCAL for what is inside.
        """
        self._execute(f"SAVEPOINT clinic_backups; {setting}", "setting a savepoint")
        back = "ROLLBACK TO SAVEPOINT clinic_backups; RELEASE SAVEPOINT clinic_backups"
        with afterwards(lambda: self._execute(back, "going back to the savepoint")):
            yield

    def rows_within(
        self, seconds: float, query: str | sql.Composable, doing: str, *, extracts: Mapping[str, str] | None = None
    ) -> list[tuple[Any, ...]] | None:
        """All rows of a small query, or ``None`` if it takes longer than that.

        :param extracts: the extracts in the query, by ``schema.table``.
        """
        with self.savepoint(f"SET LOCAL statement_timeout = '{float(seconds)}s'"):
            try:
                sent = self._as_sent(query)
                text = sent if isinstance(sent, str) else sent.as_string(self._db)
                with self._db.cursor() as cursor:
                    cursor.execute(text)
                    return cursor.fetchall()
            except psycopg2.errors.QueryCanceled:
                return None
            except psycopg2.Error as error:
                if extracts:
                    require_column(error, extracts, text)
                self._raise(error, doing, "extract" if extracts else None)

    def text_of(self, query: sql.Composable) -> str:
        """The text of a query, for a person to run."""
        return str(query.as_string(self._db))

    def _execute(self, statement: str, doing: str) -> None:
        try:
            with self._db.cursor() as cursor:
                cursor.execute(statement)
        except psycopg2.Error as error:
            raise_database_error(error, doing, source=self.SOURCE)

    def tables(self, names: Sequence[str]) -> dict[str, Table]:
        """PostgreSQL's description of these tables. :raises PermanentError: some are missing or may not be read."""
        return described_tables(self.rows, names)

    def relations(self) -> dict[str, bool]:
        """Every table of the database by ``schema.table``, and whether it is partitioned."""
        return dict(self.rows(catalog_query("relations"), None, "reading the catalog"))

    def create_index(self, table: str, columns: Sequence[str], *, partitioned: bool = False) -> str:
        """The statement that creates an index. An index of a partitioned table cannot be created concurrently."""
        statement = sql.SQL("CREATE INDEX {how}ON {table} ({columns});").format(
            how=sql.SQL("" if partitioned else "CONCURRENTLY "),
            table=qualified(table),
            columns=sql.SQL(", ").join(map(sql.Identifier, columns)),
        )
        text: str = statement.as_string(self._db)
        return text

    def copy(self, table: Table, extract: str, write: RowSink, *, first: str = "") -> None:
        """Call ``write`` with each CSV row of one table. An error of ``write`` is raised unchanged.

        :param first: a column of the extract that the rows are ordered by before, quoted.
        """
        statement = str(self._as_sent(copy_statement(table, extract, first=first)))
        try:
            with self._db.cursor() as cursor:
                cursor.copy_expert(statement, _Writer(write), size=1 << 16)
        except psycopg2.Error as error:
            require_column(error, {table.name: extract}, statement)
            if self._locks is not None:
                require_present(error, f"reading {table.name}")
            raise_database_error(error, f"reading {table.name}", source="extract")

    def mention(self, query: str) -> None:
        """Lock everything that a query mentions, as far as that is possible at once. It is neither planned nor run.

        To be called inside of :meth:`savepoint`, which ends the locks.
        """
        # In a statement of its own: an extract that is no valid SQL would take the savepoint along.
        self._execute(f"SAVEPOINT mention; SET LOCAL lock_timeout = '{PREPARE_LOCK_WAIT_MS}ms'", "setting a savepoint")
        with contextlib.suppress(psycopg2.Error), self._db.cursor() as cursor:
            cursor.execute(self._as_sent(prepare_statement(query)))
            cursor.execute("RELEASE SAVEPOINT mention")
            return
        self._execute("ROLLBACK TO SAVEPOINT mention; RELEASE SAVEPOINT mention", "going back to the savepoint")

    def probe(self, table: Table, extract: str) -> None:
        """Run an extract for its first row only. :raises PermanentError: it fails or lacks a column of the table."""
        statement = str(self._as_sent(probe_statement(table, extract)))
        doing = f"trying the extract of {table.name}"
        try:
            with self._db.cursor() as cursor:
                cursor.execute(statement)  # a %% in an extract is no placeholder when there are no values
        except psycopg2.Error as error:
            require_column(error, {table.name: extract}, statement)
            self._raise(error, doing, "extract")


class _Writer:
    """The file-like object that psycopg2 needs. It looks ``write`` up once and calls it for each row."""

    def __init__(self, write: Callable[[bytes], object]) -> None:
        self.write = write
