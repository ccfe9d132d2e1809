"""Moves sequences to positions whose next numbers are free.

A sequence moves only if it is known that its next numbers would give a restored value, and no further than needed.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from psycopg2 import sql

from clinic_backups.base.database import qualified
from clinic_backups.restore.questions import ROWS_AT_ONCE, Question, answers
from clinic_backups.restore.sequences import numbering
from clinic_backups.restore.sequences.number_rows import rows_named
from clinic_backups.restore.sequences.numbering import Numbering
from clinic_backups.restore.sequences.sequence_model import SequenceUse
from clinic_backups.restore.workspace import Workspace

ENOUGH_FREE = 1000
"""If fewer numbers than this are free ahead of a sequence, it looks for a better position."""
FEW_STEPS = 200
"""Up to this many steps are made with ``nextval``, which no other session can undo; more with ``setval``."""

Furthest = dict[tuple[str, int], int | None]
"""By sequence and the number that it returns next: the furthest number ahead that a restored row has, if any."""
_POSITION = "SELECT pg_sequence_last_value({}::oid)"


@dataclass(frozen=True)
class GivenColumn:
    """A column whose values come from a sequence in a known way.

    :param back: SQL of the restored rows that have a value in the column. ``None``: no such row comes back.
    """

    use: SequenceUse
    numbering: Numbering
    back: sql.Composable | None


def rows_of(use: SequenceUse, rows: sql.Composable) -> sql.Composable:
    """Those of the rows that this use of the sequence concerns."""
    if use.named is None:
        return rows
    return rows_named(rows, use.named, use.column, use.type, use.names)


def advance(workspace: Workspace, found: Sequence[GivenColumn], known: Furthest | None = None) -> None:
    """Move each sequence so that its next number gives no restored value.

    A sequence moves only in its own direction and in its own steps, so that others which take every second number keep
    theirs. A rollback of the restore does not undo the move. That leaves a gap and harms nothing.

    :param known: what :func:`furthest` has found of the same rows. A sequence that has moved since is asked again.
    """
    starts = list[_Start]()
    groups = [columns for columns in _by_sequence(found).values() if any(each.back is not None for each in columns)]
    for columns, position in zip(groups, _positions(workspace, groups), strict=True):
        use = columns[0].use
        taken = _take(workspace, use) if position is None else None
        following = (taken or 0) if position is None else position + use.known.increment
        starts.append(_Start(columns, following, taken))
    for start, last in zip(starts, _furthest(workspace, starts, known or {}), strict=True):
        if last is not None:  # else no column can hold its numbers, or no restored value is one that it will return
            _advance(workspace, start, last)


def furthest(workspace: Workspace, found: Sequence[GivenColumn]) -> Furthest:
    """The furthest number of a restored row that each sequence would still return, and would be moved past."""
    groups = list(_by_sequence(found).values())
    starts = [
        _Start(columns, _following(columns[0].use, position))
        for columns, position in zip(groups, _positions(workspace, groups), strict=True)
    ]
    return dict(zip([start.named for start in starts], _furthest(workspace, starts, {}), strict=True))


@dataclass(frozen=True)
class _Start:
    """A sequence before it moves.

    :param columns: the columns that get its numbers.
    :param following: the number that it returns next.
    :param taken: the number that was taken from it, to see its position.
    """

    columns: Sequence[GivenColumn]
    following: int
    taken: int | None = None

    @property
    def named(self) -> tuple[str, int]:
        """See :data:`Furthest`."""
        return self.columns[0].use.sequence, self.following

    @property
    def between(self) -> tuple[int, int] | None:
        """See :func:`_between`."""
        return _between(self.columns, self.following)


def _by_sequence(found: Sequence[GivenColumn]) -> dict[str, list[GivenColumn]]:
    by_sequence: dict[str, list[GivenColumn]] = defaultdict(list)
    for each in found:
        by_sequence[each.use.sequence].append(each)
    return by_sequence


def _furthest(workspace: Workspace, starts: Sequence[_Start], known: Furthest) -> list[int | None]:
    """For each sequence, the furthest number ahead that a restored row has."""
    questions = [None if start.named in known else _furthest_of(workspace, start) for start in starts]
    searched = any(column.numbering.is_searched for start in starts for column in start.columns)
    rows = ROWS_AT_ONCE if searched else 1  # each number that is tried is hashed
    asked = iter(answers(workspace, [each for each in questions if each is not None], rows=rows, as_application=True))
    found = [
        known.get(start.named) if question is None else next(asked)[0]
        for start, question in zip(starts, questions, strict=True)
    ]
    return [None if number is None else int(number) for number in found]


def _furthest_of(workspace: Workspace, start: _Start) -> Question | None:
    use, between = start.columns[0].use, start.between
    if between is None or all(column.back is None for column in start.columns):
        return None
    back = _numbers(workspace, start.columns, start.following, of_back=True)
    query = sql.SQL("SELECT {}(b.n) FROM ({}) AS b WHERE b.n BETWEEN {} AND {} AND (b.n - {}) % {} = 0").format(
        sql.SQL("max" if use.known.increment > 0 else "min"), back,
        *(sql.Literal(number) for number in (*between, start.following, use.known.increment)),
    )  # fmt: skip
    return Question(query, f"reading the numbers of {use.table}.{use.column}")


def _advance(workspace: Workspace, start: _Start, last: int) -> None:
    """:param last: the furthest number ahead that a restored row has."""
    columns, following, between = start.columns, start.following, start.between
    use = columns[0].use
    if between is None:
        return
    (low, high), up = between, use.known.increment > 0
    if not use.known.cycle:
        last = _last_taken(workspace, columns, following, last + use.known.increment)
    if use.known.cycle or (high - last if up else last - low) // abs(use.known.increment) < ENOUGH_FREE:
        _skip_taken(workspace, columns, following, (low, high))
    else:
        _move(workspace, use, following if start.taken is None else following + use.known.increment, last)


def _between(columns: Sequence[GivenColumn], following: int) -> tuple[int, int] | None:
    """The numbers to which a sequence may be moved: the range of the narrowest column that has enough of them left.

    A column whose type can no longer hold the sequence's present numbers is ignored.
    """
    known = columns[0].use.known
    ends = [column.numbering.bounds(known.lowest, known.highest) for column in columns]
    if known.cycle:
        low, high = max(low for low, _ in ends), min(high for _, high in ends)
        return (low, high) if low <= high else max(ends, key=lambda end: end[1] - end[0])
    ahead = [(max(low, following), high) if known.increment > 0 else (low, min(high, following)) for low, high in ends]
    ahead = [end for end in ahead if end[0] <= end[1]]
    roomy = [end for end in ahead if (end[1] - end[0]) // abs(known.increment) >= ENOUGH_FREE]
    if roomy:
        return min(roomy, key=lambda end: end[1] - end[0])
    return max(ahead, key=lambda end: end[1] - end[0], default=None)


def following_of(workspace: Workspace, use: SequenceUse) -> int:
    """The number that the sequence returns next.

    PostgreSQL tells its position by its number only if it was used since it was made or set. Otherwise this is the
    number that it was made to start with.
    """
    return _following(use, _position(workspace, use))


def _following(use: SequenceUse, position: int | None) -> int:
    return use.known.start if position is None else position + use.known.increment


def _take(workspace: Workspace, use: SequenceUse) -> int | None:
    """Take a number: that shows the position in any case."""
    return _asked_by_number(workspace, use, "SELECT nextval({}::oid::regclass)")


def _position(workspace: Workspace, use: SequenceUse) -> int | None:
    return _asked_by_number(workspace, use, _POSITION)


def _positions(workspace: Workspace, groups: Sequence[Sequence[GivenColumn]]) -> list[int | None]:
    """The position of each group's sequence."""
    found = answers(workspace, [_by_number(columns[0].use, _POSITION) for columns in groups])
    return [None if number is None else int(number) for (number,) in found]


