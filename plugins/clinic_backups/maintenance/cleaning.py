"""Deletes the backups that retention does not keep. After a crash at any point, the next run can finish the work."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from functools import partial
from typing import Any

from sqlalchemy import Connection as SqlConnection

from clinic_backups.archive.chain import chain_of
from clinic_backups.archive.envelope_checks import usable_end
from clinic_backups.archive.object_keys import keys_beside
from clinic_backups.base.clock import DatabaseClock, require_same_clock, require_same_server
from clinic_backups.base.errors import (
    ClinicBackupsError,
    ObjectLocked,
    ObjectNotFound,
)
from clinic_backups.base.model import BackupRecord, Condition, Loss, ReplicaProblem, iso
from clinic_backups.base.retention import Decision, last_good, plan
from clinic_backups.base.settings import Settings
from clinic_backups.catalog.erasures import Counted, Erasure, Erasures
from clinic_backups.catalog.identities import Identities
from clinic_backups.catalog.locks import AlreadyRunning, ClinicLock
from clinic_backups.catalog.records import Catalog
from clinic_backups.catalog.replicas import Replicas
from clinic_backups.catalog.restores import Restores
from clinic_backups.maintenance.erasing import keys_of, purge_rest
from clinic_backups.notify.losses import LossAlarm
from clinic_backups.stores import condition as stored
from clinic_backups.stores import envelopes
from clinic_backups.stores.base import ObjectStore
from clinic_backups.stores.configured import AnsweringStores, Stores

NOBODY = -1
"""Used in place of a clinic's id for requests that are about no clinic."""
UNDO_FOR = timedelta(days=7)
"""A restore's safety backup is kept for at least this time."""


@dataclass
class Cleaned:
    """The result for one clinic's backups.

    :param busy: the problem is that another process works on the clinic.
    :param losses: replicas that should be there but are not.
    """

    clinic_id: int
    decisions: list[Decision] = field(default_factory=list)
    deleted: int = 0
    problem: str = ""
    hint: str = ""
    busy: bool = False
    losses: list[Loss] = field(default_factory=list)
    erasure: Erasure | None = None

    @property
    def kept(self) -> int:
        return sum(decision.keep for decision in self.decisions)

    def fail(self, error: ClinicBackupsError) -> None:
        """Record a problem, unless there is one already."""
        if not self.problem:
            self.busy = isinstance(error, AlreadyRunning)
            self.problem = error.message
            self.hint = "The next run will clean this clinic." if self.busy else error.hint


@dataclass
class _Told:
    """Facts from the stores about one clinic's backups that the catalog does not have.

    :param claimed: backups whose lock an erasure respects only if a store confirms it.
    """

    gone: set[str] = field(default_factory=set)
    locked_until: dict[str, datetime] = field(default_factory=dict)
    held: dict[str, envelopes.Hold] = field(default_factory=dict)
    spared: dict[str, str] = field(default_factory=dict)
    asked: set[str] = field(default_factory=set)
    there: set[str] = field(default_factory=set)
    claimed: set[str] = field(default_factory=set)


