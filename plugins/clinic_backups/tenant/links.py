"""Links from the rows of each extract to other extracts. They show which rows belong to a clinic."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

from clinic_backups.tenant.key_names import KeyNames
from clinic_backups.tenant.operators import EQUAL, Operator
from clinic_backups.tenant.structure import ParentKey, Structure, comparable


class Links:
    """Foreign keys, columns named like one, and the parts of foreign keys of several columns.

    Links whose column is declared are left out.

    :param extracts: the tables that have an extract.
    :param declared: columns, as ``schema.table.column``.
    :param clinics_own: the columns of the clinics' table that the extracts compare with the clinic's number.
    """

    def __init__(
        self,
        structure: Structure,
        names: KeyNames,
        extracts: Collection[str],
        declared: Collection[str],
        clinic_table: str,
        clinics_own: Collection[str],
    ) -> None:
        self._structure, self._names, self._extracts, self._declared = structure, names, extracts, declared
        self._clinic_table, self._clinics_own = clinic_table, clinics_own

    def all(self) -> list[ParentKey]:
        keys = [key for key in self._structure.references if not self.is_declared(key)]
        named = list(self._named())
        found = {(link.table, link.columns, link.parent): link for link in (*keys, *named)}
        parts = {(link.table, link.columns, link.parent): link for link in self._parts(keys, named)}
        return [
            link for link in (*keys, *named, *(parts[key] for key in sorted(parts.keys() - found.keys())))
            if link.table in self._extracts and link.parent in self._extracts
        ]  # fmt: skip

    def is_declared(self, key: ParentKey) -> bool:
        """Whether one of the link's columns is declared to refer to something else."""
        return any(f"{key.table}.{column}" in self._declared for column in key.columns)

    def _named(self) -> Iterable[ParentKey]:
        for column in self._structure.columns:
            meant = self._names.meant_by(column)
            is_key = column.is_foreign_key and not column.is_part
            settled = is_key or f"{column.table}.{column.name}" in self._declared
            if (
                column.table in self._extracts
                and meant is not None
                and comparable(meant.type, column.type)
                and meant.parent in self._extracts
                and not settled
                and column.table != self._clinic_table
            ):
                yield ParentKey(
                    column.table, (column.name,), meant.parent, meant.parent_columns, (EQUAL,),
                    column.type, enforced=False,
                )  # fmt: skip

    def _parts(self, keys: Collection[ParentKey], named: Collection[ParentKey]) -> Iterable[ParentKey]:
        """Columns of foreign keys of several columns that are keys by themselves in the referenced table.

        If another column is NULL, such a foreign key refers to nothing (MATCH SIMPLE). The remaining column still shows
        to which clinic the row belongs.
        """
        ways: dict[tuple[str, str], list[ParentKey]] = {}
        for link in (*keys, *named):
            if len(link.columns) == 1:
                ways.setdefault((link.table, link.columns[0]), []).append(link)
        parts = [
            (key, *part)
            for key in keys if len(key.columns) > 1
            for part in zip(key.columns, key.parent_columns, key.operators, strict=True)
        ]  # fmt: skip
        grown = True
        while grown:  # the referenced column may itself be a part of another key
            grown = False
            for key, ours, theirs, operator in parts:
                mine = ways.setdefault((key.table, ours), [])
                for parent, column in self._of(key.parent, theirs, operator, ways):
                    if all(way.parent != parent for way in mine):
                        mine.append(ParentKey(key.table, (ours,), parent, (column,), (operator,), "", enforced=False))
                        grown = True
        for found_ways in ways.values():
            yield from found_ways

    def _of(
        self, table: str, column: str, operator: Operator, ways: Mapping[tuple[str, str], list[ParentKey]]
    ) -> list[tuple[str, str]]:
        """The tables and columns that a column refers to, with the same equality."""
        found = [
            (way.parent, way.parent_columns[0]) for way in ways.get((table, column), ()) if way.operators[0] == operator
        ]
        if table == self._clinic_table and column in self._clinics_own:
            found.append((table, column))
        return found
