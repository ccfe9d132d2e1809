"""Finds the schedules that a scheduled run belongs to: it may be a run of some clinics only."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from clinic_backups.base.settings import Settings
from clinic_backups.operators.airflow_connections import run_type_of
from clinic_backups.operators.timetable import is_due


def due_schedules(settings: Settings, moment: datetime) -> set[str]:
    """The schedules that have a run at this moment.

    All of them if none has one: a setting was changed after Airflow had planned the run. No clinic may go without.
    """
    found = {schedule for schedule in settings.schedules if is_due(schedule, moment, settings.time_zone)}
    return found or set(settings.schedules)


def is_partial(settings: Settings, run: Any) -> bool:
    """Whether a run is a scheduled one of some clinics only, because the general schedule has another time."""
    return run_type_of(run) == "scheduled" and settings.schedule not in due_schedules(settings, run.run_after)
