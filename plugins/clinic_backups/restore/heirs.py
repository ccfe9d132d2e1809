"""Requests about a table hold for its partitions and heirs too, wherever a backup has the rows.

A table that inherits from another one has an extract of its own. Whoever names a row of the parent table may have seen
it there, and it lies in the heir. A partition's rows are in the partitioned table, or in a table of their own before it
was attached and after it was detached.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime

from clinic_backups.base.table import Table
from clinic_backups.base.text import one_line
from clinic_backups.catalog.forgotten import ForgottenTable
from clinic_backups.restore import table_notes
from clinic_backups.restore.meant_columns import columns_in, is_gone, is_this_one, meant_among, was_made_again
from clinic_backups.restore.table_rules import Reference
from clinic_backups.tenant.drift import FILE, Drift


@dataclass(frozen=True)
class Request:
    """Forgotten rows of a table.

    :param key: the columns that name them; empty for the table's own key, and none if they are not in the backup, or
        cannot be told. An heir need not have its parent's key.
    :param types: of these columns, as the rows were named; empty if nobody knows.
    :param unclear: the backup's tables of which nobody can tell which one is meant.
    :param is_past: the backup was made later, when the table did not have these columns any more. Nothing in it can be
        recognised, and nothing stays out.
    """

    rows: ForgottenTable
    key: tuple[str, ...] | None = ()
    types: tuple[str, ...] = ()
    unclear: tuple[str, ...] = ()
    is_past: bool = False

    @property
    def said(self) -> str:
        """The columns by which the rows were named, for people; empty if nobody knows."""
        return ", ".join(column.name for column in self.rows.meant.columns) if self.rows.meant else ""

    def lacking(self, who: str, no_key: str) -> str:
        """Why it cannot be told which rows are meant. It continues a sentence.

        :param who: who lacks the columns. :param no_key: the same without columns.
        """
        if self.unclear:
            names = one_line(", ".join(self.unclear))
            return f", and {FILE} does not say which of these tables of the backup had their name then: {names}"
        return f" by values of columns ({one_line(self.said)}) that {who} as they were then" if self.said else no_key

    def hint(self, otherwise: str) -> str:
        """The remedy. :param otherwise: the one that always helps."""
        if self.unclear:
            return f"If a line of {FILE} is missing, or is not true any more, correct it. {otherwise}"
        return f"If the columns were renamed, say so in {FILE}. {otherwise}" if self.said else otherwise


def in_force(found: Mapping[str, Iterable[Request]]) -> dict[str, list[Request]]:
    """Those of which rows of the backup may have to stay out."""
    return {name: each for name, requests in found.items() if (each := [one for one in requests if not one.is_past])}


def past_notes(found: Mapping[str, Iterable[Request]]) -> dict[str, list[str]]:
    """By table: a sentence for each of the others."""
    return {
        name: each for name, requests in found.items()
        if (each := [table_notes.asked_before(one.rows.requests, one.said) for one in requests if one.is_past])
    }  # fmt: skip


def same(name: str) -> str:
    """The name itself."""
    return name


def requests_for(
    tables: Mapping[str, Table],
    forgotten: Mapping[str, Iterable[ForgottenTable]],
    drift: Drift,
    then: Callable[[str], str] = same,
    database: str | None = None,
    moment: datetime | None = None,
) -> dict[str, list[Request]]:
    """The requests about each table of a backup.

    Somebody may have named a table by another name, or by that of a partition whose rows it has or which it was.

    :param then: the name in the backup of a table that has another one in ``tables``.
    :param database: the one that the backup was made of, see ``source_database``; none if that is not known.
    :param moment: of the backup's rows; none if that is not known.
    """
    found = dict[str, list[Request]]()
    named = {recorded: [*_named(recorded, tables, drift, then)] for recorded in forgotten}
    for recorded, requests in forgotten.items():
        for each in requests:
            meant = each.meant
            if meant is None:
                for name, _ in named[recorded]:
                    found.setdefault(name, []).append(Request(each))
                continue
            itself = [name for name, table in tables.items() if is_this_one(meant, table, database)]
            namesakes = dict.fromkeys([*itself, *(name for name, is_part in named[recorded] if not is_part)])
            among = meant_among(meant, {then(name): tables[name] for name in namesakes}, database, recorded, drift)
            unclear = tuple(sorted(among)) if len(among) > 1 else ()
            # A table that was made again has the rows of the meant one, which may be there as well.
            again = [name for name in namesakes if then(name) == recorded and was_made_again(recorded, drift)]
            parts = [name for name, is_part in named[recorded] if is_part]
            alike = [name for name in namesakes if then(name) in among]
            for name in dict.fromkeys([*alike, *(again if itself else ()), *parts]):
                key = columns_in(meant, tables[name], database, drift, {name, then(name), recorded})
                types = tuple(column.type for column in meant.columns)
                if unclear and name in alike:
                    found.setdefault(name, []).append(Request(each, None, types, unclear))
                else:
                    is_past = _is_later(moment, each) and is_gone(meant, tables[name], database)
                    found.setdefault(name, []).append(Request(each, None if is_past else key, types, is_past=is_past))
    return with_heirs(found, tables, then)


def _is_later(moment: datetime | None, rows: ForgottenTable) -> bool:
    return moment is not None and bool(rows.requests) and all(at < moment for _, at in rows.requests)


def _named(
    recorded: str, tables: Mapping[str, Table], drift: Drift, then: Callable[[str], str]
) -> Iterator[tuple[str, bool]]:
    """The tables of a backup that a name may mean, and whether the named one is only a part of it."""
    known, path = {then(name) for name in tables}, {*drift.path(recorded)}
    for name, table in tables.items():
        later, here = {*drift.path(name), *drift.path(then(name))}, {name, then(name)}
        # The rows of a part without a table of its own are in this one.
        parts = {each for part in table.parts or () if part.name not in known for each in drift.path(part.name)}
        if recorded in later or here & path:
            yield name, False
        elif recorded in parts or drift.has_left(name, recorded):
            yield name, True


def with_heirs(
    named: Mapping[str, Iterable[Request]], tables: Mapping[str, Table], then: Callable[[str], str] = same
) -> dict[str, list[Request]]:
    """These requests, and for the heirs of their tables the same ones, by the columns of the parent's key."""
    found = {name: list(requests) for name, requests in named.items()}
    for name, heirs in heirs_of(tables, then).items():
        for heir in heirs if name in named else ():
            for each in named[name]:
                request = replace(each, key=tables[name].primary_key if each.key == () else each.key)
                if each.is_past and {*each.said.split(", ")} & {column.name for column in tables[heir].columns}:
                    # An heir may have such a column of its own, which stays when its parent's is dropped.
                    request = replace(request, is_past=False)
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
    """These links, and the same ones of the heirs of their tables: PostgreSQL's keys do not reach them.

    A foreign key leads to the rows of partitions, but never to one of an heir: another row may have the same values.
    Only a column that is named like a link may mean an heir's row.
    """
    heirs, found = heirs_of(tables, then), dict[Reference, None]()
    for link in links:
        for child in (link.child, *heirs.get(link.child, ())):
            leads_there = link.is_named or (link.parent in tables and _is_partitioned(tables[link.parent]))
            for parent in (link.parent, *(heirs.get(link.parent, ()) if leads_there else ())):
                found[link if (child, parent) == (link.child, link.parent) else _through(link, child, parent)] = None
    return list(found)


def _is_partitioned(table: Table) -> bool:
    """Only a table that has partitions has no file of its own. Older manifests name no files at all."""
    return table.file is None and any(part.file is not None for part in table.parts or ())


def _through(link: Reference, child: str, parent: str) -> Reference:
    return replace(link, name=f"{link.name}, as {child} to {parent}", child=child, parent=parent)
