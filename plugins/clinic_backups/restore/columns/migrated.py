"""Gives a backup's tables and columns their present names, as ``drift.txt`` says."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from clinic_backups.archive.reader import Manifest, Segment, TableContent
from clinic_backups.base.table import Column, Table
from clinic_backups.restore.archives import Wanted
from clinic_backups.restore.columns.identity import Matched, in_order, match, what_column
from clinic_backups.restore.columns.names import renames
from clinic_backups.restore.named_links import named_links
from clinic_backups.restore.plan import Refusal
from clinic_backups.restore.table_rules import Reference
from clinic_backups.tenant.drift import (
    FILE,
    ColumnLine,
    Drift,
    FillLine,
    kept_column,
    reached,
    renamed_column,
    renamed_table,
)

_Lines = Sequence[tuple[str, str]]


@dataclass(frozen=True)
class Migrated:
    """The backup under the present names.

    :param manifest: the backup's manifest with the present names.
    :param names: for renamed tables, the name in the backup by the present one.
    :param fills: by table and column, the texts of values for columns that were added since.
    :param kept: by table, the lines which say that columns kept their values.
    :param made_again: by table, columns that were dropped since and whose name another column has now.
    :param renamed: the present names of tables that the database knows to be renamed, though no line says so.
    :param renamed_columns: the same for each table's columns; a table is absent if the database does not know.
    :param parts: by table, the tables of now that were its partitions or heirs when the backup was made, unless the
        backup holds them as tables of their own; none if the backup does not say which there were.
    :param notes: notes for the plan, by table.
    :param refusals: lines that cannot be followed.
    """

    manifest: Manifest
    names: Mapping[str, str] = field(default_factory=dict)
    fills: Mapping[str, Mapping[str, str | None]] = field(default_factory=dict)
    kept: Mapping[str, tuple[ColumnLine, ...]] = field(default_factory=dict)
    made_again: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    renamed: Mapping[str, str] = field(default_factory=dict)
    renamed_columns: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    parts: Mapping[str, tuple[str, ...] | None] = field(default_factory=dict)
    notes: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    refusals: tuple[Refusal, ...] = ()
    drift: Drift = field(default_factory=Drift)
    same_database: bool = False
    """Whether the numbers of tables and files mean the same as in the backup."""
    named_then: tuple[Reference, ...] = ()
    """Columns that are named like a link by the names in the backup, with the present names."""

    @property
    def _since(self) -> dict[str, str]:
        return {then: now for now, then in self.names.items()}

    def now(self, tables: Collection[str]) -> tuple[str, ...]:
        """The present names of tables that somebody gave by their names in the backup."""
        # Somebody may give a table by both its names.
        return tuple(dict.fromkeys(self._since.get(name, name) for name in tables))

    def named(self, rows: Mapping[str, Sequence[str]]) -> dict[str, tuple[str, ...]]:
        """The keys of named rows by the tables' present names. Those of a table with two names are put together."""
        found = dict[str, tuple[str, ...]]()
        for name, keys in rows.items():
            (now,) = self.now([name])
            found[now] = tuple(dict.fromkeys((*found.get(now, ()), *keys)))
        return found

    def taker(self, wanted: Wanted) -> Wanted:
        """Receives the archives' segments under the present names."""
        return _Renaming(wanted, self._since) if self.names else wanted


def migrated(
    manifest: Manifest,
    drift: Drift,
    there: Mapping[str, Collection[str]],
    numbered: PresentNumbers | None = None,
) -> Migrated:
    """Follow the lines, from the names in the backup to the present ones.

    :param there: the present columns of every table.
    :param numbered: the present numbers, if they mean the same as the backup's: it was made of this very database.
    """
    found = _Following(manifest, drift, there, numbered)
    since = found.tables()
    contents = {}
    for then, content in manifest.tables.items():
        name = since.get(then, then)
        contents[name] = found.content(content, name)
    contents = {name: found.with_links(content, since) for name, content in contents.items()}
    return Migrated(
        replace(manifest, tables=contents),
        {now: then for then, now in since.items()},
        found.fills(contents),
        found.kept,
        found.made_again,
        found.renamed,
        found.renamed_columns,
        found.parts(contents),
        {name: tuple(notes) for name, notes in found.notes.items()},
        tuple(found.refusals),
        drift,
        numbered is not None,
        tuple(found.named_then(since)),
    )


@dataclass(frozen=True)
class PresentNumbers:
    """The numbers that the database uses now.

    :param tables: each table's OID; for a partition also its partitioned table.
    :param columns: by table, the numbers of its columns.
    """

    tables: Mapping[str, tuple[int, str | None]]
    columns: Mapping[str, Mapping[str, int]]


