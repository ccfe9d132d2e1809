"""Reads rows of the database as the blocks that a backup of them would have."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any

from clinic_backups.archive.blocks import Block, BlockList
from clinic_backups.archive.same_blocks import Cut, SameBlocks
from clinic_backups.base.table import Table
from clinic_backups.tenant.tenant_db import Snapshot

PIECE_BYTES = 256 * 1024
"""Rows are collected to so many bytes. A row that is longer comes alone."""
Take = Callable[[bytes, Block], object]


def read_blocks(
    snapshot: Snapshot, table: Table, query: str, backup: BlockList, take: Take, *, first: str = ""
) -> None:  # fmt: skip
    """Call ``take`` with the bytes and the identity of each block, in order. An error of ``take`` is raised unchanged.

    :param backup: the blocks that a backup has of the table. Reading is fast as far as the rows are the same.
    :param first: see :meth:`Snapshot.copy`.
    """
    pieces = _Pieces(snapshot, SameBlocks(backup), take)
    # It is the driver that calls it for each row, and it runs no Python until a piece is full.
    collected = io.BufferedWriter(pieces, PIECE_BYTES)
    try:
        snapshot.copy(table, query, collected.write, first=first)
        collected.flush()
        pieces.finish()
    finally:
        pieces.stop()


class _Pieces(io.RawIOBase):
    """Cuts what is written to it into blocks."""

    def __init__(self, snapshot: Snapshot, blocks: SameBlocks, take: Take) -> None:
        self._snapshot, self._blocks, self._take, self._is_over = snapshot, blocks, take, False

    def writable(self) -> bool:
        return True

    def write(self, piece: Any, /) -> int:
        # What a failed COPY leaves in the buffer is written when that is closed.
        if not self._is_over:
            with self._snapshot.not_waiting():
                self._hand_over(self._blocks.feed(piece))
        return len(piece)

    def finish(self) -> None:
        """The last blocks of the table."""
        self._hand_over(self._blocks.finish())

    def stop(self) -> None:
        """Nothing that comes from now on counts."""
        self._is_over = True

    def _hand_over(self, found: Iterable[Cut]) -> None:
        for data, block in found:
            self._take(data, block)


def read_other_blocks(
    snapshot: Snapshot, table: Table, query: str, backup: BlockList, known: Counter[bytes],
    take: Callable[[bytes], object],
) -> int:  # fmt: skip
    """Call ``take`` with the bytes of each block that is not known; returns the number of rows in the known ones.

    :param backup: see :func:`read_blocks`.
    :param known: digests of the backup's blocks, each with its number. What is found is taken out of it.
    """
    matched = 0

    def pick(data: bytes, block: Block) -> None:
        nonlocal matched
        if known[block.digest] > 0:
            known[block.digest] -= 1
            matched += block.rows
        else:
            take(data)

    read_blocks(snapshot, table, query, backup, pick)
    return matched


def blocks_of(snapshot: Snapshot, table: Table, query: str, backup: BlockList, *, first: str = "") -> BlockList:
    """Only their identities.

    :param backup, first: see :func:`read_blocks`.
    """
    found = BlockList()
    read_blocks(snapshot, table, query, backup, lambda data, block: found.append(block), first=first)
    return found
