"""Compares the rows of parent tables in a backup with the rows that refer to them.

A row that is referred to and that the parent's query leaves out could not come back. A row to which no row of the
clinic refers is somebody else's, and a clinic's administrator may download the clinic's backup. Both are gaps.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path

from psycopg2 import sql

from clinic_backups.base.database import qualified
from clinic_backups.base.table import Table
from clinic_backups.tenant.declarations import FILE, spelled
from clinic_backups.tenant.extract import PARENTS, SqlFolder, file_of
from clinic_backups.tenant.parent_tables import ParentTables
from clinic_backups.tenant.problems import Problem
from clinic_backups.tenant.row_problems import RowProblems
from clinic_backups.tenant.row_question import RowQuestion
from clinic_backups.tenant.row_sql import BackupRows, all_of, given, keys, listed, same
from clinic_backups.tenant.structure import ParentKey
from clinic_backups.tenant.tenant_db import Snapshot


class ParentChecks:
    """Compares rows in one snapshot.

    :param tables: the tables that are backed up.
    :param rows: their rows in the backups. A parent table is compared only if the queries of all tables that refer to
        it are there.
    """

    def __init__(
        self,
        snapshot: Snapshot,
        parents: ParentTables,
        tables: Mapping[str, Table],
        rows: BackupRows,
        folder: SqlFolder,
    ) -> None:
        self._snapshot, self._parents, self._tables = snapshot, parents, tables
        self._rows, self._queries = rows, rows.extracts
        self._declared, self._says = folder.declarations(), _Says(folder.path)
        self._rows_say = RowProblems(folder.path, folder.clinic_table)

    def comparable(self) -> list[str]:
        """The parent tables that can be compared."""
        there = self._tables.keys() & self._queries.keys()
        half = {key.parent for key in self._parents.references() if key.table not in there}
        return sorted((self._parents.names & there) - half)

    def problems(self, names: Collection[str], *, within_seconds: float) -> list[Problem] | None:
        """The problems of the rows of some parent tables; ``None`` if it takes too long.

        One question for all: the query of a parent's parent contains that of the parent.
        """
        without_key = [self._says.without_key(name) for name in names if not self._tables[name].primary_key]
        ask = RowQuestion(self._rows)
        self._ask(ask, [name for name in names if self._tables[name].primary_key])
        if not ask.arms:
            return without_key
        query = ask.query(map(self._backed_up, sorted(ask.used)))
        doing = f"comparing the rows of {', '.join(names)} with those that refer to them"
        found = self._snapshot.rows_within(within_seconds, query, doing, extracts=self._queries)
        return None if found is None else [*without_key, *ask.found(found)]

    def _ask(self, ask: RowQuestion, names: Collection[str]) -> None:
        for key in self._parents.undeclared():
            if key.parent in names:
                # A row that is nowhere makes the backup suspect, see plausibility.py. Here it exists.
                ask.used |= {key.table, key.parent}
                ask.count(
                    self._says.left_out(key), "parents_left_out", child=sql.Identifier(key.table), given=given(key),
                    table=qualified(key.parent), parent=sql.Identifier(key.parent), same=same(key, "p"),
                )  # fmt: skip
        for key in self._parents.unsettled():
            if key.table in names:
                ask.used.add(key.table)
                ask.count(
                    self._says.unsettled(key), "parents_unsettled", child=sql.Identifier(key.table), given=given(key)
                )
        for name in names:
            ask.used.add(name)
            ask.count(
                self._rows_say.repeated("rows_twice", name), "rows_twice", child=sql.Identifier(name),
                keys=listed(keys(self._tables[name], "b")),
            )  # fmt: skip
            if name not in self._declared.rows:
                children = [key for key in self._parents.references() if key.parent == name]
                ask.used |= {key.table for key in children}
                alone = all_of([sql.SQL("true"), *map(self._refers_not, children)])
                ask.count(self._says.unused(name), "parents_unused", parent=sql.Identifier(name), alone=alone)

    def _refers_not(self, key: ParentKey) -> sql.Composable:
        """No other row of the backup refers with this key to the row p."""
        another: sql.Composable = sql.SQL("")
        if key.table == key.parent:
            table = self._tables[key.table]
            pairs = zip(keys(table, "r"), keys(table, "p"), strict=True)
            another = sql.SQL("AND NOT ({})").format(all_of(sql.SQL("{} = {}").format(*pair) for pair in pairs))
        return sql.SQL("NOT EXISTS (SELECT FROM {} AS r WHERE r.{} = p.{} AND {} {})").format(
            sql.Identifier(key.table), self._rows.clinic, self._rows.clinic, same(key, "p"), another
        )

    def _backed_up(self, name: str) -> sql.Composable:
        """The rows of one table in all backups, with the columns of its keys."""
        wanted = [*self._tables[name].primary_key] if name in self._parents.names else []
        for key in (*self._parents.references(), *self._parents.unsettled()):
            wanted += [*(key.columns if key.table == name else ()), *(key.parent_columns if key.parent == name else ())]
        columns = [sql.Identifier("r", column) for column in dict.fromkeys(wanted)]
        return self._rows.backed_up(name, columns, materialized=True)


class _Says:
    """The texts, each without a count, see :func:`clinic_backups.tenant.row_problems.counted`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def left_out(self, key: ParentKey) -> Problem:
        return Problem(
            key.table,
            f"of a backup refer{{s}} in {', '.join(key.columns)} to a row of {key.parent} that the query of this parent"
            " table leaves out.",
            f"Correct {self._file(key.parent)}: it must return every row that a row of the clinic refers to. If the"
            f" column means something else, add the line `{spelled(key.table, key.columns[-1])}: reason` to"
            f" {self._folder / FILE}.",
            check="rows",
        )

    def unused(self, name: str) -> Problem:
        return Problem(
            name,
            "of this parent table {be} in the backup of a clinic although no row of that clinic refers to {it}. The"
            " clinic's backup would hold rows of others.",
            f"Correct {self._file(name)}: it must return only rows that rows of the clinic refer to. If the clinic"
            f" needs them although no foreign key shows it, add the line `{spelled(name)}: rows, reason` to"
            f" {self._folder / FILE}.",
            check="rows",
        )

    def unsettled(self, key: ParentKey) -> Problem:
        return Problem(
            key.table,
            f"of this parent table refer{{s}} in {', '.join(key.columns)} to a row of {key.parent}, which is in no"
            " backup.",
            f"Write {self._file(key.parent)}, or add the line `{spelled(key.parent)}: shared, reason` or"
            f" `{spelled(key.table, key.columns[-1])}: reason` to {self._folder / FILE}.",
            check="rows",
        )

    def without_key(self, name: str) -> Problem:
        return Problem(
            name,
            f"{name} is a parent table without a primary key: a restore could not tell which of its rows are missing.",
            f"Give {name} a primary key.",
            check="parents",
        )

    def _file(self, name: str) -> Path:
        return self._folder / PARENTS / file_of(name)
