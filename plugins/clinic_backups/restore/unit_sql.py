"""The SQL of the unit that is restored: a clinic's extracts, or the queries of the shared unit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from clinic_backups.base.clinic_id import ClinicId
from clinic_backups.base.connections import Connection
from clinic_backups.base.settings import Settings
from clinic_backups.base.shared_unit import is_shared
from clinic_backups.tenant import shared_gate
from clinic_backups.tenant.extract import SqlExtract, SqlFolder


@dataclass(frozen=True)
class SharedFolder(SqlFolder):
    """The SQL folder as a restore of the shared unit sees it: each of its tables is a parent table.

    Rows of all clinics refer to them, and other rows of the same tables belong to clinics. So a restore inserts what is
    missing, and changes and deletes nothing.
    """

    tables: tuple[str, ...] = ()

    def parents(self) -> dict[str, str]:
        """All tables of the shared unit. Nothing renders their queries."""
        return dict.fromkeys(self.tables, "")


def folder_of(settings: Settings, clinic_id: ClinicId) -> SqlFolder:
    """The SQL folder for what needs no table: the hooks, of which the shared unit has none."""
    return SharedFolder(settings.sql_dir) if is_shared(clinic_id) else SqlFolder(settings.sql_dir)


def unit_sql(database: Connection, settings: Settings, clinic_id: ClinicId) -> tuple[SqlFolder, dict[str, str]]:
    """The SQL folder, and the SELECT of each table of a unit in this database.

    :raises PermanentError: see :func:`clinic_backups.tenant.shared_gate.wanted`.
    :raises SettingsError: a file of the folder is missing or wrong.
    """
    folder = SqlFolder(settings.sql_dir)
    if not is_shared(clinic_id):
        return folder, SqlExtract().rendered(folder, clinic_id)
    queries: Mapping[str, str] = shared_gate.wanted(database, folder, **settings.timeouts).queries
    return SharedFolder(folder.path, tables=tuple(queries)), dict(queries)
