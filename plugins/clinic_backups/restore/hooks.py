"""Runs SQL of the application before and after a restore is applied, to keep people out meanwhile.

The files are ``include/sql/before_restore.sql`` and ``after_restore.sql``; both are optional. Each is committed by
itself, so that the application sees it at once. They must not write the clinic's own rows, because then the plan would
no longer fit. They are the application's SQL, so they run under the search path of their role.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from itertools import pairwise
from typing import Any

import psycopg2

from clinic_backups.base.clinic_id import ClinicId
from clinic_backups.base.connections import Connection
from clinic_backups.base.database import connect
from clinic_backups.base.database_errors import raise_database_error
from clinic_backups.base.errors import ClinicBackupsError, PermanentError, afterwards
from clinic_backups.base.listening import Listener
from clinic_backups.base.search_path import APPLICATION_PATH
from clinic_backups.base.silence import WatchedConnection
from clinic_backups.base.text import one_line
from clinic_backups.restore.unit_sql import SharedFolder
from clinic_backups.tenant.extract import SqlFolder
from clinic_backups.tenant.sql_tokens import names_in, split, tokens
from clinic_backups.tenant.strangers import StrangersCode, refuse, strangers_code
from clinic_backups.tenant.tenant_db import Snapshot

BEFORE, AFTER = "before_restore.sql", "after_restore.sql"
PATH_HINT = "Names without a schema are looked up in the search path of the role."


class AfterHookFailed(PermanentError):
    """The restore is done, but the second hook failed: the clinic may still be shut."""


class _Looking(Snapshot):
    """A snapshot whose session has the search path of the role as its default."""

    @staticmethod
    def _open(connection: Connection) -> WatchedConnection:
        return connect(connection, own_path=False)


def strangers_of_hooks(snapshot: Snapshot, folder: SqlFolder, clinic_id: ClinicId) -> list[StrangersCode]:
    """What the hooks name and a stranger owns. Only texts are looked at: no hook is run.

    :param snapshot: one whose session has the search path of the role as its default.
    """
    texts = [folder.rendered(name, clinic_id) for name in present_hooks(folder)]
    if not texts:
        return []
    query = "SELECT reset_val, current_user FROM pg_settings WHERE name = 'search_path'"
    ((path, role),) = snapshot.rows(query, None, "asking for the search path of the role")
    schemas = [role if name == "$user" else name for name in names_in(path)]
    return strangers_code(snapshot, folder.queries(), folder.clinic_table, unlocked=texts, path=schemas, written=())


def present_hooks(folder: SqlFolder) -> list[str]:
    """The names of the hooks that a folder has. They are about one clinic: the shared unit has none."""
    if isinstance(folder, SharedFolder):
        return []
    return [name for name in (BEFORE, AFTER) if (folder.path / name).is_file()]


def require_no_strangers_in_hooks(snapshot: Snapshot, folder: SqlFolder, clinic_id: ClinicId) -> None:
    """:raises PermanentError: a hook names something of a stranger. See :func:`strangers_of_hooks`."""
    refuse(strangers_of_hooks(snapshot, folder, clinic_id), f"The SQL of {BEFORE} or {AFTER}")


@contextmanager
def hooked(
    connection: Connection,
    folder: SqlFolder,
    clinic_id: ClinicId,
    listener: Listener,
    *,
    trusted_owners: Sequence[str] = (),
) -> Iterator[None]:
    """Run the first hook, and the second one whatever happens inside.

    :raises PermanentError: a hook failed, or would run code of strangers. If the first one failed, nothing else was
        done.
    :raises AfterHookFailed: only the second one failed.
    """
    if present_hooks(folder):
        with _Looking(connection, trusted_owners=trusted_owners) as looking:
            require_no_strangers_in_hooks(looking, folder, clinic_id)
    _run(connection, folder, BEFORE, clinic_id, listener)
    try:
        yield
    except BaseException as error:
        try:
            _run(connection, folder, AFTER, clinic_id, listener)
        except ClinicBackupsError as failure:
            error.add_note(f"{failure.message} {failure.hint}")
            if isinstance(error, ClinicBackupsError):
                error.hint = one_line(f"{error.hint} Besides: {failure.message} {failure.hint}")
        raise
    try:
        _run(connection, folder, AFTER, clinic_id, listener)
    except ClinicBackupsError as failure:
        raise AfterHookFailed(*failure.lines, hint=failure.hint) from None


def _run(connection: Connection, folder: SqlFolder, name: str, clinic_id: ClinicId, listener: Listener) -> None:
    if not (statements := _statements(folder, name, clinic_id)):
        return
    listener.step(f"running {name}")
    try:
        with closing(connect(connection, own_path=False)) as db, db, db.cursor() as cursor:
            cursor.execute(f"SET LOCAL lock_timeout = '60s'; {APPLICATION_PATH}")
            cursor.execute(statements)
    except psycopg2.Error as error:
        try:
            raise_database_error(error, f"running {name}", source="file")
        except ClinicBackupsError as failed:
            by_hand = f"run it by hand for clinic {clinic_id}"
            if name == AFTER:
                done = f"The restore itself has ended, but the clinic may still be shut: {by_hand}, and"
            else:
                done = (
                    f"Nothing was changed. If an earlier restore was killed, {AFTER} did not run: {by_hand}. Otherwise"
                )
            raise PermanentError(*failed.lines, hint=f"{done} correct {folder.path / name}. {PATH_HINT}") from None


def _statements(folder: SqlFolder, name: str, clinic_id: ClinicId) -> str:
    """The statements of a hook; empty if there is no such file, or only comments in it."""
    if name not in present_hooks(folder):
        return ""
    statements = folder.rendered(name, clinic_id)
    return statements if any(token.value != ";" for token in tokens(statements)) else ""


def try_hooks(connection: Connection, folder: SqlFolder, clinic_id: ClinicId) -> None:
    """Run both hooks as a restore would, and roll them back. The second one sees what the first one did.

    :raises PermanentError: a hook would fail, or it ends its transaction itself, so that it cannot be tried.
    :raises TransientError: a hook only waits for somebody.
    """
    texts = {name: text for name in (BEFORE, AFTER) if (text := _statements(folder, name, clinic_id))}
    for name, text in texts.items():
        if ends := _ends_transaction(text):
            raise PermanentError(
                f"{name} has the statement {ends}, which ends its transaction.", hint=_trying_hint(folder, name)
            )
    if not texts:
        return
    with closing(connect(connection, own_path=False)) as db, db.cursor() as cursor, afterwards(db.rollback):
        for name, text in texts.items():
            _try(cursor, folder, name, text)


def _try(cursor: Any, folder: SqlFolder, name: str, statements: str) -> None:
    # A role and settings of the first hook end with its own transaction in a restore.
    timeouts = "SET LOCAL lock_timeout = '5s'; SET LOCAL statement_timeout = '60s'"
    try:
        cursor.execute(f"RESET ROLE; {timeouts}; {APPLICATION_PATH}")
        cursor.execute(statements)
    except psycopg2.Error as error:
        try:
            raise_database_error(error, f"trying {name}")
        except PermanentError as failed:
            raise PermanentError(*failed.lines, hint=_trying_hint(folder, name)) from None


def _trying_hint(folder: SqlFolder, name: str) -> str:
    return f"Correct {folder.path / name}. A hook is one transaction, and a restore commits it. {PATH_HINT}"


def _ends_transaction(statements: str) -> str:
    """The first words of a statement that ends a transaction; an empty text if there is none.

    Words in a text, such as the body of DO, are no statements. PostgreSQL refuses COMMIT there.
    """
    in_body = False
    for statement in split(list(tokens(statements)), ";"):
        words = [token.value for token in statement if token.kind == "word"]
        if in_body:  # of a function in standard SQL, whose END stands alone
            in_body = words[:1] != ["end"]
        elif ("begin", "atomic") in pairwise(words):
            in_body = True
        elif words[:1] in (["commit"], ["end"], ["abort"]) or (words[:1] == ["rollback"] and "to" not in words):
            return words[0].upper()
        elif words[:2] == ["prepare", "transaction"]:
            return "PREPARE TRANSACTION"
    return ""
