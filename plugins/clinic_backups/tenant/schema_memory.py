"""What a process remembers of a database's definitions, from one clinic's backup to the next.

Nothing is believed because it was so before: each snapshot is asked which version of its definitions it sees
(``pg_catalog/version.sql``), and only what was read at the very same version is used again.
"""

from __future__ import annotations

import re
from collections.abc import Hashable, Mapping
from typing import Any

Version = tuple[Hashable, ...]
"""Which server, and which version of all its definitions."""

_OPAQUE = re.compile(r"[$\\]")
"""Dollar quotes and escapes: in such a text nothing is taken for a number."""
_NUMBERS = re.compile(r"""("[^"]*"|'[^']*'|--[^\n]*)|(?<![\w.])\d{1,9}(?![\w.])""")


class SchemaMemory:
    """The newest answer to each question, with the version that it is of.

    :param places: questions that are remembered; the oldest is forgotten for a new one.
    """

    def __init__(self, places: int = 64) -> None:
        self._places = places
        self._known: dict[Hashable, tuple[Version, Any]] = {}
        self._used = False

    def is_used(self) -> bool:
        """Whether this was asked before: a process that makes one backup has nothing to remember."""
        used, self._used = self._used, True
        return used

    def get(self, question: Hashable, version: Version | None) -> Any | None:
        """The answer, if it is of this version."""
        known = self._known.get(question)
        return known[1] if known is not None and version is not None and known[0] == version else None

    def any(self, question: Hashable) -> tuple[Version, Any] | None:
        """The answer of whatever version, for whoever asks for the version afterwards."""
        return self._known.get(question)

    def keep(self, question: Hashable, version: Version | None, answer: Any) -> None:
        """Remember it; nothing where the version is not known."""
        if version is None:
            return
        self._known.pop(question, None)
        self._known[question] = version, answer
        for oldest in list(self._known)[: -self._places]:
            self._known.pop(oldest, None)

    def forget(self, question: Hashable) -> None:
        """It has turned out to be of no use."""
        self._known.pop(question, None)


MEMORY = SchemaMemory()
"""That of this process."""


def shape_of(queries: Mapping[str, str]) -> Hashable:
    """Equal for extracts that differ in numbers alone, as those of two clinics do: they mention the same relations.

    Names, texts and comments stay as they are: a table may well be called ``"3"``.
    """
    return tuple(sorted((name, query if _OPAQUE.search(query) else _shape(query)) for name, query in queries.items()))


def _shape(query: str) -> str:
    return _NUMBERS.sub(lambda found: found[1] or "0", query)
