"""The tasks that check the stores and make missing replicas."""

from __future__ import annotations

import logging
from typing import Any

from airflow.sdk import get_current_context, task
from airflow.sdk.exceptions import AirflowFailException

from clinic_backups.base.clinic_id import ClinicId
from clinic_backups.base.conf_values import flag
from clinic_backups.base.errors import ClinicBackupsError
from clinic_backups.base.listening import Listener
from clinic_backups.maintenance.discrepancies import KINDS, WRONG
from clinic_backups.maintenance.replication import Replication
from clinic_backups.maintenance.store_comparison import Inventory, Task
from clinic_backups.operators.airflow_app import AirflowParts
from clinic_backups.operators.airflow_connections import failing_clearly, log_delivery
from clinic_backups.operators.retention_tasks import conf_of, log_losses, wanted_clinic

log = logging.getLogger(__name__)


def log_replication(
    logger: Any, parts: AirflowParts, clinic_id: ClinicId | None = None, *, patient: bool = False
) -> Replication:
    """Make missing replicas, and log them. A later run tries again if a replica fails."""
    replicator = parts.replicator(
        on_replica=lambda record, url: logger.info("Replicating %s to %s", record.backup_id, url)
    )
    done = replicator.run(clinic_id, patient=patient)
    for replica, error in done.problems:
        logger.warning("%s is not in %s yet: %s", replica.backup_id, replica.store_url, error)
    log_losses(logger, done.losses)
    return done


def replicate_without_failing(logger: Any, parts: AirflowParts, clinic_id: ClinicId) -> None:
    """Replicate after a backup. The backup is complete in its own store even if this fails."""
    if len(parts.stores.urls) == 1:
        return
    try:
        log_replication(logger, parts, clinic_id)
    except ClinicBackupsError as error:
        logger.warning("The replicas wait for a later run: %s", error)


@task(multiple_outputs=False)
def check_stores() -> dict[str, int]:
    """Compare each store with the catalog, record losses, and with ``sweep`` remove debris."""
    conf = conf_of(get_current_context())
    with failing_clearly(log):
        parts = AirflowParts()
        clinic_id = wanted_clinic(parts, conf)
        changing = not flag(conf, "dry_run")
        wanted = Task(record=changing, sweep=changing and flag(conf, "sweep"), read=flag(conf, "read"))
        check = parts.store_check(listener=Listener(log.debug))
        inventories: list[Inventory] = []
        failed: list[str] = []
        for url in parts.stores.urls:
            try:
                inventories.append(check.run(parts.stores.at(url), wanted, clinic_id=clinic_id))
            except ClinicBackupsError as error:
                log.error("%s was not checked: %s", url, error)
                failed.append(url)
        for inventory in inventories:
            _log(inventory)
            if inventory.unchecked:
                failed.append(f"{inventory.store_url} ({len(inventory.unchecked)} clinics)")
        log_delivery(log, parts.deliver)
    if failed:
        raise AirflowFailException(f"These stores were not fully checked: {', '.join(failed)}.")
    return {"lost": sum(len(inventory.losses) for inventory in inventories)}


@task(trigger_rule="all_done", multiple_outputs=False)
def replicate_missing() -> dict[str, int]:
    """Make the replicas that stores lack, of all clinics, including those that are no longer backed up."""
    conf = conf_of(get_current_context())
    with failing_clearly(log):
        parts = AirflowParts()
        if flag(conf, "dry_run"):
            for backlog in parts.replicas().backlog(parts.stores.urls):
                log.info("%s lacks %s replicas.", backlog.store_url, backlog.missing)
            return {"replicated": 0, "waiting": 0}
        clinic_id = wanted_clinic(parts, conf)
        done = log_replication(log, parts, clinic_id, patient=True)
        unwritten = parts.forgotten_in_stores().write(parts.stores, clinic_id)
        log_delivery(log, parts.deliver)
    made = len(done.replicas) - len(done.problems)
    log.info("%s replicas were made, %s wait.", made, len(done.problems))
    if done.problems:
        urls = ", ".join(sorted({replica.store_url for replica, _ in done.problems}))
        raise AirflowFailException(
            f"{len(done.problems)} replicas could not be made in {urls}. The next run continues."
        )
    if unwritten:
        urls = ", ".join(url for url, _ in unwritten)
        raise AirflowFailException(f"These stores lack erasure requests: {urls}. The next run writes them.")
    return {"replicated": made, "waiting": 0}


def _log(inventory: Inventory) -> None:
    for found in (*inventory.discrepancies, *inventory.lost):
        level = logging.ERROR if found.kind in WRONG else logging.WARNING
        done = f" ({found.action})" if found.action else ""
        if found.needed_by:
            done += f"; needed by {', '.join(found.needed_by)}"
        log.log(level, "%s/%s: %s: %s%s", found.store_url, found.key, found.kind, KINDS[found.kind], done)
    for what, error in inventory.problems:
        log.warning("%s, %s: %s", inventory.store_url, what, error)
    if left := len(inventory.not_compared):
        log.info('%s: only the size of %s archives was checked. {"read": true} reads them.',
                 inventory.store_url, left)  # fmt: skip
    log.info(
        "%s: %s objects of backups; %s other objects were left alone.",
        inventory.store_url, inventory.objects, inventory.other_objects,
    )  # fmt: skip
