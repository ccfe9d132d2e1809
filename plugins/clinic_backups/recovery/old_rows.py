"""Constraints that rows of older backups do not meet, because a migration lies between them and the definition.

Such a constraint is taken away while rows are loaded, and made again over them, as far as PostgreSQL allows it.
"""

from __future__ import annotations

import re
from typing import Any

from psycopg2 import sql

from clinic_backups.base.connections import Connection
from clinic_backups.base.database import qualified
from clinic_backups.base.database_errors import Refused, refusal_of
from clinic_backups.base.errors import ClinicBackupsError, PermanentError
from clinic_backups.base.text import in_sql, quoted_table
from clinic_backups.recovery import notes
from clinic_backups.recovery.keys_in_dump import NAME, NAMES, names_in
from clinic_backups.recovery.load import MIGRATED, OnDone, load
from clinic_backups.recovery.session import Session, Unfinished
from clinic_backups.restore.archives import Archives, Fetched
from clinic_backups.restore.leaving_out import Leaving

_CHECK, _NOT_NULL = "23514", "23502"
_LOCK = 0x636C726F
_NOTE = "taken away while rows are loaded: "
_ABOVE = """
WITH RECURSIVE above (oid, depth) AS (
    SELECT c.oid, 0 FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
     WHERE n.nspname = %(schema)s AND c.relname = %(table)s
    UNION
    SELECT i.inhparent, above.depth + 1 FROM above JOIN pg_inherits AS i ON i.inhrelid = above.oid
)
"""
"""A table, and those that it is a part or an heir of: a constraint is changed where it was defined."""
_CHECKS = f"""{_ABOVE}
SELECT n.nspname || '.' || c.relname, pg_get_constraintdef(k.oid), pg_get_expr(k.conbin, k.conrelid),
       obj_description(k.oid, 'pg_constraint')
  FROM above
  JOIN pg_constraint AS k ON k.conrelid = above.oid AND k.contype = 'c' AND k.coninhcount = 0
                         AND k.conname = %(name)s
  JOIN pg_class AS c ON c.oid = k.conrelid
  JOIN pg_namespace AS n ON n.oid = c.relnamespace
 ORDER BY above.depth DESC
"""  # noqa: S608
_NOT_NULLS = f"""{_ABOVE}
SELECT n.nspname || '.' || c.relname
  FROM above
  JOIN pg_attribute AS a ON a.attrelid = above.oid AND a.attname = %(name)s AND a.attnotnull
  JOIN pg_class AS c ON c.oid = above.oid
  JOIN pg_namespace AS n ON n.oid = c.relnamespace
 ORDER BY above.depth DESC
 LIMIT 1
"""  # noqa: S608
_UNIQUE = re.compile(
    rf"ALTER TABLE (?:ONLY )?(?P<table>{NAME}\.{NAME})\s+ADD CONSTRAINT (?P<name>{NAME})"
    rf" (?:PRIMARY KEY|UNIQUE)(?P<alike> NULLS NOT DISTINCT)? \((?P<columns>{NAMES})\)"
)
_EXCLUDING = re.compile(rf"ALTER TABLE (?:ONLY )?(?P<table>{NAME}\.{NAME})\s+ADD CONSTRAINT (?P<name>{NAME}) EXCLUDE ")
_UNIQUE_INDEX = re.compile(rf"CREATE UNIQUE INDEX (?P<name>{NAME}) ON (?:ONLY )?(?P<table>{NAME}\.{NAME}) ")
_INDEX = """
SELECT ARRAY(SELECT pg_get_indexdef(indexrelid, place, true) FROM generate_series(1, indnkeyatts) AS place),
       pg_get_expr(indpred, indrelid), to_jsonb(i) ->> 'indnullsnotdistinct' = 'true'
  FROM pg_index AS i
 WHERE indexrelid = %(name)s::regclass
"""
_ALSO = "Correct these rows, then run the last statement."


def load_as_far(
    target: Connection, archives: Archives, fetched: Fetched, *, note: OnDone, leaving: Leaving | None
) -> None:  # fmt: skip
    """Load a backup, without the constraints that its rows do not meet. See :func:`load`."""
    tried = set[Refused]()
    while True:
        try:
            load(target, archives, fetched, note=note, leaving=leaving)
            return
        except PermanentError as error:
            refused = refusal_of(error)
            if refused is None or refused.state[:2] not in ("22", "23"):
                raise
            # Another unit may have taken it away meanwhile.
            if not _named(refused) or (not take_away(target, refused) and refused in tried):
                raise PermanentError(error.message, hint=MIGRATED) from None
            tried.add(refused)


def _named(refused: Refused) -> str | None:
    """The constraint or column that a row was refused for, if it can be taken away."""
    if not refused.schema or not refused.table:
        return None
    return {_CHECK: refused.constraint, _NOT_NULL: refused.column}.get(refused.state)


def take_away(target: Connection, refused: Refused) -> bool:
    """Take a constraint away, and note it in the same transaction. Returns whether it was still there."""
    with Session(target) as session:
        session.without_event_triggers()
        session.rows("SELECT pg_advisory_xact_lock(%(key)s)", {"key": _LOCK}, "waiting for another unit")
        name = str(_named(refused))
        values = {"schema": refused.schema, "table": refused.table, "name": name}
        doing = f"looking at {refused.named.removeprefix(': ')}"
        if refused.state == _CHECK:
            found = [
                {
                    "table": table,
                    "constraint": name,
                    "definition": definition,
                    "expression": expression,
                    "comment": said,
                }
                for table, definition, expression, said in session.rows(_CHECKS, values, doing)
            ]
            change = sql.SQL("ALTER TABLE {} DROP CONSTRAINT {}")
        else:
            found = [{"table": table, "column": name} for (table,) in session.rows(_NOT_NULLS, values, doing)]
            change = sql.SQL("ALTER TABLE {} ALTER COLUMN {} DROP NOT NULL")
        for each in found:
            session.run(change.format(qualified(each["table"]), sql.Identifier(name)), doing="taking a constraint away")
            notes.note_step(session, f"{_NOTE}{refused.state} {name} of {each['table']}", 0, each)
        session.commit("taking a constraint away")
        return bool(found)


