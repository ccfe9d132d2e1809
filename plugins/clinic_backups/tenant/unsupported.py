"""Finds what no extract can back up row by row: other relations than tables, partitions, heirs, large objects."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from clinic_backups.base.text import table_in_sql
from clinic_backups.tenant.declarations import FILE, Declarations, spelled
from clinic_backups.tenant.problems import Problem, Remedies
from clinic_backups.tenant.structure import KINDS, NotedColumn, Structure


class Unsupported:
    """Compares the extracts with the kinds of the relations that they read.

    :param extracts: the tables that have an extract.
    :param on_purpose: the tables that are in no backup on purpose.
    """

    def __init__(
        self,
        structure: Structure,
        extracts: frozenset[str],
        on_purpose: Collection[str],
        declared: Declarations,
        remedies: Remedies,
    ) -> None:
        self._structure, self._extracts, self._on_purpose = structure, extracts, on_purpose
        self._declared, self._remedies = declared, remedies

    def problems(self) -> Iterable[Problem]:
        """All of them."""
        yield from self._other_relations()
        yield from self._leaving_partitions()
        yield from self._heirs_without_extract()
        yield from self._large_objects()

    def _other_relations(self) -> Iterable[Problem]:
        """Extracts of relations that cannot be read or written row by row."""
        relations = self._structure.relations
        for name in sorted(self._extracts & relations.keys()):
            relation = relations[name]
            remove = f"Remove the extract of {name}"
            if relation.kind not in "rp":
                yield Problem(
                    name,
                    f"{name} is a {KINDS[relation.kind]}, and a backup holds the rows of tables only.",
                    f"{remove}, and write extracts of the tables that its rows come from.",
                )
            elif relation.root is not None:
                yield Problem(
                    name,
                    f"{name} is a partition of {relation.root}.",
                    f"{remove}, and write one of {relation.root}: it covers all its partitions.",
                )
            for part in [relation, *(found for found in relations.values() if found.root == name)]:
                if part.kind == "f" and part is not relation:
                    yield Problem(
                        name,
                        f"{part.name} is a foreign table and a partition of {name}. Its rows are in another server:"
                        " they are not part of this snapshot, and a restore could not prove what it wrote there.",
                        "Move its rows into a partition of this server. Or detach it: ALTER TABLE … DETACH PARTITION."
                        f" Then: {self._remedies.line(part.name)}",
                    )
                if part.persistence == "u":
                    yield Problem(
                        name,
                        f"{part.name} is unlogged: PostgreSQL empties it after a crash, and the next backup would hold"
                        " none of its rows.",
                        f"ALTER TABLE {table_in_sql(part.name)} SET LOGGED; Or remove the extract of {name}."
                        f" {self._remedies.line(name)}",
                    )

    def _leaving_partitions(self) -> Iterable[Problem]:
        """Partitions that a DETACH is taking out: their rows are in no backup, and in no table of their own yet."""
        for part in self._structure.relations.values():
            root = part.leaves
            if root is not None and root in self._extracts:
                yield Problem(
                    root,
                    f"{part.name} is being detached from {root}, or that was interrupted: queries of {root} do not read"
                    " its rows any more, and they would be in no backup.",
                    f"Wait until DETACH PARTITION has ended, or end it: ALTER TABLE {table_in_sql(root)} DETACH"
                    f" PARTITION {table_in_sql(part.name)} FINALIZE; Then write an extract of {part.name}, or attach it"
                    " again.",
                )

    def _heirs_without_extract(self) -> Iterable[Problem]:
        for parent, heirs in inherited(self._structure, self._extracts).items():
            for heir in heirs:
                if heir not in self._extracts and heir not in self._on_purpose:
                    yield Problem(
                        heir,
                        f"{heir} inherits from {parent} and has no extract: its rows and its own columns would be in no"
                        " backup.",
                        f"{self._of_heir(heir)} The extract of {parent} must read FROM ONLY {parent}.",
                    )

    def _of_heir(self, heir: str) -> str:
        is_foreign = self._structure.relations[heir].kind == "f"
        return self._remedies.line(heir) if is_foreign else self._remedies.extract_or_line(heir)

    def _large_objects(self) -> Iterable[Problem]:
        columns = [column for column in self._structure.columns if column.table in self._extracts]
        for column in columns:
            name = f"{column.table}.{column.name}"
            if is_large_object(column) and name not in self._declared.columns:
                yield large_object_problem(column)
        if self._structure.has_large_objects and not any(c.is_oid or c.oid_attributes or c.managed for c in columns):
            yield Problem(
                "pg_largeobject",
                "The database has large objects, but no column of type oid or lo of an extracted table refers to one."
                " Large objects are in no backup.",
                "If a column of another type holds their numbers, move their content into columns of type bytea.",
                is_gap=False,
            )


def inherited(structure: Structure, extracts: Collection[str]) -> dict[str, list[str]]:
    """Extracted tables from which other tables inherit, with these tables."""
    return {name: heirs for name in sorted(extracts) if (heirs := structure.descendants(name))}


def large_object_problem(column: NotedColumn) -> Problem:
    """The problem of a column that refers to large objects."""
    return Problem(
        column.table,
        f"{column.table}.{column.name} (type {column.type}) holds numbers of large objects, which no backup contains.",
        "Move their content into a column of type bytea, or add the line"
        f" `{spelled(column.table, column.name)}: reason` to {FILE}: the backup then holds only their numbers.",
    )


def is_large_object(column: NotedColumn) -> bool:
    return column.managed or (column.is_oid and column.type.removesuffix("[]").rpartition(".")[2] == "lo")
