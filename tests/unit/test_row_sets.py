"""Rows of CSV as sets, whatever their order."""

from __future__ import annotations

import csv
import io
import random

from hypothesis import given
from hypothesis import strategies as st

from clinic_backups.restore.row_sets import RowSet, rows_of

VALUES = st.text(alphabet='ab,"\n\r é', max_size=6)
ROWS = st.lists(st.lists(VALUES, min_size=2, max_size=3), max_size=8)


def written(row: list[str]) -> bytes:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n", quoting=csv.QUOTE_ALL).writerow(row)
    return text.getvalue().encode()


def set_of(*blocks: bytes) -> RowSet:
    found = RowSet()
    for block in blocks:
        found.add(block)
    return found


@given(ROWS)
def test_a_block_is_cut_into_its_rows(rows: list[list[str]]) -> None:
    written_rows = [written(row) for row in rows]
    assert list(rows_of(b"".join(written_rows))) == written_rows


@given(ROWS, st.randoms(), st.integers(0, 8))
def test_the_order_and_the_blocks_do_not_count(rows: list[list[str]], shuffled: random.Random, cut: int) -> None:
    written_rows = [written(row) for row in rows]
    others = written_rows[:]
    shuffled.shuffle(others)
    assert set_of(b"".join(written_rows)) == set_of(b"".join(others[:cut]), b"".join(others[cut:]))


@given(ROWS, ROWS)
def test_other_rows_are_another_set(one: list[list[str]], other: list[list[str]]) -> None:
    same = sorted(map(written, one)) == sorted(map(written, other))
    assert (set_of(*map(written, one)) == set_of(*map(written, other))) == same


def test_a_row_counts_as_often_as_it_is_there() -> None:
    twice = RowSet()
    twice.add(b"1,a\n", times=2)
    assert twice == set_of(b"1,a\n1,a\n")
    assert twice != set_of(b"1,a\n")


def test_a_value_of_many_lines_is_read_once() -> None:
    # Counting the quotes of all earlier lines again for each line took minutes here, while rows were locked.
    value = "línea\n" * 300_000
    block = f'1,"{value}"\n2,x\n'.encode()
    assert list(rows_of(block)) == [f'1,"{value}"\n'.encode(), b"2,x\n"]
