"""How much an archive may unpack to: what is known of its backup, before a byte of it is believed."""

from __future__ import annotations

from dataclasses import dataclass, replace

from clinic_backups.archive.blocks import MAX_BLOCK_BYTES, MIN_BLOCK_ROWS
from clinic_backups.archive.encryption import DAMAGED_HINT
from clinic_backups.base.errors import IntegrityError, PermanentError
from clinic_backups.base.model import BackupRecord, Envelope

RATIO = 200
"""Where nobody knows a backup's size: so many times the archive. Clinics' rows are packed to a tenth or a twentieth."""
LEAST_BYTES = 64 * 1024 * 1024
"""As much may be unpacked of any archive: small ones may be packed better."""
SOME_BLOCKS = 1_000
TABLE_BYTES, ALL_TABLES_BYTES = 4 * 1024 * 1024, 1024 * 1024
"""What a manifest may say of one table, and on top of that of all."""
BLOCK_BYTES = 128
"""What a manifest may say of one block."""
UNKNOWN_BYTES, UNKNOWN_RATIO = 16 * 1024 * 1024, 4
"""Where nobody knows a backup: what a manifest may say of all tables, and so many times the archive for its blocks. A
block's SHA-256 takes 64 characters, and at least 32 bytes of the archive."""
PARSED_BYTES, PARSED_RATIO = 16 * 1024 * 1024, 10
"""So much memory a manifest may take when it is parsed, and so many times its length on top: ours take four times."""
_COSTS = ((b"[", 96), (b"{", 256), (b",", 64), (b":", 64))
"""Bytes of memory of what each of these begins, at most, in CPython."""


@dataclass(frozen=True)
class Bound:
    """The rows of a whole backup, of which an archive may hold no more.

    :param raw_bytes: bytes of CSV.
    :param rows: how many, where that is known.
    :param tables: how many, where that is known.
    :param is_guess: not from a record or an envelope, but from the archive's size.
    :param archive_bytes: the archive's size, where its record or envelope is not believed.
    """

    raw_bytes: int
    rows: int | None = None
    tables: int | None = None
    is_guess: bool = False
    archive_bytes: int | None = None

    @property
    def blocks(self) -> int:
        """A block has ``MIN_BLOCK_ROWS``, or is large, or is its table's last."""
        rows = self.raw_bytes if self.rows is None else min(self.rows, self.raw_bytes)
        least = rows // MIN_BLOCK_ROWS + self.raw_bytes // MAX_BLOCK_BYTES + (self.tables or 0)
        return min(rows, least + SOME_BLOCKS)

    @property
    def manifest_bytes(self) -> int | None:
        """How long the manifest may be; none where too little is known."""
        limits = []
        if self.tables is not None:
            limits.append(ALL_TABLES_BYTES + self.tables * TABLE_BYTES + self.blocks * BLOCK_BYTES)
        if self.archive_bytes is not None:
            limits.append(UNKNOWN_BYTES + self.archive_bytes * UNKNOWN_RATIO)
        return min(limits, default=None)


def bound_of(known: BackupRecord | Envelope) -> Bound | None:
    """What the catalog, or an envelope, says of a backup; none where it does not say it."""
    if known.raw_bytes is None:
        return None
    return Bound(known.raw_bytes, sum(known.rows.values()), len(known.rows))


def guess(size_bytes: int, ratio: int = RATIO) -> Bound:
    """For an archive of which only the size is known."""
    return Bound(max(LEAST_BYTES, size_bytes * ratio), is_guess=True, archive_bytes=size_bytes)


def smaller(told: Bound | None, guessed: Bound) -> Bound:
    """For an archive whose envelope may be made up: what it says, and no more than its size makes likely."""
    if told is None or told.raw_bytes > guessed.raw_bytes:
        return guessed
    return replace(told, archive_bytes=guessed.archive_bytes)


def believed(envelope: Envelope, ratio: int) -> Bound:
    """For an archive of which only the envelope tells: see :func:`smaller`. ``ratio``: as for :func:`guess`."""
    return smaller(bound_of(envelope), guess(envelope.archive.size_bytes, ratio))


def require_parsable(manifest: bytes) -> None:
    """Before JSON of a size that is allowed is parsed: brackets and commas alone take twenty times that memory.

    :raises IntegrityError: it would take more than any manifest of this package.
    """
    if sum(manifest.count(mark) * cost for mark, cost in _COSTS) > PARSED_BYTES + len(manifest) * PARSED_RATIO:
        raise damaged("has a manifest that cannot be right: it would take far more memory than one of its length does")


class Room:
    """How much of what a backup holds may still come out of an archive. It is asked before that is read.

    :param bound: none: as much as there is.
    """

    def __init__(self, bound: Bound | None) -> None:
        self._bound = bound
        self._blocks = self._rows = self._size_bytes = 0

    def take(self, blocks: int, rows: int, size_bytes: int) -> None:
        """Some more blocks. :raises IntegrityError, PermanentError: they are more than there can be."""
        self._blocks += blocks
        self._rows += rows
        self._size_bytes += size_bytes
        self._require(self._blocks, self._rows, self._size_bytes)

    def manifest_bytes(self, limit: int) -> int:
        """How long the manifest may be."""
        known = self._bound.manifest_bytes if self._bound is not None else None
        return limit if known is None else min(limit, known)

    def require(self, blocks: int, rows: int, size_bytes: int) -> None:
        """What a manifest lists in all archives together. :raises IntegrityError: see :meth:`take`."""
        # Of an incremental's archive the size says nothing about what lies in others.
        if self._bound is not None and not self._bound.is_guess:
            self._require(blocks, rows, size_bytes)

    def _require(self, blocks: int, rows: int, size_bytes: int) -> None:
        bound = self._bound
        if bound is None:
            return
        if size_bytes > bound.raw_bytes and bound.is_guess:
            raise PermanentError(
                f"The archive unpacks to more than {bound.raw_bytes:,} bytes of rows, which its size makes unlikely.",
                hint="If you know where it is from and trust it, raise CLINIC_BACKUPS_UNPACK_RATIO.",
            )
        if size_bytes > bound.raw_bytes:
            raise damaged(f"unpacks to more than the {bound.raw_bytes:,} bytes of rows that its backup has")
        if bound.rows is not None and rows > bound.rows:
            raise damaged(f"has more than the {bound.rows:,} rows of its backup")
        if blocks > bound.blocks:
            raise damaged(f"has more than {bound.blocks:,} blocks, which are more than its backup can have")


def damaged(what: str) -> IntegrityError:
    """An archive that is not what it should be."""
    return IntegrityError(f"The archive {what}.", hint=DAMAGED_HINT)
