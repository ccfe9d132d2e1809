"""Which units are drilled in a night, and in which order. Pure: it needs only what is known of the units."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from math import ceil

from clinic_backups.catalog.proofs import Candidate

LEAST_SECONDS = 2.0
"""What the smallest unit takes: a database is made, and its constraints are checked."""
BYTES_PER_SECOND = 2_000_000
"""What is expected of a unit without a proof, in bytes of its archives. Those are compressed about three times."""
USUAL_DAYS = 7


@dataclass(frozen=True)
class Turn:
    """One unit of a night.

    :param reason: why it is its turn.
    """

    candidate: Candidate
    seconds: float
    reason: str


def expected_seconds(candidate: Candidate) -> float:
    """How long its drill will take: as long as the last time, otherwise by its size."""
    return max(LEAST_SECONDS, candidate.seconds or candidate.chain_bytes / BYTES_PER_SECOND)


def in_order(candidates: Iterable[Candidate]) -> list[Candidate]:
    """Units without a proof first, then the oldest proof first, then the largest chain first."""
    return sorted(
        (each for each in candidates if each.backup_id is not None),
        key=lambda each: (
            each.proven_at is not None,
            each.proven_at.timestamp() if each.proven_at else 0.0,
            -each.chain_bytes,
            str(each.clinic_id),
        ),
    )


def choose(candidates: Sequence[Candidate], now: datetime, *, within_days: int, budget_seconds: float) -> list[Turn]:
    """The turns of a night, in order.

    Due are the units without a proof, those whose last drill failed, those whose proof becomes too old before the
    night after the next one, and so many of the others that all units have their turn once in the days. Of these, as
    many as fit into the budget. The first one always has its turn, so that a unit larger than the budget is drilled
    when it has waited longest.

    :param within_days: each unit's newest good proof shall not be older. 0: there is no alarm, and turns come as with
        ``USUAL_DAYS``.
    """
    within_days = within_days or USUAL_DAYS
    ordered = in_order(candidates)
    nights = max(1, within_days - 1)
    share = ceil(len(ordered) / nights)
    soon = now - timedelta(days=max(within_days - 1.5, 0))
    turns = list[Turn]()
    left, due = budget_seconds, 0
    for each in ordered:
        reason = _reason(each, soon)
        if not reason and due >= share:
            continue
        if not reason and each.proven_id == each.backup_id:
            continue  # nothing is new
        due += 1
        seconds = expected_seconds(each)
        if turns and seconds > left:
            continue
        turns.append(Turn(each, seconds, reason or "its turn of the days"))
        left -= seconds
    return turns


def _reason(candidate: Candidate, soon: datetime) -> str:
    if candidate.proven_at is None:
        return "it has no proof"
    if candidate.failed:
        return "its last drill failed"
    return "its proof is old" if candidate.proven_at < soon else ""
