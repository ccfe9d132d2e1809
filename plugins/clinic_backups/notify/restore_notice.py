"""The notices about a restore's outcome: a plain one for the clinic's administrators, the cause for the operator."""

from __future__ import annotations

from typing import Any, Literal

from sqlalchemy import Connection as SqlConnection

from clinic_backups.base.plain import iso
from clinic_backups.catalog.outbox import Notice, queue
from clinic_backups.catalog.restores import RestoreRecord

RestoreOutcome = Literal["completed", "failed", "unknown"]
"""``failed``: nothing was changed. ``unknown``: its process died during the commit, and the result cannot be found
out.
"""


def restore_notices(record: RestoreRecord, outcome: RestoreOutcome) -> tuple[Notice, Notice]:
    """The clinic's notice and the operator's.

    Neither has a backup's record in the outbox, as the catalog may lack it.
    """
    facts = _facts(record, outcome)
    report = facts | {"error": record.error, "hint": record.hint}
    key = f"{record.restore_id}:{outcome}"
    return (
        Notice(f"{key}:clinic", "restore", facts, record.clinic_id),
        Notice(f"{key}:operator", "restore_report", report, urgent=True),
    )


def announce(db: SqlConnection, record: RestoreRecord, outcome: RestoreOutcome) -> None:
    """Write both into the outbox, in the caller's transaction. :param record: a finished record, already written."""
    for notice in restore_notices(record, outcome):
        queue(db, notice, record.finished_at or record.started_at)


def _facts(record: RestoreRecord, outcome: RestoreOutcome) -> dict[str, Any]:
    return {
        "clinic_id": record.clinic_id,
        "clinic_name": record.clinic_name,
        "restore_id": record.restore_id,
        "backup_id": record.backup_id,
        "backup_at": record.backup_at,
        "mode": record.mode,
        "tables": list(record.tables),
        "parents": record.parents,
        "outcome": outcome,
        "finished_at": iso(record.finished_at or record.started_at),
        "seconds": record.seconds,
        "inserted": record.rows("insert"),
        "updated": record.rows("update"),
        "deleted": record.rows("delete"),
        "safety_backup_id": record.safety_backup_id,
        "requested_by": record.requested_by,
        "approved_by": record.approved_by,
        "target": record.target,
    }
