"""The time of the rows that a snapshot shows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from clinic_backups.tenant.standby import lag_of
from clinic_backups.tenant.tenant_db import Snapshot


@dataclass(frozen=True)
class DataTime:
    """The time of the rows in a snapshot.

    :param at: by the catalog's clock; the age of the data is counted from it.
    :param shown: by the database's own clock. The manifest has it.
    :param read_from: for a point in time: the database that was read, for people.
    """

    at: datetime
    shown: datetime
    read_from: str | None = None


AskTime = Callable[[Snapshot, datetime], DataTime]
"""Gets a snapshot and the time when its backup began, by the catalog's clock."""


def of_now(most_seconds: float) -> AskTime:
    """The present; of a standby: the time of its data. It raises what :func:`lag_of` raises."""

    def ask(snapshot: Snapshot, started_at: datetime) -> DataTime:
        replayed = snapshot.replayed()
        return DataTime(started_at - lag_of(replayed, most_seconds), replayed.replayed_at or replayed.now)

    return ask
