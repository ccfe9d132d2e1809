"""The record: the catalog's line of one backup."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import astuple, dataclass, replace
from datetime import datetime, timedelta
from typing import Any, Literal

from clinic_backups.base.backup_facts import ArchiveInfo, BackupFacts, ChainArchive
from clinic_backups.base.envelope import Envelope
from clinic_backups.base.errors import PermanentError, to_record
from clinic_backups.base.plain import plain

FUTURE_TOLERANCE = timedelta(minutes=2)
"""A backup up to this far ahead is not future-dated: a server that took over may be slightly behind."""

State = Literal["running", "completed", "failed", "lost", "deleting", "deleted"]


@dataclass(frozen=True, kw_only=True)
class BackupRecord(BackupFacts):
    """One line of the catalog: the facts of a backup, and what the catalog alone knows of it."""

    state: State
    archive_key: str
    attempt: int = 1
    run_id: str | None = None
    size_bytes: int | None = None
    sha256: str | None = None
    md5: str | None = None
    error: str | None = None
    hint: str | None = None
    hold_reason: str | None = None
    """Why it is kept until it is released, whatever the policy says."""
    held_by: str | None = None
    held_at: datetime | None = None
    """The time since when; none if it is not known."""
    released_by: str | None = None
    """The person who ended its last hold."""
    released_at: datetime | None = None
    deleted_at: datetime | None = None
    kind_reason: str | None = None
    """Why it is full or incremental."""
    schema_digest: str | None = None
    """Digest of the tables that it was read from; none in a rebuilt catalog."""
    accepted_by: str | None = None
    """The person who accepted a suspect backup."""
    accepted_at: datetime | None = None
    remark: str | None = None
    """What could not be checked, and why."""
    noted: Envelope | None = None
    """The note: the envelope's contents, recorded before it is written. Only the note can complete a running backup."""
    deletion: tuple[dict[str, Any], ...] = ()
    """For a deleted backup: URL and id of each store that confirmed the deletion, and when."""
    stores: tuple[str, ...] = ()
    """URLs of the stores that are known to hold it."""

    @classmethod
    def of(cls, envelope: Envelope, store_url: str) -> BackupRecord:
        """The record of a backup that was found in a store."""
        record = cls(**envelope.facts(), state="completed", archive_key=envelope.archive.key)
        return record.completed(envelope, store_url)

    @property
    def data_time(self) -> datetime:
        """The time of its rows, from which its age is counted."""
        return self.data_at or self.started_at

    @property
    def is_trusted(self) -> bool:
        """Whether it is not suspect, or was accepted. Only then may backups build on it or it be the last good one."""
        return self.suspect is None or self.accepted_at is not None

    @property
    def rows_total(self) -> int:
        return sum(self.rows.values())

    @property
    def seconds(self) -> float | None:
        """Wall time of the attempt that finished it."""
        return (self.finished_at - self.started_at).total_seconds() if self.finished_at else None

    def completed(self, envelope: Envelope, store_url: str) -> BackupRecord:
        """This record after the backup was stored as the envelope says."""
        facts = envelope.facts()
        del facts["number"]  # an envelope may lack it
        facts["source_db"] = facts["source_db"] or self.source_db
        archive = envelope.archive
        return replace(
            self,
            **facts,
            state="completed",
            stores=(store_url,),
            archive_key=archive.key,
            size_bytes=archive.size_bytes,
            sha256=archive.sha256,
            md5=archive.md5,
            noted=None,
        )

    def envelope(self) -> Envelope:
        """Make its envelope again. :raises ValueError: it was never completed."""
        missing = [name for name in ("finished_at", "expires_at", "size_bytes", "sha256", "md5", "fingerprint")
                   if getattr(self, name) is None]  # fmt: skip
        if missing:
            raise ValueError(f"{self.backup_id} has no {', '.join(missing)}")
        # The catalog does not keep the order in which a backup writes the tables.
        rows = dict(sorted(self.rows.items()))
        return Envelope(**self.facts() | {"rows": rows, "archive": ArchiveInfo(*astuple(self.archive)[:4])})

    @property
    def archive(self) -> ChainArchive:
        """The key, size and digests of its archive. :raises PermanentError: it was never completed."""
        if self.size_bytes is None or self.sha256 is None or self.md5 is None:
            raise PermanentError(
                f"The catalog has no archive for backup {self.backup_id}.", hint="Choose another backup."
            )
        return ChainArchive(self.archive_key, self.size_bytes, self.sha256, self.md5, self.backup_id)

    def failed(self, error: BaseException, finished_at: datetime) -> BackupRecord:
        """This record after a failure, with text and hint if it is an error of this package."""
        text, hint = to_record(error)
        # If the clock was set back in between, the end must still not be before the beginning.
        ended_at = max(self.started_at, finished_at)
        return replace(self, state="failed", finished_at=ended_at, error=text, hint=hint)

    def is_of_future(self, now: datetime) -> bool:
        """Whether it is dated in the future: a clock was wrong, or it is forged. It never counts as the newest."""
        return max(self.started_at, self.data_time) > now + FUTURE_TOLERANCE

    def to_json(self) -> dict[str, Any]:
        """Plain JSON types with the derived figures, for ``--json``."""
        known = plain(replace(self, noted=None))
        del known["noted"]
        return known | {"rows_total": self.rows_total, "seconds": self.seconds, "key": self.archive_key}


def parents_of(backup: BackupRecord, known: Mapping[str, BackupRecord]) -> Iterator[BackupRecord | None]:
    """The backups that a backup is built on, down to its full one. Ends with ``None`` if one is not known."""
    seen = {backup.backup_id}
    while backup.parent_id is not None:
        parent = known.get(backup.parent_id)
        if parent is None or parent.backup_id in seen:
            yield None
            return
        seen.add(parent.backup_id)
        yield parent
        backup = parent
