"""The timetable of scheduled runs: they begin on time or not at all."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from airflow.timetables.base import DagRunInfo, DataInterval, TimeRestriction
from airflow.timetables.trigger import CronTriggerTimetable
from pendulum import instance

from clinic_backups.base.setting_types import BY_HAND

GRACE = timedelta(hours=1)
"""A run that is late by less than this begins at once, for instance after a restart of the scheduler."""


def utc_now() -> datetime:
    """The scheduler's clock, as Airflow's own timetables read it."""
    return datetime.now(UTC)


def on_time(schedule: str, timezone: Any) -> OnTimeTimetable | None:
    """The timetable of a setting; none: runs are started by hand only."""
    return None if schedule == BY_HAND else OnTimeTimetable(schedule, timezone=timezone)


class OnTimeTimetable(CronTriggerTimetable):
    """A cron expression without catching up on missed times.

    Airflow's own timetable starts the newest missed run as soon as a DAG is unpaused, for instance at noon the run of
    02:00, which nobody asked for.
    """

    def __init__(self, cron: str, *, timezone: Any, **_: Any) -> None:
        super().__init__(cron, timezone=timezone, run_immediately=timedelta(0))

    def next_dagrun_info(
        self, *, last_automated_data_interval: DataInterval | None, restriction: TimeRestriction
    ) -> DagRunInfo | None:
        """The next time that is at most ``GRACE`` in the past."""
        found = super().next_dagrun_info(
            last_automated_data_interval=last_automated_data_interval, restriction=restriction
        )
        now = utc_now()
        if found is None or found.run_after >= now - GRACE:
            return found
        return super().next_dagrun_info(
            last_automated_data_interval=None,
            restriction=TimeRestriction(earliest=instance(now), latest=restriction.latest, catchup=True),
        )
