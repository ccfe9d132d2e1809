"""Proves many clinics at once: one query for each table gives the rows of all of them, one clinic after the other.

A query for each clinic and each table would cost more than the rows of small clinics. What is not as in the backups, or
cannot be asked for in this way, is left to :mod:`~clinic_backups.recovery.proof`, which names the clinic and the table.
"""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial

from clinic_backups.archive.blocks import BlockList
from clinic_backups.archive.reader import Manifest
from clinic_backups.base.clinic_id import ClinicId
from clinic_backups.base.connections import Connection
from clinic_backups.base.errors import ClinicBackupsError, SettingsError
from clinic_backups.base.shared_unit import is_shared
from clinic_backups.base.table import Table
from clinic_backups.restore.read_blocks import blocks_of
from clinic_backups.tenant import at_once
from clinic_backups.tenant.every_clinic import for_every_clinic, number_type, of_type
from clinic_backups.tenant.extract import SqlFolder
from clinic_backups.tenant.row_sql import BackupRows
from clinic_backups.tenant.tenant_db import Snapshot

GROUP_BYTES = 256 * 1024 * 1024
"""So many bytes of rows are asked for at once: the server sorts them. A clinic with more is asked for alone."""
_PLANNING = "SELECT set_config('max_parallel_workers_per_gather', '0', true), set_config('work_mem', '64MB', true)"
"""Other sessions prove other tables meanwhile."""
Proven = frozenset[tuple[ClinicId, str]]
"""Clinics and tables whose rows are as in the backup."""


@dataclass(frozen=True)
class Group:
    """Clinics whose rows of one table are compared at once, in the server's order of their ids."""

    table: Table
    clinics: tuple[ClinicId, ...]
    size_bytes: int

    @property
    def proven(self) -> Proven:
        """What is proven if the rows are as in the backups."""
        return frozenset((clinic, self.table.name) for clinic in self.clinics)


class Together:
    """The comparison of many clinics at once.

    :param folder: the backed-up SQL folder.
    :param manifests: those of the backups that were loaded.
    """

    def __init__(self, target: Connection, folder: SqlFolder, manifests: Mapping[ClinicId, Manifest]) -> None:
        self._target, self._folder, self._manifests = target, folder, manifests
        clinics = frozenset(unit for unit in manifests if not is_shared(unit))
        types = sorted({number_type([clinic], folder.clinic_key) for clinic in clinics})
        # Each type of ids has statements of its own. One large number leaves the other clinics together.
        self._of_type = {type_: of_type(clinics, type_) for type_ in types}

    def groups(self, without: Collection[ClinicId] = ()) -> list[Group]:
        """The groups of at least two clinics, the largest first. None for what cannot be asked for at once.

        :param without: clinics whose rows are known to differ.
        :raises ClinicBackupsError: the database does not answer.
        """
        found = list[Group]()
        for type_, of_it in self._of_type.items():
            clinics = self._in_order(of_it - {*without})
            found += [group for name in self._extracts[type_] for group in self._of_table(name, clinics)]
        return sorted(found, key=lambda group: -group.size_bytes)

    def holds(self, group: Group) -> bool:
        """Whether all rows of these clinics are as in their backups: each row in its clinic, in order, and no other."""
        name, key = group.table.name, self._folder.clinic_key
        ids = ", ".join(f"({key.literal(clinic)})" for clinic in group.clinics)
        clinics = f"SELECT v.id, ''::text AS name, ''::text AS language FROM (VALUES {ids}) AS v (id)"  # noqa: S608
        expected, counts = BlockList(), dict[str, int]()
        for clinic in group.clinics:
            content = self._manifests[clinic].tables[name]
            expected.extend(content.blocks)
            if content.rows:
                counts[str(clinic)] = content.rows
        try:
            with Snapshot(self._target) as snapshot:
                snapshot.rows(_PLANNING, None, "preparing the proof")
                extracts = self._extracts[number_type(group.clinics, key)]
                rows = BackupRows({name: extracts[name]}, clinics, [group.table])
                rows.hasten(partial(at_once.faster, snapshot))
                first, query = snapshot.text_of(rows.clinic), rows.of(name)
                # The bytes do not say where one clinic ends: its last row might be the next one's first.
                counting = f"SELECT r.{first}::text, count(*) FROM (\n{query}\n) AS r GROUP BY 1"  # noqa: S608
                if dict(snapshot.rows(counting, None, f"counting {name}")) != counts:
                    return False
                return blocks_of(snapshot, group.table, query, expected, first=first).equals(expected)
        except ClinicBackupsError:
            return False  # each clinic by itself is asked next, and says what is wrong

    @cached_property
    def _extracts(self) -> Mapping[str, Mapping[str, str]]:
        """By the type of ids, and by table."""
        found: dict[str, dict[str, str]] = {type_: {} for type_ in self._of_type}
        for name, text in self._folder.queries().items():
            for type_, statements in found.items():
                # Where its meaning for all clinics at once is not known, each is asked for alone.
                with contextlib.suppress(SettingsError):
                    statements[name] = for_every_clinic(text, name=name, type_=type_)
        return found

    def _of_table(self, name: str, clinics: Sequence[ClinicId]) -> list[Group]:
        """Neighbours in the order of ids, as many as are small enough, whose backups have the same definition."""
        found, sizes = list[tuple[Table, list[ClinicId]]](), list[int]()
        for clinic in clinics:
            content = self._manifests[clinic].tables.get(name)
            if content is None:
                continue
            size = content.blocks.size_bytes
            if not found or found[-1][0] != content.table or sizes[-1] + size > GROUP_BYTES:
                found.append((content.table, []))
                sizes.append(0)
            found[-1][1].append(clinic)
            sizes[-1] += size
        groups = (Group(table, tuple(members), size) for (table, members), size in zip(found, sizes, strict=True))
        return [group for group in groups if len(group.clinics) > 1]

    def _in_order(self, clinics: Iterable[ClinicId]) -> list[ClinicId]:
        """As the server orders ids: texts by the collation of its own."""
        found, key = list(clinics), self._folder.clinic_key
        if not found:
            return []
        ids = ", ".join(f"({key.literal(clinic)}, {number})" for number, clinic in enumerate(found))
        with Snapshot(self._target) as snapshot:
            query = f"SELECT v.number FROM (VALUES {ids}) AS v (id, number) ORDER BY v.id"  # noqa: S608
            return [found[number] for (number,) in snapshot.rows(query, None, "ordering the clinics")]
