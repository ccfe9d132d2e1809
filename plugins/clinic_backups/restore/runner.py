"""A restore from its request to its record: which backup, the plan, the state before saved, applied, told."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import datetime, timedelta
from functools import partial

from clinic_backups.catalog.records import Catalog
from clinic_backups.catalog.restores import RestoreRecord, Restores, restore_id_of
from clinic_backups.connections import Connection
from clinic_backups.errors import PermanentError, TransientError
from clinic_backups.model import BackupRecord
from clinic_backups.restore.archives import Source
from clinic_backups.restore.model import RestorePlan, RestoreRequest
from clinic_backups.restore.outcome import RestoreOutcomes, transaction_status
from clinic_backups.restore.service import ClinicRestore, Wish


class RestoreRunner:
    """Runs restores whose backups the catalog knows.

    :param restore: what plans and applies.
    :param now: the clock.
    """

    def __init__(
        self, *, restore: ClinicRestore, catalog: Catalog, restore_db: Connection, now: Callable[[], datetime]
    ) -> None:
        self._restore, self._catalog, self._restore_db, self._now = restore, catalog, restore_db, now
        self._restores = Restores(catalog.database)
        self._outcomes = RestoreOutcomes(self._restores, now)

    def choose(self, request: RestoreRequest) -> BackupRecord:
        """See :func:`choose_backup`."""
        return choose_backup(self._catalog, request)

    def plan(self, request: RestoreRequest) -> RestorePlan:
        """What the restore would do; see :meth:`ClinicRestore.plan`."""
        return self._restore.plan(source_of(self.choose(request)), wish_of(request))

    def apply(
        self, request: RestoreRequest, plan: RestorePlan, *, approved_by: str, safety_backup_id: str | None
    ) -> RestoreRecord:
        """Apply what was approved; returns the completed record. A failure is recorded and raised.

        While it lasts no backup and no other restore of the clinic begins.

        :param plan: what was approved: its backup is the one that is restored.
        :raises AlreadyRunning: a backup or restore of the clinic goes on; nothing was recorded.
        :raises ClinicBackupsError: see :meth:`ClinicRestore.apply`.
        """
        chosen = self.choose(RestoreRequest(clinic_id=request.clinic_id, backup_id=plan.backup_id))
        status = partial(transaction_status, self._restore_db)
        with self._catalog.lock(request.clinic_id):
            for dead in self._restores.find(clinic_id=request.clinic_id, state="running"):
                closed = self._outcomes.close_dead(dead, status)
                if closed.state == "completed" and (closed.run_id, closed.plan_digest) == (request.run_id, plan.digest):
                    # An earlier attempt of this very run did it, and died before it could say so.
                    return closed
            started_at = self._now()
            if self._restores.get(restore_id_of(request.clinic_id, started_at)) is not None:
                time.sleep(1)  # one that ended at once has taken this second's name
                started_at = self._now()
            record = self._restores.begin(
                RestoreRecord(
                    restore_id=restore_id_of(request.clinic_id, started_at),
                    clinic_id=request.clinic_id,
                    clinic_name=plan.clinic_name,
                    backup_id=plan.backup_id,
                    mode=plan.mode,
                    plan=plan.to_json(),
                    plan_digest=plan.digest,
                    started_at=started_at,
                    tables=request.tables,
                    requested_by=request.requested_by,
                    approved_by=approved_by,
                    notes=request.notes,
                    run_id=request.run_id,
                    safety_backup_id=safety_backup_id,
                )
            )

            def note(transaction_id: str) -> None:
                nonlocal record
                record = self._restores.note_transaction(record.restore_id, transaction_id, self._now())

            try:
                self._restore.apply(source_of(chosen), wish_of(request), approved=plan.digest, on_commit=note)
            except BaseException as error:
                if record.transaction_id is None:
                    self._outcomes.fail(record, error)
                    raise
                # The answer to the commit was lost: the database knows whether it happened.
                settled = self._outcomes.settle(record, error, status)
                if settled.state == "completed":
                    return settled
                raise
            return self._outcomes.complete(record)


def choose_backup(catalog: Catalog, request: RestoreRequest) -> BackupRecord:
    """The backup that a request means. :raises PermanentError: there is none such, or it is not complete."""
    if request.backup_id is not None:
        found = catalog.get(request.backup_id)
        if found is None or found.clinic_id != request.clinic_id:
            raise PermanentError(
                f"Clinic {request.clinic_id} has no backup {request.backup_id!r}.",
                hint=f"See clinic-backups list --clinic {request.clinic_id}",
            )
        require_completed(found)
        return found
    before = request.as_of + timedelta(microseconds=1) if request.as_of else None
    newest = catalog.find(clinic_id=request.clinic_id, state="completed", data_before=before, limit=1)
    if not newest:
        when = f" at or before {request.as_of.isoformat()}" if request.as_of else ""
        raise PermanentError(
            f"Clinic {request.clinic_id} has no completed backup{when}.",
            hint=f"See clinic-backups list --clinic {request.clinic_id}",
        )
    return newest[0]


def require_completed(record: BackupRecord) -> None:
    """:raises PermanentError: it is no backup that can be restored."""
    if record.state == "completed":
        return
    hint = "Choose a completed one."
    if record.state == "lost":
        hint += " If its archive is back in a store: clinic-backups catalog verify --record"
    raise PermanentError(f"Backup {record.backup_id} is {record.state}, not completed.", hint=hint)


def source_of(record: BackupRecord) -> Source:
    """Where a completed backup lies."""
    return Source(record.backup_id, record.clinic_id, record.archive, record.chain)


def wish_of(request: RestoreRequest) -> Wish:
    """What is wanted of it."""
    return Wish(request.mode, request.tables, request.ignore_dropped)


def close_abandoned(catalog: Catalog, clinic_db: Connection, now: Callable[[], datetime]) -> list[RestoreRecord]:
    """Close running records of restores whose process is gone, so that somebody learns of them.

    :param clinic_db: any role of the clinics' database: it is asked what became of a transaction.
    """
    restores = Restores(catalog.database)
    outcomes, closed = RestoreOutcomes(restores, now), list[RestoreRecord]()
    for record in restores.find(state="running"):
        try:
            with catalog.lock(record.clinic_id):
                # Asked again under the lock: its process may have closed it meanwhile.
                current = restores.get(record.restore_id)
                if current is not None and current.state == "running":
                    closed.append(outcomes.close_dead(current, partial(transaction_status, clinic_db)))
        except TransientError:
            # It goes on, or the database does not know yet: a later run asks again.
            continue
    return closed
