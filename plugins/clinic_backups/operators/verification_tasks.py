"""The task that reads every replica of one backup."""

from __future__ import annotations

import logging

from airflow.sdk import get_current_context, task

from clinic_backups.base.errors import SettingsError
from clinic_backups.base.listening import Listener
from clinic_backups.maintenance.verification import CheckedReplica
from clinic_backups.operators.airflow_app import AirflowParts
from clinic_backups.operators.airflow_connections import failing_clearly, log_delivery
from clinic_backups.operators.log_fields import tell
from clinic_backups.operators.pace import Pace
from clinic_backups.operators.retention_tasks import conf_of, log_losses

log = logging.getLogger(__name__)
KEYS = ("backup_id",)


@task(multiple_outputs=False)
def verify() -> dict[str, int]:
    """Verify one backup. The task is red if a replica of it or of its chain is bad. The log has a line for each."""
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
        tell(backup_id=backup_id, stage="verify")
        try:
            done = parts.verifier(listener=Listener(log.info, show), on_replica=_log_replica).run(backup_id)
        finally:
            log_delivery(log, parts.deliver)
        log_losses(log, done.losses)
        done.require_intact()
    log.info("All %s replicas that %s needs are intact.", len(done.replicas), backup_id)
    return {"replicas": len(done.replicas), "bytes": sum(replica.size_bytes for replica in done.replicas)}


def _log_replica(replica: CheckedReplica) -> None:
    log.log(logging.INFO if replica.condition == "intact" else logging.ERROR, "%s", replica)
