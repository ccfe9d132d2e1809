"""Translates Airflow's connections into the core's, and the core's errors into Airflow's."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

from airflow.sdk import BaseHook, get_current_context
from airflow.sdk.exceptions import (
    AirflowException,
    AirflowFailException,
    AirflowNotFoundException,
    AirflowRuntimeError,
)

from clinic_backups.base.connections import Connection
from clinic_backups.base.errors import ClinicBackupsError, PermanentError, frames, to_record
from clinic_backups.base.findings import Finding
from clinic_backups.base.load_settings import in_words
from clinic_backups.notify.delivered import Delivered

_LEVELS = {"ok": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}
PROBLEM_KEY = "problem"
"""The XCom in which a failed task leaves its error and hint, for the page of the run."""


def run_type_of(run: Any) -> str:
    """The type of a run: scheduled, manual, operator_triggered, …

    A task gets an enumeration, whose text differs from its value.
    """
    return str(getattr(run.run_type, "value", run.run_type))


def find_connection(conn_id: str) -> Connection | None:
    """The connection with that name, in the core's form; none if it is not defined."""
    try:
        found = BaseHook.get_connection(conn_id)
    except AirflowNotFoundException:
        return None
    return Connection(
        conn_id=conn_id,
        conn_type=(found.conn_type or "").replace("-", "_"),
        host=found.host or "",
        port=found.port,
        login=found.login or "",
        password=found.password or "",
        schema=found.schema or "",
        extra=found.extra_dejson,
    )


@contextmanager
def failing_clearly(log: Any) -> Iterator[None]:
    """Turn this package's errors into Airflow's.

    A permanent error fails the task at once; a transient one may be retried.

    :param log: a logger, of the standard library or of Airflow.
    """
    try:
        yield
    except ClinicBackupsError as error:
        permanent = isinstance(error, PermanentError)
        log_error(log, error)
        log.error("A retry would fail in the same way." if permanent else "A retry may help.")
        _note_problem(error)
        raise (AirflowFailException if permanent else AirflowException)(in_words(str(error))) from None
    except (AirflowException, AirflowRuntimeError):
        raise  # already translated
    except Exception as error:  # noqa: BLE001 - raised again, with its type only
        # Airflow would log its text, so only its type is used.
        _note_problem(error)
        log_error(log, error)
        raise AirflowException(to_record(error)[0]) from None


def log_findings(log: Any, findings: Iterable[Finding]) -> None:
    """Write the findings of a preflight into the log."""
    for finding in findings:
        log.log(_LEVELS[finding.level], "%s: %s", finding.check, in_words(finding.message))
        if finding.hint:
            log.log(_LEVELS[finding.level], "HINT: %s", in_words(finding.hint))


def log_error(log: Any, error: Exception) -> None:
    """Write an error into the log, as far as it cannot hold a patient's data.

    One of this package with its notes. The text of any other may hold anything, even a patient's name: of it only the
    type and the place.
    """
    if not isinstance(error, ClinicBackupsError):
        log.error("%s", frames(error))
        return
    log.error("%s", in_words(str(error)))
    for note in getattr(error, "__notes__", ()):
        log.error("%s", in_words(note))


def _note_problem(error: Exception) -> None:
    """Store the error for the page. It is in the log already, so a failure here must not hide it."""
    message, hint = to_record(error)
    with suppress(AirflowException, AirflowRuntimeError, RuntimeError):
        get_current_context()["ti"].xcom_push(PROBLEM_KEY, {"error": message, "hint": hint or ""})


def problem_of(task_ids: Sequence[str]) -> dict[str, str] | None:
    """The error that the first failed task left; none if none failed. It is only shown to people."""
    instance = get_current_context()["ti"]
    for task_id in task_ids:
        found = instance.xcom_pull(task_ids=task_id, key=PROBLEM_KEY)
        if isinstance(found, dict):
            return {"task": task_id, "error": str(found.get("error", "")), "hint": str(found.get("hint", ""))}
    return None


def log_delivery(log: Any, deliver: Callable[[], Delivered]) -> None:
    """Send mail and log the result. Mail never fails a task: unsent letters wait in the outbox."""
    try:
        done = deliver()
    except ClinicBackupsError as error:
        log.warning("No mail was sent: %s", error)
        return
    except Exception as error:  # noqa: BLE001 - no fault of a mail is one of the backups
        log.warning("No mail was sent: %s", to_record(error)[0])
        return
    if done.sent or done.refused:
        log.info("%s mails were sent, %s were refused.", done.sent, done.refused)
    if done.problem:
        log.warning("Mail waits for a later run: %s", done.problem)
