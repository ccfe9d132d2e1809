"""Blocks that are cut at a backup's lengths are those that a backup would cut."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Sequence

import pytest

from clinic_backups.archive import same_blocks
from clinic_backups.archive.blocks import MAX_BLOCK_BYTES, Block, BlockCutter, BlockList
from clinic_backups.archive.same_blocks import ROWS_BYTES, SameBlocks, rows_of

PLACES = random.Random(7)


def table(count: int, *, quoted: bool = False) -> list[bytes]:
    """Rows of a table, some with a line break in a value."""
    return [b'%d,"%s\n%d"\n' % (n, b"a" * (n % 50), n) if quoted and n % 3 else b"%d,plain\n" % n for n in range(count)]


def cut(rows: Sequence[bytes]) -> list[tuple[bytes, Block]]:
    """The blocks of a backup of these rows."""
    cutter = BlockCutter()
    return [*cutter.feed(list(rows)), *cutter.finish()]


def listed(rows: Sequence[bytes]) -> BlockList:
    found = BlockList()
    for _, block in cut(rows):
        found.append(block)
    return found


def read(rows: Sequence[bytes], backup: BlockList, piece: int) -> list[tuple[bytes, Block]]:
    data, same = b"".join(rows), SameBlocks(backup)
    found = [each for at in range(0, len(data), piece) for each in same.feed(data[at : at + piece])]
    return [*found, *same.finish()]


def changed(rows: list[bytes], how: str) -> list[bytes]:
    half = len(rows) // 2
    return {
        "nothing": rows,
        "a value": [*rows[:half], b'0,"other"\n', *rows[half + 1 :]],
        "rows less": rows[:half] + rows[half + 300 :],
        "rows more": [*rows[:half], *(b"%d,new\n" % n for n in range(500)), *rows[half:]],
        "the first": [b"other\n", *rows[1:]],
        "the last": [*rows[:-1], b"other\n"],
        "the end": rows[:-7],
        "more at the end": [*rows, b"more\n"],
        "every hundredth": [b"other\n" if n % 100 == 0 else row for n, row in enumerate(rows)],
        "all": [b"other," + row for row in rows],
        "twice": [*rows, *rows],
        "gone": [],
    }[how]


@pytest.mark.parametrize("quoted", [False, True])
@pytest.mark.parametrize("piece", [1000, 40_000, 10**9])
@pytest.mark.parametrize(
    "how",
    ["nothing", "a value", "rows less", "rows more", "the first", "the last", "the end", "more at the end",
     "every hundredth", "all", "twice", "gone"],
)  # fmt: skip
def test_the_blocks_are_those_of_a_backup(how: str, piece: int, quoted: bool) -> None:
    before = table(20_000, quoted=quoted)
    now = changed(before, how)
    found = read(now, listed(before), piece)
    assert b"".join(data for data, _ in found) == b"".join(now)
    assert all(hashlib.sha256(data).digest() == block.digest for data, block in found)
    # The backup's last block ends with the table, and not by its content. If rows follow, it is found all the same.
    if how in ("more at the end", "twice"):
        assert found[: len(cut(before))] == cut(before)
    else:
        assert found == cut(now)
    assert ([block for _, block in found] == list(listed(before))) is (how == "nothing")


def test_any_changes_and_pieces() -> None:
    before = table(6_000, quoted=True)
    for _ in range(40):
        now = list(before)
        for _ in range(PLACES.randrange(1, 8)):
            place, count = PLACES.randrange(len(now)), PLACES.choice([0, 1, 1, 200])
            now[place : place + count] = [b'%d,"a ""word"""\n' % place] * PLACES.choice([0, 1, 150])
        found = read(now, listed(before), PLACES.choice([100, 777, 5_000, 10**9]))
        assert b"".join(data for data, _ in found) == b"".join(now)
        known = set(cut(before))
        assert len(known.intersection(found)) >= len(known.intersection(cut(now))) > 0


def test_an_empty_table_and_an_empty_backup() -> None:
    assert read([], BlockList(), 10) == []
    assert read(table(1000), BlockList(), 999) == cut(table(1000))


def test_blocks_of_older_rules_are_found_in_their_places() -> None:
    older = BlockList()
    for at in range(0, 1000, 10):
        _, block = cut(table(1000)[at : at + 10])[0]
        older.append(block)
    assert [block for _, block in read(table(1000), older, 100)] == list(older)


def test_rows_are_looked_at_only_near_a_change(monkeypatch: pytest.MonkeyPatch) -> None:
    looked_at: list[bytes] = []

    def noting(data: bytes) -> list[bytes]:
        found = list(rows_of(data))
        looked_at.extend(found)
        return found

    monkeypatch.setattr(same_blocks, "rows_of", noting)
    before = table(200_000)
    read(before, listed(before), 300_000)
    assert looked_at == []
    read(changed(before, "a value"), listed(before), 300_000)
    assert 0 < sum(map(len, looked_at)) <= 2 * ROWS_BYTES


def test_a_long_value_is_not_searched_again_for_each_piece(monkeypatch: pytest.MonkeyPatch) -> None:
    searched = 0

    def counting(data: bytes) -> list[bytes]:
        nonlocal searched
        searched += len(data)
        return list(rows_of(data))

    monkeypatch.setattr(same_blocks, "rows_of", counting)
    row = b'1,"' + b"line\n" * (MAX_BLOCK_BYTES // 5) + b'"\n'
    assert read([row, b"2\n"], BlockList(), 10_000) == cut([row, b"2\n"])
    assert searched < 8 * len(row)
