"""Deletes what retention lets go, so that a crash at any point leaves nothing that the next run cannot finish."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from clinic_backups import envelopes, stored
from clinic_backups.catalog.copies import Copies, CopyState
from clinic_backups.catalog.erasures import Erasure, Erasures
from clinic_backups.catalog.locks import AlreadyRunning
from clinic_backups.catalog.records import Catalog
from clinic_backups.catalog.restores import Restores
from clinic_backups.chain import chain_of
from clinic_backups.errors import ClinicBackupsError, ObjectLocked
from clinic_backups.model import BackupRecord, Loss, envelope_key_of, hold_key_of, parse_key
from clinic_backups.retention import Decision, plan
from clinic_backups.settings import Settings
from clinic_backups.storage import Stores

UNDO_FOR = timedelta(days=7)
"""A restore's safety backup is kept at least so long."""


@dataclass
class Cleaned:
    """What became of one clinic's backups. ``losses``: what should have been there, and is not."""

    clinic_id: int
    decisions: list[Decision] = field(default_factory=list)
    deleted: int = 0
    problem: str = ""
    hint: str = ""
    losses: list[Loss] = field(default_factory=list)
    erasure: Erasure | None = None

    @property
    def kept(self) -> int:
        return sum(decision.keep for decision in self.decisions)

    def fail(self, error: ClinicBackupsError) -> None:
        """Keep the first problem."""
        if not self.problem:
            self.problem = error.message
            self.hint = "The next run cleans this clinic." if isinstance(error, AlreadyRunning) else error.hint


