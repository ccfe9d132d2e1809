"""Keys that somebody named: what they are as values of a table's key, and which stored keys are equal to them.

One reader for restores, ``find`` and ``forget``. The server reads them where there is one, and else Python. What cannot
be read as a value of the column's type is refused, and is never a row that was not found.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Protocol

from psycopg2 import sql

from clinic_backups.base.database_errors import refusal_of
from clinic_backups.base.errors import ClinicBackupsError, PermanentError, SettingsError
from clinic_backups.base.key_text import as_written, ways_of
from clinic_backups.base.row_key import PART, bare_type, example
from clinic_backups.base.table import Column
from clinic_backups.base.text import one_line
from clinic_backups.restore.link_values import Equality, equality_of
from clinic_backups.tenant.declarations import spelled
from clinic_backups.tenant.operators import Operator

Parts = tuple[str, ...]
Ask = Callable[[sql.Composable, None, str], list[tuple[Any, ...]]]
"""Asks the server. A question that fails changes nothing of what follows."""
_CUT = ('"char"', "name")
"""Types that cut a text that is too long, and so would name another row."""
_UNSIZED = {"character": "bpchar", "character[]": "bpchar[]", "bit": '"bit"', "bit[]": '"bit"[]'}
"""Without a length these names mean a length of 1."""


class Reads(Protocol):
    """Reads keys: the server, or :class:`PythonKeys`."""

    def read(self, keys: Sequence[str]) -> list[Parts]:
        """The parts of each key as PostgreSQL writes them. :raises SettingsError: one cannot be a key of the table."""

    def read_each(self, keys: Sequence[str]) -> list[Parts | SettingsError]:
        """The same, and instead of the parts the error for each key that cannot be one."""


@dataclass(frozen=True)
class KeyColumns:
    """The columns of a table's key. ``table``: as the error names it."""

    table: str
    columns: tuple[Column, ...]

    def misread(self, column: Column, part: str, more: str = "") -> SettingsError:
        """The error for a part that is no value of a column."""
        why = f"{one_line(part)[:60]!r} is no value of {one_line(column.name)} ({column.shown_type})."
        if set(part) & set("{}[]()"):
            more += f"A key with a comma is written as JSON: '{spelled(self.table)}:[\"{{1,2}}\"]'. "
        return self._error(why, more)

    def _error(self, why: str, more: str = "") -> SettingsError:
        types = [column.shown_type for column in self.columns]
        names = PART.join(one_line(column.name) for column in self.columns)
        return SettingsError(
            f"A named row of {spelled(self.table)} is not named by a key of that table: {why}",
            hint=f"Its key is {names}, of the type {PART.join(types)}. {more}"
            f"For instance: {spelled(self.table)}:{example(types)}",
        )

    def read(self, key: str, read_way: Callable[[Parts], Parts]) -> Parts:
        """Take a key apart and read it. :param read_way: raises a :class:`SettingsError` if the parts do not fit."""
        try:
            ways = list(ways_of(key, len(self.columns)))
        except ValueError:
            parts = len(key.split(PART))
            raise self._error(f"{one_line(key)[:60]!r} has {parts} of its {len(self.columns)} parts.") from None
        if len(ways) == 1:
            return read_way(ways[0])
        found = list[Parts]()
        for way in ways:
            with suppress(SettingsError):
                found.append(read_way(way))
        if not found:
            raise self._error(f"{one_line(key)[:60]!r} has more than its {len(self.columns)} parts.")
        if len(found) > 1:
            raise self._error(f"{one_line(key)[:60]!r} can be taken apart in {len(found)} ways.")
        return found[0]


@dataclass(frozen=True)
class PythonKeys:
    """Reads keys without a server."""

    key: KeyColumns

    def read(self, keys: Sequence[str]) -> list[Parts]:
        """As :class:`Reads`. What Python does not know of a type is left as it is."""
        return [self.key.read(each, self._way) for each in keys]

    def read_each(self, keys: Sequence[str]) -> list[Parts | SettingsError]:
        """As :class:`Reads`."""
        return [_or_misfit(self, each) for each in keys]

    def _way(self, parts: Parts) -> Parts:
        found = []
        for column, part in zip(self.key.columns, parts, strict=True):
            try:
                found.append(as_written(column.value_type, part))
            except (ValueError, OverflowError):
                raise self.key.misread(
                    column, part, "Without the database it has to be written as PostgreSQL shows it. "
                ) from None
        return tuple(found)


