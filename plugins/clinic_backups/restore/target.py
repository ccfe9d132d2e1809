"""Identifies the database that a restore writes to, and compares it with the database that backups are read from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from clinic_backups.base.connections import Connection
from clinic_backups.base.errors import ClinicBackupsError, PermanentError, TransientError
from clinic_backups.restore.plan import Refusal, Target
from clinic_backups.tenant.source_database import system_identifier
from clinic_backups.tenant.tenant_db import Snapshot

# If pg_control_system() is denied, the server's start identifies it. The start also tells a copy of a server's files
# from the server itself, because both have the same system identifier.
_WHO = """
    SELECT current_database(), (SELECT oid::bigint FROM pg_database WHERE datname = current_database()),
           current_setting('server_version'), pg_is_in_recovery(),
           pg_postmaster_start_time()::timestamptz(6) AT TIME ZONE 'UTC',
           has_function_privilege('pg_catalog.pg_control_system()', 'EXECUTE'),
           has_function_privilege('pg_catalog.pg_control_checkpoint()', 'EXECUTE')"""
_TIMELINE_OF_PRIMARY = "SELECT ('x' || left(pg_walfile_name(pg_current_wal_lsn()), 8))::bit(32)::int"
_TIMELINE_OF_STANDBY = (
    "SELECT greatest((SELECT timeline_id FROM pg_control_checkpoint()),"
    " (SELECT min_recovery_end_timeline FROM pg_control_recovery()))"
)


SAY_SO = (
    "Correct the connection restore_db if that is not meant. If it is meant, say so:"
    ' clinic-backups restore --other-database, or {"other_database": true} in the conf of clinic_restore.'
)


class OtherDatabase(TransientError):
    """The connection leads to another database than the intended one."""


def ask(snapshot: Snapshot) -> Target:
    """Identify the server of an open connection.

    :raises ClinicBackupsError: it does not answer.
    """
    doing = "asking which server this is"
    ((name, oid, version, standby, started_at, may_system, may_checkpoint),) = snapshot.rows(_WHO, None, doing)
    system = system_identifier(snapshot, may_ask=may_system)
    timeline = None
    if not standby:
        ((timeline,),) = snapshot.rows(_TIMELINE_OF_PRIMARY, None, doing)
    elif may_checkpoint:
        ((timeline,),) = snapshot.rows(_TIMELINE_OF_STANDBY, None, doing)
    return Target(
        host=snapshot.host,
        port=snapshot.port,
        database=str(name),
        database_oid=int(oid),
        system=system,
        timeline=timeline,
        started_at=started_at.isoformat(),
        version=str(version),
        standby=bool(standby),
    )


def target_of(
    snapshot: Snapshot, clinic_db: Connection | None, *, other_database: bool, **timeouts: Any
) -> tuple[Target, tuple[Refusal, ...]]:
    """The database that an open connection would write to, and the refusals because of it.

    :param clinic_db: the database that backups are read from; none if it is not defined.
    :param other_database: somebody has said explicitly that another database is meant.
    :raises PermanentError: the server is a standby, where nothing can be written.
    """
    target = ask(snapshot)
    require_primary(target)
    difference = _difference(target, clinic_db, timeouts)
    target = replace(target, difference=difference, compared=clinic_db is not None)
    if not difference or other_database:
        return target, ()
    return target, (Refusal("", f"The restore would write to {target.name}. {difference}", SAY_SO),)


def of_another(said: str, *, is_undo: bool) -> Refusal:
    """The refusal of a backup that was read from another database, until somebody says that this is meant.

    :param said: how the two differ.
    :param is_undo: it is a safety backup.
    """
    return Refusal(
        "", f"This is the safety backup of a restore in another database. {said}" if is_undo else said, SAY_SO
    )


def require_primary(target: Target) -> None:
    """:raises PermanentError: it is a standby."""
    if target.standby:
        raise PermanentError(
            f"{target.name} is a standby: it only follows its primary, and nothing can be restored into it.",
            hint="Let the connection restore_db lead to the primary. After a failover, promote the standby first.",
        )


def same_server(one: Target, other: Target) -> bool:
    """Whether both are one primary that has run without a restart in between.

    Only then do their transaction numbers agree.

    A copy of a server's files, or the same files after a restart, continue to count transactions separately.
    """
    is_known_to_differ = one.system is not None and other.system is not None and one.system != other.system
    return (
        not (one.standby or other.standby or is_known_to_differ)
        and one.database_oid == other.database_oid
        and one.timeline == other.timeline
        and one.started_at == other.started_at
    )


def at_same_place(one: Target, other: Target) -> bool:
    """Whether both have the same address and may be one server, perhaps after a restart."""
    is_known_to_differ = one.system is not None and other.system is not None and one.system != other.system
    return (
        not is_known_to_differ
        and (one.host, one.port, one.database) == (other.host, other.port, other.database)
        and one.standby == other.standby
    )


def _difference(target: Target, clinic_db: Connection | None, timeouts: Mapping[str, Any]) -> str:
    """A sentence about how it differs from the database that backups are read from; empty if it is the same."""
    if clinic_db is None:
        return ""
    try:
        with Snapshot(clinic_db, **timeouts) as snapshot:
            source = ask(snapshot)
    except ClinicBackupsError as error:
        return (
            f"The database that backups are read from (connection clinic_db) could not be compared with it:"
            f" {error.message.rstrip('.')}."
        )
    return compare(source, target)


def compare(source: Target, target: Target) -> str:
    """How the restore's database differs from the one that backups are read from; empty if it is the same."""
    read_from = f"Backups are read from {source.name} (connection clinic_db)"
    if source.system is None or target.system is None:
        if same_server(source, target):
            return ""
        return f"{read_from}, and whether that is the same server cannot be told: pg_control_system() is denied."
    if source.system != target.system:
        return f"{read_from}, which is on another server."
    if source.database_oid != target.database_oid or source.database != target.database:
        return f"{read_from}, which is another database of the same server."
    if source.timeline is not None and source.timeline != target.timeline:
        return f"{read_from}, which is on timeline {source.timeline} and not on {target.timeline}."
    if source.standby:
        # A standby of a copy of the primary's files has the same identifier and timeline.
        return f"{read_from}, a standby, and whether it follows this server or another copy of it cannot be told."
    if source.started_at != target.started_at:
        return f"{read_from}, which is on a copy of the same server."
    return ""
