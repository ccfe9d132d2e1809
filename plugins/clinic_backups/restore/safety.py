"""The safety backup that a restore makes before it writes: the state that the plan saw, in the same database."""

from __future__ import annotations

from collections.abc import Sequence

from psycopg2 import sql

from clinic_backups.backup.backup import ClinicBackup
from clinic_backups.base.backup_record import BackupRecord
from clinic_backups.base.backup_request import BackupRequest
from clinic_backups.base.clinic import Clinic
from clinic_backups.base.clinic_id import ClinicId
from clinic_backups.base.connections import Connection
from clinic_backups.base.errors import ClinicBackupsError, IntegrityError, PermanentError, TransientError
from clinic_backups.base.settings import Settings
from clinic_backups.catalog.locks import ClinicLock
from clinic_backups.restore.comparison import Present
from clinic_backups.restore.unit_sql import unit_sql
from clinic_backups.stores.base import ObjectStore
from clinic_backups.tenant.tenant_db import Snapshot


class SafetyBackup:
    """Backs up clinics before they are restored.

    :param backup: reads through the restore's own connection.
    :param restore_db: that connection.
    :param store: where the backups go to.
    """

    def __init__(
        self, *, settings: Settings, backup: ClinicBackup, restore_db: Connection, store: ObjectStore | None = None
    ) -> None:  # fmt: skip
        self._settings, self._backup, self._restore_db, self._store = settings, backup, restore_db, store

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
        """Back up the state that the plan saw; none if no table has a row of the clinic.

        :param present: the state that the plan saw.
        :param of: the backup that is about to be restored.
        :param tables: the tables of it that are restored, if not all. The notes of the safety backup name them.
        :param lock: the clinic's lock, which the restore holds.
        :raises IntegrityError: the safety backup does not hold what the plan saw.
        :raises ClinicBackupsError: see :meth:`ClinicBackup.run`.
        """
        if not any(present.rows.values()) and self._is_empty(clinic.id, present.snapshot):
            return None
        self._require_store()
        # Without the run's id. A backup with that id would continue one of an earlier attempt, which holds another
        # moment's state.
        only = f", of {', '.join(tables)} only" if tables else ""
        request = BackupRequest(
            clinic, requested_by=requested_by, notes=f"before the restore of {of}{only}", run_id=None,
            safety_of=of, chosen=tuple(present.chosen),
            # A restore must not wait until somebody has written an extract. The record says what is missing.
            allow_gaps=True,
        )  # fmt: skip
        saved = self._backup.run(request, held=lock, same_as=present.snapshot, outside=present.outside)
        for name, count in present.rows.items():
            if saved.rows.get(name, 0) != count:
                raise IntegrityError(
                    f"The safety backup {saved.backup_id} is not what the plan saw: {name} has"
                    f" {saved.rows.get(name, 0):,} rows in it, and the plan counted {count:,}.",
                    hint="Nothing was changed. Check that each extract gives the same rows every time it runs.",
                )
        return saved

    def _require_store(self) -> None:
        """:raises ClinicBackupsError: the store that backups go to does not answer, or is another one."""
        try:
            if self._store is not None:
                self._store.identified()
        except ClinicBackupsError as error:
            kind = TransientError if isinstance(error, TransientError) else PermanentError
            raise kind(
                f"The state before the restore cannot be backed up, so nothing was restored. {error.message}",
                hint=f"{error.hint} If that store is lost and a further one has the backups, make that one the first"
                " store (docs/runbook.md, section 4), and restore again. To restore without a safety backup:"
                " `clinic-backups bucket --clinic ID`, then `clinic-backups restore --clinic ID --archive KEY`.",
            ) from error

    def _is_empty(self, clinic_id: ClinicId, snapshot: str) -> bool:
        """Whether no table has a row of the clinic, including tables that the plan does not compare."""
        _, queries = unit_sql(self._restore_db, self._settings, clinic_id)
        with Snapshot(self._restore_db, same_as=snapshot, **self._settings.timeouts) as reader:
            for name, query in queries.items():
                found = sql.SQL("SELECT FROM (\n{}\n) AS r LIMIT 1").format(sql.SQL(query))
                if reader.rows(found, None, f"looking for rows of clinic {clinic_id} in {name}"):
                    return False
        return True
