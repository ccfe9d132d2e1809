"""Names of columns. A column that is named like a foreign key shows which clinic its rows belong to."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property

from clinic_backups.tenant.extract import SqlFolder
from clinic_backups.tenant.operators import EQUAL
from clinic_backups.tenant.structure import NotedColumn, ParentKey, Structure, comparable, plain

_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[^A-Z_]+")
_KEY_WORDS = {"id", "ids", "uuid", "uuids", "guid", "guids", "fk", "pk"}
_GLUED = re.compile(r"^id(?=.)|(?<=.)ids?$")


def stems(name: str) -> set[str]:
    """The noun in the name of a key: ``clinica`` for ``clinica_id``, ``idClinica`` and ``CLINICAID``.

    It is empty if the name has no word for a key.
    """
    words = [word.lower() for word in _WORD.findall(name)]
    left = [word for index, word in enumerate(words) if word not in _KEY_WORDS or index not in (0, len(words) - 1)]
    if len(words) > 1:
        return {"".join(left)} - {""} if len(left) < len(words) else set()
    return {_GLUED.sub("", word, count=1) for word in words if _GLUED.search(word) and word not in _KEY_WORDS}


def table_names(table: str) -> set[str]:
    """The names by which a column may refer to a table: its name, and the last word of it."""
    name = table.split(".", 1)[1]
    return {name, (_WORD.findall(name) or [name])[-1]}


def nouns(table: str) -> set[str]:
    """The same in lower case, and in the singular: ``paciente`` for ``usuarios_paciente`` and ``pacientes``."""
    names = {name.lower() for name in table_names(table)}
    ends = {singular for name in names for singular in singulars(name)}
    return {name for name in names | ends if len(name) > 1}


def singulars(name: str) -> set[str]:
    """A noun in lower case without a plural's ending: ``country`` for ``countries``, ``ciudad`` for ``ciudades``."""
    found = {name.removesuffix(end) for end in ("s", "es")}
    return found | ({f"{name.removesuffix('ies')}y"} if name.endswith("ies") else set())


@dataclass(frozen=True)
class Pair:
    """Several columns of one table that together are named like a foreign key."""

    table: str
    columns: tuple[str, ...]
    parent: str


