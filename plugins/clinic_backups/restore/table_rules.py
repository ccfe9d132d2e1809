"""Reads from PostgreSQL's catalog the operators, unique indexes, keys and rights of the restored tables."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from psycopg2 import sql

from clinic_backups.base.database import qualified
from clinic_backups.base.table import Table
from clinic_backups.base.text import in_sql, quoted
from clinic_backups.tenant.operators import Operator, operators_of
from clinic_backups.tenant.pg_catalog import catalog_query
from clinic_backups.tenant.tenant_db import Snapshot

NO_ACTION = "a"
"""``pg_constraint.confdeltype``: a row that is referred to cannot be deleted; nothing else happens."""
CASCADE = "c"
"""The same: rows that refer to a deleted row are deleted too."""


@dataclass(frozen=True)
class UniqueRule:
    """A unique or exclusion index besides the primary key's.

    :param expressions: the compared expressions, as SQL over the table's columns.
    :param operators: one for each expression; empty for an exclusion constraint.
    :param predicate: the condition for rows in the index; none if it holds all rows.
    :param columns: every column that it uses.
    :param deferrable: it is checked at the end of the transaction.
    """

    name: str
    expressions: tuple[str, ...]
    operators: tuple[Operator, ...]
    predicate: str | None
    columns: tuple[str, ...]
    deferrable: bool
    exclusion: bool
    nulls_distinct: bool = True
    of_partition: bool = False
    """Whether it is an index of a single partition."""
    key: tuple[str, ...] = ()
    """Its columns, if they identify every row of the table; none of them may be NULL."""
    collations: tuple[str | None, ...] = ()
    """As :attr:`TableRules.collations`."""

    def has_itself(self, column: str) -> bool:
        """Whether it compares this column itself, and not only an expression of it."""
        return not {in_sql(column), quoted(column)}.isdisjoint(self.expressions)


@dataclass(frozen=True)
class TableRules:
    """Further facts about one table.

    :param equals: the equality operator of each column of the primary key.
    :param collations: for each column of the primary key, the collation if it treats some different texts as equal.
    :param deferrable_key: its primary key is checked at the end of the transaction.
    :param children: tables that inherit from it and are no partitions.
    :param missing_rights: those of SELECT, INSERT, UPDATE and DELETE that this role lacks.
    :param owned: this role owns the table, and may turn off its triggers.
    """

    equals: tuple[Operator, ...] = ()
    unique: tuple[UniqueRule, ...] = ()
    deferrable_key: bool = False
    children: tuple[str, ...] = ()
    missing_rights: tuple[str, ...] = ()
    owned: bool = False
    collations: tuple[str | None, ...] = ()
    row_key: tuple[str, ...] = ()
    """For a table without a primary key: the columns of a unique index that identifies its rows."""

    def in_sql(self, name: str) -> sql.Composable:
        """The table of this name in a statement, without the tables that inherit from it."""
        return sql.SQL("ONLY " if self.children else "") + qualified(name)

    @property
    def immediate_columns(self) -> frozenset[str]:
        """Columns of unique and exclusion indexes that PostgreSQL checks row by row, so two rows cannot swap values."""
        return frozenset(name for rule in self.unique if not rule.deferrable for name in rule.columns)

    @property
    def is_deferrable(self) -> bool:
        """Whether it has unique keys that PostgreSQL checks by triggers at the end."""
        return self.deferrable_key or any(rule.deferrable for rule in self.unique)


@dataclass(frozen=True)
class Reference:
    """A foreign key: ``columns`` of ``child`` refer to ``parent_columns`` of ``parent``.

    :param operators: one for each pair, with the parent's column on the left.
    :param on_delete, on_update: as in ``pg_constraint``; ``a`` means no action.
    """

    name: str
    child: str
    columns: tuple[str, ...]
    parent: str
    parent_columns: tuple[str, ...]
    operators: tuple[Operator, ...] = field(repr=False)
    on_delete: str = NO_ACTION
    on_update: str = NO_ACTION
    plain: bool = True
    """Whether the restore can prove it by itself: see ``pg_catalog/foreign_keys.sql``."""
    whole: bool = True
    """Whether it covers all rows of ``child`` and of ``parent``, not only those of one partition."""
    child_readable: bool = True
    """Whether this role may read ``child``; ``parent_readable``: whether it may read ``parent``."""
    parent_readable: bool = True
    match_full: bool = False
    """Whether a row refers to nothing only if all columns are NULL."""
    is_named: bool = False
    """Whether it is no foreign key, but a column that is named like one."""

    @property
    def is_visible(self) -> bool:
        """Whether this role can look at all rows that it covers. Otherwise only PostgreSQL checks it."""
        return self.whole and self.child_readable and self.parent_readable

    def refers(self, child: str, parent: str) -> sql.Composed:
        """SQL: the row of alias ``child`` refers to the row of alias ``parent``."""
        return compare(
            [sql.Identifier(parent, name) for name in self.parent_columns],
            self.operators,
            [sql.Identifier(child, name) for name in self.columns],
        )


def with_row_key(
    rules: TableRules, table: Table, references: Iterable[Reference], columns: Collection[str] | None = None
) -> TableRules:
    """The rules of a table, with a unique index that identifies its rows if it has no primary key.

    An index that other tables refer to is preferred. Then no row that they refer to is deleted and inserted.

    :param columns: the columns that its key may have; by default all.
    """
    found = [
        rule
        for rule in rules.unique
        if rule.key and len(rule.operators) == len(rule.key) and (columns is None or set(rule.key) <= set(columns))
    ]
    if table.primary_key or not found:
        return rules
    named = [set(reference.parent_columns) for reference in with_parent(references, table.name)]
    best = min(found, key=lambda rule: (set(rule.key) not in named, len(rule.key), rule.name))
    others = tuple(rule for rule in rules.unique if rule is not best)
    return replace(rules, equals=best.operators, collations=best.collations, row_key=best.key, unique=others)


def identified(then: Table, now: Table, rules: TableRules, references: Iterable[Reference]) -> tuple[Table, TableRules]:
    """A table with what tells its rows apart, on both sides: its primary key, or else a unique index.

    If the primary key has columns that the backup lacks, and a unique index has the columns of the backup's key, the
    table is returned without its primary key. That is a column like any other then.

    :param then: the table in the backup.
    """
    stored = {column.name for column in then.stored_columns}
    computed = {column.name for column in now.columns if column.generated is not None}
    if not set(now.primary_key) <= stored | computed:
        bare = replace(now, primary_key=())
        found = with_row_key(rules, bare, references, then.primary_key or stored)
        if found.row_key:
            return bare, found
    return now, with_row_key(rules, now, references, stored)


def compare(
    left: Sequence[sql.Composable], operators: Sequence[Operator], right: Sequence[sql.Composable]
) -> sql.Composed:
    """SQL: all pairs are equal by their types' own operators, in whatever schema these are."""
    return sql.SQL(" AND ").join(
        operator.compares(one, other) for one, operator, other in zip(left, operators, right, strict=True)
    )


