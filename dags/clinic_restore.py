"""
### Restore one clinic, and leave all others alone

Started by hand: **Trigger**, with the clinic's id. `plan` → `approve` → `safety_backup` → `apply` → `report`.

| conf | means |
| --- | --- |
| `{"clinic_id": 7}` | from its newest backup |
| `"backup_id": "7-20261124T060000Z"` | from this backup |
| `"as_of": "2026-11-20T12:00:00-04:00"` | from the newest backup at or before this time |
| `"mode": "missing"` | only bring back rows that are gone; nothing is changed or deleted (`exact` is the default) |
| `"mode": "into", "schema": "clinic_7_look"` | not into the clinic: a copy in a new schema of `restore_target` |
| `"tables": ["public.citas_consulta"]` | only these tables |
| `"approve": true` | do not wait for somebody to approve |

1. `plan` checks the whole archive and compares: its log, and the page to approve, say how many rows of which table
   would be inserted, updated and deleted. Nothing is changed by it.
2. `approve` waits under **Required Actions** for `CLINIC_BACKUPS_APPROVAL_HOURS`.
3. `safety_backup` backs up the clinic as it is.
4. `apply` writes only the rows that differ, in one transaction. Before it commits, the clinic is read again and must
   equal the backup, and the database's own count of written rows must equal the plan: else nothing happened.

**When it is red**, nothing was changed, unless `apply` says otherwise. The log of the first red task says why: a wrong
key, a damaged archive, rows that stand in the way (with the list), a clinic that changed after the plan was made. Then
start it again: the plan is made anew.

**To undo**: start it with the `backup_id` of the safety backup, which `apply` and the mail name.
"""

from __future__ import annotations

from datetime import timedelta

from airflow.sdk import Param, dag

from clinic_backups import settings
from clinic_backups.operators.restore import PlanApproval, apply, plan, report, safety_backup

configured = settings.load()


@dag(
    schedule=None,
    catchup=False,
    max_active_runs=4,
    doc_md=__doc__,
    tags=["clinic backups"],
    default_args={"retries": configured.retries, "retry_delay": timedelta(seconds=configured.retry_delay_seconds)},
    params={
        # Any type here: plan checks them, so that its error can list the clinics that exist.
        "clinic_id": Param(None, type=["null", "integer", "string"], title="Clinic", description="Id of the clinic"),
        "backup_id": Param(None, type=["null", "string"], title="Backup", description="Empty: the newest"),
        "as_of": Param(None, type=["null", "string"], title="As of", description="The newest backup until this time"),
        "mode": Param("exact", type="string", enum=["exact", "missing", "into"], title="Mode"),
        "schema": Param(None, type=["null", "string"], title="New schema", description="Only with the mode into"),
        "tables": Param(None, type=["null", "array"], title="Tables", description="Empty: all"),
        "ignore_dropped": Param(False, type="boolean", title="Leave out columns that are gone"),
        "approve": Param(False, type="boolean", title="Approve in advance"),
        "notes": Param("", type=["null", "string"], title="Notes", description="A line; no patients' data"),
    },
)
def clinic_restore() -> None:
    planned = plan()
    approval = PlanApproval(
        task_id="approve",
        planned=planned,
        response_timeout=timedelta(hours=configured.approval_hours),
        assigned_users=[{"id": name, "name": name} for name in configured.approvers] or None,
        retries=0,
    )
    saved = safety_backup(planned)
    approval >> saved
    report(apply(planned, approval.output, saved))


clinic_restore()
