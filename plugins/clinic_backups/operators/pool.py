"""The pool that bounds how many clinics are read from the database at a time.

Airflow never starts a task whose pool does not exist, and says so only in the scheduler's log: so the pool is made when
a scheduler starts. Whoever changes its slots in Airflow keeps that change.
"""

from __future__ import annotations

from airflow.listeners import hookimpl

NAME = "clinic_backups"
SLOTS = 4


@hookimpl
def on_starting(component: object) -> None:
    """Make the pool, in a process of Airflow that has its database: scheduler, DAG processor, triggerer."""
    if type(component).__name__ != "Job":
        return
    from airflow.models.pool import Pool

    if Pool.get_pool(NAME) is None:
        Pool.create_or_update_pool(
            NAME, SLOTS, description="Clinics that are backed up at a time", include_deferred=False
        )
