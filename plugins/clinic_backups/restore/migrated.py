"""A backup's tables and columns under the names of now, as ``drift.txt`` says; and lines to propose for that file."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from difflib import SequenceMatcher

from clinic_backups.archive_reader import Manifest, Segment, TableContent
from clinic_backups.drift import FILE, Drift, followed, renamed_column, renamed_table
from clinic_backups.model import Column, Table
from clinic_backups.restore.archives import Wanted
from clinic_backups.restore.model import Refusal


@dataclass(frozen=True)
class Migrated:
    """What became of a backup's tables since.

    :param manifest: the backup's, with the names of now.
    :param names: the tables' names of then, by those of now; only of renamed ones.
    :param fills: for each table the texts of values for columns that were added since, by column.
    :param confirmed: for each table the columns of which a line says that they hold the same values as then.
    :param notes: what the plan says of it, by table.
    :param refusals: lines that cannot be followed.
    """

    manifest: Manifest
    names: Mapping[str, str] = field(default_factory=dict)
    fills: Mapping[str, Mapping[str, str | None]] = field(default_factory=dict)
    confirmed: Mapping[str, frozenset[str]] = field(default_factory=dict)
    notes: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    refusals: tuple[Refusal, ...] = ()

    @property
    def _since(self) -> dict[str, str]:
        return {then: now for now, then in self.names.items()}

    def now(self, tables: Collection[str]) -> tuple[str, ...]:
        """The names of now of tables that somebody names as they were."""
        return tuple(self._since.get(name, name) for name in tables)

    def taker(self, wanted: Wanted) -> Wanted:
        """Who takes the archives' segments, under the names of now."""
        return _Renaming(wanted, self._since) if self.names else wanted


def migrated(manifest: Manifest, drift: Drift, there: Mapping[str, Collection[str]]) -> Migrated:
    """Follow the lines, from the names in the backup to those that are there now."""
    found = _Following(manifest, drift, there)
    since = found.tables()
    contents = {}
    for then, content in manifest.tables.items():
        name = since.get(then, then)
        contents[name] = found.content(content, name)
    return Migrated(
        replace(manifest, tables=contents),
        {now: then for then, now in since.items()},
        found.fills(contents),
        {name: frozenset(columns) for name, columns in found.confirmed.items()},
        {name: tuple(notes) for name, notes in found.notes.items()},
        tuple(found.refusals),
    )


def renames(held: Collection[str], now: Collection[str], lines: Sequence[tuple[str, str]]) -> dict[str, str] | None:
    """What names of then are now, of those that were renamed to one that is there; none where it cannot be told.

    The backup was made before some of the lines and after the others: each number of lines that are older than it is
    tried, the rest is followed in order, and what leads most names to such that are there now is taken.

    :param lines: the name before and the name after, in the order of the migrations; an added one has no name before.
    """
    found: list[tuple[tuple[int, int], dict[str, str]]] = []
    for older in range(len(lines) + 1):
        followed_names = _follow(held, lines[older:])
        if followed_names is not None:
            names, added = followed_names
            there = sum(name in now for name in names.values())
            # What is there now and came from nowhere speaks against it, where all else is equal.
            unexplained = len(set(now) - {*names.values(), *added})
            changed = {then: name for then, name in names.items() if name != then and name in now}
            found.append(((there, -unexplained), changed))
    best = max(score for score, _ in found)
    wanted = [changed for score, changed in found if score == best]
    if not all(changed == wanted[0] for changed in wanted):
        return None
    # A name that has gone, and that a line leads to one that is there: the line is not left aside without a word.
    rules = {old: new for old, new in lines if old}
    for name in set(held) - set(now) - wanted[0].keys():
        if any(later in now for later in followed(rules, name) if later != name):
            return None
    return wanted[0]


def _follow(held: Collection[str], lines: Sequence[tuple[str, str]]) -> tuple[dict[str, str], list[str]] | None:
    """Each name with what it is after the lines, and what was added; none where two would have the same name."""
    names, added = {name: name for name in held}, list[str]()
    for old, new in lines:
        there = {*names.values(), *added}
        if (not old or old in there) and new in there:
            return None
        if not old:
            added.append(new)
        added = [new if name == old else name for name in added]
        names = {then: new if name == old else name for then, name in names.items()}
    return names, added


def proposed_columns(then: Table, now: Table) -> Iterator[str]:
    """Lines for columns that may have been renamed: one has gone, and a new one of its type stands at its place."""
    old, new = then.stored_columns, now.stored_columns
    known = {column.name for column in old} & {column.name for column in new}
    matcher = SequenceMatcher(None, [c.name for c in old], [c.name for c in new], autojunk=False)
    for tag, i1, i2, j1, j2 in matcher.get_opcodes():
        if tag != "replace":
            continue
        gone, come = _unknown(old[i1:i2], known), _unknown(new[j1:j2], known)
        if len(gone) == len(come):
            pairs = zip(gone, come, strict=True)
            yield from (renamed_column(now.name, a.name, b.name) for a, b in pairs if a.type == b.type)
            continue
        for column in gone:
            alike = [other for other in come if other.type == column.type]
            if len(alike) == 1 and sum(other.type == column.type for other in gone) == 1:
                yield renamed_column(now.name, column.name, alike[0].name)