@dataclass(frozen=True)
class ServerKeys:
    """Asks the server, whose word counts.

    :param equals: the equality of each column.
    :param collations: for each column the collation, if it treats some different texts as equal.
    """

    ask: Ask = field(repr=False)
    key: KeyColumns
    equals: Sequence[Operator]
    collations: Sequence[str | None] = ()

    def read(self, keys: Sequence[str]) -> list[Parts]:
        """As :class:`Reads`."""
        with suppress(ValueError, ClinicBackupsError):
            ways = [list(ways_of(each, len(self.key.columns))) for each in keys]
            if all(len(each) == 1 for each in ways):
                return self._written([each[0] for each in ways])
        return [self.key.read(each, self._way) for each in keys]

    def read_each(self, keys: Sequence[str]) -> list[Parts | SettingsError]:
        """As :class:`Reads`. Each question costs a transaction, so as many keys as possible are read with one."""
        if len(keys) == 1:
            return [_or_misfit(self, keys[0])]
        ways = [self._only_way(each) for each in keys]
        single = [way for way in ways if way is not None]
        written = iter(self._each_written(single))
        found = [(_or_misfit(self, key) if way is None else next(written)) for key, way in zip(keys, ways, strict=True)]
        return [_or_misfit(self, key) if each is None else each for key, each in zip(keys, found, strict=True)]

    def _only_way(self, key: str) -> Parts | None:
        try:
            ways = list(ways_of(key, len(self.key.columns)))
        except ValueError:
            return None
        return ways[0] if len(ways) == 1 else None

    def _each_written(self, keys: Sequence[Parts]) -> list[Parts | None]:
        """None for what is no key."""
        if not keys:
            return []
        try:
            return [*self._written(keys)]
        except PermanentError as error:
            if not isinstance(error, SettingsError) and not _is_of_value(error):
                raise
        half = len(keys) // 2
        return [*self._each_written(keys[:half]), *self._each_written(keys[half:])] if half else [None]

    def _way(self, parts: Parts) -> Parts:
        try:
            return self._written([parts])[0]
        except PermanentError as error:
            if isinstance(error, SettingsError) or not _is_of_value(error):
                raise
        for place, column in enumerate(self.key.columns):
            try:
                self._ask(sql.SQL("SELECT {}").format(self._value(place, parts[place])))
            except PermanentError as error:
                if not _is_of_value(error):
                    raise
                raise self.key.misread(column, parts[place]) from None
        raise AssertionError("each part alone is a value, and together they are not")

    def _written(self, keys: Sequence[Parts]) -> list[Parts]:
        # format() calls the type's own output function. A cast to text may be the application's.
        texts = [sql.SQL("format('%s', v.{})").format(sql.Identifier(f"k{n}")) for n, _ in enumerate(self.key.columns)]
        found = self._ask(
            sql.SQL("SELECT {} FROM {} ORDER BY v.number").format(sql.SQL(", ").join(texts), self.values(keys))
        )
        for given, written in zip(keys, found, strict=True):
            for column, one, other in zip(self.key.columns, given, written, strict=True):
                if one != other and column.value_type in _CUT:
                    raise self.key.misread(column, one)
        return [tuple(each) for each in found]

    def values(self, keys: Sequence[Parts]) -> sql.Composed:
        """SQL: the keys as the rows of ``v``, with their numbers and the columns ``k0``, ``k1`` and so on."""
        rows = (
            sql.SQL("({}, {})").format(
                sql.Literal(number), sql.SQL(", ").join(self._value(place, part) for place, part in enumerate(parts))
            )
            for number, parts in enumerate(keys)
        )
        names = sql.SQL(", ").join(sql.Identifier(f"k{place}") for place, _ in enumerate(self.key.columns))
        return sql.SQL("(VALUES {}) AS v (number, {})").format(sql.SQL(", ").join(rows), names)

    def same(self, alias: str, names: Sequence[str] | None = None) -> sql.Composed:
        """SQL: the row of an alias has the key ``v``. ``names``: of its columns, if they are not the table's."""
        columns = names or [column.name for column in self.key.columns]
        collations = [*self.collations, *[None] * len(columns)]
        return sql.SQL(" AND ").join(
            operator.compares(
                sql.Identifier(alias, name),
                sql.SQL("v.{}{}").format(
                    sql.Identifier(f"k{place}"), sql.SQL(f" COLLATE {collations[place]}" if collations[place] else "")
                ),
            )
            for place, (name, operator) in enumerate(zip(columns, self.equals, strict=True))
        )

    def equal(self, pairs: Sequence[tuple[Parts, Parts]]) -> list[bool]:
        """Whether the two keys of each pair are equal."""
        names = [f"k{place}" for place, _ in enumerate(self.key.columns)]
        other = sql.SQL("(SELECT v.* FROM {}) AS w").format(self.values([stored for _, stored in pairs]))
        query = sql.SQL("SELECT v.number FROM {} JOIN {} ON v.number = w.number WHERE {}")
        mine = self.values([named for named, _ in pairs])
        found = {number for (number,) in self._ask(query.format(mine, other, self.same("w", names)))}
        return [number in found for number, _ in enumerate(pairs)]

    def _value(self, place: int, part: str) -> sql.Composed:
        # A literal is read by the type's own input function. A cast from text may be the application's.
        return sql.SQL("{}::{}").format(sql.Literal(part), sql.SQL(_without_size(self.key.columns[place])))

    def _ask(self, query: sql.Composable) -> list[tuple[Any, ...]]:
        return self.ask(query, None, f"reading the named keys of {self.key.table}")


