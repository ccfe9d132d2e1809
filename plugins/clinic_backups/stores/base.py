"""The interface of object stores. Each provider has its own module."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import BinaryIO, Literal, Protocol

CONTENT_TYPE_JSON = "application/json"
LockMode = Literal["governance", "compliance"]
"""governance: accounts with a special right may end a lock early. compliance: nobody may, not even the owner."""


class ByteSource(Protocol):
    """A source of bytes. ``read`` returns ``b""`` only at the end; a failed stage raises instead."""

    def read(self, size: int = -1, /) -> bytes: ...


@dataclass(frozen=True)
class ObjectInfo:
    """One stored object, as the store describes it.

    ``md5`` is lower-case hex. It is present only if the provider itself computed it over the whole content, and never
    if a writer can set it, as in Azure's property. ``etag`` is the provider's own mark of this object. No writer can
    choose it, and any other object under the key has another one.
    """

    key: str
    size_bytes: int
    last_modified: datetime
    md5: str | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)
    locked_until: datetime | None = None
    """The end of the provider's lock against deleting and replacing. Only :meth:`ObjectStore.stat` sets it."""
    etag: str | None = None
    """The same from :meth:`ObjectStore.stat` and :meth:`ObjectStore.list`. A folder has none."""


@dataclass(frozen=True)
class StoredObject:
    """An object that ``put`` sent and the store confirmed. Digests of the content are lower-case hex."""

    key: str
    size_bytes: int
    sha256: str
    md5: str
    etag: str | None = field(default=None, compare=False)
    """The provider's mark of the confirmed object: see :class:`ObjectInfo`."""


@dataclass(frozen=True)
class UnfinishedUpload:
    """An upload that was neither completed nor aborted. It is invisible but costs money.

    ``key`` is the key of the intended object. ``token`` identifies the upload to the provider.
    """

    key: str
    started_at: datetime
    token: str


class ObjectStore(ABC):
    """A bucket, container or folder below one prefix. Keys are relative to that prefix, with ``/`` between parts.

    Every method raises :class:`TransientError` when a retry may help (connection, time-out, HTTP 429 and 5xx) and
    :class:`PermanentError` when not (no such bucket, access denied), each with a hint. A missing folder or bucket
    raises :class:`PlaceMissing`, never :class:`ObjectNotFound`. No method logs an error and continues. Messages never
    contain credentials or signed URLs.
    """

    url: str
    """The store's URL, for people: ``s3://bucket/prefix``. It never contains a secret."""

    trusted_seconds: float = 60
    """How long a check of the marker is valid. A folder can be unmounted at any moment, so for it this is 0."""

    has_clock: bool = True
    """Whether its objects' times come from its own clock. In a folder they come from the writer or a file server."""
    signs_links: bool = True
    """Whether it gives links to single objects, see :meth:`presign`. Otherwise the page hands them out itself."""

    def identified(self) -> str | None:
        """The id of this store, read now and compared with the catalog's; none if opened without that check.

        :raises StoreAway, StoreUnknown: see :class:`~clinic_backups.stores.identified.IdentifiedStore`.
        """
        return None

    def make_place(self) -> None:
        """Create the folder of a new store. Nothing else creates it. Buckets are created by their owner."""
        return

    @abstractmethod
    def put(
        self,
        key: str,
        source: ByteSource,
        *,
        content_type: str = "application/octet-stream",
        metadata: Mapping[str, str] | None = None,
        locked_until: datetime | None = None,
        trust_answer: bool = False,
    ) -> StoredObject:
        """Stream ``source`` of unknown length into a new object, then compare size and checksum with the store's.

        Memory does not depend on the length. The object becomes visible whole or not at all: if ``source.read`` raises
        or the store fails, the unfinished upload is aborted, nothing stays in the store, and the error is raised (an
        error of ``source`` unchanged). Metadata values may be any text. They are encoded as ASCII on the wire, and
        :meth:`stat` returns them unchanged.

        :param locked_until: lock the object until then against deleting and replacing, in the store's lock mode, and
            check afterwards that the store reports this lock.
        :param trust_answer: for small objects: do not ask for the object once more, if the store's answer to the upload
            has the checksum of the content already, and no lock was asked for.
        :raises PermanentError: the store cannot lock objects (see :meth:`lock_problem`). Nothing stays in the store.
        :raises ObjectExists: there is an object under ``key`` already.
        :raises IntegrityError: the stored object differs from what was sent. It has been deleted again.
        """

    @abstractmethod
    def open(self, key: str) -> AbstractContextManager[BinaryIO]:
        """The content as a stream, to be read from start to end in constant memory. :raises ObjectNotFound:"""

    @abstractmethod
    def stat(self, key: str) -> ObjectInfo:
        """The present size, time and metadata. :raises ObjectNotFound:"""

    @abstractmethod
    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        """All finished objects whose key starts with ``prefix``, in key order, paged by the provider.

        ``metadata`` is not filled in. Keys outside the store's own prefix are never returned.
        """

    def recognised(self, prefix: str) -> Iterator[ObjectInfo]:
        """As :meth:`list`, for a caller that believes only etags that the catalog has: no other store has them."""
        return self.list(prefix)

    @abstractmethod
    def all_keys(self, prefix: str = "") -> Iterator[str]:
        """Keys that start with ``prefix`` and still have an object or a version; unordered, and some may come twice.

        This includes objects that a deletion has hidden, as long as the bucket keeps their versions.
        """

    @abstractmethod
    def delete(self, key: str) -> None:
        """Remove the object; no error if it does not exist. In a bucket that keeps versions, older versions stay.

        :raises ObjectLocked: a lock forbids it. A versioned S3 bucket never raises it: it hides the object and keeps
            the data.
        """

    @abstractmethod
    def purge(self, key: str) -> None:
        """Remove the object and all its versions; no error if there are none.

        :raises ObjectLocked: a lock forbids it for at least one version. The object and its versions are unchanged.
        """

    @abstractmethod
    def unfinished(self, prefix: str = "") -> Iterator[UnfinishedUpload]:
        """Unfinished uploads to keys that start with ``prefix``, as far as the provider lists them."""

    @abstractmethod
    def abort(self, upload: UnfinishedUpload) -> None:
        """Remove an unfinished upload; no error if it does not exist. An object under its key is not touched."""

    @abstractmethod
    def lock_problem(self) -> str:
        """Why objects cannot be locked here, for people; empty if they can. Asks the provider and writes nothing.

        :raises PermanentError: this account may not ask.
        """

    @abstractmethod
    def presign(self, key: str, *, expires_in: timedelta, filename: str) -> str:
        """A link that downloads the object as ``filename``, without credentials, until the link expires.

        :raises PermanentError: the provider or its credentials cannot sign links; the hint says what is missing.
        """
