"""One attempt to apply an approved plan: make the safety backup, apply the plan, close the record."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime

from sqlalchemy import Connection as SqlConnection

from clinic_backups.base.backup_record import BackupRecord
from clinic_backups.base.clinic import Clinic
from clinic_backups.base.errors import ClinicBackupsError, TransientError
from clinic_backups.catalog.approvals import Approval, Approvals, use
from clinic_backups.catalog.locks import ClinicLock
from clinic_backups.catalog.restores import RestoreRecord, Restores
from clinic_backups.restore.clinic_restore import ClinicRestore
from clinic_backups.restore.comparison import Present
from clinic_backups.restore.find_backup import source_of
from clinic_backups.restore.hooks import AfterHookFailed
from clinic_backups.restore.plan import RestorePlan
from clinic_backups.restore.request import RestoreRequest
from clinic_backups.restore.restore_outcomes import RestoreOutcomes, TransactionStatus
from clinic_backups.restore.safety import SafetyBackup


@dataclass(frozen=True)
class Tools:
    """What an attempt works with.

    :param restore: applies plans.
    :param safety: backs up the present state before the first row is written.
    :param status_of: asks the database whether a record's transaction was committed.
    :param now: the clock.
    """

    restore: ClinicRestore
    safety: SafetyBackup
    approvals: Approvals
    restores: Restores
    outcomes: RestoreOutcomes
    status_of: Callable[[RestoreRecord], TransactionStatus]
    now: Callable[[], datetime]


class Attempt:
    """One attempt to apply a plan, with its record. The caller holds the clinic's lock."""

    def __init__(
        self,
        tools: Tools,
        approved: Approval,
        request: RestoreRequest,
        plan: RestorePlan,
        lock: ClinicLock,
        record: RestoreRecord,
    ) -> None:
        self._tools, self._approved, self._request, self._plan = tools, approved, request, plan
        self._lock, self._record = lock, record

    def run(self, chosen: BackupRecord) -> RestoreRecord:
        tools = self._tools
        try:
            applied = tools.restore.apply(
                source_of(chosen),
                self._request,
                approved=self._approved.plan_digest,
                plan=self._plan,
                save=self._save,
                on_commit=self._note,
            )
            # In the mode live this may be less than what was approved.
            self._record = replace(self._record, plan=applied.to_json())
            if self._record.transaction_id is None:
                # Nothing had to be written. The approval is used nevertheless, because it is valid only once.
                tools.restores.also(self._record.restore_id, self._use)
        except BaseException as error:
            self._see_note(error)
            if self._record.transaction_id is None:
                self._fail(error)
                raise
            if isinstance(error, AfterHookFailed):
                tools.outcomes.complete(self._record, but=error)
                raise
            # The answer to the commit was lost. The database knows whether it was done.
            settled = tools.outcomes.settle(self._record, error, tools.status_of(self._record))
            if settled.state == "completed":
                return settled
            if isinstance(error, TransientError):
                raise TransientError(settled.error or error.message, hint=settled.hint or "") from None
            raise
        return tools.outcomes.complete(self._record)

    def _see_note(self, error: BaseException) -> None:
        """Read the record again, because the catalog may have the transaction's note although its answer was lost."""
        if self._record.transaction_id is not None:
            return
        try:
            noted = self._tools.restores.get(self._record.restore_id)
        except ClinicBackupsError as failure:
            error.add_note(f"The catalog did not answer: {failure.message}")
            return
        if noted is not None and noted.state == "running" and noted.transaction_id is not None:
            self._record = replace(self._record, transaction_id=noted.transaction_id, committing_at=noted.committing_at)

    def _fail(self, error: BaseException) -> None:
        """Record the failure. If the catalog fails too, that becomes a note on ``error``."""
        try:
            self._tools.outcomes.fail(self._record, error)
        except ClinicBackupsError as failure:
            error.add_note(f"This could not be recorded in the catalog: {failure.message}")

    def _save(self, present: Present) -> None:
        """Back up the present state, unless the approval was withdrawn while the archive was read."""
        tools = self._tools
        tools.approvals.usable(self._approved.id)
        saved = tools.safety.take(
            Clinic(self._plan.clinic_id, self._plan.clinic_name),
            present,
            of=self._plan.backup_id,
            tables=self._request.tables,
            requested_by=self._request.requested_by,
            lock=self._lock,
        )
        if saved is not None:
            self._record = tools.restores.note_safety_backup(
                self._record.restore_id, saved.backup_id, instead_of=self._record.safety_backup_id
            )

    def _note(self, transaction_id: str) -> None:
        """Note the committing transaction and use the approval: both or neither."""
        self._lock.require()
        restores, at = self._tools.restores, self._tools.now()
        self._record = restores.note_transaction(self._record.restore_id, transaction_id, at, also=self._use)

    def _use(self, db: SqlConnection) -> None:
        use(db, self._approved, self._plan.digest, self._record.restore_id)
