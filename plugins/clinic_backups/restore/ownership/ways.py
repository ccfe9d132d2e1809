"""Finds the links by which rows lead to a clinic, and which of them say to which clinic a row belongs now."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property

from psycopg2 import sql

from clinic_backups.base.clinic_id import ClinicId, clinic_id_of
from clinic_backups.base.database import qualified
from clinic_backups.base.errors import PermanentError
from clinic_backups.base.shared_unit import is_shared
from clinic_backups.base.text import quoted, quoted_table
from clinic_backups.restore.table_rules import Reference, with_child
from clinic_backups.restore.workspace import Workspace
from clinic_backups.tenant import structure
from clinic_backups.tenant.coverage import Coverage
from clinic_backups.tenant.declarations import Declarations
from clinic_backups.tenant.every_clinic import CLINIC, for_every_clinic, number_type
from clinic_backups.tenant.extract import SqlExtract, SqlFolder, ended, render
from clinic_backups.tenant.gate import names_of
from clinic_backups.tenant.key_names import KeyNames
from clinic_backups.tenant.links import Links
from clinic_backups.tenant.strangers import require_no_strangers
from clinic_backups.tenant.tenant_db import Snapshot


class Ways:
    """Foreign keys, and columns named like one, between tables with an extract, in the present database.

    They are read when they are first needed. Most plans miss no row and need none.

    :param queries: the extract of each table, rendered for the clinic.
    """

    def __init__(
        self, workspace: Workspace, folder: SqlFolder, queries: Mapping[str, str], clinic_id: ClinicId
    ) -> None:
        self._workspace, self._folder, self.clinic_id = workspace, folder, clinic_id
        self._given, self._made = queries, 0

    @cached_property
    def clinic_table(self) -> str:
        """``schema.table`` of the clinics."""
        return self._folder.clinic_table

    @cached_property
    def clinics_key(self) -> str | None:
        """The column of the clinics' table that holds a clinic's number; none if it cannot be told."""
        if self._folder.clinic_key.column is not None:
            return self._folder.clinic_key.column
        compared = self._compared.get(self.clinic_table, frozenset[str]())
        # If the clinics' table has no extract, the column that most foreign keys refer to.
        named = [
            key.parent_columns[0]
            for key in self._structure.references
            if key.parent == self.clinic_table and len(key.columns) == 1
        ]
        return min(compared, default=None) or max(sorted(set(named)), key=named.count, default=None)

    @cached_property
    def queries(self) -> dict[str, str]:
        """The query for the clinic's rows in each table with an extract, and in the clinics' own table."""
        queries = dict(self._given)
        if is_shared(self.clinic_id):
            return queries  # its rows may refer to those of every clinic
        if self.clinic_table not in queries and self.clinics_key is not None:
            table, key = quoted_table(self.clinic_table), quoted(self.clinics_key)
            own = self._folder.clinic_key.literal(self.clinic_id)
            queries[self.clinic_table] = f"SELECT * FROM {table} WHERE {key} = {own}"  # noqa: S608 - quoted
        return queries

    @cached_property
    def _compared(self) -> Mapping[str, frozenset[str]]:
        """The columns that each extract compares with the clinic's id."""
        return self._folder.clinic_columns()

    @cached_property
    def _declarations(self) -> Declarations:
        return self._folder.declarations()

    @cached_property
    def _structure(self) -> structure.Structure:
        return structure.read(self._workspace, names_of(self._folder), self._folder.clinic_table)

    @cached_property
    def _names(self) -> KeyNames:
        return KeyNames(self._structure, self._folder, self.queries)

    @cached_property
    def links(self) -> tuple[Reference, ...]:
        """The links that say to which clinic a row belongs."""
        return tuple(map(_reference, Coverage(self._structure, self._folder, self.queries).links()))

    @cached_property
    def declared(self) -> tuple[Reference, ...]:
        """The links whose column may name another clinic's rows, as somebody declared."""
        key = [self.clinics_key] if self.clinics_key else []
        every = Links(self._structure, self._names, self.queries, (), self.clinic_table, key).all()
        return tuple(each for each in map(_reference, every) if each not in self.links)

    @cached_property
    def named(self) -> tuple[Reference, ...]:
        """Those of ``links`` that have no foreign key, but a column with the name of one."""
        keys = {(key.table, key.columns, key.parent) for key in self._structure.references}
        return tuple(each for each in self.links if (each.child, each.columns, each.parent) not in keys)

    def of(self, table: str) -> list[Reference]:
        """The links of one table."""
        return with_child(self.links, table)

    def telling(self, table: str) -> set[str]:
        """Columns of a table that say to which clinic a row belongs: columns of its links, and of its extract."""
        compared = self._compared.get(table, frozenset[str]())
        return {column for way in self.of(table) for column in way.columns} | compared

    def marks(self, table: str) -> list[str]:
        """Columns that say to which clinic a row belongs, but cannot be followed: other types, arrays, codes."""
        named = {
            column.name
            for column in self._structure.columns
            if column.table == table and not column.in_primary_key and self._names.meant_by(column) is not None
        }
        followed = {column for way in (*self.of(table), *with_child(self.declared, table)) for column in way.columns}
        said = {column.rpartition(".")[2] for column in self._declarations.columns
                if column.startswith(f"{table}.")}  # fmt: skip
        # An extract compares columns of the tables that it joins as well.
        own = {column.name for column in self._structure.columns if column.table == table}
        return sorted(((named | self.telling(table)) & own) - followed - said)

    def keeps_keys(self, table: str) -> bool:
        """Whether somebody declared that two rows never get the same key, and that none is given to another clinic."""
        return table in self._declarations.lasting_keys

    @cached_property
    def readable(self) -> frozenset[str]:
        """Tables that the links lead to and that this role may read."""
        parents = sorted({way.parent for way in (*self.links, *self.declared)})
        require_no_strangers(self._workspace, self._folder, self._given, "The restore", tables=parents)
        found = self._workspace.rows(
            "SELECT n.nspname || '.' || c.relname FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace"
            " WHERE n.nspname || '.' || c.relname = ANY (%(names)s) AND has_table_privilege(c.oid, 'SELECT')",
            {"names": parents},
            "asking which tables may be read",
        )
        return frozenset(name for (name,) in found)

    def of_others(self, table: str, columns: sql.Composable, among: sql.Composable) -> sql.Identifier:
        """A temporary table of those rows ``r`` that a table's extract returns for other clinics.

        :param columns: the columns of ``r`` to keep.
        :param among: the rows to look for.
        """
        self._made += 1
        name, template = f"others_{self._made}", self._folder.extracts()[table]
        doing = f"looking for other clinics' rows of {table}"
        clinics = sql.SQL(ended(self._folder.text("all_clinics.sql")))
        making = sql.SQL("SELECT {} FROM {} WHERE {}")
        file, key = f"extract/{table}.sql", self._folder.clinic_key
        others_id = sql.SQL("clinica_del_respaldo.id" + ("" if key.type == "integer" else f"::{key.type}"))
        try:
            everybody = sql.SQL(
                "(\n{}\n) AS clinica_del_respaldo (id, name, language) CROSS JOIN LATERAL (\n{}\n) AS r"
            ).format(clinics, sql.SQL(for_every_clinic(template, name=file, type_=number_type((), key))))
            others = sql.SQL("{} <> {} AND {}").format(others_id, sql.SQL(key.literal(self.clinic_id)), among)
            made = self._workspace.derive(name, making.format(columns, everybody, others), doing)
        except PermanentError:
            # The extract runs with a number alone, or means something else with a column.
            own = sql.SQL("(\n{}\n) AS r").format(sql.SQL(self.queries[table]))
            made = self._workspace.derive(name, making.format(columns, own, sql.SQL("false")), doing)
            ids = sql.SQL("SELECT {0}.id FROM (\n{1}\n) AS {0} (id, name, language) WHERE {3} <> {2}").format(
                CLINIC, clinics, sql.SQL(key.literal(self.clinic_id)), others_id
            )
            for (other,) in self._workspace.rows(ids, None, "asking for the clinics"):
                given = sql.SQL("(\n{}\n) AS r").format(
                    sql.SQL(render(template, clinic_id_of(other), name=file, key=key))
                )
                statement = sql.SQL("INSERT INTO {} {}").format(made, making.format(columns, given, among))
                self._workspace.execute(statement, doing)
        self._workspace.analyze(doing, (made, ()))
        return made

    def exists(self, way: Reference, child: str) -> sql.Composed:
        """SQL: the row of alias ``child`` refers to an existing row, whichever clinic that belongs to."""
        return sql.SQL("EXISTS (SELECT FROM {} AS p WHERE {})").format(qualified(way.parent), way.refers(child, "p"))


def links_in(snapshot: Snapshot, folder: SqlFolder, clinic_id: ClinicId) -> tuple[Reference, ...]:
    """The links between tables with an extract, for those who need nothing else of :class:`Ways`."""
    queries = SqlExtract().rendered(folder, clinic_id)
    read = structure.read(snapshot, names_of(folder), folder.clinic_table)
    return tuple(map(_reference, Coverage(read, folder, queries).links()))


def _reference(link: structure.ParentKey) -> Reference:
    return Reference(
        name=("" if link.enforced else "by the name of ") + ", ".join(link.columns),
        child=link.table,
        columns=link.columns,
        parent=link.parent,
        parent_columns=link.parent_columns,
        operators=link.operators,
        is_named=not link.enforced,
    )


def columns_of_ways(ways: Sequence[Reference]) -> list[str]:
    """The columns of links, in order of name."""
    return sorted({name for way in ways for name in way.columns})
