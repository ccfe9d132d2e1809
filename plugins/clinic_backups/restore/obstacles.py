"""Finds rows of the database that make operations of a restore impossible, with one query for each kind."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence

from psycopg2 import sql

from clinic_backups.base.database import qualified
from clinic_backups.base.table import Table
from clinic_backups.restore import former_parts
from clinic_backups.restore.diff import DELETE, UPDATE, TableDiff, is_op
from clinic_backups.restore.obstacle import Obstacle
from clinic_backups.restore.obstacle_sql import (
    and_not_changed,
    and_not_deleted,
    and_not_inserted,
    has_referred,
    none_null,
    plain_text,
    shown,
)
from clinic_backups.restore.ownership.ways import Ways
from clinic_backups.restore.parent_tables import taken
from clinic_backups.restore.plan import Refusal
from clinic_backups.restore.rows_of_others import RowsOfOthers
from clinic_backups.restore.table_rules import Reference, UniqueRule, with_child
from clinic_backups.restore.unique_values import is_comparable, same_values, values_of
from clinic_backups.restore.workspace import Workspace
from clinic_backups.tenant.declarations import Declarations


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
        former: former_parts.Former,
        parents: Collection[str] = (),
        inside: Collection[Reference] = (),
    ) -> None:
        self._parents, self._inside = parents, inside
        self._diffs, self._tables, self._declared, self._former = diffs, tables, declared, former
        self._looked_at = [reference for reference in references if reference.is_visible]
        self._others = RowsOfOthers(workspace, diffs, self._looked_at, declared, ways, inside)

    def all(self) -> Iterator[Obstacle]:
        """All obstacles. A query that finds no row means that there is no obstacle."""
        yield from former_parts.obstacles(self._diffs, self._former)
        yield from self._others.references()
        for diff in self._diffs.values():
            shape, writes = diff.staged.shape, diff.plan.insert or diff.plan.update
            if diff.plan.insert and shape.key:
                yield from self._others.keys(diff)
            if writes and shape.key:
                for rule in shape.rules.unique:
                    yield from self._taken_values(diff, rule)
            if writes:
                for reference in with_child(self._looked_at, shape.name):
                    if reference not in self._inside:
                        yield from self._missing_parents(diff, reference)
        for reference in self._looked_at:
            parent = self._diffs.get(reference.parent)
            if parent is None or reference.child in self._declared.derived:
                continue
            if parent.plan.delete:
                yield from self._orphans(reference, DELETE)
            if set(reference.parent_columns) & set(parent.plan.columns):
                yield from self._orphans(reference, UPDATE)

    def _taken_values(self, diff: TableDiff, rule: UniqueRule) -> Iterator[Obstacle]:
        """Rows to write whose unique value a row outside of the restore has by now."""
        shape = diff.staged.shape
        if not is_comparable(shape, rule):
            return  # the rehearsal finds it
        query = sql.SQL("""
            SELECT {shown}, o.ctid, NULL FROM {wanted} AS a JOIN {there} AS b ON {same_values}
              JOIN {ops} AS o ON o.op <> 'delete' AND {own}
             WHERE NOT ({same_key})
               AND NOT EXISTS (SELECT FROM {ops} AS d WHERE d.op <> 'insert' AND {in_ops})""")
        queries = [
            query.format(
                shown=shown(shape.now, "a", shape.op_key),
                wanted=values_of(shape, rule, sql.SQL("({})").format(diff.written)),
                there=values_of(shape, rule, shape.in_sql),
                same_values=same,
                same_key=shape.same_op_key("a", "b"),
                ops=diff.ops,
                in_ops=shape.same_op_key("d", "b"),
                own=shape.same_op_key("o", "a"),
            )
            for same in same_values(shape, rule, "a", "b")
        ]
        yield Obstacle(
            diff,
            sql.SQL(" UNION ALL ").join(queries),
            lambda count, keys, missing: (
                taken(shape.name, count, rule.name)
                if shape.name in self._parents
                else Refusal(
                    shape.name,
                    f"{count} rows of the backup have unique values in {shape.name} that rows outside of the restore"
                    f" have now ({rule.name}): {keys}.",
                    f"Give those rows of {shape.name} other values, or restore without this table.",
                )
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
        with_it = parent is None and (reference.parent in self._tables or reference.parent in self._parents)
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
