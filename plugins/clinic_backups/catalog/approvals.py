"""Approvals of restores: which plan was shown to whom, what they answered, and which restore used it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from datetime import datetime, timedelta
from typing import Any, Literal

from sqlalchemy import Connection as SqlConnection
from sqlalchemy import Select, func, insert, select, text, update

from clinic_backups.base.errors import PermanentError
from clinic_backups.base.model import iso
from clinic_backups.catalog.database import CatalogDatabase
from clinic_backups.catalog.tables import approval

Answer = Literal["approved", "rejected"]
How = Literal["ui", "conf", "command"]
AGAIN = "Nothing was changed. Start the restore again: its plan is made anew, and waits for approval."


Announce = Callable[[SqlConnection, "Approval"], None]
"""Writes what an answer is worth telling, in the transaction that records it."""


class NotApproved(PermanentError):
    """There is no approval that this restore may use."""


@dataclass(frozen=True)
class Proposal:
    """A plan that somebody is to approve.

    :param target: the database that would be written to, for people.
    :param request: ``RestoreRequest.to_json()``.
    :param plan: ``RestorePlan.to_json()``; none of a copy into a new schema.
    :param page: what is shown to whoever approves, in Markdown.
    """

    clinic_id: int
    backup_id: str
    plan_digest: str
    target: str
    requested_by: str
    request: Mapping[str, Any] = field(repr=False)
    plan: Mapping[str, Any] | None = field(repr=False)
    page: str = field(repr=False)
    run_id: str | None = None


@dataclass(frozen=True)
class Approval(Proposal):
    """A proposal, and what became of it.

    :param planned_at: by the catalog's clock, as are all times here; ``read_at`` is its time of the reading.
    :param asked_by: the task instance that waits for the answer; none of the command.
    """

    id: int = 0
    planned_at: datetime = datetime.min
    waits_until: datetime = datetime.min
    read_at: datetime = datetime.min
    asked_by: str | None = None
    answer: Answer | None = None
    answered_by: str | None = None
    reason: str | None = None
    how: How | None = None
    answered_at: datetime | None = None
    valid_until: datetime | None = None
    withdrawn_at: datetime | None = None
    used_at: datetime | None = None
    used_by: str | None = None

    @property
    def approved_by(self) -> str:
        """Who approved and where, as the restore's record says it."""
        where = {"conf": " (in the conf)", "command": " (command line)"}.get(self.how or "", "")
        return f"{self.answered_by or ''}{where}"

    @property
    def is_rejected(self) -> bool:
        """Somebody said no, and the plan was not made anew since."""
        return self.answer == "rejected" and self.withdrawn_at is None

    @property
    def rejection(self) -> str:
        """By whom it was rejected, and why."""
        return f"rejected by {self.answered_by}: {self.reason}" if self.reason else f"rejected by {self.answered_by}."

    @property
    def problem(self) -> str:
        """Why no restore may use it; empty where one may."""
        what = f"The plan of {iso(self.planned_at.replace(microsecond=0))} for clinic {self.clinic_id}"
        if self.withdrawn_at is not None:
            return f"{what} was replaced: it is being made anew, or was made anew since."
        if self.answer is None:
            return f"{what} was not approved by anybody."
        if self.answer == "rejected":
            return f"{what} was {self.rejection}"
        if self.used_by is not None:
            return f"{what} was approved once, and that approval was used by {self.used_by}."
        if self.valid_until is None or self.read_at >= self.valid_until:
            return f"The approval of {what[0].lower()}{what[1:]} is too old."
        return ""


_STORED = [name for name in (item.name for item in fields(Approval)) if name != "read_at"]
# Not the transaction's beginning: another one may have answered since.
_COLUMNS = [*(approval.c[name] for name in _STORED), func.clock_timestamp().label("read_at")]


