"""Definitions that are tried one by one. One that cannot be made is noted, and the rows are there all the same."""

from __future__ import annotations

from psycopg2 import sql

from clinic_backups.base.database_errors import refusal_of
from clinic_backups.base.errors import PermanentError
from clinic_backups.restore.workspace import Workspace

MAKES = "into another schema makes this schema and its tables"
"""For errors of event triggers: what is being done."""
_WHY = {
    "23505": "rows are not unique there", "23P01": "rows exclude each other there",
    "23514": "rows do not fulfil it", "23502": "rows have NULL there", "23503": "rows refer to rows that are missing",
    "42703": "a column of it is not in the backup", "42P07": "something else has its name",
    "42710": "something else has its name", "42804": "a column of it has another type in the backup",
    "42883": "a function or operator of it is not in this database, or a column has another type in the backup",
    "42704": "something that it names is not in this database", "22P02": "a type has no such value in the backup",
    "42501": "the role lacks a right for it",
}  # fmt: skip
_TAKEN = ("42P07", "42710")
_NOT_VALID = {
    "23514": "rows of the backup break it", "23502": "rows of the backup break it",
    "0A000": "PostgreSQL cannot check the rows, since a composite type has it too",
}  # fmt: skip


class Steps:
    """Makes them in one transaction.

    :ivar notes: a sentence about each one that is missing or is not what the original has.
    """

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace
        self.notes: list[str] = []

    def try_(
        self, statement: sql.Composable, what: str, instead: str = "", unnamed: sql.Composable | None = None
    ) -> bool:
        """Make something; returns whether that was possible.

        :param what: its kind and name, with a capital letter.
        :param instead: what is there instead.
        :param unnamed: the statement without the name, if something else may have it.
        """
        reason = self._failed(statement, what)
        if reason in _TAKEN and unnamed is not None:
            reason = self._failed(unnamed, what)
        if reason:
            self.notes.append(f"{what} is missing: {_said(reason)}.{' ' if instead else ''}{instead}")
        return not reason

    def add_checked(self, statement: sql.Composable, what: str, *, is_valid: bool = True) -> None:
        """Add a check. If rows do not fulfil it, it holds for new rows alone, as ``NOT VALID`` says."""
        reason = self._failed(statement, what) if is_valid else "23514"
        if not reason:
            return
        if reason in _NOT_VALID:
            again = self._failed(sql.SQL("{} NOT VALID").format(statement), what)
            if not again:
                if is_valid:
                    self.notes.append(f"{what} is NOT VALID, and holds for new rows alone: {_NOT_VALID[reason]}.")
                return
            reason = again
        self.notes.append(f"{what} is missing: {_said(reason)}.")

    def leave_out(self, what: str, lacking: str) -> None:
        """Note what is left out because of something that the copy lacks or must not use."""
        self.notes.append(f"{what} is left out: it uses {lacking}.")

    def _failed(self, statement: sql.Composable, what: str) -> str:
        """Make it; returns the SQLSTATE of the refusal."""
        try:
            with self._workspace.attempt():
                self._workspace.define_for_good(statement, f"making {what}", MAKES, names_only=False)
        except PermanentError as error:
            refused = refusal_of(error)
            return (refused.state if refused else "") or "unknown"
        return ""


def _said(state: str) -> str:
    return _WHY.get(state, f"PostgreSQL refused it (SQLSTATE {state})")
