"""Constraints that rows of older backups do not meet, because a migration lies between them and the definition.

Such a constraint is taken away while rows are loaded, and made again over them, as far as PostgreSQL allows it.
"""

from __future__ import annotations

from typing import Any

from psycopg2 import sql

from clinic_backups.base.connections import Connection
from clinic_backups.base.database import qualified
from clinic_backups.base.database_errors import Refused, is_conflict, refusal_of
from clinic_backups.base.errors import PermanentError, TransientError
from clinic_backups.base.text import in_sql, quoted_table
from clinic_backups.recovery import notes
from clinic_backups.recovery.load import MIGRATED, OnDone, load
from clinic_backups.recovery.session import Session, Unfinished
from clinic_backups.restore.archives import Archives, Fetched
from clinic_backups.restore.leaving_out import Leaving

_CHECK, _NOT_NULL = "23514", "23502"
_MOST_DEADLOCKS = 20
_LOCK = 0x636C726F
_FAILED = (
    "Something that the definition calls fails over these rows, for instance a function in a domain or in a generated"
    " column. Run the same command with --allow-missing: it goes on without this unit, and says how to restore it"
    " afterwards. The PostgreSQL server's log has the whole message."
)
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
SELECT n.nspname || '.' || c.relname, false, k.conname, pg_get_constraintdef(k.oid),
       pg_get_expr(k.conbin, k.conrelid), obj_description(k.oid, 'pg_constraint')
  FROM above
  JOIN pg_constraint AS k ON k.conrelid = above.oid AND k.contype = 'c' AND k.coninhcount = 0
                         AND k.conname = %(name)s
  JOIN pg_class AS c ON c.oid = k.conrelid
  JOIN pg_namespace AS n ON n.oid = c.relnamespace
 ORDER BY above.depth DESC
"""  # noqa: S608
_CALLING = """
SELECT n.nspname || '.' || coalesce(c.relname, y.typname), k.contypid <> 0, k.conname, pg_get_constraintdef(k.oid),
       pg_get_expr(k.conbin, k.conrelid), obj_description(k.oid, 'pg_constraint')
  FROM pg_constraint AS k
  LEFT JOIN pg_class AS c ON c.oid = k.conrelid
  LEFT JOIN pg_type AS y ON y.oid = k.contypid
  JOIN pg_namespace AS n ON n.oid = coalesce(c.relnamespace, y.typnamespace)
 WHERE k.contype = 'c' AND k.coninhcount = 0
   AND EXISTS (SELECT FROM pg_depend AS d
                WHERE d.classid = 'pg_constraint'::regclass AND d.objid = k.oid AND d.refclassid = 'pg_proc'::regclass
                  AND d.refobjid >= 16384
                  AND NOT EXISTS (SELECT FROM pg_depend AS e WHERE e.classid = d.refclassid AND e.objid = d.refobjid
                                                               AND e.deptype = 'e'))
 ORDER BY 1, 3
"""
_DEPTH = f"""{_ABOVE}
SELECT max(depth) FROM above
"""  # noqa: S608
_IS_ALONE = """
SELECT c.relkind = 'r' FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
 WHERE n.nspname || '.' || c.relname = %(table)s
"""
_NOT_NULLS = f"""{_ABOVE}
SELECT n.nspname || '.' || c.relname
  FROM above
  JOIN pg_attribute AS a ON a.attrelid = above.oid AND a.attname = %(name)s AND a.attnotnull
  JOIN pg_class AS c ON c.oid = above.oid
  JOIN pg_namespace AS n ON n.oid = c.relnamespace
 ORDER BY above.depth DESC
 LIMIT 1
