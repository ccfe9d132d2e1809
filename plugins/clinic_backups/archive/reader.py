"""Reads an archive of format 1 from the store's bytes to checked segments. Everything in it is checked.

Anybody who has a public key and may write to the store can make an archive that age accepts. So sizes are limited,
names are only compared, and block digests, row counts, the manifest and the catalog's SHA-256 must all agree.
"""

from __future__ import annotations

import hashlib
import re
import tarfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, BinaryIO
from urllib.parse import quote, unquote

from clinic_backups.archive.blocks import MAX_BLOCK_BYTES, Block, BlockList
from clinic_backups.archive.bounds import Bound, Room, damaged, guess, require_parsable
from clinic_backups.archive.codec import CODEC
from clinic_backups.archive.encryption import ENCRYPTION
from clinic_backups.archive.manifest import Manifest as Manifest
from clinic_backups.archive.manifest import TableContent as TableContent
from clinic_backups.archive.manifest import checked
from clinic_backups.archive.whole_rows import count_rows
from clinic_backups.archive.writer import MANIFEST, SERVICE, segment_index
from clinic_backups.base import strict_json
from clinic_backups.base.backup_facts import ArchiveInfo
from clinic_backups.base.listening import nobody
from clinic_backups.base.pipeline import ByteChannel, Pipeline
from clinic_backups.base.shared_unit import FILES

MAX_SEGMENT_BYTES = 1024**3 + 2 * MAX_BLOCK_BYTES
"""A segment ends with the row that fills its batch, and PostgreSQL's longest row is 1 GiB."""
MAX_INDEX_BYTES = 8 * 1024 * 1024
"""The longest index. The worst case is a batch and an unfinished block, 5 MiB of one-byte rows: half of this."""
MAX_MANIFEST_BYTES, MANIFEST_BLOCK_BYTES = 64 * 1024 * 1024, 128
"""The longest manifest: for the tables' descriptions and the blocks in other archives (see ``MAX_FOREIGN_BLOCKS``), and
in addition for each block that was read. So a hostile archive can use memory only in proportion to its real content."""
MAX_FILES_BYTES = 64 * 1024 * 1024
"""The most bytes of all files of the shared unit together."""
MAX_NAME_BYTES, FETCH_BYTES = 1024, 256 * 1024
UNPACK_BYTES = 4096
"""Bytes given to the codec at a time. Four bytes of a hostile zstd frame unpack to at most 128 KiB."""

_MEMBER = re.compile(r"tables/([^/]+)/(\d{6,9})\.json")
_ENTRY = re.compile(rb'\["([0-9a-f]{64})", ([1-9]\d{0,9}), ([1-9]\d{0,9})\]')


@dataclass(frozen=True)
class Segment:
    """Some whole blocks of one table. ``data`` is their bytes. Digests and row counts were checked."""

    table: str
    blocks: tuple[Block, ...]
    data: bytes


def read_archive(
    source: BinaryIO,
    identities: Sequence[Any],
    *,
    expected: ArchiveInfo | None,
    bound: Bound | None = None,
    on_segment: Callable[[Segment], object] = nobody,
) -> Manifest:
    """Read an archive from start to end in constant memory, and return its manifest if everything was right.

    :param expected: the catalog's data of it. Without it, the caller must compare the manifest with the wanted backup.
    :param bound: the size of its backup. Without it, an archive may unpack to ``bounds.RATIO`` times its size.
    :param on_segment: called for each segment, in order. The segments are valid only after this function has
        returned,
    because a cut, a swapped archive or damage further on show later. An error that it raises ends the reading.
    :raises IntegrityError: it is cut short, damaged, another archive than expected, or not of this package.
    :raises WrongIdentity: none of the identities opens it.
    :raises PermanentError: a later version of this package wrote it, or it unpacks to more than is likely for its
    size.
    """
    if bound is None and expected is not None:
        bound = guess(expected.size_bytes)
    sealed, packed, pipeline = ByteChannel(), ByteChannel(), Pipeline()
    reader = _Reader(_Unpacked(packed), on_segment, bound)
    pipeline.add("fetch", lambda: _fetch(source, sealed, expected), target=sealed)
    pipeline.add("decrypt", lambda: ENCRYPTION.open(sealed, packed, identities), source=sealed, target=packed)
    return pipeline.run(reader.read, on_failure=lambda: None)


