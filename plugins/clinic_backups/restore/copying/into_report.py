"""What was made of a backup in a new schema."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from clinic_backups.base.clinic_id import ClinicId
from clinic_backups.base.plain import iso
from clinic_backups.base.text import one_line
from clinic_backups.restore.copied_table import IntoTable


@dataclass(frozen=True)
class IntoReport:
    """The result.

    :param masked: whether values are masked.
    :param notes: what is not as in the original, and belongs to no table.
    """

    clinic_id: ClinicId
    clinic_name: str
    backup_id: str
    snapshot_at: datetime
    schema: str
    tables: tuple[IntoTable, ...]
    masked: bool
    notes: tuple[str, ...]

    @property
    def rows(self) -> int:
        """Rows in all tables."""
        return sum(table.rows for table in self.tables)

    @property
    def forgotten(self) -> int:
        """Rows that are left out because they must not come back."""
        return sum(table.forgotten for table in self.tables)

    def said(self) -> Iterator[str]:
        """What is not as in the backup and in the original, a line each."""
        yield from self.notes
        for table in self.tables:
            name = one_line(table.name)
            if table.forgotten:
                yield f"{name}: {table.forgotten:,} rows are left out, because they must not come back."
            if table.masked:
                columns = ", ".join(f"{column} ({rule})" for column, rule in table.masked.items())
                yield f"{name}: masked: {one_line(columns)}"
            yield from (f"{name}: {note}" for note in table.notes)

    def to_json(self) -> dict[str, Any]:
        """Plain JSON types."""
        plain: dict[str, Any] = json.loads(json.dumps(asdict(self) | {"snapshot_at": iso(self.snapshot_at)}))
        return plain | {"rows": self.rows, "forgotten": self.forgotten}
