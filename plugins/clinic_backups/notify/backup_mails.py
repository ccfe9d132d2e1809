"""Decides which mail a clinic's administrators get about a backup's outcome."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import PurePosixPath
from typing import Any, Literal

from sqlalchemy import Connection as SqlConnection
from sqlalchemy import text

from clinic_backups.base.backup_record import FUTURE_TOLERANCE, BackupRecord
from clinic_backups.base.clinic_id import ClinicId
from clinic_backups.base.errors import Interrupted, TransientError
from clinic_backups.base.plain import iso
from clinic_backups.base.shared_unit import is_shared
from clinic_backups.catalog.outbox import Notice, queue

NotifySuccess = Literal["each", "weekly", "never"]
Cause = Literal["transient", "permanent", "interrupted"]
WEEK = timedelta(days=7)
TOLERANCE = timedelta(hours=2)
"""A little less than seven days, because a backup's time differs from night to night."""


@dataclass(frozen=True)
class MailHistory:
    """Earlier notices and backups of the clinic.

    :param failures: mailed failures in a row, without a recovery after them.
    :param thread_id: the notice of the first of them.
    """

    failures: int = 0
    thread_id: int | None = None
    failing_since: datetime | None = None
    last_good_at: datetime | None = None
    last_weekly_at: datetime | None = None
    completed_in_week: int = 0
    failed_in_week: int = 0


def success_notice(record: BackupRecord, history: MailHistory, wish: NotifySuccess, now: datetime) -> Notice | None:
    """The notice of a completed backup. A recovery is always mailed, other successes as the setting says."""
    facts = _facts(record)
    if history.failures and history.failing_since:
        facts |= {"failures": history.failures, "failing_since": iso(history.failing_since)}
        return _notice(record, "recovery", facts, history.thread_id)
    if wish == "each":
        return _notice(record, "success", facts)
    if wish == "weekly" and (history.last_weekly_at is None or now - history.last_weekly_at >= WEEK - TOLERANCE):
        facts |= {"completed_in_week": history.completed_in_week, "failed_in_week": history.failed_in_week}
        return _notice(record, "weekly", facts)
    return None


def failure_notice(record: BackupRecord, history: MailHistory, cause: Cause) -> Notice:
    """The notice of a failed backup. It is always mailed; consecutive failures form one thread."""
    facts = {
        "clinic_id": record.clinic_id,
        "clinic_name": record.clinic_name,
        "backup_id": record.backup_id,
        "failed_at": iso(record.finished_at or record.started_at),
        "cause": cause,
        "failures": history.failures + 1,
        "last_good_at": iso(history.last_good_at) if history.last_good_at else None,
    }
    return _notice(record, "failure", facts, history.thread_id)


def cause_of(error: BaseException) -> Cause:
    """The kind of explanation for an error in a mail. The error's own text is for the operator only."""
    if isinstance(error, Interrupted) or not isinstance(error, Exception):
        return "interrupted"
    return "transient" if isinstance(error, TransientError) else "permanent"


@dataclass(frozen=True)
class Announcer:
    """Writes the notice about an outcome into the outbox, in the outcome's own transaction.

    :param wish: how often to mail successes; ``clinic_wishes`` has the exceptions for single clinics.
    """

    wish: NotifySuccess = "each"
    clinic_wishes: Mapping[ClinicId, NotifySuccess] = field(default_factory=dict)

    def completed(self, db: SqlConnection, record: BackupRecord) -> None:
        """:param record: a completed record that was already written."""
        if is_shared(record.clinic_id):
            return  # it has no administrators; the digest tells the operator
        now = record.finished_at or record.started_at
        wish = self.clinic_wishes.get(record.clinic_id, self.wish)
        notice = success_notice(record, _history(db, record, now), wish, now)
        if notice is not None:
            queue(db, notice, now)

    def failed(self, db: SqlConnection, record: BackupRecord, cause: Cause) -> None:
        """:param record: a finally failed record that was already written. Each attempt is mailed only once."""
        if is_shared(record.clinic_id):
            return
        now = record.finished_at or record.started_at
        queue(db, failure_notice(record, _history(db, record, now), cause), now)


_HISTORY = text("""
    WITH last AS (
        SELECT kind, COALESCE(thread_id, id) AS thread_id
          FROM clinic_backups.notification
         WHERE clinic_id = :clinic_id AND kind IN ('failure', 'recovery')
         ORDER BY id DESC
         LIMIT 1),
    streak AS (
        SELECT n.id, n.created_at
          FROM last
          JOIN clinic_backups.notification AS n ON n.thread_id = last.thread_id OR n.id = last.thread_id
         WHERE last.kind = 'failure' AND n.kind = 'failure')
    SELECT (SELECT count(*) FROM streak) AS failures,
           (SELECT min(id) FROM streak) AS thread_id,
           (SELECT min(created_at) FROM streak) AS failing_since,
           (SELECT max(data_time) FROM clinic_backups.backup
             WHERE clinic_id = :clinic_id AND good AND backup_id <> :backup_id
               AND data_time <= :until) AS last_good_at,
           (SELECT max(created_at) FROM clinic_backups.notification
             WHERE clinic_id = :clinic_id AND kind = 'weekly' AND created_at <= :until) AS last_weekly_at,
           (SELECT count(*) FROM clinic_backups.backup
             WHERE clinic_id = :clinic_id AND state = 'completed'
               AND started_at BETWEEN :week AND :until) AS completed_in_week,
           (SELECT count(*) FROM clinic_backups.backup
             WHERE clinic_id = :clinic_id AND state = 'failed'
               AND started_at BETWEEN :week AND :until) AS failed_in_week""")


def _history(db: SqlConnection, record: BackupRecord, now: datetime) -> MailHistory:
    row = db.execute(
        _HISTORY,
        {
            "clinic_id": str(record.clinic_id),
            "backup_id": record.backup_id,
            "week": now - WEEK,
            # Records with later dates come from a wrong clock.
            "until": now + FUTURE_TOLERANCE,
        },
    ).one()
    return MailHistory(**row._mapping)


def _facts(record: BackupRecord) -> dict[str, Any]:
    return {
        "clinic_id": record.clinic_id,
        "clinic_name": record.clinic_name,
        "backup_id": record.backup_id,
        "started_at": iso(record.started_at),
        "finished_at": iso(record.finished_at or record.started_at),
        "expires_at": iso(record.expires_at or record.started_at),
        "size_bytes": record.size_bytes,
        "raw_bytes": record.raw_bytes,
        "tables": len(record.rows),
        "rows": record.rows_total,
        "seconds": record.seconds,
        "file_name": PurePosixPath(record.archive_key).name,
    }


def _notice(
    record: BackupRecord,
    kind: Literal["success", "weekly", "failure", "recovery"],
    facts: Mapping[str, Any],
    thread_id: int | None = None,
) -> Notice:
    key = f"{record.backup_id}:{record.attempt}:{'failure' if kind == 'failure' else 'success'}"
    return Notice(key, kind, facts, record.clinic_id, record.backup_id, thread_id, urgent=kind == "failure")
