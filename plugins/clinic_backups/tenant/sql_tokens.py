"""Cuts SQL and PL/pgSQL that others wrote into tokens, as PostgreSQL reads them. No text can make this fail."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

_MORE = r"(?:(?:[^\S\n]|--[^\n]*)*\n\s*'(?:{0})*(?:'|\Z))*"
"""A text goes on in the next line if that begins with a quote."""
_FIRST = r"[A-Za-z_\u0080-\U0010ffff]"
"""The first character of a word; for PostgreSQL, every character outside of ASCII may be one."""
_TOKEN = re.compile(
    r"""(?P<space>[ \t\n\r\f\v]+|--[^\n\r]*)
      | (?P<comment>/\*)
      | (?P<escaped>[eE]'(?:\\.|''|[^'\\])*(?:'|\Z)"""
    + _MORE.format(r"\\.|''|[^'\\]")
    + r""")
      | (?P<text>(?:[bBxXnN]|[uU]&)?'(?:''|[^'])*(?:'|\Z)"""
    + _MORE.format(r"''|[^']")
    + r""")
      | (?P<dollar>\$(?:"""
    + _FIRST
    + r"""(?:"""
    + _FIRST
    + r"""|[0-9])*)?\$)
      | (?P<quoted>(?:[uU]&)?"(?:""|[^"])*(?:"|\Z))
      | (?P<word>"""
    + _FIRST
    + r"""(?:"""
    + _FIRST
    + r"""|[0-9$])*)
      | (?P<number>[0-9][A-Za-z0-9_.]*|\$[0-9]+)
      | (?P<sign>:=|\|\||::|.)""",
    re.VERBOSE | re.DOTALL,
)
_PIECE = re.compile(r"'((?:''|[^'])*)(?:'|\Z)|--[^\n]*")
_ESCAPED_PIECE = re.compile(r"'((?:\\.|''|[^'\\])*)(?:'|\Z)|--[^\n]*", re.DOTALL)
_UESCAPE = re.compile(r"\s+uescape\s*'([^'])'", re.IGNORECASE)
_ESCAPE = re.compile(r"\\(?:x([0-9a-fA-F]{1,2})|([0-7]{1,3})|u([0-9a-fA-F]{4})|U([0-9a-fA-F]{8})|(.))", re.DOTALL)
_CONTROL = {"b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t"}
_LOWER = {ord(letter): ord(letter) + 32 for letter in "ABCDEFGHIJKLMNOPQRSTUVWXYZ"}
_BLANK = r"[ \t\n\r\f\v]"
_NAME_PART = re.compile(r'"(?:""|[^"])+"|[^". \t\n\r\f\v][^. \t\n\r\f\v]*')
_NAME = re.compile(rf"{_BLANK}*(?:{_NAME_PART.pattern})(?:{_BLANK}*\.{_BLANK}*(?:{_NAME_PART.pattern}))*{_BLANK}*")
_PLAIN_TEXT = re.compile(r"'(?:''|[^'\n])*'\Z")
_SIGNS = re.compile(r"[-+*/<>=~!@#%^&|`?]+")
_SIGNS_OF_WORDS = {"=", "<>", "<", "<=", ">", ">=", "~", "~~", "~~*", "!~~", "!~~*"}
"""The operators that words of SQL mean, such as IN, CASE, NULLIF, USING, BETWEEN, LIKE and SIMILAR TO; and != is <>."""
_LONGEST_SIGN = 12
"""A longer row of signs is a line in a comment."""
_COMMENT_PART = re.compile(r"/\*|\*/")


class Token(NamedTuple):
    """A piece of a text.

    :param value: a word in lower case; for a quoted name or a text, its content.
    """

    kind: Literal["word", "quoted", "text", "number", "sign"]
    value: str
    start: int
    end: int

    def is_(self, *values: str) -> bool:
        """Whether it is one of these words or signs."""
        return self.kind in ("word", "sign") and self.value in values

    @property
    def is_name(self) -> bool:
        return self.kind in ("word", "quoted")


def tokens(text: str) -> Iterator[Token]:
    """The tokens of a text, without comments. If something is not closed, it extends to the text's end."""
    at = 0
    while at < len(text):
        found = _TOKEN.match(text, at)
        if found is None:  # the pattern matches every character; this only guarantees an end
            return
        kind, value, at = found.lastgroup, found[0], found.end()
        if kind == "comment":
            at = _comment_end(text, at)
        elif kind == "dollar":
            end = text.find(value, at)
            content = text[at:] if end < 0 else text[at:end]
            at = len(text) if end < 0 else end + len(value)
            yield Token("text", content, found.start(), at)
        elif kind in ("text", "escaped", "quoted"):
            is_unicode = value[:1] in "uU" and value[1:2] == "&"
            escape = _UESCAPE.match(text, at) if is_unicode else None
            at = escape.end() if escape else at
            content = _content(kind, value)
            if is_unicode:
                content = _unicode(content, escape[1] if escape else "\\")
            yield Token("quoted" if kind == "quoted" else "text", _sendable(content), found.start(), at)
        elif kind == "word":
            yield Token("word", lower(value), found.start(), at)
        elif kind == "number":
            yield Token("number", value, found.start(), at)
        elif kind == "sign":
            yield Token("sign", value, found.start(), at)


def _content(kind: str, value: str) -> str:
    if kind == "quoted":
        return value[value.index('"') + 1 :].removesuffix('"').replace('""', '"')
    piece = _ESCAPED_PIECE if kind == "escaped" else _PIECE
    parts = [part for part in piece.findall(value[value.index("'") :]) if part]
    if kind == "escaped":
        return "".join(_unescaped(part) for part in parts)
    return "".join(part.replace("''", "'") for part in parts)


