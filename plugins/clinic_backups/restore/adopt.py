"""Rows of the clinic whose way to it was nulled: they are in the database still, and in nobody's backup."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from psycopg2 import sql

from clinic_backups.restore.rules import Reference, with_child
from clinic_backups.restore.staging import Staged
from clinic_backups.restore.workspace import Workspace, columns_of, qualified


def adopt(workspace: Workspace, staged: Staged, references: Sequence[Reference], tenant_tables: Collection[str]) -> int:
    """Take a table's orphans for rows that the clinic has now, so that they are updated; returns how many.

    ON DELETE SET NULL leaves rows behind when their parent is deleted. Such a row has a key of the backup, and each of
    its foreign keys to clinics' tables is NULL or as in the backup: it leads nowhere else, so it is nobody else's.

    :param tenant_tables: the tables that have an extract.
    """
    shape = staged.shape
    ways = [reference for reference in with_child(references, shape.name) if reference.parent in tenant_tables]
    columns = sorted({name for way in ways for name in way.columns})
    if not columns or not shape.key:
        return 0
    nowhere_else = sql.SQL(" AND ").join(
        sql.SQL("(t.{0} IS NULL OR t.{0}::text = w.{0}::text)" if name in shape.columns else "t.{0} IS NULL").format(
            sql.Identifier(name)
        )
        for name in columns
    )
    statement = sql.SQL("""
        INSERT INTO {present} ({columns})
        SELECT {values} FROM {wanted} AS w JOIN {table} AS t ON {same}
         WHERE {nowhere_else} AND NOT EXISTS (SELECT FROM {present} AS p WHERE {there})""").format(
        present=staged.present,
        columns=columns_of(shape.columns),
        values=columns_of(shape.columns, "t"),
        wanted=staged.wanted,
        table=qualified(shape.name),
        same=shape.same_key("w", "t"),
        nowhere_else=nowhere_else,
        there=shape.same_key("p", "w"),
    )
    return workspace.execute(statement, f"looking for rows of {shape.name} that lost their clinic")
