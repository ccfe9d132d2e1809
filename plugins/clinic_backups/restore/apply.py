"""Writes exactly what was planned, and proves it before it becomes true."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from psycopg2 import sql

from clinic_backups.archive_reader import TableContent
from clinic_backups.blocks import BlockList
from clinic_backups.errors import IntegrityError, PermanentError
from clinic_backups.model import RestoreMode
from clinic_backups.restore.diff import DELETE, INSERT, UPDATE, TableDiff
from clinic_backups.restore.reading import blocks_of
from clinic_backups.restore.workspace import Workspace, columns_of, qualified, row_text, same_key


class Applier:
    """Applies a plan in the workspace's transaction.

    :param order: the tables, parents first.
    """

    def __init__(self, workspace: Workspace, diffs: Mapping[str, TableDiff], order: Sequence[str]) -> None:
        self._workspace, self._diffs, self._order = workspace, diffs, order

    def write(self, quiet_tables: Sequence[str]) -> None:
        """Delete, update and insert. :raises PermanentError: a constraint of the database forbids it.

        :param quiet_tables: their user triggers are turned off for as long as the transaction lasts.
        """
        run = self._workspace.execute
        # The application's own triggers and constraints expect the role's own search path.
        run("SET LOCAL search_path TO DEFAULT", "setting the search path")
        run("SET CONSTRAINTS ALL DEFERRED", "deferring constraints")
        for name in quiet_tables:
            run(sql.SQL("ALTER TABLE {} DISABLE TRIGGER USER").format(qualified(name)), f"quieting triggers of {name}")
        for name in reversed(self._order):
            self._delete(self._diffs[name])
        for name in self._order:
            self._update(self._diffs[name])
        for name in self._order:
            self._insert(self._diffs[name])
        run("SET CONSTRAINTS ALL IMMEDIATE", "checking the constraints")
        for name in quiet_tables:
            run(sql.SQL("ALTER TABLE {} ENABLE TRIGGER USER").format(qualified(name)), f"waking triggers of {name}")
        for name in self._order:
            if self._diffs[name].plan.insert:
                self._advance_sequences(self._diffs[name])
        run("SET LOCAL search_path = pg_catalog", "setting the search path")

    def _delete(self, diff: TableDiff) -> None:
        if not diff.plan.delete:
            return
        shape = diff.staged.shape
        if shape.key:
            statement = sql.SQL("DELETE FROM {} AS t USING {} AS o WHERE o.op = 'delete' AND {}").format(
                qualified(shape.name), diff.ops, same_key(shape.key, "o", "t")
            )
        else:
            # Rows without key that are equal in every column are the same clinic's, and which of them goes is all one.
            statement = sql.SQL("""
                DELETE FROM {table} AS t
                 USING (SELECT n.ctid AS place
                          FROM (SELECT x.ctid, {text} AS row_text,
                                       row_number() OVER (PARTITION BY {text} ORDER BY x.ctid) AS number
                                  FROM {table} AS x
                                 WHERE {text} IN (SELECT row_text FROM {ops} WHERE op = 'delete')) AS n
                          JOIN {ops} AS o ON o.op = 'delete' AND o.row_text = n.row_text AND n.number <= o.times) AS g
                 WHERE t.ctid = g.place""").format(
                table=qualified(shape.name), ops=diff.ops, text=row_text(shape.columns, "x")
            )
        self._expect(diff, DELETE, self._workspace.execute(statement, f"deleting from {shape.name}"), diff.plan.delete)

    def _update(self, diff: TableDiff) -> None:
        shape = diff.staged.shape
        if not diff.plan.update:
            return
        if fixed := sorted(set(diff.plan.columns) - set(shape.values)):
            raise PermanentError(
                f"{shape.name} has rows whose {', '.join(fixed)} differs, which PostgreSQL lets nobody change.",
                hint="Delete these rows by hand; the restore then inserts them as they were.",
            )
        columns = [name for name in shape.values if name in diff.plan.columns]
        statement = sql.SQL(
            "UPDATE {} AS t SET {} FROM {} AS o JOIN {} AS w ON {} WHERE o.op = 'update' AND {}"
        ).format(
            qualified(shape.name),
            sql.SQL(", ").join(
                sql.SQL("{} = {}").format(sql.Identifier(name), sql.Identifier("w", name)) for name in columns
            ),
            diff.ops,
            diff.staged.wanted,
            same_key(shape.key, "o", "w"),
            same_key(shape.key, "o", "t"),
        )
        self._expect(diff, UPDATE, self._workspace.execute(statement, f"updating {shape.name}"), diff.plan.update)

    def _insert(self, diff: TableDiff) -> None:
        shape = diff.staged.shape
        if not diff.plan.insert:
            return
        if shape.key:
            source = sql.SQL("SELECT {} FROM {} AS o JOIN {} AS w ON {} WHERE o.op = 'insert'").format(
                columns_of(shape.columns, "w"), diff.ops, diff.staged.wanted, same_key(shape.key, "o", "w")
            )
        else:
            source = sql.SQL("""
                SELECT {columns} FROM (SELECT w.*, {text} AS clinic_backups_text,
                                              row_number() OVER (PARTITION BY {text}) AS clinic_backups_number
                                         FROM {wanted} AS w) AS n
                  JOIN {ops} AS o ON o.op = 'insert' AND o.row_text = n.clinic_backups_text
                   AND n.clinic_backups_number <= o.times""").format(
                columns=columns_of(shape.columns, "n"),
                text=row_text(shape.columns, "w"),
                wanted=diff.staged.wanted,
                ops=diff.ops,
            )
        # OVERRIDING SYSTEM VALUE: identities that are always generated keep the numbers that they had.
        statement = sql.SQL("INSERT INTO {} ({}) OVERRIDING SYSTEM VALUE {}").format(
            qualified(shape.name), columns_of(shape.columns), source
        )
        done = self._workspace.execute(statement, f"inserting into {shape.name}")
        self._expect(diff, INSERT, done, diff.plan.insert)

    def _expect(self, diff: TableDiff, operation: str, done: int, planned: int) -> None:
        if done != planned:
            raise IntegrityError(
                f"{diff.name}: {operation} would have touched {done} rows, planned were {planned}.",
                hint="Nothing was changed. A trigger or a rule of the table changes what is written.",
            )

    def _advance_sequences(self, diff: TableDiff) -> None:
        """Keys that came back must not be given out again. A sequence moves forward only, also after a rollback."""
        for column in diff.staged.shape.now.columns:
            table = qualified(diff.name).as_string(self._workspace.connection)
            ((sequence,),) = self._workspace.rows(
                "SELECT pg_get_serial_sequence(%(table)s, %(column)s)",
                {"table": table, "column": column.name},
                "looking for sequences",
            )
            if sequence is None:
                continue
            highest = sql.SQL("(SELECT max({}) FROM {})").format(sql.Identifier(column.name), qualified(diff.name))
            self._workspace.rows(
                sql.SQL(
                    "SELECT setval({sequence}::regclass, {highest}) FROM {relation} AS s WHERE {highest} > s.last_value"
                ).format(sequence=sql.Literal(sequence), highest=highest, relation=sql.SQL(sequence)),
                None,
                f"moving the sequence of {diff.name}",
            )

    def prove(self, mode: RestoreMode, contents: Mapping[str, TableContent], queries: Mapping[str, str]) -> None:
        """Read the clinic again, and count what was written. :raises IntegrityError: something is not as planned."""
        self._prove_only_planned_writes()
        for name in self._order:
            diff = self._diffs[name]
            if mode == "exact" and diff.staged.shape.same:
                self._prove_blocks(diff, contents[name].blocks, queries[name])
            else:
                self._prove_rows(diff, mode, queries[name])

    def _prove_only_planned_writes(self) -> None:
        """The server's own count of this transaction's writes in every table: cascades and triggers included."""
        found = {
            (table, operation): count
            for table, *counts in self._workspace.rows(
                "SELECT n.nspname || '.' || c.relname, sum(s.n_tup_ins)::bigint, sum(s.n_tup_upd)::bigint,"
                " sum(s.n_tup_del)::bigint FROM pg_stat_xact_user_tables AS s"
                " JOIN pg_class AS c ON c.oid = COALESCE(pg_partition_root(s.relid), s.relid)"
                " JOIN pg_namespace AS n ON n.oid = c.relnamespace"
                " WHERE c.relpersistence <> 't' GROUP BY 1",
                None,
                "counting what was written",
            )
            for operation, count in zip((INSERT, UPDATE, DELETE), counts, strict=True)
            if count
        }
        planned = {
            (name, operation): count
            for name, diff in self._diffs.items()
            for operation, count in ((INSERT, diff.plan.insert), (UPDATE, diff.plan.update), (DELETE, diff.plan.delete))
            if count
        }
        for table, operation in sorted(set(found) | set(planned)):
            is_, was = found.get((table, operation), 0), planned.get((table, operation), 0)
            if is_ != was:
                raise IntegrityError(
                    f"{table}: {operation} touched {is_} rows, planned were {was}.",
                    hint="Nothing was changed. A trigger or a cascade writes besides the restore: turn it off for it.",
                )

    def _prove_blocks(self, diff: TableDiff, wanted: BlockList, query: str) -> None:
        found = blocks_of(self._workspace, diff.staged.shape.now, query)
        if not found.equals(wanted):
            raise self._not_equal(diff, f"{found.rows} rows against {wanted.rows}")

    def _prove_rows(self, diff: TableDiff, mode: RestoreMode, query: str) -> None:
        """For tables whose columns have changed, and where only missing rows came back: no wanted row is missing."""
        shape = diff.staged.shape
        now = sql.SQL("(SELECT {} FROM (\n{}\n) AS r)").format(row_text(shape.columns, "r"), sql.SQL(query))
        wanted = sql.SQL("SELECT {} FROM {} AS w").format(row_text(shape.columns, "w"), diff.staged.wanted)
        if mode == "missing":
            if not shape.key or not diff.plan.insert:
                return
            wanted += sql.SQL(" JOIN {} AS o ON {} WHERE o.op = 'insert'").format(
                diff.ops, same_key(shape.key, "o", "w")
            )
        count = sql.SQL("SELECT count(*) FROM (({}) EXCEPT ALL {}) AS d")
        ((missing,),) = self._workspace.rows(count.format(wanted, now), None, f"reading {shape.name} again")
        extra = 0
        if mode == "exact":
            ((extra,),) = self._workspace.rows(
                sql.SQL("SELECT count(*) FROM ({} EXCEPT ALL ({})) AS d").format(now, wanted),
                None,
                f"reading {shape.name} again",
            )
        if missing or extra:
            raise self._not_equal(diff, f"{missing} rows are missing, {extra} are too many")

    def _not_equal(self, diff: TableDiff, how: str) -> IntegrityError:
        return IntegrityError(
            f"{diff.name} would not be what the backup holds: {how}.",
            hint="Nothing was changed. Triggers, generated defaults or a changed extract are the usual reasons.",
        )
