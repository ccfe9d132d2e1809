"""``masks.txt``: the columns whose values a copy for tests gets in another form, each with a rule."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, cast, get_args

from clinic_backups.base.errors import SettingsError
from clinic_backups.tenant.declarations import columns_with, spelled

FILE = "masks.txt"
Rule = Literal["null", "empty", "hash", "name", "email", "phone", "text", "number", "shift"]
RULES: tuple[Rule, ...] = get_args(Rule)


@dataclass(frozen=True)
class Masks:
    """By ``schema.table``: each masked column with its rule."""

    tables: Mapping[str, Mapping[str, Rule]] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.tables)

    @property
    def columns(self) -> int:
        """How many there are."""
        return sum(map(len, self.tables.values()))


def parse(text: str) -> Masks:
    """Read the file. A line is ``schema.table.column: rule``. Blank lines and lines that begin with ``#`` are ignored.

    :raises SettingsError: a line has no known rule, or its column has another line already.
    """
    found = columns_with(text, FILE, "rule", "public.usuarios_paciente.apellidos: name")
    for table, rules in found.items():
        for column, rule in rules.items():
            if rule not in RULES:
                raise SettingsError(
                    f"{FILE}: {rule[:40]!r} is not a rule ({spelled(table, column)}).",
                    hint=f"The rules are {', '.join(RULES)}; see docs/sql.md.",
                )
    return Masks(cast(dict[str, dict[str, Rule]], found))
