"""The database that is recovered: it must be an empty one, on a primary that is new enough."""

from __future__ import annotations

import time
from collections.abc import Collection, Sequence

from psycopg2 import sql

from clinic_backups.base.database import qualified
from clinic_backups.base.errors import PermanentError, TransientError
from clinic_backups.recovery.session import Session

_SHOWN = 10
_WAITS = 300
_END = """
SELECT pg_terminate_backend(pid) FROM pg_stat_activity
 WHERE datname = current_database() AND pid <> pg_backend_pid() AND application_name = 'clinic-backups'
"""
_THERE = """
WITH made AS (
    SELECT oid, nspname FROM pg_namespace
     WHERE nspname !~ '^pg_' AND nspname <> 'information_schema'
), extension AS (
    SELECT classid, objid FROM pg_depend WHERE deptype = 'e'
)
SELECT what FROM (
    SELECT 'schema ' || nspname AS what FROM made
     WHERE nspname <> 'public' AND (%(catalog)s::regclass, oid) NOT IN (SELECT classid, objid FROM extension)
    UNION ALL
    SELECT CASE relkind WHEN 'r' THEN 'table ' WHEN 'p' THEN 'table ' WHEN 'v' THEN 'view ' WHEN 'S' THEN 'sequence '
                        ELSE 'relation ' END || nspname || '.' || relname
      FROM pg_class AS c JOIN made ON made.oid = c.relnamespace
     WHERE relkind IN ('r', 'p', 'v', 'm', 'S', 'f')
       AND ('pg_class'::regclass, c.oid) NOT IN (SELECT classid, objid FROM extension)
    UNION ALL
    SELECT 'function ' || nspname || '.' || proname
      FROM pg_proc AS p JOIN made ON made.oid = p.pronamespace
     WHERE ('pg_proc'::regclass, p.oid) NOT IN (SELECT classid, objid FROM extension)
    UNION ALL
    SELECT 'type ' || nspname || '.' || typname
      FROM pg_type AS t JOIN made ON made.oid = t.typnamespace
     WHERE typtype IN ('e', 'd', 'r') AND ('pg_type'::regclass, t.oid) NOT IN (SELECT classid, objid FROM extension)
) AS found
 ORDER BY 1
"""

_OF_EXTENSIONS = """
SELECT n.nspname || '.' || c.relname
  FROM pg_class AS c
  JOIN pg_namespace AS n ON n.oid = c.relnamespace
  JOIN pg_depend AS d ON d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e'
 WHERE c.relkind IN ('r', 'p') AND n.nspname || '.' || c.relname = ANY (%(names)s)
"""


def require_primary(session: Session) -> int:
    """The server's major version. :raises PermanentError: it is a standby."""
    ((standby, version),) = session.rows("SELECT pg_is_in_recovery(), current_setting('server_version_num')::int")
    if standby:
        raise PermanentError(
            "The target is a standby, which cannot be written to.", hint="Give the connection of a primary."
        )
    return int(version) // 10_000


def end_leftovers(session: Session) -> None:
    """End the sessions of a killed run, such as those of its pg_restore. The lock says that no other run is alive."""
    for _ in range(_WAITS):
        left = session.rows(_END, doing="ending the sessions of an interrupted run")
        session.commit("ending the sessions of an interrupted run")  # the list of sessions lasts for a transaction
        if not left:
            return
        time.sleep(0.1)
    raise TransientError(
        f"{len(left)} sessions of an interrupted run do not end.",
        hint="pg_stat_activity shows them, with application_name clinic-backups. End them, and try again.",
    )


def require_version(version: int, described: int) -> None:
    """:raises PermanentError: the target is older than the database that was backed up."""
    if version < described:
        raise PermanentError(
            f"The target is PostgreSQL {version}, and the database that was backed up was PostgreSQL {described}.",
            hint=f"Recover into PostgreSQL {described} or newer.",
        )


def require_empty(session: Session) -> None:
    """:raises PermanentError: something is in the database; names it. What extensions made does not count."""
    found = [what for (what,) in session.rows(_THERE, {"catalog": "pg_namespace"}, "looking what is in the target")]
    if found:
        more = f" and {len(found) - _SHOWN} more" if found[_SHOWN:] else ""
        raise PermanentError(
            f"The database {session.database()} is not empty. It has: {', '.join(found[:_SHOWN])}{more}.",
            hint="Nothing was changed. Recover into a new database: CREATE DATABASE … TEMPLATE template0. A recovery"
            " that can go on has notes here, in the schema clinic_backups_recovery. It removes them after its report.",
        )


def require_tables(session: Session, wanted: Collection[str], failed: Sequence[str]) -> None:
    """:raises PermanentError: the definition of the database has not made a table whose rows are in the backups.

    :param failed: what was not made, as sentences.
    """
    there = {
        name
        for (name,) in session.rows(
            "SELECT n.nspname || '.' || c.relname FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace"
            " WHERE c.relkind IN ('r', 'p')"
        )
    }
    if lacking := sorted(set(wanted) - there):
        raise PermanentError(
            f"The definition of the database did not make {len(lacking)} tables whose rows are in the backups:"
            f" {', '.join(lacking[:_SHOWN])}.",
            *failed[:_SHOWN],
            hint="Nothing was changed. If an extension is missing on the target's server, install it. If a migration"
            " dropped the table after some of the clinics were backed up, --allow-missing recovers the others.",
        )


def empty_tables_of_extensions(session: Session, names: Collection[str]) -> None:
    """Delete the rows that extensions have made themselves, from the tables whose rows are in the backups.

    ``CREATE EXTENSION`` fills its table, such as PostGIS's ``spatial_ref_sys``. All its rows are in the backup, too.
    """
    for (name,) in session.rows(_OF_EXTENSIONS, {"names": list(names)}, "looking for tables of extensions"):
        session.run(sql.SQL("DELETE FROM {}").format(qualified(name)), doing=f"emptying {name}")
