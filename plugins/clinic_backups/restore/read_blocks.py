"""Reads rows of the database as the blocks that a backup of them would have."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from clinic_backups.archive.blocks import Block, BlockCutter, BlockList
from clinic_backups.base.table import Table
from clinic_backups.tenant.tenant_db import Snapshot

BATCH_BYTES = 1024 * 1024


def read_blocks(snapshot: Snapshot, table: Table, query: str, take: Callable[[bytes, Block], object]) -> None:
    """Call ``take`` with the bytes and the identity of each block, in order.

    An error of ``take`` is raised unchanged.
    """
    cutter = BlockCutter()
    batch: list[bytes] = []
    size = 0

    def row(data: bytes) -> None:
        nonlocal batch, size
        batch.append(data)
        size += len(data)
        if size >= BATCH_BYTES:
            with snapshot.not_waiting():
                hand_on()

    def hand_on() -> None:
        nonlocal batch, size
        for data, block in cutter.feed(batch):
            take(data, block)
        batch, size = [], 0

    snapshot.copy(table, query, row)
    hand_on()
    for data, block in cutter.finish():
        take(data, block)


def read_other_blocks(
    snapshot: Snapshot, table: Table, query: str, known: Counter[bytes], take: Callable[[bytes, Block], object]
) -> int:
    """As :func:`read_blocks`, without the known blocks; returns the number of rows in these.

    :param known: digests, each with its number. What is found is taken out of it.
    """
    matched = 0

    def pick(data: bytes, block: Block) -> None:
        nonlocal matched
        if known[block.digest] > 0:
            known[block.digest] -= 1
            matched += block.rows
        else:
            take(data, block)

    read_blocks(snapshot, table, query, pick)
    return matched


def blocks_of(snapshot: Snapshot, table: Table, query: str) -> BlockList:
    """Only their identities."""
    found = BlockList()
    read_blocks(snapshot, table, query, lambda data, block: found.append(block))
    return found
