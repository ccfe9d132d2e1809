"""What every object store can do: one small interface, one file per provider."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import BinaryIO, Literal, Protocol

LockMode = Literal["governance", "compliance"]
"""Who may end a lock early: accounts with a special right, or nobody, not even the account's owner."""


class ByteSource(Protocol):
    """Something bytes are pulled from. ``read`` returns ``b""`` at the end only; a failed stage raises instead."""

    def read(self, size: int = -1, /) -> bytes: ...


@dataclass(frozen=True)
class ObjectInfo:
    """One stored object as the store describes it.

    ``md5`` is lower-case hex and present only where the provider computed it over the whole content itself: never one
    that a writer can set, as Azure's property is. ``etag`` is the provider's own mark of this object, which no writer
    can choose: whatever else is stored under the key has another one.
    """

    key: str
    size_bytes: int
    last_modified: datetime
    md5: str | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)
    locked_until: datetime | None = None
    """Until then the provider lets nobody delete or replace it; only :meth:`ObjectStore.stat` fills it in."""
    etag: str | None = None
    """The same from :meth:`ObjectStore.stat` and :meth:`ObjectStore.list`. A folder has none."""


@dataclass(frozen=True)
class StoredObject:
    """What ``put`` sent and the store confirmed. Digests are lower-case hex of the content."""

    key: str
    size_bytes: int
    sha256: str
    md5: str
    etag: str | None = field(default=None, compare=False)
    """The provider's mark of the object that was confirmed: see :class:`ObjectInfo`."""


@dataclass(frozen=True)
class UnfinishedUpload:
    """An upload that was begun and neither completed nor aborted: invisible, and paid for.

    ``key`` is that of the object that it was to become; ``token`` names it to the provider.
    """

    key: str
    started_at: datetime
    token: str


class ObjectStore(ABC):
    """A bucket, container or folder below one prefix. Keys are relative to that prefix, with ``/`` between parts.

    Every method raises :class:`TransientError` when a retry may help (connection, time-out, HTTP 429 and 5xx) and
    :class:`PermanentError` when not (no such bucket, access denied), each with a hint. A folder or bucket that is not
    there is a :class:`PlaceMissing`, and never an object that is not there. No method logs and goes on. Messages never
    hold credentials or signed URLs.
    """

    url: str
    """Where the store lies, for people: ``s3://bucket/prefix``. Never holds a secret."""

    trusted_seconds: float = 60
    """For so long it is believed that the same store answers under a URL. A folder is unmounted in a moment."""

    has_clock: bool = True
    """Whether its objects' times come from a clock of its own. A folder has that of whoever writes, or of a server."""

    def identified(self) -> str | None:
        """The id of this store, asked for now and compared with the catalog's; none for one that nobody compares.

        :raises StoreAway, StoreUnknown: see :class:`~clinic_backups.stores.identified.IdentifiedStore`.
        """
        return None

    def make_place(self) -> None:
        """Make the folder of a store that is new. Nothing else ever does; buckets are made by their owner."""
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
    ) -> StoredObject:
        """Stream ``source`` of unknown length into a new object, then compare size and checksum with the store's.

        Memory is constant in the length. The object becomes visible whole or not at all: when ``source.read`` raises,
        or the store fails, the unfinished upload is aborted, nothing stays behind, and the error goes on (an error of
        ``source`` unchanged). Metadata values may hold any text; they are made ASCII for the wire and come back the
        same from :meth:`stat`.

        :param locked_until: ask the provider to let nobody delete or replace the object before, in the store's lock
            mode, and check that it says so afterwards.
        :raises PermanentError: the store cannot lock objects (see :meth:`lock_problem`); nothing stays behind.
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
    def all_keys(self, prefix: str = "") -> Iterator[str]:
        """Keys that start with ``prefix`` and of which anything is left; in no order, and some perhaps twice.

        Also those whose object is hidden by a deletion, while the bucket keeps its versions.
        """

    @abstractmethod
    def delete(self, key: str) -> None:
        """Remove the object; one that is already gone is fine. Older versions stay where the bucket keeps versions.

        :raises ObjectLocked: a lock forbids it. A versioned S3 bucket does not: it hides the object and keeps the data.
        """

    @abstractmethod
    def purge(self, key: str) -> None:
        """Remove the object and every version of it, so that nothing of it is left; nothing there is fine.

        :raises ObjectLocked: a lock forbids it for at least one version; the object and its versions are all as before.
        """

    @abstractmethod
    def unfinished(self, prefix: str = "") -> Iterator[UnfinishedUpload]:
        """Uploads to keys that start with ``prefix`` and were never completed, as far as the provider lists them."""

    @abstractmethod
    def abort(self, upload: UnfinishedUpload) -> None:
        """Remove an unfinished upload; one that is gone is fine. An object under its key is not touched."""

    @abstractmethod
    def lock_problem(self) -> str:
        """Why objects cannot be locked here, for people; empty where they can. Asks the provider, and writes nothing.

        :raises PermanentError: this account may not ask.
        """

    @abstractmethod
    def presign(self, key: str, *, expires_in: timedelta, filename: str) -> str:
        """A link that downloads the object as ``filename`` without credentials until it expires.

        :raises PermanentError: the provider or its credentials cannot sign links; the hint says what is missing.
        """
