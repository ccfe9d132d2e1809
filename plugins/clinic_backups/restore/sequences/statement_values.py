"""Splits the body of a SQL or PL/pgSQL function into statements, and finds the values that each gives to a place."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Literal

from clinic_backups.tenant.sql_tokens import Token, closing, split

Place = Literal["variable", "new", "table", "result", "nowhere"]
Found = tuple[Place, tuple[str, ...], str | None]
"""The kind of place; its name (a variable, a column of NEW, a table with its column); the expression, if known."""
_STARTS = ("begin", "declare", "loop", "exception")
_RESULTS = ("return", "select", "with", "values")
"""Statements that give a value to whoever calls the function."""


class Statements:
    """Reads the statements of one body.

    :param asks: whether a text uses a sequence.
    :param through: NEW is not a table's row.
    """

    def __init__(self, text: str, asks: Callable[[str], bool], *, through: bool) -> None:
        self._text, self._asks, self._through = text, asks, through

    def values(self, found: list[Token], is_declared: bool) -> Iterator[Found]:
        """The expressions of a statement with their targets: a variable, NEW, a table's column, or none."""
        head = found[0]
        if (target := _target(found)) is not None and target[1] < len(found) and found[target[1]].is_(":=", "="):
            yield self._place(target[0], self.text_of(found[target[1] + 1 :]))
        elif is_declared:
            _, *values = _cut(found, ":=", "=", "default")
            if values:
                yield "variable", (head.value,), self.text_of(values[0])
        elif head.is_("insert") and len(found) > 1 and found[1].is_("into"):
            yield from self._inserted(found)
        elif head.is_("update"):
            yield from self._updated(found)
        elif head.is_("select", "execute") and any(len(part) > 0 for part in _cut(found, "into")[1:]):
            yield from self._into(found)
        elif head.is_("return") or (head.is_(*_RESULTS) and self._asks(self.text_of(found))):
            yield "result", (), self.text_of(found[1:] if head.is_("return") else found)

    def _place(self, name: tuple[str, ...], expression: str | None) -> Found:
        if name[0] == "new" and len(name) == 2 and not self._through:
            return "new", (name[1],), expression
        return "variable", (".".join(name),), expression

    def _into(self, found: list[Token]) -> Iterator[Found]:
        """``SELECT expressions INTO targets rest``, or the targets first."""
        items, after = _cut(found, "into")[:2]
        rest = after[1:] if after[0].is_("strict") else after
        targets = list[tuple[str, ...]]()
        while (target := _target(rest)) is not None:
            targets.append(target[0])
            rest = rest[target[1] :]
            if not rest or not rest[0].is_(","):
                break
            rest = rest[1:]
        selected = items[1:]
        if not selected:
            selected, *others = _cut(rest, "from", "where")
            rest = rest[len(selected) :] if others else []
        values = split(selected, ",")
        is_plain = found[0].is_("select") and len(values) == len(targets) and all(values)
        for index, name in enumerate(targets):
            if not is_plain:
                if self._asks(self.text_of(found)):
                    yield self._place(name, None)
                continue
            value = self.text_of(split(values[index], "as")[0])
            yield self._place(name, f"(SELECT {value} {self.text_of(rest)})" if rest else value)

    def _inserted(self, found: list[Token]) -> Iterator[Found]:
        """``INSERT INTO name (columns) VALUES (expressions)`` or ``SELECT expressions``."""
        name, at = name_at(found, 2)
        columns = list[str]()
        if at < len(found) and found[at].is_("("):
            end = closing(found, at)
            columns = [part[0].value if part else "" for part in split(found[at + 1 : end], ",")]
            at = end + 1
        body = found[at:]
        lists = list[list[Token]]()
        if body and body[0].is_("values"):
            at = 1
            while at < len(body) and body[at].is_("("):
                end = closing(body, at)
                lists.append(body[at + 1 : end])
                at = end + 2 if end + 1 < len(body) and body[end + 1].is_(",") else len(body)
        elif body and body[0].is_("select"):
            lists.append(_cut(body[1:], "from", "where", "returning", "on")[0])
        for given in lists:
            items = split(given, ",")
            for index, item in enumerate(items):
                column = columns[index] if len(columns) == len(items) else ""
                yield "table", (*name, column), self.text_of(split(item, "as")[0])
        if not lists and self._asks(self.text_of(body)):
            yield "table", (*name, ""), self.text_of(body)

    def _updated(self, found: list[Token]) -> Iterator[Found]:
        """``UPDATE name SET column = expression, …``."""
        name, _ = name_at(found, 2 if len(found) > 1 and found[1].is_("only") else 1)
        _, *after = _cut(found, "set")
        if not after:
            return
        for item in split(_cut(after[0], "from", "where", "returning")[0], ","):
            is_plain = len(item) > 2 and item[0].is_name and item[1].is_("=")
            yield "table", (*name, item[0].value if is_plain else ""), self.text_of(item[2:] if is_plain else item)

    def text_of(self, found: Sequence[Token]) -> str:
        return self._text[found[0].start : found[-1].end] if found else ""


def _cut(found: list[Token], *words: str) -> list[list[Token]]:
    """The tokens before and after the first of these words outside of parentheses."""
    depth = 0
    for index, token in enumerate(found):
        depth += token.is_("(", "[") - token.is_(")", "]")
        if depth == 0 and token.is_(*words) and index:
            return [found[:index], found[index + 1 :]]
    return [found]


def name_at(found: Sequence[Token], at: int) -> tuple[tuple[str, ...], int]:
    """The name that begins at a position, and the position behind it."""
    name = list[str]()
    while at < len(found) and found[at].is_name:
        name.append(found[at].value)
        at += 1
        if at >= len(found) or not found[at].is_("."):
            break
        at += 1
    return tuple(name), at


def _target(found: Sequence[Token]) -> tuple[tuple[str, ...], int] | None:
    """The target of an assignment that begins here: a variable, or a field of a row."""
    name, at = name_at(found, 0)
    return (name, at) if 1 <= len(name) <= 2 else None


def statements(found: Sequence[Token]) -> list[tuple[bool, list[Token]]]:
    """The statements of a body, and whether each declares a variable."""
    result, current, depth, cases, declared = list[tuple[bool, list[Token]]](), list[Token](), 0, 0, False
    for token in found:
        if token.is_("atomic") and not current:
            continue
        ends = token.is_(";") and depth <= 0
        if token.is_("case") and current:
            cases += 1
        elif token.is_("end") and cases:
            cases -= 1
        elif not cases and depth <= 0 and (token.is_(*_STARTS, "then") or token.is_("else")):
            ends = True
        if not ends:
            depth += token.is_("(", "[") - token.is_(")", "]")
            current.append(token)
            continue
        if current:
            result.append((declared, current))
        current, depth, cases = [], 0, 0
        if token.is_(*_STARTS):
            declared = token.is_("declare")
    return [*result, (declared, current)] if current else result
