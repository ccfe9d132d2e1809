"""Which blocks lie in the archives of a chain, so that an incremental need not store them again."""

from __future__ import annotations

import json
from array import array
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from clinic_backups.blocks import DIGEST_BYTES, OWN_ARCHIVE

PREFIX_BYTES, POSITION_BITS = 5, 24
"""An entry is the digest's first five bytes and its position: 8 bytes, and 16 million blocks of a table in a chain."""


def index_entry(digest: bytes | bytearray, position: int) -> int:
    """A block's place in an index that is sorted by digest, then position."""
    return int.from_bytes(digest[:PREFIX_BYTES]) << POSITION_BITS | position


class UnusableBlocks(ValueError):
    """The catalog's list of a backup's blocks is none."""


class KnownBlocks:
    """The digests of all blocks in the archives of a chain, by table; 40 bytes for each.

    :param archives: the backups' ids, the newest first, in the order in which :meth:`add` gets their lists. A block's
        archive is an index into the manifest's list, where the new backup's own comes before them.
    """

    def __init__(self, archives: Sequence[str]) -> None:
        self.archives = tuple(archives)
        self._tables: dict[str, _Table] = {}
        self._added = 0

    def add(self, pieces: Iterable[bytes]) -> None:
        """Take the next archive's list, as :func:`clinic_backups.archive.block_list` wrote it.

        :raises UnusableBlocks: it is none, or cut short.
        """
        self._added += 1
        content = bytearray()
        for piece in pieces:
            content += piece
        head, found, _ = bytes(content[:1_000_000]).partition(b"\n")
        try:
            counts = [(str(name), int(count)) for name, count in json.loads(head)] if found else None
        except (ValueError, TypeError):
            counts = None
        start = len(head) + 1
        if counts is None or len(content) != start + DIGEST_BYTES * sum(count for _, count in counts):
            raise UnusableBlocks
        for name, count in counts:
            end = start + count * DIGEST_BYTES
            table = self._tables.setdefault(name, _Table())
            table.digests += content[start:end]
            table.ends.append(len(table.digests) // DIGEST_BYTES)
            table.archives.append(self._added)
            table.index = None
            start = end

    def find(self, table: str, digest: bytes) -> int:
        """The archive that holds the block; :data:`OWN_ARCHIVE` where none does, so that the own one is to."""
        found = self._tables.get(table)
        return found.find(digest) if found is not None else OWN_ARCHIVE

    def __len__(self) -> int:
        """How many blocks."""
        return sum(len(table.digests) // DIGEST_BYTES for table in self._tables.values())


@dataclass
class _Table:
    digests: bytearray = field(default_factory=bytearray)
    ends: list[int] = field(default_factory=list)
    archives: list[int] = field(default_factory=list)
    index: array[int] | None = None

    def find(self, digest: bytes) -> int:
        index = self.index if self.index is not None else self._sorted()
        first = index_entry(digest, 0)
        for at in range(bisect_left(index, first), len(index)):
            if index[at] >> POSITION_BITS != first >> POSITION_BITS:
                break
            position = index[at] & ((1 << POSITION_BITS) - 1)
            if self.digests[position * DIGEST_BYTES : (position + 1) * DIGEST_BYTES] == digest:
                return self.archives[bisect_left(self.ends, position + 1)]
        return OWN_ARCHIVE

    def _sorted(self) -> array[int]:
        starts = range(0, len(self.digests), DIGEST_BYTES)
        entries = (index_entry(self.digests[start : start + PREFIX_BYTES], start // DIGEST_BYTES) for start in starts)
        self.index = array("Q", sorted(entries))
        return self.index
