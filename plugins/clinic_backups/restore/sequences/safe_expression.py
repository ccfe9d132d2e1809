"""Reads an expression in a function's body and rebuilds it from safe parts, so that no code of the function runs.

Anybody who may create a function can write such a text, and a restore evaluates it with its own rights. So the text
itself is never sent to the server. What is understood is written anew: numbers, plain strings, columns of NEW,
operators and a few functions of PostgreSQL, each with its schema, so that no search path leads to another one.
Everything else is not understood.
"""

from __future__ import annotations

import re

_TOKEN = re.compile(
    r"""[ \t\r\n]* (?: (?P<number>[0-9]{1,18}) (?![0-9A-Za-z_.]) | (?P<text>'(?:[^'\\]|'')*') (?!')
      | (?P<word>[A-Za-z_][A-Za-z0-9_]*) (?!['"$\w]) | "(?P<name>[A-Za-z_][A-Za-z0-9_]*)"
      | (?P<sign>\|\| | :: | [-+*/%(),.] ) )""",
    re.VERBOSE | re.ASCII,
)
LONGEST = 2_000
"""Characters of an expression, and how deep it may be nested."""
DEEPEST = 40
WIDEST = 1_000
"""Characters that a number is filled up to."""
_NUMERAL = re.compile(
    r"'\s*[-+]?(?:[0-9_.]{41,}|0[xXoObB][0-9a-fA-F_]{41,}|[0-9.][0-9_.]*[eE][-+]?[0-9_]{3,})\s*'", re.ASCII
)
"""A text that PostgreSQL may take for a number of many digits: it is long, or its exponent is."""
_PLAIN_NUMBER = re.compile(r"'[-+]?[0-9]{1,18}(?:\.[0-9]{1,18})?'", re.ASCII)
_PLAIN_FORMAT = re.compile(r"'(?:[^%']|''|%[sIL%])*'")
_STRONGER = {"||": 1, "+": 2, "-": 2, "*": 3, "/": 3, "%": 3}
_FUNCTIONS = {
    "abs", "btrim", "concat", "concat_ws", "date_part", "format", "left", "length", "lower", "lpad", "ltrim", "md5",
    "mod", "now", "pg_get_serial_sequence", "quote_ident", "right", "rpad", "rtrim", "substr", "to_char", "to_hex",
    "upper",
}  # fmt: skip
_KEYWORD_FUNCTIONS = {"coalesce", "greatest", "least"}
_ASKING = {"nextval", "currval"}
_NUMBERS = {"date_part", "length", "now"}
"""Functions whose result is short, whatever they are given."""
_BOUNDED = {"int2", "int4", "int8", "regclass"}
_TYPES = {
    "text": "text", "varchar": "varchar", "bigint": "int8", "int8": "int8", "integer": "int4", "int": "int4",
    "int4": "int4", "smallint": "int2", "int2": "int2", "numeric": "numeric", "regclass": "regclass",
}  # fmt: skip


class _NotUnderstood(Exception):
    """Something else than what is read here."""


def rewritten(expression: str) -> str | None:
    """The same expression, written anew. None: it is not understood, and must not be evaluated.

    Calls of ``nextval`` and ``currval`` stay as they are: they are replaced by a number before anything is evaluated.
    """
    if len(expression) > LONGEST:
        return None
    try:
        return _Parser(expression).whole()
    except _NotUnderstood:
        return None


