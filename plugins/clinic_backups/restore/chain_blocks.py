"""Gives the blocks of an incremental backup in its own order, from all archives that hold them.

Each archive is read once.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any

from clinic_backups.archive.blocks import Block, BlockList
from clinic_backups.archive.known_blocks import POSITION_BITS, index_entry, sorted_index
from clinic_backups.archive.reader import Segment, TableContent, read_archive
from clinic_backups.archive.writer import SEGMENT_BYTES, ArchiveWriter
from clinic_backups.base.clinic_id import in_shell
from clinic_backups.base.errors import PermanentError
from clinic_backups.base.listening import Listener
from clinic_backups.base.pipeline import Cancelled, Channel
from clinic_backups.restore.archives import Fetched, Source
from clinic_backups.stores.base import ObjectStore

KEPT_BYTES = 16 * 1024 * 1024
"""Blocks of one table that wait because they come before their turn, or are listed more often than stored."""
_PAUSE = Segment("", (), b"")


class Merge:
    """All blocks of a manifest in its order, each from the archive that holds it.

    ``archives`` are those that hold at least one of them, by their index in the manifest.
    """

    def __init__(
        self, backup: Fetched, stores: Mapping[int, ObjectStore], identities: Sequence[Any], listener: Listener
    ) -> None:
        self._manifest, self._listener = backup.manifest, listener
        tables = backup.manifest.tables
        self._done, self._total = 0, sum(content.size_bytes for content in tables.values())
        order = {name: number for number, name in enumerate(tables)}
        self.archives: dict[int, _Archive] = {}
        for name, content in tables.items():
            for block, number in zip(content.blocks, content.blocks.archives, strict=True):
                if number not in self.archives:
                    self.archives[number] = _Archive(backup.archives[number], stores[number], identities, order)
                self.archives[number].expect(name, block)

    def into(self, writer: ArchiveWriter, backup_id: str) -> Mapping[str, BlockList]:
        """Write the whole archive; returns the blocks of each table. :raises PermanentError: a block is not found."""
        try:
            for content in self._manifest.tables.values():
                writer.begin(content.table, outside=content.outside, is_parent=content.is_parent)
                segment, size = list[tuple[bytes, Block]](), 0
                for data, block in self._blocks(content):
                    segment.append((data, block))
                    size += len(data)
                    if size >= SEGMENT_BYTES:
                        self._write(writer, segment, size)
                        segment, size = [], 0
                self._write(writer, segment, size)
                writer.end()
            for name, text in self._manifest.files.items():
                writer.add_file(name, text)
            return writer.finish(self._manifest.clinic, backup_id)
        finally:
            self.stop()

    def stop(self) -> None:
        """Stop reading all archives, and end every wait for one."""
        for archive in self.archives.values():
            archive.stop()

    def _write(self, writer: ArchiveWriter, segment: list[tuple[bytes, Block]], size: int) -> None:
        writer.add_blocks(segment)
        self._done += size
        self._listener.read(self._done, self._total)

    def _blocks(self, content: TableContent) -> Iterator[tuple[bytes, Block]]:
        kept = _Kept(content.blocks)
        for position, (block, number) in enumerate(zip(content.blocks, content.blocks.archives, strict=True)):
            archive = self.archives[number]
            data = kept.take(position, block)
            while data is None:
                found = archive.next(content.table.name)
                if found is None:
                    raise self._misplaced(content.table.name, archive.backup_id)
                kept.offer(position, *found)
                if found[1] == block:
                    data = found[0]
            archive.took_one()
            yield data, block

    def _misplaced(self, table: str, backup_id: str) -> PermanentError:
        return PermanentError(
            f"{self._manifest.backup_id} cannot be consolidated: blocks of {table} come more often than {backup_id}"
            " stores them, or in another order, and too many would have to wait in memory.",
            hint="Make a full backup instead: clinic-backups backup --clinic"
            f" {in_shell(self._manifest.clinic.id)} --kind full",
        )


class _Archive:
    """The blocks of one archive, read in a thread of its own, at most two segments ahead."""

    def __init__(self, source: Source, store: ObjectStore, identities: Sequence[Any], order: Mapping[str, int]) -> None:
        self.backup_id, self.segments = source.backup_id, Channel[Segment](1)
        self._archive, self._bound = source.archive, source.bound
        self._store, self._identities, self._order = store, identities, order
        self._wanted, self._last = 0, ("", b"")
        self._table, self._data, self._at, self._rest = "", b"", 0, deque[Block]()

    def expect(self, table: str, block: Block) -> None:
        """Call this before reading: this block is wanted after those before."""
        self._wanted += 1
        self._last = (table, block.digest)

    def read(self) -> None:
        """Hand over the segments until no more are wanted. Runs in the archive's own thread.

        The reader compares each block's digest, and so does the receiver of the block. The rest of the archive need not
        be read.
        """
        with suppress(Cancelled), self._store.open(self._archive.key) as stream:
            read_archive(
                stream, self._identities, expected=self._archive, bound=self._bound, on_segment=self._hand_over
            )

    def _hand_over(self, segment: Segment) -> None:
        self.segments.put(segment)
        table, digest = self._last
        if segment.table == table and any(block.digest == digest for block in segment.blocks):
            # Most likely that was all. Read on, into a manifest that may be large, only if more is asked for.
            self.segments.put(_PAUSE)
            self.segments.put(_PAUSE)

    def next(self, table: str) -> tuple[bytes, Block] | None:
        """The next block of that table; none if only blocks of later tables follow.

        Blocks of earlier tables are skipped.
        """
        while self._table != table or not self._rest:
            if self._rest and self._order.get(self._table, -1) > self._order[table]:
                return None
            segment = self.segments.get()
            if segment is None:
                return None
            self._table, self._data, self._at, self._rest = segment.table, segment.data, 0, deque(segment.blocks)
        block, start = self._rest.popleft(), self._at
        self._at += block.size_bytes
        return self._data[start : self._at], block

    def took_one(self) -> None:
        """Note that one of the wanted blocks was found."""
        self._wanted -= 1
        if not self._wanted:
            self._data, self._rest = b"", deque()
            self.stop()

    def stop(self) -> None:
        """Stop: nothing more is wanted. May be called from any thread."""
        self.segments.cancel()
        self.segments.fail(Cancelled())


class _Kept:
    """Blocks of one table that are needed later, because they came before their turn or are listed again."""

    def __init__(self, blocks: BlockList) -> None:
        # As in known_blocks: eight bytes for each, its digest's beginning and its position.
        self._index = sorted_index(block.digest for block in blocks)
        self._kept: dict[Block, bytes] = {}
        self._room = KEPT_BYTES

    def take(self, position: int, block: Block) -> bytes | None:
        """A kept block. It stays as long as it is wanted again."""
        data = self._kept.get(block)
        if data is not None and not self._wanted_after(position, block):
            del self._kept[block]
            self._room += len(data)
        return data

    def offer(self, position: int, data: bytes, block: Block) -> None:
        """Keep a block if it is wanted after that position and there is room."""
        if block not in self._kept and len(data) <= self._room and self._wanted_after(position, block):
            self._kept[block] = data
            self._room -= len(data)

    def _wanted_after(self, position: int, block: Block) -> bool:
        """Also true for another block whose digest begins in the same way. That one is kept without need."""
        entry = index_entry(block.digest, position)
        at = bisect_right(self._index, entry)
        return at < len(self._index) and self._index[at] >> POSITION_BITS == entry >> POSITION_BITS
