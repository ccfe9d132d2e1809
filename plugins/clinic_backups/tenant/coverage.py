"""Finds tables and columns that a backup would lack. Compares PostgreSQL's catalog with the SQL folder."""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterable

from clinic_backups.base.text import in_sql, table_in_sql
from clinic_backups.tenant.copies import left_out
from clinic_backups.tenant.declarations import spelled
from clinic_backups.tenant.extract import SqlFolder
from clinic_backups.tenant.key_names import KeyNames, Pair
from clinic_backups.tenant.links import Links
from clinic_backups.tenant.parent_tables import ParentTables
from clinic_backups.tenant.problems import Problem, Remedies, schema_of
from clinic_backups.tenant.stale_lines import stale_lines
from clinic_backups.tenant.structure import KINDS, NotedColumn, ParentKey, Structure, comparable, may_hold
from clinic_backups.tenant.unsupported import Unsupported, inherited, is_large_object


def chains(clinic_table: str, references: Iterable[tuple[str, str]]) -> dict[str, tuple[str, ...]]:
    """The tables that lead to the clinic, each with a shortest chain of foreign keys from the table to the clinic.

    :param references: all foreign keys as (table, referenced table).
    :returns: in order of name. The clinics' own table is included, with itself as the chain.
    """
    children: dict[str, set[str]] = {}
    for child, parent in references:
        children.setdefault(parent, set()).add(child)
    found: dict[str, tuple[str, ...]] = {clinic_table: (clinic_table,)}
    waiting = deque([clinic_table])
    while waiting:
        parent = waiting.popleft()
        for child in sorted(children.get(parent, set()) - found.keys()):
            found[child] = (child, *found[parent])
            waiting.append(child)
    return dict(sorted(found.items()))


