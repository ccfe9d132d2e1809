"""Checks whether a store holds an archive as the catalog describes it."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Container, Iterable, Iterator, Mapping
from datetime import datetime
from itertools import accumulate, groupby
from typing import Literal
from urllib.parse import quote

from clinic_backups.archive.encryption import ENCRYPTION
from clinic_backups.archive.object_keys import ROOT, new_probe, parse_key
from clinic_backups.base.backup_facts import ArchiveInfo
from clinic_backups.base.backup_record import BackupRecord
from clinic_backups.base.clinic_id import ClinicId
from clinic_backups.base.errors import IntegrityError, ObjectNotFound, TransientError, afterwards
from clinic_backups.base.listening import nobody
from clinic_backups.base.replica import Condition
from clinic_backups.stores.base import ByteSource, ObjectInfo, ObjectStore, StoredObject

Told = Condition | Literal["not compared"]
"""The condition of an archive without reading it. ``not compared``: it exists and has the right size, but anybody who
may write there can give any content that size."""
CHUNK_BYTES = 1024 * 1024


class CheckedSource:
    """A stream of an archive. At its end it raises an error if the archive was not the catalog's.

    Size and SHA-256 are compared at the end, so that a store that reads from it never completes a damaged replica.
    """

    def __init__(self, stream: ByteSource, archive: ArchiveInfo, store_url: str) -> None:
        self._stream, self._archive, self._store_url = stream, archive, store_url
        self._digest, self._size_bytes = hashlib.sha256(), 0
        self._ended = False

    def read(self, size: int = -1, /) -> bytes:
        """:raises IntegrityError: the content is not the catalog's."""
        data = b"" if self._ended else self._stream.read(size)
        self._digest.update(data)
        self._size_bytes += len(data)
        if not data:
            # Another read must not look like the end of a good archive.
            expected = (self._archive.size_bytes, self._archive.sha256)
            if self._ended or (self._size_bytes, self._digest.hexdigest()) != expected:
                raise IntegrityError(
                    f"{self._store_url}/{self._archive.key} differs from what was stored there.",
                    hint="The store or a person changed it: check who may write there. Use another replica instead.",
                )
            self._ended = True
        return data


def by_folder(store: ObjectStore) -> Iterator[tuple[str, Iterator[ObjectInfo]]]:
    """The objects of a store below :data:`ROOT`, by the folder of a clinic. An object outside a folder is alone."""
    return groupby(store.list(ROOT), key=lambda info: "/".join(info.key.split("/")[:2]))


def by_archive(objects: Iterable[ObjectInfo]) -> dict[str, dict[str, ObjectInfo]]:
    """Objects of backups, by the key of their archive and by their kind. Other objects are left out."""
    there: dict[str, dict[str, ObjectInfo]] = {}
    for info in objects:
        if parts := parse_key(info.key):
            there.setdefault(parts.archive_key, {})[parts.part] = info
    return there


def is_whole(objects: Mapping[str, ObjectInfo]) -> bool:
    """Whether the objects of one archive's key are a whole backup."""
    return {"archive", "envelope"} <= objects.keys()


NAME_BYTES = 1_200
"""What a clinic's name may take, as stores write it: ``encode_metadata`` refuses more than some provider accepts."""


def put_archive(
    record: BackupRecord, source: ByteSource, store: ObjectStore, *, locked_until: datetime | None
) -> StoredObject:
    """Stream an archive to its record's key. :raises ClinicBackupsError: see :meth:`ObjectStore.put`."""
    return store.put(
        record.archive_key,
        source,
        content_type=ENCRYPTION.CONTENT_TYPE,
        metadata={"backup_id": record.backup_id, "clinic_name": _short(record.clinic_name)},
        locked_until=locked_until,
    )


def _short(name: str) -> str:
    """The beginning of a name. It is for people who look into the bucket; the envelope has the whole name."""
    sizes = accumulate(len(quote(letter, safe="", errors="surrogatepass")) for letter in name[:NAME_BYTES])
    return name[: sum(size <= NAME_BYTES for size in sizes)]


