"""The sequences of a copy: its own, behind the last numbers of the copy's rows and of the original."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from psycopg2 import sql

from clinic_backups.base.table import Column
from clinic_backups.base.text import capitalised, literal, one_line, unused
from clinic_backups.restore.copying.original import OriginalSequence
from clinic_backups.restore.copying.own_names import OwnNames
from clinic_backups.restore.copying.steps import Steps
from clinic_backups.restore.workspace import Workspace

NUMBERS = ("smallint", "integer", "bigint")
_IDENTITY = {"a": "ALWAYS", "always": "ALWAYS", "d": "BY DEFAULT", "by default": "BY DEFAULT"}


@dataclass
class OwnSequence:
    """A sequence of the copy.

    :param shown: what it is called in notes.
    :param asked: its name as an expression.
    :param name: its name in SQL; empty for an identity.
    :param options: those of the original's, if they are known.
    :param columns: tables and columns with the numbers that it has given.
    """

    shown: str
    asked: sql.Composable
    options: OriginalSequence | None
    name: sql.SQL = field(default_factory=lambda: sql.SQL(""))
    columns: list[tuple[sql.Identifier, str]] = field(default_factory=list)

    @property
    def next(self) -> sql.Composed:
        """The expression for its next number."""
        return sql.SQL("nextval({}::regclass)").format(self.asked)


class OwnSequences:
    """Makes them, and moves them behind the rows at the end.

    :param known: the original's, by name in SQL.
    :param taken: names of relations in the new schema.
    """

    def __init__(
        self, workspace: Workspace, known: Mapping[str, OriginalSequence], names: OwnNames, taken: set[str]
    ) -> None:
        self._workspace, self._known, self._names, self._taken = workspace, known, names, taken
        self._all: list[OwnSequence] = []
        self._own: dict[str, OwnSequence] = {}

    def identity(self, steps: Steps, table: sql.Identifier, column: Column, how: str, sequence: str | None) -> None:
        """Make a column an identity.

        :param how: as a manifest or ``pg_attribute`` says it.
        :param sequence: the original's sequence, if it is known.
        """
        options, shown = self._known.get(sequence or ""), f"the identity of column {one_line(column.name)}"
        said = f" ({_words(options)})" if options else ""
        statement = sql.SQL("ALTER TABLE {} ALTER COLUMN {} ADD GENERATED {} AS IDENTITY{}").format(
            table, sql.Identifier(column.name), sql.SQL(_IDENTITY[how]), sql.SQL(said)
        )
        if steps.try_(statement, capitalised(shown)):
            asked = sql.SQL("pg_get_serial_sequence({}, {})").format(
                sql.Literal(table.as_string(self._workspace.connection)), sql.Literal(column.name)
            )
            self._all.append(OwnSequence(shown, asked, options, columns=[(table, column.name)]))

    def instead_of(self, steps: Steps, sequence: str) -> OwnSequence | None:
        """The copy's own sequence for one of the original's; none if it cannot be made."""
        options = self._known.get(sequence)
        if sequence not in self._own and options is not None:
            bare = unused(options.bare, self._taken)
            made = self._make(steps, bare, options)
            if made is not None:
                self._own[sequence] = made
                self._names.sequences[sequence] = self._names.of(bare)
        return self._own.get(sequence)

    def owned(self, steps: Steps, sequence: OwnSequence, name: str, table: sql.Identifier, column: Column) -> None:
        """Let a sequence go with the column, if the original's does. :param name: of the table in the backup."""
        if sequence.options is not None and sequence.options.owner == name:
            statement = sql.SQL("ALTER SEQUENCE {} OWNED BY {}.{}").format(
                sequence.name, table, sql.Identifier(column.name)
            )
            steps.try_(statement, f"The owner of {sequence.shown}")

    def for_column(self, steps: Steps, table: sql.Identifier, column: Column) -> OwnSequence | None:
        """A new sequence for a column of numbers, where nothing is known of the original's."""
        return self._make(steps, unused(f"{table.strings[-1][:29]}_{column.name[:29]}_seq", self._taken), None)

    def _make(self, steps: Steps, bare: str, options: OriginalSequence | None) -> OwnSequence | None:
        name, shown = self._names.of(bare), f"the sequence {one_line(bare)}"
        words = f" AS {options.type} {_words(options)}" if options else ""
        if not steps.try_(sql.SQL(f"CREATE SEQUENCE {name}{words}"), capitalised(shown)):
            return None
        self._taken.add(bare)
        made = OwnSequence(shown, sql.SQL(literal(name)), options, sql.SQL(name))
        self._all.append(made)
        return made

    def move(self, steps: Steps) -> None:
        """Move all behind the last numbers."""
        for each in self._all:
            last = self._last(each)
            if last is not None:
                statement = sql.SQL("SELECT setval({}::regclass, {})").format(each.asked, sql.Literal(last))
                steps.try_(statement, f"The position of {each.shown}", "Move it with setval().")
            elif not each.columns:
                steps.notes.append(
                    f"{capitalised(each.shown)} begins at its start: neither the original's position nor a column of"
                    " numbers shows a later one. Move it with setval() if its numbers are in texts."
                )

    def _last(self, each: OwnSequence) -> int | None:
        falls = each.options is not None and each.options.increment < 0
        found = [each.options.last] if each.options is not None else []
        for table, column in each.columns:
            query = sql.SQL("SELECT {}({}) FROM {}").format(
                sql.SQL("min" if falls else "max"), sql.Identifier(column), table
            )
            ((value,),) = self._workspace.rows(query, None, "asking for the last number")
            found.append(value)
        least, most = (each.options.least, each.options.most) if each.options else (1, None)
        # A number on the other side of the range is never given: nothing has to be passed over.
        known = [
            value for value in found if value is not None and (value <= (most or value) if falls else value >= least)
        ]
        return (min if falls else max)(known) if known else None


def _words(options: OriginalSequence) -> str:
    return (
        f"START WITH {options.start} INCREMENT BY {options.increment} MINVALUE {options.least} MAXVALUE {options.most}"
        f" CACHE {options.cache}{' CYCLE' if options.cycles else ''}"
    )
