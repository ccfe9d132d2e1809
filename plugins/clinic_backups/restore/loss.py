"""The loss of a whole clinic and its return, to be rehearsed."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace

from psycopg2 import sql

from clinic_backups.restore.plan import Refusal
from clinic_backups.restore.staging import Staged, compute_keys
from clinic_backups.restore.table_rules import Reference
from clinic_backups.restore.workspace import Workspace

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
