"""The tasks that check the restore side: at the start of a restore and of the drills, and each night beside them."""

from __future__ import annotations

import logging

from airflow.sdk import task

from clinic_backups.base.findings import OF_DRILL, OF_RESTORE, require
from clinic_backups.maintenance.watch import restore_side_notice
from clinic_backups.operators.airflow_app import AirflowParts
from clinic_backups.operators.airflow_connections import failing_clearly, log_delivery, log_findings
from clinic_backups.operators.restore_tasks import request_of
from clinic_backups.restore.find_backup import choose_backup

log = logging.getLogger(__name__)
AGAIN = "clinic-backups check --restore"


@task(task_id="preflight")
def restore_preflight() -> None:
    """Fail before any plan is made if something is missing that this restore needs. Nothing is changed."""
    with failing_clearly(log):
        parts = AirflowParts()
        request = request_of(parts)
        # The backup of a point in time is made by the plan.
        of = None if request.from_connection else choose_backup(parts.catalog, request)
        found = parts.restore_preflight(
            clinic_id=request.clinic_id, of=of, restores=request.into_schema is None and request.export_format is None,
            # A plan with a copy of the database compares that copy with restore_db itself.
            other_database=request.other_database or request.from_connection is not None, drills=False,
        )  # fmt: skip
        log_findings(log, found)
        # Without a backup yet, no key can be tried.
        checks = [each for each in OF_RESTORE if of is not None or each not in ("key", "store")]
        require(found, checks=checks, again=AGAIN)


@task(task_id="preflight")
def drill_preflight() -> None:
    """Fail before any drill if something is missing that every drill needs."""
    with failing_clearly(log):
        found = AirflowParts().restore_preflight(restores=False, archives=False)
        log_findings(log, found)
        require(found, checks=OF_DRILL, again=AGAIN)


@task
def restore_side() -> None:
    """Alarm the operator if restores or drills would fail. Nothing is restored."""
    with failing_clearly(log):
        parts = AirflowParts()
        found = parts.restore_preflight()
        log_findings(log, found)
        now, errors = parts.clock(), [each for each in found if each.level == "error"]
        if (notice := restore_side_notice(errors, parts.outbox.last("restore_side"), now)) is not None:
            parts.outbox.queue(notice, now)
        log_delivery(log, parts.deliver)
        require(found, again=AGAIN)
