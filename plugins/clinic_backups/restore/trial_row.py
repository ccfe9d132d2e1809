"""Writes one row of one table on trial, as a restore would, and rolls it back."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Literal

from psycopg2 import sql

from clinic_backups.base.database import qualified
from clinic_backups.base.errors import PermanentError
from clinic_backups.base.table import Table
from clinic_backups.restore.table_rules import NO_ACTION, Reference, TableRules, with_parent
from clinic_backups.restore.workspace import Workspace, columns_of, row_text
from clinic_backups.restore.writing.published import unidentified
from clinic_backups.restore.writing.quiet_triggers import How

Tried = Literal["all", "changed", "no key", "nothing", "rules", "parent"]
"""What was done with one row: all three operations, only an UPDATE, only DELETE and INSERT, or nothing: there are no
rows, or the table has rules that only a restore turns off, or it is a parent table."""


class TrialRow:
    """Writes one row of one table.

    :param shut_out: called with the table's name before it is written.
    :param replica: the role may set ``session_replication_role``.
    :param quiet: how a restore keeps the table's rules from firing.
    :ivar key: the columns that identify a row.
    """

    def __init__(
        self,
        workspace: Workspace,
        table: Table,
        rules: TableRules,
        references: Iterable[Reference],
        shut_out: Callable[[str], object],
        *,
        replica: bool,
        quiet: How,
    ) -> None:
        self._workspace, self._table, self._replica, self._shut_out = workspace, table, replica, shut_out
        self._quiet = quiet
        self.key: Sequence[str] = table.primary_key or rules.row_key
        self._target = rules.in_sql(table.name)
        self._columns = [column.name for column in table.stored_columns]
        self._acting = [each for each in with_parent(references, table.name) if each.on_delete != NO_ACTION]

    def try_row(self, extract: str) -> Tried:
        """Write one row of a clinic. :raises ClinicBackupsError: it cannot be written."""
        try:
            with self._workspace.savepoint():
                return self._run(extract)
        except PermanentError as error:
            if published := unidentified(self._workspace, error, [self._table.name]):
                raise PermanentError(published.said, hint=published.remedy) from None
            raise

    def _run(self, extract: str) -> Tried:
        rows = self._rows(extract)
        if not self._there(rows):
            return "nothing"
        if self._quiet == "disable":
            return "rules"
        self._shut_out(self._table.name)
        free = [column.name for column in self._table.stored_columns if column.identity != "always"]
        if self.key and free:
            self._write(self._update(rows, free))
        if not self._acting:
            self._write(self._delete_and_insert(rows))
        elif self._replica:
            self._write(self._delete_and_insert(rows), replica=True)
        elif unused := self._unused(rows):
            self._write(self._delete_and_insert(unused))
        else:
            return "changed"
        return "all" if self.key else "no key"

    def _rows(self, extract: str) -> sql.Composed:
        """A clinic's rows, with the generated columns by which they are found."""
        needed = {*self.key, *(name for each in self._acting for name in each.parent_columns)}
        computed = [
            sql.SQL(", ({}) AS {}").format(sql.SQL(column.generated), sql.Identifier(column.name))
            for column in self._table.columns
            if column.generated is not None and column.name in needed
        ]
        rows = sql.SQL("SELECT {} FROM (\n{}\n) AS r").format(columns_of(self._columns, "r"), sql.SQL(extract))
        return sql.SQL("SELECT r.*{} FROM ({}) AS r").format(sql.Composed(computed), rows)

    def _there(self, rows: sql.Composed) -> bool:
        one = sql.SQL("SELECT FROM ({}) AS r LIMIT 1").format(rows)
        return bool(self._workspace.rows(one, None, f"reading one row of {self._table.name}"))

    def _unused(self, rows: sql.Composed) -> sql.Composed | None:
        """The rows that no foreign key with an action at deletion refers to; ``None`` if there is no such row."""
        if not all(each.child_readable for each in self._acting):
            return None
        unused = sql.SQL("SELECT r.* FROM ({}) AS r WHERE {}").format(
            rows,
            sql.SQL(" AND ").join(
                sql.SQL("NOT EXISTS (SELECT FROM {} AS c WHERE {})").format(
                    qualified(each.child), each.refers("c", "r")
                )
                for each in self._acting
            ),
        )
        return unused if self._there(unused) else None

    def _once(self, rows: sql.Composed) -> sql.Composed:
        """The beginning of a statement: one of the rows, of a view, whose operators are not looked up again."""
        one = sql.SQL("{} LIMIT 1").format(rows)
        view = self._workspace.view(one, f"reading one row of {self._table.name}")
        return sql.SQL("WITH one AS MATERIALIZED (SELECT * FROM {})").format(view)

    def _is_one(self) -> sql.Composed:
        if self.key:
            return sql.SQL(" AND ").join(
                sql.SQL("{} OPERATOR(pg_catalog.=) (SELECT {} FROM one AS o)").format(
                    row_text([name], "t"), row_text([name], "o")
                )
                for name in self.key
            )
        return sql.SQL(
            "(t.tableoid, t.ctid) OPERATOR(pg_catalog.=) (SELECT x.tableoid, x.ctid FROM {} AS x"
            " WHERE {} OPERATOR(pg_catalog.=) (SELECT {} FROM one AS o) LIMIT 1)"
        ).format(self._target, row_text(self._columns, "x"), row_text(self._columns, "o"))

    def _update(self, rows: sql.Composed, free: Sequence[str]) -> sql.Composed:
        same = sql.SQL(", ").join(sql.SQL("{0} = t.{0}").format(sql.Identifier(name)) for name in free)
        return sql.SQL("{} UPDATE {} AS t SET {} WHERE {}").format(self._once(rows), self._target, same, self._is_one())

    def _delete_and_insert(self, rows: sql.Composed) -> sql.Composed:
        return sql.SQL(
            "{}, gone AS (DELETE FROM {} AS t WHERE {} RETURNING t.*)"
            " INSERT INTO {} ({}) OVERRIDING SYSTEM VALUE SELECT {} FROM gone AS g"
        ).format(
            self._once(rows), self._target, self._is_one(),
            qualified(self._table.name), columns_of(self._columns), columns_of(self._columns, "g"),
        )  # fmt: skip

    def _write(self, statement: sql.Composed, *, replica: bool = False) -> None:
        """Run the statement and roll it back. :param replica: foreign keys do not act meanwhile."""
        workspace, name = self._workspace, self._table.name
        with workspace.savepoint():
            workspace.execute("SET CONSTRAINTS ALL DEFERRED", "deferring constraints")
            if replica or self._quiet == "replica":
                workspace.execute("SET LOCAL session_replication_role = replica", "keeping triggers quiet")
            # As in a restore, the writing is parsed under the application's search path.
            with workspace.application_path():
                _require_one(workspace.execute(statement, f"writing one row of {name} for trial"), name)
                workspace.execute("SET CONSTRAINTS ALL IMMEDIATE", "checking the constraints")


def _require_one(rows: int, name: str) -> None:
    if rows != 1:
        raise PermanentError(
            f"Writing one row of {name} touched {rows} rows.",
            hint="A rule, a trigger or a row security policy of the table changes what is written.",
        )
