"""Who may approve a restore, and how."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from clinic_backups.base.documents import MAX_REASON
from clinic_backups.base.plain import iso
from clinic_backups.base.text import one_line
from clinic_backups.catalog.approvals import AGAIN, Approval, NotApproved

REASON = "reason"
"""The field of an answer that holds its reason."""
_ID = re.compile(r"[0-9]+|[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
"""What Airflow gives people as ids: numbers and UUIDs. A name that looks like one could be taken for somebody's id."""


def conf_problem(approvers: Sequence[str], *, triggered_by: str, requested_by: str, given: bool, exports: bool) -> str:
    """Why ``{"approve": true}`` in a run's conf is ignored; empty if it counts.

    If approvers are set, two people have to agree: whoever asks for a restore cannot approve it in the same conf.

    :param triggered_by: who started the run, as Airflow authenticated them; empty if nobody did.
    :param requested_by: who asked for the restore.
    :param exports: the run hands data over, and a person has to know to whom.
    :param given: the conf has already approved a plan of this run. Somebody else may have cleared the run's tasks.
    """
    if exports:
        return "Data are handed over only after a person has approved it."
    if given:
        return "It has approved an earlier plan of this run, and an approval is used once."
    if not approvers:
        return ""
    if triggered_by not in approvers or _ID.fullmatch(triggered_by):
        who = repr(triggered_by) if triggered_by else "Whoever started the run"
        return f"{who} is not one of CLINIC_BACKUPS_APPROVERS."
    if triggered_by == requested_by:
        return f"{triggered_by!r} has asked for this restore, and cannot approve it in the conf as well."
    return ""


def approver_of(approvers: Sequence[str], user: Mapping[str, Any] | None) -> str:
    """The name of whoever answered on the page.

    :param user: ``id`` and ``name``, as Airflow authenticated them.
    :raises NotApproved: nobody is named, or they are not one of the approvers.
    """
    name, id_ = (str((user or {}).get(key) or "") for key in ("name", "id"))
    if not (name or id_):
        raise NotApproved("The answer to the plan does not say who gave it.", hint=AGAIN)
    # The name as it stands in the list of approvers. It is looked up there again before the approval is used.
    if name in approvers and not _ID.fullmatch(name):
        return name
    if id_ in approvers:
        return id_
    if approvers:
        raise NotApproved(
            f"{name or id_!r} may not approve restores.", hint=f"CLINIC_BACKUPS_APPROVERS names those who may. {AGAIN}"
        )
    return name or id_


def reason_of(given: Mapping[str, Any] | None) -> str:
    """The reason in an answer, as one line. A long one is cut, and the answer is still valid."""
    said = (given or {}).get(REASON)
    return one_line(said)[:MAX_REASON] if isinstance(said, str) else ""


def lapsed(asked: Approval) -> str:
    """The sentence for a plan that nobody answered in time."""
    planned, until = (iso(moment.replace(microsecond=0)) for moment in (asked.planned_at, asked.waits_until))
    return (
        f"Nobody answered the plan of {planned} for clinic {asked.clinic_id}. It waited until {until} and has lapsed:"
        " nothing was changed."
    )
