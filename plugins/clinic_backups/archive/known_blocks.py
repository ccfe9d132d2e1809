"""The blocks in the archives of a chain, which an incremental backup need not store again."""

from __future__ import annotations

import hashlib
from array import array
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from pydantic import BaseModel

from clinic_backups.archive.blocks import DIGEST_BYTES, OWN_ARCHIVE

PREFIX_BYTES, POSITION_BITS = 5, 24
"""An entry is 8 bytes: the digest's first five bytes and its position, which allows 16 million blocks per table."""


def index_entry(digest: bytes | bytearray, position: int) -> int:
    """The entry of a block in an index that is sorted by digest, then by position."""
    return int.from_bytes(digest[:PREFIX_BYTES]) << POSITION_BITS | position


def sorted_index(digests: Iterable[bytes | bytearray]) -> array[int]:
    """The entries of a table's blocks, sorted."""
    # Sort in groups by the first byte: all at once as Python numbers, they would take ten times the memory.
    parts: defaultdict[int, array[int]] = defaultdict(lambda: array("Q"))
    for position, digest in enumerate(digests):
        parts[digest[0]].append(index_entry(digest, position))
    index = array("Q")
    for first in sorted(parts):
        index.extend(sorted(parts[first]))
    return index


class UnusableBlocks(ValueError):
    """The catalog's list of a backup's blocks cannot be used."""


class KnownBlocks:
    """The digests of all blocks in the archives of a chain, by table; 40 bytes for each.

    :param archives: the backups' ids, the newest first, in the order in which :meth:`add` gets their lists. A block's
        archive is an index into the manifest's list, in which the new backup's own archive comes first.
    """

    def __init__(self, archives: Sequence[str]) -> None:
        self.archives = tuple(archives)
        self.states: list[Mapping[str, tuple[int, str]] | None] = []
        """Of each archive, by table: the rows in its own blocks, and a hash of all blocks that the backup has of it.
        None in lists of before."""
        self._tables: dict[str, _Table] = {}
        self._added = 0

    def add(self, pieces: Iterable[bytes], fingerprint: str | None = None) -> None:
        """Add the next archive's list, which :func:`.writer.block_list` wrote, in pieces; the first has the whole line.

        :param fingerprint: the fingerprint of the blocks in that archive, if it is a full backup's.
        :raises UnusableBlocks: it is not a list, it is damaged, or it is of another backup. All lists are dropped then.
        """
        rest = iter(pieces)
        line, _, piece = next(rest, b"").partition(b"\n")
        try:
            head = _Head.model_validate_json(line)
        except ValueError:
            raise UnusableBlocks from None
        if head.backup_id != self.archives[self._added]:
            raise UnusableBlocks
        self._added += 1
        self.states.append(head.states)
        total = hashlib.sha256()
        for name, count in head.tables:
            table = self._tables.setdefault(name, _Table())
            total.update(f"{name}\0{count}\0".encode())
            wanted = count * DIGEST_BYTES
            while wanted > 0:
                piece = piece or next(rest, b"")
                if not piece:
                    raise UnusableBlocks
                part, piece = piece[:wanted], piece[wanted:]
                total.update(part)
                table.digests += part
                wanted -= len(part)
            table.ends.append(len(table.digests) // DIGEST_BYTES)
            table.archives.append(self._added)
            table.index = None
        if piece or next(rest, b"") or total.hexdigest() != head.fingerprint:
            raise UnusableBlocks
        if fingerprint not in (None, head.fingerprint):
            raise UnusableBlocks

    def digests(self, table: str) -> set[bytes]:
        """The digests of a table's blocks in all archives."""
        found = self._tables.get(table, _Table()).digests
        return {bytes(found[start : start + DIGEST_BYTES]) for start in range(0, len(found), DIGEST_BYTES)}

    def own_blocks(self, table: str) -> list[int]:
        """How many blocks of a table each archive holds."""
        found = self._tables.get(table, _Table())
        ends = dict(zip(found.archives, (end - begin for begin, end in pairwise([0, *found.ends])), strict=True))
        return [ends.get(number, 0) for number in range(1, self._added + 1)]

    def find(self, table: str, digest: bytes) -> int:
        """The archive that holds the block; :data:`OWN_ARCHIVE` if none does and the new archive has to store it."""
        found = self._tables.get(table)
        return found.find(digest) if found is not None else OWN_ARCHIVE

    def __len__(self) -> int:
        """The number of blocks."""
        return sum(len(table.digests) // DIGEST_BYTES for table in self._tables.values())


class _Head(BaseModel):
    """The first line of a list: the number of blocks of each table."""

    backup_id: str
    fingerprint: str
    tables: list[tuple[str, int]]
    states: dict[str, tuple[int, str]] | None = None


@dataclass
class _Table:
    digests: bytearray = field(default_factory=bytearray)
    ends: list[int] = field(default_factory=list)
    archives: list[int] = field(default_factory=list)
    index: array[int] | None = None

    def find(self, digest: bytes) -> int:
        if self.index is None:
            starts = range(0, len(self.digests), DIGEST_BYTES)
            self.index = sorted_index(self.digests[start : start + PREFIX_BYTES] for start in starts)
        index = self.index
        first = index_entry(digest, 0)
        for at in range(bisect_left(index, first), len(index)):
            if index[at] >> POSITION_BITS != first >> POSITION_BITS:
                break
            position = index[at] & ((1 << POSITION_BITS) - 1)
            if self.digests[position * DIGEST_BYTES : (position + 1) * DIGEST_BYTES] == digest:
                return self.archives[bisect_left(self.ends, position + 1)]
        return OWN_ARCHIVE
