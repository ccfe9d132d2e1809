"""
### Read every copy of one backup, and compare it with the catalog

By hand only:

| conf | means |
| --- | --- |
| `{"backup_id": "7-20261124T060000Z"}` | this backup; of an incremental one also all that it is built on |

Each copy is read whole, in each store that should have it, and its size and SHA-256 are compared with what was stored.
No key is needed: what is inside is not opened. It costs the transfer of all copies. An envelope or a note of a hold
that does not fit is written again.

**When it is red**, the log of `verify` names each bad copy and the remedy.
- A copy is missing or damaged: that is recorded, with all that is built on it, and the operator gets a mail. While
  another store has a good copy, the backup can be restored, and the DAG `clinic_backup_retention` makes the copy again.
- A store did not answer, or the clinic was being backed up when something was to be recorded: nothing was recorded of
  these copies. This was tried again by then; clear the task to try once more.

**When it is green**, all copies are good now; one that was recorded as lost or damaged before counts again.

**To undo**: nothing to undo. It changes no archive. The same by hand: `clinic-backups verify`.
"""

from __future__ import annotations

from datetime import timedelta

from airflow.sdk import Param, dag

from clinic_backups.base import settings
from clinic_backups.operators import OWNER
from clinic_backups.operators.verify import verify

configured = settings.for_schedules()


@dag(
    description="Read every copy of one backup, and compare it with the catalog",
    schedule=None,
    catchup=False,
    max_active_runs=4,
    allowed_run_types=("manual", "operator_triggered"),
    dagrun_timeout=timedelta(days=2),
    doc_md=__doc__,
    tags=["clinic backups"],
    default_args={
        "owner": OWNER,
        "retries": configured.retries,
        "retry_delay": timedelta(seconds=configured.retry_delay_seconds),
    },
    params={
        "backup_id": Param("", type="string", title="Backup", description="Its id, as the list of backups shows it"),
    },
)
def clinic_backup_verify() -> None:
    verify()


clinic_backup_verify()
