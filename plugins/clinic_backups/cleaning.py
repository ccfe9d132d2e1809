"""Deletes what retention lets go, so that a crash at any point leaves nothing that the next run cannot finish."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from clinic_backups.catalog.records import AlreadyRunning, Catalog
from clinic_backups.catalog.restores import Restores
from clinic_backups.errors import ClinicBackupsError
from clinic_backups.model import BackupRecord, envelope_key_of
from clinic_backups.retention import Decision, plan
from clinic_backups.settings import Settings
from clinic_backups.stores.base import ObjectStore

UNDO_FOR = timedelta(days=7)
"""A restore's safety backup is kept at least so long."""


@dataclass
class Cleaned:
    """What became of one clinic's backups."""

    clinic_id: int
    decisions: list[Decision] = field(default_factory=list)
    deleted: int = 0
    problem: str = ""
    hint: str = ""

    @property
    def kept(self) -> int:
        return sum(decision.keep for decision in self.decisions)


class Cleaner:
    """Applies the retention policy, clinic by clinic.

    :param now: the clock.
    """

    def __init__(
        self, *, settings: Settings, catalog: Catalog, store: ObjectStore, now: Callable[[], datetime]
    ) -> None:
        self._settings, self._catalog, self._store, self._now = settings, catalog, store, now

    def run(self, *, clinic_id: int | None = None, dry_run: bool = False) -> Iterator[Cleaned]:
        """Clean one clinic or all that have backups, active or not.

        A clinic that is being backed up or restored is left for the next run; what the store refuses stays in the
        catalog and is reported. Neither keeps other clinics from theirs.
        """
        for number in self._catalog.clinic_ids() if clinic_id is None else [clinic_id]:
            cleaned = Cleaned(number)
            try:
                with self._catalog.lock(number):
                    cleaned.decisions = self._decide(number)
                    if not dry_run:
                        self._clean(cleaned)
            except ClinicBackupsError as error:
                cleaned.problem = error.message
                cleaned.hint = "The next run cleans this clinic." if isinstance(error, AlreadyRunning) else error.hint
            yield cleaned

    def forget_old(self) -> int:
        """Remove records of failed and deleted backups after their term; returns how many."""
        return self._catalog.forget(before=self._now() - timedelta(days=self._settings.keep_failed_days))

    def _decide(self, clinic_id: int) -> list[Decision]:
        now = self._now()
        undoing = {
            record.safety_backup_id: record.restore_id
            for record in Restores(self._catalog.database).find(clinic_id=clinic_id)
            if record.safety_backup_id is not None and now - record.started_at < UNDO_FOR
        }
        return plan(
            self._catalog.find(clinic_id=clinic_id, state="completed"),
            self._settings.retention_of(clinic_id),
            now,
            zone=self._settings.zone,
            undoing=undoing,
        )

    def _clean(self, cleaned: Cleaned) -> None:
        # First what an earlier run began: marked, and maybe half gone.
        going = self._catalog.find(clinic_id=cleaned.clinic_id, state="deleting")
        going += [self._catalog.mark_deleting(decision.backup) for decision in cleaned.decisions if not decision.keep]
        for record in going:
            self._delete(record)
            cleaned.deleted += 1

    def _delete(self, record: BackupRecord) -> None:
        """Archive, then envelope, then record: each may be gone already."""
        self._store.delete(record.archive_key)
        self._store.delete(envelope_key_of(record.archive_key))
        self._catalog.mark_deleted(replace(record, state="deleted", deleted_at=self._now()))
