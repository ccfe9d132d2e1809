"""Locks all tables that some queries read, before the snapshot, and checks at the end that no others were read.

A REPEATABLE READ snapshot alone is not enough: TRUNCATE, or an ALTER TABLE that rewrites, makes a table look empty to
every older snapshot (PostgreSQL manual, "Caveats" of MVCC). See docs/decisions/0010-locks-before-the-snapshot.md.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from typing import Any

import psycopg2
import psycopg2.errors

from clinic_backups.base.database import session_settings
from clinic_backups.base.database_errors import TRANSIENT_CLASSES, raise_database_error
from clinic_backups.base.errors import PermanentError, TransientError, afterwards
from clinic_backups.base.search_path import IN_OWN_PATH
from clinic_backups.tenant.definitions import Definitions
from clinic_backups.tenant.function_tables import named_in_functions
from clinic_backups.tenant.lock_errors import MISSING, definition_changed, require_exported, still_locked
from clinic_backups.tenant.pg_catalog import catalog_query
from clinic_backups.tenant.schema_memory import MEMORY, Version, shape_of
from clinic_backups.tenant.session_settings import changed_by_code, held_values

PREPARE_LOCK_WAIT_MS = 100
"""Less than PostgreSQL's deadlock_timeout, so that a migration that waits for our locks never reports a deadlock."""
MAX_ATTEMPTS = 10
"""How often the locks are taken again if a table was renamed or dropped meanwhile."""
SAVEPOINT = "clinic_backups_begun"


@dataclass(frozen=True)
class Replayed:
    """A server's answer about the time of its data."""

    standby: bool
    now: datetime
    replayed_at: datetime | None
    """None if the server is not a standby, or is one that does not know."""


@cache
def _locked(*, with_version: bool) -> str:
    """Oids of locked relations, whether it is a standby, the transaction's start, and the definitions' version."""
    version = catalog_query("version") if with_version else "SELECT NULL"
    return (
        f"WITH mentioned (names, locked) AS ({catalog_query('mentioned')}), version (version) AS ({version})"  # noqa: S608
        " SELECT locked, pg_is_in_recovery(), transaction_timestamp(), version FROM mentioned, version"
    )


class _Busy(Exception):
    """A table is locked by another session, for now."""


