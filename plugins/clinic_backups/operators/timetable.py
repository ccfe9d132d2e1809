"""The timetable of scheduled runs: they begin on time or not at all."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Any

from airflow.timetables.base import DagRunInfo, DataInterval, TimeRestriction, Timetable
from airflow.timetables.trigger import CronTriggerTimetable, MultipleCronTriggerTimetable
from pendulum import DateTime, instance

from clinic_backups.base.setting_types import BY_HAND

GRACE = timedelta(hours=1)
"""A run that is late by less than this begins at once, for instance after a restart of the scheduler."""


_BEFORE = [timedelta(hours=hours) for hours in (1 / 3600, 1 / 2, 1, 6, 24, 25)]
"""Around a change of the clocks, Airflow's next time of a cron expression depends on the moment that it is computed
from. That is usually the last run of any schedule, which may have been so long before."""


def utc_now() -> datetime:
    """The scheduler's clock, as Airflow's own timetables read it."""
    return datetime.now(UTC)


def on_time(schedules: Iterable[str], timezone: str) -> OnTimeTimetable | None:
    """The timetable of these schedules; none: runs are started by hand only."""
    crons = dict.fromkeys(schedule for schedule in schedules if schedule != BY_HAND)
    return OnTimeTimetable(*crons, timezone=timezone) if crons else None


def is_due(schedule: str, moment: datetime, timezone: str) -> bool:
    """Whether the run of that moment is one of this schedule."""
    if schedule == BY_HAND:
        return False
    at, cron = instance(moment), _OnTime(schedule, timezone=timezone, run_immediately=False)
    return any(cron.next_after(at - before) == at for before in _BEFORE)


class _OnTime(CronTriggerTimetable):
    """One cron expression without catching up on missed times."""

    def next_after(self, moment: DateTime) -> DateTime:
        """The first time of the expression after that moment, as Airflow computes it."""
        return self._get_next(moment)

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


class OnTimeTimetable(MultipleCronTriggerTimetable):
    """Cron expressions without catching up on missed times. Where several have the same time, there is one run.

    Airflow's own timetables start the newest missed run as soon as a DAG is unpaused, for instance at noon the run of
    02:00, which nobody asked for.
    """

    def __init__(self, *crons: str, timezone: Any, **_: Any) -> None:
        super().__init__(*crons, timezone=timezone)
        self._timetables = [_OnTime(cron, timezone=timezone, run_immediately=timedelta(0)) for cron in crons]

    @classmethod
    def deserialize(cls, data: dict[str, Any]) -> Timetable:
        """Also of a DAG that was stored by an earlier version, with one expression."""
        return super().deserialize({"expressions": [data["expression"]]} | data if "expression" in data else data)

    def next_dagrun_info(
        self, *, last_automated_data_interval: DataInterval | None, restriction: TimeRestriction
    ) -> DagRunInfo | None:
        """The earliest of the next times."""
        found = [
            timetable.next_dagrun_info(
                last_automated_data_interval=last_automated_data_interval, restriction=restriction
            )
            for timetable in self._timetables
        ]
        return min((info for info in found if info is not None), key=lambda info: info.run_after, default=None)