def proposed_tables(then: Table, candidates: Mapping[str, Table]) -> Iterator[str]:
    """Lines for a table that may have been renamed: another one that the backup does not have has the same columns."""
    shape = [(column.name, column.type) for column in then.columns]
    for name, table in candidates.items():
        if [(column.name, column.type) for column in table.columns] == shape:
            yield renamed_table(then.name, name)


def _unknown(columns: Collection[Column], known: Collection[str]) -> list[Column]:
    return [column for column in columns if column.name not in known]


class _Following:
    def __init__(self, manifest: Manifest, drift: Drift, there: Mapping[str, Collection[str]]) -> None:
        self._manifest, self._drift, self._there = manifest, drift, there
        self.notes: dict[str, list[str]] = {}
        self.confirmed: dict[str, set[str]] = {}
        self.refusals: list[Refusal] = []

    def tables(self) -> dict[str, str]:
        """What the renamed tables are called now, by their names of then."""
        held = frozenset(self._manifest.tables)
        found = renames(held, self._there.keys(), list(self._drift.tables.items()))
        if found is None:
            self._refuse("", "tables", self._drift.tables)
            return {}
        for then, now in found.items():
            self._note(now, f"The table was {then} in the backup ({FILE}).")
        return found

    def content(self, content: TableContent, name: str) -> TableContent:
        """The same blocks, of a table with the names of now. Its foreign keys stay those of then: none is read."""
        table = content.table
        found = self._columns(table, name)
        columns = tuple(replace(column, name=found.get(column.name, column.name)) for column in table.columns)
        key = tuple(found.get(column, column) for column in table.primary_key)
        return replace(content, table=replace(table, name=name, columns=columns, primary_key=key))

    def fills(self, contents: Mapping[str, TableContent]) -> dict[str, dict[str, str | None]]:
        """The values of added columns, by the tables' names of now."""
        found: dict[str, dict[str, str | None]] = {}
        for (table, column), value in self._drift.fills.items():
            path = self._drift.path(table)
            rules = self._drift.renames(path, since=self._drift.numbers[table, column])
            for name in path:
                for called in followed(rules, column):
                    if name in contents and called in self._there.get(name, ()):
                        found.setdefault(name, {})[called] = value
        return found

    def _columns(self, table: Table, name: str) -> dict[str, str]:
        """By the names of then, those of now where they are others."""
        now, held = self._there.get(name, frozenset()), frozenset(column.name for column in table.columns)
        path = self._drift.path(table.name)
        rules = self._drift.renames(path)
        same = {column for column, after in rules.items() if column == after}
        self.confirmed.setdefault(name, set()).update(same & held)
        found = renames(held, now, list(self._events(path)))
        if found is None:
            self._refuse(name, "columns", rules)
            return {}
        for old, new in found.items():
            self._note(name, f"Column {new} was {old} in the backup ({FILE}).")
        return found

    def _events(self, tables: Collection[str]) -> Iterator[tuple[str, str]]:
        """Renamed and added columns in the order of the file."""
        drift = self._drift
        added = [(drift.numbers[key], key[1]) for key in drift.fills if key[0] in tables]
        for number, ((table, old), new) in enumerate(drift.columns.items()):
            yield from (("", column) for before, column in added if before == number)
            if table in tables and old != new:
                yield old, new
        yield from (("", column) for before, column in added if before == len(drift.columns))

    def _note(self, table: str, note: str) -> None:
        self.notes.setdefault(table, []).append(note)

    def _refuse(self, table: str, what: str, rules: Mapping[str, str]) -> None:
        said = ", ".join(f"{old} -> {new}" for old, new in rules.items() if old != new)
        self.refusals.append(
            Refusal(
                table,
                f"{FILE} can be followed in several ways for {what} of {table or 'the backup'} ({said}): from the names"
                " alone it cannot be told which of these changes came before the backup.",
                f"Take the lines that are older than the backup out of {FILE} for the time of the restore.",
            )
        )


class _Renaming:
    """A :class:`~clinic_backups.restore.archives.Wanted` whose tables have other names than in the archives."""

    def __init__(self, wanted: Wanted, since: Mapping[str, str]) -> None:
        self._wanted, self._since = wanted, since

    def begin(self, archive: int) -> bool:
        return self._wanted.begin(archive)

    def take(self, segment: Segment) -> None:
        self._wanted.take(replace(segment, table=self._since.get(segment.table, segment.table)))
