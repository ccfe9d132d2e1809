"""Where a forgotten row may still lie, and until when: the backups that were made before the request."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from clinic_backups.base.backup_record import BackupRecord
from clinic_backups.base.forgotten import ForgottenRecord
from clinic_backups.base.plain import iso
from clinic_backups.tenant.drift import Drift


@dataclass(frozen=True)
class Place:
    """A backup that may hold a row.

    :param until: when it expires, and no backup needs it any more; none if nobody knows, because of a hold.
    """

    backup_id: str
    data_time: datetime
    until: datetime | None
    is_held: bool
    stores: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Plain JSON types."""
        return {"backup_id": self.backup_id, "data_time": iso(self.data_time),
                "until": iso(self.until) if self.until else None, "on_hold": self.is_held,
                "stores": list(self.stores)}  # fmt: skip


def places_of(request: ForgottenRecord, backups: Sequence[BackupRecord], drift: Drift) -> list[Place]:
    """The stored backups of the clinic that have rows of the table, and are not younger than the request.

    They may have it under another name, as ``drift.txt`` says. Which of them has the row, only its archive says. A
    younger one has it only if the application still had it.
    """
    found, built_on = [], dict[str, list[BackupRecord]]()
    for record in backups:
        for archive in record.chain:
            built_on.setdefault(archive.backup_id, []).append(record)
    for record in backups:
        has_rows = any(rows and drift.is_same_table(name, request.table) for name, rows in record.rows.items())
        if not has_rows or record.data_time > request.at:
            continue
        needing = built_on.get(record.backup_id, [])
        is_held = any(each.hold_reason is not None for each in (record, *needing))
        ends = [max(filter(None, (each.expires_at, each.locked_until)), default=None) for each in (record, *needing)]
        known = [each for each in ends if each is not None]
        until = max(known) if len(known) == len(ends) and not is_held else None
        found.append(Place(record.backup_id, record.data_time, until, is_held, tuple(record.stores)))
    return found


def last_until(places: Sequence[Place]) -> datetime | None:
    """When the last of them is gone; none if nobody knows."""
    ends = [place.until for place in places]
    return None if None in ends else max((end for end in ends if end is not None), default=None)
