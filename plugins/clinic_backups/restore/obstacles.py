"""Finds rows of the database that make operations of a restore impossible, with one query for each kind."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from psycopg2 import sql

from clinic_backups.base.database import qualified
from clinic_backups.base.table import Table
from clinic_backups.base.text import unused
from clinic_backups.restore.diff import DELETE, UPDATE, TableDiff, is_op
from clinic_backups.restore.obstacle_sql import (
    and_not_changed,
    and_not_deleted,
    and_not_inserted,
    has_referred,
    is_itself,
    none_null,
    plain_text,
    shown,
)
from clinic_backups.restore.ownership.conditions import has_lost_clinic, is_unsaid
from clinic_backups.restore.ownership.ways import Ways, columns_of_ways
from clinic_backups.restore.plan import Refusal
from clinic_backups.restore.table_rules import Reference, UniqueRule, compare, with_child
from clinic_backups.restore.workspace import Workspace, columns_of, row_text
from clinic_backups.tenant.declarations import FILE, Declarations, spelled


@dataclass(frozen=True)
class Obstacle:
    """Rows that prevent operations.

    :param diff: the table whose operations are impossible.
    :param query: for each such row its key as text, the position of the operation in ``diff.ops``, and the key that is
        missing elsewhere, if that is the reason.
    :param says: makes the refusal from the number of rows, some of their keys, and some of the missing keys.
    :param by_application: the query calls functions that may need the application's search path.
    """

    diff: TableDiff
    query: sql.Composed
    says: Callable[[int, str, str], Refusal]
    by_application: bool = False


class Obstacles:
    """Finds each kind of obstacle with one query."""

    def __init__(
        self,
        workspace: Workspace,
        diffs: Mapping[str, TableDiff],
        tables: Mapping[str, Table],
        references: Sequence[Reference],
        declared: Declarations,
        ways: Ways,
    ) -> None:
        self._workspace = workspace
        self._diffs, self._tables, self._declared, self._ways = diffs, tables, declared, ways
        self._queries = ways.queries
        # PostgreSQL checks references to tables that this role may not read, and those of a single partition.
        self._looked_at = [
            reference
            for reference in references
            if reference.whole and reference.child_readable and reference.parent_readable
        ]

    def of_strangers(self) -> Iterator[Obstacle]:
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
            yield self._of_strangers(reference, child, parent if was_ours else None)

    def _may_be_others(self, reference: Reference) -> bool:
        """Whether the row may be another clinic's. That no extract returns it is not enough."""
        columns = {f"{reference.child}.{column}" for column in reference.columns}
        return bool(columns & set(self._declared.columns)) or reference.parent in self._declared.rows

    def _of_strangers(self, reference: Reference, child: TableDiff, parent: TableDiff | None) -> Obstacle:
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

    def all(self) -> Iterator[Obstacle]:
        """All obstacles. A query that finds no row means that there is no obstacle."""
        yield from self.of_strangers()
        for diff in self._diffs.values():
            shape, writes = diff.staged.shape, diff.plan.insert or diff.plan.update
            if diff.plan.insert and shape.key:
                yield self._taken_keys(diff)
                if self._ways.of(shape.name):
                    yield self._lost_keys(diff)
            if writes and shape.key:
                for rule in shape.rules.unique:
                    yield from self._taken_values(diff, rule)
            if writes:
                for reference in with_child(self._looked_at, shape.name):
                    yield from self._missing_parents(diff, reference)
        for reference in self._looked_at:
            parent = self._diffs.get(reference.parent)
            if parent is None or reference.child in self._declared.derived:
                continue
            if parent.plan.delete:
                yield from self._orphans(reference, DELETE)
            if set(reference.parent_columns) & set(parent.plan.columns):
                yield from self._orphans(reference, UPDATE)

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

    def _taken_values(self, diff: TableDiff, rule: UniqueRule) -> Iterator[Obstacle]:
        """Rows to write whose unique value a row outside of the restore has by now."""
        shape = diff.staged.shape
        known = {*shape.columns, *(column.name for column in shape.computed)}
        if (
            rule.exclusion
            or rule.of_partition
            or len(rule.operators) != len(rule.expressions)
            or not set(rule.columns) <= known
        ):
            return  # the rehearsal finds it
        names = [sql.Identifier(f"e{number}") for number, _ in enumerate(rule.expressions)]
        values = sql.SQL(", ").join(
            sql.SQL("{} AS {}").format(sql.SQL(expression), name)
            for expression, name in zip(rule.expressions, names, strict=True)
        )
        keys = shape.as_op_key("w")
        side = sql.SQL("(SELECT {keys}, {values} FROM {rows} AS w WHERE {predicate})")
        predicate = sql.SQL(rule.predicate or "true")
        query = sql.SQL("""
            SELECT {shown}, o.ctid, NULL FROM {wanted} AS a JOIN {there} AS b ON {same_values}
              JOIN {ops} AS o ON o.op <> 'delete' AND {own}
             WHERE NOT ({same_key})
               AND NOT EXISTS (SELECT FROM {ops} AS d WHERE d.op <> 'insert' AND {in_ops})""").format(
            shown=shown(shape.now, "a", shape.op_key),
            wanted=side.format(
                keys=keys, values=values, rows=sql.SQL("({})").format(diff.written), predicate=predicate
            ),
            there=side.format(keys=keys, values=values, rows=shape.in_sql, predicate=predicate),
            same_values=compare(
                [sql.SQL("a.{}").format(name) for name in names],
                rule.operators,
                [sql.SQL("b.{}").format(name) for name in names],
            ),
            same_key=shape.same_op_key("a", "b"),
            ops=diff.ops,
            in_ops=shape.same_op_key("d", "b"),
            own=shape.same_op_key("o", "a"),
        )
        yield Obstacle(
            diff,
            query,
            lambda count, keys, missing: Refusal(
                shape.name,
                f"{count} rows of the backup have unique values in {shape.name} that rows outside of the restore have"
                f" now ({rule.name}): {keys}.",
                f"Give those rows of {shape.name} other values, or restore without this table.",
            ),
            by_application=True,
        )

    def _missing_parents(self, diff: TableDiff, reference: Reference) -> Iterator[Obstacle]:
        """Rows to write that refer to a row which will not exist."""
        shape, parent = diff.staged.shape, self._diffs.get(reference.parent)
        if not set(reference.columns) <= set(shape.columns):
            return
        if parent is not None and parent.plan.insert + parent.plan.update and not has_referred(parent, reference):
            return  # the rehearsal finds it: rows that come back get values that only the database computes
        written, at = diff.wanted_with_ops
        query = sql.SQL("""
            SELECT {shown}, {at}, {missing} FROM {written}
             WHERE {all_set}
               AND NOT EXISTS (SELECT FROM {parent} AS t WHERE {refers} {not_deleted}) {not_inserted}""").format(
            shown=shown(shape.now, "w"),
            missing=plain_text(shape.now, reference.columns, "w"),
            written=written,
            at=at,
            all_set=none_null(reference.columns, "w"),
            parent=qualified(reference.parent),
            refers=reference.refers("w", "t"),
            not_deleted=and_not_deleted(parent, "t"),
            not_inserted=and_not_inserted(parent, reference, "w"),
        )
        with_it = parent is None and reference.parent in self._tables
        where = ", ".join(reference.parent_columns)

        def says(count: int, keys: str, missing: str) -> Refusal:
            return Refusal(
                shape.name,
                f"{count} rows of {shape.name} refer to rows of {reference.parent} that do not exist"
                f" ({reference.name}).{f' Missing: {where} {missing}.' if missing else ''} The rows: {keys}.",
                f"Restore {reference.parent} with it."
                if with_it
                else f"Bring the rows of {reference.parent} back first{' with these keys' if missing else ''}.",
            )

        yield Obstacle(diff, query, says)

    def _orphans(self, reference: Reference, operation: str) -> Iterator[Obstacle]:
        """Rows that stay and refer to a row that would be deleted, or whose referenced values would change."""
        parent, own = self._diffs[reference.parent], self._diffs.get(reference.child)
        if not has_referred(parent, reference):
            return
        query = sql.SQL("""
            SELECT {shown}, o.ctid, NULL FROM {ops} AS o JOIN {gone} AS g ON {same} JOIN {child} AS c ON {refers}
             WHERE {is_op} {not_deleted} {not_changed} {not_inserted}""").format(
            shown=shown(self._tables[reference.child], "c"),
            is_op=is_op("o", operation),
            ops=parent.ops,
            gone=parent.staged.present,
            same=parent.joins("g"),
            child=qualified(reference.child),
            refers=reference.refers("c", "g"),
            not_deleted=and_not_deleted(own, "c"),
            not_changed=and_not_changed(own, reference),
            not_inserted=and_not_inserted(parent, reference, "c"),
        )
        columns = ", ".join(reference.parent_columns)
        gone = "rows" if operation == DELETE else f"values of {columns}"
        does = "delete" if operation == DELETE else "change"
        yield Obstacle(
            parent,
            query,
            lambda count, keys, missing: Refusal(
                reference.parent,
                f"{count} rows of {reference.child} refer to {gone} of {reference.parent} that the restore would {does}"
                f" ({reference.name}): {keys}.",
                f"Delete or change these rows of {reference.child} first, or restore with the mode `missing`. If the"
                f" application makes them again, declare {reference.child} derived in include/sql/not_backed_up.txt.",
            ),
        )
