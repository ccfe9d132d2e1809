"""Reads rows of the database as the blocks that a backup of them would have."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

from clinic_backups.archive.blocks import Block, BlockCutter, BlockList
from clinic_backups.base.table import Table
from clinic_backups.tenant.tenant_db import Snapshot

BATCH_BYTES = 1024 * 1024
BATCHES = 2
"""Batches of rows that wait to be cut into blocks."""
LARGE_BYTES = 2 * BATCH_BYTES
"""Such a batch is one large value, or ends with one. Nothing waits beside it: a value can have up to 1 GB."""


def read_blocks(snapshot: Snapshot, table: Table, query: str, take: Callable[[bytes, Block], object]) -> None:
    """Call ``take`` with the bytes and the identity of each block, in order.

    The blocks of a large table are cut, and taken, in a thread of their own, while this one reads the next rows. An
    error of ``take`` is raised unchanged.
    """
    cutter = BlockCutter()
    batch: list[bytes] = []
    size = 0

    def cut(rows: list[bytes]) -> None:
        for data, block in cutter.feed(rows):
            take(data, block)

    with ThreadPoolExecutor(1, thread_name_prefix="blocks") as pool:
        waiting = deque[Future[None]]()

        def row(data: bytes) -> None:
            nonlocal batch, size
            batch.append(data)
            size += len(data)
            if size < BATCH_BYTES:
                return
            while len(waiting) == BATCHES or (waiting and size > LARGE_BYTES):
                with snapshot.not_waiting():
                    waiting.popleft().result()
            waiting.append(pool.submit(cut, batch))
            batch, size = [], 0

        snapshot.copy(table, query, row)
        for each in waiting:
            each.result()
    cut(batch)
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
