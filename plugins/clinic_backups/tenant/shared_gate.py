"""The gate before a backup of the shared unit, as :mod:`clinic_backups.tenant.gate` is the one before a clinic's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Unpack

from clinic_backups.base.connections import Connection
from clinic_backups.base.errors import TransientError
from clinic_backups.base.kept_connections import KeptConnections
from clinic_backups.base.settings import Timeouts
from clinic_backups.tenant import structure
from clinic_backups.tenant.clinic_key_check import require_key
from clinic_backups.tenant.extract import SqlFolder
from clinic_backups.tenant.shared_rows import SharedRows, shared_rows, shared_tables
from clinic_backups.tenant.strangers import refuse, require_no_strangers, strangers_of_folder
from clinic_backups.tenant.tenant_db import Snapshot

_DOING = "The backup of the shared data"


def wanted(
    connection: Connection, folder: SqlFolder, kept: KeptConnections | None = None, **timeouts: Unpack[Timeouts]
) -> SharedRows:
    """What the shared unit holds now: its queries, before their tables are locked.

    :raises PermanentError: code of strangers would run; or see :func:`clinic_backups.tenant.shared_rows.shared_rows`.
    """
    with Snapshot(connection, kept=kept, **timeouts) as snapshot:
        require_key(snapshot, folder)
        tables = shared_tables(structure.read(snapshot), folder)
        refuse(strangers_of_folder(snapshot, folder, folder.clinic_key.sample, tables=tables), _DOING)
        return shared_rows(snapshot, folder)


def passed(snapshot: Snapshot, folder: SqlFolder, queries: Mapping[str, str]) -> SharedRows:
    """The same in the snapshot that is backed up.

    :param queries: those of :func:`wanted`, whose tables the snapshot has locked.
    :raises PermanentError: see :func:`wanted`.
    :raises TransientError: the queries would be others now.
    """
    require_no_strangers(snapshot, folder, queries, _DOING, unlocked=[folder.text("all_clinics.sql")])
    found = shared_rows(snapshot, folder)
    if dict(found.queries) != dict(queries):
        raise TransientError(
            "The tables, or the keys of the clinics, changed while the backup of the shared data began.",
            hint="A retry asks for them again.",
        )
    return found
