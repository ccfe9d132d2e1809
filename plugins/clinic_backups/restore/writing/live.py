"""The mode ``live``: changes that people made since the plan are kept."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

from psycopg2 import sql

from clinic_backups.restore.diff import TableDiff, described
from clinic_backups.restore.table_rules import Reference
from clinic_backups.restore.workspace import Workspace, columns_of, row_text
from clinic_backups.restore.writing.claim import claim

Moment = Mapping[str, Any]
"""``snapshot``: that of the plan, as ``pg_current_snapshot`` gives it. ``operations``: by table, ``digests`` of its
operations, 8 bytes each, in base64; and the number of ``groups`` if each digest is that of a group of operations. Plain
JSON types."""

MOST_DIGESTS = 65_536
"""The most digests that a plan holds: 700 kB, for 500,000 operations as well. Each one is of about 8 of them then."""
ALONE = 256
"""Up to this number, each operation of a table has its own digest, even if the plan has more digests then."""


def moment_of(workspace: Workspace, diffs: Mapping[str, TableDiff], converted: Collection[str]) -> dict[str, Any]:
    """The facts about the plan's moment that :func:`leave_changed` needs.

    :param converted: tables whose values are converted. Then the digests include the values.
    """
    ((snapshot,),) = workspace.rows("SELECT pg_current_snapshot()::text", None, "asking for the snapshot")
    counts = {name: diff.plan.writes for name, diff in diffs.items() if diff.plan.writes and diff.staged.shape.key}
    operations = {}
    for name, count in counts.items():
        share = max(ALONE, MOST_DIGESTS * count // sum(counts.values()))
        groups = None if count <= share else share
        query = sql.SQL("""
            {} SELECT translate(encode(string_agg(g.digest, ''::bytea ORDER BY g.digest), 'base64'), E'\\n', '')
                 FROM groups AS g""").format(_groups(diffs[name], groups, values=name in converted))
        ((digests,),) = workspace.rows(query, None, f"computing digests of the operations of {name}")
        operations[name] = {"groups": groups, "digests": str(digests)}
    return {"snapshot": str(snapshot), "operations": operations}


def digest_of_moment(moment: Moment) -> str:
    """SHA-256, in hex."""
    return hashlib.sha256(json.dumps(moment, sort_keys=True).encode()).hexdigest()


def leave_changed(
    workspace: Workspace,
    diff: TableDiff,
    moment: Moment,
    planned: str | None,
    references: Sequence[Reference] = (),
    *,
    converted: bool = False,
) -> tuple[TableDiff, int]:
    """Remove the operations that the plan does not have from a table's operations; returns their number.

    So what is applied is less than the plan or equal, for whatever reason the operations are others now: a row may have
    become the clinic's because another row changed, or because a view that an extract reads did. The plan's digests
    show that. If one operation of a group is missing or new, the whole group is left out.

    A row that was written since the plan is left out too. Its transaction is not older than the oldest one that was
    open when the plan was made. The other rows are locked. One that somebody writes at this moment is left out as well.

    :param planned: the digest that the table's operations had in the plan.
    :param converted: the table's values are converted.
    """
    if not diff.plan.writes:
        return diff, 0
    shape, left, is_planned = diff.staged.shape, 0, diff.digest == planned
    if shape.key:
        if not is_planned:
            # First, because it needs all operations of a group.
            left = _leave_unplanned(workspace, diff, moment, values=converted)
            left += _leave_written(workspace, diff, str(moment["snapshot"]))
        left += claim(workspace, diff)
    elif not is_planned:
        left = workspace.execute(sql.SQL("DELETE FROM {}").format(diff.ops), f"leaving {shape.name}")
    workspace.seals.wrote(diff.ops_table, deleted=left)
    return (again(workspace, diff, references) if left else diff), left


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


def _leave_unplanned(workspace: Workspace, diff: TableDiff, moment: Moment, *, values: bool) -> int:
    """Remove operations whose digest the plan does not have."""
    # NOT IN is hashed. For NOT EXISTS the planner, which does not know the numbers, would compare each with each.
    planned = moment.get("operations", {}).get(diff.name, {"groups": None, "digests": ""})
    statement = sql.SQL("""
        {groups},
             planned AS (
                 SELECT substr(d.bytes, 8 * n + 1, 8) AS digest
                   FROM (SELECT decode({digests}, 'base64') AS bytes OFFSET 0) AS d
                  CROSS JOIN generate_series(0, length(d.bytes) / 8 - 1) AS n)
        DELETE FROM {ops} AS x WHERE x.ctid IN (
            SELECT unnest(g.places) FROM groups AS g
             WHERE g.digest NOT IN (SELECT p.digest FROM planned AS p))""").format(
        groups=_groups(diff, planned["groups"], values=values),
        digests=sql.Literal(planned["digests"]),
        ops=diff.ops,
    )
    return workspace.execute(statement, f"leaving rows of {diff.name} that are not in the plan")


def _groups(diff: TableDiff, groups: int | None, *, values: bool) -> sql.Composed:
    """WITH ``groups``: the digest of each group of operations, and the places of these in ``ops``.

    :param groups: how many groups there are; none: each operation is one.
    :param values: the digests include the values that are written.
    """
    shape = diff.staged.shape
    said = sql.SQL("ROW(o.op, {}, o.present_hash)::text").format(columns_of(shape.op_key, "o"))
    joined = sql.Composed([])
    if values:
        said += sql.SQL(" || {}").format(row_text(shape.columns, "w"))
        joined += sql.SQL("LEFT JOIN {} AS w ON o.op <> 'delete' AND {}").format(diff.staged.wanted, diff.joins("w"))
    part: sql.Composable = sql.SQL("o.ctid")
    if groups is not None:
        # By the key alone: a row that changed since the plan stays in its group, and spoils no other one.
        hashed = sql.SQL("sha256(convert_to(ROW({})::text, 'UTF8'))").format(columns_of(shape.op_key, "o"))
        part = sql.SQL("mod((get_byte({0}, 0) * 256 + get_byte({0}, 1)) * 256 + get_byte({0}, 2), {1})").format(
            hashed, sql.Literal(groups)
        )
    return sql.SQL("""
        WITH lines AS (SELECT o.ctid AS place, {part} AS part, sha256(convert_to({said}, 'UTF8')) AS line
                         FROM {ops} AS o {joined}),
             groups AS (SELECT substr(sha256(string_agg(l.line, ''::bytea ORDER BY l.line)), 1, 8) AS digest,
                               array_agg(l.place) AS places FROM lines AS l GROUP BY l.part)""").format(
        part=part, said=said, ops=diff.ops, joined=joined
    )
