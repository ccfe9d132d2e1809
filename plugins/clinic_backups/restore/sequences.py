"""Sequences after a restore: the next number must not be one that a row has."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from psycopg2 import sql

from clinic_backups.restore.diff import TableDiff
from clinic_backups.restore.model import Refusal
from clinic_backups.restore.workspace import Workspace, qualified
from clinic_backups.tenant.pg_catalog import catalog_query

ENOUGH_FREE = 1000
"""Numbers that are free from where a sequence is; with fewer it looks for a better place."""
_NEXTVAL = re.compile(r"nextval\(\(?'(?:[^']|'')+'(?:::text\)?)?(?:::regclass)?\)")
FEW_STEPS = 200
"""A sequence goes so many steps by ``nextval``, which no other session can undo; a longer way by ``setval``."""


@dataclass(frozen=True)
class SequenceUse:
    """A column that takes its numbers from a sequence: by a default, a function, a trigger, as owner or as an identity.

    :param sequence: qualified and quoted.
    :param numbers: the column is a number; else a text is made of the sequence's number.
    :param may: this role may read and set the sequence.
    """

    table: str
    column: str
    sequence: str
    increment: int
    lowest: int
    highest: int
    cycle: bool
    numbers: bool
    may: bool
    expression: str | None = None
    """The default; none for an identity."""
    type: str = "bigint"


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


def read(workspace: Workspace, names: Sequence[str]) -> tuple[list[SequenceUse], list[Unseen]]:
    """What the columns of these tables take their numbers from."""
    found = workspace.rows(catalog_query("sequences"), {"names": list(names)}, "looking for sequences")
    seen = [SequenceUse(*row) for row in found if row[2] is not None]
    return seen, [Unseen(row[0], row[1], row[9]) for row in found if row[2] is None]


def uses(workspace: Workspace, diffs: Mapping[str, TableDiff]) -> tuple[list[SequenceUse], list[Unseen]]:
    """Sequences of tables that are written, with every column of the database that takes its numbers from them."""
    written = {name for name, diff in diffs.items() if diff.plan.insert or diff.plan.update}
    if not written:
        return [], []
    found, unseen = read(workspace, list(workspace.relations()))
    # Other tables may take their numbers from the same sequence.
    moved = {use.sequence for use in found if use.table in written}
    return [use for use in found if use.sequence in moved], [each for each in unseen if each.table in written]


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


def advance(workspace: Workspace, found: Sequence[SequenceUse]) -> None:
    """Move each sequence to where its next number collides with nothing.

    A sequence moves in its own direction and steps only, so that others which take every second number keep theirs. It
    is not taken back when the restore is rolled back, which leaves a gap and harms nothing.
    """
    by_sequence: dict[str, list[SequenceUse]] = defaultdict(list)
    for use in found:
        by_sequence[use.sequence].append(use)
    for name, columns in by_sequence.items():
        use = columns[0]
        last = max if use.increment > 0 else min
        ((position, called),) = workspace.rows(
            sql.SQL("SELECT last_value, is_called FROM {}").format(sql.SQL(name)), None, f"reading {name}"
        )
        following = position + use.increment if called else position
        reached = [_furthest(workspace, column, following) for column in columns]
        numbers = [number for number in reached if number is not None]
        if not numbers:
            continue
        furthest = last(numbers)
        if use.cycle or not use.lowest <= furthest <= use.highest:
            _skip_taken(workspace, [column for column in columns if column.numbers], following)
        elif (furthest - following) * use.increment >= 0:
            _move(workspace, use, following, following + _steps(furthest - following, use.increment) * use.increment)


def _furthest(workspace: Workspace, use: SequenceUse, following: int) -> int | None:
    """The number of the column that is furthest in the sequence's direction; none without one."""
    column, doing = sql.Identifier(use.column), f"reading the numbers of {use.table}.{use.column}"
    if use.numbers:
        query = sql.SQL("SELECT {}({}) FROM {}").format(
            sql.SQL("max" if use.increment > 0 else "min"), column, qualified(use.table)
        )
        ((found,),) = workspace.rows(query, None, doing)
        return None if found is None else int(found)
    made, times = _NEXTVAL.subn("(g.n)", use.expression or "")
    if times != 1:
        return None
    # A text is made of the number: the default itself says which texts the next numbers would give.
    ((rows,),) = workspace.rows(sql.SQL("SELECT count(*) FROM {}").format(qualified(use.table)), None, doing)
    numbers = sql.SQL("generate_series({}::bigint, {}::bigint, {}::bigint)").format(
        sql.Literal(following), sql.Literal(following + use.increment * (int(rows) + 1000)), sql.Literal(use.increment)
    )
    query = sql.SQL("SELECT {}(g.n) FROM {} AS g (n) JOIN {} AS t ON t.{}::text = ({})::{}::text").format(
        sql.SQL("max" if use.increment > 0 else "min"), numbers, qualified(use.table), column, sql.SQL(made),
        sql.SQL(use.type),
    )  # fmt: skip
    ((found,),) = workspace.rows(query, None, doing)
    return None if found is None else int(found)


def _steps(distance: int, increment: int) -> int:
    return -(-abs(distance) // abs(increment))


def _move(workspace: Workspace, use: SequenceUse, following: int, target: int) -> None:
    """Make ``target`` the last number that was given out."""
    target = min(max(target, use.lowest), use.highest)
    steps = abs(target - following) // abs(use.increment) + 1
    name = sql.Literal(use.sequence)
    if steps <= FEW_STEPS:
        query = sql.SQL("SELECT max(nextval({}::regclass)) FROM generate_series(1, {})").format(
            name, sql.Literal(steps)
        )
    else:
        query = sql.SQL("SELECT setval({}::regclass, {})").format(name, sql.Literal(target))
    workspace.rows(query, None, f"moving {use.sequence}")


def _skip_taken(workspace: Workspace, columns: Sequence[SequenceUse], following: int) -> None:
    """A sequence that begins again at its end, or whose end rows have passed: the next numbers have to be free.

    It stays where it is when enough are free from there, and else goes to where most are.
    """
    if not columns:
        return
    use = columns[0]
    ends = (use.lowest - 1, use.highest + 1)
    taken = sql.SQL(" UNION ").join(
        sql.SQL("SELECT {0}::numeric AS n FROM {1} WHERE {0} IS NOT NULL").format(
            sql.Identifier(column.column), qualified(column.table)
        )
        for column in columns
        if column.numbers
    )
    # The distance from each number that is taken to the next one; both ends count as taken.
    query = sql.SQL("""
        WITH taken AS ({taken} UNION SELECT unnest(ARRAY[{low}, {high}]::numeric[])),
             gaps AS (SELECT n, lead(n) OVER (ORDER BY n) - n - 1 AS free FROM taken)
        (SELECT n, free FROM gaps WHERE free > 0 AND n BETWEEN {low} AND {high} ORDER BY free DESC LIMIT 1)
        UNION ALL
        (SELECT n, free FROM gaps WHERE n < {following} AND n + free >= {following} ORDER BY n DESC LIMIT 1)""").format(
        taken=taken, low=sql.Literal(ends[0]), high=sql.Literal(ends[1]), following=sql.Literal(following)
    )
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
    if not use.lowest <= start <= use.highest:
        return
    query = sql.SQL("SELECT setval({}::regclass, {}, false)").format(sql.Literal(use.sequence), sql.Literal(start))
    workspace.rows(query, None, f"moving {use.sequence}")
