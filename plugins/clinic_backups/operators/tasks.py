"""The tasks around the backups: selecting the clinics, the preflight, and the summary."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any
from urllib.parse import quote

from airflow.sdk import get_current_context, task
from airflow.sdk.configuration import conf as airflow_conf
from airflow.sdk.exceptions import AirflowFailException

from clinic_backups.backup.choose_clinics import for_all_clinics, select
from clinic_backups.backup.shares import NOT_BEFORE, Share, divide, worthwhile
from clinic_backups.base.backup_record import BackupRecord
from clinic_backups.base.clinic import Clinic
from clinic_backups.base.clinic_id import ClinicId, order_of
from clinic_backups.base.compared_rows import ComparedRows
from clinic_backups.base.errors import ClinicBackupsError
from clinic_backups.base.findings import OF_RUN, Finding, require
from clinic_backups.base.load_settings import in_words, load_usable
from clinic_backups.base.plain import plain
from clinic_backups.base.setting_types import BY_HAND
from clinic_backups.base.settings import Settings
from clinic_backups.base.text import one_line
from clinic_backups.catalog.outbox import Notice
from clinic_backups.notify.digest import UNDELIVERED_AFTER, digest_facts, is_complete, unproven_facts
from clinic_backups.operators import assets, pool
from clinic_backups.operators.airflow_app import AirflowParts
from clinic_backups.operators.airflow_connections import (
    failing_clearly,
    log_delivery,
    log_findings,
    problem_of,
    run_type_of,
)
from clinic_backups.operators.due_schedules import due_schedules, is_partial
from clinic_backups.operators.link import airflow_url
from clinic_backups.operators.log_fields import telling
from clinic_backups.operators.run_records import records_of
from clinic_backups.restore.runner import close_abandoned

log = logging.getLogger(__name__)


@task(show_return_value_in_logs=False)  # ten thousand clinics would be one long line
def active_clinics() -> list[dict[str, Any]]:
    """The clinics that this run backs up, those in the conf or else all active ones, divided into tasks."""
    run = get_current_context()["dag_run"]
    with failing_clearly(log):
        parts = AirflowParts()
        active, every = parts.clinics()
        settings, scheduled = parts.settings, run_type_of(run) == "scheduled"
        chosen = select(run.conf or {}, active=active, every=every, shared=parts.shared_clinic,
                        by_default=settings.shared)  # fmt: skip
        if scheduled:
            due = due_schedules(settings, run.run_after)
            chosen = replace(chosen, clinics=tuple(c for c in chosen.clinics if settings.schedule_of(c) in due))
        tasks = min(parts.settings.tasks, airflow_conf.getint("core", "max_map_length"))
        seconds = {} if len(chosen.clinics) <= tasks else parts.known_clinics.seconds()
        spread = bool(scheduled and settings.start_window_minutes)
        if not spread:  # many tasks spread better
            is_first = len(chosen.clinics) > tasks and not seconds
            size = parts.database_bytes() if is_first else None
            tasks = worthwhile(chosen.clinics, tasks, seconds, size)
        shares = divide(chosen.clinics, tasks, seconds)
    log.info("%s backups will be made, in %s tasks.", len(chosen.clinics), len(shares))
    if not shares:
        log.info(in_words("No active clinic has a schedule with this time."))
    items = [share.to_item() for share in shares]
    if spread:
        window = timedelta(minutes=settings.start_window_minutes)
        for number, item in enumerate(items):
            item[NOT_BEFORE] = (run.run_after + window * number / len(items)).isoformat()
    return items


@task
def preflight() -> None:
    """Fail before any clinic is touched if something is missing that every backup needs.

    Faults of an extract, a table or rows are logged here, and fail only the affected backups. The catalog notes which
    tables were compared for all clinics without a finding, so that the backups of this run need not do it again. XCom
    does not say it: whoever may change an XCom could switch the comparison off.
    """
    context = get_current_context()
    run = context["dag_run"]
    conf, compared = run.conf or {}, list[ComparedRows]()
    with failing_clearly(log):
        parts = AirflowParts()
        active, every = parts.clinics()
        # Comparing the rows of all clinics reads every table. A backup of one clinic compares only its own rows.
        counted = for_all_clinics(conf) and not is_partial(parts.settings, run)
        found = parts.preflight(count_rows=counted, on_compared=compared.append, run_id=run.run_id)
        findings = [_pool(context), *found]
        log_findings(log, findings)
        require(findings, checks=OF_RUN)
        parts.see(active, every)
        for each in compared:
            parts.comparisons.note(run.run_id, each)


def _pool(context: Any) -> Finding:
    """Check that a backup can begin, because Airflow does not report a task that waits for a pool without slots."""
    if context["ti"].xcom_pull(task_ids=pool.TOLD_BY, key=pool.SLOTS_KEY) == 0:
        return Finding(
            "pool",
            "error",
            f"The pool {pool.NAME} has no slots: no backup would begin.",
            "Give it slots under Admin → Pools, as many as clinics may be read at a time, and clear this task.",
        )
    return Finding("pool", "ok", f"Backups can begin in the pool {pool.NAME}.")


@task(trigger_rule="all_done", multiple_outputs=False)
def summary(shares: list[dict[str, Any]] | None) -> dict[str, int]:
    """Log each clinic's outcome, send the digest, and fail the run if a clinic has no completed backup."""
    context = get_current_context()
    run_id = context["dag_run"].run_id
    task_of = {clinic: index for index, item in enumerate(shares or ()) for clinic in Share.from_item(item).clinics}
    wanted = sorted(task_of, key=lambda clinic: order_of(clinic.id))
    with failing_clearly(log):
        # The operator must be told even if wrong settings made the run fail.
        usable, wrong = load_usable()
        parts = AirflowParts(usable=usable)
        problem = problem_of(("active_clinics", "preflight"))
        if not problem and wrong:
            problem = {"task": "summary", "error": wrong, "hint": "docs/settings.md lists every setting."}
        if not wrong:
            _close_what_died(parts, run_id)
        # The newest record of each clinic counts: a cleared task makes another one.
        found = records_of(parts.catalog, context["dag_run"])
        records = {record.clinic_id: record for record in reversed(found)}
        parts.outcomes.announce_failures(list(records.values()))
        is_for_all = for_all_clinics(context["dag_run"].conf) and not _is_quiet(parts.settings, context["dag_run"])
        unusable = unusable_keys(parts) if is_for_all else []
        _queue_digest(parts, context, task_of, records, problem, unusable)
        log_delivery(log, parts.deliver)
    for clinic in wanted:
        record = records.get(clinic.id)
        with telling(clinic_id=clinic.id, **({"backup_id": record.backup_id} if record else {})):
            _log_outcome(clinic, record)
    if problem:
        log.error("%s failed: %s", problem["task"], in_words(problem["error"]))
        log.error("HINT: %s", in_words(problem["hint"]))
    missing = [clinic for clinic in wanted if not is_complete(records.get(clinic.id))]
    for each in unusable:
        log.error("%s", in_words(each["error"]))
        log.error("HINT: %s", in_words(each["hint"]))
    if shares == [] and not problem and not unusable:
        log.info(in_words("No clinic was due."))
        return {"completed": 0}
    if not wanted:
        raise AirflowFailException(
            in_words(
                f"No clinic was backed up. {problem['task']}: {problem['error']}"
                if problem
                else "No clinic was backed up: see the task active_clinics."
            )
        )
    log.info("%s of %s backups of this run are complete.", len(wanted) - len(missing), len(wanted))
    if missing:
        names = ", ".join(f"{clinic.id} {clinic.name!r}" for clinic in missing)
        if not problem:
            log.error("HINT: %s", in_words(AFTERWARDS))
        raise AirflowFailException(f"{len(missing)} of {len(wanted)} backups of this run are missing: {names}.")
    if unusable:
        raise AirflowFailException(in_words(f"{len(unusable)} clinics have no backup. {unusable[0]['error']}"))
    made = [records[clinic.id] for clinic in wanted]
    assets.update_fleet(context, context["task"].outlets, made, whole=is_for_all)
    return {"completed": len(wanted)}


