"""Compares two states of a clinic row by row.

Blocks that both sides have hold equal rows and are not looked at. The rows of the second side's other blocks are kept
in memory, and those of the first side meet them as they are read: equal rows as bytes, the others by their keys. If
that would take too much memory, the rows are divided by their keys into parts, and each part is compared in a pass of
its own.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from zlib import crc32

from clinic_backups.archive.blocks import BlockList
from clinic_backups.archive.csv_rows import fields_of, plain_number, text_of, texts_of
from clinic_backups.archive.whole_rows import rows_of
from clinic_backups.base.listening import nobody
from clinic_backups.base.row_key import is_exact_number
from clinic_backups.base.table import Table
from clinic_backups.differences.found import RowDifference, TableDifference
from clinic_backups.differences.sides import Side, TakeBlock, is_same

KEPT_BYTES = 256 * 1024 * 1024
"""About how much memory the rows of one pass take."""
ROW_OVERHEAD_BYTES = 300
"""What Python needs for a kept row besides its bytes."""

SPLIT, MOST_PARTS = 4, 4**8
"""A part that is too large is divided into so many, until there are so many parts."""

Key = tuple[bytes | None, ...]


def compare(
    first: Side,
    second: Side,
    tables: Sequence[str] = (),
    *,
    on_row: Callable[[RowDifference], object] | None = None,
    on_pass: Callable[[int], object] = nobody,
    kept_bytes: int = KEPT_BYTES,
) -> list[TableDifference]:
    """The differences by table, in order of name.

    If one side is a database, let it be the second one: as the first one it is read twice.

    :param tables: only these; by default all.
    :param on_row: told each row that differs.
    :param on_pass: told the number of a further pass.
    """
    names = sorted(name for name in {*first.tables, *second.tables} if not tables or name in tables)
    found = {name: _Table.of(name, first, second, on_row) for name in names}
    both = {name: each for name, each in found.items() if each.is_on_both_sides}
    for name, each in found.items():
        if name not in both:
            each.count_alone(first, second)
    comparison = _Comparison(first, second, both, kept_bytes)
    waiting, passes = [(0, 1)], 0
    while waiting:
        part, parts = waiting.pop()
        passes += 1
        if passes > 1:
            on_pass(passes)
        if not comparison.passed(part, parts):
            waiting += [(part + number * parts, parts * SPLIT) for number in reversed(range(SPLIT))]
    return [each.difference for each in found.values()]


class _Comparison:
    """Reads both sides, once for each part of the keys."""

    def __init__(self, first: Side, second: Side, tables: Mapping[str, _Table], kept_bytes: int) -> None:
        self._first, self._second, self._tables, self._kept_bytes = first, second, tables, kept_bytes
        self._blocks = {name: first.blocks(name) for name, each in tables.items() if each.is_same}
        self._own = {name: self._blocks.get(name, BlockList()).counted() for name in tables}

    def passed(self, part: int, parts: int) -> bool:
        """Compare the rows of one part. Returns whether they fitted into memory; otherwise nothing was compared."""
        left = {name: Counter(digests) for name, digests in self._own.items()}
        room = self._kept_bytes

        def taker(take: Callable[[_Table, list[bytes], int], int], key_of: Callable[[_Table, bytes], Key]) -> TakeBlock:
            def use(name: str, data: bytes, times: int) -> None:
                nonlocal room
                if room < 0:  # the rest is read in vain, because a COPY that is broken off ends the snapshot
                    return
                table, rows = self._tables[name], rows_of(data)
                if parts > 1:
                    rows = [row for row in rows if _part(key_of(table, row), parts) == part]
                taken = take(table, rows, times)
                room -= taken if parts < MOST_PARTS else 0

            return use

        self._second.read(left, self._blocks, taker(_Table.keep, _Table.key_of_second))
        # What is left are the digests of the first side's blocks that the second one does not have.
        matched = {name: self._own[name] - +left[name] for name in self._tables}
        if room >= 0:
            self._first.read(matched, {}, taker(_Table.meet, _Table.key_of_first))
        for each in self._tables.values():
            if room >= 0:
                each.finish()
            each.clear()
        return room >= 0


def _part(key: Key, parts: int) -> int:
    return crc32(b"\0".join(b"\1" if value is None else value for value in key)) % parts


@dataclass
class _Table:
    """One table while it is compared."""

    difference: TableDifference
    first: Table | None
    second: Table | None
    on_row: Callable[[RowDifference], object] | None = None
    key_first: tuple[int, ...] = ()
    key_second: tuple[int, ...] = ()
    shared: tuple[tuple[str, int, int], ...] = ()
    """The columns that both sides have, with their places."""
    numbers: frozenset[str] = frozenset()
    """Those of these that hold numbers on both sides. 1, 1.0 and 1.00 are the same number."""
    key_numbers: tuple[bool, ...] = ()
    """For each column of the key, whether it is compared as a number."""
    is_same: bool = False
    """Whether equal rows have equal bytes."""
    kept: dict[bytes, int] = field(default_factory=dict)
    """The second side's rows that no row of the first one has met, each with its number."""
    left: list[bytes] = field(default_factory=list)
    """The first side's rows that have met no equal one."""

    @classmethod
    def of(
        cls, name: str, first: Side, second: Side, on_row: Callable[[RowDifference], object] | None
    ) -> _Table:  # fmt: skip
        one, other = first.tables.get(name), second.tables.get(name)
        difference = TableDifference(
            name, only_first=other is None, only_second=one is None, is_parent=name in first.parents | second.parents
        )
        made = cls(difference, one, other, on_row)
        if one is not None and other is not None:
            made._match(one, other)
        return made

    def _match(self, one: Table, other: Table) -> None:
        before = {column.name: place for place, column in enumerate(one.stored_columns)}
        after = {column.name: place for place, column in enumerate(other.stored_columns)}
        self.shared = tuple((name, place, after[name]) for name, place in before.items() if name in after)
        self.difference.dropped = tuple(name for name in before if name not in after)
        self.difference.new = tuple(name for name in after if name not in before)
        types = [{column.name: column.type for column in table.stored_columns} for table in (one, other)]
        both = [(name, types[0][name], types[1][name]) for name, _, _ in self.shared]
        self.difference.retyped = tuple(each for each in both if each[1] != each[2])
        # Of one type, other digits are another value, as for a restore. Keys are told apart as PostgreSQL does.
        numbers = {name for name, *both_types in both if all(is_exact_number(each) for each in both_types)}
        self.numbers = frozenset(numbers & {name for name, _, _ in self.difference.retyped})
        key = other.primary_key if set(other.primary_key) <= before.keys() & after.keys() else ()
        self.difference.is_keyed = bool(key)
        self.is_same = is_same(one, other)
        # Without a key a row is told apart by all of its values.
        told = key or tuple(name for name, _, _ in self.shared)
        self.key_first, self.key_second = (tuple(side[name] for name in told) for side in (before, after))
        self.key_numbers = tuple(name in (numbers if key else self.numbers) for name in told)

    @property
    def is_on_both_sides(self) -> bool:
        return self.first is not None and self.second is not None

    def count_alone(self, first: Side, second: Side) -> None:
        """Count the rows of a table that only one side has."""
        side, name = first if self.second is None else second, self.difference.table
        rows = side.rows(name)
        if rows is None:
            counted = 0

            def count(_: str, data: bytes, times: int) -> None:
                nonlocal counted
                counted += times * sum(1 for _ in rows_of(data))

            side.read({name: Counter()}, {}, count)
            rows = counted
        if self.second is None:
            self.difference.removed = rows
        else:
            self.difference.added = rows

    def key_of_first(self, row: bytes) -> Key:
        return self._key(row, self.key_first)

    def key_of_second(self, row: bytes) -> Key:
        return self._key(row, self.key_second)

    def _key(self, row: bytes, places: tuple[int, ...]) -> Key:
        values = fields_of(row)
        if not any(self.key_numbers):
            return tuple(values[place] for place in places)
        return tuple(
            plain_number(values[place]) if is_number else values[place]
            for place, is_number in zip(places, self.key_numbers, strict=True)
        )

    def keep(self, rows: list[bytes], times: int) -> int:
        """Keep rows of the second side. Returns about how many bytes of memory they take."""
        kept = self.kept
        for row in rows:
            kept[row] = kept.get(row, 0) + times
        return _bytes_of(rows)

    def meet(self, rows: list[bytes], times: int) -> int:
        """Let rows of the first side meet equal ones, and keep the others. Returns as :meth:`keep`."""
        kept, left = self.kept if self.is_same else {}, list[bytes]()
        for row in rows:
            there = kept.get(row, 0)
            if there >= times:
                kept[row] = there - times
                continue
            if there:
                kept[row] = 0
            left += [row] * (times - there)
        self.left += left
        return _bytes_of(left)

    def finish(self) -> None:
        """Compare the rows that have met no equal one, by their keys."""
        others: dict[Key, list[bytes]] = {}
        for row, times in self.kept.items():
            if times:
                others.setdefault(self.key_of_second(row), []).extend([row] * times)
        for row in self.left:
            key = self.key_of_first(row)
            found = others.get(key)
            if not found:
                self.difference.removed += 1
                self._tell(key, row, None)
            else:
                self._changed(key, row, found.pop())
        for key, rows in others.items():
            self.difference.added += len(rows)
            for row in rows:
                self._tell(key, None, row)

    def clear(self) -> None:
        self.kept.clear()
        self.left.clear()

    def _changed(self, key: Key, row: bytes, other: bytes) -> None:
        before, after = fields_of(row), fields_of(other)
        changed = tuple(
            name
            for name, place, place_after in self.shared
            if before[place] != after[place_after]
            and not (name in self.numbers and plain_number(before[place]) == plain_number(after[place_after]))
        )
        if changed:
            self.difference.changed += 1
            self.difference.columns.update(changed)
            self._tell(key, row, other, changed)

    def _tell(self, key: Key, before: bytes | None, after: bytes | None, columns: tuple[str, ...] = ()) -> None:
        if self.on_row is None:
            return
        texts = tuple(text_of(value) or "" for value in key)
        self.on_row(
            RowDifference(
                self.difference.table, texts if self.difference.is_keyed else (), _values(self.first, before),
                _values(self.second, after), columns,
            )
        )  # fmt: skip


def _bytes_of(rows: list[bytes]) -> int:
    return sum(map(len, rows)) + len(rows) * ROW_OVERHEAD_BYTES


def _values(table: Table | None, row: bytes | None) -> dict[str, str | None] | None:
    if table is None or row is None:
        return None
    return texts_of(table, row)
