"""``drift.txt``: changes that the application's migrations made to columns and tables, each confirmed by a person.

Restores read it, because PostgreSQL's catalog can identify a renamed column, but does not know where a new column's
values came from.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

from clinic_backups.base.errors import SettingsError
from clinic_backups.base.text import in_sql
from clinic_backups.tenant.declarations import PART, unquoted

FILE = "drift.txt"
_NAME = r"""(?: (?:[uU]&)? "(?:[^"]|"")+" | [^".:=>\s()]+ )"""
_TABLE = rf"""{PART} \. {_NAME}"""
# A type in parentheses behind a column. It may have quoted names, and one pair of parentheses of its own.
_WHAT = r"""(?: \s* \( ( (?: "(?:[^"]|"")+" | [^"()] | \([^"()]*\) )+ ) \) )?"""
_TABLE_LINE = re.compile(rf"\s* ({_TABLE}) \s* -> \s* ({_TABLE}) \s*", re.VERBOSE)
_COLUMN_LINE = re.compile(rf"\s* ({_TABLE}) \s* : \s* ({_NAME}) {_WHAT} \s* -> \s* ({_NAME}) {_WHAT} \s*", re.VERBOSE)
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


Line = TableLine | ColumnLine | FillLine


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


def event(line: Line, tables: Collection[str]) -> tuple[str, str] | None:
    """A column's name before and after. An added column has no name before.

    None: the line says nothing about columns' names.
    """
    if isinstance(line, TableLine) or line.table not in tables:
        return None
    if isinstance(line, FillLine):
        return "", line.column
    return (line.old, line.new) if line.old != line.new else None


def parse(text: str) -> Drift:
    """Read the file: one line for each change. Blank lines and those that begin with ``#`` are ignored.

    ``schema.table: old -> new`` is a renamed column. ``schema.table: column (type) -> column (type)`` is a column that
    kept its values. ``schema.table: column = 'value'`` is the value of an added column. ``schema.old -> schema.new`` is
    a renamed table.

    :raises SettingsError: a line has none of these forms, or an earlier line is about the same.
    """
    lines: list[tuple[int, Line]] = []
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        found = _line(line)
        if found is None:
            raise SettingsError(
                f"{FILE}, line {number}: {line.strip()!r} is not a change of a table.",
                hint="Write `schema.table: old_column -> new_column`, `schema.table: column = 'value'`,"
                " `schema.table: column (old type) -> column (new type)` or `schema.old_table -> schema.new_table`. A"
                " value is a text in single quotes, a number, true, false or null. A name with other signs than"
                " letters, digits and _ stands in double quotes, as in SQL.",
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
    return None


def _require_new(known: Sequence[tuple[int, Line]], line: Line, number: int) -> None:
    """:raises SettingsError: an earlier line renames the same name, and no line between them gives that name again."""
    for before, earlier in reversed(known):
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


def _repeats(earlier: Line, line: Line) -> bool:
    """Whether both lines are about the same name."""
    if isinstance(earlier, TableLine) or isinstance(line, TableLine):
        return isinstance(earlier, TableLine) and isinstance(line, TableLine) and earlier.old == line.old
    if isinstance(earlier, ColumnLine) and isinstance(line, ColumnLine) and line.old == line.new:
        return earlier == line
    kept = isinstance(earlier, ColumnLine) and earlier.old == earlier.new
    same = earlier.table == line.table and type(earlier) is type(line) and _subject(earlier) == _subject(line)
    return same and not kept


def _gives(earlier: Line, line: Line) -> bool:
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


def _again(line: Line) -> str:
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
    return f"{_spelled(*table.split('.', 1))}: {_spelled(old)} -> {_spelled(new)}"


def kept_column(table: str, name: str, was: str, becomes: str) -> str:
    """The line for a column that kept its values."""
    return f"{_spelled(*table.split('.', 1))}: {_spelled(name)} ({was}) -> {_spelled(name)} ({becomes})"


def renamed_table(old: str, new: str) -> str:
    """The line for a renamed table."""
    return f"{_spelled(*old.split('.', 1))} -> {_spelled(*new.split('.', 1))}"


def filled_column(table: str, column: str, value: str) -> str:
    """The line for the value of an added column."""
    escaped = value.replace("'", "''")
    return f"{_spelled(*table.split('.', 1))}: {_spelled(column)} = '{escaped}'"


def _added(table: str, column: str) -> str:
    return f"{_spelled(*table.split('.', 1))}: {_spelled(column)} = null"


def lost(drift: Drift, there: Mapping[str, Collection[str]]) -> Iterator[str]:
    """Lines that lead to a missing column or table, or say too little, each as a sentence.

    :param there: the columns of every table, by ``schema.table``.
    """
    for number, line in enumerate(drift.lines):
        since = Drift(drift.lines[number + 1 :])
        if isinstance(line, TableLine):
            if not any(name in there for name in since.path(line.new)):
                yield f"{FILE} says that {line.old} became {line.new}, and there is no such table."
            continue
        if isinstance(line, ColumnLine):
            column, said = line.new, f"says that {line.table}.{line.old} became {line.new}"
        else:
            column, said = line.column, f"gives a value for {line.table}.{line.column}"
        names = [name for name in drift.path(line.table) if name in there]
        called = reached(column, drift.events({line.table, *names}))
        if not any(one in there[name] for name in names for one in called):
            yield f"{FILE} {said}, and there is no such column."
        elif isinstance(line, ColumnLine) and line.old == line.new and not line.was:
            yield (
                f"{FILE} says that {line.table}.{line.old} kept its values, and not through which change: write"
                f" `{_spelled(line.old)} (old type) -> {_spelled(line.new)} (new type)`."
            )


def reached(name: str, lines: Sequence[tuple[str, str]]) -> list[str]:
    """A name, and the names that its column gets when the lines are followed in order."""
    names = [name]
    for old, new in lines:
        if old and old == names[-1]:
            names.append(new)
    return names


def _spelled(*names: str) -> str:
    """Names in the file's spelling: in double quotes if they have characters other than letters, digits and _."""
    return ".".join(name if re.fullmatch(r"\w+", name) else in_sql(name) for name in names)


def _table(text: str) -> str:
    return ".".join(unquoted(part) for part in re.findall(PART, text, re.VERBOSE))


def _value(text: str) -> str | None:
    if text.lower() == "null":
        return None
    return text[1:-1].replace("''", "'") if text.startswith("'") else text