class Coverage:
    """Compares the existing tables with the extracts and with the declarations.

    :param extracts: the tables that have an extract.
    """

    def __init__(self, structure: Structure, folder: SqlFolder, extracts: Collection[str]) -> None:
        self.structure = self._structure = structure
        parents = folder.parents()
        self._folder, self._extracts = folder.path, frozenset(extracts) - parents.keys()
        self._backed_up = self._extracts | parents.keys()
        self.clinic_table, self._declared = folder.clinic_table, folder.declarations()
        self._copies = left_out(structure.copies, folder)
        self._on_purpose = self._declared.tables.keys() | {
            name for name in structure.relations if schema_of(name) in {*self._declared.schemas, *self._copies}
        }
        """The tables that are in no backup on purpose."""
        self._remedies = Remedies(self._folder, self._backed_up)
        self._unsupported = Unsupported(structure, self._backed_up, self._on_purpose, self._declared, self._remedies)
        self._names = KeyNames(structure, folder, self._extracts)
        self._links = Links(
            structure, self._names, self._extracts, self._declared.columns, self.clinic_table,
            folder.clinic_columns().get(self.clinic_table, ()),
        )  # fmt: skip
        # A parent table's rows are not one clinic's, even if they name a clinic.
        real = {(key.table, key.parent) for key in structure.references if key.table not in parents}
        self._by_keys = chains(self.clinic_table, real)
        """The tables that lead to the clinic by foreign keys."""
        self._told = self._by_keys.keys() | parents.keys()
        """The tables whose class needs no name of a column."""
        named = {(column.table, meant.parent) for column, meant in self._named()}
        named |= {(pair.table, pair.parent) for pair in self._pairs()}
        alone = {(table, self.clinic_table) for table in self._extracts - self._by_keys.keys()}
        # A table that leads to a table of clinics belongs to clinics too.
        self.chains = chains(self.clinic_table, real | named | alone)
        self.parents = ParentTables(
            structure, folder, self._links, self._remedies, extracts=self._extracts, on_purpose=self._on_purpose,
            chains=self.chains,
        )  # fmt: skip

    def problems(self) -> list[Problem]:
        """All problems except those that need a query of rows, see :meth:`oid_columns` and :meth:`inherited`."""
        if self.clinic_table not in self._structure.relations:
            return [
                Problem(
                    self.clinic_table,
                    f"clinic_table.txt names {self.clinic_table}, which does not exist.",
                    f"Write the clinics' table into {self._folder / 'clinic_table.txt'}.",
                )
            ]
        return [
            *self._untold(),
            *self._without_extract(),
            *self._named_like_a_key(),
            *self._of_copies(),
            *self._unsupported.problems(),
            *self.parents.problems(),
            *stale_lines(self._structure, self._backed_up, self._declared),
        ]

    def has_extract(self, table: str) -> bool:
        """Whether a table's rows are in backups, as rows of a clinic."""
        return table in self._extracts

    def links(self) -> list[ParentKey]:
        """The links from the rows of each extract to other extracts."""
        return self._links.all()

    def oid_columns(self) -> list[NotedColumn]:
        """Columns of extracted tables whose numbers may be those of large objects."""
        if not self._structure.has_large_objects:
            return []
        return [
            column for column in self._structure.columns
            if column.table in self._backed_up and (column.is_oid or column.oid_attributes)
            and not is_large_object(column)
            and f"{column.table}.{column.name}" not in self._declared.columns
        ]  # fmt: skip

    def inherited(self) -> dict[str, list[str]]:
        """Extracted tables from which other tables inherit, with these tables."""
        return inherited(self._structure, self._backed_up)

    def unclassed(self) -> list[str]:
        """Tables that lead to no clinic and are not declared."""
        referenced = {problem.table for problem in self.parents.problems()}
        known = self._backed_up | self._on_purpose | self.chains.keys() | referenced
        return sorted(
            name for name, relation in self._structure.relations.items()
            if relation.kind in "rp" and relation.root is None and name not in known
        )  # fmt: skip

    def _untold(self) -> Iterable[Problem]:
        others = {name for name, relation in self._structure.relations.items() if relation.kind in "rp"}
        by_several_columns = any(key.parent == self.clinic_table != key.table for key in self._structure.references)
        if others - {self.clinic_table} and not by_several_columns and not self._names.leads_to_clinic:
            yield Problem(
                self.clinic_table,
                f"It cannot be told which tables belong to clinics: no foreign key leads to {self.clinic_table}, and"
                " no extract compares a column of its table with the clinic's number. A missing extract would not be"
                " found.",
                "Write `column = {{ clinic_id }}` in the extracts where a table has such a column, or add foreign keys."
                f" Otherwise compare the list of all tables with {self._folder / 'extract'}.",
                is_gap=False,
            )

    def _of_copies(self) -> Iterable[Problem]:
        for schema in self._copies:
            yield Problem(
                schema,
                f"The schema {schema} is a copy of a backup, made by `restore-into`. No backup holds it.",
                f"If nobody needs it any more: DROP SCHEMA {in_sql(schema)} CASCADE;",
                is_gap=False,
            )

    def _without_extract(self) -> Iterable[Problem]:
        named = {column.table for column, _ in self._named()} | {pair.table for pair in self._pairs()}
        for name, chain in self.chains.items():
            if name not in self._extracts and name not in self._on_purpose and name not in named:
                leads = f"leads to the clinic ({' -> '.join(chain)})" if len(chain) > 1 else "is the clinics' table"
                yield Problem(name, f"{name} {leads} and would be in no backup.", self._remedies.extract_or_line(name))

    def _named(self) -> Iterable[tuple[NotedColumn, ParentKey]]:
        """Columns whose name alone shows that their table's rows belong to a clinic."""
        for column in self._structure.columns:
            meant = self._names.meant_by(column)
            if column.table not in self._told and meant is not None and self._fits(column, meant):
                yield column, meant

    def _pairs(self) -> Iterable[Pair]:
        """Groups of columns whose names together show that their table's rows belong to a clinic."""
        named = {column.table for column, _ in self._named()}
        for pair in self._names.pairs():
            declared = any(f"{pair.table}.{column}" in self._declared.columns for column in pair.columns)
            if pair.table not in self._told | named and not declared:
                yield pair

    def doubtful(self) -> list[tuple[NotedColumn, ParentKey, Problem]]:
        """Columns that count as gaps although their type differs from the key's.

        Their values show whether they are keys.

        The clinic's own key is included whatever its type is.
        """
        open_ = self._extracts | self._on_purpose
        return [
            (column, meant, self._key_problem(column, meant, is_gap=True))
            for column, meant in self._named()
            if column.table not in open_ and self._is_doubtful(column, meant)
        ]

    def _is_doubtful(self, column: NotedColumn, meant: ParentKey) -> bool:
        return meant.parent != self.clinic_table and not self._names.is_same(meant, column)

    def _named_like_a_key(self) -> Iterable[Problem]:
        """Columns of tables without an extract that are named like a foreign key but have no constraint."""
        clear = {(column.table, column.name) for column, _ in self._named()}
        settled = self._extracts | self._on_purpose | self._told
        for column in self._structure.columns:
            meant = self._names.meant_by(column) or self._names.perhaps_meant_by(column)
            is_clear = (column.table, column.name) in clear
            if column.table in settled or meant is None or not self._fits(column, meant):
                continue
            if not (is_clear and self._is_doubtful(column, meant)):
                yield self._key_problem(column, meant, is_gap=is_clear)
        for pair in self._pairs():
            if pair.table not in settled:
                columns = ", ".join(pair.columns)
                yield self._named_problem(
                    pair.table, f"columns {columns} are together", pair.parent,
                    self._remedies.extract_or_line(pair.table), pair.columns[0], is_gap=True,
                )  # fmt: skip

    def _fits(self, column: NotedColumn, meant: ParentKey) -> bool:
        """Whether the type fits the key's. For the clinic's own key every type fits."""
        of_type = meant.parent == self.clinic_table or may_hold(column.base, meant.base or meant.type)
        return of_type and not self._is_settled(column)

    def _key_problem(self, column: NotedColumn, meant: ParentKey, *, is_gap: bool) -> Problem:
        kind = KINDS[self._structure.relations[column.table].kind]
        if kind == "foreign table":
            remedy = self._remedies.line(column.table)
        elif column.is_array or not comparable(meant.type, column.type):
            remedy = self._remedies.extract_or_line(column.table)
        else:
            parent = f"{table_in_sql(meant.parent)} ({in_sql(meant.parent_columns[0])})"
            remedy = (
                f"{self._remedies.extract_or_line(column.table)} Or add the constraint: ALTER TABLE"
                f" {table_in_sql(column.table)} ADD FOREIGN KEY ({in_sql(column.name)}) REFERENCES {parent};"
            )
        return self._named_problem(
            column.table, f"column {column.name} is", meant.parent, remedy, column.name, is_gap=is_gap
        )

    def _named_problem(
        self, table: str, what: str, parent: str, remedy: str, column: str, *, is_gap: bool
    ) -> Problem:  # fmt: skip
        kind = KINDS[self._structure.relations[table].kind]
        return Problem(
            table,
            f"{table} is a {kind} whose {what} named like a foreign key to {parent}."
            " It has no such constraint, and its rows would be in no backup.",
            f"{remedy} If the column means something else, add the line `{spelled(table, column)}: reason`.",
            is_gap=is_gap,
        )

    def _is_settled(self, column: NotedColumn) -> bool:
        declared = f"{column.table}.{column.name}" in self._declared.columns
        is_key = column.is_foreign_key and not column.is_part
        return declared or is_key or column.table == self.clinic_table
