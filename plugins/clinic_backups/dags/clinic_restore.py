"""
### Restore one clinic, and leave all others alone

Started by hand: **Trigger**, with the clinic's id. `plan` → `approve` → `apply` → `report`.

| conf | means |
| --- | --- |
| `{"clinic_id": 7}` | from its newest backup |
| `"backup_id": "7-20261124T060000Z"` | from this backup |
| `"as_of": "2026-11-20T12:00:00-04:00"` | from the newest backup at or before this time |
| `"from_connection": "pitr_db"` | from a database of an earlier time: see docs/point-in-time.md |
| `"mode": "missing"` | only bring back rows that are gone; nothing is changed or deleted (`exact` is the default) |
| `"mode": "live"` | as `exact`, but rows that people change after the plan keep their changes |
| `"mode": "into", "schema": "clinic_7_look"` | write a copy into a new schema of `restore_target` instead |
| `"mode": "export", "format": "xlsx"` | write a file for the clinic to download; or csv, json, sqlite |
| `"password": "…"` | for an export: the encrypted password that the clinic's page has made; never a plain one |
| `"masked": false` | with `into`: leave in clear what `include/sql/masks.txt` would mask |
| `"rows": {"public.usuarios_paciente": [43, 44]}` | only these rows and what hangs on them; all else stays as it is |
| `"only": true` | with `rows`: without what hangs on them |
| `"tables": ["public.citas_consulta"]` | only these tables |
| `"ignore_dropped": true` | leave out the values of columns that were dropped since the backup |
| `"other_database": true` | restore although the database is another one than backups are read from |
| `"approve": true` | do not wait for an approval; valid once, and ignored if `CLINIC_BACKUPS_APPROVERS` is set |
| `"notes": "case 12"` | one line that is stored with the restore; no patients' data |

1. `preflight` opens the beginning of the backup with this worker's secret key, and asks the store, the catalog, the
   clock and `restore_db` for what a restore needs. The same by hand: `clinic-backups check --restore`.
2. `plan` checks the whole archive and compares it with the clinic. Its log and the approval page name the database that
   would be written to, and the number of rows to insert, update and delete in each table. It changes nothing.
3. `approve` waits under **Required Actions** for `CLINIC_BACKUPS_APPROVAL_HOURS`. The approvers get a mail at once, and
   another one before the plan lapses. The catalog records who answered, and the reason if one is given. Whoever asked
   for the restore is told the answer.
4. `apply` reads the approval from the catalog. It is valid for that plan and that database, and only once. Then `apply`
   backs up the present state and writes only the rows that differ, in one transaction. Before it commits, the clinic is
   read again and must equal the backup, and the database's own count of written rows must equal the plan. Otherwise
   everything is rolled back.

**A rejected plan** ends the run green: `apply` is skipped, and `report` says who rejected it and why.

**When it is red**, nothing was changed, unless `apply` says otherwise. The log of the first red task says why: a wrong
key, a damaged archive, obstacles (listed), a plan that nobody answered in time, a clinic that changed after the plan
was made. Start the DAG again to make a new plan. Clearing or marking single tasks does not replace an approval.

**To undo**: start it with the `backup_id` of the safety backup, which `apply` and the mail name. After a restore of
some tables, this restores only these tables.
"""

from __future__ import annotations

from datetime import timedelta

from airflow.sdk import Param, dag

from clinic_backups.base.load_settings import for_schedules
from clinic_backups.catalog.exports import FORMATS
from clinic_backups.operators import clinic_param
from clinic_backups.operators.restore_side_task import restore_preflight
from clinic_backups.operators.restore_tasks import PlanApproval, apply, plan, report
from clinic_backups.operators.task_defaults import task_defaults
from clinic_backups.restore.request import EXPORT, INTO, MODES

configured = for_schedules()


@dag(
    description="Restore one clinic, and leave all others alone",
    schedule=None,
    catchup=False,
    max_active_runs=4,
    allowed_run_types=("manual", "operator_triggered"),
    dagrun_timeout=timedelta(hours=configured.approval_hours, days=2),
    doc_md=__doc__,
    tags=["clinic backups"],
    default_args=task_defaults(configured, restores=True),
    params={
        "clinic_id": clinic_param(configured, "Id of the clinic"),
        "backup_id": Param(None, type=["null", "string"], title="Backup", description="Empty: the newest"),
        "as_of": Param(None, type=["null", "string"], title="As of", description="The newest backup until this time"),
        "from_connection": Param(
            None,
            type=["null", "string"],
            title="From another database",
            description="The connection to a database that was recovered to an earlier time",
        ),
        "mode": Param("exact", type="string", enum=[*MODES, INTO, EXPORT], title="Mode"),
        "schema": Param(None, type=["null", "string"], title="New schema", description="Only with the mode into"),
        "format": Param(
            None,
            type=["null", "string"],
            enum=[None, *FORMATS],
            title="Format",
            description="With the mode export",
        ),
        "password": Param(
            None, type=["null", "string"], title="Encrypted password", description="The page gives it to an export"
        ),
        "masked": Param(
            None, type=["null", "boolean"], title="Masked", description="Only with the mode into; empty: by masks.txt"
        ),
        "tables": Param(
            None, type=["null", "array"], items={"type": "string"}, title="Tables", description="Empty: all"
        ),
        "rows": Param(
            None,
            type=["null", "object"],
            title="Only these rows",
            description='With what hangs on them: {"public.usuarios_paciente": [43, 44]}',
        ),
        "only": Param(False, type="boolean", title="Without what hangs on these rows"),
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
        # It waits for a person.
        execution_timeout=None,
    )
    applied = apply()
    restore_preflight() >> plan() >> approval >> applied
    report(applied)
