"""Copies of backups in further stores, as they are: streamed from one to the other, and never opened."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from itertools import groupby

from clinic_backups import envelopes, stored
from clinic_backups.catalog.copies import Copies
from clinic_backups.catalog.locks import AlreadyRunning, ClinicLock
from clinic_backups.catalog.records import Catalog
from clinic_backups.errors import (
    ClinicBackupsError,
    IntegrityError,
    ObjectExists,
    ObjectLocked,
    ObjectNotFound,
    TransientError,
)
from clinic_backups.model import CONTENT_TYPE_ARCHIVE, BackupRecord, Loss
from clinic_backups.storage import Stores
from clinic_backups.stores.base import ByteSource, ObjectStore


@dataclass(frozen=True)
class Copy:
    """One copy that was made, or was not because of ``error``."""

    clinic_id: int
    backup_id: str
    store_url: str
    size_bytes: int
    error: ClinicBackupsError | None = None


@dataclass
class Replication:
    """What came of it. ``losses`` are copies that turned out to be gone or damaged on the way."""

    copies: list[Copy] = field(default_factory=list)
    losses: list[Loss] = field(default_factory=list)

    @property
    def problems(self) -> list[tuple[Copy, ClinicBackupsError]]:
        """Those that were not made, and why: a later run makes them."""
        return [(copy, copy.error) for copy in self.copies if copy.error is not None]


class Replicator:
    """Makes the copies that are missing: every completed backup belongs into every store.

    That holds for the primary store too: what it lost comes back from another one.

    :param now: the clock.
    :param on_copy: told of each copy before it is made: record and target's URL.
    """

    def __init__(
        self,
        *,
        catalog: Catalog,
        stores: Stores,
        now: Callable[[], datetime],
        on_copy: Callable[[BackupRecord, str], object] = lambda record, url: None,
    ) -> None:
        self._catalog, self._stores, self._now, self._on_copy = catalog, stores, now, on_copy
        self._places = Copies(catalog.database)
        self._down: dict[str, ClinicBackupsError] = {}

    def run(self, clinic_id: int | None = None, *, patient: bool = False) -> Replication:
        """Copy for one clinic or all, each clinic's newest backup first. What fails is reported, and stops no other.

        :param patient: also try stores that failed a short while ago.
        """
        result = Replication()
        waiting = self._places.waiting(self._stores.urls, clinic_id=clinic_id)
        resting = self._places.resting(self._now()) if waiting and not patient else set()
        by_clinic = sorted((item for item in waiting if item[2] not in resting), key=lambda item: item[0])
        for number, items in groupby(by_clinic, key=lambda item: item[0]):
            todo = [(backup_id, url) for _, backup_id, url in items]
            try:
                with self._catalog.lock(number, "copies") as lock:
                    for backup_id, url in todo:
                        self._make(backup_id, url, lock, result)
            except AlreadyRunning as error:
                result.copies += [Copy(number, backup_id, url, 0, error) for backup_id, url in todo]
        return result

    def _make(self, backup_id: str, url: str, lock: ClinicLock, result: Replication) -> None:
        record = self._catalog.get(backup_id)
        if record is None or record.state != "completed":
            return  # retention was faster
        try:
            if url in self._down:
                raise self._down[url]
            self._on_copy(record, url)
            self._copy(record, url, lock, result)
        except ClinicBackupsError as error:
            result.copies.append(Copy(record.clinic_id, backup_id, url, 0, error))
        else:
            result.copies.append(Copy(record.clinic_id, backup_id, url, record.size_bytes or 0))

    def _copy(self, record: BackupRecord, url: str, lock: ClinicLock, result: Replication) -> None:
        with self._blaming(url):
            target = self._stores.at(url)
            there = self._clear(record, target)
        if not there:
            self._fill(record, target, result)
        # Whoever has the lock by now may have deleted the backup everywhere else.
        lock.require()
        with self._blaming(url):
            envelopes.ensure(record.envelope(), target)
            envelopes.write_hold(record, target)
        self._places.mark(record.backup_id, url, "present", self._now())
        self._places.note_success(url)

    @contextmanager
    def _blaming(self, url: str) -> Iterator[None]:
        """After an error of a store as a whole the rest of this run, and others for a while, do without it."""
        try:
            yield
        except (ObjectExists, ObjectLocked, IntegrityError):
            raise
        except ClinicBackupsError as error:
            self._down[url] = error
            self._places.note_failure(url, error, self._now())
            raise

    def _clear(self, record: BackupRecord, target: ObjectStore) -> bool:
        """Whether the archive is there already, of an attempt that died for instance; a damaged one is removed."""
        condition = stored.look(record.archive, target)
        if condition == "intact":
            condition = stored.read_through(record.archive, target)
        if condition == "damaged":
            target.delete(record.archive_key)
        return condition == "intact"

    def _fill(self, record: BackupRecord, target: ObjectStore, result: Replication) -> None:
        """From the first store that can give it."""
        failure: ClinicBackupsError | None = None
        for source_url in record.stores:
            try:
                self._transfer(record, source_url, target)
            except _SourceError as failed:
                failure = failed.error
                self._note_loss(record, source_url, failure, result)
            else:
                return
        raise failure or TransientError(
            f"No store is known to hold backup {record.backup_id}.", hint="Run `clinic-backups catalog verify`."
        )

    def _transfer(self, record: BackupRecord, source_url: str, target: ObjectStore) -> None:
        with ExitStack() as stack:
            try:
                stream = stack.enter_context(self._stores.at(source_url).open(record.archive_key))
            except ClinicBackupsError as error:
                raise _SourceError(error) from None
            lasting = record.locked_until is not None and record.locked_until > self._now()
            with self._blaming(target.url):
                target.put(
                    record.archive_key,
                    _Source(stored.CheckedSource(stream, record.archive, source_url)),
                    content_type=CONTENT_TYPE_ARCHIVE,
                    metadata={"backup_id": record.backup_id, "clinic_name": record.clinic_name},
                    locked_until=record.locked_until if lasting else None,
                )

    def _note_loss(self, record: BackupRecord, source_url: str, error: ClinicBackupsError, result: Replication) -> None:
        if isinstance(error, ObjectNotFound):
            more = self._places.mark(record.backup_id, source_url, "lost", self._now())
            result.losses += [Loss.of(record, source_url, "missing"), *more]
        elif isinstance(error, IntegrityError):
            more = self._places.mark(record.backup_id, source_url, "damaged", self._now())
            result.losses += [Loss.of(record, source_url, "damaged"), *more]


class _SourceError(Exception):
    """The reading side failed, not the store that is written to."""

    def __init__(self, error: ClinicBackupsError) -> None:
        super().__init__(str(error))
        self.error = error


class _Source:
    """Marks every error of the reading side, so that it is not taken for one of the store that is written to."""

    def __init__(self, source: ByteSource) -> None:
        self._source = source

    def read(self, size: int = -1, /) -> bytes:
        try:
            return self._source.read(size)
        except ClinicBackupsError as error:
            raise _SourceError(error) from None
