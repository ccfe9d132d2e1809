"""Divides a run's clinics into shares, one for each task: a task of Airflow costs more than a small backup."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import ceil
from statistics import median
from typing import Any

from clinic_backups.base.clinic import Clinic
from clinic_backups.base.clinic_id import ClinicId
from clinic_backups.base.shared_unit import is_shared

NOT_BEFORE = "not_before"
"""The key of a task's input with the moment at which it begins, ISO 8601. Without it the task begins at once."""


@dataclass(frozen=True)
class Share:
    """The clinics of one task, in id order; at least one."""

    clinics: tuple[Clinic, ...]

    @property
    def name(self) -> str:
        """The task's name in Airflow: the clinic's name, or the ids of its clinics."""
        if len(self.clinics) == 1:
            return self.clinics[0].name
        return f"{len(self.clinics)} clinics, {self.clinics[0].id} to {self.clinics[-1].id}"

    def to_item(self) -> dict[str, Any]:
        """The task's input as XCom: a clinic's own fields, or the list of the clinics."""
        if len(self.clinics) == 1:
            return self.clinics[0].described()
        return {"name": self.name, "clinics": [clinic.described() for clinic in self.clinics]}

    @classmethod
    def from_item(cls, item: Mapping[str, Any]) -> Share:
        """The reverse of :meth:`to_item`."""
        return cls(
            tuple(Clinic(clinic["id"], clinic["name"], clinic["language"]) for clinic in item.get("clinics", [item]))
        )


SHARE_SECONDS = 60
"""What the clinics of a share took one by one. Several are backed up at once, so the task ends sooner than that."""
LEAST_TASKS = 16
"""So that the slots of the pool are in use until the end."""
_EMPTY_SECONDS = 0.05
"""What a clinic without rows takes."""
_BYTES_PER_SECOND = 10_000_000
"""Of a database's files, with their indexes. A full backup reads faster, so there are rather too many tasks."""


def worthwhile(
    clinics: Sequence[Clinic], most: int, seconds: Mapping[ClinicId, float], database_bytes: int | None = None
) -> int:
    """How many tasks to use, at most ``most``: one more costs about 0.3 s of CPU, as much as three small clinics.

    :param seconds: as for :func:`divide`.
    :param database_bytes: in the first run, which knows no seconds, the size of the clinics' database. If nobody knows
        that either, it is ``most``.
    """
    if len(clinics) <= most or not (seconds or database_bytes):
        return most
    if seconds:
        usual = median(seconds.values())
        total = sum(seconds.get(clinic.id, usual) for clinic in clinics)
    else:
        total = len(clinics) * _EMPTY_SECONDS + (database_bytes or 0) / _BYTES_PER_SECOND
    return min(most, max(LEAST_TASKS, ceil(total / SHARE_SECONDS)))


def divide(clinics: Sequence[Clinic], tasks: int, seconds: Mapping[ClinicId, float]) -> list[Share]:
    """Divide clinics into at most so many shares of about the same duration, the longest first.

    The shared unit has a share of its own before the others, if there may be more than one.

    With no more clinics than tasks each clinic has a task of its own, in the given order. Otherwise a clinic that takes
    as long as a share has one of its own, and the others are divided in id order.

    :param clinics: in id order, and the shared unit before them.
    :param tasks: at least 1.
    :param seconds: how long the last backup of each clinic took; a clinic without one counts as the median.
    """
    if len(clinics) <= tasks:
        return [Share((clinic,)) for clinic in clinics]
    if is_shared(clinics[0].id) and tasks > 1:
        return [Share((clinics[0],)), *divide(clinics[1:], tasks - 1, seconds)]
    usual = max(median(seconds.values()), _LEAST_SECONDS) if seconds else 1.0
    cost = {clinic.id: max(seconds.get(clinic.id, usual), _LEAST_SECONDS) for clinic in clinics}
    alone, left = _large(clinics, tasks, cost)
    rest = [clinic for clinic in clinics if clinic.id not in alone]
    shares = [Share((clinic,)) for clinic in clinics if clinic.id in alone]
    shares += map(Share, _in_even_parts(rest, left, cost))
    return sorted(shares, key=lambda share: -sum(cost[clinic.id] for clinic in share.clinics))


_LEAST_SECONDS = 0.01
"""No clinic counts as nothing, so that no share gets thousands of clinics."""


def _large(clinics: Sequence[Clinic], tasks: int, cost: Mapping[ClinicId, float]) -> tuple[set[ClinicId], int]:
    """The clinics that take as long as an even share of the rest, and how many shares are left for the rest."""
    alone, left, total = set[ClinicId](), tasks, sum(cost.values())
    for clinic in sorted(clinics, key=lambda clinic: -cost[clinic.id]):
        if left == 1 or cost[clinic.id] < total / left:
            break
        alone.add(clinic.id)
        left -= 1
        total -= cost[clinic.id]
    return alone, left


def _in_even_parts(
    clinics: Sequence[Clinic], parts: int, cost: Mapping[ClinicId, float]
) -> Iterator[tuple[Clinic, ...]]:
    """Runs of clinics: each ends with the clinic that brings it to an even part of what is left."""
    left, part, spent = sum(cost[clinic.id] for clinic in clinics), list[Clinic](), 0.0
    for position, clinic in enumerate(clinics, 1):
        part.append(clinic)
        spent += cost[clinic.id]
        waiting = len(clinics) - position
        if parts > 1 and (spent >= left / parts or waiting < parts) and waiting >= parts - 1:
            yield tuple(part)
            left, part, spent, parts = left - spent, [], 0.0, parts - 1
    if part:
        yield tuple(part)
