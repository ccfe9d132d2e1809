"""``search.txt``: the columns by which people look for a record in backups, each with a label."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from clinic_backups.base.errors import SettingsError
from clinic_backups.tenant.declarations import PART, lines_of, unquoted

FILE = "search.txt"
_LINE = re.compile(rf"\s* ( {PART} \. {PART} \. {PART} ) \s* : (.*)", re.VERBOSE | re.DOTALL)


@dataclass(frozen=True)
class SearchColumns:
    """By ``schema.table``: each column with its label, in the order of the file."""

    tables: Mapping[str, Mapping[str, str]] = field(default_factory=dict)


def parse(text: str) -> SearchColumns:
    """Read the file. A line is ``schema.table.column: label``. Blank lines and lines that begin with ``#`` are ignored.

    :raises SettingsError: a line has no label, or its column has another line already.
    """
    found: dict[str, dict[str, str]] = {}
    for number, line in lines_of(text):
        parts = _LINE.fullmatch(line)
        names = [unquoted(name) for name in re.findall(PART, parts[1], re.VERBOSE)] if parts else []
        label = parts[2].strip() if parts else ""
        if len(names) != 3 or not all(names) or not label:
            raise SettingsError(
                f"{FILE}, line {number}: {line.strip()!r} is not `schema.table.column: label`.",
                hint="For instance `public.usuarios_paciente.apellidos: Apellidos`. A name with a dot, a colon or a"
                " quote stands in double quotes.",
            )
        table, column = f"{names[0]}.{names[1]}", names[2]
        if column in found.setdefault(table, {}):
            raise SettingsError(f"{FILE}, line {number}: {column} has another line already.", hint="Remove one.")
        found[table][column] = label
    return SearchColumns(found)