def read_rules(snapshot: Snapshot, names: Sequence[str]) -> dict[str, TableRules]:
    """The rules of each table by ``schema.table``."""
    found = snapshot.rows(catalog_query("rules"), {"names": list(names)}, "reading the catalog")
    return {name: _rules(rules) for name, rules in found}


def read_references(snapshot: Snapshot, names: Sequence[str]) -> tuple[Reference, ...]:
    """All foreign keys from or to one of these tables."""
    found = snapshot.rows(
        catalog_query("foreign_keys", key_operator="key_operator"), {"names": list(names)}, "reading the foreign keys"
    )
    return tuple(
        Reference(name, child, tuple(columns), parent, tuple(parent_columns), operators_of(operators), *rest)
        for name, child, columns, parent, parent_columns, operators, *rest in found
    )


def linked_tables(references: Iterable[Reference]) -> set[str]:
    """The tables at both ends of foreign keys."""
    return {name for each in references for name in (each.child, each.parent)}


def with_child(references: Iterable[Reference], name: str) -> list[Reference]:
    """The foreign keys of a table."""
    return [reference for reference in references if reference.child == name]


def with_parent(references: Iterable[Reference], name: str) -> list[Reference]:
    """The foreign keys that refer to a table."""
    return [reference for reference in references if reference.parent == name]


def cascading(references: Iterable[Reference], name: str) -> Reference | None:
    """A foreign key to this table whose ON DELETE changes or deletes the referring rows. ``None``: no key does."""
    return next((found for found in with_parent(references, name) if found.on_delete != NO_ACTION), None)


def _rules(found: dict[str, Any]) -> TableRules:
    unique = [
        UniqueRule(
            **(
                rule
                | {key: tuple(rule[key] or ()) for key in ("expressions", "columns", "key", "collations")}
                | {"operators": () if rule["exclusion"] else operators_of(rule["operators"])}
            )
        )
        for rule in found["unique"] or ()
    ]
    lists = {key: tuple(found[key] or ()) for key in ("collations", "children", "missing_rights")}
    return TableRules(
        **lists,
        equals=operators_of(found["equals"]),
        unique=tuple(unique),
        deferrable_key=found["deferrable_key"],
        owned=found["owned"],
    )
