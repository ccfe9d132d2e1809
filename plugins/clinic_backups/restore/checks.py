"""What makes a restore impossible: looked for by name before anything is written, so that the plan can list it."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence

from psycopg2 import sql

from clinic_backups.errors import PermanentError
from clinic_backups.model import Table
from clinic_backups.restore.diff import TableDiff
from clinic_backups.restore.model import Refusal
from clinic_backups.restore.rules import Reference, UniqueRule, compare, with_child
from clinic_backups.restore.shape import has_plain_key
from clinic_backups.restore.workspace import Workspace, columns_of, qualified

SHOWN = 5


class Checks:
    """Looks for refusals.

    :param tables: what PostgreSQL says of the restored tables and of those that refer to them.
    :param references: the foreign keys from and to the restored tables.
    :param derived: tables whose rows are deleted where they stand in the way.
    """

    def __init__(
        self,
        workspace: Workspace,
        diffs: Mapping[str, TableDiff],
        tables: Mapping[str, Table],
        references: Sequence[Reference],
        derived: Collection[str] = (),
    ) -> None:
        self._workspace, self._diffs, self._tables = workspace, diffs, tables
        self._derived = derived
        # What this role may not read, and what is true of one partition alone, is PostgreSQL's to check.
        self._looked_at = [
            reference
            for reference in references
            if reference.whole and reference.child_readable and reference.parent_readable
        ]

    def run(self) -> Iterator[Refusal]:
        """All refusals, table by table."""
        for diff in self._diffs.values():
            shape, writes = diff.staged.shape, diff.plan.insert or diff.plan.update
            yield from self._missing_rights(diff)
            if writes:
                yield from shape.on_write
            if diff.plan.insert and shape.on_insert is not None:
                yield shape.on_insert
            if diff.plan.insert and shape.key:
                yield from self._taken_keys(diff)
            if writes and shape.key:
                for rule in shape.rules.unique:
                    yield from self._taken_values(diff, rule)
            if writes:
                for reference in with_child(self._looked_at, shape.name):
                    yield from self._missing_parents(diff, reference)
        for reference in self._looked_at:
            parent = self._diffs.get(reference.parent)
            if parent is not None and parent.plan.delete and reference.child not in self._derived:
                yield from self._orphans(reference)

    def _missing_rights(self, diff: TableDiff) -> Iterator[Refusal]:
        plan = diff.plan
        wanted = {"INSERT": plan.insert + diff.moving, "UPDATE": plan.update, "DELETE": plan.delete + diff.moving}
        missing = [right for right in diff.staged.shape.rules.missing_rights if wanted.get(right)]
        if missing:
            role = self._workspace.role()
            rights = ", ".join(missing)
            yield Refusal(
                diff.name,
                f"The role {role} of connection restore_db may not {rights} in {diff.name}.",
                f"GRANT {rights} ON {diff.name} TO {role};",
            )

    def _taken_keys(self, diff: TableDiff) -> Iterator[Refusal]:
        """A row that is to come back, and whose key another clinic's row, or nobody's, has by now."""
        shape = diff.staged.shape
        query = sql.SQL("SELECT {} FROM {} AS o JOIN {} AS t ON {} WHERE o.op = 'insert'").format(
            _shown(shape.now, "o", shape.op_key), diff.ops, qualified(shape.name), shape.is_of("o", "t")
        )
        count, keys = self._found(query)
        if count:
            yield Refusal(
                shape.name,
                f"{count} rows of the backup have keys in {shape.name} that belong to rows outside of this clinic now:"
                f" {keys}.",
                "Somebody gave these keys away: move those rows, or restore into another schema.",
            )

    def _taken_values(self, diff: TableDiff, rule: UniqueRule) -> Iterator[Refusal]:
        """A unique value that is to come back, and that a row outside of the restore has by now."""
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
            SELECT {shown} FROM {wanted} AS a JOIN {there} AS b ON {same_values}
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
        )
        try:
            # An index may be made with a function that looks tables up by the application's search path.
            with self._workspace.savepoint():
                self._workspace.execute("SET LOCAL search_path TO DEFAULT", "setting the search path")
                count, keys_shown = self._found(query)
        except PermanentError:
            return  # the rehearsal finds it
        if count:
            yield Refusal(
                shape.name,
                f"{count} rows of the backup have unique values in {shape.name} that rows outside of the restore have"
                f" now ({rule.name}): {keys_shown}.",
                f"Give those rows of {shape.name} other values, or restore without this table.",
            )

    def _missing_parents(self, diff: TableDiff, reference: Reference) -> Iterator[Refusal]:
        """A row to write that refers to a row which will not be there."""
        shape, parent = diff.staged.shape, self._diffs.get(reference.parent)
        if not set(reference.columns) <= set(shape.columns):
            return
        query = sql.SQL("""
            SELECT {shown} FROM {ops} AS o JOIN {wanted} AS w ON {same}
             WHERE o.op IN ('insert', 'update') AND {all_set}
               AND NOT EXISTS (SELECT FROM {parent} AS t WHERE {refers} {not_deleted}) {not_inserted}""").format(
            shown=_shown(shape.now, "w"),
            ops=diff.ops,
            wanted=diff.staged.wanted,
            same=_join_ops(diff, "w"),
            all_set=_none_null(reference.columns, "w"),
            parent=qualified(reference.parent),
            refers=reference.refers("w", "t"),
            not_deleted=_and_not_deleted(parent, "t"),
            not_inserted=_and_not_inserted(parent, reference, "w"),
        )
        count, keys = self._found(query)
        if count:
            named = parent is None and reference.parent in self._tables
            yield Refusal(
                shape.name,
                f"{count} rows of {shape.name} refer to rows of {reference.parent} that are not there"
                f" ({reference.name}): {keys}.",
                f"Restore {reference.parent} with it."
                if named
                else f"Bring the rows of {reference.parent} back first.",
            )

    def _orphans(self, reference: Reference) -> Iterator[Refusal]:
        """A row that stays and refers to a row that would vanish."""
        parent, own = self._diffs[reference.parent], self._diffs.get(reference.child)
        shape = parent.staged.shape
        if not set(reference.parent_columns) <= {*shape.columns, *shape.key}:
            return
        query = sql.SQL("""
            SELECT {shown} FROM {ops} AS o JOIN {gone} AS g ON {same} JOIN {child} AS c ON {refers}
             WHERE o.op = 'delete' {not_deleted} {not_changed} {not_inserted}""").format(
            shown=_shown(self._tables[reference.child], "c"),
            ops=parent.ops,
            gone=parent.staged.present,
            same=_join_ops(parent, "g"),
            child=qualified(reference.child),
            refers=reference.refers("c", "g"),
            not_deleted=_and_not_deleted(own, "c"),
            not_changed=_and_not_changed(own, reference),
            not_inserted=_and_not_inserted(parent, reference, "c"),
        )
        count, keys = self._found(query)
        if count:
            yield Refusal(
                reference.parent,
                f"{count} rows of {reference.child} refer to rows of {reference.parent} that the restore would delete"
                f" ({reference.name}): {keys}.",
                f"Delete or change these rows of {reference.child} first, or restore with the mode `missing`. If others"
                f" make them anew, declare {reference.child} as derived in include/sql/not_backed_up.txt.",
            )

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


def _and_not_deleted(diff: TableDiff | None, alias: str) -> sql.Composable:
    if diff is None or not diff.plan.delete:
        return sql.SQL("")
    return sql.SQL("AND NOT EXISTS (SELECT FROM {} AS d WHERE d.op = 'delete' AND {})").format(
        diff.ops, _join_ops(diff, alias, "d")
    )


def _and_not_inserted(diff: TableDiff | None, reference: Reference, child: str) -> sql.Composable:
    """The parent is not among the rows that come back, or that get the referenced value."""
    if diff is None or not diff.plan.insert + diff.plan.update:
        return sql.SQL("")
    shape = diff.staged.shape
    if not set(reference.parent_columns) <= {*shape.columns, *shape.key}:
        return sql.SQL("")
    return sql.SQL("AND NOT EXISTS (SELECT FROM {} AS i JOIN {} AS iw ON {} WHERE i.op <> 'delete' AND {})").format(
        diff.ops, diff.staged.wanted, _join_ops(diff, "iw", "i"), reference.refers(child, "iw")
    )


def _and_not_changed(diff: TableDiff | None, reference: Reference) -> sql.Composable:
    """Rows of the child that the restore itself points elsewhere."""
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


def _join_ops(diff: TableDiff, alias: str, ops: str = "o") -> sql.Composable:
    shape = diff.staged.shape
    if shape.key:
        return shape.is_of(ops, alias)
    return sql.SQL("{}.row_text = ROW({})::text").format(sql.Identifier(ops), columns_of(shape.columns, alias))


def _shown(table: Table, alias: str, key: Sequence[str] = ()) -> sql.Composable:
    """A row's key as text; empty where it may be more than a number. ``key``: its columns where they are called so."""
    if not has_plain_key(table):
        return sql.SQL("''")
    return sql.SQL("concat_ws(', ', {})").format(columns_of(key or table.primary_key, alias))


def _none_null(columns: Sequence[str], alias: str) -> sql.Composed:
    return sql.SQL(" AND ").join(sql.SQL("{} IS NOT NULL").format(sql.Identifier(alias, name)) for name in columns)
