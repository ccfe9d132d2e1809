"""Pairs of columns of which one names a table and the other one a row of it, as in Django's generic relations.

PostgreSQL knows no foreign key for them, and what the values of the first one mean is known to the application alone.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator

from clinic_backups.base.table import Table
from clinic_backups.tenant.structure import plain

_KEYS = ("id", "objectid", "objectpk", "objectuuid", "uuid", "pk")


def generic_pairs(table: Table, followed: Collection[str]) -> list[tuple[str, str]]:
    """The pairs of a table: the column of the type, and that of the key.

    :param followed: columns of links that are followed.
    """
    columns = {plain(column.name): column.name for column in table.stored_columns}
    return [
        (columns[name], columns[key])
        for name in columns
        for stem in _stems(name)
        for key in (f"{stem}{each}" for each in (_KEYS if stem else _KEYS[1:4]))
        if key in columns and columns[key] not in followed and columns[key] not in table.primary_key
    ][:1]


def _stems(name: str) -> Iterator[str]:
    """What stands before the word for a type: ``commentable`` for ``commentable_type``."""
    bare = name.removesuffix("id")
    if bare.endswith("contenttype"):
        yield bare.removesuffix("contenttype")
    elif name.endswith("type") and name != "type":
        yield name.removesuffix("type")
