"""``drift.txt``: changes that the application's migrations made to columns and tables, each confirmed by a person.

Restores read it, because PostgreSQL's catalog can identify a renamed column, but does not know where a new column's
values came from.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from clinic_backups.base.errors import SettingsError
from clinic_backups.base.text import in_sql
from clinic_backups.tenant.declarations import PART, lines_of, unquoted

FILE = "drift.txt"
_NAME = r"""(?: (?:[uU]&)? "(?:[^"]|"")+" | [^".:=>\s()]+ )"""
_TABLE = rf"""{PART} \. {_NAME}"""
# A type in parentheses behind a column. It may have quoted names, and one pair of parentheses of its own.
_WHAT = r"""(?: \s* \( ( (?: "(?:[^"]|"")+" | [^"()] | \([^"()]*\) )+ ) \) )?"""
_TABLE_LINE = re.compile(rf"\s* ({_TABLE}) \s* -> \s* ({_TABLE}) \s*", re.VERBOSE)
_COLUMN_LINE = re.compile(rf"\s* ({_TABLE}) \s* : \s* ({_NAME}) {_WHAT} \s* -> \s* ({_NAME}) {_WHAT} \s*", re.VERBOSE)
_PART_LINE = re.compile(rf"\s* ({_TABLE}) \s+ without \s+ ({_TABLE}) \s*", re.VERBOSE)
_FILL_LINE = re.compile(
    rf"\s* ({_TABLE}) \s* : \s* ({_NAME}) \s* = \s*"
    r"( '(?:[^']|'')*' | [-+]?[0-9][0-9.eE+-]* | true | false | null ) \s*",
    re.VERBOSE | re.IGNORECASE,
)


@dataclass(frozen=True)
class TableLine:
    """A table was renamed. If both names are equal, it was created again with the rows of the old one.

    Each name is ``schema.table``.
    """

    old: str
    new: str


@dataclass(frozen=True)
class ColumnLine:
    """A column was renamed. If both names are equal, a change of the column kept its values.

    :param table: the name that the table had when the line was written.
    :param was: the column's type, or number and type, before the change; empty if the line has none.
    :param becomes: the same after the change.
    """

    table: str
    old: str
    new: str
    was: str = ""
    becomes: str = ""


@dataclass(frozen=True)
class FillLine:
    """A column was added, or may no longer be NULL.

    :param value: the text of the value that older rows get, or rows with NULL. None means NULL: the line says only that
        the column was added.
    """

    table: str
    column: str
    value: str | None


@dataclass(frozen=True)
class PartLine:
    """A table was a part of another one, a partition or an heir, and is not any more. Rows that it has may come back.

    :param table, part: the names that both had when the line was written.
    """

    table: str
    part: str


NamingLine = TableLine | ColumnLine | FillLine
"""About a name, which no second line may be about."""
Line = NamingLine | PartLine


@dataclass(frozen=True)
class Drift:
    """The lines, in the order of the migrations."""

    lines: tuple[Line, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.lines)

    @property
    def tables(self) -> list[tuple[str, str]]:
        """The renamed tables in order: old and new name."""
        return [(line.old, line.new) for line in self.lines if isinstance(line, TableLine) and line.old != line.new]

    @property
    def kept_tables(self) -> list[str]:
        """Tables whose name still means the same, according to a line."""
        return [line.old for line in self.lines if isinstance(line, TableLine) and line.old == line.new]

    def path(self, table: str) -> list[str]:
        """The name, and the later names of the same table."""
        names = [table]
        for old, new in self.tables:
            if old in names and new not in names:
                names.append(new)
        return names

    def is_same_table(self, one: str, other: str) -> bool:
        """Whether both are names of one table, at different times."""
        return one == other or other in self.path(one) or one in self.path(other)

    def events(self, tables: Collection[str], since: int = 0) -> list[tuple[str, str]]:
        """The events of the columns of tables with these names, in order: see :func:`event`.

        :param since: skip this many lines.
        """
        return [found for line in self.lines[since:] if (found := event(line, tables)) is not None]

    def kept(self, tables: Collection[str]) -> tuple[ColumnLine, ...]:
        """The lines which say that columns of these tables kept their values through a change."""
        return tuple(
            line
            for line in self.lines
            if isinstance(line, ColumnLine) and line.table in tables and (line.old == line.new or line.was)
        )

    def has_left(self, part: str, table: str) -> bool:
        """Whether a line says that rows of ``table`` may come back although ``part`` has them. Both by present name."""
        return any(
            isinstance(line, PartLine) and table in self.path(line.table) and part in self.path(line.part)
            for line in self.lines
        )


def event(line: Line, tables: Collection[str]) -> tuple[str, str] | None:
    """A column's name before and after. An added column has no name before.

    None: the line says nothing about columns' names.
    """
    if isinstance(line, TableLine | PartLine) or line.table not in tables:
        return None
    if isinstance(line, FillLine):
        return "", line.column
    return (line.old, line.new) if line.old != line.new else None


def parse(text: str) -> Drift:
    """Read the file: one line for each change. Blank lines and those that begin with ``#`` are ignored.

    ``schema.table: old -> new`` is a renamed column. ``schema.table: column (type) -> column (type)`` is a column that
    kept its values. ``schema.table: column = 'value'`` is the value of an added column. ``schema.old -> schema.new`` is
    a renamed table. ``schema.table without schema.part`` is a partition or an heir that has left the table.

    :raises SettingsError: a line has none of these forms, or an earlier line is about the same.
    """
    lines: list[tuple[int, Line]] = []
    for number, line in lines_of(text):
        found = _line(line)
        if found is None:
            raise SettingsError(
                f"{FILE}, line {number}: {line.strip()!r} is not a change of a table.",
                hint="Write `schema.table: old_column -> new_column`, `schema.table: column = 'value'`,"
                " `schema.table: column (old type) -> column (new type)`, `schema.old_table -> schema.new_table` or"
                " `schema.table without schema.partition`. A value is a text in single quotes, a number, true, false or"
                " null. A name with other signs than letters, digits and _ stands in double quotes, as in SQL.",
            )
        _require_new(lines, found, number)
        lines.append((number, found))
    return Drift(tuple(line for _, line in lines))


def _line(line: str) -> Line | None:
    if match := _COLUMN_LINE.fullmatch(line):
        old, new = unquoted(match[2]), unquoted(match[4])
        was, becomes = ((match[group] or "").strip() for group in (3, 5))
        # Only both together say between which types the values stayed the same.
        return ColumnLine(_table(match[1]), old, new, was, becomes) if bool(was) == bool(becomes) else None
    if match := _FILL_LINE.fullmatch(line):
        return FillLine(_table(match[1]), unquoted(match[2]), _value(match[3]))
    if match := _TABLE_LINE.fullmatch(line):
        return TableLine(_table(match[1]), _table(match[2]))
    if match := _PART_LINE.fullmatch(line):
        return PartLine(_table(match[1]), _table(match[2]))
    return None


def _require_new(known: Sequence[tuple[int, Line]], line: Line, number: int) -> None:
    """:raises SettingsError: an earlier line renames the same name, and no line between them gives that name again."""
    if isinstance(line, PartLine):
        return
    for before, earlier in reversed(known):
        if isinstance(earlier, PartLine):
            continue
        if _gives(earlier, line):
            return
        if _repeats(earlier, line):
            name = line.old if isinstance(line, TableLine) else f"{line.table}.{_subject(line)}"
            raise SettingsError(
                f"{FILE}, line {number}: {name} has another line already, line {before}.",
                hint=f"Remove one. {_again(line)}",
            )


def _subject(line: ColumnLine | FillLine) -> str:
    return line.old if isinstance(line, ColumnLine) else line.column


def _repeats(earlier: NamingLine, line: NamingLine) -> bool:
    """Whether both lines are about the same name."""
    if isinstance(earlier, TableLine) or isinstance(line, TableLine):
        return isinstance(earlier, TableLine) and isinstance(line, TableLine) and earlier.old == line.old
    if isinstance(earlier, ColumnLine) and isinstance(line, ColumnLine) and line.old == line.new:
        return earlier == line
    kept = isinstance(earlier, ColumnLine) and earlier.old == earlier.new
    same = earlier.table == line.table and type(earlier) is type(line) and _subject(earlier) == _subject(line)
    return same and not kept


def _gives(earlier: NamingLine, line: NamingLine) -> bool:
    """Whether the earlier line gives the name to another column or table."""
    if isinstance(earlier, TableLine) or isinstance(line, TableLine):
        both = isinstance(earlier, TableLine) and isinstance(line, TableLine)
        return both and earlier.new == line.old != earlier.old  # type: ignore[union-attr]
    if earlier.table != line.table:
        return False
    if isinstance(earlier, FillLine):
        return isinstance(line, ColumnLine) and line.old != line.new and earlier.column == line.old
    if earlier.old == earlier.new:
        return False
    return earlier.new == _subject(line) or (isinstance(line, FillLine) and earlier.old == line.column)


def _again(line: NamingLine) -> str:
    """The remedy if the name was really given to two things, one after the other."""
    if isinstance(line, TableLine):
        return (
            "If another table got the name in between, keep the line of the one that older backups hold, and exchange"
            " the lines when a backup from between is restored."
        )
    if isinstance(line, FillLine):
        return "If the column was dropped and added again, the later line is right for older backups."
    return f"If another column got the name in between, say so between them: `{_added(line.table, line.old)}`."


def renamed_column(table: str, old: str, new: str) -> str:
    """The line for a renamed column."""
    return f"{spelled(*table.split('.', 1))}: {spelled(old)} -> {spelled(new)}"


def kept_column(table: str, name: str, was: str, becomes: str) -> str:
    """The line for a column that kept its values."""
    return f"{spelled(*table.split('.', 1))}: {spelled(name)} ({was}) -> {spelled(name)} ({becomes})"


def renamed_table(old: str, new: str) -> str:
    """The line for a renamed table."""
    return f"{spelled(*old.split('.', 1))} -> {spelled(*new.split('.', 1))}"


def filled_column(table: str, column: str, value: str) -> str:
    """The line for the value of an added column."""
    escaped = value.replace("'", "''")
    return f"{spelled(*table.split('.', 1))}: {spelled(column)} = '{escaped}'"


def left_part(table: str, part: str) -> str:
    """The line for a partition or an heir that has left its table."""
    return f"{spelled(*table.split('.', 1))} without {spelled(*part.split('.', 1))}"


def _added(table: str, column: str) -> str:
    return f"{spelled(*table.split('.', 1))}: {spelled(column)} = null"


def reached(name: str, lines: Sequence[tuple[str, str]]) -> list[str]:
    """A name, and the names that its column gets when the lines are followed in order."""
    names = [name]
    for old, new in lines:
        if old and old == names[-1]:
            names.append(new)
    return names


def spelled(*names: str) -> str:
    """Names in the file's spelling: in double quotes if they have characters other than letters, digits and _."""
    return ".".join(name if re.fullmatch(r"\w+", name) else in_sql(name) for name in names)


def _table(text: str) -> str:
    return ".".join(unquoted(part) for part in re.findall(PART, text, re.VERBOSE))


def _value(text: str) -> str | None:
    if text.lower() == "null":
        return None
    return text[1:-1].replace("''", "'") if text.startswith("'") else text
