"""Locks the rows of a plan while people work, and leaves those that somebody writes or holds at the same moment.

In a transaction with one snapshot, PostgreSQL refuses to lock a row that somebody has written since. So a plan of many
rows would hardly ever be applied in a clinic at work, if one such row ended it. It waits for a row that somebody holds,
while all rows that are already locked wait with it. So nothing here waits.
"""

from __future__ import annotations

from psycopg2 import sql

from clinic_backups.base.database_errors import is_taken
from clinic_backups.base.errors import TransientError
from clinic_backups.restore.diff import DELETE, INSERT, UPDATE, TableDiff, is_op
from clinic_backups.restore.workspace import Workspace

STRENGTHS = {DELETE: "FOR UPDATE", UPDATE: "FOR NO KEY UPDATE"}
"""The locks that the writing itself takes. With the weaker one, others may add rows that refer to the row."""
_TAKEN = sql.SQL("serialization_failure OR lock_not_available")
AT_ONCE = 500
"""Rows of one part. Only a part with a row that is not free is locked row by row: each costs a savepoint."""


def claim(workspace: Workspace, diff: TableDiff) -> int:
    """Lock the rows that a table's operations change or delete. Operations of rows that cannot be locked are removed.

    Returns their number.
    """
    doing = f"locking rows of {diff.name}"
    try:
        with workspace.attempt():
            for operation in STRENGTHS:
                workspace.execute(sql.SQL("SELECT {}").format(_locking(diff, operation, sql.SQL("true"))), doing)
    except TransientError as error:
        if not is_taken(error):
            raise
    else:
        return 0
    before = _count(workspace, diff)
    part, one = sql.SQL("o.ctid = ANY (part.places)"), sql.SQL("o.ctid = spot")
    body = sql.SQL("""
        DECLARE part record; spot tid;
        BEGIN
            FOR part IN SELECT array_agg(n.place) AS places
                          FROM (SELECT o.ctid AS place, (row_number() OVER () - 1) / {at_once} AS part
                                  FROM {ops} AS o WHERE NOT {is_insert}) AS n GROUP BY n.part LOOP
                BEGIN
                    {lock_part}
                EXCEPTION WHEN {taken} THEN
                    FOREACH spot IN ARRAY part.places LOOP
                        BEGIN
                            {lock_one}
                        EXCEPTION WHEN {taken} THEN
                            DELETE FROM {ops} AS o WHERE o.ctid = spot;
                        END;
                    END LOOP;
                END;
            END LOOP;
        END""").format(
        at_once=sql.Literal(AT_ONCE),
        ops=diff.ops,
        taken=_TAKEN,
        is_insert=is_op("o", INSERT),
        lock_part=_performed(diff, part),
        lock_one=_performed(diff, one),
    )
    workspace.execute(sql.SQL("DO {}").format(sql.Literal(body.as_string(workspace.connection))), doing)
    return before - _count(workspace, diff)


def _count(workspace: Workspace, diff: TableDiff) -> int:
    query = sql.SQL("SELECT count(*) FROM {}").format(diff.ops)
    return int(workspace.rows(query, None, f"counting the operations of {diff.name}")[0][0])


def _performed(diff: TableDiff, where: sql.Composable) -> sql.Composed:
    statements = [_locking(diff, operation, where) for operation in STRENGTHS]
    return sql.SQL(" ").join(sql.SQL("PERFORM {};").format(each) for each in statements)


def _locking(diff: TableDiff, operation: str, where: sql.Composable) -> sql.Composed:
    """What SELECT or PERFORM gets. The rows are only counted, so that none is sent."""
    shape = diff.staged.shape
    rows = "SELECT FROM {ops} AS o JOIN {table} AS t ON {same} WHERE {is_op} AND {where} {strength} OF t NOWAIT"
    return sql.SQL(f"count(*) FROM ({rows}) AS locked").format(
        ops=diff.ops, table=shape.in_sql, same=shape.is_of("o", "t"), is_op=is_op("o", operation), where=where,
        strength=sql.SQL(STRENGTHS[operation]),
    )  # fmt: skip
