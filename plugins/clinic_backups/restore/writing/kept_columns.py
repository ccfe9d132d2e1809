"""Columns that the backup does not have. Updated rows must keep their values there, whatever triggers do."""

from __future__ import annotations

from collections.abc import Mapping

from psycopg2 import sql

from clinic_backups.base.errors import IntegrityError
from clinic_backups.restore.diff import TableDiff
from clinic_backups.restore.workspace import Workspace, columns_of, row_text


class KeptColumns:
    """Compares them: :meth:`begin` before the writing, :meth:`prove` after it."""

    def __init__(self, workspace: Workspace, diffs: Mapping[str, TableDiff]) -> None:
        self._workspace = workspace
        # Without a key a table has the columns of the backup, or is refused.
        self._diffs = [
            diff for diff in diffs.values() if diff.plan.update and diff.staged.shape.kept and diff.staged.shape.key
        ]
        self._before: dict[str, sql.Identifier] = {}

    def begin(self) -> None:
        """Record these columns of the rows that will be updated."""
        for diff in self._diffs:
            shape = diff.staged.shape
            query = sql.SQL("SELECT {}, {} AS kept FROM {} AS o JOIN {} AS t ON {} WHERE o.op = 'update'").format(
                columns_of(shape.op_key, "o"), row_text(shape.kept, "t"), diff.ops, shape.in_sql,
                shape.is_of("o", "t"),
            )  # fmt: skip
            doing = f"reading columns of {diff.name} that the backup does not have"
            self._before[diff.name] = self._workspace.derive(f"kept_{diff.staged.index}", query, doing)
            self._workspace.seals.keep(self._before[diff.name])

    def prove(self) -> None:
        """Compare these columns with their recorded values. :raises IntegrityError: one has changed.

        :raises IntegrityError: a row that stays holds another value there.
        """
        for diff in self._diffs:
            self._workspace.seals.require(self._before[diff.name])
            self._workspace.seals.forget(self._before[diff.name])  # a rehearsal takes it back
            shape = diff.staged.shape
            query = sql.SQL("SELECT count(*) FROM {} AS k JOIN {} AS t ON {} WHERE k.kept <> {}").format(
                self._before[diff.name], shape.in_sql, shape.is_of("k", "t"), row_text(shape.kept, "t")
            )
            ((count,),) = self._workspace.rows(query, None, f"reading {diff.name} again")
            if count:
                raise IntegrityError(
                    f"{count} row{'s' if count > 1 else ''} of {diff.name} would not keep the values of columns that"
                    f" the backup does not have: {', '.join(shape.kept)}.",
                    hint="Nothing was changed. A trigger changes them: turn it off for the restore.",
                )
