"""Proves what a recovery has made: each unit block by block, and that no table is empty without a reason."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from clinic_backups.archive.reader import Manifest
from clinic_backups.base.clinic_id import ClinicId
from clinic_backups.base.connections import Connection
from clinic_backups.base.errors import ClinicBackupsError
from clinic_backups.base.listening import Listener
from clinic_backups.base.shared_unit import is_shared, named
from clinic_backups.recovery import duplicates
from clinic_backups.recovery.choice import Choice
from clinic_backups.recovery.duplicates import Replaced
from clinic_backups.recovery.proof import Difference, differences
from clinic_backups.recovery.report import UnitReport
from clinic_backups.restore.leaving_out import Leaving
from clinic_backups.tenant.extract import SqlFolder


@dataclass(frozen=True)
class Proof:
    """The proof of all units.

    :param folder: the SQL folder of the shared unit's archive.
    :param replaced: the rows of which a newer backup's version was kept.
    :param failed: why nothing of a unit was loaded.
    :param leaving: what was left out of a unit, because it must not come back.
    """

    connection: Connection
    folder: SqlFolder
    manifests: Mapping[ClinicId, Manifest]
    replaced: Sequence[Replaced]
    failed: Mapping[ClinicId, str]
    leaving: Mapping[ClinicId, Leaving]
    listener: Listener

    def of(self, choice: Choice) -> UnitReport:
        """Read one unit back."""
        manifest = self.manifests[choice.unit]
        found = UnitReport(choice, sum(content.rows for content in manifest.tables.values()))
        if choice.unit in self.failed:
            found.problems.append(self.failed[choice.unit])
            return found
        leaving = self.leaving.get(choice.unit)
        if leaving is not None:
            found.rows -= sum(leaving.rows.values())
            found.left_out, found.emptied = dict(leaving.rows), dict(leaving.emptied)
        try:
            different = differences(self.connection, manifest, self.folder, leaving)
        except ClinicBackupsError as error:
            found.problems.append(f"It could not be read back: {error.message}")
            return found
        for each in different:
            # All tables of the shared unit are parents of clinics' rows. What it holds of them is in no clinic.
            self._explain(found, each, manifest.tables[each.table].is_parent and not is_shared(choice.unit))
        if leaving is not None:
            unlike = {each.table for each in different}
            found.explained += [f"{said} The other rows are as in the backup." for name, said in leaving.said.items()
                                if name not in unlike]  # fmt: skip
            found.explained += [said for name, said in leaving.said.items() if name in unlike]
            found.explained += leaving.notes
        self.listener.step(f"{named(choice.unit)} is {found.state}")
        return found

    def empty(self, tables: Iterable[str]) -> tuple[dict[str, str], list[str]]:
        """The tables that are empty on purpose, with the reason, and those that are empty without one."""
        held = {name for manifest in self.manifests.values() for name in manifest.tables}
        declared, on_purpose, problems = self.folder.declarations(), dict[str, str](), list[str]()
        for name in sorted(set(tables) - held):
            class_ = declared.class_of(name)
            if class_ is not None and class_[0] != "shared":
                on_purpose[name] = f"{class_[0]}: {class_[1]}"
            else:
                problems.append(
                    f"{name} is empty: no backup that was restored holds it, and not_backed_up.txt does not say that"
                    " its rows may be lost."
                )
        return on_purpose, problems

    def _explain(self, unit: UnitReport, found: Difference, is_parent: bool) -> None:
        why = ""
        if not found.problem:
            of, id_ = (found.rows, found.expected_rows), str(unit.choice.unit)
            why = duplicates.explains(self.replaced, found.table, id_, *of, is_parent=is_parent)
        (unit.explained if why else unit.problems).append(f"{found.table}: {why}" if why else found.text)
