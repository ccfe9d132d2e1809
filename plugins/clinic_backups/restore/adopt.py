"""Rows of the clinic whose way to it was nulled: they are in the database still, and in nobody's backup."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from psycopg2 import sql

from clinic_backups.restore.model import Refusal
from clinic_backups.restore.rules import Reference, with_child
from clinic_backups.restore.staging import Staged
from clinic_backups.restore.workspace import Workspace, columns_of, qualified, row_text


def adopt(
    workspace: Workspace, staged: Staged, references: Sequence[Reference], tenant_tables: Collection[str]
) -> int | Refusal:
    """Take a table's orphans for rows that the clinic has now, so that they are updated; returns how many.

    ON DELETE SET NULL leaves rows behind when their parent is deleted. Such a row is as the backup has it, but for
    foreign keys to clinics' tables that are NULL now. A row that was changed besides may be another clinic's by now,
    and no extract would give it to the safety backup: it is not taken, and its key is a refusal. Without a key such
    rows are taken by their other values, for rows that are missing; where there are more of them than rows are missing,
    some are somebody else's, and which cannot be told: that is a refusal.

    :param tenant_tables: the tables that have an extract.
    """
    shape = staged.shape
    ways = [reference for reference in with_child(references, shape.name) if reference.parent in tenant_tables]
    columns = sorted({name for way in ways for name in way.columns})
    if not columns or not set(columns) <= set(shape.columns):
        return 0
    if not shape.key:
        return _adopt_by_values(workspace, staged, columns)
    nulled = [sql.SQL("t.{0} IS NULL OR t.{0}::text = w.{0}::text").format(sql.Identifier(name)) for name in columns]
    rest = [name for name in shape.columns if name not in columns]
    unchanged = sql.SQL(" AND ").join(
        [sql.SQL("({})").format(condition) for condition in nulled]
        + [sql.SQL("{} = {}").format(row_text(rest, "t"), row_text(rest, "w"))]
    )
    statement = sql.SQL("""
        INSERT INTO {present} ({columns})
        SELECT {values} FROM {wanted} AS w JOIN {table} AS t ON {same}
         WHERE {unchanged} AND NOT EXISTS (SELECT FROM {present} AS p WHERE {there})""").format(
        present=staged.present,
        columns=columns_of(shape.columns),
        values=columns_of(shape.columns, "t"),
        wanted=staged.wanted,
        table=qualified(shape.name),
        same=shape.same_key("w", "t"),
        unchanged=unchanged,
        there=shape.same_key("p", "w"),
    )
    return workspace.execute(statement, f"looking for rows of {shape.name} that lost their clinic")


def _adopt_by_values(workspace: Workspace, staged: Staged, ways: Sequence[str]) -> int | Refusal:
    """Rows without a key that are like missing ones, but for a way that is NULL."""
    shape = staged.shape
    rest = [name for name in shape.columns if name not in ways]
    lost = sql.SQL(", ").join(sql.Identifier("t", name) for name in ways)
    nulled = sql.SQL(" AND ").join(
        sql.SQL("(t.{0} IS NULL OR t.{0}::text = w.{0}::text)").format(sql.Identifier(name)) for name in ways
    )
    # Of rows that are alike as many are missing as the backup has more of than the clinic.
    missing = sql.SQL("""
        SELECT x.place FROM (SELECT w.ctid AS place, {wanted_text} AS row_text,
                                    row_number() OVER (PARTITION BY {wanted_text}) AS number FROM {wanted} AS w) AS x
          LEFT JOIN (SELECT {present_text} AS row_text, count(*) AS times FROM {present} AS p GROUP BY 1) AS y
            ON y.row_text = x.row_text
         WHERE x.number > COALESCE(y.times, 0)""").format(
        wanted_text=row_text(shape.columns, "w"),
        present_text=row_text(shape.columns, "p"),
        wanted=staged.wanted,
        present=staged.present,
    )
    alike = sql.SQL("""
        FROM {wanted} AS w JOIN ({missing}) AS m ON m.place = w.ctid
        JOIN {table} AS t ON num_nulls({lost}) > num_nulls({had}) AND {nulled} AND {rest_then} = {rest_now}""").format(
        wanted=staged.wanted,
        missing=missing,
        table=qualified(shape.name),
        lost=lost,
        had=sql.SQL(", ").join(sql.Identifier("w", name) for name in ways),
        nulled=nulled,
        rest_then=row_text(rest, "w"),
        rest_now=row_text(rest, "t"),
    )
    ((rows, found),) = workspace.rows(
        sql.SQL("SELECT count(DISTINCT w.ctid), count(DISTINCT (t.tableoid, t.ctid)) {}").format(alike),
        None,
        f"looking for rows of {shape.name} that lost their clinic",
    )
    if not found:
        return 0
    if found > rows:
        return Refusal(
            shape.name,
            f"{found:,} rows of {shape.name} have lost their way to a clinic ({', '.join(ways)} is NULL) and are like"
            f" {rows:,} rows of the backup that are missing: which of them are this clinic's cannot be told, for the"
            " table has no primary key.",
            f"Delete the rows of {shape.name} that are this clinic's, or restore without this table.",
        )
    statement = sql.SQL(
        "INSERT INTO {} ({}) SELECT {} FROM {} AS t WHERE (t.tableoid, t.ctid) IN (SELECT t.tableoid, t.ctid {})"
    ).format(
        staged.present, columns_of(shape.columns), columns_of(shape.columns, "t"), qualified(shape.name), alike
    )  # fmt: skip
    return workspace.execute(statement, f"looking for rows of {shape.name} that lost their clinic")
