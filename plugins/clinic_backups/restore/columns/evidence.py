"""Evidence that a migration kept a column's values when it changed the type: the rows that both sides have."""

from __future__ import annotations

from typing import Literal, NamedTuple

from psycopg2 import sql

from clinic_backups.restore.columns.conversion import Conversion, filled, is_same_family
from clinic_backups.restore.staging import Staged
from clinic_backups.restore.workspace import Workspace, equal_texts, row_text

_KEPT_BY_ALL = "^(-?0*([.]0*)?|-?infinity|nan|00:00:00|[{][}]|[[][]]|empty)$"
"""Values that stay the same when a migration multiplies, shifts or rewrites all values: zero, infinity, nothing.

It has no backslash, which means something else where a role sets ``standard_conforming_strings``.
"""

Doubt = Literal["", "unshown", "refused"]
"""Whether a migration kept a column's values: nothing is against it; nothing shows it; it may have changed them."""


class Evidence(NamedTuple):
    """How the present values compare with those that a conversion gives.

    :param unlike: the number of different values of the backup that are mostly other ones now.
    :param values: how many different values could be compared.
    :param unlike_rows: the number of rows with another value.
    :param rows: how many rows were compared.
    """

    unlike: int
    values: int
    unlike_rows: int
    rows: int


def compare_values(workspace: Workspace, staged: Staged, name: str, conversion: Conversion) -> Evidence:
    """Compare the present values with those that the conversion gives.

    Only rows that both sides have and whose other columns equal the backup's are compared, because only the change of
    the type can have touched them. If there are none, all rows are compared. Each value counts once, however many rows
    have it. Some values prove nothing, see :data:`_KEPT_BY_ALL`. Nor does a NULL. A key whose type has changed is
    compared by its texts.
    """
    shape, column = staged.shape, sql.Identifier(name)
    if not shape.key or set(shape.key) & {key.name for key in shape.computed}:
        return Evidence(0, 0, 0, 0)
    others = [other for other in shape.columns if other not in shape.retyped]
    if set(shape.key) & set(shape.retyped):
        same = sql.SQL(" AND ").join(equal_texts(key, "w", "p") for key in shape.key)
    else:
        same = shape.same_key("w", "p")
    query = sql.SQL(
        "SELECT count(*) FILTER (WHERE 2 * unlike > rows), count(*), COALESCE(sum(unlike), 0), COALESCE(sum(rows), 0)"
        " FROM (SELECT count(*) FILTER (WHERE concat({}) <> concat(p.{})) AS unlike, count(*) AS rows"
        " FROM {} AS w JOIN {} AS p ON {} WHERE concat(w.{}) !~* {} AND ({}) GROUP BY concat(w.{})) AS v"
    )

    def counted(which: sql.Composable) -> Evidence:
        statement = query.format(
            filled(conversion.there, sql.SQL("w.{}").format(column)), column,
            staged.wanted, staged.present, same, column, sql.Literal(_KEPT_BY_ALL), which, column,
        )  # fmt: skip
        (numbers,) = workspace.as_application(statement, 4, f"comparing values of {shape.name}.{name}")
        return Evidence(*map(int, numbers))

    found = counted(sql.SQL("{} = {}").format(row_text(others, "w"), row_text(others, "p")))
    if found.values:
        return found
    # People have changed these rows. Equal values are evidence for the conversion; different ones prove nothing.
    found = counted(sql.SQL("true"))
    return Evidence(0, found.values - found.unlike, 0, found.rows - found.unlike_rows)


def doubt(workspace: Workspace, staged: Staged, name: str, found: Evidence) -> Doubt:
    """Whether the change of the type may have made other values than this conversion gives.

    It may if half of the compared values are other ones, or more than half if only a length or a precision has changed.

    If there is no value to compare, it may, unless the column has no values. If the table's file is another one, all
    rows were written anew. If it is the same, PostgreSQL changed the type in place, as it does to give a column more
    room. But a migration may have changed values afterwards, so the plan says that nothing shows it. It says the same
    if nobody knows the file, and only a length or a precision has changed. It says nothing of a type with the same name
    if nothing tells it from the one of before: each restore into another database would say so.
    """
    shape = staged.shape
    same_family = is_same_family(shape, name)
    if found.values:
        other = 2 * found.unlike > found.values or (2 * found.unlike == found.values and not same_family)
        return "refused" if other else ""
    column = sql.Identifier(name)
    query = sql.SQL("SELECT EXISTS (SELECT FROM {} WHERE {} IS NOT NULL AND ({} OR concat({}) !~* {}))").format(
        staged.wanted, column, sql.Literal(not same_family), column, sql.Literal(_KEPT_BY_ALL)
    )
    ((has_values,),) = workspace.rows(query, None, f"looking at {shape.name}.{name}")
    if not has_values:
        return ""
    if shape.rewritten is None and same_family and not shape.namesakes.get(name, True):
        return ""
    if shape.rewritten is None:
        return "unshown" if same_family else "refused"
    return "refused" if shape.rewritten else "unshown"