MOST_EVENTS = 200
"""More in one request take the API server longer than the task's client waits."""


@task(trigger_rule="all_done", multiple_outputs=False)
def tell_assets(shares: list[dict[str, Any]] | None) -> int:
    """Update the assets of clinics whose backup is complete, and whose task failed because of another clinic.

    Airflow sends the events of a task only if it succeeds. This one asks the catalog which backups are complete.
    """
    context = get_current_context()
    run = context["dag_run"]
    with failing_clearly(log):
        found = records_of(AirflowParts().catalog, run)
        records = {record.clinic_id: record for record in reversed(found)}
        states = context["ti"].get_task_states(dag_id=run.dag_id, task_ids=["back_up"], run_ids=[run.run_id])[
            run.run_id
        ]
    untold = []
    for index, item in enumerate(shares or ()):
        made = [records[each.id] for each in Share.from_item(item).clinics if is_complete(records.get(each.id))]
        if states.get(f"back_up_{index}") != "success":
            untold += made
    assets.update_clinics(context, context["task"].outlets, untold[:MOST_EVENTS])
    if len(untold) > MOST_EVENTS:
        log.warning("%s backups have no event: one task sends at most %s.", len(untold) - MOST_EVENTS, MOST_EVENTS)
    log.info("%s assets of tasks that failed are updated.", min(len(untold), MOST_EVENTS))
    return min(len(untold), MOST_EVENTS)


