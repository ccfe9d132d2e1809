"""The tasks around the backups: which clinics, whether everything is ready, how it went, and whether all are well."""

from __future__ import annotations

import logging
from dataclasses import asdict
from typing import Any
from urllib.parse import quote

from airflow.sdk import get_current_context, task
from airflow.sdk.configuration import conf as airflow_conf
from airflow.sdk.exceptions import AirflowFailException

from clinic_backups import watch as watching
from clinic_backups.catalog.outbox import Notice
from clinic_backups.errors import ClinicBackupsError, SettingsError
from clinic_backups.model import BackupRecord, Clinic, plain
from clinic_backups.notify.digest import UNDELIVERED_AFTER, digest_facts, is_complete, overdue_facts
from clinic_backups.operators.connections import failing_clearly, log_delivery
from clinic_backups.operators.link import airflow_url
from clinic_backups.operators.parts import AirflowParts
from clinic_backups.preflight import require
from clinic_backups.restore.runner import close_abandoned
from clinic_backups.selection import flag, for_all_clinics, select

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
    with failing_clearly(log):
        parts = AirflowParts()
        # Comparing the rows of all clinics reads every table: a backup of one clinic compares that clinic's alone.
        findings = parts.preflight(count_rows=for_all_clinics(conf))
        for finding in findings:
            log.log(LEVELS[finding.level], "%s: %s", finding.check, finding.message)
            if finding.hint:
                log.log(LEVELS[finding.level], "HINT: %s", finding.hint)
        require(findings, allow_gaps=flag(conf, "allow_gaps"))
        active, every = parts.clinics()
        parts.known_clinics.see(active=active, every=every)


@task(trigger_rule="all_done")
def summary(clinics: list[dict[str, Any]] | None) -> dict[str, int]:
    """Name each clinic's outcome, send the digest, and make the run red when a clinic has no completed backup."""
    context = get_current_context()
    run_id = context["dag_run"].run_id
    wanted = [Clinic(**clinic) for clinic in clinics or ()]
    with failing_clearly(log):
        parts = AirflowParts()
        try:
            _close_what_died(parts, run_id)
        except ClinicBackupsError as error:
            # A store that is out of reach may be why this run failed: the operator must hear of it all the same.
            log.error("Records of dead processes stay open for a later run: %s", error)
        # The newest record of each clinic counts: a cleared task makes another one.
        records = {record.clinic_id: record for record in reversed(parts.catalog.find(run_id=run_id))}
        parts.outcomes.announce_failures(list(records.values()))
        _queue_digest(parts, context, wanted, records)
        log_delivery(log, parts.deliver)
    for clinic in wanted:
        _log_outcome(clinic, records.get(clinic.id))
    missing = [clinic for clinic in wanted if not is_complete(records.get(clinic.id))]
    if not wanted:
        raise AirflowFailException("No clinic was backed up: see the task active_clinics.")
    log.info("%s of %s clinics have a new backup.", len(wanted) - len(missing), len(wanted))
    if missing:
        names = ", ".join(f"{clinic.id} {clinic.name!r}" for clinic in missing)
        raise AirflowFailException(f"{len(missing)} of {len(wanted)} clinics have no backup of this run: {names}.")
    return {"completed": len(wanted)}


@task
def watch() -> dict[str, int]:
    """Alarm the operator when a clinic's last good backup is too old, and send mail that waits."""
    with failing_clearly(log):
        parts = AirflowParts()
        settings = parts.settings
        url = settings.heartbeat_url.get_secret_value()
        try:
            now = parts.clock()
            facts = overdue_facts(parts.known_clinics.health(now), settings.rpo_hours, now)
            notice = watching.alarm_notice(facts, parts.outbox.last("alarm"), now)
            if notice is not None:
                parts.outbox.queue(notice, now)
            log_delivery(log, parts.deliver)
        except BaseException:
            if url:
                watching.ping(url, well=False)
            raise
        late = watching.count_late(facts)
        if url:
            watching.ping(url, well=late == 0)
    for clinic in (*facts["never"], *facts["overdue"]):
        log.error("%s %r: %s", clinic["clinic_id"], clinic["clinic_name"], clinic.get("last_good_at", "no backup yet"))
    if late:
        raise AirflowFailException(f"{late} clinics have no good backup younger than {settings.rpo_hours} hours.")
    return {"late": late}


def _close_what_died(parts: AirflowParts, run_id: str) -> None:
    """Records of this run are nobody's now; those of other runs may still be tried again for a while."""
    closed = parts.outcomes.close_abandoned(run_id=run_id)
    closed += parts.outcomes.close_abandoned(before=parts.clock() - parts.settings.longest_retrying)
    for restored in close_abandoned(parts.catalog, parts.clinic_db, parts.clock):
        log.warning("%s was found without its process and is %s now.", restored.restore_id, restored.state)
    for record in closed:
        log.warning("%s was found without its process and is %s now.", record.backup_id, record.state)


def _queue_digest(parts: AirflowParts, context: Any, clinics: list[Clinic], records: dict[int, BackupRecord]) -> None:
    settings, now = parts.settings, parts.clock()
    run_id, instance = context["dag_run"].run_id, context["ti"]
    base = airflow_url()
    run_url = f"{base}/dags/{quote(instance.dag_id)}/runs/{quote(run_id, safe='')}" if base else ""
    last = parts.outbox.last("digest")
    facts = digest_facts(
        run_id=run_id,
        run_url=run_url,
        clinics=clinics,
        records=records,
        urls={
            clinic.id: f"{run_url}/tasks/back_up/mapped/{index}" if run_url else ""
            for index, clinic in enumerate(clinics)
        },
        health=parts.known_clinics.health(now),
        shrunk=parts.known_clinics.shrunk(run_id, settings.shrink_percent),
        undelivered=parts.outbox.undelivered(
            waiting_since=now - UNDELIVERED_AFTER, refused_since=last[1] if last else now - UNDELIVERED_AFTER
        ),
        copies=[plain(backlog) for backlog in parts.copies().backlog(parts.stores.urls)],
        objective_hours=settings.rpo_hours,
        started_at=context["dag_run"].start_date or now,
        now=now,
    )
    parts.outbox.queue(Notice(f"digest:{run_id}:{instance.try_number}", "digest", facts), now)


def _log_outcome(clinic: Clinic, record: BackupRecord | None) -> None:
    name = f"{clinic.id} {clinic.name!r}"
    if record is None:
        log.error("%s: not begun. See preflight, and this clinic's task back_up.", name)
    elif record.state == "completed":
        log.info("%s: %s rows, %s bytes, %s", name, record.rows_total, record.size_bytes, record.archive_key)
        if record.gaps:
            log.warning("%s: the backup is incomplete: %s", name, ", ".join(sorted({g.table for g in record.gaps})))
    else:
        log.error("%s: %s. %s", name, record.state, record.error or "See its task back_up.")
        if record.hint:
            log.error("HINT: %s", record.hint)