class _Parser:
    def __init__(self, text: str) -> None:
        self._tokens: list[tuple[str, str]] = []
        at, text = 0, text.strip(" \t\r\n")
        while at < len(text):
            found = _TOKEN.match(text, at)
            if found is None or found.lastgroup is None:
                raise _NotUnderstood
            self._tokens.append((found.lastgroup, found[found.lastgroup]))
            at = found.end()
        self._at = 0
        self._texts = 0
        """How many texts there were so far that may become numbers of any length."""

    def whole(self) -> str:
        written = self._sum(0, 0)
        if self._at < len(self._tokens):
            raise _NotUnderstood
        return written

    def _next(self, kind: str | None = None, value: str | None = None) -> str:
        if self._at >= len(self._tokens):
            raise _NotUnderstood
        found, text = self._tokens[self._at]
        if (kind is not None and found != kind) or (value is not None and text.lower() != value):
            raise _NotUnderstood
        self._at += 1
        return text

    def _is(self, sign: str, ahead: int = 0) -> bool:
        at = self._at + ahead
        return at < len(self._tokens) and self._tokens[at] == ("sign", sign)

    def _sum(self, least: int, depth: int) -> str:
        """Operands and operators; each operation gets parentheses, for OPERATOR(…) knows no order among them."""
        if depth > DEEPEST:
            raise _NotUnderstood
        left = self._operand(depth)
        while self._at < len(self._tokens):
            kind, sign = self._tokens[self._at]
            strength = _STRONGER.get(sign, -1) if kind == "sign" else -1
            if strength < max(least, 1):
                break
            self._at += 1
            right = self._sum(strength + 1, depth + 1)
            self._texts += sign == "||"
            left = f"({left} OPERATOR(pg_catalog.{sign}) {right})"
        return left

    def _operand(self, depth: int) -> str:
        kind, text = self._tokens[self._at] if self._at < len(self._tokens) else ("", "")
        self._at += 1
        texts = self._texts
        if kind == "text" and _NUMERAL.fullmatch(text):
            raise _NotUnderstood  # it may have as many digits as its exponent says
        if kind in ("number", "text"):
            self._texts += kind == "text" and not _PLAIN_NUMBER.fullmatch(text)
            written = text
        elif kind == "sign" and text == "(":
            written = f"({self._sum(0, depth + 1)})"
            self._next("sign", ")")
        elif kind == "word" and text.lower() == "new":
            self._next("sign", ".")
            written = f"new.{self._column()}"
        elif kind == "word" and self._is("("):
            written = self._call(text.lower(), depth)
        elif kind == "word" and text.lower() == "pg_catalog" and self._is("."):
            self._at += 1
            written = self._call(self._next("word").lower(), depth)
        else:
            raise _NotUnderstood
        while self._is("::"):
            self._at += 1
            type_ = _TYPES.get(self._next("word").lower())
            if type_ is None or self._is("(") or (type_ == "numeric" and self._texts > texts):
                raise _NotUnderstood
            self._texts = texts if type_ in _BOUNDED else self._texts
            written = f"({written})::pg_catalog.{type_}"
        return written

    def _column(self) -> str:
        if self._at >= len(self._tokens):
            raise _NotUnderstood
        kind, text = self._tokens[self._at]
        if kind not in ("word", "name"):
            raise _NotUnderstood
        self._at += 1
        return f'"{text.lower() if kind == "word" else text}"'

    def _call(self, name: str, depth: int) -> str:
        self._next("sign", "(")
        given, texts = list[str](), self._texts
        while not self._is(")"):
            given.append(self._sum(0, depth + 1))
            if not self._is(","):
                break
            self._at += 1
        self._next("sign", ")")
        if name not in _KEYWORD_FUNCTIONS:
            self._texts = texts + (name not in _ASKING | _NUMBERS)
        if name in ("lpad", "rpad") and not (len(given) > 1 and given[1].isdigit() and int(given[1]) <= WIDEST):
            raise _NotUnderstood  # a text of a gigabyte
        if name == "format" and not (given and _PLAIN_FORMAT.fullmatch(given[0])):
            raise _NotUnderstood  # a width may be as large
        if name in _FUNCTIONS:
            return f"pg_catalog.{name}({', '.join(given)})"
        if name in _KEYWORD_FUNCTIONS:
            return f"{name}({', '.join(given)})"
        if name in _ASKING and len(given) == 1:
            return f"{name}({given[0]})"
        raise _NotUnderstood
