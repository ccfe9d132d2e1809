"""
### Check the stores, and delete expired backups

Sundays at 03:00 (`CLINIC_BACKUPS_RETENTION_SCHEDULE`, in `CLINIC_BACKUPS_TIME_ZONE`), and by hand:
`check_stores` → `replicate_missing` → `clean`.

- `check_stores` compares each store with the catalog. If the object of a backup is missing or differs, the replica is
  recorded as lost, and the operator gets a mail. With `sweep` it also removes the remains of unfinished uploads that
  are older than a day. Objects that this package did not make, and backups that the catalog does not know, are never
  touched.
- `replicate_missing` makes the replicas that stores lack (`CLINIC_BACKUPS_REPLICA_STORES`). A replica that the primary
  store lost is made from another store's.
- `clean` deletes. Every backup is kept for `CLINIC_BACKUPS_KEEP_DAYS`. After that, the newest backup of each of the
  last days, weeks, months and years is kept, as `KEEP_DAILY` … `KEEP_YEARLY` say. It also continues erasures of
  clinics.

These are never deleted:
- a clinic's last good backup, whether the clinic is active or not; the stores are asked whether it is really there;
- a backup on hold (the DAG `clinic_backup_hold`);
- a backup that a store keeps locked, or of which a store does not say whether it is locked;
- a backup that a kept backup needs;
- the safety backup of a restore of the last seven days;
- any backup before the day that it was promised until.

| conf | means |
| --- | --- |
| `{}` | all clinics |
| `{"clinic_id": 7}` | only this one |
| `{"dry_run": true}` | change nothing; the log says what would be done |
| `{"sweep": true}` | also remove the remains of unfinished uploads |
| `{"read": true}` | read every archive and compare its SHA-256, not only its size: all archives are transferred |

**When it is red**, the log of the first red task says what failed and why: a store did not answer, replicas could not
be made, or a clinic's backups were not deleted (the store refused, or the clinic was being backed up or restored).
Everything else was done. The next run continues where this one stopped.

**To undo**: a deleted backup is gone, unless the bucket keeps versions. That is what `dry_run` is for.
"""

from __future__ import annotations

from datetime import timedelta

from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.sdk import Param, dag

from clinic_backups.base.load_settings import for_schedules
from clinic_backups.operators import clinic_param
from clinic_backups.operators.replication_tasks import check_stores, replicate_missing
from clinic_backups.operators.retention_tasks import clean
from clinic_backups.operators.task_defaults import task_defaults
from clinic_backups.operators.timetable import on_time

configured = for_schedules()


@dag(
    description="Check the stores, and delete expired backups",
    schedule=on_time([configured.retention_schedule], configured.time_zone),
    catchup=False,
    max_active_runs=1,
    # A backfill would apply today's policy under past dates.
    allowed_run_types=("scheduled", "manual", "operator_triggered"),
    dagrun_timeout=timedelta(hours=47),
    doc_md=__doc__,
    tags=["clinic backups"],
    default_args=task_defaults(configured),
    params={
        "clinic_id": clinic_param(configured, "Empty: all"),
        "dry_run": Param(False, type="boolean", title="Only show"),
        "sweep": Param(False, type="boolean", title="Sweep", description="Remove remains of unfinished uploads"),
        "read": Param(False, type="boolean", title="Read", description="Read every archive: costs the transfer"),
    },
)
def clinic_backup_retention() -> None:
    checked, cleaned = check_stores(), clean()
    # A new store takes days to fill. After six hours this run goes on to clean, and the next run makes the rest.
    replicated = replicate_missing.override(execution_timeout=timedelta(hours=6), retries=0)()
    checked >> replicated >> cleaned
    # Each task runs even if the one before failed. The run is green only if none failed.
    [checked, replicated, cleaned] >> EmptyOperator(task_id="all_well")
