"""Facts from PostgreSQL's catalog about all relations that decide whether a backup is complete."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from clinic_backups.base.copy_schema import MADE_BY_US
from clinic_backups.base.text import quoted_table
from clinic_backups.tenant.operators import Operator, operators_of
from clinic_backups.tenant.pg_catalog import catalog_query
from clinic_backups.tenant.tenant_db import Snapshot

FAMILIES = ({"smallint", "integer", "bigint", "numeric"}, {"text", "character varying", "character"})
TEXTS = {"text", "character varying", "character", "name", "citext"}
NUMBERS = {"smallint", "integer", "bigint", "numeric", "real", "double precision"}
LOOSE_STEM = "^_*(ids?_|id|[ug]uids?_?|fk_|pk_)|_*([ug]u)?ids?_*$|_(fk|pk)_*$"
"""The parts of a lower-case name that PostgreSQL's comparison ignores. ``key_names.py`` compares more exactly."""
KINDS = {"r": "table", "p": "partitioned table", "v": "view", "m": "materialized view", "f": "foreign table"}


@dataclass(frozen=True)
class Relation:
    """A table, view or the like; ``name`` is ``schema.table``, unquoted."""

    name: str
    kind: str
    """One of :data:`KINDS`."""
    persistence: str
    """``p`` permanent, ``u`` unlogged, ``t`` temporary"""
    root: str | None
    """For a partition: its partitioned table."""
    inherits: tuple[str, ...]
    """The parents by INHERITS; a partition has none."""
    leaves: str | None = None
    """For a partition whose DETACH CONCURRENTLY has begun and not ended: the partitioned table."""


@dataclass(frozen=True)
class ParentKey:
    """``columns`` of a table refer to rows of ``parent``. For partitions, the partitioned tables are given."""

    table: str
    columns: tuple[str, ...]
    parent: str
    parent_columns: tuple[str, ...]
    operators: tuple[Operator, ...]
    """The equality of each column, with the parent's value on the left."""
    type: str
    """Type of the first column, as ``format_type`` spells it. A type that is not PostgreSQL's own has its schema."""
    base: str = ""
    """The base type of a domain; otherwise the same type."""
    enforced: bool = True
    """Whether there is a constraint. Otherwise only the column's name shows the reference."""


@dataclass(frozen=True)
class NotedColumn:
    """A column that may refer to a large object, or that is named like a foreign key of some table."""

    table: str
    name: str
    type: str
    base: str
    """The base type of a domain; otherwise the same type."""
    is_oid: bool
    is_array: bool
    oid_attributes: tuple[str, ...]
    """For a composite type: its attributes, at any depth, that may refer to a large object."""
    managed: bool
    """Whether a trigger ``lo_manage`` is on it."""
    is_primary_key: bool
    """Whether it is the whole primary key."""
    in_primary_key: bool
    """Whether it is the primary key or a part of it."""
    is_foreign_key: bool
    """Whether it is a foreign key or a part of one."""
    is_part: bool = False
    """Whether it is only a part of foreign keys of several columns. Alone it may refer to something else."""


@dataclass(frozen=True)
class OperatorColumn:
    """A name for values of a type that has operators or functions outside of ``pg_catalog``.

    It is a column of a relation or of a function's result, or the name of a function or of the type itself.
    """

    source: str
    """``schema.name`` of the relation, the function or the type."""
    name: str
    type: str
    operators: frozenset[tuple[str, str]]
    """Schema and name of these operators and functions. ``pg_catalog`` has others of the same names."""


@dataclass(frozen=True)
class Structure:
    """The facts of one moment."""

    relations: dict[str, Relation]
    references: tuple[ParentKey, ...]
    columns: tuple[NotedColumn, ...]
    has_large_objects: bool
    copies: tuple[str, ...] = ()
    """Schemas that hold a copy of a backup, see :mod:`clinic_backups.tenant.copies`."""
    operator_columns: tuple[OperatorColumn, ...] = ()
    function_texts: tuple[tuple[str, str], ...] = ()
    """Where there are such columns: functions whose text is parsed with the caller's search path."""

    def own_rows(self, name: str) -> str:
        """The table in a FROM without rows of inheriting tables; a partitioned table with those of its partitions."""
        relation = self.relations.get(name)
        return ("ONLY " if relation is not None and relation.kind == "r" else "") + quoted_table(name)

    def descendants(self, name: str) -> list[str]:
        """The tables that inherit from one, at any depth, in order of name."""
        found: set[str] = set()
        waiting = [name]
        while waiting:
            parent = waiting.pop()
            for relation in self.relations.values():
                if parent in relation.inherits and relation.name not in found:
                    found.add(relation.name)
                    waiting.append(relation.name)
        return sorted(found)


def plain(name: str) -> str:
    """A column's name without case and underscores: ``clinica_id`` and ``clinicaId`` are the same."""
    return name.replace("_", "").lower()


def loose_stem(name: str) -> str:
    """The stem that ``structure.sql`` computes from a column's name. All forms of a key's name have the same stem."""
    return (re.sub(LOOSE_STEM, "", name.lower()).replace("_", "") or plain(name)).rstrip("s")


