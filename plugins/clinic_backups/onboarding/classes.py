"""Gives every table of a database one class, with the reason."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from clinic_backups.onboarding import polymorphic
from clinic_backups.onboarding.known_tables import KNOWN, KnownClass
from clinic_backups.onboarding.links import ReversedKey, all_links, reversed_links
from clinic_backups.onboarding.owners import Owner, Owners
from clinic_backups.onboarding.schema import Schema, Tenant
from clinic_backups.tenant.declarations import Declarations
from clinic_backups.tenant.structure import KINDS, ParentKey

TableClass = Literal["tenant", "parent", "derived", "shared", "left out", "unknown"]
MEANING: dict[TableClass, str] = {
    "tenant": "its rows belong to tenants and are in their backups",
    "parent": "the rows that a tenant's rows refer to go with them; a restore only inserts those that are missing",
    "derived": "made anew from other tables; in no backup",
    "shared": "the same rows for all tenants; in the backup of the shared data",
    "left out": "in no backup, for the reason given",
    "unknown": "nobody has said whose rows these are",
}
NAMED = "named with --parent"
"""A reason. The file of such a table ends its comment with it, so that the next run knows."""


@dataclass(frozen=True)
class TableChoice:
    """The class of one table."""

    table: str
    table_class: TableClass
    reason: str
    by: Literal["person", "init"]
    """Whether a file in the SQL folder says so already, or it follows from the catalog."""


@dataclass(frozen=True)
class Written:
    """What the SQL folder says already.

    :ivar extracts: the text of each extract that a person wrote, by table.
    :ivar parents: the tables with a query in ``parents/`` that a person wrote.
    """

    declared: Declarations
    extracts: Mapping[str, str]
    parents: frozenset[str]
    polymorphic: Sequence[polymorphic.PolymorphicKey] = ()


class Classes:
    """The classes of all tables.

    :param parents: tables that the caller says are parents, although a link leads from them to the tenant.
    """

    def __init__(self, schema: Schema, tenant: Tenant, written: Written, parents: Iterable[str] = ()) -> None:
        self._schema, self._tenant, self._written = schema, tenant, written
        declared = written.declared
        self._left = {name: of for name in schema.columns if (of := declared.class_of(name)) is not None}
        self._other_kinds, self._known = _other_kinds(schema), _known(schema)
        self.links = all_links(schema, tenant.table, declared.columns, written.polymorphic)
        self._is_parent = dict.fromkeys(written.parents - written.extracts.keys(), "it has a query in parents/")
        self._is_parent |= dict.fromkeys(parents, NAMED)
        self._members = self._of_many_tenants()
        stops = {*self._left, *self._is_parent, *self._members, *self._other_kinds, *self._known}
        stops -= {tenant.table, *written.extracts}
        beside = stops - self._members.keys() - self._is_parent.keys()
        self._own_parts: frozenset[str] = frozenset()
        self.owners: Mapping[str, Owner] = Owners(schema, tenant.table, self.links, stops, written.extracts).find()
        self.referring = self._parents(beside)
        """The parent tables, each with the links to it from extracted tables and other parents."""
        while parts := self._parts(stops):
            for link in parts:
                self.links[link.table].append(link)
            self._own_parts |= {link.table for link in parts}
            self.owners = Owners(schema, tenant.table, self.links, stops, written.extracts).find()
            self.referring = self._parents(beside)

    def all(self) -> list[TableChoice]:
        """One class for each table, in order of name. Views and partitions have none of their own."""
        return [self._of(table) for table in sorted(self._schema.columns)]

    def _of(self, table: str) -> TableChoice:
        if table in self._left and table not in self.owners:
            return TableChoice(table, *self._left[table], "person")
        if table in self.owners:
            by_person = table in self._written.extracts
            return TableChoice(table, "tenant", self._way(self.owners[table]), "person" if by_person else "init")
        if table in self.referring:
            by_person = table in self._written.parents
            return TableChoice(table, "parent", self._why_parent(table), "person" if by_person else "init")
        if (other := self._other_kinds.get(table)) is not None:
            return TableChoice(table, "left out", other, "init")
        if (known := self._known.get(table)) is not None:
            return TableChoice(table, *known, "init")
        return TableChoice(table, "unknown", self._why_unknown(table), "init")

    def _way(self, owner: Owner) -> str:
        if owner.table == self._tenant.table:
            return "the tenants' own table"
        if owner.text:
            return "it has an extract"
        first = self._chain(owner)
        more = f", or {len(owner.ways) - 1} more ways" if len(owner.ways) > 2 else ""
        if len(owner.ways) == 2:
            more = f", or by {', '.join(owner.ways[1].columns)} to {owner.ways[1].parent}"
        if owner.itself is not None:
            more += f", or by {', '.join(owner.itself.columns)} to a row of its own that does"
        named = " (by the column's name, without a constraint)" if owner.is_named else ""
        if owner.table in self._own_parts:
            named = " (whose row refers to it, and no other one does)"
        return f"{first}{more}{named}"

    def _chain(self, owner: Owner) -> str:
        """The first way, as ``column -> table.column -> table``."""
        parts: list[str] = []
        current = owner
        while current.ways and len(parts) < 12:
            way = current.ways[0]
            parts.append(f"{', '.join(way.columns)} -> {way.parent}")
            current = self.owners[way.parent]
        return ", ".join(parts)

    def _why_parent(self, table: str) -> str:
        by = sorted({link.table for link in self.referring[table]})
        shown = ", ".join(by[:3]) + (f" and {len(by) - 3} more" if len(by) > 3 else "")
        why = self._is_parent.get(table) or self._members.get(table)
        return f"rows of {shown} refer to it" + (f"; {why}" if why else ", and nothing leads from it to a tenant")

    def _why_unknown(self, table: str) -> str:
        if proposed := polymorphic.proposals(self._schema, table):
            return f"no link leads to a tenant, but perhaps a pair of columns does: {'; '.join(proposed)}"
        parents = sorted({link.parent for link in self.links[table] if link.parent in self.referring})
        if parents:
            return (
                f"it belongs to {', '.join(parents)}, whose rows are not those of one tenant alone. If it must come"
                " back with them, see docs/your-schema.md"
            )
        return "no link leads to a tenant, and no row of a tenant refers to it"

    def _of_many_tenants(self) -> dict[str, str]:
        """Tables whose rows have several tenants, by a table of members that links both, with the reason.

        Such a table may also have a column for the tenant that a person used last. That column owns nothing.
        """
        found = {}
        for table, keys in self.links.items():
            never_null = self._schema.not_null(table)
            sure = [key for key in keys if set(key.columns) <= never_null]
            to_tenant = [key for key in sure if key.parent == self._tenant.table]
            for other in sure:
                both = {frozenset({*mine.columns, *other.columns}) for mine in to_tenant if mine is not other}
                if both & set(self._schema.unique.get(table, ())) and self._is_loose(other.parent):
                    found[other.parent] = f"{table} gives one of its rows to several tenants"
        found.pop(self._tenant.table, None)
        return {table: reason for table, reason in found.items() if table not in self._written.extracts}

    def _parts(self, stops: set[str]) -> list[ReversedKey]:
        """Reversed links that make a parent table tenants' own: each of its rows is part of at most one row of theirs.

        The primary key of that row is the reference, or nothing else refers to the table.
        """
        candidates = self.referring.keys() - stops - self._own_parts
        reverse = reversed_links(self._schema, candidates)
        found = []
        for link in reverse:
            is_its_key = set(self._schema.primary_keys.get(link.parent, ())) == set(link.parent_columns)
            alone = len(self.referring[link.table]) == 1
            if link.parent in self.owners and (is_its_key or alone):
                found.append(link)
        return found

    def _is_loose(self, table: str) -> bool:
        """Whether no link that is never NULL leads from a table to the tenant."""
        seen, waiting = {table}, [table]
        while waiting:
            current = waiting.pop()
            for link in self.links.get(current, ()):
                if set(link.columns) <= self._schema.not_null(current) and link.parent not in seen:
                    if link.parent == self._tenant.table:
                        return False
                    seen.add(link.parent)
                    waiting.append(link.parent)
        return True

    def _parents(self, stops: set[str]) -> dict[str, list[ParentKey]]:
        """The tables outside to whose rows extracted tables refer, and those to which these refer."""
        found: dict[str, list[ParentKey]] = {}
        waiting = list(self.owners)
        while waiting:
            table = waiting.pop(0)
            for link in self.links.get(table, ()):
                parent = link.parent
                if parent in self.owners or parent in stops:
                    continue
                if parent not in found:
                    waiting.append(parent)
                found.setdefault(parent, []).append(link)
        return {table: links for table, links in found.items() if table in self._schema.columns}


def _other_kinds(schema: Schema) -> dict[str, str]:
    """Tables whose rows a backup cannot hold, with the reason."""
    found = {}
    for name in schema.columns:
        relation = schema.structure.relations[name]
        if relation.kind == "f":
            found[name] = f"a {KINDS['f']}: its rows are in another server"
        elif relation.persistence == "u":
            found[name] = "unlogged: PostgreSQL empties it after a crash"
    return found


def _known(schema: Schema) -> dict[str, tuple[KnownClass, str]]:
    """Tables of extensions and frameworks."""
    found: dict[str, tuple[KnownClass, str]] = {
        name: ("shared", f"part of the extension {extension}") for name, extension in schema.extensions.items()
    }
    for name in schema.columns:
        if (known := KNOWN.get(name.split(".", 1)[1].lower())) is not None:
            found[name] = known
    return found
