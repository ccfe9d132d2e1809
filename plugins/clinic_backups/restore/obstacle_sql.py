"""Pieces of the queries that find obstacles."""

from __future__ import annotations

from collections.abc import Sequence

from psycopg2 import sql

from clinic_backups.base.table import Table
from clinic_backups.restore.columns.shape import PLAIN_KEY_TYPES, has_plain_key
from clinic_backups.restore.diff import TableDiff
from clinic_backups.restore.table_rules import Reference
from clinic_backups.restore.workspace import columns_of


def is_itself(reference: Reference) -> bool:
    """Whether every row refers to itself: a key that is named like its own table."""
    return reference.child == reference.parent and reference.columns == reference.parent_columns


def has_referred(parent: TableDiff, reference: Reference) -> bool:
    """Whether the backup's rows of the parent have the values that others refer to. Generated ones are not in it."""
    shape = parent.staged.shape
    return set(reference.parent_columns) <= {*shape.columns, *shape.key}


def and_not_deleted(diff: TableDiff | None, alias: str) -> sql.Composable:
    if diff is None or not diff.plan.delete:
        return sql.SQL("")
    return sql.SQL("AND NOT EXISTS (SELECT FROM {} AS d WHERE d.op = 'delete' AND {})").format(
        diff.ops, diff.joins(alias, "d")
    )


def and_not_inserted(diff: TableDiff | None, reference: Reference, child: str) -> sql.Composable:
    """The parent is not among the rows that come back or get the referenced value."""
    if diff is None or not diff.plan.insert + diff.plan.update:
        return sql.SQL("")
    if not has_referred(diff, reference):
        return sql.SQL("")
    if diff.whole:
        return sql.SQL("AND NOT EXISTS (SELECT FROM {} AS iw WHERE {})").format(
            diff.staged.wanted, reference.refers(child, "iw")
        )
    return sql.SQL("AND NOT EXISTS (SELECT FROM {} AS i JOIN {} AS iw ON {} WHERE i.op <> 'delete' AND {})").format(
        diff.ops, diff.staged.wanted, diff.joins("iw", "i"), reference.refers(child, "iw")
    )


def and_not_changed(diff: TableDiff | None, reference: Reference) -> sql.Composable:
    """The restore does not itself make the child's row refer to another parent."""
    if diff is None or not diff.plan.update or not set(reference.columns) & set(diff.plan.columns):
        return sql.SQL("")
    shape = diff.staged.shape
    return sql.SQL(
        "AND NOT EXISTS (SELECT FROM {} AS u JOIN {} AS uw ON {} WHERE u.op = 'update' AND {}"
        " AND NOT COALESCE({}, false))"
    ).format(
        diff.ops,
        diff.staged.wanted,
        shape.is_of("u", "uw"),
        shape.is_of("u", "c"),
        reference.refers("uw", "g"),
    )


def shown(table: Table, alias: str, key: Sequence[str] = ()) -> sql.Composable:
    """A row's key as text; empty if it may be more than a number.

    ``key``: its columns, if they have other names there.
    """
    if not has_plain_key(table):
        return sql.SQL("''")
    return sql.SQL("concat_ws(', ', {})").format(columns_of(key or table.primary_key, alias))


def plain_text(table: Table, columns: Sequence[str], alias: str) -> sql.Composable:
    """Columns as text if a database made up all their numbers; otherwise NULL."""
    types = {column.name: column.type for column in table.columns}
    if any(types[name] not in PLAIN_KEY_TYPES for name in columns):
        return sql.SQL("NULL")
    return sql.SQL("concat_ws(', ', {})").format(columns_of(columns, alias))


def none_null(columns: Sequence[str], alias: str) -> sql.Composed:
    return sql.SQL(" AND ").join(sql.SQL("{} IS NOT NULL").format(sql.Identifier(alias, name)) for name in columns)
