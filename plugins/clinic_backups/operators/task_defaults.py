"""What all tasks of a DAG have in common: owner, retries, their longest time, and where they run."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from clinic_backups.base.settings import Settings

OWNER = "clinic-backups"
"""The owner of the tasks in Airflow's lists."""


def task_defaults(settings: Settings, *, restores: bool = False, **more: Any) -> dict[str, Any]:
    """The ``default_args`` of a DAG.

    :param restores: its tasks need the secret key, so they run on the queue and executor of restores,
        and in their pod template.
    :param more: replace some of them.
    """
    queue = (settings.restore_queue if restores else settings.queue).strip()
    executor = (settings.restore_executor if restores else settings.executor).strip()
    pod_template = settings.restore_pod_template.strip() if restores else ""
    known: dict[str, Any] = {
        "owner": OWNER,
        "retries": settings.retries,
        "retry_delay": timedelta(seconds=settings.retry_delay_seconds),
        # One that hangs must end some day: its clinic's lock keeps every other run from that clinic.
        "execution_timeout": timedelta(hours=settings.task_hours),
    }
    # Airflow's own defaults otherwise. An executor that Airflow does not have makes the DAG an import error.
    known |= {"queue": queue} if queue else {}
    known |= {"executor": executor} if executor else {}
    # Read by the KubernetesExecutor's scheduler alone. Other executors leave it aside.
    known |= {"executor_config": {"pod_template_file": pod_template}} if pod_template else {}
    return known | more
