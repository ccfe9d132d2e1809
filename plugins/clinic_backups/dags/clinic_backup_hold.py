"""
### Keep one backup until it is released, whatever the policy says

For a lawsuit or an audit. Started only by hand:

| conf | means |
| --- | --- |
| `{"backup_id": "7-20261124T060000Z", "reason": "file 12/2026"}` | retention keeps it from now on |
| `{"backup_id": "7-20261124T060000Z", "release": true}` | the policy decides again |

The reason is one line without patients' data. It is stored in the catalog, in the log of retention, and in a note
beside the archive in each store, so that a rebuilt catalog knows of the hold. A hold on an incremental backup also
keeps the backups that it is built on. The catalog records who set or ended the hold.

**When it is red**, the log of `hold_or_release` says why: the backup does not exist, the reason is missing, the backup
is on hold already for another reason, or a store did not take the note. In the last case the hold is valid already;
clear the task to write the note.

**To undo**: run it again, with `release` to end a hold, or without it to set one again. The same from a terminal:
`clinic-backups hold` and `clinic-backups release`.
"""

from __future__ import annotations

from datetime import timedelta

from airflow.sdk import Param, dag

from clinic_backups.base.load_settings import for_schedules
from clinic_backups.operators.retention_tasks import hold_or_release
from clinic_backups.operators.task_defaults import task_defaults

configured = for_schedules()


@dag(
    description="Keep one backup until it is released",
    schedule=None,
    catchup=False,
    max_active_runs=1,
    allowed_run_types=("manual", "operator_triggered"),
    dagrun_timeout=timedelta(hours=6),
    doc_md=__doc__,
    tags=["clinic backups"],
    default_args=task_defaults(configured),
    params={
        "backup_id": Param("", type="string", title="Backup", description="Its id, as the list of backups shows it"),
        "reason": Param("", type=["null", "string"], title="Reason", description="One line; no patients' data"),
        "release": Param(False, type="boolean", title="Release", description="End the hold"),
    },
)
def clinic_backup_hold() -> None:
    hold_or_release()
