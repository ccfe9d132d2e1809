"""Nobody adds code to a table that is about to be written."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from clinic_backups.base.connections import Connection
from clinic_backups.restore.workspace import Workspace
from clinic_backups.tenant.pg_catalog import catalog_query
from clinic_backups.tenant.tenant_db import Snapshot


def shut_out_strangers(
    workspace: Workspace,
    connection: Connection,
    written: Iterable[str],
    require: Callable[[Snapshot], object],
) -> None:
    """Take the locks of a writer before the first row is written, and ask again whose code would run.

    CREATE TRIGGER needs only a right on the table, and waits for no reader. From now on it waits. What was added
    before is not seen by this transaction, but it would fire. So another transaction asks.

    :param connection: connection data of the same database, for the second transaction.
    :param written: the tables. Those that a foreign key writes with them are locked too.
    :param require: raises an error if the code of a stranger would run.
    :raises TransientError: somebody else holds a lock.
    """
    query = catalog_query("writable", written_tables="written_tables")
    found = workspace.rows(query, {"written": sorted(set(written))}, "asking which tables this role may write")
    if found:
        tables = ", ".join(name for (name,) in found)
        workspace.execute(f"LOCK TABLE {tables} IN ROW EXCLUSIVE MODE", "locking the tables that are written")
    with Snapshot(connection, trusted_owners=workspace.trusted_owners, kept=workspace.beside) as now:
        require(now)
