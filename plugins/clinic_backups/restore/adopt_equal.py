"""Rows of one table without a primary key that are the clinic's, and that no extract gives now.

Nothing tells equal rows apart. So no more of them are taken than the table has more of than all extracts give; and a
row that lost its way is known by its other values alone, where the row that the backup's row named is gone.
"""

from __future__ import annotations

from typing import Any

from psycopg2 import sql

from clinic_backups.base.model import RestoreMode
from clinic_backups.restore.model import Refusal
from clinic_backups.restore.ownership import Ownership, nulled
from clinic_backups.restore.rules import Reference
from clinic_backups.restore.staged_rows import from_table, load, places
from clinic_backups.restore.staging import Staged
from clinic_backups.restore.ways import Ways, columns_of_ways
from clinic_backups.restore.workspace import Workspace, columns_of, row_text
from clinic_backups.tenant.outside import Outside


class EqualRows:
    """Looks for them, as often as it is asked: what was found once is not found again.

    :param mode: with ``missing`` a row that lost its way stays as it is, and the backup's row does not come back.
    """

    def __init__(
        self, workspace: Workspace, staged: Staged, ways: Ways, ownership: Ownership, mode: RestoreMode
    ) -> None:
        self._workspace, self._staged, self._shape, self._mode = workspace, staged, staged.shape, mode
        self._ways, self._ownership = ways, ownership
        links = [way for way in ways.of(self._shape.name) if set(way.columns) <= set(self._shape.columns)]
        self._links, self._columns = links, columns_of_ways(links)
        self._rest = [name for name in self._shape.columns if name not in self._columns]
        self._doing = f"looking for rows of {self._shape.name} that no extract gives"
        self._made, self._left = 0, 0
        self._taken = workspace.stage(
            f"taken_{staged.index}", [("part", "oid"), ("place", "tid"), ("row_text", "text")]
        )
        """Rows that were found."""
        self._met = workspace.stage(f"met_{staged.index}", [("place", "tid")])
        """Rows of the backup that were found without their way."""

    def look(self) -> Outside | Refusal:
        """Load what is found into the table's present rows."""
        if self._mode != "missing":
            self._left = 0
        missing = self._define("missing", self._missing())
        if not self._count(missing):
            return Outside()
        same = self._same(missing)
        missing = self._define("missing", self._missing())
        lost = self._lost(missing) if self._columns and self._count(missing) else Outside()
        return lost if isinstance(lost, Refusal) else same + lost

    def left(self) -> int:
        """Rows like missing ones, without a way, that were not taken for them at the last look."""
        return self._left

    def _missing(self) -> sql.Composed:
        """SELECT of the rows of the backup that the clinic lacks: of rows that are alike, as many as it has too few."""
        return sql.SQL("""
            SELECT x.place, x.row_text
              FROM (SELECT w.ctid AS place, {wanted_text} AS row_text,
                           row_number() OVER (PARTITION BY {wanted_text} ORDER BY w.ctid) AS number FROM {wanted} AS w
                     WHERE NOT EXISTS (SELECT FROM {met} AS m WHERE m.place = w.ctid)) AS x
              LEFT JOIN (SELECT {present_text} AS row_text, count(*) AS times FROM {present} AS p GROUP BY 1) AS y
                ON y.row_text = x.row_text
             WHERE x.number > COALESCE(y.times, 0)""").format(
            wanted_text=row_text(self._shape.columns, "w"),
            present_text=row_text(self._shape.columns, "p"),
            wanted=self._staged.wanted,
            present=self._staged.present,
            met=self._met,
        )

    def _same(self, missing: sql.Identifier) -> Outside:
        """Rows like missing ones in every column."""
        text = row_text(self._shape.columns, "t")
        # Beside itself: the backup's row that is like it has the same ways.
        candidates = self._define(
            "alike",
            sql.SQL("""
                SELECT t.tableoid AS part, t.ctid AS place, {text} AS row_text, {ours} AS ours
                  FROM {table} AS t, LATERAL (SELECT t.*) AS w
                 WHERE {text} IN (SELECT m.row_text FROM {missing} AS m)""").format(
                text=text, ours=self._ownership.is_ours(self._shape, sql.SQL("true")), table=from_table(self._shape),
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

    def _lost(self, missing: sql.Identifier) -> Outside | Refusal:
        """Rows that are like missing ones, but for ways that are NULL.

        One without any way may be another clinic's, unless what the backup's row named is gone: then the foreign key
        has set it to NULL. Where there are more of them than rows are missing, whose they are cannot be told.
        """
        gone = sql.SQL(" AND ").join(map(self._is_gone, self._links))
        lost = self._define(
            "lost",
            sql.SQL("""
                SELECT m.place, {rest} AS rest, ({gone}) AS gone
                  FROM {missing} AS m JOIN {wanted} AS w ON m.place = w.ctid""").format(
                rest=row_text(self._rest, "w"), gone=gone, missing=missing, wanted=self._staged.wanted
            ),
        )
        candidates = self._define(
            "alike",
            sql.SQL("""
                SELECT t.tableoid AS part, t.ctid AS place, {text} AS row_text, {rest} AS rest, {ours} AS ours,
                       {proven} OR {rest} IN (SELECT l.rest FROM {lost} AS l WHERE l.gone) AS is_told
                  FROM {table} AS t, LATERAL (SELECT t.*) AS w
                 WHERE EXISTS (SELECT FROM {lost} AS l JOIN {wanted} AS w ON w.ctid = l.place
                                WHERE l.rest = {rest} AND num_nulls({now}) > num_nulls({then}) AND {nulled})
                """).format(
                text=row_text(self._shape.columns, "t"), rest=row_text(self._rest, "t"),
                ours=self._ownership.leads_nowhere_else(self._shape), proven=self._ownership.is_proven(self._shape),
                lost=lost, table=from_table(self._shape), wanted=self._staged.wanted,
                now=columns_of(self._columns, "t"), then=columns_of(self._columns, "w"), nulled=nulled(self._columns),
            ),
        )  # fmt: skip
        if not self._count(candidates):
            return Outside()
        free = self._free(candidates)
        ((left,),) = self._rows(sql.SQL("SELECT count(*) FROM {} WHERE NOT is_told").format(free))
        if self._mode == "missing":
            self._left += left
            return self._pass_over(free, lost)
        self._left = left
        if refusal := self._too_many(free, lost):
            return refusal
        chosen = self._define("chosen", self._pairs(free, lost, sql.SQL("x.is_told")))
        self._run(sql.SQL("INSERT INTO {} SELECT met FROM {}").format(self._met, chosen))
        return self._take(chosen)

    def _pass_over(self, free: sql.Identifier, lost: sql.Identifier) -> Outside:
        """The mode ``missing`` changes no row, and inserts none beside one that has lost its way."""
        chosen = self._define("chosen", self._pairs(free, lost, sql.SQL("true")))
        ((told,),) = self._rows(sql.SQL("SELECT count(*) FROM {} WHERE is_told").format(chosen))
        self._run(
            sql.SQL("DELETE FROM {} AS w WHERE w.ctid IN (SELECT c.met FROM {} AS c)").format(
                self._staged.wanted, chosen
            )
        )
        return Outside(changed=int(told))

    @staticmethod
    def _pairs(free: sql.Identifier, lost: sql.Identifier, which: sql.Composable) -> sql.Composed:
        """SELECT of rows without a way, each with the place of a row of the backup (``met``)."""
        numbered = sql.SQL("row_number() OVER (PARTITION BY x.rest ORDER BY {}) AS number")
        return sql.SQL("""
            SELECT f.part, f.place, f.row_text, f.is_told, true AS changed, l.place AS met
              FROM (SELECT x.*, {one} FROM (SELECT part, place, row_text, is_told, rest FROM {free}) AS x
                     WHERE {which}) AS f
              JOIN (SELECT x.*, {other} FROM {lost} AS x) AS l ON l.rest = f.rest AND l.number = f.number""").format(
            one=numbered.format(sql.SQL("x.is_told DESC, x.part, x.place")), free=free, which=which,
            other=numbered.format(sql.SQL("x.gone DESC, x.place")), lost=lost,
        )  # fmt: skip

    def _is_gone(self, way: Reference) -> sql.Composed:
        none = sql.SQL("num_nulls({}) > 0").format(columns_of(way.columns, "w"))
        if way.parent not in self._ways.readable:
            return none  # it cannot be asked
        return sql.SQL("({} OR NOT {})").format(none, self._ways.exists(way, "w"))

    def _too_many(self, free: sql.Identifier, lost: sql.Identifier) -> Refusal | None:
        ((found, rows),) = self._rows(
            sql.SQL("""
                SELECT COALESCE(sum(f.times), 0)::bigint, COALESCE(sum(l.times), 0)::bigint
                  FROM (SELECT rest, count(*) AS times FROM {free} WHERE is_told GROUP BY 1) AS f
                  JOIN (SELECT rest, count(*) FILTER (WHERE gone) AS gone, count(*) AS times
                          FROM {lost} GROUP BY 1) AS l
                    ON l.rest = f.rest AND f.times > CASE WHEN l.gone > 0 THEN l.gone ELSE l.times END
                """).format(free=free, lost=lost)
        )
        if not found:
            return None
        shape = self._shape
        return Refusal(
            shape.name,
            f"{found:,} rows of {shape.name} have lost their way to a clinic ({', '.join(self._columns)} is NULL) and"
            f" are like {rows:,} rows of the backup that are missing: which of them are this clinic's cannot be told,"
            " for the table has no primary key.",
            f"Delete the rows of {shape.name} that are this clinic's, or restore without this table.",
        )

    def _free(self, candidates: sql.Identifier) -> sql.Identifier:
        """Candidates beyond those that the extracts of all clinics give, and that were found before."""
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
                candidates=candidates, there=times("a", from_table(self._shape)), given=times("e", extract),
                others=times("o", others, plain), taken=times("d", self._taken, plain), found=self._taken,
            ),
        )  # fmt: skip

    def _take(self, chosen: sql.Identifier) -> Outside:
        self._run(sql.SQL("INSERT INTO {} SELECT part, place, row_text FROM {}").format(self._taken, chosen))
        query = sql.SQL("SELECT c.part, c.place, c.changed FROM {} AS c").format(chosen)
        found = places(self._workspace, query, self._doing)
        load(self._workspace, self._staged, found)
        return found

    def _define(self, name: str, query: sql.Composable) -> sql.Identifier:
        """A temporary table of what a query gives."""
        self._made += 1
        made = self._workspace.derive(f"{name}_{self._staged.index}_{self._made}", query, self._doing)
        self._workspace.analyze(made, self._doing)
        return made

    def _count(self, table: sql.Identifier) -> int:
        return int(self._rows(sql.SQL("SELECT count(*) FROM {}").format(table))[0][0])

    def _rows(self, query: sql.Composable) -> list[tuple[Any, ...]]:
        return self._workspace.rows(query, None, self._doing)

    def _run(self, statement: sql.Composable) -> None:
        self._workspace.execute(statement, self._doing)