def _fetch(source: BinaryIO, target: ByteChannel, expected: ArchiveInfo | None) -> None:
    """The first stage: passes the stored bytes on, and compares them with the catalog before it ends."""
    digest, size = hashlib.sha256(), 0
    while data := source.read(FETCH_BYTES):
        size += len(data)
        if expected and size > expected.size_bytes:
            raise damaged(f"{expected.key} is longer than the {expected.size_bytes} bytes that it should have")
        digest.update(data)
        target.write(data)
    if expected and size < expected.size_bytes:
        raise damaged(f"{expected.key} is cut short or was replaced: it has {size} of {expected.size_bytes} bytes")
    if expected and digest.hexdigest() != expected.sha256:
        raise damaged(f"{expected.key} is damaged or was replaced: its SHA-256 is not the catalog's")


class _Unpacked:
    """The tar stream: exactly one compressed frame, read in pieces of any size."""

    def __init__(self, packed: ByteChannel) -> None:
        self._packed = packed
        self._frame = CODEC.reader()
        self._rest = memoryview(b"")

    def take(self, size: int) -> bytes:
        """Exactly that many bytes. Memory is allocated only as they arrive. :raises IntegrityError: there are fewer."""
        parts = []
        while size:
            self._rest = self._rest or memoryview(self._more())
            if not self._rest:
                raise damaged("is cut short: its tar file does not end")
            part, self._rest = self._rest[:size], self._rest[size:]
            size -= len(part)
            parts.append(part)
        return b"".join(parts)

    def end(self) -> None:
        """:raises IntegrityError: there are more bytes, the frame did not end, or an earlier stage failed."""
        if self._rest or self._more() or self._frame.unused_data or self._packed.read(1):
            raise damaged("goes on after its end")

    def _more(self) -> bytes:
        """Some more bytes; none at the end of the frame."""
        while not self._frame.eof:
            if not (data := self._packed.read(UNPACK_BYTES)):
                raise damaged("is cut short: its compressed stream does not end")
            try:
                unpacked = self._frame.decompress(data)
            except CODEC.Damaged:
                raise damaged(f"is damaged, or not of this package: {CODEC.NAME} cannot unpack it") from None
            if unpacked:
                return unpacked
        return b""


