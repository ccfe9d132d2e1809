"""Checks the tables that somebody names against those of a backup."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from difflib import get_close_matches

from clinic_backups.base.errors import SettingsError
from clinic_backups.base.table import Table
from clinic_backups.base.text import one_line

Parts = Mapping[str, Collection[str]]
"""By table, its partitions and heirs."""


def parts_of(*described: Mapping[str, Table]) -> Parts:
    """Of tables that were described at several times."""
    found = dict[str, set[str]]()
    for tables in described:
        for name, table in tables.items():
            found.setdefault(name, set()).update(part.name for part in table.parts or ())
    return found


def no_parts() -> Parts:
    """For those who name tables and no rows."""
    return {}


def require_known(wanted: Collection[str], known: Collection[str], parts: Callable[[], Parts] = no_parts) -> None:
    """Check named tables.

    :param parts: asked only if a table is not known, then or now: rows of a partition are named where a backup has
        them.
    :raises SettingsError: the backup has no such table. The hint names similar ones.
    """
    unknown = sorted(set(wanted) - set(known))
    if not unknown:
        return
    parts_of = parts()
    for name in unknown:
        if there := _has_rows_of(name, known, parts_of):
            raise SettingsError(
                f"The backup has no table {one_line(name)}: it has its rows as rows of"
                f" {', '.join(one_line(each) for each in there)}.",
                hint=f"Name the rows there: {' or '.join(f'--rows {one_line(each)}:KEY' for each in there)}",
            )
    meant = list(dict.fromkeys(near for name in unknown for near in _near(name, known)))
    every = f"The backup has {', '.join(one_line(name) for name in sorted(known))}."
    raise SettingsError(
        f"The backup has no table {', '.join(one_line(name) for name in unknown)}.",
        hint=f"Did you mean {', '.join(map(one_line, meant))}? {every}" if meant else every,
    )


def _has_rows_of(name: str, known: Collection[str], parts: Parts) -> list[str]:
    """The tables of the backup that have rows of a table: those that it is a part of; if there is none, its parts."""
    wholes = [whole for whole, names in parts.items() if name in names and whole in known]
    return sorted({*wholes} or {*parts.get(name, ())} & {*known})


def _near(name: str, known: Collection[str]) -> Iterator[str]:
    """The same name in other schemas; if there is none, names with a few different letters."""
    bare = name.rpartition(".")[2].lower()
    by_name = {one: one.partition(".")[2].lower() for one in sorted(known)}
    near = get_close_matches(bare, list(by_name.values()), n=2)
    yield from [one for one, own in by_name.items() if own == bare] or [
        one for one, own in by_name.items() if own in near
    ]
