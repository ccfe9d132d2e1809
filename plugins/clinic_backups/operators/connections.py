"""Airflow's connections and errors, to and from the core's."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from airflow.sdk import BaseHook, get_current_context
from airflow.sdk.exceptions import (
    AirflowException,
    AirflowFailException,
    AirflowNotFoundException,
    AirflowRuntimeError,
)

from clinic_backups.connections import Connection
from clinic_backups.errors import ClinicBackupsError, PermanentError
from clinic_backups.notify.delivered import Delivered

PROBLEM_KEY = "problem"
"""The XCom in which a failed task leaves its error and the remedy, for the page that follows the run."""


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


def _note_problem(error: ClinicBackupsError) -> None:
    """It is in the log already: that the page could not be told must not hide the error itself."""
    with suppress(AirflowException, AirflowRuntimeError, RuntimeError):
        get_current_context()["ti"].xcom_push(PROBLEM_KEY, {"error": error.message, "hint": error.hint})


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
