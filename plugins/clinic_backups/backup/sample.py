"""Which clinics' rows a night compares, if it does not compare those of all."""

from __future__ import annotations

import zlib
from collections.abc import Collection
from dataclasses import dataclass

from clinic_backups.base.clinic_id import ClinicId, in_order


@dataclass(frozen=True)
class Sample:
    """Some of the clinics.

    :param of: how many clinics there are.
    :param nights: in so many nights each clinic is compared once.
    """

    clinics: tuple[ClinicId, ...]
    of: int
    nights: int

    @classmethod
    def of_night(cls, clinics: Collection[ClinicId], nights: int, turn: int) -> Sample | None:
        """The clinics of this night; none if each night compares all.

        A clinic's night follows from its id alone: a new clinic moves no other one to a night that is over.

        :param turn: the number of the run among those that compare rows. A date would leave clinics out if the schedule
            leaves days out, as Mondays to Fridays with seven nights, or if a run begins after midnight.
        """
        if nights == 1:
            return None
        night = turn % nights
        chosen = (id_ for id_ in clinics if zlib.crc32(str(id_).encode()) % nights == night)
        return cls(tuple(in_order(chosen)), len(clinics), nights)

    def said(self, tables: int) -> str:
        """What was compared."""
        return (
            f"{tables} tables were compared with the backups of {len(self.clinics):,} of {self.of:,} clinics. In"
            f" {self.nights} nights each clinic is compared once (CLINIC_BACKUPS_COMPARE_NIGHTS). Rows that belong to"
            " no clinic were not counted."
        )
