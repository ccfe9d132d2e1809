"""The values that unique indexes compare, and rows to update that hold a value which another one gets."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from itertools import combinations

from psycopg2 import sql

from clinic_backups.base.text import in_sql, quoted
from clinic_backups.restore.columns.shape import Shape
from clinic_backups.restore.staging import Staged
from clinic_backups.restore.table_rules import UniqueRule, compare
from clinic_backups.restore.workspace import Workspace

DOING = "comparing unique values"
MOST_NULLABLE = 4
"""An index for which NULLs are equal needs a query for each set of expressions that may be NULL together."""


def is_comparable(shape: Shape, rule: UniqueRule) -> bool:
    """Whether a query can compare the values as the index does."""
    known = {*shape.columns, *(column.name for column in shape.computed)}
    return (
        not rule.exclusion
        and not rule.of_partition
        and len(rule.operators) == len(rule.expressions)
        and set(rule.columns) <= known
        and (rule.nulls_distinct or len(_nullable(shape, rule)) <= MOST_NULLABLE)
    )


def values_of(shape: Shape, rule: UniqueRule, rows: sql.Composable) -> sql.Composed:
    """SELECT of the key and the index's values (``e0`` and so on) of the rows that are in the index."""
    values = sql.SQL(", ").join(
        # The restore's own tables do not have the collations of the table.
        sql.SQL("({}) COLLATE {} AS {}" if collation else "{0} AS {2}").format(
            sql.SQL(expression), sql.SQL(collation or ""), name
        )
        for expression, collation, name in zip(rule.expressions, rule.collations, _names(rule), strict=True)
    )
    return sql.SQL("(SELECT {}, {} FROM {} AS w WHERE {})").format(
        shape.as_op_key("w"), values, rows, sql.SQL(rule.predicate or "true")
    )


def same_values(shape: Shape, rule: UniqueRule, left: str, right: str) -> Iterator[sql.Composed]:
    """SQL: two aliases of :func:`values_of` have the same values for the index.

    If NULLs are equal for it (NULLS NOT DISTINCT), there is one condition for each set of NULLs. PostgreSQL can use an
    index or a hash for each of them, but not for all together.
    """
    nullable = [] if rule.nulls_distinct else _nullable(shape, rule)
    for count in range(len(nullable) + 1):
        for nulls in combinations(nullable, count):
            yield _same_values(rule, left, right, nulls)


def _same_values(rule: UniqueRule, left: str, right: str, nulls: Collection[int]) -> sql.Composed:
    names = _names(rule)
    compared = [number for number, _ in enumerate(names) if number not in nulls]
    given = [
        compare([sql.SQL("{}.{}").format(sql.Identifier(left), names[number])], [rule.operators[number]],
                [sql.SQL("{}.{}").format(sql.Identifier(right), names[number])])
        for number in compared
    ]  # fmt: skip
    # IS NULL can use an index, but it looks into a composite value. num_nulls does not.
    given += [
        sql.SQL("{0}.{1} IS NULL AND num_nulls({0}.{1}) = 1").format(sql.Identifier(side), names[number])
        for number in sorted(nulls)
        for side in (left, right)
    ]
    return sql.SQL(" AND ").join(given)


def held_by(
    workspace: Workspace, staged: Staged, ops: sql.Composable, changed: Collection[str]
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
             WHERE NOT ({same_key})""")
        for same in same_values(shape, rule, "a", "b"):
            found = query.format(
                wanted=values_of(shape, rule, staged.wanted),
                present=values_of(shape, rule, staged.present),
                same_values=same,
                ops=ops,
                is_a=shape.same_op_key("gets", "a"),
                is_b=shape.same_op_key("held", "b"),
                same_key=shape.same_op_key("a", "b"),
            )
            with _without_nested_loops(workspace):
                places.update(place for (place,) in workspace.as_application(found, 1, DOING))
    return places, frozenset(unknown)


@contextmanager
def _without_nested_loops(workspace: Workspace) -> Iterator[None]:
    """PostgreSQL does not know how many values are NULL, expects few, and would compare each row with each."""
    workspace.execute("SET LOCAL enable_nestloop = off", DOING)
    yield
    workspace.execute("SET LOCAL enable_nestloop TO DEFAULT", DOING)


def _names(rule: UniqueRule) -> list[sql.Identifier]:
    return [sql.Identifier(f"e{number}") for number, _ in enumerate(rule.expressions)]


def _nullable(shape: Shape, rule: UniqueRule) -> list[int]:
    """The numbers of the index's expressions that may be NULL: all but columns that may not."""
    never = {form for each in shape.now.columns if each.not_null for form in (in_sql(each.name), quoted(each.name))}
    return [number for number, expression in enumerate(rule.expressions) if expression not in never]
