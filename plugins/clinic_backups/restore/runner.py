"""A restore from its request to its record: which backup, the plan, approved, the state before saved, applied, told."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import datetime, timedelta

from sqlalchemy import Connection as SqlConnection

from clinic_backups.archive.bounds import bound_of
from clinic_backups.base.connections import Connection
from clinic_backups.base.errors import ClinicBackupsError, PermanentError, TransientError
from clinic_backups.base.model import BackupRecord, Clinic, iso
from clinic_backups.catalog.approvals import AGAIN, Approval, Approvals, NotApproved, Proposal, use
from clinic_backups.catalog.locks import ClinicLock
from clinic_backups.catalog.records import Catalog
from clinic_backups.catalog.restores import RestoreRecord, Restores, restore_id_of
from clinic_backups.restore.archives import Source
from clinic_backups.restore.comparison import Present
from clinic_backups.restore.model import RestorePlan, RestoreRequest
from clinic_backups.restore.outcome import RestoreOutcomes, TransactionStatus, status_in
from clinic_backups.restore.safety import SafetyBackup
from clinic_backups.restore.service import ClinicRestore, Wish
from clinic_backups.restore.target import OtherDatabase, ask
from clinic_backups.restore.text import as_markdown
from clinic_backups.tenant.tenant_db import Snapshot


class RestoreRunner:
    """Runs restores whose backups the catalog knows.

    :param restore: what plans and applies.
    :param safety: saves the present state before the first row is written.
    :param now: the clock.
    """

    def __init__(
        self,
        *,
        restore: ClinicRestore,
        catalog: Catalog,
        restore_db: Connection,
        safety: SafetyBackup,
        approvals: Approvals,
        now: Callable[[], datetime],
    ) -> None:
        self._restore, self._catalog, self._restore_db, self._now = restore, catalog, restore_db, now
        self._safety, self._approvals = safety, approvals
        self._restores = Restores(catalog.database)
        self._outcomes = RestoreOutcomes(self._restores, now)

    def choose(self, request: RestoreRequest) -> BackupRecord:
        """See :func:`choose_backup`."""
        return choose_backup(self._catalog, request, self._now())

    def plan(self, request: RestoreRequest) -> RestorePlan:
        """What the restore would do; see :meth:`ClinicRestore.plan`."""
        chosen = self.choose(request)
        meant = self._meant(request, chosen.backup_id)
        notes = _notes(chosen)
        if meant.tables != request.tables:
            notes += (
                f"It was made before a restore of {', '.join(meant.tables)}: only that is taken back. To restore other"
                " tables of it, name them.",
            )
        plan = self._restore.plan(source_of(chosen), wish_of(meant))
        if not plan.writes and not plan.refusals:
            notes += tuple(self._others(chosen))
        return replace(plan, notes=notes)

    def _others(self, chosen: BackupRecord) -> Iterator[str]:
        """An emptied clinic, backed up since, differs in nothing from its newest backup: older ones may hold it."""
        known = self._catalog.find(
            clinic_id=chosen.clinic_id, state="completed", data_before=chosen.data_time, safety_copies=False
        )
        others = [record for record in known if record.fingerprint != chosen.fingerprint]
        if others:
            shown = ", ".join(
                f"{record.backup_id} of {iso(record.data_time.replace(microsecond=0))} ({record.rows_total:,} rows)"
                for record in others[:3]
            )
            more = f", and {len(others) - 3} more" if len(others) > 3 else ""
            yield f"Older backups hold other rows than this one ({chosen.rows_total:,} rows): {shown}{more}."

    def propose(self, request: RestoreRequest, plan: RestorePlan) -> Approval:
        """Record a plan without refusals as one that somebody is to approve, with the page that they are shown."""
        return self._approvals.propose(
            Proposal(
                clinic_id=plan.clinic_id,
                backup_id=plan.backup_id,
                plan_digest=plan.digest,
                target=plan.target.name if plan.target else "not known",
                requested_by=request.requested_by,
                request=self._meant(request, plan.backup_id).to_json(),
                plan=plan.to_json(),
                page=as_markdown(plan, requested_by=request.requested_by, notes=request.notes),
                run_id=request.run_id,
            )
        )

    def _meant(self, request: RestoreRequest, backup_id: str) -> RestoreRequest:
        """With the tables of the restore that a copy was made before, unless somebody names some: to undo that."""
        if request.tables:
            return request
        undone = self._restores.find(clinic_id=request.clinic_id, safety_backup_id=backup_id, limit=1)
        return replace(request, tables=undone[0].tables) if undone else request

    def apply(self, approved: Approval) -> RestoreRecord:
        """Apply what was approved, once; returns the completed record. A failure is recorded and raised.

        While it lasts no backup and no other restore of the clinic begins. The present state is backed up in between,
        from the database that is written to and as the plan saw it.

        :param approved: as the catalog has it: its backup is the one that is restored.
        :raises AlreadyRunning: a backup or restore of the clinic goes on; nothing was recorded.
        :raises NotApproved: nobody has approved this plan, or it is of another database, was used, or is too old.
        :raises ClinicBackupsError: see :meth:`ClinicRestore.apply` and :meth:`SafetyBackup.take`.
        """
        with self._catalog.lock(approved.clinic_id) as lock:
            for dead in self._restores.find(clinic_id=approved.clinic_id, state="running"):
                closed = self._outcomes.close_dead(dead, self._status_of(dead))
                if closed.state == "completed" and self._is_used_by(approved, closed):
                    # An earlier attempt did this very plan, and died before it could say so.
                    return closed
            # Before anything is done, so that nothing is done for nothing. It is used where it counts: with the note
            # of the transaction that commits.
            approved = self._approvals.usable(approved.id)
            plan = _plan_of(approved)
            self._require_target(approved, plan)
            named = RestoreRequest(clinic_id=approved.clinic_id, backup_id=approved.backup_id)
            chosen = choose_backup(self._catalog, named, self._now())
            request = RestoreRequest.from_json(approved.request)
            return _Attempt(self, approved, request, plan, lock, self._begin(approved, request, plan)).run(chosen)

    def _begin(self, approved: Approval, request: RestoreRequest, plan: RestorePlan) -> RestoreRecord:
        started_at = self._now()
        if self._restores.get(restore_id_of(plan.clinic_id, started_at)) is not None:
            time.sleep(1)  # one that ended at once has taken this second's name
            started_at = self._now()
        return self._restores.begin(
            RestoreRecord(
                restore_id=restore_id_of(plan.clinic_id, started_at),
                clinic_id=plan.clinic_id,
                clinic_name=plan.clinic_name,
                backup_id=plan.backup_id,
                mode=plan.mode,
                plan=plan.to_json(),
                plan_digest=approved.plan_digest,
                started_at=started_at,
                tables=request.tables,
                requested_by=request.requested_by,
                approved_by=approved.approved_by,
                notes=request.notes,
                run_id=request.run_id,
            )
        )

    def _is_used_by(self, approved: Approval, record: RestoreRecord) -> bool:
        found = self._approvals.get(approved.id)
        return found is not None and found.used_by == record.restore_id

    def _require_target(self, approved: Approval, plan: RestorePlan) -> None:
        """:raises NotApproved: the connection leads to another database than the one that was approved."""
        with Snapshot(self._restore_db) as snapshot:
            now = ask(snapshot)
        if plan.target is None or plan.target.identity != now.identity:
            raise NotApproved(
                f"The restore was approved for {approved.target}, and the connection restore_db leads to {now.name},"
                " which is not that database, or not as it was.",
                hint=AGAIN,
            )

    def _status_of(self, record: RestoreRecord) -> TransactionStatus:
        asked = status_in(self._restore_db, record)

        def status(transaction_id: str) -> str | None:
            try:
                return asked(transaction_id)
            except OtherDatabase:
                # Nobody here can say it; the record must not keep the clinic from its restores for ever.
                return None

        return status


class _Attempt:
    """One attempt to apply a plan, with its record. The clinic's lock is held."""

    def __init__(
        self,
        runner: RestoreRunner,
        approved: Approval,
        request: RestoreRequest,
        plan: RestorePlan,
        lock: ClinicLock,
        record: RestoreRecord,
    ) -> None:
        self._runner, self._approved, self._request, self._plan = runner, approved, request, plan
        self._lock, self._record = lock, record

    def run(self, chosen: BackupRecord) -> RestoreRecord:
        runner = self._runner
        try:
            applied = runner._restore.apply(
                source_of(chosen),
                wish_of(self._request),
                approved=self._approved.plan_digest,
                plan=self._plan,
                save=self._save,
                on_commit=self._note,
            )
            # In the mode live it may be less than what was approved.
            self._record = replace(self._record, plan=applied.to_json())
            if self._record.transaction_id is None:
                # Nothing was to be written. The approval is used all the same: it was for this once.
                runner._restores.also(self._record.restore_id, self._use)
        except BaseException as error:
            self._see_note(error)
            if self._record.transaction_id is None:
                self._fail(error)
                raise
            # The answer to the commit was lost: the database knows whether it happened.
            settled = runner._outcomes.settle(self._record, error, runner._status_of(self._record))
            if settled.state == "completed":
                return settled
            if isinstance(error, TransientError):
                raise TransientError(settled.error or error.message, hint=settled.hint or "") from None
            raise
        return runner._outcomes.complete(self._record)

    def _see_note(self, error: BaseException) -> None:
        """The answer to the note of the transaction may have been lost: then the catalog has it, and this copy not."""
        if self._record.transaction_id is not None:
            return
        try:
            noted = self._runner._restores.get(self._record.restore_id)
        except ClinicBackupsError as failure:
            error.add_note(f"The catalog could not be asked: {failure.message}")
            return
        if noted is not None and noted.state == "running" and noted.transaction_id is not None:
            self._record = replace(self._record, transaction_id=noted.transaction_id, committing_at=noted.committing_at)

    def _fail(self, error: BaseException) -> None:
        """``error`` is what counts: that the catalog could not be told is a note on it."""
        try:
            self._runner._outcomes.fail(self._record, error)
        except ClinicBackupsError as failure:
            error.add_note(f"The catalog could not be told: {failure.message}")

    def _save(self, present: Present) -> None:
        """Save the present state, unless the approval was taken back while the archive was read."""
        runner = self._runner
        runner._approvals.usable(self._approved.id)
        saved = runner._safety.take(
            Clinic(self._plan.clinic_id, self._plan.clinic_name),
            present,
            of=self._plan.backup_id,
            tables=self._request.tables,
            requested_by=self._request.requested_by,
            lock=self._lock,
        )
        if saved is not None:
            self._record = runner._restores.note_safety_backup(
                self._record.restore_id, saved.backup_id, instead_of=self._record.safety_backup_id
            )

    def _note(self, transaction_id: str) -> None:
        """Write which transaction commits now, and use the approval, both or neither."""
        self._lock.require()
        restores, at = self._runner._restores, self._runner._now()
        self._record = restores.note_transaction(self._record.restore_id, transaction_id, at, also=self._use)

    def _use(self, db: SqlConnection) -> None:
        use(db, self._approved, self._plan.digest, self._record.restore_id)


