"""Leads a restore from its request to its record: backup, plan, approval, safety backup, writing and mail."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import datetime

from clinic_backups.base.backup_record import BackupRecord
from clinic_backups.base.connections import Connection
from clinic_backups.base.errors import TransientError
from clinic_backups.base.plain import iso
from clinic_backups.catalog.approvals import AGAIN, Approval, Approvals, NotApproved, Proposal
from clinic_backups.catalog.records import Catalog
from clinic_backups.catalog.restores import RestoreRecord, Restores, restore_id_of
from clinic_backups.restore.attempt import Attempt, Tools
from clinic_backups.restore.clinic_restore import ClinicRestore
from clinic_backups.restore.find_backup import choose_backup, notes_of, only_taken_back, require_told, source_of
from clinic_backups.restore.plan import RestorePlan
from clinic_backups.restore.plan_text import as_markdown
from clinic_backups.restore.request import RestoreRequest
from clinic_backups.restore.restore_outcomes import RestoreOutcomes, TransactionStatus, status_in
from clinic_backups.restore.safety import SafetyBackup
from clinic_backups.restore.target import OtherDatabase, ask
from clinic_backups.tenant.tenant_db import Snapshot


class RestoreRunner:
    """Runs restores of backups that the catalog knows.

    :param restore: makes and applies plans.
    :param safety: backs up the present state before the first row is written.
    :param of_point_in_time: backs up the clinic of a request from the database of an earlier time that it names.
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
        of_point_in_time: Callable[[RestoreRequest], BackupRecord],
        now: Callable[[], datetime],
    ) -> None:
        self._of_point_in_time = of_point_in_time
        self._restore, self._catalog, self._restore_db, self._now = restore, catalog, restore_db, now
        self._safety, self._approvals = safety, approvals
        self._restores = Restores(catalog.database)
        self._outcomes = RestoreOutcomes(self._restores, now)

    def choose(self, request: RestoreRequest) -> BackupRecord:
        """See :func:`choose_backup`."""
        return choose_backup(self._catalog, request, self._now())

    def plan(self, request: RestoreRequest) -> RestorePlan:
        """Make the plan; see :meth:`ClinicRestore.plan`."""
        chosen = self._of_point_in_time(request) if request.from_connection else self.choose(request)
        meant = self._meant(request, chosen.backup_id)
        notes = notes_of(chosen)
        if meant.tables != request.tables:
            notes += (only_taken_back(meant.tables),)
        plan = self._restore.plan(source_of(chosen), meant)
        if not plan.writes and not plan.refusals:
            notes += tuple(self._others(chosen))
        return replace(plan, notes=(*notes, *plan.notes))

    def _others(self, chosen: BackupRecord) -> Iterator[str]:
        """A note about older backups, if the newest one equals the clinic.

        A clinic that lost its rows may have been backed up since.
        """
        known = self._catalog.find(
            clinic_id=chosen.clinic_id, state="completed", data_before=chosen.data_time, only_regular=True
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
        """Record a plan without refusals for approval, with the page that the approver sees."""
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
        """The request.

        For the safety backup of a restore of some tables it names these tables, unless it names others.
        """
        if request.tables:
            return request
        undone = self._restores.find(clinic_id=request.clinic_id, safety_backup_id=backup_id, limit=1)
        return replace(request, tables=undone[0].tables) if undone else request

    def apply(self, approved: Approval) -> RestoreRecord:
        """Apply what was approved, once; returns the completed record. A failure is recorded and raised.

        Meanwhile no backup and no other restore of the clinic can begin. The present state is backed up first, from the
        database that is written to and as the plan saw it.

        :param approved: the approval from the catalog. The restored backup is the approval's.
        :raises AlreadyRunning: a backup or restore of the clinic is running; nothing was recorded.
        :raises NotApproved: nobody has approved this plan, or the approval is for another database, was used, or is too
            old.
        :raises ClinicBackupsError: see :meth:`ClinicRestore.apply` and :meth:`SafetyBackup.take`.
        """
        with self._catalog.lock(approved.clinic_id) as lock:
            for dead in self._restores.find(clinic_id=approved.clinic_id, state="running"):
                closed = self._outcomes.close_dead(dead, self._status_of(dead))
                if closed.state == "completed" and self._is_used_by(approved, closed):
                    # An earlier attempt applied this plan, and died before it could record that.
                    return closed
            # Checked before any work, so that no work is wasted. It is used later, together with the note
            # of the transaction that commits.
            approved = self._approvals.usable(approved.id)
            plan = _plan_of(approved)
            self._require_target(approved, plan)
            named = RestoreRequest(clinic_id=approved.clinic_id, backup_id=approved.backup_id)
            chosen = choose_backup(self._catalog, named, self._now())
            require_told(chosen, plan.notes.__contains__)
            request = RestoreRequest.from_json(approved.request)
            tools = Tools(
                self._restore, self._safety, self._approvals, self._restores, self._outcomes, self._status_of, self._now
            )
            return Attempt(tools, approved, request, plan, lock, self._begin(approved, request, plan)).run(chosen)

    def _begin(self, approved: Approval, request: RestoreRequest, plan: RestorePlan) -> RestoreRecord:
        started_at = self._now()
        if self._restores.get(restore_id_of(plan.clinic_id, started_at)) is not None:
            time.sleep(1)  # an attempt that failed at once has taken the name of this second
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
        """:raises NotApproved: the connection leads to another database than the approved one."""
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
                # Nobody can tell. The record must not prevent the clinic's restores for ever.
                return None

        return status


def _plan_of(approved: Approval) -> RestorePlan:
    """The approved plan. :raises NotApproved: the approval is for a copy, or its parts contradict each other.

    :raises NotApproved: it is of a copy, or its parts contradict each other.
    """
    if approved.plan is not None:
        plan = RestorePlan.from_json(approved.plan)
        if (plan.digest, plan.backup_id, plan.clinic_id) == (
            approved.plan_digest,
            approved.backup_id,
            approved.clinic_id,
        ):
            return plan
    raise NotApproved(f"The approval for clinic {approved.clinic_id} is not for a restore.", hint=AGAIN)


def close_abandoned(catalog: Catalog, clinic_db: Connection, now: Callable[[], datetime]) -> list[RestoreRecord]:
    """Close running records of restores whose process is gone, so that somebody learns of them.

    :param clinic_db: any role of the clinics' database. The database says whether a transaction was committed.
    """
    restores = Restores(catalog.database)
    outcomes, closed = RestoreOutcomes(restores, now), list[RestoreRecord]()
    for record in restores.find(state="running"):
        try:
            with catalog.lock(record.clinic_id):
                # Read again under the lock, because its process may have closed it meanwhile.
                current = restores.get(record.restore_id)
                if current is not None and current.state == "running":
                    closed.append(outcomes.close_dead(current, status_in(clinic_db, current)))
        except TransientError:
            # It is still running, or the database does not know yet, or it is another database. A later run asks
            # again.
            continue
    return closed
