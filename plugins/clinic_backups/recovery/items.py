"""Makes single items of a definition, and says what an item that cannot be made means for the rows."""

from __future__ import annotations

import re
from collections.abc import Collection
from contextlib import suppress
from dataclasses import replace

from clinic_backups.base.database_errors import refusal_of
from clinic_backups.base.errors import PermanentError
from clinic_backups.base.text import in_sql, quoted_table
from clinic_backups.recovery import uniqueness
from clinic_backups.recovery.dump_text import Item
from clinic_backups.recovery.keys_in_dump import NAME, names_in
from clinic_backups.recovery.session import Session, Unfinished

_EVERYWHERE = ("42P06", "42710")
"""SQLSTATEs of schemas and objects that a new database has already, or an extension has made."""
_THERE = ("42P07", "42710")
"""SQLSTATEs of indexes and constraints that an interrupted run has made, or the other sessions of this one."""
_SECOND_KEY = "42P16"
"""The table has a primary key already. But many other definitions that are not valid have it, too."""
_CONSTRAINT = re.compile(rf"ALTER TABLE (?:ONLY )?(?P<table>{NAME}\.{NAME})\s+ADD CONSTRAINT (?P<name>{NAME}) ")
_IS_THERE = """
SELECT FROM pg_constraint AS k JOIN pg_class AS c ON c.oid = k.conrelid JOIN pg_namespace AS n ON n.oid = c.relnamespace
 WHERE n.nspname = %(schema)s AND c.relname = %(table)s AND k.conname = %(name)s
"""
_NOT_UNIQUE = "23505"
_EXCLUDED = "23P01"
_FOREIGN_KEY_BROKEN = "23503"
_SQL_SHOWN = 8000
_RIGHTS = ("ACL", "DEFAULT ACL", "COMMENT", "")
"""Items without which every row and constraint is there."""


def undumped_item(statement: str) -> Item:
    """An item that pg_dump could not write."""
    if statement.startswith(("GRANT ", "REVOKE ")) or " OWNER TO " in statement:
        return Item("ACL", statement)
    return Item("TABLE" if statement.startswith("CREATE ") else "CONSTRAINT", statement)


def made(session: Session, item: Item, left: list[Unfinished]) -> list[Item]:
    """Make an item inside the transaction. Returns it if it failed. An owner that cannot be set is left to a person."""
    code = _tried(session, item.sql)
    if code is not None and code not in _EVERYWHERE:
        return [item]
    left += others(session, item.owners)
    return []


def others(session: Session, statements: Collection[str]) -> list[Unfinished]:
    """Run statements that may fail alone."""
    return [
        Unfinished("An owner or a right was not set: a role is missing, or this role may not set it.", statement)
        for statement in statements
        if _tried(session, statement) is not None
    ]


def _tried(session: Session, statements: str) -> str | None:
    """None, or the SQLSTATE with which they failed."""
    error = session.refusal(statements, "making the definitions") if statements else None
    refused = refusal_of(error) if error is not None else None
    return refused.state if refused is not None else None


def made_after_all(session: Session, item: Item) -> list[Unfinished]:
    """Try an item that failed among the others once more. Its transaction is its own."""
    left = list[Unfinished]()
    code = _tried(session, item.sql)
    if code == _FOREIGN_KEY_BROKEN and item.kind == "FK CONSTRAINT":
        code = _tried(session, item.sql.rstrip().removesuffix(";").rstrip() + " NOT VALID;")
    if code is not None and code not in _THERE and not (code == _SECOND_KEY and _has_constraint(session, item)):
        left.append(_unmet(session, item, code))
    else:
        left += others(session, item.owners)
    session.commit("making indexes and constraints")
    return left


def _has_constraint(session: Session, item: Item) -> bool:
    found = _CONSTRAINT.search(item.sql)
    if found is None:
        return False
    (schema, table), (name,) = names_in(found["table"]), names_in(found["name"])
    return bool(session.rows(_IS_THERE, {"schema": schema, "table": table, "name": name}))


def loose(session: Session, table: str, name: str, query: str) -> Unfinished:
    """A foreign key that does not hold. :param query: finds its rows."""
    ((rows,),) = session.rows(f"SELECT count(*) FROM ({query}) AS r", doing=f"counting what {name} refers to")  # noqa: S608
    return Unfinished(
        f"The foreign key {in_sql(name)} of {table} does not hold for {rows:,} rows: what they refer to is in no backup"
        " that was restored. It counts for new rows.",
        f"{query}; ALTER TABLE {quoted_table(table)} VALIDATE CONSTRAINT {in_sql(name)};",
    )


def _unmet(session: Session, item: Item, code: str) -> Unfinished:
    """An item that was not made. If the rows do not meet it, it is named with its table and their number."""
    left, said, query = unfinished(item, code), None, ""
    if code == _NOT_UNIQUE:
        with suppress(PermanentError), session.savepoint():
            said, query = uniqueness.not_unique(session, item.sql)
    elif code == _EXCLUDED:
        said = uniqueness.excluding(item.sql)
    return left if said is None else replace(left, what=said, sql=f"{query}{left.sql}")


def unfinished(item: Item, code: str = "") -> Unfinished:
    """An item that was not made. :param code: the SQLSTATE."""
    lines = [line for line in item.sql.split("\n") if line.strip() and not line.startswith(("--", "SET default_"))]
    why = f" (SQLSTATE {code})" if code else ""
    if code == _NOT_UNIQUE:
        why = ", because rows of several backups have the same value"
    statements = "\n".join([*lines, *item.owners])
    # The sentence is in certificates. A text may be a password, as in the CONNECTION of a subscription.
    shown = lines[0].partition("'")[0][:100].rstrip() if lines else ""
    return Unfinished(
        f"A part of the definition ({item.kind or 'SET'}) was not made{why}: {shown}",
        statements[:_SQL_SHOWN],
        is_problem=item.kind not in _RIGHTS,
        kind=item.kind,
    )
