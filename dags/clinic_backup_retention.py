"""
### Look after the stores, and delete the backups that are past their time

Sundays at 03:00 (`CLINIC_BACKUPS_TIME_ZONE`), and by hand: `check_stores` → `copy_missing` → `clean`.

- `check_stores` compares each store with the catalog. A backup whose object is gone or is another one is recorded as
  lost there, and the operator gets a mail. With `sweep` it also removes what uploads that died left, when it is older
  than a day. Objects that this package did not make, and backups that the catalog does not know, are never touched.
- `copy_missing` makes the copies that stores lack (`CLINIC_BACKUPS_REPLICA_STORES`); what the primary store lost comes
  back from a replica.
- `clean` deletes. Every backup is kept for `CLINIC_BACKUPS_KEEP_DAYS`; after that the newest of so many days, weeks,
  months and years (`KEEP_DAILY` … `KEEP_YEARLY`), if any are asked for. It also goes on with erasures of clinics.

Never deleted: a clinic's last good backup (active or not; the stores are asked whether it is really there), one on hold
(the DAG `clinic_backup_hold`), one that a store keeps locked or does not say so of, one that a kept backup needs, the
safety backup of a restore of the last seven days, and none before the day that it was promised until.

| conf | means |
| --- | --- |
| `{}` | all clinics |
| `{"clinic_id": 7}` | only this one |
| `{"dry_run": true}` | only write into the log what would be done |
| `{"sweep": true}` | also remove what uploads that died left |
| `{"read": true}` | read every archive and compare its SHA-256, not only its size: costs the transfer of everything |

**When it is red**, the log of the first red task says what and why: a store did not answer, copies could not be made,
or clinics were not cleaned (the store refused, or the clinic was being backed up or restored). Everything else was
done. The next run goes on where this one stopped.

**To undo**: a deleted backup is gone, unless the bucket keeps versions. That is what `dry_run` is for.
"""

from __future__ import annotations

from datetime import timedelta

from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.sdk import Param, dag

from clinic_backups.base import settings
from clinic_backups.operators import OWNER
from clinic_backups.operators.copies import check_stores, copy_missing
from clinic_backups.operators.retention import clean
from clinic_backups.operators.timetable import OnTimeTimetable

configured = settings.for_schedules()


@dag(
    description="Look after the stores, and delete backups that are past their time",
    schedule=OnTimeTimetable("0 3 * * 0", timezone=configured.time_zone),
    catchup=False,
    max_active_runs=1,
    # A backfill would do today's work under dates of the past.
    allowed_run_types=("scheduled", "manual", "operator_triggered"),
    dagrun_timeout=timedelta(hours=47),
    doc_md=__doc__,
    tags=["clinic backups"],
    default_args={
        "owner": OWNER,
        "retries": configured.retries,
        "retry_delay": timedelta(seconds=configured.retry_delay_seconds),
    },
    params={
        "clinic_id": Param(None, type=["null", "integer"], minimum=1, title="Clinic", description="Empty: all"),
        "dry_run": Param(False, type="boolean", title="Only show"),
        "sweep": Param(False, type="boolean", title="Sweep", description="Remove what uploads that died left"),
        "read": Param(False, type="boolean", title="Read", description="Read every archive: costs the transfer"),
    },
)
def clinic_backup_retention() -> None:
    checked, cleaned = check_stores(), clean()
    # A new replica takes days to fill: the next run goes on, and meanwhile this one cleans.
    copied = copy_missing.override(execution_timeout=timedelta(hours=6), retries=0)()
    checked >> copied >> cleaned
    # Each goes on after the one before has failed; the run is green only when none has.
    [checked, copied, cleaned] >> EmptyOperator(task_id="all_well")


clinic_backup_retention()
