"""The values that unique indexes compare, and rows to update that hold a value which another one gets."""

from __future__ import annotations

from collections.abc import Collection

from psycopg2 import sql

from clinic_backups.restore.columns.shape import Shape
from clinic_backups.restore.staging import Staged
from clinic_backups.restore.table_rules import UniqueRule, compare
from clinic_backups.restore.workspace import Workspace


def is_comparable(shape: Shape, rule: UniqueRule) -> bool:
    """Whether a query can compare the values as the index does."""
    known = {*shape.columns, *(column.name for column in shape.computed)}
    return (
        not rule.exclusion
        and not rule.of_partition
        and len(rule.operators) == len(rule.expressions)
        and set(rule.columns) <= known
    )


def values_of(shape: Shape, rule: UniqueRule, rows: sql.Composable) -> sql.Composed:
    """SELECT of the key and the index's values (``e0`` and so on) of the rows that are in the index."""
    values = sql.SQL(", ").join(
        sql.SQL("{} AS {}").format(sql.SQL(expression), name)
        for expression, name in zip(rule.expressions, _names(rule), strict=True)
    )
    return sql.SQL("(SELECT {}, {} FROM {} AS w WHERE {})").format(
        shape.as_op_key("w"), values, rows, sql.SQL(rule.predicate or "true")
    )


def same_values(rule: UniqueRule, left: str, right: str) -> sql.Composed:
    """SQL: two aliases of :func:`values_of` have the same values for the index."""
    names = _names(rule)
    return compare(
        [sql.SQL("{}.{}").format(sql.Identifier(left), name) for name in names],
        rule.operators,
        [sql.SQL("{}.{}").format(sql.Identifier(right), name) for name in names],
    )


def held_by(
    workspace: Workspace, staged: Staged, ops: sql.Identifier, changed: Collection[str]
) -> tuple[set[str], frozenset[str]]:
    """The places in ``ops`` of the rows to update whose present unique value another row to update gets.

    PostgreSQL checks such an index row by row, so one of both rows has to be out of the way first.

    :param changed: the columns that change.
    :returns: the places, and the columns of changed indexes whose values no query can compare.
    """
    shape = staged.shape
    places, unknown = set[str](), set[str]()
    for rule in shape.rules.unique:
        if rule.deferrable or not set(rule.columns) & set(changed):
            continue
        if not is_comparable(shape, rule):
            unknown |= set(rule.columns) & set(changed)
            continue
        query = sql.SQL("""
            SELECT held.ctid::text
              FROM {wanted} AS a JOIN {present} AS b ON {same_values}
              JOIN {ops} AS gets ON gets.op = 'update' AND {is_a}
              JOIN {ops} AS held ON held.op = 'update' AND {is_b}
             WHERE NOT ({same_key})""").format(
            wanted=values_of(shape, rule, staged.wanted),
            present=values_of(shape, rule, staged.present),
            same_values=same_values(rule, "a", "b"),
            ops=ops,
            is_a=shape.same_op_key("gets", "a"),
            is_b=shape.same_op_key("held", "b"),
            same_key=shape.same_op_key("a", "b"),
        )
        places.update(place for (place,) in workspace.as_application(query, 1, "comparing unique values"))
    return places, frozenset(unknown)


def _names(rule: UniqueRule) -> list[sql.Identifier]:
    return [sql.Identifier(f"e{number}") for number, _ in enumerate(rule.expressions)]