def _asked_by_number(workspace: Workspace, use: SequenceUse, query: str) -> int | None:
    question = _by_number(use, query)
    ((number,),) = workspace.rows(question.query, None, question.doing)
    return None if number is None else int(number)


def _by_number(use: SequenceUse, query: str) -> Question:
    """Ask for a sequence by PostgreSQL's number of it: the name may mean something else by now, as a view.

    PostgreSQL refuses it if it is no sequence. Otherwise it stays one until the transaction ends.
    """
    return Question(sql.SQL(query).format(sql.Literal(use.known.oid)), f"reading {use.sequence}")


def window_of(workspace: Workspace, use: SequenceUse, following: int) -> tuple[int, int, int]:
    """First, last and step of the numbers that are tried one by one: near the sequence's position, on both sides."""
    ((count,),) = workspace.rows(
        sql.SQL("SELECT count(*) FROM {}").format(qualified(use.table)), None, f"counting {use.table}"
    )
    known, steps = use.known, int(count) + numbering.WINDOW
    step = known.increment
    room = [(following - end) // step if step > 0 else (end - following) // -step
            for end in ((known.lowest, known.highest) if step > 0 else (known.highest, known.lowest))]  # fmt: skip
    before, after = min(steps, max(0, room[0])), min(steps, max(0, -room[1]))
    return following - before * step, following + after * step, step


