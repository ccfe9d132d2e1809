"""One process at a time works at a clinic: locks in the catalog's database that end when their process does."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from typing import Any, Literal

import psycopg2

from clinic_backups.base.clock import DatabaseClock
from clinic_backups.base.connections import Connection
from clinic_backups.base.database import raise_database_error, session_settings
from clinic_backups.base.errors import TransientError
from clinic_backups.catalog.database import connect_catalog

Purpose = Literal["clinic", "copies"]
"""``clinic``: a backup or restore; ``copies``: copying its backups to further stores. Whoever deletes takes both."""
# Of a transaction: a transaction-pooling proxy would hand a session's lock to somebody else.
IDLE_SECONDS, BEAT_SECONDS = 300, 30
"""The server ends the lock of whoever says nothing for so long; who holds it says something so often."""
TRY_LOCK = "SELECT pg_try_advisory_xact_lock(hashtextextended(%s, 0))"
TRY_LOCK_AND_TELL_TIME = f"{TRY_LOCK}, clock_timestamp()"


def lock_name(purpose: Purpose, clinic_id: int) -> str:
    """What the lock's number is the hash of."""
    return f"clinic_backups:{purpose}:{clinic_id}"


class AlreadyRunning(TransientError):
    """Another process works at the same clinic right now."""


class ClinicLock:
    """Held while a clinic is worked at, by an open transaction: it ends when the process does."""

    def __init__(self, db: Any, clinic_id: int) -> None:
        self._db, self._clinic_id = db, clinic_id

    def require(self) -> None:
        """:raises TransientError: the lock was lost with its connection, so that another backup may have begun."""
        try:
            with self._db.cursor() as cursor:
                cursor.execute("SELECT 1")
        except psycopg2.Error:
            raise TransientError(
                f"The connection that kept clinic {self._clinic_id}'s lock in the catalog was lost.",
                hint="Nothing was recorded as complete; the next attempt goes on.",
            ) from None


@contextmanager
def lock_clinic(
    connection: Connection, clinic_id: int, *purposes: Purpose, clock: DatabaseClock | None = None
) -> Iterator[ClinicLock]:
    """Keep others out.

    :param clock: is set by the way.
    :raises AlreadyRunning: another process has one of the locks.
    """
    db = connect_catalog(connection)
    try:
        with db.cursor() as cursor:
            # A process that cannot show itself any more, and a proxy that keeps its connection, must not keep the lock.
            limits = {"idle_in_transaction_session_timeout": f"{IDLE_SECONDS}s", "transaction_timeout": "0"}
            cursor.execute(session_settings(cursor, limits))
            for purpose in purposes:
                if not _try(cursor, lock_name(purpose, clinic_id), clock):
                    raise _running(clinic_id, purpose)
        with _kept_alive(db):
            yield ClinicLock(db, clinic_id)
    except psycopg2.Error as error:
        raise_database_error(error, f"locking clinic {clinic_id} in the catalog", source="catalog")
    finally:
        # The server answers a rollback, and not a close: whoever asks next must not find a lock that is on its way out.
        with suppress(psycopg2.Error):
            db.rollback()
        db.close()


def _try(cursor: Any, name: str, clock: DatabaseClock | None) -> bool:
    locked = False

    def ask() -> datetime:
        nonlocal locked
        cursor.execute(TRY_LOCK_AND_TELL_TIME, (name,))
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
    """Say something to the server now and then, so that it sees that somebody is there."""
    ended = threading.Event()

    def beat() -> None:
        with suppress(psycopg2.Error):
            while not ended.wait(BEAT_SECONDS):
                with db.cursor() as cursor:
                    cursor.execute("SELECT 1")

    threading.Thread(target=beat, name="clinic-lock", daemon=True).start()
    try:
        yield
    finally:
        ended.set()


def _running(clinic_id: int, purpose: Purpose) -> AlreadyRunning:
    if purpose == "copies":
        return AlreadyRunning(
            f"Clinic {clinic_id}'s backups are being copied to another store already; this was not started.",
            hint="Try again when that has ended.",
        )
    return AlreadyRunning(
        f"Clinic {clinic_id} is being backed up already, or restored; this was not started.",
        hint=f"Try again when it has ended. A backup is shown by: clinic-backups list --clinic {clinic_id} --state"
        " running. A restore is shown by the page Backups and by the runs of clinic_restore.",
    )
