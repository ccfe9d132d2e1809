"""Checks whether a unique index can identify a backup's rows. The index may be newer than the backup."""

from __future__ import annotations

from collections.abc import Iterator

from psycopg2 import sql

from clinic_backups.restore.model import Refusal
from clinic_backups.restore.staging import Staged
from clinic_backups.restore.workspace import Workspace, columns_of
from clinic_backups.tenant.drift import FILE, filled_column


def refusals(workspace: Workspace, staged: Staged) -> Iterator[Refusal]:
    """Refusals for rows with equal values in the index, and for rows without a value in one of its columns."""
    shape = staged.shape
    if shape.now.primary_key or not shape.key:
        return
    looking = f"looking at the keys of {shape.name}"
    for name in shape.key:
        empty = sql.SQL("SELECT count(*) FROM {} AS w WHERE w.{} IS NULL").format(staged.wanted, sql.Identifier(name))
        ((count,),) = workspace.rows(empty, None, looking)
        if count:
            rows = f"{count:,} row{'s' if count != 1 else ''} of the backup"
            yield Refusal(
                shape.name,
                f"Column {name} of {shape.name} may no longer be NULL, but is in {rows}.",
                f"If a migration gave the rows a value, add it to include/sql/{FILE}:"
                f" `{filled_column(shape.name, name, '…')}`. Otherwise: ALTER TABLE {shape.name} ALTER COLUMN {name}"
                f" DROP NOT NULL for the time of the restore; or restore without {shape.name}.",
            )
            return
    groups = sql.SQL("SELECT count(*) AS rows FROM {} AS w GROUP BY {} HAVING count(*) > 1").format(
        staged.wanted, columns_of(shape.key, "w")
    )
    query = sql.SQL("SELECT COALESCE(sum(g.rows), 0) FROM ({}) AS g").format(groups)
    ((equal,),) = workspace.rows(query, None, looking)
    if equal:
        columns = ", ".join(shape.key)
        yield Refusal(
            shape.name,
            f"{equal:,} rows of the backup have the same {columns} in {shape.name} as another row of it, and a unique"
            " index forbids that now.",
            f"Drop the unique index on ({columns}) for the time of the restore, or restore without {shape.name}.",
        )
