"""Checks whether a key can identify a backup's rows. The key, or a type in it, may be newer than the backup."""

from __future__ import annotations

from collections.abc import Iterator

from psycopg2 import sql

from clinic_backups.base.text import in_sql, table_in_sql
from clinic_backups.restore.columns.shape import Shape
from clinic_backups.restore.plan import Refusal
from clinic_backups.restore.staging import Staged
from clinic_backups.restore.workspace import Workspace, columns_of
from clinic_backups.tenant.drift import FILE, filled_column


def refusals(workspace: Workspace, staged: Staged) -> Iterator[Refusal]:
    """Refusals for rows with equal values in the key, and for rows without a value in one of its columns."""
    shape = staged.shape
    if not shape.key or not shape.has_another_key:
        return
    looking = f"looking at the keys of {shape.name}"
    for name in shape.key if not shape.now.primary_key else ():  # the rehearsal finds a NULL in a primary key
        empty = sql.SQL("SELECT count(*) FROM {} AS w WHERE w.{} IS NULL").format(staged.wanted, sql.Identifier(name))
        ((count,),) = workspace.rows(empty, None, looking)
        if count:
            rows = f"{count:,} row{'s' if count != 1 else ''} of the backup"
            yield Refusal(
                shape.name,
                f"Column {name} of {shape.name} may no longer be NULL, but is in {rows}.",
                f"If a migration gave the rows a value, add it to include/sql/{FILE}:"
                f" `{filled_column(shape.name, name, '…')}`. Otherwise: ALTER TABLE {table_in_sql(shape.name)} ALTER"
                f" COLUMN {in_sql(name)} DROP NOT NULL for the time of the restore; or restore without {shape.name}.",
            )
            return
    groups = sql.SQL("SELECT count(*) AS rows FROM {} AS w GROUP BY {} HAVING count(*) > 1").format(
        staged.wanted, columns_of(shape.key, "w")
    )
    query = sql.SQL("SELECT COALESCE(sum(g.rows), 0) FROM ({}) AS g").format(groups)
    ((equal,),) = workspace.rows(query, None, looking)
    if equal:
        yield _equal(shape, int(equal))


def _equal(shape: Shape, equal: int) -> Refusal:
    columns, then = ", ".join(shape.key), ", ".join(shape.then.primary_key)
    same = f"{equal:,} rows of the backup have the same {columns} in {shape.name} as another row of it"
    if shape.now.primary_key:
        was = f"the primary key ({then})" if then else "no primary key"
        if shape.now.primary_key == shape.then.primary_key:
            was += ", but with another type or collation"
        return Refusal(
            shape.name,
            f"{same}, but ({columns}) is the primary key now. In the backup the table has {was}.",
            f"Give {shape.name} the key of the backup for the time of the restore, or restore without {shape.name}.",
        )
    return Refusal(
        shape.name,
        f"{same}, and a unique index forbids that now.",
        f"Drop the unique index on ({columns}) for the time of the restore, or restore without {shape.name}.",
    )
