"""What the rows say about the extracts: whether each row of a clinic is in its backup, once, and no other row is."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources

from psycopg2 import sql

from clinic_backups.coverage import Problem
from clinic_backups.declarations import FILE
from clinic_backups.extract import SqlFolder
from clinic_backups.model import Table
from clinic_backups.structure import Reference, Structure
from clinic_backups.tenant_db import Snapshot

CLINIC = sql.Identifier("clinica_del_respaldo")
PLACEHOLDER = "clinica_del_respaldo.id"
"""Stands in an extract where one backup has its clinic's number, so that one query is about all clinics."""


def one_clinic(clinic_id: int) -> str:
    """What stands for ``all_clinics.sql`` where the rows of one clinic are compared."""
    return f"SELECT {int(clinic_id)}, ''::text, ''::text"


@dataclass(frozen=True)
class RowCount:
    """One table's rows against the backups of all clinics."""

    in_no_backup: int
    in_backups: int
    """Rows of all backups together: a row that is in two of them counts twice."""
    in_table: int

    @property
    def left_out(self) -> int:
        """Rows in no backup; equal rows of a table without key of which an extract gives only one count too."""
        return max(self.in_no_backup, self.in_table - self.in_backups)

    @property
    def too_many(self) -> int:
        """By how much the backups hold more than each of their rows once."""
        return self.in_backups - (self.in_table - self.in_no_backup)


class RowChecks:
    """Compares rows in one snapshot.

    :param tables: the tables that have an extract.
    :param extracts: their extracts, rendered with :data:`PLACEHOLDER` or, for one clinic, with its number.
    :param clinics: the query of ``all_clinics.sql``, or :func:`one_clinic`.
    :param materialized: the server keeps the keys of the backups' rows while it compares them: faster for one clinic,
        whose keys are few, and slower for all.
    """

    def __init__(
        self,
        snapshot: Snapshot,
        structure: Structure,
        tables: Mapping[str, Table],
        extracts: Mapping[str, str],
        clinics: str,
        links: Iterable[Reference],
        folder: SqlFolder,
        *,
        materialized: bool = False,
    ) -> None:
        self._snapshot, self._structure, self._tables = snapshot, structure, tables
        self._extracts, self._folder = extracts, folder.path
        self._clinic_table, self._declared = folder.clinic_table, folder.declarations()
        self._how = "" if materialized else "NOT "
        self._clinics = sql.SQL(clinics.strip().rstrip(";"))
        self._links = [link for link in links if {link.table, link.parent} <= tables.keys()]

    def count(self, table: Table, *, within_seconds: float) -> RowCount | None:
        """Count which rows of one table are in the clinics' backups; ``None`` when it takes longer.

        A table without primary key is compared by its whole rows.

        :raises PermanentError: the extract does not run with a column in place of a number.
        """
        keys = _keys(table, "r")
        names = [sql.Identifier(f"key{number}") for number, _ in enumerate(keys)]
        query = _template("count_rows").format(
            table=identifier(table.name),
            only=self._only(table.name),
            clinics=self._clinics,
            extract=sql.SQL(self._extracts[table.name]),
            extract_keys=_listed(sql.SQL("{} AS {}").format(key, name) for key, name in zip(keys, names, strict=True)),
            same=_all(
                sql.SQL("{} = b.{}").format(key, name) for key, name in zip(_keys(table, "t"), names, strict=True)
            ),
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
    ) -> list[Problem] | None:
        """What is wrong with the rows of some tables; ``None`` when it takes longer.

        :param missing: look for rows that the extracts leave out.
        :param twice: look for rows that one backup has twice.
        :param several: look for rows that are in the backups of several clinics.
        :raises PermanentError: an extract does not run with a column in place of a number.
        """
        arms: list[sql.Composable] = []
        problems: list[tuple[str, str, str, str]] = []
        used: set[str] = set()

        def ask(arm: sql.Composable, *problem: str) -> None:
            arms.append(arm)
            problems.append(problem)  # type: ignore[arg-type]

        for link in self._links:
            if link.table not in names:
                continue
            used |= {link.table, link.parent}
            ask(self._outside(link, len(arms)), *self._outside_problem(link))
            if missing and link.table not in self._declared.rows:
                ask(self._missing(link, len(arms)), *self._missing_problem(link))
        for name in names:
            if self._tables[name].primary_key:
                for wanted, kind in ((twice, "rows_twice"), (several, "rows_shared")):
                    if wanted:
                        used.add(name)
                        ask(self._keys_arm(kind, name, len(arms)), *self._repeated_problem(kind, name))
        if not arms:
            return []
        doing = f"comparing the rows of {names[0] if len(names) == 1 else 'the clinic'}"
        backups = sql.SQL(",\n").join(self._backed_up(name) for name in sorted(used))
        query = sql.SQL("WITH {}\n{}").format(backups, sql.SQL("\nUNION ALL\n").join(arms))
        found = self._snapshot.rows_within(within_seconds, query, doing, extracts=self._extracts)
        if found is None:
            return None
        return [
            Problem(table, f"{table}: {_counted(count, text)}", remedy, check="rows")
            for number, count in sorted(found)
            if count
            for table, text, remedy in [problems[number][:3]]
        ]

    def _outside_problem(self, link: Reference) -> tuple[str, str, str]:
        columns, column = ", ".join(link.columns), link.columns[-1]
        file = self._folder / "extract"
        if link.parent == self._clinic_table:
            text = f"of a backup belong{{s}} to another clinic, as the column {columns} says."
        else:
            text = f"of a backup name{{s}} in {columns} a row of {link.parent} that is not in the same clinic's backup."
        return (
            link.table,
            text,
            f"Correct the extract of {link.table} or of {link.parent} in {file}, or the rows. If it is meant so, add"
            f" the line `{link.table}.{column}: reason` to {self._folder / FILE}.",
        )

    def _missing_problem(self, link: Reference) -> tuple[str, str, str]:
        return (
            link.table,
            f"{{be}} in no backup, though their column {', '.join(link.columns)} names a row of {link.parent} that is"
            " in one.",
            f"Correct the extract of {link.table} in {self._folder / 'extract'}: it leaves out rows of a clinic. If it"
            f" is meant so, add the line `{link.table}: rows, reason` to {self._folder / FILE}.",
        )

    def _repeated_problem(self, kind: str, name: str) -> tuple[str, str, str]:
        text = "{be} twice in one backup." if kind == "rows_twice" else "{be} in the backups of several clinics."
        return name, text, "Correct the extract: each row belongs to one clinic, and a join must not multiply it."

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
            columns.append(sql.SQL("{} AS fila_del_respaldo").format(_keys(table, "r")[0]))
        return _template("backed_up").format(
            name=sql.Identifier(name), how=sql.SQL(self._how), clinic=CLINIC, columns=_listed(columns),
            clinics=self._clinics, extract=sql.SQL(self._extracts[name]),
        )  # fmt: skip

    def _outside(self, link: Reference, number: int) -> sql.Composable:
        # A parent that is in nobody's table any more makes the backup suspect; here it must be another clinic's.
        exists = sql.SQL("\n   AND EXISTS (SELECT FROM {} AS p WHERE {})").format(
            identifier(link.parent), _same(link, "p")
        )
        return _template("rows_outside").format(
            number=sql.Literal(number), child=sql.Identifier(link.table), parent=sql.Identifier(link.parent),
            given=_all(sql.SQL("{} IS NOT NULL").format(sql.Identifier("r", column)) for column in link.columns),
            same=_same(link, "p"), exists=exists,
        )  # fmt: skip

    def _missing(self, link: Reference, number: int) -> sql.Composable:
        table = self._tables[link.table]
        if table.primary_key:
            same_row = _all(
                sql.SQL("{} = {}").format(mine, theirs)
                for mine, theirs in zip(_keys(table, "b"), _keys(table, "r"), strict=True)
            )
        else:
            same_row = sql.SQL("b.fila_del_respaldo = {}").format(_keys(table, "r")[0])
        return _template("rows_missing").format(
            number=sql.Literal(number), table=self._only(link.table) + identifier(link.table),
            child=sql.Identifier(link.table), parent=sql.Identifier(link.parent), same=_same(link, "p"),
            same_row=same_row,
        )  # fmt: skip

    def _keys_arm(self, kind: str, name: str, number: int) -> sql.Composable:
        return _template(kind).format(
            number=sql.Literal(number), child=sql.Identifier(name), keys=_listed(_keys(self._tables[name], "b"))
        )

    def _only(self, name: str) -> sql.Composable:
        """Not the rows of tables that inherit from it; a partitioned table is its partitions' rows."""
        relation = self._structure.relations.get(name)
        return sql.SQL("ONLY " if relation is not None and relation.kind == "r" else "")


