"""How the rows of each table lead to the tenant."""

from __future__ import annotations

import heapq
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace

from clinic_backups.onboarding.links import ReversedKey
from clinic_backups.onboarding.polymorphic import PolymorphicKey
from clinic_backups.onboarding.schema import Schema
from clinic_backups.tenant.structure import ParentKey

FURTHER = 3
"""A further way may have so many more columns that may be NULL than the best one. Longer ones decide no real row."""
Cost = tuple[int, int, int]
"""Of a way: columns that may be NULL, columns without a constraint, length. A smaller one is better."""


@dataclass(frozen=True)
class Owner:
    """How the rows of one table get their tenant.

    :ivar ways: links to tables that lead on to the tenant. A row's tenant is that of the first link that leads to one,
        so that no row has two. Empty for the tenants' own table, and if :attr:`text` says it.
    :ivar is_sure: whether every row has a tenant: no link of the way may be NULL, and each is a foreign key.
    :ivar itself: a link to the same table: a row that has no tenant by the ways has the tenant of that row.
    :ivar text: an extract that a person wrote, for a table that no link leads from.
    """

    table: str
    ways: tuple[ParentKey, ...] = ()
    is_sure: bool = True
    itself: ParentKey | None = None
    text: str = ""

    @property
    def is_named(self) -> bool:
        """Whether a way is shown by nothing but a column's name."""
        return any(not way.enforced for way in self.ways)


class Owners:
    """Finds the ways of all tables.

    :param links: see :func:`clinic_backups.onboarding.links.all_links`.
    :param stops: tables through which no way leads, such as shared ones.
    :param written: extracts of persons, by table.
    """

    def __init__(
        self,
        schema: Schema,
        tenant_table: str,
        links: Mapping[str, list[ParentKey]],
        stops: Collection[str],
        written: Mapping[str, str],
    ) -> None:
        self._schema, self._tenant, self._links = schema, tenant_table, links
        self._stops, self._written = stops, written
        self._children: dict[str, list[ParentKey]] = {}
        for keys in links.values():
            for key in keys:
                self._children.setdefault(key.parent, []).append(key)

    def find(self) -> dict[str, Owner]:
        """The owner of each table that leads to the tenant, in the order in which they were found."""
        found: dict[str, Owner] = {}
        costs: dict[str, Cost] = {}
        self._spread([((0, 0, 0), self._tenant)], found, costs)
        # What no link leads from is only known by the extract that somebody wrote.
        for table in sorted(self._written.keys() - found.keys()):
            if table in self._schema.columns and table not in self._stops:
                self._spread([((1, 1, 1), table)], found, costs)
        return self._with_later_ways(found, costs)

    def _spread(self, waiting: list[tuple[Cost, str]], found: dict[str, Owner], costs: dict[str, Cost]) -> None:
        """Settle one table after the other, the one with the best way first (Dijkstra)."""
        heapq.heapify(waiting)
        while waiting:
            cost, table = heapq.heappop(waiting)
            if table in found or (table in self._stops and table != self._tenant):
                continue
            found[table], costs[table] = self._owner(table, found, costs), cost
            for link in self._children.get(table, ()):
                if link.table not in found:
                    heapq.heappush(waiting, (_sum(cost, self._cost(link)), link.table))

    def _owner(self, table: str, found: Mapping[str, Owner], costs: Mapping[str, Cost]) -> Owner:
        if table == self._tenant:
            return Owner(table)
        ways = self._sorted(table, found, costs)
        if not ways:
            return Owner(table, is_sure=False, text=self._written[table])
        first = ways[0]
        if self._cost(first)[0] == 0 and _is_certain(found[first.parent], costs[first.parent]):
            return Owner(table, (first,), is_sure=first.enforced and found[first.parent].is_sure)
        itself = next((link for link in self._links[table] if link.parent == table), None)
        has_key = table in self._schema.primary_keys
        return Owner(table, tuple(ways), is_sure=False, itself=itself if has_key else None)

    def _sorted(self, table: str, found: Mapping[str, Owner], costs: Mapping[str, Cost]) -> list[ParentKey]:
        # A column's name counts beside constraints too: it may be the only one that is never NULL.
        links = [link for link in self._links[table] if link.parent in found and link.parent != table]
        of = {link: _sum(costs[link.parent], self._cost(link)) for link in links}
        best = min(of.values(), default=(0, 0, 0))[0]
        near = [link for link in links if of[link][0] <= best + FURTHER]
        return sorted(near, key=lambda link: (of[link], link.columns, link.parent))

    def _with_later_ways(self, found: dict[str, Owner], costs: Mapping[str, Cost]) -> dict[str, Owner]:
        """Add ways to tables that were found later, unless a way would then lead back to its own table."""
        for table, owner in found.items():
            if owner.is_sure or not owner.ways or (len(owner.ways) == 1 and self._cost(owner.ways[0])[0] == 0):
                continue
            for link in self._sorted(table, found, costs):
                known = found[table].ways
                if link not in known and not _leads(link.parent, table, found):
                    found[table] = replace(found[table], ways=(*known, link))
        return found

    def _cost(self, link: ParentKey) -> Cost:
        is_one_of_several = isinstance(link, PolymorphicKey | ReversedKey)
        may_be_null = is_one_of_several or not set(link.columns) <= self._schema.not_null(link.table)
        return int(may_be_null), int(not link.enforced), 1


def _sum(one: Cost, other: Cost) -> Cost:
    return one[0] + other[0], one[1] + other[1], one[2] + other[2]


def _is_certain(parent: Owner, cost: Cost) -> bool:
    """Whether no column on the parent's way may be NULL."""
    return cost[0] == 0 and not parent.text


def _leads(table: str, to: str, found: Mapping[str, Owner]) -> bool:
    """Whether the ways of a table lead through another one."""
    seen, waiting = set[str](), [table]
    while waiting:
        current = waiting.pop()
        if current == to:
            return True
        if current not in seen and current in found:
            seen.add(current)
            waiting += [way.parent for way in found[current].ways]
    return False
