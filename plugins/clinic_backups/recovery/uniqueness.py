"""Unique and exclusion constraints that the rows of several backups do not meet."""

from __future__ import annotations

import re

from clinic_backups.base.text import in_sql
from clinic_backups.recovery.keys_in_dump import NAME, NAMES, names_in
from clinic_backups.recovery.old_rows import ALSO, own_rows, shown_count
from clinic_backups.recovery.session import Session

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
    what, name = ", ".join(columns), ".".join(names_in(found["table"]))
    table = own_rows(session, name)
    conditions = [f"({predicate})"] if predicate else []
    conditions += [] if alike else [f"({each}) IS NOT NULL" for each in columns]
    where = f" WHERE {' AND '.join(conditions)}" if conditions else ""
    query = f"SELECT {what}, count(*) AS rows FROM {table} AS t{where} GROUP BY {what} HAVING count(*) > 1"  # noqa: S608
    ((count,),) = session.rows(
        f"SELECT coalesce(sum(r.rows), 0) FROM ({query}) AS r",  # noqa: S608
        doing=f"counting the rows that {found['name']} does not hold for",
    )
    return (
        f"The {kind} {found['name']} of {name} was not made, because rows of several backups have"
        f" the same value: it does not hold for {shown_count(int(count))}. {ALSO}",
        f"{query};\n",
    )


def excluding(statement: str) -> str | None:
    """A sentence about an exclusion constraint that the rows do not meet."""
    found = _EXCLUDING.search(statement)
    return found and (
        f"The constraint {found['name']} of {'.'.join(names_in(found['table']))} was not made, because rows exclude"
        f" each other. {ALSO}"
    )
