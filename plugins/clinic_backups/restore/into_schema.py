"""Restores a backup's tables into a new schema of any database, to look at them or to move them."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from psycopg2 import sql

from clinic_backups.archive.reader import Manifest, TableContent
from clinic_backups.base.clinic_id import ClinicId
from clinic_backups.base.copy_schema import MADE_BY_US
from clinic_backups.base.errors import IntegrityError, PermanentError, SettingsError
from clinic_backups.base.listening import Listener, nobody
from clinic_backups.base.plain import iso
from clinic_backups.base.text import one_line
from clinic_backups.restore.archives import Source
from clinic_backups.restore.clinic_restore import ClinicRestore
from clinic_backups.restore.copied_table import MAKES, CopiedTable, IntoTable
from clinic_backups.restore.manifest_tables import Types, is_possible
from clinic_backups.restore.named_tables import require_known
from clinic_backups.restore.plan import Target
from clinic_backups.restore.request import require_schema_name
from clinic_backups.restore.staging import WantedLoader
from clinic_backups.restore.target import ask, require_primary
from clinic_backups.restore.workspace import Workspace
from clinic_backups.stores.base import ByteSource
from clinic_backups.tenant.extract import SqlFolder
from clinic_backups.tenant.strangers import refuse, strangers_code

STEP_ROWS = 250_000


@dataclass(frozen=True)
class IntoReport:
    """The result."""

    clinic_id: ClinicId
    clinic_name: str
    backup_id: str
    snapshot_at: datetime
    schema: str
    tables: tuple[IntoTable, ...]

    @property
    def rows(self) -> int:
        """Rows in all tables."""
        return sum(table.rows for table in self.tables)

    def to_json(self) -> dict[str, Any]:
        """Plain JSON types."""
        plain: dict[str, Any] = json.loads(json.dumps(asdict(self) | {"snapshot_at": iso(self.snapshot_at)}))
        return plain | {"rows": self.rows}


class IntoRestore:
    """Restores backups into schemas that do not exist yet.

    :param restore: fetches and checks archives; its ``restore_db`` is the database with the new schema, and the role
        must be allowed to make one there.
    """

    def __init__(self, restore: ClinicRestore) -> None:
        self._restore = restore

    def _clinics_tables(self, workspace: Workspace) -> tuple[list[str], str]:
        """The tables with an extract and the table of the clinics, if all of them are in this database.

        Otherwise none: then nobody is trusted because of a table. What an archive names was written by its maker.
        """
        folder = SqlFolder(self._restore.settings.sql_dir)
        try:
            names, clinic_table = [*folder.queries()], folder.clinic_table
        except SettingsError:
            return [], ""
        return (names, clinic_table) if {*names, clinic_table} <= {*workspace.relations()} else ([], "")

    def target(self) -> Target:
        """The database that copies are made in. :raises PermanentError: it is a standby."""
        with self._workspace() as workspace:
            return _primary(workspace)

    def run(
        self,
        source: Source,
        schema: str,
        tables: Sequence[str] = (),
        *,
        before_commit: Callable[[Target], object] = nobody,
    ) -> IntoReport:
        """Make the schema and fill it, in one transaction. After an error nothing of it exists.

        :param tables: only these tables of the backup; all if empty.
        :param before_commit: called just before the commit. If it raises, everything is undone.
        :raises SettingsError: the schema's name cannot be used, or the backup has no such table.
        :raises PermanentError: the schema exists, or the role may not make it, or a value does not fit.
        :raises IntegrityError: the archive is damaged or another one, or the tables would differ from the backup.
        """
        require_schema_name(schema)
        with self._workspace() as workspace:
            _primary(workspace)
            _require_room(workspace, schema)  # before a large archive is fetched
        backup = self._restore.archives.fetch(source)
        manifest = backup.manifest
        contents = _chosen(manifest, tables)
        with self._workspace() as workspace:
            target = _primary(workspace)
            _require_room(workspace, schema)
            making = sql.SQL("CREATE SCHEMA {}").format(sql.Identifier(schema))
            workspace.define_for_good(making, f"making schema {schema}", MAKES)
            comment = sql.SQL("COMMENT ON SCHEMA {} IS {}").format(sql.Identifier(schema), sql.Literal(MADE_BY_US))
            workspace.define_for_good(comment, f"noting who made schema {schema}", MAKES)
            types = Types(workspace)
            names = _names(contents)
            copies = [CopiedTable(workspace, schema, names[name], content, types) for name, content in contents.items()]
            for copy in copies:
                copy.create()
            # The types of the columns may be somebody's. Their code runs when values are loaded.
            refuse(strangers_code(workspace, *self._clinics_tables(workspace), written=()), "The copy")
            staged = {copy.was.name: copy.staged(index) for index, copy in enumerate(copies)}
            with WantedLoader(workspace, staged, _steps(contents, self._restore.listener)) as wanted:
                self._restore.archives.read(backup, wanted)
            for copy in copies:
                self._restore.listener.step(f"checking {one_line(copy.was.name)}")
                copy.finish()
            by_table = {copy.was.name: copy for copy in copies}
            for copy in copies:
                copy.add_foreign_keys(by_table)
            before_commit(target)
            workspace.commit()
        return IntoReport(
            clinic_id=manifest.clinic.id,
            clinic_name=manifest.clinic.name,
            backup_id=manifest.backup_id,
            snapshot_at=manifest.snapshot_at,
            schema=schema,
            tables=tuple(copy.report for copy in copies),
        )

    def _workspace(self) -> _Target:
        return _Target(self._restore.database, **self._restore.settings.timeouts)


class _Target(Workspace):
    """A workspace whose tables may have other types than the backup's."""

    def copy_in(self, target: sql.Identifier, columns: Sequence[str], source: ByteSource, doing: str) -> int:
        try:
            with self.application_path():  # domains are checked with each row
                return super().copy_in(target, columns, source, doing)
        except PermanentError as error:
            if isinstance(error, IntegrityError):
                raise
            raise PermanentError(
                *error.lines,
                hint="Nothing was made. A type of this database, an enum or a domain perhaps, does not take the"
                " backup's values: restore into a database without it, and the column becomes text.",
            ) from None