def may_hold(column: str, key: str) -> bool:
    """Whether a column's type can hold a key's values. Texts can hold all values; an array can if its items can."""
    names = {one.removesuffix("[]").rpartition(".")[2] for one in (column, key)}
    return len(names) == 1 or bool(names & TEXTS) or names <= NUMBERS or names == {"uuid", "bytea"}


def comparable(one: str, other: str) -> bool:
    """Whether values of two types can be compared with PostgreSQL's own equality."""
    return "." not in one and (one == other or any({one, other} <= family for family in FAMILIES))


def read(snapshot: Snapshot, names: Iterable[str] = (), clinic_table: str = "") -> Structure:
    """Read the catalog once, for all tables.

    :param names: include columns with these names, besides those named like a foreign key.
    :param clinic_table: also include columns named like those of this table's key, if that has several.
    """
    query = catalog_query("structure", key_operator="key_operator")
    facts: dict[str, list[Any]] = {}
    values = {"names": [loose_stem(name) for name in names], "words": LOOSE_STEM, "clinic_table": clinic_table}
    values["copy"] = MADE_BY_US
    for kind, fact in snapshot.rows(query, values, "reading the catalog"):
        facts.setdefault(kind, []).append(fact)
    references = sorted({_reference(item) for item in facts.get("foreign_key", ())}, key=_order)
    alone = {(key.table, key.columns[0]) for key in references if len(key.columns) == 1}
    parts = {(key.table, column) for key in references for column in key.columns} - alone
    columns = [
        NotedColumn(
            **(item | {"oid_attributes": tuple(item["oid_attributes"] or ())}),
            is_foreign_key=(item["table"], item["name"]) in alone | parts,
            is_part=(item["table"], item["name"]) in parts,
        )
        for item in facts.get("column", ())
    ]
    operator_columns = _operator_columns(snapshot, clinic_table) if facts["other_operators"][0] else ()
    texts = snapshot.rows(catalog_query("function_texts"), None, "reading functions") if operator_columns else []
    return Structure(
        relations={item["name"]: _relation(item) for item in facts.get("relation", ())},
        references=tuple(references),
        columns=tuple(sorted(columns, key=lambda column: (column.table, column.name))),
        has_large_objects=bool(facts["large_objects"][0]),
        copies=tuple(sorted(facts.get("copy", ()))),
        operator_columns=operator_columns,
        function_texts=tuple((name, text) for name, text in texts),
    )


def _operator_columns(snapshot: Snapshot, clinic_table: str) -> tuple[OperatorColumn, ...]:
    """Asked only if a database has operators that are not PostgreSQL's own."""
    values = {"clinic_table": clinic_table}
    found = snapshot.rows(catalog_query("other_operators"), values, "reading the operators of types")
    return tuple(
        OperatorColumn(source, name, type_, frozenset((schema, operator) for schema, operator in operators))
        for source, name, type_, operators in found
    )


def _relation(item: dict[str, Any]) -> Relation:
    return Relation(**(item | {"inherits": tuple(item["inherits"] or ())}))


def _reference(item: dict[str, Any]) -> ParentKey:
    operators: Iterable[list[str]] = item["operators"]
    return ParentKey(
        table=item["table"],
        columns=tuple(item["columns"]),
        parent=item["parent"],
        parent_columns=tuple(item["parent_columns"]),
        operators=operators_of(operators),
        type=item["type"],
        base=item["base"],
    )


def _order(reference: ParentKey) -> tuple[str, tuple[str, ...], str]:
    return reference.table, reference.columns, reference.parent


def column_numbers(snapshot: Snapshot) -> dict[str, dict[str, int]]:
    """The columns of every table of the database, by ``schema.table``, each with PostgreSQL's number."""
    found = snapshot.rows(
        "SELECT n.nspname || '.' || c.relname, json_object_agg(a.attname, a.attnum) FROM pg_class AS c"
        " JOIN pg_namespace AS n ON n.oid = c.relnamespace JOIN pg_attribute AS a ON a.attrelid = c.oid"
        " WHERE c.relkind IN ('r', 'p') AND a.attnum > 0 AND NOT a.attisdropped GROUP BY 1",
        None,
        "reading the names of columns",
    )
    return dict(found)


def table_oids(snapshot: Snapshot) -> dict[str, tuple[int, str | None]]:
    """The OID of every table of the database, by ``schema.table``; for a partition also its partitioned table."""
    found = snapshot.rows(
        "SELECT n.nspname || '.' || c.relname, c.oid::bigint, CASE WHEN c.relispartition THEN"
        " (SELECT rn.nspname || '.' || r.relname FROM pg_class AS r JOIN pg_namespace AS rn ON rn.oid = r.relnamespace"
        " WHERE r.oid = pg_partition_root(c.oid)) END"
        " FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace WHERE c.relkind IN ('r', 'p')",
        None,
        "reading the names of tables",
    )
    return {table: (oid, root) for table, oid, root in found}
