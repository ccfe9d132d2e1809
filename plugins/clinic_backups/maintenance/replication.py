"""Makes the replicas that stores lack. Archives are streamed from one store to the other and never decrypted."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import groupby

from clinic_backups.base.backup_record import BackupRecord
from clinic_backups.base.clinic_id import ClinicId, order_of
from clinic_backups.base.clock import ClocksDiffer, require_same_clock
from clinic_backups.base.errors import (
    ClinicBackupsError,
    IntegrityError,
    ObjectExists,
    ObjectLocked,
    ObjectNotFound,
    PermanentError,
    TransientError,
)
from clinic_backups.base.listening import nobody
from clinic_backups.base.plain import iso
from clinic_backups.base.replica import Loss, ReplicaProblem
from clinic_backups.catalog.locks import AlreadyRunning, ClinicLock
from clinic_backups.catalog.records import Catalog
from clinic_backups.catalog.replicas import Replicas
from clinic_backups.notify.losses import LossAlarm
from clinic_backups.stores import condition as stored
from clinic_backups.stores import envelopes
from clinic_backups.stores.base import ByteSource, ObjectStore
from clinic_backups.stores.configured import Outages, Stores

CLOCK_TOLERANCE = timedelta(seconds=1)
"""Some stores keep a lock's end in whole seconds."""


@dataclass(frozen=True)
class NewReplica:
    """One replica that was made, or that failed with ``error``."""

    clinic_id: ClinicId
    backup_id: str
    store_url: str
    size_bytes: int
    error: ClinicBackupsError | None = None


@dataclass
class Replication:
    """The result. ``losses`` are replicas that were found missing or damaged.

    They are recorded, and the operator's mail about them is in the outbox.
    """

    replicas: list[NewReplica] = field(default_factory=list)
    losses: list[Loss] = field(default_factory=list)

    @property
    def problems(self) -> list[tuple[NewReplica, ClinicBackupsError]]:
        """The replicas that failed, with their errors. A later run makes them."""
        return [(replica, replica.error) for replica in self.replicas if replica.error is not None]


