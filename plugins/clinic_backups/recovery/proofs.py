"""Proves what a recovery has made: each unit block by block, and that no table is empty without a reason."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path

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
from clinic_backups.tenant.extract import SqlFolder

MANY_ROWS = 300_000
"""From so many rows on, processes are worth their start."""


@dataclass(frozen=True)
class Proof:
    """The proof of all units.

    :param folder: the SQL folder of the shared unit's archive.
    :param replaced: the rows of which a newer backup's version was kept.
    :param failed: why nothing of a unit was loaded.
    """

    connection: Connection
    folder: SqlFolder
    manifests: Mapping[ClinicId, Manifest]
    replaced: Sequence[Replaced]
    failed: Mapping[ClinicId, str]
    listener: Listener

    def of(self, choices: Sequence[Choice], jobs: int) -> list[UnitReport]:
        """Read the units back, several at once."""
        manifests = [self.manifests[choice.unit] for choice in choices]
        work = partial(_compared, self.connection, self.folder.path)
        rows = sum(content.rows for manifest in manifests for content in manifest.tables.values())
        # Python runs one thread at a time, and cutting rows into blocks is its own work.
        with _threads(jobs) if jobs == 1 or rows < MANY_ROWS else _processes(jobs) as pool:
            return [self._told(*each) for each in zip(choices, manifests, pool.map(work, manifests), strict=True)]

    def _told(self, choice: Choice, manifest: Manifest, compared: tuple[list[Difference], str]) -> UnitReport:
        found = UnitReport(choice, sum(content.rows for content in manifest.tables.values()))
        different, problem = compared
        if choice.unit in self.failed:
            found.problems.append(self.failed[choice.unit])
            return found
        if problem:
            found.problems.append(f"It could not be read back: {problem}")
        for each in different:
            # All tables of the shared unit are parents of clinics' rows. What it holds of them is in no clinic.
            self._explain(found, each, manifest.tables[each.table].is_parent and not is_shared(choice.unit))
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


def _compared(connection: Connection, folder: Path, manifest: Manifest) -> tuple[list[Difference], str]:
    """The differences of one unit, or why it could not be read. Runs in a process of its own."""
    try:
        return differences(connection, manifest, SqlFolder(folder)), ""
    except ClinicBackupsError as error:
        return [], error.message


def _threads(jobs: int) -> Executor:
    return ThreadPoolExecutor(jobs, thread_name_prefix="proof")


def _processes(jobs: int) -> Executor:
    # Not by fork: this process has threads and connections.
    return ProcessPoolExecutor(jobs, mp_context=get_context("spawn"))
