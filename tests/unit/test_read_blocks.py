"""Rows are read while blocks are cut, and few of them are held at a time."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any, cast

from clinic_backups.archive.blocks import MAX_BLOCK_BYTES, Block, BlockList
from clinic_backups.restore.read_blocks import read_blocks

ROW_BYTES = MAX_BLOCK_BYTES + 1024
"""Each row is a block."""


class Rows:
    """A snapshot of a table with such rows."""

    taken = most = 0

    def copy(self, table: Any, query: str, write: Callable[[bytes], object], *, first: str = "") -> None:
        for count in range(1, 9):
            self.most = max(self.most, count - self.taken)
            write(b"x" * (ROW_BYTES - 1) + b"\n")

    def not_waiting(self) -> Any:
        return nullcontext()

    def take(self, data: bytes, block: Block) -> None:
        time.sleep(0.05)  # slower than reading
        self.taken += 1


def test_no_more_than_two_large_rows_are_held() -> None:
    rows = Rows()
    read_blocks(cast(Any, rows), cast(Any, None), "", BlockList(), rows.take)
    assert rows.taken == 8
    assert rows.most <= 2
