"""What the clinics' server is set to, as far as a backup depends on it."""

from __future__ import annotations

from collections.abc import Iterable

from clinic_backups.base.findings import Report
from clinic_backups.tenant.pg_catalog import catalog_query
from clinic_backups.tenant.tenant_db import Snapshot

AT_A_TIME = 4
"""So many backups should be able to run at once."""


def check_locks(snapshot: Snapshot, tables: Iterable[str], report: Report) -> None:
    """The server's table of locks has room for those of a backup: on each table, partition, child and index."""
    ((needed, room),) = snapshot.rows(catalog_query("lock_room"), {"names": sorted(tables)}, "counting locks")
    hint = (
        "Raise max_locks_per_transaction of the server, and restart it. Each partition and each index of a table that"
        " is read needs a lock."
    )
    if needed > room:
        report.error("database", f"A backup needs {needed} locks, and the server has room for {room} in all.", hint)
    elif needed * AT_A_TIME > room:
        report.warn(
            "database",
            f"A backup needs {needed} locks, and the server has room for {room} in all: fewer than {AT_A_TIME} backups"
            " can run at a time, and other sessions need locks too.",
            hint,
        )


def check_encoding(snapshot: Snapshot, report: Report) -> None:
    """Texts are what PostgreSQL has checked to be texts."""
    ((encoding,),) = snapshot.rows("SHOW server_encoding", None, "asking for the encoding")
    if encoding == "SQL_ASCII":
        report.warn(
            "database",
            "The database has the encoding SQL_ASCII: PostgreSQL keeps any bytes as texts there. A row whose bytes are"
            " not UTF-8 is backed up, and cannot be restored.",
            "Move the database into one with the encoding UTF8: pg_dump, and CREATE DATABASE … ENCODING 'UTF8' TEMPLATE"
            " template0.",
        )
