"""A store whose marker is checked before and after every operation."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from datetime import datetime, timedelta
from typing import BinaryIO, TypeVar

from clinic_backups.base.errors import (
    ClinicBackupsError,
    ObjectNotFound,
    PlaceMissing,
    StoreAway,
    StoreUnknown,
    TransientError,
)
from clinic_backups.stores.base import ByteSource, ObjectInfo, ObjectStore, StoredObject, UnfinishedUpload
from clinic_backups.stores.marker import MARKER_KEY, UnreadableMarker, read_marker

T = TypeVar("T")
INIT = "`clinic-backups store init`"


def answers(store: ObjectStore) -> bool:
    """Whether the store shows its marker right now. If so, a failure concerns one object and not the store."""
    try:
        if store.identified() is None:
            read_marker(store)
    except UnreadableMarker:
        return True
    except ClinicBackupsError:
        return False
    return True


class IdentifiedStore(ObjectStore):
    """Wraps a store, and works only while it is the store that the catalog knows under this URL.

    The marker is read before an operation, unless it was read a short while ago. It is read again after every answer
    that a wrong store would give too: a missing object, a listing, a deletion, a write. So a store that is unmounted,
    emptied or exchanged meanwhile causes an error, and its objects never count as missing.

    :param inner: the store itself.
    :param expected: returns the catalog's id for the store's URL; none if it has none.
    :param clock: monotonic seconds.
    """

    def __init__(
        self, inner: ObjectStore, expected: Callable[[], str | None], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.inner, self.url = inner, inner.url
        self.has_clock, self.signs_links = inner.has_clock, inner.signs_links
        self._expected, self._clock = expected, clock
        self._asked_at: float | None = None

    def identified(self) -> str:
        """The store's id, read now.

        :raises StoreUnknown: the catalog has no id for this URL.
        :raises StoreAway: the marker is missing, or that of another store.
        :raises ClinicBackupsError: the store or the catalog did not answer, or this account may not read the marker.
        """
        self._asked_at = None
        asked_at = self._clock()
        expected = self._expected()
        if expected is None:
            raise self._unknown()
        try:
            marker = read_marker(self.inner)
        except PlaceMissing as error:
            raise self._away(expected, f"its folder or bucket does not exist: {error.message}") from None
        except UnreadableMarker:
            raise self._away(expected, f"found {MARKER_KEY} with other content") from None
        if marker is None:
            raise self._away(expected, f"found no {MARKER_KEY} there")
        if marker.store_id != expected:
            raise self._away(expected, f"found store {marker.store_id}")
        self._asked_at = asked_at
        return expected

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
        with self._proven():
            stored = self.inner.put(
                key,
                source,
                content_type=content_type,
                metadata=metadata,
                locked_until=locked_until,
                trust_answer=trust_answer,
            )
        try:
            self.identified()
        except ClinicBackupsError as error:
            # It was written into another store, or into an unknown one.
            try:
                self.inner.delete(key)
            except ClinicBackupsError as failure:
                error.add_note(f"{self.url}/{key} may still be in the store; delete it. {failure.message}")
            raise
        return stored

    @contextmanager
    def open(self, key: str) -> Iterator[BinaryIO]:
        with ExitStack() as stack:
            with self._proven():
                stream = stack.enter_context(self.inner.open(key))
            yield stream

    def stat(self, key: str) -> ObjectInfo:
        with self._proven():
            return self.inner.stat(key)

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        return self._listed(self.inner.list, prefix)

    def recognised(self, prefix: str) -> Iterator[ObjectInfo]:
        with self._proven():
            yield from self.inner.list(prefix)

    def all_keys(self, prefix: str = "") -> Iterator[str]:
        return self._listed(self.inner.all_keys, prefix)

    def unfinished(self, prefix: str = "") -> Iterator[UnfinishedUpload]:
        return self._listed(self.inner.unfinished, prefix)

    def delete(self, key: str) -> None:
        self._remove(self.inner.delete, key)

    def purge(self, key: str) -> None:
        self._remove(self.inner.purge, key)

    def abort(self, upload: UnfinishedUpload) -> None:
        with self._proven():
            self.inner.abort(upload)
        self.identified()

    def lock_problem(self) -> str:
        with self._proven():
            return self.inner.lock_problem()

    def presign(self, key: str, *, expires_in: timedelta, filename: str) -> str:
        with self._proven():
            return self.inner.presign(key, expires_in=expires_in, filename=filename)

    @contextmanager
    def _proven(self) -> Iterator[None]:
        """Check the marker before the operation, and again if an object is reported missing."""
        asked_at = self._asked_at  # another thread may forget it meanwhile
        if asked_at is None or self._clock() - asked_at >= self.inner.trusted_seconds:
            self.identified()
        try:
            yield
        except (ObjectNotFound, PlaceMissing):
            self.identified()
            raise
        except ClinicBackupsError:
            self._asked_at = None
            raise

    def _listed(self, ask: Callable[[str], Iterator[T]], prefix: str) -> Iterator[T]:
        """Check the marker again at the end of a listing, because a wrong store could give the same listing."""
        with self._proven():
            yield from ask(prefix)
        self.identified()

    def _remove(self, remove: Callable[[str], object], key: str) -> None:
        """Delete, and check that this store then has no such object."""
        with self._proven():
            remove(key)
        try:
            self.inner.stat(key)
        except ObjectNotFound:
            self.identified()
            return
        raise TransientError(
            f"{self.url}/{key} was deleted, but the store still has it.",
            hint="Try again. If it happens again, check whether another program writes there.",
        )

    def _unknown(self) -> StoreUnknown:
        found = "it could not be read"
        try:
            marker = read_marker(self.inner)
            found = f"it is that of store {marker.store_id}" if marker else "there is none"
        except PlaceMissing as error:
            found = f"the folder or bucket does not exist. {error.message}"
        except ClinicBackupsError as error:
            found = f"it could not be read. {error.message}"
        return StoreUnknown(
            f"{self.url} is not initialised: the catalog knows no id for it. Its marker {MARKER_KEY}:"
            f" {found.rstrip('.')}.",
            hint=f"Check that it is mounted and that the URL is right. Then run {INIT} once.",
        )

    def _away(self, expected: str, found: str) -> StoreAway:
        return StoreAway(
            f"{self.url} is not the store that the catalog knows: expected store {expected}, {found}.",
            hint="Mount it, or correct the URL, the endpoint and the connection. Nothing is written, deleted or"
            f" recorded there. If it was lost and created again on purpose: {INIT} --take-over.",
        )
