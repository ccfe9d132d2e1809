"""Transactions whose statements share round trips to the catalog's server."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, TypeVar

import psycopg2
from sqlalchemy import Connection as SqlConnection
from sqlalchemy import Executable

from clinic_backups.base.silence import WatchedConnection, WatchedCursor

_LATER, _COMMIT = "clinic_backups_later", "COMMIT"
MAX_WAITING = 64 * 1024
"""A longer statement is sent at once, so that it is not copied."""

E = TypeVar("E", bound=Executable)


def later(statement: E) -> E:
    """The same statement, which may wait for the next one and be sent with it, because nobody reads its result.

    Only a :func:`together` makes it wait.
    """
    marked: E = statement.execution_options(**{_LATER: True})
    return marked


@contextmanager
def together(db: SqlConnection) -> Iterator[SqlConnection]:
    """One transaction. BEGIN is sent with its first statement, and what waits is sent with the next one or COMMIT.

    Statements that are sent as one text are run one after the other, each with a snapshot of its own. If one fails,
    those after it are not run.

    :param db: a connection that commits each statement by itself. If the transaction cannot be rolled back, whoever
        gave the connection has to discard it.
    """
    line: WatchedConnection = db.connection.dbapi_connection  # type: ignore[assignment]
    line.unsent = ["BEGIN"]
    try:
        yield db
        db.exec_driver_sql(_COMMIT)
    except BaseException:
        with suppress(psycopg2.Error), line.cursor() as cursor:
            cursor.execute("ROLLBACK")
        raise
    finally:
        line.unsent = None


def send_or_wait(cursor: WatchedCursor, statement: str, parameters: Any, context: Any) -> bool:
    """SQLAlchemy's event ``do_execute``: it returns whether it has executed the statement itself."""
    waiting = cursor.connection.unsent
    if waiting is None:
        return False
    sql = cursor.mogrify(statement, parameters).decode()
    if context.execution_options.get(_LATER) and len(sql) <= MAX_WAITING:
        waiting.append(sql)
        return True
    text = "; ".join([*waiting, sql])
    waiting.clear()
    with cursor.connection.waiting(committing=statement == _COMMIT):
        cursor.execute(text)
    return True
