"""The task that deletes what retention lets go."""

from __future__ import annotations

import logging

from airflow.sdk import get_current_context, task
from airflow.sdk.exceptions import AirflowFailException

from clinic_backups.operators.connections import failing_clearly
from clinic_backups.operators.parts import AirflowParts
from clinic_backups.selection import flag, require_known_keys, select

log = logging.getLogger(__name__)
KEYS = ("clinic_id", "dry_run")


@task
def clean() -> dict[str, int]:
    """Each clinic's decisions with their reasons go into the log; a clinic that cannot be cleaned stops no other."""
    conf = {key: value for key, value in (get_current_context()["dag_run"].conf or {}).items() if value is not None}
    with failing_clearly(log):
        require_known_keys(conf, KEYS)
        dry_run = flag(conf, "dry_run")
        parts = AirflowParts()
        clinic_id = None
        if "clinic_id" in conf:
            _, every = parts.clinics()
            clinic_id = select({"clinic_id": conf["clinic_id"]}, active=[], every=every).clinics[0].id
        cleaner = parts.cleaner()
        deleted = kept = 0
        problems: list[str] = []
        for result in cleaner.run(clinic_id=clinic_id, dry_run=dry_run):
            for decision in result.decisions:
                verb = "stays" if decision.keep else "would go" if dry_run else "goes"
                log.info("%s %s: %s", decision.backup.backup_id, verb, decision.reason)
            deleted += result.deleted
            kept += result.kept
            if result.problem:
                log.error("Clinic %s: %s HINT: %s", result.clinic_id, result.problem, result.hint)
                problems.append(str(result.clinic_id))
        forgotten = cleaner.forget_old() if clinic_id is None and not dry_run else 0
    log.info("%s backups were deleted, %s stay; %s old records were forgotten.", deleted, kept, forgotten)
    if problems:
        raise AirflowFailException(f"These clinics were not cleaned: {', '.join(problems)}. The next run goes on.")
    return {"deleted": deleted, "kept": kept}
