"""Blocks: runs of whole CSV rows, cut by content, so that one changed row changes one block."""

from __future__ import annotations

import hashlib
import struct
from array import array
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import accumulate
from zlib import crc32

MIN_BLOCK_ROWS = 96
"""The fewest rows of a block, unless it is large or its table's last."""
CUT_MASK = 0x1F
"""After that, a block ends with the first row whose CRC-32 has these bits zero: 128 rows on average in total
(docs/decisions/0003)."""
MAX_BLOCK_BYTES = 4 * 1024 * 1024
"""A block also ends with the row that brings it to this size."""
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
"""The index of the backup's own archive."""
MAX_ARCHIVES = 255


class BlockList:
    """The blocks of one table in order. Each takes 41 bytes, so that the blocks of thirty million rows stay small.

    Each block is in one archive of the backup's chain, given by its index: 0 is the backup's own archive.
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

    def extend(self, other: BlockList) -> None:
        """Add all blocks of another list. Its archives may be those of another chain."""
        self._digests += other._digests
        self._rows += other._rows
        self._sizes += other._sizes
        self._archives += other._archives

    @property
    def archives(self) -> bytes:
        """The archive of each block."""
        return bytes(self._archives)

    def own(self) -> BlockList:
        """The blocks in the backup's own archive."""
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

    def __getitem__(self, index: int) -> Block:
        digest = bytes(self._digests[index * DIGEST_BYTES : (index + 1) * DIGEST_BYTES])
        return Block(digest, self._rows[index], self._sizes[index])

    def digests(self) -> list[bytes]:
        """The digest of each block, in order."""
        return [digest for (digest,) in struct.iter_unpack(f"{DIGEST_BYTES}s", self._digests)]

    def counted(self) -> Counter[bytes]:
        """The digests of the blocks, each with its number."""
        return Counter(self.digests())

    @property
    def rows(self) -> int:
        return sum(self._rows)

    @property
    def size_bytes(self) -> int:
        return sum(self._sizes)

    def digest_pieces(self) -> Iterator[bytes]:
        """All digests in order, in pieces, because their total size grows with the clinic."""
        for start in range(0, len(self._digests), PIECE_BYTES):
            yield bytes(self._digests[start : start + PIECE_BYTES])

    def equals(self, other: BlockList) -> bool:
        """Whether both have the same blocks in the same order."""
        return self._digests == other._digests


class BlockCutter:
    """Cuts the rows of one table into blocks. The cuts do not depend on the batches."""

    def __init__(self) -> None:
        self._pending: list[bytes] = []

    def feed(self, rows: list[bytes]) -> list[tuple[bytes, Block]]:
        """Add the next rows, and return the blocks that are now complete, with their bytes."""
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

    def take_back(self) -> bytes:
        """The rows after the last complete block, which are then not part of the next one."""
        pending, self._pending = self._pending, []
        return b"".join(pending)

    def finish(self) -> list[tuple[bytes, Block]]:
        """The last block of the table; none if no rows are left."""
        data, rows = b"".join(self._pending), len(self._pending)
        self._pending = []
        return [(data, Block(hashlib.sha256(data).digest(), rows, len(data)))] if rows else []


def _end(rows: list[bytes], start: int) -> int:
    """The number of the row that ends the block from ``start`` by its content; 0 if these rows do not decide it."""
    for first in range(start + MIN_BLOCK_ROWS - 1, len(rows), LOOK_AHEAD_ROWS):
        for index, crc in enumerate(map(crc32, rows[first : first + LOOK_AHEAD_ROWS]), start=first + 1):
            if not crc & CUT_MASK:
                return index
    return len(rows) if sum(map(len, rows[start:])) >= MAX_BLOCK_BYTES else 0


def _end_by_size(rows: list[bytes], start: int) -> int:
    """The number of the row with which the block from ``start`` reaches its largest size."""
    sizes = accumulate(map(len, rows[start:]))
    return next(end for end, size in enumerate(sizes, start=start + 1) if size >= MAX_BLOCK_BYTES)
