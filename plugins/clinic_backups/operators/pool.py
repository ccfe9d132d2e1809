"""The pool that bounds how many clinics are read from the database at a time.

Airflow never starts a task whose pool does not exist or has no slots, and says so only in the scheduler's log. So a
scheduler makes the pool when it starts and with each run of the backup DAG, and leaves a word for the run's preflight.
Whoever changes the pool's slots in Airflow keeps that change.
"""

from __future__ import annotations

import logging
from contextlib import suppress
from typing import Any

from airflow.listeners import hookimpl

log = logging.getLogger(__name__)
NAME = "clinic_backups"
SLOTS = 4
DAG_ID = "clinic_backup"
TOLD_BY, SLOTS_KEY = "summary", "pool_slots"
"""Where the preflight finds how many slots there are: an XCom of a task that runs after it, which therefore stays."""


@hookimpl
def on_starting(component: object) -> None:
    """Make the pool, in a process of Airflow that has its database: scheduler, DAG processor, triggerer."""
    if type(component).__name__ != "Job":
        return
    from clinic_backups.operators.airflow_internals import create_session

    with create_session() as session:
        _slots(session.connection())


@hookimpl
def on_dag_run_running(dag_run: Any, msg: str) -> None:
    """In the scheduler, when a run begins: make the pool if it is gone, and tell the run when it has no slots."""
    if dag_run.dag_id != DAG_ID:
        return
    from sqlalchemy import delete, insert
    from sqlalchemy.orm import object_session

    from clinic_backups.operators.airflow_internals import XComModel

    session = object_session(dag_run)
    if session is None:
        return
    # The scheduler's own connection: another one would wait for its locks. Its session must not be committed or fail.
    connection = session.connection()
    key = {"dag_run_id": dag_run.id, "task_id": TOLD_BY, "map_index": -1, "key": SLOTS_KEY}
    with connection.begin_nested():
        connection.execute(delete(XComModel).filter_by(**key))
        if _slots(connection) == 0:
            told = {"dag_id": DAG_ID, "run_id": dag_run.run_id, "value": 0}
            connection.execute(insert(XComModel).values(**key, **told))


def _slots(connection: Any) -> int:
    """How many slots the pool has, -1 for no limit; it is made where there is none."""
    from sqlalchemy import insert, select
    from sqlalchemy.exc import IntegrityError

    from clinic_backups.operators.airflow_internals import Pool

    slots = connection.scalar(select(Pool.slots).where(Pool.pool == NAME))
    if slots is None:
        log.info("Making the pool %s with %s slots.", NAME, SLOTS)
        described = {"description": "Clinics that are backed up at a time", "include_deferred": False}
        # Another process of Airflow may make it at the same moment.
        with suppress(IntegrityError), connection.begin_nested():
            connection.execute(insert(Pool).values(pool=NAME, slots=SLOTS, **described))
        return SLOTS
    return int(slots)
