"""Foreign keys that the tables had when the backup was made, and have no more.

The rows of the backup still refer to each other by them.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping

from clinic_backups.archive.reader import TableContent
from clinic_backups.restore.columns.shape import Shape
from clinic_backups.restore.table_rules import Reference
from clinic_backups.tenant.operators import EQUAL
from clinic_backups.tenant.structure import comparable


def former_links(contents: Mapping[str, TableContent], known: Collection[Reference]) -> tuple[Reference, ...]:
    """The foreign keys between the backup's tables that are not among the known links.

    :param contents: the backup's tables under the present names.
    """
    there = {(link.child, link.columns, link.parent, link.parent_columns) for link in known}
    return tuple(
        Reference(
            f"{key.name} (of the backup)", name, key.columns, key.references, key.references_columns,
            (EQUAL,) * len(key.columns),
        )
        for name, content in contents.items()
        for key in content.table.foreign_keys
        if key.references in contents
        and (name, key.columns, key.references, key.references_columns) not in there
    )  # fmt: skip


def that_can_be_followed(links: Collection[Reference], shapes: Mapping[str, Shape]) -> tuple[Reference, ...]:
    """Those between restored tables whose columns are there and have types that PostgreSQL compares."""
    return tuple(
        link for link in links
        if {link.child, link.parent} <= shapes.keys()
        and _are_comparable(_types(shapes[link.child], link.columns), _types(shapes[link.parent], link.parent_columns))
    )  # fmt: skip


def _types(shape: Shape, columns: Collection[str]) -> list[str]:
    now = {column.name: re.sub(r"\(.*?\)", "", column.type) for column in shape.now.columns}
    return [now.get(column, "") for column in columns]


def _are_comparable(types: list[str], others: list[str]) -> bool:
    return all(types) and all(others) and all(map(comparable, types, others))
