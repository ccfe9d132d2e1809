"""What the three cloud stores share: the order of steps in ``put``, and streams that never end short."""

from __future__ import annotations

import io
from abc import abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, BinaryIO, ClassVar
from uuid import uuid4

from clinic_backups.errors import (
    ClinicBackupsError,
    IntegrityError,
    ObjectExists,
    ObjectNotFound,
    PermanentError,
    TransientError,
)
from clinic_backups.stores import base
from clinic_backups.stores._hashing import HashingReader
from clinic_backups.stores._wire import check_key, check_list_prefix, decode_metadata, encode_metadata
from clinic_backups.stores.base import ByteSource, ObjectInfo, StoredObject

CONNECT_SECONDS = 10
READ_SECONDS = 60
PUT_ID = "put_id"


@dataclass(frozen=True)
class Found:
    """An object that is there: ``info.metadata`` as it is on the wire, ``etag`` as the provider writes it."""

    info: ObjectInfo
    etag: str = ""

    @property
    def put_id(self) -> str:
        """Which ``put`` made it: tells a lost answer to our own request from somebody else's object."""
        return self.info.metadata.get(PUT_ID, "")

    def described(self, key: str) -> ObjectInfo:
        """As callers see it: metadata decoded, without the put id."""
        metadata = {name: value for name, value in self.info.metadata.items() if name != PUT_ID}
        return replace(self.info, key=key, metadata=decode_metadata(metadata))


@dataclass(frozen=True)
class Upload:
    """One ``put`` under way. ``part_md5s`` is for the stores that need them to check the whole."""

    reader: HashingReader
    put_id: str
    content_type: str
    metadata: Mapping[str, str]
    part_md5s: list[bytes] = field(default_factory=list)


