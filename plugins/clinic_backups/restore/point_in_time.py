"""Reads a clinic from a copy of the database as it was at an earlier moment, as a backup that a restore can use.

The copy is a server that was recovered to a point in time: by the provider, by pgBackRest, or as a standby whose replay
was paused. See docs/point-in-time.md and docs/decisions/0038-a-point-in-time.md.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence, Set
from contextlib import ExitStack
from datetime import datetime

from clinic_backups.backup.backup import ClinicBackup
from clinic_backups.base.backup_record import BackupRecord
from clinic_backups.base.backup_request import BackupRequest
from clinic_backups.base.clinic import Clinic
from clinic_backups.base.clinic_id import ClinicId
from clinic_backups.base.connections import Connection
from clinic_backups.base.database_errors import refusal_of
from clinic_backups.base.errors import ClinicBackupsError, PermanentError, SettingsError
from clinic_backups.base.listening import NOBODY, Listener
from clinic_backups.base.plain import iso
from clinic_backups.base.settings import Settings
from clinic_backups.base.shared_unit import is_shared, shared_clinic
from clinic_backups.restore.request import RestoreRequest
from clinic_backups.restore.target import SAY_SO, ask
from clinic_backups.tenant import people
from clinic_backups.tenant.data_time import AskTime, DataTime
from clinic_backups.tenant.drift import Drift
from clinic_backups.tenant.extract import SqlExtract, SqlFolder
from clinic_backups.tenant.source_database import elsewhere, identity_of
from clinic_backups.tenant.tenant_db import Snapshot

# "not paused" and "pause requested" are the others.
_REPLAY = (
    "SELECT CASE WHEN pg_is_in_recovery() THEN pg_get_wal_replay_pause_state() = 'paused' ELSE true END,"
    " pg_last_xact_replay_timestamp(), clock_timestamp()"
)
_LATER = """
    SELECT name FROM unnest(%(names)s::text[]) AS name
     WHERE NOT EXISTS (SELECT FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
                        WHERE n.nspname || '.' || c.relname = name)"""
_NUMBERS = """
    SELECT c.oid::bigint FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
     WHERE n.nspname || '.' || c.relname = ANY (%(names)s::text[]) AND c.relkind IN ('r', 'p')"""
_NAMES = """
    SELECT n.nspname || '.' || c.relname FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
     WHERE c.oid::bigint = ANY (%(numbers)s::bigint[]) AND c.relkind IN ('r', 'p')"""
_DOING = "looking for the tables"
_HOLD = "SELECT pg_advisory_xact_lock(%(key)s)"
_TRY = "SELECT pg_try_advisory_xact_lock(%(key)s)"

UNDEFINED = ("42P01", "42703")
"""SQLSTATE of a table and of a column that does not exist."""

MakeBackup = Callable[[Connection, AskTime], ClinicBackup]


class PointInTime:
    """Backs up clinics from such a copy.

    :param settings: with the SQL folder of that time.
    :param backup: makes the backups that read a connection, and ask its time.
    :param connection_of: a connection by its name. Without one it raises.
    :param productive: the connections to databases of the present.
    """

    def __init__(
        self,
        *,
        settings: Settings,
        backup: MakeBackup,
        connection_of: Callable[[str], Connection],
        productive: Sequence[Connection],
        listener: Listener = NOBODY,
    ) -> None:
        self._settings, self._backup, self._connection_of = settings, backup, connection_of
        self._productive, self._listener = productive, listener

    def take(self, request: RestoreRequest) -> BackupRecord:
        """Back up the clinic of a request from its ``from_connection``.

        :raises SettingsError: that is no connection to a point in time.
        :raises PermanentError: it leads to a database of the present, its time is not known, or the clinic was not in
            it.
        :raises ClinicBackupsError: see :meth:`ClinicBackup.run`.
        """
        name = request.from_connection or ""
        known = self._settings.point_in_time_connections
        if name not in known:
            raise SettingsError(
                f"{name[:80]!r} is not named as a connection to a point in time.",
                hint=f"Use one of {', '.join(known)}, or add it to CLINIC_BACKUPS_POINT_IN_TIME_CONNECTIONS.",
            )
        connection = self._connection_of(name)
        self._listener.step(f"reading the clinic from {name}")
        try:
            return self._take(name, connection, request)
        except SettingsError:
            raise
        except PermanentError as error:
            raise _from(name, error) from None

    def _take(self, name: str, connection: Connection, request: RestoreRequest) -> BackupRecord:
        clinic = self._clinic(connection, request.clinic_id)
        backup = self._backup(connection, self._asking(name, request))
        queries = None if is_shared(clinic.id) else self._queries(connection, clinic.id)
        return backup.run(
            BackupRequest(
                clinic, kind="full", requested_by=request.requested_by, notes=request.notes, read_from=name,
                # Its extracts are those of today. The record says what is missing, and so does the plan.
                allow_gaps=True,
            ),
            queries=queries,
        )  # fmt: skip

    def _queries(self, connection: Connection, clinic_id: ClinicId) -> dict[str, str]:
        """The extracts of the tables that were there at that time. A restore leaves the others as they are.

        :raises PermanentError: one was there under another name.
        """
        folder = SqlFolder(self._settings.sql_dir)
        queries = SqlExtract().rendered(folder, clinic_id)
        with Snapshot(connection, **self._settings.timeouts) as snapshot:
            later = {name for (name,) in snapshot.rows(_LATER, {"names": list(queries)}, _DOING)}
            if later:
                self._require_not_renamed(snapshot, later, folder.drift())
        return {name: query for name, query in queries.items() if name not in later}

    def _require_not_renamed(self, snapshot: Snapshot, names: Set[str], drift: Drift) -> None:
        """A missing name alone does not prove that the table came later.

        A line of ``drift.txt`` names the older name. And in a copy of the server's files, a table has the number that
        it has in the present database.
        """
        olds = {old for old, _ in drift.tables if names & set(drift.path(old))}
        gone = {name for (name,) in snapshot.rows(_LATER, {"names": sorted(olds)}, _DOING)}
        found = olds - gone
        server = ask(snapshot)
        for other in self._productive:
            if other.conn_id != "restore_db" or server.system is None:
                continue
            with Snapshot(other, **self._settings.timeouts) as present:
                there = ask(present)
                if (there.system, there.database_oid) == (server.system, server.database_oid):
                    numbers = [number for (number,) in present.rows(_NUMBERS, {"names": sorted(names)}, _DOING)]
                    found |= {name for (name,) in snapshot.rows(_NAMES, {"numbers": numbers}, _DOING)}
        if found:
            raise PermanentError(
                f"Tables had other names at that time: {', '.join(sorted(found))}.",
                hint="Let CLINIC_BACKUPS_POINT_IN_TIME_SQL_DIR name a folder with the SQL of then, for instance from"
                " the history of your project, and write the new names into drift.txt: see docs/restoring.md.",
            )

    def _clinic(self, connection: Connection, clinic_id: ClinicId) -> Clinic:
        if is_shared(clinic_id):
            return shared_clinic(self._settings.operator_language)
        folder, trusted = SqlFolder(self._settings.sql_dir), self._settings.trusted_owners
        found = {clinic.id: clinic for clinic in people.clinics(connection, folder, trusted_owners=trusted).every}
        if clinic_id not in found:
            raise PermanentError(
                f"Clinic {clinic_id} is not in the database of {connection.conn_id}: it was not there at that time.",
                hint="Recover the database to another time. Nothing was changed.",
            )
        return found[clinic_id]

    def _asking(self, name: str, request: RestoreRequest) -> AskTime:
        said = request.as_of

        def asked(snapshot: Snapshot, started_at: datetime) -> DataTime:
            for other in self._productive:
                _require_another(snapshot, name, other, may_be_elsewhere=request.other_database)
            server = ask(snapshot)
            timeline = f", timeline {server.timeline}" if server.timeline is not None else ""
            moment, how = _moment(snapshot, name, said, started_at)
            return DataTime(moment, moment, f"{name} ({server.name}{timeline}){how}")

        return asked


def _from(name: str, error: PermanentError) -> PermanentError:
    """The same error, and where it comes from: the remedies are about this connection, and not about clinic_db."""
    refused = refusal_of(error)
    if refused is not None and refused.state in UNDEFINED:
        hint = (
            "The tables were others at that time. Let CLINIC_BACKUPS_POINT_IN_TIME_SQL_DIR name a folder with the SQL"
            " of then, for instance from the history of your project. Renamed tables and columns: see drift.txt in"
            " docs/restoring.md."
        )
    else:
        hint = (error.hint or "").replace("connection clinic_db", f"connection {name}")
    return PermanentError(
        f"The clinic cannot be read from {name}: {error.message}", hint=f"{hint} Nothing was changed."
    )


def _moment(snapshot: Snapshot, name: str, said: datetime | None, started_at: datetime) -> tuple[datetime, str]:
    """The time of the rows, and a remark about it. :param said: the time that somebody gave."""
    ((is_still, replayed_at, now),) = snapshot.rows(_REPLAY, None, "asking for the data's time")
    if not is_still:
        raise PermanentError(
            f"The server of {name} is a standby that goes on following its primary, so its rows are of no fixed time.",
            hint="Pause it there: SELECT pg_wal_replay_pause(). Or recover it with a recovery_target_time.",
        )
    if said is not None and said > min(started_at, now):
        raise SettingsError(f"as_of: {iso(said)} is in the future.", hint="Give the time that it was recovered to.")
    if replayed_at is None:
        if said is None:
            raise PermanentError(
                f"The server of {name} does not know to which time it was recovered: it has been restarted since, or it"
                " is a copy that was made in another way.",
                hint="Give that time with --as-of, or as_of in the conf.",
            )
        return said, "; the server does not know its time, which was given with the request"
    if said is not None and replayed_at > said:
        raise PermanentError(
            f"{name} has rows that are newer than {iso(said)}: its last transaction is of {iso(replayed_at)}.",
            hint="Recover it to that time, or give no as_of. Nothing was changed.",
        )
    return replayed_at, "" if said is None else f", recovered to {iso(said)}"


def _require_another(snapshot: Snapshot, name: str, other: Connection, *, may_be_elsewhere: bool) -> None:
    """Refuse the database that is restored, or backed up, itself.

    A copy has the system identifier, the OIDs and perhaps the timeline of its original, and an address may lead
    anywhere. A lock that one session holds and another one sees is a proof.

    :raises PermanentError: both connections lead to one database.
    """
    key = {"key": secrets.randbits(62)}
    with ExitStack() as held:
        try:
            present = held.enter_context(Snapshot(other))
            present.rows(_HOLD, key, "taking a lock")
            identity = identity_of(present)
        except ClinicBackupsError as error:
            # A server that refuses us is there, and may be the one that was just reached.
            if other.conn_id == "restore_db" or "FATAL" in error.message:
                raise
            return  # a database that cannot be reached is not the one that was just reached
        ((is_free,),) = snapshot.rows(_TRY, key, "looking for a lock")
    # Asked before a row is read: another server's clinic of this id may be somebody else's.
    said = elsewhere(identity_of(snapshot), identity) if other.conn_id == "restore_db" else ""
    if said and not may_be_elsewhere:
        raise PermanentError(said, hint=SAY_SO)
    if not is_free:
        raise PermanentError(
            f"{name} leads to the same database as {other.conn_id}: it is the present one, and no earlier time.",
            hint=f"Correct the connection {name}. Nothing was changed.",
        )
