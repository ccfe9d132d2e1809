"""One table of a copy in a new schema: made, filled, and compared with the backup."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from psycopg2 import sql

from clinic_backups.archive.blocks import BlockList
from clinic_backups.archive.reader import TableContent
from clinic_backups.base.database_errors import refusal_of
from clinic_backups.base.errors import IntegrityError, PermanentError
from clinic_backups.base.table import Column, ForeignKey, Table
from clinic_backups.base.text import one_line
from clinic_backups.restore.columns.shape import Shape
from clinic_backups.restore.copying.original import OriginalTable
from clinic_backups.restore.copying.own_names import OwnNames
from clinic_backups.restore.copying.steps import MAKES
from clinic_backups.restore.manifest_tables import Types
from clinic_backups.restore.read_blocks import blocks_of, read_blocks
from clinic_backups.restore.row_sets import RowSet
from clinic_backups.restore.staging import Staged
from clinic_backups.restore.workspace import Workspace, columns_of


@dataclass(frozen=True)
class IntoTable:
    """One table as it was made: ``table`` in the backup is ``name`` in the new schema.

    :param forgotten: how many rows of the backup are left out because they must not come back.
    :param masked: the rule of each masked column.
    """

    table: str
    name: str
    rows: int
    notes: tuple[str, ...]
    forgotten: int
    masked: Mapping[str, str]


class CopiedTable:
    """One table in the new schema.

    :param names: the types that the copy has of its own.
    :param now: the same table in the clinics' database, if it is known.
    """

    rows = 0

    def __init__(
        self, workspace: Workspace, names: OwnNames, name: str, content: TableContent, types: Types,
        now: OriginalTable | None,
    ) -> None:  # fmt: skip
        self._workspace, self._content, self._names, self._now = workspace, content, names, now
        self.was, self.name = content.table, name
        self.identifier = sql.Identifier(names.schema, name)
        self._loose: dict[str, str] = {}
        """Tables to which a foreign key could not be made, and why."""
        self._odd: list[str] = []
        """Columns that are not what they are in the original."""
        self._types = {column.name: self._type_of(column, types) for column in self.was.columns}
        self.stored = [replace(column, type=self._types[column.name] or "text") for column in self.was.stored_columns]
        self._made = {column.name for column in self.stored}
        self._with_values = set(self._made)
        by_name = {column.name: column for column in self.stored}
        # Rows are read back in the backup's order. A type outside of pg_catalog may be ordered otherwise here.
        self._ordered = all(name in by_name and "." not in by_name[name].type for name in self.was.primary_key)

    def _type_of(self, column: Column, types: Types) -> str | None:
        """Its type here: the copy's own, or one of the database; none if there is neither.

        With a type of the application the copy would stand in the way of whoever drops it. It is used only where
        nothing is known of it but its name.
        """
        if (own := self._names.type_(column.type)) is not None:
            return own
        usable = types.has(column.type) if self._now is None else types.is_independent(column.type)
        return column.type if usable else None

    def has(self, column: str) -> bool:
        """Whether it has this column."""
        return column in self._made

    @property
    def key(self) -> tuple[str, ...]:
        """Its primary key; empty if it has none here."""
        return self.was.primary_key if set(self.was.primary_key) <= self._with_values else ()

    def create(self) -> None:
        """Make the table with its columns, without defaults, keys and indexes.

        Generated columns and collations are made as far as the database takes them.
        """
        extras = self._extras()
        if not self._tried(extras):
            extras = {name: extra for name, extra in extras.items() if self._is_taken({name: extra})}
        statement = self._creating(extras)
        self._workspace.define_for_good(statement, f"making the table {one_line(self.name)}", MAKES, names_only=False)
        self._note_columns(extras)

    def _extras(self) -> dict[str, sql.Composable]:
        """What follows the type of some columns: a collation, or what a generated column is computed from."""
        found = dict[str, sql.Composable]()
        for column in self.was.columns:
            now = self._now.columns.get(column.name) if self._now else None
            if now is None or self._types[column.name] is None:
                continue
            is_computed = bool(now.generated) and column.generated is not None
            if is_computed and now.expression is not None and not self._names.lacks(now.expression):
                kind = "STORED" if now.generated == "s" else "VIRTUAL"
                found[column.name] = sql.SQL(" GENERATED ALWAYS AS ({}) {}").format(
                    self._names.rewritten(now.expression.text), sql.SQL(kind)
                )
            elif now.collation and not now.own_collation and now.type == column.type:
                found[column.name] = sql.SQL(f" COLLATE {now.collation}")
        return found

    def _tried(self, extras: Mapping[str, sql.Composable]) -> bool:
        return not extras or self._is_taken(extras)

    def _is_taken(self, extras: Mapping[str, sql.Composable]) -> bool:
        """Whether the table can be made with these. It is not there afterwards."""
        try:
            with self._workspace.savepoint():
                self._workspace.define_for_good(
                    self._creating(extras), f"trying the table {one_line(self.name)}", MAKES, names_only=False
                )
        except PermanentError:
            return False
        return True

    def _creating(self, extras: Mapping[str, sql.Composable]) -> sql.Composed:
        columns = []
        for column in self.was.columns:
            type_, extra = self._types[column.name], extras.get(column.name)
            if column.generated is not None and (type_ is None or (extra is None and self._now is None)):
                continue
            is_computed = column.generated is None or extra is not None
            columns.append(
                sql.SQL("{} {}{}{}").format(
                    sql.Identifier(column.name), sql.SQL(type_ or "text"), extra or sql.SQL(""),
                    sql.SQL(" NOT NULL" if column.not_null and is_computed else ""),
                )
            )  # fmt: skip
        return sql.SQL("CREATE TABLE {} ({})").format(self.identifier, sql.SQL(", ").join(columns))

    def _note_columns(self, extras: Mapping[str, sql.Composable]) -> None:
        for column in self.was.columns:
            name, now = column.name, self._now.columns.get(column.name) if self._now else None
            if column.generated is None:
                if now is not None and now.collation and name not in extras:
                    self._odd.append(f"Column {name} has the database's own collation, not {now.collation}.")
            elif name in extras:
                self._made.add(name)
                self._with_values.add(name)
            elif self._now is None or self._types[name] is None:
                self._odd.append(f"Column {name} is generated and left out: the backup does not hold it.")
            else:
                self._made.add(name)
                lacking = self._names.lacks(now.expression) if now and now.expression else ""
                why = f": what computes it uses {lacking}" if lacking else ""
                self._odd.append(f"Column {name} is generated in the original, and an empty ordinary one here{why}.")

    def staged(self, index: int) -> Staged:
        """The table for the loader, with all of the backup's blocks missing."""
        shape = Shape(self.was, self.was, tuple(column.name for column in self.stored), (), True, (), None)
        blocks = self._content.blocks
        missing = blocks.counted()
        return Staged(shape, index, self.identifier, self.identifier, blocks, missing, 0)

    def finish(self, sent: RowSet | None, key_name: str | None) -> None:
        """Add the primary key, and check that all rows are there, before any constraint is made.

        :param key_name: the name of the original's primary key; PostgreSQL finds one if it is not known.
        :param sent: what was written, if that is not what the backup holds: rows were masked or left out.
        :raises IntegrityError: rows are missing or differ.
        """
        shown = one_line(self.was.name)
        if self.key:
            named = sql.SQL("CONSTRAINT {} ").format(sql.Identifier(key_name)) if key_name else sql.SQL("")
            statement = sql.SQL("ALTER TABLE {} ADD {}PRIMARY KEY ({})").format(
                self.identifier, named, columns_of(self.key)
            )
            self._workspace.define_for_good(statement, f"adding the primary key of {shown}", MAKES)
        self._workspace.execute(sql.SQL("ANALYZE {}").format(self.identifier), f"analyzing {shown}")
        ((rows,),) = self._workspace.rows(
            sql.SQL("SELECT count(*) FROM {}").format(self.identifier), None, f"counting {shown}"
        )
        self.rows, wanted = rows, self._content.rows if sent is None else sent.rows
        if rows != wanted:
            found = f"it has {rows} rows, and {wanted} of the backup were written"
        elif sent is not None and self._set_of_rows() != sent:
            found = "its rows have other values than were written"
        elif sent is None and self._ordered and not self._read_back().equals(self._content.blocks):
            found = "its rows have other values or another order"
        else:
            return
        raise IntegrityError(
            f"{shown} would not be what the backup holds: {found}.",
            hint="Nothing was made. Usually a type of this database writes its values in another form.",
        )

    def _selected(self) -> tuple[Table, str]:
        """The table with its stored columns, and the query of its rows."""
        names = columns_of([column.name for column in self.stored])
        query = sql.SQL("SELECT {} FROM {}").format(names, self.identifier).as_string(self._workspace.connection)
        key = self.was.primary_key if self._ordered else ()
        return Table(self.was.name, tuple(self.stored), key, ()), query

    def _read_back(self) -> BlockList:
        """The blocks of the rows as the database returns them now."""
        return blocks_of(self._workspace, *self._selected(), self._content.blocks)

    def _set_of_rows(self) -> RowSet:
        found = RowSet()
        read_blocks(self._workspace, *self._selected(), BlockList(), lambda data, _: found.add(data))
        return found

    def add_foreign_keys(self, copies: Mapping[str, CopiedTable]) -> None:
        """Add the foreign keys to tables of the copy, and none to any other table.

        One to a table of the application would stop a DELETE of the row that the copy refers to, or with CASCADE delete
        rows of the copy.

        :param copies: the tables of the copy by their names in the backup.
        """
        self._loose.clear()
        for key in self.was.foreign_keys:
            parent = copies.get(key.references)
            if parent is None:
                self._loose[key.references] = "is not in the copy"
            elif not self._add_foreign_key(key, parent):
                is_key = key.references_columns == parent.key
                self._loose[key.references] = (
                    "lacks rows here that these rows refer to, or has other types"
                    if is_key else "is not referred to by its primary key, or lacks rows here"
                )  # fmt: skip

    def _add_foreign_key(self, key: ForeignKey, parent: CopiedTable) -> bool:
        begin = sql.SQL("ALTER TABLE {} ADD CONSTRAINT {} FOREIGN KEY ({}) REFERENCES {}").format(
            self.identifier, sql.Identifier(key.name), columns_of(key.columns), parent.identifier
        )
        now = self._now.foreign_keys.get(key.name) if self._now else None
        ends = [sql.SQL(now.end)] if now is not None and now.references == key.references and now.end else []
        # Of the archive these are names alone, so nothing of its text runs.
        plain = sql.SQL(" ({}){}").format(
            columns_of(key.references_columns), sql.SQL(" DEFERRABLE INITIALLY DEFERRED" if key.deferrable else "")
        )
        return any(self._is_added(sql.SQL("{}{}").format(begin, end)) for end in (*ends, plain))

    def _is_added(self, statement: sql.Composable) -> bool:
        try:
            with self._workspace.attempt():
                self._workspace.define_for_good(statement, f"adding a foreign key of {one_line(self.was.name)}", MAKES)
        except PermanentError as error:
            if (refused := refusal_of(error)) is None or not refused.state:
                raise
            return False
        return True

    def report(self, notes: list[str], *, forgotten: int, masked: Mapping[str, str]) -> IntoTable:
        """The result. :param notes: of the definitions."""
        said = tuple(map(one_line, (*self._notes(), *notes)))
        return IntoTable(self.was.name, self.name, self.rows, said, forgotten, masked)

    def _notes(self) -> Iterator[str]:
        yield from self._odd
        for column in self.was.stored_columns:
            if self._types[column.name] is None:
                yield f"Column {column.name} is text: a copy here can have no type {column.type[:100]}."
        if self.was.primary_key and not self.key:
            yield "There is no primary key: a column of it is generated, and has no values here."
        for table, why in self._loose.items():
            yield f"There is no foreign key to {table}: that table {why}."
        if not self._ordered:
            yield "Its rows were counted and not read back: they may be ordered otherwise here."
