"""Streams a backup from the database to the store: COPY, blocks, tar, zstd, age and upload, in overlapping stages."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Generator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import partial
from types import MappingProxyType

from clinic_backups.archive.blocks import BlockList
from clinic_backups.archive.codec import Codec
from clinic_backups.archive.encryption import Encryption
from clinic_backups.archive.envelope_checks import MAX_NUMBER
from clinic_backups.archive.known_blocks import KnownBlocks
from clinic_backups.archive.manifest_checks import require_readable
from clinic_backups.archive.writer import ArchiveWriter, fingerprint
from clinic_backups.base.backup_facts import ArchiveInfo
from clinic_backups.base.backup_record import BackupRecord
from clinic_backups.base.clinic import Clinic
from clinic_backups.base.envelope import Envelope
from clinic_backups.base.errors import PermanentError, TransientError
from clinic_backups.base.listening import nobody
from clinic_backups.base.pipeline import ByteChannel, Channel, Pipeline
from clinic_backups.base.table import Table
from clinic_backups.base.throttle import Throttle
from clinic_backups.stores.base import ObjectStore, StoredObject
from clinic_backups.stores.condition import put_archive
from clinic_backups.tenant.outside import Outside
from clinic_backups.tenant.tenant_db import Snapshot

BATCH_BYTES = 1024 * 1024
"""The reader passes rows to the next stage in batches of this size."""
WAITING_BYTES = 4 * BATCH_BYTES
MAX_ROW_BYTES = 256 * 1024 * 1024


@dataclass(frozen=True)
class Progress:
    """The progress of reading: table ``table_number`` of ``tables``, and the rows and CSV bytes so far."""

    table: str
    table_number: int
    tables: int
    rows: int
    raw_bytes: int


OnProgress = Callable[[Progress], object]
Rows = Channel[Table | list[bytes]]
"""The table is sent before its rows, which follow in batches."""


class ArchiveStream:
    """Streams one snapshot into one stored archive.

    :param on_progress: called about once for each MiB that was read, from the reading thread.
    :param locked_until: the end of the lock that the store is asked for.
    """

    def __init__(
        self,
        store: ObjectStore,
        compress: Codec,
        encrypt: Encryption,
        recipients: tuple[str, ...],
        on_progress: OnProgress,
        *,
        locked_until: datetime | None = None,
    ) -> None:
        self._store, self._compress, self._encrypt, self._recipients = store, compress, encrypt, recipients
        self._on_progress, self._locked_until = on_progress, locked_until
        self._pipeline = Pipeline()

    def run(
        self,
        record: BackupRecord,
        snapshot: Snapshot,
        tables: Mapping[str, Table],
        queries: Mapping[str, str],
        snapshot_at: datetime,
        known: KnownBlocks | None = None,
        read_seconds: float = 3600,
        max_row_bytes: int = MAX_ROW_BYTES,
        database: str | None = None,
        outside: Mapping[str, Outside] = MappingProxyType({}),
        chosen: Sequence[str] = (),
        parents: Collection[str] = (),
        on_read: Callable[[], object] = nobody,
        throttle: Throttle | None = None,
        files: Mapping[str, bytes] = MappingProxyType({}),
    ) -> Stored:
        """Read, pack and store. Returns the confirmed object and each table's blocks.

        If a stage fails, the upload is aborted, nothing stays in the store, and that stage's own error is raised.
        The snapshot's transaction and all its locks end when the last row was read, not when it is stored.

        :param snapshot: opened with these queries as its ``reads``.
        :param snapshot_at: the time of its rows, for the manifest.
        :param known: blocks of older archives, which are not stored again.
        :param read_seconds: the longest time that the tables may stay locked.
        :param max_row_bytes: the longest row of CSV that is accepted.
        :param database: the snapshot's database, see ``source_database``.
        :param outside: rows that no extract returns, which are read too.
        :param chosen: the tables that will be restored, if that is not all.
        :param parents: the parent tables.
        :param on_read: called, from the reading thread, when the transaction has ended.
        :param throttle: limits the reading.
        :param files: the files of the shared unit.
        :raises PermanentError: a row is too long.
        :raises IntegrityError: the manifest would not be readable. Nothing was stored.
        """
        rows: Rows = Channel(WAITING_BYTES)
        packed, sealed = ByteChannel(), ByteChannel()
        writer = ArchiveWriter(packed, self._compress, snapshot_at, known, database=database, chosen=chosen)
        blocks: dict[str, BlockList] = {}
        clinic = Clinic(record.clinic_id, record.clinic_name)
        require_readable(clinic, snapshot_at, tables.values(), database, chosen)

        def pack() -> None:
            blocks.update(_pack(writer, rows, clinic, record.backup_id, outside, parents, files))

        def upload() -> StoredObject:
            return put_archive(record, sealed, self._store, locked_until=self._locked_until)

        also = {name: more.added_to(queries[name], tables[name]) for name, more in outside.items()}
        limit_speed = partial((throttle or Throttle(None)).took, look=self._pipeline.require_running)
        reader = _Reader(rows, len(tables), self._on_progress, max_row_bytes, limit_speed)
        # A daemon thread, which ends with the reading and keeps no process alive.
        limit = threading.Timer(read_seconds, lambda: self.stop(_too_slow(read_seconds)))
        limit.daemon = True

        def read() -> None:
            try:
                reader.read(snapshot, tables, dict(queries) | also)
                snapshot.prove_and_end()
                on_read()
            finally:
                limit.cancel()

        self._pipeline.add("read", read, target=rows)
        self._pipeline.add("pack", pack, source=rows, target=packed)
        self._pipeline.add(
            "encrypt", lambda: self._encrypt.run(packed, sealed, self._recipients), source=packed, target=sealed
        )
        limit.start()
        try:
            return Stored(self._pipeline.run(upload, on_failure=snapshot.cancel), blocks)
        finally:
            limit.cancel()

    def stop(self, reason: BaseException) -> None:
        """Make :meth:`run` fail with ``reason``; from another thread or a signal handler."""
        self._pipeline.abort(reason)


@dataclass(frozen=True)
class Stored:
    """An archive in the store, and the blocks of each table by ``schema.table``."""

    archive: StoredObject
    blocks: Mapping[str, BlockList]

    def envelope(
        self,
        record: BackupRecord,
        recipients: tuple[str, ...],
        finished_at: datetime,
        *,
        keep_days: int,
        locked_until: datetime | None,
    ) -> Envelope:
        """The envelope of this backup."""
        archive = self.archive
        # If the clock was set back in between, the end must still not be before the beginning.
        finished_at = max(record.started_at, finished_at)
        done = replace(
            record,
            finished_at=finished_at,
            expires_at=finished_at + timedelta(days=keep_days),
            rows={name: blocks.rows for name, blocks in self.blocks.items()},
            raw_bytes=sum(blocks.size_bytes for blocks in self.blocks.values()),
            recipients=recipients,
            fingerprint=fingerprint(self.blocks),
            locked_until=locked_until,
            number=record.number if record.number is not None and record.number < MAX_NUMBER else None,
        )
        return Envelope(
            **done.facts(), archive=ArchiveInfo(archive.key, archive.size_bytes, archive.sha256, archive.md5)
        )


def _too_slow(seconds: float) -> TransientError:
    return TransientError(
        f"Reading took longer than {seconds:g} seconds, and locked the tables against migrations all that time.",
        hint="If the store was slow just now, a retry helps. Otherwise raise CLINIC_BACKUPS_THROTTLE_MB_S if it is set,"
        " or CLINIC_BACKUPS_READ_SECONDS: a migration, and everybody behind it, may then have to wait that long.",
    )


def _too_long(table: str, size: int, most: int) -> PermanentError:
    return PermanentError(
        f"A row of {table} has {size:,} bytes as CSV. At most {most:,} are allowed, because a worker needs up to"
        " five times that memory.",
        hint="Raise CLINIC_BACKUPS_MAX_ROW_MIB if the workers, and the machine that restores, have the memory: see"
        " docs/operations.md. Or keep such values outside the table.",
    )


class _Reader:
    """The first stage: gets single rows from COPY, and passes on batches."""

    def __init__(
        self, target: Rows, tables: int, on_progress: OnProgress, max_row_bytes: int, limit_speed: Callable[[int], None]
    ) -> None:
        self._target, self._tables, self._on_progress, self._limit_speed = target, tables, on_progress, limit_speed
        self._max_row_bytes = max_row_bytes
        self._rows = self._raw_bytes = 0

    def read(self, snapshot: Snapshot, tables: Mapping[str, Table], queries: Mapping[str, str]) -> None:
        for number, (name, table) in enumerate(tables.items(), start=1):
            self._report(name, number)
            self._target.put(table)
            self._read_table(snapshot, table, queries[name], number)

    def _read_table(self, snapshot: Snapshot, table: Table, query: str, number: int) -> None:
        batch: list[bytes] = []

        def take() -> Generator[None, bytes, None]:
            # A generator, because resuming one costs half as much as a call, which matters for a million rows.
            nonlocal batch
            while True:
                batch, size = [], 0
                while size < BATCH_BYTES:
                    row = yield
                    batch.append(row)
                    size += len(row)
                # Only the last row of a batch can be that long.
                if len(row) > self._max_row_bytes:
                    raise _too_long(table.name, len(row), self._max_row_bytes)
                hand_on(batch, size)

        def hand_on(rows: list[bytes], size: int) -> None:
            with snapshot.not_waiting():
                self._target.put(rows, size)
                self._limit_speed(size)
            self._rows += len(rows)
            self._raw_bytes += size
            self._report(table.name, number)

        taker = take()
        next(taker)
        snapshot.copy(table, query, taker.send)
        hand_on(batch, sum(map(len, batch)))

    def _report(self, table: str, number: int) -> None:
        self._on_progress(Progress(table, number, self._tables, self._rows, self._raw_bytes))


def _pack(
    writer: ArchiveWriter, source: Rows, clinic: Clinic, backup_id: str, outside: Mapping[str, Outside],
    parents: Collection[str], files: Mapping[str, bytes],
) -> Mapping[str, BlockList]:  # fmt: skip
    """The second stage: blocks, hashes, tar and zstd."""
    open_table = False
    while (item := source.get()) is not None:
        if isinstance(item, list):
            writer.add(item)
            continue
        if open_table:
            writer.end()
        rows = outside[item.name].rows if item.name in outside else 0
        writer.begin(item, outside=rows, is_parent=item.name in parents)
        open_table = True
    if open_table:
        writer.end()
    for name, data in files.items():
        writer.add_file(name, data)
    return writer.finish(clinic, backup_id)
