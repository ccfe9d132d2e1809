"""Tasks that give their place back and come again: to begin later, or while another process works on the same clinic.

That costs no retry.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any, NoReturn

from airflow.sdk.exceptions import AirflowRescheduleException

from clinic_backups.base.load_settings import in_words
from clinic_backups.base.settings import Settings
from clinic_backups.catalog.locks import AlreadyRunning, HeldByStranger
from clinic_backups.operators.timetable import utc_now

SHORTEST_WAIT = timedelta(seconds=10)
"""Airflow's scheduler hears of the end of a task's process after the task has said when it comes back. If the task is
already queued again by then, the scheduler takes it for killed, and that costs a retry
(``process_executor_events`` of Airflow 3.3's ``SchedulerJobRunner``)."""


def come_back(moment: datetime) -> NoReturn:
    """End this look of the task. It comes again at that moment, or after the shortest wait.

    :raises AirflowRescheduleException: always.
    """
    raise AirflowRescheduleException(max(moment, utc_now() + SHORTEST_WAIT))  # type: ignore[no-untyped-call]


def is_busy(error: BaseException) -> bool:
    """Whether another process works on the clinic, and ends by itself or loses its lock."""
    return isinstance(error, AlreadyRunning) and not isinstance(error, HeldByStranger)


def wait_for_others(log: Any, failures: Sequence[BaseException], settings: Settings, *, since: datetime | None) -> None:
    """Give the pool's slot back, if clinics that are busy are all that has failed. The task looks again later.

    If it waits for too long already, it fails. Otherwise Airflow would end it one day, and nobody would be told why.

    :param since: when the wait may have begun; ``None`` if that is not known.
    :raises AirflowRescheduleException: nothing else has failed.
    """
    if not all(map(is_busy, failures)):
        return
    for each in failures:
        log.info("%s", in_words(getattr(each, "message", "")))
    if since is not None and utc_now() >= since + timedelta(hours=settings.task_hours):
        hours = settings.task_hours
        log.error("It has been busy for %s hours (CLINIC_BACKUPS_TASK_HOURS). No task waits longer.", hours)
        return
    moment = utc_now() + max(timedelta(seconds=settings.retry_delay_seconds), SHORTEST_WAIT)
    log.info("This task waits until %s and then looks again. That costs no retry.", moment.isoformat())
    come_back(moment)