class CloudStore(base.ObjectStore):
    """``put``, ``open`` and ``stat`` in terms of the few requests that differ between providers.

    The hooks take full names (prefix and key) and raise the SDK's own errors, which ``_translate`` turns into ours.
    """

    _scheme: ClassVar[str]
    _sdk_errors: ClassVar[tuple[type[Exception], ...]]

    def __init__(
        self, bucket: str, prefix: str, *, part_size_bytes: int, max_parts: int | None, page_size: int
    ) -> None:
        self.bucket = bucket
        prefix = prefix.strip("/")
        self._prefix = f"{check_key(prefix, what='prefix')}/" if prefix else ""
        self._part_size_bytes = part_size_bytes
        self._max_parts = max_parts
        self._page_size = page_size
        self.url = f"{self._scheme}://{bucket}/{prefix}".rstrip("/")

    def put(
        self,
        key: str,
        source: ByteSource,
        *,
        content_type: str = "application/octet-stream",
        metadata: Mapping[str, str] | None = None,
    ) -> StoredObject:
        name = self._name(key)
        put_id = uuid4().hex
        reader = HashingReader(source)
        upload = Upload(reader, put_id, content_type, {PUT_ID: put_id} | encode_metadata(metadata))
        if self._look(name) is not None:
            raise self._exists(name)
        try:
            try:
                with self._translated(name, reader):
                    self._upload(name, upload)
            except ObjectExists:
                # Our own request may have been answered "done", the answer lost, and the SDK's retry refused.
                found = self._look(name)
                if found is None or found.put_id != put_id:
                    raise
            self._verify(name, upload)
        except BaseException as error:
            if reader.at_end:
                self._discard(name, put_id, error)
            raise
        return reader.stored_as(key)

    @contextmanager
    def open(self, key: str) -> Iterator[BinaryIO]:
        name = self._name(key)
        with self._translated(name):
            body, size_bytes = self._download(name)
        with io.BufferedReader(_WholeStream(self, name, body, size_bytes), 1024 * 1024) as stream:
            yield stream

    def stat(self, key: str) -> ObjectInfo:
        name = self._name(key)
        found = self._look(name)
        if found is None:
            with self._translated(name):
                self._require_bucket()
            raise self._missing(name)
        return found.described(key)

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        start = self._prefix + check_list_prefix(prefix)
        with self._translated(start):
            for info in self._list(start):
                yield replace(info, key=info.key.removeprefix(self._prefix))

    def delete(self, key: str) -> None:
        name = self._name(key)
        with self._translated(name):
            self._delete(name)

    @abstractmethod
    def _upload(self, name: str, upload: Upload) -> None:
        """Store all of ``upload.reader``; on any error abort what was begun.

        :raises ObjectExists: the condition refused it.
        """

    @abstractmethod
    def _find(self, name: str) -> Found | None:
        """Ask for the object's properties now; ``None`` where the provider says that there is no object."""

    @abstractmethod
    def _difference(self, found: Found, upload: Upload) -> str:
        """How the stored checksum differs from what was read, for people; empty when it does not."""

    @abstractmethod
    def _download(self, name: str) -> tuple[Any, int]:
        """Something with ``read(size)`` and maybe ``close()``, and the size it should have."""

    @abstractmethod
    def _list(self, start: str) -> Iterator[ObjectInfo]:
        """Objects whose full name begins with ``start``, in order, with the full name as the key."""

    @abstractmethod
    def _delete(self, name: str) -> None:
        """Delete; no error when the object is not there."""

    @abstractmethod
    def _require_bucket(self) -> None:
        """Raise :class:`PermanentError` if the bucket is known to be missing."""

    @abstractmethod
    def _translate(self, error: Exception, name: str) -> ClinicBackupsError:
        """Our error for one of ``_sdk_errors``, without its text, which may hold signed URLs and tokens."""

    def _name(self, key: str) -> str:
        return self._prefix + check_key(key)

    def _where(self, name: str) -> str:
        return f"{self._scheme}://{self.bucket}/{name}"

    def _look(self, name: str) -> Found | None:
        with self._translated(name):
            return self._find(name)

    @contextmanager
    def _translated(self, name: str, reader: HashingReader | None = None) -> Iterator[None]:
        try:
            yield
        except self._sdk_errors as error:
            # A source may fail with an error of the very same SDK, when it reads from another store.
            if reader is not None and error is reader.error:
                raise
            raise self._translate(error, name) from None

    def _parts(self, reader: HashingReader) -> Iterator[bytearray]:
        """The content in parts of equal size, the last one shorter, none of them empty."""
        count = 0
        while part := reader.read_part(self._part_size_bytes):
            count += 1
            if self._max_parts is not None and count > self._max_parts:
                raise PermanentError(
                    f"The object is larger than {self._max_parts} parts of {self._part_size_bytes} bytes.",
                    hint="Give the store a larger part size.",
                )
            yield part

    def _verify(self, name: str, upload: Upload) -> None:
        found = self._look(name)
        if found is None:
            difference = "nothing is there"
        elif found.info.size_bytes != upload.reader.size_bytes:
            difference = f"{found.info.size_bytes} bytes are there, {upload.reader.size_bytes} were sent"
        else:
            with self._translated(name):
                difference = self._difference(found, upload)
        if difference:
            raise IntegrityError(
                f"{self._where(name)} is not what was uploaded: {difference}.",
                hint="The object is not used. Run the backup again; if it happens again, distrust network and store.",
            )

    def _discard(self, name: str, put_id: str, error: BaseException) -> None:
        """Remove what this ``put`` stored, and nothing that anybody else did. A failure is noted on ``error``."""
        try:
            found = self._look(name)
            if found is not None and found.put_id == put_id:
                with self._translated(name):
                    self._delete(name)
        except ClinicBackupsError as failure:
            error.add_note(f"{self._where(name)} may have stayed behind, delete it: {failure.message}")

    def _exists(self, name: str) -> ObjectExists:
        return ObjectExists(
            f"{self._where(name)} exists already.", hint="Objects are written once: use a new key, or delete it first."
        )

    def _missing(self, name: str) -> ObjectNotFound:
        return ObjectNotFound(f"There is no object {self._where(name)}.", hint="List the store to see what it has.")

    def _no_bucket(self, noun: str = "bucket") -> PermanentError:
        return PermanentError(
            f"The {noun} {self.bucket!r} does not exist.", hint="Create it, or correct the store's URL and connection."
        )


class _WholeStream(io.RawIOBase):
    """A download that raises, rather than ends, when bytes are missing."""

    def __init__(self, store: CloudStore, name: str, body: Any, size_bytes: int) -> None:
        self._store = store
        self._name = name
        self._body = body
        self._size_bytes = size_bytes
        self._done_bytes = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        with self._store._translated(self._name):
            data = self._body.read(len(buffer))
        if not data and self._done_bytes != self._size_bytes:
            raise TransientError(
                f"{self._store._where(self._name)} ended after {self._done_bytes} of {self._size_bytes} bytes.",
                hint="The connection broke; read it again.",
            )
        buffer[: len(data)] = data
        self._done_bytes += len(data)
        return len(data)

    def close(self) -> None:
        close = getattr(self._body, "close", None)
        if close is not None and not self.closed:
            close()
        super().close()
