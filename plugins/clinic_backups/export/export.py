"""Writes one backup as files that a person can open.

Memory is constant: each block goes to its table as it comes out of the archives, which are read once each. So the rows
of an incremental backup are not in the order of their keys.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from clinic_backups.archive.blocks import Block
from clinic_backups.base.backup_record import BackupRecord
from clinic_backups.base.clinic_id import ClinicId
from clinic_backups.base.errors import PermanentError
from clinic_backups.catalog.exports import Format
from clinic_backups.catalog.forgotten import ForgottenOfClinic
from clinic_backups.export.content import Exported, Placed, Sink
from clinic_backups.export.place import new_place
from clinic_backups.export.readme import language_of, readme, readme_name
from clinic_backups.export.sqlite import SqliteFile
from clinic_backups.export.text_files import CsvFolder, JsonFolder
from clinic_backups.export.xlsx import XlsxFile
from clinic_backups.restore.archives import Archives
from clinic_backups.restore.find_backup import source_of
from clinic_backups.restore.leaving_out import leaving_out
from clinic_backups.restore.links_now import NOT_ASKED, LinksNow, nobody_knows
from clinic_backups.restore.missing_blocks import MissingBlocks
from clinic_backups.restore.named_tables import require_known
from clinic_backups.tenant.drift import Drift

SINKS: Mapping[Format, Callable[[Path, Mapping[str, Exported], str], Sink]] = {
    "csv": CsvFolder, "json": JsonFolder, "sqlite": SqliteFile, "xlsx": XlsxFile,
}  # fmt: skip
FOLDERS: frozenset[Format] = frozenset({"csv", "json"})


@dataclass(frozen=True)
class Done:
    """What was written.

    :param rows: the number of rows by table.
    :param left_out: by table, the rows that are forgotten, with those that belong to them.
    :param notes: what was left out, as sentences.
    """

    rows: Mapping[str, int]
    placed: Placed
    left_out: Mapping[str, int] = field(default_factory=dict)
    notes: Sequence[str] = ()


class Export:
    """Exports backups.

    :param archives: reads them.
    :param language: that of the readme.
    :param forgotten: says which rows of a clinic must not come back.
    :param drift: the tables that were renamed. It is asked only if there are such rows.
    :param links: the links of now, likewise.
    """

    def __init__(
        self, archives: Archives, language: str, *, forgotten: Callable[[ClinicId], ForgottenOfClinic],
        drift: Callable[[], Drift] = Drift, links: LinksNow = nobody_knows,
    ) -> None:  # fmt: skip
        self._archives, self._language = archives, language_of(language)
        self._forgotten, self._drift, self._links = forgotten, drift, links

    def run(
        self,
        backup: BackupRecord,
        output_format: Format,
        output: Path,
        *,
        tables: Sequence[str] = (),
        recipients: Sequence[str] = (),
        password: str | None = None,
    ) -> Done:
        """Export one backup. After an error nothing is left of it.

        :param tables: only these; by default all.
        :param recipients: public keys to which the export is encrypted.
        :param password: or the password of the zip that it becomes.
        :raises SettingsError: the backup has no such table, or ``output`` exists.
        :raises ClinicBackupsError: the backup cannot be read, or the export cannot be written.
        """
        is_folder = output_format in FOLDERS
        try:
            with new_place(output, is_folder=is_folder, recipients=recipients, password=password) as place:
                return self._write(backup, output_format, place, tables)
        except (OSError, sqlite3.Error) as error:
            raise _not_written(output, error) from None

    def _write(self, backup: BackupRecord, output_format: Format, place: Path, names: Sequence[str]) -> Done:
        chosen = set(names)
        forgotten = self._forgotten(backup.clinic_id)
        # To tell what belongs to a forgotten row, other tables are read, too.
        is_whole = bool(forgotten.tables) or not chosen
        fetched = self._archives.fetch(source_of(backup), only=lambda table, _: is_whole or table in chosen)
        manifest = fetched.manifest
        require_known(chosen, manifest.tables)
        contents = {name: each for name, each in manifest.tables.items() if not chosen or name in chosen}
        leaving, links = None, None
        if forgotten.tables:
            links = self._links(backup.clinic_id)
            leaving = leaving_out(self._archives, fetched, forgotten, self._drift(), tables=chosen, links=links or ())
        left_out = {name: n for name, n in (leaving.rows if leaving else {}).items() if name in contents}
        notes = [*forgotten.notes, *(leaving.notes if leaving else ())]
        notes += [NOT_ASKED] if forgotten.tables and links is None else []
        notes += [said for name, said in (leaving.said if leaving else {}).items() if name in contents]
        tables = {
            name: Exported(content.table, content.rows - left_out.get(name, 0)) for name, content in contents.items()
        }
        sink = SINKS[output_format](place, tables, readme_name(self._language))
        try:

            def use(table: str, _: Block, data: bytes, times: int) -> None:
                if leaving is not None:
                    data = leaving.left_out.kept(table, data)
                try:
                    for _number in range(times if data else 0):
                        sink.write(table, data)
                except (OSError, sqlite3.Error) as error:
                    # The next store would not help, so this must not look like a store's error.
                    raise _not_written(place, error) from None

            wanted = MissingBlocks.every(contents, use)
            self._archives.read(fetched, wanted)
            wanted.require_all()
            sink.finish(readme(self._language, output_format, backup, manifest, tables, sink.placed, left_out))
        except BaseException:
            sink.abandon()
            raise
        return Done({name: table.rows for name, table in tables.items()}, sink.placed, left_out, notes)


def _not_written(output: Path, error: Exception) -> PermanentError:
    said = error.strerror if isinstance(error, OSError) else str(error)
    return PermanentError(
        f"{output.name} cannot be written: {said}.", hint="Is the disk full? Nothing is left of the export."
    )
