"""Keeps a database's definitions from one clinic's backup to the next, within a process.

Each snapshot is asked for the version of its definitions (``pg_catalog/version.sql``). Only answers that were read at
the same version are used again.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Hashable, Mapping
from typing import Any

Version = tuple[Hashable, ...]
"""The server, and the version of all its definitions."""

_OPAQUE = re.compile(r"[$\\]")
"""Dollar quotes and escapes. In a text with these, no numbers are replaced."""
_NUMBERS = re.compile(r"""("[^"]*"|'[^']*'|--[^\n]*)|(?<![\w.])\d{1,9}(?![\w.])""")


class SchemaMemory:
    """The newest answer to each question, with its version. Several threads may use it.

    :param places: the number of questions that are kept. A new one replaces the oldest.
    """

    def __init__(self, places: int = 64) -> None:
        self._places = places
        self._known: dict[Hashable, tuple[Version, Any]] = {}
        self._used = False
        self._lock = threading.Lock()

    def is_used(self) -> bool:
        """Whether this was asked before. A process that makes only one backup keeps nothing."""
        used, self._used = self._used, True
        return used

    def get(self, question: Hashable, version: Version | None) -> Any | None:
        """The answer, if it has this version."""
        known = self._known.get(question)
        return known[1] if known is not None and version is not None and known[0] == version else None

    def any(self, question: Hashable) -> tuple[Version, Any] | None:
        """The answer of any version, for a caller that checks the version afterwards."""
        return self._known.get(question)

    def keep(self, question: Hashable, version: Version | None, answer: Any) -> None:
        """Keep an answer, unless its version is unknown."""
        if version is None:
            return
        with self._lock:
            self._known.pop(question, None)
            self._known[question] = version, answer
            for oldest in list(self._known)[: -self._places]:
                self._known.pop(oldest, None)

    def forget(self, question: Hashable) -> None:
        """Drop an answer that turned out to be wrong."""
        with self._lock:
            self._known.pop(question, None)


MEMORY = SchemaMemory()
"""The memory of this process."""


def shape_of(queries: Mapping[str, str]) -> Hashable:
    """A text that is equal for extracts that differ only in numbers, as those of two clinics do.

    Such extracts read the same tables. Names, texts and comments stay as they are, because a table may be called
    ``"3"``.
    """
    return tuple(sorted((name, query if _OPAQUE.search(query) else _shape(query)) for name, query in queries.items()))


def _shape(query: str) -> str:
    return _NUMBERS.sub(lambda found: found[1] or "0", query)
