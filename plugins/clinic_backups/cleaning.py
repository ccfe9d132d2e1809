"""Deletes what retention lets go, so that a crash at any point leaves nothing that the next run cannot finish."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Set
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from clinic_backups import envelopes, stored
from clinic_backups.catalog.copies import Copies, CopyState
from clinic_backups.catalog.erasures import Erasure, Erasures
from clinic_backups.catalog.locks import AlreadyRunning
from clinic_backups.catalog.records import Catalog
from clinic_backups.catalog.restores import Restores
from clinic_backups.chain import chain_of
from clinic_backups.errors import (
    ClinicBackupsError,
    ObjectNotFound,
    PermanentError,
    SettingsError,
    TransientError,
)
from clinic_backups.model import BackupRecord, CopyProblem, Loss, envelope_key_of, hold_key_of, parse_key
from clinic_backups.notify.losses import LossAlarm
from clinic_backups.retention import Decision, plan
from clinic_backups.settings import Settings
from clinic_backups.storage import Stores
from clinic_backups.stores.base import ObjectStore

UNDO_FOR = timedelta(days=7)
"""A restore's safety backup is kept at least so long."""


@dataclass
class Cleaned:
    """What became of one clinic's backups.

    :param busy: the problem is that the clinic is being worked at.
    :param losses: what should have been there, and is not.
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
        """Keep the first problem."""
        if not self.problem:
            self.busy = isinstance(error, AlreadyRunning)
            self.problem = error.message
            self.hint = "The next run cleans this clinic." if self.busy else error.hint


class Cleaner:
    """Applies the retention policy, and erasures, clinic by clinic.

    :param now: the clock.
    """

    def __init__(self, *, settings: Settings, catalog: Catalog, stores: Stores, now: Callable[[], datetime]) -> None:
        self._settings, self._catalog, self._stores, self._now = settings, catalog, stores, now
        self._places, self._erasures = Copies(catalog.database), Erasures(catalog.database)
        self._down: dict[str, ClinicBackupsError] = {}
        self._alarm = LossAlarm(now)

    def run(self, *, clinic_id: int | None = None, dry_run: bool = False) -> Iterator[Cleaned]:
        """Clean one clinic or all that have backups, active or not.

        A clinic that is being backed up, restored or copied is tried once more at the end, and else left for the next
        run; what a store refuses stays in the catalog and is reported. Neither keeps other clinics from theirs.

        :param dry_run: nothing is changed, neither in the stores nor in the catalog.
        """
        busy: list[int] = []
        for number in self._catalog.clinic_ids() if clinic_id is None else [clinic_id]:
            cleaned = self._cleaned(number, dry_run=dry_run)
            if cleaned.busy:
                busy.append(number)
            else:
                yield cleaned
        for number in busy:
            yield self._cleaned(number, dry_run=dry_run)

    def _cleaned(self, clinic_id: int, *, dry_run: bool) -> Cleaned:
        cleaned = Cleaned(clinic_id)
        try:
            with self._catalog.lock(clinic_id, "clinic", "copies"):
                cleaned.erasure = self._erasures.open_of(clinic_id)
                cleaned.decisions = self._decide(cleaned, dry_run=dry_run)
                if not dry_run:
                    self._clean(cleaned)
        except ClinicBackupsError as error:
            cleaned.fail(error)
        return cleaned

    def forget_old(self) -> int:
        """Remove records of failed and deleted backups after their term; returns how many."""
        return self._catalog.forget(before=self._now() - timedelta(days=self._settings.keep_failed_days))

    def _decide(self, cleaned: Cleaned, *, dry_run: bool) -> list[Decision]:
        """The plan, made again when the backup that is to be the last good one turns out to be lost."""
        gone: set[str] = set()
        while True:
            decisions = self._plan(cleaned, gone)
            if all(decision.keep for decision in decisions):
                return decisions
            missing = self._missing(cleaned, decisions, dry_run=dry_run)
            if not missing:
                return decisions
            gone |= missing

    def _plan(self, cleaned: Cleaned, gone: Set[str]) -> list[Decision]:
        now, clinic_id = self._now(), cleaned.clinic_id
        undoing = {
            record.safety_backup_id: record.restore_id
            for record in Restores(self._catalog.database).find(clinic_id=clinic_id)
            if record.safety_backup_id is not None and now - record.started_at < UNDO_FOR
        }
        return plan(
            [
                replace(record, state="lost") if record.backup_id in gone else record
                for record in self._catalog.find(clinic_id=clinic_id)
            ],
            self._settings.retention_of(clinic_id),
            now,
            zone=self._settings.zone,
            undoing=undoing,
            erased_at=cleaned.erasure.requested_at if cleaned.erasure else None,
        )

    def _missing(self, cleaned: Cleaned, decisions: list[Decision], *, dry_run: bool) -> set[str]:
        """Ask the stores, before anything older is deleted, whether the last good backup is there with all that it is
        built on; returns what is not. That is recorded, and then the plan is another one."""
        last = next((each.backup for each in decisions if each.keep and each.backup.state == "completed"), None)
        if last is None:
            return set()
        known = {each.backup.backup_id: each.backup for each in decisions}
        chain = chain_of(last, known) or (last,)
        return {record.backup_id for record in chain if not self._is_there(record, cleaned, dry_run=dry_run)}

    def _is_there(self, record: BackupRecord, cleaned: Cleaned, *, dry_run: bool) -> bool:
        """Whether some store has it; else all of them are recorded to have lost it."""
        problems: dict[str, CopyProblem] = {}
        for url in record.stores:
            store = self._open(url)
            with self._blaming(url):
                condition = stored.look(record.archive, store)
                if condition == "intact" and envelopes.exists(record.archive_key, store):
                    return True
                stored.require_any(store, self._catalog.archive_keys)
            problems[url] = "damaged" if condition == "damaged" else "missing"
        for url, problem in problems.items():
            if dry_run:
                cleaned.losses.append(Loss.of(record, url, problem))
            else:
                cleaned.losses += self._places.lose(record, url, problem, self._now(), self._alarm)
        return False

    def _open(self, url: str) -> ObjectStore:
        if url in self._down:
            raise self._down[url]
        with self._blaming(url):
            return self._stores.at(url)

    @contextmanager
    def _blaming(self, url: str) -> Iterator[None]:
        """A store that does not answer is not asked again for each clinic."""
        try:
            yield
        except (TransientError, SettingsError) as error:
            self._down[url] = error
            raise

    def _clean(self, cleaned: Cleaned) -> None:
        # First what an earlier run began: marked, and maybe half gone.
        going = self._catalog.find(clinic_id=cleaned.clinic_id, state="deleting")
        places = self._places.of_clinic(cleaned.clinic_id)
        for number, decision in enumerate(cleaned.decisions):
            if decision.keep:
                continue
            if until := self._locked_until(decision.backup, places):
                # By the bucket's own rule: while it lasts this is a backup like any other.
                self._catalog.note_lock(decision.backup, until)
                cleaned.decisions[number] = replace(decision, keep=True, reason=f"its store locks it until {until}")
            else:
                going.append(self._catalog.mark_deleting(decision.backup))
        for record in going:
            if self._delete(record, places, cleaned):
                self._catalog.mark_deleted(replace(record, state="deleted", deleted_at=self._now()))
                cleaned.deleted += 1
                if cleaned.erasure:
                    self._erasures.count(cleaned.erasure, record)
        if cleaned.erasure and self._purge_rest(cleaned, cleaned.erasure):
            cleaned.erasure = self._erasures.settle(cleaned.erasure, self._now())

    def _urls(self, record: BackupRecord, places: Mapping[str, Mapping[str, CopyState]]) -> list[str]:
        """Where it lies or may lie: a copy that died before it was recorded is deleted as well."""
        return list(dict.fromkeys([*places.get(record.backup_id, ()), *self._stores.urls]))

    def _locked_until(self, record: BackupRecord, places: Mapping[str, Mapping[str, CopyState]]) -> datetime | None:
        """The last end of a lock that a store tells and that the catalog does not know."""
        ends: list[datetime] = []
        for url in self._urls(record, places):
            # One that does not answer will be asked to delete, and then its lock counts.
            with suppress(ObjectNotFound, TransientError, SettingsError):
                store = self._open(url)
                with self._blaming(url):
                    info = store.stat(record.archive_key)
                if info.locked_until is not None and info.locked_until > self._now():
                    ends.append(info.locked_until)
        return max(ends, default=None)

    def _delete(self, record: BackupRecord, places: Mapping[str, Mapping[str, CopyState]], cleaned: Cleaned) -> bool:
        """In each store archive, then envelope, then the note of a hold: each may be gone already."""
        gone = True
        for url in self._urls(record, places):
            try:
                store = self._open(url)
                remove = store.purge if cleaned.erasure else store.delete
                with self._blaming(url):
                    for key in _keys(record.archive_key):
                        remove(key)
            except ClinicBackupsError as error:
                cleaned.fail(error)
                gone = False
        return gone

    def _purge_rest(self, cleaned: Cleaned, erasure: Erasure) -> bool:
        """Of a clinic that is erased: what no record knows, and older versions of what was deleted before."""
        records = self._catalog.find(clinic_id=cleaned.clinic_id)
        kept = {record.archive_key for record in records if record.state not in ("deleted", "failed")}
        known = {record.archive_key for record in records}
        try:
            for url in self._stores.urls:
                store = self._open(url)
                with self._blaming(url):
                    self._purge_store(store, cleaned.clinic_id, kept, known)
        except ClinicBackupsError as error:
            cleaned.fail(error)
            return False
        return True

    def _purge_store(self, store: ObjectStore, clinic_id: int, kept: Set[str], known: Set[str]) -> None:
        prefix = f"backups/{clinic_id}/"
        there = stored.by_archive(store.list(prefix))
        unknown = [key for key, objects in there.items() if stored.is_whole(objects) and key not in known]
        if unknown:
            # Perhaps on hold: only a catalog that knows them can say so.
            raise PermanentError(
                f"{store.url} has {len(unknown)} backups of clinic {clinic_id} that the catalog does not know.",
                hint="Run `clinic-backups catalog rebuild`, look at them, and then erase the clinic again.",
            )
        gone = {parts.archive_key for key in store.all_keys(prefix) if (parts := parse_key(key))} - kept
        for key in sorted(gone):
            for beside in _keys(key):
                store.purge(beside)
        for upload in list(store.unfinished(prefix)):
            store.abort(upload)


def _keys(archive_key: str) -> tuple[str, ...]:
    """All objects of one backup, in the order in which they are deleted."""
    return archive_key, envelope_key_of(archive_key), hold_key_of(archive_key)
