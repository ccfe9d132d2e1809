"""The watch: checks that every clinic's last good backup, and its last proof, are young enough.

It needs only the catalog.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

import requests

from clinic_backups.base.backup_record import FUTURE_TOLERANCE
from clinic_backups.base.clinic_id import ClinicId
from clinic_backups.base.errors import TransientError
from clinic_backups.base.findings import Finding
from clinic_backups.catalog.outbox import Notice

AGAIN_AFTER = timedelta(hours=24)
TIMEOUT_SECONDS, LONGEST_SECONDS = 10, 30
"""Time limits of the heartbeat: for one step of its request, and for the whole request."""


def alarm_notice(
    facts: Mapping[str, Any], last: tuple[Mapping[str, Any], datetime] | None, now: datetime
) -> Notice | None:
    """The alarm for the operator: sent if the last alarm did not name everything that is wrong, otherwise once a day.

    :param facts: from :func:`clinic_backups.notify.digest.overdue_facts`, and
        :func:`~clinic_backups.notify.digest.unproven_facts`; with ``problem``, its ``error`` and ``hint``, if no backup
        can be made at all.
    :param last: the facts and time of the last alarm.
    """
    late, problem, unproven = _late(facts), facts.get("problem"), _unproven(facts)
    known = (
        last is not None
        and late <= _late(last[0])
        and unproven <= _unproven(last[0])
        and problem in (None, last[0].get("problem"))
    )
    if not (late or problem or unproven) or (known and _is_recent(last, now)):
        return None
    checked_at = now.isoformat()
    return Notice(f"alarm:{checked_at}", "alarm", {**facts, "checked_at": checked_at}, urgent=True)


def restore_side_notice(
    errors: Sequence[Finding], last: tuple[Mapping[str, Any], datetime] | None, now: datetime
) -> Notice | None:
    """The alarm about the restore side: sent if the last one did not name all errors, otherwise once a day.

    :param last: the facts and time of the last such alarm.
    """
    told = {(each["check"], each["message"]) for each in last[0]["errors"]} if last is not None else set()
    if not errors or (_is_recent(last, now) and {(each.check, each.message) for each in errors} <= told):
        return None
    facts = {"errors": [each.to_json() for each in errors], "checked_at": now.isoformat()}
    return Notice(f"restore_side:{now.isoformat()}", "restore_side", facts, urgent=True)


def _is_recent(last: tuple[Mapping[str, Any], datetime] | None, now: datetime) -> bool:
    # An alarm that is dated in the future comes from a wrong clock.
    return last is not None and -FUTURE_TOLERANCE <= now - last[1] < AGAIN_AFTER


def count_late(facts: Mapping[str, Any]) -> int:
    """The number of clinics that miss their objective."""
    return len(_late(facts))


def count_unproven(facts: Mapping[str, Any]) -> int:
    """The number of units whose newest proof is too old."""
    return len(_unproven(facts))


def ping(url: str, *, well: bool) -> None:
    """Ping the dead man's switch: ``url`` if all is well, ``url/fail`` if not.

    This is the convention of https://healthchecks.io/docs/http_api/. Only the request itself is sent.

    :raises TransientError: the ping failed. The message leaves out the address, which is a secret.
    """
    problems: list[str] = []
    place = url if well else f"{url.rstrip('/')}/fail"
    # The time-out of requests applies to each piece of the answer, so a slow server could block us for ever.
    asking = threading.Thread(target=lambda: problems.append(_answer_of(place)), daemon=True)
    asking.start()
    asking.join(LONGEST_SECONDS)
    problem = problems[0] if problems else f"no whole answer within {LONGEST_SECONDS} s"
    if problem:
        raise TransientError(
            f"The heartbeat could not be sent ({problem}).",
            hint="Check CLINIC_BACKUPS_HEARTBEAT_URL and the network.",
        ) from None


def _answer_of(place: str) -> str:
    """The problem with the answer. Empty: the answer is good."""
    try:
        answer = requests.get(place, timeout=TIMEOUT_SECONDS, allow_redirects=False)
    except requests.RequestException as error:
        return type(error).__name__
    return "" if answer.ok else f"HTTP {answer.status_code}"


def _late(facts: Mapping[str, Any]) -> set[ClinicId]:
    return {clinic["clinic_id"] for clinic in (*facts["never"], *facts["overdue"])}


def _unproven(facts: Mapping[str, Any]) -> set[ClinicId]:
    return {clinic["clinic_id"] for clinic in facts.get("unproven", ())}
