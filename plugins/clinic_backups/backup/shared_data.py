"""The part of a backup that differs for the shared unit: its queries, its gate and its files."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from clinic_backups.backup.service_files import ServiceFiles
from clinic_backups.base.backup_facts import Gap
from clinic_backups.base.backup_request import BackupRequest
from clinic_backups.base.connections import Connection
from clinic_backups.base.kept_connections import KeptConnections
from clinic_backups.base.settings import Settings
from clinic_backups.base.table import Table
from clinic_backups.tenant import gate, shared_gate
from clinic_backups.tenant.described_tables import require_nameable
from clinic_backups.tenant.extract import SqlFolder
from clinic_backups.tenant.tenant_db import Snapshot


def queries(
    connection: Connection, folder: SqlFolder, settings: Settings, kept: KeptConnections | None
) -> dict[str, str]:
    """The SELECT of each table. See :func:`clinic_backups.tenant.shared_gate.wanted`."""
    return dict(shared_gate.wanted(connection, folder, kept, **settings.timeouts).queries)


def passed(
    snapshot: Snapshot, folder: SqlFolder, request: BackupRequest, wanted: Mapping[str, str], connection: Connection,
    settings: Settings, *, pause: Callable[[float], object],
) -> tuple[dict[str, Table], tuple[Gap, ...], Mapping[str, bytes]]:  # fmt: skip
    """Check what the backup will hold, and make its files.

    :param wanted: see :func:`queries`. The snapshot has locked their tables.
    :param pause: raises if the backup is to stop.
    :returns: the tables to read, what the backup lacks, and the files.
    :raises PermanentError: the backup would be incomplete, and the request does not allow that.
    """
    found = list(shared_gate.passed(snapshot, folder, wanted).problems)
    gate.require_complete(found, request)
    require_nameable(wanted)
    tables = snapshot.tables(sorted(wanted))
    files = ServiceFiles(
        snapshot, connection, folder, tools=settings.postgres_bin,
        lock_timeout_seconds=settings.lock_timeout_seconds, timeout_seconds=settings.read_seconds,
    )  # fmt: skip
    made = files.made(pause)
    found += files.problems
    gate.require_complete(found, request)
    return tables, gate.gaps(found), made
