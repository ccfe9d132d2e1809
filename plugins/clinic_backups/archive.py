"""The archive, format 1: zstd( tar ) of segments of blocks, with the manifest as its last member.

A segment is a run of whole blocks of one table, about one batch long: ``tables/<schema.table>/000001.csv``, preceded by
``000001.json``, which lists digest, rows and bytes of its blocks, so that a restore can check and choose blocks while
it streams (docs/decisions/0003).
"""

from __future__ import annotations

import hashlib
import json
import tarfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any
from urllib.parse import quote

import zstandard

from clinic_backups.blocks import Block, BlockCutter, BlockList
from clinic_backups.model import FORMAT_VERSION, Clinic, Table, iso
from clinic_backups.pipeline import ByteChannel

MANIFEST = "manifest.json"


@dataclass(frozen=True)
class Zstd:
    """The compression stage as a DAG file names it. ``level`` 1 is the fastest and, on clinics' CSV, also the best."""

    level: int = 1


class ArchiveWriter:
    """Writes one archive into a channel: begin a table, add its rows, end it, and so on; then finish."""

    def __init__(self, target: ByteChannel, compression: Zstd, snapshot_at: datetime) -> None:
        self._target = target
        # With a checksum and a frame that must end: zstandard's reader ends silently on a file that was cut short.
        self._zstd = zstandard.ZstdCompressor(level=compression.level, write_checksum=True).compressobj()
        self._time = int(snapshot_at.timestamp())
        self._snapshot_at = snapshot_at
        self._tables: dict[str, tuple[Table, BlockList]] = {}

    def begin(self, table: Table) -> None:
        """The next rows are this table's."""
        self._cutter, self._blocks, self._segments = BlockCutter(), BlockList(), 0
        self._tables[table.name] = (table, self._blocks)
        self._folder = f"tables/{quote(table.name, safe='.-_~ ')}"

    def add(self, rows: list[bytes]) -> None:
        """Some whole CSV rows of the table."""
        self._segment(self._cutter.feed(rows))

    def end(self) -> None:
        """The table has no more rows."""
        self._segment(self._cutter.finish())

    def finish(self, clinic: Clinic, backup_id: str) -> Mapping[str, BlockList]:
        """Write the manifest and the end of the archive. Returns the blocks of each table."""
        # Made twice, for its size and then for its bytes: as a whole it would grow with the clinic.
        size = sum(map(len, manifest_chunks(clinic, backup_id, self._snapshot_at, self._tables)))
        self._member(MANIFEST, size, manifest_chunks(clinic, backup_id, self._snapshot_at, self._tables))
        # Two empty records end a tar file.
        self._write(bytes(2 * tarfile.BLOCKSIZE))
        self._target.write(self._zstd.flush())
        return {name: blocks for name, (_, blocks) in self._tables.items()}

    def _segment(self, segment: list[tuple[bytes, Block]]) -> None:
        if not segment:
            return
        self._segments += 1
        index = segment_index(block for _, block in segment)
        size = sum(block.size_bytes for _, block in segment)
        self._member(f"{self._folder}/{self._segments:06}.json", len(index), [index])
        # One call of the compressor for all of it: each gives the other threads a turn.
        self._member(f"{self._folder}/{self._segments:06}.csv", size, [b"".join(data for data, _ in segment)])
        for _, block in segment:
            self._blocks.append(block)

    def _member(self, name: str, size: int, chunks: Iterable[bytes]) -> None:
        header = tarfile.TarInfo(name)
        header.size, header.mtime, header.mode = size, self._time, 0o600
        self._write(header.tobuf(tarfile.GNU_FORMAT, "utf-8", "strict"))
        for chunk in chunks:
            self._write(chunk)
        self._write(bytes(-size % tarfile.BLOCKSIZE))

    def _write(self, data: bytes) -> None:
        self._target.write(self._zstd.compress(data))


def segment_index(blocks: Iterable[Block]) -> bytes:
    """The member before a segment: its blocks as [SHA-256, rows, bytes]. The reader wants exactly these bytes."""
    return json.dumps({"blocks": [[block.digest.hex(), block.rows, block.size_bytes] for block in blocks]}).encode()


def manifest_chunks(
    clinic: Clinic, backup_id: str, snapshot_at: datetime, tables: Mapping[str, tuple[Table, BlockList]]
) -> Iterator[bytes]:
    """The manifest's JSON in pieces: what each table is, and its blocks as [SHA-256, rows, bytes, archive].

    The archive is an index into ``archives``; a full backup has only its own.
    """
    head: dict[str, Any] = {
        "format": FORMAT_VERSION,
        "backup_id": backup_id,
        "clinic": asdict(clinic),
        "snapshot_at": iso(snapshot_at),
        "archives": [backup_id],
        "fingerprint": fingerprint({name: blocks for name, (_, blocks) in tables.items()}),
    }
    yield json.dumps(head, ensure_ascii=False)[:-1].encode() + b', "tables": ['
    for number, (table, blocks) in enumerate(tables.values()):
        described = asdict(table) | {"rows": blocks.rows, "size_bytes": blocks.size_bytes}
        yield (b", " if number else b"") + json.dumps(described, ensure_ascii=False)[:-1].encode() + b', "blocks": ['
        for position, block in enumerate(blocks):
            comma = ", " if position else ""
            yield f'{comma}["{block.digest.hex()}", {block.rows}, {block.size_bytes}, 0]'.encode()
        yield b"]}"
    yield b"]}\n"


def block_list(tables: Mapping[str, BlockList]) -> Iterator[bytes]:
    """What the catalog keeps of a backup's blocks, in pieces: a JSON line, ``[[table, blocks], …]``, and all digests.

    In the order of the tables' names; a digest is 32 bytes. An incremental looks there for the blocks that are stored.
    """
    names = sorted(tables)
    yield json.dumps([[name, len(tables[name])] for name in names]).encode() + b"\n"
    for name in names:
        yield from tables[name].digest_pieces()


def fingerprint(tables: Mapping[str, BlockList]) -> str:
    """SHA-256, in hex, over the tables' names and block digests: equal for two backups that hold the same rows."""
    total = hashlib.sha256()
    for name in sorted(tables):
        total.update(f"{name}\0{len(tables[name])}\0".encode())
        for piece in tables[name].digest_pieces():
            total.update(piece)
    return total.hexdigest()
