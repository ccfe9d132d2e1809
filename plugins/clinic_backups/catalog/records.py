"""The records of backups: begin, complete or fail one, and what is decided about it afterwards."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from dataclasses import replace
from datetime import datetime
from typing import Any

from sqlalchemy import Connection as SqlConnection
from sqlalchemy import delete, func, select, text
from sqlalchemy.dialects.postgresql import insert

from clinic_backups.base.backup_record import BackupRecord, State
from clinic_backups.base.clinic_id import ClinicId
from clinic_backups.base.clock import DIFFERENCE_SECONDS, DatabaseClock, Now
from clinic_backups.base.connections import Connection
from clinic_backups.base.envelope import Envelope
from clinic_backups.base.errors import PermanentError, TransientError
from clinic_backups.base.kept_connections import KeptConnections
from clinic_backups.base.listening import nobody
from clinic_backups.base.plain import iso
from clinic_backups.catalog import migrate, replicas
from clinic_backups.catalog import record_statements as statements
from clinic_backups.catalog.catalog_database import CatalogDatabase, time_of
from clinic_backups.catalog.locks import ClinicLock, Purpose, lock_clinic
from clinic_backups.catalog.record_reader import RecordReader
from clinic_backups.catalog.row_mapping import record_of, values_of
from clinic_backups.catalog.tables import backup, backup_blocks, backup_replica, comparison

Announce = Callable[[SqlConnection, BackupRecord], object]


class SameSecond(TransientError):
    """This clinic has a backup of the same second, which has the same id."""


_OF_RESTORES = ("restore", "approval", "backup", "backup_blocks", "backup_replica", "notification", "audit")
"""The tables that a restore writes: itself, its approval, the safety backup, its mails, and who did it."""
_MAY_WRITE = text("""
    SELECT pg_is_in_recovery(), quote_ident(current_user),
           (SELECT coalesce(array_agg('clinic_backups.' || name ORDER BY name), '{}')
              FROM unnest(CAST(:tables AS text[])) AS name
             WHERE to_regclass('clinic_backups.' || name) IS NULL
                OR NOT (has_table_privilege('clinic_backups.' || name, 'SELECT')
                        AND has_table_privilege('clinic_backups.' || name, 'INSERT')
                        AND (name = 'audit' OR has_table_privilege('clinic_backups.' || name, 'UPDATE'))))""")


class Catalog(RecordReader):
    """The records of backups, from the first attempt to the deletion.

    All errors are this package's, without values of rows.

    :param connection: Airflow's connection ``backup_catalog``: a role that owns the schema ``clinic_backups``.
    :param clock_difference_seconds: the most that this machine's clock may differ from the database's.
    :param machine: this machine's clock.
    :param kept: opens the connections of the locks.
    :param connections: how many connections stay open for threads that use it at the same time.
    """

    def __init__(
        self,
        connection: Connection,
        *,
        clock_difference_seconds: float = DIFFERENCE_SECONDS,
        machine: Now | None = None,
        kept: KeptConnections | None = None,
        connections: int = 1,
    ) -> None:
        self._connection, self._kept = connection, kept
        database = CatalogDatabase(connection, pool_size=connections)
        super().__init__(
            database, DatabaseClock(self._ask_time, most_seconds=clock_difference_seconds, machine=machine)
        )

    def _ask_time(self) -> datetime:
        with self.database.statement("asking for the time") as db:
            return time_of(db)

    def beat(self) -> None:
        """Commit a transaction that changes nothing, so that a standby of this cluster has a commit to replay."""
        with self.database.statement("committing a sign of life") as db:
            db.execute(select(func.pg_current_xact_id()))

    def migrate(self) -> str:
        """Bring the schema to the newest version. Returns that version."""
        with self.database.transaction("migrating the catalog", source="migration") as db:
            return migrate.upgrade(db)

    def is_there(self) -> bool:
        """Whether the database has a catalog, of any version. :raises ClinicBackupsError: it does not answer."""
        with self.database.transaction("looking for the catalog") as db:
            return bool(db.scalar(text("SELECT to_regclass('clinic_backups.backup') IS NOT NULL")))

    def require_newest(self) -> None:
        """:raises PermanentError: the schema does not have the version that this package needs."""
        with self.database.transaction("reading the catalog's version") as db:
            migrate.require_newest(db)

    def require_writable(self) -> None:
        """:raises PermanentError: the catalog is a standby, or its role may not write a table that a restore writes."""
        with self.database.transaction("asking for the rights on the catalog") as db:
            standby, role, denied = db.execute(_MAY_WRITE, {"tables": list(_OF_RESTORES)}).one()
        if standby:
            raise PermanentError(
                "The catalog's server is a standby: no restore can be noted there.",
                hint="Let the connection backup_catalog lead to the primary.",
            )
        if denied:
            raise PermanentError(
                f"The role {role} of the catalog may not write {', '.join(denied)}.",
                hint=f"GRANT SELECT, INSERT, UPDATE ON {', '.join(denied)} TO {role};",
            )

    def lock(self, clinic_id: ClinicId, *purposes: Purpose) -> AbstractContextManager[ClinicLock]:
        """Lock this clinic for the given purposes, by default for backups and restores.

        :raises AlreadyRunning: another process works on it.
        """
        return lock_clinic(self._connection, clinic_id, *(purposes or ("clinic",)), clock=self.clock, kept=self._kept)

    def begin(self, record: BackupRecord) -> BackupRecord:
        """Write a running record. :raises SameSecond: this clinic has a backup of the same second."""
        with self.database.statement("recording a backup's start") as db:
            number = db.execute(statements.BEGIN, values_of(record)).scalar_one_or_none()
        if number is None:
            raise SameSecond(
                f"Backup {record.backup_id} exists already. A clinic can have only one backup per second.",
                hint="Try again in a second.",
            )
        return replace(record, number=number)

    def resume(self, clinic_id: ClinicId, run_id: str, started_at: datetime) -> BackupRecord | None:
        """Continue the unfinished record of an earlier attempt of the same run. ``None``: no attempt is unfinished."""
        values = {"of_clinic": clinic_id, "of_run": run_id, "new_start": started_at}
        with self.database.statement("continuing a backup's record") as db:
            row = db.execute(statements.RESUME, values).mappings().one_or_none()
        return record_of(row) if row else None

    def rekey(self, record: BackupRecord, archive_key: str) -> BackupRecord:
        """Give the archive of a running backup another key.

        :raises PermanentError: it is not running, or another attempt of it runs.
        """
        return self._change(record, "running", archive_key=archive_key, noted=None)

    def decided(self, record: BackupRecord) -> BackupRecord:
        """Record what is known of a running backup before its rows are read: all but what :meth:`begin` recorded."""
        begun = ("backup_id", "noted", "state", "attempt", "started_at", "run_id", "archive_key")
        values = {name: value for name, value in values_of(record).items() if name not in begun}
        return self._change(record, "running", **values)

    def note(self, record: BackupRecord, envelope: Envelope) -> BackupRecord:
        """Record the note of a running backup before its envelope is written, because anybody could forge an envelope.

        :raises PermanentError: somebody else has ended this attempt, or began another one.
        """
        statement = statements.of_attempt("noted")
        values = _new(record, {"noted": envelope.to_json()})
        with self.database.statement(f"recording the note of {record.backup_id}") as db:
            if not db.execute(statement, values).rowcount:
                raise PermanentError(
                    f"Backup {record.backup_id} is no longer running, or another attempt of it is.",
                    hint=f"The objects of this attempt are removed. See `clinic-backups show {record.backup_id}`.",
                )
        return replace(record, noted=envelope)

    def finish(
        self,
        record: BackupRecord,
        *,
        block_list: Iterable[bytes] = (),
        etag: str | None = None,
        announce: Announce = nobody,
        announce_losses: replicas.Announce = nobody,
    ) -> BackupRecord:
        """Write a completed or failed record. If its parent was lost meanwhile, the backup is lost at once.

        :param block_list: pieces of :func:`clinic_backups.archive.writer.block_list`.
        :param etag: the store's mark of the archive that was just checked, if it has one.
        :param announce: called in the same transaction, to write the mail about it into the outbox.
        :param announce_losses: called instead if the backup is lost.
        :raises PermanentError: there is no such running record, or another attempt has taken it over.
        """
        kept = ("backup_id",) if record.state == "completed" else ("backup_id", "noted")
        values = {name: value for name, value in values_of(record).items() if name not in kept}
        statement = statements.finishing(*values)
        with self.database.short_transaction(f"recording that backup {record.backup_id} {record.state}") as db:
            built_on = record.parent_id if record.state == "completed" else None
            if built_on is not None:
                replicas.lock_parent(db, built_on)
            row = db.execute(statement, _new(record, values) | {"of_parent": built_on}).one_or_none()
            if row is None:
                raise PermanentError(
                    f"The catalog has no running backup {record.backup_id}, or another attempt of it runs.",
                    hint="Another process ended, removed or continued it: see `clinic-backups show`.",
                )
            # Piece by piece, because in one statement the driver would keep several copies of the list.
            for part, digests in enumerate(block_list):
                db.execute(statements.ADD_BLOCKS, {"backup_id": record.backup_id, "part": part, "digests": digests})
            _note_stores(db, record, etag)
            is_built = built_on is None or row.parent_state == "completed"
            if not is_built and (losses := replicas.settle(db, [record.backup_id], record.stores[0])):
                announce_losses(db, losses)
                return replace(record, state="lost")
            announce(db, record)
        return record

    def adopt(self, record: BackupRecord, *, over: tuple[State, ...] = ()) -> bool:
        """Write a completed record that the catalog does not have; returns whether it was written.

        It keeps its number if no other backup has it.

        :param over: a record with the same id in one of these states is replaced.
        """
        values = values_of(record)
        with self.database.transaction(f"taking over backup {record.backup_id}") as db:
            new = bool(
                db.execute(
                    insert(backup)
                    .values(values | _own_number(db, record))
                    .on_conflict_do_update(index_elements=["backup_id"], set_=values, where=backup.c.state.in_(over))
                ).rowcount
            )
            if new:
                _note_stores(db, record)
        return new

    def mark_deleting(self, record: BackupRecord) -> BackupRecord:
        """Mark a record as deleting: from now on it is not a backup.

        :raises PermanentError: it is on hold, or not a backup.
        """
        return self._change(record, "completed", "lost", state="deleting")

    def mark_deleted(self, record: BackupRecord, *, also: Announce = nobody) -> BackupRecord:
        """Mark a record as deleted, because its objects are gone.

        Only its blocks and replicas are removed from the catalog.

        :param also: called in the same transaction.
        """

        def forget(db: SqlConnection, deleted: BackupRecord) -> None:
            for table in (backup_blocks, backup_replica):
                db.execute(delete(table).where(table.c.backup_id == deleted.backup_id))
            also(db, deleted)

        return self._change(
            record, "deleting", also=forget,
            state="deleted", deleted_at=record.deleted_at, deletion=list(record.deletion),
        )  # fmt: skip

    def hold(self, record: BackupRecord, reason: str, by: str, at: datetime | None = None) -> BackupRecord:
        """Keep it until it is released. Repeating the same hold changes nothing.

        :param at: the start of the hold, if known.
        :raises PermanentError: it is neither completed nor lost, or it is already on hold for another reason.
        """
        now = self.require(record.backup_id)
        values: dict[str, Any]
        if now.hold_reason is None:
            values = {"hold_reason": reason, "held_by": by, "held_at": at, "released_by": None, "released_at": None}
            return self._change(record, "completed", "lost", **values)
        if (now.hold_reason, now.held_by) == (reason, by):
            return now
        since = f" since {iso(now.held_at)}" if now.held_at else ""
        raise PermanentError(
            f"Backup {now.backup_id} is on hold already{since}, by {now.held_by}: {now.hold_reason}",
            hint="It stays on hold. To add another reason, release it and hold it again for both reasons.",
        )

    def release(self, record: BackupRecord, by: str, at: datetime) -> BackupRecord:
        """End its hold, so that retention may delete it again."""
        ended: dict[str, Any] = dict.fromkeys(("hold_reason", "held_by", "held_at"))
        return self._change(record, "completed", "lost", held=None, **ended, released_by=by, released_at=at)

    def accept(self, record: BackupRecord, by: str, at: datetime) -> BackupRecord:
        """Accept a suspect backup. Repeating it as the same person changes nothing.

        :raises PermanentError: it is neither completed nor lost, or not suspect, or somebody else accepted it.
        """
        now = self.require(record.backup_id)
        if now.suspect is None:
            raise PermanentError(
                f"Backup {now.backup_id} is not suspect.", hint="`clinic-backups list` shows the suspect ones."
            )
        if now.accepted_at is not None:
            if now.accepted_by == by:
                return now
            raise PermanentError(
                f"{now.accepted_by} already accepted backup {now.backup_id} at {iso(now.accepted_at)}.",
                hint="Nothing to do.",
            )
        return self._change(record, "completed", "lost", held=None, accepted_by=by, accepted_at=at)

    def note_lock(self, record: BackupRecord, until: datetime) -> BackupRecord:
        """Record that a store keeps it locked for longer than was requested."""
        return self._change(record, "completed", "lost", held=None, locked_until=until)

    def forget(self, *, before: datetime) -> int:
        """Remove records of backups that failed or were deleted before then; returns their number."""
        old = (
            delete(backup)
            .where(backup.c.state.in_(("failed", "deleted")), backup.c.finished_at < before)
            .where(func.coalesce(backup.c.deleted_at, backup.c.finished_at) < before)
            .where(backup.c.backup_id.not_in(select(backup.c.parent_id).where(backup.c.parent_id.is_not(None))))
        )
        with self.database.transaction("forgetting old records") as db:
            # The last one stays, whatever its age: the number of the next one follows from it.
            last = select(func.max(comparison.c.turn)).scalar_subquery()
            db.execute(delete(comparison).where(comparison.c.compared_at < before, comparison.c.turn < last))
            return int(db.execute(old).rowcount)

    def _change(
        self,
        record: BackupRecord,
        *was: State,
        held: bool | None = False,
        also: Announce = nobody,
        **values: object,
    ) -> BackupRecord:
        statement = statements.changing(tuple(values), was, held=held)
        begin = self.database.statement if also is nobody else self.database.transaction
        with begin(f"changing the record of {record.backup_id}") as db:
            row = db.execute(statement, _new(record, values)).mappings().one_or_none()
            if row is None:
                raise PermanentError(
                    f"Backup {record.backup_id} is not {' or '.join(was)}, or on hold, or another attempt of it runs.",
                    hint="See `clinic-backups show`.",
                )
            changed = record_of(row)
            also(db, changed)
        return changed


def _new(record: BackupRecord, values: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters of :func:`.record_statements.changing`."""
    return {"of": record.backup_id, "of_attempt": record.attempt} | {f"new_{n}": value for n, value in values.items()}


def _own_number(db: SqlConnection, record: BackupRecord) -> dict[str, int]:
    """The number of a backup from a lost catalog; none if it is unknown or taken."""
    if record.number is None:
        return {}
    db.execute(text("SELECT pg_advisory_xact_lock(hashtextextended('clinic_backups:numbers', 0))"))
    if db.execute(select(backup.c.id).where(backup.c.id == record.number)).first():
        return {}
    # Before the insert, so that a backup that begins meanwhile gets a higher number.
    raised = (
        "SELECT setval(s.oid, greatest(:number, pg_sequence_last_value(s.oid)))"
        " FROM (SELECT CAST('clinic_backups.backup_id_seq' AS regclass)) AS s (oid)"
    )
    db.execute(text(raised), {"number": record.number})
    return {"id": record.number}


def _note_stores(db: SqlConnection, record: BackupRecord, etag: str | None = None) -> None:
    """Record the stores only when a record is first written. Later the stores are checked one by one."""
    for url in record.stores:
        values = {"backup_id": record.backup_id, "store_url": url, "stored_at": record.finished_at, "etag": etag}
        db.execute(statements.ADD_STORE, values)