"""  # noqa: S608
ALSO = "Correct these rows, then run the last statement."


def load_as_far(
    target: Connection, archives: Archives, fetched: Fetched, *, note: OnDone, leaving: Leaving | None
) -> None:  # fmt: skip
    """Load a backup, without the constraints that its rows do not meet. See :func:`load`."""
    tried, deadlocks = set[Refused](), 0
    while True:
        try:
            load(target, archives, fetched, note=note, leaving=leaving)
            return
        except PermanentError as error:
            refused = refusal_of(error)
            if refused is None or not refused.state:
                raise
            if refused.state[:2] not in ("22", "23"):
                raise PermanentError(error.message, hint=_FAILED) from None
            # Another unit may have taken it away meanwhile.
            if not _named(refused) or (not _is_away(target, refused) and refused in tried):
                raise PermanentError(error.message, hint=MIGRATED) from None
            tried.add(refused)
        except TransientError as error:
            # Another unit took a constraint away from a table and its heirs. Nothing of this one is there.
            deadlocks += 1
            if not is_conflict(error) or deadlocks > _MOST_DEADLOCKS:
                raise


def _is_away(target: Connection, refused: Refused) -> bool:
    """:func:`take_away`, again after a deadlock with units that load rows into heirs of the table."""
    for _ in range(_MOST_DEADLOCKS):
        try:
            return take_away(target, refused)
        except TransientError as error:
            if not is_conflict(error):
                raise
    return take_away(target, refused)


def _named(refused: Refused) -> str | None:
    """The constraint or column that a row was refused for, if it can be taken away."""
    if not refused.schema or not refused.table:
        return None
    return {_CHECK: refused.constraint, _NOT_NULL: refused.column}.get(refused.state)


def take_away(target: Connection, refused: Refused) -> bool:
    """Take a constraint away, and note it in the same transaction. Returns whether it could be."""
    with Session(target) as session:
        _begin(session)
        name = str(_named(refused))
        values = {"schema": refused.schema, "table": refused.table, "name": name}
        doing = f"looking at {refused.named.removeprefix(': ')}"
        if refused.state == _CHECK:
            found = [_noted(row) for row in session.rows(_CHECKS, values, doing)]
        else:
            found = [{"table": table, "column": name} for (table,) in session.rows(_NOT_NULLS, values, doing)]
        # That of an identity stays, for instance.
        taken = sum(_is_taken(session, each, refused.state) for each in found)
        session.commit("taking a constraint away")
        return 0 < taken == len(found)


def take_away_calling(session: Session) -> int:
    """Take the CHECKs away that call functions of the application, in the session's transaction. Returns how many.

    Such a function may read other tables, which are not loaded yet, and may raise anything.
    """
    _begin(session)
    count = 0
    # If a parent and an heir define the same one, that of the heir can be taken away after the parent's.
    while found := [_noted(row) for row in session.rows(_CALLING, doing="looking for CHECKs that call functions")]:
        taken = sum(_is_taken(session, each, _CHECK) for each in found)
        count += taken
        if not taken:
            break
    return count


def _begin(session: Session) -> None:
    session.without_event_triggers()
    session.rows("SELECT pg_advisory_xact_lock(%(key)s)", {"key": _LOCK}, "waiting for another unit")


def _noted(row: tuple[Any, ...]) -> dict[str, Any]:
    table, is_domain, name, definition, expression, comment = row
    return {
        "table": table, "is_domain": is_domain, "constraint": name, "definition": definition,
        "expression": expression, "comment": comment,
    }  # fmt: skip


def _altered(each: dict[str, Any]) -> str:
    return f"ALTER {'DOMAIN' if each.get('is_domain') else 'TABLE'} {quoted_table(each['table'])}"


def _is_taken(session: Session, each: dict[str, Any], state: str) -> bool:
    name = each.get("constraint") or each["column"]
    what = f"DROP CONSTRAINT {in_sql(name)}" if "constraint" in each else f"ALTER {in_sql(name)} DROP NOT NULL"
    if session.refusal(f"{_altered(each)} {what}", "taking a constraint away") is not None:
        return False
    notes.note_step(session, f"{_NOTE}{state} {name} of {each['table']}", 0, each)
    return True


def make_not_nulls_again(session: Session) -> list[Unfinished]:
    """Make the NOT NULLs that were taken away, in the session's transaction: keys of partitioned tables need them.

    Names what does not hold for the rows.
    """
    return [left for each in _away(session) if "constraint" not in each for left in _not_null(session, each)]


def make_checks_again(session: Session) -> list[Unfinished]:
    """The same of the CHECKs: their functions may need indexes."""
    return [left for each in _away(session) if "constraint" in each for left in _check(session, each)]


def _away(session: Session) -> list[dict[str, Any]]:
    session.without_event_triggers()
    noted = [(name, each) for name, (_, each) in notes.steps(session).items() if name.startswith(_NOTE)]
    # A parent's comes down to its heirs. An heir's own one that is there before and NOT VALID would be in its way.
    noted.sort(key=lambda pair: (_depth(session, pair[1]["table"]), pair[0]))
    return [each for _, each in noted]


def _depth(session: Session, table: str) -> int:
    schema, _, name = table.partition(".")
    ((depth,),) = session.rows(_DEPTH, {"schema": schema, "table": name}, "looking at what a table inherits")
    return depth or 0


def _check(session: Session, each: dict[str, Any]) -> list[Unfinished]:
    altered, name, place = _altered(each), in_sql(each["constraint"]), each["table"]
    add = f"{altered} ADD CONSTRAINT {name} {each['definition']}"
    making = f"making {name} of {place}"
    comment = sql.SQL("COMMENT ON CONSTRAINT {} ON {}{} IS {}").format(
        sql.Identifier(each["constraint"]), sql.SQL("DOMAIN " if each.get("is_domain") else ""), qualified(place),
        sql.Literal(each["comment"]),
    )  # fmt: skip
    comments = session.text(comment) if each["comment"] else ""
    refused = session.refusal(add, making)
    if refused is not None and (again := session.refusal(f"{add} NOT VALID", making)) is not None:
        return [
            Unfinished(
                f"The constraint {name} of {place} could not be made again. {again.message}",
                f"{add};{comments and f' {comments};'}", is_problem=True,
            )
        ]  # fmt: skip
    if comments and session.refusal(comments, making) is not None:
        return [Unfinished(f"The comment on the constraint {name} of {place} was not made.", f"{comments};")]
    if refused is None:
        return []
    validate = f"{altered} VALIDATE CONSTRAINT {name};"
    if each.get("is_domain"):
        return [
            Unfinished(
                f"The constraint {name} of the domain {place} does not hold for all values that were restored, or its"
                f" function fails. It counts for new and changed values. {ALSO}", validate, is_problem=True,
            )
        ]  # fmt: skip
    # An heir has its own rows to answer for, if the constraint is not inherited.
    table = own_rows(session, place) if each["definition"].endswith(" NO INHERIT") else quoted_table(place)
    query = f"SELECT t.* FROM {table} AS t WHERE ({each['expression']}) IS FALSE"  # noqa: S608
    try:
        with session.savepoint():
            broken = f"does not hold for {_count(session, query)}"
    except PermanentError as error:
        broken = f"could not be proven, because it calls a function that fails ({error.message})"
    return [
        Unfinished(
            f"The constraint {name} of {place} {broken}. It was made by a migration after the backup of these rows, or"
            f" calls a function, and counts for new and changed rows. {ALSO}", f"{query};\n{validate}",
            is_problem=True,
        )
    ]  # fmt: skip


def _not_null(session: Session, each: dict[str, Any]) -> list[Unfinished]:
    table, column = quoted_table(each["table"]), in_sql(each["column"])
    add = f"ALTER TABLE {table} ALTER COLUMN {column} SET NOT NULL"
    refused = session.refusal(add, f"making {column} of {each['table']} NOT NULL")
    if refused is None:
        return []
    query = f"SELECT t.* FROM {table} AS t WHERE t.{column} IS NULL"  # noqa: S608
    return [
        Unfinished(
            f"The column {column} of {each['table']} is NULL in {_count(session, query)}, and the definition says NOT"
            f" NULL. A migration after the backup of these rows made it so. {ALSO}",
            f"{query};\n{add};",
            is_problem=True,
        )
    ]


def own_rows(session: Session, table: str) -> str:
    """The table in a FROM as its own constraints see it: without the rows of heirs."""
    found = session.rows(_IS_ALONE, {"table": table}, f"looking at {table}")
    return f"ONLY {quoted_table(table)}" if found and found[0][0] else quoted_table(table)


def _count(session: Session, query: str) -> str:
    ((count,),) = session.rows(f"SELECT count(*) FROM ({query}) AS r", doing="counting the rows")  # noqa: S608
    return shown_count(int(count))


def shown_count(count: int) -> str:
    """A number of rows, for people."""
    return f"{count:,} row{'' if count == 1 else 's'}"
