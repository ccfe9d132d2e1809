"""Mails about restores that wait for approval: to the approvers, and the answer to whoever asked."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Literal
from urllib.parse import quote

from sqlalchemy import Connection as SqlConnection

from clinic_backups.base.clinic_id import ClinicId
from clinic_backups.base.errors import ClinicBackupsError
from clinic_backups.base.plain import iso
from clinic_backups.catalog.approvals import Announce, Approval, Approvals
from clinic_backups.catalog.outbox import Notice, Outbox, queue
from clinic_backups.catalog.records import Catalog
from clinic_backups.catalog.restores import parents_of
from clinic_backups.notify.mime import ADDRESS

Outcome = Literal["approved", "rejected", "lapsed"]
SHORTEST_NOTICE = timedelta(hours=1)
"""The approvers are reminded at least this long before a plan lapses."""
LOOKED_BACK = timedelta(days=7)
"""Plans that lapsed longer ago are not mailed any more."""


class ApprovalMails:
    """Writes the mails about plans and answers into the outbox, each once.

    :param belongs_to: returns whether the person with that name belongs to the clinic.
    :param url: Airflow's address without a final slash; empty if unknown.
    """

    def __init__(
        self,
        catalog: Catalog,
        outbox: Outbox,
        belongs_to: Callable[[str, ClinicId], bool],
        url: str,
        now: Callable[[], datetime],
    ) -> None:
        self._catalog, self._outbox, self._belongs_to, self._url, self._now = catalog, outbox, belongs_to, url, now

    @staticmethod
    def may_be_told(operators: Sequence[str], approvers: Sequence[str]) -> list[str]:
        """The addresses for mails about plans."""
        return [*operators, *(name for name in approvers if ADDRESS.fullmatch(name))]

    def asked(self, asked: Approval) -> None:
        """Tell the approvers that a plan waits."""
        self._outbox.queue(self._asked(asked, reminder=False), self._now())

    def remind(self, approvals: Approvals, hours: float) -> None:
        """Remind the approvers of plans that will lapse soon, and report lapsed plans. Called every hour.

        :param hours: how long a plan waits. The reminder comes when a quarter of that is left, or an hour if that is
            more.
        """
        before = max(SHORTEST_NOTICE, timedelta(hours=hours) / 4)
        for asked in approvals.waiting():
            if asked.waits_until - asked.read_at <= before:
                self._outbox.queue(self._asked(asked, reminder=True), self._now())
        for asked in approvals.lapsed(LOOKED_BACK):
            self.lapsed(asked)

    def lapsed(self, asked: Approval) -> None:
        """Tell whoever asked that nobody answered in time."""
        self._outbox.queue(self._answered(asked, "lapsed", self._addressee(asked)), self._now())

    def announcer(self, asked: Approval | None) -> Announce:
        """A function that tells whoever asked, in the transaction that records the answer."""
        addressee = self._addressee(asked) if asked is not None else None

        def announce(db: SqlConnection, answered: Approval) -> None:
            outcome: Outcome = "approved" if answered.answer == "approved" else "rejected"
            queue(db, self._answered(answered, outcome, addressee), self._now())

        return announce

    def _asked(self, asked: Approval, *, reminder: bool) -> Notice:
        facts = self._facts(asked) | {"reminder": reminder}
        key = f"approval:{asked.id}:{'reminder' if reminder else 'asked'}"
        return Notice(key, "approval", facts, urgent=True, to_approvers=True)

    def _answered(self, answered: Approval, outcome: Outcome, addressee: ClinicId | None) -> Notice:
        facts = self._facts(answered) | {
            "outcome": outcome,
            "answered_by": answered.answered_by or "",
            "reason": answered.reason or "",
            "answered_at": iso(answered.answered_at or answered.waits_until),
        }
        return Notice(f"approval:{answered.id}:answer", "answer", facts, addressee)

    def _addressee(self, asked: Approval) -> ClinicId | None:
        """The clinic of the person who asked; none for the operator, or if that cannot be found out."""
        try:
            return asked.clinic_id if self._belongs_to(asked.requested_by, asked.clinic_id) else None
        except ClinicBackupsError:
            return None

    def _facts(self, asked: Approval) -> dict[str, Any]:
        plan, request = asked.plan or {}, asked.request
        record = self._catalog.get(asked.backup_id)
        rows = {verb: sum(table[verb] for table in plan.get("tables", ())) for verb in ("insert", "update", "delete")}
        path = f"/backups/ui/runs/clinic_restore/{quote(asked.run_id or '', safe='')}"
        return {
            "clinic_id": asked.clinic_id,
            "clinic_name": plan.get("clinic_name") or (record.clinic_name if record else str(asked.clinic_id)),
            "backup_id": asked.backup_id,
            "backup_at": plan.get("snapshot_at") or (iso(record.started_at) if record else None),
            "mode": _mode(request),
            "schema": request.get("into_schema") or "",
            "tables": list(request.get("tables") or ()),
            "parents": parents_of(plan),
            "target": asked.target,
            "inserted": rows["insert"],
            "updated": rows["update"],
            "deleted": rows["delete"],
            "requested_by": asked.requested_by,
            "notes": request.get("notes") or "",
            "waits_until": iso(asked.waits_until),
            "run_id": asked.run_id or "",
            "url": f"{self._url}{path}" if self._url else "",
        }


def _mode(request: Mapping[str, Any]) -> str:
    if request.get("export_format"):
        return "export"
    return "into" if request.get("into_schema") else str(request.get("mode", "exact"))