class Approvals:
    """The approvals of one catalog. An answer is given once, and an approval is used once.

    :param hours: so long a plan waits for its answer, and an approval for its restore (``APPROVAL_HOURS``).
    :param approvers: who may approve (``APPROVERS``). Where nobody is named, anybody may.
    """

    def __init__(self, database: CatalogDatabase, hours: float, approvers: Sequence[str] = ()) -> None:
        self._database, self._approvers = database, approvers
        self._until = func.now() + text(f"interval '{float(hours)} hours'")

    def propose(self, proposal: Proposal) -> Approval:
        """Write a plan that is to be approved. Every earlier one of the same run is withdrawn."""
        values = {item.name: getattr(proposal, item.name) for item in fields(Proposal)}
        with self._database.transaction("recording the plan") as db:
            if proposal.run_id is not None:
                _withdraw(db, proposal.run_id)
            return self._insert(db, values)

    def withdraw(self, run_id: str) -> None:
        """The run makes its plan anew: no earlier one can be approved any more, and no earlier approval be used."""
        with self._database.transaction("withdrawing earlier plans") as db:
            _withdraw(db, run_id)

    def ask(self, run_id: str, asked_by: str) -> Approval:
        """Note that a task instance asks for the answer to the run's newest plan; returns what it has to show.

        A plan that was answered before is proposed once more: the earlier answer is withdrawn where it was not used.

        :raises NotApproved: there is no plan of this run, or it is being made anew.
        """
        with self._database.transaction("asking for an approval") as db:
            row = db.execute(_newest(run_id).with_for_update()).mappings().one_or_none()
            if row is None or row["withdrawn_at"] is not None:
                raise NotApproved(
                    f"The catalog has no plan of run {run_id} that could be approved.",
                    hint="Nothing was changed. Clear the task plan with all that follows, or start the restore again.",
                )
            found = _approval(row)
            if found.answer is not None:
                _withdraw(db, run_id)
                found = self._insert(db, {item.name: getattr(found, item.name) for item in fields(Proposal)})
            statement = update(approval).where(approval.c.id == found.id)
            values = {"asked_by": asked_by, "waits_until": self._until}
            return _approval(db.execute(statement.values(values).returning(*_COLUMNS)).mappings().one())

    def answer(
        self,
        asked: int | str,
        answer: Answer,
        *,
        by: str,
        how: How,
        reason: str = "",
        announce: Announce = lambda db, answered: None,
    ) -> Approval:
        """Write somebody's answer. The same answer once more changes nothing.

        :param asked: the approval's number; or the task instance that asked, as :meth:`ask` noted it.
        :param reason: one line of at most 500 characters; empty where none was given.
        :raises NotApproved: the plan was replaced, was answered already, or waited for too long.
        """
        which = approval.c.id == asked if isinstance(asked, int) else approval.c.asked_by == asked
        statement = (
            update(approval)
            .where(which, approval.c.answer.is_(None), approval.c.withdrawn_at.is_(None))
            .where(approval.c.waits_until > func.now())
            .values(answer=answer, answered_by=by, how=how, reason=reason or None)
            .values(answered_at=func.now(), valid_until=self._until)
            .returning(*_COLUMNS)
        )
        with self._database.transaction("recording an answer") as db:
            row = db.execute(statement).mappings().one_or_none()
            if row is not None:
                answered = _approval(row)
                announce(db, answered)
                return answered
            newest = select(*_COLUMNS).where(which).order_by(approval.c.id.desc()).limit(1)
            row = db.execute(newest).mappings().one_or_none()
        if row is None:
            raise NotApproved("Nobody was asked to approve this plan.", hint=AGAIN)
        found = _approval(row)
        if found.withdrawn_at is None and (found.answer, found.answered_by, found.how) == (answer, by, how):
            return found
        if found.withdrawn_at is None and found.answer is None:
            raise NotApproved(
                f"The plan for clinic {found.clinic_id} has waited for an answer for too long.", hint=AGAIN
            )
        raise NotApproved(
            found.problem or f"The plan for clinic {found.clinic_id} was answered already, by {found.answered_by}.",
            hint=AGAIN,
        )

    def get(self, number: int) -> Approval | None:
        """One approval, or ``None``."""
        found = self._select(select(*_COLUMNS).where(approval.c.id == number))
        return found[0] if found else None

    def of_run(self, run_id: str) -> Approval | None:
        """The newest plan of a run with what became of it; none where the run has made none."""
        found = self._select(_newest(run_id))
        return found[0] if found else None

    def waiting(self) -> list[Approval]:
        """Plans of runs that wait for somebody's answer now, the longest waiting first."""
        open_ = (approval.c.answer.is_(None), approval.c.withdrawn_at.is_(None), approval.c.asked_by.is_not(None))
        statement = select(*_COLUMNS).where(*open_, approval.c.waits_until > func.now())
        return self._select(statement.order_by(approval.c.waits_until))

    def lapsed(self, since: timedelta) -> list[Approval]:
        """Plans of runs that nobody answered in time, and whose time ended no longer ago than that."""
        open_ = (approval.c.answer.is_(None), approval.c.withdrawn_at.is_(None), approval.c.asked_by.is_not(None))
        ended = (approval.c.waits_until <= func.now(), approval.c.waits_until > func.now() - since)
        return self._select(select(*_COLUMNS).where(*open_, *ended).order_by(approval.c.waits_until))

    def given_in_conf(self, run_id: str) -> bool:
        """The conf of this run has approved a plan before: it does so once, as any approval counts once."""
        statement = select(*_COLUMNS).where(approval.c.run_id == run_id, approval.c.how == "conf").limit(1)
        return bool(self._select(statement))

    def usable(self, number: int) -> Approval:
        """One approval that a restore may use now. :raises NotApproved: it may not."""
        found = self.get(number)
        if found is None:
            raise NotApproved("The catalog has no such approval.", hint=AGAIN)
        if found.problem:
            raise NotApproved(found.problem, hint=AGAIN)
        # Of now: somebody who left may not approve with what they have answered before. Who gives the command has the
        # database and the key anyway.
        if self._approvers and found.how != "command" and found.answered_by not in self._approvers:
            raise NotApproved(
                f"The plan for clinic {found.clinic_id} was approved by {found.answered_by}, who is not one of the"
                " approvers any more.",
                hint=f"CLINIC_BACKUPS_APPROVERS names those who are. {AGAIN}",
            )
        return found

    def of_runs(self, run_ids: Sequence[str]) -> dict[str, Approval]:
        """:meth:`of_run` for several runs."""
        if not run_ids:
            return {}
        newest = select(func.max(approval.c.id)).where(approval.c.run_id.in_(run_ids)).group_by(approval.c.run_id)
        found = self._select(select(*_COLUMNS).where(approval.c.id.in_(newest)))
        return {one.run_id: one for one in found if one.run_id is not None}

    def _insert(self, db: SqlConnection, values: Mapping[str, Any]) -> Approval:
        statement = insert(approval).values(dict(values) | {"waits_until": self._until}).returning(*_COLUMNS)
        return _approval(db.execute(statement).mappings().one())

    def _select(self, statement: Select[Any]) -> list[Approval]:
        with self._database.transaction("reading the approvals") as db:
            return [_approval(row) for row in db.execute(statement).mappings()]


