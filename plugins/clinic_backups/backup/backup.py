"""One backup of one clinic: what becomes visible in which order, and what is left when something fails.

Archive stored and checked, then the envelope, then the catalog. The envelope is the commit point: before it there is no
backup; after it a retry only finishes the record.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing, nullcontext, suppress
from dataclasses import replace
from datetime import datetime
from types import MappingProxyType
from typing import NamedTuple

from clinic_backups.archive.chain import Choice, choose
from clinic_backups.archive.codec import Zstd
from clinic_backups.archive.encryption import Age, parse_recipients
from clinic_backups.archive.known_blocks import KnownBlocks, UnusableBlocks
from clinic_backups.archive.object_keys import archive_key_of
from clinic_backups.archive.writer import block_list, schema_digest
from clinic_backups.backup.outcome import Outcomes
from clinic_backups.backup.parents import Parents
from clinic_backups.backup.stream import ArchiveStream, OnProgress, Progress, Stored
from clinic_backups.base.clock import Now, carried_on, require_same_clock, require_same_server
from clinic_backups.base.connections import Connection
from clinic_backups.base.errors import ClinicBackupsError, ObjectExists, ObjectLocked, PermanentError, TransientError
from clinic_backups.base.model import BackupRecord, BackupRequest, Clinic, Envelope, Table, WantedKind, backup_id_of
from clinic_backups.base.settings import Settings
from clinic_backups.catalog.erasures import Erasures
from clinic_backups.catalog.locks import ClinicLock
from clinic_backups.catalog.progress import ProgressNotes
from clinic_backups.catalog.records import Catalog, SameSecond
from clinic_backups.notify.policy import Announcer
from clinic_backups.stores import envelopes
from clinic_backups.stores.base import ObjectStore
from clinic_backups.tenant import gate, plausibility, source_database
from clinic_backups.tenant.extract import SqlExtract, SqlFolder
from clinic_backups.tenant.outside import Outside
from clinic_backups.tenant.standby import lag_of
from clinic_backups.tenant.tenant_db import Snapshot

TRIES = 3
"""Times that a backup is made when somebody else's object lies under the key that was drawn for it."""


class _Seen(NamedTuple):
    """What one backup is of; see :meth:`ClinicBackup.run`."""

    same_as: str | None
    outside: Mapping[str, Outside]