def _plan_of(approved: Approval) -> RestorePlan:
    """:raises NotApproved: it is of a copy, or its parts contradict each other."""
    if approved.plan is not None:
        plan = RestorePlan.from_json(approved.plan)
        if (plan.digest, plan.backup_id, plan.clinic_id) == (
            approved.plan_digest,
            approved.backup_id,
            approved.clinic_id,
        ):
            return plan
    raise NotApproved(f"The approval for clinic {approved.clinic_id} is not for a restore.", hint=AGAIN)


def _notes(backup: BackupRecord) -> tuple[str, ...]:
    """What is to be known of a backup before it is restored."""
    notes = []
    if backup.safety_of is not None:
        notes.append(
            f"This is the copy made before the restore of {backup.safety_of}: it holds what was replaced then."
        )
    notes += [f"The backup is incomplete: {gap.table} is not in it as it should be." for gap in backup.gaps]
    if backup.suspect and not backup.is_trusted:
        notes.append(f"The backup is suspect, and nobody has accepted it: {backup.suspect}")
    return tuple(notes)


def choose_backup(catalog: Catalog, request: RestoreRequest, now: datetime | None = None) -> BackupRecord:
    """The backup that a request means. A copy that was made before a restore is meant only where its id is given.

    So is a backup of the future: a clock was wrong.

    :param now: by default the catalog's time.
    :raises PermanentError: there is no such backup, or it is not complete.
    """
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
    now = now or catalog.clock()
    known = catalog.find(
        clinic_id=request.clinic_id, state="completed", data_before=before, safety_copies=False, until=now
    )
    # What is suspect, and nobody has accepted, is taken only where there is nothing else.
    if known:
        return next((record for record in known if record.is_trusted), known[0])
    when = f" at or before {request.as_of.isoformat()}" if request.as_of else ""
    others = catalog.find(clinic_id=request.clinic_id, state="completed", data_before=before, limit=1)
    lost = catalog.find(clinic_id=request.clinic_id, state="lost", data_before=before, limit=1)
    besides = by_id = ""
    if others and others[0].is_of_future(now):
        besides = f" except {others[0].backup_id}, whose time has not come yet: a clock was wrong"
        by_id = " To restore it, give its id."
    elif others:
        besides = " except copies that were made before a restore"
        by_id = " To restore such a copy, give its id."
    if lost:
        by_id += f" {_BACK}"
        besides += f"; {lost[0].backup_id} is lost: no store has a good copy of it, or of what it is built on"
    raise PermanentError(
        f"Clinic {request.clinic_id} has no completed backup{when}{besides}.",
        hint=f"See clinic-backups list --clinic {request.clinic_id}.{by_id}",
    )


_BACK = "If its archive is back in a store: clinic-backups catalog verify --record"


def require_completed(record: BackupRecord) -> None:
    """:raises PermanentError: it is no backup that can be restored."""
    if record.state == "completed":
        return
    hint = "Choose a completed one."
    if record.state == "lost":
        hint += f" {_BACK}"
    raise PermanentError(f"Backup {record.backup_id} is {record.state}, not completed.", hint=hint)


def source_of(record: BackupRecord) -> Source:
    """Where a completed backup lies."""
    return Source(record.backup_id, record.clinic_id, record.archive, record.chain, bound_of(record))


def wish_of(request: RestoreRequest) -> Wish:
    """What is wanted of it."""
    return Wish(request.mode, request.tables, request.ignore_dropped, request.other_database)


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
                    closed.append(outcomes.close_dead(current, status_in(clinic_db, current)))
        except TransientError:
            # It goes on, or the database does not know yet, or it is not the one that was restored into: a later run
            # asks again.
            continue
    return closed
