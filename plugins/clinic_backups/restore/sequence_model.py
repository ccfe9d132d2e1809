"""Columns that take numbers from sequences, and what cannot be told of them."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any, Literal

from clinic_backups.restore.sequence_names import Known, Sequences, listed

How = Literal["default", "function", "trigger", "code", "owner"]
COMPARE = "After a restore, compare the sequence's next values with the rows."


@dataclass(frozen=True)
class Column:
    """A column of a table, or of a partition.

    :param type: without domains. :param root: the table that a partition is part of, else the table itself.
    :param part: SQL of which rows lie in the partition.
    """

    table: str
    column: str
    type: str
    root: str
    part: str | None

    @property
    def said(self) -> str:
        return f"{self.table}.{self.column}"


@dataclass(frozen=True)
class SequenceUse:
    """A column that takes its numbers from a sequence.

    :param sequence: qualified and quoted.
    :param may: this role may read and set the sequence.
    :param how: by its default, by a function that an expression calls, by a trigger, by other code, or as owner and as
        an identity.
    :param by: the same in words.
    :param expression: the default, or what is assigned.
    :param names: values of ``named``, SQL of the sequence's name that is made of the row, which mean this sequence.
    """

    of: Column
    sequence: str
    increment: int
    lowest: int
    highest: int
    cycle: bool
    may: bool
    how: How
    by: str
    expression: str | None
    named: str | None = None
    names: tuple[str, ...] = ()

    @property
    def table(self) -> str:
        return self.of.table

    @property
    def column(self) -> str:
        return self.of.column

    @property
    def type(self) -> str:
        return self.of.type


@dataclass(frozen=True)
class RunTime:
    """A column whose sequence has a name that is made at run time: the rows tell it, or nobody does.

    :param named: SQL of the name. :param candidates: sequences whose names begin as it does.
    """

    of: Column
    how: How
    by: str
    expression: str
    named: str
    near: tuple[str, ...]
    path: str | None
    candidates: tuple[Known, ...]


@dataclass(frozen=True)
class Untold:
    """Numbers of which it cannot be told from which sequence they come, or into which column they go.

    :param root: the table that the plan names. :param column: none where all of the table are meant.
    """

    root: str
    column: str | None
    said: str
    hint: str


@dataclass
class Uses:
    """What was found."""

    sequences: Sequences
    uses: list[SequenceUse] = field(default_factory=list)
    made: list[RunTime] = field(default_factory=list)
    untold: list[Untold] = field(default_factory=list)

    @property
    def columns(self) -> list[Column]:
        """All columns that take numbers."""
        return list(dict.fromkeys([*(use.of for use in self.uses), *(made.of for made in self.made)]))

    def unused(self, tables: Collection[str]) -> Untold | None:
        """Sequences beside these tables of which nothing in the database says which column takes their numbers."""
        used = {use.sequence for use in self.uses} | {each.sequence for made in self.made for each in made.candidates}
        schemas = {table.split(".", 1)[0] for table in tables}
        found = sorted(
            (each for each in self.sequences.by_oid.values()
             if each.schema in schemas and not each.is_tied and each.sequence not in used),
            key=lambda each: each.sequence,
        )  # fmt: skip
        if not found:
            return None
        return Untold(
            min(tables),
            None,
            f"Nothing in the database says into which column numbers of {listed(found)} go: no restore moves them.",
            f"If the application puts them into a column, give it the default nextval('…'). {COMPARE}",
        )


def use_of(known: Known, of: Column, how: How, by: str, expression: str | None, **named: Any) -> SequenceUse:
    return SequenceUse(of, known.sequence, known.increment, known.lowest, known.highest, known.cycle, known.may,
                       how, by, expression, **named)  # fmt: skip
