"""Requests about a table hold for its partitions and heirs too, wherever a backup has the rows.

A table that inherits from another one has an extract of its own. Whoever names a row of the parent table may have seen
it there, and it lies in the heir. A partition's rows are in the partitioned table, or in a table of their own before it
was attached and after it was detached.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace

from clinic_backups.base.table import Table
from clinic_backups.catalog.forgotten import ForgottenTable
from clinic_backups.restore.table_rules import Reference
from clinic_backups.tenant.drift import Drift


@dataclass(frozen=True)
class Request:
    """Forgotten rows of a table.

    :param key: the columns that name them; empty for the table's own key. An heir need not have its parent's key.
    """

    rows: ForgottenTable
    key: tuple[str, ...] = ()


def same(name: str) -> str:
    """The name itself."""
    return name


def requests_for(
    tables: Mapping[str, Table],
    forgotten: Mapping[str, ForgottenTable],
    drift: Drift,
    then: Callable[[str], str] = same,
) -> dict[str, list[Request]]:
    """The requests that hold for each table of a backup.

    Somebody may have named a table by another name, or by that of a partition whose rows it has or which it was.

    :param then: the name in the backup of a table that has another one in ``tables``.
    """
    found = dict[str, list[Request]]()
    known = {then(name) for name in tables}
    for name, table in tables.items():
        later, here = {*drift.path(name), *drift.path(then(name))}, {name, then(name)}
        # The rows of a part without a table of its own are in this one.
        parts = {each for part in table.parts or () if part.name not in known for each in drift.path(part.name)}
        for recorded, each in forgotten.items():
            path = {*drift.path(recorded)}
            if recorded in later | parts or here & path or drift.has_left(name, recorded):
                found.setdefault(name, []).append(Request(each))
    return with_heirs(found, tables, then)


def with_heirs(
    named: Mapping[str, Iterable[Request]], tables: Mapping[str, Table], then: Callable[[str], str] = same
) -> dict[str, list[Request]]:
    """These requests, and for the heirs of their tables the same ones, by the columns of the parent's key."""
    found = {name: list(requests) for name, requests in named.items()}
    for name, heirs in heirs_of(tables, then).items():
        for heir in heirs if name in named else ():
            for each in named[name]:
                request = replace(each, key=each.key or tables[name].primary_key)
                if request not in found.setdefault(heir, []):
                    found[heir].append(request)
    return found


def heirs_of(tables: Mapping[str, Table], then: Callable[[str], str] = same) -> dict[str, list[str]]:
    """By table: those that inherit from it and are among these tables, at any depth."""
    names = {then(name): name for name in tables}
    return {
        name: [names[part.name] for part in table.parts if part.name in names]
        for name, table in tables.items() if table.parts
    }  # fmt: skip


def links_with_heirs(
    links: Iterable[Reference], tables: Mapping[str, Table], then: Callable[[str], str] = same
) -> list[Reference]:
    """These links, and the same ones from and to the heirs of their tables: PostgreSQL's keys do not reach them."""
    heirs, found = heirs_of(tables, then), dict[Reference, None]()
    for link in links:
        for child in (link.child, *heirs.get(link.child, ())):
            for parent in (link.parent, *heirs.get(link.parent, ())):
                found[link if (child, parent) == (link.child, link.parent) else _through(link, child, parent)] = None
    return list(found)


def _through(link: Reference, child: str, parent: str) -> Reference:
    return replace(link, name=f"{link.name}, as {child} to {parent}", child=child, parent=parent)
