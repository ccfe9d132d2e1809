"""Proposes lines for ``drift.txt``: what may have become of columns and tables that are gone."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from difflib import SequenceMatcher

from clinic_backups.base.table import Column, Table
from clinic_backups.tenant.drift import renamed_column, renamed_table


def proposed_columns(then: Table, now: Table, renamed: Mapping[str, str] | None = None) -> Iterator[str]:
    """Lines for columns that were or may have been renamed: one is gone, and a new one of its type has its place.

    :param renamed: the renamed columns that the database knows; none if it knows nothing.
    """
    for before, after in (renamed or {}).items():
        yield renamed_column(now.name, before, after)
    told = {*(renamed or {}), *(renamed or {}).values()}
    old = [column for column in then.stored_columns if column.name not in told]
    new = [column for column in now.stored_columns if column.name not in told]
    known = {column.name for column in old} & {column.name for column in new}
    matcher = SequenceMatcher(None, [c.name for c in old], [c.name for c in new], autojunk=False)
    for tag, i1, i2, j1, j2 in matcher.get_opcodes():
        if tag != "replace":
            continue
        gone, come = _unknown(old[i1:i2], known), _unknown(new[j1:j2], known)
        if len(gone) == len(come):
            pairs = zip(gone, come, strict=True)
            yield from (renamed_column(now.name, a.name, b.name) for a, b in pairs if a.type == b.type)
            continue
        for column in gone:
            alike = [other for other in come if other.type == column.type]
            if len(alike) == 1 and sum(other.type == column.type for other in gone) == 1:
                yield renamed_column(now.name, column.name, alike[0].name)


def proposed_tables(then: Table, candidates: Mapping[str, Table]) -> Iterator[str]:
    """Lines for a table that may have been renamed: a table that the backup lacks has the same columns."""
    shape = [(column.name, column.type) for column in then.columns]
    for name, table in candidates.items():
        if [(column.name, column.type) for column in table.columns] == shape:
            yield renamed_table(then.name, name)


def _unknown(columns: Collection[Column], known: Collection[str]) -> list[Column]:
    return [column for column in columns if column.name not in known]
