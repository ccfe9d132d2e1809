"""Sequences and their positions.

Reading a position is not part of a snapshot: it is at least as far as the rows seen there.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Protocol

from psycopg2 import sql

from clinic_backups.tenant.pg_catalog import catalog_query
from clinic_backups.tenant.tenant_db import Snapshot

_FIELDS = ("schema", "name", "last_value", "is_called")


class Readable(Protocol):
    """A connection with a transaction, for instance a :class:`~clinic_backups.tenant.tenant_db.Snapshot`."""

    def rows(self, query: str, values: None, doing: str, /) -> list[tuple[Any, ...]]:
        """All rows of a small query."""


@dataclass(frozen=True)
class SequenceFacts:
    """One sequence.

    :param is_readable: whether the role may read its position.
    :param cycles: it begins again after its last number, so it has no furthest one.
    :param columns: the numeric columns that hold its numbers: ``schema.table`` and column.
    """

    schema: str
    name: str
    is_readable: bool
    increment: int
    least: int
    most: int
    cycles: bool
    columns: list[tuple[str, str]]


def sequences(db: Readable) -> list[SequenceFacts]:
    """All sequences of a database, in order of their names, without those of extensions."""
    return [SequenceFacts(*row) for row in db.rows(catalog_query("every_sequence"), None, "looking for sequences")]


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
