"""Which backups stay and which go, as pure functions: every decision has its reason."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta, tzinfo

from pydantic import BaseModel, ConfigDict, Field

from clinic_backups.model import BackupRecord


class RetentionPolicy(BaseModel):
    """How long backups are kept: all for ``keep_days``, then the newest of so many days, weeks, months and years.

    Grandfather-father-son; a period without a backup does not count. The days are those of the settings' time zone.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    keep_days: int = Field(default=30, ge=1, le=36500)
    daily: int = Field(default=0, ge=0, le=10_000)
    weekly: int = Field(default=0, ge=0, le=10_000)
    monthly: int = Field(default=0, ge=0, le=10_000)
    yearly: int = Field(default=0, ge=0, le=10_000)


@dataclass(frozen=True)
class Decision:
    """One backup stays or goes, and why."""

    backup: BackupRecord
    keep: bool
    reason: str


PERIODS: tuple[tuple[str, Callable[[datetime], object]], ...] = (
    ("daily", lambda moment: moment.date()),
    ("weekly", lambda moment: moment.isocalendar()[:2]),
    ("monthly", lambda moment: (moment.year, moment.month)),
    ("yearly", lambda moment: moment.year),
)


def plan(
    backups: Iterable[BackupRecord],
    policy: RetentionPolicy,
    now: datetime,
    *,
    zone: tzinfo,
    undoing: Mapping[str, str] | None = None,
) -> list[Decision]:
    """Decide on one clinic's completed backups, the newest first.

    Never goes: the last completed backup; one on hold; one that a kept backup needs; one that undoes a recent restore;
    one before the day that it was promised until.

    :param undoing: backups that undo a recent restore, with the restore's id.
    """
    completed = sorted(
        (backup for backup in backups if backup.state == "completed" and backup.finished_at is not None),
        key=lambda backup: (backup.started_at, backup.backup_id),
        reverse=True,
    )
    reasons: dict[str, str] = {}
    for index, backup in enumerate(completed):
        if reason := _own_reason(backup, index, policy, now, undoing or {}):
            reasons[backup.backup_id] = reason
    _keep_periods(completed, policy, zone, reasons)
    _keep_needed(completed, reasons)
    gone = f"older than {policy.keep_days} days"
    return [Decision(backup, backup.backup_id in reasons, reasons.get(backup.backup_id, gone)) for backup in completed]


def _own_reason(
    backup: BackupRecord, index: int, policy: RetentionPolicy, now: datetime, undoing: Mapping[str, str]
) -> str:
    finished_at = backup.finished_at or backup.started_at
    if index == 0:
        return "the clinic's last good backup"
    if backup.hold_reason is not None:
        return f"on hold: {backup.hold_reason}"
    if backup.backup_id in undoing:
        return f"undoes restore {undoing[backup.backup_id]}"
    if finished_at + timedelta(days=policy.keep_days) > now:
        return f"not older than {policy.keep_days} days"
    if backup.expires_at is not None and backup.expires_at > now:
        return f"promised until {backup.expires_at:%Y-%m-%d}"
    return ""


def _keep_periods(
    completed: Sequence[BackupRecord], policy: RetentionPolicy, zone: tzinfo, reasons: dict[str, str]
) -> None:
    for name, period_of in PERIODS:
        wanted, seen = getattr(policy, name), set[object]()
        for backup in completed:
            period = period_of((backup.finished_at or backup.started_at).astimezone(zone))
            if period not in seen and len(seen) < wanted:
                seen.add(period)
                reasons.setdefault(backup.backup_id, f"{name} {len(seen)} of {wanted}")


def _keep_needed(completed: Sequence[BackupRecord], reasons: dict[str, str]) -> None:
    """What a kept incremental is built on, down to its full backup."""
    known = {backup.backup_id: backup for backup in completed}
    for backup in completed:
        child = backup
        while child.backup_id in reasons and child.parent_id in known:
            parent = known[child.parent_id]
            reasons.setdefault(parent.backup_id, f"needed by {child.backup_id}")
            child = parent
