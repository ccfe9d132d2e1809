"""The new schema with its tables, in the transaction that makes it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping

from psycopg2 import sql

from clinic_backups.archive.reader import TableContent
from clinic_backups.base.copy_schema import MADE_BY_US
from clinic_backups.base.errors import PermanentError
from clinic_backups.base.listening import Listener
from clinic_backups.base.text import one_line
from clinic_backups.restore.copied_table import CopiedTable, IntoTable
from clinic_backups.restore.copying.definitions import Definitions, key_name
from clinic_backups.restore.copying.original import Original
from clinic_backups.restore.copying.own_names import OwnNames, extensions_of
from clinic_backups.restore.copying.own_types import OwnTypes
from clinic_backups.restore.copying.sending import Sending
from clinic_backups.restore.copying.steps import MAKES
from clinic_backups.restore.manifest_tables import Types
from clinic_backups.restore.staging import Staged
from clinic_backups.restore.workspace import Workspace


class WholeCopy:
    """Makes it.

    :param contents: the tables to make, by their names in the backup.
    """

    def __init__(
        self, workspace: Workspace, schema: str, contents: Mapping[str, TableContent], original: Original
    ) -> None:
        self._workspace, self._original, self._contents = workspace, original, contents
        self._called = _names(contents)
        self._names = OwnNames(schema, extensions_of(workspace))
        self._types = OwnTypes(
            workspace, original, [content.table for content in contents.values()], self._names, self._called.values()
        )
        self._tables: list[CopiedTable] = []

    def make(self, require_no_strangers: Callable[[], None]) -> None:
        """Make the schema, the types and the empty tables."""
        workspace, schema = self._workspace, self._names.schema
        making = sql.SQL("CREATE SCHEMA {}").format(sql.Identifier(schema))
        workspace.define_for_good(making, f"making schema {schema}", MAKES)
        comment = sql.SQL("COMMENT ON SCHEMA {} IS {}").format(sql.Identifier(schema), sql.Literal(MADE_BY_US))
        workspace.define_for_good(comment, f"noting who made schema {schema}", MAKES)
        self._types.make()
        types = Types(workspace)
        for name, content in self._contents.items():
            now = self._original.tables.get(name)
            self._tables.append(CopiedTable(workspace, self._names, self._called[name], content, types, now))
        for table in self._tables:
            table.create()
        with workspace.savepoint():
            self._definitions().make()
            require_no_strangers()

    def _definitions(self) -> Definitions:
        return Definitions(self._workspace, self._original, self._tables, self._names, self._types)

    def staged(self) -> dict[str, Staged]:
        """The tables for the loader."""
        return {table.was.name: table.staged(index) for index, table in enumerate(self._tables)}

    def finish(self, sending: Sending, listener: Listener) -> tuple[tuple[IntoTable, ...], list[str]]:
        """Compare the rows with what was sent, and make everything else. Returns the tables, and notes about the whole.

        :raises IntegrityError: rows are missing or differ.
        """
        taken = set(self._called.values())
        for table in self._tables:
            listener.step(f"checking {one_line(table.was.name)}")
            name = key_name(self._original.tables.get(table.was.name), table)
            # Tables of two schemas may have keys of one name.
            table.finish(sending.sent(table.was.name), None if name in taken else name)
            taken |= {name} if name else set()
        listener.step("making defaults, constraints and indexes")
        notes, of_tables = self._definitions().make()
        by_name = {table.was.name: table for table in self._tables}
        for table in self._tables:
            table.add_foreign_keys(by_name)
        if self._original.problem:
            notes.insert(
                0,
                "The copy has no defaults but numbers, no further constraints and no further indexes, because it is not"
                f" known what the original has: {self._original.problem}",
            )
        for name in self._original.gone:
            if name in of_tables:
                of_tables[name].append("The clinics' database has no such table now: only columns and keys are known.")
        made = tuple(
            table.report(
                [*of_tables[table.was.name], *sending.notes(table.was.name)],
                forgotten=sending.forgotten(table.was.name),
                masked=sending.masked(table.was.name),
            )
            for table in self._tables
        )
        return made, notes


def _names(contents: Mapping[str, TableContent]) -> dict[str, str]:
    """The name of each table in the new schema: its own, or with its old schema's name if that is not unique."""
    bare = {name: name.partition(".")[2] for name in contents}
    times = Counter(bare.values())
    names = {name: short if times[short] == 1 else name.replace(".", "_", 1) for name, short in bare.items()}
    if twice := sorted(short for short, count in Counter(names.values()).items() if count > 1):
        raise PermanentError(
            f"Several tables of the backup would be called {one_line(', '.join(twice))}.",
            hint="Restore them one by one into schemas of their own, with --table.",
        )
    return names
