"""The task that reads every copy of one backup."""

from __future__ import annotations

import logging

from airflow.sdk import get_current_context, task

from clinic_backups.base.errors import SettingsError
from clinic_backups.base.listening import Listener
from clinic_backups.maintenance.verification import CheckedCopy
from clinic_backups.operators.connections import failing_clearly, log_delivery
from clinic_backups.operators.pace import Pace
from clinic_backups.operators.parts import AirflowParts
from clinic_backups.operators.retention import conf_of, log_losses

log = logging.getLogger(__name__)
KEYS = ("backup_id",)


@task(multiple_outputs=False)
def verify() -> dict[str, int]:
    """Verify one backup. The task is red if a copy of it or of its chain is bad. The log has one line for each copy."""
    conf = conf_of(get_current_context(), KEYS)
    pace = Pace()

    def show(done: int, total: int) -> None:
        if pace.due():
            log.info("%s of %s MB read so far", done // 10**6, total // 10**6)

    with failing_clearly(log):
        backup_id = conf.get("backup_id")
        if not isinstance(backup_id, str):
            raise SettingsError(
                "backup_id is missing.", hint='Give the id of a backup: {"backup_id": "7-20261124T060000Z"}'
            )
        parts = AirflowParts()
        try:
            done = parts.verifier(listener=Listener(log.info, show), on_copy=_log_copy).run(backup_id)
        finally:
            log_delivery(log, parts.deliver)
        log_losses(log, done.losses)
        done.require_intact()
    log.info("All %s copies that %s needs are intact.", len(done.copies), backup_id)
    return {"copies": len(done.copies), "bytes": sum(copy.size_bytes for copy in done.copies)}


def _log_copy(copy: CheckedCopy) -> None:
    log.log(logging.INFO if copy.condition == "intact" else logging.ERROR, "%s", copy)
