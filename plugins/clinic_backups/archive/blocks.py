"""Blocks: runs of whole CSV rows, cut by content, so that one changed row changes one block."""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import accumulate
from zlib import crc32

MIN_BLOCK_ROWS = 96
"""No block but a table's last has fewer rows, unless it is large."""
CUT_MASK = 0x1F
"""From there on a block ends after the first row whose CRC-32 has these bits zero: 128 rows on average in all
(docs/decisions/0003)."""
MAX_BLOCK_BYTES = 4 * 1024 * 1024
"""A block also ends after the row with which it reaches this size."""
DIGEST_BYTES = 32
PIECE_BYTES = 512 * 1024
LOOK_AHEAD_ROWS = 64


@dataclass(frozen=True)
class Block:
    """One block's identity: SHA-256 of its bytes, its rows and its bytes."""

    digest: bytes
    rows: int
    size_bytes: int


OWN_ARCHIVE = 0
"""A backup's own archive among those that its blocks lie in."""
MAX_ARCHIVES = 255


class BlockList:
    """The blocks of one table in order, 41 bytes each, so that thirty million rows' worth stays small.

    Each lies in one archive of the backup's chain, by its index there: 0 is the backup's own.
    """

    def __init__(self) -> None:
        self._digests = bytearray()
        self._rows = array("I")
        self._sizes = array("I")
        self._archives = bytearray()

    def append(self, block: Block, archive: int = OWN_ARCHIVE) -> None:
        self._digests += block.digest
        self._rows.append(block.rows)
        self._sizes.append(block.size_bytes)
        self._archives.append(archive)

    @property
    def archives(self) -> bytes:
        """The archive of each block."""
        return bytes(self._archives)

    def own(self) -> BlockList:
        """Those that lie in the backup's own archive."""
        if not any(self._archives):
            return self
        found = BlockList()
        for block, archive in zip(self, self._archives, strict=True):
            if archive == OWN_ARCHIVE:
                found.append(block)
        return found

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

    def digest_pieces(self) -> Iterator[bytes]:
        """All digests, one after the other, in pieces: as a whole they grow with the clinic."""
        for start in range(0, len(self._digests), PIECE_BYTES):
            yield bytes(self._digests[start : start + PIECE_BYTES])

    def equals(self, other: BlockList) -> bool:
        """The same blocks in the same order."""
        return self._digests == other._digests


class BlockCutter:
    """Cuts the rows of one table. Where the rows are cut does not depend on how they come in batches."""

    def __init__(self) -> None:
        self._pending: list[bytes] = []

    def feed(self, rows: list[bytes]) -> list[tuple[bytes, Block]]:
        """Take the next rows; give back the blocks that are complete now, with their bytes."""
        rows = self._pending + rows
        complete: list[tuple[bytes, Block]] = []
        start = 0
        while end := _end(rows, start):
            data = b"".join(rows[start:end])
            if len(data) >= MAX_BLOCK_BYTES:
                end = _end_by_size(rows, start)
                data = b"".join(rows[start:end])
            complete.append((data, Block(hashlib.sha256(data).digest(), end - start, len(data))))
            start = end
        self._pending = rows[start:]
        return complete

    def finish(self) -> list[tuple[bytes, Block]]:
        """The last block, which ends where the table does; none when nothing is left."""
        data, rows = b"".join(self._pending), len(self._pending)
        self._pending = []
        return [(data, Block(hashlib.sha256(data).digest(), rows, len(data)))] if rows else []


def _end(rows: list[bytes], start: int) -> int:
    """Behind which row the block that begins at ``start`` ends, if not by its size; 0 when these rows do not tell."""
    for first in range(start + MIN_BLOCK_ROWS - 1, len(rows), LOOK_AHEAD_ROWS):
        for index, crc in enumerate(map(crc32, rows[first : first + LOOK_AHEAD_ROWS]), start=first + 1):
            if not crc & CUT_MASK:
                return index
    return len(rows) if sum(map(len, rows[start:])) >= MAX_BLOCK_BYTES else 0


def _end_by_size(rows: list[bytes], start: int) -> int:
    """Behind which row the block that begins at ``start`` reaches its largest size."""
    sizes = accumulate(map(len, rows[start:]))
    return next(end for end, size in enumerate(sizes, start=start + 1) if size >= MAX_BLOCK_BYTES)