class _Following:
    def __init__(
        self, manifest: Manifest, drift: Drift, there: Mapping[str, Collection[str]], numbered: PresentNumbers | None
    ) -> None:
        self._manifest, self._drift, self._there, self._numbered = manifest, drift, there, numbered
        self.notes: dict[str, list[str]] = {}
        self.kept: dict[str, tuple[ColumnLine, ...]] = {}
        self.made_again: dict[str, tuple[str, ...]] = {}
        self.renamed: dict[str, str] = {}
        self.renamed_columns: dict[str, Mapping[str, str]] = {}
        self.refusals: list[Refusal] = []
        self.columns: dict[str, Mapping[str, str]] = {}
        """By the tables' names in the backup: the present names of its columns that have another one."""

    def tables(self) -> dict[str, str]:
        """The present names of the renamed tables, by their names in the backup."""
        lines = self._drift.tables
        oids = {name: content.table.oid for name, content in self._manifest.tables.items()}
        then = {name: oid for name, oid in oids.items() if oid is not None}
        found: Mapping[str, str] | None
        if self._numbered is not None and len(then) == len(oids):
            # A table that was created again with partitions may have the old one among them.
            now = {name: oid for name, (oid, root) in self._numbered.tables.items() if root not in then}
            matched = match(then, now, lines, self._drift.kept_tables)
            found = self._tables_of(matched, then, now)
        else:
            found = renames(frozenset(oids), self._there.keys(), lines)
        if found is None:
            self._refuse("", "tables", lines)
            return {}
        for before, name in found.items():
            if name in self._there:
                self._note(name, f"The table was {before} in the backup ({FILE}).")
        return dict(found)

    def _tables_of(self, matched: Matched, then: Mapping[str, int], now: Mapping[str, int]) -> Mapping[str, str] | None:
        if matched.several:
            return None
        self.renamed = dict(matched.unsaid)
        if not _is_plain(matched.unsaid, then, now):
            lines = [renamed_table(old, new) for old, new in in_order(matched.unsaid, {*then, *now})]
            said = ", ".join(f"{old} is {new} now" for old, new in matched.unsaid.items())
            self.refusals += [
                Refusal(
                    name,
                    f"Tables were renamed since the backup, and others have their names: {said}.",
                    f"If that is right, add to include/sql/{FILE}, in this order: {_quoted(lines)}. If {name} was"
                    f" created again with the same values: `{renamed_table(name, name)}`.",
                )
                for name in matched.unsaid
            ]
        for name, oid in then.items():
            if name not in {*matched.names, *matched.unsaid} and now.get(name, oid) != oid:
                self._note(
                    name,
                    "The table was dropped and created again since the backup. Its columns are matched by their names:"
                    " check that they still mean the same.",
                )
        return matched.names

    def content(self, content: TableContent, name: str) -> TableContent:
        """The same blocks, with the present names of the table, of its columns and of those of its foreign keys."""
        table = content.table
        found = self.columns[table.name] = self._columns(table, name)
        columns = tuple(replace(column, name=found.get(column.name, column.name)) for column in table.columns)
        key = tuple(found.get(column, column) for column in table.primary_key)
        keys = tuple(
            replace(each, columns=tuple(found.get(column, column) for column in each.columns))
            for each in table.foreign_keys
        )
        renamed = replace(table, name=name, columns=columns, primary_key=key, foreign_keys=keys)
        return replace(content, table=renamed)

    def with_links(self, content: TableContent, since: Mapping[str, str]) -> TableContent:
        """The same with the present names of what its foreign keys refer to.

        :param since: the present names of the renamed tables.
        """
        keys = []
        for key in content.table.foreign_keys:
            found = self.columns.get(key.references, {})
            names = tuple(found.get(column, column) for column in key.references_columns)
            keys.append(replace(key, references=since.get(key.references, key.references), references_columns=names))
        return replace(content, table=replace(content.table, foreign_keys=tuple(keys)))

    def named_then(self, since: Mapping[str, str]) -> Iterator[Reference]:
        """The columns that are named like a link to a table of the backup, whatever both are called now."""
        for link in named_links({name: content.table for name, content in self._manifest.tables.items()}):
            child, parent = self.columns.get(link.child, {}), self.columns.get(link.parent, {})
            yield replace(
                link, child=since.get(link.child, link.child), parent=since.get(link.parent, link.parent),
                columns=tuple(child.get(each, each) for each in link.columns),
                parent_columns=tuple(parent.get(each, each) for each in link.parent_columns),
            )  # fmt: skip

    def fills(self, contents: Mapping[str, TableContent]) -> dict[str, dict[str, str | None]]:
        """The values of added columns, by the tables' present names."""
        found: dict[str, dict[str, str | None]] = {}
        for number, line in enumerate(self._drift.lines):
            if not isinstance(line, FillLine):
                continue
            path = self._drift.path(line.table)
            later = self._drift.events(path, since=number + 1)
            for name in path:
                if name not in contents:
                    continue
                # A line may be written before its migration is run: the last of the names that is there. One that a
                # later line gives to another column is not this one's any more.
                names = reached(line.column, later)
                given = {new for old, new in later if old not in names}
                called = [one for one in names if one in self._there.get(name, ()) and one not in given]
                if called:
                    found.setdefault(name, {})[called[-1]] = line.value
        return found

    def parts(self, contents: Mapping[str, TableContent]) -> dict[str, tuple[str, ...] | None]:
        """The present names of the tables' partitions and heirs. A rename keeps a table's number."""
        by_number = {oid: name for name, (oid, _) in self._numbered.tables.items()} if self._numbered else None
        found: dict[str, tuple[str, ...] | None] = {}
        for name, content in contents.items():
            parts = content.table.parts
            if parts is None:
                found[name] = None
                continue
            alone = [part for part in parts if part.name not in self._manifest.tables]
            if by_number is not None and content.table.oid is not None:
                found[name] = tuple(by_number[part.oid] for part in alone if part.oid in by_number)
            else:
                found[name] = tuple(now for part in alone if (now := self._drift.path(part.name)[-1]) in self._there)
        return found

    def _columns(self, table: Table, name: str) -> Mapping[str, str]:
        """The present names of columns that have another one, by their names in the backup."""
        path = self._drift.path(table.name)
        lines = self._drift.events(path)
        self.kept[name] = self._drift.kept({*path, name})
        then = {column.name: column.number for column in table.columns}
        numbers = {column: number for column, number in then.items() if number is not None}
        found: Mapping[str, str] | None
        now = self._numbers_of(table, name)
        if now is not None and len(numbers) == len(then):
            found = self._columns_of(table, name, (numbers, now), lines)
        else:
            found = renames(then.keys(), self._there.get(name, frozenset()), lines)
        if found is None:
            self._refuse(name, "columns", lines)
            return {}
        for old, new in found.items():
            if new in self._there.get(name, ()):
                self._note(name, f"Column {new} was {old} in the backup ({FILE}).")
        return found

    def _numbers_of(self, table: Table, name: str) -> Mapping[str, int] | None:
        """The numbers of a table's columns, if it is the very table that was backed up.

        Otherwise they mean something else.
        """
        if self._numbered is None or table.oid is None:
            return None
        oid, _ = self._numbered.tables.get(name, (None, None))
        return self._numbered.columns.get(name, {}) if oid == table.oid else None

    def _columns_of(
        self, table: Table, name: str, numbers: tuple[Mapping[str, int], Mapping[str, int]], lines: _Lines
    ) -> Mapping[str, str] | None:
        then, now = numbers
        kept = [column.name for column in table.columns if self._is_kept(column, now.get(column.name), name)]
        matched = match(then, now, lines, kept)
        if matched.several:
            return None
        self.renamed_columns[name] = dict(matched.unsaid)
        self.made_again[name] = tuple(
            column
            for column, number in then.items()
            if column not in {*matched.names, *matched.unsaid} and now.get(column, number) != number
        )
        if not _is_plain(matched.unsaid, then, now):
            self._refuse_unsaid(table, name, matched.unsaid, now)
        return matched.names

    def _is_kept(self, column: Column, number: int | None, name: str) -> bool:
        """Whether a line says that another column of the same name has the values of this one."""
        return any(
            line.old == line.new == column.name
            and line.was == what_column(column)
            and line.becomes.startswith(f"column {number}, ")
            for line in self.kept[name]
        )

    def _refuse_unsaid(self, table: Table, name: str, unsaid: Mapping[str, str], now: Mapping[str, int]) -> None:
        held = {column.name: column for column in table.columns}
        lines = [renamed_column(name, old, new) for old, new in in_order(unsaid, {*held, *now})]
        kept = [kept_column(name, old, what_column(held[old]), f"column {now[old]}, …") for old in unsaid if old in now]
        self.refusals.append(
            Refusal(
                name,
                f"Columns of {name} were renamed since the backup, and others have their names:"
                f" {', '.join(f'{old} is {new} now' for old, new in unsaid.items())}.",
                f"If that is right, add to include/sql/{FILE}, in this order: {_quoted(lines)}."
                + (f" If the names are right and the values were moved, with the present type: {_quoted(kept)}."
                   if kept else ""),
            )
        )  # fmt: skip

    def _note(self, table: str, note: str) -> None:
        self.notes.setdefault(table, []).append(note)

    def _refuse(self, table: str, what: str, lines: _Lines) -> None:
        said = ", ".join(f"{old} -> {new}" for old, new in lines if old)
        self.refusals.append(
            Refusal(
                table,
                f"{FILE} can be followed in several ways for {what} of {table or 'the backup'} ({said}): the"
                " names alone do not show which of these changes came before the backup.",
                f"Remove the lines that are older than the backup from {FILE} for the time of the restore.",
            )
        )


def _is_plain(unsaid: Mapping[str, str], then: Collection[str], now: Collection[str]) -> bool:
    """Whether the column or table is simply missing: nothing else has its old name, and nothing had its new one."""
    return not any(old in now or new in then for old, new in unsaid.items())


def _quoted(lines: Sequence[str]) -> str:
    return ", ".join(f"`{line}`" for line in lines)


class _Renaming:
    """A :class:`~clinic_backups.restore.archives.Wanted` whose tables have other names in the archives."""

    def __init__(self, wanted: Wanted, since: Mapping[str, str]) -> None:
        self._wanted, self._since = wanted, since

    def begin(self, archive: int) -> bool:
        return self._wanted.begin(archive)

    def take(self, segment: Segment) -> bool:
        return self._wanted.take(replace(segment, table=self._since.get(segment.table, segment.table)))
