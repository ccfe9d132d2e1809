"""A problem of the gate or the preflight, and the remedies that it names."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from clinic_backups.tenant.declarations import FILE, spelled


@dataclass(frozen=True)
class Problem:
    """Something that a backup lacks or may lack, with the remedy."""

    table: str
    reason: str
    """A sentence with the table's name; never a value of a row."""
    remedy: str
    is_gap: bool = True
    """Whether backups are refused because of it; otherwise it is a warning of the preflight."""
    check: str = "coverage"


def schema_of(table: str) -> str:
    """The schema in ``schema.table``, as the structure names tables."""
    return table.split(".", 1)[0]


class Remedies:
    """Names the file to write, or the line to add, that closes a gap.

    :param folder: the SQL folder.
    :param extracts: the tables that have an extract.
    """

    def __init__(self, folder: Path, extracts: Collection[str]) -> None:
        self._folder, self._extracts = folder, extracts

    def extract(self, table: str, subfolder: str = "extract") -> str:
        return f"{self._folder / subfolder / _file(table)}.sql"

    def line(self, table: str) -> str:
        return f"Add the line `{spelled(table)}: reason` to {self._folder / FILE}."

    def extract_or_line(self, table: str) -> str:
        schema = schema_of(table)
        others = schema not in map(schema_of, self._extracts)
        line = f", or `{spelled(schema)}.*: reason` for all tables of that schema" if others else ""
        return (
            f"Write {self.extract(table)}, or add the line `{spelled(table)}: reason` to {self._folder / FILE}{line}."
        )


def _file(table: str) -> str:
    return table.removeprefix("public.") if table.count(".") == 1 else table
