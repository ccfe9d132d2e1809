"""Writes a plan in one statement.

PostgreSQL checks foreign keys, and applies ON DELETE, at the end of a statement. So the order of tables within one
statement does not matter: rows get their new parent before their old one is checked, tables may refer to each other,
and no cascade finds any row. Unique keys are checked row by row. So all deletes come first, then the updates, then the
inserts. Rows whose new values may collide with each other are deleted and inserted.
https://www.postgresql.org/docs/current/queries-with.html#QUERIES-WITH-MODIFYING

The statement is parsed under the application's search path, which its triggers need. So each operator, function and
type in it has its schema, and other expressions are in views that were made before: see :meth:`Workspace.view`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

from psycopg2 import sql

from clinic_backups.base.database import qualified
from clinic_backups.base.errors import IntegrityError
from clinic_backups.restore.diff import DELETE, INSERT, UPDATE, TableDiff, is_op
from clinic_backups.restore.table_rules import Reference, cascading
from clinic_backups.restore.workspace import Workspace, columns_of, row_text
from clinic_backups.restore.writing.changes import Writes
from clinic_backups.restore.writing.derived import Derived
from clinic_backups.restore.writing.park import Parking
from clinic_backups.restore.writing.quiet_triggers import Quiet


class Writer:
    """Writes a plan's operations.

    :param derived: rows of derived tables that are deleted too, because the rows that they were made from are.
    """

    def __init__(
        self,
        workspace: Workspace,
        diffs: Mapping[str, TableDiff],
        references: Sequence[Reference],
        quiet: Quiet,
        derived: Sequence[Derived] = (),
    ) -> None:
        self._workspace, self._references, self._quiet, self._derived = workspace, references, quiet, derived
        self._diffs = [diff for diff in diffs.values() if diff.plan.writes]
        self._parkings: list[Parking] = []
        self._statement = sql.Composed([])

    def prepare(self) -> None:
        """Make the views. Call this before :meth:`write`, and before anything is counted.

        :raises PermanentError: rows that exchange unique values cannot be written.
        """
        self._parkings = [
            Parking(self._workspace, diff, reference, self._quiet)
            for diff in self._diffs
            if diff.moving and (reference := self._in_the_way(diff)) is not None
        ]
        self._statement = self._whole()

    def write(self) -> Writes:
        """Write the plan; returns the number of written rows. The caller holds all locks.

        :raises PermanentError: a constraint of the database forbids it.
        :raises IntegrityError: the written rows differ from the plan.
        """
        done: Writes = Counter()
        for parking in self._parkings:
            done[parking.table, UPDATE] += parking.run()
        with self._workspace.application_path():
            written = self._workspace.rows(self._statement, None, "writing the clinic's rows")
        for table, operation, rows in written:
            done[table, operation] += rows
        # Only what is counted in the end by the server itself, see OnlyPlanned.
        done += Counter({(diff.name, INSERT): diff.plan.insert for diff in self._diffs if self._is_sure(diff)})
        self._require_planned(done)
        return done

    def _is_sure(self, diff: TableDiff) -> bool:
        """Whether PostgreSQL inserts just the wanted rows, so that counting them again here would only take time."""
        return diff.whole and diff.plan.insert > 0 and not self._quiet.may_change(diff.name)

    def _in_the_way(self, diff: TableDiff) -> Reference | None:
        """A foreign key that forbids deleting and inserting rows within one statement. ``None``: no key does.

        ON DELETE CASCADE, RESTRICT and SET do not check whether the row is there again.
        """
        return None if self._quiet.how == "replica" else cascading(self._references, diff.name)

    def _whole(self) -> sql.Composed:
        """All operations, each as a common table expression.

        The result has the table, operation and number of rows of each.
        """
        parts: list[tuple[str, str, str, sql.Composed]] = []
        for number, diff in enumerate(self._diffs):
            parts += [
                (f"{operation}_{number}_{place}", diff.name, operation, statement)
                for place, (operation, statement) in enumerate(self._operations(diff, number))
            ]
        parts += [
            (f"delete_derived_{number}", derived.table, DELETE, derived.statement)
            for number, derived in enumerate(self._derived)
        ]
        parts.sort(key=lambda part: (DELETE, UPDATE, INSERT).index(part[2]))
        steps = [sql.SQL("{} AS ({})").format(sql.Identifier(name), statement) for name, _, _, statement in parts]
        for operation, marker in ((UPDATE, "updated"), (DELETE, "deleted")):
            names = [name for name, _, found, _ in parts if found == operation]
            steps.insert(
                sum(found in ((DELETE, UPDATE) if operation == UPDATE else (DELETE,)) for _, _, found, _ in parts),
                sql.SQL("{} AS MATERIALIZED (SELECT {} AS rows)").format(sql.Identifier(marker), _sum(names)),
            )
        sure = {diff.name for diff in self._diffs if self._is_sure(diff)}
        results = [
            sql.SQL("SELECT {}, {}, pg_catalog.count(*) FROM {}").format(
                sql.Literal(table), sql.Literal(operation), sql.Identifier(name)
            )
            for name, table, operation, _ in parts
            if table not in sure
        ] or [sql.Composed([sql.SQL("SELECT '', '', 0 WHERE false")])]
        return sql.SQL("WITH {} {}").format(sql.SQL(",\n").join(steps), sql.SQL("\nUNION ALL ").join(results))

    def _operations(self, diff: TableDiff, number: int) -> Iterator[tuple[str, sql.Composed]]:
        plan, moves = diff.plan, bool(diff.moving) and self._in_the_way(diff) is None
        if plan.delete:
            yield DELETE, _delete(diff)
        if moves:
            yield DELETE, _take_out(diff)
        if plan.update - (diff.moving if moves else 0):
            yield UPDATE, _update(diff, but_moving=moves)
        if plan.insert:
            yield INSERT, _insert(self._workspace, diff, returns=not self._is_sure(diff))
        if moves:
            # The rows that the second deletion of this table returned.
            yield INSERT, _put_back(diff, f"{DELETE}_{number}_{int(bool(plan.delete))}")

    def _require_planned(self, done: Writes) -> None:
        for diff in self._diffs:
            parked = diff.moving if diff.moving and self._in_the_way(diff) is not None else 0
            moved = diff.moving - parked
            planned = {
                INSERT: diff.plan.insert + moved,
                DELETE: diff.plan.delete + moved,
                UPDATE: diff.plan.update - moved + parked,
            }
            for operation, rows in planned.items():
                if done[diff.name, operation] != rows:
                    raise IntegrityError(
                        f"{diff.name}: {operation} would have touched {done[diff.name, operation]} rows, but the"
                        f" plan has {rows}.",
                        hint="Nothing was changed. A trigger or a rule of the table changes what is written.",
                    )


def _sum(names: Sequence[str]) -> sql.Composable:
    """The numbers of rows. Reading all rows of these expressions makes PostgreSQL run them to their end."""
    if not names:
        return sql.SQL("0")
    return sql.SQL(" OPERATOR(pg_catalog.+) ").join(
        sql.SQL("(SELECT pg_catalog.count(*) FROM {})").format(sql.Identifier(name)) for name in names
    )


_AFTER_DELETES = sql.SQL("(SELECT rows FROM deleted) IS NOT NULL")
_AFTER_UPDATES = sql.SQL("(SELECT rows FROM deleted) IS NOT NULL AND (SELECT rows FROM updated) IS NOT NULL")


def _delete(diff: TableDiff) -> sql.Composed:
    shape = diff.staged.shape
    if shape.key:
        return sql.SQL("DELETE FROM {} AS t USING {} AS o WHERE {} AND {} RETURNING 1").format(
            diff.staged.shape.in_sql, diff.ops, is_op("o", DELETE), shape.is_of("o", "t")
        )
    # Equal rows without a key belong to the same clinic. It does not matter which of them is deleted.
    return sql.SQL("""
        DELETE FROM {target} AS t
         USING (SELECT n.part, n.place
                  FROM (SELECT x.tableoid AS part, x.ctid AS place, {text} AS row_text,
                               pg_catalog.row_number() OVER (PARTITION BY {text} ORDER BY x.tableoid, x.ctid) AS number
                          FROM {target} AS x
                         WHERE {text} OPERATOR(pg_catalog.=)
                               ANY (SELECT d.row_text FROM {ops} AS d WHERE {deletes})) AS n
                  JOIN {ops} AS o ON {is_deleted} AND o.row_text OPERATOR(pg_catalog.=) n.row_text
                                 AND n.number OPERATOR(pg_catalog.<=) o.times) AS g
         WHERE t.tableoid OPERATOR(pg_catalog.=) g.part AND t.ctid OPERATOR(pg_catalog.=) g.place
     RETURNING 1""").format(
        target=diff.staged.shape.in_sql, ops=diff.ops, text=row_text(shape.columns, "x"),
        deletes=is_op("d", DELETE), is_deleted=is_op("o", DELETE),
    )  # fmt: skip


def _take_out(diff: TableDiff) -> sql.Composed:
    return sql.SQL("DELETE FROM {} AS t USING {} AS o WHERE o.moves AND {} RETURNING t.*").format(
        diff.staged.shape.in_sql, diff.ops, diff.staged.shape.is_of("o", "t")
    )


def _put_back(diff: TableDiff, taken: str) -> sql.Composed:
    """Insert the rows that were taken out, with the backup's values. Columns that it does not have keep theirs."""
    shape = diff.staged.shape
    return sql.SQL(
        "INSERT INTO {} ({}) OVERRIDING SYSTEM VALUE SELECT {} FROM {} AS m JOIN {} AS w ON {} WHERE {} RETURNING 1"
    ).format(
        qualified(shape.name),
        columns_of((*shape.columns, *shape.kept)),
        sql.SQL(", ").join([columns_of(shape.columns, "w"), *(sql.Identifier("m", name) for name in shape.kept)]),
        sql.Identifier(taken),
        diff.staged.wanted,
        shape.same_key("m", "w"),
        _AFTER_UPDATES,
    )


