"""Deletes the backups that retention does not keep. After a crash at any point, the next run can finish the work."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from functools import partial
from typing import Any

from sqlalchemy import Connection as SqlConnection

from clinic_backups.archive.object_keys import keys_beside
from clinic_backups.base.backup_record import BackupRecord
from clinic_backups.base.clinic_id import ClinicId, in_order
from clinic_backups.base.clock import DatabaseClock, require_same_clock, require_same_server
from clinic_backups.base.errors import ClinicBackupsError, ObjectLocked
from clinic_backups.base.plain import iso
from clinic_backups.base.replica import Condition
from clinic_backups.base.settings import Settings
from clinic_backups.catalog.backup_counts import BackupCounts
from clinic_backups.catalog.erasures import Counted, Erasure, Erasures
from clinic_backups.catalog.exports import Exports
from clinic_backups.catalog.identities import Identities
from clinic_backups.catalog.locks import ClinicLock
from clinic_backups.catalog.records import Catalog
from clinic_backups.catalog.replicas import Replicas
from clinic_backups.maintenance.erasing import keys_of, purge_rest
from clinic_backups.maintenance.export_cleaning import ExportCleaner
from clinic_backups.maintenance.retention_decisions import Decider
from clinic_backups.maintenance.retention_result import Cleaned
from clinic_backups.stores import condition as stored
from clinic_backups.stores import envelopes
from clinic_backups.stores.base import ObjectStore
from clinic_backups.stores.configured import NO_CLINIC, AnsweringStores, Stores


class Cleaner:
    """Applies the retention policy and erasures, clinic by clinic.

    :param now: the clock.
    """

    def __init__(self, *, settings: Settings, catalog: Catalog, stores: Stores, now: Callable[[], datetime]) -> None:
        self._settings, self._catalog, self._now = settings, catalog, now
        self._stores = AnsweringStores(stores)
        self._replicas, self._erasures = Replicas(catalog.database), Erasures(catalog.database)
        self._exports = ExportCleaner(Exports(catalog.database), self._stores, settings.export_days)
        self._decider = Decider(settings=settings, catalog=catalog, stores=self._stores, now=now)

    def run(self, *, clinic_id: ClinicId | None = None, dry_run: bool = False) -> Iterator[Cleaned]:
        """Clean one clinic, or all clinics that have backups or are being erased, active or not.

        A clinic that is being backed up, restored or replicated is tried once more at the end, and otherwise left for
        the next run. A backup that a store refuses to delete stays in the catalog and is reported. Neither stops the
        other clinics.

        :param dry_run: change nothing, neither in the stores nor in the catalog.
        :raises ClocksDiffer: this machine's clock, or a store's, differs from the catalog's. Nothing was
        changed.
        """
        require_same_clock(self._now)
        if not dry_run:
            self._require_stores_clocks()
        left_over = self._exports.look(self._now())
        every = in_order({*self._catalog.clinic_ids(), *self._erasures.open_clinics(), *left_over})
        busy: list[ClinicId] = []
        for number in every if clinic_id is None else [clinic_id]:
            cleaned = self._cleaned(number, dry_run=dry_run)
            if cleaned.busy:
                busy.append(number)
            else:
                yield cleaned
        for number in busy:
            yield self._cleaned(number, dry_run=dry_run)

    def _require_stores_clocks(self) -> None:
        """Compare the stores' clocks too.

        If the catalog's database runs on this machine, both may have the same wrong clock.

        :raises ClocksDiffer: a store's time differs; names both.
        """
        if not isinstance(self._now, DatabaseClock):
            return
        for url in self._stores.urls:
            at = self._time_of(url)
            if at is not None:
                require_same_server(self._now, f"The store {url}", partial(_same, at))

    def _time_of(self, url: str) -> datetime | None:
        """The time of a store's clock; none if it has none.

        If a store fails to give its time, nothing is deleted there.
        """
        try:
            with self._stores.at(url, NO_CLINIC) as store:
                return stored.time_of(store) if store.has_clock else None
        except ClinicBackupsError as error:
            self._stores.give_up(url, error)
            return None

    def _cleaned(self, clinic_id: ClinicId, *, dry_run: bool) -> Cleaned:
        cleaned = Cleaned(clinic_id)
        try:
            with self._catalog.lock(clinic_id, "clinic", "replicas", "exports") as lock:
                # Checked for every clinic, because a clock may be changed while thousands of clinics are cleaned.
                require_same_clock(self._now)
                cleaned.erasure = self._erasures.open_of(clinic_id)
                replicas = self._replicas.of_clinic(clinic_id)
                cleaned.decisions = self._decider.decide(cleaned, replicas, dry_run=dry_run)
                if not dry_run:
                    self._clean(cleaned, replicas, lock)
        except ClinicBackupsError as error:
            cleaned.fail(error)
        return cleaned

    def forget_old(self) -> int:
        """Remove records of failed and deleted backups after their term; returns how many."""
        require_same_clock(self._now)
        forgotten = self._catalog.forget(before=self._now() - timedelta(days=self._settings.keep_failed_days))
        BackupCounts(self._catalog.database).recount()
        return forgotten

    def unknown_holds(self, clinic_id: ClinicId) -> Iterator[tuple[BackupRecord, str, envelopes.Hold]]:
        """Hold notes beside the clinic's archives that the catalog did not write, with their stores."""
        for record in self._catalog.find(clinic_id=clinic_id):
            if record.state not in ("completed", "lost"):
                continue
            if record.hold_reason is not None and envelopes.is_by_note(record):
                yield record, "the catalog", envelopes.Hold(record.hold_reason, record.held_by or "", record.held_at)
            for url in self._stores.urls:
                with self._stores.at(url, clinic_id) as store:
                    hold = envelopes.unreleased_hold(record, store)
                if hold is not None:
                    yield record, url, hold

    def _clean(self, cleaned: Cleaned, replicas: Mapping[str, Mapping[str, Condition]], lock: ClinicLock) -> None:
        # First finish the deletions of an earlier run, whose objects may be half deleted.
        going = self._catalog.find(clinic_id=cleaned.clinic_id, state="deleting")
        before = self._counted(cleaned)
        for decision in cleaned.decisions:
            if not decision.keep:
                lock.require()
                going.append(self._catalog.mark_deleting(decision.backup))
        for record in going:
            lock.require()
            proof = self._delete(record, self._decider.urls(record, replicas), cleaned)
            if proof is not None:
                self._note_deleted(replace(record, deletion=proof), cleaned)
        if cleaned.erasure is None:
            self._exports.clean(cleaned, self._now())
        else:
            cleaned.erasure = self._erase_rest(cleaned, cleaned.erasure, before, lock)

    def _counted(self, cleaned: Cleaned) -> dict[str, int]:
        """The number of an erased clinic's objects in each store, before anything is deleted."""
        found: dict[str, int] = {}
        if cleaned.erasure is not None:
            for url in self._every_url():
                try:
                    with self._stores.at(url, cleaned.clinic_id) as store:
                        exports = self._exports.keys_of(store, cleaned.clinic_id)
                        found[url] = len(keys_of(store, cleaned.clinic_id)) + len(exports)
                except ClinicBackupsError as error:
                    cleaned.fail(error)
        return found

    def _every_url(self) -> list[str]:
        """The stores of the settings, and other stores in the catalog, which may hold objects too."""
        known = [identity.store_url for identity in Identities(self._catalog.database).find()]
        return list(dict.fromkeys([*self._stores.urls, *known]))

    def _erase_rest(self, cleaned: Cleaned, erasure: Erasure, before: Mapping[str, int], lock: ClinicLock) -> Erasure:
        records, done = self._catalog.find(clinic_id=cleaned.clinic_id), True
        exports = self._exports.kept(erasure, records)
        for url in self._every_url():
            try:
                left = self._exports.erase(url, erasure, exports, lock)
                left += purge_rest(url, self._stores, erasure, records, lock, self._now())
                with self._stores.at(url, cleaned.clinic_id) as store:
                    deleted = max(0, before.get(url, left) - left)
                    counted = Counted(url, store.identified(), self._now(), deleted, left)
                erasure = self._erasures.note(erasure, counted)
            except ClinicBackupsError as error:
                cleaned.fail(error)
                done = False
        return self._erasures.settle(erasure, self._now(), proven=done)

    def _note_deleted(self, record: BackupRecord, cleaned: Cleaned) -> None:
        erasure = cleaned.erasure

        def count(db: SqlConnection, deleted: BackupRecord) -> None:
            if erasure is not None and erasure.covers(deleted):
                self._erasures.count(db, erasure, deleted)

        self._catalog.mark_deleted(replace(record, state="deleted", deleted_at=self._now()), also=count)
        cleaned.deleted += 1

    def _delete(self, record: BackupRecord, urls: list[str], cleaned: Cleaned) -> tuple[dict[str, Any], ...] | None:
        """Delete the archive, the envelope and the hold note in each store. Each may be gone already.

        Returns each store with the time when it confirmed the deletion; none if one did not confirm it.
        """
        gone, proof = True, list[dict[str, Any]]()
        for url in urls:
            try:
                with self._stores.at(url, record.clinic_id) as store:
                    if cleaned.erases(record):
                        remove = store.purge
                    else:
                        # A versioned bucket would only hide it, but it would count as deleted.
                        self._require_unlocked(record, store)
                        remove = store.delete
                    for key in keys_beside(record.archive_key):
                        remove(key)
                    proof.append({"store_url": url, "store_id": store.identified(), "at": iso(self._now())})
            except ClinicBackupsError as error:
                cleaned.fail(error)
                gone = False
        return tuple(proof) if gone else None

    def _require_unlocked(self, record: BackupRecord, store: ObjectStore) -> None:
        if (until := self._decider.locked_until(record, store)) is not None:
            raise ObjectLocked(
                f"{store.url} keeps {record.backup_id} locked until {iso(until)}.",
                hint="The first retention after that deletes the backup there.",
            )


def _same(at: datetime) -> datetime:
    return at
