"""Looks for records in the rows of one table, as a backup describes it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from clinic_backups.archive.csv_rows import fields_of, plain_number, text_of
from clinic_backups.archive.whole_rows import rows_of
from clinic_backups.base.errors import SettingsError
from clinic_backups.base.row_key import is_numeric
from clinic_backups.base.table import Table
from clinic_backups.base.text import folded, one_line
from clinic_backups.restore.named_keys import KeyColumns, NamedKeys, PythonKeys, Reads, ServerKeys
from clinic_backups.tenant.drift import Drift

LookPlace = tuple[tuple[str, ...], tuple[int, ...], frozenset[str]]
"""The columns of the rows, the places of those of the key, and the named keys."""


@dataclass(frozen=True)
class Sought:
    """What is looked for.

    :param keys: the keys of records by table, as a request for named rows has them.
    :param text: a part of a value of one of ``columns``, whatever its case and its accents are.
    :param columns: by table: the columns in which the text is looked for.
    :param records: by table: keys of records that are looked for whatever their values are.
    """

    keys: Mapping[str, Sequence[str]] = field(default_factory=dict)
    text: str = ""
    columns: Mapping[str, Sequence[str]] = field(default_factory=dict)
    records: Mapping[str, Set[tuple[str, ...]]] = field(default_factory=dict)

    @property
    def tables(self) -> set[str]:
        return {*self.keys, *(self.columns if self.text else ())}

    def joined(self, drift: Drift) -> Sought:
        """What is sought under several names of one table, under the last of them."""
        last = {name: [each for each in drift.path(name) if each in self.tables][-1] for name in self.tables}
        keys, columns = dict[str, list[str]](), dict[str, list[str]]()
        for given, found in ((self.keys, keys), (self.columns, columns)):
            for name, each in given.items():
                found.setdefault(last.get(name, name), []).extend(each)
        return replace(self, keys=keys, columns=columns)


class FoundRow(NamedTuple):
    """A found row. ``named``: as somebody named it; none if it was found by a text."""

    key: tuple[str, ...]
    row: bytes
    named: str | None


class Seen(NamedTuple):
    """The found rows of a block, and the named keys of which nobody can tell whether a row has them."""

    rows: tuple[FoundRow, ...]
    unclear: frozenset[str]


class Look:
    """Looks for records in blocks of one table, as a backup describes it."""

    def __init__(self, table: Table, name: str, sought: Sought, server: ServerKeys | None) -> None:
        self.columns = tuple(column.name for column in table.stored_columns)
        places = {column: place for place, column in enumerate(self.columns)}
        key = [places[column] for column in table.primary_key if column in places]
        # Without a key a record is told apart by all of its values.
        self._key = key if key and len(key) == len(table.primary_key) else list(places.values())
        columns = KeyColumns(name, tuple(table.stored_columns[place] for place in self._key))
        numbers = zip(self._key, columns.columns, strict=True)
        self._numbers = frozenset(place for place, column in numbers if self._key == key and is_numeric(column.type))
        self._records = sought.records.get(name, frozenset[tuple[str, ...]]())
        self.misfits: dict[str, SettingsError] = {}
        """Keys that somebody named and that cannot be keys of the table, as this backup has it."""
        reader: Reads = server if server is not None else PythonKeys(columns)
        read = dict[str, tuple[str, ...]]()
        computed = [column.name for column in table.columns if column.generated and column.name in table.primary_key]
        keys = list(dict.fromkeys(sought.keys.get(name, ())))
        outcomes = [_is_computed(name, computed)] * len(keys) if computed else reader.read_each(keys)
        for each, found in zip(keys, outcomes, strict=True):
            if isinstance(found, SettingsError):
                self.misfits[each] = found
            else:
                read[each] = found
        self.named = list(read)
        self.place: LookPlace = (self.columns, tuple(self._key), frozenset(read))
        self._keys = NamedKeys(columns, list(read.values()), server) if read else None
        self._text = folded(sought.text)
        self._searched = [places[column] for column in sought.columns.get(name, ()) if column in places]

    def found(self, data: bytes) -> Seen:
        """The rows of a block that are looked for."""
        rows = [(row, fields_of(row)) for row in rows_of(data)]
        by_number, unclear = dict[int, int](), set[int]()
        if self._keys is not None:
            keys = [tuple(values[place] or b"" for place in self._key) for _, values in rows]
            by_number, unclear = self._keys.find(keys)
        found = list[FoundRow]()
        for number, (row, values) in enumerate(rows):
            key = tuple(text_of(self._plain(place, values[place])) or "" for place in self._key)
            named = by_number.get(number)
            if named is not None or key in self._records or (self._text and self._fits(values)):
                found.append(FoundRow(key, row, None if named is None else self.named[named]))
        return Seen(tuple(found), frozenset(self.named[each] for each in unclear))

    def _plain(self, place: int, value: bytes | None) -> bytes | None:
        return plain_number(value) if place in self._numbers else value

    def _fits(self, values: Sequence[bytes | None]) -> bool:
        return any(self._text in folded(text_of(values[place]) or "") for place in self._searched)


def _is_computed(name: str, columns: Sequence[str]) -> SettingsError:
    return SettingsError(
        f"No row of {one_line(name)} can be named: its key is computed ({one_line(', '.join(columns))}), and no backup"
        " holds computed values.",
        hint="Name a row that these rows refer to, or look for a text: clinic-backups find --text TEXT",
    )
