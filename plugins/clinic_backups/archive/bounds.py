"""Limits how much an archive may unpack to, by the known size of its backup, before it is read."""

from __future__ import annotations

from dataclasses import dataclass, replace

from clinic_backups.archive.blocks import MAX_BLOCK_BYTES, MIN_BLOCK_ROWS
from clinic_backups.archive.encryption import DAMAGED_HINT
from clinic_backups.base.backup_record import BackupRecord
from clinic_backups.base.envelope import Envelope
from clinic_backups.base.errors import IntegrityError, PermanentError

RATIO = 200
"""If a backup's size is unknown, the limit is this multiple of the archive. Clinics' rows shrink to 5 % to 10 %."""
LEAST_BYTES = 64 * 1024 * 1024
"""Any archive may unpack to this size, because small archives may compress better."""
SOME_BLOCKS = 1_000
TABLE_BYTES, ALL_TABLES_BYTES = 4 * 1024 * 1024, 1024 * 1024
"""Bytes that a manifest may use for each table, and in addition for all tables."""
BLOCK_BYTES = 128
"""Bytes that a manifest may use for each block."""
UNKNOWN_BYTES, UNKNOWN_RATIO = 16 * 1024 * 1024, 4
"""If a backup's size is unknown: bytes that a manifest may use for all tables, and the multiple of the archive's size
that it may use for blocks. A block's SHA-256 takes 64 characters, and at least 32 bytes of the archive."""
PARSED_BYTES, PARSED_RATIO = 16 * 1024 * 1024, 10
"""Memory that parsing a manifest may take: this much, plus this multiple of its length. Real manifests take four."""
_COSTS = ((b"[", 96), (b"{", 256), (b",", 64), (b":", 64))
"""The most memory, in bytes in CPython, of a value that begins with each of these characters."""


@dataclass(frozen=True)
class Bound:
    """The size of a whole backup, which its archive must not exceed.

    :param raw_bytes: bytes of CSV.
    :param rows: number of rows, if known.
    :param tables: number of tables, if known.
    :param is_guess: the bound comes from the archive's size, not from a record or an envelope.
    :param archive_bytes: the archive's size, if its record or envelope is not trusted.
    """

    raw_bytes: int
    rows: int | None = None
    tables: int | None = None
    is_guess: bool = False
    archive_bytes: int | None = None

    @property
    def blocks(self) -> int:
        """The most blocks: each has at least ``MIN_BLOCK_ROWS``, or is large, or is its table's last."""
        rows = self.raw_bytes if self.rows is None else min(self.rows, self.raw_bytes)
        least = rows // MIN_BLOCK_ROWS + self.raw_bytes // MAX_BLOCK_BYTES + (self.tables or 0)
        return min(rows, least + SOME_BLOCKS)

    @property
    def manifest_bytes(self) -> int | None:
        """The longest manifest that is allowed; none if too little is known."""
        limits = []
        if self.tables is not None:
            limits.append(ALL_TABLES_BYTES + self.tables * TABLE_BYTES + self.blocks * BLOCK_BYTES)
        if self.archive_bytes is not None:
            limits.append(UNKNOWN_BYTES + self.archive_bytes * UNKNOWN_RATIO)
        return min(limits, default=None)


def bound_of(known: BackupRecord | Envelope) -> Bound | None:
    """The bound from the catalog's record or an envelope; none if it has no sizes."""
    if known.raw_bytes is None:
        return None
    return Bound(known.raw_bytes, sum(known.rows.values()), len(known.rows))


def guess(size_bytes: int, ratio: int = RATIO) -> Bound:
    """The bound for an archive of which only the size is known."""
    return Bound(max(LEAST_BYTES, size_bytes * ratio), is_guess=True, archive_bytes=size_bytes)


def smaller(told: Bound | None, guessed: Bound) -> Bound:
    """The bound for an archive whose envelope may be forged: the smaller of the envelope's and the guess."""
    if told is None or told.raw_bytes > guessed.raw_bytes:
        return guessed
    return replace(told, archive_bytes=guessed.archive_bytes)


def believed(envelope: Envelope, ratio: int) -> Bound:
    """The bound for an archive that has only an envelope: see :func:`smaller`. ``ratio``: see :func:`guess`."""
    return smaller(bound_of(envelope), guess(envelope.archive.size_bytes, ratio))


def require_parsable(manifest: bytes) -> None:
    """Check JSON before it is parsed: brackets and commas alone take twenty times its length in memory.

    :raises IntegrityError: it would take more memory than any manifest of this package.
    """
    if sum(manifest.count(mark) * cost for mark, cost in _COSTS) > PARSED_BYTES + len(manifest) * PARSED_RATIO:
        raise damaged("has a manifest that is not valid: it would take far more memory than a manifest of its length")


class Room:
    """Counts how much may still be unpacked from an archive. It is asked before more is read.

    :param bound: none means no limit.
    """

    def __init__(self, bound: Bound | None) -> None:
        self._bound = bound
        self._blocks = self._rows = self._size_bytes = 0

    def take(self, blocks: int, rows: int, size_bytes: int) -> None:
        """Count some more blocks. :raises IntegrityError, PermanentError: they exceed the bound."""
        self._blocks += blocks
        self._rows += rows
        self._size_bytes += size_bytes
        self._require(self._blocks, self._rows, self._size_bytes)

    def manifest_bytes(self, limit: int) -> int:
        """The longest manifest that is allowed."""
        known = self._bound.manifest_bytes if self._bound is not None else None
        return limit if known is None else min(limit, known)

    def require(self, blocks: int, rows: int, size_bytes: int) -> None:
        """Check the totals of a manifest over all archives. :raises IntegrityError: see :meth:`take`."""
        # The size of an incremental archive says nothing about the blocks in other archives.
        if self._bound is not None and not self._bound.is_guess:
            self._require(blocks, rows, size_bytes)

    def _require(self, blocks: int, rows: int, size_bytes: int) -> None:
        bound = self._bound
        if bound is None:
            return
        if size_bytes > bound.raw_bytes and bound.is_guess:
            raise PermanentError(
                f"The archive unpacks to more than {bound.raw_bytes:,} bytes of rows, which is unlikely for its size.",
                hint="If you know its origin and trust it, raise CLINIC_BACKUPS_UNPACK_RATIO.",
            )
        if size_bytes > bound.raw_bytes:
            raise damaged(f"unpacks to more than the {bound.raw_bytes:,} bytes of rows that its backup has")
        if bound.rows is not None and rows > bound.rows:
            raise damaged(f"has more than the {bound.rows:,} rows of its backup")
        if blocks > bound.blocks:
            raise damaged(f"has more than {bound.blocks:,} blocks, the most that its backup can have")


def damaged(what: str) -> IntegrityError:
    """The error for a damaged archive: ``what`` completes the sentence."""
    return IntegrityError(f"The archive {what}.", hint=DAMAGED_HINT)