class TableLocks:
    """ACCESS SHARE on every relation that ``queries`` mention: tables, those below views, partitions and children.

    :meth:`take` begins a transaction of ``db``. It takes the locks first and the snapshot second, so the snapshot shows
    each locked table as it is. While it waits for a lock of somebody else, it holds none, so a migration never has a
    deadlock with a backup. :meth:`prove` is for the end of reading. It checks what was read without a lock: tables that
    a function reads or may have read, materialized views, functions and enums. They must be now as the snapshot shows
    them.

    The relations that the queries mention are looked up once for each version of the definitions. For the next clinic
    the same relations are locked at once. If the snapshot then shows another version, they are looked up again.

    :param db: a connection outside of a transaction, REPEATABLE READ.
    :param queries: a SELECT by the name that errors use.
    :param settings: of the session, set with each transaction.
    :param same_as: the name of an exported snapshot; otherwise a new one is taken.
    :param direct: see :class:`~clinic_backups.tenant.tenant_db.Snapshot`.
    :param with_version: also read the version of the definitions for the first backup of a process.
    """

    def __init__(
        self,
        db: Any,
        queries: Mapping[str, str],
        settings: Mapping[str, str],
        *,
        lock_timeout_seconds: float,
        same_as: str | None = None,
        pause: Callable[[float], object] = time.sleep,
        with_version: bool = False,
        direct: bool = False,
    ) -> None:
        self._direct = direct
        self._db, self._queries, self._settings, self._same_as = db, queries, settings, same_as
        # Also while tables are read, because a function may need a table of a migration that waits for our locks.
        self._hasty = dict(settings) | {"lock_timeout": f"{PREPARE_LOCK_WAIT_MS}ms"}
        self._seconds, self._pause = lock_timeout_seconds, pause
        self._held: list[int] = []
        self._shape: str | None = None
        self._were_there = False
        info = db.info
        self._place = (info.host, info.port, info.dbname, info.user)
        self._question = ("mentioned", self._place, shape_of(queries))
        self.version: Version | None = None
        """Version of the definitions in the snapshot. The first backup of a process reads it only if told to."""
        self._asks_version = MEMORY.is_used() or with_version
        self._names: list[str] = []
        self.replayed: Replayed | None = None
        """The server's statement just before the snapshot was taken."""

    def take(self) -> None:
        """Begin the transaction: locks, then the snapshot.

        :raises TransientError: the waits for locked tables together exceeded the lock timeout; or a table or column
            existed at first but is gone now.
        :raises PermanentError: an extract names something that does not exist or may not be read.
        """
        deadline = time.monotonic() + self._seconds
        pause, attempt = 0.02, 0
        names: list[str] = []
        if self._taken_as_before():
            return
        while True:
            try:
                names = self._mentioned()
                self._lock(names)
                return
            except _Busy:
                self._db.rollback()
                if time.monotonic() >= deadline:
                    raise self._still_locked(names) from None
                self._pause(pause)
                pause = min(2 * pause, 0.25)
            except MISSING as error:
                require_exported(error, self._same_as)
                # Renamed or dropped between the two transactions.
                self._db.rollback()
                attempt += 1
                if attempt >= MAX_ATTEMPTS:
                    raise_database_error(error, "locking the tables of the extracts", source="extract")
            except psycopg2.Error as error:
                require_exported(error, self._same_as)
                raise_database_error(error, "locking the tables of the extracts", source="extract")

    def _taken_as_before(self) -> bool:
        """Lock the relations that these queries read last time.

        False, without any lock, if they are unknown or out of date.
        """
        known = MEMORY.any(self._question)
        if known is None or self._same_as is not None:
            return False
        version, names = known
        try:
            self._begin(names)
            # A standby is asked for its replayed moment before the snapshot.
            if self.version == version and self.replayed is not None and not self.replayed.standby:
                return True
        except psycopg2.Error:
            pass  # Locked, renamed, dropped or refused. The full procedure finds out which.
        self._db.rollback()
        MEMORY.forget(self._question)
        return False

    def prove(self, another: Callable[[], AbstractContextManager[Any]] | None) -> None:
        """Check at the end of reading that no unlocked relation changed.

        :param another: gives another connection to the same database, whose snapshot shows the present state. None: the
            transaction may be ended, and its next one shows that. In that case the transaction always ends.
        :raises TransientError: a table that was not locked from the beginning changed between the snapshot and its
            first use, so it may have looked empty; or a function or a type has changed.
        :raises PermanentError: code that was run has changed a setting on which the texts of values depend.
        """
        try:
            with self._db.cursor() as cursor:
                late_ones = catalog_query("late", changed_settings="changed_settings")
                cursor.execute(f"{IN_OWN_PATH}; {late_ones}", {"held": self._held} | held_values())
                late, changed = cursor.fetchone()
                if changed:
                    raise settings_changed(cursor, changed, "tables were read")
                named = self._named_in_functions(cursor, late or ())
                # What was locked from the beginning cannot have changed.
                read = sorted({*(late or ()), *(set(named) - {*self._held})})
                seen = Definitions.read(cursor, read, MEMORY.get(("unlocked", self._place), self.version))
            MEMORY.keep(("unlocked", self._place), self.version, seen.unlocked)
            if self._names and not late:
                # No other relation was read, so the kept list is complete.
                MEMORY.keep(self._question, self.version, self._names)
            if another is None:
                self._db.rollback()
            if not read and not seen.unlocked:
                return
            if another is None:
                with afterwards(self._db.rollback):
                    now = self._now(self._db, seen, read)
            else:
                with another() as other:
                    other.set_session(isolation_level="REPEATABLE READ", readonly=True, deferrable=False)
                    now = self._now(other, seen, read)
        except psycopg2.Error as error:
            raise_database_error(error, "comparing the tables with the snapshot")
        seen.require_same(now)

    def _named_in_functions(self, cursor: Any, late: Sequence[int]) -> list[int]:
        """Relations that functions may have read, whether a lock still shows it or not."""
        question = ("named in functions", self._question)
        known: list[int] | None = MEMORY.get(question, self.version)
        if known is None:
            known = named_in_functions(cursor, self._queries.values(), {*self._held, *late})
            MEMORY.keep(question, self.version, known)
        return known

    def _now(self, db: Any, seen: Definitions, read: Sequence[int]) -> Definitions:
        with db.cursor() as cursor:
            cursor.execute(session_settings(cursor, self._settings))
            return seen.now(cursor, read)

    def _mentioned(self) -> list[str]:
        """The relations that the queries mention, by their quoted names."""
        with self._db.cursor() as cursor:
            try:
                # One round trip. A PREPARE looks up names and opens views like running the query, but reads no row.
                statements = [session_settings(cursor, self._hasty), f"SAVEPOINT {SAVEPOINT}", *self._prepares()]
                cursor.execute("; ".join([*statements, catalog_query("mentioned")]))
                names, _, standby, now = cursor.fetchone()
                replayed_at = None
                if standby:
                    cursor.execute(catalog_query("replayed"), {"direct": self._direct})
                    (replayed_at,) = cursor.fetchone()
            except psycopg2.errors.LockNotAvailable:
                self._note_shape()
                raise _Busy from None
            except psycopg2.errors.Error as error:
                if not error.pgcode or error.pgcode.startswith(TRANSIENT_CLASSES):
                    raise
                self._note_shape()
                self._explain(error)
        self.replayed, self._were_there = Replayed(standby, now, replayed_at), True
        self._db.rollback()
        return list(names or ())

    def _lock(self, names: list[str]) -> None:
        """Lock all relations, or if that is refused, those that can be locked. The others are checked at the end."""
        refused = (psycopg2.errors.InsufficientPrivilege, psycopg2.errors.WrongObjectType)
        try:
            try:
                self._begin(names)
                self._names = names
            except refused:
                self._db.rollback()
                with self._db.cursor() as cursor:
                    cursor.execute(catalog_query("lockable"), {"names": names})
                    some = [name for (name,) in cursor.fetchall()]
                self._db.rollback()
                try:
                    self._begin(some, prepare=True)
                except refused:
                    # A view may read tables that its owner may read but not lock.
                    self._db.rollback()
                    self._begin([], prepare=True)
        except psycopg2.errors.LockNotAvailable:
            raise _Busy from None

    def _begin(self, names: Sequence[str], *, prepare: bool = False) -> None:
        """Locks, snapshot and settings in one round trip; then open what is not locked yet."""
        with self._db.cursor() as cursor:
            statements = [f"LOCK TABLE {', '.join(names)} IN ACCESS SHARE MODE NOWAIT"] if names else []
            if self._same_as is not None:
                statements.append(cursor.mogrify("SET TRANSACTION SNAPSHOT %s", (self._same_as,)).decode())
            # The first SELECT takes the snapshot: LOCK TABLE does not.
            statements += [session_settings(cursor, self._hasty), _locked(with_version=self._asks_version)]
            cursor.execute("; ".join(statements))
            locked, standby, began, version = cursor.fetchone()
            self.version = (*self._place, version) if version is not None else None
            if self.replayed is None:
                self.replayed = Replayed(standby, began, None)
            # An imported snapshot may be older than these locks, so all relations are checked at the end.
            self._held = list(locked or ()) if self._same_as is None else []
            if prepare:
                cursor.execute("; ".join(self._prepares()))

    def _prepares(self) -> list[str]:
        return [prepare_statement(query) for query in self._queries.values()]

    def _explain(self, error: psycopg2.Error) -> None:
        """Find out which extract cannot run, or whether a table has changed just now."""
        before = self._shape
        self._db.rollback()
        guilty, found = "the extracts", error
        for table, query in self._queries.items():
            try:
                with afterwards(self._db.rollback), self._db.cursor() as cursor:
                    cursor.execute(f"{session_settings(cursor, self._settings)}; {prepare_statement(query)}")
            except psycopg2.Error as failure:
                guilty, found = f"the extract of {table}", failure
                break
        if isinstance(found, MISSING) and (self._were_there or (before is not None and before != _shape(self._db))):
            raise definition_changed(f"reading {guilty}")
        raise_database_error(found, f"trying {guilty}", source="extract")

    def _note_shape(self) -> None:
        """Record the definitions before the first failure, which may come from a migration."""
        if self._shape is None:
            self._shape = self._shape_then()

    def _shape_then(self) -> str:
        try:
            with self._db.cursor() as cursor:
                cursor.execute(f"ROLLBACK TO SAVEPOINT {SAVEPOINT}")
        except psycopg2.errors.InvalidSavepointSpecification:
            # Nothing ran, not even the savepoint, because an extract is not valid SQL.
            self._db.rollback()
        return _shape(self._db)

    def _still_locked(self, names: Sequence[str]) -> TransientError:
        with self._db.cursor() as cursor:
            cursor.execute(catalog_query("blockers"))
            blockers = cursor.fetchall()
        self._db.rollback()
        return still_locked(blockers, names, self._queries.values(), self._seconds)


def _shape(db: Any) -> str:
    with db.cursor() as cursor:
        cursor.execute(catalog_query("shape"))
        return str(cursor.fetchone()[0])


def settings_changed(cursor: Any, changed: Sequence[str], doing: str) -> PermanentError:
    """The error for settings that are not as they were, with the functions that may have changed them."""
    cursor.execute(f"{IN_OWN_PATH}; {catalog_query('functions_that_set')}", {"settings": list(changed)})
    return changed_by_code(changed, [name for (name,) in cursor.fetchall()], doing)


def prepare_statement(query: str) -> str:
    """Look up the names in a query. The prepared name is unique, because a pooled session may have kept an old one."""
    name = f"clinic_backups_{secrets.token_hex(4)}"
    return f"PREPARE {name} AS SELECT FROM (\n{query}\n) AS r; DEALLOCATE {name}"