class KeyNames:
    """The names of the foreign keys of one database.

    :param extracts: the tables that have an extract.
    """

    def __init__(self, structure: Structure, folder: SqlFolder, extracts: Collection[str]) -> None:
        self._structure, self._extracts = structure, extracts
        self._clinic_table, self._compared = folder.clinic_table, folder.clinic_columns()
        self._clinics_names = {plain(name) for name in table_names(folder.clinic_table)}

    def meant_by(self, column: NotedColumn) -> ParentKey | None:
        """The foreign key to the clinic or to an extracted table whose name the column has; ``None`` if unclear.

        It is unclear if other tables use the name for something else, or as their own primary key.
        """
        if plain(column.name) in self._keys:
            meant = self._clear.get(plain(column.name))
            # A table that is called "usuario_groups" has a column "group_id" for something else.
            return None if meant is not None and not meant.table and meant.parent == column.table else meant
        meant, is_key = self._in_another_form(column)
        if meant is None or (meant.parent == self._clinic_table and not self.is_same(meant, column)):
            # If both the form of the name and the type differ, the column counts only if its name has a word for a key.
            return meant if is_key else None
        return meant if meant.parent == self._clinic_table or (is_key and not column.is_primary_key) else None

    def perhaps_meant_by(self, column: NotedColumn) -> ParentKey | None:
        """A foreign key to an extracted table with this name, if other foreign keys of that name lead elsewhere."""
        if plain(column.name) not in self._keys:
            meant, _ = self._in_another_form(column)
            return meant if meant is not None and self.is_same(meant, column) else None
        keys = [key for key in self._keys.get(plain(column.name), []) if key.table]
        return next((key for key in keys if key.parent in self._extracts), None) if self._is_key(column.name) else None

    @staticmethod
    def is_same(meant: ParentKey, column: NotedColumn) -> bool:
        """Whether the values, or those of an array, can be compared without conversion."""
        return comparable(meant.base or meant.type, column.base.removesuffix("[]"))

    def pairs(self) -> Iterable[Pair]:
        """Columns that together have the names of one foreign key to the clinic or to an extracted table."""
        tables: dict[str, dict[str, str]] = {}
        for column in self._structure.columns:
            tables.setdefault(column.table, {})[plain(column.name)] = column.name
        own = [plain(column.name) for column in self._structure.columns if column.is_primary_key]
        for names, parents in self._composite.items():
            (parent, *others) = sorted(parents)
            count = parents[parent]
            if others or parent not in {self._clinic_table, *self._extracts}:
                continue
            if any(own.count(name) > count for name in names):
                continue  # a name that most tables use for their own key shows nothing
            for table, columns in tables.items():
                mine = {columns[name] for name in names if name in columns}
                keys = [set(key.columns) for key in self._structure.references if key.table == table]
                if len(mine) == len(names) and table != parent and not any(mine <= key for key in keys):
                    yield Pair(table, tuple(sorted(mine)), parent)

    @cached_property
    def _composite(self) -> Mapping[frozenset[str], dict[str, int]]:
        """By the columns' names: how many foreign keys of several columns lead where; also the clinics' own key."""
        found: dict[frozenset[str], dict[str, int]] = {}
        own = {c.name for c in self._structure.columns if c.table == self._clinic_table and c.in_primary_key}
        keys = [(key.columns, key.parent) for key in self._structure.references if key.table != key.parent]
        for columns, parent in [*keys, (own, self._clinic_table)]:
            if len(columns) > 1:
                counts = found.setdefault(frozenset(map(plain, columns)), {})
                counts[parent] = counts.get(parent, 0) + 1
        return found

    def _in_another_form(self, column: NotedColumn) -> tuple[ParentKey | None, bool]:
        """The only foreign key whose name has this other form, and whether the name has a word for a key."""
        said, bare = stems(column.name), plain(column.name)
        if column.base.endswith("[]") or plain(column.name).endswith("ids"):
            said = {form for name in (*said, *(() if said else (bare,))) for form in (name, name.removesuffix("s"))}
        names = [name for key, name in self._forms if key in said]
        is_key = bool(names)
        names = names or [name for key, name in self._forms if key == bare]
        found = {meant.parent: meant for name in names if (meant := self._clear.get(name)) is not None}
        if not names and said & self._clinics_names:
            clinics = [key for key in self._clear.values() if key.parent == self._clinic_table]
            return next((key for key in clinics if self.is_same(key, column)), None), False
        clear = len(found) == 1 and all(name in self._clear for name in names)
        return (next(iter(found.values())) if clear else None), is_key

    @cached_property
    def _forms(self) -> Collection[tuple[str, str]]:
        """Each stem with the learned name that has it."""
        written = {column: plain(column) for keys in self._keys.values() for key in keys for column in key.columns}
        return {(stem, name) for column, name in written.items() for stem in (stems(column) or {name})}

    @property
    def leads_to_clinic(self) -> bool:
        """Whether anything shows by which column a table's rows belong to a clinic."""
        return any(
            key.parent == self._clinic_table and key.table != key.parent for keys in self._keys.values() for key in keys
        )

    @cached_property
    def _clear(self) -> Mapping[str, ParentKey]:
        """The foreign keys to the clinic and to extracted tables whose names mean nothing else."""
        found: dict[str, ParentKey] = {}
        for name, keys in self._keys.items():
            parents = {key.parent for key in keys}
            # A table's name for its own rows ("parent_id") says nothing about the columns of other tables.
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
    def _keys(self) -> Mapping[str, list[ParentKey]]:
        """The foreign keys of one column, and the columns that extracts compare with the clinic's number, by name.

        A name that no foreign key has may still be that of an extracted table: ``paciente_id``.
        """
        found: dict[str, list[ParentKey]] = {}
        for key in (*self._structure.references, *self._compared_keys()):
            if len(key.columns) == 1:
                found.setdefault(plain(key.columns[0]), []).append(key)
        for name, keys in self._keys_by_tables().items():
            found.setdefault(name, keys)
        return found

    def _keys_by_tables(self) -> Mapping[str, list[ParentKey]]:
        """By the name that a foreign key to a table usually has: such a key, which no table has.

        Tables without an extract are included, because a name that fits them too is not clear.
        """
        found: dict[str, list[ParentKey]] = {}
        for column in self._structure.columns:
            if column.is_primary_key and column.table != self._clinic_table:
                for noun in nouns(column.table):
                    key = ParentKey("", (f"{noun}_id",), column.table, (column.name,), (EQUAL,), column.type,
                                    column.base, enforced=False)  # fmt: skip
                    found.setdefault(plain(f"{noun}_id"), []).append(key)
        return found

    def _compared_keys(self) -> list[ParentKey]:
        """The keys in extracts, which show a row's clinic if the database has no foreign keys."""
        own = min(self._compared.get(self._clinic_table, ()), default=None)
        if own is None:
            return []
        noted = {(column.table, column.name): column for column in self._structure.columns}
        return [
            ParentKey(table, (name,), self._clinic_table, (own,), (EQUAL,), noted[table, name].type, enforced=False)
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
            # A table with one row for each clinic has the clinic's key as its own. The name is merely that of an own
            # key only if such a table is known to lead to the clinic by another column.
            own = {table for table in own & set(self._extracts) if self._is_another_way(table, name)}
        return len(own - parents) <= len(keys)

    def _is_clinics(self, name: str, keys: Collection[ParentKey]) -> bool:
        """Whether a name is the clinic's key in some table, and not just the name that each table gives its own key.

        An extract that compares ``c.id`` of the clinics' table seems to compare the ``id`` of its own table.
        """
        primary = {(column.table, column.name) for column in self._structure.columns if column.is_primary_key}
        return any(
            plain(key.parent_columns[0]) != plain(name) or (key.table, key.columns[0]) not in primary
            for key in keys
            if key.parent == self._clinic_table != key.table
        )

    def _is_another_way(self, table: str, name: str) -> bool:
        """Whether an extracted table has other links than the column of this name."""
        clinics = {plain(column) for column in self._compared.get(self._clinic_table, ())}
        compared = {plain(column) for column in self._compared.get(table, ())}
        ways = {plain(key.columns[0]) for key in self._structure.references if key.table == table}
        return bool(ways | (compared - clinics)) and plain(name) not in compared