def _primary(workspace: Workspace) -> Target:
    """Identify the database. :raises PermanentError: it is a standby."""
    target = ask(workspace)
    require_primary(target)
    return target


def _require_room(workspace: Workspace, schema: str) -> None:
    """:raises PermanentError: the schema exists already, or the role may not create schemas."""
    ((there, may, database, role, is_copy),) = workspace.rows(
        "SELECT EXISTS (SELECT FROM pg_namespace WHERE nspname = %(schema)s),"
        " has_database_privilege(current_database(), 'CREATE'), quote_ident(current_database()), quote_ident(user),"
        " EXISTS (SELECT FROM pg_namespace WHERE nspname = %(schema)s"
        " AND obj_description(oid, 'pg_namespace') = %(comment)s)",
        {"schema": schema, "comment": MADE_BY_US},
        "looking for the schema",
    )
    if there:
        raise PermanentError(
            f"Database {database} has a schema {schema} already.",
            hint=f"Give another --schema, or if nobody needs that older copy: DROP SCHEMA {schema} CASCADE;"
            if is_copy
            else "Give another --schema: this one is no copy that `restore-into` made.",
        )
    if not may:
        raise PermanentError(
            f"The role {role} may not make schemas in database {database}.",
            hint=f"GRANT CREATE ON DATABASE {database} TO {role}; or name another role or database in the connection"
            " restore_target.",
        )


def _chosen(manifest: Manifest, tables: Sequence[str]) -> dict[str, TableContent]:
    """The tables to make. :raises SettingsError: the backup has no such table.

    :raises IntegrityError: no database can have such tables.
    """
    contents = manifest.tables
    require_known(tables, contents)
    chosen = {name: content for name, content in contents.items() if not tables or name in tables}
    for content in chosen.values():
        if not is_possible(content.table):
            raise IntegrityError(
                f"The manifest describes a table {one_line(content.table.name)[:150]!r} that PostgreSQL cannot have.",
                hint="This package did not write it: find out who may write to the store. Nothing was made.",
            )
    return chosen


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


def _steps(contents: Mapping[str, TableContent], listener: Listener) -> Callable[[str, int], None]:
    """Reports the end of each table, and the progress if it takes long."""
    told: Counter[str] = Counter()

    def loaded(table: str, rows: int) -> None:
        if rows == contents[table].rows or rows // STEP_ROWS > told[table] // STEP_ROWS:
            listener.step(f"loading {one_line(table)}: {rows:,} of {contents[table].rows:,} rows")
            told[table] = rows

    return loaded
