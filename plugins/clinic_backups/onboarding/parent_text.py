"""Writes the SQL of parent tables: the rows that one tenant's rows refer to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from clinic_backups.onboarding.extract_text import ExtractText
from clinic_backups.onboarding.schema import Schema
from clinic_backups.onboarding.sql_parts import Names, Shared, indented, same, source, template_name, with_queries
from clinic_backups.tenant.structure import ParentKey

_OR = "\n    OR "


class ParentText:
    """The queries of parent tables: the rows that one tenant's rows refer to.

    :param referring: for each parent table, the links to it from extracted tables and from other parents.
    """

    def __init__(self, schema: Schema, extracts: ExtractText, referring: Mapping[str, Sequence[ParentKey]]) -> None:
        self._schema, self._extracts, self._referring = schema, extracts, referring

    def of(self, table: str) -> str:
        """The query of one parent table."""
        return self._query(table, ()) + "\n"

    def _query(self, table: str, below: tuple[str, ...]) -> str:
        names = Names()
        row = names.of(table)
        links = [link for link in self._referring[table] if link.table not in (table, *below)]
        shared: Shared = {}
        for each in dict.fromkeys(link.table for link in links):
            is_parent = each in self._referring
            text = self._query(each, (*below, table)) if is_parent else self._extracts.rows_of(each)
            shared[each] = names.of(each, ending="_of_clinic"), text
        wanted: dict[tuple[str, ...], list[str]] = {}
        for link in links:
            columns = ", ".join(template_name(column) for column in link.columns)
            wanted.setdefault(link.parent_columns, []).append(f"SELECT {columns} FROM {shared[link.table][0]}")
        conditions = [self._in(row, columns, selects) for columns, selects in wanted.items()]
        itself = [link for link in self._referring[table] if link.table == table]
        rows = f"{source(self._schema, table)} AS {row}"
        if not itself or table not in self._schema.primary_keys:
            return f"{with_queries(shared.values())}SELECT {row}.*\n  FROM {rows}\n WHERE {_OR.join(conditions)}"
        return self._with_itself(table, itself, rows, conditions, shared, names)

    def _with_itself(
        self, table: str, itself: Sequence[ParentKey], rows: str, conditions: Sequence[str],
        shared: Shared, names: Names,
    ) -> str:  # fmt: skip
        """Also the rows that these rows refer to in the same table, at any depth."""
        keys = list(
            dict.fromkeys((*self._schema.primary_keys[table], *(column for link in itself for column in link.columns)))
        )
        row = template_name(table.split(".", 1)[1])
        found = names.of(table, ending="_found")
        shown = ", ".join(f"{row}.{template_name(key)}" for key in keys)
        above = " OR ".join("(" + same(link, row, found) + ")" for link in itself)
        listed = ", ".join(map(template_name, keys))
        recursive = (
            f"{found} ({listed}) AS (\n"
            + indented(
                f"SELECT {shown}\n  FROM {rows}\n WHERE {_OR.join(conditions)}\n"
                f"UNION\nSELECT {shown}\n  FROM {rows}\n  JOIN {found} ON {above}"
            )
            + "\n)"
        )
        primary = self._schema.primary_keys[table]
        own_row = " AND ".join(f"{found}.{template_name(key)} = {row}.{template_name(key)}" for key in primary)
        return (
            f"{with_queries(shared.values(), recursive)}SELECT {row}.*\n  FROM {rows}\n"
            f" WHERE EXISTS (SELECT FROM {found} WHERE {own_row})"
        )

    @staticmethod
    def _in(row: str, columns: tuple[str, ...], selects: Sequence[str]) -> str:
        mine = ", ".join(f"{row}.{template_name(column)}" for column in columns)
        listed = indented("\nUNION\n".join(selects), 12)
        return f"({mine}) IN (\n{listed})"
