"""One backup of one clinic: the order of its steps, and what a failure leaves.

The archive is stored and checked, then the envelope is written, then the record. The envelope is the commit point:
before it there is no backup, and after it a retry only completes the record.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import nullcontext, suppress
from dataclasses import replace
from datetime import datetime
from types import MappingProxyType
from typing import Literal, NamedTuple

from clinic_backups.archive.chain import ChainChoice
from clinic_backups.archive.codec import CODEC, Codec
from clinic_backups.archive.encryption import ENCRYPTION, Encryption, parse_recipients
from clinic_backups.archive.object_keys import archive_key_of
from clinic_backups.archive.writer import block_list, schema_digest
from clinic_backups.backup import shared_data
from clinic_backups.backup.backup_outcomes import Outcomes
from clinic_backups.backup.beginning import Beginning
from clinic_backups.backup.chooser import Chooser
from clinic_backups.backup.service_files import clinic_files
from clinic_backups.backup.stream import ArchiveStream, OnProgress, Progress, Stored
from clinic_backups.backup.suspicions import with_suspicions
from clinic_backups.base.backup_facts import Gap
from clinic_backups.base.backup_record import BackupRecord
from clinic_backups.base.backup_request import BackupRequest
from clinic_backups.base.clinic import Clinic
from clinic_backups.base.clinic_id import ClinicId
from clinic_backups.base.clock import Now, carried_on, require_same_clock, require_same_server
from clinic_backups.base.connections import Connection
from clinic_backups.base.envelope import Envelope
from clinic_backups.base.errors import ClinicBackupsError, ObjectExists, ObjectLocked, PermanentError, TransientError
from clinic_backups.base.kept_connections import KeptConnections
from clinic_backups.base.listening import nobody
from clinic_backups.base.one_at_a_time import Turns
from clinic_backups.base.plain import iso
from clinic_backups.base.settings import Settings
from clinic_backups.base.shared_unit import is_shared
from clinic_backups.base.table import Table
from clinic_backups.base.throttle import Throttle
from clinic_backups.catalog.before_backup import BeforeBackup
from clinic_backups.catalog.locks import ClinicLock
from clinic_backups.catalog.progress import ProgressNotes
from clinic_backups.catalog.records import Catalog
from clinic_backups.notify.backup_mails import Announcer
from clinic_backups.stores import envelopes
from clinic_backups.stores.base import ObjectStore
from clinic_backups.tenant import gate, source_database
from clinic_backups.tenant.clinic_key_check import telling_of_the_key
from clinic_backups.tenant.data_time import AskTime, of_now
from clinic_backups.tenant.extract import SqlExtract, SqlFolder
from clinic_backups.tenant.outside import Outside
from clinic_backups.tenant.tenant_db import Snapshot

Stage = Literal["begin", "check", "read", "store", "commit"]
"""begin: the record is made. check: the tables are locked and looked at. read: rows are read and already stored.
store: all are read, and the rest is stored. commit: the envelope and the record are written."""
TRIES = 3
"""How often a backup is tried with a new key, if the key is taken by an object of somebody else."""


class _Seen(NamedTuple):
    """The input of one backup; see :meth:`ClinicBackup.run`."""

    folder: SqlFolder
    same_as: str | None
    outside: Mapping[str, Outside]
    before: BeforeBackup


class ClinicBackup:
    """Backs up one clinic after the other with the same stages.

    :param extract: the SQL of the extracts.
    :param compress: the compression stage.
    :param encrypt: the encryption stage; recipients come from the settings.
    :param announcer: writes the notice about the outcome.
    :param now: the clock; by default the catalog's.
    :param ask_time: asks a snapshot for the time of its rows; by default they are of the present.
    :param on_progress: called about once for each MiB that was read, from the reading thread.
    :param on_stage: called when the backup comes to a stage; "store" from the reading thread.
    :param on_unnoted: called, from a thread of its own, if the progress could not be written to the catalog. The
        backup continues without further notes.
    :param on_unchecked: see :func:`clinic_backups.tenant.gate.passed`.
    :param kept: opens the connections to the clinics' database.
    :param turns: backups that share it read the clinics' database one after the other.
    """

    def __init__(
        self,
        *,
        settings: Settings,
        clinic_db: Connection,
        store: ObjectStore,
        catalog: Catalog,
        extract: SqlExtract | None = None,
        compress: Codec | None = None,
        encrypt: Encryption | None = None,
        announcer: Announcer | None = None,
        now: Now | None = None,
        ask_time: AskTime | None = None,
        on_progress: OnProgress = nobody,
        on_stage: Callable[[Stage, BackupRecord], object] = nobody,
        on_unnoted: Callable[[ClinicBackupsError], object] = nobody,
        on_unchecked: gate.OnUnchecked = nobody,
        kept: KeptConnections | None = None,
        turns: Turns | None = None,
    ) -> None:
        self._settings, self._clinic_db, self._store, self._catalog = settings, clinic_db, store, catalog
        self._extract, self._compress, self._encrypt = extract or SqlExtract(), compress or CODEC, encrypt or ENCRYPTION
        self._now = now = now or catalog.clock
        self._ask_time = ask_time or of_now(settings.standby_lag_seconds)
        self._on_progress, self._on_stage, self._on_unnoted = on_progress, on_stage, on_unnoted
        self._on_unchecked, self._kept, self._turns = on_unchecked, kept, turns or Turns()
        self._outcomes = Outcomes(catalog, lambda: store, announcer or Announcer(), now)
        self._beginning = Beginning(catalog, self._outcomes, store.url, now)
        self._chooser = Chooser(settings, catalog, store, now)
        self._stream: ArchiveStream | None = None
        self._stopped: BaseException | None = None

    def run(
        self,
        request: BackupRequest,
        *,
        queries: Mapping[str, str] | None = None,
        held: ClinicLock | None = None,
        same_as: str | None = None,
        outside: Mapping[str, Outside] = MappingProxyType({}),
    ) -> BackupRecord:
        """Back up, and return the completed record. A failure is recorded and raised.

        :param queries: the rendered SELECT of each table; by default they are rendered here. Those of the shared unit
            are always made here.
        :param held: the clinic's lock, if the caller holds it.
        :param same_as: the name of an exported snapshot that is backed up.
        :param outside: rows in it that no extract returns, which are backed up too.
        :raises AlreadyRunning: another process backs up this clinic. Nothing was recorded.
        :raises ClocksDiffer: this machine's clock differs from the catalog's. Nothing was recorded.
        :raises SettingsError: there is no recipient, or a recipient or extract is wrong. Nothing was recorded.
        :raises PermanentError: the backup would be incomplete, and the request does not allow that.
        :raises TransientError, PermanentError: the database, the store or the catalog failed, or the backup's
        chain was lost meanwhile.
        """
        recipients = self._settings.recipients_of(request.clinic.id)
        parse_recipients(recipients)
        folder = SqlFolder(self._settings.sql_dir)
        if is_shared(request.clinic.id):
            queries = shared_data.queries(self._clinic_db, folder, self._settings, self._kept)
        elif queries is None:
            queries = self._extract.rendered(folder, request.clinic.id)
        with nullcontext(held) if held is not None else self._catalog.lock(request.clinic.id) as lock:
            require_same_clock(self._now)
            record, before = self._beginning.record(request)
            self._on_stage("begin", record)
            if record.attempt > 1 and (settled := self._outcomes.settle(record)):
                return _usable(settled)
            try:
                record = self._cleared(record)
                seen = _Seen(folder, same_as, outside, before)
                record, stored, envelope = self._stored(record, request, queries, recipients, seen, lock)
            except BaseException as error:
                self._outcomes.note_failure(record, error, retries_left=request.retries_left)
                raise
            try:
                blocks = block_list(record.backup_id, stored.blocks)
                done = self._outcomes.complete(record.completed(envelope, self._store.url), blocks, stored.archive.etag)
            except ClinicBackupsError as error:
                done = self._outlived(record, envelope, error)
            return _usable(done)

    def _outlived(self, record: BackupRecord, envelope: Envelope, error: ClinicBackupsError) -> BackupRecord:
        """After a record could not be completed: the present record, if somebody else completed it with this archive.

        Otherwise this attempt hung, and its retry or a later run has closed or restarted the record. Its objects then
        belong to no record, and are removed.
        """
        try:
            now = self._catalog.get(record.backup_id)
            if now is not None and now.state in ("completed", "lost") and now.sha256 == envelope.archive.sha256:
                return now
            if now is None or now.state == "failed" or now.archive_key != record.archive_key:
                with suppress(ObjectLocked):
                    envelopes.discard(record.archive_key, self._store)
                error.add_note("The objects of this attempt were removed.")
                raise error
        except ClinicBackupsError as failure:
            if failure is error:
                raise
            error.add_note(f"And: {failure.message}")
        error.add_note(f"Backup {record.backup_id} is stored. The next attempt records it in the catalog.")
        raise error

    def stop(self, reason: BaseException) -> None:
        """Make a running backup fail with ``reason``, from another thread or a signal handler."""
        self._stopped = reason
        if self._stream is not None:
            self._stream.stop(reason)

    def _stored(
        self, record: BackupRecord, request: BackupRequest, queries: Mapping[str, str], recipients: tuple[str, ...],
        seen: _Seen, lock: ClinicLock,
    ) -> tuple[BackupRecord, Stored, Envelope]:  # fmt: skip
        """Write archive, note and envelope. If an object of somebody else has the key, try again with another key."""
        for tries_left in reversed(range(TRIES)):
            try:
                locked_until = self._settings.lock_end(self._now())
                with telling_of_the_key(self._clinic_db, seen.folder):
                    read, stored = self._read_and_store(record, request, queries, recipients, locked_until, seen)
                envelope = stored.envelope(
                    read,
                    recipients,
                    self._now(),
                    keep_days=self._settings.retention_of(record.clinic_id).keep_days,
                    locked_until=locked_until,
                )
                return read, stored, self._commit(read, envelope, lock, seen.folder.clinic_table)
            except ObjectExists:
                if not tries_left:
                    raise
                record = self._anew(record)
                seen = seen._replace(before=self._beginning.before(request))
        raise AssertionError("the last try returns or raises")

    def _cleared(self, record: BackupRecord) -> BackupRecord:
        """Remove the objects of an earlier attempt, which are not a backup. Objects are never overwritten."""
        if record.attempt == 1:
            return record
        self._store.identified()
        return self._anew(record)

    def _anew(self, record: BackupRecord) -> BackupRecord:
        """Remove the object there, whoever made it, and continue with another key, which nobody can guess."""
        # A locked object stays until its lock ends. Then the sweep removes it.
        with suppress(ObjectLocked):
            envelopes.discard(record.archive_key, self._store)
        clinic = Clinic(record.clinic_id, record.clinic_name)
        return self._catalog.rekey(record, archive_key_of(clinic, self._now()))

    def _read_and_store(
        self,
        record: BackupRecord,
        request: BackupRequest,
        queries: Mapping[str, str],
        recipients: tuple[str, ...],
        locked_until: datetime | None,
        seen: _Seen,
    ) -> tuple[BackupRecord, Stored]:
        clock = carried_on(self._now)
        notes = ProgressNotes(
            self._catalog.database, record.backup_id, clock, attempt=record.attempt, on_failure=self._on_unnoted
        )

        def show(progress: Progress) -> None:
            notes.note(**vars(progress))
            self._on_progress(progress)

        # Done before any table is locked, because the catalog and the store may be slow.
        before = seen.before
        choice, known = self._chooser.decide(request.kind, before, recipients)
        source_before = before.newest_source if request.is_regular else None
        stream = ArchiveStream(self._store, self._compress, self._encrypt, recipients, show, locked_until=locked_until)
        timeouts = self._settings.timeouts
        with (
            self._turns.taken(lambda: self._pause(0)) as has_read,
            Snapshot(
                self._clinic_db,
                reads=queries,
                same_as=seen.same_as,
                pause=self._pause,
                kept=self._kept,
                with_version=request.compared is not None,
                **timeouts,
            ) as snapshot,
            notes,
        ):
            self._stream = stream
            self._on_stage("check", record)

            def end_reading() -> None:
                has_read()
                self._on_stage("store", record)

            try:
                self._pause(0)
                require_same_server(self._now, "The clinics' database", snapshot.time)
                moment = self._ask_time(snapshot, record.started_at)
                source = source_database.identity_of(snapshot)
                tables, gaps, files = self._passed(snapshot, seen.folder, request, queries, source)
                digest = schema_digest(tables.values())
                other = source_database.difference(source_before, source)
                if choice.chain and other:
                    choice, known = ChainChoice(other), None
                if choice.chain and choice.chain[0].schema_digest != digest:
                    choice, known = self._chooser.choose(request.kind, before, recipients, digest), None
                record = self._catalog.decided(
                    replace(
                        record,
                        kind="incremental" if choice.chain else "full",
                        kind_reason=choice.reason,
                        parent_id=choice.parent_id,
                        chain=tuple(parent.archive for parent in choice.chain),
                        schema_digest=digest,
                        gaps=gaps,
                        data_at=moment.at,
                        read_from=moment.read_from,
                        # For the clinics' application, which sees no more of it.
                        notes=record.notes or (f"as of {iso(moment.at)}" if moment.read_from else ""),
                        source_db=source if request.is_regular else None,
                    )
                )
                self._on_stage("read", record)
                stored = stream.run(
                    record, snapshot, tables, queries, moment.shown, known, self._settings.read_seconds,
                    max_row_bytes=self._settings.max_row_mib * 1024 * 1024, database=source, outside=seen.outside,
                    chosen=request.chosen, parents=seen.folder.parents(), on_read=end_reading,
                    throttle=Throttle(self._settings.bytes_per_second), files=files,
                )  # fmt: skip
                try:
                    may_be_empty = _may_be_empty(record.clinic_id, seen.folder)
                    checked = with_suspicions(
                        record, snapshot, tables, queries, stored, before.completed, recipients, other, may_be_empty,
                        now=self._now(),
                    )  # fmt: skip
                    return checked, stored
                except BaseException as error:
                    envelopes.withdraw(stored.archive.key, self._store, error)
                    raise
            finally:
                self._stream = None

    def _passed(
        self, snapshot: Snapshot, folder: SqlFolder, request: BackupRequest, queries: Mapping[str, str], source: str
    ) -> tuple[dict[str, Table], tuple[Gap, ...], Mapping[str, bytes]]:
        """The tables to read, what the backup lacks, and the files."""
        if is_shared(request.clinic.id):
            return shared_data.passed(
                snapshot, folder, request, queries, self._clinic_db, self._settings, pause=self._pause
            )
        passed = gate.passed(snapshot, folder, request, queries, source, self._on_unchecked)
        return *passed, clinic_files(snapshot, folder)

    def _pause(self, seconds: float) -> None:
        """Sleep, unless the backup is to stop."""
        if self._stopped is not None:
            raise self._stopped
        time.sleep(seconds)

    def _commit(self, record: BackupRecord, envelope: Envelope, lock: ClinicLock, clinic_table: str) -> Envelope:
        """Make the last checks, note the envelope and write it. An archive that gets no envelope is removed."""
        self._on_stage("commit", record)
        try:
            self._require_clinic(envelope, clinic_table)
            lock.require()
            self._catalog.note(record, envelope)
            envelopes.write(envelope, self._store, now=self._now())
        except BaseException as error:
            envelopes.withdraw(envelope.archive.key, self._store, error)
            raise
        return envelope

    def _require_clinic(self, envelope: Envelope, table: str) -> None:
        """Refuse a backup without the clinic's own row, which could not be restored.

        The clinic was removed meanwhile.
        """
        rows = 1 if is_shared(envelope.clinic_id) else envelope.rows.get(table, 1)
        # A safety backup may be of a clinic whose own row is gone.
        if rows != 1 and not (envelope.safety_of is not None and rows == 0):
            raise PermanentError(
                f"Clinic {envelope.clinic_id} has {rows} rows in {table}; it must have one.",
                hint=f"If the clinic was not removed, correct the extract of {table} in include/sql/extract.",
            )


def _may_be_empty(clinic_id: ClinicId, folder: SqlFolder) -> set[str]:
    """The tables that are not suspect without rows."""
    if is_shared(clinic_id):
        return set(folder.queries())  # it is usual that all their rows belong to clinics
    # A parent table may lose its rows as the clinic's rows go. Rows without a parent are looked for.
    return {*folder.declarations().may_be_empty, *folder.parents()}


def _usable(record: BackupRecord) -> BackupRecord:
    """:raises TransientError: it was completed, but its chain was lost meanwhile. That is recorded."""
    if record.state == "lost":
        raise TransientError(
            f"Backup {record.backup_id} is stored but cannot be restored: a backup of its chain was lost meanwhile.",
            hint="Back up again. The new backup is built on the remaining ones.",
        )
    return record
