"""The task of the watch: looks at the age of all backups and proofs, and tells whoever is to know."""

from __future__ import annotations

import logging

from airflow.sdk import task
from airflow.sdk.exceptions import AirflowFailException

from clinic_backups.base.errors import ClinicBackupsError
from clinic_backups.base.load_settings import in_words, load_usable
from clinic_backups.maintenance import watch as watching
from clinic_backups.notify.digest import overdue_facts, unproven_facts
from clinic_backups.operators.airflow_app import AirflowParts
from clinic_backups.operators.airflow_connections import failing_clearly, log_delivery
from clinic_backups.operators.link import airflow_url
from clinic_backups.operators.metrics import Metrics
from clinic_backups.operators.tasks import unusable_keys

log = logging.getLogger(__name__)


@task(multiple_outputs=False)
def watch() -> dict[str, int]:
    """Alarm the operator if a clinic's last good backup is too old or a setting is wrong, and send waiting mail.

    Also sends reminders of unanswered plans, and notices of lapsed plans.
    """
    with failing_clearly(log):
        # It uses only the valid settings, because it must alarm whatever else is wrong.
        usable, wrong = load_usable()
        parts = AirflowParts(usable=usable)
        url = usable.heartbeat_url.get_secret_value()
        try:
            now = parts.clock()
            health, candidates = parts.known_clinics.health(now), parts.proofs.candidates(now)
            facts = overdue_facts(health, usable.rpo_hours, now)
            unusable = unusable_keys(parts)
            facts["never"] += unusable
            facts |= unproven_facts(candidates, now, usable.prove_within_days)
            if wrong:
                facts["problem"] = {"error": wrong, "hint": "No backup is made until that is corrected."}
            notice = watching.alarm_notice(facts, parts.outbox.last("alarm"), now)
            if notice is not None:
                parts.outbox.queue(notice, now)
            parts.approval_mails(airflow_url()).remind(parts.approvals, usable.approval_hours)
            log_delivery(log, parts.deliver)
        except BaseException:
            if url:
                watching.ping(url, well=False)
            raise
        late, unproven = watching.count_late(facts), watching.count_unproven(facts)
        Metrics.of(usable).watched(
            health, candidates, now, late=len(facts["overdue"]), never=len(facts["never"]), unproven=unproven,
            replicas_missing=_missing_replicas(parts),
        )  # fmt: skip
        if url:
            watching.ping(url, well=late == unproven == 0 and not wrong)
    for each in unusable:
        log.error("%s HINT: %s", in_words(each["error"]), in_words(each["hint"]))
    for clinic in (*facts["never"], *facts["overdue"]):
        log.error("%s %r: %s", clinic["clinic_id"], clinic["clinic_name"], clinic.get("last_good_at", "no backup yet"))
    for clinic in facts.get("unproven", ()):
        log.error("%s %r: last proven %s", clinic["clinic_id"], clinic["clinic_name"], clinic.get("proven_at", "never"))
    if wrong:
        raise AirflowFailException(f"{wrong} No backup is made until that is corrected.")
    if late:
        raise AirflowFailException(
            in_words(f"{late} clinics have no good backup younger than {usable.rpo_hours} hours, or than their own")
            + " objective."
        )
    if unproven:
        raise AirflowFailException(
            in_words(f"The backups of {unproven} clinics were not proven within {usable.prove_within_days} days.")
            + " Look at the last runs of clinic_restore_drill."
        )
    return {"late": late}


def _missing_replicas(parts: AirflowParts) -> int | None:
    """How many replicas the stores lack; none if nobody can say. The watch does not depend on it."""
    try:
        return sum(each.missing for each in parts.replicas().backlog(parts.stores.urls))
    except ClinicBackupsError as error:
        log.warning("The missing replicas were not counted: %s", error)
        return None
