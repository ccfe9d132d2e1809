"""Begins a backup's record, or continues that of an earlier attempt. Records of dead processes are closed first."""

from __future__ import annotations

import time
from datetime import datetime

from clinic_backups.archive.object_keys import archive_key_of
from clinic_backups.backup.backup_outcomes import Outcomes
from clinic_backups.base.backup_id import backup_id_of
from clinic_backups.base.backup_record import BackupRecord
from clinic_backups.base.backup_request import BackupRequest
from clinic_backups.base.clock import Now
from clinic_backups.catalog.before_backup import BeforeBackup
from clinic_backups.catalog.records import Catalog, SameSecond


class Beginning:
    """Begins records. The caller holds the clinic's lock.

    :param store_url: the store that the backups go to.
    :param now: the clock.
    """

    def __init__(self, catalog: Catalog, outcomes: Outcomes, store_url: str, now: Now) -> None:
        self._catalog, self._outcomes, self._store_url, self._now = catalog, outcomes, store_url, now

    def record(self, request: BackupRequest) -> tuple[BackupRecord, BeforeBackup]:
        """The running record: that of an earlier attempt of the same run, or a new one; and what was known before."""
        started_at, before, continued = self._now(), self.before(request), None
        if request.run_id and before.is_unfinished:
            continued = self._catalog.resume(request.clinic.id, request.run_id, started_at)
        # We hold this clinic's lock, so the processes of other running records are dead.
        dead = [record for record in before.running if continued is None or record.backup_id != continued.backup_id]
        for record in dead:
            self._outcomes.close_dead(record)
        if dead:
            before = self.before(request)  # one of them may be completed now
        if continued:
            return continued, before
        try:
            return self._begin(request, started_at), before
        except SameSecond:
            # For instance after an immediate failure: its id is taken until the second has passed.
            time.sleep(1)
            return self._begin(request, self._now()), before

    def before(self, request: BackupRequest) -> BeforeBackup:
        """What the catalog knows of the clinic now."""
        return self._catalog.before_backup(request.clinic.id, request.run_id, self._store_url)

    def _begin(self, request: BackupRequest, started_at: datetime) -> BackupRecord:
        clinic = request.clinic
        return self._catalog.begin(
            BackupRecord(
                backup_id=backup_id_of(clinic.id, started_at),
                clinic_id=clinic.id,
                clinic_name=clinic.name,
                kind="full",
                trigger=request.trigger,
                state="running",
                started_at=started_at,
                archive_key=archive_key_of(clinic, started_at),
                requested_by=request.requested_by,
                notes=request.notes,
                run_id=request.run_id,
                safety_of=request.safety_of,
                read_from=request.read_from,
            )
        )
