"""Leaves rows that must not come back out of what the archives give, with what belongs to them. It needs no database.

For everything that takes a backup's rows elsewhere than into the clinic: copies, exports, recoveries. The rules are
those of :mod:`~clinic_backups.restore.forgotten_rows`: a row belongs to a forgotten one if it refers to it, directly or
over others, by a link that may not be NULL or has ``ON DELETE CASCADE``. Another link that may be NULL becomes NULL.
Links are foreign keys, and columns named like one. Values are compared as :mod:`~clinic_backups.restore.link_values`
says, because equal values may have different texts.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from functools import cached_property

from clinic_backups.archive.csv_rows import checked_rows, fields_of, raw_fields_of, row_of
from clinic_backups.base.errors import PermanentError
from clinic_backups.base.meant_key import are_alike
from clinic_backups.base.row_key import readings_of
from clinic_backups.base.table import Column, Table
from clinic_backups.base.text import one_line
from clinic_backups.catalog.forgotten import ForgottenTable
from clinic_backups.restore.backup_links import BackupLink, Values, links_of, present
from clinic_backups.restore.forgotten_refusals import concerned
from clinic_backups.restore.heirs import Request, in_force, links_with_heirs, past_notes
from clinic_backups.restore.link_values import Equality, Targets, equalities_of
from clinic_backups.restore.table_rules import CASCADE, Reference

Read = Callable[[Collection[str], Callable[[str, bytes], object]], object]
"""Gives the blocks of tables, each with the table's name, as often as it is called."""

_Type = tuple[str, str | None]
"""A column's type, and what it is made of if it is a domain."""


class CannotTell(PermanentError):
    """It cannot be told which rows must not come back."""


