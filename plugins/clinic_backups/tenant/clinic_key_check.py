"""Asks the clinics' database whether the key of the clinics' table is what ``clinic_table.txt`` says."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

from clinic_backups.base.connections import Connection
from clinic_backups.base.database_errors import refusal_of
from clinic_backups.base.errors import PermanentError
from clinic_backups.tenant.clinic_key import FILE, line_of, type_of
from clinic_backups.tenant.extract import SqlFolder
from clinic_backups.tenant.pg_catalog import catalog_query
from clinic_backups.tenant.tenant_db import Snapshot

_CONVERTED = re.compile(r"\{\{\s*clinic_id\s*\}\}\s*(?:::|'|\"|AS\b)", re.IGNORECASE)
"""A number that the extract makes a text of: its key may be a text that holds numbers."""
UNKNOWN_OPERATOR = "42883"


@contextmanager
def telling_of_the_key(connection: Connection, folder: SqlFolder) -> Iterator[None]:
    """If the database knows no operator for a comparison inside, look whether the key's type is the reason.

    :raises PermanentError: it is.
    """
    try:
        yield
    except PermanentError as error:
        refused = refusal_of(error)
        if refused is not None and refused.state == UNKNOWN_OPERATOR:
            with Snapshot(connection) as snapshot:
                require_key(snapshot, folder)
        raise


def require_key(snapshot: Snapshot, folder: SqlFolder) -> None:
    """Nothing of the clinics' tables is read. A key that nothing names is not looked at: then ids are numbers.

    :raises PermanentError: the column does not exist, or has another type; says which line to write.
    """
    key, table, path = folder.clinic_key, folder.clinic_table, folder.path / FILE
    column = key.column or min(folder.clinic_columns().get(table, ()), default=None)
    if column is None:
        return
    values = {"table": table, "column": column}
    found = snapshot.rows(catalog_query("clinic_key"), values, "asking for the type of the clinics' key")
    if not found:
        if key.column is None:
            return  # the checks of the extracts report it
        raise PermanentError(
            f"{FILE} names the key {column}, and {table} has no such column.", hint=f"Correct the key in {path}."
        )
    ((type_, is_deterministic),) = found
    actual = type_of(type_)
    if key.column is None and (actual is None or (actual == "text" and _is_converted(folder, table))):
        return  # as before there was such a line: the extract itself compares the key with a number
    if actual is None:
        raise PermanentError(
            f"The key {column} of {table} has the type {type_}. A clinic's id is a number, a UUID or a text.",
            hint=f"Name a unique column of the type integer, uuid or text in {path}, for instance: key: id uuid",
        )
    if actual != key.type:
        said = f"says that it is {key.type}" if key.column else "names no key, so that ids are numbers"
        raise PermanentError(
            f"The key {column} of {table} has the type {type_}, but {FILE} {said}.",
            hint=f"Write this as the second line of {path}: {line_of(column, type_)}",
        )
    if not is_deterministic:
        raise PermanentError(
            f"The collation of the key {column} of {table} treats some different texts as equal. So two ids could name"
            " one clinic.",
            hint="Give the column a deterministic collation.",
        )


def _is_converted(folder: SqlFolder, table: str) -> bool:
    return _CONVERTED.search(folder.extracts().get(table, "")) is not None