def _update(diff: TableDiff, *, but_moving: bool) -> sql.Composed:
    shape = diff.staged.shape
    return sql.SQL(
        "UPDATE {} AS t SET {} FROM {} AS o JOIN {} AS w ON {} WHERE {} {} AND {} AND {} RETURNING 1"
    ).format(
        diff.staged.shape.in_sql,
        sql.SQL(", ").join(
            sql.SQL("{} = {}").format(sql.Identifier(name), sql.Identifier("w", name))
            for name in diff.plan.columns
            if name not in shape.fixed
        ),
        diff.ops,
        diff.staged.wanted,
        shape.is_of("o", "w"),
        is_op("o", UPDATE),
        sql.SQL("AND NOT o.moves" if but_moving else ""),
        shape.is_of("o", "t"),
        _AFTER_DELETES,
    )


def _insert(workspace: Workspace, diff: TableDiff, *, returns: bool) -> sql.Composed:
    shape = diff.staged.shape
    names = [*shape.columns, *(name for name, _ in shape.filled)]
    if shape.key:
        values, rows = columns_of(shape.columns, "w"), diff.wanted_of(INSERT)
        if shape.filling:
            filling = sql.SQL("SELECT {}").format(sql.SQL(", ").join(shape.filling))
            made = workspace.view(filling, f"making values for {shape.name}", len(shape.filling))
            values = sql.SQL("{}, f.*").format(values)
            rows = sql.SQL("{} AS f CROSS JOIN {}").format(made, rows)
        source = sql.SQL("SELECT {} FROM {} WHERE {}").format(values, rows, _AFTER_UPDATES)
    else:
        source = sql.SQL("""
            SELECT {columns} FROM (SELECT x.ctid AS place, {text} AS row_text,
                                          pg_catalog.row_number() OVER (PARTITION BY {text}) AS number
                                     FROM {wanted} AS x) AS n
              JOIN {ops} AS o ON {is_inserted} AND o.row_text OPERATOR(pg_catalog.=) n.row_text
                             AND n.number OPERATOR(pg_catalog.<=) o.times
              JOIN {wanted} AS w ON w.ctid OPERATOR(pg_catalog.=) n.place
             WHERE {after}""").format(
            columns=columns_of(shape.columns, "w"),
            text=row_text(shape.columns, "x"),
            wanted=diff.staged.wanted,
            ops=diff.ops,
            is_inserted=is_op("o", INSERT),
            after=_AFTER_UPDATES,
        )
    # OVERRIDING SYSTEM VALUE: identities that are always generated keep their numbers.
    return sql.SQL("INSERT INTO {} ({}) OVERRIDING SYSTEM VALUE {} {}").format(
        qualified(shape.name), columns_of(names), source, sql.SQL("RETURNING 1" if returns else "")
    )
