"""The result of a run's restore according to the catalog. Results of tasks and XComs are not trusted."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from clinic_backups.base.connections import Connection
from clinic_backups.base.errors import PermanentError, TransientError
from clinic_backups.catalog.approvals import Approval, Approvals
from clinic_backups.catalog.records import Catalog
from clinic_backups.catalog.restores import RestoreRecord, Restores
from clinic_backups.restore.restore_outcomes import RestoreOutcomes, status_in

NOTHING = "The clinic was not restored and nothing was changed: see the first task that failed."
AGAIN_LATER = "Clear apply and report of this run: apply asks the database what became of it, and does nothing twice."


class NotRestored(PermanentError):
    """The run has restored nothing, or nobody knows whether it did."""


class Rejected(NotRestored):
    """The run has restored nothing because somebody rejected its plan. That is not a failure."""


def completed_by(restores: Restores, run_id: str, approved: Approval | None) -> RestoreRecord | None:
    """The completed record of a run that used its newest approval; none if there is no such record.

    :param approved: the run's newest approval; none for runs from before version 0011 of the catalog.
    """
    for record in restores.find(run_id=run_id, state="completed"):
        if approved is None or (approved.used_by, approved.clinic_id) == (record.restore_id, record.clinic_id):
            return record
    return None


def settle_run(
    catalog: Catalog,
    approvals: Approvals,
    restore_db: Callable[[], Connection],
    run_id: str,
    now: Callable[[], datetime],
) -> RestoreRecord:
    """The run's completed restore.

    If the process of a running record died, the database decides, and the record is closed.

    :raises NotRestored: it did not complete, or nobody can tell whether it did.
    """
    restores = Restores(catalog.database)
    for record in restores.find(run_id=run_id, state="running"):
        try:
            with catalog.lock(record.clinic_id):
                current = restores.get(record.restore_id)
                if current is not None and current.state == "running":
                    RestoreOutcomes(restores, now).close_dead(current, status_in(restore_db(), current))
        except TransientError as error:
            raise NotRestored(
                f"Whether restore {record.restore_id} has changed the clinic cannot be told yet: {error.message}",
                hint=AGAIN_LATER,
            ) from None
    approved = approvals.of_run(run_id)
    done = completed_by(restores, run_id, approved)
    if done is not None:
        return done
    if approved is not None and approved.is_rejected:
        raise Rejected(f"The plan was {approved.rejection}", hint="Nothing was changed.")
    used = approved.used_by if approved is not None else None
    last = restores.get(used) if used is not None else None
    if last is not None and last.state != "completed":
        raise NotRestored(last.error or f"Restore {last.restore_id} is {last.state}.", hint=last.hint or AGAIN_LATER)
    raise NotRestored(NOTHING, hint="Start the restore again. A new plan is made and waits for approval.")
