"""Which rules of ``masks.txt`` fit which columns."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from clinic_backups.base.row_key import bare_type
from clinic_backups.base.table import Column, Table
from clinic_backups.tenant.declarations import spelled
from clinic_backups.tenant.masks import Rule
from clinic_backups.tenant.pg_catalog import catalog_query
from clinic_backups.tenant.tenant_db import Snapshot

LEAST = {"hash": 12, "name": 12, "email": 28}
"""The shortest columns that values of these rules fit into so that two different ones stay different."""

OF_KEYS: tuple[Rule, ...] = ("hash", "number", "shift")
"""Rules that give equal values equal masks, and different values different ones."""


@dataclass(frozen=True)
class MaskFacts:
    """What the database knows of columns that may be masked.

    :param unique: by table, the columns of its unique keys and indexes.
    :param bases: by domain, the type of PostgreSQL that it is made of.
    """

    unique: Mapping[str, frozenset[str]] = field(default_factory=dict)
    bases: Mapping[str, str] = field(default_factory=dict)
    never_null: frozenset[str] = frozenset()
    """Domains that are NOT NULL themselves."""
    wholes: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """By table, those that it is a partition or an heir of."""


def mask_facts(snapshot: Snapshot, names: Iterable[str]) -> MaskFacts:
    """Read them from PostgreSQL's catalog."""
    doing = "reading which columns are unique"
    found = snapshot.rows(catalog_query("mask_facts"), {"names": sorted(names)}, doing)
    domains = snapshot.rows(catalog_query("domain_bases"), None, doing)
    return MaskFacts(
        {name: frozenset(columns or ()) for name, columns, _ in found},
        {name: base for name, base, _ in domains},
        frozenset(name for name, _, never_null in domains if never_null),
        {name: tuple(wholes) for name, _, wholes in found if wholes},
    )


def misfit(table: Table, column: str, rule: Rule, facts: MaskFacts) -> str:
    """Why a rule does not fit a column; empty if it does."""
    found = next((each for each in table.columns if each.name == column), None)
    if found is None:
        return "there is no such column"
    if found.generated is not None:
        return "the database computes it: mask the columns that it is computed from"
    if rule == "null":
        never_null = found.not_null or column in table.primary_key or found.type in facts.never_null
        return "it may not be NULL" if never_null else ""
    found_type = facts.bases.get(found.type, found.type)
    bare, length = spelled_type(found_type)
    if rule not in _rules_for(bare):
        return f"the rule does not fit the type {found.shown_type}"
    if rule == "number" and found.is_numbered:
        return "the database numbers these rows itself, so the number says nothing of a person"
    if column in facts.unique.get(table.name, ()) or column in table.primary_key:
        if rule == "number" and found_type == "numeric":
            return "it may not have the same value twice, and 1.0 and 1.00 are the same: its type needs a fixed scale"
        if rule in ("empty", "phone", "text"):
            return "it may not have the same value twice, and this rule does not keep values apart: use hash"
        if length is not None and length < LEAST.get(rule, 0):
            return f"it may not have the same value twice, and for that {rule} needs {LEAST[rule]} characters"
    if rule == "email" and length is not None and length < LEAST[rule]:
        return f"{rule} needs {LEAST[rule]} characters"
    return ""


def mask_problems(
    rules: Mapping[str, Mapping[str, Rule]], tables: Mapping[str, Table], facts: MaskFacts
) -> Iterator[str]:
    """What is wrong with masks, a sentence each.

    :param tables: the tables that exist.
    """
    for name, columns in rules.items():
        if name not in tables:
            yield f"{name}: there is no such table."
            continue
        for column, rule in columns.items():
            if said := misfit(tables[name], column, rule, facts):
                yield f"{spelled(name, column)}, {rule}: {said}."
    yield from unequal_keys(tables, rules)


def of_a_part(
    name: str, columns: Mapping[str, Rule], rules: Mapping[str, Mapping[str, Rule]], wholes: Iterable[str]
) -> str:
    """Why lines of a table without an extract mask nothing: its rows are read as those of another; empty if they do.

    :param wholes: the tables with an extract that this one is a partition or an heir of.
    """
    for whole in wholes:
        if open_columns := [column for column in columns if column not in rules.get(whole, {})]:
            return (
                f"{name}: its rows are backed up as rows of {whole}, so its lines mask nothing. Write them for"
                f" {', '.join(spelled(whole, column) for column in open_columns)}."
            )
    return ""


def unequal_keys(tables: Mapping[str, Table], rules: Mapping[str, Mapping[str, Rule]]) -> Iterator[str]:
    """Columns of foreign keys that would not refer to the same row any more. Each with what to do."""
    for name, table in tables.items():
        for key in table.foreign_keys:
            if key.references not in tables:
                continue
            for column, referred in zip(key.columns, key.references_columns, strict=True):
                own, other = rules.get(name, {}).get(column), rules.get(key.references, {}).get(referred)
                if own not in (other, "null") or (other not in (None, *OF_KEYS) and own != "null"):
                    yield (
                        f"{spelled(name, column)} refers to {spelled(key.references, referred)}: both need the same"
                        f" rule, {', '.join(OF_KEYS[:-1])} or {OF_KEYS[-1]}, or neither has one."
                    )
                elif own == "number" and _type_of(table, column) != _type_of(tables[key.references], referred):
                    yield (
                        f"{spelled(name, column)} refers to {spelled(key.references, referred)}, which has another"
                        " type. The rule number would give them different numbers: both need null, or no rule."
                    )


def _type_of(table: Table, name: str) -> str:
    return next((column.type for column in table.columns if column.name == name), "")


_ONLY_NUMBERS_AND_TIMES = frozenset(
    {"smallint", "integer", "bigint", "numeric", "real", "double precision", "money", "oid", "boolean", "uuid", "date",
     "time without time zone", "time with time zone", "timestamp without time zone", "timestamp with time zone",
     "interval", "bit", "bit varying", "int4range", "int8range", "numrange", "daterange", "tsrange", "tstzrange",
     "int4multirange", "int8multirange", "nummultirange", "datemultirange", "tsmultirange", "tstzmultirange", "pg_lsn",
     "xid", "xid8", "cid", "tid"}
)  # fmt: skip


def is_free(column: Column, bases: Mapping[str, str]) -> bool:
    """Whether a column may hold what people write: every type but those that are known to hold none of it.

    A search vector, XML, a composite value or the type of an extension holds texts as well as a text does.
    """
    element = column.type.removesuffix("[]")
    base = bases.get(column.type) or bases.get(element) or element
    return bare_type(base).removesuffix("[]") not in _ONLY_NUMBERS_AND_TIMES


def spelled_type(type_: str) -> tuple[str, int | None]:
    """A type without its length, and the most characters of its values; none if there is no limit."""
    bare, _, rest = type_.partition("(")
    length, _, end = rest.partition(")")
    is_text = bare.startswith("character") and length.isdecimal() and not end
    return bare + ("[]" if type_.endswith("[]") and rest else ""), int(length) if is_text else None


def _rules_for(bare: str) -> tuple[Rule, ...]:
    if bare in ("text", "character varying", "character") or bare.endswith(".citext"):
        return ("empty", "hash", "name", "email", "phone", "text")
    if bare == "date" or (bare.startswith("timestamp") and not bare.endswith("[]")):
        return ("shift",)
    if bare == "uuid":
        return ("hash",)
    if bare in ("smallint", "integer", "bigint", "numeric"):
        return ("number",)
    return ("empty",) if bare in ("json", "jsonb", "bytea") or bare.endswith("[]") else ()
