"""Finds rows of the database that make operations of a restore impossible, with one query for each kind."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from psycopg2 import sql

from clinic_backups.base.database import qualified
from clinic_backups.base.model import Table
from clinic_backups.base.text import unused
from clinic_backups.restore.diff import TableDiff
from clinic_backups.restore.model import Refusal
from clinic_backups.restore.rules import Reference, UniqueRule, compare, with_child
from clinic_backups.restore.shape import PLAIN_KEY_TYPES, has_plain_key
from clinic_backups.restore.ways import Ways
from clinic_backups.restore.workspace import columns_of, row_text
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
    """The kinds of obstacles; see :class:`~clinic_backups.restore.checks.Checks`."""

    def __init__(
        self,
        diffs: Mapping[str, TableDiff],
        tables: Mapping[str, Table],
        references: Sequence[Reference],
        declared: Declarations,
        ways: Ways,
    ) -> None:
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
                 t AS MATERIALIZED (SELECT DISTINCT {named} FROM {parent} AS t JOIN w ON {refers}),
                 other AS MATERIALIZED (SELECT * FROM t WHERE {not_ours})
            SELECT {shown}, w.{place}, NULL FROM w JOIN other AS t ON {same_parent}
             WHERE {was_ours} {names_it_now}""").format(
            place=sql.Identifier(unused("place", needed)),
            needed=columns_of(needed, "w"),
            shown=_shown(shape.now, "w"),
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
        return Obstacle(
            child,
            query,
            lambda count, keys, missing: Refusal(
                shape.name,
                f"{count} rows of {shape.name} would refer to rows of {reference.parent} that belong to another"
                f" clinic now, or to none ({reference.name}): {keys}.",
                f"Give those rows of {reference.parent} back first, or restore without {shape.name}. If {shape.name}"
                f" may name rows of other clinics, declare the column in include/sql/not_backed_up.txt.",
            ),
        )

    def all(self) -> Iterator[Obstacle]:
        """All obstacles. A query that finds no row means that there is no obstacle."""
        yield from self.of_strangers()
        for diff in self._diffs.values():
            shape, writes = diff.staged.shape, diff.plan.insert or diff.plan.update
            if diff.plan.insert and shape.key:
                yield self._taken_keys(diff)
            if writes and shape.key:
                for rule in shape.rules.unique:
                    yield from self._taken_values(diff, rule)
            if writes:
                for reference in with_child(self._looked_at, shape.name):
                    yield from self._missing_parents(diff, reference)
        for reference in self._looked_at:
            parent = self._diffs.get(reference.parent)
            if parent is not None and parent.plan.delete and reference.child not in self._declared.derived:
                yield from self._orphans(reference)

    def _taken_keys(self, diff: TableDiff) -> Obstacle:
        """Rows to insert whose key another clinic's row, or a row of no clinic, has by now."""
        shape = diff.staged.shape
        query = sql.SQL("SELECT {}, o.ctid, NULL FROM {} AS o JOIN {} AS t ON {} WHERE o.op = 'insert'").format(
            _shown(shape.now, "o", shape.op_key), diff.ops, qualified(shape.name), shape.is_of("o", "t")
        )
        defaults = [each.name for each in with_child(self._looked_at, shape.name) if each.on_delete == "d"]
        gave = ""
        if defaults:
            gave = f" If a parent was deleted, ON DELETE SET DEFAULT of {', '.join(defaults)} gave them to another one."
        lasting = (
            f" If this clinic's rows lost their link and were changed afterwards: add the line `{spelled(shape.name)}:"
            f" lasting keys, reason` to {FILE}, if two rows of the table never get the same key and none moves to"
            " another clinic."
        )
        return Obstacle(
            diff,
            query,
            lambda count, keys, missing: Refusal(
                shape.name,
                f"{count} rows of the backup have keys in {shape.name} that belong to rows outside of this clinic now:"
                f" {keys}.",
                "These rows belong to another clinic now, or only the backup says that they belong to this one. Give"
                " them back, or change their keys, or restore into another schema." + lasting + gave,
            ),
        )

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
            shown=_shown(shape.now, "a", shape.op_key),
            wanted=side.format(
                keys=keys, values=values, rows=sql.SQL("({})").format(diff.written), predicate=predicate
            ),
            there=side.format(keys=keys, values=values, rows=qualified(shape.name), predicate=predicate),
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
        written, at = diff.wanted_with_ops
        query = sql.SQL("""
            SELECT {shown}, {at}, {missing} FROM {written}
             WHERE {all_set}
               AND NOT EXISTS (SELECT FROM {parent} AS t WHERE {refers} {not_deleted}) {not_inserted}""").format(
            shown=_shown(shape.now, "w"),
            missing=_plain_text(shape.now, reference.columns, "w"),
            written=written,
            at=at,
            all_set=_none_null(reference.columns, "w"),
            parent=qualified(reference.parent),
            refers=reference.refers("w", "t"),
            not_deleted=_and_not_deleted(parent, "t"),
            not_inserted=_and_not_inserted(parent, reference, "w"),
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

    def _orphans(self, reference: Reference) -> Iterator[Obstacle]:
        """Rows that stay and refer to a row that would be deleted."""
        parent, own = self._diffs[reference.parent], self._diffs.get(reference.child)
        shape = parent.staged.shape
        if not set(reference.parent_columns) <= {*shape.columns, *shape.key}:
            return
        query = sql.SQL("""
            SELECT {shown}, o.ctid, NULL FROM {ops} AS o JOIN {gone} AS g ON {same} JOIN {child} AS c ON {refers}
             WHERE o.op = 'delete' {not_deleted} {not_changed} {not_inserted}""").format(
            shown=_shown(self._tables[reference.child], "c"),
            ops=parent.ops,
            gone=parent.staged.present,
            same=parent.joins("g"),
            child=qualified(reference.child),
            refers=reference.refers("c", "g"),
            not_deleted=_and_not_deleted(own, "c"),
            not_changed=_and_not_changed(own, reference),
            not_inserted=_and_not_inserted(parent, reference, "c"),
        )
        yield Obstacle(
            parent,
            query,
            lambda count, keys, missing: Refusal(
                reference.parent,
                f"{count} rows of {reference.child} refer to rows of {reference.parent} that the restore would delete"
                f" ({reference.name}): {keys}.",
                f"Delete or change these rows of {reference.child} first, or restore with the mode `missing`. If the"
                f" application makes them again, declare {reference.child} derived in include/sql/not_backed_up.txt.",
            ),
        )


def _and_not_deleted(diff: TableDiff | None, alias: str) -> sql.Composable:
    if diff is None or not diff.plan.delete:
        return sql.SQL("")
    return sql.SQL("AND NOT EXISTS (SELECT FROM {} AS d WHERE d.op = 'delete' AND {})").format(
        diff.ops, diff.joins(alias, "d")
    )


def _and_not_inserted(diff: TableDiff | None, reference: Reference, child: str) -> sql.Composable:
    """The parent is not among the rows that come back or get the referenced value."""
    if diff is None or not diff.plan.insert + diff.plan.update:
        return sql.SQL("")
    shape = diff.staged.shape
    if not set(reference.parent_columns) <= {*shape.columns, *shape.key}:
        return sql.SQL("")
    if diff.whole:
        return sql.SQL("AND NOT EXISTS (SELECT FROM {} AS iw WHERE {})").format(
            diff.staged.wanted, reference.refers(child, "iw")
        )
    return sql.SQL("AND NOT EXISTS (SELECT FROM {} AS i JOIN {} AS iw ON {} WHERE i.op <> 'delete' AND {})").format(
        diff.ops, diff.staged.wanted, diff.joins("iw", "i"), reference.refers(child, "iw")
    )


def _and_not_changed(diff: TableDiff | None, reference: Reference) -> sql.Composable:
    """The restore does not itself make the child's row refer to another parent."""
    if diff is None or not diff.plan.update or not set(reference.columns) & set(diff.plan.columns):
        return sql.SQL("")
    shape = diff.staged.shape
    return sql.SQL(
        "AND NOT EXISTS (SELECT FROM {} AS u JOIN {} AS uw ON {} WHERE u.op = 'update' AND {}"
        " AND NOT COALESCE({}, false))"
    ).format(
        diff.ops,
        diff.staged.wanted,
        shape.is_of("u", "uw"),
        shape.is_of("u", "c"),
        reference.refers("uw", "g"),
    )


def _shown(table: Table, alias: str, key: Sequence[str] = ()) -> sql.Composable:
    """A row's key as text; empty if it may be more than a number.

    ``key``: its columns, if they have other names there.
    """
    if not has_plain_key(table):
        return sql.SQL("''")
    return sql.SQL("concat_ws(', ', {})").format(columns_of(key or table.primary_key, alias))


def _plain_text(table: Table, columns: Sequence[str], alias: str) -> sql.Composable:
    """Columns as text if a database made up all their numbers; otherwise NULL."""
    types = {column.name: column.type for column in table.columns}
    if any(types[name] not in PLAIN_KEY_TYPES for name in columns):
        return sql.SQL("NULL")
    return sql.SQL("concat_ws(', ', {})").format(columns_of(columns, alias))


def _none_null(columns: Sequence[str], alias: str) -> sql.Composed:
    return sql.SQL(" AND ").join(sql.SQL("{} IS NOT NULL").format(sql.Identifier(alias, name)) for name in columns)
