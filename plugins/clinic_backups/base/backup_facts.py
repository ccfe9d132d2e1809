"""What is known of a backup wherever it is told: in its envelope, in the catalog's record, and in the API."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from datetime import datetime
from typing import Any, Literal

from pydantic import SkipValidation

from clinic_backups.base import documents
from clinic_backups.base.documents import Count, Sha256, StoredId, Text

Kind = Literal["full", "incremental"]
Trigger = Literal["scheduled", "manual"]


@dataclass(frozen=True)
class Gap:
    """Rows that a backup lacks: the table, and a sentence that says why."""

    table: Text
    reason: Text


@dataclass(frozen=True)
class ArchiveInfo:
    """The stored archive: its key below the store's prefix, its size and its digests in lower-case hex."""

    key: str
    size_bytes: Count
    sha256: Sha256
    md5: documents.Md5


@dataclass(frozen=True)
class ChainArchive(ArchiveInfo):
    """The archive of a backup that an incremental one is built on."""

    backup_id: str


@dataclass(frozen=True, kw_only=True)
class BackupFacts:
    """What an envelope and a record both say of a backup. A field that is added here is in both of them.

    What is ``None`` until the backup is completed is never ``None`` in an envelope.
    """

    backup_id: str
    clinic_id: StoredId
    clinic_name: Text
    kind: Kind
    trigger: Trigger
    parent_id: SkipValidation[str | None] = None
    started_at: datetime
    finished_at: datetime | None = None
    expires_at: datetime | None = None
    rows: dict[Text, Count] = field(default_factory=dict)
    """Rows per table, by ``schema.table``."""
    raw_bytes: Count | None = None
    """Bytes of CSV in all blocks, before compression."""
    recipients: tuple[Text, ...] = ()
    fingerprint: Sha256 | None = None
    requested_by: Text = ""
    notes: Text = ""
    locked_until: datetime | None = None
    """The end of the locks in its stores. In an envelope: the end that was requested from them."""
    chain: tuple[ChainArchive, ...] = ()
    """The backups that an incremental one is built on: its parent first, the full one last."""
    gaps: tuple[Gap, ...] = ()
    """The gaps that somebody allowed: rows that should be in the backup but are not."""
    safety_of: str | None = None
    """For a safety backup: the id of the backup that was restored. A safety backup is restored only by its id."""
    read_from: Text | None = None
    """For a backup of a point in time: the database that it was read from, for people. It is restored only by its
    id."""
    data_at: datetime | None = None
    """The time of its rows, at the latest. Earlier than the start if a standby lagged; none if it was not recorded."""
    suspect: Text | None = None
    """Why it is suspect until somebody accepts it: tables and counts, no values."""
    source_db: Text | None = None
    """The database that it was read from, see ``source_database``; none for backups that are not
    regular, and in older envelopes."""
    number: Count | None = None
    """The number by which the clinics' application knows it, in the view ``respaldo``. The catalog assigns it, and a
    rebuild takes it over; none in older envelopes."""

    @property
    def is_regular(self) -> bool:
        """Whether it holds the clinic as it was when it was made. Safety backups and backups of a point in time do not
        count as the clinic's last good backup, and are chosen only by their id."""
        return self.safety_of is None and self.read_from is None

    def facts(self) -> dict[str, Any]:
        """The fields of this class, by name."""
        return {known.name: getattr(self, known.name) for known in fields(BackupFacts)}
