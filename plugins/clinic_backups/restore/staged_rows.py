"""Rows of a table by where they lie."""

from __future__ import annotations

from psycopg2 import sql

from clinic_backups.restore.shape import Shape
from clinic_backups.restore.workspace import Workspace, qualified
from clinic_backups.tenant.outside import Outside


def from_table(shape: Shape) -> sql.Composable:
    """The table without those that inherit from it."""
    only = sql.SQL("ONLY ") if shape.rules.children else sql.SQL("")
    return only + qualified(shape.name)


def places(workspace: Workspace, rows: sql.Composable, doing: str) -> Outside:
    """Where rows lie. :param rows: SELECT of ``part``, ``place`` and ``changed``."""
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
