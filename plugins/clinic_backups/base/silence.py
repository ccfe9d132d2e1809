"""Connections to PostgreSQL that never wait for ever: the connection to a silent server or proxy is closed.

libpq waits without limit for a silent peer, because the peer's kernel still answers TCP keepalives. So a thread checks
all connections that wait. If no byte came for a while, it asks the server over a new connection whether it still runs
the statement. If it does not, or if nobody answers, the old connection is closed, and the waiting caller gets an error.
A statement that the server really runs goes on.
"""

from __future__ import annotations

import os
import select
import socket
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from typing import Any

import psycopg2
import psycopg2.extensions

from clinic_backups.base.errors import ClinicBackupsError
from clinic_backups.base.search_path import set_local
from clinic_backups.base.silent_server import heard_at, still_works
from clinic_backups.base.unprinted import unprinted

ASK_SECONDS = 15
"""Longest time for a new connection and its answer."""
CANCEL_SECONDS = 3
LATER_SECONDS = 20
"""So long after a signal, waits are ended that last longer than the seconds above."""
EXACT_SECONDS = 0.1
"""How exactly the operating system knows the time of the last byte."""


class Limits:
    """The time limits of this process.

    :cvar silence_seconds: time without a byte until the server is asked.
    :cvar longest_seconds: longest time without a byte, whatever the server answers: a stopped process looks busy.
    """

    silence_seconds: float = 60
    longest_seconds: float = 7 * 3600


class Silent(psycopg2.OperationalError):
    """A silent connection was closed. ``committing``: a COMMIT was not answered."""

    def __init__(self, seconds: float, *, committing: bool, stopped: bool = False) -> None:
        super().__init__(f"nothing came for {seconds:.0f} seconds")
        self.seconds, self.committing, self.stopped = seconds, committing, stopped


class WatchedConnection(psycopg2.extensions.connection):
    """A connection that :data:`WATCH` checks while a caller waits in it."""

    reopen: Callable[[], psycopg2.extensions.connection] | None = None
    """Opens a second connection to the same server, to ask about the first."""

    pins: Mapping[str, str] = {}
    """Settings that are set in each transaction only, because a pooling proxy may give the session to other clients."""

    told: Mapping[str, str | None] = {}
    """What the server was asked when the connection was opened, by name."""

    unsent: list[str] | None = None
    """SQL that is sent with the next statement; none if each statement is sent at once."""

    begins_alone = ""
    """The text that precedes these settings if a statement commits by itself."""

    def pinned(self) -> str:
        """The SQL before a transaction's first statement; may be empty. It takes no snapshot and no lock."""
        if not self.pins or self.info.transaction_status != psycopg2.extensions.TRANSACTION_STATUS_IDLE:
            return ""
        return "; ".join(set_local(name, value) for name, value in self.pins.items())

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.opened_at = time.monotonic()
        self._waits: dict[int, float] = {}
        self._excused_at = 0.0
        self._given_up: tuple[float, bool] | None = None
        self._asking = False
        WATCH.add(self)

    @contextmanager
    def waiting(self, *, committing: bool = False) -> Iterator[None]:
        """Mark that a caller waits for the server during the block."""
        me = threading.get_ident()
        self._waits[me] = time.monotonic()
        try:
            yield
        except psycopg2.Error:
            if self._given_up is None:
                raise
            seconds, stopped = self._given_up
            raise Silent(seconds, committing=committing, stopped=stopped) from None
        finally:
            self._waits.pop(me, None)

    @contextmanager
    def not_waiting(self) -> Iterator[None]:
        """Mark that during the block, in a COPY, the server waits for us."""
        me = threading.get_ident()
        began = self._waits.pop(me, None)
        try:
            yield
        finally:
            if began is not None:
                self._waits[me] = time.monotonic()

    def set_autocommit(self, on: bool) -> None:
        """As the driver's attribute, outside of a transaction, but without a round trip.

        If the session has an isolation level of its own, the driver would tell the server of both changes.
        """
        if on:
            self.set_session(isolation_level="DEFAULT", readonly="default", deferrable="default")
            self.autocommit = True
            return
        self.autocommit = False
        if self.begins_alone:
            self.set_session(isolation_level="READ COMMITTED", readonly=False, deferrable=False)

    def has_news(self) -> bool:
        """Whether the server has sent something that nobody asked for: usually that it ends the session."""
        readable, _, _ = select.select([self], [], [], 0)
        return bool(readable)

    def commit(self) -> None:
        with self.waiting(committing=True):
            super().commit()

    def rollback(self) -> None:
        with self.waiting():
            super().rollback()

    def cancel(self) -> None:
        """Cancel the running statement. Wait only seconds for the server to accept the request."""
        _within(CANCEL_SECONDS, super().cancel)

    def stop(self) -> None:
        """End a wait in this connection, from another thread: cancel the statement, or else close the connection."""
        until = time.monotonic() + CANCEL_SECONDS
        with suppress(psycopg2.Error):
            self.cancel()
        while self._waits and time.monotonic() < until:
            time.sleep(0.05)
        if self._waits:
            self.hang_up(stopped=True)

    def hang_up(self, seconds: float = 0, *, stopped: bool = False) -> None:
        """Close the connection, from any thread. A waiting caller gets an error at once."""
        self._given_up = (seconds, stopped)
        with suppress(OSError, psycopg2.Error), socket.socket(fileno=os.dup(self.fileno())) as line:
            line.shutdown(socket.SHUT_RDWR)

    def look(self, now: float) -> None:
        """If it was silent for too long, ask the server, or close the connection."""
        since = min(list(self._waits.values()), default=None)
        if since is None or self._asking or self.closed or self._given_up is not None:
            return
        heard = max(since, heard_at(self, now))
        if now - max(heard, self._excused_at) < Limits.silence_seconds:
            return
        if now - heard > Limits.longest_seconds:
            self.hang_up(now - heard)
            return
        self._asking = True
        threading.Thread(target=self._ask, args=(heard,), name="ask-postgresql", daemon=True).start()

    def _ask(self, heard: float) -> None:
        try:
            answers: list[bool] = []
            _within(ASK_SECONDS, lambda: answers.append(self._server_works(heard)))
            now = time.monotonic()
            if answers == [True]:
                self._excused_at = now
            elif self._is_silent_since(heard):
                self.hang_up(now - heard)
        finally:
            self._asking = False

    def _is_silent_since(self, heard: float) -> bool:
        """Whether the same wait still lasts, without a byte since."""
        waits = list(self._waits.values())
        return bool(waits) and max(min(waits), heard_at(self, time.monotonic())) <= heard + EXACT_SECONDS

    def _server_works(self, heard: float) -> bool:
        if self.reopen is None:
            return False
        pid, seconds = self.info.backend_pid, Limits.silence_seconds
        with closing(self.reopen()) as other:
            return still_works(other, pid, lambda: self._is_silent_since(heard), seconds=seconds)


