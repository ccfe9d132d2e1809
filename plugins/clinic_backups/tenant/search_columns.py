"""``search.txt``: the columns by which people look for a record in backups, each with a label."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from clinic_backups.tenant.declarations import columns_with

FILE = "search.txt"


@dataclass(frozen=True)
class SearchColumns:
    """By ``schema.table``: each column with its label, in the order of the file."""

    tables: Mapping[str, Mapping[str, str]] = field(default_factory=dict)


def parse(text: str) -> SearchColumns:
    """Read the file. A line is ``schema.table.column: label``. Blank lines and lines that begin with ``#`` are ignored.

    :raises SettingsError: a line has no label, or its column has another line already.
    """
    return SearchColumns(columns_with(text, FILE, "label", "public.usuarios_paciente.apellidos: Apellidos"))
