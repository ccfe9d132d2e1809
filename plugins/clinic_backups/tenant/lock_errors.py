"""The errors of a backup whose tables another session locks or changes. All of them are transient."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import psycopg2
import psycopg2.errors

from clinic_backups.base.errors import TransientError

SHOWN_TABLES = 5
MISSING = (
    psycopg2.errors.UndefinedTable,
    psycopg2.errors.UndefinedColumn,
    psycopg2.errors.UndefinedFunction,
    psycopg2.errors.UndefinedObject,
    psycopg2.errors.InvalidSchemaName,
)
"""The errors of statements that name something that does not exist, or no longer exists."""


def changed_meanwhile(tables: Sequence[str]) -> TransientError:
    """The error for tables whose rows the snapshot may not show."""
    return TransientError(
        f"{some(tables)} changed after the snapshot was taken (its definition or its file) and may have looked empty.",
        hint="A migration, TRUNCATE, VACUUM FULL or REFRESH ran beside the backup. A retry reads all tables again.",
    )


def still_locked(
    blockers: Sequence[tuple[Any, ...]], names: Sequence[str], queries: Collection[str], seconds: float
) -> TransientError:
    """The error for tables that another session locks for too long.

    :param blockers: rows of table, process, application and state.
    :param names: the tables that the queries read, as far as they are known.
    """
    texts = "\n".join(queries)
    mine = [row for row in blockers if row[0] in names or row[0].rpartition(".")[2].strip('"') in texts] or blockers
    tables = some(sorted({row[0] for row in mine})) or some(names) or "of the extracts"
    sessions = some(
        [
            f"process {pid}" + (f" ({', '.join(filter(None, (application, state)))})" if application or state else "")
            for pid, application, state in sorted({row[1:] for row in mine})
        ]
    )
    return TransientError(
        f"Another session locks {tables} for more than {seconds:g} seconds"
        f" (SQLSTATE 55P03){': ' + sessions if sessions else ''}.",
        hint="A migration usually ends by itself, and a retry helps. Otherwise end that session, or raise"
        " CLINIC_BACKUPS_LOCK_TIMEOUT_SECONDS.",
    )


def require_present(error: psycopg2.Error, doing: str) -> None:
    """Call this after a statement failed although all names in it existed when its tables were locked.

    :raises TransientError: something is missing that is looked up only when the statement runs, such as a function's
        tables.
    """
    if isinstance(error, MISSING):
        raise definition_changed(doing)
    require_unlocked(error, doing)


def require_unlocked(error: psycopg2.Error, doing: str) -> None:
    """Call this after a statement failed while this transaction had locked the tables that it names.

    :raises TransientError: it waited for another table. Such a wait is kept short, because the session that holds that
        table may wait for these.
    """
    if isinstance(error, psycopg2.errors.LockNotAvailable):
        raise TransientError(
            f"Another session locks a table that a function reads and no extract names, while {doing}"
            " (SQLSTATE 55P03).",
            hint="A migration usually ends by itself, and a retry helps. A backup does not wait for such a table while"
            " it holds locks on others, which the migration may need next.",
        )


def require_exported(error: psycopg2.Error, snapshot: str | None) -> None:
    """Call this after a transaction could not begin with another one's snapshot.

    :param snapshot: its name.
    :raises TransientError: that other transaction has ended.
    """
    # The state depends on PostgreSQL's version. The name is in the message in every language.
    ended = isinstance(error, psycopg2.errors.ObjectNotInPrerequisiteState)
    if snapshot is not None and (ended or snapshot in str(error)):
        raise TransientError(
            "The connection that keeps the snapshot of the database has ended.",
            hint="The server, a proxy or an administrator ended it. A retry usually helps.",
        )


def definition_changed(doing: str) -> TransientError:
    """The error for something that existed when its tables were locked."""
    return TransientError(
        f"A table, column or function was renamed or dropped by another session while {doing}.",
        hint="A retry reads the tables as they are now. If it fails too, correct the extract, and the functions that it"
        " calls.",
    )


def some(names: Sequence[str]) -> str:
    """The first names, and how many more there are."""
    more = f" and {len(names) - SHOWN_TABLES} more" if len(names) > SHOWN_TABLES else ""
    return ", ".join(names[:SHOWN_TABLES]) + more
