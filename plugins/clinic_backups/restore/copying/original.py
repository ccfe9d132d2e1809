"""Reads from PostgreSQL's catalog what the original tables have besides columns and rows.

Definitions come from the clinics' database and never from the archive: whoever has the public key can write a manifest,
and a definition is code. Names and types of the database are somebody's too, so each definition comes with what it
uses. See docs/decisions/0037-a-copy-to-work-with.md.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from clinic_backups.base.errors import SettingsError
from clinic_backups.restore.table_rules import Reference
from clinic_backups.tenant.extract import SqlFolder
from clinic_backups.tenant.mask_rules import MaskFacts, mask_facts
from clinic_backups.tenant.pg_catalog import catalog_query
from clinic_backups.tenant.strangers import strangers_code
from clinic_backups.tenant.tenant_db import Snapshot

_NOT_VALID = " NOT VALID"
_DOING = "reading the original's definitions"


@dataclass(frozen=True)
class Use:
    """Something that a definition needs, besides its own table and what every PostgreSQL has.

    :param name: as PostgreSQL identifies it, with its schema.
    :param extension: the extension that it belongs to, if it belongs to one.
    :param type: for a type: the type itself, or that of an array's elements, as ``format_type`` spells it.
    :param sequence: for a sequence: its name in SQL.
    """

    kind: str
    name: str
    extension: str | None
    type: str | None
    sequence: str | None


@dataclass(frozen=True)
class Definition:
    """A piece of SQL that PostgreSQL has printed, with every name outside of ``pg_catalog`` qualified."""

    name: str
    text: str
    uses: tuple[Use, ...] = ()
    columns: tuple[str, ...] = ()
    kind: str = ""

    @property
    def is_valid(self) -> bool:
        """Whether all rows fulfil it; False: it was added with ``NOT VALID``."""
        return not self.text.endswith(_NOT_VALID)

    @property
    def condition(self) -> str:
        """Its text without ``NOT VALID``."""
        return self.text.removesuffix(_NOT_VALID)


@dataclass(frozen=True)
class OriginalColumn:
    """A column. ``generated`` and ``identity`` as in ``pg_attribute``.

    :param sequence: the sequence of an identity, by its name in SQL.
    :param expression: the default, or what it is generated from.
    """

    name: str
    type: str
    collation: str | None
    own_collation: bool
    comment: str | None
    identity: str
    generated: str
    sequence: str | None
    expression: Definition | None


@dataclass(frozen=True)
class OriginalKey:
    """A foreign key, with what follows the name of the other table in its definition."""

    name: str
    references: str
    end: str


@dataclass(frozen=True)
class OriginalTable:
    """A table as it is now.

    :param left_out: what a copy never gets: triggers, rules, policies.
    """

    name: str
    comment: str | None
    columns: Mapping[str, OriginalColumn]
    constraints: tuple[Definition, ...]
    foreign_keys: Mapping[str, OriginalKey]
    indexes: tuple[Definition, ...]
    left_out: tuple[str, ...]


@dataclass(frozen=True)
class OriginalType:
    """A type of the application. ``kind`` as ``pg_type.typtype``: an enum, a domain, a composite type or a range."""

    name: str
    schema: str
    bare: str
    kind: Literal["e", "d", "c", "r"]
    labels: tuple[str, ...] = ()
    base: str = ""
    default: Definition | None = None
    not_null: bool = False
    collation: str | None = None
    checks: tuple[Definition, ...] = ()
    attributes: tuple[tuple[str, str], ...] = ()
    subtype: str = ""
    diff: str | None = None

    @property
    def needs(self) -> tuple[str, ...]:
        """The types that it is made of."""
        by_kind = {"d": (self.base,), "r": (self.subtype,), "c": tuple(type_ for _, type_ in self.attributes)}
        return by_kind.get(self.kind, ())


@dataclass(frozen=True)
class OriginalSequence:
    """A sequence.

    :param last: its last number, if the role may read it and there was one.
    :param owner: the table with the column that it belongs to.
    """

    name: str
    bare: str
    type: str
    start: int
    increment: int
    least: int
    most: int
    cache: int
    cycles: bool
    last: int | None
    owner: str | None


@dataclass(frozen=True)
class Original:
    """What is known of the original. Nothing, if ``problem`` says why."""

    tables: Mapping[str, OriginalTable] = field(default_factory=dict)
    types: Mapping[str, OriginalType] = field(default_factory=dict)
    sequences: Mapping[str, OriginalSequence] = field(default_factory=dict)
    problem: str = ""
    gone: tuple[str, ...] = ()
    """Tables of the backup that are not there."""
    mask_facts: MaskFacts = field(default_factory=MaskFacts)
    links: tuple[Reference, ...] = ()
    """Links between tables, also columns that are named like foreign keys; read only if rows must not come back."""


def read_original(snapshot: Snapshot, names: Collection[str], types: Iterable[str], folder: SqlFolder) -> Original:
    """Read it with PostgreSQL's catalog alone, which runs none of it.

    :param names: the tables, by ``schema.table``.
    :param types: types of the backup's columns, as ``format_type`` spells them.
    """
    # Triggers do not count: no copy gets one.
    if strangers_code(snapshot, *clinics_tables(snapshot, folder), tables=names):
        return Original(
            problem="Something of these tables belongs to a role that may not write all rows of the clinics' tables."
            " `clinic-backups check` names it."
        )
    found = snapshot.rows(catalog_query("copied_tables", uses="copied_uses"), {"names": sorted(names)}, _DOING)
    tables = {row[0]: _table(*row) for row in found}
    spelled = {*types, *(column.type for table in tables.values() for column in table.columns.values())}
    bare = sorted({element_of(type_) for type_ in spelled})
    rows = snapshot.rows(catalog_query("copied_types", uses="copied_uses"), {"names": bare}, _DOING)
    needed = sorted(_sequences_of(tables.values()))
    listed = snapshot.rows(catalog_query("copied_sequences"), {"names": needed}, _DOING) if needed else []
    return Original(
        tables,
        {row[0]: _type(*row) for row in rows},
        {row[0]: OriginalSequence(*row) for row in listed},
        gone=tuple(sorted(set(names) - tables.keys())),
        mask_facts=mask_facts(snapshot, names),
    )


def clinics_tables(snapshot: Snapshot, folder: SqlFolder) -> tuple[list[str], str]:
    """The tables with an extract and the table of the clinics, if all of them are in this database.

    Otherwise none: then nobody is trusted because of a table. What an archive names was written by its maker.
    """
    try:
        names, clinic_table = [*folder.queries()], folder.clinic_table
    except SettingsError:
        return [], ""
    return (names, clinic_table) if {*names, clinic_table} <= {*snapshot.relations()} else ([], "")


def element_of(type_: str) -> str:
    """The type without an array's brackets."""
    return type_.removesuffix("[]")


