"""A record of a clinic as its backups show it: in which it is, and when it changed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from hashlib import sha256
from typing import Any, Literal

from clinic_backups.archive.csv_rows import plain_number, texts_of
from clinic_backups.base.backup_record import BackupRecord
from clinic_backups.base.plain import iso
from clinic_backups.base.row_key import PART, is_exact_number
from clinic_backups.base.table import Table

What = Literal["there", "changed", "gone", "back"]
"""there: in the first backup that was looked at, or new. changed: other values than before. gone: not in this backup.
back: there again."""
FORGOTTEN = "forgotten"


@dataclass(frozen=True)
class Event:
    """What is new of a record in a backup. ``columns``: those that differ from the backup before."""

    what: What
    backup_id: str
    moment: datetime
    columns: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Plain JSON types."""
        return {
            "what": self.what, "backup_id": self.backup_id, "moment": iso(self.moment), "columns": list(self.columns),
        }  # fmt: skip


@dataclass
class FoundRecord:
    """One record with its history.

    :param key: without a key in the table: all of its values, which are patients' data, see :attr:`shown_key`.
    :param is_plain: its key is made of numbers or UUIDs, or somebody named it. Any other key may be a person's.
    :param values: its last known values, as texts. They are patients' data.
    :param last_in: the newest of the backups that has it.
    :param is_forgotten: it must not come back, or it belongs to a record that must not. Its values are not given.
    """

    table: str
    key: tuple[str, ...] = field(repr=False)
    is_plain: bool = True
    events: list[Event] = field(default_factory=list)
    values: dict[str, str | None] = field(default_factory=dict, repr=False)
    last_in: str = ""
    is_forgotten: bool = False
    is_named: bool = False

    @property
    def is_gone(self) -> bool:
        """Whether the newest backup does not have it."""
        return bool(self.events) and self.events[-1].what == "gone"

    @property
    def shown_key(self) -> str:
        """The key as a request names it, or a mark instead of a key that may be a person's or is forgotten."""
        if self.is_forgotten and not self.is_named:
            return FORGOTTEN
        if self.is_plain:
            return PART.join(self.key)
        return "#" + sha256(repr(self.key).encode()).hexdigest()[:12]

    def to_json(self) -> dict[str, Any]:
        """Plain JSON types, without the values."""
        return {
            "table": self.table, "key": self.shown_key, "is_gone": self.is_gone, "last_in": self.last_in,
            "is_forgotten": self.is_forgotten, "events": [event.to_json() for event in self.events],
        }  # fmt: skip


def event_of(
    backup: BackupRecord, before: tuple[Table, bytes] | None, is_known: bool, table: Table, row: bytes
) -> Event | None:
    """What is new of a record in a backup. :param is_known: an earlier backup has it."""
    if before is None:
        return Event("back" if is_known else "there", backup.backup_id, backup.data_time)
    if before == (table, row):
        return None
    then, now = texts_of(*before), texts_of(table, row)
    types = [{column.name: column.type for column in each.columns} for each in (before[0], table)]
    columns = tuple(
        name for name in now
        if name not in then or (then[name] != now[name] and not _is_same_number(
            [each[name] for each in types], then[name], now[name]))
    )  # fmt: skip
    return Event("changed", backup.backup_id, backup.data_time, columns) if columns else None


def _is_same_number(types: Sequence[str], before: str | None, after: str | None) -> bool:
    """Whether two values differ only because the column has another type of numbers."""
    if types[0] == types[1] or before is None or after is None:
        return False
    return all(is_exact_number(each) for each in types) and plain_number(before.encode()) == plain_number(
        after.encode()
    )
