"""Writes archives of format 1: zstd( tar ) of segments of blocks, with the manifest as the last member.

A segment is a run of whole blocks of one table, about one batch long: ``tables/<schema.table>/000001.csv``. Before it
comes ``000001.json``, which lists digest, rows and bytes of its blocks, so that a restore can check and choose blocks
while it streams (docs/decisions/0003). After the tables, the archive of the shared unit has files:
``service/definition.dump`` and others.
"""

from __future__ import annotations

import hashlib
import json
import tarfile
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from itertools import chain
from types import MappingProxyType
from typing import Any
from urllib.parse import quote

from clinic_backups.archive.blocks import OWN_ARCHIVE, PIECE_BYTES, Block, BlockCutter, BlockList
from clinic_backups.archive.codec import Codec
from clinic_backups.archive.known_blocks import KnownBlocks
from clinic_backups.base.clinic import Clinic
from clinic_backups.base.envelope import FORMAT_VERSION
from clinic_backups.base.pipeline import ByteChannel
from clinic_backups.base.plain import iso
from clinic_backups.base.table import Column, Table

MANIFEST = "manifest.json"
PARENT = "parent"
"""What the manifest says of a parent table. It says nothing of the others, so that their archives stay as they were."""
SEGMENT_BYTES = 1024 * 1024
"""New blocks of an incremental backup are collected up to this size, the size of a batch in a full backup."""
SERVICE = "service/"
"""The folder of the files."""
MAX_FOREIGN_BLOCKS = 600_000
"""The most blocks of an incremental backup in other archives, about 77 million rows; further ones are stored again.

A reader does not read these blocks, so its limit for the manifest is 64 MiB; each needs at most 99 bytes there. Blocks
in the own archive raise that limit.
"""


