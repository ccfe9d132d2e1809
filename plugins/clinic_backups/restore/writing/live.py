"""The mode ``live``: changes that people made since the plan are kept."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from psycopg2 import sql

from clinic_backups.restore.diff import TableDiff, described
from clinic_backups.restore.table_rules import Reference
from clinic_backups.restore.workspace import Workspace, columns_of

Moment = Mapping[str, Any]
"""``snapshot``: that of the plan, as ``pg_current_snapshot`` gives it. ``inserts``: by table, digests of the keys of
rows to insert, in up to 256 groups. Plain JSON types."""


def moment_of(workspace: Workspace, diffs: Mapping[str, TableDiff]) -> dict[str, Any]:
    """The facts about the plan's moment that :func:`leave_changed` needs."""
    ((snapshot,),) = workspace.rows("SELECT pg_current_snapshot()::text", None, "asking for the snapshot")
    inserts = {
        name: _groups(workspace, diff) for name, diff in diffs.items() if diff.plan.insert and diff.staged.shape.key
    }
    return {"snapshot": str(snapshot), "inserts": inserts}


def digest_of_moment(moment: Moment) -> str:
    """SHA-256, in hex."""
    return hashlib.sha256(json.dumps(moment, sort_keys=True).encode()).hexdigest()


def leave_changed(
    workspace: Workspace,
    diff: TableDiff,
    moment: Moment,
    planned: str | None,
    references: Sequence[Reference] = (),
) -> tuple[TableDiff, int]:
    """Remove the rows that changed since the plan from a table's operations; returns their number.

    A row counts as changed if its transaction is not older than the oldest one that was open when the plan was made. A
    row to insert counts as changed if its group of keys differs from the plan's, because it may have been deleted
    since.

    :param planned: the digest that the table's operations had in the plan.
    """
    if not diff.plan.writes or diff.digest == planned:
        return diff, 0
    shape = diff.staged.shape
    if not shape.key:
        left = workspace.execute(sql.SQL("DELETE FROM {}").format(diff.ops), f"leaving {shape.name}")
    else:
        left = _leave_written(workspace, diff, str(moment["snapshot"])) + _leave_groups(workspace, diff, moment)
    return again(workspace, diff, references), left


def again(workspace: Workspace, diff: TableDiff, references: Sequence[Reference]) -> TableDiff:
    """The remaining operations of a table, counted."""
    in_backup = diff.plan.insert + diff.plan.update + diff.plan.unchanged
    now = described(workspace, diff.staged, diff.ops, in_backup, references)
    return replace(now, plan=replace(now.plan, unchanged=diff.plan.unchanged))


def _leave_written(workspace: Workspace, diff: TableDiff, snapshot: str) -> int:
    """Remove rows that were written since the plan."""
    shape = diff.staged.shape
    statement = sql.SQL("""
        DELETE FROM {ops} AS x WHERE x.ctid IN (
            SELECT o.ctid FROM {ops} AS o JOIN {table} AS t ON {same} WHERE o.op <> 'insert' AND {is_new})""").format(
        ops=diff.ops,
        table=shape.in_sql,
        same=shape.is_of("o", "t"),
        is_new=written_since(snapshot, "t"),
    )
    return workspace.execute(statement, f"leaving changed rows of {shape.name}")


def written_since(snapshot: str, alias: str) -> sql.Composed:
    """A condition: the row's transaction is not older than the oldest one that was open in a snapshot.

    ``xmin`` holds the low 32 bits of its number.
    """
    return sql.SQL("""
        (SELECT b.last - ((b.last - {xmin}::text::bigint) & 4294967295) >= b.first
           FROM (SELECT pg_snapshot_xmin({snapshot}::pg_snapshot)::text::bigint AS first,
                        pg_snapshot_xmax(pg_current_snapshot())::text::bigint - 1 AS last) AS b)""").format(
        xmin=sql.Identifier(alias, "xmin"), snapshot=sql.Literal(snapshot)
    )


def _leave_groups(workspace: Workspace, diff: TableDiff, moment: Moment) -> int:
    name, planned = diff.name, moment["inserts"].get(diff.name, {})
    changed = [int(group) for group, digest in _groups(workspace, diff).items() if planned.get(group) != digest]
    if not changed:
        return 0
    statement = sql.SQL("DELETE FROM {} AS o WHERE o.op = 'insert' AND {} IN ({})").format(
        diff.ops, _group(diff), sql.SQL(", ").join(map(sql.Literal, changed))
    )
    return workspace.execute(statement, f"leaving rows of {name}")


def _groups(workspace: Workspace, diff: TableDiff) -> dict[str, str]:
    """The digest of each group of keys of the rows to insert."""
    query = sql.SQL("""
        SELECT {group}, left(encode(sha256(string_agg({key}, ''::bytea ORDER BY {key})), 'hex'), 16)
          FROM {ops} AS o WHERE o.op = 'insert' GROUP BY 1""").format(group=_group(diff), key=_key(diff), ops=diff.ops)
    return {str(group): str(digest) for group, digest in workspace.rows(query, None, f"grouping keys of {diff.name}")}


def _key(diff: TableDiff) -> sql.Composed:
    return sql.SQL("sha256(convert_to(ROW({})::text, 'UTF8'))").format(columns_of(diff.staged.shape.op_key, "o"))


def _group(diff: TableDiff) -> sql.Composed:
    return sql.SQL("get_byte({}, 0)").format(_key(diff))