def require_any(store: ObjectStore, keys_of: Callable[[ClinicId], Container[str]]) -> None:
    """Require at least one backup of the catalog. A wrong bucket may hold backups of another installation.

    :param keys_of: the keys of a clinic's archives in the catalog.
    :raises TransientError: the store holds none of the catalog's backups: it is the wrong one, or not mounted.
    """
    ours = filter(None, (parse_key(info.key) for info in store.list(ROOT)))
    for clinic_id, group in groupby(ours, key=lambda parts: parts.clinic_id):
        known = keys_of(clinic_id)
        if any(parts.archive_key in known for parts in group):
            return
    raise TransientError(
        f"{store.url} holds none of the catalog's backups.",
        hint="Check that it is mounted and the right bucket and endpoint. Nothing is deleted or recorded as lost there."
        " If it is the right one, `clinic-backups catalog rebuild` takes over the backups in it.",
    )


def time_of(store: ObjectStore) -> datetime:
    """The time of the store's clock, which dates its objects.

    Writes a small object below ``preflight/`` and deletes it.

    :raises ClinicBackupsError: the store failed.
    """
    key = new_probe()
    store.put(key, io.BytesIO(b"what time is it?"))
    with afterwards(lambda: store.delete(key)):
        return store.stat(key).last_modified


def compare(archive: ArchiveInfo, info: ObjectInfo, seen: str | None) -> Told:
    """The condition of an object without reading it. Only marks that no writer can set prove that it is intact.

    :param seen: the recorded etag of the object when it was last checked, if known.
    """
    if info.size_bytes != archive.size_bytes or info.md5 not in (None, archive.md5):
        return "damaged"
    # For uploads in one part, S3's ETag is the MD5. With KMS the ETag is something else and never equal.
    marks = {seen, f'"{archive.md5}"'}
    return "intact" if info.md5 is not None or (info.etag is not None and info.etag in marks) else "not compared"


def is_another(archive: ArchiveInfo, info: ObjectInfo, seen: str | None) -> bool:
    """Whether the store reports another object than the one that was checked.

    Only reading shows if its content is right.
    """
    proven = compare(archive, info, seen) == "intact"
    return not proven and (info.md5 is not None or (seen is not None and info.etag is not None))


def look(archive: ArchiveInfo, store: ObjectStore, seen: str | None = None) -> Told:
    """:func:`compare` with the store's present answer. :raises ClinicBackupsError: it did not answer."""
    try:
        return compare(archive, store.stat(archive.key), seen)
    except ObjectNotFound:
        return "missing"


def look_closely(archive: ArchiveInfo, store: ObjectStore, seen: str | None) -> tuple[Condition, str | None]:
    """As :func:`look`, but an archive that cannot be compared is read. The result is never ``not compared``.

    :return: also the etag of the object if it was read now, see :func:`read_marked`; otherwise ``seen``.
    """
    condition = look(archive, store, seen)
    if condition != "not compared":
        return condition, seen
    return read_marked(archive, store)


def read_marked(archive: ArchiveInfo, store: ObjectStore) -> tuple[Condition, str | None]:
    """As :func:`read_through`, with the etag of the object; none if the store has none or it changed meanwhile."""
    try:
        before = store.stat(archive.key).etag
        condition = read_through(archive, store)
        after = store.stat(archive.key).etag
    except ObjectNotFound:
        return "missing", None
    return condition, after if condition == "intact" and before == after else None


def require_intact(archive: ArchiveInfo, store: ObjectStore, on_read: Callable[[int], object] = nobody) -> None:
    """Read the whole archive and compare it with the catalog; no key is needed.

    :param on_read: gets the number of bytes read.
    :raises ObjectNotFound, IntegrityError: it is missing, or differs.
    """
    done = 0
    with store.open(archive.key) as stream:
        source = CheckedSource(stream, archive, store.url)
        while data := source.read(CHUNK_BYTES):
            done += len(data)
            on_read(done)


def read_through(archive: ArchiveInfo, store: ObjectStore, on_read: Callable[[int], object] = nobody) -> Condition:
    """As :func:`require_intact`, but returns the condition. :raises ClinicBackupsError: the store failed."""
    try:
        require_intact(archive, store, on_read)
    except ObjectNotFound:
        return "missing"
    except IntegrityError:
        return "damaged"
    return "intact"
