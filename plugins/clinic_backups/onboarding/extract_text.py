"""Writes the SQL of extracts: exactly the rows of one tenant."""

from __future__ import annotations

from collections.abc import Mapping

from clinic_backups.base.text import unused
from clinic_backups.onboarding.owners import Owner
from clinic_backups.onboarding.schema import Schema, Tenant
from clinic_backups.onboarding.sql_parts import (
    Names,
    Shared,
    indented,
    same,
    source,
    template_name,
    when,
    where,
    with_queries,
)
from clinic_backups.tenant.extract import ended
from clinic_backups.tenant.operators import EQUAL
from clinic_backups.tenant.structure import ParentKey

CLINIC_ID = "{{ clinic_id }}"


class ExtractText:
    """The extracts of the tables that lead to the tenant.

    :param owners: by table.
    """

    def __init__(self, schema: Schema, tenant: Tenant, owners: Mapping[str, Owner]) -> None:
        self._schema, self._tenant, self._owners = schema, tenant, owners

    def of(self, table: str) -> str:
        """The extract of one table: exactly the rows of one tenant."""
        shared: Shared = {}
        for each in self._needed(table):
            self._shared(each, shared)
        text = self._query(table, shared, Names())
        return f"{with_queries(shared.values())}{text}\n"

    def rows_of(self, table: str) -> str:
        """The same without a line break at the end, as a part of another statement."""
        return self.of(table).rstrip("\n")

    def _needed(self, table: str) -> list[str]:
        """The tables whose rows the statement names before it begins, each after those that it needs itself."""
        found: dict[str, None] = {}
        waiting = [(table, iter(self._next_shared(table)))]
        while waiting:
            current, above = waiting[-1]
            following = next((each for each in above if each not in found), None)
            if following is not None:
                waiting.append((following, iter(self._next_shared(following))))
            else:
                waiting.pop()
                found[current] = None
        return [each for each in found if each != table]

    def _next_shared(self, table: str) -> list[str]:
        """The next tables above a table whose rows are queries of their own."""
        found = []
        for way in self._owners[table].ways:
            parent = way.parent
            while self._owners[parent].ways and not self._is_query(parent):
                parent = self._owners[parent].ways[0].parent
            found += [parent] if self._is_query(parent) else []
        return found

    def _is_query(self, table: str) -> bool:
        """Whether the rows of a table are not those of one chain of joins."""
        owner = self._owners[table]
        return len(owner.ways) > 1 or owner.itself is not None or bool(owner.text)

    def _query(self, table: str, shared: Shared, names: Names) -> str:
        """A SELECT of all columns.

        :param shared: gets the rows of the tables with several ways, once each.
        """
        owner = self._owners[table]
        if owner.text:
            return ended(owner.text)
        if owner.itself is not None:
            return self._with_itself(owner, owner.itself, shared, names)
        branches = [self._branch(owner, number, shared, names) for number in range(max(len(owner.ways), 1))]
        return "\nUNION ALL\n".join(branches)

    def _branch(self, owner: Owner, number: int, shared: Shared, names: Names) -> str:
        """The rows whose tenant is given by one of the ways."""
        own = Names(set(names.taken))
        row = own.of(owner.table)
        lines = [f"SELECT {row}.*", f"  FROM {source(self._schema, owner.table)} AS {row}"]
        if owner.ways:
            conditions = self._climb(owner.ways[number], row, lines, shared, own)
            conditions += [self._leads_nowhere(way, row, own) for way in owner.ways[:number]]
        else:
            conditions = [f"{row}.{template_name(self._tenant.key)} = {CLINIC_ID}"]
        return "\n".join([*lines, *where(conditions)])

    def _climb(self, way: ParentKey, row: str, lines: list[str], shared: Shared, names: Names) -> list[str]:
        """Join the tables from a row up to the tenant. Returns the conditions."""
        tenant = self._tenant
        while True:
            parent = self._owners[way.parent]
            if way.parent == tenant.table and way.parent_columns == (tenant.key,) and way.operators == (EQUAL,):
                return [f"{row}.{template_name(way.columns[0])} = {CLINIC_ID}", *when(way, row)]
            joined = names.of(way.parent)
            on = same(way, joined, row)
            if self._is_query(way.parent):
                lines.append(f"  JOIN {self._shared(way.parent, shared)} AS {joined} ON {on}")
                return []
            lines.append(f"  JOIN {source(self._schema, way.parent)} AS {joined} ON {on}")
            if not parent.ways:
                return [f"{joined}.{template_name(tenant.key)} = {CLINIC_ID}"]
            way, row = parent.ways[0], joined

    def _shared(self, table: str, shared: Shared) -> str:
        """The name of the query of a table's rows, which the statement has once."""
        if table not in shared:
            text = self._query(table, shared, Names())
            taken = {name for name, _ in shared.values()}
            shared[table] = unused(template_name(f"rows_of_{table.removeprefix('public.')}"), taken), text
        return shared[table][0]

    def _leads_nowhere(self, way: ParentKey, row: str, names: Names) -> str:
        """A condition: whether a link of a row leads to no tenant."""
        if len(way.columns) == 1 and way.enforced and self._owners[way.parent].is_sure:
            return f"{row}.{template_name(way.columns[0])} IS NULL"
        return f"NOT {self._leads(way, row, names)}"

    def _leads(self, way: ParentKey, row: str, names: Names) -> str:
        """A condition: whether a link of a row leads to some tenant."""
        given = " AND ".join(
            [*(f"{row}.{template_name(column)} IS NOT NULL" for column in way.columns), *when(way, row)]
        )
        parent = self._owners[way.parent]
        if way.enforced and parent.is_sure:
            return f"({given})"
        inner = Names(set(names.taken))
        joined = inner.of(way.parent)
        conditions = [same(way, joined, row)]
        if not parent.is_sure and parent.ways:
            conditions.append("(" + " OR ".join(self._leads(each, joined, inner) for each in parent.ways) + ")")
        return f"EXISTS (SELECT FROM {source(self._schema, way.parent)} AS {joined} WHERE {' AND '.join(conditions)})"

    def _with_itself(self, owner: Owner, link: ParentKey, shared: Shared, names: Names) -> str:
        """The rows that have a tenant by the ways, and those below them that have none by themselves."""
        inner = Names(set(names.taken))
        found, row = inner.of(owner.table, ending="_found"), inner.of(owner.table)
        begin = [self._branch(owner, number, shared, Names()) for number in range(len(owner.ways))]
        alone = [self._leads_nowhere(way, row, inner) for way in owner.ways]
        step = [
            f"SELECT {row}.*", f"  FROM {source(self._schema, owner.table)} AS {row}",
            f"  JOIN {found} ON {same(link, found, row)}", *where(alone),
        ]  # fmt: skip
        # UNION ALL ends and finds each row once: a row without a tenant of its own names one row above it, so a circle
        # of such rows is below no other row. Whole rows, because a join with their keys would read the whole table.
        both = "\nUNION ALL\n".join([*begin, "\n".join(step)])
        recursive = f"WITH RECURSIVE {found} AS (\n{indented(both)}\n)\nSELECT * FROM {found}"
        return f"SELECT {row}.*\n  FROM (\n{indented(recursive)}\n) AS {row}"
