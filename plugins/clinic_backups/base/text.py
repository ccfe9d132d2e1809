"""Makes text of others safe to show: names come from a database and may be an attacker's."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Collection, Sequence

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


def capitalised(text: str) -> str:
    """With a capital at its beginning."""
    return text[:1].upper() + text[1:]


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


_PLAIN = re.compile(r"[a-z_][a-z0-9_]*")
_RESERVED = frozenset(
    re.findall(
        r"\w+",
        """
        all analyse analyze and any array as asc asymmetric authorization binary both case cast check collate collation
        column concurrently constraint create cross current_catalog current_date current_role current_schema
        current_time current_timestamp current_user default deferrable desc distinct do else end except false fetch for
        foreign freeze from full grant group having ilike in initially inner intersect into is isnull join lateral
        leading left like limit localtime localtimestamp natural not notnull null offset on only or order outer overlaps
        placing primary references returning right select session_user similar some symmetric system_user table
        tablesample then to trailing true union unique user using variadic verbose when where window with
        """,
    )
)
"""PostgreSQL's reserved words: https://www.postgresql.org/docs/18/sql-keywords-appendix.html."""
ESCAPED = re.compile(r'[uU]&"((?:[^"]|"")*)"')
_ESCAPE = re.compile(r"\\(?:\+([0-9A-Fa-f]{6})|([0-9A-Fa-f]{4})|(\\))")


def in_sql(name: str) -> str:
    """A name in a statement that people copy. It has quotes where it needs them.

    Characters that :func:`one_line` would change are escaped: ``U&"a\\200B"``, as PostgreSQL's manual describes it.
    """
    if _PLAIN.fullmatch(name) and name not in _RESERVED:
        return name
    if one_line(name) == name:
        return quoted(name)
    return "U&" + quoted("".join(map(_escaped, f" {name}", name, f"{name[1:]} ")))


def table_in_sql(name: str) -> str:
    """``schema.table`` in a statement that people copy."""
    return ".".join(map(in_sql, name.split(".", 1)))


def _escaped(before: str, character: str, after: str) -> str:
    """One character. Of several spaces, and of those at the ends, none is left as it is."""
    if character == "\\":
        return "\\\\"
    if character == " " and " " not in (before, after):
        return character
    if character != " " and is_line(character) and character not in JOINERS:
        return character
    code = ord(character)
    return f"\\{code:04X}" if code < 0x10000 else f"\\+{code:06X}"


def unescaped(written: str) -> str | None:
    """The name in ``U&"…"``; ``None`` if a text is not written so."""
    found = ESCAPED.fullmatch(written)
    if found is None:
        return None
    return _ESCAPE.sub(lambda e: e[3] or chr(int(e[1] or e[2], 16)), found[1].replace('""', '"'))


def literal(text: str) -> str:
    """A text in SQL, as ``quote_literal`` writes it, whatever ``standard_conforming_strings`` is."""
    doubled = text.replace("'", "''")
    return "E'" + doubled.replace("\\", "\\\\") + "'" if "\\" in doubled else f"'{doubled}'"


def unused(name: str, taken: Collection[str]) -> str:
    """The name, with enough underscores appended to differ from all of ``taken``."""
    while name in taken:
        name += "_"
    return name


def some_of(texts: Sequence[str], most: int = 5) -> str:
    """The first of these texts, and how many more there are."""
    return ", ".join(texts[:most]) + (f" and {len(texts) - most:,} more" if texts[most:] else "")


def folded(text: str) -> str:
    """A text without case and accents."""
    parts = unicodedata.normalize("NFKD", text)
    return "".join(each for each in parts if not unicodedata.combining(each)).casefold()