def _or_misfit(reader: Reads, key: str) -> Parts | SettingsError:
    try:
        return reader.read([key])[0]
    except SettingsError as misfit:
        return misfit


def _is_of_value(error: ClinicBackupsError) -> bool:
    """Whether the server refused what was written, and not the question."""
    refused = refusal_of(error)
    return refused is not None and refused.state[:2] in ("22", "42")


def _without_size(column: Column) -> str:
    """The type by which a named value is read. With a length, a text that is too long would be cut to another key."""
    type_ = column.value_type
    if '"' in type_:
        return type_
    bare = bare_type(type_)
    bare = "interval" if bare.startswith("interval ") and not bare.endswith("[]") else bare
    return _UNSIZED.get(bare, bare)


class NamedKeys:
    """Finds the rows of one table that have named keys.

    :param keys: the named keys, as ``reads`` wrote them.
    :param server: asked about what Python cannot tell; none if there is no database.
    """

    def __init__(self, key: KeyColumns, keys: Sequence[Parts], server: ServerKeys | None) -> None:
        self._keys, self._server = keys, server
        self._equalities = [_equality(column) for column in key.columns]
        self._is_certain = all(each.is_certain for each in self._equalities)
        self._tight, self._loose = dict[Hashable, int](), dict[Hashable, list[int]]()
        for number, parts in enumerate(keys):
            values = tuple(part.encode("utf-8", "surrogateescape") for part in parts)
            self._tight.setdefault(self._form(values, 0), number)
            self._loose.setdefault(self._like(values), []).append(number)
        self._texts = {parts: number for number, parts in enumerate(keys)}

    def find(self, rows: Sequence[tuple[bytes, ...]]) -> tuple[dict[int, int], set[int]]:
        """Which rows are named, with the numbers of the keys; and the keys of which nobody can tell whether one is.

        :param rows: the keys of stored rows, none of which is NULL.
        """
        found, open_ = dict[int, int](), list[tuple[int, int]]()
        for place, values in enumerate(rows):
            number = self._tight.get(self._form(values, 0))
            if number is not None and (self._is_certain or (self._server is None and self._agrees(number, values))):
                found[place] = number
            elif (exact := self._texts.get(_texts(values)) if not self._is_certain else None) is not None:
                found[place] = exact
            elif not self._is_certain:
                open_ += [(place, each) for each in self._loose.get(self._like(values), ())]
        if self._server is None or not open_:
            return found, {number for _, number in open_} - set(found.values())
        equal = self._server.equal([(self._keys[number], _texts(rows[place])) for place, number in open_])
        for (place, number), is_equal in zip(open_, equal, strict=True):
            if is_equal:
                found.setdefault(place, number)
        return found, set()

    def _agrees(self, number: int, values: Sequence[bytes]) -> bool:
        """Of equal forms, whether the server lowers the texts to the same one, too: not ``ß`` and ``ss``."""
        pairs = zip(self._keys[number], _texts(values), strict=True)
        return all(one.rstrip(" ").lower() == other.rstrip(" ").lower() for one, other in pairs)

    def _form(self, values: Sequence[bytes], level: int) -> Hashable:
        return tuple(each.forms[level](value) for each, value in zip(self._equalities, values, strict=True))

    def _like(self, values: Sequence[bytes]) -> Hashable:
        """Values that may be equal have the same."""
        return tuple(
            each.forms[-1](value) if each.is_known else None
            for each, value in zip(self._equalities, values, strict=True)
        )


def _equality(column: Column) -> Equality:
    return equality_of(column, column)


def _texts(values: Sequence[bytes]) -> Parts:
    return tuple(value.decode("utf-8", "surrogateescape") for value in values)
