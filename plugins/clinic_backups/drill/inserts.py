"""Tries one INSERT into every table, and takes it back: keys that would be given out twice show here.

New keys are taken from the columns' defaults, as the application does. Everything else is copied from a row.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from psycopg2 import sql

from clinic_backups.base.connections import Connection
from clinic_backups.base.database import qualified
from clinic_backups.base.database_errors import refusal_of
from clinic_backups.base.errors import ClinicBackupsError
from clinic_backups.base.text import quoted_table
from clinic_backups.drill.certificate import Check
from clinic_backups.recovery.session import Session

UNIQUE, MOST_INDEXES, SHOWN = "23505", 50, 5
_TYPE_OF = re.compile(r"::[\w .\"]+\([\d, ]+\)")
_CALL = re.compile(r"[\w\"]\(")
_TABLES = """
SELECT n.nspname || '.' || c.relname,
       array_agg(a.attname::text ORDER BY a.attnum) FILTER (WHERE a.attgenerated = ''),
       coalesce(array_agg(a.attname::text ORDER BY a.attnum)
                FILTER (WHERE a.attidentity <> '' AND a.attgenerated = ''), '{}'),
       coalesce(jsonb_object_agg(a.attname, pg_get_expr(d.adbin, d.adrelid))
                FILTER (WHERE d.adbin IS NOT NULL AND a.attgenerated = ''), '{}'),
       EXISTS (SELECT FROM pg_trigger AS g WHERE g.tgrelid = c.oid AND NOT g.tgisinternal AND g.tgenabled <> 'D'
                  AND g.tgtype & 1 <> 0 AND g.tgtype & 2 <> 0 AND g.tgtype & 4 <> 0)
  FROM pg_class AS c
  JOIN pg_namespace AS n ON n.oid = c.relnamespace
  JOIN pg_attribute AS a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
  LEFT JOIN pg_attrdef AS d ON d.adrelid = c.oid AND d.adnum = a.attnum
 WHERE c.relkind IN ('r', 'p') AND NOT c.relispartition AND c.relpersistence <> 't'
   AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
   AND NOT EXISTS (SELECT FROM pg_depend AS e
                    WHERE e.classid = 'pg_class'::regclass AND e.objid = c.oid AND e.deptype = 'e')
 GROUP BY c.oid, 1 ORDER BY 1
"""
# tgtype: 1 for each row, 2 before, 4 on INSERT (src/include/catalog/pg_trigger.h)
_INDEX = """
SELECT i.indexrelid::regclass::text, k.conname,
       ARRAY(SELECT a.attname::text FROM pg_attribute AS a
              WHERE a.attrelid = i.indrelid AND a.attnum = ANY (i.indkey::int2[]))
  FROM pg_index AS i
  JOIN pg_class AS x ON x.oid = i.indexrelid
  LEFT JOIN pg_constraint AS k ON k.conindid = i.indexrelid AND k.contype IN ('p', 'u')
 WHERE i.indrelid = %(table)s::regclass AND x.relname = %(name)s
"""


@dataclass
class Tried:
    """What became of the INSERTs, by table.

    :param failed: tables whose default gives a key that a row has already.
    :param not_possible: tables that refuse a copy of a row for another reason, which no new row need have.
    """

    passed: int = 0
    empty: int = 0
    failed: list[str] = field(default_factory=list)
    not_possible: list[str] = field(default_factory=list)

    def check(self) -> Check:
        """As a check of the certificate."""
        detail = f"{self.passed} tables take a new row, {self.empty} are empty"
        if self.not_possible:
            more = " …" if self.not_possible[SHOWN:] else ""
            detail += f", {len(self.not_possible)} not possible ({', '.join(self.not_possible[:SHOWN])}{more})"
        if self.failed:
            return Check("inserts", "failed", "; ".join(self.failed[:SHOWN]) + f". {detail}.")
        return Check("inserts", "passed", f"{detail}.")


def try_inserts(target: Connection, *, are_behind: bool = False) -> Tried:
    """Insert one row into every table that has one, and roll it back.

    :param are_behind: the positions of sequences are older than rows. Then a key that is given out twice proves
        nothing about the clinics' database.
    """
    tried = Tried()
    with Session(target) as session:
        tables = session.rows(_TABLES, doing="looking for tables")
        for name, columns, identities, defaults, has_trigger in tables:
            keys = {*identities, *(column for column, text in defaults.items() if _gives_values(text))}
            if has_trigger and not keys:
                # A copy of a row has its key, so a trigger that gives keys would not be tried.
                tried.not_possible.append(f"{name}: a trigger may give its keys")
                continue
            try:
                with session.savepoint():
                    _try(session, name, [column for column in columns if column not in keys], keys, tried)
                    raise _Undo
            except _Undo:
                continue
    if are_behind:
        tried.not_possible += tried.failed
        tried.failed = []
    return tried


class _Undo(Exception):
    """Takes back everything that was tried with one table."""


def _try(session: Session, table: str, copied: list[str], keys: set[str], tried: Tried) -> None:
    names = sql.SQL(", ").join(map(sql.Identifier, copied))
    statement = (
        sql.SQL("INSERT INTO {0} ({1}) SELECT {1} FROM {0} LIMIT 1").format(qualified(table), names)
        if copied
        else sql.SQL("INSERT INTO {0} DEFAULT VALUES").format(qualified(table))
    )
    ((is_empty,),) = session.rows(sql.SQL("SELECT NOT EXISTS (SELECT FROM {})").format(qualified(table)))
    if is_empty:
        tried.empty += 1
        return
    for _ in range(MOST_INDEXES):
        try:
            with session.savepoint():
                session.run(statement, doing=f"inserting into {table}")
                session.run("SET CONSTRAINTS ALL IMMEDIATE", doing=f"checking the new row of {table}")
                raise _Undo
        except _Undo:
            tried.passed += 1
            return
        except ClinicBackupsError as error:
            refused = refusal_of(error)
            if refused is None or not refused.state:
                raise
            if refused.state != UNIQUE or not _drop_index(session, table, refused.constraint or "", keys, tried):
                if refused.state != UNIQUE:
                    tried.not_possible.append(f"{table}: SQLSTATE {refused.state}")
                return
    tried.not_possible.append(f"{table}: too many unique indexes")


def _drop_index(session: Session, table: str, name: str, keys: set[str], tried: Tried) -> bool:
    """Drop a unique index that refuses the copy of a row, until it is taken back; returns whether that was right.

    It is not if the index is over a key that the default gave: that key would be given out twice.
    """
    found = session.rows(_INDEX, {"table": quoted_table(table), "name": name})
    if not found:
        tried.not_possible.append(f"{table}: {name} is of another table")
        return False
    ((index, constraint, columns),) = found
    if given := [column for column in columns if column in keys]:
        tried.failed.append(f"{table} would give out a key twice: the default of {given[0]} gives one that is there")
        return False
    if constraint is not None:
        session.run(
            sql.SQL("ALTER TABLE {} DROP CONSTRAINT {} CASCADE").format(qualified(table), sql.Identifier(constraint)),
            doing=f"setting {name} aside",
        )
    else:
        session.run(f"DROP INDEX {index}", doing=f"setting {name} aside")
    return True


def _gives_values(default: str) -> bool:
    """Whether a default calls a function, such as ``nextval``, and is no constant."""
    return _CALL.search(_TYPE_OF.sub("", default)) is not None
