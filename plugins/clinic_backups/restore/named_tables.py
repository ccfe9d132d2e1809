"""Checks the tables that somebody names against those of a backup."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Collection, Iterator, Mapping
from difflib import get_close_matches

from clinic_backups.base.errors import SettingsError
from clinic_backups.base.table import Table
from clinic_backups.base.text import one_line, quoted_table
from clinic_backups.tenant.declarations import spelled

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
                f"The backup has no table {spelled(name)}: it has its rows as rows of"
                f" {', '.join(map(spelled, there))}.",
                hint=f"Name the rows there: {' or '.join(map(rows_of, there))}",
            )
    if plain := [each for each in sorted(known) if {spelled(each), quoted_table(each)} & {*unknown} - {each}]:
        # Commands have removed quotes already.
        raise SettingsError(
            f"The backup has no table {', '.join(map(one_line, unknown))}.",
            hint=f"In a conf and in the API, a table's name stands without quotes: {', '.join(map(json.dumps, plain))}",
        )
    meant = list(dict.fromkeys(near for name in unknown for near in _near(name, known)))
    every = f"The backup has {', '.join(map(spelled, sorted(known)))}."
    raise SettingsError(
        f"The backup has no table {', '.join(map(spelled, unknown))}.",
        hint=f"Did you mean {', '.join(map(spelled, meant))}? {every}" if meant else every,
    )


def rows_of(table: str) -> str:
    """How a command names rows of a table."""
    return f"--rows {shlex.quote(f'{spelled(table)}:KEY')}"


def _has_rows_of(name: str, known: Collection[str], parts: Parts) -> list[str]:
    """The tables of the backup that have rows of a table.

    A table that is a part has its rows in the whole table. Otherwise its rows are in its own parts.
    """
    wholes = [whole for whole, names in parts.items() if name in names and whole in known]
    return sorted({*wholes} or {*parts.get(name, ())} & {*known})


def _near(name: str, known: Collection[str]) -> Iterator[str]:
    """The same name in other schemas; if there is none, names with a few different letters."""
    bare = (name.partition(".")[2] or name).lower()
    by_name = {one: one.partition(".")[2].lower() for one in sorted(known)}
    near = get_close_matches(bare, list(by_name.values()), n=2)
    yield from [one for one, own in by_name.items() if own == bare] or [
        one for one, own in by_name.items() if own in near
    ]
