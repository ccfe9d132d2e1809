"""Proves that a restore's transaction changes nothing besides the plan, from its beginning to its commit.

PostgreSQL runs code of the application, and of whoever owns a table, not only while rows are written: it evaluates the
conditions of indexes when it plans a query. So everything counts that the transaction has done since it began.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from psycopg2 import sql

from clinic_backups.base.database import qualified
from clinic_backups.base.errors import IntegrityError, PermanentError
from clinic_backups.restore.diff import DELETE, INSERT, UPDATE
from clinic_backups.restore.workspace import Workspace
from clinic_backups.restore.writing.changes import Changes, Writes, changes

_LOOK = "turn it off for the restore"


class OnlyPlanned:
    """Compares what a transaction has changed with what was planned.

    :param workspace: the transaction.
    """

    def __init__(self, workspace: Workspace) -> None:
        self._workspace, self._definitions = workspace, workspace.began.definitions

    @contextmanager
    def own_definitions(self) -> Iterator[None]:
        """The restore changes definitions itself in the block. :raises IntegrityError: somebody else did before."""
        self._require_definitions(self._now())
        yield
        self._definitions = self._now().definitions

    def require(self, planned: Writes) -> None:
        """Check that exactly the planned rows were written. :raises IntegrityError: something else was changed."""
        now = self._now()
        workspace = self._workspace
        is_read = self._require_rows(planned, now.rows - workspace.began.rows - workspace.taken_back)
        self._require_definitions(now)
        if is_read:
            # Reading a table may call code of its owner.
            later = self._now()
            self._require_definitions(later)
            for table, operation in later.rows - now.rows:
                raise _unplanned(table, operation, later.rows[table, operation] - now.rows[table, operation], 0)

    def _now(self) -> Changes:
        return changes(self._workspace.rows)

    def _require_definitions(self, now: Changes) -> None:
        if now.definitions != self._definitions:
            raise IntegrityError(
                "While the restore ran, a table, a large object or another object was truncated, dropped, created or"
                " altered in its transaction.",
                hint=f"Nothing was changed. A trigger may have done that: {_LOOK}.",
            )

    def _require_rows(self, planned: Writes, found: Writes) -> bool:
        """Returns whether a table was read for that."""
        is_read, found = False, found - self._logged(planned)
        for table, operation in sorted(set(found) | set(planned)):
            is_, was = found[table, operation], planned[table, operation]
            if is_ == was:
                continue
            is_read = True
            if not self._was_taken_back(table, planned, found):
                raise _unplanned(table, operation, is_, was)
        return is_read

    def _logged(self, planned: Writes) -> Writes:
        """What event triggers wrote when the restore made definitions, except into the planned tables."""
        tables = {table for table, _ in planned}
        return Counter({key: count for key, count in self._workspace.logged.items() if key[0] not in tables})

    def _was_taken_back(self, table: str, planned: Writes, found: Writes) -> bool:
        """Whether the writes beyond the plan were rolled back within the transaction, as by an EXCEPTION block.

        The server counts such writes too. A row that was written and stayed is visible with a version of this
        transaction. A deleted row leaves no version. A planned row that was written twice leaves one. Neither is
        reported.
        """
        workspace = self._workspace
        was = {operation: planned[table, operation] for operation in (INSERT, UPDATE, DELETE)}
        is_ = {operation: found[table, operation] for operation in was}
        of_plan = was[INSERT] + was[UPDATE]
        if is_[DELETE] != was[DELETE] or is_[INSERT] < was[INSERT] or (is_[UPDATE] != was[UPDATE] and of_plan):
            return False
        # No other transaction's version is that young and visible: the snapshot is older than this transaction.
        query = sql.SQL("SELECT count(*) FROM {}{} WHERE age(xmin) <= (SELECT age(pg_current_xact_id()::xid))")
        try:
            with workspace.attempt():
                partitioned = workspace.relations().get(table, False)
                only = sql.SQL("" if partitioned else "ONLY ")
                ((stayed,),) = workspace.rows(query.format(only, qualified(table)), None, f"reading {table} again")
        except PermanentError:
            return False  # it may not be read
        return int(stayed) == of_plan


def _unplanned(table: str, operation: str, is_: int, was: int) -> IntegrityError:
    if table.startswith("pg_catalog."):
        return IntegrityError(
            f"Code of the database that ran in the restore wrote to PostgreSQL's own table {table.partition('.')[2]}"
            f" ({operation}, {is_} rows): it changed roles, rights, settings or other objects.",
            hint="Nothing was changed. A trigger, a default, a constraint or an index of a table calls that code.",
        )
    return IntegrityError(
        f"{table}: {operation} touched {is_} rows, but the plan has {was}.",
        hint=f"Nothing was changed. A trigger or a cascade also writes: {_LOOK}. A default, a constraint or an index of"
        " a table may call a function that writes, too.",
    )
