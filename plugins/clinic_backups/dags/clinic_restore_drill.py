"""
### Prove that backups can be restored

Each night this DAG restores newest backups into a throw-away PostgreSQL, so that every clinic's backups, and those of
the shared data, are proven at least every `CLINIC_BACKUPS_PROVE_WITHIN_DAYS` days. Each backup is restored with the
definition of the database and all constraints. It is read again, and every block is compared with the archive. Rows and
amounts are counted, and a new row is tried in every table. The clinics' database is never touched.

| conf | means |
| --- | --- |
| `{}` | those whose turn it is: without a proof, failed last time, then the oldest proof first |
| `{"clinic_id": 7}` | only this clinic |
| `{"shared": true}` | only the shared data |

`preflight` asks first for what every drill needs: the secret key, the catalog, the clock and PostgreSQL's programs.

`restore_side` asks for all that restores and drills need, so that a lost key or right is noticed before the night in
which somebody needs it: as `clinic-backups check --restore`, without writing a row. **When it is red**, its log names
each thing that is wrong and the remedy, and the operator got a mail. No drill waits for it.

It runs only where restores run: it needs `CLINIC_BACKUPS_IDENTITY_FILE`. A worker without the secret key fails at once.
Patients' data lie on its disk only in one folder that other users cannot open, and that is removed at the end. With the
connection `drill_db` they go to that server instead, which must not be that of the clinics' database.

A night takes at most `CLINIC_BACKUPS_DRILL_MINUTES`, as far as the last drills tell. The measured seconds of a clinic's
newest proof are its recovery time. Each proof has a certificate: `clinic-backups certificate show`.

**When it is red**, the log of `drill` names each backup that is not proven, why, and what to do. The operator got a
mail for each. The other backups were drilled all the same. If another store has a good replica, the backup is proven
from there, and the log says so.

**When it is green**, everything whose turn it was is proven.

**To undo**: nothing to undo. What a killed drill left on disk is removed by the next one. The same by hand:
`clinic-backups drill`.
"""

from __future__ import annotations

from datetime import timedelta

from airflow.sdk import Param, dag

from clinic_backups.base.load_settings import for_schedules
from clinic_backups.operators import clinic_param
from clinic_backups.operators.drill_tasks import drill
from clinic_backups.operators.restore_side_task import drill_preflight, restore_side
from clinic_backups.operators.task_defaults import task_defaults
from clinic_backups.operators.timetable import on_time

configured = for_schedules()


@dag(
    description="Prove that backups can be restored",
    schedule=on_time([configured.drill_schedule], configured.time_zone),
    catchup=False,
    max_active_runs=1,
    # A backfill would drill today's backups under past dates.
    allowed_run_types=("scheduled", "manual", "operator_triggered"),
    # The last drill of a night may begin just before its minutes are over.
    dagrun_timeout=timedelta(minutes=configured.drill_minutes, hours=12),
    doc_md=__doc__,
    tags=["clinic backups"],
    default_args=task_defaults(configured, restores=True),
    params={
        "clinic_id": clinic_param(configured, "Empty: those whose turn it is"),
        "shared": Param(False, type="boolean", title="Only the shared data"),
    },
)
def clinic_restore_drill() -> None:
    drill_preflight() >> drill()
    restore_side()  # no drill waits for it
