"""The requests that differ between the cloud providers: hooks for :class:`~clinic_backups.stores._cloud.CloudStore`."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, ClassVar

from clinic_backups.base.errors import (
    ClinicBackupsError,
    ObjectExists,
    ObjectLocked,
    ObjectNotFound,
    PlaceMissing,
)
from clinic_backups.stores import base
from clinic_backups.stores._hashing import HashingReader
from clinic_backups.stores._wire import check_key, decode_metadata
from clinic_backups.stores.base import LockMode, ObjectInfo, UnfinishedUpload

CONNECT_SECONDS = 10
READ_SECONDS = 60
PUT_ID = "put_id"


@dataclass(frozen=True)
class FoundObject:
    """An existing object. ``info.metadata`` is encoded as on the wire; the rest is as the provider writes it."""

    info: ObjectInfo
    etag: str = ""
    version: str = ""
    lock_mode: str = ""

    @property
    def put_id(self) -> str:
        """The id of the ``put`` that made it. It shows whether an object is ours after an answer was lost."""
        return self.info.metadata.get(PUT_ID, "")

    def described(self, key: str) -> ObjectInfo:
        """The info for callers: metadata decoded, without the put id."""
        metadata = {name: value for name, value in self.info.metadata.items() if name != PUT_ID}
        return replace(self.info, key=key, metadata=decode_metadata(metadata))


@dataclass(frozen=True)
class Upload:
    """A running ``put``. ``part_md5s`` is for stores that need them to check the whole object."""

    reader: HashingReader
    put_id: str
    content_type: str
    metadata: Mapping[str, str]
    locked_until: datetime | None = None
    part_md5s: list[bytes] = field(default_factory=list)


@dataclass(frozen=True)
class Version:
    """One version of an object, possibly the current one. ``held``: it has a legal hold without an end."""

    version: str
    locked_until: datetime | None = None
    held: bool = False
    current: bool = False


class Provider(base.ObjectStore):
    """The few requests that differ between providers.

    The hooks take full names (prefix and key) and raise the SDK's own errors, which ``_translate`` translates.
    """

    _scheme: ClassVar[str]
    _sdk_errors: ClassVar[tuple[type[Exception], ...]]
    _lock_modes: ClassVar[Mapping[LockMode, str]]
    _lock_rights: ClassVar[str]
    """The additional rights that an account needs to lock objects, as a hint."""
    _writes_once: bool = True
    """Whether the provider itself refuses a second object under a key. Otherwise it is asked before each upload."""

    def __init__(
        self,
        bucket: str,
        prefix: str,
        *,
        lock_mode: LockMode,
        part_size_bytes: int,
        max_parts: int | None,
        page_size: int,
    ) -> None:
        self.bucket = bucket
        self._lock_mode = self._lock_modes[lock_mode]
        self._may_lock = False
        prefix = prefix.strip("/")
        self._prefix = f"{check_key(prefix, what='prefix')}/" if prefix else ""
        self._part_size_bytes = part_size_bytes
        self._max_parts = max_parts
        self._page_size = page_size
        self.url = f"{self._scheme}://{bucket}/{prefix}".rstrip("/")

    @abstractmethod
    def _upload(self, name: str, upload: Upload) -> str | None:
        """Store all of ``upload.reader``. On any error abort the upload.

        Returns the object's etag if the provider's answer has the checksum of the whole content; else ``None``.

        :raises ObjectExists: the key is taken.
        """

    @abstractmethod
    def _find(self, name: str) -> FoundObject | None:
        """The object's present properties; ``None`` if the provider says that there is no object."""

    @abstractmethod
    def _difference(self, found: FoundObject, upload: Upload) -> str:
        """How the stored checksum differs from that of the content, for people; empty if it does not."""

    @abstractmethod
    def _download(self, name: str) -> tuple[Any, int]:
        """An object with ``read(size)``, and perhaps ``close()``, and its expected size."""

    @abstractmethod
    def _list(self, start: str) -> Iterator[ObjectInfo]:
        """Objects whose full name begins with ``start``, in order, with the full name as the key."""

    @abstractmethod
    def _delete(self, name: str) -> None:
        """Delete the object; no error if it does not exist."""

    @abstractmethod
    def _versions(self, name: str) -> Iterator[Version]:
        """All versions of exactly this object, with their locks."""

    @abstractmethod
    def _all_names(self, start: str) -> Iterator[str]:
        """Full names that begin with ``start`` and still have any version."""

    @abstractmethod
    def _delete_version(self, name: str, version: Version) -> None:
        """Delete this version for good; no error if it does not exist. :raises ObjectLocked:"""

    @abstractmethod
    def _unfinished(self, start: str) -> Iterator[UnfinishedUpload]:
        """Unfinished uploads whose full name begins with ``start``, with the full name as the key."""

    @abstractmethod
    def _abort(self, name: str, upload: UnfinishedUpload) -> None:
        """Remove the upload; no error if it does not exist."""

    @abstractmethod
    def _lock_problem(self) -> str:
        """As :meth:`lock_problem`."""

    @abstractmethod
    def _require_bucket(self) -> None:
        """Raise :class:`PlaceMissing` if the bucket is known to be missing."""

    @abstractmethod
    def _translate(self, error: Exception, name: str) -> ClinicBackupsError:
        """Translate one of ``_sdk_errors``. Its text is dropped, because it may hold signed URLs and tokens."""

    def _name(self, key: str) -> str:
        return self._prefix + check_key(key)

    def _where(self, name: str) -> str:
        return f"{self._scheme}://{self.bucket}/{name}"

    def _look(self, name: str) -> FoundObject | None:
        with self._translated(name):
            return self._find(name)

    @contextmanager
    def _translated(self, name: str, reader: HashingReader | None = None) -> Iterator[None]:
        try:
            yield
        except self._sdk_errors as error:
            # A source may fail with an error of the same SDK, if it reads from another store.
            if reader is not None and error is reader.error:
                raise
            raise self._translate(error, name) from None

    def _locked(self, name: str, until: datetime | None) -> ObjectLocked:
        return ObjectLocked(
            f"{self._where(name)} is locked" + (f" until {show_time(until)}." if until else "."),
            hint="Delete it after that." if until else "End its legal hold or its lock at the provider first.",
        )

    def _lock_end(self, name: str) -> datetime | None:
        """The end of an object's lock, for a message; ``None`` if it is unknown."""
        with suppress(*self._sdk_errors):
            found = self._find(name)
            return found.info.locked_until if found else None
        return None

    def _exists(self, name: str) -> ObjectExists:
        return ObjectExists(
            f"{self._where(name)} exists already.", hint="Objects are written once: use a new key, or delete it first."
        )

    def _missing(self, name: str) -> ObjectNotFound:
        return ObjectNotFound(f"There is no object {self._where(name)}.", hint="List the store to see what it has.")

    def _no_bucket(self, noun: str = "bucket") -> PlaceMissing:
        return PlaceMissing(
            f"The {noun} {self.bucket!r} does not exist.", hint="Create it, or correct the store's URL and connection."
        )


def show_time(moment: datetime | None) -> str:
    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC" if moment else ""
