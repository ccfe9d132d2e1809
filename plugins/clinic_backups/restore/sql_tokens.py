"""Cuts SQL and PL/pgSQL that others wrote into tokens. No text can make this fail."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

_TOKEN = re.compile(
    r"""(?P<space>\s+|--[^\n]*)
      | (?P<comment>/\*)
      | (?P<escaped>[eE]'(?:\\.|''|[^'\\])*(?:'|\Z))
      | (?P<text>(?:[bBxXnN]|[uU]&)?'(?:''|[^'])*(?:'|\Z))
      | (?P<dollar>\$(?:[^\W\d]\w*)?\$)
      | (?P<quoted>(?:[uU]&)?"(?:""|[^"])*(?:"|\Z))
      | (?P<word>[^\W\d][\w$]*)
      | (?P<number>\d[\w.]*|\$\d+)
      | (?P<sign>:=|\|\||::|.)""",
    re.VERBOSE | re.DOTALL,
)
_COMMENT_PART = re.compile(r"/\*|\*/")


@dataclass(frozen=True)
class Token:
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
        elif kind in ("text", "escaped"):
            content = value[value.index("'") + 1 :].removesuffix("'").replace("''", "'")
            yield Token("text", re.sub(r"\\(.)", r"\1", content) if kind == "escaped" else content, found.start(), at)
        elif kind == "quoted":
            yield Token("quoted", value[value.index('"') + 1 :].removesuffix('"').replace('""', '"'), found.start(), at)
        elif kind == "word":
            yield Token("word", value.lower(), found.start(), at)
        elif kind == "number":
            yield Token("number", value, found.start(), at)
        elif kind == "sign":
            yield Token("sign", value, found.start(), at)


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
    """A text with some of its parts, each from one position to another, replaced."""
    for start, end, new in sorted(changes, reverse=True):
        text = text[:start] + new + text[end:]
    return text


def name_of(text: str) -> tuple[str, ...] | None:
    """The parts of the name in a text, as PostgreSQL reads them; none if the text is not a name."""
    found = list(tokens(text))
    parts = found[::2]
    if not found or len(found) % 2 == 0 or not all(part.is_name for part in parts):
        return None
    if not all(sign.is_(".") for sign in found[1::2]) or "--" in text or "/*" in text:
        return None
    return tuple(part.value.encode()[:63].decode(errors="ignore") for part in parts)
