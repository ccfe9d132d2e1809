"""Finds what an erasure request is about in the tables of a backup: by PostgreSQL's numbers where they count, and else
by names and ``drift.txt``."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from clinic_backups.base.meant_key import MeantColumn, MeantKey
from clinic_backups.base.table import Table
from clinic_backups.tenant.drift import Drift, reached
from clinic_backups.tenant.source_database import is_same


def is_this_one(meant: MeantKey, table: Table, database: str | None) -> bool:
    """Whether the numbers say that a table is the meant one. :param database: of the table."""
    return table.oid is not None and table.oid == meant.oid and is_same(meant.database, database)


def is_another(
    meant: MeantKey, table: Table, namesakes: Collection[Table], database: str | None, recorded: str, then: str
) -> bool:
    """Whether a table cannot be the meant one, though one of its names was the meant one's.

    :param namesakes: all tables of the backup of which the names say that they may be it.
    :param recorded: the meant table's name. :param then: the table's name in the backup.
    """
    if is_this_one(meant, table, database):
        return False
    if any(is_this_one(meant, each, database) for each in namesakes):
        # A part that was attached since has the meant table's rows as well, and no name of it.
        return True
    if not meant.is_reused:
        return False
    return (table.oid is not None and is_same(meant.database, database)) or then != recorded


def columns_in(meant: MeantKey, table: Table, database: str | None, drift: Drift, names: Collection[str]) -> (
    tuple[str, ...] | None
):  # fmt: skip
    """The names of the meant columns in a table of a backup; none if they are not there, or nobody can tell.

    :param names: all names of the table.
    """
    lines = drift.events({name for each in names for name in drift.path(each)})
    there = {column.name for column in table.columns}
    at: Mapping[int | None, str] = {}
    if is_this_one(meant, table, database):
        at = {column.number: column.name for column in table.columns if column.number is not None}
    found = [_column(column, there, lines, at) for column in meant.columns]
    known = tuple(name for name in found if name is not None)
    return known if len(known) == len(found) else None


def _column(
    column: MeantColumn, there: Collection[str], lines: list[tuple[str, str]], at: Mapping[int | None, str]
) -> str | None:
    """The name that a column has; none if it is not there, or may be several."""
    related = _related(column.name, lines) & {*there}
    if column.number is not None and at:
        numbered = at.get(column.number)
        return numbered if numbered in related or not related else None
    return next(iter(related)) if len(related) == 1 else None


def _related(name: str, lines: list[tuple[str, str]]) -> set[str]:
    """The name, and those that the same column may have had before and may have got since."""
    olds = {old for old, _ in lines if old}
    later = {each for start in range(len(lines) + 1) for each in reached(name, lines[start:])}
    before = {old for old in olds for start in range(len(lines) + 1) if name in reached(old, lines[start:])}
    return {name} | later | before
