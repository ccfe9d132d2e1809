"""Parent tables: one clinic's rows refer to their rows, and so may those of other clinics.

See docs/decisions/0029-parent-tables.md.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

from clinic_backups.base.text import in_sql, table_in_sql
from clinic_backups.tenant.declarations import FILE, spelled
from clinic_backups.tenant.extract import PARENTS, SqlFolder, ended
from clinic_backups.tenant.links import Links
from clinic_backups.tenant.operators import EQUAL
from clinic_backups.tenant.problems import Problem, Remedies
from clinic_backups.tenant.sql_tokens import tokens
from clinic_backups.tenant.structure import ParentKey, Structure

_PARENT, _CHILD = "parent_row", "child_row"
"""Aliases in proposed queries that no column is likely to have as its name."""
_ALL = " UNION ALL "


class ParentTables:
    """Compares the foreign keys of the tables that are backed up with the parent tables.

    :param extracts: the tables that have an extract.
    :param on_purpose: the tables that are in no backup on purpose.
    :param chains: the tables that lead to the clinic.
    """

    def __init__(
        self,
        structure: Structure,
        folder: SqlFolder,
        links: Links,
        remedies: Remedies,
        *,
        extracts: Collection[str],
        on_purpose: Collection[str],
        chains: Collection[str],
    ) -> None:
        self._structure, self._folder, self._links, self._remedies = structure, folder, links, remedies
        self.names = frozenset(folder.parents())
        self._extracts = frozenset(extracts)
        self._backed_up = self._extracts | self.names
        self._settled = self._backed_up | frozenset(on_purpose) | frozenset(chains)
        self._chains = frozenset(chains)

    def references(self) -> list[ParentKey]:
        """The foreign keys from rows of a backup to rows of a parent table."""
        return [key for key in self._structure.references if key.table in self._backed_up and key.parent in self.names]

    def undeclared(self) -> list[ParentKey]:
        """The same without declared columns, which may name something else."""
        return [key for key in self.references() if not self._links.is_declared(key)]

    def unsettled(self) -> list[ParentKey]:
        """The foreign keys from parent tables to tables that are in no backup, without a declaration."""
        return [key for key in self._needed() if key.table in self.names]

    def problems(self) -> Iterable[Problem]:
        """The problems that PostgreSQL's catalog and the SQL folder show."""
        yield from self._in_no_backup()
        yield from self._to_clinics()

    def _needed(self) -> Iterable[ParentKey]:
        for key in self._structure.references:
            if key.table in self._backed_up and key.parent not in self._settled and not self._links.is_declared(key):
                yield key

    def _in_no_backup(self) -> Iterable[Problem]:
        """Tables outside of all backups that rows of the clinics need."""
        needed: dict[str, list[ParentKey]] = {}
        for key in self._needed():
            needed.setdefault(key.parent, []).append(key)
        for parent, keys in sorted(needed.items()):
            own = [key for key in self._structure.references if key.table == key.parent == parent]
            own = [key for key in own if not self._links.is_declared(key)]
            query = proposal(parent, [*keys, *own], self._folder.queries())
            children = ", ".join(f"{key.table} ({', '.join(key.columns)})" for key in keys)
            yield Problem(
                parent,
                f"Rows of the clinics refer to rows of {parent}, which is in no backup: {children}.",
                f"If its rows are the same for all clinics, add the line `{spelled(parent)}: shared, reason` to {FILE}."
                f" If they belong to a clinic, write {self._remedies.extract(parent)}. If several clinics may refer to"
                f" the same row, write {self._remedies.extract(parent, PARENTS)}{f': {query}' if query else '.'}",
                is_gap=False,
                check="parents",
            )

    def _to_clinics(self) -> Iterable[Problem]:
        """Columns of parent tables that name rows of clinics: those of any clinic."""
        for key in self._structure.references:
            to_clinics = key.parent in self._extracts | self._chains
            if key.table in self.names and to_clinics and not self._links.is_declared(key):
                columns = ", ".join(key.columns)
                yield Problem(
                    key.table,
                    f"{key.table} is a parent table, and its column {columns} refers to rows of {key.parent}, which"
                    " belong to clinics. They may be another clinic's than that of the backup.",
                    f"Add the line `{spelled(key.table, key.columns[-1])}: reason` to {FILE}. If a missing row names a"
                    f" row of {key.parent} that is gone, too, a restore inserts it with NULL there.",
                    check="parents",
                )


def proposal(parent: str, keys: Collection[ParentKey], templates: Mapping[str, str]) -> str:
    """The query of a parent table, on one line: the rows that the rows of the other tables' queries refer to.

    :param keys: the foreign keys to it. Those of its own rows are followed if they have one column.
    :param templates: the text of each query. Without the texts of the tables that refer to it the proposal is empty.
    """
    if any(key.table not in templates for key in keys if key.table != parent):
        return ""
    table = f"{table_in_sql(parent)} AS {_PARENT}"
    others = [(key, f"({_on_one_line(templates[key.table])}) AS {_CHILD}") for key in keys if key.table != parent]
    own = [key for key in keys if key.table == parent]
    first = others[0][0].parent_columns
    if any(key.parent_columns != first or set(key.operators) != {EQUAL} for key in keys):
        where = " OR ".join(f"EXISTS (SELECT FROM {rows} WHERE {_same(key)})" for key, rows in others)
    elif own and len(first) == 1:
        return _following(table, others, own)
    else:
        parts = [f"SELECT {_columns(key.columns, _CHILD)} FROM {rows}" for key, rows in others]  # noqa: S608
        columns = _columns(first, _PARENT)
        where = f"{columns if len(first) == 1 else f'({columns})'} IN ({_ALL.join(parts)})"
    return f"SELECT {_PARENT}.* FROM {table} WHERE {where};"  # noqa: S608 - for a person to copy


def _following(table: str, others: Collection[tuple[ParentKey, str]], own: Collection[ParentKey]) -> str:
    """The query of a parent table whose rows refer to each other."""
    # Both terms of a recursion need the same type.
    type_ = next(iter(own)).type
    column = next(_columns(key.parent_columns, _PARENT) for key in own)
    parts = [f"SELECT {_columns(key.columns, _CHILD)}::{type_} FROM {rows}" for key, rows in others]  # noqa: S608
    further = ", ".join(f"({_columns(key.columns, _PARENT)}::{type_})" for key in own)
    return (
        f"WITH RECURSIVE needed (needed_key) AS (({_ALL.join(parts)}) UNION SELECT further.needed_key FROM {table}"  # noqa: S608
        f" JOIN needed ON {column} = needed.needed_key"
        f" CROSS JOIN LATERAL (VALUES {further}) AS further (needed_key))"
        f" SELECT {_PARENT}.* FROM {table} WHERE {column} IN (SELECT needed.needed_key FROM needed);"
    )


def _columns(names: Iterable[str], alias: str) -> str:
    return ", ".join(f"{alias}.{in_sql(name)}" for name in names)


def _same(key: ParentKey) -> str:
    return " AND ".join(
        f"{_PARENT}.{in_sql(theirs)} OPERATOR({in_sql(operator.schema)}.{operator.name}) {_CHILD}.{in_sql(ours)}"
        for theirs, ours, operator in zip(key.parent_columns, key.columns, key.operators, strict=True)
    )


def _on_one_line(query: str) -> str:
    """A query without its comments and line breaks, but for those in texts."""
    text, found, end = ended(query), "", 0
    for token in tokens(text):
        found += (" " if token.start > end else "") + text[token.start : token.end]
        end = token.end
    return found.strip()
