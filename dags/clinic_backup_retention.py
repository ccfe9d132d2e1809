"""
### Delete the backups that are past their time

Sundays at 03:00 (`CLINIC_BACKUPS_TIME_ZONE`), and by hand. Every backup is kept for `CLINIC_BACKUPS_KEEP_DAYS`; after
that the newest of so many days, weeks, months and years (`KEEP_DAILY` … `KEEP_YEARLY`), if any are asked for.

Never deleted: a clinic's last good backup (active or not), one on hold (`clinic-backups hold ID --reason …`), one that
a kept backup needs, the safety backup of a restore of the last seven days, and none before the day that it was
promised until.

| conf | means |
| --- | --- |
| `{}` | all clinics |
| `{"clinic_id": 7}` | only this one |
| `{"dry_run": true}` | only write into the log what would go, and why the rest stays |

**When it is red**, the log of `clean` names the clinics that were not cleaned, and why: the store refused, or the
clinic was being backed up or restored. All others were. The next run goes on where this one stopped.

**To undo**: a deleted backup is gone, unless the bucket keeps versions. That is what `dry_run` is for.
"""

from __future__ import annotations

from datetime import timedelta

from airflow.sdk import CronTriggerTimetable, Param, dag

from clinic_backups import settings
from clinic_backups.operators.retention import clean

configured = settings.load()


@dag(
    schedule=CronTriggerTimetable("0 3 * * 0", timezone=configured.time_zone, run_immediately=timedelta(0)),
    catchup=False,
    max_active_runs=1,
    doc_md=__doc__,
    tags=["clinic backups"],
    default_args={"retries": configured.retries, "retry_delay": timedelta(seconds=configured.retry_delay_seconds)},
    params={
        "clinic_id": Param(None, type=["null", "integer", "string"], title="Clinic", description="Empty: all"),
        "dry_run": Param(False, type="boolean", title="Only show"),
    },
)
def clinic_backup_retention() -> None:
    clean()


clinic_backup_retention()
