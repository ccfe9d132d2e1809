"""Tasks that give their place back while another process works on the same clinic. That costs no retry."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from airflow.sdk.exceptions import AirflowRescheduleException

from clinic_backups.base.load_settings import in_words
from clinic_backups.catalog.locks import AlreadyRunning, HeldByStranger
from clinic_backups.operators.timetable import utc_now


def is_busy(error: BaseException) -> bool:
    """Whether another process works on the clinic, and ends by itself or loses its lock."""
    return isinstance(error, AlreadyRunning) and not isinstance(error, HeldByStranger)


def wait_for_others(log: Any, failures: Sequence[BaseException], seconds: float) -> None:
    """Give the pool's slot back, if clinics that are busy are all that has failed. The task looks again later.

    :param seconds: how long it waits.
    :raises AirflowRescheduleException: nothing else has failed.
    """
    if not all(map(is_busy, failures)):
        return
    moment = utc_now() + timedelta(seconds=seconds)
    for each in failures:
        log.info("%s", in_words(getattr(each, "message", "")))
    log.info("This task waits until %s and then looks again. That costs no retry.", moment.isoformat())
    raise AirflowRescheduleException(moment)  # type: ignore[no-untyped-call]