class Replicator:
    """Makes missing replicas: every completed backup belongs in every store.

    This includes the primary store: a replica that it lost is made from another store.

    :param now: the clock.
    :param on_replica: called before each replica, with the record and the target's URL.
    """

    def __init__(
        self,
        *,
        catalog: Catalog,
        stores: Stores,
        now: Callable[[], datetime],
        on_replica: Callable[[BackupRecord, str], object] = nobody,
    ) -> None:
        self._catalog, self._stores, self._now, self._on_replica = catalog, stores, now, on_replica
        self._replicas, self._alarm = Replicas(catalog.database), LossAlarm(now)
        self._outages = Outages()

    def run(self, clinic_id: ClinicId | None = None, *, patient: bool = False) -> Replication:
        """Replicate for one clinic or all, each clinic's newest backup first.

        Failures are reported and do not stop the others.

        :param patient: also try stores that failed a short while ago.
        :raises ClocksDiffer: this machine's clock differs from the catalog's. Nothing was changed.
        """
        require_same_clock(self._now)
        result = Replication()
        waiting = self._replicas.waiting(self._stores.urls, clinic_id=clinic_id)
        resting = self._replicas.resting(self._now()) if waiting and not patient else set()
        by_clinic = sorted((item for item in waiting if item[2] not in resting), key=lambda item: order_of(item[0]))
        for number, items in groupby(by_clinic, key=lambda item: item[0]):
            todo = [(backup_id, url) for _, backup_id, url in items]
            try:
                with self._catalog.lock(number, "replicas") as lock:
                    # A damaged object is deleted before its replica is made, and ends of locks depend on the clock.
                    require_same_clock(self._now)
                    for backup_id, url in todo:
                        self._make(backup_id, url, lock, result)
            except (AlreadyRunning, ClocksDiffer) as error:
                result.replicas += [NewReplica(number, backup_id, url, 0, error) for backup_id, url in todo]
        return result

    def _make(self, backup_id: str, url: str, lock: ClinicLock, result: Replication) -> None:
        record = self._catalog.get(backup_id)
        if record is None or record.state != "completed":
            return  # retention has deleted it meanwhile
        try:
            self._outages.require(url)
            self._on_replica(record, url)
            self._replicate(record, url, lock, result)
        except ClinicBackupsError as error:
            result.replicas.append(NewReplica(record.clinic_id, backup_id, url, 0, error))
        else:
            result.replicas.append(NewReplica(record.clinic_id, backup_id, url, record.size_bytes or 0))

    def _replicate(self, record: BackupRecord, url: str, lock: ClinicLock, result: Replication) -> None:
        with self._blaming(url, record):
            target = self._stores.at(url)
            condition, etag = stored.look(record.archive, target), None
            if condition in ("intact", "not compared"):
                condition, etag = stored.read_marked(record.archive, target)
            locked_until = target.stat(record.archive_key).locked_until if condition == "intact" else None
        sources: Sequence[str] = record.stores
        if condition == "damaged":
            with self._blaming(url, record):
                _require_nobody_vouches(record, target, self._now())
            sources = self._readable(record, result)
            with self._blaming(url, record):
                target.delete(record.archive_key)
        if condition == "intact":
            # For instance an object of an attempt that died.
            self._require_lock(record, url, locked_until)
        else:
            etag = self._fill(record, target, sources, result)
        # After losing the lock, another process may have deleted the backup everywhere else.
        lock.require()
        with self._blaming(url, record):
            envelopes.ensure(record.envelope(), target, now=self._now())
        noted = self._note_hold(record, target)
        self._replicas.mark(record.backup_id, url, "intact", self._now())
        if etag is not None:
            self._replicas.note_etag(record.backup_id, url, etag)
        if self._hold_of(record) != noted:
            # From now on, setting or ending a hold also updates this replica.
            self._note_hold(record, target)
        self._replicas.note_success(url)
        self._outages.passed(url)

    @contextmanager
    def _blaming(self, url: str, record: BackupRecord) -> Iterator[None]:
        """After an error of the whole store, neither the rest of this run nor other runs use it for a while.

        An error of one object or one clinic does not stop the other replicas.
        """
        try:
            yield
        except (ObjectExists, ObjectLocked, ObjectNotFound, IntegrityError):
            raise
        except (TransientError, PermanentError) as error:
            # The bucket may be missing or closed; or the error concerns only this object's name, size, right or disk.
            if self._outages.note(url, self._opened(url), record.clinic_id, error):
                self._replicas.note_failure(url, error, self._now())
            raise

    def _opened(self, url: str) -> ObjectStore | None:
        try:
            return self._stores.at(url)
        except ClinicBackupsError:
            return None

    def _require_lock(self, record: BackupRecord, url: str, locked_until: datetime | None) -> None:
        """:raises PermanentError: the existing object is not locked until the end of the backup's lock."""
        until = self._lasting_lock(record)
        if until is not None and (locked_until is None or locked_until < until - CLOCK_TOLERANCE):
            raise PermanentError(
                f"{url}/{record.archive_key} exists but is not locked until {iso(until)}."
                " It does not count as a replica.",
                hint="Delete that object by hand, or lock it until then. The next replication does the rest.",
            )

    def _lasting_lock(self, record: BackupRecord) -> datetime | None:
        until = record.locked_until
        return until if until is not None and until > self._now() else None

    def _note_hold(self, record: BackupRecord, target: ObjectStore) -> tuple[str | None, str | None]:
        """Update the hold note, because a hold may have been set or ended meanwhile; returns the noted hold."""
        now = self._catalog.get(record.backup_id) or record
        with self._blaming(target.url, record):
            envelopes.write_hold(now, target)
        return now.hold_reason, now.held_by

    def _hold_of(self, record: BackupRecord) -> tuple[str | None, str | None]:
        now = self._catalog.get(record.backup_id) or record
        return now.hold_reason, now.held_by

    def _readable(self, record: BackupRecord, result: Replication) -> Sequence[str]:
        """The stores, beginning with the first that has a good replica. It was read before anything is removed for it.

        :raises ClinicBackupsError: there is none.
        """
        failure: ClinicBackupsError | None = None
        for number, url in enumerate(record.stores):
            try:
                condition = stored.read_through(record.archive, self._stores.at(url))
            except ClinicBackupsError as error:
                failure = error
                continue
            if condition == "intact":
                return record.stores[number:]
            self._note_loss(record, url, condition, result)
            failure = IntegrityError(
                f"{url}/{record.archive_key} is {condition}.",
                hint="Nothing was changed in the target. `catalog verify --read` shows what is there.",
            )
        raise failure or _no_store_known(record)

    def _fill(
        self, record: BackupRecord, target: ObjectStore, sources: Sequence[str], result: Replication
    ) -> str | None:
        """Replicate from the first store that can provide it; returns the etag of the replica, if the store has one."""
        failure: ClinicBackupsError | None = None
        for source_url in sources:
            try:
                return self._transfer(record, source_url, target)
            except _SourceError as failed:
                failure = failed.error
                if isinstance(failure, (ObjectNotFound, IntegrityError)):
                    gone = isinstance(failure, ObjectNotFound)
                    self._note_loss(record, source_url, "missing" if gone else "damaged", result)
        raise failure or _no_store_known(record)

    def _transfer(self, record: BackupRecord, source_url: str, target: ObjectStore) -> str | None:
        with ExitStack() as stack:
            try:
                stream = stack.enter_context(self._stores.at(source_url).open(record.archive_key))
            except ClinicBackupsError as error:
                raise _SourceError(error) from None
            with self._blaming(target.url, record):
                source = _Source(stored.CheckedSource(stream, record.archive, source_url))
                return stored.put_archive(record, source, target, locked_until=self._lasting_lock(record)).etag

    def _note_loss(self, record: BackupRecord, url: str, problem: ReplicaProblem, result: Replication) -> None:
        result.losses += self._replicas.lose(record, url, problem, self._now(), self._alarm)


