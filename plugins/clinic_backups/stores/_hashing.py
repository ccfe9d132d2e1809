"""Hashes content on its way into a store. No other module does that."""

from __future__ import annotations

import hashlib

from clinic_backups.stores.base import ByteSource, StoredObject

PIECE_BYTES = 1024 * 1024


class HashingReader:
    """Reads from a source once, and computes size, SHA-256 and MD5 of the bytes.

    ``error`` is the error of ``source.read``, so that a store can tell it from its own errors. ``at_end`` becomes true
    only after the source has returned ``b""``. A store may not complete an object before that.
    """

    def __init__(self, source: ByteSource) -> None:
        self._source = source
        self._sha256 = hashlib.sha256()
        self._md5 = hashlib.md5(usedforsecurity=False)
        self.size_bytes = 0
        self.at_end = False
        self.error: BaseException | None = None

    @property
    def md5(self) -> str:
        """MD5 of what was read so far, lower-case hex."""
        return self._md5.hexdigest()

    @property
    def sha256(self) -> str:
        """SHA-256 of what was read so far, lower-case hex."""
        return self._sha256.hexdigest()

    def read_part(self, size_bytes: int) -> bytearray:
        """Exactly ``size_bytes`` bytes; fewer or none only at the end. Errors of the source are raised unchanged."""
        part = bytearray()
        while not self.at_end and len(part) < size_bytes:
            try:
                piece = self._source.read(min(PIECE_BYTES, size_bytes - len(part)))
            except BaseException as error:
                self.error = error
                raise
            self._sha256.update(piece)
            self._md5.update(piece)
            self.size_bytes += len(piece)
            part += piece
            self.at_end = len(piece) == 0
        return part

    def stored_as(self, key: str) -> StoredObject:
        """The size and digests of everything that was read."""
        return StoredObject(key=key, size_bytes=self.size_bytes, sha256=self.sha256, md5=self.md5)
