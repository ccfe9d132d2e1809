"""The last steps over the rows: materialized views, statistics, and how many rows there are."""

from __future__ import annotations

import re
from collections.abc import Iterable

from psycopg2 import sql

from clinic_backups.base.database import qualified
from clinic_backups.base.database_errors import refusal_of
from clinic_backups.base.errors import ClinicBackupsError, PermanentError
from clinic_backups.base.text import quoted_table
from clinic_backups.recovery import notes
from clinic_backups.recovery.keys_in_dump import NAME, names_in
from clinic_backups.recovery.notes import SCHEMA
from clinic_backups.recovery.session import Session, Unfinished

_EDGE = """
WITH RECURSIVE edge AS (
    SELECT DISTINCT r.ev_class AS view, d.refobjid AS needs
      FROM pg_rewrite AS r
      JOIN pg_depend AS d ON d.classid = 'pg_rewrite'::regclass AND d.objid = r.oid
                         AND d.refclassid = 'pg_class'::regclass AND d.refobjid <> r.ev_class
      JOIN pg_class AS c ON c.oid = d.refobjid AND c.relkind IN ('v', 'm')
"""
_VIEWS = f"""{_EDGE}), level (oid, depth) AS (
    SELECT oid, 0 FROM pg_class WHERE relkind IN ('v', 'm')
    UNION
    SELECT edge.view, level.depth + 1 FROM level JOIN edge ON edge.needs = level.oid
)
SELECT n.nspname || '.' || c.relname
  FROM level
  JOIN pg_class AS c ON c.oid = level.oid AND c.relkind = 'm'
  JOIN pg_namespace AS n ON n.oid = c.relnamespace
 GROUP BY n.nspname, c.relname
 ORDER BY max(level.depth), 1
"""  # noqa: S608
_OVER = f"""{_EDGE}), above (oid) AS (
    SELECT c.oid FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
     WHERE c.relkind IN ('v', 'm') AND n.nspname || '.' || c.relname = ANY (%(names)s)
    UNION
    SELECT edge.view FROM above JOIN edge ON edge.needs = above.oid
)
SELECT n.nspname || '.' || c.relname
  FROM above
  JOIN pg_class AS c ON c.oid = above.oid AND c.relkind = 'm'
  JOIN pg_namespace AS n ON n.oid = c.relnamespace
"""  # noqa: S608
_VIEW = re.compile(rf"CREATE (?:OR REPLACE )?(?:MATERIALIZED )?VIEW (?P<name>{NAME}\.{NAME})[ (]")
_TABLES = """
SELECT n.nspname || '.' || c.relname, c.relkind = 'm'
  FROM pg_class AS c
  JOIN pg_namespace AS n ON n.oid = c.relnamespace
 WHERE c.relkind IN ('r', 'p', 'm') AND c.relispopulated AND NOT c.relispartition AND c.relpersistence <> 't'
   AND n.nspname !~ '^pg_' AND n.nspname NOT IN ('information_schema', %(notes)s)
   AND NOT EXISTS (SELECT FROM pg_depend AS d
                    WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e')
 ORDER BY 1
"""


def refresh_views(session: Session, left: Iterable[str] = ()) -> list[Unfinished]:
    """Fill the materialized views, each after those that it reads. Commits each.

    :param left: statements that could not be run. Where one makes a view, pg_dump's placeholder stands: it gives a row
        of NULLs, so nothing is filled from it.
    """
    session.without_event_triggers()
    unmade = [".".join(names_in(found["name"])) for text in left if (found := _VIEW.search(text))]
    empty = {name for (name,) in session.rows(_OVER, {"names": unmade}, "looking for materialized views")}
    views = [name for (name,) in session.rows(_VIEWS, doing="looking for materialized views")]
    waiting = [name for name in views if name not in empty]
    failed = dict[str, str]()
    while waiting:
        failed = {}
        for name in waiting:
            try:
                with session.savepoint():
                    session.run(sql.SQL("REFRESH MATERIALIZED VIEW {}").format(qualified(name)), doing="filling views")
            except ClinicBackupsError as error:
                if refusal_of(error) is None:
                    raise
                failed[name] = error.message
            session.commit("filling materialized views")
        # A function may read a view that no dependency tells of.
        if len(failed) == len(waiting):
            break
        waiting = list(failed)
    for name in (name for name in views if name in empty):
        failed[name] = f"It reads a view that was not made: {', '.join(sorted(unmade))}. Make that one first."
    return [
        Unfinished(
            f"The materialized view {name} was not filled. {problem}",
            f"REFRESH MATERIALIZED VIEW {quoted_table(name)};",
            is_problem=True,
        )
        for name, problem in failed.items()
    ]


def tables(session: Session) -> dict[str, bool]:
    """All tables and materialized views but partitions, without those of extensions; and whether each is a view.

    Without views that could not be filled: they cannot be read.
    """
    return dict(session.rows(_TABLES, {"notes": SCHEMA}, "looking for tables"))


def analyze(session: Session, table: str) -> int:
    """Collect the statistics of a table, and count its rows."""
    session.run(sql.SQL("ANALYZE {}").format(qualified(table)), doing=f"collecting the statistics of {table}")
    ((count,),) = session.rows(sql.SQL("SELECT count(*) FROM {}").format(qualified(table)), doing=f"counting {table}")
    session.commit(f"collecting the statistics of {table}")
    return int(count)


def remove_notes(session: Session) -> list[Unfinished]:
    """Remove the notes of the recovery, in the session's transaction, which stays open: the report comes before.

    If the database refuses, this is part of the report.
    """
    session.without_event_triggers()
    try:
        notes.drop(session)
    except PermanentError as error:
        session.rollback()
        return [
            Unfinished(
                f"The schema {SCHEMA} with the notes of this recovery was not removed. {error.message}",
                f"DROP SCHEMA {SCHEMA} CASCADE;",
                is_problem=True,
            )
        ]
    return []