def use(db: SqlConnection, approved: Approval, plan_digest: str, restore_id: str) -> None:
    """Use an approval up, in the caller's transaction.

    :param plan_digest: of what is about to be committed.
    :raises NotApproved: it is for another plan, or may not be used (any more): nothing may be committed.
    """
    statement = (
        update(approval)
        .where(approval.c.id == approved.id, approval.c.plan_digest == plan_digest)
        .where(approval.c.clinic_id == approved.clinic_id, approval.c.backup_id == approved.backup_id)
        .where(approval.c.answer == "approved", approval.c.withdrawn_at.is_(None), approval.c.used_at.is_(None))
        .where(approval.c.valid_until > func.clock_timestamp())
        .values(used_at=func.now(), used_by=restore_id)
        .returning(approval.c.id)
    )
    if db.execute(statement).one_or_none() is None:
        row = db.execute(select(*_COLUMNS).where(approval.c.id == approved.id)).mappings().one_or_none()
        why = _approval(row).problem if row is not None else ""
        raise NotApproved(why or f"The approval is not for this plan of clinic {approved.clinic_id}.", hint=AGAIN)


def _withdraw(db: SqlConnection, run_id: str) -> None:
    db.execute(
        update(approval)
        .where(approval.c.run_id == run_id, approval.c.withdrawn_at.is_(None), approval.c.used_at.is_(None))
        .values(withdrawn_at=func.now())
    )


def _newest(run_id: str) -> Select[Any]:
    return select(*_COLUMNS).where(approval.c.run_id == run_id).order_by(approval.c.id.desc()).limit(1)


def _approval(row: Any) -> Approval:
    return Approval(**dict(row))
