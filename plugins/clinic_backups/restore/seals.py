"""Finds out whether somebody else has changed a temporary table of a restore.

Code of the database that runs in the restore's session may write to these tables, and what they hold is what is
written and proven. A seal is the server's counts of the changes of a table (rows inserted, updated and deleted), and
its first row: the place (``ctid``) and the statements that made and changed it (``xmin``, ``cmin``, ``xmax``). Every
change of a row counts, also one that was rolled back. Only TRUNCATE sets the counts back, and then every row, so the
first one too, was made by a later statement. Another file of the table, other columns, a trigger, a rule or an heir
break the seal too. No other row is read, so a seal costs the same for every table.

While a statement of the restore runs code of the database, that code could change what the statement has just written.
So a seal is kept only if the server has counted as many changes of the table as the restore's own statements made.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from psycopg2 import sql

from clinic_backups.base.errors import IntegrityError
from clinic_backups.base.text import quoted

Rows = Callable[[sql.Composable, None, str], Sequence[tuple[Any, ...]]]
AT_ONCE = 100
"""Tables of one query."""
_DOING = "looking at the restore's own temporary tables"
_TABLE = sql.SQL("""
    SELECT {number} AS number, {name}::regclass::oid AS oid,
           (SELECT concat_ws(' ', f.ctid, f.xmin, f.cmin, f.xmax) FROM {table} AS f LIMIT 1) AS first_row""")
_SEALS = sql.SQL("""
    WITH sealed AS MATERIALIZED ({tables})
    SELECT s.number, concat_ws(' ', s.oid, pg_relation_filenode(s.oid), a.columns), s.first_row,
           c.relkind <> 'r' OR c.relhastriggers OR c.relhasrules OR c.relhassubclass OR c.relrowsecurity,
           ARRAY[pg_stat_get_xact_tuples_inserted(s.oid), pg_stat_get_xact_tuples_updated(s.oid),
                 pg_stat_get_xact_tuples_deleted(s.oid)], s.oid::bigint
      FROM sealed AS s
      JOIN pg_class AS c ON c.oid = s.oid
     CROSS JOIN LATERAL (SELECT string_agg(concat_ws(' ', k.attnum, k.attname, k.atttypid, k.atttypmod, k.attcollation,
                                                     k.attisdropped, k.atthasdef), ',' ORDER BY k.attnum) AS columns
                           FROM pg_attribute AS k WHERE k.attrelid = c.oid AND k.attnum > 0) AS a
     ORDER BY s.number""")


@dataclass(frozen=True)
class _Seal:
    """What a table holds.

    :param shape: its file and columns.
    :param first_row: the place of its first row, and the statements that made and changed it.
    :param changes: the server's counts: rows inserted, updated and deleted in it.
    :param count: the number of its rows, by what the restore's own statements did.
    """

    table: sql.Identifier
    oid: int
    shape: str
    first_row: str | None
    changes: tuple[int, int, int]
    count: int = 0


class Seals:
    """The temporary tables whose content is known.

    :param rows: runs a query in the restore's transaction.
    """

    def __init__(self, rows: Rows) -> None:
        self._rows, self._known = rows, dict[str, _Seal]()
        self._written = dict[str, Counter[str]]()

    def made(self, table: sql.Identifier, rows: int = 0) -> None:
        """The restore has made this table, with this number of rows."""
        self._known.pop(_name(table), None)
        self._written[_name(table)] = Counter(inserted=rows)

    def wrote(self, table: sql.Identifier, *, inserted: int = 0, updated: int = 0, deleted: int = 0) -> None:
        """A statement of the restore has changed so many rows of this table."""
        self._written.setdefault(_name(table), Counter()).update(inserted=inserted, updated=updated, deleted=deleted)

    def keep(self, *tables: sql.Identifier) -> None:
        """Remember what the tables hold now. Call this as soon as the restore itself has changed one.

        :raises IntegrityError: somebody else has changed one meanwhile, or has added a trigger or a rule.
        """
        for now in self._read(tables):
            name = _name(now.table)
            before, written = self._known.get(name), self._written.pop(name, Counter[str]())
            if before is None or before.oid != now.oid:
                before = _Seal(now.table, now.oid, "", None, (0, 0, 0))
            ours = (written["inserted"], written["updated"], written["deleted"])
            if now.changes != tuple(one + other for one, other in zip(before.changes, ours, strict=True)):
                raise _changed(now.table)
            self._known[name] = replace(now, count=before.count + written["inserted"] - written["deleted"])

    def count(self, table: sql.Identifier) -> int | None:
        """The number of rows that a table had when its seal was kept; unknown without one."""
        seal = self._known.get(_name(table))
        return seal.count if seal is not None else None

    def require(self, *tables: sql.Identifier) -> None:
        """Check that the tables are as they were; by default all. Those that are not known are left out.

        :raises IntegrityError: somebody else has changed one.
        """
        self._required(tables)

    def taken_back(self, table: sql.Identifier) -> None:
        """A statement that changed the table was rolled back. :raises IntegrityError: the table is not as before."""
        self._written.pop(_name(table), None)
        for now in self._required([table], rolled_back=True):
            self._known[_name(table)] = now

    def renamed(self, old: sql.Identifier, new: sql.Identifier) -> None:
        """A table takes the place of another one, which had as many rows.

        :raises IntegrityError: it has another number of rows.
        """
        made, replaced = self._known.pop(_name(old)), self._known.get(_name(new))
        if replaced is not None and replaced.count != made.count:
            raise _changed(new)
        self._known[_name(new)] = replace(made, table=new)

    def forget(self, table: sql.Identifier) -> None:
        """The table is not used any more."""
        self._known.pop(_name(table), None)

    def _required(self, tables: Sequence[sql.Identifier], *, rolled_back: bool = False) -> list[_Seal]:
        """:param rolled_back: a statement of the restore was rolled back. That counts, and leaves its mark in rows."""
        wanted = [_name(table) for table in tables] if tables else list(self._known)
        known = [self._known[name] for name in wanted if name in self._known]
        found = list(self._read([seal.table for seal in known]))
        for seal, now in zip(known, found, strict=True):
            same = (now.first_row, now.changes) == (seal.first_row, seal.changes)
            if now.shape != seal.shape or not (same or rolled_back):
                raise _changed(seal.table)
        return [replace(now, count=seal.count) for seal, now in zip(known, found, strict=True)]

    def _read(self, tables: Sequence[sql.Identifier]) -> Iterator[_Seal]:
        for start in range(0, len(tables), AT_ONCE):
            some = tables[start : start + AT_ONCE]
            each = [
                _TABLE.format(
                    number=sql.Literal(number), name=sql.Literal(".".join(map(quoted, table.strings))), table=table
                )
                for number, table in enumerate(some)
            ]
            query = _SEALS.format(tables=sql.SQL(" UNION ALL ").join(each))
            for number, shape, first_row, is_odd, changes, oid in self._rows(query, None, _DOING):
                if is_odd:
                    raise _changed(some[number])
                yield _Seal(some[number], oid, shape, first_row, tuple(changes))


def _name(table: sql.Identifier) -> str:
    return str(table.strings[-1])


def _changed(table: sql.Identifier) -> IntegrityError:
    return IntegrityError(
        f"Code of the database that ran in the restore changed {_name(table)}, a temporary table of the restore.",
        hint="Nothing was changed. A cast, a default, a constraint, an index or a trigger of a table calls that code."
        " Find out who made it.",
    )
