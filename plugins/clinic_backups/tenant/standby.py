"""The age of a standby's data, and whether it is acceptable."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import timedelta

from clinic_backups.base.errors import TransientError
from clinic_backups.base.findings import Report
from clinic_backups.base.listening import nobody
from clinic_backups.base.plain import iso
from clinic_backups.tenant.table_locks import Replayed
from clinic_backups.tenant.tenant_db import Snapshot

BEAT_SECONDS = 5
"""How long the preflight waits until a standby has replayed a commit that was just made."""


def lag_of(replayed: Replayed, most_seconds: float) -> timedelta:
    """How much older the data are than the database's own clock; zero for a server that is not a standby.

    :raises TransientError: it is more than ``most_seconds``, or the standby does not know the age of its data.
    """
    if not replayed.standby:
        return timedelta()
    if replayed.replayed_at is None:
        raise TransientError(
            "The clinics' database is a standby. It has replayed no commit since it started, and it has not caught up"
            " with its primary. So the age of its data is unknown.",
            hint="Is its replay paused, or its connection to the primary down? See pg_stat_wal_receiver there. Or let"
            " connection clinic_db name the primary.",
        )
    lag = max(timedelta(), replayed.now - replayed.replayed_at)
    if lag > timedelta(seconds=most_seconds):
        raise TransientError(
            f"The clinics' database is a standby whose data are as of {iso(replayed.replayed_at)}. It is"
            f" {iso(replayed.now)} there: that is {lag.total_seconds():.0f} seconds later, and {most_seconds:g} are"
            " allowed.",
            hint="Is its replay paused, or its connection to the primary down, or that of the standby that it receives"
            " from? See pg_stat_wal_receiver there. If only nothing was committed meanwhile, see docs/operations.md. Or"
            " let connection clinic_db name the primary, or raise CLINIC_BACKUPS_STANDBY_LAG_SECONDS.",
        )
    return lag


def check_standby(snapshot: Snapshot, most_seconds: float, report: Report, beat: Callable[[], object] = nobody) -> None:
    """For the preflight: report the age of a standby's data, and an error if backups would refuse it.

    :param beat: commits something in the catalog, which is usually in the same cluster. Called if the data seem old,
        because nothing may have been committed for long.
    """
    with report.check("database"):
        replayed = snapshot.replayed()
        if replayed.standby and _is_old(replayed, most_seconds):
            beat()
            end = time.monotonic() + BEAT_SECONDS
            while _is_old(replayed, most_seconds) and time.monotonic() < end:
                time.sleep(0.1)
                replayed = snapshot.replayed()
        lag = lag_of(replayed, most_seconds)
        if replayed.standby:
            report.ok(
                "database",
                f"The clinics' database is a standby. Its data are {lag.total_seconds():.0f} seconds old, and backups"
                " carry that time.",
            )


def _is_old(replayed: Replayed, most_seconds: float) -> bool:
    return replayed.replayed_at is None or replayed.now - replayed.replayed_at > timedelta(seconds=most_seconds)
