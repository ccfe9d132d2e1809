"""Whether a store holds an archive as the catalog says."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Container, Iterable, Mapping
from datetime import datetime
from itertools import groupby
from typing import Literal

from clinic_backups.archive.object_keys import ROOT, new_probe, parse_key
from clinic_backups.base.errors import IntegrityError, ObjectNotFound, TransientError, afterwards
from clinic_backups.base.model import CONTENT_TYPE_ARCHIVE, ArchiveInfo, BackupRecord, Condition
from clinic_backups.stores.base import ByteSource, ObjectInfo, ObjectStore, StoredObject

Told = Condition | Literal["not compared"]
"""What is known of an archive without reading it. ``not compared``: it is there, and its size fits; whoever may write
there can give that size to anything."""
CHUNK_BYTES = 1024 * 1024


class CheckedSource:
    """An archive on its way somewhere: raises, rather than ends, when it was not the one of the catalog.

    Size and SHA-256 are compared at the end, so that whoever stores what is read here completes nothing damaged.
    """

    def __init__(self, stream: ByteSource, archive: ArchiveInfo, store_url: str) -> None:
        self._stream, self._archive, self._store_url = stream, archive, store_url
        self._digest, self._size_bytes = hashlib.sha256(), 0
        self._ended = False

    def read(self, size: int = -1, /) -> bytes:
        """:raises IntegrityError: the content is not what the catalog says."""
        data = b"" if self._ended else self._stream.read(size)
        self._digest.update(data)
        self._size_bytes += len(data)
        if not data:
            # Nothing more comes: whoever reads on must not take that for an empty archive.
            expected = (self._archive.size_bytes, self._archive.sha256)
            if self._ended or (self._size_bytes, self._digest.hexdigest()) != expected:
                raise IntegrityError(
                    f"{self._store_url}/{self._archive.key} is not what was stored there.",
                    hint="Its store changed it, or somebody did: see who may write there. Another copy serves instead.",
                )
            self._ended = True
        return data


def by_archive(objects: Iterable[ObjectInfo]) -> dict[str, dict[str, ObjectInfo]]:
    """Objects of backups by the key of the archive beside which they lie, and by what they are; others are left out."""
    there: dict[str, dict[str, ObjectInfo]] = {}
    for info in objects:
        if parts := parse_key(info.key):
            there.setdefault(parts.archive_key, {})[parts.part] = info
    return there


def is_whole(objects: Mapping[str, ObjectInfo]) -> bool:
    """What lies beside one archive's key is a backup, and not only a part of one."""
    return {"archive", "envelope"} <= objects.keys()


def put_archive(
    record: BackupRecord, source: ByteSource, store: ObjectStore, *, locked_until: datetime | None
) -> StoredObject:
    """Stream an archive to where the record says. :raises ClinicBackupsError: see :meth:`ObjectStore.put`."""
    return store.put(
        record.archive_key,
        source,
        content_type=CONTENT_TYPE_ARCHIVE,
        metadata={"backup_id": record.backup_id, "clinic_name": record.clinic_name},
        locked_until=locked_until,
    )


def require_any(store: ObjectStore, keys_of: Callable[[int], Container[str]]) -> None:
    """Look for anything that the catalog knows: a wrong bucket may hold backups too, of another installation.

    :param keys_of: the keys of a clinic's archives, as the catalog knows them.
    :raises TransientError: the store holds no backup of anybody: it is another one, or not mounted.
    """
    ours = filter(None, (parse_key(info.key) for info in store.list(ROOT)))
    for clinic_id, group in groupby(ours, key=lambda parts: parts.clinic_id):
        known = keys_of(clinic_id)
        if any(parts.archive_key in known for parts in group):
            return
    raise TransientError(
        f"{store.url} holds no backup at all that the catalog knows, of any clinic.",
        hint="Is it mounted, and the right bucket and endpoint? Nothing is deleted or recorded as lost for it. If it is"
        " the right one, `clinic-backups catalog rebuild` takes over what lies there.",
    )


def time_of(store: ObjectStore) -> datetime:
    """The store's clock, which dates its objects: it writes a small one below ``preflight/`` and deletes it again.

    :raises ClinicBackupsError: the store failed.
    """
    key = new_probe()
    store.put(key, io.BytesIO(b"what time is it?"))
    with afterwards(lambda: store.delete(key)):
        return store.stat(key).last_modified


def compare(archive: ArchiveInfo, info: ObjectInfo, seen: str | None) -> Told:
    """What a store says of an object, without reading it. Only what no writer can set proves that it is intact.

    :param seen: the etag of the object that was checked when it was stored or read, if that is known.
    """
    if info.size_bytes != archive.size_bytes or info.md5 not in (None, archive.md5):
        return "damaged"
    # S3 lists the MD5 of what went up in one part as its ETag. Under KMS the ETag is something else, and not equal.
    marks = {seen, f'"{archive.md5}"'}
    return "intact" if info.md5 is not None or (info.etag is not None and info.etag in marks) else "not compared"


def is_another(archive: ArchiveInfo, info: ObjectInfo, seen: str | None) -> bool:
    """The store says that this is not the object which was checked: only reading tells whether its content is."""
    proven = compare(archive, info, seen) == "intact"
    return not proven and (info.md5 is not None or (seen is not None and info.etag is not None))


def look(archive: ArchiveInfo, store: ObjectStore, seen: str | None = None) -> Told:
    """:func:`compare` with what the store tells now. :raises ClinicBackupsError: it did not answer."""
    try:
        return compare(archive, store.stat(archive.key), seen)
    except ObjectNotFound:
        return "missing"


def look_closely(archive: ArchiveInfo, store: ObjectStore, seen: str | None) -> tuple[Condition, str | None]:
    """:func:`look`, and what cannot be compared so is read. It is never ``not compared``.

    :return: also the etag of what was read now: see :func:`read_marked`; else ``seen``.
    """
    condition = look(archive, store, seen)
    if condition != "not compared":
        return condition, seen
    return read_marked(archive, store)


def read_marked(archive: ArchiveInfo, store: ObjectStore) -> tuple[Condition, str | None]:
    """:func:`read_through`, and the etag of what was read; none where the store has none, or it changed meanwhile."""
    try:
        before = store.stat(archive.key).etag
        condition = read_through(archive, store)
        after = store.stat(archive.key).etag
    except ObjectNotFound:
        return "missing", None
    return condition, after if condition == "intact" and before == after else None


def require_intact(
    archive: ArchiveInfo, store: ObjectStore, on_read: Callable[[int], object] = lambda done: None
) -> None:
    """Read the whole archive and compare it with the catalog; no key is needed.

    :param on_read: told how many bytes are read.
    :raises ObjectNotFound, IntegrityError: it is gone, or another one.
    """
    done = 0
    with store.open(archive.key) as stream:
        source = CheckedSource(stream, archive, store.url)
        while data := source.read(CHUNK_BYTES):
            done += len(data)
            on_read(done)


def read_through(
    archive: ArchiveInfo, store: ObjectStore, on_read: Callable[[int], object] = lambda done: None
) -> Condition:
    """:func:`require_intact` as an answer. :raises ClinicBackupsError: the store failed."""
    try:
        require_intact(archive, store, on_read)
    except ObjectNotFound:
        return "missing"
    except IntegrityError:
        return "damaged"
    return "intact"
