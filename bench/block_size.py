"""What smaller and larger blocks would store: the whole of a clinic, and the blocks that a few changed rows touch."""

from __future__ import annotations

import random
import time
from unittest.mock import patch

import zstandard

from bench.figures import Figure, Spread
from bench.world import World
from clinic_backups.archive import blocks
from clinic_backups.archive.blocks import Block, BlockCutter
from clinic_backups.tenant.tenant_db import Snapshot

GROUP = "the size of blocks"
ROWS = 300_000
LIST_BYTES = 41
"""What a block takes in the list that each backup has of all its blocks."""
SIZES = ((96, 0x1F), (48, 0x0F), (24, 0x07))
CHANGED = (0.001, 0.0001)
LEVEL = 3


def figures(world: World) -> list[Figure]:
    """Cut the same rows into blocks of several sizes; says which share of a full backup an incremental one would be."""
    large = world.large_clinic(ROWS)
    tables: dict[str, list[bytes]] = {}
    queries = large.queries()
    with Snapshot(large.superuser) as snapshot:
        for name, table in snapshot.tables(sorted(queries)).items():
            snapshot.copy(table, queries[name], tables.setdefault(name, []).append)
    found = []
    for share in CHANGED:
        chosen = random.Random(5)
        after = {name: [_changed(row, share, chosen) for row in rows] for name, rows in tables.items()}
        for fewest, mask in SIZES:
            with patch.multiple(blocks, MIN_BLOCK_ROWS=fewest, CUT_MASK=mask):
                found.append(_stored(world, fewest + mask + 1, share, tables, after))
    return found


def _changed(row: bytes, share: float, chosen: random.Random) -> bytes:
    return row[:-2] + b"~\n" if chosen.random() < share else row


def _stored(
    world: World, mean: int, share: float, before: dict[str, list[bytes]], after: dict[str, list[bytes]]
) -> Figure:
    full = changed = count = 0
    began = time.process_time()
    for name, rows in before.items():
        old = _cut(rows)
        known = {block.digest for _, block in old}
        full += _size([data for data, _ in old])
        changed += _size([data for data, block in _cut(after[name]) if block.digest not in known])
        count += len(old)
    seconds = time.process_time() - began
    lists = count * LIST_BYTES
    name = f"about {mean} rows, {share:.2%} of the rows changed"
    world.say(
        f"{GROUP}: {name}: changed blocks {changed / full:.1%} of a full backup, the list {lists / full:.1%},"
        f" both {(changed + lists) / full:.1%}"
    )
    return Figure(GROUP, name, 1, Spread(seconds, seconds, seconds), {}, None)


def _cut(rows: list[bytes]) -> list[tuple[bytes, Block]]:
    cutter = BlockCutter()
    return cutter.feed(list(rows)) + cutter.finish()


def _size(pieces: list[bytes]) -> int:
    return len(zstandard.ZstdCompressor(LEVEL).compress(b"".join(pieces)))
