"""A certificate: one JSON document that says which backup was restored, and what was compared."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import Any

from clinic_backups.base.backup_record import BackupRecord
from clinic_backups.base.plain import iso
from clinic_backups.base.version import program_version

FORMAT = 1


@dataclass(frozen=True)
class Check:
    """One check of a drill.

    :param outcome: ``passed``, ``failed``, or ``not possible``, which is no failure.
    :param detail: a line for people, with numbers and names of tables, and without values of rows.
    """

    name: str
    outcome: str
    detail: str = ""


@dataclass(frozen=True)
class Certificate:
    """What is certified of one drill.

    :param number: the proof's number in the catalog.
    :param place: ``embedded``, or the name of the connection on whose server it was restored.
    :param seconds: from the first byte of the archive until the last row was compared.
    :param problems: replicas that could not be used: ``backup_id`` and ``problem``. The names of stores are not in it:
        clinics' people get certificates.
    """

    number: int
    record: BackupRecord
    shared_backup_id: str
    outcome: str
    at: datetime
    seconds: float
    place: str
    postgresql: str
    checks: Sequence[Check] = ()
    problems: Sequence[Mapping[str, str]] = field(default_factory=tuple)
    error: str = ""
    hint: str = ""

    def document(self) -> bytes:
        """Its canonical bytes: sorted keys, no spaces, UTF-8. The signature is over these."""
        return canonical(self.to_json())

    def to_json(self) -> dict[str, Any]:
        """Plain JSON types."""
        record = self.record
        return {
            "format": FORMAT,
            "number": self.number,
            "unit": {"id": record.clinic_id, "name": record.clinic_name},
            "backup": {"id": record.backup_id, "kind": record.kind, "data_time": iso(record.data_time)},
            "shared_backup": self.shared_backup_id,
            "archives": [
                {"backup_id": each.backup_id, "key": each.key, "sha256": each.sha256}
                for each in (record.archive, *record.chain)
            ],
            "rows": dict(record.rows),
            "fingerprint": record.fingerprint,
            "seconds": round(self.seconds, 3),
            "program": program_version(),
            "postgresql": self.postgresql,
            "restored_in": self.place,
            "checks": [asdict(check) for check in self.checks],
            "bad_replicas": [dict(problem) for problem in self.problems],
            "outcome": self.outcome,
            "error": self.error,
            "hint": self.hint,
            "at": iso(self.at),
        }


def canonical(document: Mapping[str, Any]) -> bytes:
    """The same bytes for equal documents."""
    return json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode("utf-8")