def _require_nobody_vouches(record: BackupRecord, target: ObjectStore, now: datetime) -> None:
    """Check that no other backup has this replica's key.

    It may be the only good one, for instance if the catalog was rebuilt from a store with forged backups.

    :raises IntegrityError: the envelope beside it belongs to another backup.
    """
    try:
        there = envelopes.load(record.archive_key, target, now=now).archive
    except (ObjectNotFound, envelopes.NoEnvelope):
        return
    if (there.sha256, there.size_bytes) != (record.sha256, record.size_bytes):
        raise IntegrityError(
            f"Two different backups have one key in {target.url}: by its envelope, {record.archive_key} is"
            f" not the archive of {record.backup_id} in the catalog.",
            hint="Nothing was changed. Look at both archives, and run `clinic-backups catalog verify`. Then move the"
            " wrong one away by hand.",
        )


def _no_store_known(record: BackupRecord) -> TransientError:
    return TransientError(
        f"No store is known to hold backup {record.backup_id}.", hint="Run `clinic-backups catalog verify`."
    )


class _SourceError(Exception):
    """The source failed, not the target."""

    def __init__(self, error: ClinicBackupsError) -> None:
        super().__init__(str(error))
        self.error = error


class _Source:
    """Marks every error of the source, so that it is not mistaken for an error of the target."""

    def __init__(self, source: ByteSource) -> None:
        self._source = source

    def read(self, size: int = -1, /) -> bytes:
        try:
            return self._source.read(size)
        except ClinicBackupsError as error:
            raise _SourceError(error) from None