class ArchiveWriter:
    """Writes one archive into a channel: begin a table, add its rows, end it, and so on; then finish.

    :param known: the blocks in older archives, which are listed but not stored again.
    :param database: the database that is backed up, see ``source_database``.
    :param chosen: see :class:`~clinic_backups.archive.manifest.Manifest`.
    """

    def __init__(
        self,
        target: ByteChannel,
        compression: Codec,
        snapshot_at: datetime,
        known: KnownBlocks | None = None,
        *,
        database: str | None = None,
        chosen: Sequence[str] = (),
    ) -> None:
        self._target, self._known, self._database, self._chosen = target, known, database, chosen
        self._packing = compression.writer()
        self._time = int(snapshot_at.timestamp())
        self._snapshot_at = snapshot_at
        self._tables: dict[str, tuple[Table, BlockList]] = {}
        self._outside: dict[str, int] = {}
        self._parents: list[str] = []
        self._files: dict[str, tuple[int, str]] = {}
        self._foreign = 0

    def begin(self, table: Table, *, outside: int = 0, is_parent: bool = False) -> None:
        """Begin a table. The next rows are its rows.

        :param outside: how many of them no extract returned.
        :param is_parent: see :class:`~clinic_backups.archive.manifest.TableContent`.
        """
        self._cutter, self._blocks, self._segments = BlockCutter(), BlockList(), 0
        self._name, self._waiting, self._waiting_bytes = table.name, list[tuple[bytes, Block]](), 0
        self._tables[table.name] = (table, self._blocks)
        if outside:
            self._outside[table.name] = outside
        if is_parent:
            self._parents.append(table.name)
        self._folder = f"tables/{quote(table.name, safe='.-_~ ')}"

    def add(self, rows: list[bytes]) -> None:
        """Add some whole CSV rows of the table."""
        self._take(self._cutter.feed(rows), SEGMENT_BYTES)

    def add_blocks(self, segment: list[tuple[bytes, Block]]) -> None:
        """Add some blocks of the table, already cut, as one segment."""
        self._take(segment, 0)

    def end(self) -> None:
        """End the table."""
        self._take(self._cutter.finish(), 0)

    def add_file(self, name: str, data: bytes) -> None:
        """Add a file of the shared unit, after all tables."""
        self._files[name] = (len(data), hashlib.sha256(data).hexdigest())
        self._member(SERVICE + name, len(data), [data])

    def finish(self, clinic: Clinic, backup_id: str) -> Mapping[str, BlockList]:
        """Write the manifest and the end of the archive. Returns the blocks of each table."""
        archives = [backup_id, *(self._known.archives if self._known is not None else ())]
        described = (clinic, archives, self._snapshot_at, self._tables, self._database, self._outside, self._chosen,
                     self._parents, self._files)  # fmt: skip
        # Its size stands before it and grows with the clinic. So a large manifest is made twice.
        kept, size = bytearray(), 0
        for chunk in manifest_chunks(*described):
            size += len(chunk)
            if size <= SEGMENT_BYTES:
                kept += chunk
        whole = [bytes(kept)] if size == len(kept) else manifest_chunks(*described)
        self._member(MANIFEST, size, whole)
        # Two empty records end a tar file.
        self._write(bytes(2 * tarfile.BLOCKSIZE))
        self._target.write(self._packing.flush())
        return {name: blocks for name, (_, blocks) in self._tables.items()}

    def _take(self, complete: list[tuple[bytes, Block]], at_least_bytes: int) -> None:
        """List the next blocks. New ones are collected until they fill a segment."""
        if self._known is None:
            for _, block in complete:
                self._blocks.append(block)
            self._segment(complete)
            return
        for data, block in complete:
            room = self._foreign < MAX_FOREIGN_BLOCKS
            archive = self._known.find(self._name, block.digest) if room else OWN_ARCHIVE
            self._blocks.append(block, archive)
            if archive == OWN_ARCHIVE:
                self._waiting.append((data, block))
                self._waiting_bytes += block.size_bytes
            else:
                self._foreign += 1
        if self._waiting_bytes >= at_least_bytes:
            self._segment(self._waiting)
            self._waiting, self._waiting_bytes = [], 0

    def _segment(self, segment: list[tuple[bytes, Block]]) -> None:
        if not segment:
            return
        self._segments += 1
        index = segment_index(block for _, block in segment)
        size = sum(block.size_bytes for _, block in segment)
        self._member(f"{self._folder}/{self._segments:06}.json", len(index), [index])
        # One call of the compressor for the whole segment, because each call lets other threads run.
        self._member(f"{self._folder}/{self._segments:06}.csv", size, [b"".join(data for data, _ in segment)])

    def _member(self, name: str, size: int, chunks: Iterable[bytes]) -> None:
        header = tarfile.TarInfo(name)
        header.size, header.mtime, header.mode = size, self._time, 0o600
        self._write(header.tobuf(tarfile.GNU_FORMAT, "utf-8", "strict"))
        for chunk in chunks:
            self._write(chunk)
        self._write(bytes(-size % tarfile.BLOCKSIZE))

    def _write(self, data: bytes) -> None:
        self._target.write(self._packing.compress(data))


def segment_index(blocks: Iterable[Block]) -> bytes:
    """The member before a segment: its blocks as [SHA-256, rows, bytes]. The reader accepts exactly this form."""
    return json.dumps({"blocks": [[block.digest.hex(), block.rows, block.size_bytes] for block in blocks]}).encode()


