"""Text that others wrote, made fit to be shown: names come from a database, and may be an attacker's."""

from __future__ import annotations

import unicodedata
from collections.abc import Collection

# The joiners change how letters of some scripts and emoji look; every other format character can hide or turn text.
JOINERS = "\u200c\u200d"


def one_line(text: str) -> str:
    """One line of what can be seen: no line breaks, control characters, bidi overrides, halves of characters."""
    if text.isascii() and text.isprintable():
        return " ".join(text.split())
    kept = (
        " " if character.isspace() or unicodedata.category(character) in ("Cc", "Zl", "Zp") else character
        for character in text
        if character in JOINERS or unicodedata.category(character) not in ("Cf", "Cs")
    )
    return " ".join("".join(kept).split())


def is_line(text: str) -> bool:
    """Whether a text is one line of what can be seen, as :func:`one_line` would leave it but for its spaces."""
    return "".join(character for character in text if character not in JOINERS).isprintable()


def quoted(name: str) -> str:
    """A name in double quotes, as SQL writes it and the lists in include/sql."""
    return '"' + name.replace('"', '""') + '"'


def quoted_table(name: str) -> str:
    """``schema.table`` in double quotes, as SQL writes it."""
    return ".".join(map(quoted, name.split(".", 1)))


def unused(name: str, taken: Collection[str]) -> str:
    """The name, with as many underscores behind it as make it another one than those."""
    while name in taken:
        name += "_"
    return name