def _sequences_of(tables: Iterable[OriginalTable]) -> set[str]:
    columns = [column for table in tables for column in table.columns.values()]
    used = {use.sequence for each in columns if each.expression for use in each.expression.uses if use.sequence}
    return used | {column.sequence for column in columns if column.sequence}


def _table(
    name: str,
    quoted: str,
    comment: str | None,
    columns: list[dict[str, Any]] | None,
    constraints: list[dict[str, Any]] | None,
    keys: list[dict[str, Any]] | None,
    indexes: list[dict[str, Any]] | None,
    left_out: list[str] | None,
) -> OriginalTable:
    return OriginalTable(
        name=name,
        comment=comment,
        columns={each["name"]: _column(each) for each in columns or ()},
        constraints=tuple(_definition(each) for each in constraints or ()),
        foreign_keys={
            each["name"]: OriginalKey(each["name"], each["references"], _behind(each["definition"], each["quoted"]))
            for each in keys or ()
        },
        indexes=tuple(_index(each, quoted) for each in indexes or ()),
        left_out=tuple(left_out or ()),
    )


def _behind(definition: str, quoted: str) -> str:
    """What a foreign key's definition says behind the other table: its columns, and what happens with them."""
    return definition.partition(f" REFERENCES {quoted}")[2]


def _column(data: dict[str, Any]) -> OriginalColumn:
    text = data["expression"]
    return OriginalColumn(
        name=data["name"],
        type=data["type"],
        collation=data["collation"],
        own_collation=bool(data["own_collation"]),
        comment=data["comment"],
        identity=data["identity"],
        generated=data["generated"],
        sequence=data["sequence"],
        expression=Definition(data["name"], text, _uses(data["uses"])) if text is not None else None,
    )


def _definition(data: dict[str, Any]) -> Definition:
    return Definition(
        name=data["name"],
        text=data["definition"],
        uses=_uses(data["uses"]),
        columns=tuple(data.get("columns") or ()),
        kind=data.get("kind", ""),
    )


def _index(data: dict[str, Any], table: str) -> Definition:
    """An index. Its text is what stands behind the table's name; empty if PostgreSQL's words are not understood."""
    how = "UNIQUE " if data["unique"] else ""
    text = str(data["definition"])
    begins = [f"CREATE {how}INDEX {data['quoted']} ON {only}{table} " for only in ("", "ONLY ")]
    rest = next((text.removeprefix(begin) for begin in begins if text.startswith(begin)), "")
    return _definition(data | {"definition": rest, "kind": "unique" if data["unique"] else "index"})


def _uses(data: Iterable[Mapping[str, Any]]) -> tuple[Use, ...]:
    return tuple(Use(**each) for each in data)


def _type(
    name: str, schema: str, bare: str, kind: Literal["e", "d", "c", "r"], labels: list[str] | None,
    domain: dict[str, Any] | None, attributes: list[list[str]] | None, range_: dict[str, Any] | None,
) -> OriginalType:  # fmt: skip
    domain, range_ = domain or {}, range_ or {}
    default = domain.get("default")
    return OriginalType(
        name, schema, bare, kind,
        labels=tuple(labels or ()),
        base=domain.get("base", ""),
        default=Definition(name, default, _uses(domain["uses"])) if default is not None else None,
        not_null=bool(domain.get("not_null")),
        collation=domain.get("collation"),
        checks=tuple(_definition(each) for each in domain.get("checks") or ()),
        attributes=tuple((attribute, type_) for attribute, type_ in attributes or ()),
        subtype=range_.get("subtype", ""),
        diff=range_.get("diff"),
    )  # fmt: skip