def make_again(session: Session) -> list[Unfinished]:
    """Make again what was taken away, in the session's transaction. Names what does not hold for the rows."""
    session.without_event_triggers()
    left = list[Unfinished]()
    for name, (_, detail) in sorted(notes.steps(session).items()):
        if name.startswith(_NOTE):
            left += _check(session, detail) if "constraint" in detail else _not_null(session, detail)
    return left


def _check(session: Session, each: dict[str, Any]) -> list[Unfinished]:
    table, name = quoted_table(each["table"]), in_sql(each["constraint"])
    add = f"ALTER TABLE {table} ADD CONSTRAINT {name} {each['definition']}"
    holds = _is_made(session, add, _CHECK)
    if not holds:
        session.run(f"{add} NOT VALID", doing=f"making {name} of {each['table']}")
    if each["comment"]:
        session.run(
            sql.SQL("COMMENT ON CONSTRAINT {} ON {} IS {}").format(
                sql.Identifier(each["constraint"]), qualified(each["table"]), sql.Literal(each["comment"])
            ),
            doing=f"making {name} of {each['table']}",
        )
    if holds:
        return []
    query = f"SELECT t.* FROM {table} AS t WHERE ({each['expression']}) IS FALSE"  # noqa: S608
    return [
        Unfinished(
            f"The constraint {name} of {each['table']} does not hold for {_count(session, query)}. It was made by a"
            f" migration after the backup of these rows, and counts for new and changed rows. {_ALSO}",
            f"{query};\nALTER TABLE {table} VALIDATE CONSTRAINT {name};",
            is_problem=True,
        )
    ]


def _not_null(session: Session, each: dict[str, Any]) -> list[Unfinished]:
    table, column = quoted_table(each["table"]), in_sql(each["column"])
    add = f"ALTER TABLE {table} ALTER COLUMN {column} SET NOT NULL"
    if _is_made(session, add, _NOT_NULL):
        return []
    query = f"SELECT t.* FROM {table} AS t WHERE t.{column} IS NULL"  # noqa: S608
    return [
        Unfinished(
            f"The column {column} of {each['table']} is NULL in {_count(session, query)}, and the definition says NOT"
            f" NULL. A migration after the backup of these rows made it so. {_ALSO}",
            f"{query};\n{add};",
            is_problem=True,
        )
    ]


def not_unique(session: Session, statement: str) -> tuple[str | None, str]:
    """A sentence about a unique constraint or index that the rows do not meet, and the query that finds them."""
    if found := _UNIQUE.search(statement):
        columns = [f"t.{in_sql(each)}" for each in names_in(found["columns"])]
        predicate, alike, kind = None, bool(found["alike"]), "constraint"
    elif found := _UNIQUE_INDEX.search(statement):
        # PostgreSQL itself says which expressions such an index has: of one that is not unique.
        schema = found["table"].removesuffix(re.findall(NAME, found["table"])[1])
        session.run("SAVEPOINT probe", doing="looking at an index")
        session.run(statement.replace("CREATE UNIQUE INDEX", "CREATE INDEX", 1), doing="looking at an index")
        ((columns, predicate, alike),) = session.rows(_INDEX, {"name": f"{schema}{found['name']}"})
        session.run("ROLLBACK TO SAVEPOINT probe", doing="looking at an index")
        kind = "unique index"
    else:
        return None, ""
    table, what = found["table"], ", ".join(columns)
    conditions = [f"({predicate})"] if predicate else []
    conditions += [] if alike else [f"({each}) IS NOT NULL" for each in columns]
    where = f" WHERE {' AND '.join(conditions)}" if conditions else ""
    query = f"SELECT {what}, count(*) AS rows FROM {table} AS t{where} GROUP BY {what} HAVING count(*) > 1"  # noqa: S608
    ((count,),) = session.rows(
        f"SELECT coalesce(sum(r.rows), 0) FROM ({query}) AS r",  # noqa: S608
        doing=f"counting the rows that {found['name']} does not hold for",
    )
    return (
        f"The {kind} {found['name']} of {'.'.join(names_in(table))} was not made, because rows of several backups have"
        f" the same value: it does not hold for {_rows(int(count))}. {_ALSO}",
        f"{query};\n",
    )


def excluding(statement: str) -> str | None:
    """A sentence about an exclusion constraint that the rows do not meet."""
    found = _EXCLUDING.search(statement)
    return found and (
        f"The constraint {found['name']} of {'.'.join(names_in(found['table']))} was not made, because rows exclude"
        f" each other. {_ALSO}"
    )


def _is_made(session: Session, statement: str, state: str) -> bool:
    try:
        with session.savepoint():
            session.run(statement, doing="making a constraint again")
    except ClinicBackupsError as error:
        refused = refusal_of(error)
        if refused is None or refused.state != state:
            raise
        return False
    return True


def _count(session: Session, query: str) -> str:
    ((count,),) = session.rows(f"SELECT count(*) FROM ({query}) AS r", doing="counting the rows")  # noqa: S608
    return _rows(int(count))


def _rows(count: int) -> str:
    return f"{count:,} row{'' if count == 1 else 's'}"
