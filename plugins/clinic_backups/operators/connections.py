"""Airflow's connections and errors, to and from the core's."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
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
from clinic_backups.notify.delivered import Delivered

PROBLEM_KEY = "problem"
"""The XCom in which a failed task leaves its error and the remedy, for the page that follows the run."""


def run_type_of(run: Any) -> str:
    """How a run came about: scheduled, manual, operator_triggered, …

    A task gets an enumeration here, whose text is another one than its value.
    """
    return str(getattr(run.run_type, "value", run.run_type))


def find_connection(conn_id: str) -> Connection | None:
    """The connection of that name, as the core knows them; none where nobody has defined it."""
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
    """Turn our errors into Airflow's: a permanent one fails the task at once, a transient one may be retried.

    :param log: a logger, of the standard library or Airflow's.
    """
    try:
        yield
    except ClinicBackupsError as error:
        permanent = isinstance(error, PermanentError)
        log.error("%s", error)
        for note in getattr(error, "__notes__", ()):
            log.error("%s", note)
        log.error("A retry would fail the same way." if permanent else "A retry may help.")
        _note_problem(error)
        raise (AirflowFailException if permanent else AirflowException)(str(error)) from None
    except (AirflowException, AirflowRuntimeError):
        raise  # said already
    except Exception as error:  # noqa: BLE001 - raised on as its kind alone
        # Its text may hold anything, also a patient's name, and Airflow would log it: only its kind and place are.
        _note_problem(error)
        log.error("%s", frames(error))
        raise AirflowException(to_record(error)[0]) from None


def _note_problem(error: Exception) -> None:
    """It is in the log already: that the page could not be told must not hide the error itself."""
    message, hint = to_record(error)
    with suppress(AirflowException, AirflowRuntimeError, RuntimeError):
        get_current_context()["ti"].xcom_push(PROBLEM_KEY, {"error": message, "hint": hint or ""})


def problem_of(task_ids: Sequence[str]) -> dict[str, str] | None:
    """What the first of these tasks that failed has left; none where none did. For people to read, and no more."""
    instance = get_current_context()["ti"]
    for task_id in task_ids:
        found = instance.xcom_pull(task_ids=task_id, key=PROBLEM_KEY)
        if isinstance(found, dict):
            return {"task": task_id, "error": str(found.get("error", "")), "hint": str(found.get("hint", ""))}
    return None


def log_delivery(log: Any, deliver: Callable[[], Delivered]) -> None:
    """Send mail and say how it went. No mail ever fails a task: what was not sent waits in the outbox."""
    try:
        done = deliver()
    except ClinicBackupsError as error:
        log.warning("No mail was sent: %s", error)
        return
    if done.sent or done.refused:
        log.info("%s mails were sent, %s were refused.", done.sent, done.refused)
    if done.problem:
        log.warning("Mail waits for a later run: %s", done.problem)
