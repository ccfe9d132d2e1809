"""The single transaction of a restore. Its temporary tables vanish when it ends."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from functools import cached_property
from types import TracebackType
from typing import Any, Self, cast

import psycopg2
from psycopg2 import sql

from clinic_backups.base.connections import Connection
from clinic_backups.base.database import connect, session_settings
from clinic_backups.base.database_errors import SqlOrigin, raise_database_error
from clinic_backups.base.errors import ClinicBackupsError, PermanentError, afterwards
from clinic_backups.base.search_path import APPLICATION_PATH
from clinic_backups.base.silence import WatchedConnection
from clinic_backups.base.table import Table
from clinic_backups.restore.seals import Seals
from clinic_backups.restore.writing import event_triggers
from clinic_backups.restore.writing.changes import Changes, Writes, changes, written
from clinic_backups.stores.base import ByteSource
from clinic_backups.tenant.copy_statement import require_column
from clinic_backups.tenant.session_settings import HELD
from clinic_backups.tenant.tenant_db import Snapshot


def columns_of(names: Sequence[str], alias: str | None = None) -> sql.Composed:
    """A list of columns, qualified with the alias if there is one."""
    return sql.SQL(", ").join(sql.Identifier(alias, name) if alias else sql.Identifier(name) for name in names)


def row_text(names: Sequence[str], alias: str) -> sql.Composed:
    """A whole row as one text. Two are equal exactly if the texts of all columns are; NULL differs from ``''``."""
    return sql.SQL("ROW({})::pg_catalog.text").format(columns_of(names, alias))


def equal_texts(name: str, left: str, right: str) -> sql.Composed:
    """Two aliases have the same value in a column, which is not NULL.

    A cast to text may be a function of the application (``CREATE CAST``). A row's text never is. IS NOT NULL would look
    into a composite value.
    """
    return sql.SQL('(num_nulls({}) = 0 AND {} = {} COLLATE "C")').format(
        sql.Identifier(left, name), row_text([name], left), row_text([name], right)
    )


class Workspace(Snapshot):
    """A REPEATABLE READ transaction that may write. It ends with :meth:`commit`, or is rolled back.

    It does not see what others commit meanwhile. If it writes a row that others have written meanwhile, it fails and
    nothing is changed.

    :ivar began: the server's counts at its beginning, before any query was planned.
    :ivar taken_back: its counts of what :meth:`as_application` rolled back.
    :ivar logged: its counts of what event triggers wrote because of the definitions that were made.
    :ivar beside: it keeps a connection for the next use, first the reader's, which took the exported snapshot and so is
        certainly in the same database.
    :ivar seals: what its temporary tables hold.
    """

    READ_ONLY = False
    SOURCE: SqlOrigin = "restore"
    began: Changes
    _views = 0
    _has_other_path = False
    _renews = False
    """Whether code of the application ran as intended, so that settings may have changed and are set again."""

    def __enter__(self) -> Self:
        super().__enter__()
        self.taken_back: Writes = Counter()
        self.logged: Writes = Counter()
        self.seals = Seals(self.rows)
        try:
            self._require_counts()
            self.began = changes(self.rows)
        except BaseException:
            self._db.close()
            raise
        self._keeping = ExitStack()
        self._keeping.enter_context(self.beside.keeping())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        with self._keeping:
            super().__exit__(kind, error, traceback)

    def begin_anew(self) -> None:
        """What was written so far is not part of what :class:`OnlyPlanned` counts."""
        self.began = changes(self.rows)
        self.taken_back, self.logged = Counter(), Counter()

    def _require_counts(self) -> None:
        """:raises PermanentError: the server does not count writes, so nothing could be proven."""
        ((counts,),) = self.rows("SHOW track_counts", None, "asking for track_counts")
        if counts != "on":
            raise PermanentError(
                "The server does not count writes (track_counts is off), and a restore cannot be proven without that.",
                hint="ALTER ROLE <role of restore_db> SET track_counts = on; a superuser may.",
            )

    @staticmethod
    def _open(connection: Connection) -> WatchedConnection:
        return connect(connection, own_path=False)  # the session's default is the application's path

    @property
    def connection(self) -> Any:
        """The driver's connection, for quoting."""
        return self._db

    @contextmanager
    def attempt(self) -> Iterator[None]:
        """A savepoint. If the block fails, the transaction is as before; if it succeeds, its changes stay."""
        renews = self._renews
        self._execute("SAVEPOINT attempt", "setting a savepoint")
        try:
            yield
        except BaseException:
            self._take_back(renews)
            raise
        self._execute("RELEASE SAVEPOINT attempt", "releasing the savepoint")

    def _take_back(self, renews: bool) -> None:
        self._renews = renews
        with suppress(ClinicBackupsError):  # without a connection there is nothing to go back to
            back = "ROLLBACK TO SAVEPOINT attempt; RELEASE SAVEPOINT attempt"
            self._execute(back, "going back to the savepoint")

    @contextmanager
    def savepoint(self, setting: str = "") -> Iterator[None]:
        """As of a snapshot."""
        renews = self._renews
        with super().savepoint(setting):
            yield
        self._renews = renews

    def execute(self, statement: sql.Composable | str, doing: str, values: Sequence[Any] | None = None) -> int:
        """Run a statement; returns the number of rows."""
        try:
            with self._db.cursor() as cursor:
                cursor.execute(self._as_sent(statement), values)
                return int(cursor.rowcount)
        except psycopg2.Error as error:
            raise_database_error(error, doing, source=self.SOURCE)

    def _before_each(self) -> str:
        """Nothing in the application's path, else this package's path, and its settings if others may have changed."""
        if self._has_other_path:
            return ""
        own = super()._before_each()
        if self._renews:
            with self._db.cursor() as cursor:
                own += f"{session_settings(cursor, HELD)}; "
            self._renews = False
        return own

    def role(self) -> str:
        """The writing role, quoted for SQL."""
        ((role,),) = self.rows("SELECT quote_ident(current_user)", None, "asking for the role")
        return str(role)

    def export(self) -> str:
        """Export the snapshot; returns its name for another transaction."""
        ((name,),) = self.rows("SELECT pg_export_snapshot()", None, "exporting the snapshot")
        return str(name)

    def stage(self, name: str, columns: Sequence[tuple[str, str]]) -> sql.Identifier:
        """Make an empty temporary table of columns and types; returns its quoted name."""
        described = sql.SQL(", ").join(
            sql.SQL("{} {}").format(sql.Identifier(column), sql.SQL(type_)) for column, type_ in columns
        )
        statement = sql.SQL("CREATE TEMPORARY TABLE {} ({}) ON COMMIT DROP").format(sql.Identifier(name), described)
        self.define(statement, f"making the temporary table {name}", names_only=True)
        made = sql.Identifier("pg_temp", name)
        self.seals.made(made)
        return made

    def derive(self, name: str, query: sql.Composable, doing: str) -> sql.Identifier:
        """Make a temporary table from a query; returns its quoted name."""
        made = sql.Identifier("pg_temp", name)
        statement = sql.SQL("CREATE TEMPORARY TABLE {} ON COMMIT DROP AS {}").format(sql.Identifier(name), query)
        with self.attempt():
            if not self._event_triggers.triggers:
                rows = self.execute(statement, doing)
            else:
                # The query may run code of the application. What that writes must not count as written by event
                # triggers.
                self.define(sql.SQL("{} WITH NO DATA").format(statement), doing)
                rows = self.execute(sql.SQL("INSERT INTO {} {}").format(made, query), doing)
        self.seals.made(made, rows)
        return made

    def analyze(self, doing: str, *tables: tuple[sql.Identifier, Sequence[str]]) -> None:
        """Give the planner rough statistics of temporary tables.

        :param tables: each with the columns of its joins; by default all columns.
        """
        if not tables:
            return
        each = sql.SQL(", ").join(
            sql.SQL("{} ({})").format(table, columns_of(columns)) if columns else table for table, columns in tables
        )
        self.execute(sql.SQL("SET LOCAL default_statistics_target = 5; ANALYZE {}").format(each), doing)

    @contextmanager
    def application_path(self) -> Iterator[None]:
        """Use the application's search path, because functions of types, indexes and triggers look up tables by it.

        Whoever may create objects in one of its schemas can make an operator or a function that fits some types better
        than PostgreSQL's. So a statement in the block has no operator, function, cast or type without its schema. Put
        everything else into a view: see :meth:`view`.
        """
        if not self._renews:
            self.require_settings("comparing the clinic with the backup")
        self.execute(APPLICATION_PATH, "setting the search path")
        self._has_other_path = True
        try:
            yield
        finally:
            self._has_other_path, self._renews = False, True

    def renew_settings(self, *, code_ran: bool) -> None:
        """Set the settings again if code of the application has run as intended, which may use SET.

        :param code_ran: such code has run in statements that only look up this package's names, such as triggers.
        """
        self._renews = self._renews or code_ran
        if self._renews:
            self.execute("SELECT", "setting the settings again")

    def view(self, query: sql.Composable, doing: str, columns: int = 0) -> sql.Identifier:
        """Make a temporary view; returns its quoted name.

        A view holds its operators, functions and types by number. So it can be read by the application's search path.

        :param columns: give the first columns the names c0, c1 and so on.
        """
        self._views += 1
        name = f"view_{self._views}"
        names = (
            sql.SQL("({})").format(columns_of([f"c{number}" for number in range(columns)])) if columns else sql.SQL("")
        )
        self.define(sql.SQL("CREATE TEMPORARY VIEW {} {} AS {}").format(sql.Identifier(name), names, query), doing)
        return sql.Identifier("pg_temp", name)

    def remake(self, table: sql.Identifier, query: sql.Composable, doing: str) -> None:
        """Replace a temporary table by the result of a query of it that calls functions of the application."""
        self.seals.require(table)
        view, name = self.view(query, doing), str(table.strings[-1])
        with self.application_path():
            made = self.derive(f"new_{name}", sql.SQL("SELECT * FROM {}").format(view), doing)
        self.seals.keep(made)
        self.define(sql.SQL("DROP VIEW {}").format(view), doing, names_only=True)
        self.define(sql.SQL("DROP TABLE {}").format(table), doing, names_only=True)
        renaming = sql.SQL("ALTER TABLE {} RENAME TO {}").format(made, sql.Identifier(name))
        self.define(renaming, doing, names_only=True)
        self.seals.renamed(made, table)

    def as_application(self, query: sql.Composable, columns: int, doing: str) -> list[tuple[Any, ...]]:
        """All rows of a query whose expressions call functions of the application. It writes nothing.

        Its own operators and functions are looked up in pg_catalog, and the application's search path is only for the
        bodies of the application's functions. Whatever they write is rolled back.

        :param columns: the number of columns of the query.
        """
        before, logged = written(self.rows), Counter(self.logged)

        def count() -> None:
            self.taken_back.update(written(self.rows) - before - (self.logged - logged))

        with afterwards(count), self.savepoint():
            view = self.view(query, doing, columns)
            with self.application_path():
                return self.rows(sql.SQL("SELECT * FROM {}").format(view), None, doing)

    @cached_property
    def _event_triggers(self) -> event_triggers.EventTriggers:
        return event_triggers.read(lambda query, values: self.rows(query, values, "reading event triggers"))

    def define(self, statement: sql.Composable, doing: str, *, names_only: bool = False) -> None:
        """Make or change a temporary table or view.

        If an event trigger forbids that, or fails, and the role may, event triggers are disabled for it.

        :param names_only: the statement has no operator or function, unless their schema is named.
        """
        if not self._event_triggers.triggers:
            self._attempted(statement, doing)
            return
        with self._logging():
            try:
                self._define_for_event_triggers(statement, doing, names_only)
            except PermanentError as error:
                self._define_in_spite(statement, doing, error)

    def _attempted(self, statement: sql.Composable, doing: str) -> None:
        """As :meth:`attempt` with one statement, in one round trip."""
        renews = self._renews
        all_in_one = sql.SQL("SAVEPOINT attempt; {}{}; RELEASE SAVEPOINT attempt")
        try:
            with self._db.cursor() as cursor:
                cursor.execute(all_in_one.format(sql.SQL(self._before_each()), statement))
        except psycopg2.Error as error:
            self._take_back(renews)
            raise_database_error(error, doing, source=self.SOURCE)

    def define_for_good(self, statement: sql.Composable, doing: str, what: str, *, names_only: bool = True) -> None:
        """Make or change something that others use too. Event triggers may forbid it.

        :param what: what a restore does there, for people.
        :param names_only: as of :meth:`define`.
        """
        if not self._event_triggers.triggers:
            self.execute(statement, doing)
            return
        with self._logging():
            try:
                self._define_for_event_triggers(statement, doing, names_only)
            except PermanentError as error:
                raise self._event_triggers.explained(error, what) from None

    @contextmanager
    def _logging(self) -> Iterator[None]:
        """Count what event triggers write in the block, in which no other code of the application runs."""
        before = written(self.rows)
        with afterwards(lambda: self.logged.update(written(self.rows) - before)):
            yield

    def _define_for_event_triggers(self, statement: sql.Composable, doing: str, names_only: bool) -> None:
        """Event triggers look up their tables by the search path at this moment."""
        found, had_other_path = self._event_triggers, self._has_other_path
        switches = (names_only or found.is_safe) and not had_other_path
        with self.attempt():
            if switches:
                self.execute(event_triggers.path_of(found), "setting the search path")
                self._has_other_path = True
            try:
                self.execute(statement, doing)
            finally:
                self._has_other_path = had_other_path

    def _define_in_spite(self, statement: sql.Composable, doing: str, error: PermanentError) -> None:
        try:
            with self.attempt():
                self.execute("SET LOCAL session_replication_role = replica", "keeping event triggers quiet")
                self.execute(statement, doing)
                self.execute("SET LOCAL session_replication_role = origin", "ending the quiet of triggers")
        except PermanentError:
            raise self._event_triggers.explained(error, "makes temporary tables and views") from None

    def copy_in(self, target: sql.Identifier, columns: Sequence[str], source: ByteSource, doing: str) -> int:
        """``COPY`` CSV into a temporary table; returns the number of rows."""
        statement = sql.SQL("COPY {} ({}) FROM STDIN (FORMAT csv)").format(target, columns_of(columns))
        try:
            with self._db.cursor() as cursor:
                cursor.copy_expert(self._as_sent(statement), cast(Any, source), size=1 << 16)
                self.seals.wrote(target, inserted=int(cursor.rowcount))
                return int(cursor.rowcount)
        except psycopg2.Error as error:
            raise_database_error(error, doing, source=self.SOURCE)

    def stage_extract(self, target: sql.Identifier, table: Table, columns: Sequence[str], extract: str) -> int:
        """Fill a temporary table with the clinic's present rows."""
        statement = sql.SQL("INSERT INTO {} ({}) SELECT {} FROM (\n{}\n) AS r").format(
            target, columns_of(columns), columns_of(columns, "r"), sql.SQL(extract)
        )
        text = str(self._as_sent(statement.as_string(self._db)))
        try:
            with self._db.cursor() as cursor:
                cursor.execute(text)
                self.seals.wrote(target, inserted=int(cursor.rowcount))
                return int(cursor.rowcount)
        except psycopg2.Error as error:
            require_column(error, {table.name: extract}, text)
            raise_database_error(error, f"reading {table.name}", source="extract")

    def commit(self) -> None:
        """Commit. Code that runs only then, such as a deferred trigger or a held cursor, may write nothing any more."""
        self.execute("SET TRANSACTION READ ONLY", "ending the writing")
        try:
            self._db.commit()
        except psycopg2.Error as error:
            raise_database_error(error, "committing the restore", source=self.SOURCE)
