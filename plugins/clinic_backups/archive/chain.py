"""Decides whether a clinic's next backup is full or incremental, and what it is built on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from clinic_backups.base.backup_record import BackupRecord, parents_of
from clinic_backups.base.backup_request import WantedKind
from clinic_backups.base.settings import Settings


@dataclass(frozen=True)
class ChainChoice:
    """A full backup, or an incremental one that is built on ``chain``: its parent first, the full one last."""

    reason: str
    chain: tuple[BackupRecord, ...] = ()

    @property
    def parent_id(self) -> str | None:
        """The id of its parent; none for a full backup."""
        return self.chain[0].backup_id if self.chain else None


def chain_of(record: BackupRecord, known: dict[str, BackupRecord]) -> tuple[BackupRecord, ...] | None:
    """A backup and the backups that it is built on, down to the full one; none if one of them is missing."""
    chain = [record]
    for parent in parents_of(record, known):
        if parent is None:
            return None
        chain.append(parent)
    return tuple(chain)


def choose(
    wanted: WantedKind,
    backups: Sequence[BackupRecord],
    settings: Settings,
    now: datetime,
    *,
    recipients: tuple[str, ...],
    schema_digest: str | None,
    not_before: datetime | None = None,
) -> ChainChoice:
    """Decide from the clinic's records alone. The stores are checked afterwards.

    :param backups: the clinic's completed backups. No backup is built on a suspect one that nobody accepted.
    :param schema_digest: digest of the present tables; ``None`` if unknown: assume that of the newest backup.
    :param not_before: backups that were begun until then are being erased, so nothing may be built on them.
    """
    if wanted == "full":
        return ChainChoice("a full one was asked for")
    if wanted == "auto" and settings.full_every_days == 0:
        return ChainChoice("the settings ask for full backups only")
    completed = [backup for backup in backups if backup.state == "completed"]
    # One of a point in time may come from any server, and is no parent.
    known = {backup.backup_id: backup for backup in completed if backup.is_trusted and backup.read_from is None}
    if not known:
        return ChainChoice(
            "all of the clinic's backups are suspect, and nobody accepted one"
            if any(backup.read_from is None for backup in completed)
            else "the clinic has no backup yet"
        )
    newest = max(known.values(), key=lambda backup: (backup.data_time, backup.started_at, backup.backup_id))
    chain = chain_of(newest, known)
    if chain is None:
        return ChainChoice(f"the chain of {newest.backup_id} is incomplete")
    reason = _why_full(chain, settings, now, recipients, schema_digest)
    if not_before is not None and chain[-1].started_at <= not_before:
        reason = "the clinic's earlier backups are being erased"
    if wanted == "auto" and not reason:
        reason = _why_full_again(chain, settings, now)
    if reason:
        return ChainChoice(reason)
    return ChainChoice(f"built on {newest.backup_id}, {_days(now - chain[-1].started_at)} after the full one", chain)


def _why_full(
    chain: tuple[BackupRecord, ...],
    settings: Settings,
    now: datetime,
    recipients: tuple[str, ...],
    schema_digest: str | None,
) -> str:
    """The reason why an incremental is impossible, even if somebody asks for one."""
    newest = chain[0]
    if newest.schema_digest is None or schema_digest not in (None, newest.schema_digest):
        return (
            f"the tables differ from those of {newest.backup_id}" if newest.schema_digest else "the catalog was rebuilt"
        )
    if any(set(backup.recipients) != set(recipients) for backup in chain):
        return "the public keys have changed"
    if newest.started_at > now:
        return f"{newest.backup_id} is dated in the future: the clock was or is wrong"
    if len(chain) >= settings.chain_length:
        return f"the chain has reached its length of {settings.chain_length}"
    if settings.lock_days:
        # The new backup needs its whole chain locked for this many days.
        until = now + timedelta(days=settings.lock_days)
        for backup in chain:
            if backup.locked_until is None or backup.locked_until < until:
                return f"{backup.backup_id} is locked for less than {settings.lock_days} days more"
    return ""


def _why_full_again(chain: tuple[BackupRecord, ...], settings: Settings, now: datetime) -> str:
    """The reason why a full backup is the better choice."""
    full = chain[-1]
    if now - full.started_at >= timedelta(days=settings.full_every_days):
        return f"the last full one is {_days(now - full.started_at)} old"
    stored = sum(backup.size_bytes or 0 for backup in chain[:-1])
    if stored * 100 >= settings.incremental_percent * (full.size_bytes or 0):
        return f"the incrementals stored {settings.incremental_percent} % of the full one"
    return ""


def _days(age: timedelta) -> str:
    return f"{age / timedelta(days=1):.1f} days"
