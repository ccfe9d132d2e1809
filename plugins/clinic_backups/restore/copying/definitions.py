"""Makes in a copy what the original tables have besides columns and rows, as far as it is safe and possible.

It runs twice. Before the rows, on empty tables in a savepoint: then it is asked whether it would run code of strangers.
After the rows, for good: indexes are faster then, and a definition that rows break is a note and stops nothing.
"""

from __future__ import annotations

from collections.abc import Sequence

from psycopg2 import sql

from clinic_backups.base.table import Column
from clinic_backups.base.text import capitalised, one_line
from clinic_backups.restore.copied_table import CopiedTable
from clinic_backups.restore.copying.original import Definition, Original, OriginalColumn, OriginalTable
from clinic_backups.restore.copying.own_names import OwnNames
from clinic_backups.restore.copying.own_sequences import NUMBERS, OwnSequences
from clinic_backups.restore.copying.own_types import OwnTypes
from clinic_backups.restore.copying.steps import Steps
from clinic_backups.restore.workspace import Workspace

_KINDS = {"c": "check", "u": "constraint", "x": "constraint", "unique": "unique index", "index": "index"}


class Definitions:
    """What the tables of a copy get once they have rows."""

    def __init__(
        self, workspace: Workspace, original: Original, copies: Sequence[CopiedTable], names: OwnNames, types: OwnTypes
    ) -> None:
        self._workspace, self._original, self._copies = workspace, original, copies
        self._names, self._types = names, types

    def make(self) -> tuple[list[str], dict[str, list[str]]]:
        """Make them. Returns notes about the whole copy, and about each table by its name in the backup."""
        whole = Steps(self._workspace)
        taken = {copy.name for copy in self._copies}
        sequences = OwnSequences(self._workspace, self._original.sequences, self._names, taken)
        by_table = {copy.was.name: Steps(self._workspace) for copy in self._copies}
        self._types.checks(whole)
        for copy in self._copies:
            steps, table = by_table[copy.was.name], self._original.tables.get(copy.was.name)
            for column in copy.stored:
                self._default(steps, copy, column, table.columns.get(column.name) if table else None, sequences)
        for copy in self._copies:
            table = self._original.tables.get(copy.was.name)
            if table is not None:
                self._constraints(by_table[copy.was.name], copy, table)
        sequences.move(whole)
        self._names.sequences.clear()
        return whole.notes, {name: steps.notes for name, steps in by_table.items()}

    def _default(
        self, steps: Steps, copy: CopiedTable, column: Column, now: OriginalColumn | None, sequences: OwnSequences
    ) -> None:
        if now is None:
            self._numbered(steps, copy, column, sequences)
        elif now.identity:
            sequences.identity(steps, copy.identifier, column, now.identity, now.sequence)
        elif now.expression is not None and not now.generated:
            self._expression(steps, copy, column, now.expression, sequences)

    def _numbered(self, steps: Steps, copy: CopiedTable, column: Column, sequences: OwnSequences) -> None:
        """The numbers of a column of which the backup alone is known. No text of the archive is used."""
        if column.type not in NUMBERS or not column.is_numbered:
            return
        if column.identity:
            sequences.identity(steps, copy.identifier, column, column.identity, None)
        elif (made := sequences.for_column(steps, copy.identifier, column)) is not None:
            made.columns.append((copy.identifier, column.name))
            self._set_default(steps, copy, column, made.next)

    def _expression(
        self, steps: Steps, copy: CopiedTable, column: Column, default: Definition, sequences: OwnSequences
    ) -> None:
        own = [made for use in default.uses if use.sequence and (made := sequences.instead_of(steps, use.sequence))]
        if lacking := self._names.lacks(default):
            if not own and column.type in NUMBERS and "nextval(" in default.text:
                self._numbered(steps, copy, column, sequences)
                return
            steps.leave_out(f"The default of column {one_line(column.name)}", lacking)
            return
        if self._set_default(steps, copy, column, self._names.rewritten(default.text)) and column.type in NUMBERS:
            for made in own:
                made.columns.append((copy.identifier, column.name))
                sequences.owned(steps, made, copy.was.name, copy.identifier, column)

    def _set_default(self, steps: Steps, copy: CopiedTable, column: Column, value: sql.Composable) -> bool:
        statement = sql.SQL("ALTER TABLE {} ALTER COLUMN {} SET DEFAULT {}").format(
            copy.identifier, sql.Identifier(column.name), value
        )
        return steps.try_(statement, f"The default of column {one_line(column.name)}")

    def _constraints(self, steps: Steps, copy: CopiedTable, table: OriginalTable) -> None:
        for each in table.constraints:
            what = f"{capitalised(_KINDS.get(each.kind, ''))} {one_line(each.name)}"
            if each.kind == "p":
                continue
            if lacking := self._names.lacks(each):
                steps.leave_out(what, lacking)
                continue
            text = self._names.rewritten(each.condition)
            statement = sql.SQL("ALTER TABLE {} ADD CONSTRAINT {} {}").format(
                copy.identifier, sql.Identifier(each.name), text
            )
            if each.kind == "c":
                steps.add_checked(statement, what, is_valid=each.is_valid)
            else:
                steps.try_(statement, what, unnamed=sql.SQL("ALTER TABLE {} ADD {}").format(copy.identifier, text))
        for each in table.indexes:
            self._index(steps, copy, each)
        self._comments(copy, table)
        if table.left_out:
            steps.notes.append(f"Not in the copy: {one_line(', '.join(table.left_out))}.")

    def _index(self, steps: Steps, copy: CopiedTable, index: Definition) -> None:
        what = f"{capitalised(_KINDS[index.kind])} {one_line(index.name)}"
        if lacking := self._names.lacks(index) or ("" if index.text else "words that are not understood"):
            steps.leave_out(what, lacking)
            return
        how, text = sql.SQL("UNIQUE " if index.kind == "unique" else ""), self._names.rewritten(index.text)
        steps.try_(
            sql.SQL("CREATE {}INDEX {} ON {} {}").format(how, sql.Identifier(index.name), copy.identifier, text), what,
            unnamed=sql.SQL("CREATE {}INDEX ON {} {}").format(how, copy.identifier, text),
        )  # fmt: skip

    def _comments(self, copy: CopiedTable, table: OriginalTable) -> None:
        """Nobody needs a comment that cannot be made."""
        quiet = Steps(self._workspace)
        if table.comment is not None:
            statement = sql.SQL("COMMENT ON TABLE {} IS {}").format(copy.identifier, sql.Literal(table.comment))
            quiet.try_(statement, "A comment")
        for name, column in table.columns.items():
            if column.comment is not None and copy.has(name):
                statement = sql.SQL("COMMENT ON COLUMN {}.{} IS {}").format(
                    copy.identifier, sql.Identifier(name), sql.Literal(column.comment)
                )
                quiet.try_(statement, "A comment")


def key_name(table: OriginalTable | None, copy: CopiedTable) -> str | None:
    """The name of the original's primary key, if it is over the same columns."""
    keys = [each for each in (table.constraints if table else ()) if each.kind == "p"]
    return next((key.name for key in keys if set(key.columns) == set(copy.was.primary_key)), None)
