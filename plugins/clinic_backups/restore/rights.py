"""Completes the error about a missing right with the role, the database and the statement that grants it."""

from __future__ import annotations

import re

from clinic_backups.base.connections import Connection
from clinic_backups.base.errors import PermanentError
from clinic_backups.restore.target import ask
from clinic_backups.tenant.tenant_db import Snapshot

_DENIED = re.compile(r"permission denied for (table|view|schema|sequence|function|database) (\S+)")
_LIMITED = "row-level security policy"
_RIGHTS = {
    "table": "SELECT ON TABLE",
    "view": "SELECT ON",
    "schema": "USAGE ON SCHEMA",
    "sequence": "SELECT, UPDATE ON SEQUENCE",
    "function": "EXECUTE ON FUNCTION",
    "database": "TEMPORARY ON DATABASE",
}


def lacking_right(connection: Connection, error: PermanentError) -> PermanentError:
    """The same error, with the role, its connection and the missing right."""
    with Snapshot(connection) as snapshot:
        target = ask(snapshot)
        ((role, database),) = snapshot.rows(
            "SELECT quote_ident(current_user), quote_ident(current_database())", None, "asking for the role"
        )
    denied = _DENIED.search(error.message)
    if denied:
        name = f"{denied[2].rstrip('.)')}"
        hint = f"GRANT {_RIGHTS[denied[1]]} {name} TO {role};"
        if denied[1] == "table":
            hint += " Where a restore writes to it: INSERT, UPDATE and DELETE as well."
    elif _LIMITED in error.message:
        hint = (
            f"ALTER ROLE {role} BYPASSRLS; as a superuser. Or let {role} own the table, without FORCE ROW LEVEL"
            " SECURITY. A restore needs all rows of the clinic, and policies hide rows from this role."
        )
    elif "temporary" in error.message:
        hint = f"GRANT TEMPORARY ON DATABASE {database} TO {role};"
    else:
        hint = f"Grant {role} what is denied, or name another role in the connection {connection.conn_id}."
    return PermanentError(
        f"{error.message} The connection {connection.conn_id} uses the role {role}, in {target.name}.", hint=hint
    )
