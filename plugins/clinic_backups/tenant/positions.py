"""The positions of sequences. Reading one is not part of a snapshot: it is at least as far as the rows seen there."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from psycopg2 import sql

from clinic_backups.tenant.pg_catalog import catalog_query
from clinic_backups.tenant.schema_memory import MEMORY
from clinic_backups.tenant.tenant_db import Snapshot

_FIELDS = ("schema", "name", "last_value", "is_called")
_QUESTION = "sequences of no column"


def positions_of(snapshot: Snapshot, names: Iterable[tuple[str, str]]) -> list[dict[str, Any]]:
    """``[{"schema", "name", "last_value", "is_called"}]`` of these sequences, in order of their names."""
    arms = [
        sql.SQL("SELECT {}, {}, last_value, is_called FROM {}").format(
            sql.Literal(schema), sql.Literal(name), sql.Identifier(schema, name)
        )
        for schema, name in names
    ]
    if not arms:
        return []
    query = snapshot.text_of(sql.SQL(" UNION ALL ").join(arms))
    rows = snapshot.rows(query, None, "reading the positions of sequences")
    return [dict(zip(_FIELDS, row, strict=True)) for row in sorted(rows)]


def positions_of_no_column(snapshot: Snapshot) -> list[dict[str, Any]]:
    """The positions of the sequences whose numbers no numeric column holds. Most databases have none."""
    names = MEMORY.get(_QUESTION, snapshot.version)
    if names is None:
        names = snapshot.rows(catalog_query("sequences_of_no_column"), None, "looking for sequences")
        MEMORY.keep(_QUESTION, snapshot.version, names)
    return positions_of(snapshot, names)
