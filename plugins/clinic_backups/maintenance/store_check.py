"""Compares a store with the catalog in both directions, for ``catalog verify`` and the weekly sweep."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import groupby

from clinic_backups.archive.object_keys import PROBES, ROOT, parse_key, prefix_of
from clinic_backups.base.backup_facts import ArchiveInfo
from clinic_backups.base.backup_record import BackupRecord
from clinic_backups.base.clinic_id import ClinicId, from_component, in_order
from clinic_backups.base.clock import require_same_clock, require_same_server
from clinic_backups.base.errors import ClinicBackupsError
from clinic_backups.base.listening import NOBODY, Listener
from clinic_backups.base.replica import Condition
from clinic_backups.catalog.erasures import Erasures
from clinic_backups.catalog.forgotten import Forgotten
from clinic_backups.catalog.locks import AlreadyRunning, ClinicLock
from clinic_backups.catalog.records import Catalog
from clinic_backups.catalog.replicas import Replicas
from clinic_backups.maintenance import remedies
from clinic_backups.maintenance.discrepancies import (
    OLD_ENOUGH,
    Discrepancy,
    Kind,
    compare,
    with_dependents,
    wrong_beside,
)
from clinic_backups.maintenance.forgotten_in_stores import ForgottenInStores
from clinic_backups.maintenance.outages import Failures
from clinic_backups.maintenance.store_comparison import Inventory, Task
from clinic_backups.notify.losses import LossAlarm
from clinic_backups.stores import condition as stored
from clinic_backups.stores.base import ObjectInfo, ObjectStore, UnfinishedUpload
from clinic_backups.stores.forgotten_requests import FORGOTTEN

_CLINIC = re.compile(ROOT + r"([^/]+)/")
_PROBE = re.compile(PROBES + r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_Read = dict[str, tuple[ArchiveInfo, Condition]]
"""The condition of each archive that was read, by backup id."""
_CONDITIONS: Mapping[Kind, Condition] = {"missing": "missing", "damaged": "damaged", "found": "intact"}


class StoreCheck:
    """Compares stores with the catalog, clinic by clinic, so that memory depends on one clinic only.

    :param now: the clock.
    :param recipients: the public keys for the key of the erasure requests.
    :param listener: gets the progress.
    """

    def __init__(
        self,
        *,
        catalog: Catalog,
        now: Callable[[], datetime],
        recipients: Sequence[str] = (),
        listener: Listener = NOBODY,
    ) -> None:
        self._catalog, self._now, self._listener = catalog, now, listener
        self._forgotten = ForgottenInStores(Forgotten(catalog.database), recipients)
        self._replicas, self._alarm = Replicas(catalog.database), LossAlarm(now)
        self._failures = Failures()
        self._erased: dict[ClinicId, datetime] = {}

    def run(self, store: ObjectStore, task: Task, *, clinic_id: ClinicId | None = None) -> Inventory:
        """Check one store, or one clinic in it. An error of one clinic or object does not stop the others.

        :raises ClocksDiffer: something is to be changed, but this machine's clock differs from the catalog's; or
            something is to be swept, but the store's clock differs.
        :raises ClinicBackupsError: the store cannot be listed, or the catalog cannot be read.
        """
        self._listener.step(f"listing {store.url}")
        if task.record or task.sweep:
            require_same_clock(self._now)
        if task.sweep:
            # The age of debris comes from the store's clock.
            require_same_server(self._now, f"The store {store.url}", lambda: stored.time_of(store))
        if (task.record or task.sweep) and store.url in self._replicas.store_urls():
            # If the store is down or is the wrong one, nothing may be recorded as lost or swept.
            stored.require_any(store, self._catalog.archive_keys)
        prefix = ROOT if clinic_id is None else prefix_of(clinic_id)
        found, self._failures = Inventory(store.url), Failures()
        erasures = Erasures(self._catalog.database).find()
        self._erased = {each.clinic_id: each.requested_at for each in reversed(erasures) if each.finished_at}
        uploads: dict[ClinicId, list[UnfinishedUpload]] = {}
        if task.only is None:
            with self._noting(found, "unfinished uploads", store):
                uploads = _by_clinic(store.unfinished(prefix))
        seen: set[ClinicId] = set()
        for number, group in groupby(store.list(prefix), key=lambda info: _clinic_of(info.key)):
            objects = list(group)
            ours = [info for info in objects if parse_key(info.key) is not None]
            found.objects += len(ours)
            found.other_objects += len(objects) - len(ours)
            if number is not None and ours:
                seen.add(number)
                self._clinic(_Part(store, number, uploads.get(number, [])), ours, task, found)
        everybody = self._catalog.clinic_ids() if clinic_id is None else [clinic_id]
        for number in in_order({*everybody, *uploads} - seen):
            self._clinic(_Part(store, number, uploads.get(number, [])), [], task, found)
        if clinic_id is None and not self._failures.given_up:
            try:
                self._probes(store, task, found)
            except ClinicBackupsError as error:
                found.problems.append((PROBES, error))
        if task.only is None and not self._failures.given_up:
            self._requests(store, task, clinic_id, found)
        found.lost = [item for item in found.discrepancies if item.kind == "lost"]
        found.discrepancies = [item for item in found.discrepancies if item.kind != "lost"]
        return found

    @contextmanager
    def _noting(
        self, found: Inventory, what: str, store: ObjectStore, clinic_id: ClinicId | None = None
    ) -> Iterator[None]:
        """Record an error about one object as a problem, and continue."""
        try:
            yield
        except ClinicBackupsError as error:
            self._failures.note(error, store, clinic_id)
            if self._failures.given_up:
                raise
            found.problems.append((what, error))
        else:
            self._failures.passed()

    def _clinic(self, clinic: _Part, objects: Sequence[ObjectInfo], task: Task, found: Inventory) -> None:
        if self._failures.given_up:
            found.unchecked.append(clinic.id)
            return
        before = self._failures.count
        try:
            self._look(clinic, objects, task, found)
        except AlreadyRunning as error:
            found.problems.append((f"clinic {clinic.id}", error))
        except ClinicBackupsError as error:
            found.problems.append((f"clinic {clinic.id}", error))
            found.unchecked.append(clinic.id)
            if not self._failures.given_up:
                self._failures.note(error, clinic.store, clinic.id)
        else:
            if self._failures.count == before:
                self._failures.passed()

    def _look(self, clinic: _Part, objects: Sequence[ObjectInfo], task: Task, found: Inventory) -> None:
        records = self._catalog.find(clinic_id=clinic.id)
        items = self._compared(clinic, objects, records, task)
        seen = self._replicas.etags([record.backup_id for record in records], clinic.store.url)
        told = _Listed({info.key: info for info in objects}, seen)
        if not items and not task.read and not any(told.is_another(record) for record in records):
            here = (record for record in records if task.concerns(record.backup_id))
            found.archives |= {
                record.backup_id: told.condition(record) for record in here if _is_counted_on(record, clinic.store)
            }
            return
        self._listener.step(f"{clinic.store.url}: clinic {clinic.id}")
        # Done without the locks, because it may take hours.
        read = self._read(clinic, items, told, task, found)
        looked = Inventory(clinic.store.url)
        standing = self._standing(clinic, read, task, looked, locked=False)
        if not standing or not (task.record or task.sweep):
            # A clinic that is being backed up is not a problem if nothing is wrong with it.
            found.discrepancies += standing
            found.problems += looked.problems
            found.archives |= looked.archives
            return
        with self._catalog.lock(clinic.id, "clinic", "replicas") as lock:
            self._settle(clinic, self._standing(clinic, read, task, found, locked=True), task, found, lock)

    def _compared(
        self, clinic: _Part, objects: Iterable[ObjectInfo], records: Iterable[BackupRecord], task: Task
    ) -> list[Discrepancy]:
        replicas = self._replicas.of_clinic(clinic.id)
        here = {backup_id: states.get(clinic.store.url) for backup_id, states in replicas.items()}
        erased_at = self._erased.get(clinic.id)
        items = compare(clinic.store.url, clinic.id, records, here, objects, clinic.uploads, self._now(), erased_at)
        return [item for item in items if task.concerns(item.backup_id)]

    def _read(self, clinic: _Part, items: Sequence[Discrepancy], told: _Listed, task: Task, found: Inventory) -> _Read:
        """Read the archives that need it: replicas that seem to be found again, or whose mark differs.

        If reading was requested, all archives are read.
        """
        seem_found = {item.backup_id for item in items if item.kind == "found"}
        at_odds = {item.backup_id for item in items if item.kind in ("missing", "damaged")}
        read: _Read = {}
        for record in self._catalog.find(clinic_id=clinic.id):
            if not task.concerns(record.backup_id):
                continue
            counted_on = _is_counted_on(record, clinic.store) and record.backup_id not in at_odds
            wanted = counted_on and (task.read or told.is_another(record))
            if wanted or record.backup_id in seem_found:
                self._listener.step(f"{clinic.store.url}: reading {record.backup_id}")
                with self._noting(found, record.archive_key, clinic.store, clinic.id):
                    read[record.backup_id] = record.archive, self._through(record, clinic.store, found)
                    if task.record:
                        self._note(record, clinic.store, told, read[record.backup_id][1])
        return read

    def _note(self, record: BackupRecord, store: ObjectStore, told: _Listed, condition: Condition) -> None:
        """Record the mark of a right archive, unless it changed meanwhile, so that it need not be read next time."""
        before = told.objects.get(record.archive_key)
        if condition != "intact" or before is None or before.etag in (None, told.seen.get(record.backup_id)):
            return
        if store.stat(record.archive_key).etag == before.etag:
            self._replicas.note_etag(record.backup_id, store.url, before.etag or "")

    def _through(self, record: BackupRecord, store: ObjectStore, found: Inventory) -> Condition:
        archive = record.archive
        condition = stored.read_through(archive, store, lambda done: self._listener.read(done, archive.size_bytes))
        found.read[record.backup_id] = condition
        return condition

    def _standing(self, clinic: _Part, read: _Read, task: Task, found: Inventory, *, locked: bool) -> list[Discrepancy]:
        """The differences that still exist: objects may have been stored or deleted since the listing."""
        records = {record.backup_id: record for record in self._catalog.find(clinic_id=clinic.id)}
        objects = [info for info in clinic.store.list(prefix_of(clinic.id)) if parse_key(info.key) is not None]
        items: list[Discrepancy] = []
        known: dict[str, set[Kind]] = {}
        seen = self._replicas.etags(records, clinic.store.url)
        told = _Listed({info.key: info for info in objects}, seen)
        for item in self._compared(clinic, objects, records.values(), task):
            record = records.get(item.backup_id or "")
            if item.kind == "missing":
                continue  # a listing may be incomplete: below, the store is asked for the archive itself
            if item.kind == "lost" and record and read.get(record.backup_id) == (record.archive, "intact"):
                continue
            if item.kind != "found" or (record and read.get(record.backup_id) == (record.archive, "intact")):
                known.setdefault(item.backup_id or "", set()).add(item.kind)
                items.append(item)
        for record in records.values():
            kinds = known.get(record.backup_id, set())
            if not task.concerns(record.backup_id) or not _is_counted_on(record, clinic.store):
                continue
            if "damaged" in kinds:
                found.archives[record.backup_id] = "damaged"
                continue
            with self._noting(found, record.archive_key, clinic.store, clinic.id):
                condition: stored.Told
                archive, condition = read.get(record.backup_id) or (record.archive, told.condition(record))
                if condition == "missing" or (locked and condition == "damaged"):
                    condition = self._through(record, clinic.store, found)
                if archive == record.archive:
                    found.archives[record.backup_id] = condition
                if condition in ("missing", "damaged") and archive == record.archive:
                    items.append(Discrepancy.of(clinic.store.url, record, condition, record.size_bytes))
                elif task.read or (task.record and locked):
                    wrong = wrong_beside(record, clinic.store, self._now())
                    items += [Discrepancy.of(clinic.store.url, record, kind) for kind in wrong if kind not in kinds]
        return [with_dependents(item, records.values()) for item in items]

    def _settle(
        self, clinic: _Part, items: Sequence[Discrepancy], task: Task, found: Inventory, lock: ClinicLock
    ) -> None:
        """Act on the differences, under the locks. First come the clinic's losses, together with their mail."""
        lock.require()
        states = {
            item.backup_id: _CONDITIONS[item.kind] for item in items if item.backup_id and item.kind in _CONDITIONS
        }
        if states and task.record:
            found.losses += self._replicas.mark_all(clinic.store.url, states, self._now(), self._alarm)
        for item in items:
            if item.kind in _CONDITIONS:
                found.discrepancies.append(replace(item, action="recorded") if task.record else item)
                continue
            # After losing the lock, another process may be storing the object that would be removed.
            lock.require()
            done = item
            with self._noting(found, item.key, clinic.store, clinic.id):
                done = self._put_right(clinic, item, task)
            found.discrepancies.append(done)

    def _put_right(self, clinic: _Part, item: Discrepancy, task: Task) -> Discrepancy:
        if item.kind in ("no envelope", "hold note") and task.record:
            return remedies.write_beside(item, clinic.store, self._catalog, self._now())
        if item.kind in ("debris", "unfinished upload") and task.sweep:
            return remedies.remove(item, clinic.store, clinic.uploads)
        return item

    def _requests(self, store: ObjectStore, task: Task, clinic_id: ClinicId | None, found: Inventory) -> None:
        """The erasure requests, which say what no restore may bring back."""
        try:
            items = list(self._forgotten.compare(store, clinic_id))
            found.discrepancies += self._forgotten.put_right(items, store) if task.record and items else items
        except ClinicBackupsError as error:
            found.problems.append((FORGOTTEN, error))

    def _probes(self, store: ObjectStore, task: Task, found: Inventory) -> None:
        """Probe objects of a killed preflight."""
        for info in store.list(PROBES):
            if not _PROBE.fullmatch(info.key):
                found.other_objects += 1
            elif info.last_modified < self._now() - OLD_ENOUGH:
                item = Discrepancy(store.url, "debris", info.key, size_bytes=info.size_bytes)
                if task.sweep:
                    with self._noting(found, info.key, store):
                        item = remedies.remove(item, store)
                found.discrepancies.append(item)