class Cleaner:
    """Applies the retention policy, and erasures, clinic by clinic.

    :param now: the clock.
    """

    def __init__(self, *, settings: Settings, catalog: Catalog, stores: Stores, now: Callable[[], datetime]) -> None:
        self._settings, self._catalog, self._stores, self._now = settings, catalog, stores, now
        self._places, self._erasures = Copies(catalog.database), Erasures(catalog.database)
        self._down: dict[str, ClinicBackupsError] = {}

    def run(self, *, clinic_id: int | None = None, dry_run: bool = False) -> Iterator[Cleaned]:
        """Clean one clinic or all that have backups, active or not.

        A clinic that is being backed up, restored or copied is left for the next run; what a store refuses stays in
        the catalog and is reported. Neither keeps other clinics from theirs.
        """
        for number in self._catalog.clinic_ids() if clinic_id is None else [clinic_id]:
            cleaned = Cleaned(number)
            try:
                with self._catalog.lock(number, "clinic", "copies"):
                    cleaned.erasure = self._erasures.open_of(number)
                    cleaned.decisions = self._decide(cleaned)
                    if not dry_run:
                        self._clean(cleaned)
            except ClinicBackupsError as error:
                cleaned.fail(error)
            yield cleaned

    def forget_old(self) -> int:
        """Remove records of failed and deleted backups after their term; returns how many."""
        return self._catalog.forget(before=self._now() - timedelta(days=self._settings.keep_failed_days))

    def _decide(self, cleaned: Cleaned) -> list[Decision]:
        """The plan, made again when the backup that is to be the last good one turns out to be lost."""
        while True:
            decisions = self._plan(cleaned)
            if all(decision.keep for decision in decisions) or self._last_good_is_there(cleaned, decisions):
                return decisions

    def _plan(self, cleaned: Cleaned) -> list[Decision]:
        now, clinic_id = self._now(), cleaned.clinic_id
        undoing = {
            record.safety_backup_id: record.restore_id
            for record in Restores(self._catalog.database).find(clinic_id=clinic_id)
            if record.safety_backup_id is not None and now - record.started_at < UNDO_FOR
        }
        return plan(
            self._catalog.find(clinic_id=clinic_id, state="completed")
            + self._catalog.find(clinic_id=clinic_id, state="lost"),
            self._settings.retention_of(clinic_id),
            now,
            zone=self._settings.zone,
            undoing=undoing,
            erased_at=cleaned.erasure.requested_at if cleaned.erasure else None,
        )

    def _last_good_is_there(self, cleaned: Cleaned, decisions: list[Decision]) -> bool:
        """Ask the stores before anything older is deleted. What is gone is recorded; then the plan is another one."""
        last = next((each.backup for each in decisions if each.keep and each.backup.state == "completed"), None)
        if last is None or not last.stores:
            return True
        known = {each.backup.backup_id: each.backup for each in decisions}
        chain = chain_of(last, known) or (last,)
        there = [self._is_there(record, cleaned) for record in chain]  # all of them are asked
        return all(there)

    def _is_there(self, record: BackupRecord, cleaned: Cleaned) -> bool:
        """Whether some store has it; else all of them are recorded to have lost it."""
        lost: list[Loss] = []
        for url in record.stores:
            store = self._stores.at(url)
            condition = stored.look(record.archive, store)
            if condition == "intact" and envelopes.exists(record.archive_key, store):
                return True
            lost.append(Loss.of(record, url, "damaged" if condition == "damaged" else "missing"))
        for loss in lost:
            state: CopyState = "damaged" if loss.problem == "damaged" else "lost"
            cleaned.losses += [loss, *self._places.mark(record.backup_id, loss.store_url, state, self._now())]
        return not lost

    def _clean(self, cleaned: Cleaned) -> None:
        # First what an earlier run began: marked, and maybe half gone.
        going = self._catalog.find(clinic_id=cleaned.clinic_id, state="deleting")
        going += [self._catalog.mark_deleting(decision.backup) for decision in cleaned.decisions if not decision.keep]
        places = self._places.of_clinic(cleaned.clinic_id) if going else {}
        for record in going:
            if self._delete(record, list(places.get(record.backup_id, {})), cleaned):
                self._catalog.mark_deleted(replace(record, state="deleted", deleted_at=self._now()))
                cleaned.deleted += 1
                if cleaned.erasure:
                    self._erasures.count(cleaned.erasure, record)
        if cleaned.erasure and self._purge_rest(cleaned, cleaned.erasure):
            cleaned.erasure = self._erasures.settle(cleaned.erasure, self._now())

    def _purge_rest(self, cleaned: Cleaned, erasure: Erasure) -> bool:
        """Of a clinic that is erased: what no record knows, and older versions of what was deleted before."""
        records = self._catalog.find(clinic_id=cleaned.clinic_id)
        kept = {record.archive_key for record in records if record.state not in ("deleted", "failed")}
        gone = {record.archive_key for record in records if record.started_at <= erasure.requested_at} - kept
        prefix = f"backups/{cleaned.clinic_id}/"
        try:
            for store in self._stores:
                for info in list(store.list(prefix)):
                    parts = parse_key(info.key)
                    if parts is not None and parts.archive_key not in kept:
                        gone.add(parts.archive_key)
                for key in sorted(gone):
                    for beside in (key, envelope_key_of(key), hold_key_of(key)):
                        store.purge(beside)
                for upload in list(store.unfinished(prefix)):
                    store.abort(upload)
        except ClinicBackupsError as error:
            cleaned.fail(error)
            return False
        return True

    def _delete(self, record: BackupRecord, urls: list[str], cleaned: Cleaned) -> bool:
        """In each store archive, then envelope, then the note of a hold: each may be gone already."""
        gone = True
        for url in urls or self._stores.urls[:1]:
            try:
                if url in self._down:
                    raise self._down[url]
                store = self._stores.at(url)
                remove = store.purge if cleaned.erasure else store.delete
                for key in (record.archive_key, envelope_key_of(record.archive_key), hold_key_of(record.archive_key)):
                    remove(key)
            except ClinicBackupsError as error:
                if not isinstance(error, ObjectLocked):
                    self._down[url] = error
                cleaned.fail(error)
                gone = False
        return gone
