"""Blocks: runs of whole CSV rows, cut by content, so that one changed row changes one block."""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from zlib import crc32

CUT_MASK = 0x7F
"""A block ends after a row whose CRC-32 has these bits zero: 128 rows on average (docs/decisions/0003)."""
MAX_BLOCK_BYTES = 4 * 1024 * 1024
"""A block also ends after the row with which it reaches this size."""
DIGEST_BYTES = 32


@dataclass(frozen=True)
class Block:
    """One block's identity: SHA-256 of its bytes, its rows and its bytes."""

    digest: bytes
    rows: int
    size_bytes: int


class BlockList:
    """The blocks of one table in order, 40 bytes each, so that thirty million rows' worth stays small."""

    def __init__(self) -> None:
        self._digests = bytearray()
        self._rows = array("Q")
        self._sizes = array("Q")

    def append(self, block: Block) -> None:
        self._digests += block.digest
        self._rows.append(block.rows)
        self._sizes.append(block.size_bytes)

    def __len__(self) -> int:
        return len(self._rows)

    def __iter__(self) -> Iterator[Block]:
        for index, (rows, size) in enumerate(zip(self._rows, self._sizes, strict=True)):
            yield Block(bytes(self._digests[index * DIGEST_BYTES : (index + 1) * DIGEST_BYTES]), rows, size)

    @property
    def rows(self) -> int:
        return sum(self._rows)

    @property
    def size_bytes(self) -> int:
        return sum(self._sizes)

    @property
    def digests(self) -> bytes:
        """All digests, one after the other."""
        return bytes(self._digests)


class BlockCutter:
    """Cuts the rows of one table. Where the rows are cut does not depend on how they come in batches."""

    def __init__(self) -> None:
        self._pending: list[bytes] = []
        self._pending_bytes = 0

    def feed(self, rows: Sequence[bytes]) -> tuple[bytes, list[Block]]:
        """Take the next rows; give back the bytes of the blocks that are complete now, and those blocks."""
        ends = [index for index, crc in enumerate(map(crc32, rows), start=1) if not crc & CUT_MASK]
        if self._pending_bytes + sum(map(len, rows)) >= MAX_BLOCK_BYTES:
            ends = self._ends_with_limit(rows, set(ends))
        if not ends:
            self._pending += rows
            self._pending_bytes += sum(map(len, rows))
            return b"", []
        shift = len(self._pending)
        complete = [*self._pending, *rows[: ends[-1]]]
        self._pending = list(rows[ends[-1] :])
        self._pending_bytes = sum(map(len, self._pending))
        return _blocks(complete, [end + shift for end in ends])

    def finish(self) -> tuple[bytes, list[Block]]:
        """The last block, which ends where the table does; none when nothing is left."""
        rows, self._pending, self._pending_bytes = self._pending, [], 0
        return _blocks(rows, [len(rows)]) if rows else (b"", [])

    def _ends_with_limit(self, rows: Sequence[bytes], ends: set[int]) -> list[int]:
        found, size = [], self._pending_bytes
        for index, row in enumerate(rows, start=1):
            size += len(row)
            if size >= MAX_BLOCK_BYTES or index in ends:
                found.append(index)
                size = 0
        return found


def _blocks(rows: list[bytes], ends: list[int]) -> tuple[bytes, list[Block]]:
    data = b"".join(rows)
    view, offsets = memoryview(data), list(accumulate(map(len, rows), initial=0))
    starts = [0, *ends[:-1]]
    return data, [
        Block(hashlib.sha256(view[offsets[start] : offsets[end]]).digest(), end - start, offsets[end] - offsets[start])
        for start, end in zip(starts, ends, strict=True)
    ]
