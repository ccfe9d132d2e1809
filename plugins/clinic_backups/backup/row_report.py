"""``check --rows``: where every row of the database is, table by table, and an example of each violation."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from psycopg2 import sql

from clinic_backups.base.database import qualified
from clinic_backups.base.errors import ClinicBackupsError
from clinic_backups.base.table import Table
from clinic_backups.tenant.coverage import Coverage
from clinic_backups.tenant.declarations import Declarations
from clinic_backups.tenant.problems import Problem
from clinic_backups.tenant.row_sql import keys, listed
from clinic_backups.tenant.tenant_db import Snapshot


@dataclass(frozen=True)
class TableRows:
    """The rows of one table. ``None``: they were not counted in time, or the role may not read them."""

    table: str
    table_class: str
    """``tenant``, ``parent``, ``shared``, ``derived``, ``left out`` or ``unknown``."""
    rows: int | None
    in_backups: int | None
    """Those in the backup of exactly one clinic; of a parent table those in any backup."""
    in_none: int | None
    """Those in no backup at all."""
    why: str = ""
    """Why rows are in no backup: the reason of the declaration."""
    too_many: int = 0
    """The number of rows that backups hold more than once."""
    in_shared: int = 0
    """Those in the backup of the shared data."""

    @property
    def is_sum(self) -> bool | None:
        """Whether the parts are all rows, once each. ``None``: not counted."""
        if self.rows is None or self.in_backups is None or self.in_none is None:
            return None
        return self.rows == self.in_backups + self.in_shared + self.in_none and not self.too_many


@dataclass(frozen=True)
class Violation:
    """Rows that are in the wrong backup or in none: the problem, one key, and the statement that lists all keys."""

    problem: Problem
    example: tuple[str, ...]
    statement: str


@dataclass
class RowReport:
    """Filled while rows are compared. Keys are for the person at the terminal. They are in no log and no record.

    :param within_seconds: the longest time of a query for one example or one count.
    :ivar shared: whether the shared data are backed up.
    """

    within_seconds: float
    tables: dict[str, TableRows] = field(default_factory=dict)
    violations: list[Violation] = field(default_factory=list)
    shared: bool = True

    def violated(self, snapshot: Snapshot, problem: Problem, query: sql.Composable) -> None:
        """Note a problem and ask for one of its rows."""
        try:
            found = snapshot.rows_within(
                self.within_seconds, sql.SQL("{} LIMIT 1").format(query), f"looking for one row of {problem.table}"
            )
        except ClinicBackupsError:
            found = None
        example = tuple(map(str, found[0])) if found else ()
        self.violations.append(Violation(problem, example, snapshot.text_of(query)))

    def count_others(self, snapshot: Snapshot, coverage: Coverage, declared: Declarations) -> None:
        """Count the rows of the tables that were not compared."""
        for name, relation in sorted(coverage.structure.relations.items()):
            if relation.kind not in "rp" or relation.root is not None or name in self.tables:
                continue
            count = self._count(snapshot, name)
            backed_up = "parent" if name in coverage.parents.names else "tenant" if coverage.has_extract(name) else None
            if backed_up:  # its extract did not run, or took too long
                self.tables[name] = TableRows(name, backed_up, count, None, None)
            else:
                table_class, why = declared.class_of(name) or ("unknown", "")
                if self.shared and table_class == "shared" and count is not None:
                    self.tables[name] = TableRows(name, table_class, count, 0, 0, in_shared=count)
                else:
                    self.tables[name] = TableRows(name, table_class, count, 0, count, why)

    def count_parent(self, snapshot: Snapshot, table: Table, rows_of_all: str) -> None:
        """Count the rows of a parent table. A row may be in several backups.

        :param rows_of_all: the query of its rows in all backups, see :func:`clinic_backups.tenant.row_sql.rows_of`.
        """
        name, key = table.name, listed(keys(table, "r"))
        query = sql.SQL("SELECT count(DISTINCT ({})) FROM (\n{}\n) AS r").format(key, sql.SQL(rows_of_all))
        found = snapshot.rows_within(self.within_seconds, query, f"counting the rows of {name}")
        rows, held = self._count(snapshot, name), found[0][0] if found else None
        left = None if rows is None or held is None else rows - held
        if self.shared and left:
            self.tables[name] = TableRows(name, "parent", rows, held, 0, in_shared=left)
            return
        why = "no row of a clinic refers to them" if left else ""
        self.tables[name] = TableRows(name, "parent", rows, held, left, why)

    def _count(self, snapshot: Snapshot, name: str) -> int | None:
        query = sql.SQL("SELECT count(*) FROM {}").format(qualified(name))  # of a partitioned table all partitions
        try:
            found: list[tuple[Any, ...]] | None = snapshot.rows_within(
                self.within_seconds, query, f"counting the rows of {name}"
            )
        except ClinicBackupsError:
            return None  # the role may not read the table, and need not
        return found[0][0] if found else None
