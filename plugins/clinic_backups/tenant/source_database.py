"""Identifies the database that a backup is read from, and compares it with the one of earlier backups.

A wrong connection, for instance to a copy for tests, gives a complete backup with wrong rows. So each record holds the
server's identity. If the database differs from that of the newest trusted backup, the new backup is full, and suspect
until somebody accepts it.
"""

from __future__ import annotations

from clinic_backups.base.text import one_line
from clinic_backups.tenant.tenant_db import Snapshot

_WHO = """
    SELECT has_function_privilege('pg_catalog.pg_control_system()', 'EXECUTE'), d.oid::bigint, d.datname
      FROM pg_database AS d WHERE d.datname = current_database()"""
_SYSTEM = "SELECT system_identifier::text FROM pg_control_system()"
UNKNOWN = "?"
"""Replaces the system identifier if the role may not read it."""


def identity_of(snapshot: Snapshot) -> str:
    """``system identifier/oid/name`` of the database; a failover and a restart change none of them.

    The name is one line of visible text, as envelopes require it.
    """
    ((may_ask, oid, name),) = snapshot.rows(_WHO, None, "asking which database this is")
    return f"{system_identifier(snapshot, may_ask=may_ask) or UNKNOWN}/{oid}/{one_line(name)[:63]}"


def system_identifier(snapshot: Snapshot, *, may_ask: bool) -> str | None:
    """The cluster's system identifier; none if the role may not execute ``pg_control_system()``."""
    if not may_ask:
        return None
    ((system,),) = snapshot.rows(_SYSTEM, None, "asking which server this is")
    return str(system)


def is_same(one: str | None, other: str | None) -> bool:
    """Whether both are known to be one database of one server, under any name, so that OIDs mean the same."""
    if one is None or other is None:
        return False
    (system, oid, _), (other_system, other_oid, _) = one.split("/", 2), other.split("/", 2)
    return system != UNKNOWN and (system, oid) == (other_system, other_oid)


def elsewhere(read_from: str | None, target: str) -> str:
    """A sentence about a backup that was read from another database than the target of its restore; empty if not."""
    if read_from is None or read_from == target or is_same(read_from, target) or not difference(read_from, target):
        return ""
    (system, _, name), (system_now, _, name_now) = read_from.split("/", 2), target.split("/", 2)
    where = "" if system == system_now else " on another server"
    again = " of today" if name == name_now and not where else ""
    return (
        f"The backup was read from another database than the one that the restore writes to: from"
        f" {one_line(name)[:100]}{where}, and it writes to {one_line(name_now)[:100]}{again}."
    )


def difference(before: str | None, now: str) -> str:
    """A sentence that says how the database ``now`` differs from ``before``.

    It is empty if both are the same database, or if that is unknown.
    """
    if before is None or before == now:
        return ""
    (system, oid, name), (system_now, oid_now, name_now) = before.split("/", 2), now.split("/", 2)
    if UNKNOWN in (system, system_now) and (oid, name) == (oid_now, name_now):
        return ""
    was, is_ = one_line(name)[:100], one_line(name_now)[:100]
    if system != system_now:
        return f"it was read from database {is_} on another server; the earlier backups are from database {was}"
    return f"it was read from database {is_}; the earlier backups are from another one of the same server, {was}"
