"""The age of a standby's data, and whether it is acceptable."""

from __future__ import annotations

from datetime import timedelta

from clinic_backups.base.errors import TransientError
from clinic_backups.base.findings import Report
from clinic_backups.base.plain import iso
from clinic_backups.tenant.table_locks import Replayed
from clinic_backups.tenant.tenant_db import Snapshot


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
            hint="Is its replay paused, or its connection to the primary down? See pg_stat_wal_receiver there. Let"
            " connection clinic_db name the primary, or raise CLINIC_BACKUPS_STANDBY_LAG_SECONDS.",
        )
    return lag


def check_standby(snapshot: Snapshot, most_seconds: float, report: Report) -> None:
    """For the preflight: report the age of a standby's data, and an error if backups would refuse it."""
    with report.check("database"):
        replayed = snapshot.replayed()
        lag = lag_of(replayed, most_seconds)
        if replayed.standby:
            report.ok(
                "database",
                f"The clinics' database is a standby. Its data are {lag.total_seconds():.0f} seconds old, and backups"
                " carry that time.",
            )
