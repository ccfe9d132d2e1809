"""Finds the rows of others that a restore would need: those whose keys it would take, or that it would refer to."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence

from psycopg2 import sql

from clinic_backups.base.database import qualified
from clinic_backups.base.text import unused
from clinic_backups.restore.diff import TableDiff
from clinic_backups.restore.obstacle import Obstacle
from clinic_backups.restore.obstacle_sql import is_itself, shown
from clinic_backups.restore.ownership.conditions import has_lost_clinic, is_unsaid
from clinic_backups.restore.ownership.ways import Ways, columns_of_ways
from clinic_backups.restore.plan import Refusal
from clinic_backups.restore.table_rules import Reference, with_child
from clinic_backups.restore.workspace import Workspace, columns_of, row_text
from clinic_backups.tenant.declarations import FILE, Declarations, spelled


class RowsOfOthers:
    """Finds each kind with one query.

    :param references: the foreign keys that this role can look at.
    :param inside: those of them that lead only to rows that come back.
    """

    def __init__(
        self,
        workspace: Workspace,
        diffs: Mapping[str, TableDiff],
        references: Sequence[Reference],
        declared: Declarations,
        ways: Ways,
        inside: Collection[Reference] = (),
    ) -> None:
        self._workspace, self._diffs, self._declared, self._ways = workspace, diffs, declared, ways
        self._inside = inside
        self._looked_at, self._queries = references, ways.queries

    def references(self) -> Iterator[Obstacle]:
        """Rows to write that would refer to an existing row which is not this clinic's, or not any more.

        A reference that the row already has may stay. So may one in a column or to a table that is declared.
        """
        if not any(diff.plan.insert + diff.plan.update for diff in self._diffs.values()):
            return
        named = [way for way in self._ways.named if way.parent in self._ways.readable]
        for reference in (*self._looked_at, *named):
            child, parent = self._diffs.get(reference.child), self._diffs.get(reference.parent)
            if (
                child is None
                or is_itself(reference)
                or reference in self._inside
                or not child.plan.insert + child.plan.update
                or reference.parent not in self._queries
                or not set(reference.columns) <= set(child.staged.shape.columns)
            ):
                continue
            was_ours = parent is not None and set(reference.parent_columns) <= {
                *parent.staged.shape.columns,
                *parent.staged.shape.key,
            }
            if not was_ours and self._may_be_others(reference):
                continue
            yield self._reference(reference, child, parent if was_ours else None)

    def _may_be_others(self, reference: Reference) -> bool:
        """Whether the row may be another clinic's. That no extract returns it is not enough."""
        columns = {f"{reference.child}.{column}" for column in reference.columns}
        return bool(columns & set(self._declared.columns)) or reference.parent in self._declared.rows

    def _reference(self, reference: Reference, child: TableDiff, parent: TableDiff | None) -> Obstacle:
        shape = child.staged.shape
        ours = [sql.SQL("(\n{}\n)").format(sql.SQL(self._queries[reference.parent]))]
        was_ours: sql.Composable = sql.SQL("true")
        if parent is not None:
            ours.append(sql.Composed([parent.staged.present]))
            was_ours = sql.SQL("EXISTS (SELECT FROM {} AS b WHERE {})").format(
                parent.staged.wanted, reference.refers("w", "b")
            )
        names_it_now: sql.Composable = sql.SQL("")
        if shape.key:
            names_it_now = sql.SQL("AND NOT EXISTS (SELECT FROM {} AS p WHERE {} AND {})").format(
                child.staged.present,
                shape.same_key("p", "w"),
                sql.SQL("{} = {}").format(row_text(reference.columns, "p"), row_text(reference.columns, "w")),
            )
        needed = list(dict.fromkeys((*reference.columns, *shape.key)))
        written, at = child.wanted_with_ops
        # In steps: first the few rows that are not the clinic's. Otherwise the planner looks them up row by row.
        query = sql.SQL("""
            WITH w AS MATERIALIZED (SELECT {at} AS {place}, {needed} FROM {written}),
                 t AS MATERIALIZED (SELECT DISTINCT {named}, {lost} AS {is_lost} FROM {parent} AS t JOIN w ON {refers}),
                 other AS MATERIALIZED (SELECT * FROM t WHERE {not_ours})
            SELECT {shown}, w.{place}, CASE WHEN t.{is_lost} THEN 'lost' ELSE 'others' END
              FROM w JOIN other AS t ON {same_parent}
             WHERE {was_ours} {names_it_now}""").format(
            place=sql.Identifier(unused("place", needed)),
            lost=has_lost_clinic(self._ways, reference.parent),
            is_lost=sql.Identifier(unused("lost", needed)),
            needed=columns_of(needed, "w"),
            shown=shown(shape.now, "w"),
            written=written,
            at=at,
            parent=qualified(reference.parent),
            refers=reference.refers("w", "t"),
            was_ours=was_ours,
            names_it_now=names_it_now,
            # NOT (… OR …) would make the planner look them up row by row.
            named=columns_of(reference.columns, "w"),
            same_parent=sql.SQL("{} = {}").format(row_text(reference.columns, "w"), row_text(reference.columns, "t")),
            not_ours=sql.SQL(" AND ").join(
                sql.SQL("NOT EXISTS (SELECT FROM {} AS v WHERE {})").format(rows, reference.refers("t", "v"))
                for rows in ours
            ),
        )

        def says(count: int, keys: str, missing: str) -> Refusal:
            belong = "that belong to another clinic now, or to none"
            back = f"Give those rows of {reference.parent} back first"
            if missing == "lost" and not self._given_to_others(
                reference.parent,
                columns_of(reference.parent_columns, "r"),
                sql.SQL("EXISTS (SELECT FROM {} WHERE {})").format(written, reference.refers("w", "r")),
            ):
                columns = self._link_columns(reference.parent)
                belong = f"that have lost their clinic (no value in {columns} leads to one)"
                back = f"If those rows of {reference.parent} are this clinic's, set {columns} in them again"
            return Refusal(
                shape.name,
                f"{count} rows of {shape.name} would refer to rows of {reference.parent} {belong} ({reference.name}):"
                f" {keys}.",
                f"{back}, or restore without {shape.name}. If {shape.name} may name rows of other clinics, declare the"
                " column in include/sql/not_backed_up.txt.",
            )

        return Obstacle(child, query, says)

    def keys(self, diff: TableDiff) -> Iterator[Obstacle]:
        """Rows to insert whose key another row has by now."""
        yield self._taken_keys(diff)
        if self._ways.of(diff.name):
            yield self._lost_keys(diff)

    def _taken_keys(self, diff: TableDiff) -> Obstacle:
        """Rows to insert whose key another clinic's row, or a row of no clinic, has by now."""
        shape = diff.staged.shape
        lost = has_lost_clinic(self._ways, shape.name)
        query = self._of_keys(diff, sql.SQL("NOT ({})").format(lost))
        defaults = [each.name for each in with_child(self._looked_at, shape.name) if each.on_delete == "d"]
        gave = ""
        if defaults:
            gave = f" If a parent was deleted, ON DELETE SET DEFAULT of {', '.join(defaults)} gave them to another one."
        return Obstacle(
            diff,
            query,
            lambda count, keys, missing: Refusal(
                shape.name,
                f"{count} rows of the backup have keys in {shape.name} that belong to rows outside of this clinic now:"
                f" {keys}.",
                "Nothing in the database shows that the rows with these keys are this clinic's; they may be another"
                " clinic's. If they are this clinic's, correct the columns that name the clinic. Otherwise change"
                " their keys, or restore into another schema." + gave,
            ),
        )

    def _of_keys(self, diff: TableDiff, where: sql.Composable) -> sql.Composed:
        """Operations that insert a key which a row ``t`` has."""
        shape = diff.staged.shape
        return sql.SQL("SELECT {}, o.ctid, NULL FROM {} AS o JOIN {} AS t ON {} WHERE o.op = 'insert' AND {}").format(
            shown(shape.now, "o", shape.op_key), diff.ops, shape.in_sql, shape.is_of("o", "t"), where
        )

    def _lost_keys(self, diff: TableDiff) -> Obstacle:
        """Rows to insert whose key a row has that leads to no clinic, and that is not proven to be this clinic's."""
        table, columns, lost = diff.name, self._link_columns(diff.name), has_lost_clinic(self._ways, diff.name)

        def says(count: int, keys: str, missing: str) -> Refusal:
            shape = diff.staged.shape
            is_among = sql.SQL("EXISTS (SELECT FROM {} AS o WHERE o.op = 'insert' AND {})")
            given = self._given_to_others(table, shape.as_op_key("r"), is_among.format(diff.ops, shape.is_of("o", "r")))
            differ, added = self._differ(diff, lost), self._added(diff, lost)
            found = [
                f"Rows of them that extracts of other clinics return: {given}." if given else "",
                f"Rows of them that differ from the backup in other columns too: {differ}." if differ else "",
                f"Rows of them with a value in a column that the backup does not have: {added}." if added else "",
                "" if given or differ or added else "Another row may have got the key.",
            ]
            return Refusal(
                table,
                f"{count} rows of {table} have keys of the backup's rows and have lost their clinic (no value in"
                f" {columns} leads to one). {' '.join(filter(None, found))} So it cannot be told that they are this"
                f" clinic's: {keys}.",
                f"If they are this clinic's, set {columns} in them again, or add the line `{spelled(table)}: lasting"
                f" keys, reason` to {FILE}: it says that two rows of the table never get the same key and that none"
                " moves to another clinic. Otherwise change their keys, or restore into another schema.",
            )

        return Obstacle(diff, self._of_keys(diff, lost), says)

    def _given_to_others(self, table: str, columns: sql.Composable, among: sql.Composable) -> int:
        """How many of some rows the extracts of other clinics return."""
        if table not in self._queries or table == self._ways.clinic_table:
            return 0
        others = self._ways.of_others(table, columns, among)
        query = sql.SQL("SELECT count(*) FROM (SELECT DISTINCT * FROM {}) AS o").format(others)
        return int(self._workspace.rows(query, None, f"looking for other clinics' rows of {table}")[0][0])

    def _differ(self, diff: TableDiff, lost: sql.Composable) -> int:
        """How many of the rows that have lost their clinic differ from the backup in more than that."""
        shape = diff.staged.shape
        links = columns_of_ways(self._ways.of(shape.name))
        rest = [name for name in shape.columns if name not in links or name in shape.key]
        query = sql.SQL("SELECT count(*) FROM {} AS w JOIN {} AS t ON {} WHERE {} AND {} <> {}").format(
            diff.staged.wanted, shape.in_sql, shape.same_key("w", "t"), lost, row_text(rest, "w"),
            row_text(rest, "t"),
        )  # fmt: skip
        return int(self._workspace.rows(query, None, f"comparing {shape.name}")[0][0])

    def _added(self, diff: TableDiff, lost: sql.Composable) -> int:
        """How many of them have a value, besides a constant default, in a column that the backup does not have."""
        shape = diff.staged.shape
        query = sql.SQL("SELECT count(*) FROM {} AS w JOIN {} AS t ON {} WHERE {} AND NOT {}").format(
            diff.staged.wanted, shape.in_sql, shape.same_key("w", "t"), lost, is_unsaid(shape)
        )
        return int(self._workspace.rows(query, None, f"comparing {shape.name}")[0][0])

    def _link_columns(self, table: str) -> str:
        return ", ".join(columns_of_ways([way for way in self._ways.of(table) if not is_itself(way)]))