class LeftOut:
    """Which rows of a backup stay out. Call :meth:`find` first, then :meth:`kept` for each block.

    :param tables: those of the backup, all of them: rows may belong to a forgotten one over any table.
    :param forgotten: by the table's name in this backup, see :func:`~clinic_backups.restore.heirs.requests_for`.
    :param links: further links by the backup's names, for instance columns that the database shows to be links.
    :ivar past: by table, sentences about requests of which nothing can be recognised, so that nothing stays out.
    :ivar counts: by table, how many rows were left out so far.
    :ivar emptied: by table, how many rows got NULL for a link so far.
    """

    def __init__(
        self,
        tables: Mapping[str, Table],
        forgotten: Mapping[str, Iterable[Request]],
        links: Iterable[Reference] = (),
    ) -> None:
        every = {name: [each for each in found if each.rows.hashes] for name, found in in_force(forgotten).items()}
        self._forgotten = {name: each for name, each in every.items() if name in tables and each}
        self._tables = dict(tables)
        self.past = past_notes(forgotten)
        self._given = list(links)
        self.counts, self.emptied = Counter[str](), Counter[str]()
        self._targets: dict[tuple[str, tuple[str, ...]], dict[tuple[Equality, ...], Targets]] = {}
        """By table and columns that links refer to, and by how they are compared: the values in rows that stay out."""

    @property
    def past_notes(self) -> list[str]:
        """The same with the tables' names."""
        return [one_line(f"{name}: {said}") for name, each in sorted(self.past.items()) for said in each]

    @cached_property
    def concerned(self) -> frozenset[str]:
        """The tables that may have such rows. All other tables are kept as they are."""
        if not self._forgotten:
            return frozenset()
        return frozenset(concerned(self._forgotten, self._usable) & self._tables.keys())

    @cached_property
    def _every(self) -> list[Reference]:
        every = links_with_heirs((*links_of(self._tables), *self._given), self._tables)
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
        there = {name: {column.name for column in table.columns} for name, table in self._tables.items()}
        return [
            link
            for link in self._every
            if link.parent in self.concerned and link not in self._usable
            if {*link.columns} <= there[link.child] and {*link.parent_columns} <= there[link.parent]
        ]

    @property
    def below_not_followed(self) -> frozenset[str]:
        """The tables that have such links, and those that refer to them: any row may belong to a forgotten one."""
        return frozenset(concerned({link.child for link in self.not_followed}, self._usable) & self._tables.keys())

    @cached_property
    def _links(self) -> dict[str, list[BackupLink]]:
        """Those that may lead to a forgotten row, by the table that has them."""
        found: dict[str, list[BackupLink]] = {}
        for link in self._usable:
            if link.parent in self.concerned:
                table = self._tables[link.child]
                places = _places(table)
                fixed = {column.name for column in table.columns if column.not_null} | {*table.primary_key}
                loose = tuple(places[name] for name in link.columns if name not in fixed)
                if link.on_delete == CASCADE or (link.match_full and len(loose) < len(link.columns)):
                    loose = ()  # such a row cannot be without the other one, or is not meant to be
                keys = {(key.columns, key.references, key.references_columns) for key in table.foreign_keys}
                made = BackupLink(
                    link.parent, link.columns, tuple(places[name] for name in link.columns), loose,
                    self._targets_of(link), (link.columns, link.parent, link.parent_columns) in keys,
                )  # fmt: skip
                found.setdefault(link.child, []).append(made)
        return found

    def _targets_of(self, link: Reference) -> Targets:
        child, parent = (
            {column.name: column for column in self._tables[name].columns} for name in (link.child, link.parent)
        )
        equalities = equalities_of(
            [child[name] for name in link.columns], [parent[name] for name in link.parent_columns]
        )
        made = self._targets.setdefault((link.parent, link.parent_columns), {})
        return made.setdefault(equalities, Targets(equalities))

    def _key_places(self, name: str, request: Request) -> tuple[int, ...] | None:
        """The places of the columns by which rows were named; none if the backup does not have them as they were."""
        table = self._tables[name]
        key, places = table.primary_key if request.key == () else request.key, _places(table)
        if not key or not {*key} <= places.keys():
            return None
        types = [table.stored_columns[places[column]].value_type for column in key]
        are_known = all(map(are_alike, types, request.types)) if request.types else True
        return tuple(places[column] for column in key) if are_known else None

    def columns_of(self, name: str) -> list[str]:
        """The columns whose values a row of a table has, in their order."""
        return [column.name for column in self._tables[name].stored_columns]

    def find(self, read: Read) -> None:
        """Read the concerned tables, as often as rows belong to rows that were only found later.

        :raises CannotTell: it cannot be told which rows are forgotten, because a table with such rows has no key,
            or which rows refer to them.
        """
        for name in sorted(self._forgotten):
            for each in self._forgotten[name]:
                if self._key_places(name, each) is None:
                    lacking = each.lacking("the backup does not have", ", and the backup has no primary key of it")
                    raise CannotTell(
                        f"Rows of {name} were forgotten{lacking}. So it cannot be told which rows must not come back.",
                        hint=each.hint(
                            f"Leave out {name} and the tables that refer to it, if the command takes tables."
                        ),
                    )
        tables = set(self.concerned)
        while tables:
            changed = set[str]()

            def look(table: str, data: bytes, changed: set[str] = changed) -> None:
                if self._look(table, data):
                    changed.add(table)

            read(tables, look)
            self._settle(read)
            tables = {
                child
                for child, links in self._links.items()
                if any(link.parent in changed and not link.loose for link in links)
            }
        self._require_clear(read)

    def _look(self, name: str, data: bytes) -> bool:
        """Note the values of rows that stay out; returns whether there were new ones."""
        referred, grew = self._referred(name), False
        for _, values in self._rows(name, data):
            if referred and self.stays_out(name, values):
                for places, targets in referred:
                    value = present(places, values)
                    grew |= value is not None and targets.add(value)
        return grew

    def _referred(self, name: str) -> list[tuple[list[int], Targets]]:
        """What links to a table refer to, by the places of the columns."""
        places = _places(self._tables[name])
        _ = self._links
        return [
            ([places[column] for column in columns], targets)
            for (parent, columns), by_equality in self._targets.items()
            if parent == name
            for targets in by_equality.values()
        ]

    def _settle(self, read: Read) -> None:
        """Look which other rows have values that are like those of rows that stay out."""
        open_ = {
            name: [(places, targets, targets.like) for places, targets in self._referred(name) if targets.pending]
            for name, _ in self._targets
        }

        def look(table: str, data: bytes) -> None:
            for _, values in self._rows(table, data):
                for places, targets, like in open_[table]:
                    if (value := present(places, values)) is not None:
                        targets.look(value, like)

        if names := {name for name, each in open_.items() if each}:
            read(names, look)
            for name in names:
                for _, targets, _like in open_[name]:
                    targets.settle()

    def _require_clear(self, read: Read) -> None:
        """:raises CannotTell: a row may refer to one that stays out, and only the server could tell."""
        unclear = {
            name: [link for link in links if link.is_promised and not link.targets.is_known and link.targets.gone[0]]
            for name, links in self._links.items()
        }

        def look(table: str, data: bytes) -> None:
            for _, values in self._rows(table, data):
                for link in unclear[table]:
                    value = link.value(values)
                    if value is not None and link.targets.is_unclear(value) and not self.stays_out(table, values):
                        raise CannotTell(
                            f"Rows of {link.parent} were forgotten. Which rows of {table} belong to them cannot be told"
                            f" without the database: {', '.join(link.columns)} has values that no row of {link.parent}"
                            " has as a text, and only PostgreSQL knows which values of these types are equal.",
                            hint=f"Leave out {table} and the tables that refer to it, if the command takes tables. Or"
                            " use `clinic-backups restore`, which asks the server.",
                        )

        if names := {name for name, links in unclear.items() if links}:
            read(names, look)

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

    def _refers(self, link: BackupLink, values: Values) -> bool:
        return bool(link.targets.gone[0]) and (value := link.value(values)) is not None and link.targets.has(value)

    def _is_named(self, name: str, values: Values) -> bool:
        for rows, places, types in self._keys.get(name, ()):
            key = present(places, values)
            if key is not None and rows.names(
                [
                    [way for type_ in both for way in readings_of(part.decode(), *type_)]
                    for part, both in zip(key, types, strict=True)
                ]
            ):
                return True
        return False

    @cached_property
    def _keys(self) -> dict[str, list[tuple[ForgottenTable, tuple[int, ...], list[list[_Type]]]]]:
        """By table, each request with the places of the key's columns, and their types: in the backup, and then."""
        found: dict[str, list[tuple[ForgottenTable, tuple[int, ...], list[list[_Type]]]]] = {}
        for name, requests in self._forgotten.items():
            columns = self._tables[name].stored_columns
            for each in requests:
                if places := self._key_places(name, each):
                    types: list[list[_Type]] = [[(columns[place].type, _made_of(columns[place]))] for place in places]
                    for both, type_ in zip(types, each.types, strict=False):
                        both.append((type_, type_))
                    found.setdefault(name, []).append((each.rows, places, types))
        return found

    def _rows(self, name: str, data: bytes) -> Iterator[tuple[bytes, list[bytes | None]]]:
        """:raises IntegrityError: a row has other columns than the manifest says."""
        hint = "This package did not write it: find out who may write to the store. Choose another backup."
        return checked_rows(self._tables[name], data, fields_of, hint=hint)


def _made_of(column: Column) -> str | None:
    """What a domain is made of, or the type itself; none if an older manifest does not say."""
    return column.base_type or (column.type if column.definition is not None else None)


def _places(table: Table) -> dict[str, int]:
    return {column.name: place for place, column in enumerate(table.stored_columns)}
