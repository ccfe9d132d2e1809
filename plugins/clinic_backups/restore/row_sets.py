"""Compares the rows that the database has with those of the archives, whatever their order, on this side of the
connection.

The order of a table's rows follows its collations, so the same rows may come in other blocks. What the restore loaded
into its temporary tables does not count here: code of the database may have changed it.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from clinic_backups.archive.blocks import BlockList
from clinic_backups.archive.whole_rows import rows_of
from clinic_backups.base.table import Table
from clinic_backups.restore.archives import Wanted
from clinic_backups.restore.missing_blocks import MissingBlocks
from clinic_backups.restore.read_blocks import read_other_blocks
from clinic_backups.tenant.tenant_db import Snapshot

ReadArchives = Callable[[Wanted], object]


@dataclass
class RowSet:
    """Rows as a set in which each may be several times: their number, and the sum of their digests."""

    rows: int = 0
    digest: int = 0

    def add(self, block: bytes, times: int = 1) -> None:
        """Add the rows of a block of CSV."""
        for row in rows_of(block):
            self.rows += times
            self.digest += times * int.from_bytes(hashlib.sha256(row).digest())


@dataclass
class Unlike:
    """A table's rows that are not in blocks which both sides have.

    :param left: the digests of the archives' other blocks, each with its number.
    """

    left: Counter[bytes]
    found: RowSet = field(default_factory=RowSet)

    def __bool__(self) -> bool:
        return bool(self.left) or bool(self.found.rows)


def unlike(snapshot: Snapshot, table: Table, query: str, blocks: BlockList) -> Unlike:
    """Read a table, and compare its blocks with the archives'."""
    there = Unlike(blocks.counted())

    read_other_blocks(snapshot, table, query, blocks, there.left, there.found.add)
    there.left = +there.left
    return there


def other_rows(tables: Mapping[str, Unlike], blocks: Mapping[str, BlockList], read: ReadArchives) -> list[str]:
    """Those of the tables whose rows are not the archives'.

    :param read: reads the archives.
    """
    wanted = {name: RowSet() for name in tables}
    missing = MissingBlocks(
        {name: blocks[name] for name in tables},
        {name: each.left for name, each in tables.items()},
        lambda table, block, data, times: wanted[table].add(data, times),
    )
    read(missing)
    missing.require_all()
    return [name for name, each in tables.items() if each.found != wanted[name]]
