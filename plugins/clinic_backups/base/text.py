"""Makes text of others safe to show: names come from a database and may be an attacker's."""

from __future__ import annotations

import unicodedata
from collections.abc import Collection

# Joiners are allowed, because some scripts and emoji need them. Other format characters can hide or reverse text.
JOINERS = "\u200c\u200d"


def one_line(text: str) -> str:
    """One line of visible text: no line breaks, control characters, bidi overrides or half characters."""
    if text.isascii() and text.isprintable():
        return " ".join(text.split())
    kept = (
        " " if character.isspace() or unicodedata.category(character) in ("Cc", "Zl", "Zp") else character
        for character in text
        if character in JOINERS or unicodedata.category(character) not in ("Cf", "Cs")
    )
    return " ".join("".join(kept).split())


def shown_line(text: str) -> str:
    """As :func:`one_line`, with the spaces at its beginning."""
    return " " * (len(text) - len(text.lstrip(" "))) + one_line(text)


def is_line(text: str) -> bool:
    """Whether a text is one line of visible text: :func:`one_line` would change only its spaces."""
    return "".join(character for character in text if character not in JOINERS).isprintable()


def quoted(name: str) -> str:
    """A name in double quotes, as in SQL and in the lists in include/sql."""
    return '"' + name.replace('"', '""') + '"'


def quoted_table(name: str) -> str:
    """``schema.table`` in double quotes, as in SQL."""
    return ".".join(map(quoted, name.split(".", 1)))


def unused(name: str, taken: Collection[str]) -> str:
    """The name, with enough underscores appended to differ from all of ``taken``."""
    while name in taken:
        name += "_"
    return name