class ClinicBackup:
    """Backs up one clinic after the other with one set of parts.

    :param extract: which SQL gives the clinic's rows.
    :param compress: the compression stage.
    :param encrypt: the encryption stage; recipients come from the settings.
    :param announcer: who is told of the outcome.
    :param now: the clock; by default the catalog's.
    :param on_progress: called about once for each MiB that was read, from the reading thread.
    :param on_unnoted: called, from a thread of its own, when the catalog could not be told how far it is: the backup
        goes on, and the catalog is not asked again.
    :param on_unchecked: see :func:`clinic_backups.tenant.gate.passed`.
    """

    def __init__(
        self,
        *,
        settings: Settings,
        clinic_db: Connection,
        store: ObjectStore,
        catalog: Catalog,
        extract: SqlExtract | None = None,
        compress: Zstd | None = None,
        encrypt: Age | None = None,
        announcer: Announcer | None = None,
        now: Now | None = None,
        on_progress: OnProgress = lambda progress: None,
        on_unnoted: Callable[[ClinicBackupsError], object] = lambda error: None,
        on_unchecked: gate.OnUnchecked = lambda message: None,
    ) -> None:
        self._settings, self._clinic_db, self._store, self._catalog = settings, clinic_db, store, catalog
        self._extract, self._compress, self._encrypt = extract or SqlExtract(), compress or Zstd(), encrypt or Age()
        self._now = now = now or catalog.clock
        self._on_progress, self._on_unnoted = on_progress, on_unnoted
        self._on_unchecked = on_unchecked
        self._outcomes = Outcomes(catalog, lambda: store, announcer or Announcer(), now)
        self._parents = Parents(store, catalog, now)
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
        """Back up; returns the completed record. A failure is recorded and raised.

        :param queries: the SELECT of each table, rendered already; by default they are rendered here.
        :param held: the clinic's lock, where the caller holds it.
        :param same_as: the name of an exported snapshot: what it sees is backed up.
        :param outside: rows in it that no extract gives, and that are backed up too.
        :raises AlreadyRunning: another process backs up this clinic; nothing was recorded.
        :raises ClocksDiffer: this machine's clock is not the catalog's; nothing was recorded.
        :raises SettingsError: no recipient, a wrong one, or a wrong extract; nothing was recorded.
        :raises PermanentError: the backup would be incomplete, and the request does not allow that.
        :raises TransientError, PermanentError: the database, the store or the catalog failed; or what it is built on
            was lost meanwhile.
        """
        recipients = self._settings.recipients_of(request.clinic.id)
        parse_recipients(recipients)
        if queries is None:
            queries = self._extract.rendered(SqlFolder(self._settings.sql_dir), request.clinic.id)
        with nullcontext(held) if held is not None else self._catalog.lock(request.clinic.id) as lock:
            require_same_clock(self._now)
            record = self._record(request)
            if record.attempt > 1 and (settled := self._outcomes.settle(record)):
                return _usable(settled)
            try:
                # Before anything is read: what answers under the store's URL may be an empty mount point.
                self._store.identified()
                record = self._cleared(record)
                seen = _Seen(same_as, outside)
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
        """The record could not be completed: what is there now, where somebody else has completed it as this backup.

        This attempt stood still, and its retry or a later run has closed the record or begun it anew. What it has
        stored is then a backup of nobody, and is removed.
        """
        try:
            now = self._catalog.get(record.backup_id)
            if now is not None and now.state in ("completed", "lost") and now.sha256 == envelope.archive.sha256:
                return now
            if now is None or now.state == "failed" or now.archive_key != record.archive_key:
                with suppress(ObjectLocked):
                    envelopes.discard(record.archive_key, self._store)
                error.add_note("What this attempt stored was removed.")
                raise error
        except ClinicBackupsError as failure:
            if failure is error:
                raise
            error.add_note(f"And: {failure.message}")
        error.add_note(f"Backup {record.backup_id} is stored; the catalog learns of it with the next attempt.")
        raise error

    def stop(self, reason: BaseException) -> None:
        """Make a backup that runs fail with ``reason``; from another thread or a signal handler."""
        self._stopped = reason
        if self._stream is not None:
            self._stream.stop(reason)

    def _stored(
        self, record: BackupRecord, request: BackupRequest, queries: Mapping[str, str], recipients: tuple[str, ...],
        seen: _Seen, lock: ClinicLock,
    ) -> tuple[BackupRecord, Stored, Envelope]:  # fmt: skip
        """Archive, note and envelope. Where an object of somebody else's is in the way: again, under another key."""
        for tries_left in reversed(range(TRIES)):
            try:
                locked_until = self._settings.lock_end(self._now())
                read, stored = self._read_and_store(record, request, queries, recipients, locked_until, seen)
                envelope = stored.envelope(
                    read,
                    recipients,
                    self._now(),
                    keep_days=self._settings.retention_of(record.clinic_id).keep_days,
                    locked_until=locked_until,
                )
                return read, stored, self._commit(read, envelope, lock)
            except ObjectExists:
                if not tries_left:
                    raise
                record = self._anew(record)
        raise AssertionError("the last try returns or raises")

    def _record(self, request: BackupRequest) -> BackupRecord:
        """The running record: that of an earlier attempt of the same run, or a new one."""
        started_at, clinic = self._now(), request.clinic
        continued = self._catalog.resume(clinic.id, request.run_id, started_at) if request.run_id else None
        # This clinic's lock is ours: whoever else is said to run has died.
        for dead in self._catalog.find(clinic_id=clinic.id, state="running"):
            if continued is None or dead.backup_id != continued.backup_id:
                self._outcomes.close_dead(dead)
        if continued:
            return continued
        try:
            return self._begin(request, started_at)
        except SameSecond:
            # One that failed at once, for instance: its name is taken for as long as the second lasts.
            time.sleep(1)
            return self._begin(request, self._now())

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
            )
        )

    def _cleared(self, record: BackupRecord) -> BackupRecord:
        """Remove what an earlier attempt stored: it is no backup, and nothing is written over."""
        return self._anew(record) if record.attempt > 1 else record

    def _anew(self, record: BackupRecord) -> BackupRecord:
        """Remove what lies there, whoever put it there, and go on under another key, which nobody can guess."""
        # What is locked stays until its lock ends, and then goes with the sweep.
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

        # Before any table is locked: the catalog and the store may be slow.
        backups = self._catalog.find(clinic_id=record.clinic_id, state="completed")
        choice, known = self._decide(record, request.kind, backups, recipients)
        source_before = self._catalog.newest_source() if request.safety_of is None else None
        stream = ArchiveStream(self._store, self._compress, self._encrypt, recipients, show, locked_until=locked_until)
        timeouts = self._settings.timeouts
        with (
            Snapshot(self._clinic_db, reads=queries, same_as=seen.same_as, pause=self._pause, **timeouts) as snapshot,
            notes,
        ):
            self._stream = stream
            try:
                self._pause(0)
                require_same_server(self._now, "The clinics' database", snapshot.time)
                lag = lag_of(snapshot.replayed(), self._settings.standby_lag_seconds)
                folder = SqlFolder(self._settings.sql_dir)
                tables, gaps = gate.passed(snapshot, folder, request, queries, self._on_unchecked)
                digest = schema_digest(tables.values())
                source = source_database.identity_of(snapshot)
                other = source_database.difference(source_before, source)
                if choice.chain and other:
                    choice, known = Choice(other), None
                if choice.chain and choice.chain[0].schema_digest != digest:
                    choice, known = self._choose(record, request.kind, backups, recipients, digest), None
                record = self._catalog.decided(
                    replace(
                        record,
                        kind="incremental" if choice.chain else "full",
                        kind_reason=choice.reason,
                        parent_id=choice.parent_id,
                        chain=tuple(parent.archive for parent in choice.chain),
                        schema_digest=digest,
                        gaps=gaps,
                        data_at=record.started_at - lag,
                        source_db=source if request.safety_of is None else None,
                    )
                )
                stored = stream.run(
                    record, snapshot, tables, queries, known, self._settings.read_seconds,
                    max_row_bytes=self._settings.max_row_mib * 1024 * 1024, database=source, outside=seen.outside,
                    chosen=request.chosen,
                )  # fmt: skip
                try:
                    return self._checked(record, snapshot, tables, queries, stored, backups, recipients, other), stored
                except BaseException as error:
                    envelopes.withdraw(stored.archive.key, self._store, error)
                    raise
            finally:
                self._stream = None

    def _pause(self, seconds: float) -> None:
        """Sleep, unless somebody wants the backup to stop."""
        if self._stopped is not None:
            raise self._stopped
        time.sleep(seconds)

    def _checked(
        self,
        record: BackupRecord,
        snapshot: Snapshot,
        tables: Mapping[str, Table],
        queries: Mapping[str, str],
        stored: Stored,
        backups: Sequence[BackupRecord],
        recipients: Sequence[str],
        other_database: str,
    ) -> BackupRecord:
        """The record with what is not plausible in it. :raises TransientError: what was read is not believed."""
        rows = {name: blocks.rows for name, blocks in stored.blocks.items()}
        now = self._now()
        good = [b for b in backups if b.is_trusted and b.safety_of is None and not b.is_of_future(now)]
        last_good = max(good, key=lambda backup: (backup.data_time, backup.backup_id)) if good else None
        may_be_empty = SqlFolder(self._settings.sql_dir).declarations().may_be_empty
        found = plausibility.check(snapshot, tables, queries, rows, last_good, may_be_empty=may_be_empty)
        other_keys = ""
        if last_good is not None and last_good.recipients and not {*last_good.recipients} & {*recipients}:
            other_keys = f"It is encrypted to none of the keys of {last_good.backup_id}, the last good backup."
        record = replace(
            record,
            suspect="; ".join(filter(None, (other_database, found.suspect))) or None,
            remark=" ".join(filter(None, (other_keys, found.remark))) or None,
        )
        if found.accepted and last_good is not None and not other_database:
            return replace(record, accepted_by=last_good.accepted_by, accepted_at=last_good.accepted_at)
        return record

    def _problem(self, choice: Choice) -> str:
        """Why nothing can be built on a chain; empty: it can. One archive that cannot be read stops no full backup."""
        try:
            return self._parents.problem(choice.chain)
        except PermanentError as error:
            self._store.identified()  # else it is the store that is not there, and not the archive
            return f"an archive that it would be built on cannot be read: {error.message}"

    def _decide(
        self, record: BackupRecord, wanted: WantedKind, backups: Sequence[BackupRecord], recipients: tuple[str, ...]
    ) -> tuple[Choice, KnownBlocks | None]:
        """Full or incremental if the tables are as they were: from the records, the catalog's blocks and the store."""
        choice, known = self._choose(record, wanted, backups, recipients, None), None
        if not choice.chain and wanted != "full":
            self._parents.require_store(backups)
        if choice.chain and (problem := self._problem(choice)):
            choice = Choice(problem)
        if choice.chain:
            known = KnownBlocks([parent.backup_id for parent in choice.chain])
            try:
                for parent in choice.chain:
                    # All blocks of a full one are its own, so that its record knows their fingerprint.
                    fingerprint = parent.fingerprint if parent.kind == "full" else None
                    with closing(self._catalog.blocks(parent.backup_id)) as pieces:
                        known.add(pieces, fingerprint)
            except UnusableBlocks:
                choice, known = Choice(f"the catalog has no list of the blocks of {parent.backup_id}"), None
        return choice, known

    def _choose(
        self,
        record: BackupRecord,
        wanted: WantedKind,
        backups: Sequence[BackupRecord],
        recipients: tuple[str, ...],
        digest: str | None,
    ) -> Choice:
        erasure = Erasures(self._catalog.database).open_of(record.clinic_id)
        return choose(
            wanted,
            backups,
            self._settings,
            self._now(),
            recipients=recipients,
            schema_digest=digest,
            not_before=erasure.requested_at if erasure else None,
        )

    def _commit(self, record: BackupRecord, envelope: Envelope, lock: ClinicLock) -> Envelope:
        """Check what only now is known, note the envelope and write it; an archive that gets none is removed."""
        try:
            self._require_clinic(envelope)
            lock.require()
            self._catalog.note(record, envelope)
            envelopes.write(envelope, self._store, now=self._now())
        except BaseException as error:
            envelopes.withdraw(envelope.archive.key, self._store, error)
            raise
        return envelope

    def _require_clinic(self, envelope: Envelope) -> None:
        """A backup without the clinic's own row would restore to nothing: the clinic was removed meanwhile."""
        table = SqlFolder(self._settings.sql_dir).clinic_table
        rows = envelope.rows.get(table, 1)
        # What is saved before a restore may be a clinic whose own row is gone.
        if rows != 1 and not (envelope.safety_of is not None and rows == 0):
            raise PermanentError(
                f"Clinic {envelope.clinic_id} has {rows} rows in {table}; it must have one.",
                hint=f"Was the clinic removed? Else correct the extract of {table} in include/sql/extract.",
            )


def _usable(record: BackupRecord) -> BackupRecord:
    """:raises TransientError: it was completed, and what it is built on was lost meanwhile: that is recorded."""
    if record.state == "lost":
        raise TransientError(
            f"Backup {record.backup_id} is stored, and cannot be restored: what it is built on was lost meanwhile.",
            hint="Back up again: it uses what is left.",
        )
    return record
