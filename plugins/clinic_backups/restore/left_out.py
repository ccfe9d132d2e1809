"""Leaves rows that must not come back out of what the archives give, with what belongs to them. It needs no database.

For everything that takes a backup's rows elsewhere than into the clinic: copies, exports, recoveries. The rules are
those of :mod:`~clinic_backups.restore.forgotten_rows`: a row belongs to a forgotten one if it refers to it, directly or
over others, by a link that may not be NULL or has ``ON DELETE CASCADE``. Another link that may be NULL becomes NULL.
Links are foreign keys, and columns named like one. Values are compared as the texts that PostgreSQL has written.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from clinic_backups.archive.blocks import Block
from clinic_backups.archive.csv_rows import checked_rows, fields_of, raw_fields_of, row_of
from clinic_backups.archive.manifest import TableContent
from clinic_backups.base.errors import PermanentError
from clinic_backups.base.row_key import kind_of, readings_of
from clinic_backups.base.table import Table
from clinic_backups.catalog.forgotten import ForgottenTable
from clinic_backups.restore.archives import Wanted
from clinic_backups.restore.forgotten_rows import concerned
from clinic_backups.restore.missing_blocks import MissingBlocks
from clinic_backups.restore.table_rules import CASCADE, NO_ACTION, Reference
from clinic_backups.tenant.drift import Drift
from clinic_backups.tenant.key_names import nouns, stems

Values = Sequence[bytes | None]


@dataclass(frozen=True)
class _Link:
    """A link by the places of its columns in a row.

    :param loose: the places that may be NULL; none if a row cannot be without the link.
    """

    parent: str
    parent_columns: tuple[str, ...]
    places: tuple[int, ...]
    loose: tuple[int, ...]

    def value(self, values: Values) -> tuple[bytes, ...] | None:
        """What a row refers to; none if it refers to nothing."""
        return _present(self.places, values)


class LeftOut:
    """Which rows of a backup stay out. Call :meth:`find` first, then :meth:`kept` for each block.

    :param contents: the tables of the backup, all of them: rows may belong to a forgotten one over any table.
    :param forgotten: by the table's name in this backup.
    :param links: further links by the backup's names, for instance columns that the database shows to be links.
    :ivar counts: by table, how many rows were left out so far.
    :ivar emptied: by table, how many rows got NULL for a link so far.
    """

    def __init__(
        self,
        contents: Mapping[str, TableContent],
        forgotten: Mapping[str, ForgottenTable],
        links: Iterable[Reference] = (),
    ) -> None:
        self._contents = contents
        self._forgotten = {name: each for name, each in forgotten.items() if name in contents and each.hashes}
        self._tables = {name: content.table for name, content in contents.items()}
        self._given = list(links)
        self.counts, self.emptied = Counter[str](), Counter[str]()
        self._gone: dict[tuple[str, tuple[str, ...]], set[tuple[bytes, ...]]] = {}
        """By table and columns that links refer to: their values in rows that stay out."""

    @cached_property
    def concerned(self) -> frozenset[str]:
        """The tables that may have such rows. All other tables are kept as they are."""
        if not self._forgotten:
            return frozenset()
        return frozenset(concerned(self._forgotten, self._usable) & self._tables.keys())

    @cached_property
    def _every(self) -> list[Reference]:
        every = dict.fromkeys((*links_of(self._tables), *self._given))
        return [link for link in every if {link.child, link.parent} <= self._tables.keys()]

    @cached_property
    def _usable(self) -> list[Reference]:
        places = {name: _places(table) for name, table in self._tables.items()}
        return [
            link
            for link in self._every
            if {*link.columns} <= places[link.child].keys() and {*link.parent_columns} <= places[link.parent].keys()
        ]

    @property
    def not_followed(self) -> list[Reference]:
        """Links to tables with such rows over columns that the backup does not hold, such as generated ones."""
        return [link for link in self._every if link.parent in self.concerned and link not in self._usable]

    @cached_property
    def _links(self) -> dict[str, list[_Link]]:
        """Those that may lead to a forgotten row, by the table that has them."""
        found: dict[str, list[_Link]] = {}
        for link in self._usable:
            if link.parent in self.concerned:
                table = self._tables[link.child]
                places = _places(table)
                fixed = {column.name for column in table.columns if column.not_null} | {*table.primary_key}
                loose = tuple(places[name] for name in link.columns if name not in fixed)
                if link.on_delete == CASCADE or (link.match_full and len(loose) < len(link.columns)):
                    loose = ()  # such a row cannot be without the other one, or is not meant to be
                made = _Link(link.parent, link.parent_columns, tuple(places[name] for name in link.columns), loose)
                found.setdefault(link.child, []).append(made)
        return found

    def _key_places(self, name: str) -> tuple[int, ...] | None:
        table = self._tables[name]
        places = _places(table)
        is_stored = bool(table.primary_key) and {*table.primary_key} <= places.keys()
        return tuple(places[column] for column in table.primary_key) if is_stored else None

    def columns_of(self, name: str) -> list[str]:
        """The columns whose values a row of a table has, in their order."""
        return [column.name for column in self._tables[name].stored_columns]

    def find(self, read: Callable[[Wanted], object]) -> None:
        """Read the concerned tables, as often as rows belong to rows that were only found later.

        :param read: gives the blocks of the archives, as ``Archives.read``.
        :raises PermanentError: a table with forgotten rows has no key, so nobody can tell which rows they are.
        """
        for name in sorted(self._forgotten):
            if self._key_places(name) is None:
                raise PermanentError(
                    f"Rows of {name} were forgotten, and the backup has no primary key of it. So it cannot be told"
                    " which rows must not come back.",
                    hint=f"Leave out {name} and the tables that refer to it, if the command takes tables.",
                )
        tables = set(self.concerned)
        while tables:
            changed = set[str]()

            def look(table: str, _: Block, data: bytes, times: int, changed: set[str] = changed) -> None:
                if self._look(table, data):
                    changed.add(table)

            wanted = MissingBlocks.every({name: self._contents[name] for name in tables}, look)
            read(wanted)
            wanted.require_all()
            tables = {
                child
                for child, links in self._links.items()
                if any(link.parent in changed and not link.loose for link in links)
            }

    def _look(self, name: str, data: bytes) -> bool:
        """Note the values of rows that stay out; returns whether there were new ones."""
        referred = {link.parent_columns for links in self._links.values() for link in links if link.parent == name}
        places, grew = _places(self._tables[name]), False
        for _, values in self._rows(name, data):
            if not self.stays_out(name, values):
                continue
            for columns in referred:
                value = _present([places[column] for column in columns], values)
                gone = self._gone.setdefault((name, columns), set())
                grew |= value is not None and value not in gone
                if value is not None:
                    gone.add(value)
        return grew

    def kept(self, name: str, data: bytes, times: int = 1) -> bytes:
        """A block without the rows that stay out, and with NULL where others refer to them.

        :param times: how often the block is in the table.
        """
        if name not in self.concerned:
            return data
        rows = list[bytes]()
        for row, values in self._rows(name, data):
            if self.stays_out(name, values):
                self.counts[name] += times
                continue
            empty = {place for link in self._links.get(name, ()) if self._refers(link, values) for place in link.loose}
            if empty:
                self.emptied[name] += times
                raw = raw_fields_of(row)
                row = row_of([b"" if place in empty else value for place, value in enumerate(raw)])
            rows.append(row)
        return b"".join(rows)

    def stays_out(self, name: str, values: Values) -> bool:
        """Whether a row is forgotten or belongs to a forgotten one. :param values: those of the stored columns."""
        return self._is_named(name, values) or any(
            not link.loose and self._refers(link, values) for link in self._links.get(name, ())
        )

    def _refers(self, link: _Link, values: Values) -> bool:
        gone = self._gone.get((link.parent, link.parent_columns))
        return bool(gone) and link.value(values) in (gone or ())

    def _is_named(self, name: str, values: Values) -> bool:
        found, places = self._forgotten.get(name), self._keys.get(name)
        if found is None or places is None:
            return False
        key = _present(places, values)
        if key is None:
            return False
        types = zip(key, self._types[name], strict=True)
        return found.names([readings_of(part.decode(), *type_) for part, type_ in types])

    @cached_property
    def _keys(self) -> dict[str, tuple[int, ...]]:
        return {name: places for name in self._forgotten if (places := self._key_places(name)) is not None}

    @cached_property
    def _types(self) -> dict[str, list[tuple[str, str | None]]]:
        """The types of the keys' columns, and what domains are made of."""
        columns = {name: self._tables[name].stored_columns for name in self._keys}
        return {
            name: [(columns[name][place].type, columns[name][place].base_type) for place in places]
            for name, places in self._keys.items()
        }

    def _rows(self, name: str, data: bytes) -> Iterator[tuple[bytes, list[bytes | None]]]:
        """:raises IntegrityError: a row has other columns than the manifest says."""
        hint = "This package did not write it: find out who may write to the store. Choose another backup."
        return checked_rows(self._tables[name], data, fields_of, hint=hint)


