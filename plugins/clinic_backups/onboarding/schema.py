"""What PostgreSQL's catalog says of a schema that is to be backed up."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from clinic_backups.base.errors import SettingsError
from clinic_backups.tenant import structure
from clinic_backups.tenant.key_names import nouns
from clinic_backups.tenant.pg_catalog import catalog_query
from clinic_backups.tenant.problems import schema_of
from clinic_backups.tenant.structure import Structure
from clinic_backups.tenant.tenant_db import Snapshot

KEY_TYPES = ("smallint", "integer", "bigint", "uuid", "text", "character varying")
"""The types that a tenant's key may have."""
PARENT = frozenset({"parent", "padre"})
"""What a column is called that names a row of its own table: ``parent_id``."""


@dataclass(frozen=True)
class Column:
    """One column of a table; ``type`` as ``format_type`` spells it, with its length."""

    name: str
    type: str
    is_not_null: bool


@dataclass(frozen=True)
class Schema:
    """The tables of one database, by ``schema.table``. Partitions count as part of their partitioned table."""

    structure: Structure
    columns: Mapping[str, tuple[Column, ...]]
    primary_keys: Mapping[str, tuple[str, ...]]
    unique: Mapping[str, tuple[frozenset[str], ...]]
    """The columns of each unique index without a condition, the primary key's too."""
    extensions: Mapping[str, str]
    """The extension that brought a table."""
    owners: Mapping[str, str]
    """The role that owns a table."""

    @cached_property
    def inherited(self) -> frozenset[str]:
        """The tables from which others inherit."""
        return frozenset(parent for each in self.structure.relations.values() for parent in each.inherits)

    def not_null(self, table: str) -> frozenset[str]:
        """The columns of a table that are never NULL."""
        return frozenset(column.name for column in self.columns.get(table, ()) if column.is_not_null)

    def column(self, table: str, name: str) -> Column | None:
        """One column, ``None`` if the table has none of that name."""
        return next((column for column in self.columns.get(table, ()) if column.name == name), None)


@dataclass(frozen=True)
class Tenant:
    """The table whose rows are the tenants, and its columns."""

    table: str
    key: str
    type: str
    """The type of the key, without length; for a domain, what it is made of."""
    name: str | None
    """The column with the tenant's name for people."""
    active: str
    """A condition in SQL: the tenants that the schedule backs up. Empty for all."""


def read(snapshot: Snapshot, tenant_table: str) -> Schema:
    """Read the catalog: two queries, whatever the number of tables."""
    facts: dict[str, list[Any]] = {}
    for kind, fact in snapshot.rows(catalog_query("all_tables"), None, "reading the catalog"):
        facts.setdefault(kind, []).append(fact)
    columns = {
        each["table"]: tuple(Column(name, type_, is_not_null) for name, type_, is_not_null in each["columns"] or ())
        for each in facts.get("columns", ())
    }
    unique: dict[str, list[frozenset[str]]] = {}
    for each in facts.get("unique", ()):
        unique.setdefault(each["table"], []).append(frozenset(each["columns"]))
    # A column may be named after any table: patient_id, although no foreign key leads to patients.
    names = {f"{noun}_id" for noun in {*PARENT, *(noun for table in columns for noun in nouns(table))}}
    found = structure.read(snapshot, names, tenant_table)
    copies = {*found.copies} - {schema_of(tenant_table)}
    return Schema(
        found,
        {table: its for table, its in columns.items() if schema_of(table) not in copies},
        {each["table"]: tuple(each["columns"]) for each in facts.get("unique", ()) if each["is_primary"]},
        {table: tuple(keys) for table, keys in unique.items()},
        {each["table"]: each["extension"] for each in facts.get("extension", ())},
        {each["table"]: each["owner"] for each in facts.get("columns", ())},
    )


def tenant_of(schema: Schema, table: str, key: str | None, name: str | None, active: str) -> Tenant:
    """The tenants' table and its columns.

    :param key: by default the only column of the primary key.
    :param name: by default a column that is usually called so.
    :raises SettingsError: there is no such table or column, or the key cannot be a tenant's id.
    """
    if table not in schema.columns or schema.structure.relations[table].kind == "f":
        raise SettingsError(
            f"There is no table {table}, or it is not visible to this role.",
            hint="Name the table whose rows are the tenants: --tenant schema.table. Tables of this database: "
            + (", ".join(sorted(schema.columns)[:10]) or "none"),
        )
    primary = schema.primary_keys.get(table, ())
    if key is None and len(primary) != 1:
        raise SettingsError(
            f"The primary key of {table} has {len(primary)} columns.",
            hint="Name the column that identifies a tenant: --key column. It needs a unique index.",
        )
    key = key or primary[0]
    column = schema.column(table, key)
    if column is None or (name is not None and schema.column(table, name) is None):
        missing = key if column is None else name
        raise SettingsError(
            f"{table} has no column {missing}.",
            hint="Its columns: " + ", ".join(each.name for each in schema.columns[table]),
        )
    if frozenset({key}) not in schema.unique.get(table, ()) or not column.is_not_null:
        raise SettingsError(
            f"{table}.{key} does not identify a tenant: it has no unique index of its own, or may be NULL.",
            hint="Choose another column with --key.",
        )
    return Tenant(table, key, _key_type(schema, table, column), name or _name_of(schema, table), active)


def _key_type(schema: Schema, table: str, column: Column) -> str:
    noted = next((each for each in schema.structure.columns if (each.table, each.name) == (table, column.name)), None)
    type_ = (noted.base if noted else column.type).partition("(")[0]
    if type_ not in KEY_TYPES:
        raise SettingsError(
            f"{table}.{column.name} has the type {column.type}, which no tenant's key can have.",
            hint=f"A tenant's key is one of {', '.join(KEY_TYPES)}. Choose another column with --key.",
        )
    return type_


def _name_of(schema: Schema, table: str) -> str | None:
    columns = {column.name.lower(): column.name for column in schema.columns[table]}
    usual = ("name", "nombre", "title", "display_name", "company_name", "legal_name", "slug", "subdomain", "email")
    return next((columns[each] for each in usual if each in columns), None)
