"""The loss of a whole clinic and its return, to be rehearsed."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace

from psycopg2 import sql

from clinic_backups.base.errors import PermanentError
from clinic_backups.restore.comparison import Comparison
from clinic_backups.restore.diff import TableDiff, compute, seal
from clinic_backups.restore.plan import Refusal
from clinic_backups.restore.staging import Staged, compute_keys
from clinic_backups.restore.table_rules import Reference
from clinic_backups.restore.workspace import Workspace
from clinic_backups.restore.writing.rehearsal import explain

_APART = 10_000
"""More than there are tables: the temporary tables of each comparison get names of their own."""


@dataclass(frozen=True)
class LossRehearsal:
    """The result of a rehearsal.

    :ivar refusals: why the clinic could not come back.
    :ivar rows: the number of rows that came back.
    :ivar kept: tables whose rows stayed, because rows outside of the backup refer to them, or to what refers to them.
    """

    refusals: tuple[Refusal, ...]
    rows: int
    kept: tuple[str, ...]


class Sides:
    """Comparisons with one side alone: all present rows are deleted, or all rows of the backup are inserted."""

    def __init__(self, workspace: Workspace) -> None:
        self._workspace, self._next = workspace, _APART

    def of_loss(self, staged: Staged) -> Staged:
        """The backup has no row. :param staged: all rows of both sides."""
        return replace(staged, wanted=self._empty(staged), index=self._next)

    def of_return(self, staged: Staged) -> Staged:
        """The clinic has no row. :param staged: all rows of both sides."""
        return replace(staged, present=self._empty(staged), index=self._next)

    def _empty(self, staged: Staged) -> sql.Identifier:
        self._next += 1
        shape = staged.shape
        empty = self._workspace.stage(f"none_{self._next}", [(name, shape.typed(name)) for name in shape.columns])
        compute_keys(self._workspace, empty, shape)
        self._workspace.seals.keep(empty)
        self._workspace.analyze(f"analyzing {shape.name}", (empty, shape.key))
        return empty


def with_ancestors(tables: Collection[str], references: Iterable[Reference]) -> set[str]:
    """These tables, and all to which they refer over any number of foreign keys."""
    found, links = set(tables), list(references)
    while more := {each.parent for each in links if each.child in found} - found:
        found |= more
    return found


class LossComparison(Comparison):
    """A comparison that can rehearse the loss of all rows of a clinic."""

    WHOLE = True

    def rehearse_loss(self) -> LossRehearsal:
        """Delete all rows of the clinic, bring all of the backup back, prove it, and roll everything back.

        What cannot come back becomes a refusal. Rows of parent tables stay, because they may be of others too. So do
        the rows of tables to which rows outside of the backup refer, and of those that these need.
        """
        if self._refusals:
            return LossRehearsal(tuple(self._refusals), 0, ())
        own, normal = {name: each for name, each in self._staged.items() if name not in self._parents}, self.diffs
        sides = Sides(self.workspace)
        with self.workspace.savepoint():
            lost = set(own)
            while True:
                self.diffs = self._all_of({name: sides.of_loss(own[name]) for name in sorted(lost)})
                self._look_around()
                refused = {refusal.table for refusal in self._refusals} & lost
                if not refused:
                    break
                self._refusals = []
                lost -= with_ancestors(refused, self._references)
            self._lose()
            self.diffs = normal | self._all_of({name: sides.of_return(own[name]) for name in sorted(lost)})
            rows = self.writes
            self._look_around()
            self.rehearse()
        return LossRehearsal(tuple(self._refusals), rows, tuple(sorted(own.keys() - lost)))

    def _all_of(self, sides: Mapping[str, Staged]) -> dict[str, TableDiff]:
        found = {name: compute(self.workspace, side, "exact", self._references) for name, side in sides.items()}
        seal(self.workspace, found.values())
        return found

    def _lose(self) -> None:
        """Write the deletions, as the transaction's beginning."""
        if self._refusals:
            return
        try:
            self._writing.lose()
        except PermanentError as error:
            self._refusals.append(explain(self.workspace, self.diffs, error, self._quiet))
        self.workspace.begin_anew()
