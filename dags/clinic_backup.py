"""
### Back up every active clinic

Each night at 02:00 (`CLINIC_BACKUPS_TIME_ZONE`): `active_clinics` → `preflight` → `back_up`, one task per clinic →
`summary`.

**By hand**, with a conf:

| conf | what is backed up |
| --- | --- |
| `{}` | all active clinics |
| `{"clinic_id": 7}` | clinic 7, also an inactive one |
| `{"clinic_ids": [7, 9], "notes": "before the migration"}` | these, with a line in the catalog |
| `{"allow_gaps": true}` | also where something would be missing: the backup is marked as incomplete |
| `{"kind": "full"}` | a full backup; `incremental`: only what changed, where that can be; `auto` decides by itself |

**When it is red**, read the log of `summary`: it names each clinic's outcome and the remedy.
- `active_clinics` failed: the conf is wrong (its log lists the clinics that exist), or the database is out of reach.
- `preflight` failed: a setting, the store, the catalog or an extract needs somebody, or something would be missing in
  the backups. No clinic was touched.
- A `back_up` task failed: that clinic alone. Transient errors were tried again by then, permanent ones not. Clear the
  task to try again; it continues the same record.

**To undo**: nothing to undo. A backup only reads the clinics' database; a failed one leaves nothing in the store.
"""

from __future__ import annotations

from datetime import timedelta

from airflow.sdk import CronTriggerTimetable, Param, dag

from clinic_backups import settings
from clinic_backups.operators import (
    Age,
    ClinicBackupOperator,
    SqlExtract,
    Store,
    Zstd,
    active_clinics,
    pool,
    preflight,
    summary,
)

configured = settings.for_schedules()


@dag(
    # timedelta(0): a DAG that is unpaused at noon waits for the next night. False would run now if it is before 04:24.
    schedule=CronTriggerTimetable("0 2 * * *", timezone=configured.time_zone, run_immediately=timedelta(0)),
    catchup=False,
    max_active_runs=1,
    doc_md=__doc__,
    tags=["clinic backups"],
    default_args={
        "retries": configured.retries,
        "retry_delay": timedelta(seconds=configured.retry_delay_seconds),
        "retry_exponential_backoff": True,
        "max_retry_delay": settings.LONGEST_RETRY_DELAY,
    },
    params={
        # Any type here: active_clinics checks them, so that its error can list the clinics that exist.
        "clinic_id": Param(None, type=["null", "integer", "string"], title="Clinic", description="Id of one clinic"),
        "clinic_ids": Param(None, type=["null", "array", "string"], title="Clinics", description="Ids, as [7, 9]"),
        "kind": Param("auto", type="string", enum=["auto", "full", "incremental"], title="Kind"),
        "allow_gaps": Param(False, type=["null", "boolean"], title="Allow gaps", description="Mark it as incomplete"),
        "notes": Param("", type=["null", "string"], title="Notes", description="A line; no patients' data"),
    },
)
def clinic_backup() -> None:
    clinics = active_clinics()
    ready = preflight()
    back_up = ClinicBackupOperator.partial(
        task_id="back_up",
        extract=SqlExtract("extract"),
        compress=Zstd(level=1),
        encrypt=Age(),
        upload=Store(),
        kind="{{ params.kind or 'auto' }}",
        notes="{{ params.notes or '' }}",
        allow_gaps="{{ params.allow_gaps or False }}",
        pool=pool.NAME,
        map_index_template="{{ task.clinic['name'] }}",
    ).expand(clinic=clinics)
    clinics >> ready >> back_up >> summary(clinics)


clinic_backup()
