"""A store that is asked which one it is, before and after everything that is believed of it."""

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
    """Whether the store shows its marker right now: then what failed is the fault of one object, not of the store."""
    try:
        if store.identified() is None:
            read_marker(store)
    except UnreadableMarker:
        return True
    except ClinicBackupsError:
        return False
    return True


class IdentifiedStore(ObjectStore):
    """Everything that another store does, as long as it is the one that the catalog knows under this URL.

    The marker is read before an operation, unless it was read a short while ago. It is read again after everything
    that a wrong store would answer as well: an object that is not there, a listing, a deletion, a write. So a store
    that is unmounted, emptied or exchanged meanwhile is an error, and never an absence.

    :param inner: the store itself.
    :param expected: gives the id that the catalog has for the store's URL; none where it has none.
    :param clock: seconds that never go back.
    """

    def __init__(
        self, inner: ObjectStore, expected: Callable[[], str | None], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.inner, self.url, self.has_clock = inner, inner.url, inner.has_clock
        self._expected, self._clock = expected, clock
        self._asked_at: float | None = None

    def identified(self) -> str:
        """The store's id, asked for now.

        :raises StoreUnknown: the catalog has no id for this URL.
        :raises StoreAway: the marker is missing, or that of another store.
        :raises ClinicBackupsError: the store or the catalog did not answer, or this account may not read the marker.
        """
        self._asked_at = None
        expected = self._expected()
        if expected is None:
            raise self._unknown()
        try:
            marker = read_marker(self.inner)
        except PlaceMissing as error:
            raise self._away(expected, f"its place is not there: {error.message}") from None
        except UnreadableMarker:
            raise self._away(expected, f"found {MARKER_KEY} with other content") from None
        if marker is None:
            raise self._away(expected, f"found no {MARKER_KEY} there")
        if marker.store_id != expected:
            raise self._away(expected, f"found store {marker.store_id}")
        self._asked_at = self._clock()
        return expected

    def put(
        self,
        key: str,
        source: ByteSource,
        *,
        content_type: str = "application/octet-stream",
        metadata: Mapping[str, str] | None = None,
        locked_until: datetime | None = None,
    ) -> StoredObject:
        with self._proven():
            stored = self.inner.put(
                key, source, content_type=content_type, metadata=metadata, locked_until=locked_until
            )
        try:
            self.identified()
        except ClinicBackupsError as error:
            # It was written into another store, or nobody knows into which one.
            try:
                self.inner.delete(key)
            except ClinicBackupsError as failure:
                error.add_note(f"{self.url}/{key} may have stayed behind, delete it: {failure.message}")
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
        """The right store before; and once more where it is said that something is not there."""
        if self._asked_at is None or self._clock() - self._asked_at >= self.inner.trusted_seconds:
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
        """What a wrong store would list as well is believed at its end."""
        with self._proven():
            yield from ask(prefix)
        self.identified()

    def _remove(self, remove: Callable[[str], object], key: str) -> None:
        """A deletion is proven: this store says afterwards that there is no such object."""
        with self._proven():
            remove(key)
        try:
            self.inner.stat(key)
        except ObjectNotFound:
            self.identified()
            return
        raise TransientError(
            f"{self.url}/{key} was deleted, and the store still has it.",
            hint="Does somebody write there at the same time? Try again.",
        )

    def _unknown(self) -> StoreUnknown:
        found = "it could not be read"
        try:
            marker = read_marker(self.inner)
            found = f"it is that of store {marker.store_id}" if marker else "there is none"
        except PlaceMissing as error:
            found = f"it is not there. {error.message}"
        except ClinicBackupsError as error:
            found = f"it could not be read. {error.message}"
        return StoreUnknown(
            f"{self.url} is not initialised: the catalog knows no id for it. Its marker {MARKER_KEY}:"
            f" {found.rstrip('.')}.",
            hint=f"Check that it is mounted and the right URL; then run {INIT}, once.",
        )

    def _away(self, expected: str, found: str) -> StoreAway:
        return StoreAway(
            f"{self.url} is not the store that the catalog knows: expected store {expected}, {found}.",
            hint="Mount it, or correct the URL, the endpoint and the connection. Nothing is written, deleted or called"
            f" missing there. If it was lost and made anew on purpose: {INIT} --take-over.",
        )
