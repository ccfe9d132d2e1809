"""The two states that are compared: a backup in the stores, or a clinic's rows in a database at one moment."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Set
from dataclasses import replace
from datetime import datetime
from functools import cached_property
from types import MappingProxyType
from typing import Protocol

from clinic_backups.archive.blocks import Block, BlockList
from clinic_backups.base.backup_record import BackupRecord
from clinic_backups.base.table import Table
from clinic_backups.restore.archives import Archives, Fetched, Source
from clinic_backups.restore.find_backup import source_of
from clinic_backups.restore.missing_blocks import MissingBlocks
from clinic_backups.restore.read_blocks import blocks_of, read_other_blocks
from clinic_backups.tenant.source_database import identity_of
from clinic_backups.tenant.tenant_db import Snapshot

TakeBlock = Callable[[str, bytes, int], object]
"""Gets a table's name, the bytes of a block, and how often the block is there."""
Digests = Mapping[str, Counter[bytes]]
"""By table: the digests of blocks, each with its number."""

Known = Mapping[str, Set[bytes]]
"""By table: the digests of blocks."""
_NONE: frozenset[bytes] = frozenset()
_NOTHING: Known = MappingProxyType({})


def is_same(one: Table, other: Table) -> bool:
    """Whether equal rows of two tables have equal bytes."""
    return [(each.name, each.type) for each in one.stored_columns] == [
        (each.name, each.type) for each in other.stored_columns
    ]


class Side(Protocol):
    """One of the two states."""

    @property
    def tables(self) -> Mapping[str, Table]:
        """Its tables by ``schema.table``."""

    @property
    def parents(self) -> frozenset[str]:
        """Those whose rows are not this clinic's alone."""

    @property
    def database(self) -> str | None:
        """The database that it is of, see ``source_database``; none if that is not known."""

    @property
    def moment(self) -> datetime:
        """The moment of its rows."""

    def rows(self, name: str) -> int | None:
        """How many rows a table has; none if that is not known without reading them."""

    def blocks(self, name: str) -> BlockList:
        """The blocks of a table."""

    def read(self, others: Digests, like: Mapping[str, BlockList], take: TakeBlock) -> None:
        """Read the tables of ``others``, and take the blocks that the other side does not have.

        Digests of blocks that both sides have are taken out of ``others``.

        :param like: blocks of the other side, in their order. What is like them is read fast.
        """


class BackupSide:
    """A backup. Blocks that the other side has are not read.

    :param elsewhere: by table, digests of blocks that the other side most likely has. They were not kept in memory.
    """

    def __init__(self, archives: Archives, backup: Fetched, elsewhere: Known = _NOTHING) -> None:
        self._archives, self._backup, self._elsewhere = archives, backup, elsewhere
        self._contents = backup.manifest.tables

    @classmethod
    def fetched(cls, archives: Archives, source: Source, elsewhere: Known = _NOTHING) -> BackupSide:
        """A backup whose own archive was read to its end."""

        def is_wanted(table: str, block: Block) -> bool:
            return block.digest not in elsewhere.get(table, _NONE)

        return cls(archives, archives.fetch(source, only=is_wanted if elsewhere else None), elsewhere)

    @classmethod
    def both(
        cls, archives: Archives, first: BackupRecord, second: BackupRecord, listed: Callable[[BackupRecord], Known]
    ) -> tuple[BackupSide, BackupSide]:
        """Two backups. Each of their own archives is read once, if the blocks that only one has fit into memory.

        :param listed: the digests of the blocks of a full backup, as far as the catalog knows them. They only say what
            need not be kept: what was not kept, and is wanted, is read again.
        """
        # The catalog lists exactly what a full backup has. So of two, the one that is built on others comes first.
        early, late = (first, second) if first.chain and not second.chain else (second, first)
        one = cls.fetched(archives, source_of(early), _NOTHING if late.chain else listed(late))
        other = cls.fetched(archives, source_of(late), {name: set(one.blocks(name).digests()) for name in one.tables})
        return (one, other) if early is first else (other, one)

    @property
    def tables(self) -> Mapping[str, Table]:
        return {name: content.table for name, content in self._contents.items()}

    @property
    def parents(self) -> frozenset[str]:
        return frozenset(name for name, content in self._contents.items() if content.is_parent)

    @property
    def database(self) -> str | None:
        return self._backup.manifest.database

    @property
    def moment(self) -> datetime:
        return self._backup.manifest.snapshot_at

    def blocks(self, name: str) -> BlockList:
        """All blocks of a table."""
        return self._contents[name].blocks

    def rows(self, name: str) -> int | None:
        return self._contents[name].rows

    def read(self, others: Digests, like: Mapping[str, BlockList], take: TakeBlock) -> None:
        missing = {}
        for name, theirs in others.items():
            own = self.blocks(name).counted()
            missing[name] = own - theirs
            theirs.subtract(own - missing[name])

        def use(table: str, block: Block, data: bytes, times: int) -> None:
            take(table, data, times)

        blocks = {name: self.blocks(name) for name in others}
        wanted = MissingBlocks(blocks, missing, use)
        is_kept = not any(self._elsewhere.get(name, _NONE) & digests.keys() for name, digests in missing.items())
        self._archives.read(self._backup if is_kept else replace(self._backup, segments=None), wanted)
        wanted.require_all()


class DatabaseSide:
    """The rows that the extracts return in one snapshot.

    :param queries: the extract of each table, rendered for the clinic.
    :param on_table: told the name of the table that is read now.
    """

    def __init__(
        self,
        snapshot: Snapshot,
        queries: Mapping[str, str],
        parents: frozenset[str],
        on_table: Callable[[str], object],
    ) -> None:
        self._snapshot, self._queries, self._on_table = snapshot, queries, on_table
        self._tables = snapshot.tables(sorted(queries))
        self._parents = parents

    @property
    def tables(self) -> Mapping[str, Table]:
        return self._tables

    @property
    def parents(self) -> frozenset[str]:
        return self._parents

    @cached_property
    def database(self) -> str | None:
        return identity_of(self._snapshot)

    @cached_property
    def moment(self) -> datetime:
        return self._snapshot.time()

    def rows(self, name: str) -> int | None:
        return None

    def blocks(self, name: str) -> BlockList:
        self._on_table(name)
        return blocks_of(self._snapshot, self._tables[name], self._queries[name], BlockList())

    def read(self, others: Digests, like: Mapping[str, BlockList], take: TakeBlock) -> None:
        for name, theirs in others.items():
            self._on_table(name)

            def use(data: bytes, name: str = name) -> None:
                take(name, data, 1)

            read_other_blocks(
                self._snapshot, self._tables[name], self._queries[name], like.get(name, BlockList()), theirs, use
            )