def _counted(count: int, text: str) -> str:
    one = count == 1
    return f"{count} row{'' if one else 's'} " + text.format(s="s" if one else "", be="is" if one else "are")


def _template(name: str) -> sql.SQL:
    return sql.SQL(resources.files("clinic_backups").joinpath("pg_catalog", f"{name}.sql").read_text(encoding="utf-8"))


def identifier(table: str) -> sql.Identifier:
    return sql.Identifier(*table.split(".", 1))


def _same(link: Reference, parent: str) -> sql.Composable:
    """With the operators of the foreign key: its column may be of another type, or of an extension's."""
    return _all(
        sql.SQL("{} OPERATOR({}.{}) {}").format(
            sql.Identifier(parent, theirs), sql.Identifier(schema), sql.SQL(operator), sql.Identifier("r", ours)
        )
        for theirs, ours, (schema, operator) in zip(link.parent_columns, link.columns, link.operators, strict=True)
    )


def _keys(table: Table, alias: str) -> list[sql.Composable]:
    """What tells the rows of a table apart. Values of an extension's type are compared as text: only the equality of
    PostgreSQL's own types is found without a search path."""
    if table.primary_key:
        types = {column.name: column.type for column in table.columns}
        return [
            sql.SQL("{}::text" if "." in types[column] else "{}").format(sql.Identifier(alias, column))
            for column in table.primary_key
        ]
    columns = [sql.Identifier(alias, column.name) for column in table.stored_columns]
    return [sql.SQL("ROW({})::text").format(sql.SQL(", ").join(columns))]


def _all(conditions: Iterable[sql.Composable]) -> sql.Composable:
    return sql.SQL(" AND ").join(conditions)


def _listed(items: Iterable[sql.Composable]) -> sql.Composable:
    return sql.SQL(", ").join(items)
