"""The Airflow layer: operators and tasks that call the core. DAG files import their stages from here."""

from clinic_backups.archive.codec import CODEC
from clinic_backups.archive.encryption import ENCRYPTION
from clinic_backups.operators.airflow_store import Store
from clinic_backups.operators.backup_operator import ClinicBackupOperator
from clinic_backups.operators.clinic_params import clinic_param, clinics_param
from clinic_backups.operators.task_defaults import OWNER
from clinic_backups.operators.tasks import active_clinics, preflight, summary, tell_assets
from clinic_backups.operators.watch_task import watch
from clinic_backups.tenant.extract import SqlExtract

__all__ = [
    "CODEC",
    "ENCRYPTION",
    # For DAG files of before 0.2, which a project may still have.
    "OWNER",
    "ClinicBackupOperator",
    "SqlExtract",
    "Store",
    "active_clinics",
    "clinic_param",
    "clinics_param",
    "preflight",
    "summary",
    "tell_assets",
    "watch",
]
