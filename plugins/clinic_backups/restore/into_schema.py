"""Restores a backup's tables into a new schema of any database, to look at them or to move them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from psycopg2 import sql

from clinic_backups.archive.reader import Manifest, TableContent
from clinic_backups.base.clinic_id import ClinicId
from clinic_backups.base.copy_schema import MADE_BY_US
from clinic_backups.base.errors import ClinicBackupsError, IntegrityError, PermanentError
from clinic_backups.base.listening import Listener, nobody
from clinic_backups.base.shared_unit import is_shared
from clinic_backups.base.text import one_line
from clinic_backups.restore.archives import Source
from clinic_backups.restore.clinic_restore import ClinicRestore
from clinic_backups.restore.copying.intent import Intent, intent_of
from clinic_backups.restore.copying.into_report import IntoReport
from clinic_backups.restore.copying.original import Original, clinics_tables, read_original
from clinic_backups.restore.copying.sending import Sending
from clinic_backups.restore.copying.whole_copy import WholeCopy
from clinic_backups.restore.links_now import links_of_now
from clinic_backups.restore.manifest_tables import is_possible
from clinic_backups.restore.named_tables import require_known
from clinic_backups.restore.plan import Target
from clinic_backups.restore.request import require_schema_name
from clinic_backups.restore.staging import WantedLoader
from clinic_backups.restore.target import ask, require_primary
from clinic_backups.restore.workspace import Workspace
from clinic_backups.stores.base import ByteSource
from clinic_backups.tenant.extract import SqlFolder
from clinic_backups.tenant.source_database import identity_of, is_same
from clinic_backups.tenant.strangers import refuse, strangers_code
from clinic_backups.tenant.tenant_db import Snapshot

STEP_ROWS = 250_000


class IntoRestore:
    """Restores backups into schemas that do not exist yet.

    :param restore: fetches and checks archives; its ``restore_db`` is the database with the new schema, and the role
        must be allowed to make one there.
    """

    def __init__(self, restore: ClinicRestore) -> None:
        self._restore = restore

    @property
    def _folder(self) -> SqlFolder:
        return SqlFolder(self._restore.settings.sql_dir)

    def target(self) -> Target:
        """The database that copies are made in. :raises PermanentError: it is a standby."""
        with self._workspace() as workspace:
            return _primary(workspace)

    def intent(self, clinic_id: ClinicId, masked: bool | None) -> Intent:
        """What a copy of this clinic would mask and leave out, as of now.

        :param masked: what somebody has said; none: a copy is masked if the SQL folder has masks.
        :raises SettingsError: a masked copy is wanted, but the SQL folder has no masks.
        """
        return intent_of(self._folder, masked, self._restore.forgotten_of(clinic_id))

    def run(
        self,
        source: Source,
        schema: str,
        tables: Sequence[str] = (),
        *,
        masked: bool | None = None,
        before_commit: Callable[[Target, Intent], object] = nobody,
    ) -> IntoReport:
        """Make the schema and fill it, in one transaction. After an error nothing of it exists.

        :param tables: only these tables of the backup; all if empty.
        :param masked: see :meth:`intent`.
        :param before_commit: called just before the commit. If it raises, everything is undone.
        :raises SettingsError: the schema's name cannot be used, the backup has no such table, or a mask does not fit.
        :raises PermanentError: the schema exists, or the role may not make it, or a value does not fit.
        :raises IntegrityError: the archive is damaged or another one, or the tables would differ from the backup.
        """
        require_schema_name(schema)
        intent = self.intent(source.clinic_id, masked)
        with self._workspace() as workspace:
            _primary(workspace)
            _require_room(workspace, schema)  # before a large archive is fetched
        backup = self._restore.archives.fetch(source)
        manifest = backup.manifest
        contents = _chosen(manifest, tables)
        original = self._original(manifest, intent)
        sending = Sending(intent, manifest, original, self._folder)
        sending.look(lambda wanted: self._restore.archives.read(backup, wanted), self._restore.listener)
        with self._workspace() as workspace:
            target = _primary(workspace)
            _require_room(workspace, schema)
            copy = WholeCopy(workspace, schema, contents, original)
            copy.make(lambda: self._require_no_strangers(workspace))
            with WantedLoader(
                workspace, copy.staged(), _steps(contents, self._restore.listener), sending.changed
            ) as wanted:
                self._restore.archives.read(backup, wanted)
            made, notes = copy.finish(sending, self._restore.listener)
            before_commit(target, intent)
            workspace.commit()
        return IntoReport(
            clinic_id=manifest.clinic.id,
            clinic_name=manifest.clinic.name,
            backup_id=manifest.backup_id,
            snapshot_at=manifest.snapshot_at,
            schema=schema,
            tables=made,
            masked=bool(intent.masks),
            notes=tuple(map(one_line, (*intent.notes, *notes))),
        )

    def _original(self, manifest: Manifest, intent: Intent) -> Original:
        """What is known of the original tables.

        It is the database that backups are read from, or that of the copy if that is the backup's.
        """
        restore = self._restore
        drift = self._folder.drift()
        names = {*intent.masks.tables, *(each for name in manifest.tables for each in drift.path(name))}
        types = {column.type for content in manifest.tables.values() for column in content.table.columns}
        try:
            with Snapshot(restore.clinic_db or restore.database, **restore.settings.timeouts) as snapshot:
                if restore.clinic_db is None and not is_same(manifest.database, identity_of(snapshot)):
                    return Original(problem="The connection clinic_db is not defined here.")
                original = read_original(snapshot, names, types, self._folder)
                if original.problem or not intent.forgotten.tables or is_shared(manifest.clinic.id):
                    return original
                return replace(original, links=links_of_now(snapshot, self._folder, manifest.clinic.id))
        except ClinicBackupsError as error:
            return Original(problem=f"The clinics' database could not be asked: {error.message}")

    def _require_no_strangers(self, workspace: Workspace) -> None:
        """The types, defaults and constraints of the copy may be somebody's. Their code runs when values are loaded."""
        tables = clinics_tables(workspace, self._folder)
        refuse(strangers_code(workspace, *tables, written=()), "The copy")

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


def _steps(contents: Mapping[str, TableContent], listener: Listener) -> Callable[[str, int], None]:
    """Reports the end of each table, and the progress if it takes long."""
    told: Counter[str] = Counter()

    def loaded(table: str, rows: int) -> None:
        if rows == contents[table].rows or rows // STEP_ROWS > told[table] // STEP_ROWS:
            listener.step(f"loading {one_line(table)}: {rows:,} of {contents[table].rows:,} rows")
            told[table] = rows

    return loaded
