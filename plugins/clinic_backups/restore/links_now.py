"""The links between the tables of the clinics' database as it is now, for what takes rows out of older backups.

A foreign key that was added since shows what belongs to a forgotten row, too.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import replace

from clinic_backups.base.clinic_id import ClinicId
from clinic_backups.base.connections import Connection
from clinic_backups.base.errors import ClinicBackupsError
from clinic_backups.base.settings import Settings
from clinic_backups.base.shared_unit import is_shared
from clinic_backups.restore.ownership.ways import links_in
from clinic_backups.restore.table_rules import Reference, read_references
from clinic_backups.tenant.drift import Drift
from clinic_backups.tenant.extract import SqlFolder
from clinic_backups.tenant.tenant_db import Snapshot

LinksNow = Callable[[ClinicId], Sequence[Reference] | None]
"""The links between the tables of a clinic; none if the database does not answer."""
NOT_ASKED = (
    "The clinics' database did not answer. So what belongs to forgotten rows was found by the backup's own foreign keys"
    " and by columns named like one, and not by foreign keys that were added since."
)


def nobody_knows(_: ClinicId) -> None:
    """For those who have no database."""


def links_of_now(snapshot: Snapshot, folder: SqlFolder, clinic_id: ClinicId) -> tuple[Reference, ...]:
    """All foreign keys of the tables with an extract, and columns named like one."""
    keys = read_references(snapshot, sorted(folder.extracts()))
    if is_shared(clinic_id):
        return keys
    known = {(link.child, link.columns, link.parent) for link in keys}
    return (
        *keys,
        *(
            link
            for link in links_in(snapshot, folder, clinic_id)
            if (link.child, link.columns, link.parent) not in known
        ),
    )


def links_now(connection: Callable[[], Connection], settings: Settings) -> LinksNow:
    """Asks the database each time."""

    def ask(clinic_id: ClinicId) -> Sequence[Reference] | None:
        try:
            with Snapshot(connection(), **settings.timeouts) as snapshot:
                return links_of_now(snapshot, SqlFolder(settings.sql_dir), clinic_id)
        except ClinicBackupsError:
            return None

    return ask


def under_old_names(links: Sequence[Reference], tables: Collection[str], drift: Drift) -> list[Reference]:
    """The links by the names that a backup has, where ``drift.txt`` says that a table was renamed since."""
    old = {now: name for name in tables for now in drift.path(name) if now not in tables}
    return [
        replace(link, child=old.get(link.child, link.child), parent=old.get(link.parent, link.parent)) for link in links
    ]
