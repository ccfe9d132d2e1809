"""The progress of running backups. Writing it never delays a backup, and it is deleted when the backup ends."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from types import TracebackType

from sqlalchemy import Connection as SqlConnection
from sqlalchemy import text

from clinic_backups.base.clinic_id import ClinicId
from clinic_backups.base.errors import ClinicBackupsError
from clinic_backups.base.listening import nobody
from clinic_backups.catalog.catalog_database import CatalogDatabase
from clinic_backups.catalog.clinic_id_text import ClinicIdText

SECONDS_BETWEEN_NOTES = 2.0


@dataclass(frozen=True)
class BackupProgress:
    """The table that is being read, ``table_number`` of ``tables``, and the rows and CSV bytes read so far."""

    table: str
    table_number: int
    tables: int
    rows: int
    raw_bytes: int
    updated_at: datetime


@dataclass(frozen=True)
class RunningBackup:
    """A running backup.

    :param number: its number in the clinics' application.
    :param progress: none if it has just begun or is quick.
    :param expected_bytes: bytes of CSV in the clinic's last good backup.
    """

    backup_id: str
    number: int
    started_at: datetime
    progress: BackupProgress | None = None
    expected_bytes: int | None = None

    def rest_seconds(self, now: datetime) -> float | None:
        """The remaining time, if it is as large as the last one and continues as fast; none if unknown."""
        if self.progress is None or self.expected_bytes is None or not self.progress.raw_bytes:
            return None
        rest_bytes = self.expected_bytes - self.progress.raw_bytes
        took = (self.progress.updated_at - self.started_at).total_seconds()
        if rest_bytes <= 0 or took <= 0:
            return None
        rest = rest_bytes * took / self.progress.raw_bytes
        return max(0.0, rest - (now - self.progress.updated_at).total_seconds())


class ProgressNotes:
    """Writes the progress of one backup during the block: after two seconds, then every two seconds at most.

    :meth:`note` only stores its argument, and a thread writes it. A backup of less than two seconds causes no query. If
    the catalog fails, the backup continues without further notes.

    :param attempt: the record's attempt. Notes of another attempt are not changed.
    :param on_failure: called once, from that thread, if a note could not be written.
    """

    def __init__(
        self,
        database: CatalogDatabase,
        backup_id: str,
        now: Callable[[], datetime],
        *,
        attempt: int = 1,
        on_failure: Callable[[ClinicBackupsError], object] = nobody,
    ) -> None:
        self._attempt = attempt
        self._database, self._backup_id, self._now, self._on_failure = database, backup_id, now, on_failure
        self._latest: BackupProgress | None = None
        self._ended = threading.Event()
        # A daemon thread, so that a hanging catalog does not keep the process alive.
        self._thread = threading.Thread(target=self._write, name="progress notes", daemon=True)

    def note(self, table: str, table_number: int, tables: int, rows: int, raw_bytes: int) -> None:
        """Store the present progress."""
        self._latest = BackupProgress(table, table_number, tables, rows, raw_bytes, self._now())

    def __enter__(self) -> ProgressNotes:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop writing, without waiting for a note that is being written."""
        self._ended.set()

    def _write(self) -> None:
        written = None
        while not self._ended.wait(SECONDS_BETWEEN_NOTES):
            if (latest := self._latest) is None or latest is written:
                continue
            try:
                self._put(latest)
            except ClinicBackupsError as error:
                self._on_failure(error)
                return
            written = latest

    def _put(self, progress: BackupProgress) -> None:
        # FOR SHARE makes sure that no note is written after the record's end; SKIP LOCKED, that nothing waits for it.
        # One statement that commits by itself, because a broken connection would otherwise leave the record locked.
        statement = text("""
            WITH running AS MATERIALIZED (
                SELECT backup_id FROM clinic_backups.backup
                 WHERE backup_id = :backup_id AND state = 'running' AND attempt = :attempt
                   FOR SHARE SKIP LOCKED)
            INSERT INTO clinic_backups.backup_progress
                   (backup_id, table_name, table_number, tables, rows, raw_bytes, updated_at)
            SELECT backup_id, :table, :table_number, :tables, :rows, :raw_bytes, :updated_at FROM running
                ON CONFLICT (backup_id) DO UPDATE
               SET table_name = excluded.table_name, table_number = excluded.table_number, tables = excluded.tables,
                   rows = excluded.rows, raw_bytes = excluded.raw_bytes, updated_at = excluded.updated_at""")
        with self._database.statement(f"noting how far {self._backup_id} is") as db:
            db.execute(statement, {"backup_id": self._backup_id, "attempt": self._attempt, **vars(progress)})


def running(db: SqlConnection, clinic_ids: Sequence[ClinicId]) -> dict[ClinicId, RunningBackup]:
    """The newest running backup of each of these clinics that has one."""
    statement = text("""
        SELECT DISTINCT ON (b.clinic_id) b.clinic_id, b.backup_id, b.id, b.started_at,
               p.table_name, p.table_number, p.tables, p.rows, p.raw_bytes, p.updated_at,
               (SELECT g.raw_bytes
                  FROM clinic_backups.backup AS g
                 WHERE g.clinic_id = b.clinic_id AND g.state = 'completed'
                 ORDER BY g.started_at DESC, g.id DESC
                 LIMIT 1) AS expected_bytes
          FROM clinic_backups.backup AS b
          LEFT JOIN clinic_backups.backup_progress AS p ON p.backup_id = b.backup_id
         WHERE b.state = 'running' AND b.clinic_id = ANY(CAST(:clinic_ids AS text[]))
         ORDER BY b.clinic_id, b.started_at DESC, b.id DESC""").columns(clinic_id=ClinicIdText)
    found: dict[ClinicId, RunningBackup] = {}
    for row in db.execute(statement, {"clinic_ids": list(map(str, clinic_ids))}):
        progress = None
        if row.table_name is not None:
            progress = BackupProgress(
                row.table_name, row.table_number, row.tables, row.rows, row.raw_bytes, row.updated_at
            )
        found[row.clinic_id] = RunningBackup(row.backup_id, row.id, row.started_at, progress, row.expected_bytes)
    return found
