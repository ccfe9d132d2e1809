"""Columns that get numbers from sequences, and facts about them that cannot be told."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Literal

from clinic_backups.restore.sequences.sequence_names import Known, Sequences, listed

How = Literal["default", "function", "trigger", "code", "owner"]
COMPARE = "After a restore, compare the sequence's next values with the rows."


@dataclass(frozen=True)
class SequenceColumn:
    """A column of a table or of a partition.

    :param type: without domains.
    :param root: the partitioned table of a partition; otherwise the table itself.
    :param part: SQL of the condition for rows in the partition.
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
    """A column that gets its numbers from a sequence.

    :param how: by its default, by a function that an expression calls, by a trigger, by other code, as the owner of the
        sequence, or as an identity.
    :param by: the same in words.
    :param expression: the default, or the assigned expression.
    :param names: values of ``named`` that mean this sequence. ``named`` is SQL of a name that is made of the row.
    """

    of: SequenceColumn
    known: Known
    how: How
    by: str
    expression: str | None
    named: str | None = None
    names: tuple[str, ...] = ()

    @property
    def sequence(self) -> str:
        """Qualified and quoted."""
        return self.known.sequence

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
    """A column whose sequence has a name that is made at run time. At best the rows tell it.

    :param named: SQL of the name.
    :param candidates: sequences whose names begin in the same way.
    """

    of: SequenceColumn
    how: How
    by: str
    expression: str
    named: str
    near: tuple[str, ...]
    path: str | None
    candidates: tuple[Known, ...]


@dataclass(frozen=True)
class Untold:
    """Numbers whose sequence, or whose column, cannot be told.

    :param root: the table that the plan names; none if it may be any table.
    :param column: none if all columns of the table are meant.
    :param about: the sequences, as far as they are known.
    :param by: what uses them, in words.
    """

    root: str | None
    column: str | None
    said: str
    hint: str
    about: tuple[Known, ...] = ()
    by: str = ""


@dataclass
class Uses:
    """The columns that get numbers, and the facts that cannot be told.

    :param named: sequences that trusted owners' texts name.
    :param oids: PostgreSQL's numbers of the tables that were looked at.
    """

    sequences: Sequences
    uses: list[SequenceUse] = field(default_factory=list)
    made: list[RunTime] = field(default_factory=list)
    untold: list[Untold] = field(default_factory=list)
    named: list[Known] = field(default_factory=list)
    oids: Mapping[str, int] = field(default_factory=dict)

    @property
    def known(self) -> list[Known]:
        """All sequences that belong to a column, or that a trusted owner's text names."""
        found = [use.known for use in self.uses]
        found += [each for made in self.made for each in made.candidates]
        found += [each for untold in self.untold for each in untold.about]
        return list(dict.fromkeys([*found, *self.named]))

    @property
    def columns(self) -> list[SequenceColumn]:
        """All columns that get numbers."""
        return list(dict.fromkeys([*(use.of for use in self.uses), *(made.of for made in self.made)]))

    def unused(self, tables: Collection[str]) -> Untold | None:
        """The sequences of which nothing in the database shows which column gets their numbers.

        Those of these tables' schemas come first.
        """
        used = {use.sequence for use in self.uses} | {each.sequence for made in self.made for each in made.candidates}
        used |= {each.sequence for untold in self.untold for each in untold.about}
        schemas = {table.split(".", 1)[0] for table in tables}
        found = sorted(
            (each for each in self.sequences.own if not each.is_tied and each.sequence not in used),
            key=lambda each: (each.schema not in schemas, each.sequence),
        )
        if not found:
            return None
        return Untold(
            None,
            None,
            f"The database does not show which column gets the numbers of {listed(found)}, so no restore moves them.",
            f"If the application puts them into a column, give it the default nextval('…'). {COMPARE}",
        )
