"""Whether a store holds an archive as the catalog says."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Literal

from clinic_backups.errors import IntegrityError, ObjectNotFound
from clinic_backups.model import BackupRecord
from clinic_backups.stores.base import ByteSource, ObjectStore

Condition = Literal["intact", "missing", "damaged"]
CHUNK_BYTES = 1024 * 1024


class CheckedSource:
    """An archive on its way somewhere: raises, rather than ends, when it was not the one of the record.

    Size and SHA-256 are compared at the end, so that whoever stores what is read here completes nothing damaged.
    """

    def __init__(self, stream: ByteSource, record: BackupRecord, store_url: str) -> None:
        self._stream, self._record, self._store_url = stream, record, store_url
        self._digest, self._size_bytes = hashlib.sha256(), 0
        self._ended = False

    def read(self, size: int = -1, /) -> bytes:
        """:raises IntegrityError: the content is not what the record says."""
        data = b"" if self._ended else self._stream.read(size)
        self._digest.update(data)
        self._size_bytes += len(data)
        if not data:
            # Nothing more comes: whoever reads on must not take that for an empty archive.
            expected = (self._record.size_bytes, self._record.sha256)
            if self._ended or (self._size_bytes, self._digest.hexdigest()) != expected:
                raise IntegrityError(
                    f"{self._store_url}/{self._record.archive_key} is not what was stored there.",
                    hint="Its store changed it, or somebody did: see who may write there. Another copy serves instead.",
                )
            self._ended = True
        return data


def look(record: BackupRecord, store: ObjectStore) -> Condition:
    """Ask the store for the archive's size. :raises ClinicBackupsError: it did not answer."""
    try:
        info = store.stat(record.archive_key)
    except ObjectNotFound:
        return "missing"
    return "intact" if info.size_bytes == record.size_bytes else "damaged"


def read_through(
    record: BackupRecord, store: ObjectStore, on_read: Callable[[int], object] = lambda count: None
) -> Condition:
    """Read the whole archive and compare it with the record; no key is needed. :raises ClinicBackupsError:"""
    try:
        with store.open(record.archive_key) as stream:
            source = CheckedSource(stream, record, store.url)
            while data := source.read(CHUNK_BYTES):
                on_read(len(data))
    except ObjectNotFound:
        return "missing"
    except IntegrityError:
        return "damaged"
    return "intact"
