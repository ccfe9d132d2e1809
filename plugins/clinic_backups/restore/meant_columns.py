"""Finds what an erasure request is about in the tables of a backup: by PostgreSQL's numbers where they count, and else
by names and ``drift.txt``."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from clinic_backups.base.meant_key import MeantColumn, MeantKey, are_alike
from clinic_backups.base.table import Column, Table
from clinic_backups.tenant.drift import Drift, TableLine, reached
from clinic_backups.tenant.source_database import is_same


def is_this_one(meant: MeantKey, table: Table, database: str | None) -> bool:
    """Whether the numbers say that a table is the meant one. :param database: of the table."""
    return table.oid is not None and table.oid == meant.oid and is_same(meant.database, database)


def is_gone(meant: MeantKey, table: Table, database: str | None) -> bool:
    """Whether the numbers say that a table is the meant one, and that a meant column of it was dropped.

    A larger number proves that the column was there before. A server that went back in time may not have it yet.
    """
    there = [column.number for column in table.columns if column.number is not None]
    asked = [column.number for column in meant.columns if column.number is not None]
    gone = {*asked} - {*there}
    are_known = len(there) == len(table.columns) and len(asked) == len(meant.columns)
    return is_this_one(meant, table, database) and are_known and bool(gone) and max(gone) < max(there, default=0)


def meant_among(
    meant: MeantKey, namesakes: Mapping[str, Table], database: str | None, recorded: str, drift: Drift
) -> list[str]:
    """Which tables of a backup may be the meant one. If there are several, nobody can tell which one it is.

    :param namesakes: by their names in the backup, all of which the numbers or the names say that they may be it.
    :param recorded: the meant table's name.
    """
    numbered = [name for name, table in namesakes.items() if is_this_one(meant, table, database)]
    if numbered:
        # A part that was attached since has the meant table's rows as well, and no name of it.
        return numbered
    if meant.is_reused:
        here = database if is_same(meant.database, database) else None
        return [name for name, table in namesakes.items() if name == recorded and (here is None or table.oid is None)]
    later = [name for name in drift.path(recorded) if name in namesakes]
    if len(namesakes) > 1 and later and recorded not in drift.path(later[-1])[1:]:
        # The backup has both, so it was made after the table was renamed, and another one has the old name.
        return later[-1:]
    return list(namesakes)


def was_made_again(recorded: str, drift: Drift) -> bool:
    """Whether the last line about a name says that the table was created again with its rows."""
    return [new for old, new in _table_lines(drift) if old == recorded][-1:] == [recorded]


def _table_lines(drift: Drift) -> list[tuple[str, str]]:
    return [(line.old, line.new) for line in drift.lines if isinstance(line, TableLine)]


def columns_in(meant: MeantKey, table: Table, database: str | None, drift: Drift, names: Collection[str]) -> (
    tuple[str, ...] | None
):  # fmt: skip
    """The names of the meant columns in a table of a backup; none if they are not there, or nobody can tell.

    :param names: all names of the table.
    """
    lines = drift.events({name for each in names for name in drift.path(each)})
    there = {column.name: column for column in table.columns}
    at: Mapping[int | None, str] = {}
    if is_this_one(meant, table, database):
        at = {column.number: column.name for column in table.columns if column.number is not None}
    found = [_column(column, there, lines, at) for column in meant.columns]
    known = tuple(name for name in found if name is not None)
    return known if len(known) == len(found) else None


def _column(
    column: MeantColumn, there: Mapping[str, Column], lines: list[tuple[str, str]], at: Mapping[int | None, str]
) -> str | None:
    """The name that a column has; none if it is not there, or may be several."""
    if column.number is not None and at:
        return at.get(column.number)
    related = _related(column.name, lines) & {*there}
    if len(related) > 1:
        # Another column got the name, and the key may have become one of another type.
        related = {name for name in related if are_alike(there[name].value_type, column.type)}
    return next(iter(related)) if len(related) == 1 else None


def _related(name: str, lines: list[tuple[str, str]]) -> set[str]:
    """The name, and those that the same column may have had before and may have got since."""
    olds = {old for old, _ in lines if old}
    later = {each for start in range(len(lines) + 1) for each in reached(name, lines[start:])}
    before = {old for old in olds for start in range(len(lines) + 1) if name in reached(old, lines[start:])}
    return {name} | later | before
