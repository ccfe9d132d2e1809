"""Rows of the clinic that are in the database, and that no extract gives now.

Some have lost their way to the clinic: ON DELETE SET NULL left them behind. Some hang on such a row. Others are left
out by an extract that ``not_backed_up.txt`` declares with ``rows``: they are too old, or were marked as deleted.
They are compared with the backup as the clinic's other rows are, and the copy of the present state holds them.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence

from psycopg2 import sql

from clinic_backups.restore.model import Refusal
from clinic_backups.restore.rules import Reference, with_child
from clinic_backups.restore.staging import Staged
from clinic_backups.restore.workspace import Workspace, columns_of, qualified, row_text
from clinic_backups.tenant.outside import Outside


def adopt(
    workspace: Workspace,
    staged: Mapping[str, Staged],
    references: Sequence[Reference],
    queries: Mapping[str, str],
    loose: Collection[str],
) -> Iterator[tuple[str, Outside | Refusal]]:
    """Take such rows for rows that the clinic has now: table by table, what was found in it.

    :param queries: the extract of each table.
    :param loose: tables of which the backup, or the clinic now, has rows that the extract does not give.
    """
    adoption = Adoption(workspace, staged, references, queries, loose)
    waiting, refused = list(staged), set[str]()
    while waiting:
        # Rows that hang on one which was found just now may be of a table that was looked at before.
        found_in = set[str]()
        for name in waiting:
            found = adoption.look(name)
            if found is not None:
                yield name, found
                (refused if isinstance(found, Refusal) else found_in).add(name)
        children = {reference.child for reference in references if reference.parent in found_in}
        waiting = [name for name in staged if name in children - refused]


class Adoption:
    """Looks for such rows, table by table; see :func:`adopt`."""

    def __init__(
        self,
        workspace: Workspace,
        staged: Mapping[str, Staged],
        references: Sequence[Reference],
        queries: Mapping[str, str],
        loose: Collection[str],
    ) -> None:
        self._workspace, self._staged, self._queries, self._loose = workspace, staged, queries, loose
        self._references = [each for each in references if each.child_readable and each.parent_readable]

    def look(self, name: str) -> Outside | Refusal | None:
        """Load what is found into the table's present rows; none: there is nothing."""
        staged = self._staged[name]
        ways = [
            way
            for way in with_child(self._references, name)
            if way.parent in self._queries and set(way.columns) <= set(staged.shape.columns)
        ]
        if not ways and name not in self._loose:
            return None
        for side in (staged.wanted, staged.present):
            self._workspace.execute(sql.SQL("ANALYZE {}").format(side), f"analyzing {name}")
        found = self._by_key(staged, ways) if staged.shape.key else self._by_values(staged, ways)
        return found if isinstance(found, Refusal) or found.rows else None

    def _load(self, staged: Staged, found: Outside) -> Outside:
        if found.rows:
            columns = staged.shape.columns
            statement = sql.SQL("INSERT INTO {} ({}) {}").format(
                staged.present, columns_of(columns), sql.SQL(found.select(staged.shape.name, columns))
            )
            self._workspace.execute(statement, f"loading rows of {staged.shape.name} that no extract gives")
        return found

    def _by_key(self, staged: Staged, ways: Sequence[Reference]) -> Outside:
        """Rows with the keys of missing ones.

        One that was changed besides its way may be somebody else's by now, unless it names rows of this clinic still.
        Where that is not so its key is a refusal.
        """
        shape = staged.shape
        rows = sql.SQL("""
            FROM {wanted} AS w JOIN {table} AS t ON {same}
             WHERE NOT EXISTS (SELECT FROM {present} AS p WHERE {there})""").format(
            wanted=staged.wanted, table=self._from(staged), same=shape.same_key("w", "t"), present=staged.present,
            there=shape.same_key("p", "w"),
        )  # fmt: skip
        if not self._any(staged, rows):
            return Outside()
        same = sql.SQL("{} = {}").format(row_text(shape.columns, "w"), row_text(shape.columns, "t"))
        allowed: list[sql.Composable] = [sql.SQL("({} AND {})").format(same, self._leads(ways, all_=True))]
        if ways:
            allowed.append(self._lost(staged, ways))
        if shape.name in self._loose:
            allowed += [same, self._own(ways)]
        query = sql.SQL("SELECT t.tableoid AS part, t.ctid AS place, NOT ({}) AS changed {} AND ({})").format(
            same, rows, sql.SQL(" OR ").join(allowed)
        )
        return self._load(staged, self._places(staged, query))

    def _by_values(self, staged: Staged, ways: Sequence[Reference]) -> Outside | Refusal:
        """Rows like missing ones: they have no key."""
        if not self._any(staged, sql.SQL("FROM ({}) AS m").format(self._missing(staged))):
            return Outside()
        same = self._load(staged, self._same_by_values(staged, ways))
        columns = sorted({name for way in ways for name in way.columns})
        lost = self._lost_by_values(staged, columns) if columns else Outside()
        return lost if isinstance(lost, Refusal) else same + self._load(staged, lost)

    def _same_by_values(self, staged: Staged, ways: Sequence[Reference]) -> Outside:
        """As many as the table has more of than the extract gives, and no more than are missing."""
        shape = staged.shape
        text = row_text(shape.columns, "t")
        query = sql.SQL("""
            WITH candidate AS MATERIALIZED (
                SELECT t.tableoid AS part, t.ctid AS place, {text} AS row_text,
                       row_number() OVER (PARTITION BY {text} ORDER BY t.tableoid, t.ctid) AS number,
                       count(*) OVER (PARTITION BY {text}) AS times
                  FROM {table} AS t WHERE {text} IN (SELECT m.row_text FROM ({missing}) AS m) AND {condition})
            SELECT c.part, c.place, false AS changed
              FROM candidate AS c
              JOIN (SELECT m.row_text, count(*) AS times FROM ({missing}) AS m GROUP BY 1) AS b
                ON b.row_text = c.row_text
              LEFT JOIN (SELECT {given} AS row_text, count(*) AS times FROM (\n{extract}\n) AS r GROUP BY 1) AS e
                ON e.row_text = c.row_text
             WHERE c.number <= least(b.times, c.times - COALESCE(e.times, 0))""").format(
            text=text,
            table=self._from(staged),
            missing=self._missing(staged),
            condition=sql.SQL("true") if shape.name in self._loose else self._leads(ways, all_=True),
            given=row_text(shape.columns, "r"),
            extract=sql.SQL(self._queries[shape.name]),
        )
        return self._places(staged, query)

    def _lost_by_values(self, staged: Staged, ways: Sequence[str]) -> Outside | Refusal:
        """Rows that are like missing ones, but for a way that is NULL.

        Where there are more of them than rows are missing, some are somebody else's, and which cannot be told.
        """
        shape = staged.shape
        rest = [name for name in shape.columns if name not in ways]
        alike = sql.SQL("""
            FROM ({missing}) AS m JOIN {wanted} AS w ON m.place = w.ctid
            JOIN {table} AS t
              ON num_nulls({lost}) > num_nulls({had}) AND {nulled} AND {rest_then} = {rest_now}""").format(
            missing=self._missing(staged),
            wanted=staged.wanted,
            table=self._from(staged),
            lost=columns_of(ways, "t"),
            had=columns_of(ways, "w"),
            nulled=_nulled(ways),
            rest_then=row_text(rest, "w"),
            rest_now=row_text(rest, "t"),
        )
        ((rows, found),) = self._workspace.rows(
            sql.SQL("SELECT count(DISTINCT w.ctid), count(DISTINCT (t.tableoid, t.ctid)) {}").format(alike),
            None,
            f"looking for rows of {shape.name} that lost their clinic",
        )
        if not found:
            return Outside()
        if found > rows:
            return Refusal(
                shape.name,
                f"{found:,} rows of {shape.name} have lost their way to a clinic ({', '.join(ways)} is NULL) and are"
                f" like {rows:,} rows of the backup that are missing: which of them are this clinic's cannot be told,"
                " for the table has no primary key.",
                f"Delete the rows of {shape.name} that are this clinic's, or restore without this table.",
            )
        return self._places(
            staged, sql.SQL("SELECT DISTINCT t.tableoid AS part, t.ctid AS place, true AS changed {}").format(alike)
        )

    def _missing(self, staged: Staged) -> sql.Composed:
        """SELECT of the rows of the backup that the clinic lacks: of rows that are alike, as many as it has too few."""
        return sql.SQL("""
            SELECT x.place, x.row_text
              FROM (SELECT w.ctid AS place, {wanted_text} AS row_text,
                           row_number() OVER (PARTITION BY {wanted_text}) AS number FROM {wanted} AS w) AS x
              LEFT JOIN (SELECT {present_text} AS row_text, count(*) AS times FROM {present} AS p GROUP BY 1) AS y
                ON y.row_text = x.row_text
             WHERE x.number > COALESCE(y.times, 0)""").format(
            wanted_text=row_text(staged.shape.columns, "w"),
            present_text=row_text(staged.shape.columns, "p"),
            wanted=staged.wanted,
            present=staged.present,
        )

    def _lost(self, staged: Staged, ways: Sequence[Reference]) -> sql.Composed:
        """As the backup has it, but for foreign keys to clinics' tables that are NULL now."""
        columns = sorted({name for way in ways for name in way.columns})
        rest = [name for name in staged.shape.columns if name not in columns]
        return sql.SQL("(num_nulls({}) > num_nulls({}) AND {} AND {} = {})").format(
            columns_of(columns, "t"), columns_of(columns, "w"), _nulled(columns), row_text(rest, "t"),
            row_text(rest, "w"),
        )  # fmt: skip

    def _leads(self, ways: Sequence[Reference], *, all_: bool) -> sql.Composable:
        """One way leads to a row of this clinic, and every other one too, or nowhere."""
        if not ways:
            return sql.SQL("false")
        one = sql.SQL(" OR ").join(self._known(way) for way in ways)
        if not all_:
            return sql.SQL("({})").format(one)
        others = sql.SQL(" AND ").join(sql.SQL("({} OR {})").format(_is_null(way), self._known(way)) for way in ways)
        return sql.SQL("(({}) AND {})").format(one, others)

    def _own(self, ways: Sequence[Reference]) -> sql.Composable:
        """One way leads to a row of this clinic, and no way to another row than the backup's that is not of it."""
        if not ways:
            return sql.SQL("false")
        others = sql.SQL(" AND ").join(
            sql.SQL("({} OR {} OR {})").format(_is_null(way), _as_in_backup(way), self._known(way)) for way in ways
        )
        return sql.SQL("({} AND {})").format(self._leads(ways, all_=False), others)

    def _known(self, way: Reference) -> sql.Composed:
        """The row that is referred to is this clinic's: by its extract, or because it was found here."""
        rows: list[sql.Composable] = [sql.SQL("(\n{}\n)").format(sql.SQL(self._queries[way.parent]))]
        parent = self._staged.get(way.parent)
        if parent is not None and set(way.parent_columns) <= {*parent.shape.columns, *parent.shape.key}:
            rows.append(parent.present)
        return sql.SQL("({})").format(
            sql.SQL(" OR ").join(
                sql.SQL("EXISTS (SELECT FROM {} AS v WHERE {})").format(each, way.refers("t", "v")) for each in rows
            )
        )

    def _any(self, staged: Staged, rows: sql.Composable) -> bool:
        # Counted: with EXISTS the planner looks for a first row by nested loops, which takes minutes where none is.
        doing = f"looking for rows of {staged.shape.name} that no extract gives"
        ((found,),) = self._workspace.rows(sql.SQL("SELECT count(*) {}").format(rows), None, doing)
        return int(found) > 0

    def _places(self, staged: Staged, rows: sql.Composable) -> Outside:
        query = sql.SQL(
            "SELECT a.part::bigint, count(*), count(*) FILTER (WHERE a.changed), array_agg(a.place)::text"
            " FROM ({}) AS a GROUP BY 1"
        ).format(rows)
        found = self._workspace.rows(query, None, f"looking for rows of {staged.shape.name} that no extract gives")
        return Outside(
            sum(int(count) for _, count, _, _ in found),
            sum(int(changed) for _, _, changed, _ in found),
            tuple((int(part), str(places)) for part, _, _, places in found),
        )

    @staticmethod
    def _from(staged: Staged) -> sql.Composable:
        """The table without those that inherit from it."""
        only = sql.SQL("ONLY ") if staged.shape.rules.children else sql.SQL("")
        return only + qualified(staged.shape.name)


def _nulled(columns: Sequence[str]) -> sql.Composed:
    return sql.SQL(" AND ").join(
        sql.SQL("(t.{0} IS NULL OR t.{0}::text = w.{0}::text)").format(sql.Identifier(name)) for name in columns
    )


def _is_null(way: Reference) -> sql.Composed:
    return sql.SQL("num_nulls({}) > 0").format(columns_of(way.columns, "t"))


def _as_in_backup(way: Reference) -> sql.Composed:
    return sql.SQL(" AND ").join(
        sql.SQL("t.{0}::text = w.{0}::text").format(sql.Identifier(name)) for name in way.columns
    )