def unusable_keys(parts: AirflowParts) -> list[dict[str, Any]]:
    """The rows of the clinics' table whose key cannot be an id, as clinics that failed are told of."""
    try:
        found = parts.find_clinics().unusable
    except ClinicBackupsError as error:
        # The run's own tasks report that. Neither the summary nor the watch may depend on the clinics' database.
        log.warning("The keys of the clinics' table were not looked at: %s", error)
        return []
    return [
        {"clinic_id": each.shown, "clinic_name": each.name, "error": each.error.message, "hint": each.error.hint}
        for each in found
    ]


def _close_what_died(parts: AirflowParts, run_id: str) -> None:
    """Close records of dead processes: all of this run, and those of other runs that can no longer be retried."""
    try:
        _close(parts, run_id)
    except ClinicBackupsError as error:
        # A store that cannot be reached may be why this run failed. The operator must learn of that too.
        log.error("Records of dead processes stay open for a later run: %s", error)


def _close(parts: AirflowParts, run_id: str) -> None:
    closed = parts.outcomes.close_abandoned(run_id=run_id)
    closed += parts.outcomes.close_abandoned(before=parts.clock() - parts.settings.longest_retrying)
    for restored in close_abandoned(parts.catalog, parts.clinic_db, parts.clock):
        log.warning("The process of %s had died. The record is now %s.", restored.restore_id, restored.state)
    for record in closed:
        log.warning("The process of %s had died. The record is now %s.", record.backup_id, record.state)


def _queue_digest(
    parts: AirflowParts,
    context: Any,
    task_of: Mapping[Clinic, int],
    records: dict[ClinicId, BackupRecord],
    problem: Mapping[str, str] | None,
    unusable: Sequence[Mapping[str, Any]],
) -> None:
    settings, now = parts.settings, parts.clock()
    run_id, instance = context["dag_run"].run_id, context["ti"]
    base = airflow_url()
    run_url = f"{base}/dags/{quote(instance.dag_id)}/runs/{quote(run_id, safe='')}" if base else ""
    last = parts.outbox.last("digest")
    facts = digest_facts(
        run_id=run_id,
        run_url=run_url,
        clinics=sorted(task_of, key=lambda clinic: order_of(clinic.id)),
        records=records,
        urls={
            clinic.id: f"{run_url}/tasks/back_up/mapped/{index}" if run_url else "" for clinic, index in task_of.items()
        },
        health=parts.known_clinics.health(now),
        shrunk=parts.known_clinics.shrunk(run_id, settings.shrink_percent),
        losses=parts.row_changes.unusual_losses(run_id),
        undelivered=parts.outbox.undelivered(
            waiting_since=now - UNDELIVERED_AFTER, refused_since=last[1] if last else now - UNDELIVERED_AFTER
        ),
        replicas=[plain(backlog) for backlog in parts.replicas().backlog(parts.stores.urls)]
        if settings.store_url
        else [],
        problem=problem,
        unusable=unusable,
        unproven=unproven_facts(parts.proofs.candidates(now), now, settings.prove_within_days),
        objective_hours=settings.rpo_hours,
        started_at=context["dag_run"].start_date or now,
        now=now,
    )
    if _is_quiet(parts.settings, context["dag_run"]) and not any(facts.get(key) for key in _TELLING):
        return
    parts.outbox.queue(Notice(f"digest:{run_id}:{instance.try_number}", "digest", facts), now)


AFTERWARDS = (
    "When the reason is gone, clear the failed tasks back_up, with Downstream. They back up their clinics in this run, "
    "and the run turns green once each clinic has its backup."
)
"""What to do about clinics that failed. The mail to the operator says the same."""
_TELLING = ("problem", "failed", "incomplete", "shrunk", "losses", "suspect")


def _is_quiet(settings: Settings, run: Any) -> bool:
    """The general run's digest is enough, unless something is wrong."""
    return settings.schedule != BY_HAND and is_partial(settings, run)


def _log_outcome(clinic: Clinic, record: BackupRecord | None) -> None:
    name = f"{clinic.id} {clinic.name!r}"
    if record is None:
        log.error("%s: not begun.", name)
    elif record.state == "completed":
        log.info("%s: %s rows, %s bytes, %s", name, record.rows_total, record.size_bytes, record.archive_key)
        if record.gaps:
            log.warning(
                "%s: the backup is incomplete: %s", name, one_line(", ".join(sorted({g.table for g in record.gaps})))
            )
    else:
        log.error("%s: %s. %s", name, record.state, record.error or "See its task back_up.")
        if record.hint:
            log.error("HINT: %s", record.hint)
