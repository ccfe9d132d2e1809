"""Closes backups' records: completed, failed, or with a dead process. Notices are written in the same transaction."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import suppress
from datetime import datetime

from sqlalchemy import Connection as SqlConnection

from clinic_backups.base.backup_record import BackupRecord
from clinic_backups.base.errors import ClinicBackupsError, Interrupted, ObjectLocked, TransientError
from clinic_backups.catalog.locks import AlreadyRunning
from clinic_backups.catalog.records import Catalog
from clinic_backups.notify.backup_mails import Announcer, cause_of
from clinic_backups.notify.losses import LossAlarm
from clinic_backups.stores import envelopes
from clinic_backups.stores.base import ObjectStore
from clinic_backups.stores.condition import read_through


class Outcomes:
    """Closes records. Except for :meth:`close_abandoned` the caller holds the clinic's lock.

    :param store: opens the store. It is called only if an envelope has to be looked up.
    :param now: the clock.
    """

    def __init__(
        self, catalog: Catalog, store: Callable[[], ObjectStore], announcer: Announcer, now: Callable[[], datetime]
    ) -> None:
        self._catalog, self._store, self._announcer, self._now = catalog, store, announcer, now

    def complete(self, record: BackupRecord, block_list: Iterable[bytes] = (), etag: str | None = None) -> BackupRecord:
        """Record that it is completed. If its chain was lost meanwhile, record it as lost and tell the operator."""
        return self._catalog.finish(
            record,
            block_list=block_list,
            etag=etag,
            announce=self._announcer.completed,
            announce_losses=LossAlarm(self._now),
        )

    def fail(self, record: BackupRecord, error: BaseException, *, retries_left: bool = False) -> BackupRecord:
        """Record that it failed. A notice is written unless the failure is transient and will be retried."""

        def announce(db: SqlConnection, failed: BackupRecord) -> None:
            if not (retries_left and isinstance(error, TransientError)):
                self._announcer.failed(db, failed, cause_of(error))

        return self._catalog.finish(record.failed(error, self._now()), announce=announce)

    def note_failure(self, record: BackupRecord, error: BaseException, *, retries_left: bool = False) -> None:
        """As :meth:`fail`, but if the catalog fails too, that becomes a note on ``error``."""
        try:
            self.fail(record, error, retries_left=retries_left)
        except ClinicBackupsError as failure:
            error.add_note(f"This could not be recorded in the catalog: {failure.message}")

    def settle(self, record: BackupRecord) -> BackupRecord | None:
        """Complete the running record of a dead process, if the store's envelope and archive equal its note.

        Returns the completed record; none if they do not. The record gets no block list, so the clinic's next backup is
        a full one.
        """
        store, noted = self._store(), record.noted
        if noted is None or not envelopes.is_as_noted(record, store):
            return None
        # Compared by content, because in some stores a writer can set the MD5.
        if read_through(noted.archive, store) != "intact":
            return None
        return self.complete(record.completed(noted, store.url))

    def close_dead(self, record: BackupRecord) -> BackupRecord:
        """Complete or fail a running record whose process died."""
        settled = self.settle(record)
        if settled is not None:
            return settled
        # Locked objects stay until their lock ends. Then the sweep removes them.
        with suppress(ObjectLocked):
            envelopes.discard(record.archive_key, self._store())
        died = Interrupted(
            "The backup's process ended without a result: it was killed, ran out of memory, or its machine stopped.",
            hint="See the task's log and the worker's memory. The clinic's next backup does not depend on this one.",
        )
        return self.fail(record, died)

    def close_abandoned(self, *, run_id: str | None = None, before: datetime | None = None) -> list[BackupRecord]:
        """Close running records of dead processes: those of a run, or those begun before a moment.

        :raises ClinicBackupsError: the first error. The other records were closed.
        """
        closed: list[BackupRecord] = []
        failures: list[ClinicBackupsError] = []
        for record in self._catalog.find(state="running", run_id=run_id, started_before=before):
            try:
                with self._catalog.lock(record.clinic_id):
                    # Read again under the lock, because its process may have closed it meanwhile.
                    current = self._catalog.get(record.backup_id)
                    if current is not None and current.state == "running":
                        closed.append(self.close_dead(current))
            except AlreadyRunning:
                continue
            except ClinicBackupsError as error:
                failures.append(error)
        if failures:
            raise failures[0]
        return closed

    def announce_failures(self, records: list[BackupRecord]) -> None:
        """Write the notices of failed records that will not be retried after all, because their task was stopped."""
        for record in records:
            if record.state == "failed":
                with self._catalog.database.transaction("announcing a failure") as db:
                    self._announcer.failed(db, record, "interrupted")
