"""Rows of the clinic whose way to it was nulled: they are in the database still, and in nobody's backup."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from psycopg2 import sql

from clinic_backups.restore.rules import Reference, with_child
from clinic_backups.restore.staging import Staged
from clinic_backups.restore.workspace import Workspace, columns_of, qualified, row_text


def adopt(workspace: Workspace, staged: Staged, references: Sequence[Reference], tenant_tables: Collection[str]) -> int:
    """Take a table's orphans for rows that the clinic has now, so that they are updated; returns how many.

    ON DELETE SET NULL leaves rows behind when their parent is deleted. Such a row is as the backup has it, but for
    foreign keys to clinics' tables that are NULL now. A row that was changed besides may be another clinic's by now,
    and no extract would give it to the safety backup: it is not taken, and its key is a refusal.

    :param tenant_tables: the tables that have an extract.
    """
    shape = staged.shape
    ways = [reference for reference in with_child(references, shape.name) if reference.parent in tenant_tables]
    columns = sorted({name for way in ways for name in way.columns})
    if not columns or not shape.key or not set(columns) <= set(shape.columns):
        return 0
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
