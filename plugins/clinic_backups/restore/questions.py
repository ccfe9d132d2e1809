"""Asks many small questions in few round trips."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from psycopg2 import sql

from clinic_backups.base.errors import PermanentError
from clinic_backups.restore.workspace import Workspace, columns_of

AT_ONCE = 50
"""The most questions of one query."""
ROWS_AT_ONCE = 200_000
"""Rows that the questions of one query may read together.

PostgreSQL keeps what each part of a query has sorted or hashed until the whole query ends: up to 128 MB for each part.
"""


@dataclass(frozen=True)
class Question:
    """A query that returns one row.

    :param doing: what it is for, in words.
    """

    query: sql.Composable
    doing: str


def answers(
    workspace: Workspace,
    questions: Sequence[Question],
    columns: int = 1,
    *,
    rows: int = 1,
    as_application: bool = False,
    failed: tuple[Any, ...] | None = None,
) -> list[tuple[Any, ...]]:
    """The row of each question. If a query fails, its questions are asked one by one.

    :param columns: the number of columns, which all questions have.
    :param rows: about how many rows one question may sort or hash.
    :param as_application: the queries call functions of the application: see :meth:`Workspace.as_application`.
    :param failed: the row of a question whose query fails.
    :raises PermanentError: a query failed, and there is no such row. The error names its question.
    """

    def ask(some: Sequence[Question]) -> list[tuple[Any, ...]]:
        try:
            with workspace.attempt():
                return _answers(workspace, some, columns, as_application=as_application)
        except PermanentError:
            if len(some) > 1:
                return [answer for each in some for answer in ask([each])]
            if failed is None:
                raise
            return [failed]

    count = max(1, min(AT_ONCE, ROWS_AT_ONCE // max(1, rows)))
    parts = [questions[start : start + count] for start in range(0, len(questions), count)]
    return [answer for part in parts for answer in ask(part)]


def _answers(
    workspace: Workspace, questions: Sequence[Question], columns: int, *, as_application: bool
) -> list[tuple[Any, ...]]:
    names = columns_of([f"c{number}" for number in range(columns)])
    query = sql.SQL(" UNION ALL ").join(
        sql.SQL("SELECT {} AS place, {} FROM ({}) AS q ({})").format(sql.Literal(place), names, each.query, names)
        for place, each in enumerate(questions)
    )
    doing = questions[0].doing
    rows = workspace.as_application(query, columns + 1, doing) if as_application else workspace.rows(query, None, doing)
    by_place = {place: tuple(answer) for place, *answer in rows}
    return [by_place[place] for place in range(len(questions))]
