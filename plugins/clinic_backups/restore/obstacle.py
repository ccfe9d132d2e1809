"""What makes operations of a restore impossible, as a query and the refusal that follows from its rows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from psycopg2 import sql

from clinic_backups.restore.diff import TableDiff
from clinic_backups.restore.plan import Refusal


@dataclass(frozen=True)
class Obstacle:
    """Rows that prevent operations.

    :param diff: the table whose operations are impossible.
    :param query: for each such row its key as text, the position of the operation in ``diff.ops``, and the key that is
        missing elsewhere, if that is the reason.
    :param says: makes the refusal from the number of rows, some of their keys, and some of the missing keys.
    :param by_application: the query calls functions that may need the application's search path.
    """

    diff: TableDiff
    query: sql.Composed
    says: Callable[[int, str, str], Refusal]
    by_application: bool = False
