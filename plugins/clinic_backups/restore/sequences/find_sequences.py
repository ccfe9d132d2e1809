"""Sequences after a restore: the next number must not be one that a row has.

If that cannot be told, the plan says so.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from psycopg2 import sql

from clinic_backups.base.database import qualified
from clinic_backups.restore.diff import TableDiff
from clinic_backups.restore.plan import Refusal
from clinic_backups.restore.sequences import numbering
from clinic_backups.restore.sequences.advancing import Furthest, GivenColumn, following_of, furthest, rows_of, window_of
from clinic_backups.restore.sequences.number_rows import names_of
from clinic_backups.restore.sequences.numbering import Numbering
from clinic_backups.restore.sequences.sequence_model import COMPARE, RunTime, SequenceColumn, SequenceUse, Untold, Uses
from clinic_backups.restore.sequences.sequence_names import Known, listed
from clinic_backups.restore.sequences.sequence_uses import read
from clinic_backups.restore.sequences.table_owners import hold
from clinic_backups.restore.workspace import Workspace

_SHOWN = 3


@dataclass
class FoundSequences:
    """The sequences of the restored columns.

    :param uses: all columns that get numbers from them.
    :param known: the sequences that the writing may use.
    :param notes: each a table and what the plan says about it.
    :param furthest: how far the numbers of restored rows reach, by sequence.
    :param beside: the same as ``notes``, of what an approval does not cover: counts that other clinics change all the
        time, and facts about the whole database that concern no sequence of the plan.
    """

    uses: list[SequenceUse] = field(default_factory=list)
    known: list[Known] = field(default_factory=list)
    furthest: Furthest = field(default_factory=dict)
    numbered: list[GivenColumn] = field(default_factory=list)
    notes: list[tuple[str, str]] = field(default_factory=list)
    beside: list[tuple[str, str]] = field(default_factory=list)

    @property
    def past(self) -> dict[str, int]:
        """The sequences that will be moved, each with the number that it is moved past."""
        return {sequence: number for (sequence, _), number in self.furthest.items() if number is not None}

    def note(self, table: str, said: str, *, beside: bool = False) -> None:
        """A sentence about a sequence names its column, so it is said once in the whole plan."""
        notes = self.beside if beside else self.notes
        if all(said != other for _, other in notes):
            notes.append((table, said))


@dataclass(frozen=True)
class Examined:
    """Facts about the sequences of some tables before anything is restored."""

    uses: list[SequenceUse]
    untold: list[Untold]


def find(workspace: Workspace, diffs: Mapping[str, TableDiff]) -> FoundSequences:
    """Sequences of columns that get values back, with every column of the database that gets numbers from them."""
    result = FoundSequences()
    if not any(diff.plan.insert or diff.plan.update for diff in diffs.values()):
        return result
    found = read(workspace, diffs)
    result.known = found.known
    back = {of: _back(diffs.get(of.root), of.column, of.part) for of in found.columns}
    _resolve(workspace, found, {of: rows for of, rows in back.items() if rows is not None})
    # Other tables may take their numbers from the same sequence.
    moved = {use.sequence for use in found.uses if back[use.of] is not None}
    result.uses = [use for use in found.uses if use.sequence in moved]
    hold(workspace, {use.table: found.oids[use.table] for use in result.uses if use.table not in diffs})
    written = [name for name, diff in diffs.items() if diff.plan.insert or diff.plan.update]
    unused = found.unused(written)
    for each in [*found.untold, unused] if unused else found.untold:
        root = each.root or min(written)
        if root in written if each.column is None else _back(diffs.get(root), each.column) is not None:
            # Anybody's new function or sequence changes what is said of no table.
            beside = each.root is None and not any(known.sequence in moved for known in each.about)
            result.note(root, each.said, beside=beside)
    asked = _Asked(workspace, found.uses)
    for use in result.uses:
        if not use.known.may:
            continue
        here = back[use.of]
        numbered = asked.numbering(use)
        if use.how == "function" and numbered is not None and asked.is_new(use):
            result.note(use.of.root, _asked(use))
        if numbered is None:
            if here is not None:
                result.note(use.of.root, _unclear(use))
            continue
        if here is not None:
            here = rows_of(use, here)
            numbered, left = _complete(workspace, use, numbered, here)
            if left is None:
                result.note(use.of.root, _unclear(use))
                continue
            if left:
                result.note(use.of.root, _unread(use, left), beside=True)
        result.numbered.append(GivenColumn(use, numbered, here))
    # A plan itself moves the sequences that only a call of their function can ask.
    called = {use.sequence for use in result.uses if use.how == "function"}
    result.furthest = furthest(workspace, [each for each in result.numbered if each.use.sequence not in called])
    _note_others(result, written)
    return result


def _note_others(found: FoundSequences, written: Sequence[str]) -> None:
    """Say which sequences will be moved that columns of other tables get numbers from too."""
    for sequence, number in found.past.items():
        of = [use.of for use in found.uses if use.sequence == sequence]
        others = sorted({column.said for column in of if column.root not in written})
        if others:
            root = next(column.root for column in of if column.root in written)
            found.note(root, _of_others(sequence, number, others))


def examine(workspace: Workspace, names: Sequence[str]) -> Examined:
    """The facts that are known before there is anything to restore. No function that takes numbers is called."""
    found = read(workspace, names)
    wanted = [column for column in found.columns if column.root in names]
    _resolve(workspace, found, {column: _some_rows(column.table) for column in wanted})
    asked = _Asked(workspace, found.uses, _some_rows)
    uses = [use for use in found.uses if use.of in wanted]
    unclear = [
        Untold(use.of.root, use.column, _unclear(use), "")
        for use in uses
        if use.known.may and use.how != "function" and asked.numbering(use) is None
    ]
    untold = [each for each in found.untold if names and (each.root is None or each.root in names)] + unclear
    unused = found.unused(names) if names else None
    return Examined(uses, [*untold, unused] if unused else untold)


def _resolve(workspace: Workspace, found: Uses, rows: Mapping[SequenceColumn, sql.Composable]) -> None:
    """Find the sequences whose names are made at run time, of the rows that are given."""
    for made in found.made:
        if made.of not in rows:
            continue
        names = names_of(workspace, made.named, made.of.column, made.of.type, rows[made.of])
        if names is None:
            found.untold.append(_by_name(made))
            continue
        meant: dict[Known, list[str]] = defaultdict(list)
        for name in names:
            known = found.sequences.named(name, made.near, made.path)
            if len(known) != 1:
                found.untold.append(_by_name(made))
            if (likely := found.sequences.likely(known, made.near)) is not None:
                meant[likely].append(name)
        found.uses += [
            SequenceUse(made.of, each, made.how, made.by, made.expression, named=made.named, names=tuple(said))
            for each, said in meant.items()
        ]


def _some_rows(table: str) -> sql.Composable:
    """Enough rows of a table to see whether an expression can be evaluated for them."""
    return sql.SQL("(SELECT * FROM {} LIMIT {})").format(qualified(table), sql.Literal(numbering.WINDOW))


def _by_name(made: RunTime) -> Untold:
    of = f" ({listed(made.candidates)})" if made.candidates else ""
    return Untold(
        made.of.root,
        made.of.column,
        f"{made.of.said} gets numbers by {made.by} from a sequence whose name is made at run time{of}. Which one it is"
        " cannot be told, so it is not moved. After a restore it may give a number that a row has.",
        COMPARE,
    )


class _Asked:
    """How numbers become values. Nothing is asked twice.

    :param rows: SQL of the rows of a table for which it must be possible to evaluate an expression.
    """

    def __init__(
        self, workspace: Workspace, uses: Sequence[SequenceUse], rows: Callable[[str], sql.Composable] = qualified
    ) -> None:
        self._workspace, self._rows = workspace, rows
        self._places: dict[tuple[SequenceColumn, str | None, str], set[tuple[str, str]]] = defaultdict(set)
        for use in uses:
            if use.named is None:
                self._places[use.of, use.expression, use.by].add((use.sequence, use.how))
        self._known: dict[tuple[str | None, ...], Numbering | None] = {}
        self._said: set[tuple[str | None, ...]] = set()

    def numbering(self, use: SequenceUse) -> Numbering | None:
        """How the numbers become values; ``None`` if that cannot be told."""
        if self._places[use.of, use.expression, use.by] - {(use.sequence, use.how)}:
            return None  # it takes numbers from several places: which of them stands where cannot be told
        means = self._means(use)
        if means not in self._known:
            self._known[means] = self._numbering(use)
        return self._known[means]

    def is_new(self, use: SequenceUse) -> bool:
        """Whether it was not asked before."""
        is_new = self._means(use) not in self._said
        self._said.add(self._means(use))
        return is_new

    @staticmethod
    def _means(use: SequenceUse) -> tuple[str | None, ...]:
        of_row = (use.table, use.column) if use.how == "trigger" else ()
        return (use.expression, use.type, use.sequence, use.how, *of_row)

    def _numbering(self, use: SequenceUse) -> Numbering | None:
        workspace = self._workspace
        if use.how == "function":
            return numbering.by_function(workspace, use.expression or "", use.type, use.known.oid)
        following = following_of(workspace, use)
        new = (use.table, use.column) if use.how == "trigger" else None
        found = numbering.by_expression(workspace, use.expression, use.type, following, use.known.increment, new=new)
        if found is None or not numbering.holds_for(workspace, found, use.column, self._rows(use.table), following):
            return None
        return found


def _complete(
    workspace: Workspace, use: SequenceUse, found: Numbering, rows: sql.Composable
) -> tuple[Numbering, int | None]:
    """Search, too, where a relation does not explain all values that come back; and how many stay unexplained.

    None: that cannot be told.
    """
    if found.is_plain and not found.is_searched:
        return found, 0
    window = window_of(workspace, use, following_of(workspace, use))
    left = numbering.unread(workspace, found, use.column, rows, window)
    if left and found.whole is not None and found.row is None and not found.is_searched:
        found = replace(found, is_searched=True)
        left = numbering.unread(workspace, found, use.column, rows, window)
    return found, left and (0 if found.factor else left)


def _back(diff: TableDiff | None, column: str, part: str | None = None) -> sql.Composable | None:
    """SQL of the restored rows that have a value in the column. ``None``: no row has. :param part: of a partition."""
    if diff is None or column not in diff.staged.shape.columns:
        return None
    operations = [
        *(["insert"] if diff.plan.insert else []),
        *(["update"] if diff.plan.update and column in diff.plan.columns else []),
    ]
    if not operations:
        return None
    rows = sql.SQL("(SELECT w.* FROM {})").format(diff.wanted_of(*operations))
    if part is None:
        return rows
    return sql.SQL("(SELECT p.* FROM {} AS p WHERE {})").format(rows, sql.SQL(part))


def _asked(use: SequenceUse) -> str:
    return (
        f"{use.of.said} is made by {use.by}, which calls a function. To see what it makes of a number, it was called"
        f" {numbering.PROBES} times, and {use.sequence} moved by as much."
    )


def _of_others(sequence: str, number: int, columns: Sequence[str]) -> str:
    shown = ", ".join(columns[:_SHOWN]) + (f" and {len(columns) - _SHOWN} more" if len(columns) > _SHOWN else "")
    return (
        f"{sequence} will be moved past {number:,}, a number of a restored row. {shown}"
        f" {'gets' if len(columns) == 1 else 'get'} the next numbers too."
    )


def _unclear(use: SequenceUse) -> str:
    return (
        f"{use.of.said} is made from {use.sequence}, but how {use.by} does that cannot be told. The sequence"
        " is not moved. Compare its next values with those of the rows after the restore."
    )


def _unread(use: SequenceUse, left: int) -> str:
    return (
        f"{left:,} of the restored values of {use.of.said} are not among those that {use.sequence} gives soon, by what"
        f" {use.by} does with its numbers. It may give them later: compare them with its next values."
    )


def refusals(found: Sequence[SequenceUse], role: str) -> Iterator[Refusal]:
    """Refuse sequences that the role may not set, before anything is written."""
    for use in found:
        if not use.known.may:
            yield Refusal(
                use.table,
                f"The role {role} may not set {use.sequence}, from which {use.table}.{use.column} gets its numbers.",
                f"GRANT SELECT, UPDATE ON SEQUENCE {use.sequence} TO {role};",
            )


def positions(workspace: Workspace, known: Sequence[Known]) -> dict[str, int]:
    """The positions of those sequences that this role may read. Sequences that were never used are left out."""
    names = {each.oid: each.sequence for each in known}
    found = workspace.rows(
        "SELECT s.oid, pg_sequence_last_value(s.oid::oid) FROM unnest(%(oids)s) AS s (oid)"
        " WHERE has_sequence_privilege(s.oid::oid, 'USAGE, SELECT')",
        {"oids": list(names)},
        "reading the sequences",
    ) if names else []  # fmt: skip
    return {names[oid]: int(number) for oid, number in found if number is not None}


def moved(workspace: Workspace, known: Sequence[Known], before: Mapping[str, int]) -> dict[str, int]:
    """By how much each sequence has moved since."""
    return {
        name: abs(number - before.get(name, 0))
        for name, number in positions(workspace, known).items()
        if number != before.get(name)
    }
