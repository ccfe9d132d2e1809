"""How a backup's record is closed: completed, failed, or found dead. Each is announced in the record's transaction."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import suppress
from datetime import datetime

from sqlalchemy import Connection as SqlConnection

from clinic_backups.base.errors import ClinicBackupsError, Interrupted, ObjectLocked, TransientError
from clinic_backups.base.model import BackupRecord
from clinic_backups.catalog.locks import AlreadyRunning
from clinic_backups.catalog.records import Catalog
from clinic_backups.notify.losses import LossAlarm
from clinic_backups.notify.policy import Announcer, cause_of
from clinic_backups.stores import envelopes
from clinic_backups.stores.base import ObjectStore
from clinic_backups.stores.condition import read_through


class Outcomes:
    """Closes records. Except for :meth:`close_abandoned` the caller holds the clinic's lock.

    :param store: opens the store, only when an envelope has to be looked for.
    :param now: the clock.
    """

    def __init__(
        self, catalog: Catalog, store: Callable[[], ObjectStore], announcer: Announcer, now: Callable[[], datetime]
    ) -> None:
        self._catalog, self._store, self._announcer, self._now = catalog, store, announcer, now

    def complete(self, record: BackupRecord, block_list: Iterable[bytes] = (), etag: str | None = None) -> BackupRecord:
        """Write that it is completed; or lost, where what it is built on was lost meanwhile: the operator is told."""
        return self._catalog.finish(
            record,
            block_list=block_list,
            etag=etag,
            announce=self._announcer.completed,
            announce_losses=LossAlarm(self._now),
        )

    def fail(self, record: BackupRecord, error: BaseException, *, retries_left: bool = False) -> BackupRecord:
        """Write that it failed; told unless it is transient and will be tried again."""

        def announce(db: SqlConnection, failed: BackupRecord) -> None:
            if not (retries_left and isinstance(error, TransientError)):
                self._announcer.failed(db, failed, cause_of(error))

        return self._catalog.finish(record.failed(error, self._now()), announce=announce)

    def note_failure(self, record: BackupRecord, error: BaseException, *, retries_left: bool = False) -> None:
        """:meth:`fail`, where ``error`` is what counts: that the catalog could not be told is a note on it."""
        try:
            self.fail(record, error, retries_left=retries_left)
        except ClinicBackupsError as failure:
            error.add_note(f"The catalog could not be told: {failure.message}")

    def settle(self, record: BackupRecord) -> BackupRecord | None:
        """Complete a running record that the catalog noted before its process died, when its envelope and archive are
        in the store as noted; none if they are not. Whatever else lies there is not believed.

        The record gets no block list: the clinic's next backup is a full one.
        """
        store, noted = self._store(), record.noted
        if noted is None or not envelopes.is_as_noted(record, store):
            return None
        # By its content: whoever may write into a store may set the MD5 that some stores tell.
        if read_through(noted.archive, store) != "intact":
            return None
        return self.complete(record.completed(noted, store.url))

    def close_dead(self, record: BackupRecord) -> BackupRecord:
        """Complete or fail a running record whose process died."""
        settled = self.settle(record)
        if settled is not None:
            return settled
        # What its stores keep locked stays until the lock ends, and goes with the sweep.
        with suppress(ObjectLocked):
            envelopes.discard(record.archive_key, self._store())
        died = Interrupted(
            "The backup's process ended without a word: killed, out of memory, or its machine stopped.",
            hint="See the task's log and the worker's memory. The clinic's next backup does not depend on this one.",
        )
        return self.fail(record, died)

    def close_abandoned(self, *, run_id: str | None = None, before: datetime | None = None) -> list[BackupRecord]:
        """Close running records whose process is gone: those of a run, or those begun before a moment.

        :raises ClinicBackupsError: the first that could not be closed; the others were.
        """
        closed: list[BackupRecord] = []
        failures: list[ClinicBackupsError] = []
        for record in self._catalog.find(state="running", run_id=run_id, started_before=before):
            try:
                with self._catalog.lock(record.clinic_id):
                    # Asked again under the lock: its process may have closed it meanwhile.
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
        """Tell of failed records that were to be tried again, and will not be: their task was stopped for good."""
        for record in records:
            if record.state == "failed":
                with self._catalog.database.transaction("announcing a failure") as db:
                    self._announcer.failed(db, record, "interrupted")
