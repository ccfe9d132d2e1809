"""The envelope: the JSON file beside an archive that makes it a backup."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, get_type_hints

from pydantic import SkipValidation, with_config

from clinic_backups.base import documents
from clinic_backups.base.backup_facts import ArchiveInfo, BackupFacts, ChainArchive, Gap
from clinic_backups.base.documents import Count, Sha256, Text
from clinic_backups.base.plain import plain

FORMAT_VERSION = 1
_TIME = (datetime, datetime | None)
_SAFETY_NOTES = re.compile(r"before the restore of ([0-9]+-[0-9]{8}T[0-9]{6}Z)")


@with_config(revalidate_instances="always")
@dataclass(frozen=True, kw_only=True)
class Envelope(BackupFacts):
    """The public description of one backup, without patient data. Writing it, last, commits the backup."""

    archive: ArchiveInfo
    format: documents.Format = FORMAT_VERSION
    # Every envelope has these.
    parent_id: SkipValidation[str | None] = field()
    finished_at: datetime = field()
    expires_at: datetime = field()
    rows: dict[Text, Count] = field()
    raw_bytes: Count = field()
    recipients: tuple[Text, ...] = field()
    fingerprint: Sha256 = field()
    requested_by: Text = field()

    def to_json(self) -> dict[str, Any]:
        """Plain JSON types; times as UTC in ISO 8601 with ``Z``."""
        return plain(self)

    def says_the_same(self, other: Envelope) -> bool:
        """Whether both are equal. The number and the source may be missing in an older envelope."""
        if None in (self.number, other.number):
            other = replace(other, number=self.number)
        if None in (self.source_db, other.source_db):
            other = replace(other, source_db=self.source_db)
        return self == other

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Envelope:
        """Read an envelope that :meth:`to_json` wrote. Unknown keys of later versions are ignored.

        :raises KeyError, TypeError, ValueError: the data are not an envelope.
        """
        fields = {key: data[key] for key in cls.__dataclass_fields__ if key in data}
        for key, may_be_missing in _TIMES.items():
            if fields.get(key) is not None or not may_be_missing:
                fields[key] = _in_utc(datetime.fromisoformat(fields[key]))
        fields["archive"] = ArchiveInfo(**fields["archive"])
        if not all(isinstance(fields.get(key, []), (list, tuple)) for key in ("recipients", "chain", "gaps")):
            raise TypeError("recipients, chain and gaps are lists")
        fields["recipients"] = tuple(fields["recipients"])
        fields["chain"] = tuple(ChainArchive(**archive) for archive in fields.get("chain", ()))
        fields["gaps"] = tuple(Gap(**gap) for gap in fields.get("gaps", ()))
        if "safety_of" not in fields:
            # Envelopes from before this field existed have it in the notes.
            found = _SAFETY_NOTES.fullmatch(str(fields.get("notes", "")))
            fields["safety_of"] = found[1] if found else None
        return cls(**fields)


_TIMES = {name: hint != datetime for name, hint in get_type_hints(Envelope).items() if hint in _TIME}
"""The fields that are times, and whether each may be missing."""


def _in_utc(moment: datetime) -> datetime:
    """The same moment in UTC. A time without a zone, or out of range, is returned unchanged: the checks refuse it."""
    try:
        return moment.astimezone(UTC) if moment.tzinfo is not None else moment
    except OverflowError:
        return moment