class Cleaner:
    """Applies the retention policy and erasures, clinic by clinic.

    :param now: the clock.
    """

    def __init__(self, *, settings: Settings, catalog: Catalog, stores: Stores, now: Callable[[], datetime]) -> None:
        self._settings, self._catalog, self._now = settings, catalog, now
        self._stores = AnsweringStores(stores)
        self._replicas, self._erasures = Replicas(catalog.database), Erasures(catalog.database)
        self._alarm = LossAlarm(now)

    def run(self, *, clinic_id: int | None = None, dry_run: bool = False) -> Iterator[Cleaned]:
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
        every = sorted({*self._catalog.clinic_ids(), *self._erasures.open_clinics()})
        busy: list[int] = []
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
            with self._stores.at(url, NOBODY) as store:
                return stored.time_of(store) if store.has_clock else None
        except ClinicBackupsError as error:
            self._stores.give_up(url, error)
            return None

    def _cleaned(self, clinic_id: int, *, dry_run: bool) -> Cleaned:
        cleaned = Cleaned(clinic_id)
        try:
            with self._catalog.lock(clinic_id, "clinic", "replicas") as lock:
                # Checked for every clinic, because a clock may be changed while thousands of clinics are cleaned.
                require_same_clock(self._now)
                cleaned.erasure = self._erasures.open_of(clinic_id)
                replicas = self._replicas.of_clinic(clinic_id)
                cleaned.decisions = self._decide(cleaned, replicas, dry_run=dry_run)
                if not dry_run:
                    self._clean(cleaned, replicas, lock)
        except ClinicBackupsError as error:
            cleaned.fail(error)
        return cleaned

    def forget_old(self) -> int:
        """Remove records of failed and deleted backups after their term; returns how many."""
        require_same_clock(self._now)
        return self._catalog.forget(before=self._now() - timedelta(days=self._settings.keep_failed_days))

    def _decide(
        self, cleaned: Cleaned, replicas: Mapping[str, Mapping[str, Condition]], *, dry_run: bool
    ) -> list[Decision]:
        """The plan. It is made again as long as the stores report something that changes it.

        It is made as a whole each time, because a backup that turns out to be locked or on hold needs its whole chain.
        """
        told = _Told()
        if not dry_run:
            self._end_unknown_holds(cleaned)
        while True:
            decisions = self._plan(cleaned, told)
            going = [decision.backup for decision in decisions if not decision.keep]
            if not going:
                return decisions
            if self._is_missing(cleaned, decisions, told, dry_run=dry_run):
                continue
            unasked = [record for record in going if record.backup_id not in told.asked]
            if not unasked:
                return decisions
            for record in unasked:
                self._ask(record, self._urls(record, replicas), cleaned, told)
                if not dry_run:
                    self._note(record, told, cleaned)

    def unknown_holds(self, clinic_id: int) -> Iterator[tuple[BackupRecord, str, envelopes.Hold]]:
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

    def _end_unknown_holds(self, cleaned: Cleaned) -> None:
        """For an erasure that ignores unknown holds: end those that an earlier run took over from a note."""
        if cleaned.erasure is None or not cleaned.erasure.ignore_unknown_holds:
            return
        for record in self._catalog.find(clinic_id=cleaned.clinic_id):
            if _is_erased(record, cleaned) and envelopes.is_by_note(record):
                self._catalog.release(record, cleaned.erasure.requested_by, self._now())

    def _note(self, record: BackupRecord, told: _Told, cleaned: Cleaned) -> None:
        """Record a store's facts in the catalog. For an erasure, the person who asked decides about unknown notes."""
        if (until := told.locked_until.get(record.backup_id)) is not None:
            self._catalog.note_lock(record, until)
        if (hold := told.held.get(record.backup_id)) is not None and not _is_erased(record, cleaned):
            self._catalog.hold(record, hold.reason, envelopes.by_note(hold), hold.at)

    def _plan(self, cleaned: Cleaned, told: _Told) -> list[Decision]:
        """The plan from the records and the stores' facts.

        For an erasure only a lock that the store itself reports counts, because the record's lock may come from a
        forged envelope.
        """
        now, clinic_id = self._now(), cleaned.clinic_id
        undoing = {
            record.safety_backup_id: record.restore_id
            for record in Restores(self._catalog.database).find(clinic_id=clinic_id)
            if record.safety_backup_id is not None and now - record.started_at < UNDO_FOR
        }
        records = self._catalog.find(clinic_id=clinic_id)
        erased = {record.backup_id for record in records if _is_erased(record, cleaned)}
        locked = {record.backup_id: record.locked_until for record in records if record.locked_until is not None}
        told.claimed |= {backup_id for backup_id in erased & locked.keys() if locked[backup_id] > now}
        locked = {backup_id: until for backup_id, until in locked.items() if backup_id not in erased}
        locked |= told.locked_until
        return plan(
            [
                replace(
                    record,
                    state="lost" if record.backup_id in told.gone else record.state,
                    locked_until=locked.get(record.backup_id),
                )
                for record in records
            ],
            self._settings.retention_of(clinic_id),
            now,
            zone=self._settings.zone,
            undoing=undoing,
            erased_at=cleaned.erasure.requested_at if cleaned.erasure else None,
            spared=told.spared | {backup_id: f"on hold: {hold.said}" for backup_id, hold in told.held.items()},
        )

    def _is_missing(self, cleaned: Cleaned, decisions: list[Decision], told: _Told, *, dry_run: bool) -> bool:
        """Whether the last good backup or its chain is missing. Checked in the stores before anything older is deleted.

        A loss is recorded, and the plan has to be made again.
        """
        known = {each.backup.backup_id: each.backup for each in decisions}
        # A backup that is built on a lost one does not count. In a dry run its own record does not show that yet.
        chain = {
            record.backup_id: record
            for last in last_good((each.backup for each in decisions if each.keep), known, self._now())
            for record in chain_of(last, known) or (last,)
        }
        for backup_id, record in chain.items():
            if backup_id not in told.there:
                there = self._is_there(record, cleaned, dry_run=dry_run)
                (told.there if there else told.gone).add(backup_id)
        return not chain.keys() <= told.there

    def _is_there(self, record: BackupRecord, cleaned: Cleaned, *, dry_run: bool) -> bool:
        """Whether some store has it. If none has, the loss is recorded for all of them."""
        problems: dict[str, ReplicaProblem] = {}
        for url in record.stores:
            with self._stores.at(url, record.clinic_id) as store:
                # If the store cannot prove it, the archive is read, because older backups are deleted on the strength
                # of this one.
                seen = self._replicas.etags([record.backup_id], url).get(record.backup_id)
                condition, etag = stored.look_closely(record.archive, store, seen)
                if etag is not None and etag != seen and not dry_run:
                    self._replicas.note_etag(record.backup_id, url, etag)
                if condition == "intact" and envelopes.exists(record.archive_key, store):
                    return True
                stored.require_any(store, self._catalog.archive_keys)
            problems[url] = "damaged" if condition == "damaged" else "missing"
        for url, problem in problems.items():
            if dry_run:
                cleaned.losses.append(Loss.of(record, url, problem))
            else:
                cleaned.losses += self._replicas.lose(record, url, problem, self._now(), self._alarm)
        return False

    def _ask(self, record: BackupRecord, urls: list[str], cleaned: Cleaned, told: _Told) -> None:
        """Ask each store about a backup that is to be deleted.

        It may be locked there, perhaps by the bucket's own rule. A hold note may be beside it that a rebuilt catalog
        does not know. If a store does not answer, the backup stays for now. An erasure deletes what it can.
        """
        told.asked.add(record.backup_id)
        for url in urls:
            try:
                with self._stores.at(url, record.clinic_id) as store:
                    if (until := self._locked_until(record, store)) is not None:
                        told.locked_until[record.backup_id] = max(until, told.locked_until.get(record.backup_id, until))
                    if _counts(record, cleaned) and (hold := envelopes.unreleased_hold(record, store)):
                        told.held[record.backup_id] = hold
            except ClinicBackupsError as error:
                # A lock that only the record has may be real; only the store knows.
                if not _is_erased(record, cleaned) or record.backup_id in told.claimed:
                    cleaned.fail(error)
                    told.spared[record.backup_id] = f"{url} did not say whether it is locked there"

    def _locked_until(self, record: BackupRecord, store: ObjectStore) -> datetime | None:
        try:
            until = store.stat(record.archive_key).locked_until
        except ObjectNotFound:
            return None
        now = self._now()
        until = usable_end(until, now)
        return until if until is not None and until > now else None

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
            proof = self._delete(record, self._urls(record, replicas), cleaned)
            if proof is not None:
                self._note_deleted(replace(record, deletion=proof), cleaned)
        if cleaned.erasure is not None:
            cleaned.erasure = self._erase_rest(cleaned, cleaned.erasure, before, lock)

    def _counted(self, cleaned: Cleaned) -> dict[str, int]:
        """The number of an erased clinic's objects in each store, before anything is deleted."""
        found: dict[str, int] = {}
        if cleaned.erasure is not None:
            for url in self._every_url():
                try:
                    with self._stores.at(url, cleaned.clinic_id) as store:
                        found[url] = len(keys_of(store, cleaned.clinic_id))
                except ClinicBackupsError as error:
                    cleaned.fail(error)
        return found

    def _every_url(self) -> list[str]:
        """The stores of the settings, and other stores in the catalog, which may hold objects too."""
        known = [identity.store_url for identity in Identities(self._catalog.database).find()]
        return list(dict.fromkeys([*self._stores.urls, *known]))

    def _erase_rest(self, cleaned: Cleaned, erasure: Erasure, before: Mapping[str, int], lock: ClinicLock) -> Erasure:
        records, done = self._catalog.find(clinic_id=cleaned.clinic_id), True
        for url in self._every_url():
            try:
                left = purge_rest(url, self._stores, erasure, records, lock, self._now())
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

    def _urls(self, record: BackupRecord, replicas: Mapping[str, Mapping[str, Condition]]) -> list[str]:
        """The stores that hold it or may hold it: an unrecorded replica of a killed process is deleted as well."""
        return list(dict.fromkeys([*replicas.get(record.backup_id, ()), *self._stores.urls]))

    def _delete(self, record: BackupRecord, urls: list[str], cleaned: Cleaned) -> tuple[dict[str, Any], ...] | None:
        """Delete the archive, the envelope and the hold note in each store. Each may be gone already.

        Returns each store with the time when it confirmed the deletion; none if one did not confirm it.
        """
        gone, proof = True, list[dict[str, Any]]()
        for url in urls:
            try:
                with self._stores.at(url, record.clinic_id) as store:
                    if _is_erased(record, cleaned):
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
        if (until := self._locked_until(record, store)) is not None:
            raise ObjectLocked(
                f"{store.url} keeps {record.backup_id} locked until {iso(until)}.",
                hint="The first retention after that deletes it there.",
            )


def _same(at: datetime) -> datetime:
    return at


def _is_erased(record: BackupRecord, cleaned: Cleaned) -> bool:
    return cleaned.erasure is not None and cleaned.erasure.covers(record)


def _counts(record: BackupRecord, cleaned: Cleaned) -> bool:
    """Whether this backup is kept by a hold note that the catalog did not write."""
    return not (_is_erased(record, cleaned) and cleaned.erasure is not None and cleaned.erasure.ignore_unknown_holds)
