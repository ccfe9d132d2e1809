"""Evaluates SQL of the application for rows as a trigger sees them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from psycopg2 import sql

from clinic_backups.base.database_errors import refusal_of
from clinic_backups.base.errors import PermanentError, TransientError
from clinic_backups.restore.sequences.number_calls import calls
from clinic_backups.restore.workspace import Workspace
from clinic_backups.tenant.sql_tokens import tokens

_CANCELED = "57014"
PROBE_SECONDS, ROWS_SECONDS = 5, 60
"""How long an expression out of a text may be evaluated: for a few numbers, and for all rows of a table."""


def asked(
    workspace: Workspace, query: sql.Composed, columns: int = 1, *, seconds: int | None = None
) -> list[tuple[Any, ...]] | None:
    """The result of the application's own SQL. Its effects are rolled back, except for numbers taken.

    None: it fails, or it takes longer than so many seconds.

    :param columns: the number of columns of the query.
    """
    try:
        with workspace.savepoint():
            if seconds is not None:
                _limit(workspace, seconds)
            return workspace.as_application(query, columns, "asking how a sequence's numbers become values")
    except PermanentError:
        return None
    except TransientError as error:
        refused = refusal_of(error)
        if seconds is None or refused is None or refused.state != _CANCELED:
            raise
        return None


def _limit(workspace: Workspace, seconds: int) -> None:
    workspace.rows(
        "SELECT set_config(name, least(NULLIF(setting::bigint, 0), %(most)s)::text, true) FROM pg_settings"
        " WHERE name = 'statement_timeout'",
        {"most": seconds * 1000},
        "limiting the time of an expression",
    )


def row_of(expression: str) -> tuple[str, ...]:
    """The columns of the row NEW that an expression reads."""
    found = list(tokens(expression))
    return tuple(
        dict.fromkeys(
            name.value
            for new, dot, name in zip(found, found[1:], found[2:], strict=False)
            if new.is_("new") and dot.is_(".") and name.is_name
        )
    )


def new_row(columns: Sequence[str], own: str, type_: str) -> sql.Composed:
    """SELECT of a row ``x`` as a trigger sees it: its own column has no value yet."""
    names = [sql.Identifier("x", name) for name in columns if name != own]
    nothing = sql.SQL("NULL::{} AS {}").format(sql.SQL(type_), sql.Identifier(own))
    return sql.SQL("SELECT {}").format(sql.SQL(", ").join([*names, nothing]))


def names_of(workspace: Workspace, named: str, column: str, type_: str, rows: sql.Composable) -> list[str] | None:
    """The names that are made at run time. None: they cannot be told.

    :param rows: the rows to evaluate, if the name is made of the row.
    """
    if calls(named):
        return None  # it would take a number
    row = row_of(named)
    source: sql.Composable = sql.SQL("(SELECT 1) AS one")
    if row:
        source = sql.SQL("{} AS x CROSS JOIN LATERAL ({}) AS new").format(rows, new_row(row, column, type_))
    query = sql.SQL("SELECT DISTINCT ({})::text FROM {}").format(sql.SQL(named), source)
    found = asked(workspace, query, seconds=ROWS_SECONDS)
    return None if found is None else [str(name) for (name,) in found if name is not None]


def rows_named(rows: sql.Composable, named: str, column: str, type_: str, names: Sequence[str]) -> sql.Composable:
    """Those of the rows whose sequence has one of these names."""
    row = row_of(named)
    if not row:
        return rows
    return sql.SQL("(SELECT x.* FROM {} AS x CROSS JOIN LATERAL ({}) AS new WHERE ({})::text IN ({}))").format(
        rows, new_row(row, column, type_), sql.SQL(named), sql.SQL(", ").join(map(sql.Literal, names))
    )
