"""What columns are named: a column that is named like a foreign key, without being one, says whose its rows are."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from functools import cached_property

from clinic_backups.extract import SqlFolder
from clinic_backups.structure import NotedColumn, Reference, Structure, plain

EQUAL = ("pg_catalog", "=")


class KeyNames:
    """The names of the foreign keys of one database.

    :param extracts: the tables that have an extract.
    """

    def __init__(self, structure: Structure, folder: SqlFolder, extracts: Collection[str]) -> None:
        self._structure, self._extracts = structure, extracts
        self._clinic_table, self._compared = folder.clinic_table, folder.clinic_columns()

    def meant_by(self, column: NotedColumn) -> Reference | None:
        """The foreign key to the clinic or to an extracted table that a column is named like; ``None`` if unclear.

        It is unclear where other tables use the name for something else, or as their own primary key.
        """
        return self._clear.get(plain(column.name))

    def perhaps_meant_by(self, column: NotedColumn) -> Reference | None:
        """A foreign key to an extracted table, where other foreign keys of that name lead elsewhere."""
        keys = self._keys.get(plain(column.name), [])
        return next((key for key in keys if key.parent in self._extracts), None) if self._is_key(column.name) else None

    @property
    def leads_to_clinic(self) -> bool:
        """Whether anything tells by which column a table's rows belong to a clinic."""
        return any(
            key.parent == self._clinic_table and key.table != key.parent for keys in self._keys.values() for key in keys
        )

    @cached_property
    def _clear(self) -> Mapping[str, Reference]:
        """The foreign keys to the clinic and to extracted tables, by a name that means nothing else."""
        found: dict[str, Reference] = {}
        for name, keys in self._keys.items():
            parents = {key.parent for key in keys}
            # What a table calls its own rows ("parent_id") says nothing about the columns of others.
            others = [key for key in keys if key.table != key.parent]
            of_clinic = [key for key in others if key.parent == self._clinic_table]
            if not self._is_key(name) or not others:
                continue
            if len(of_clinic) * 2 > len(keys):
                found[name] = of_clinic[0]
            elif len(parents) == 1 and parents <= set(self._extracts):
                found[name] = others[0]
        return found

    @cached_property
    def _keys(self) -> Mapping[str, list[Reference]]:
        """The foreign keys of one column, and the columns that extracts compare with the clinic's number, by name."""
        found: dict[str, list[Reference]] = {}
        for key in (*self._structure.references, *self._compared_keys()):
            if len(key.columns) == 1:
                found.setdefault(plain(key.columns[0]), []).append(key)
        return found

    def _compared_keys(self) -> list[Reference]:
        """Where a database has no foreign keys, the extracts tell by which column a row belongs to a clinic."""
        own = min(self._compared.get(self._clinic_table, ()), default=None)
        if own is None:
            return []
        noted = {(column.table, column.name): column for column in self._structure.columns}
        return [
            Reference(table, (name,), self._clinic_table, (own,), (EQUAL,), noted[table, name].type, enforced=False)
            for table, names in sorted(self._compared.items())
            if table in self._extracts and table != self._clinic_table
            for name in sorted(names)
            if (table, name) in noted and not noted[table, name].is_foreign_key
        ]

    def _is_key(self, name: str) -> bool:
        """Whether a name is that of a foreign key more often than that of a table's own key, as "id" is."""
        keys = self._keys.get(plain(name), [])
        parents = {key.parent for key in keys}
        own = {
            column.table
            for column in self._structure.columns
            if column.is_primary_key and not column.is_foreign_key and plain(column.name) == plain(name)
        }
        if self._is_clinics(name, keys):
            # A table with one row for each clinic has the clinic's key as its own. Only a table of which it is known
            # that it leads to the clinic by another column says that the name is no more than that of an own key.
            own = {table for table in own & set(self._extracts) if self._is_another_way(table, name)}
        return len(own - parents) <= len(keys)

    def _is_clinics(self, name: str, keys: Collection[Reference]) -> bool:
        """Whether a name is the clinic's key in some table, and not only what each table calls its own key.

        An extract that compares ``c.id`` of the clinics' table seems to compare the ``id`` of its own table.
        """
        primary = {(column.table, column.name) for column in self._structure.columns if column.is_primary_key}
        return any(
            plain(key.parent_columns[0]) != plain(name) or (key.table, key.columns[0]) not in primary
            for key in keys
            if key.parent == self._clinic_table != key.table
        )

    def _is_another_way(self, table: str, name: str) -> bool:
        """Whether an extracted table is joined by other columns than that of this name alone."""
        clinics = {plain(column) for column in self._compared.get(self._clinic_table, ())}
        compared = {plain(column) for column in self._compared.get(table, ())}
        ways = {plain(key.columns[0]) for key in self._structure.references if key.table == table}
        return bool(ways | (compared - clinics)) and plain(name) not in compared