class WatchedCursor(psycopg2.extensions.cursor):
    """A cursor that marks its waits for the server."""

    connection: WatchedConnection

    def execute(self, query: Any, *arguments: Any, **options: Any) -> None:
        with self.connection.waiting():
            if pins := self.connection.pinned():
                if not self.connection.autocommit:
                    # A cursor with a name can execute only queries, so another cursor is used.
                    with psycopg2.extensions.cursor(self.connection) as plain:
                        plain.execute(pins)
                else:
                    # Statements that are sent as one text form one transaction.
                    text = query if isinstance(query, str) else query.as_string(self.connection)
                    query = f"{self.connection.begins_alone}{pins}; {text}"
            super().execute(query, *arguments, **options)

    def executemany(self, *arguments: Any, **options: Any) -> None:
        with self.connection.waiting():
            super().executemany(*arguments, **options)

    def copy_expert(self, sql: Any, file: Any, size: int = 8192) -> None:
        with unprinted(), self.connection.waiting():
            ours: Any = _Source(file, self.connection) if hasattr(file, "read") else file
            super().copy_expert(sql, ours, size)

    def fetchone(self) -> Any:
        with self._fetching():
            return super().fetchone()

    def fetchmany(self, size: int | None = None) -> list[Any]:
        with self._fetching():
            return super().fetchmany() if size is None else super().fetchmany(size)

    def fetchall(self) -> list[Any]:
        with self._fetching():
            return super().fetchall()

    def close(self) -> None:
        with self._fetching():
            super().close()

    @contextmanager
    def _fetching(self) -> Iterator[None]:
        """Mark a wait: only a cursor with a name asks the server again."""
        if self.name is None:
            yield
            return
        with self.connection.waiting():
            yield


class _Source:
    """The source of a COPY. Time that is spent reading it does not count as the server's silence."""

    def __init__(self, source: Any, connection: WatchedConnection) -> None:
        self._source, self._connection = source, connection

    def read(self, size: int = -1) -> Any:
        with self._connection.not_waiting():
            return self._source.read(size)


class Watch:
    """The thread that checks all connections of this process."""

    def __init__(self) -> None:
        self._start_anew()
        os.register_at_fork(after_in_child=self._start_anew)

    def _start_anew(self) -> None:
        """Start again after a fork, which does not copy threads."""
        self._connections: weakref.WeakSet[WatchedConnection] = weakref.WeakSet()
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()

    def add(self, connection: WatchedConnection) -> None:
        """Check this connection from now on."""
        with self._lock:
            self._connections.add(connection)
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(target=self._run, name="watch-postgresql", daemon=True)
                self._thread.start()

    def stop_waiting(self) -> None:
        """End every wait of this process, because it is to stop. A running statement is cancelled first.

        A wait that another thread begins a moment later gets some seconds, for what has to be recorded.
        """
        self._stop_those_that_wait(since=time.monotonic())
        threading.Thread(target=self._stop_later, name="stop-waiting", daemon=True).start()

    def _stop_later(self) -> None:
        until = time.monotonic() + LATER_SECONDS
        while time.monotonic() < until:
            time.sleep(1)
            self._stop_those_that_wait(since=time.monotonic() - CANCEL_SECONDS)

    def _stop_those_that_wait(self, *, since: float) -> None:
        """End the waits that began before then."""
        with self._lock:
            waiting = [
                each
                for each in self._connections
                if not each.closed and each._given_up is None and min(list(each._waits.values()), default=since) < since
            ]
        for each in waiting:
            threading.Thread(target=each.stop, daemon=True).start()

    def _run(self) -> None:
        while True:
            time.sleep(min(1.0, Limits.silence_seconds / 5))
            with self._lock:
                every = list(self._connections)
            for connection in every:
                connection.look(time.monotonic())
            # Weak references, so that this keeps no connection alive.
            every = []


def _within(seconds: float, work: Callable[[], object]) -> None:
    """Run it in a thread and wait at most this long. Errors of the database, or of a cloud's token, are ignored."""

    def run() -> None:
        with suppress(psycopg2.Error, OSError, ClinicBackupsError):
            work()

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(seconds)


WATCH = Watch()
