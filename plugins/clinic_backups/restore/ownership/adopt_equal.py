"""Finds the clinic's rows of one table without a primary key that no extract returns now.

Equal rows cannot be told apart, so they are counted. If the table has more of them than all extracts return together,
only the surplus is taken. A row that lost its link to the clinic is not recognised: it may belong to another clinic or
to none. It stays as it is, and the clinic's row is inserted beside it.
"""

from __future__ import annotations

from typing import Any

from psycopg2 import sql

from clinic_backups.restore.ownership.conditions import Ownership
from clinic_backups.restore.ownership.staged_rows import load, places
from clinic_backups.restore.ownership.ways import Ways, columns_of_ways
from clinic_backups.restore.staging import Staged
from clinic_backups.restore.workspace import Workspace, columns_of, row_text
from clinic_backups.tenant.outside import Outside


class EqualRows:
    """Searches for such rows. The search may be repeated; rows that were found once are not found again."""

    def __init__(self, workspace: Workspace, staged: Staged, ways: Ways, ownership: Ownership) -> None:
        self._workspace, self._staged, self._shape = workspace, staged, staged.shape
        self._ways, self._ownership = ways, ownership
        links = [way for way in ways.of(self._shape.name) if set(way.columns) <= set(self._shape.columns)]
        self._columns = columns_of_ways(links)
        self._rest = [name for name in self._shape.columns if name not in self._columns]
        self._doing = f"looking for rows of {self._shape.name} that no extract gives"
        self._made = 0
        self._taken = workspace.stage(
            f"taken_{staged.index}", [("part", "oid"), ("place", "tid"), ("row_text", "text")]
        )
        """Rows that were found."""

    def look(self) -> Outside:
        """Load the found rows into the table's present rows."""
        missing = self._define("missing", self._missing())
        return self._same(missing) if self._count(missing) else Outside()

    def left(self) -> int:
        """Rows without a link that equal missing ones in all other columns. They are left alone."""
        if not self._columns:
            return 0
        missing = self._define("missing", self._missing())
        query = sql.SQL("""
            SELECT count(*) FROM {table} AS t
             WHERE num_nonnulls({now}) = 0
               AND {rest} IN (SELECT {then_rest} FROM {missing} AS m JOIN {wanted} AS w ON m.place = w.ctid
                               WHERE num_nonnulls({then}) > 0)""").format(
            table=self._shape.in_sql,
            now=columns_of(self._columns, "t"),
            then=columns_of(self._columns, "w"),
            rest=row_text(self._rest, "t"),
            then_rest=row_text(self._rest, "w"),
            missing=missing,
            wanted=self._staged.wanted,
        )
        return int(self._rows(query)[0][0])

    def _missing(self) -> sql.Composed:
        """SELECT of the backup's rows that the clinic lacks; of equal rows, the number that is missing."""
        return sql.SQL("""
            SELECT x.place, x.row_text
              FROM (SELECT w.ctid AS place, {wanted_text} AS row_text,
                           row_number() OVER (PARTITION BY {wanted_text} ORDER BY w.ctid) AS number
                      FROM {wanted} AS w) AS x
              LEFT JOIN (SELECT {present_text} AS row_text, count(*) AS times FROM {present} AS p GROUP BY 1) AS y
                ON y.row_text = x.row_text
             WHERE x.number > COALESCE(y.times, 0)""").format(
            wanted_text=row_text(self._shape.columns, "w"),
            present_text=row_text(self._shape.columns, "p"),
            wanted=self._staged.wanted,
            present=self._staged.present,
        )

    def _same(self, missing: sql.Identifier) -> Outside:
        """Rows like missing ones in every column."""
        text = row_text(self._shape.columns, "t")
        # The row is compared with itself, because the backup's equal row has the same links.
        candidates = self._define(
            "alike",
            sql.SQL("""
                SELECT t.tableoid AS part, t.ctid AS place, {text} AS row_text, {ours} AS ours
                  FROM {table} AS t, LATERAL (SELECT t.*) AS w
                 WHERE {text} IN (SELECT m.row_text FROM {missing} AS m)""").format(
                text=text, ours=self._ownership.is_ours(self._shape), table=self._shape.in_sql,
                missing=missing,
            ),
        )  # fmt: skip
        if not self._count(candidates):
            return Outside()
        chosen = self._define(
            "chosen",
            sql.SQL("""
                SELECT f.part, f.place, f.row_text, false AS changed
                  FROM {free} AS f
                  JOIN (SELECT m.row_text, count(*) AS times FROM {missing} AS m GROUP BY 1) AS b
                    ON b.row_text = f.row_text
                 WHERE f.number <= b.times""").format(free=self._free(candidates), missing=missing),
        )
        return self._take(chosen)

    def _free(self, candidates: sql.Identifier) -> sql.Identifier:
        """The surplus: candidates beyond those that the extracts of all clinics return, or that were found before."""
        others = self._ways.of_others(
            self._shape.name,
            sql.SQL("{} AS row_text").format(row_text(self._shape.columns, "r")),
            sql.SQL("{} IN (SELECT c.row_text FROM {} AS c)").format(row_text(self._shape.columns, "r"), candidates),
        )
        counted = sql.SQL(
            "LEFT JOIN (SELECT {text} AS row_text, count(*) AS times FROM {rows} AS r"
            " WHERE {text} IN (SELECT c.row_text FROM {candidates} AS c) GROUP BY 1) AS {name}"
            " ON {name}.row_text = c.row_text"
        )

        def times(name: str, rows: sql.Composable, text: sql.Composable | None = None) -> sql.Composed:
            text = text or row_text(self._shape.columns, "r")
            return counted.format(text=text, rows=rows, candidates=candidates, name=sql.Identifier(name))

        plain = sql.SQL("r.row_text")
        extract = sql.SQL("(\n{}\n)").format(sql.SQL(self._ways.queries[self._shape.name]))
        return self._define(
            "free",
            sql.SQL("""
                SELECT x.* FROM (
                    SELECT c.*, row_number() OVER (PARTITION BY c.row_text ORDER BY c.part, c.place) AS number,
                           a.times - COALESCE(e.times, 0) - COALESCE(o.times, 0) - COALESCE(d.times, 0) AS free
                      FROM {candidates} AS c {there} {given} {others} {taken}
                     WHERE c.ours AND NOT EXISTS (SELECT FROM {found} AS y
                                                   WHERE y.part = c.part AND y.place = c.place)) AS x
                 WHERE x.number <= x.free""").format(
                candidates=candidates, there=times("a", self._shape.in_sql), given=times("e", extract),
                others=times("o", others, plain), taken=times("d", self._taken, plain), found=self._taken,
            ),
        )  # fmt: skip

    def _take(self, chosen: sql.Identifier) -> Outside:
        self._workspace.seals.require()
        count = self._run(sql.SQL("INSERT INTO {} SELECT part, place, row_text FROM {}").format(self._taken, chosen))
        self._workspace.seals.wrote(self._taken, inserted=count)
        self._workspace.seals.keep(self._taken)
        query = sql.SQL("SELECT c.part, c.place, c.changed FROM {} AS c").format(chosen)
        found = places(self._workspace, query, self._doing)
        load(self._workspace, self._staged, found)
        return found

    def _define(self, name: str, query: sql.Composable) -> sql.Identifier:
        """A temporary table with the result of a query."""
        self._made += 1
        made = self._workspace.derive(f"{name}_{self._staged.index}_{self._made}", query, self._doing)
        self._workspace.analyze(self._doing, (made, ()))
        self._workspace.seals.keep(made)
        return made

    def _count(self, table: sql.Identifier) -> int:
        return int(self._rows(sql.SQL("SELECT count(*) FROM {}").format(table))[0][0])

    def _rows(self, query: sql.Composable) -> list[tuple[Any, ...]]:
        return self._workspace.rows(query, None, self._doing)

    def _run(self, statement: sql.Composable) -> int:
        return self._workspace.execute(statement, self._doing)
