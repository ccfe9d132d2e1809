"""
### Restore one clinic, and leave all others alone

Started by hand: **Trigger**, with the clinic's id. `plan` → `approve` → `apply` → `report`.

| conf | means |
| --- | --- |
| `{"clinic_id": 7}` | from its newest backup |
| `"backup_id": "7-20261124T060000Z"` | from this backup |
| `"as_of": "2026-11-20T12:00:00-04:00"` | from the newest backup at or before this time |
| `"mode": "missing"` | only bring back rows that are gone; nothing is changed or deleted (`exact` is the default) |
| `"mode": "live"` | as `exact`, and rows that people change after the plan stay as they leave them |
| `"mode": "into", "schema": "clinic_7_look"` | not into the clinic: a copy in a new schema of `restore_target` |
| `"tables": ["public.citas_consulta"]` | only these tables |
| `"other_database": true` | restore although the database is another one than backups are read from |
| `"approve": true` | do not wait for somebody to approve; once, and not where `CLINIC_BACKUPS_APPROVERS` is set |

1. `plan` checks the whole archive and compares: its log, and the page to approve, name the database that would be
   written to, and how many rows of which table would be inserted, updated and deleted. Nothing is changed by it.
2. `approve` waits under **Required Actions** for `CLINIC_BACKUPS_APPROVAL_HOURS`. Who may approve gets a mail at once,
   and another one before the plan lapses. The catalog notes who answered, and the reason where one is given. Whoever
   asked hears the answer.
3. `apply` takes the approval from there: it holds for that plan and that database, and once. Then it backs up the
   clinic as it is and writes only the rows that differ, in one transaction. Before it commits, the clinic is read again
   and must equal the backup, and the database's own count of written rows must equal the plan: else nothing happened.

**A rejected plan** ends the run green: `apply` is skipped, and `report` says by whom and why.

**When it is red**, nothing was changed, unless `apply` says otherwise. The log of the first red task says why: a wrong
key, a damaged archive, rows that stand in the way (with the list), a plan that nobody answered in time, a
clinic that changed after the plan was made. Then
start it again: the plan is made anew. Clearing or marking single tasks takes the place of no approval.

**To undo**: start it with the `backup_id` of the safety backup, which `apply` and the mail name. After a restore of
some tables only these are taken back.
"""

from __future__ import annotations

from datetime import timedelta

from airflow.sdk import Param, dag

from clinic_backups.base import settings
from clinic_backups.operators import OWNER
from clinic_backups.operators.restore import PlanApproval, apply, plan, report

configured = settings.for_schedules()


@dag(
    description="Restore one clinic, and leave all others alone",
    schedule=None,
    catchup=False,
    max_active_runs=4,
    allowed_run_types=("manual", "operator_triggered"),
    dagrun_timeout=timedelta(hours=configured.approval_hours, days=2),
    doc_md=__doc__,
    tags=["clinic backups"],
    default_args={
        "owner": OWNER,
        "retries": configured.retries,
        "retry_delay": timedelta(seconds=configured.retry_delay_seconds),
    },
    params={
        "clinic_id": Param(None, type=["null", "integer"], minimum=1, title="Clinic", description="Id of the clinic"),
        "backup_id": Param(None, type=["null", "string"], title="Backup", description="Empty: the newest"),
        "as_of": Param(None, type=["null", "string"], title="As of", description="The newest backup until this time"),
        "mode": Param("exact", type="string", enum=["exact", "missing", "live", "into"], title="Mode"),
        "schema": Param(None, type=["null", "string"], title="New schema", description="Only with the mode into"),
        "tables": Param(
            None, type=["null", "array"], items={"type": "string"}, title="Tables", description="Empty: all"
        ),
        "ignore_dropped": Param(False, type="boolean", title="Leave out columns that are gone"),
        "other_database": Param(False, type="boolean", title="Into another database than backups are read from"),
        "approve": Param(False, type="boolean", title="Approve in advance"),
        "notes": Param("", type=["null", "string"], title="Notes", description="A line; no patients' data"),
    },
)
def clinic_restore() -> None:
    approval = PlanApproval(
        task_id="approve",
        response_timeout=timedelta(hours=configured.approval_hours),
        assigned_users=[{"id": name, "name": name} for name in configured.approvers] or None,
        retries=0,
    )
    applied = apply()
    plan() >> approval >> applied
    report(applied)


clinic_restore()
