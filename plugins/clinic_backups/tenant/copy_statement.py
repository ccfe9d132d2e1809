"""The SQL that reads one table's rows of one clinic through its extract."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache

import psycopg2

from clinic_backups.base.errors import PermanentError
from clinic_backups.base.table import Table
from clinic_backups.base.text import quoted
from clinic_backups.tenant.extract import file_of

UNDEFINED_COLUMN = "42703"
_WANTED = re.compile(r'"?r"?\."(?P<name>(?:[^"]|"")+)"')
"""A column of the rows that an extract gives, as the statements around it name them."""


def copy_statement(table: Table, extract: str, *, first: str = "") -> str:
    """``COPY`` of one table's rows of one clinic as CSV in primary-key order.

    Text keys are ordered by code point, since a collation's order may change with the operating system. A table
    without primary key is ordered by its whole rows.

    :param first: a column of the extract that they are ordered by before.
    """
    columns, order = _columns_and_order(table)
    if first:
        order = f'"r".{first}, {order}'
    return f"COPY (SELECT {columns} FROM (\n{extract}\n) AS r ORDER BY {order}) TO STDOUT (FORMAT csv)"  # noqa: S608 - the extract is trusted, names are quoted


def probe_statement(table: Table, extract: str) -> str:
    """A query for the extract's first row, which fails if the extract lacks a column of the table."""
    columns, _ = _columns_and_order(table)
    return f"SELECT FROM (SELECT {columns} FROM (\n{extract}\n) AS r) AS s LIMIT 1"  # noqa: S608


def require_column(error: psycopg2.Error, extracts: Mapping[str, str], statement: str) -> None:
    """:raises PermanentError: an extract does not return a column that the statement around it needs.

    The position that PostgreSQL reports tells such a column from one that the extract itself names.

    :param extracts: by ``schema.table``. The columns needed of an extract stand before it, or behind the last one.
    """
    at = int(error.diag.statement_position or 0) - 1
    found = sorted((statement.find(extract), len(extract), table) for table, extract in extracts.items())
    places = [place for place in found if place[0] >= 0]
    within = any(start <= at < start + length for start, length, _ in places)
    if error.pgcode != UNDEFINED_COLUMN or at < 0 or within or not places:
        return
    column = _WANTED.match(statement, at)
    if column:
        table = next((table for start, _, table in places if start > at), places[-1][2])
        name = column["name"].replace('""', '"')
        raise PermanentError(
            f"The extract of {table} does not return the column {name}, which the table has.",
            hint=f"Add {name} to the columns in {file_of(table)} in include/sql, or write SELECT t.* there.",
        ) from None


@lru_cache(maxsize=2048)
def _columns_and_order(table: Table) -> tuple[str, str]:
    """What a table's COPY selects, and by what it orders. The same for all clinics."""
    columns = ", ".join(_column(column.name) for column in table.stored_columns)
    if not table.primary_key:
        return columns, f'ROW({columns})::text COLLATE "C"'
    types = {column.name: column.type for column in table.columns}
    return columns, ", ".join(_ordered(name, types[name]) for name in table.primary_key)


def _column(name: str) -> str:
    return f'"r".{quoted(name)}'


def _ordered(column: str, type_: str) -> str:
    collatable = type_.partition("(")[0].rstrip("[]") in ("text", "character varying", "character")
    return _column(column) + (' COLLATE "C"' if collatable else "")