class _Reader:
    """Reads the members in the order in which ``ArchiveWriter`` writes them, and accepts no other."""

    def __init__(self, source: _Unpacked, on_segment: Callable[[Segment], object], bound: Bound | None) -> None:
        self._source, self._on_segment, self._room = source, on_segment, Room(bound)
        self._tables: dict[str, BlockList] = {}
        self._table, self._number = "", 0
        self._files: dict[str, bytes] = {}

    def read(self) -> Manifest:
        while (member := self._header()).name != MANIFEST:
            if member.name.startswith(SERVICE):
                self._file(member)
            else:
                self._segment(member)
        manifest = self._manifest(member)
        if any(self._source.take(2 * tarfile.BLOCKSIZE)):
            raise damaged("has something after its manifest")
        self._source.end()
        return manifest

    def _header(self) -> tarfile.TarInfo:
        """The next member's header. A name of more than 100 bytes is in a member of its own before it (GNU tar)."""
        header, long_name = self._record(), b""
        if header.type == tarfile.GNUTYPE_LONGNAME:
            long_name = self._content(header, MAX_NAME_BYTES).rstrip(b"\0")
            header = self._record()
        if header.type != tarfile.REGTYPE:
            raise damaged(f"has a member that is not a plain file: {header.name!r}")
        header.name = long_name.decode("utf-8", "replace") or header.name
        return header

    def _record(self) -> tarfile.TarInfo:
        record = self._source.take(tarfile.BLOCKSIZE)
        if not any(record):
            raise damaged("ends without a manifest")
        try:
            return tarfile.TarInfo.frombuf(record, "utf-8", "replace")
        except (tarfile.HeaderError, ValueError):
            raise damaged("is damaged, or not of this package: it is not a tar file") from None

    def _content(self, member: tarfile.TarInfo, limit: int) -> bytes:
        if not 0 <= member.size <= limit:
            raise damaged(f"says that {member.name!r} has {member.size} bytes; at most {limit} are possible")
        data = self._source.take(member.size)
        if any(self._source.take(-member.size % tarfile.BLOCKSIZE)):
            raise damaged(f"has bytes between its members, after {member.name!r}")
        return data

    def _file(self, member: tarfile.TarInfo) -> None:
        name = member.name.removeprefix(SERVICE)
        if name not in FILES or name in self._files:
            raise damaged(f"has a member that does not belong there: {member.name!r}")
        room = MAX_FILES_BYTES - sum(map(len, self._files.values()))
        self._files[name] = self._content(member, room)

    def _segment(self, member: tarfile.TarInfo) -> None:
        if self._files:
            raise damaged(f"has a member that does not belong there: {member.name!r}")
        table = self._next_table(member.name)
        where = f"in segment {self._number} of {table!r}"
        blocks = _index(self._content(member, MAX_INDEX_BYTES), where)
        content = self._header()
        if content.name != member.name.removesuffix("json") + "csv":
            raise damaged(f"has {content.name!r} where the rows should come {where}")
        if content.size != sum(block.size_bytes for block in blocks):
            raise damaged(f"has rows of another size than their index says {where}")
        self._room.take(len(blocks), sum(block.rows for block in blocks), content.size)
        data = self._content(content, MAX_SEGMENT_BYTES)
        ends = accumulate(block.size_bytes for block in blocks)
        for number, (block, end) in enumerate(zip(blocks, ends, strict=True), start=1):
            rows = data[end - block.size_bytes : end]
            if hashlib.sha256(rows).digest() != block.digest:
                raise damaged(f"has a block whose bytes do not match its SHA-256: block {number} {where}")
            if count_rows(rows) != block.rows:
                raise damaged(f"has a block that is not {block.rows} whole rows: block {number} {where}")
            self._tables[table].append(block)
        self._on_segment(Segment(table, blocks, data))

    def _next_table(self, name: str) -> str:
        """The table of an index's name, which must be this table's next or another table's first."""
        match = _MEMBER.fullmatch(name)
        table, number = (unquote(match[1]), int(match[2])) if match else ("", 0)
        if name != f"tables/{quote(table, safe='.-_~ ')}/{number:06}.json":
            raise damaged(f"has a member that does not belong there: {name!r}")
        if table not in self._tables:
            self._table, self._number, self._tables[table] = table, 0, BlockList()
        self._number += 1
        if (table, number) != (self._table, self._number):
            expected = f"segment {self._number} of {self._table!r}"
            raise damaged(
                f"has segment {number} of {table!r} in place of {expected}: a segment is missing, twice or misplaced"
            )
        return table

    def _manifest(self, member: tarfile.TarInfo) -> Manifest:
        limit = MAX_MANIFEST_BYTES + sum(map(len, self._tables.values())) * MANIFEST_BLOCK_BYTES
        content = self._content(member, self._room.manifest_bytes(limit))
        require_parsable(content)
        try:
            manifest = checked(strict_json.loads(content, check_texts=False), self._tables, self._files)
        except (KeyError, TypeError, ValueError, AttributeError, RecursionError):
            raise damaged("has a manifest that cannot be read") from None
        contents = manifest.tables.values()
        self._room.require(
            sum(len(content.blocks) for content in contents),
            sum(content.rows for content in contents),
            sum(content.size_bytes for content in contents),
        )
        return manifest


def _index(text: bytes, where: str) -> tuple[Block, ...]:
    """The blocks in a segment's index. It is matched and not parsed: hostile JSON can take twenty times its size."""
    entries = _ENTRY.findall(text)
    blocks = tuple(Block(bytes.fromhex(digest.decode()), int(rows), int(size)) for digest, rows, size in entries)
    if not blocks or text != segment_index(blocks):
        raise damaged(f"has an index that cannot be read {where}")
    return blocks
