"""What the package adds to Airflow itself. Airflow loads this file once in each of its processes."""

from __future__ import annotations

from airflow.plugins_manager import AirflowPlugin

from clinic_backups.operators import pool


class ClinicBackupsPlugin(AirflowPlugin):
    """Registers the listener that makes the pool."""

    name = "clinic_backups"
    listeners = [pool]  # noqa: RUF012 - as Airflow declares it