def _numbers(workspace: Workspace, columns: Sequence[GivenColumn], following: int, *, of_back: bool) -> sql.Composed:
    """SELECT of ``n``: the numbers of the restored rows, or of all rows, that each column's type can hold."""
    parts = []
    for column in columns:
        use, numbers = column.use, column.numbering
        rows = column.back if of_back else rows_of(use, qualified(use.table))
        if rows is None:
            continue
        window = window_of(workspace, use, following) if numbers.is_searched else (following, following, 1)
        low, high = numbers.bounds(use.known.lowest, use.known.highest)
        parts.append(
            sql.SQL("(SELECT c.n FROM ({}) AS c WHERE c.n BETWEEN {} AND {})").format(
                numbers.numbers(use.column, rows, window), sql.Literal(low), sql.Literal(high)
            )
        )
    return sql.SQL(" UNION ALL ").join(parts)


def _last_taken(workspace: Workspace, columns: Sequence[GivenColumn], following: int, first: int) -> int:
    """The last taken number before the first free one, from ``first`` on.

    Rows that were not restored have numbers too.
    """
    use = columns[0].use
    query = sql.SQL("""
        WITH taken AS MATERIALIZED (SELECT n FROM ({all}) AS a WHERE n {beyond} {first} AND (n - {first}) % {step} = 0)
        SELECT {nearest}(c.n) FROM (SELECT ({first} - {step})::numeric AS n UNION SELECT n FROM taken) AS c
         WHERE NOT EXISTS (SELECT FROM taken AS t WHERE t.n = c.n + {step})""").format(
        all=_numbers(workspace, columns, following, of_back=False),
        beyond=sql.SQL(">=" if use.known.increment > 0 else "<="),
        first=sql.Literal(first),
        step=sql.SQL("({})").format(sql.Literal(use.known.increment)),
        nearest=sql.SQL("min" if use.known.increment > 0 else "max"),
    )
    ((last,),) = workspace.as_application(query, 1, f"reading the numbers of {use.table}.{use.column}")
    return int(last)


def _move(workspace: Workspace, use: SequenceUse, following: int, target: int) -> None:
    """Set the sequence so that ``target`` is the last number that it has returned.

    :param following: the number that it returns next. If it lies behind ``target``, there is nothing to do.
    """
    steps = (target - following) // use.known.increment + 1
    if steps <= 0:
        return
    oid = sql.Literal(use.known.oid)
    if steps <= FEW_STEPS:
        query = sql.SQL("SELECT max(nextval({}::oid::regclass)) FROM generate_series(1, {})").format(
            oid, sql.Literal(steps)
        )
    else:
        # Other sessions may have moved it further meanwhile.
        query = sql.SQL("SELECT setval({0}::oid::regclass, {1}({2}, pg_sequence_last_value({0}::oid)))").format(
            oid, sql.SQL("greatest" if use.known.increment > 0 else "least"), sql.Literal(target)
        )
    workspace.rows(query, None, f"moving {use.sequence}")


def _skip_taken(workspace: Workspace, columns: Sequence[GivenColumn], following: int, between: tuple[int, int]) -> None:
    """Move a sequence to free numbers if it is near its end, or begins again there.

    If enough numbers are free where it is, it stays. Otherwise it moves to the longest free range.

    :param between: the numbers that it may return.
    """
    use = columns[0].use
    lowest, highest = between
    ends = (lowest - 1, highest + 1)
    # The distance from each taken number to the next one. Both ends count as taken.
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
    found = workspace.as_application(query, 2, f"reading {use.table}")
    gaps = [(int(number), int(free)) for number, free in found]
    if not gaps:
        return
    largest, here = gaps[0], gaps[1:]
    up = use.known.increment > 0
    left = [number + free - following + 1 if up else following - number for number, free in here]
    if left and (left[0] >= ENOUGH_FREE or left[0] * 2 >= largest[1]):
        return
    number, free = largest
    start = number + 1 if up else number + free
    # Only numbers that its step can reach.
    start += (following - start) % use.known.increment
    if not lowest <= start <= highest:
        return
    query = sql.SQL("SELECT setval({}::oid::regclass, {}, false)").format(
        sql.Literal(use.known.oid), sql.Literal(start)
    )
    workspace.rows(query, None, f"moving {use.sequence}")
