"""Handles rows of a table by their positions."""

from __future__ import annotations

from psycopg2 import sql

from clinic_backups.restore.staging import Staged
from clinic_backups.restore.workspace import Workspace, columns_of
from clinic_backups.tenant.outside import Outside


def load(workspace: Workspace, staged: Staged, found: Outside) -> None:
    """Add found rows to the clinic's present rows."""
    if not found.rows:
        return
    shape = staged.shape
    # The keys of the other rows were computed when these were loaded.
    columns = [*shape.columns, *(column.name for column in shape.computed)]
    statement = sql.SQL("INSERT INTO {} ({}) {}").format(
        staged.present, columns_of(columns), sql.SQL(found.select(shape.name, columns))
    )
    workspace.seals.require(staged.present)
    count = workspace.execute(statement, f"loading rows of {shape.name} that no extract gives")
    workspace.seals.wrote(staged.present, inserted=count)
    workspace.seals.keep(staged.present)
    workspace.analyze(f"analyzing {shape.name}", (staged.present, shape.key))


def places(workspace: Workspace, rows: sql.Composable, doing: str) -> Outside:
    """The positions of rows. :param rows: SELECT of ``part``, ``place`` and ``changed``."""
    query = sql.SQL(
        "SELECT a.part::bigint, count(*), count(*) FILTER (WHERE a.changed), array_agg(a.place)::text"
        " FROM ({}) AS a GROUP BY 1"
    ).format(rows)
    found = workspace.rows(query, None, doing)
    return Outside(
        sum(int(count) for _, count, _, _ in found),
        sum(int(changed) for _, _, changed, _ in found),
        tuple((int(part), str(where)) for part, _, _, where in found),
    )
