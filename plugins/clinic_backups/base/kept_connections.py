"""Keeps connections to PostgreSQL open from one backup to the next, because a new one costs the server more than rows.

A new session reads the definitions of all tables again. For a small clinic that is about a third of the whole work.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import psycopg2

from clinic_backups.base.connections import Connection
from clinic_backups.base.database import connect, pin
from clinic_backups.base.silence import WatchedConnection

TRUSTED_SECONDS = 1.0
"""A connection that was used so recently is not asked for its settings again."""
MAX_AGE_SECONDS = 60
"""An older connection is not used again, so that a failover, a new password or a lost right is noticed soon."""


class KeptConnections:
    """Opens connections. During :meth:`keeping`, a connection that is given back serves the next caller.

    Several threads may use it. A session that is given back keeps nothing of its user: see :meth:`give_back`.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._keepers = 0
        self._idle: list[tuple[Connection, WatchedConnection, float]] = []

    @contextmanager
    def keeping(self) -> Iterator[None]:
        """Keep connections during the block, and close the idle ones at its end."""
        with self._lock:
            self._keepers += 1
        try:
            yield
        finally:
            idle: list[tuple[Connection, WatchedConnection, float]] = []
            with self._lock:
                self._keepers -= 1
                if not self._keepers:
                    idle, self._idle = self._idle, idle
            for _, db, _ in idle:
                _close(db)

    def take(
        self, connection: Connection, opening: Callable[[Connection], WatchedConnection] = connect
    ) -> WatchedConnection:
        """A connection outside of a transaction: an idle one whose server answers, or else a new one.

        One that has grown old while it was idle is closed instead.
        Unless it was used just now, the server is asked for its settings, as over a new connection, because they may
        have changed meanwhile.

        :raises ClinicBackupsError: what ``opening`` raises.
        """
        while (found := self._next(connection)) is not None:
            db, used_at = found
            if _is_old(db):
                _close(db)
                continue
            try:
                if time.monotonic() - used_at >= TRUSTED_SECONDS or db.has_news():
                    pin(db)
            except psycopg2.Error:
                _close(db)
            else:
                return db
        return opening(connection)

    def give_back(self, connection: Connection, db: WatchedConnection, *, is_clean: bool = False) -> None:
        """End its transaction, and keep it for the next caller or close it.

        ``DISCARD ALL`` ends whatever an extract or a function left in the session: settings, advisory locks, prepared
        statements, temporary tables. Call this only after a use without an error: after one, another thread may still
        be about to cancel a statement.

        :param is_clean: only this package's own statements ran in it, so that it has nothing to end.
        """
        keep = self._keeps(db)
        if keep:
            try:
                db.rollback()
                if not is_clean:
                    _emptied(db)
            except psycopg2.Error:
                keep = False
        with self._lock:
            if keep and self._keepers:
                self._idle.append((connection, db, time.monotonic()))
                return
        _close(db)

    @contextmanager
    def borrowed(self, connection: Connection) -> Iterator[WatchedConnection]:
        """:meth:`take` it, and :meth:`give_back` it after the block, or close it if the block fails."""
        db = self.take(connection)
        try:
            yield db
        except BaseException:
            _close(db)
            raise
        self.give_back(connection, db)

    def _keeps(self, db: WatchedConnection) -> bool:
        with self._lock:
            return self._keepers > 0 and not db.closed and not _is_old(db)

    def _next(self, connection: Connection) -> tuple[WatchedConnection, float] | None:
        with self._lock:
            for number, (of, db, used_at) in enumerate(self._idle):
                if of == connection:
                    del self._idle[number]
                    return db, used_at
        return None


def _is_old(db: WatchedConnection) -> bool:
    return time.monotonic() - db.opened_at >= MAX_AGE_SECONDS


def _emptied(db: WatchedConnection) -> None:
    db.set_autocommit(True)
    pins, db.pins = db.pins, {}  # nothing else may stand beside DISCARD ALL
    with db.cursor() as cursor:
        cursor.execute("DISCARD ALL")
    db.pins = pins
    db.set_autocommit(False)


def _close(db: WatchedConnection) -> None:
    with suppress(psycopg2.Error):
        db.close()
