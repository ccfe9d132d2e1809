"""Rows whose unique values stand in each other's way, and that may not be deleted, first give these values up."""

from __future__ import annotations

from psycopg2 import sql

from clinic_backups.model import Column
from clinic_backups.restore.diff import TableDiff
from clinic_backups.restore.workspace import Workspace, qualified

_NUMBERS = ("smallint", "integer", "bigint")


def park(workspace: Workspace, diff: TableDiff) -> int:
    """Give the rows that move values which nobody has; returns how many rows.

    NULL where the column takes it, else a value made up: a text, a number below all others, a uuid. Where none can be
    made up the columns stay, and PostgreSQL says what it thinks of the update that follows.
    """
    shape = diff.staged.shape
    changed = set(diff.plan.columns) & shape.rules.immediate_columns
    columns = [column for column in shape.now.stored_columns if column.name in changed]
    values = {column.name: value for column in columns if (value := _made_up(diff, column)) is not None}
    if not values:
        values = {column.name: sql.Identifier("t", column.name) for column in columns[:1]}
    if not values:
        return 0
    statement = sql.SQL("UPDATE {} AS t SET {} FROM (SELECT {}, row_number() OVER () AS number FROM {} AS o"
                        " WHERE moves) AS o WHERE {}").format(
        qualified(shape.name),
        sql.SQL(", ").join(
            sql.SQL("{} = {}").format(sql.Identifier(name), value) for name, value in values.items()
        ),
        sql.SQL(", ").join(sql.Identifier("o", name) for name in shape.key),
        diff.ops,
        shape.same_key("o", "t"),
    )  # fmt: skip
    return workspace.execute(statement, f"moving rows of {shape.name} out of each other's way")


def _made_up(diff: TableDiff, column: Column) -> sql.Composable | None:
    name, _, length = column.type.partition("(")
    if not column.not_null:
        return sql.SQL("NULL")
    if name in ("text", "character varying", "character"):
        longest = sql.SQL(length.rstrip(")") or "32")
        return sql.SQL("left(md5(random()::text || o.number), {})").format(longest)
    if name in _NUMBERS:
        return sql.SQL("(SELECT LEAST(min({}), 0) FROM {}) - o.number::{}").format(
            sql.Identifier(column.name), qualified(diff.name), sql.SQL(name)
        )
    return sql.SQL("gen_random_uuid()") if name == "uuid" else None
