"""The task that drills: it needs the secret key, and no connection that may write to the clinics' database."""

from __future__ import annotations

import logging

from airflow.sdk import get_current_context, task
from airflow.sdk.exceptions import AirflowFailException

from clinic_backups.backup.choose_clinics import select
from clinic_backups.base.clinic_id import ClinicId
from clinic_backups.base.conf_values import flag
from clinic_backups.base.listening import Listener
from clinic_backups.base.load_settings import in_words
from clinic_backups.base.shared_unit import SHARED_ID, named
from clinic_backups.catalog.proofs import ProofRecord
from clinic_backups.drill.unit import Drilled
from clinic_backups.operators.airflow_app import AirflowParts
from clinic_backups.operators.airflow_connections import failing_clearly, log_delivery
from clinic_backups.operators.log_fields import telling
from clinic_backups.operators.metrics import Metrics
from clinic_backups.operators.retention_tasks import conf_of

log = logging.getLogger(__name__)
KEYS = ("clinic_id", "shared")


@task(multiple_outputs=False)
def drill() -> dict[str, int]:
    """Drill those whose turn it is, or one clinic. The task is red if a backup is not proven."""
    conf = conf_of(get_current_context(), KEYS)
    done = list[ProofRecord]()

    def note(proof: ProofRecord, drilled: Drilled) -> None:
        done.append(proof)
        metrics.drilled(proof)
        with telling(clinic_id=proof.clinic_id, backup_id=proof.backup_id, stage="drill"):
            _log(proof, drilled)

    with failing_clearly(log):
        parts = AirflowParts()
        metrics = Metrics.of(parts.settings)
        drills = parts.drills(listener=Listener(log.info), on_proof=note)
        units = _units(parts, conf)
        try:
            if units:
                drills.run(units)
        finally:
            log_delivery(log, parts.deliver)
    failed = [proof for proof in done if not proof.is_good]
    if failed:
        names = ", ".join(f"{proof.clinic_id} {proof.clinic_name!r}" for proof in failed)
        raise AirflowFailException(in_words(f"{len(failed)} of {len(done)} backups are not proven: {names}."))
    log.info("%s backups are proven.", len(done))
    return {"proven": len(done)}


def _log(proof: ProofRecord, drilled: Drilled) -> None:
    for check in drilled.checks:
        log.info("%s: %s: %s. %s", in_words(named(proof.clinic_id)), check.name, check.outcome, check.detail)
    if proof.is_good:
        log.info("%s is proven, in %.1f s. Certificate %s.", proof.backup_id, proof.seconds, proof.number)
    else:
        log.error("%s is not proven: %s", proof.backup_id, in_words(proof.error or ""))
        log.error("HINT: %s", in_words(proof.hint or ""))


def _units(parts: AirflowParts, conf: dict[str, object]) -> list[ClinicId]:
    if flag(conf, "shared"):
        return [SHARED_ID]
    if "clinic_id" in conf:
        _, every = parts.clinics()
        return [select({"clinic_id": conf["clinic_id"]}, active=[], every=every).clinics[0].id]
    turns = parts.due_drills()
    for turn in turns:
        log.info(
            "%s: %s; expected to take %.0f s", in_words(named(turn.candidate.clinic_id)), turn.reason, turn.seconds
        )
    if not turns:
        log.info("No drill is due.")
    return [turn.candidate.clinic_id for turn in turns]
