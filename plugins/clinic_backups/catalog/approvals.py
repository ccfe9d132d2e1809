"""Approvals of restores: the plan that was shown, the answer, and the restore that used it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from datetime import datetime, timedelta
from typing import Any, Literal

from sqlalchemy import Connection as SqlConnection
from sqlalchemy import Select, func, insert, select, text, update

from clinic_backups.base.clinic_id import ClinicId
from clinic_backups.base.errors import PermanentError
from clinic_backups.base.listening import nobody
from clinic_backups.base.plain import iso
from clinic_backups.catalog.catalog_database import CatalogDatabase
from clinic_backups.catalog.tables import approval

Answer = Literal["approved", "rejected"]
How = Literal["ui", "conf", "command"]
AGAIN = "Nothing was changed. Start the restore again: it makes a new plan, which waits for approval."


Announce = Callable[[SqlConnection, "Approval"], None]
"""Writes the notice about an answer, in the transaction that records it."""


class NotApproved(PermanentError):
    """The restore has no valid approval."""


@dataclass(frozen=True)
class Proposal:
    """A plan that waits for approval.

    :param target: the database that would be written to, for people.
    :param request: ``RestoreRequest.to_json()``.
    :param plan: ``RestorePlan.to_json()``; none for a restore into a new schema.
    :param page: the text for the approver, in Markdown.
    """

    clinic_id: ClinicId
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
    """A proposal and its answer.

    :param planned_at: by the catalog's clock, like all times here; ``read_at`` is the time when this was read.
    :param asked_by: the task instance that waits for the answer; none for the command.
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
        """Who approved and where, for the restore's record."""
        where = {"conf": " (in the conf)", "command": " (command line)"}.get(self.how or "", "")
        return f"{self.answered_by or ''}{where}"

    @property
    def is_rejected(self) -> bool:
        """Whether it was rejected, and no new plan was made since."""
        return self.answer == "rejected" and self.withdrawn_at is None

    @property
    def rejection(self) -> str:
        """Who rejected it, and why."""
        return f"rejected by {self.answered_by}: {self.reason}" if self.reason else f"rejected by {self.answered_by}."

    @property
    def problem(self) -> str:
        """Why no restore may use it; empty if one may."""
        what = f"The plan of {iso(self.planned_at.replace(microsecond=0))} for clinic {self.clinic_id}"
        if self.withdrawn_at is not None:
            return f"{what} was replaced: a newer plan is being made, or was made."
        if self.answer is None:
            return f"{what} was not approved by anybody."
        if self.answer == "rejected":
            return f"{what} was {self.rejection}"
        if self.used_by is not None:
            return f"{what} was approved once, and {self.used_by} has used that approval."
        if self.valid_until is None or self.read_at >= self.valid_until:
            return f"The approval of {what[0].lower()}{what[1:]} is too old."
        return ""


_STORED = [name for name in (item.name for item in fields(Approval)) if name != "read_at"]
# The present time, not the transaction's start, because another transaction may have answered since.
_COLUMNS = [*(approval.c[name] for name in _STORED), func.clock_timestamp().label("read_at")]


