"""Pieces of the statements that compare rows: names, keys, and the operators of foreign keys."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from psycopg2 import sql

from clinic_backups.base.table import Table
from clinic_backups.tenant.every_clinic import CLINIC
from clinic_backups.tenant.pg_catalog import catalog_query
from clinic_backups.tenant.structure import ParentKey


def template(name: str, **parts: str) -> sql.SQL:
    """See :func:`clinic_backups.tenant.pg_catalog.catalog_query`."""
    return sql.SQL(catalog_query(name, **parts))


def same(link: ParentKey, parent: str) -> sql.Composable:
    """Equality by the operators of the foreign key, because its column may have another type or an extension's type."""
    return all_of(
        operator.compares(sql.Identifier(parent, theirs), sql.Identifier("r", ours))
        for theirs, ours, operator in zip(link.parent_columns, link.columns, link.operators, strict=True)
    )


def given(link: ParentKey) -> sql.Composable:
    """The row r refers to a row: no column of the link is NULL."""
    return all_of(sql.SQL("{} IS NOT NULL").format(sql.Identifier("r", column)) for column in link.columns)


def given_in_part(link: ParentKey) -> sql.Composable:
    """In the row r some columns of the foreign key are NULL and others are not."""
    count = sql.SQL("num_nulls({})").format(listed(sql.Identifier("r", column) for column in link.columns))
    return sql.SQL("{} BETWEEN 1 AND {}").format(count, sql.Literal(len(link.columns) - 1))


def keys(table: Table, alias: str) -> list[sql.Composable]:
    """The primary key.

    Values of an extension's type are compared as text: only the equality of PostgreSQL's own types is found without a
    search path.
    """
    types = {column.name: column.type for column in table.columns}
    return [
        sql.SQL("ROW({})::text" if "." in types[column] else "{}").format(sql.Identifier(alias, column))
        for column in table.primary_key
    ]


def whole_row(table: Table, alias: str, leaving_aside: Collection[str]) -> sql.Composable:
    """The values that distinguish the rows of a table without a key.

    :param leaving_aside: columns, as ``schema.table.column``.
    """
    columns = [
        sql.Identifier(alias, column.name)
        for column in table.stored_columns
        if f"{table.name}.{column.name}" not in leaving_aside
    ]
    return sql.SQL("ROW({})::text").format(listed(columns))


def backed_up(
    name: str, columns: Iterable[sql.Composable], clinics: sql.Composable, extract: str, *, materialized: bool
) -> sql.Composable:
    """A named query: the rows of one table in all backups, each with the number of its clinic.

    :param columns: those of the row r.
    :param clinics: the query of the clinics.
    :param materialized: whether the server stores the rows before it compares them.
    """
    return template("backed_up", rows_of_every_clinic="every_clinic").format(
        name=sql.Identifier(name), how=sql.SQL("" if materialized else "NOT "), clinic=CLINIC,
        columns=listed(columns), clinics=clinics, extract=sql.SQL(extract),
    )  # fmt: skip


def all_of(conditions: Iterable[sql.Composable]) -> sql.Composable:
    return sql.SQL(" AND ").join(conditions)


def listed(items: Iterable[sql.Composable]) -> sql.Composable:
    return sql.SQL(", ").join(items)
