"""Writes one backup as files that a person can open.

Memory is constant: each block goes to its table as it comes out of the archives, which are read once each. So the rows
of an incremental backup are not in the order of their keys.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from clinic_backups.archive.blocks import Block
from clinic_backups.base.backup_record import BackupRecord
from clinic_backups.base.errors import PermanentError
from clinic_backups.catalog.exports import Format
from clinic_backups.export.content import Exported, Placed, Sink
from clinic_backups.export.place import new_place
from clinic_backups.export.readme import language_of, readme, readme_name
from clinic_backups.export.sqlite import SqliteFile
from clinic_backups.export.text_files import CsvFolder, JsonFolder
from clinic_backups.export.xlsx import XlsxFile
from clinic_backups.restore.archives import Archives
from clinic_backups.restore.find_backup import source_of
from clinic_backups.restore.missing_blocks import MissingBlocks
from clinic_backups.restore.named_tables import require_known

SINKS: Mapping[Format, Callable[[Path, Mapping[str, Exported], str], Sink]] = {
    "csv": CsvFolder, "json": JsonFolder, "sqlite": SqliteFile, "xlsx": XlsxFile,
}  # fmt: skip
FOLDERS: frozenset[Format] = frozenset({"csv", "json"})


@dataclass(frozen=True)
class Done:
    """What was written.

    :param rows: the number of rows by table.
    """

    rows: Mapping[str, int]
    placed: Placed


class Export:
    """Exports backups.

    :param archives: reads them.
    :param language: that of the readme.
    """

    def __init__(self, archives: Archives, language: str) -> None:
        self._archives, self._language = archives, language_of(language)

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
        fetched = self._archives.fetch(source_of(backup), only=lambda table, _: not chosen or table in chosen)
        manifest = fetched.manifest
        require_known(chosen, manifest.tables)
        contents = {name: each for name, each in manifest.tables.items() if not chosen or name in chosen}
        tables = {name: Exported(content.table, content.rows) for name, content in contents.items()}
        sink = SINKS[output_format](place, tables, readme_name(self._language))
        try:

            def use(table: str, _: Block, data: bytes, times: int) -> None:
                try:
                    for _number in range(times):
                        sink.write(table, data)
                except (OSError, sqlite3.Error) as error:
                    # The next store would not help, so this must not look like a store's error.
                    raise _not_written(place, error) from None

            wanted = MissingBlocks.every(contents, use)
            self._archives.read(fetched, wanted)
            wanted.require_all()
            sink.finish(readme(self._language, output_format, backup, manifest, tables, sink.placed))
        except BaseException:
            sink.abandon()
            raise
        return Done({name: table.rows for name, table in tables.items()}, sink.placed)


def _not_written(output: Path, error: Exception) -> PermanentError:
    said = error.strerror if isinstance(error, OSError) else str(error)
    return PermanentError(
        f"{output.name} cannot be written: {said}.", hint="Is the disk full? Nothing is left of the export."
    )
