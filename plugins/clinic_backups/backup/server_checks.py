"""Checks settings of the clinics' server that backups depend on."""

from __future__ import annotations

from collections.abc import Iterable

from clinic_backups.base.findings import Report
from clinic_backups.tenant.pg_catalog import catalog_query
from clinic_backups.tenant.tenant_db import Snapshot

AT_A_TIME = 4
"""The number of backups that should be able to run at once."""


def check_locks(snapshot: Snapshot, tables: Iterable[str], report: Report) -> None:
    """Check that the server's lock table has room for a backup's locks on each table, partition, child and index."""
    ((needed, room),) = snapshot.rows(catalog_query("lock_room"), {"names": sorted(tables)}, "counting locks")
    hint = (
        "Raise max_locks_per_transaction of the server, and restart it. Each partition and each index of a table that"
        " is read needs a lock."
    )
    if needed > room:
        report.error("database", f"A backup needs {needed} locks, but the server has room for only {room}.", hint)
    elif needed * AT_A_TIME > room:
        report.warn(
            "database",
            f"A backup needs {needed} locks, and the server has room for {room}: fewer than {AT_A_TIME} backups"
            " can run at a time, and other sessions need locks too.",
            hint,
        )


def check_encoding(snapshot: Snapshot, report: Report) -> None:
    """Check that the database's encoding makes PostgreSQL check its texts."""
    ((encoding,),) = snapshot.rows("SHOW server_encoding", None, "asking for the encoding")
    if encoding == "SQL_ASCII":
        report.warn(
            "database",
            "The database has the encoding SQL_ASCII, in which PostgreSQL accepts any bytes as text. A row whose bytes"
            " are not UTF-8 can be backed up but not restored.",
            "Move the database into one with the encoding UTF8: pg_dump, and CREATE DATABASE … ENCODING 'UTF8' TEMPLATE"
            " template0.",
        )