def links_of(tables: Mapping[str, Table]) -> Iterator[Reference]:
    """The foreign keys of a backup's tables, and the columns whose names are clearly those of one."""
    for name, table in tables.items():
        held = set[str]()
        for key in table.foreign_keys:
            held |= {*key.columns} if key.references in tables else set()
            yield Reference(
                key.name, name, key.columns, key.references, key.references_columns, (),
                on_delete=key.on_delete or NO_ACTION, match_full=bool(key.match_full),
            )  # fmt: skip
        yield from _named(name, table, held, tables)


def under_names_of(
    tables: Collection[str], forgotten: Mapping[str, ForgottenTable], drift: Drift
) -> dict[str, ForgottenTable]:
    """Requests by the names in a backup, where ``drift.txt`` says that a table was renamed before or since."""
    found = dict[str, ForgottenTable]()
    for name in tables:
        later = drift.path(name)
        named = [each for recorded, each in forgotten.items() if recorded in later or name in drift.path(recorded)]
        if named:
            found[name] = ForgottenTable(tuple(pair for each in named for pair in each.by_secret))
    return found


def _named(name: str, table: Table, held: set[str], tables: Mapping[str, Table]) -> Iterator[Reference]:
    """``paciente_id``, if one table alone is called so and has a key of one column of this type."""
    for column in table.stored_columns:
        if column.name in held or not (said := stems(column.name)):
            continue
        meant = [
            (parent, *other.primary_key)
            for parent, other in tables.items()
            if parent != name and said & nouns(parent) and len(other.primary_key) == 1
        ]
        if len(meant) == 1:
            ((parent, key),) = meant
            types = {each.name: each.type for each in tables[parent].columns}
            if kind_of(types[key]) == kind_of(column.type):
                yield Reference(f"column {column.name}", name, (column.name,), parent, (key,), ())


def _places(table: Table) -> dict[str, int]:
    return {column.name: place for place, column in enumerate(table.stored_columns)}


def _present(places: Sequence[int], values: Values) -> tuple[bytes, ...] | None:
    """The values at these places, if none is NULL."""
    found = tuple(value for place in places if (value := values[place]) is not None)
    return found if len(found) == len(places) else None
