"""Locks in the catalog's database, so that one process at a time works on a clinic. They end with their process."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from typing import Any, Literal

import psycopg2
from psycopg2.extensions import TRANSACTION_STATUS_INTRANS

from clinic_backups.base.clinic_id import ClinicId, in_shell
from clinic_backups.base.clock import DatabaseClock
from clinic_backups.base.connections import Connection
from clinic_backups.base.database import session_settings
from clinic_backups.base.database_errors import raise_database_error
from clinic_backups.base.errors import TransientError
from clinic_backups.base.kept_connections import KeptConnections
from clinic_backups.base.text import one_line
from clinic_backups.catalog.catalog_database import connect_catalog

Purpose = Literal["clinic", "replicas", "exports"]
"""``clinic``: for a backup or restore. ``replicas``: for making replicas of its backups. ``exports``: for writing one
of its backups as a file into the store. Deleting takes all of them."""
# The lock belongs to a transaction: a transaction-pooling proxy could give a session and its lock to another client.
IDLE_SECONDS, BEAT_SECONDS = 300, 30
"""After this silence the server frees the lock; and the interval in which the holder sends a sign of life."""
TRY_LOCK = "SELECT pg_try_advisory_xact_lock(hashtextextended(%s, 0))"
TRY_LOCK_AND_TELL_TIME = f"{TRY_LOCK}, clock_timestamp()"
# pg_locks shows the two halves of a bigint key; see the PostgreSQL manual.
_HOLDER = """
    SELECT l.pid, a.usename FROM pg_locks l JOIN pg_stat_activity a ON a.pid = l.pid
     WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 1
       AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
       AND (l.classid::bigint << 32) | l.objid::bigint = hashtextextended(%(name)s, 0)
       AND a.usename <> current_user"""


def lock_name(purpose: Purpose, clinic_id: ClinicId) -> str:
    """The text whose hash is the lock's number."""
    return f"clinic_backups:{purpose}:{clinic_id}"


class AlreadyRunning(TransientError):
    """Another process works on the same clinic now."""


class HeldByStranger(AlreadyRunning):
    """The lock's holder is no process of this package: nobody knows whether it ends."""


class ClinicLock:
    """A lock on a clinic, held by an open transaction. It ends with the process."""

    def __init__(self, db: Any, clinic_id: ClinicId) -> None:
        self._db, self._clinic_id = db, clinic_id

    def require(self) -> None:
        """:raises TransientError: the lock was lost with its connection, so that another backup may have begun."""
        with suppress(psycopg2.Error), self._db.cursor() as cursor:
            cursor.execute("SELECT 1")
            if self._db.info.transaction_status == TRANSACTION_STATUS_INTRANS:
                return
        raise TransientError(
            f"The connection that held clinic {self._clinic_id}'s lock in the catalog was lost.",
            hint="Nothing was recorded as complete. The next attempt continues.",
        )


@contextmanager
def lock_clinic(
    connection: Connection,
    clinic_id: ClinicId,
    *purposes: Purpose,
    clock: DatabaseClock | None = None,
    kept: KeptConnections | None = None,
) -> Iterator[ClinicLock]:
    """Take the locks of a clinic.

    :param clock: gets the database's time from the same statement.
    :param kept: opens the connection, and gets it back after a use without an error.
    :raises AlreadyRunning: another process holds one of the locks.
    """
    kept = kept or KeptConnections()
    db = kept.take(connection, connect_catalog)
    usable = False
    try:
        db.set_autocommit(True)  # so that the driver does not send BEGIN alone
        with db.cursor() as cursor:
            # If a process is dead but a proxy keeps its connection open, the server must free the lock.
            limits = {"idle_in_transaction_session_timeout": f"{IDLE_SECONDS}s", "transaction_timeout": "0"}
            before = f"BEGIN; {session_settings(cursor, limits)}; "
            for purpose in purposes:
                if not _try(cursor, lock_name(purpose, clinic_id), clock, before):
                    raise _of_another_role(cursor, clinic_id, purpose) or _running(clinic_id, purpose)
                before = ""
        with _kept_alive(db):
            yield ClinicLock(db, clinic_id)
        usable = True
    except psycopg2.Error as error:
        raise_database_error(error, f"locking clinic {clinic_id} in the catalog", source="catalog")
    finally:
        # Only a rollback is answered, a close is not. So the lock is certainly free when this returns.
        try:
            with db.cursor() as cursor:
                cursor.execute("ROLLBACK")
            db.set_autocommit(False)
        except psycopg2.Error:
            usable = False
        if usable:
            kept.give_back(connection, db, is_clean=True)
        else:
            db.close()


def _try(cursor: Any, name: str, clock: DatabaseClock | None, before: str) -> bool:
    """:param before: statements of the same round trip."""
    locked = False

    def ask() -> datetime:
        nonlocal locked
        cursor.execute(before + TRY_LOCK_AND_TELL_TIME, (name,))
        told: datetime
        locked, told = cursor.fetchone()
        return told.astimezone(UTC)

    if clock is None:
        ask()
    else:
        clock.observe(ask)
    return locked


@contextmanager
def _kept_alive(db: Any) -> Iterator[None]:
    """Send the server a sign of life at intervals."""
    ended = threading.Event()

    def beat() -> None:
        with suppress(psycopg2.Error):
            while not ended.wait(BEAT_SECONDS):
                with db.cursor() as cursor:
                    cursor.execute("SELECT 1")

    thread = threading.Thread(target=beat, name="clinic-lock", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()  # so that no sign of life begins a transaction after the lock's end


def _of_another_role(cursor: Any, clinic_id: ClinicId, purpose: Purpose) -> HeldByStranger | None:
    """The error if a session of another role holds the lock: then that is no backup or restore of this package.

    Any role that may connect to the catalog's database can take an advisory lock.
    """
    cursor.execute(_HOLDER, {"name": lock_name(purpose, clinic_id)})
    found = cursor.fetchone()
    if found is None:
        return None
    pid, role = found
    return HeldByStranger(
        f"The lock of clinic {clinic_id} in the catalog is held by session {pid} of the role {one_line(role)}, which is"
        " not the catalog's role. So it is not a backup or restore of this package. Nothing was started.",
        hint=f"Find out who uses that role, and end session {pid} with pg_terminate_backend. A database of its"
        " own for the catalog, to which only the catalog's role may connect, keeps others from it.",
    )


def _running(clinic_id: ClinicId, purpose: Purpose) -> AlreadyRunning:
    if purpose == "replicas":
        return AlreadyRunning(
            f"Clinic {clinic_id}'s backups are already being replicated. Nothing was started.",
            hint="Try again when that has ended.",
        )
    return AlreadyRunning(
        f"Clinic {clinic_id} is already being backed up or restored. Nothing was started.",
        hint=f"Try again when it has ended. To see a backup: clinic-backups list --clinic {in_shell(clinic_id)} --state"
        " running. To see a restore: the page Backups, or the runs of clinic_restore.",
    )
