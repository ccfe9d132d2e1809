"""Rows that must not come back: a comparison counts them, and gives neither their keys nor their values."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace

from clinic_backups.base.clinic_id import ClinicId
from clinic_backups.catalog.forgotten import ForgottenOfClinic
from clinic_backups.differences.found import RowDifference
from clinic_backups.restore.archives import Archives, Source
from clinic_backups.restore.leaving_out import looked_for
from clinic_backups.restore.left_out import LeftOut
from clinic_backups.tenant.drift import Drift


@dataclass(frozen=True)
class HiddenRows:
    """Tells such rows in the backups that are compared.

    :param backups: one for each backup that has such rows. What belongs to them is looked for in each.
    """

    backups: Sequence[LeftOut] = ()

    @classmethod
    def of(
        cls, clinic_id: ClinicId, sources: Sequence[Source], archives: Callable[[], Archives],
        forgotten: Callable[[ClinicId], ForgottenOfClinic], drift: Callable[[], Drift], tables: Collection[str],
    ) -> HiddenRows:  # fmt: skip
        """Look into the backups. They are read once more, if rows of the clinic are forgotten.

        :param tables: the tables that are compared; if empty, all tables.
        """
        requests = forgotten(clinic_id)
        if not requests.tables or not sources:
            return cls()
        reader, renamed = archives(), drift()
        found = (looked_for(reader, reader.fetch(source), requests, renamed, tables=tables) for source in sources)
        return cls([each for each in found if each is not None])

    def shown(self, row: RowDifference) -> RowDifference:
        """The row, or only that it is forgotten."""
        if any(self._is_out(backup, row) for backup in self.backups):
            return replace(row, key=(), before=None, after=None, is_forgotten=True)
        return row

    def _is_out(self, backup: LeftOut, row: RowDifference) -> bool:
        columns = backup.columns_of(row.table) if row.table in backup.concerned else ()
        for values in (row.before, row.after):
            if columns and values is not None:
                texts = [values.get(name) for name in columns]
                if backup.stays_out(row.table, [None if text is None else text.encode() for text in texts]):
                    return True
        return False
