"""The links between a backup's tables: those of now, and foreign keys that the tables had when it was made.

The rows of the backup still refer to each other by a foreign key that was dropped since.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace

from clinic_backups.archive.reader import TableContent
from clinic_backups.base.row_key import bare_type
from clinic_backups.base.table import Table
from clinic_backups.restore.columns.shape import Shape
from clinic_backups.restore.generic_links import generic_pairs
from clinic_backups.restore.heirs import heirs_of, links_with_heirs
from clinic_backups.restore.named_links import SAME_TEXT, named_links
from clinic_backups.restore.ownership.ways import Ways
from clinic_backups.restore.table_rules import Reference, read_references
from clinic_backups.restore.workspace import Workspace
from clinic_backups.tenant.operators import EQUAL
from clinic_backups.tenant.structure import comparable


class LinksBetween:
    """Links between the tables of a backup.

    :param contents: the backup's tables under the present names.
    :param ways: knows the columns that are named like a foreign key.
    :param names: for renamed tables, the name in the backup by the present one.
    :param named: the columns that are named like a foreign key by the names in the backup.
    """

    def __init__(
        self,
        workspace: Workspace,
        contents: Mapping[str, TableContent],
        ways: Ways,
        names: Mapping[str, str] | None = None,
        named: Sequence[Reference] = (),
    ) -> None:
        self._workspace, self._contents, self._ways, self._named = workspace, contents, ways, tuple(named)
        self._tables, self._names = {name: content.table for name, content in contents.items()}, names or {}

    def _then(self, name: str) -> str:
        return self._names.get(name, name)

    @property
    def heirs(self) -> Mapping[str, Sequence[str]]:
        """By table: the heirs of which the backup has the rows as those of tables of their own."""
        return heirs_of(self._tables, self._then)

    def _named_in_backup(self) -> Iterator[Reference]:
        """Columns that are named like a foreign key, by the tables' present names and by those in the backup."""
        there = set[tuple[str, tuple[str, ...], str, tuple[str, ...]]]()
        for link in (*named_links(self._tables), *self._named):
            key = (link.child, link.columns, link.parent, link.parent_columns)
            if key not in there:
                there.add(key)
                yield link

    def _of_renamed(self, known: Collection[Reference], declared: Collection[str]) -> list[Reference]:
        """Columns with the former name of a table, which the names of now no longer show."""
        there = {(link.child, link.columns) for link in known}
        return [
            link for link in self._named_in_backup()
            if {link.child, link.parent} & self._names.keys() and (link.child, link.columns) not in there
            and not any(f"{link.child}.{column}" in declared for column in link.columns)
        ]  # fmt: skip

    def _reaching_heirs(self, keys: Collection[Reference], named: Collection[Reference]) -> list[Reference]:
        """These foreign keys, and links without one, also from and to heirs.

        PostgreSQL's own keys lead to no row of an heir, but heirs of the tables that have them may lead there.
        """
        own = {(key.child, key.columns) for key in keys}
        found = links_with_heirs(keys, self._tables, self._then)
        found = [each for each in found if each in keys or (each.child, each.columns) not in own]
        return [*found, *links_with_heirs(named, self._tables, self._then)]

    def for_named(
        self, followed: Collection[Reference], shapes: Mapping[str, Shape], declared: Collection[str]
    ) -> list[Reference]:
        """The links that lead from named rows to others.

        :param followed: see :meth:`followed`.
        :param declared: ``schema.table.column`` of columns that somebody has declared to be something else.
        """
        more = [
            link for link in self._of_renamed(followed, declared)
            if {link.child, link.parent} <= shapes.keys()
            and _are_comparable(
                _types(shapes[link.child], link.columns), _types(shapes[link.parent], link.parent_columns)
            )
        ]  # fmt: skip
        return self._reaching_heirs(
            [link for link in followed if link not in self._ways.named], [*self._ways.named, *more]
        )

    def former(self, references: Collection[Reference]) -> tuple[Reference, ...]:
        """The foreign keys of the backup that are neither among these nor named by their columns."""
        known = (*references, *self._ways.named)
        there = {(link.child, link.columns, link.parent, link.parent_columns) for link in known}
        return tuple(
            Reference(
                f"{key.name} (of the backup)", name, key.columns, key.references, key.references_columns,
                (EQUAL,) * len(key.columns),
            )
            for name, content in self._contents.items()
            for key in content.table.foreign_keys
            if key.references in self._contents
            and (name, key.columns, key.references, key.references_columns) not in there
        )  # fmt: skip

    def followed(self, references: Collection[Reference], shapes: Mapping[str, Shape]) -> tuple[Reference, ...]:
        """These foreign keys and all other links.

        Of the former ones those whose columns are there and have types that PostgreSQL compares.
        """
        former = (
            link for link in self.former(references)
            if {link.child, link.parent} <= shapes.keys()
            and _are_comparable(
                _types(shapes[link.child], link.columns), _types(shapes[link.parent], link.parent_columns)
            )
        )  # fmt: skip
        return (*references, *self._ways.named, *former)

    def for_forgotten(self, followed: Collection[Reference], shapes: Mapping[str, Shape]) -> tuple[Reference, ...]:
        """Further links that count where a row must not come back, as they do for copies and exports.

        These are former foreign keys whose types are not compared otherwise, and columns that are named like a foreign
        key by the backup's tables alone, under the present names or those of then.
        """
        there = {(link.child, link.columns, link.parent) for link in followed}
        tables, more = self._tables, list[Reference]()
        for link in (*self.former(followed), *self._named_in_backup()):
            if (link.child, link.columns, link.parent) in there:
                continue
            there.add((link.child, link.columns, link.parent))
            if not {link.child, link.parent} <= shapes.keys():
                more.append(link)  # it cannot be followed, and says that one table is not restored without the other
                continue
            sides = (_types(shapes[link.child], link.columns), _types(shapes[link.parent], link.parent_columns))
            # PostgreSQL has compared the types of a former foreign key, if they are its own and still the same.
            is_key = link.operators != (SAME_TEXT,) and sides == tuple(
                _types_in(tables[name], columns)
                for name, columns in ((link.child, link.columns), (link.parent, link.parent_columns))
            )
            own = is_key and "." not in "".join((*sides[0], *sides[1]))
            operator = EQUAL if own or _are_comparable(*sides) else SAME_TEXT
            more.append(replace(link, operators=(operator,) * len(link.columns)))
        return tuple(more)

    def every(self) -> tuple[Reference, ...]:
        """All that may be a link, to know which tables are needed. Nothing is compared by it."""
        references = read_references(self._workspace, list(self._contents))
        return (*references, *self._ways.named, *self.former(references), *self._named_in_backup())

    def not_followed(self, followed: Collection[Reference], declared: Collection[str]) -> list[Reference]:
        """Links that count for forgotten rows, and lead from no named row: other types, or names that are not clear."""
        there = {(link.child, link.columns) for link in followed}
        return [
            link for link in (*self.former(followed), *self._named_in_backup())
            if (link.child, link.columns) not in there
            and not any(f"{link.child}.{column}" in declared for column in link.columns)
        ]  # fmt: skip

    def reached(
        self, named: Collection[str], *, only: bool, parents: Collection[str], declared: Collection[str]
    ) -> tuple[str, ...]:
        """The tables that may have rows which hang on rows of the named tables, and those that these need.

        Other tables cannot refuse the plan, and are not loaded. Empty: no row is named, or in a table that the backup
        does not have.

        :param only: what hangs on the named rows stays out.
        :param declared: see :meth:`for_named`.
        :param parents: the parent tables. Their rows hang on no row of a clinic.
        """
        if not named or not set(named) <= self._contents.keys():
            return ()
        references = [
            link for link in read_references(self._workspace, list(self._contents))
            if {link.child, link.parent} <= self._contents.keys()
        ]  # fmt: skip
        keys = (*references, *self.former(references))
        more = self._of_renamed((*keys, *self._ways.named), declared)
        links, there = self._reaching_heirs(keys, [*self._ways.named, *more]), self._workspace.relations()
        found = dict.fromkeys(named)
        while not only and (below := {x.child for x in links if x.parent in found} - found.keys() - set(parents)):
            found |= dict.fromkeys(sorted(below))
        # No row can need one of a table that is gone.
        while above := {x.parent for x in links if x.child in found and x.parent in there} - found.keys():
            found |= dict.fromkeys(sorted(above))
        return tuple(found)

    def generic(self, name: str) -> list[tuple[str, str]]:
        """The columns of a table that name rows by a type and a key, which no link follows."""
        content = self._contents[name]
        followed = {column for key in content.table.foreign_keys for column in key.columns}
        followed |= {column for link in self._ways.named if link.child == name for column in link.columns}
        return generic_pairs(content.table, followed) if content.rows else []


def _types(shape: Shape, columns: Collection[str]) -> list[str]:
    return _types_in(shape.now, columns)


def _types_in(table: Table, columns: Collection[str]) -> list[str]:
    """Without lengths; empty for a column that the table does not have."""
    types = {column.name: bare_type(column.type) for column in table.columns}
    return [types.get(column, "") for column in columns]


def _are_comparable(types: list[str], others: list[str]) -> bool:
    return all(types) and all(others) and all(map(comparable, types, others))
