"""When clinics are backed up next: the DAG's next run may be of other clinics."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from croniter import croniter

from clinic_backups.base.setting_types import BY_HAND
from clinic_backups.base.settings import Settings

NextOf = Callable[[str | None], datetime | None]
"""The next time of a clinic's own schedule; of the general one for ``None``. ``None``: there is no next time."""


def next_backups(planned: datetime | None, settings: Settings, now: datetime) -> NextOf:
    """The next times of all schedules.

    :param planned: the time of the DAG's next run; ``None``: it has none, as it is paused.
    """

    def next_of(own: str | None) -> datetime | None:
        schedule = own or settings.schedule
        if planned is None or schedule == BY_HAND:
            return None
        if not settings.clinic_schedule:
            return planned
        found: datetime = croniter(schedule, now.astimezone(settings.zone)).get_next(datetime)
        return found

    return next_of
