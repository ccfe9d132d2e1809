"""Pure functions that decide which backups are kept and which are deleted. Every decision has a reason."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from clinic_backups.base.backup_record import BackupRecord, parents_of


def no_truth(value: object) -> object:
    """Refuse ``true`` where JSON has to have a number: pydantic would take it for 1, so for one day.

    :raises ValueError: it is true or false.
    """
    if isinstance(value, bool):
        raise ValueError("true or false, where a number is needed")
    return value


Days = Annotated[int, Field(ge=1, le=36_500), BeforeValidator(no_truth)]
"""A number of days."""
Periods = Annotated[int, Field(ge=0, le=10_000), BeforeValidator(no_truth)]
"""The number of periods whose newest backup is kept."""


class RetentionPolicy(BaseModel):
    """How long backups are kept: all for ``keep_days``, then the newest of each of some days, weeks, months and years.

    This is grandfather-father-son. Periods are counted back from the end of ``keep_days``. Periods without a backup are
    not counted. Days are in the settings' time zone.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    keep_days: Days = 30
    daily: Periods = 0
    weekly: Periods = 0
    monthly: Periods = 0
    yearly: Periods = 0


@dataclass(frozen=True)
class Decision:
    """Whether one backup is kept or deleted, and why."""

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
    erased_at: datetime | None = None,
    spared: Mapping[str, str] | None = None,
) -> list[Decision]:
    """Decide on one clinic's completed and lost backups, the newest first.

    Never deleted: the last good backup, as :func:`last_good` finds it; any backup, while there is no good one; one on
    hold; one that its stores keep locked; one that a kept backup needs; one that undoes a recent restore; one before
    the day that it was promised until. If the clinic is erased, only holds and locks keep backups from before the
    erasure. A safety backup holds a state that somebody wanted to replace, and one of a point in time holds
    the past. Both have their own term and holds. They never count as the last good backup, nor as the newest of a
    period.

    :param undoing: backups that undo a recent restore, with the restore's id.
    :param erased_at: when somebody asked that the clinic be erased.
    :param spared: backups that are kept in any case, with the reason.
    """
    ended = sorted(
        (backup for backup in backups if backup.state in ("completed", "lost") and backup.finished_at is not None),
        key=lambda backup: (backup.started_at, backup.backup_id),
        reverse=True,
    )
    erased = {backup.backup_id for backup in ended if erased_at is not None and backup.started_at <= erased_at}
    known = {backup.backup_id: backup for backup in ended}
    good = [each for each in ended if each.backup_id not in erased and _counts(each, known)]
    trusted = _trusted(good)
    last = {backup.backup_id for backup in _last(trusted, now)}
    reasons: dict[str, str] = {}
    for backup in ended:
        reason = _forced(backup, now) or (spared or {}).get(backup.backup_id, "")
        if not reason and backup.backup_id not in erased:
            reason = _own_reason(backup, backup.backup_id in last, policy, now, undoing or {})
            if not reason and not trusted:
                # A store may be down only for a while. Its backups count again when it is back.
                reason = "the clinic has no good backup" if not good else "all of the clinic's backups are suspect"
        if reason:
            reasons[backup.backup_id] = reason
    _keep_periods([each for each in trusted if not _is_young(each, policy, now)], policy, zone, reasons)
    _keep_needed(ended, known, reasons)
    gone = f"older than {policy.keep_days} days"
    return [
        Decision(
            backup,
            backup.backup_id in reasons,
            reasons.get(backup.backup_id, "its clinic is erased" if backup.backup_id in erased else gone),
        )
        for backup in ended
    ]


def last_good(backups: Iterable[BackupRecord], known: Mapping[str, BackupRecord], now: datetime) -> list[BackupRecord]:
    """The backup to go back to: it and its whole chain are completed, it is regular and not suspect.

    If the newest one is dated in the future because a clock was wrong, this returns two. Without backups it is empty.

    :param known: all backups that these may be built on, by their ids.
    """
    return _last(_trusted(each for each in backups if _counts(each, known)), now)


def _counts(backup: BackupRecord, known: Mapping[str, BackupRecord]) -> bool:
    """Whether it is regular and can be restored."""
    return backup.is_regular and is_good(backup, known)


def _trusted(good: Iterable[BackupRecord]) -> list[BackupRecord]:
    """The newest data first. A suspect backup is kept like any other, but never in place of the last good one."""
    return sorted(
        (backup for backup in good if backup.is_trusted),
        key=lambda backup: (backup.data_time, backup.started_at, backup.backup_id),
        reverse=True,
    )


def _last(trusted: Sequence[BackupRecord], now: datetime) -> list[BackupRecord]:
    found = [*trusted[:1], *[each for each in trusted if each.data_time <= now][:1]]
    return list({each.backup_id: each for each in found}.values())


def is_good(backup: BackupRecord, known: Mapping[str, BackupRecord]) -> bool:
    """Whether it can be restored: it and its whole chain are completed."""
    return all(each is not None and each.state == "completed" for each in (backup, *parents_of(backup, known)))


def _forced(backup: BackupRecord, now: datetime) -> str:
    """The reasons that keep a backup, whatever the policy says."""
    if backup.hold_reason is not None:
        return f"on hold: {backup.hold_reason}"
    if backup.locked_until is not None and backup.locked_until > now:
        return f"locked until {backup.locked_until.astimezone(UTC):%Y-%m-%d %H:%M} UTC"
    return ""


def _own_reason(
    backup: BackupRecord, last: bool, policy: RetentionPolicy, now: datetime, undoing: Mapping[str, str]
) -> str:
    if last:
        return "the clinic's last good backup"
    if backup.backup_id in undoing:
        return f"undoes restore {undoing[backup.backup_id]}"
    if _is_young(backup, policy, now):
        return f"not older than {policy.keep_days} days"
    if backup.expires_at is not None and backup.expires_at > now:
        return f"promised until {backup.expires_at:%Y-%m-%d}"
    return ""


def _is_young(backup: BackupRecord, policy: RetentionPolicy, now: datetime) -> bool:
    return (backup.finished_at or backup.started_at) + timedelta(days=policy.keep_days) > now


def _keep_periods(good: Sequence[BackupRecord], policy: RetentionPolicy, zone: tzinfo, reasons: dict[str, str]) -> None:
    for name, period_of in PERIODS:
        wanted, seen = getattr(policy, name), set[object]()
        for backup in good:
            period = period_of((backup.finished_at or backup.started_at).astimezone(zone))
            if period not in seen and len(seen) < wanted:
                seen.add(period)
                reasons.setdefault(backup.backup_id, f"{name} {len(seen)} of {wanted}")


def _keep_needed(ended: Sequence[BackupRecord], known: Mapping[str, BackupRecord], reasons: dict[str, str]) -> None:
    """Keep the backups that a kept incremental one is built on, down to its full backup."""
    for backup in ended:
        child = backup
        for parent in parents_of(backup, known):
            if child.backup_id not in reasons or parent is None:
                break
            reasons.setdefault(parent.backup_id, f"needed by {child.backup_id}")
            child = parent
