"""Blocks: nothing is lost, and the rows alone decide where they are cut."""

from __future__ import annotations

from hashlib import sha256

from hypothesis import given
from hypothesis import strategies as st

from clinic_backups.archive import blocks
from clinic_backups.archive.blocks import Block, BlockCutter, BlockList

ROWS = st.lists(st.binary(min_size=1, max_size=40), max_size=600)


def cut(rows: list[bytes], batch: int) -> tuple[bytes, list[Block]]:
    cutter = BlockCutter()
    found = [pair for start in range(0, len(rows), batch) for pair in cutter.feed(rows[start : start + batch])]
    found += cutter.finish()
    return b"".join(data for data, _ in found), [block for _, block in found]


@given(ROWS, st.integers(1, 50), st.integers(1, 600), st.sampled_from([64, 500, 1 << 22]))
def test_cuts_depend_on_the_rows_and_not_on_their_batches(rows: list[bytes], one: int, other: int, limit: int) -> None:
    before, blocks.MAX_BLOCK_BYTES = blocks.MAX_BLOCK_BYTES, limit
    try:
        data, found = cut(rows, one)
        assert (data, found) == cut(rows, other)
    finally:
        blocks.MAX_BLOCK_BYTES = before
    assert data == b"".join(rows)
    assert sum(block.rows for block in found) == len(rows)
    start = 0
    for block in found:
        assert block.digest == sha256(data[start : start + block.size_bytes]).digest()
        start += block.size_bytes
    assert start == len(data)


def test_one_changed_row_changes_few_blocks() -> None:
    rows = [b"%d,paciente\n" % number for number in range(20_000)]
    before = {block.digest for block in cut(rows, 1000)[1]}
    for changed in (rows[:7000] + rows[7001:], [*rows[:7000], b"nuevo\n", *rows[7000:]]):
        after = {block.digest for block in cut(changed, 1000)[1]}
        assert len(before) > 100
        assert len(after - before) <= 4


def test_a_thousandth_of_the_rows_changes_at_most_fifteen_percent_of_the_bytes() -> None:
    rows = [b"%d,paciente %d,%d\n" % (number, number * 7919, number % 13) for number in range(200_000)]
    before = {block.digest for block in cut(rows, 5000)[1]}
    for number in range(500, len(rows), 1000):
        rows[number] = rows[number].replace(b"paciente", b"cambiado")
    after = cut(rows, 5000)[1]
    new = sum(block.size_bytes for block in after if block.digest not in before)
    assert new / sum(block.size_bytes for block in after) < 0.15


def test_a_block_list_gives_back_what_it_took() -> None:
    listed, taken = BlockList(), cut([b"%d\n" % number for number in range(5000)], 700)[1]
    for block in taken:
        listed.append(block)
    assert list(listed) == taken
    assert (len(listed), listed.rows) == (len(taken), 5000)
    assert b"".join(listed.digest_pieces()) == b"".join(block.digest for block in taken)
    assert listed.equals(listed)
    assert not listed.equals(BlockList())
