"""The copy of the present state that a restore makes before it writes: what the plan saw, in the same database."""

from __future__ import annotations

from collections.abc import Sequence

from psycopg2 import sql

from clinic_backups.backup.backup import ClinicBackup
from clinic_backups.base.connections import Connection
from clinic_backups.base.errors import IntegrityError
from clinic_backups.base.model import BackupRecord, BackupRequest, Clinic
from clinic_backups.base.settings import Settings
from clinic_backups.catalog.locks import ClinicLock
from clinic_backups.restore.comparison import Present
from clinic_backups.tenant.extract import SqlExtract, SqlFolder
from clinic_backups.tenant.tenant_db import Snapshot


class SafetyBackup:
    """Saves clinics before they are restored.

    :param backup: reads through the restore's own connection.
    :param restore_db: that connection.
    """

    def __init__(self, *, settings: Settings, backup: ClinicBackup, restore_db: Connection) -> None:
        self._settings, self._backup, self._restore_db = settings, backup, restore_db

    def take(
        self,
        clinic: Clinic,
        present: Present,
        *,
        of: str,
        requested_by: str,
        lock: ClinicLock,
        tables: Sequence[str] = (),
    ) -> BackupRecord | None:
        """Back up what the plan saw; none where no table has a row of the clinic.

        :param present: what the plan saw.
        :param of: the backup that is about to be restored; ``tables``: only these of it, which its notes name.
        :param lock: the clinic's, which the restore holds.
        :raises IntegrityError: the backup does not hold what the plan saw.
        :raises ClinicBackupsError: see :meth:`ClinicBackup.run`.
        """
        if not any(present.rows.values()) and self._is_empty(clinic.id, present.snapshot):
            return None
        # Without the run's id: what an earlier attempt of the run has stored is another moment's state, and a backup
        # with that id would go on from there.
        only = f", of {', '.join(tables)} only" if tables else ""
        request = BackupRequest(
            clinic, requested_by=requested_by, notes=f"before the restore of {of}{only}", run_id=None,
            safety_of=of, chosen=tuple(present.chosen),
            # A restore must not wait until somebody has written an extract: the record says what it lacks.
            allow_gaps=True,
        )  # fmt: skip
        saved = self._backup.run(request, held=lock, same_as=present.snapshot, outside=present.outside)
        for name, count in present.rows.items():
            if saved.rows.get(name, 0) != count:
                raise IntegrityError(
                    f"The safety backup {saved.backup_id} is not what the plan saw: {name} has"
                    f" {saved.rows.get(name, 0):,} rows in it, and the plan counted {count:,}.",
                    hint="Nothing was changed. Do the extracts give the same rows each time that they are run?",
                )
        return saved

    def _is_empty(self, clinic_id: int, snapshot: str) -> bool:
        """No table has a row of the clinic. Also asked of the tables that the plan does not compare."""
        queries = SqlExtract().rendered(SqlFolder(self._settings.sql_dir), clinic_id)
        with Snapshot(self._restore_db, same_as=snapshot, **self._settings.timeouts) as reader:
            for name, query in queries.items():
                found = sql.SQL("SELECT FROM (\n{}\n) AS r LIMIT 1").format(sql.SQL(query))
                if reader.rows(found, None, f"looking for rows of clinic {clinic_id} in {name}"):
                    return False
        return True