@dataclass(frozen=True)
class _Part:
    """One clinic's part of a store."""

    store: ObjectStore
    id: ClinicId
    uploads: Sequence[UnfinishedUpload]


@dataclass(frozen=True)
class _Listed:
    """The facts about one clinic's archives from a store's listing, without reading any.

    :param objects: the objects by key.
    :param seen: the recorded etags of checked objects, by backup id.
    """

    objects: Mapping[str, ObjectInfo]
    seen: Mapping[str, str]

    def condition(self, record: BackupRecord) -> stored.Told:
        info = self.objects.get(record.archive_key)
        return stored.compare(record.archive, info, self.seen.get(record.backup_id)) if info else "missing"

    def is_another(self, record: BackupRecord) -> bool:
        if record.state not in ("completed", "lost") or (info := self.objects.get(record.archive_key)) is None:
            return False
        return stored.is_another(record.archive, info, self.seen.get(record.backup_id))


def _is_counted_on(record: BackupRecord, store: ObjectStore) -> bool:
    return record.state in ("completed", "lost") and store.url in record.stores


def _clinic_of(key: str) -> ClinicId | None:
    found = _CLINIC.match(key)
    return from_component(found[1]) if found else None


def _by_clinic(uploads: Iterable[UnfinishedUpload]) -> dict[ClinicId, list[UnfinishedUpload]]:
    found: dict[ClinicId, list[UnfinishedUpload]] = {}
    for upload in uploads:
        if parts := parse_key(upload.key):
            found.setdefault(parts.clinic_id, []).append(upload)
    return found