def _unescaped(text: str) -> str:
    """The content of ``E'…'``. Bytes that are written as numbers may belong to one character."""
    found, at, whole = bytearray(), 0, text.replace("''", "'")
    for escape in _ESCAPE.finditer(whole):
        found += whole[at : escape.start()].encode(errors="replace")
        byte, octal, short, long, other = escape.groups()
        if byte or octal:
            found.append(int(byte, 16) if byte else int(octal, 8) & 255)
        elif short or long:
            found += _character(short or long).encode(errors="surrogatepass")
        else:
            found += _CONTROL.get(other, other).encode(errors="replace")
        at = escape.end()
    return _decoded(found + whole[at:].encode(errors="replace"))


def _decoded(found: bytearray) -> str:
    try:
        return found.decode(errors="surrogatepass")
    except UnicodeDecodeError:
        return found.decode(errors="replace")


def _unicode(text: str, escape: str) -> str:
    """The content of ``U&'…'``."""
    sign = re.escape(escape)
    return re.sub(
        rf"{sign}(?:({sign})|([0-9a-fA-F]{{4}})|\+([0-9a-fA-F]{{6}}))",
        lambda found: found[1] or _character(found[2] or found[3]),
        text,
    )


def _character(code: str) -> str:
    number = int(code, 16)
    return chr(number) if number < 0x110000 else "\N{REPLACEMENT CHARACTER}"


def _sendable(text: str) -> str:
    """The text with pairs of surrogates joined, and without characters that no server takes."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace").replace("\0", "\N{REPLACEMENT CHARACTER}")


def names_in(text: str) -> Iterator[str]:
    """All names and words in a text, those of SQL too."""
    return (token.value for token in tokens(text) if token.is_name)


def signs_in(text: str) -> set[str]:
    """What may be an operator in a text: PostgreSQL decides from those that exist where a row of signs is cut.

    Those that words of SQL mean are always among them.
    """
    runs = {run[:_LONGEST_SIGN] for run in _SIGNS.findall(text)}
    cut = {run[start:end] for run in runs for start in range(len(run)) for end in range(start + 1, len(run) + 1)}
    return cut | _SIGNS_OF_WORDS


def plain(text: str) -> str:
    """The same text without comments, and with texts and names in their ordinary spelling."""
    parts, at = list[str](), 0
    for token in tokens(text):
        written = text[token.start : token.end]
        if token.kind == "text" and written[0] not in "bBxX" and not _PLAIN_TEXT.match(written):
            written = literal(token.value)
        elif token.kind == "quoted" and written[0] != '"':
            written = '"' + token.value.replace('"', '""') + '"'
        parts += [" " * (token.start > at), written]
        at = token.end
    return "".join(parts)


def lower(text: str) -> str:
    """In lower case as PostgreSQL writes it: only the letters of ASCII change."""
    return text.translate(_LOWER)


def literal(value: str) -> str:
    """A text in SQL."""
    return "'" + value.replace("'", "''") + "'"


def _comment_end(text: str, at: int) -> int:
    depth = 1
    while depth:
        found = _COMMENT_PART.search(text, at)
        if found is None:
            return len(text)
        depth, at = depth + (1 if found[0] == "/*" else -1), found.end()
    return at


def without_comments(text: str) -> str:
    """The same text with blanks in place of everything that is no token, so that all positions stay the same."""
    parts, at = list[str](), 0
    for token in tokens(text):
        parts += [" " * (token.start - at), text[token.start : token.end]]
        at = token.end
    return "".join(parts)


def closing(found: Sequence[Token], opening: int) -> int:
    """The index of the token that closes the parenthesis; the index behind the last token if none does."""
    depth = 0
    for index in range(opening, len(found)):
        depth += found[index].is_("(", "[") - found[index].is_(")", "]")
        if depth == 0:
            return index
    return len(found)


def split(found: Sequence[Token], *signs: str) -> list[list[Token]]:
    """Split at signs or words outside of parentheses. The separators are left out."""
    parts, depth = [list[Token]()], 0
    for token in found:
        depth += token.is_("(", "[") - token.is_(")", "]")
        if depth == 0 and token.is_(*signs):
            parts.append([])
        else:
            parts[-1].append(token)
    return parts


def replaced(text: str, changes: Iterable[tuple[int, int, str]]) -> str:
    """Replace the given ranges of the text. A range inside an earlier one is ignored."""
    parts, at = list[str](), 0
    for start, end, new in sorted(changes):
        if start >= at:
            parts += [text[at:start], new]
            at = end
    return "".join([*parts, text[at:]])


def name_of(text: str) -> tuple[str, ...] | None:
    """The parts of the name in a text, as PostgreSQL reads them for ``regclass``; none if the text is not a name."""
    found = _NAME.fullmatch(text)
    if found is None:
        return None
    parts = [
        part[1:-1].replace('""', '"') if part[0] == '"' else lower(part)
        for part in (piece[0] for piece in _NAME_PART.finditer(text))
    ]
    return tuple(part.encode(errors="replace")[:63].decode(errors="ignore") for part in parts)


@dataclass(frozen=True)
class Mentions:
    """What texts of SQL may mean: their words, and the signs that may be operators; sorted, each once."""

    words: tuple[str, ...]
    signs: tuple[str, ...]

    @classmethod
    def of(cls, *texts: str) -> Mentions:
        """Those of some texts together."""
        words = {word for text in texts for word in names_in(text)}
        return cls(tuple(sorted(words)), tuple(sorted({sign for text in texts for sign in signs_in(text)})))
