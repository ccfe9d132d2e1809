"""What retention or an erasure did to one clinic's backups."""

from __future__ import annotations

from dataclasses import dataclass, field

from clinic_backups.base.backup_record import BackupRecord
from clinic_backups.base.clinic_id import ClinicId
from clinic_backups.base.errors import ClinicBackupsError
from clinic_backups.base.replica import Loss
from clinic_backups.base.retention_rules import Decision
from clinic_backups.catalog.erasures import Erasure
from clinic_backups.catalog.locks import AlreadyRunning


@dataclass
class Cleaned:
    """The result for one clinic's backups.

    :param busy: the problem is that another process works on the clinic.
    :param losses: replicas that should be there but are not.
    """

    clinic_id: ClinicId
    decisions: list[Decision] = field(default_factory=list)
    deleted: int = 0
    problem: str = ""
    hint: str = ""
    busy: bool = False
    losses: list[Loss] = field(default_factory=list)
    erasure: Erasure | None = None

    @property
    def kept(self) -> int:
        return sum(decision.keep for decision in self.decisions)

    def fail(self, error: ClinicBackupsError) -> None:
        """Record a problem, unless there is one already."""
        if not self.problem:
            self.busy = isinstance(error, AlreadyRunning)
            self.problem = error.message
            self.hint = "The next run will clean this clinic." if self.busy else error.hint

    def erases(self, record: BackupRecord) -> bool:
        """Whether an erasure of the clinic covers this backup."""
        return self.erasure is not None and self.erasure.covers(record)
