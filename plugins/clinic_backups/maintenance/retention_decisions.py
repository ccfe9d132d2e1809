"""Decides which of a clinic's backups are deleted, and asks the stores before anything is."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from clinic_backups.archive.chain import chain_of
from clinic_backups.archive.envelope_checks import usable_end
from clinic_backups.base.backup_record import BackupRecord
from clinic_backups.base.errors import ClinicBackupsError, ObjectNotFound
from clinic_backups.base.replica import Condition, Loss, ReplicaProblem
from clinic_backups.base.retention_rules import Decision, last_good, plan
from clinic_backups.base.settings import Settings
from clinic_backups.catalog.records import Catalog
from clinic_backups.catalog.replicas import Replicas
from clinic_backups.catalog.restores import Restores
from clinic_backups.maintenance.retention_result import Cleaned
from clinic_backups.notify.losses import LossAlarm
from clinic_backups.stores import condition as stored
from clinic_backups.stores import envelopes
from clinic_backups.stores.base import ObjectStore
from clinic_backups.stores.configured import AnsweringStores

UNDO_FOR = timedelta(days=7)
"""A restore's safety backup is kept for at least this time."""


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


class Decider:
    """Applies the retention policy, or an erasure, to the records and to the stores' facts about them."""

    def __init__(
        self, *, settings: Settings, catalog: Catalog, stores: AnsweringStores, now: Callable[[], datetime]
    ) -> None:
        self._settings, self._catalog, self._stores, self._now = settings, catalog, stores, now
        self._replicas, self._alarm = Replicas(catalog.database), LossAlarm(now)

    def decide(
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
                self._ask(record, self.urls(record, replicas), cleaned, told)
                if not dry_run:
                    self._note(record, told, cleaned)

    def _end_unknown_holds(self, cleaned: Cleaned) -> None:
        """For an erasure that ignores unknown holds: end those that an earlier run took over from a note."""
        if cleaned.erasure is None or not cleaned.erasure.ignore_unknown_holds:
            return
        for record in self._catalog.find(clinic_id=cleaned.clinic_id):
            if cleaned.erases(record) and envelopes.is_by_note(record):
                self._catalog.release(record, cleaned.erasure.requested_by, self._now())

    def _note(self, record: BackupRecord, told: _Told, cleaned: Cleaned) -> None:
        """Record a store's facts in the catalog. For an erasure, the person who asked decides about unknown notes."""
        if (until := told.locked_until.get(record.backup_id)) is not None:
            self._catalog.note_lock(record, until)
        if (hold := told.held.get(record.backup_id)) is not None and not cleaned.erases(record):
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
        erased = {record.backup_id for record in records if cleaned.erases(record)}
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
                    if (until := self.locked_until(record, store)) is not None:
                        told.locked_until[record.backup_id] = max(until, told.locked_until.get(record.backup_id, until))
                    if _counts(record, cleaned) and (hold := envelopes.unreleased_hold(record, store)):
                        told.held[record.backup_id] = hold
            except ClinicBackupsError as error:
                # A lock that only the record has may be real; only the store knows.
                if not cleaned.erases(record) or record.backup_id in told.claimed:
                    cleaned.fail(error)
                    told.spared[record.backup_id] = f"{url} did not say whether it is locked there"

    def locked_until(self, record: BackupRecord, store: ObjectStore) -> datetime | None:
        """The end of the lock that a store has on a backup's archive; ``None`` if it has none."""
        try:
            until = store.stat(record.archive_key).locked_until
        except ObjectNotFound:
            return None
        now = self._now()
        until = usable_end(until, now)
        return until if until is not None and until > now else None

    def urls(self, record: BackupRecord, replicas: Mapping[str, Mapping[str, Condition]]) -> list[str]:
        """The stores that hold it or may hold it: an unrecorded replica of a killed process is deleted as well."""
        return list(dict.fromkeys([*replicas.get(record.backup_id, ()), *self._stores.urls]))


def _counts(record: BackupRecord, cleaned: Cleaned) -> bool:
    """Whether this backup is kept by a hold note that the catalog did not write."""
    return not (cleaned.erases(record) and cleaned.erasure is not None and cleaned.erasure.ignore_unknown_holds)
