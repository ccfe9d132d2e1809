"""A table, its columns and its foreign keys, as the clinics' database and a manifest describe them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field

from clinic_backups.base import documents
from clinic_backups.base.documents import Code, Flag, Name, Names

# The form of what format_type writes: a name, then modifiers, words and an array's brackets.
_SPELLED = re.compile(r'[\w ."]{1,150}(?:\([\w ,.-]{1,60}\))?[a-z ]{0,30}(?:\[\])?')


@dataclass(frozen=True)
class Column:
    """One column of a table; ``type`` as PostgreSQL's ``format_type`` spells it."""

    name: Name
    type: Code
    not_null: Flag
    default: Code | None
    identity: Literal["", "always", "by default"]
    generated: Code | None
    """The expression of a generated column. Its values are not in the blocks; a restore computes them again."""
    definition: documents.Definition | None = None
    """The column's type, and the enums and composite types in it, as JSON (``pg_catalog/tables.sql``).

    None for PostgreSQL's own types, and in older manifests. Some of these have only the enums and composite types.
    """
    number: documents.ColumnNumber | None = None
    """PostgreSQL's column number. A rename keeps it, and no later column of the table gets it."""
    base_type: Code | None = None
    """Of a domain: the type that it is made of. None of other types, and in older manifests."""

    @property
    def shown_type(self) -> str:
        """Its type, for people. They copy statements and lines out of texts, and a manifest may say anything."""
        return self.type if _SPELLED.fullmatch(self.type) else "another type"

    @property
    def value_type(self) -> str:
        """The type of its values: what a domain is made of, or the type itself."""
        return self.base_type or self.type

    @property
    def is_numbered(self) -> bool:
        """Whether the database numbers its rows: an identity, or a default that takes a sequence's next number."""
        return bool(self.identity) or "nextval(" in (self.default or "")


@dataclass(frozen=True)
class ForeignKey:
    """``columns`` of this table point to ``references_columns`` of ``references`` (``schema.table``)."""

    name: Name
    columns: Names
    references: Name
    references_columns: Names
    deferrable: Flag
    indexed: Flag
    """Whether an index starts with these columns, so that the referring rows of a parent are found quickly."""
    on_delete: Literal["a", "r", "c", "n", "d"] | None = None
    """As in ``pg_constraint``; none in older manifests, as :attr:`match_full`."""
    match_full: Flag | None = None


@dataclass(frozen=True)
class Part:
    """A partition of a table, or a table that inherits from it, at any depth. That table's queries return its rows."""

    name: Name
    oid: documents.Oid
    """PostgreSQL's OID, as :attr:`Table.oid`."""
    file: documents.Oid | None = None
    """As :attr:`Table.file`."""


@dataclass(frozen=True)
class Table:
    """One table, as PostgreSQL's own catalog describes it. ``name`` is ``schema.table``, unquoted."""

    name: Name
    columns: Annotated[tuple[Column, ...], Field(max_length=documents.MAX_COLUMNS)]
    primary_key: Names
    foreign_keys: Annotated[tuple[ForeignKey, ...], Field(max_length=documents.MAX_KEYS)]
    oid: documents.Oid | None = None
    """PostgreSQL's OID; a rename keeps it. Valid only in the manifest's database; none in older manifests."""
    parts: Annotated[tuple[Part, ...], Field(max_length=documents.MAX_PARTS)] | None = None
    """Its partitions, or the tables that inherit from it; none in older manifests."""
    file: documents.Oid | None = None
    """PostgreSQL's number of the file with its rows. It is another one after a command that writes all rows anew.

    None for a partitioned table and in older manifests.
    """

    @property
    def stored_columns(self) -> tuple[Column, ...]:
        """The columns whose values are in the blocks, in table order."""
        return tuple(column for column in self.columns if column.generated is None)
