"""What an export holds: its tables, their names in files, and the values of one row."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from decimal import Decimal, InvalidOperation
from typing import Literal, Protocol

from clinic_backups.archive.csv_rows import checked_rows, fields_of
from clinic_backups.base.table import Column, Table

Kind = Literal["integer", "real", "numeric", "boolean", "bytes", "text"]
_KINDS: dict[str, Kind] = {
    "smallint": "integer", "integer": "integer", "bigint": "integer", "oid": "integer", "real": "real",
    "double precision": "real", "numeric": "numeric", "boolean": "boolean", "bytea": "bytes",
}  # fmt: skip
DOUBLE_DIGITS = 15
"""Any decimal number with so many digits comes back from a double as it was (DBL_DIG)."""


@dataclass(frozen=True)
class Exported:
    """One table of an export, with the number of its rows."""

    table: Table
    rows: int

    @property
    def columns(self) -> tuple[Column, ...]:
        """The columns whose values are in the backup."""
        return self.table.stored_columns

    @property
    def generated(self) -> list[str]:
        """The columns that the database computes. Backups do not hold them."""
        return [column.name for column in self.table.columns if column.generated is not None]

    def values(self, data: bytes) -> Iterator[list[str | None]]:
        """The rows of a block, as texts. :raises IntegrityError: a row has another number of values."""
        hint = "Nothing was exported. Choose another backup."
        yield from (values for _, values in checked_rows(self.table, data, _texts_of, hint=hint))


def _texts_of(row: bytes) -> list[str | None]:
    return [None if value is None else value.decode() for value in fields_of(row)]


@dataclass
class Placed:
    """Where the rows are, for the readme and the command's output.

    :param places: by table: the names of its files, sheets or tables.
    :param long_texts: how many texts were too long for a cell and are in a sheet of their own.
    """

    places: dict[str, list[str]] = field(default_factory=dict)
    long_texts: int = 0


class Sink(Protocol):
    """Writes one format. Blocks of the tables come in any order."""

    placed: Placed

    def write(self, name: str, data: bytes) -> None:
        """Add rows of one table: whole rows of CSV, as ``COPY`` writes them."""

    def finish(self, readme: Iterable[str]) -> None:
        """Add the readme, and close everything."""

    def abandon(self) -> None:
        """Close everything after an error. What was written is deleted later."""


def kind_of(column: Column) -> Kind:
    """How files hold the values of a column. Every type that is not known here is a text."""
    return _KINDS.get(re.sub(r"\(.*?\)$", "", column.type), "text")


def is_exact(text: str) -> bool:
    """Whether a double holds this decimal number so that the same number can be read from it."""
    digits = text.lstrip("-")
    if digits.isdecimal() and len(digits) <= DOUBLE_DIGITS:
        return True
    try:
        number = Decimal(text)
    except InvalidOperation:
        return False
    if not number.is_finite():
        return False
    significant = "".join(map(str, number.as_tuple().digits)).strip("0")
    return len(significant) <= DOUBLE_DIGITS and -300 < number.adjusted() < 300


def names_for(tables: Iterable[str], *, longest: int = 120, allowed: str = r"[^\w.-]") -> Mapping[str, str]:
    """By table, a name that is safe and unique, also where upper and lower case do not differ.

    :param allowed: what is replaced, as a regular expression.
    """
    found: dict[str, str] = {}
    taken = set[str]()
    for table in tables:
        plain = re.sub(allowed, "_", table).strip(".'") or "_"
        if plain.casefold().startswith("sqlite_"):
            plain = f"_{plain}"
        name, number = plain[:longest], 1
        while name.casefold() in taken:
            number += 1
            name = f"{plain[: longest - len(str(number)) - 1]}~{number}"
        taken.add(name.casefold())
        found[table] = name
    return found
