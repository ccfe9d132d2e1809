"""``drift.txt``: what the application's migrations did to columns and tables, confirmed by a person, line by line.

A restore reads it: PostgreSQL's catalog shows that a column has gone and another one has come, and never that the one
became the other.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

from clinic_backups.declarations import PART, unquoted
from clinic_backups.errors import SettingsError
from clinic_backups.text import quoted

FILE = "drift.txt"
Key = TypeVar("Key", str, tuple[str, str])
Value = TypeVar("Value")
_NAME = r"""(?: "(?:[^"]|"")+" | [^".:=>\s]+ )"""
_TABLE = rf"""{PART} \. {_NAME}"""
_TABLE_LINE = re.compile(rf"\s* ({_TABLE}) \s* -> \s* ({_TABLE}) \s*", re.VERBOSE)
_COLUMN_LINE = re.compile(rf"\s* ({_TABLE}) \s* : \s* ({_NAME}) \s* -> \s* ({_NAME}) \s*", re.VERBOSE)
_FILL_LINE = re.compile(
    rf"\s* ({_TABLE}) \s* : \s* ({_NAME}) \s* = \s*"
    r"( '(?:[^']|'')*' | [-+]?[0-9][0-9.eE+-]* | true | false | null ) \s*",
    re.VERBOSE | re.IGNORECASE,
)


@dataclass(frozen=True)
class Drift:
    """What the lines say. A table is ``schema.table``, under the name that it had when the line was written."""

    tables: Mapping[str, str] = field(default_factory=dict)
    """The name after a migration by the name before it."""
    columns: Mapping[tuple[str, str], str] = field(default_factory=dict)
    """A column's name after, by table and the name before. The same name says: still the same values."""
    fills: Mapping[tuple[str, str], str | None] = field(default_factory=dict)
    """By table and column: the text of the value that rows get which are older than the column, or have NULL where it
    may not be NULL any more. None: NULL, which says only that the column was added."""
    numbers: Mapping[tuple[str, str], int] = field(default_factory=dict)
    """Of ``fills``: how many of ``columns`` stand before it in the file."""

    def __bool__(self) -> bool:
        return bool(self.tables or self.columns or self.fills)

    def path(self, table: str) -> list[str]:
        """What a table was called from then on, that name first."""
        return list(followed(self.tables, table))

    def renames(self, tables: Collection[str], since: int = 0) -> dict[str, str]:
        """Of tables of these names: the columns' names after, by those before.

        :param since: leave so many of ``columns`` aside.
        """
        return {old: new for (table, old), new in list(self.columns.items())[since:] if table in tables}


def parse(text: str) -> Drift:
    """Read the file: one line for each change, blank lines and those that begin with ``#`` are left aside.

    ``schema.table: old -> new`` is a renamed column, ``schema.table: column = 'value'`` the value of an added one, and
    ``schema.old -> schema.new`` a renamed table.

    :raises SettingsError: a line has none of these forms, or an earlier line is about the same.
    """
    tables: dict[str, str] = {}
    columns: dict[tuple[str, str], str] = {}
    fills: dict[tuple[str, str], str | None] = {}
    numbers: dict[tuple[str, str], int] = {}
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        if match := _COLUMN_LINE.fullmatch(line):
            _add(columns, (_table(match[1]), unquoted(match[2])), unquoted(match[3]), number)
        elif match := _FILL_LINE.fullmatch(line):
            key = _table(match[1]), unquoted(match[2])
            _add(fills, key, _value(match[3]), number)
            numbers[key] = len(columns)
        elif match := _TABLE_LINE.fullmatch(line):
            _add(tables, _table(match[1]), _table(match[2]), number)
        else:
            raise SettingsError(
                f"{FILE}, line {number}: {line.strip()!r} is not a change of a table.",
                hint="Write `schema.table: old_column -> new_column`, `schema.table: column = 'value'` or"
                " `schema.old_table -> schema.new_table`. A value is a text in single quotes, a number, true, false or"
                " null. A name with other signs than letters, digits and _ stands in double quotes, as in SQL.",
            )
    return Drift(tables, columns, fills, numbers)


def renamed_column(table: str, old: str, new: str) -> str:
    """The line that says so."""
    return f"{_spelled(*table.split('.', 1))}: {_spelled(old)} -> {_spelled(new)}"


def renamed_table(old: str, new: str) -> str:
    """The line that says so."""
    return f"{_spelled(*old.split('.', 1))} -> {_spelled(*new.split('.', 1))}"


def filled_column(table: str, column: str, value: str) -> str:
    """The line that says so."""
    escaped = value.replace("'", "''")
    return f"{_spelled(*table.split('.', 1))}: {_spelled(column)} = '{escaped}'"


def lost(drift: Drift, there: Mapping[str, Collection[str]]) -> Iterator[str]:
    """Lines that lead to a column or a table that is not there, each as a sentence.

    :param there: the columns of every table, by ``schema.table``.
    """
    for old, new in drift.tables.items():
        if not any(name in there for name in followed(drift.tables, new)):
            yield f"{FILE} says that {old} became {new}, and there is no such table."
    wanted = [(table, new, f"says that {table}.{old} became {new}") for (table, old), new in drift.columns.items()]
    wanted += [(table, column, f"gives a value for {table}.{column}") for table, column in drift.fills]
    for table, column, said in wanted:
        names = [name for name in drift.path(table) if name in there]
        rules = drift.renames({table, *names})
        if not any(called in there[name] for name in names for called in followed(rules, column)):
            yield f"{FILE} {said}, and there is no such column."


def followed(names: Mapping[str, str], name: str) -> Iterator[str]:
    """A name, and those that it had after it, in order; a circle is gone round once."""
    seen = set[str]()
    while name not in seen:
        yield name
        seen.add(name)
        name = names.get(name, name)


def _spelled(*names: str) -> str:
    """Names as the file writes them, in double quotes where they have other signs than letters, digits and _."""
    return ".".join(name if re.fullmatch(r"\w+", name) else quoted(name) for name in names)


def _table(text: str) -> str:
    return ".".join(unquoted(part) for part in re.findall(PART, text, re.VERBOSE))


def _value(text: str) -> str | None:
    if text.lower() == "null":
        return None
    return text[1:-1].replace("''", "'") if text.startswith("'") else text


def _add(known: dict[Key, Value], key: Key, value: Value, number: int) -> None:
    """:raises SettingsError: an earlier line is about the same."""
    if key in known:
        what = key if isinstance(key, str) else ".".join(key)
        raise SettingsError(f"{FILE}, line {number}: {what} has another line already.", hint="Remove one.")
    known[key] = value
