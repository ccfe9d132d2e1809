"""
### Is every clinic's last good backup young enough?

Each hour this DAG checks in the catalog that every active clinic has a good backup younger than
`CLINIC_BACKUPS_RPO_HOURS`. So a missed night is noticed, whatever the cause.

It also asks the clinics' database for keys that cannot be ids: such a clinic has no backup at all.

**When it is red**, the log of `watch` names the clinics that are late. The operator (`CLINIC_BACKUPS_OPERATOR_EMAILS`)
got a mail when a clinic became late, and gets one each day while any clinic is late. Look at the last run of
`clinic_backup`: did it run, and what does its `summary` say? Then start it for these clinics: `{"clinic_ids": [7, 9]}`.

The DAG also sends mail that could not be sent before. It pings `CLINIC_BACKUPS_HEARTBEAT_URL` when all is well, and the
same address with `/fail` appended when not. A service that expects the ping notices when Airflow itself is down.

**To undo**: nothing to undo. It reads the catalog.
"""

from __future__ import annotations

from datetime import timedelta

from airflow.sdk import dag

from clinic_backups.base.load_settings import for_schedules
from clinic_backups.operators import watch
from clinic_backups.operators.task_defaults import task_defaults
from clinic_backups.operators.timetable import OnTimeTimetable

configured = for_schedules()


@dag(
    description="Alarm when a clinic's last good backup is too old",
    schedule=OnTimeTimetable("30 * * * *", timezone=configured.time_zone),
    catchup=False,
    max_active_runs=1,
    # A backfill would check today's backups under past dates.
    allowed_run_types=("scheduled", "manual", "operator_triggered"),
    dagrun_timeout=timedelta(minutes=50),
    doc_md=__doc__,
    tags=["clinic backups"],
    default_args=task_defaults(configured, retries=2, retry_delay=timedelta(minutes=2)),
)
def clinic_backup_watch() -> None:
    watch()
