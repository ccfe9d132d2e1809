"""Finds out whether somebody else has changed a temporary table of a restore.

Code of the database that runs in the restore's session may write to these tables, and what they hold is what is
written and proven. A row's ``cmin`` is the number of the command that wrote it, and these numbers only rise. So if the
number of rows and the sum of their ``cmin`` are as before, every row is the one that the restore itself has put there.
The same holds for the rows of ``pg_attribute`` that describe the columns. No value is read for that.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from psycopg2 import sql

from clinic_backups.base.errors import IntegrityError

Rows = Callable[[sql.Composable, None, str], Sequence[tuple[Any, ...]]]
AT_ONCE = 100
"""Tables of one query."""
_DOING = "looking at the restore's own temporary tables"
_ROWS = sql.SQL("""
    SELECT {number} AS number, {name}::regclass::oid AS oid,
           concat_ws(' ', count(*), sum(t.cmin::text::bigint), min(t.tableoid::bigint), max(t.tableoid::bigint)) AS rows
      FROM {table} AS t""")
_SEALS = sql.SQL("""
    WITH sealed AS MATERIALIZED ({rows})
    SELECT s.number, s.rows, a.columns,
           c.relkind <> 'r' OR c.relhastriggers OR c.relhasrules OR c.relhassubclass OR c.relrowsecurity
      FROM sealed AS s
      JOIN pg_class AS c ON c.oid = s.oid
     CROSS JOIN LATERAL (SELECT concat_ws(' ', count(*), sum(k.cmin::text::bigint)) AS columns
                           FROM pg_attribute AS k WHERE k.attrelid = c.oid) AS a
     ORDER BY s.number""")


class Seals:
    """The temporary tables whose content is known.

    :param rows: runs a query in the restore's transaction.
    """

    def __init__(self, rows: Rows) -> None:
        self._rows, self._known = rows, dict[str, tuple[sql.Identifier, str]]()

    def keep(self, *tables: sql.Identifier) -> None:
        """Remember what the tables hold now. Call this as soon as the restore itself has changed one.

        :raises IntegrityError: a trigger, a rule or another table was added to one.
        """
        for name, (table, seal) in zip(map(_name, tables), self._read(tables), strict=True):
            self._known[name] = table, seal

    def require(self, *tables: sql.Identifier) -> None:
        """Check that the tables are as they were; by default all. Those that are not known are left out.

        :raises IntegrityError: somebody else has changed one.
        """
        wanted = [_name(table) for table in tables] if tables else list(self._known)
        known = [self._known[name] for name in wanted if name in self._known]
        for (table, seal), (_, now) in zip(known, self._read([table for table, _ in known]), strict=True):
            if now != seal:
                raise _changed(table)

    def forget(self, table: sql.Identifier) -> None:
        """The table is not used any more."""
        self._known.pop(_name(table), None)

    def _read(self, tables: Sequence[sql.Identifier]) -> Iterator[tuple[sql.Identifier, str]]:
        for start in range(0, len(tables), AT_ONCE):
            some = tables[start : start + AT_ONCE]
            each = [
                _ROWS.format(number=sql.Literal(number), name=sql.Literal(_quoted(table)), table=table)
                for number, table in enumerate(some)
            ]
            query = _SEALS.format(rows=sql.SQL(" UNION ALL ").join(each))
            for number, rows, columns, is_odd in self._rows(query, None, _DOING):
                if is_odd:
                    raise _changed(some[number])
                yield some[number], f"{rows} / {columns}"


def _name(table: sql.Identifier) -> str:
    return str(table.strings[-1])


def _quoted(table: sql.Identifier) -> str:
    return ".".join('"' + part.replace('"', '""') + '"' for part in table.strings)


def _changed(table: sql.Identifier) -> IntegrityError:
    return IntegrityError(
        f"Code of the database that ran in the restore changed {_name(table)}, a temporary table of the restore.",
        hint="Nothing was changed. A cast, a default, a constraint, an index or a trigger of a table calls that code."
        " Find out who made it.",
    )