def manifest_chunks(
    clinic: Clinic,
    archives: Sequence[str],
    snapshot_at: datetime,
    tables: Mapping[str, tuple[Table, BlockList]],
    database: str | None = None,
    outside: Mapping[str, int] = MappingProxyType({}),
    chosen: Sequence[str] = (),
    parents: Collection[str] = (),
    files: Mapping[str, tuple[int, str]] = MappingProxyType({}),
) -> Iterator[bytes]:
    """The manifest's JSON in pieces: the definition of each table, and its blocks as [SHA-256, rows, bytes, archive].

    :param archives: the ids of the backups whose archives hold the blocks, the own one first. A block's archive is
        an index into this list. A full backup has only its own.
    :param database: the database in which the tables' OIDs and the columns' numbers are valid.
    :param outside: how many rows of a table no extract returned.
    :param chosen: see :class:`~clinic_backups.archive.manifest.Manifest`.
    :param parents: the parent tables.
    :param files: the files of the shared unit: size in bytes and SHA-256 in hex of each.
    """
    head: dict[str, Any] = {
        "format": FORMAT_VERSION,
        "backup_id": archives[0],
        "clinic": clinic.described(),
        "snapshot_at": iso(snapshot_at),
        "archives": list(archives),
        "database": database,
        "fingerprint": fingerprint({name: blocks for name, (_, blocks) in tables.items()}),
    }
    if chosen:
        head["chosen"] = list(chosen)
    if files:
        head["files"] = {name: list(facts) for name, facts in files.items()}
    yield json.dumps(head, ensure_ascii=False)[:-1].encode() + b', "tables": ['
    for number, (table, blocks) in enumerate(tables.values()):
        described = vars(table) | {"rows": blocks.rows, "size_bytes": blocks.size_bytes}
        if table.name in outside:
            described["outside"] = outside[table.name]
        if table.name in parents:
            described["class"] = PARENT
        text = json.dumps(described, default=vars, ensure_ascii=False)
        yield (b", " if number else b"") + text[:-1].encode() + b', "blocks": ['
        for position, (block, archive) in enumerate(zip(blocks, blocks.archives, strict=True)):
            comma = ", " if position else ""
            yield f'{comma}["{block.digest.hex()}", {block.rows}, {block.size_bytes}, {archive}]'.encode()
        yield b"]}"
    yield b"]}\n"


STATE_CHARACTERS = 16


def block_list(backup_id: str, tables: Mapping[str, BlockList]) -> Iterator[bytes]:
    """The list of the blocks in a backup's own archive for the catalog: a line of JSON and all digests, in pieces.

    The line is in the first piece. Every piece but the last has at least ``PIECE_BYTES``: a small clinic has one.
    The line has the backup's id, the fingerprint, and ``[[table, blocks], …]`` in the order of the names. For each
    table it has the rows in these blocks, and a hash of all blocks that the backup has of it. A digest is 32 bytes.
    :class:`~clinic_backups.archive.known_blocks.KnownBlocks` reads it, and refuses another backup's list.
    """
    own = {name: tables[name].own() for name in sorted(tables)}
    head = {
        "backup_id": backup_id,
        "fingerprint": fingerprint(own),
        "tables": [[name, len(blocks)] for name, blocks in own.items()],
        "states": {name: [blocks.rows, _state(tables[name])] for name, blocks in own.items()},
    }
    piece = json.dumps(head).encode() + b"\n"
    for digests in chain.from_iterable(blocks.digest_pieces() for blocks in own.values()):
        if len(piece) >= PIECE_BYTES:
            yield piece
            piece = b""
        piece += digests
    yield piece


def _state(blocks: BlockList) -> str:
    digest = hashlib.sha256()
    for piece in blocks.digest_pieces():
        digest.update(piece)
    return digest.hexdigest()[:STATE_CHARACTERS]


def _written(column: Column) -> dict[str, Any]:
    return {name: value for name, value in vars(column).items() if name not in ("definition", "number", "base_type")}


def schema_digest(tables: Iterable[Table]) -> str:
    """SHA-256, in hex, over the tables' columns and primary keys, which decide how rows are written.

    The definitions of types and the numbers of columns are left out. They do not change the bytes of blocks, and each
    manifest has its own.
    """
    described = [
        [table.name, [_written(column) for column in table.columns], table.primary_key]
        for table in sorted(tables, key=lambda table: table.name)
    ]
    return hashlib.sha256(json.dumps(described).encode()).hexdigest()


def fingerprint(tables: Mapping[str, BlockList]) -> str:
    """SHA-256, in hex, over the tables' names and block digests: equal for two backups that hold the same rows."""
    total = hashlib.sha256()
    for name in sorted(tables):
        total.update(f"{name}\0{len(tables[name])}\0".encode())
        for piece in tables[name].digest_pieces():
            total.update(piece)
    return total.hexdigest()
