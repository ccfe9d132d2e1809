"""The condition of a replica, and its loss."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from clinic_backups.base.backup_record import BackupRecord
from clinic_backups.base.clinic_id import ClinicId

Condition = Literal["intact", "missing", "damaged"]
"""The state of an archive in one store."""
ReplicaProblem = Literal["missing", "damaged"]
LossProblem = Literal["missing", "damaged", "incomplete"]
"""incomplete: the archive is there, but one that it is built on is missing."""


@dataclass(frozen=True)
class Loss:
    """A replica that the catalog lists is missing in its store, or differs from what was stored."""

    clinic_id: ClinicId
    clinic_name: str
    backup_id: str
    store_url: str
    problem: LossProblem

    @classmethod
    def of(cls, record: BackupRecord, store_url: str, problem: LossProblem) -> Loss:
        """Make the loss of one replica of a backup."""
        return cls(record.clinic_id, record.clinic_name, record.backup_id, store_url, problem)