class Approvals:
    """The approvals of one catalog. An answer is given once, and an approval is used once.

    :param hours: how long a plan waits for its answer, and an approval for its restore (``APPROVAL_HOURS``).
    :param approvers: the people who may approve (``APPROVERS``). If it is empty, anybody may.
    """

    def __init__(self, database: CatalogDatabase, hours: float, approvers: Sequence[str] = ()) -> None:
        self._database, self._approvers = database, approvers
        self._until = func.now() + text(f"interval '{float(hours)} hours'")

    def propose(self, proposal: Proposal) -> Approval:
        """Record a plan that waits for approval. All earlier plans of the same run are withdrawn."""
        values = {item.name: getattr(proposal, item.name) for item in fields(Proposal)}
        with self._database.transaction("recording the plan") as db:
            if proposal.run_id is not None:
                _withdraw(db, proposal.run_id)
            return self._insert(db, values)

    def withdraw(self, run_id: str) -> None:
        """Withdraw all plans and approvals of a run, because it makes a new plan."""
        with self._database.transaction("withdrawing earlier plans") as db:
            _withdraw(db, run_id)

    def ask(self, run_id: str, asked_by: str) -> Approval:
        """Record that a task instance asks for the answer to the run's newest plan, and return what it has to show.

        If the plan was answered before, it is proposed again, and the earlier answer is withdrawn unless it was used.

        :raises NotApproved: there is no plan of this run, or it is being made anew.
        """
        with self._database.transaction("asking for an approval") as db:
            row = db.execute(_newest(run_id).with_for_update()).mappings().one_or_none()
            if row is None or row["withdrawn_at"] is not None:
                raise NotApproved(
                    f"The catalog has no plan of run {run_id} that can be approved.",
                    hint="Nothing was changed. Clear the task plan and all tasks after it, or start the restore again.",
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
        announce: Announce = nobody,
    ) -> Approval:
        """Record an answer. Repeating the same answer changes nothing.

        :param asked: the approval's number, or the task instance that :meth:`ask` recorded.
        :param reason: one line of at most 500 characters; may be empty.
        :raises NotApproved: the plan was replaced, was already answered, or waited too long.
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
            raise NotApproved(f"The plan for clinic {found.clinic_id} has waited too long for an answer.", hint=AGAIN)
        raise NotApproved(
            found.problem or f"{found.answered_by} has already answered the plan for clinic {found.clinic_id}.",
            hint=AGAIN,
        )

    def get(self, number: int) -> Approval | None:
        """One approval, or ``None``."""
        found = self._select(select(*_COLUMNS).where(approval.c.id == number))
        return found[0] if found else None

    def of_run(self, run_id: str) -> Approval | None:
        """The newest plan of a run with its answer; none if the run has made none."""
        found = self._select(_newest(run_id))
        return found[0] if found else None

    def waiting(self) -> list[Approval]:
        """Plans of runs that wait for an answer now, the longest waiting first."""
        open_ = (approval.c.answer.is_(None), approval.c.withdrawn_at.is_(None), approval.c.asked_by.is_not(None))
        statement = select(*_COLUMNS).where(*open_, approval.c.waits_until > func.now())
        return self._select(statement.order_by(approval.c.waits_until))

    def lapsed(self, since: timedelta) -> list[Approval]:
        """Plans of runs that nobody answered in time, if their time ended within ``since``."""
        open_ = (approval.c.answer.is_(None), approval.c.withdrawn_at.is_(None), approval.c.asked_by.is_not(None))
        ended = (approval.c.waits_until <= func.now(), approval.c.waits_until > func.now() - since)
        return self._select(select(*_COLUMNS).where(*open_, *ended).order_by(approval.c.waits_until))

    def given_in_conf(self, run_id: str) -> bool:
        """Whether the conf of this run has already approved a plan. It may do so only once."""
        statement = select(*_COLUMNS).where(approval.c.run_id == run_id, approval.c.how == "conf").limit(1)
        return bool(self._select(statement))

    def usable(self, number: int) -> Approval:
        """One approval that a restore may use now. :raises NotApproved: it may not be used."""
        found = self.get(number)
        if found is None:
            raise NotApproved("The catalog has no such approval.", hint=AGAIN)
        if found.problem:
            raise NotApproved(found.problem, hint=AGAIN)
        # The present list of approvers counts, so that the answer of somebody who was removed is not valid. The user of
        # the command needs no check, having the database and the key anyway.
        if self._approvers and found.how != "command" and found.answered_by not in self._approvers:
            raise NotApproved(
                f"{found.answered_by} approved the plan for clinic {found.clinic_id}, but is no longer an approver.",
                hint=f"CLINIC_BACKUPS_APPROVERS lists the approvers. {AGAIN}",
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
    """Use an approval, in the caller's transaction. It cannot be used again.

    :param plan_digest: digest of the plan that is about to be committed.
    :raises NotApproved: it is for another plan, or not valid (any more). Nothing may be committed then.
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
