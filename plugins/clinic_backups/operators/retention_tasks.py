"""The tasks that delete backups by the policy, and that set and end holds."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import Any

from airflow.sdk import get_current_context, task
from airflow.sdk.exceptions import AirflowFailException

from clinic_backups.backup.choose_clinics import select
from clinic_backups.base.clinic_id import ClinicId
from clinic_backups.base.conf_values import flag, require_known_keys
from clinic_backups.base.errors import SettingsError
from clinic_backups.base.load_settings import in_words
from clinic_backups.base.replica import Loss
from clinic_backups.operators.airflow_app import AirflowParts
from clinic_backups.operators.airflow_connections import failing_clearly, log_delivery
from clinic_backups.operators.log_fields import telling

log = logging.getLogger(__name__)
KEYS = ("clinic_id", "dry_run", "sweep", "read")
HOLD_KEYS = ("backup_id", "reason", "release")


def conf_of(context: Any, keys: tuple[str, ...] = KEYS) -> dict[str, Any]:
    """The run's conf without empty values. :raises SettingsError: it has an unknown key."""
    conf = {key: value for key, value in (context["dag_run"].conf or {}).items() if value not in (None, "")}
    with failing_clearly(log):
        require_known_keys(conf, keys)
    return conf


def wanted_clinic(parts: AirflowParts, conf: dict[str, Any]) -> ClinicId | None:
    """The clinic in the conf; none means all. :raises SettingsError: there is no such clinic."""
    if "clinic_id" not in conf:
        return None
    _, every = parts.clinics()
    chosen = select({"clinic_id": conf["clinic_id"]}, active=[], every=every, shared=parts.shared_clinic)
    return chosen.clinics[0].id


def log_losses(logger: Any, losses: Iterable[Loss]) -> None:
    """Log one line for each loss. The operator's mail about them is in the outbox."""
    for loss in losses:
        logger.error("%s is %s in %s.", loss.backup_id, loss.problem, loss.store_url)


@task(trigger_rule="all_done", multiple_outputs=False)
def clean() -> dict[str, int]:
    """Apply retention and log each decision with its reason.

    A clinic that cannot be cleaned does not stop the others.
    """
    conf = conf_of(get_current_context())
    with failing_clearly(log):
        dry_run = flag(conf, "dry_run")
        parts = AirflowParts()
        clinic_id = wanted_clinic(parts, conf)
        cleaner = parts.cleaner()
        deleted = kept = 0
        problems: list[str] = []
        for result in cleaner.run(clinic_id=clinic_id, dry_run=dry_run):
            for decision in result.decisions:
                verb = "stays" if decision.keep else "would go" if dry_run else "goes"
                with telling(clinic_id=result.clinic_id, backup_id=decision.backup.backup_id, stage="retention"):
                    log.info("%s %s: %s", decision.backup.backup_id, verb, decision.reason)
            deleted += result.deleted
            kept += result.kept
            log_losses(log, result.losses)
            if result.erasure:
                left = "is done" if result.erasure.finished_at else f"goes on: {result.erasure.remaining} backups stay"
                log.info(in_words("The erasure of clinic %s %s."), result.clinic_id, left)
            if result.busy:
                log.warning(in_words("Clinic %s: %s HINT: %s"), result.clinic_id, result.problem, result.hint)
            elif result.problem:
                log.error(in_words("Clinic %s: %s HINT: %s"), result.clinic_id, result.problem, result.hint)
                problems.append(str(result.clinic_id))
        forgotten = cleaner.forget_old() if clinic_id is None and not dry_run else 0
        log_delivery(log, parts.deliver)
    log.info("%s backups were deleted, %s stay; %s old records were removed.", deleted, kept, forgotten)
    if problems:
        raise AirflowFailException(
            in_words(f"These clinics were not cleaned: {', '.join(problems)}. The next run continues.")
        )
    return {"deleted": deleted, "kept": kept}


@task
def hold_or_release() -> str:
    """Keep one backup until it is released, or release it."""
    context = get_current_context()
    conf = conf_of(context, HOLD_KEYS)
    by = str(context["dag_run"].triggering_user_name or "unknown")
    with failing_clearly(log):
        backup_id, release = conf.get("backup_id"), flag(conf, "release")
        if not isinstance(backup_id, str):
            raise SettingsError(
                "backup_id is missing.",
                hint='Give the id of a backup: {"backup_id": "7-20261124T060000Z", "reason": "…"}',
            )
        parts = AirflowParts()
        holds, approvers = parts.holds(), parts.settings.approvers
        if release:
            if approvers and by not in approvers:
                raise SettingsError(
                    f"{by!r} may not release holds.", hint="CLINIC_BACKUPS_APPROVERS lists the people who may."
                )
            holds.release(backup_id, by)
            log.info("%s is released by %s: the policy decides again.", backup_id, by)
        else:
            held = holds.hold(backup_id, str(conf.get("reason", "")), by)
            log.info("%s is on hold by %s: %s", backup_id, by, held.hold_reason)
    return backup_id
