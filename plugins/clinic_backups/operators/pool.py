"""The pool that limits how many clinics are read from the database at a time.

Airflow never starts a task whose pool does not exist or has no slots, and reports that only in the scheduler's log. So
a scheduler creates the pool when it starts and with each run of the backup DAG, and leaves the number of slots for the
run's preflight. A change of the slots in Airflow is kept.
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
"""The task whose XCom tells the preflight the number of slots. It runs after the preflight, so the XCom stays."""


@hookimpl
def on_starting(component: object) -> None:
    """Create the pool, in a process of Airflow with database access: scheduler, DAG processor or triggerer."""
    if type(component).__name__ != "Job":
        return
    from clinic_backups.operators.airflow_internals import create_session

    with create_session() as session:
        _slots(session.connection())


@hookimpl
def on_dag_run_running(dag_run: Any, msg: str) -> None:
    """In the scheduler, when a run begins: create the pool if it is missing, and tell the run if it has no slots."""
    if dag_run.dag_id != DAG_ID:
        return
    from sqlalchemy import delete, insert
    from sqlalchemy.orm import object_session

    from clinic_backups.operators.airflow_internals import XComModel

    session = object_session(dag_run)
    if session is None:
        return
    # Uses the scheduler's connection, because another one would wait for its locks. The session must not commit or
    # fail.
    connection = session.connection()
    key = {"dag_run_id": dag_run.id, "task_id": TOLD_BY, "map_index": -1, "key": SLOTS_KEY}
    with connection.begin_nested():
        connection.execute(delete(XComModel).filter_by(**key))
        if _slots(connection) == 0:
            told = {"dag_id": DAG_ID, "run_id": dag_run.run_id, "value": 0}
            connection.execute(insert(XComModel).values(**key, **told))


def _slots(connection: Any) -> int:
    """The number of the pool's slots, -1 for no limit. The pool is created if it is missing."""
    from sqlalchemy import insert, select
    from sqlalchemy.exc import IntegrityError

    from clinic_backups.operators.airflow_internals import Pool

    slots = connection.scalar(select(Pool.slots).where(Pool.pool == NAME))
    if slots is None:
        log.info("Creating the pool %s with %s slots.", NAME, SLOTS)
        described = {"description": "Clinics that are backed up at a time", "include_deferred": False}
        # Another process of Airflow may create it at the same moment.
        with suppress(IntegrityError), connection.begin_nested():
            connection.execute(insert(Pool).values(pool=NAME, slots=SLOTS, **described))
        return SLOTS
    return int(slots)
