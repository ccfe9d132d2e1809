"""What every object store can do: one small interface, one file per provider."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import BinaryIO, Protocol


class ByteSource(Protocol):
    """Something bytes are pulled from. ``read`` returns ``b""`` at the end only; a failed stage raises instead."""

    def read(self, size: int = -1, /) -> bytes: ...


@dataclass(frozen=True)
class ObjectInfo:
    """One stored object as the store describes it.

    ``md5`` is lower-case hex and present only where the provider computed it over the whole content itself.
    """

    key: str
    size_bytes: int
    last_modified: datetime
    md5: str | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class StoredObject:
    """What ``put`` sent and the store confirmed. Digests are lower-case hex of the content."""

    key: str
    size_bytes: int
    sha256: str
    md5: str


class ObjectStore(ABC):
    """A bucket, container or folder below one prefix. Keys are relative to that prefix, with ``/`` between parts.

    Every method raises :class:`~clinic_backups.errors.TransientError` when a retry may help (connection, time-out,
    HTTP 429 and 5xx) and :class:`~clinic_backups.errors.PermanentError` when not (no such bucket, access denied), each
    with a hint. No method logs and goes on. Messages never hold credentials or signed URLs.
    """

    url: str
    """Where the store lies, for people: ``s3://bucket/prefix``. Never holds a secret."""

    @abstractmethod
    def put(
        self,
        key: str,
        source: ByteSource,
        *,
        content_type: str = "application/octet-stream",
        metadata: Mapping[str, str] | None = None,
    ) -> StoredObject:
        """Stream ``source`` of unknown length into a new object, then compare size and checksum with the store's.

        Memory is constant in the length. The object becomes visible whole or not at all: when ``source.read`` raises,
        or the store fails, the unfinished upload is aborted, nothing stays behind, and the error goes on (an error of
        ``source`` unchanged). Metadata values may hold any text; they are made ASCII for the wire and come back the
        same from :meth:`stat`.

        :raises ObjectExists: there is an object under ``key`` already.
        :raises IntegrityError: the store holds something else than was sent; the object has been deleted again.
        """

    @abstractmethod
    def open(self, key: str) -> AbstractContextManager[BinaryIO]:
        """The content as a stream read from start to end with constant memory. :raises ObjectNotFound:"""

    @abstractmethod
    def stat(self, key: str) -> ObjectInfo:
        """Size, time and metadata as the store tells them now. :raises ObjectNotFound:"""

    @abstractmethod
    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        """All finished objects whose key starts with ``prefix``, in key order, paged by the provider.

        ``metadata`` is not filled in. Keys outside the store's own prefix are never returned.
        """

    @abstractmethod
    def delete(self, key: str) -> None:
        """Remove the object; one that is already gone is fine."""

    @abstractmethod
    def presign(self, key: str, *, expires_in: timedelta, filename: str) -> str:
        """A link that downloads the object as ``filename`` without credentials until it expires.

        :raises PermanentError: the provider or its credentials cannot sign links; the hint says what is missing.
        """
