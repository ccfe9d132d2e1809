"""Checks the tables that somebody names against those of a backup."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from difflib import get_close_matches

from clinic_backups.base.errors import SettingsError
from clinic_backups.base.text import one_line


def require_known(wanted: Collection[str], known: Collection[str]) -> None:
    """:raises SettingsError: the backup has no such table. The hint names similar ones."""
    unknown = sorted(set(wanted) - set(known))
    if not unknown:
        return
    meant = list(dict.fromkeys(near for name in unknown for near in _near(name, known)))
    every = f"The backup has {', '.join(one_line(name) for name in sorted(known))}."
    raise SettingsError(
        f"The backup has no table {', '.join(one_line(name) for name in unknown)}.",
        hint=f"Did you mean {', '.join(map(one_line, meant))}? {every}" if meant else every,
    )


def _near(name: str, known: Collection[str]) -> Iterator[str]:
    """The same name in other schemas; if there is none, names with a few different letters."""
    bare = name.rpartition(".")[2].lower()
    by_name = {one: one.partition(".")[2].lower() for one in sorted(known)}
    near = get_close_matches(bare, list(by_name.values()), n=2)
    yield from [one for one, own in by_name.items() if own == bare] or [
        one for one, own in by_name.items() if own in near
    ]
