"""Rows that must not come back: a comparison counts them, and gives neither their keys nor their values."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace

from clinic_backups.base.clinic_id import ClinicId
from clinic_backups.base.text import one_line
from clinic_backups.catalog.forgotten import ForgottenOfClinic
from clinic_backups.differences.found import RowDifference
from clinic_backups.differences.sides import Side
from clinic_backups.restore.leaving_out import asked_about
from clinic_backups.restore.left_out import CannotTell, LeftOut, Read
from clinic_backups.restore.links_now import NOT_ASKED, LinksNow, nobody_knows
from clinic_backups.tenant.drift import Drift


@dataclass(frozen=True)
class HiddenRows:
    """Tells such rows in the states that are compared.

    :param sides: one for each state that has such rows. What belongs to them is looked for in each.
    :param is_asked: whether the clinics' database said which links there are now.
    :param whole: the tables in which it cannot be told which rows these are. All rows of them are hidden.
    """

    sides: Sequence[LeftOut] = ()
    whole: frozenset[str] = frozenset()
    is_asked: bool = True

    @classmethod
    def of(
        cls, clinic_id: ClinicId, sides: Sequence[Side], forgotten: Callable[[ClinicId], ForgottenOfClinic],
        drift: Callable[[], Drift], tables: Collection[str], links: LinksNow = nobody_knows,
    ) -> HiddenRows:  # fmt: skip
        """Look into both states. They are read once more, if rows of the clinic are forgotten.

        :param tables: the tables that are compared; if empty, all tables.
        """
        requests = forgotten(clinic_id)
        if not requests.tables:
            return cls()
        found, whole, renamed, now = list[LeftOut](), set[str](), drift(), links(clinic_id)
        for side in sides:
            left_out = asked_about(
                side.tables, requests, renamed, tables=tables, links=now or (), database=side.database,
                moment=side.moment,
            )  # fmt: skip
            if left_out is None:
                continue
            try:
                left_out.find(_reader(side))
            except CannotTell:
                whole |= left_out.concerned
            else:
                found.append(left_out)
                whole |= left_out.below_not_followed
        return cls(found, frozenset(whole), is_asked=now is not None)

    @property
    def notes(self) -> list[str]:
        """What is hidden besides such rows, and what is not known, as sentences."""
        return [
            *([] if self.is_asked else [NOT_ASKED]),
            *(
                one_line(
                    f"{name}: no row is shown. Rows of it may belong to forgotten ones, and it cannot be told which do."
                )
                for name in sorted(self.whole)
            ),
            *dict.fromkeys(said for side in self.sides for said in side.past_notes),
        ]

    def shown(self, row: RowDifference) -> RowDifference:
        """The row, or only that it is forgotten or hidden."""
        if any(self._is_out(side, row) for side in self.sides):
            return replace(row, key=(), before=None, after=None, is_forgotten=True)
        if row.table in self.whole:
            return replace(row, key=(), before=None, after=None, is_hidden=True)
        return row

    def _is_out(self, side: LeftOut, row: RowDifference) -> bool:
        columns = side.columns_of(row.table) if row.table in side.concerned else ()
        for values in (row.before, row.after):
            if columns and values is not None:
                texts = [values.get(name) for name in columns]
                if side.stays_out(row.table, [None if text is None else text.encode() for text in texts]):
                    return True
        return False


def _reader(side: Side) -> Read:
    def read(names: Collection[str], use: Callable[[str, bytes], object]) -> None:
        side.read({name: Counter() for name in names}, {}, lambda name, data, _times: use(name, data))

    return read
