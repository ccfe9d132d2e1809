"""One table of a copy in a new schema: made, filled, and compared with the backup."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from psycopg2 import sql

from clinic_backups.archive.blocks import BlockList
from clinic_backups.archive.reader import TableContent
from clinic_backups.base.errors import IntegrityError, PermanentError
from clinic_backups.base.table import ForeignKey, Table
from clinic_backups.base.text import one_line
from clinic_backups.restore.columns.shape import Shape
from clinic_backups.restore.manifest_tables import Types
from clinic_backups.restore.read_blocks import blocks_of
from clinic_backups.restore.staging import Staged
from clinic_backups.restore.workspace import Workspace, columns_of

MAKES = "into another schema makes this schema and its tables"
"""For errors of event triggers: what is being done."""


@dataclass(frozen=True)
class IntoTable:
    """One table as it was made: ``table`` in the backup is ``name`` in the new schema."""

    table: str
    name: str
    rows: int
    notes: tuple[str, ...]


class CopiedTable:
    """One table in the new schema."""

    def __init__(self, workspace: Workspace, schema: str, name: str, content: TableContent, types: Types) -> None:
        self._workspace, self._content = workspace, content
        self.was, self.name = content.table, name
        self.identifier = self._identifier = sql.Identifier(schema, name)
        self._loose: dict[str, str] = {}
        """Tables to which a foreign key could not be made, and why."""
        self._unknown = [column for column in self.was.stored_columns if not types.has(column.type)]
        self._columns = [
            replace(column, type="text") if column in self._unknown else column for column in self.was.stored_columns
        ]
        stored = {column.name: column for column in self._columns}
        self._key = self.was.primary_key if all(name in stored for name in self.was.primary_key) else ()
        # Rows are read back in the backup's order. A type outside of pg_catalog may be ordered otherwise here.
        self._ordered = self._key == self.was.primary_key and all(
            stored[name] in self.was.columns and "." not in stored[name].type for name in self._key
        )

    @property
    def key(self) -> tuple[str, ...]:
        """Its primary key; empty if it has none here."""
        return self._key

    def create(self) -> None:
        """Make the table without defaults, identities and indexes."""
        columns = [
            sql.SQL("{} {}{}").format(
                sql.Identifier(column.name), sql.SQL(column.type), sql.SQL(" NOT NULL" if column.not_null else "")
            )
            for column in self._columns
        ]
        statement = sql.SQL("CREATE TABLE {} ({})").format(self._identifier, sql.SQL(", ").join(columns))
        self._workspace.define_for_good(statement, f"making the table {one_line(self.name)}", MAKES)

    def staged(self, index: int) -> Staged:
        """The table for the loader, with all of the backup's blocks missing."""
        shape = Shape(self.was, self.was, tuple(column.name for column in self._columns), (), True, (), None)
        blocks = self._content.blocks
        missing = blocks.counted()
        return Staged(shape, index, self._identifier, self._identifier, blocks, missing, 0)

    def finish(self) -> None:
        """Add the primary key, and check that all rows are there.

        :raises IntegrityError: rows are missing or differ.
        """
        shown = one_line(self.was.name)
        if self._key:
            statement = sql.SQL("ALTER TABLE {} ADD PRIMARY KEY ({})").format(self._identifier, columns_of(self._key))
            self._workspace.define_for_good(statement, f"adding the primary key of {shown}", MAKES)
        self._workspace.execute(sql.SQL("ANALYZE {}").format(self._identifier), f"analyzing {shown}")
        ((rows,),) = self._workspace.rows(
            sql.SQL("SELECT count(*) FROM {}").format(self._identifier), None, f"counting {shown}"
        )
        if rows != self._content.rows:
            found = f"it has {rows} rows, and the backup has {self._content.rows}"
        elif self._ordered and not self._read_back().equals(self._content.blocks):
            found = "its rows have other values or another order"
        else:
            return
        raise IntegrityError(
            f"{shown} would not be what the backup holds: {found}.",
            hint="Nothing was made. Usually a type of this database writes its values in another form.",
        )

    def add_foreign_keys(self, copies: Mapping[str, CopiedTable]) -> None:
        """Add the foreign keys to tables of the copy. They are names alone, so nothing of the archive's text runs.

        :param copies: the tables of the copy by their names in the backup.
        """
        for key in self.was.foreign_keys:
            parent = copies.get(key.references)
            if parent is None:
                self._loose[key.references] = "is not in the copy"
            elif key.references_columns != parent.key:
                self._loose[key.references] = "is not referred to by its primary key"
            elif not self._add_foreign_key(key, parent):
                self._loose[key.references] = "lacks rows here that these rows refer to, or has other types"

    def _add_foreign_key(self, key: ForeignKey, parent: CopiedTable) -> bool:
        statement = sql.SQL("ALTER TABLE {} ADD CONSTRAINT {} FOREIGN KEY ({}) REFERENCES {} ({}){}").format(
            self._identifier, sql.Identifier(key.name), columns_of(key.columns), parent.identifier,
            columns_of(key.references_columns), sql.SQL(" DEFERRABLE INITIALLY DEFERRED" if key.deferrable else ""),
        )  # fmt: skip
        try:
            with self._workspace.attempt():
                self._workspace.define_for_good(statement, f"adding a foreign key of {one_line(self.was.name)}", MAKES)
        except PermanentError:
            return False
        return True

    def _read_back(self) -> BlockList:
        """The blocks of the rows as the database returns them now."""
        query = sql.SQL("SELECT * FROM {}").format(self._identifier).as_string(self._workspace.connection)
        table = Table(self.was.name, tuple(self._columns), self._key, ())
        return blocks_of(self._workspace, table, query, self._content.blocks)

    @property
    def report(self) -> IntoTable:
        """The result."""
        return IntoTable(self.was.name, self.name, self._content.rows, tuple(map(one_line, self._notes())))

    def _notes(self) -> Iterator[str]:
        for column in self.was.columns:
            if column.generated is not None:
                yield f"Column {column.name} is generated and left out: the backup does not hold it."
        for column in self._unknown:
            yield f"Column {column.name} is text: this database has no type {column.type[:100]}."
        if self.was.primary_key and not self._key:
            yield "There is no primary key: a column of it is generated."
        for table, why in self._loose.items():
            yield f"There is no foreign key to {table}: that table {why}."
        if not self._ordered:
            yield "Its rows were counted and not read back: they may be ordered otherwise here."
