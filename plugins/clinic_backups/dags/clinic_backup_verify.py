"""
### Read every replica of one backup, and compare it with the catalog

Started only by hand:

| conf | means |
| --- | --- |
| `{"backup_id": "7-20261124T060000Z"}` | this backup; if it is incremental, also the backups that it is built on |

Each replica is read whole, in each store that should have it. Its size and SHA-256 are compared with the recorded ones.
No key is needed, because the archive is not decrypted. All replicas are transferred. An envelope or a hold note that
differs from the catalog is written again.

**When it is red**, the log of `verify` names each bad replica and the remedy.
- A replica is missing or damaged. That is recorded, also for the backups that are built on it, and the operator gets a
  mail. If another store has a good replica, the backup can be restored, and the DAG `clinic_backup_retention` makes the
  replica again.
- A store did not answer, or the result could not be recorded because the clinic was being backed up. Nothing was
  recorded about these replicas. The task was retried; clear it to try once more.

**When it is green**, all replicas are good. A replica that was recorded as lost or damaged before counts again.

**To undo**: nothing to undo. It changes no archive. The same by hand: `clinic-backups verify`.
"""

from __future__ import annotations

from datetime import timedelta

from airflow.sdk import Param, dag

from clinic_backups.base.load_settings import for_schedules
from clinic_backups.operators.task_defaults import task_defaults
from clinic_backups.operators.verification_tasks import verify

configured = for_schedules()


@dag(
    description="Read every replica of one backup, and compare it with the catalog",
    schedule=None,
    catchup=False,
    max_active_runs=4,
    allowed_run_types=("manual", "operator_triggered"),
    dagrun_timeout=timedelta(days=2),
    doc_md=__doc__,
    tags=["clinic backups"],
    default_args=task_defaults(configured),
    params={
        "backup_id": Param("", type="string", title="Backup", description="Its id, as the list of backups shows it"),
    },
)
def clinic_backup_verify() -> None:
    verify()
