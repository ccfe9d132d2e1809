"""The options and the result of comparing a store with the catalog."""

from __future__ import annotations

from dataclasses import dataclass, field

from clinic_backups.base.clinic_id import ClinicId
from clinic_backups.base.errors import ClinicBackupsError
from clinic_backups.base.replica import Condition, Loss
from clinic_backups.maintenance.discrepancies import WRONG, Discrepancy
from clinic_backups.stores import condition as stored


@dataclass(frozen=True)
class Task:
    """The options of a check.

    :param record: record missing, damaged and found replicas in the catalog, and write missing envelopes and notes.
    :param sweep: remove debris and unfinished uploads that are older than a day.
    :param read: read every archive and compare its SHA-256, and its envelope. Otherwise size and the store's own
        checksum or mark are compared, and an object is read only if its mark has changed.
    :param only: check only these backups, all of one clinic.
    """

    record: bool = False
    sweep: bool = False
    read: bool = False
    only: frozenset[str] | None = None

    def concerns(self, backup_id: str | None) -> bool:
        """Whether that backup is to be checked; none stands for objects of unknown backups."""
        return self.only is None or backup_id in self.only


@dataclass
class Inventory:
    """The findings in one store.

    :param objects: number of backups' objects that were checked.
    :param other_objects: number of objects of other programs, which were left alone.
    :param read: condition of each archive that was read, by backup id.
    :param archives: condition of each archive in the catalog, as far as it was checked, by backup id.
    :param lost: replicas that were recorded as lost before and still are: store and catalog agree about them.
    :param losses: replicas that are recorded as lost now; the operator's mail about them is in the outbox.
    :param problems: what could not be checked or corrected, as (clinic or key, error).
    :param unchecked: clinics that could not be checked because of an error.
    """

    store_url: str
    objects: int = 0
    other_objects: int = 0
    read: dict[str, Condition] = field(default_factory=dict)
    archives: dict[str, stored.Told] = field(default_factory=dict)
    discrepancies: list[Discrepancy] = field(default_factory=list)
    lost: list[Discrepancy] = field(default_factory=list)
    losses: list[Loss] = field(default_factory=list)
    problems: list[tuple[str, ClinicBackupsError]] = field(default_factory=list)
    unchecked: list[ClinicId] = field(default_factory=list)

    @property
    def wrong(self) -> list[Discrepancy]:
        """The differences that need somebody's attention."""
        return [item for item in (*self.discrepancies, *self.lost) if item.kind in WRONG]

    @property
    def not_compared(self) -> list[str]:
        """Backups of which only the size was compared: the store has no mark of them, and they were not read."""
        return [backup_id for backup_id, condition in self.archives.items() if condition == "not compared"]
