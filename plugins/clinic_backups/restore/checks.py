"""What makes a restore impossible: looked for by name before anything is written, so that the plan can list it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from graphlib import CycleError, TopologicalSorter

from psycopg2 import sql

from clinic_backups.model import ForeignKey, Table
from clinic_backups.restore.diff import DELETE, INSERT, UPDATE, TableDiff
from clinic_backups.restore.model import Refusal
from clinic_backups.restore.shape import has_plain_key
from clinic_backups.restore.workspace import Workspace, columns_of, qualified, same_key

SHOWN = 5


def order(diffs: Mapping[str, TableDiff], tables: Mapping[str, Table]) -> tuple[list[str], list[Refusal]]:
    """The tables with parents before their children; deferrable constraints are deferred and do not count.

    A table's constraints to itself do not count either: one statement writes all its rows.
    """
    graph = {
        name: {
            key.references
            for key in tables[name].foreign_keys
            if not key.deferrable and key.references in diffs and key.references != name
        }
        for name in sorted(diffs)
    }
    try:
        return list(TopologicalSorter(graph).static_order()), []
    except CycleError as error:
        cycle = error.args[1]
        names = [
            key.name
            for child, parent in zip(cycle[1:], cycle, strict=False)
            for key in tables[child].foreign_keys
            if key.references == parent and not key.deferrable
        ]
        message = f"{' and '.join(sorted(set(cycle)))} refer to each other by constraints that cannot be deferred"
        return sorted(diffs), [
            Refusal(
                cycle[0],
                f"{message}: {', '.join(sorted(names))}.",
                "Make one of them deferrable: ALTER TABLE … ALTER CONSTRAINT … DEFERRABLE.",
            )
        ]


class Checks:
    """Looks for refusals.

    :param tables: everything that PostgreSQL says of the restored tables and of those that refer to them.
    """

    def __init__(self, workspace: Workspace, diffs: Mapping[str, TableDiff], tables: Mapping[str, Table]) -> None:
        self._workspace, self._diffs, self._tables = workspace, diffs, tables

    def run(self) -> Iterator[Refusal]:
        """All refusals, table by table."""
        for diff in self._diffs.values():
            shape = diff.staged.shape
            if diff.plan.insert and shape.on_insert is not None:
                yield shape.on_insert
            if diff.plan.insert and shape.key:
                yield from self._taken_keys(diff)
            if diff.plan.insert or diff.plan.update:
                for key in shape.now.foreign_keys:
                    yield from self._missing_parents(diff, key)
        for name, table in self._tables.items():
            for key in table.foreign_keys:
                if key.references in self._diffs and self._diffs[key.references].plan.delete:
                    yield from self._orphans(name, key)

    def _taken_keys(self, diff: TableDiff) -> Iterator[Refusal]:
        """A row that is to come back, and whose key another clinic's row, or nobody's, has by now."""
        shape = diff.staged.shape
        query = sql.SQL("SELECT {} FROM {} AS o JOIN {} AS t ON {} WHERE o.op = 'insert'").format(
            _shown(shape.now, "o"), diff.ops, qualified(shape.name), same_key(shape.key, "o", "t")
        )
        count, keys = self._found(query)
        if count:
            yield Refusal(
                shape.name,
                f"{count} rows of the backup have keys in {shape.name} that belong to rows outside of this clinic now:"
                f" {keys}.",
                "Somebody gave these keys away: move those rows, or restore into another schema.",
            )

    def _missing_parents(self, diff: TableDiff, key: ForeignKey) -> Iterator[Refusal]:
        """A row to write that refers to a row which will not be there."""
        shape, parent = diff.staged.shape, self._diffs.get(key.references)
        if not set(key.columns) <= set(shape.columns):
            return
        query = sql.SQL("""
            SELECT {shown} FROM {ops} AS o JOIN {wanted} AS w ON {same}
             WHERE o.op IN ('insert', 'update') AND {all_set}
               AND NOT EXISTS (SELECT FROM {parent} AS t WHERE {refers} {not_deleted}) {not_inserted}""").format(
            shown=_shown(shape.now, "w"),
            ops=diff.ops,
            wanted=diff.staged.wanted,
            same=_join_ops(diff, "w"),
            all_set=_none_null(key.columns, "w"),
            parent=qualified(key.references),
            refers=_pairs(key.columns, "w", key.references_columns, "t"),
            not_deleted=self._and_not_deleted(parent, "t"),
            not_inserted=self._and_not_inserted(parent, key),
        )
        count, keys = self._found(query)
        if count:
            named = parent is None and key.references in self._backed_up
            yield Refusal(
                shape.name,
                f"{count} rows of {shape.name} refer to rows of {key.references} that are not there"
                f" ({key.name}): {keys}.",
                f"Restore {key.references} with it." if named else f"Bring the rows of {key.references} back first.",
            )

    @property
    def _backed_up(self) -> set[str]:
        return {name for name in self._tables if name not in self._diffs}

    def _orphans(self, child: str, key: ForeignKey) -> Iterator[Refusal]:
        """A row that stays and refers to a row that would vanish."""
        parent, own = self._diffs[key.references], self._diffs.get(child)
        if not parent.staged.shape.key or not set(key.references_columns) <= set(parent.staged.shape.columns):
            return
        table = self._tables[child]
        query = sql.SQL("""
            SELECT {shown} FROM {ops} AS o JOIN {gone} AS g ON {same} JOIN {child} AS c ON {refers}
             WHERE o.op = 'delete' {not_deleted} {not_changed}""").format(
            shown=_shown(table, "c"),
            ops=parent.ops,
            gone=parent.staged.present,
            same=same_key(parent.staged.shape.key, "o", "g"),
            child=qualified(child),
            refers=_pairs(key.columns, "c", key.references_columns, "g"),
            not_deleted=self._and_not_deleted(own, "c"),
            not_changed=self._and_not_changed(own, key),
        )
        count, keys = self._found(query)
        if count:
            yield Refusal(
                key.references,
                f"{count} rows of {child} refer to rows of {key.references} that the restore would delete"
                f" ({key.name}): {keys}.",
                f"Delete or change these rows of {child} first, or restore with the mode `missing`.",
            )

    def _and_not_deleted(self, diff: TableDiff | None, alias: str) -> sql.Composable:
        if diff is None or not diff.plan.delete or not diff.staged.shape.key:
            return sql.SQL("")
        return sql.SQL("AND NOT EXISTS (SELECT FROM {} AS d WHERE d.op = 'delete' AND {})").format(
            diff.ops, same_key(diff.staged.shape.key, "d", alias)
        )

    def _and_not_inserted(self, diff: TableDiff | None, key: ForeignKey) -> sql.Composable:
        if diff is None or not diff.plan.insert or not set(key.references_columns) <= set(diff.staged.shape.columns):
            return sql.SQL("")
        return sql.SQL(
            "AND NOT EXISTS (SELECT FROM {} AS i JOIN {} AS iw ON {} WHERE i.op = 'insert' AND {})"
        ).format(
            diff.ops, diff.staged.wanted, _join_ops(diff, "iw", "i"),
            _pairs(key.columns, "w", key.references_columns, "iw"),
        )  # fmt: skip

    def _and_not_changed(self, diff: TableDiff | None, key: ForeignKey) -> sql.Composable:
        """Rows of the child that the restore itself points elsewhere."""
        if diff is None or not diff.plan.update or not set(key.columns) <= set(diff.staged.shape.columns):
            return sql.SQL("")
        shape = diff.staged.shape
        return sql.SQL(
            "AND NOT EXISTS (SELECT FROM {} AS u JOIN {} AS uw ON {} WHERE u.op = 'update' AND {} AND ({}) IS DISTINCT"
            " FROM ({}))"
        ).format(
            diff.ops, diff.staged.wanted, same_key(shape.key, "u", "uw"), same_key(shape.key, "u", "c"),
            _row(key.columns, "uw"), _row(key.columns, "c"),
        )  # fmt: skip

    def _found(self, query: sql.Composed) -> tuple[int, str]:
        """How many rows, and some of their keys."""
        ((count, keys),) = self._workspace.rows(
            sql.SQL("SELECT count(*), (array_agg(shown ORDER BY shown))[1:{}] FROM ({}) AS f (shown)").format(
                sql.Literal(SHOWN), query
            ),
            None,
            "looking for what stands in the way",
        )
        shown = "; ".join(filter(None, keys or ())) or "keys that are not shown"
        return int(count), shown + ("; …" if count > SHOWN else "")


def triggers(workspace: Workspace, diffs: Mapping[str, TableDiff]) -> dict[str, tuple[list[str], bool]]:
    """Enabled user triggers that the planned writes would fire, and whether this role may turn them off."""
    events = {INSERT: 4, DELETE: 8, UPDATE: 16}  # bits of pg_trigger.tgtype
    found: dict[str, tuple[list[str], bool]] = {}
    for diff in diffs.values():
        counts = {INSERT: diff.plan.insert, UPDATE: diff.plan.update, DELETE: diff.plan.delete}
        mask = sum(events[op] for op, count in counts.items() if count)
        rows = workspace.rows(
            "SELECT t.tgname, pg_has_role(c.relowner, 'USAGE') FROM pg_trigger AS t JOIN pg_class AS c"
            " ON c.oid = t.tgrelid WHERE t.tgrelid = to_regclass(%(table)s) AND NOT t.tgisinternal"
            " AND t.tgenabled IN ('O', 'A') AND t.tgtype & %(mask)s <> 0 ORDER BY t.tgname",
            {"table": qualified(diff.name).as_string(workspace.connection), "mask": mask},
            "reading the triggers",
        )
        if rows:
            found[diff.name] = ([name for name, _ in rows], all(may for _, may in rows))
    return found


def _join_ops(diff: TableDiff, alias: str, ops: str = "o") -> sql.Composable:
    shape = diff.staged.shape
    if shape.key:
        return same_key(shape.key, ops, alias)
    return sql.SQL("{}.row_text = ROW({})::text").format(sql.Identifier(ops), columns_of(shape.columns, alias))


def _shown(table: Table, alias: str) -> sql.Composable:
    """A row's key as text; empty where it may be more than a number."""
    if not has_plain_key(table):
        return sql.SQL("''")
    return sql.SQL("concat_ws(', ', {})").format(columns_of(table.primary_key, alias))


def _row(columns: Sequence[str], alias: str) -> sql.Composed:
    return sql.SQL("ROW({})").format(columns_of(columns, alias))


def _none_null(columns: Sequence[str], alias: str) -> sql.Composed:
    return sql.SQL(" AND ").join(sql.SQL("{} IS NOT NULL").format(sql.Identifier(alias, name)) for name in columns)


def _pairs(left: Sequence[str], left_alias: str, right: Sequence[str], right_alias: str) -> sql.Composed:
    return sql.SQL(" AND ").join(
        sql.SQL("{} = {}").format(sql.Identifier(left_alias, one), sql.Identifier(right_alias, other))
        for one, other in zip(left, right, strict=True)
    )
