"""``polymorphic.txt``: pairs of columns that name a row of one of several tables, as in Rails.

A line is ``schema.table (type column, id column): value = schema.table, value = schema.table``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from clinic_backups.base.errors import SettingsError
from clinic_backups.onboarding.schema import Schema
from clinic_backups.tenant.declarations import PART, lines_of, spelled, unquoted
from clinic_backups.tenant.operators import EQUAL
from clinic_backups.tenant.structure import ParentKey, plain

FILE = "polymorphic.txt"
HEADER = """\
# Pairs of columns of which one names a table and the other one a row of it. PostgreSQL knows no foreign key for them.
# `clinic-backups init` reads this file and writes extracts by it. Each line names the values that stand for tables:
#   schema.table (type_column, id_column): Value = schema.table, OtherValue = schema.other_table
"""
_TABLE = rf"{PART} \. {PART}"
_LINE = re.compile(rf"\s* ({_TABLE}) \s* \( \s* ({PART}) , ({PART}) \) \s* : (.*)", re.VERBOSE)
_TARGET = re.compile(rf"\s* ( '(?:[^']|'')*' | [^=,']+? ) \s* = \s* ({_TABLE}) \s* (?: , | $ )", re.VERBOSE)


@dataclass(frozen=True)
class PolymorphicKey(ParentKey):
    """A link that counts only for rows whose ``type_column`` has ``type_value``."""

    type_column: str = ""
    type_value: str = ""


def parse(text: str, schema: Schema) -> list[PolymorphicKey]:
    """The links of the file.

    :raises SettingsError: a line cannot be read, or names a table or column that does not exist.
    """
    found: list[PolymorphicKey] = []
    for number, line in lines_of(text):
        found += _links(line, number, schema)
    return found


def _links(line: str, number: int, schema: Schema) -> Iterable[PolymorphicKey]:
    where = f"{FILE}, line {number}"
    parts = _LINE.fullmatch(line)
    targets = list(_TARGET.finditer(parts[4])) if parts else []
    if parts is None or not targets or "".join(target[0] for target in targets).strip() != parts[4].strip():
        raise SettingsError(
            f"{where}: {line.strip()!r} is not `schema.table (type column, id column): value = schema.table`.",
            hint="Several values are separated by commas. Put a value with a comma, an equals sign or a quote into"
            " single quotes, as in SQL.",
        )
    table, kind, key = _table(parts[1]), unquoted(parts[2]), unquoted(parts[3])
    for column in (kind, key):
        if schema.column(table, column) is None:
            raise SettingsError(f"{where}: there is no column {table}.{column}.", hint="Correct the line.")
    for target in targets:
        parent = _table(target[2])
        primary = schema.primary_keys.get(parent, ())
        if len(primary) != 1:
            raise SettingsError(
                f"{where}: {parent} does not exist, or its primary key does not have exactly one column.",
                hint="Correct the line.",
            )
        value = target[1][1:-1].replace("''", "'") if target[1].startswith("'") else target[1]
        found = schema.column(table, key)
        yield PolymorphicKey(
            table, (key,), parent, primary, (EQUAL,), found.type if found else "", enforced=False,
            type_column=kind, type_value=value,
        )  # fmt: skip


def _table(written: str) -> str:
    return ".".join(map(unquoted, re.findall(PART, written, re.VERBOSE)))


def proposals(schema: Schema, table: str) -> list[str]:
    """Lines for the pairs of columns of a table that are named like such a pair, to be completed by a person."""
    return [f"{spelled(table)} ({kind}, {key}): Value = schema.table" for kind, key in pairs(schema, table)]


def pairs(schema: Schema, table: str) -> list[tuple[str, str]]:
    """The columns of a table that are named like such a pair: that of the type, and that of the row."""
    names = sorted(column.name for column in schema.columns[table])
    found = []
    for column in names:
        stem = re.sub(r"_?[tT]ype$", "", column)
        key = next((name for name in names if plain(name) == plain(f"{stem}_id")), None)
        if stem and stem != column and key is not None:
            found.append((column, key))
    return found
