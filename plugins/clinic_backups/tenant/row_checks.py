"""Compares rows with the extracts: each row of a clinic must be in its backup exactly once, and no other row."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from psycopg2 import sql

from clinic_backups.base.database import qualified
from clinic_backups.base.listening import nobody
from clinic_backups.base.table import Table
from clinic_backups.tenant.extract import SqlFolder
from clinic_backups.tenant.problems import Problem
from clinic_backups.tenant.row_problems import RowProblems, counted
from clinic_backups.tenant.row_question import RowQuestion
from clinic_backups.tenant.row_sql import (
    BackupRows,
    all_of,
    given,
    given_in_part,
    keys,
    listed,
    same,
    template,
    whole_row,
)
from clinic_backups.tenant.structure import ParentKey, Structure
from clinic_backups.tenant.tenant_db import Snapshot

OnFound = Callable[[Problem, sql.Composable], object]


@dataclass(frozen=True)
class RowCount:
    """One table's rows against the backups of all clinics."""

    left_out: int
    """Rows in no backup; for equal rows of a table without a key, the number that the backups lack."""
    too_many: int
    """The number of rows that the backups hold more than once."""
    in_table: int


class RowChecks:
    """Compares rows in one snapshot.

    :param tables: the tables that have an extract.
    :param rows: their rows in the backups.
    :param materialized: whether the server stores the keys of the backups' rows before it compares them. That is faster
        for one clinic, which has few keys, and slower for all.
    """

    def __init__(
        self,
        snapshot: Snapshot,
        structure: Structure,
        tables: Mapping[str, Table],
        rows: BackupRows,
        links: Iterable[ParentKey],
        folder: SqlFolder,
        *,
        materialized: bool = False,
    ) -> None:
        self._snapshot, self._structure, self._tables = snapshot, structure, tables
        self._rows, self._extracts = rows, rows.extracts
        self._declared, self._problems = folder.declarations(), RowProblems(folder.path, folder.clinic_table)
        self._materialized = materialized
        self._links = [link for link in links if {link.table, link.parent} <= tables.keys()]

    def count(self, table: Table, *, within_seconds: float) -> RowCount | None:
        """Count which rows of one table are in the clinics' backups; ``None`` if it takes too long.

        A table without a primary key is compared by its whole rows and their number.

        :raises PermanentError: the extract does not run with a column in place of a number.
        """
        parts: dict[str, sql.Composable] = {
            "table": self._table(table.name), "rows": sql.SQL(self._rows.of(table.name)),
        }  # fmt: skip
        if table.primary_key:
            ours, theirs = keys(table, "r"), keys(table, "t")
            names = [sql.Identifier(f"key{number}") for number, _ in enumerate(ours)]
            query = template("count_rows").format(
                **parts,
                extract_keys=listed(sql.SQL("{} AS {}").format(*pair) for pair in zip(ours, names, strict=True)),
                same=all_of(sql.SQL("{} = b.{}").format(key, name) for key, name in zip(theirs, names, strict=True)),
            )
        else:
            query = template("count_equal_rows").format(
                **parts, table_row=self._whole_row(table, "t"), extract_row=self._whole_row(table, "r")
            )
        found = self._snapshot.rows_within(
            within_seconds, query, f"counting the rows of {table.name}", extracts=self._extracts
        )
        return None if found is None else RowCount(*found[0])

    def problems(
        self,
        names: Sequence[str],
        *,
        within_seconds: float,
        missing: bool = True,
        twice: bool = True,
        several: bool = False,
        in_part: bool = False,
        on_found: OnFound = nobody,
    ) -> list[Problem] | None:
        """The problems of the rows of some tables; ``None`` if it takes too long.

        :param missing: look for rows that the extracts leave out.
        :param twice: look for rows that one backup has twice.
        :param several: look for rows that are in the backups of several clinics.
        :param in_part: look for rows in no backup whose foreign key of several columns is partly NULL. Their clinic is
            unknown, so use this for all clinics only.
        :param on_found: called with each problem of rows with a key, and with the query of these rows.
        :raises PermanentError: an extract does not run with a column in place of a number.
        """
        ask = RowQuestion(self._rows)
        for link in self._links:
            if link.table in names:
                ask.used |= {link.table, link.parent}
                self._ask_outside(ask, link)
                if missing and self._tables[link.table].primary_key and link.table not in self._declared.rows:
                    self._ask_missing(ask, link)
                if in_part and len(link.columns) > 1 and link.table not in self._declared.rows:
                    self._ask_in_part(ask, link)
        for name in names:
            if self._tables[name].primary_key:
                self._ask_repeated(
                    ask, name, [*(["rows_twice"] if twice else []), *(["rows_shared"] if several else [])]
                )
            elif missing or twice:
                self._ask_equal(ask, name, missing=missing and name not in self._declared.rows, twice=twice)
        if not ask.arms:
            return []
        doing = f"comparing the rows of {names[0] if len(names) == 1 else 'the clinic'}"
        backups = list(map(self._backed_up, sorted(ask.used)))
        found = self._snapshot.rows_within(within_seconds, ask.query(backups), doing, extracts=self._extracts)
        if found is None:
            return None
        for number, count in found:
            if count and number in ask.lists:
                on_found(counted(ask.problems[number], count), ask.query(backups, [ask.lists[number]]))
        return ask.found(found)

    def _ask_repeated(self, ask: RowQuestion, name: str, kinds: Iterable[str]) -> None:
        for kind in kinds:
            ask.used.add(name)
            ask.count(
                self._problems.repeated(kind, name), kind, listed_by=sql.SQL("k.*"), child=sql.Identifier(name),
                keys=listed(keys(self._tables[name], "b")),
            )  # fmt: skip

    def _ask_equal(self, ask: RowQuestion, name: str, *, missing: bool, twice: bool) -> None:
        """Count the equal rows of a table without a key, in the table and in the backups."""
        table, links = self._tables[name], [link for link in self._links if link.table == name]
        ask.used |= {name, *(link.parent for link in links)}
        parts = {"row": self._whole_row(table, "r"), "table": self._table(name), "child": sql.Identifier(name)}
        names_none = sql.SQL("NOT EXISTS (SELECT FROM {} AS p WHERE {})")
        alone = [names_none.format(sql.Identifier(link.parent), same(link, "p")) for link in links]
        counts: list[tuple[sql.Identifier, Problem]] = []
        for link in links:
            named = ask.name("equal_rows", parent=sql.Identifier(link.parent), same=same(link, "p"), **parts)
            counts.append((named, self._problems.missing(link)))
        named = ask.name("equal_rows_alone", alone=all_of(alone or [sql.SQL("true")]), **parts)
        counts.append((named, self._problems.equal_missing(name)))
        if missing:
            for counted_rows, problem in counts:
                ask.count(problem, "equal_rows_missing", counted=counted_rows)
        if twice:
            every = sql.SQL(" UNION ").join(sql.SQL("TABLE {}").format(each) for each, _ in counts)
            ask.count(self._problems.repeated("equal_rows", name), "equal_rows_repeated", counted=every)

    def _backed_up(self, name: str) -> sql.Composable:
        """The rows of all backups of a table, with the number of the clinic."""
        table = self._tables[name]
        wanted = [*table.primary_key]
        for link in self._links:
            wanted += [
                *(link.columns if link.table == name else ()),
                *(link.parent_columns if link.parent == name else ()),
            ]
        columns: list[sql.Composable] = [sql.Identifier("r", column) for column in dict.fromkeys(wanted)]
        if not table.primary_key:
            columns.append(sql.SQL("{} AS fila_del_respaldo").format(self._whole_row(table, "r")))
        return self._rows.backed_up(name, columns, materialized=self._materialized)

    def _ask_outside(self, ask: RowQuestion, link: ParentKey) -> None:
        # A missing parent makes the backup suspect, see plausibility.py. Here the parent exists in another clinic.
        exists = sql.SQL("\n   AND EXISTS (SELECT FROM {} AS p WHERE {})").format(
            qualified(link.parent), same(link, "p")
        )
        ask.count(
            self._problems.outside(link), "rows_outside", listed_by=self._keys_of(link.table),
            child=sql.Identifier(link.table),
            parent=sql.Identifier(link.parent), given=given(link), same=same(link, "p"), exists=exists,
        )  # fmt: skip

    def _ask_missing(self, ask: RowQuestion, link: ParentKey) -> None:
        ask.count(
            self._problems.missing(link), "rows_missing", listed_by=self._keys_of(link.table),
            table=self._table(link.table),
            child=sql.Identifier(link.table), parent=sql.Identifier(link.parent), same=same(link, "p"),
            same_row=self._same_row(self._tables[link.table]),
        )  # fmt: skip

    def _ask_in_part(self, ask: RowQuestion, link: ParentKey) -> None:
        named = [given(each) for each in self._links if each.table == link.table]
        ask.count(
            self._problems.in_part(link), "rows_in_part", listed_by=self._keys_of(link.table),
            table=self._table(link.table),
            child=sql.Identifier(link.table), in_part=given_in_part(link), named=sql.SQL(" OR ").join(named),
            same_row=self._same_row(self._tables[link.table]),
        )  # fmt: skip

    def _keys_of(self, name: str) -> sql.Composable | None:
        """The primary key of the row r."""
        table = self._tables[name]
        return listed(keys(table, "r")) if table.primary_key else None

    def _same_row(self, table: Table) -> sql.Composable:
        if not table.primary_key:
            return sql.SQL("b.fila_del_respaldo = {}").format(self._whole_row(table, "r"))
        pairs = zip(keys(table, "b"), keys(table, "r"), strict=True)
        return all_of(sql.SQL("{} = {}").format(mine, theirs) for mine, theirs in pairs)

    def _whole_row(self, table: Table, alias: str) -> sql.Composable:
        """The whole row without declared columns, whose values may differ in a backup."""
        return whole_row(table, alias, self._declared.columns)

    def _table(self, name: str) -> sql.Composable:
        return sql.SQL(self._structure.own_rows(name))
