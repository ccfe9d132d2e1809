"""Rows that both sides have meet in memory; what is left of both sides is their difference as bags of rows."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from clinic_backups.archive.whole_rows import rows_of
from clinic_backups.restore.kept_rows import ROW_OVERHEAD_BYTES, KeptRows, Room

ROWS = st.sampled_from([b"1,a\n", b"2,\n", b'3,"x\ny"\n', b'4,""""\n', b"\n", b"5,ab\n"])
BLOCKS = st.lists(st.lists(ROWS, min_size=1, max_size=5).map(b"".join), max_size=6)


def bag(blocks: list[bytes]) -> Counter[bytes]:
    return Counter(row for block in blocks for row in rows_of(block))


@given(present=BLOCKS, wanted=st.lists(st.tuples(BLOCKS.map(b"".join), st.integers(1, 3)), max_size=6))
def test_what_is_left_is_the_difference_of_the_bags(present: list[bytes], wanted: list[tuple[bytes, int]]) -> None:
    loaded, room = list[bytes](), Room(10_000)
    kept = KeptRows(room, loaded.append)
    for block in present:
        kept.take(block)
    assert loaded == []
    left = [piece for block, times in wanted for piece in kept.without_equal(block, times)]
    there, asked = bag(present), Counter[bytes]()
    for block, times in wanted:
        asked += Counter({row: count * times for row, count in bag([block]).items()})
    assert bag(left) == asked - there
    assert bag([kept.rest()]) == there - asked
    assert kept.met == (asked & there).total()
    assert room.left == 10_000


@given(present=BLOCKS, most=st.integers(0, 2_000))
def test_without_room_for_all_rows_each_is_loaded_once_and_none_is_kept(present: list[bytes], most: int) -> None:
    loaded, room = list[bytes](), Room(most)
    kept = KeptRows(room, loaded.append)
    for block in present:
        kept.take(block)
    needed = sum(len(block) + ROW_OVERHEAD_BYTES * len(rows_of(block)) for block in present)
    wanted = kept.without_equal(b"1,a\n", 2)
    assert bag(loaded) == (bag(present) if needed > most else Counter())
    if needed > most:
        assert wanted == [b"1,a\n", b"1,a\n"]
        assert kept.rest() == b""
        assert kept.met == 0
    kept.rest()
    assert room.left == most


def test_tables_share_the_room_and_give_it_back() -> None:
    room = Room(2 * (4 + ROW_OVERHEAD_BYTES))
    loaded = list[bytes]()
    first, second, third = (KeptRows(room, loaded.append) for _ in range(3))
    first.take(b"1,a\n")
    second.take(b"1,b\n")
    third.take(b"1,c\n")
    assert loaded == [b"1,c\n"]
    first.rest()
    fourth = KeptRows(room, loaded.append)
    fourth.take(b"1,d\n")
    assert loaded == [b"1,c\n"]
