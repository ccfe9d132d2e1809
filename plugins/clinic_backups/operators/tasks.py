"""The tasks around the backups: which clinics, whether everything is ready, and how it went."""

from __future__ import annotations

import logging
from dataclasses import asdict
from typing import Any

from airflow.sdk import get_current_context, task
from airflow.sdk.configuration import conf as airflow_conf
from airflow.sdk.exceptions import AirflowFailException

from clinic_backups.errors import SettingsError
from clinic_backups.model import BackupRecord
from clinic_backups.operators.connections import failing_clearly
from clinic_backups.operators.parts import AirflowParts
from clinic_backups.preflight import require
from clinic_backups.selection import select

log = logging.getLogger(__name__)
LEVELS = {"ok": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}


@task(show_return_value_in_logs=False)  # ten thousand clinics would be one line
def active_clinics() -> list[dict[str, Any]]:
    """The clinics that this run backs up: those that the conf names, else all active ones."""
    run = get_current_context()["dag_run"]
    with failing_clearly(log):
        active, every = AirflowParts().clinics()
        chosen = select(run.conf or {}, active=active, every=every)
        limit = airflow_conf.getint("core", "max_map_length")
        if len(chosen.clinics) > limit:
            raise SettingsError(
                f"{len(chosen.clinics)} clinics are more than Airflow maps a task over, {limit}.",
                hint="Raise AIRFLOW__CORE__MAX_MAP_LENGTH on the scheduler and the workers.",
            )
    log.info("%s clinics will be backed up.", len(chosen.clinics))
    return [asdict(clinic) for clinic in chosen.clinics]


@task(show_return_value_in_logs=False)
def preflight() -> None:
    """Fail before any clinic is touched when something that every backup needs is missing."""
    conf = get_current_context()["dag_run"].conf or {}
    everybody = all(conf.get(key) is None for key in ("clinic_id", "clinic_ids"))
    with failing_clearly(log):
        # Counting the rows of no clinic reads every table: not for one clinic's backup.
        findings = AirflowParts().preflight(count_rows=everybody)
        for finding in findings:
            log.log(LEVELS[finding.level], "%s: %s", finding.check, finding.message)
            if finding.hint:
                log.log(LEVELS[finding.level], "HINT: %s", finding.hint)
        require(findings)


@task(trigger_rule="all_done")
def summary(clinics: list[dict[str, Any]] | None) -> dict[str, int]:
    """Name each clinic's outcome, and make the run red when one has no completed backup."""
    run = get_current_context()["dag_run"]
    if not clinics:
        raise AirflowFailException("No clinic was backed up: see the task active_clinics.")
    with failing_clearly(log):
        # The newest record of each clinic counts: a cleared task makes another one.
        records = {record.clinic_id: record for record in reversed(AirflowParts().catalog.find(run_id=run.run_id))}
    missing = [clinic for clinic in clinics if not _is_complete(records.get(clinic["id"]))]
    for clinic in clinics:
        _log_outcome(clinic, records.get(clinic["id"]))
    log.info("%s of %s clinics have a new backup.", len(clinics) - len(missing), len(clinics))
    if missing:
        names = ", ".join(f"{clinic['id']} {clinic['name']!r}" for clinic in missing)
        raise AirflowFailException(f"{len(missing)} of {len(clinics)} clinics have no backup of this run: {names}.")
    return {"completed": len(clinics)}


def _is_complete(record: BackupRecord | None) -> bool:
    return record is not None and record.state == "completed"


def _log_outcome(clinic: dict[str, Any], record: BackupRecord | None) -> None:
    name = f"{clinic['id']} {clinic['name']!r}"
    if record is None:
        log.error("%s: not begun. See preflight, and this clinic's task back_up.", name)
    elif record.state == "completed":
        log.info("%s: %s rows, %s bytes, %s", name, record.rows_total, record.size_bytes, record.archive_key)
    else:
        log.error("%s: %s. %s", name, record.state, record.error or "See its task back_up.")
        if record.hint:
            log.error("HINT: %s", record.hint)
