"""Airflow's side: operators and tasks that call the core. A DAG file names its stages from here."""

from clinic_backups.archive.codec import Zstd
from clinic_backups.archive.encryption import Age
from clinic_backups.operators.backup import ClinicBackupOperator
from clinic_backups.operators.store import Store
from clinic_backups.operators.tasks import active_clinics, preflight, summary, watch
from clinic_backups.tenant.extract import SqlExtract

OWNER = "clinic-backups"
"""Whose the tasks are, as Airflow's lists show it."""

__all__ = [
    "OWNER",
    "Age",
    "ClinicBackupOperator",
    "SqlExtract",
    "Store",
    "Zstd",
    "active_clinics",
    "preflight",
    "summary",
    "watch",
]
