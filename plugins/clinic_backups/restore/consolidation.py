"""Makes one new full backup from an incremental backup and its chain, without asking the clinics' database.

The manifest lists every block and the archive that holds it. All these archives are read at the same time, each once
and in a thread of its own. A thread waits until its next blocks are wanted. The new archive takes block after block
from the archive whose turn it is. Nothing is stored on a disk. Memory grows with the number of archives, not with the
clinic.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import Connection as SqlConnection

from clinic_backups.archive.blocks import BlockList
from clinic_backups.archive.bounds import bound_of
from clinic_backups.archive.codec import CODEC
from clinic_backups.archive.encryption import ENCRYPTION, WrongIdentity, parse_recipients
from clinic_backups.archive.object_keys import archive_key_of
from clinic_backups.archive.writer import ArchiveWriter, block_list
from clinic_backups.backup.backup_outcomes import Outcomes
from clinic_backups.backup.stream import Stored
from clinic_backups.base.backup_id import backup_id_of
from clinic_backups.base.backup_record import BackupRecord
from clinic_backups.base.clinic import Clinic
from clinic_backups.base.clock import Now, require_same_clock
from clinic_backups.base.envelope import Envelope
from clinic_backups.base.errors import ClinicBackupsError, IntegrityError, PermanentError
from clinic_backups.base.listening import NOBODY, Listener
from clinic_backups.base.pipeline import ByteChannel, Pipeline
from clinic_backups.base.settings import Settings
from clinic_backups.catalog.erasures import Erasures
from clinic_backups.catalog.records import Catalog
from clinic_backups.notify.backup_mails import Announcer, Cause
from clinic_backups.restore.archives import Archives, Fetched, Source
from clinic_backups.restore.chain_blocks import Merge
from clinic_backups.restore.find_backup import require_completed, source_of
from clinic_backups.stores import envelopes
from clinic_backups.stores.base import ObjectStore, StoredObject
from clinic_backups.stores.condition import put_archive


@dataclass(frozen=True)
class Consolidated:
    """The result. ``verified``: the new backup was read back.

    That is not possible if the identity opens none of today's recipients.
    """

    record: BackupRecord
    verified: bool


class _Silent(Announcer):
    """Sends no mail, because the new backup says nothing about the clinic's present state.

    The setting ``never`` would not do, because it still sends mail about failures and recoveries.
    """

    def completed(self, db: SqlConnection, record: BackupRecord) -> None:
        pass

    def failed(self, db: SqlConnection, record: BackupRecord, cause: Cause) -> None:
        pass


class Consolidation:
    """Makes full backups from incremental ones.

    :param archives: checks the archives, and finds for each a store with a good replica.
    :param store: the store for the new backup.
    :param announcer: announces earlier backups of the clinic whose process turns out to have died.
    :param listener: told which step begins, and its progress.
    """

    def __init__(
        self,
        *,
        settings: Settings,
        catalog: Catalog,
        archives: Archives,
        store: ObjectStore,
        announcer: Announcer | None = None,
        now: Now | None = None,
        listener: Listener = NOBODY,
    ) -> None:
        self._settings, self._catalog, self._archives, self._store = settings, catalog, archives, store
        self._now = now = now or catalog.clock
        self._listener = listener
        self._outcomes = Outcomes(catalog, lambda: store, _Silent(), now)
        self._of_dead = Outcomes(catalog, lambda: store, announcer or Announcer(), now)

    def run(self, backup_id: str, *, requested_by: str) -> Consolidated:
        """Write the full backup. A failure is recorded and raised.

        :raises AlreadyRunning: the clinic is being backed up or restored; nothing was recorded.
        :raises ClocksDiffer: this machine's clock is not the catalog's; nothing was recorded.
        :raises PermanentError: there is no such incremental backup, or it is not completed; nothing was recorded.
        :raises SettingsError: no recipient, or a wrong one; nothing was recorded.
        :raises WrongIdentity: the identity does not open the archives.
        :raises IntegrityError: an archive of the chain is damaged in every store; nothing was stored.
        """
        clinic_id = self._usable(backup_id).clinic_id
        recipients = self._settings.recipients_of(clinic_id)
        parse_recipients(recipients)
        with self._catalog.lock(clinic_id) as lock:
            require_same_clock(self._now)
            # Read again, because retention may have held the lock before.
            source = self._usable(backup_id)
            for dead in self._catalog.find(clinic_id=clinic_id, state="running"):
                self._of_dead.close_dead(dead)
            record = self._catalog.begin(self._dated(source, requested_by))
            try:
                locked_until = self._settings.lock_end(self._now())
                backup = self._archives.fetch(source_of(source), keep=False)
                stored = self._merge(record, backup, recipients, locked_until)
                try:
                    envelope = stored.envelope(
                        record,
                        recipients,
                        self._now(),
                        keep_days=self._settings.retention_of(clinic_id).keep_days,
                        locked_until=locked_until,
                    )
                    verified = self._verify(envelope, source)
                    lock.require()
                    record = self._catalog.note(record, envelope)
                    envelopes.write(envelope, self._store, now=self._now())
                except BaseException as error:
                    envelopes.withdraw(record.archive_key, self._store, error)
                    raise
            except BaseException as error:
                self._outcomes.note_failure(record, error)
                raise
            try:
                completed = record.completed(envelope, self._store.url)
                blocks = block_list(record.backup_id, stored.blocks)
                return Consolidated(self._outcomes.complete(completed, blocks, stored.archive.etag), verified)
            except ClinicBackupsError as error:
                error.add_note(f"Backup {record.backup_id} is stored. The next backup records it in the catalog.")
                raise

    def _usable(self, backup_id: str) -> BackupRecord:
        """The backup, if it can be consolidated. :raises PermanentError: it cannot.

        :raises PermanentError: it cannot be consolidated.
        """
        record = self._catalog.require(backup_id)
        require_completed(record)
        if record.kind != "incremental":
            raise PermanentError(
                f"Backup {backup_id} is a full one already.", hint="There is nothing to do: it needs no other backup."
            )
        if Erasures(self._catalog.database).open_of(record.clinic_id) is not None:
            raise PermanentError(f"Clinic {record.clinic_id} is being erased.", hint="Its backups are no longer made.")
        return record

    def _dated(self, source: BackupRecord, requested_by: str) -> BackupRecord:
        """The running record. It has the time of its rows, and comes directly after its source."""
        records = self._catalog.find(clinic_id=source.clinic_id)
        taken = {record.backup_id for record in records}
        clinic, started_at = Clinic(source.clinic_id, source.clinic_name), source.started_at + timedelta(seconds=1)
        while backup_id_of(clinic.id, started_at) in taken:
            started_at += timedelta(seconds=1)
        said = f"consolidated from {source.backup_id}"
        return BackupRecord(
            backup_id=backup_id_of(clinic.id, started_at),
            clinic_id=clinic.id,
            clinic_name=clinic.name,
            kind="full",
            kind_reason=said,
            trigger="manual",
            state="running",
            started_at=started_at,
            archive_key=archive_key_of(clinic, started_at),
            requested_by=requested_by,
            notes=said,
            schema_digest=source.schema_digest,
            source_db=source.source_db,
            gaps=source.gaps,
            safety_of=source.safety_of,
            read_from=source.read_from,
            data_at=source.data_time,
            suspect=source.suspect,
            accepted_by=source.accepted_by,
            accepted_at=source.accepted_at,
        )

    def _merge(
        self, record: BackupRecord, backup: Fetched, recipients: tuple[str, ...], locked_until: datetime | None
    ) -> Stored:
        # What is uploaded while it is read cannot be taken back when a replica turns out to be damaged.
        stores = self._archives.checked_stores(backup)
        self._listener.step(f"writing {record.backup_id}")
        packed, sealed, pipeline = ByteChannel(), ByteChannel(), Pipeline()
        manifest, blocks = backup.manifest, dict[str, BlockList]()
        writer = ArchiveWriter(packed, CODEC, manifest.snapshot_at, database=manifest.database, chosen=manifest.chosen)
        merge = Merge(backup, stores, self._archives.identities, self._listener)
        for archive in merge.archives.values():
            pipeline.add(f"read-{archive.backup_id}", archive.read, target=archive.segments)
        pipeline.add("merge", lambda: blocks.update(merge.into(writer, record.backup_id)), target=packed)
        pipeline.add("encrypt", lambda: ENCRYPTION.run(packed, sealed, recipients), source=packed, target=sealed)

        def upload() -> StoredObject:
            return put_archive(record, sealed, self._store, locked_until=locked_until)

        return Stored(pipeline.run(upload, on_failure=merge.stop), blocks)

    def _verify(self, envelope: Envelope, source: BackupRecord) -> bool:
        """Read the new backup back, if the identity opens it. :raises IntegrityError: it differs from its source."""
        found = {envelope.fingerprint}
        self._listener.step(f"reading {envelope.backup_id} back")
        try:
            new = Source(envelope.backup_id, envelope.clinic_id, envelope.archive, bound=bound_of(envelope))
            found.add(self._archives.read_in(self._store, new).fingerprint)
            verified = True
        except WrongIdentity:
            if set(envelope.recipients) == set(source.recipients):
                raise  # it opened the source, so it must open this one too
            verified = False
        if found != {source.fingerprint}:
            raise IntegrityError(
                f"The full backup that was made of {source.backup_id} does not hold the same rows.",
                hint="It was not kept. Please report this error of the package.",
            )
        return verified
