"""The references between tables: foreign keys, and columns that are named like one."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from clinic_backups.onboarding import polymorphic
from clinic_backups.onboarding.schema import PARENT, Schema
from clinic_backups.tenant.key_names import nouns, singulars, stems
from clinic_backups.tenant.operators import EQUAL
from clinic_backups.tenant.problems import schema_of
from clinic_backups.tenant.structure import NotedColumn, ParentKey, comparable, plain


@dataclass(frozen=True)
class ReversedKey(ParentKey):
    """A foreign key, read from the row that it refers to. There may be no row that refers to it."""


def all_links(
    schema: Schema,
    tenant_table: str,
    declared: Collection[str],
    polymorphic_keys: Collection[polymorphic.PolymorphicKey] = (),
) -> dict[str, list[ParentKey]]:
    """The links of each table: its foreign keys, then the columns that are only named like one, then those of pairs.

    :param declared: columns that mean something else, as ``schema.table.column``. They are left out.
    :param polymorphic_keys: the links of ``polymorphic.txt``.
    """
    found: dict[str, list[ParentKey]] = {table: [] for table in schema.columns}
    # With "item_type" beside it, "item_id" is the number of an item in some rows, and of something else in others.
    of_pairs = {(table, key) for table in schema.columns for _, key in polymorphic.pairs(schema, table)}
    of_pairs |= {(key.table, key.columns[0]) for key in polymorphic_keys}
    named = [key for key in _named(schema, tenant_table) if (key.table, key.columns[0]) not in of_pairs]
    for key in (*schema.structure.references, *named):
        is_declared = any(f"{key.table}.{column}" in declared for column in key.columns)
        if key.table in found and key.parent in found and not is_declared:
            found[key.table].append(key)
    for each in polymorphic_keys:
        found[each.table].append(each)
    return found


def reversed_links(schema: Schema, tables: Collection[str]) -> list[ReversedKey]:
    """For each of these tables, a link to every table of which at most one row refers to one of its rows.

    Such a row is the other one's, as if it were a part of it: with Django's inherited models, or one-to-one.
    """
    found = []
    for key in schema.structure.references:
        is_single = any(columns <= set(key.columns) for columns in schema.unique.get(key.table, ()))
        if key.parent in tables and key.table != key.parent and is_single and set(key.operators) == {EQUAL}:
            column = schema.column(key.parent, key.parent_columns[0])
            found.append(
                ReversedKey(
                    key.parent, key.parent_columns, key.table, key.columns, key.operators,
                    column.type if column else key.type, enforced=False,
                )
            )  # fmt: skip
    return found


def is_like_a_key(schema: Schema, column: str) -> bool:
    """Whether some table has the name that is in a column's."""
    said = set(map(plain, stems(column)))
    return any(said & set(map(plain, nouns(table))) for table in schema.columns)


def _named(schema: Schema, tenant_table: str) -> Iterable[ParentKey]:
    names = _Names(schema, tenant_table)
    for column in schema.structure.columns:
        if column.table != tenant_table and not column.is_foreign_key and column.table in schema.columns:
            meant = names.meant_by(column)
            if meant is not None:
                yield ParentKey(
                    column.table, (column.name,), meant.table, (meant.name,), (EQUAL,), column.type, column.base,
                    enforced=False,
                )  # fmt: skip


class _Names:
    """The tables that a column's name may mean."""

    def __init__(self, schema: Schema, tenant_table: str) -> None:
        self._tenant = tenant_table
        self._keys = {column.table: column for column in schema.structure.columns if column.is_primary_key}
        self._tables: dict[str, list[str]] = {}
        for table in self._keys:
            for noun in nouns(table):
                self._tables.setdefault(plain(noun), []).append(table)
        self._learned = self._by_foreign_keys(schema)

    def meant_by(self, column: NotedColumn) -> NotedColumn | None:
        """The primary key that a column refers to by its name; ``None`` if that is not clear."""
        if column.is_primary_key and plain(column.name) not in self._learned:
            # A table with one row for each tenant may have the tenant's key as its own, but "id" means nothing.
            said = stems(column.name)
            is_tenants = any(self._tenant in self._tables.get(stem, ()) for stem in said)
            return self._fitting(column, [self._tenant] if is_tenants else [])
        learned = self._learned.get(plain(column.name), set())
        if learned:
            return self._fitting(column, learned if len(learned) == 1 else learned & {self._tenant})
        tables = {table for stem in stems(column.name) for table in self._tables.get(plain(stem), ())}
        own = self._keys.get(column.table)
        if not tables and own is not None and own.base == column.base and stems(column.name) & PARENT:
            return own
        if self._tenant in tables:
            return self._fitting(column, [self._tenant])
        # "order_id" means the table "orders" rather than "shop_order".
        whole = {table for table in tables if self._is_whole(table, column.name)}
        same_schema = {table for table in whole or tables if schema_of(table) == schema_of(column.table)}
        return self._fitting(column, same_schema or whole or tables)

    def _fitting(self, column: NotedColumn, tables: Collection[str]) -> NotedColumn | None:
        fits = [
            self._keys[table] for table in tables
            if table in self._keys and table != column.table and comparable(self._keys[table].base, column.base)
        ]  # fmt: skip
        return fits[0] if len(fits) == 1 else None

    @staticmethod
    def _is_whole(table: str, column: str) -> bool:
        name = plain(table.split(".", 1)[1])
        return any(plain(stem) in {name, *singulars(name)} for stem in stems(column))

    @staticmethod
    def _by_foreign_keys(schema: Schema) -> Mapping[str, set[str]]:
        """The tables that foreign keys of this name lead to elsewhere."""
        found: dict[str, set[str]] = {}
        for key in schema.structure.references:
            if len(key.columns) == 1 and key.table != key.parent:
                found.setdefault(plain(key.columns[0]), set()).add(key.parent)
        return found
