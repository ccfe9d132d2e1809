"""Columns that are named like a foreign key and have none: one rule for restores and for what needs no database.

That a row must not come back counts more than a type or a name that is only usual: such a column is followed whatever
its type is. Values are compared as numbers, or as texts without case.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from psycopg2 import sql

from clinic_backups.base.table import Column, Table
from clinic_backups.restore.heirs import heirs_of
from clinic_backups.restore.table_rules import Reference
from clinic_backups.tenant.key_names import nouns, stems
from clinic_backups.tenant.operators import EQUAL, Operator
from clinic_backups.tenant.structure import comparable, plain


class SameText(Operator):
    """Compares values of any two types as texts without case, and numbers among them as numbers."""

    def compares(self, one: sql.Composable, other: sql.Composable) -> sql.Composed:
        return sql.SQL('{} OPERATOR(pg_catalog.=) {} COLLATE pg_catalog."C"').format(_text(one), _text(other))


SAME_TEXT = SameText("pg_catalog", "lower =")


def _text(value: sql.Composable) -> sql.Composed:
    """In lower case, and a number without the zeros at its end."""
    return sql.SQL(r"regexp_replace(lower(({})::pg_catalog.text), '^(-?[0-9]+(?:\.[0-9]*[1-9])?)\.?0*$', '\1')").format(
        value
    )


def named_links(tables: Mapping[str, Table]) -> Iterator[Reference]:
    """``paciente_id``, if one table alone is called so and has a key of one column.

    So is a column with the name of foreign keys that all lead to one table.
    """
    learned, by_noun, heirs = _learned(tables), dict[str, set[tuple[str, str]]](), heirs_of(tables)
    for name, table in tables.items():
        for noun in nouns(name) if len(table.primary_key) == 1 else ():
            by_noun.setdefault(noun, set()).add((name, table.primary_key[0]))
    for name, table in tables.items():
        held = {column for key in table.foreign_keys if key.references in tables for column in key.columns}
        for column in table.stored_columns:
            if column.name in held or not (said := stems(column.name)):
                continue
            meant = learned.get(plain(column.name)) or {each for noun in said for each in by_noun.get(noun, ())}
            others = {each for each in meant if each[0] != name}
            others -= {each for each in others if any(each[0] in heirs.get(above, ()) for above, _ in others)}
            if len(others) == 1:
                ((parent, key),) = others
                there = {each.name: each for each in tables[parent].columns}
                if key in there:
                    operator = _operator(there[key], column)
                    yield Reference(
                        f"column {column.name}", name, (column.name,), parent, (key,), (operator,), is_named=True
                    )


def _learned(tables: Mapping[str, Table]) -> dict[str, set[tuple[str, str]]]:
    """Where foreign keys of one column lead, by the column's name, if it has a word for a key."""
    found: dict[str, set[tuple[str, str]]] = {}
    for name, table in tables.items():
        for key in table.foreign_keys:
            # A table's name for its own rows ("parent_id") says nothing about the columns of other tables.
            if len(key.columns) == 1 and stems(key.columns[0]) and key.references in tables.keys() - {name}:
                found.setdefault(plain(key.columns[0]), set()).add((key.references, key.references_columns[0]))
    return {name: each for name, each in found.items() if len(each) == 1}


def _operator(one: Column, other: Column) -> Operator:
    return EQUAL if comparable(one.value_type, other.value_type) else SAME_TEXT
