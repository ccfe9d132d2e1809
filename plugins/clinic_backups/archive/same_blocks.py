"""Cuts the bytes of a table into blocks, where a backup of the table is known.

A backup knows the length and the digest of each of its blocks. As long as the bytes are the same, they are cut at these
lengths and hashed, without a look at any row. A block with another digest is cut row by row, as a backup cuts it. Most
often a row in it was changed, and the backup's next block follows. Otherwise rows are cut until one of the backup's
blocks comes again.
"""

from __future__ import annotations

import hashlib

from clinic_backups.archive.blocks import Block, BlockCutter, BlockList
from clinic_backups.archive.whole_rows import rows_of

ROWS_BYTES = 16 * 1024
"""So many bytes, about a block, are cut row by row at a time."""
Cut = tuple[bytes, Block]


class SameBlocks:
    """Takes the bytes of one table in pieces of any size.

    :param backup: the backup's blocks of the table.
    """

    def __init__(self, backup: BlockList) -> None:
        self._backup, self._next = backup, 0
        self._is_same = True
        """The last block was one of the backup's."""
        self._rest = bytearray()
        self._cutter: BlockCutter | None = None
        self._tried = 0
        """The rest has no whole row in so many bytes."""
        self._places: dict[bytes, int] | None = None

    def feed(self, piece: bytes | memoryview) -> list[Cut]:
        """Add the next bytes, and return the blocks that are now complete."""
        self._rest += piece
        found: list[Cut] = []
        while True:
            if self._cutter is None and not self._cut_as_backup(found):
                return found
            if not (rows := self._whole_rows()):
                return found
            self._cut(rows, found)

    def finish(self) -> list[Cut]:
        """The table's last blocks."""
        if self._cutter is None and not self._rest:
            return []
        cutter, rest = self._cutter or BlockCutter(), bytes(self._rest)
        rows = list(rows_of(rest))
        rows += [end] if (end := rest[sum(map(len, rows)) :]) else []
        return [*cutter.feed(rows), *cutter.finish()]

    def _cut_as_backup(self, found: list[Cut]) -> bool:
        """Cut at the backup's lengths; returns whether the rest begins with another block."""
        start, is_other = 0, False
        with memoryview(self._rest) as rest:
            while start < len(rest):
                if self._next == len(self._backup):
                    is_other = True
                    break
                block = self._backup[self._next]
                if start + block.size_bytes > len(rest):
                    break
                data = bytes(rest[start : start + block.size_bytes])
                if hashlib.sha256(data).digest() != block.digest:
                    is_other = True
                    self._next += self._is_same  # another block takes its place
                    self._is_same = False
                    break
                found.append((data, block))
                start += block.size_bytes
                self._next, self._is_same = self._next + 1, True
        del self._rest[:start]
        return is_other

    def _whole_rows(self) -> list[bytes]:
        """The next rows; none if the rest has no whole one."""
        size = ROWS_BYTES
        # A value may have 1 GB. So a row is searched again only after its known part has doubled.
        while len(self._rest) >= 2 * self._tried:
            rows = list(rows_of(bytes(self._rest[:size])))
            if rows:
                self._tried = 0
                del self._rest[: sum(map(len, rows))]
                return rows
            self._tried = min(size, len(self._rest))
            if size >= len(self._rest):
                break
            size *= 2
        return []

    def _cut(self, rows: list[bytes], found: list[Cut]) -> None:
        """Cut rows as a backup does. After each block, the backup's lengths are tried again."""
        cutter = self._cutter = self._cutter or BlockCutter()
        cut = cutter.feed(rows)
        found += cut
        if not cut:
            return
        if self._places is None:
            self._places = {block.digest: place for place, block in enumerate(self._backup)}
        place = self._places.get(cut[-1][1].digest)
        if place is not None:
            self._next, self._is_same = place + 1, True
        self._rest[:0] = cutter.take_back()
        self._cutter = None
