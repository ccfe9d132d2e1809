"""Proves what a recovery has made: each unit block by block, and that no table is empty without a reason."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from clinic_backups.archive.reader import Manifest
from clinic_backups.base.clinic_id import ClinicId
from clinic_backups.base.connections import Connection
from clinic_backups.base.errors import ClinicBackupsError, TransientError
from clinic_backups.base.listening import Listener
from clinic_backups.base.shared_unit import is_shared, named
from clinic_backups.recovery import duplicates
from clinic_backups.recovery.choice import Choice
from clinic_backups.recovery.duplicates import Replaced
from clinic_backups.recovery.proof import Difference, differences
from clinic_backups.recovery.report import UnitReport
from clinic_backups.recovery.together import Group, Proven, Together
from clinic_backups.restore.leaving_out import Leaving
from clinic_backups.tenant.extract import SqlFolder

AtOnce = Callable[[Callable[[Any], Any], Iterable[Any]], list[Any]]


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

    def of_all(self, choices: Sequence[Choice], at_once: AtOnce) -> list[UnitReport]:
        """Read all units back: clinics together, as far as that can be done, then each by itself.

        :param at_once: does work for all items, some of them at once.
        """
        together = Together(self.connection, self.folder, self.manifests)
        differing = {each.unit for each in self.replaced if each.differing}
        without = [unit for unit in self.manifests if unit in self.failed or unit in self.leaving
                   or str(unit) in differing]  # fmt: skip

        def compare(group: Group) -> Proven:
            found = group.proven if together.holds(group) else frozenset()
            many = f"{group.table.name} of {len(group.clinics):,} clinics"
            self.listener.step(f"{many} is as in the backups" if found else f"{many} is compared for each by itself")
            return found

        proven = frozenset[tuple[ClinicId, str]]().union(*at_once(compare, together.groups(without)))
        return list(at_once(lambda choice: self.of(choice, proven), choices))

    def of(self, choice: Choice, proven: Proven = frozenset()) -> UnitReport:
        """Read one unit back. :param proven: what was read already."""
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
            known = [name for name in manifest.tables if (choice.unit, name) in proven]
            different = differences(self.connection, manifest, self.folder, leaving, known)
        except TransientError:
            raise  # it says nothing of the rows: the same command goes on from here
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
