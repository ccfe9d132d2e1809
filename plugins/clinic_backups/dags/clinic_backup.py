"""
### Back up every active clinic

Each night at 02:00 (`CLINIC_BACKUPS_SCHEDULE`, in `CLINIC_BACKUPS_TIME_ZONE`):
`active_clinics` → `preflight` → `back_up` → `summary`. `back_up` is one task per clinic, and one for the shared data.
With more than `CLINIC_BACKUPS_TASKS` of them, a task backs up several clinics.

**By hand**, with a conf:

| conf | what is backed up |
| --- | --- |
| `{}` | all active clinics and the shared data: what belongs to no clinic, sequences, the database's definition |
| `{"shared": true}` | the shared data alone |
| `{"clinic_id": 7}` | clinic 7, also an inactive one |
| `{"clinic_ids": [7, 9], "notes": "before the migration"}` | these clinics, with a line in the catalog |
| `{"allow_gaps": true}` | all, even if something would be missing: such a backup is marked as incomplete |
| `{"kind": "full"}` | full backups; `incremental`: only what changed, if possible; `auto` decides |

**When it is red**, read the log of `summary`: it names each clinic's outcome and the remedy.
- `active_clinics` failed: the conf is wrong (its log lists the clinics that exist), or the database does not answer.
- `preflight` failed: a setting, a store, the catalog, the database or the pool is not in order. No clinic was touched.
- A `back_up` task failed: only that clinic has no backup, or those that the end of the task's log names. A wrong
  extract fails every backup that it affects; the log of `preflight` lists all of them. Transient errors were retried,
  permanent ones were not. Clear the task to try again; it continues the same record.
  Clear it with its downstream tasks: then `summary` looks at all clinics of the run again, and the run turns green once
  each of them has its backup.
- Only `summary` failed: the key of a clinic cannot be an id. The log has the key and the remedy. The others were backed
  up.

With `CLINIC_BACKUPS_ASSETS=each` there is also `tell_assets`: it updates the assets of clinics that are backed up
although another clinic made their task fail. After a task was cleared, an asset may get the event of one backup twice.

**When a task waits as `up_for_reschedule`**, another run or a restore works on its clinic, or its part of the start
window has not begun. It goes on by itself and uses up no retry.

**To undo**: nothing to undo. A backup only reads the clinics' database; a failed one leaves nothing in the store.
"""

from __future__ import annotations

from datetime import timedelta

from airflow.sdk import Param, dag

from clinic_backups.base.load_settings import for_schedules
from clinic_backups.base.settings import LONGEST_RETRY_DELAY
from clinic_backups.operators import (
    CODEC,
    ENCRYPTION,
    ClinicBackupOperator,
    SqlExtract,
    Store,
    active_clinics,
    clinic_param,
    clinics_param,
    pool,
    preflight,
    priority,
    summary,
    tell_assets,
)
from clinic_backups.operators.assets import outlets_of_backups, outlets_of_run
from clinic_backups.operators.task_defaults import task_defaults
from clinic_backups.operators.timetable import on_time

configured = for_schedules()


@dag(
    description="Back up every active clinic, each night",
    schedule=on_time(configured.schedules, configured.time_zone),
    catchup=False,
    # A clinic that is backed up by hand does not wait for the night's run. Its lock keeps two runs from one clinic.
    max_active_runs=16,
    # A backfill would back up today's data under past dates.
    allowed_run_types=("scheduled", "manual", "operator_triggered"),
    dagrun_timeout=timedelta(hours=configured.run_hours),
    doc_md=__doc__,
    tags=["clinic backups"],
    default_args=task_defaults(configured, retry_exponential_backoff=True, max_retry_delay=LONGEST_RETRY_DELAY),
    params={
        "clinic_id": clinic_param(configured, "Id of one clinic"),
        "clinic_ids": clinics_param(configured, "Their ids, as [7, 9]"),
        "shared": Param(
            None, type=["null", "boolean"], title="Shared data", description="Alone, or with the clinics above"
        ),
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
        compress=CODEC,
        encrypt=ENCRYPTION,
        upload=Store(),
        options="{{ params | tojson }}",
        pool=pool.NAME,
        weight_rule=priority.BY_HAND_FIRST,
        # Airflow keeps 250 characters. With more it refuses the end of the task, which then counts as failed.
        map_index_template="{{ task.clinic['name'][:250] }}",
        outlets=outlets_of_backups(configured),
    ).expand(clinic=clinics)
    clinics >> ready >> back_up >> summary.override(outlets=outlets_of_run(configured))(clinics)
    if outlets := outlets_of_backups(configured):
        back_up >> tell_assets.override(outlets=outlets)(clinics)
