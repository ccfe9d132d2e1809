"""Sequences after a restore: the next number must not be one that a row has.

A sequence moves only where it is known that its next numbers would give a value that came back, and only so far.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from psycopg2 import sql

from clinic_backups.base.database import qualified
from clinic_backups.restore import numbering
from clinic_backups.restore.diff import TableDiff
from clinic_backups.restore.model import Refusal
from clinic_backups.restore.numbering import Numbering
from clinic_backups.restore.workspace import Workspace
from clinic_backups.tenant.pg_catalog import catalog_query

ENOUGH_FREE = 1000
"""Numbers that are free from where a sequence is; with fewer it looks for a better place."""
FEW_STEPS = 200
"""A sequence goes so many steps by ``nextval``, which no other session can undo; a longer way by ``setval``."""


@dataclass(frozen=True)
class SequenceUse:
    """A column that takes its numbers from a sequence.

    :param sequence: qualified and quoted.
    :param may: this role may read and set the sequence.
    :param type: the column's, without domains.
    :param how: by its default, by a function that the default calls, by a trigger, or as owner and as an identity.
    :param expression: the default, or what the trigger assigns.
    """

    table: str
    column: str
    sequence: str
    increment: int
    lowest: int
    highest: int
    cycle: bool
    may: bool
    type: str
    how: Literal["default", "function", "trigger", "owner"]
    expression: str | None


@dataclass(frozen=True)
class Unseen:
    """A unique column whose default calls a function of which nothing tells the sequence.

    :param function: qualified and quoted.
    """

    table: str
    column: str
    function: str

    @property
    def said(self) -> str:
        return (
            f"The default of {self.table}.{self.column} calls {self.function}, and what that takes numbers from cannot"
            " be seen: after a restore it may give a value that a row has."
        )


@dataclass(frozen=True)
class Numbered:
    """A use of which it is known how numbers become values.

    :param back: SQL of the rows that come back with a value of the column; none where none does.
    """

    use: SequenceUse
    numbering: Numbering
    back: sql.Composable | None


@dataclass
class Found:
    """The sequences of what comes back.

    :param uses: all columns that take numbers from them.
    :param notes: a table, and what the plan says about it.
    """

    uses: list[SequenceUse] = field(default_factory=list)
    numbered: list[Numbered] = field(default_factory=list)
    notes: list[tuple[str, str]] = field(default_factory=list)


def read(workspace: Workspace, names: Sequence[str]) -> tuple[list[SequenceUse], list[Unseen]]:
    """What the columns of these tables take their numbers from."""
    found = workspace.rows(catalog_query("sequences"), {"names": list(names)}, "looking for sequences")
    seen = [SequenceUse(*row) for row in found if row[2] is not None]
    told = {(use.table, use.column, use.sequence) for use in seen if use.how != "owner"}
    uses = [use for use in seen if use.how != "owner" or (use.table, use.column, use.sequence) not in told]
    return uses, [Unseen(row[0], row[1], row[10]) for row in found if row[2] is None]


def find(workspace: Workspace, diffs: Mapping[str, TableDiff]) -> Found:
    """Sequences of columns that get values back, with every column of the database that takes its numbers from them."""
    result = Found()
    if not any(diff.plan.insert or diff.plan.update for diff in diffs.values()):
        return result
    uses, unseen = read(workspace, list(workspace.relations()))
    columns = {(use.table, use.column) for use in uses} | {(each.table, each.column) for each in unseen}
    back = {(table, column): _back(diffs.get(table), column) for table, column in columns}
    # Other tables may take their numbers from the same sequence.
    moved = {use.sequence for use in uses if back[use.table, use.column] is not None}
    result.uses = [use for use in uses if use.sequence in moved]
    result.notes = [(each.table, each.said) for each in unseen if back[each.table, each.column] is not None]
    known: dict[tuple[str | None, str, str, str], Numbering | None] = {}
    for use in result.uses:
        if not use.may:
            continue
        here = back[use.table, use.column]
        means = (use.expression, use.type, use.sequence, use.how)
        if means not in known:
            known[means] = _numbering(workspace, use, uses)
            if use.how == "function" and known[means] is not None:
                result.notes.append((use.table, _asked(use)))
        if (found := known[means]) is not None:
            result.numbered.append(Numbered(use, found, here))
        elif here is not None:
            result.notes.append((use.table, _unclear(use)))
    return result


def _numbering(workspace: Workspace, use: SequenceUse, uses: Sequence[SequenceUse]) -> Numbering | None:
    of_column = [other for other in uses if (other.table, other.column) == (use.table, use.column)]
    if use.how in ("default", "function") and any(
        other.how in ("default", "function") and (other.sequence, other.how) != (use.sequence, use.how)
        for other in of_column
    ):
        return None  # it takes numbers from several places: which of them stands where cannot be told
    if use.how == "function":
        return numbering.by_function(workspace, use.expression or "", use.type, use.sequence)
    following = _following(workspace, use)
    new = use.table if use.how == "trigger" else None
    found = numbering.by_expression(workspace, use.expression, use.type, following, use.increment, new=new)
    if found is None or not numbering.holds_for(workspace, found, use.column, qualified(use.table), following):
        return None
    return found


def _back(diff: TableDiff | None, column: str) -> sql.Composable | None:
    """SQL of the rows that come back with a value of the column; none where none does."""
    if diff is None or column not in diff.staged.shape.columns:
        return None
    operations = [
        *(["insert"] if diff.plan.insert else []),
        *(["update"] if diff.plan.update and column in diff.plan.columns else []),
    ]
    if not operations:
        return None
    if diff.whole:
        return sql.SQL("({})").format(diff.written)
    return sql.SQL("(SELECT w.* FROM {} AS o JOIN {} AS w ON {} WHERE o.op IN ({}))").format(
        diff.ops, diff.staged.wanted, diff.joins("w"), sql.SQL(", ").join(map(sql.Literal, operations))
    )


def _asked(use: SequenceUse) -> str:
    return (
        f"The default of {use.table}.{use.column} calls a function: to see what it makes of a number, it was called"
        f" {numbering.PROBES} times, and {use.sequence} went on by as much."
    )


def _unclear(use: SequenceUse) -> str:
    by = "a trigger" if use.how == "trigger" else "the default"
    return (
        f"{use.table}.{use.column} is made from {use.sequence}, and how {by} does that cannot be told: the sequence"
        " is not moved. Compare its next values with those of the rows after the restore."
    )


def refusals(found: Sequence[SequenceUse], role: str) -> Iterator[Refusal]:
    """A sequence that could not be set is found before anything is written."""
    for use in found:
        if not use.may:
            yield Refusal(
                use.table,
                f"The role {role} may not set {use.sequence}, from which {use.table}.{use.column} takes its numbers.",
                f"GRANT SELECT, UPDATE ON SEQUENCE {use.sequence} TO {role};",
            )


def positions(workspace: Workspace) -> dict[str, int]:
    """How far every sequence is that this role may read; those that nobody has used are left out."""
    found = workspace.rows(
        "SELECT quote_ident(schemaname) || '.' || quote_ident(sequencename), last_value FROM pg_sequences"
        " WHERE last_value IS NOT NULL",
        None,
        "reading the sequences",
    )
    return {str(name): int(number) for name, number in found}


def moved(workspace: Workspace, before: Mapping[str, int]) -> dict[str, int]:
    """By how much each sequence went on since."""
    return {
        name: abs(number - before.get(name, 0))
        for name, number in positions(workspace).items()
        if number != before.get(name)
    }


def advance(workspace: Workspace, found: Sequence[Numbered]) -> None:
    """Move each sequence to where its next number collides with nothing that came back.

    A sequence moves in its own direction and steps only, so that others which take every second number keep theirs. It
    is not taken back when the restore is rolled back, which leaves a gap and harms nothing.
    """
    by_sequence: dict[str, list[Numbered]] = defaultdict(list)
    for each in found:
        by_sequence[each.use.sequence].append(each)
    for columns in by_sequence.values():
        _advance(workspace, columns)


def _advance(workspace: Workspace, columns: Sequence[Numbered]) -> None:
    use = columns[0].use
    following, up = _following(workspace, use), use.increment > 0
    low, high = use.lowest, use.highest
    for column in columns:
        low, high = column.numbering.bounds(low, high)
    if not use.cycle:
        low, high = (max(low, following), high) if up else (low, min(high, following))
    if low > high:
        return
    back = _numbers(workspace, columns, following, of_back=True)
    query = sql.SQL("SELECT {}(b.n) FROM ({}) AS b WHERE b.n BETWEEN {} AND {} AND (b.n - {}) % {} = 0").format(
        sql.SQL("max" if up else "min"), back,
        *(sql.Literal(number) for number in (low, high, following, use.increment)),
    )  # fmt: skip
    ((furthest,),) = workspace.rows(query, None, f"reading the numbers of {use.table}.{use.column}")
    if furthest is None:
        return  # nothing that came back is a number that the sequence will give
    last = int(furthest)
    if not use.cycle:
        last = _last_taken(workspace, columns, following, last + use.increment)
    if use.cycle or (high - last if up else last - low) // abs(use.increment) < ENOUGH_FREE:
        _skip_taken(workspace, columns, following, (low, high))
    else:
        _move(workspace, use, following, last)


def _following(workspace: Workspace, use: SequenceUse) -> int:
    """The number that the sequence gives next."""
    ((position, called),) = workspace.rows(
        sql.SQL("SELECT last_value, is_called FROM {}").format(sql.SQL(use.sequence)), None, f"reading {use.sequence}"
    )
    return int(position) + use.increment if called else int(position)


def _numbers(workspace: Workspace, columns: Sequence[Numbered], following: int, *, of_back: bool) -> sql.Composed:
    """SELECT of ``n``: numbers of the rows that come back, or of all rows."""
    parts = []
    for column in columns:
        use, rows = column.use, column.back if of_back else qualified(column.use.table)
        if rows is None:
            continue
        end = following
        if column.numbering.is_searched:
            ((count,),) = workspace.rows(
                sql.SQL("SELECT count(*) FROM {}").format(qualified(use.table)), None, f"counting {use.table}"
            )
            end += use.increment * (int(count) + numbering.WINDOW)
        end = max(use.lowest, min(use.highest, end))
        parts.append(column.numbering.numbers(use.column, rows, (following, end, use.increment)))
    return sql.SQL(" UNION ALL ").join(sql.SQL("({})").format(part) for part in parts)


def _last_taken(workspace: Workspace, columns: Sequence[Numbered], following: int, first: int) -> int:
    """The number before the first free one, from ``first`` on: rows that were not restored have numbers too."""
    use = columns[0].use
    query = sql.SQL("""
        WITH taken AS MATERIALIZED (SELECT n FROM ({all}) AS a WHERE n {beyond} {first} AND (n - {first}) % {step} = 0)
        SELECT {nearest}(c.n) FROM (SELECT ({first} - {step})::numeric AS n UNION SELECT n FROM taken) AS c
         WHERE NOT EXISTS (SELECT FROM taken AS t WHERE t.n = c.n + {step})""").format(
        all=_numbers(workspace, columns, following, of_back=False),
        beyond=sql.SQL(">=" if use.increment > 0 else "<="),
        first=sql.Literal(first),
        step=sql.SQL("({})").format(sql.Literal(use.increment)),
        nearest=sql.SQL("min" if use.increment > 0 else "max"),
    )
    ((last,),) = workspace.rows(query, None, f"reading the numbers of {use.table}.{use.column}")
    return int(last)


def _move(workspace: Workspace, use: SequenceUse, following: int, target: int) -> None:
    """Make ``target`` the last number that was given out."""
    steps = abs(target - following) // abs(use.increment) + 1
    name = sql.Literal(use.sequence)
    if steps <= FEW_STEPS:
        query = sql.SQL("SELECT max(nextval({}::regclass)) FROM generate_series(1, {})").format(
            name, sql.Literal(steps)
        )
    else:
        # Others may have gone further meanwhile.
        query = sql.SQL("SELECT setval({}::regclass, {}({}, last_value)) FROM {}").format(
            name, sql.SQL("greatest" if use.increment > 0 else "least"), sql.Literal(target), sql.SQL(use.sequence)
        )
    workspace.rows(query, None, f"moving {use.sequence}")


def _skip_taken(workspace: Workspace, columns: Sequence[Numbered], following: int, between: tuple[int, int]) -> None:
    """A sequence that begins again at its end, or that rows bring near to its end: the next numbers must be free.

    It stays where it is when enough are free from there, and else goes to where most are.

    :param between: the numbers that it may give.
    """
    use = columns[0].use
    lowest, highest = between
    ends = (lowest - 1, highest + 1)
    # The distance from each number that is taken to the next one; both ends count as taken.
    query = sql.SQL("""
        WITH taken AS (SELECT n::numeric FROM ({taken}) AS a WHERE n BETWEEN {low} AND {high}
                        UNION SELECT unnest(ARRAY[{low}, {high}]::numeric[])),
             gaps AS (SELECT n, lead(n) OVER (ORDER BY n) - n - 1 AS free FROM taken)
        (SELECT n, free FROM gaps WHERE free > 0 AND n BETWEEN {low} AND {high} ORDER BY free DESC LIMIT 1)
        UNION ALL
        (SELECT n, free FROM gaps WHERE n < {following} AND n + free >= {following} ORDER BY n DESC LIMIT 1)""").format(
        taken=_numbers(workspace, columns, following, of_back=False), low=sql.Literal(ends[0]),
        high=sql.Literal(ends[1]), following=sql.Literal(following),
    )  # fmt: skip
    gaps = [(int(number), int(free)) for number, free in workspace.rows(query, None, f"reading {use.table}")]
    if not gaps:
        return
    largest, here = gaps[0], gaps[1:]
    up = use.increment > 0
    left = [number + free - following + 1 if up else following - number for number, free in here]
    if left and (left[0] >= ENOUGH_FREE or left[0] * 2 >= largest[1]):
        return
    number, free = largest
    start = number + 1 if up else number + free
    # In its own steps: numbers of the same remainder.
    start += (following - start) % use.increment
    if not lowest <= start <= highest:
        return
    query = sql.SQL("SELECT setval({}::regclass, {}, false)").format(sql.Literal(use.sequence), sql.Literal(start))
    workspace.rows(query, None, f"moving {use.sequence}")
