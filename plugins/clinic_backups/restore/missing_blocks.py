"""Takes those blocks of a backup that are missing, from the archives of its chain."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from typing import Protocol

from clinic_backups.archive.blocks import Block, BlockList
from clinic_backups.archive.reader import Segment, TableContent
from clinic_backups.base.errors import IntegrityError


class UseBlock(Protocol):
    """Takes a block's bytes and how often it is missing."""

    def __call__(self, table: str, block: Block, data: bytes, times: int, /) -> object: ...


class MissingBlocks:
    """A :class:`~clinic_backups.restore.archives.Wanted`: gives each missing block once, with how often it is missing.

    An archive may hold it fewer times.

    :param blocks: by table, all blocks that the backup has of it, with the archives that hold them.
    :param missing: by table, the digests of the missing ones, each with its number.
    :param on_archive: called before each archive.
    """

    def __init__(
        self,
        blocks: Mapping[str, BlockList],
        missing: Mapping[str, Counter[bytes]],
        use: UseBlock,
        on_archive: Callable[[], object] = lambda: None,
    ) -> None:
        self._missing = {name: Counter(digests) for name, digests in missing.items()}
        self._lying = _by_archive(blocks, self._missing)
        self._use, self._on_archive = use, on_archive
        self._here: dict[str, set[bytes]] = {}

    @classmethod
    def every(cls, tables: Mapping[str, TableContent], use: UseBlock) -> MissingBlocks:
        """With all blocks of some tables of a backup missing."""
        blocks = {name: content.blocks for name, content in tables.items()}
        return cls(blocks, {name: listed.counted() for name, listed in blocks.items()}, use)

    def begin(self, archive: int) -> bool:
        """Announce the archive of the next segments; returns whether it should hold blocks that are still missing."""
        self._on_archive()
        lying = self._lying.get(archive, {})
        self._here = {
            table: here for table, digests in lying.items() if (here := digests & self._missing[table].keys())
        }
        return bool(self._here)

    def take(self, segment: Segment) -> bool:
        """Use the missing blocks of a segment. Returns whether this archive should hold more of them."""
        if not (here := self._here.get(segment.table)):
            return bool(self._here)
        view, offset = memoryview(segment.data), 0
        for block in segment.blocks:
            if block.digest in here:
                data = bytes(view[offset : offset + block.size_bytes])
                self._use(segment.table, block, data, self._missing[segment.table].pop(block.digest))
                here.remove(block.digest)
            offset += block.size_bytes
        if not here:
            del self._here[segment.table]
        return bool(self._here)

    def require_all(self) -> None:
        """:raises IntegrityError: a block has not come."""
        if left := [name for name, missing in self._missing.items() if missing]:
            raise IntegrityError(
                f"The archives lack rows that the backup lists, of the tables {', '.join(sorted(left))}.",
                hint="Nothing was changed. Somebody changed the store or the catalog: choose another backup.",
            )


def _by_archive(
    blocks: Mapping[str, BlockList], missing: Mapping[str, Counter[bytes]]
) -> dict[int, dict[str, set[bytes]]]:
    """The digests of the missing blocks of each table, by the archive that holds them."""
    found: dict[int, dict[str, set[bytes]]] = {}
    for name, listed in blocks.items():
        if not missing[name]:
            continue
        for digest, archive in zip(listed.digests(), listed.archives, strict=True):
            if digest in missing[name]:
                found.setdefault(archive, {}).setdefault(name, set()).add(digest)
    return found
