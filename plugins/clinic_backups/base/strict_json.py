"""JSON that others may have written: everything that means two things, or that PostgreSQL cannot hold, is refused."""

from __future__ import annotations

import json
from typing import Any, NoReturn

MAX_DEPTH = 12
"""Ours are at most five levels deep."""


def loads(data: bytes, *, check_texts: bool = True) -> Any:
    """The value of a JSON text in UTF-8.

    :param check_texts: also refuse NULs, half characters, and what is nested deeper than ``MAX_DEPTH``: visits every
        value. Without it, whoever uses a text looks at it.
    :raises ValueError: it is no JSON, has a key twice, a number that is no whole one or has thousands of digits, or
        something of the above. The message holds nothing of it.
    """
    try:
        text = data.decode("utf-8")
        found = json.loads(text, object_pairs_hook=once, parse_float=_refuse_number, parse_constant=_refuse_number)
    except RecursionError:
        raise ValueError("it is nested too deep") from None
    except UnicodeDecodeError:
        raise ValueError("it is not UTF-8") from None
    except json.JSONDecodeError:
        raise ValueError("it is no JSON") from None
    if check_texts:
        _look_through(found)
    return found


def is_text(value: object) -> bool:
    """Text that PostgreSQL takes: without NUL, and without halves of characters."""
    try:
        return isinstance(value, str) and "\0" not in value and bool(value.encode() or True)
    except UnicodeEncodeError:
        return False


def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object, as ``object_pairs_hook`` makes it. :raises ValueError: it has a key twice."""
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("it has a key twice")
    return found


def _refuse_number(text: str) -> NoReturn:
    raise ValueError("it has a number that is no whole one")


def _look_through(value: Any) -> None:
    waiting: list[tuple[Any, int]] = [(value, 1)]
    while waiting:
        item, depth = waiting.pop()
        if isinstance(item, str):
            if not is_text(item):
                raise ValueError("it has a NUL or half a character")
        elif isinstance(item, (dict, list)):
            if depth > MAX_DEPTH:
                raise ValueError("it is nested too deep")
            children = [*item.keys(), *item.values()] if isinstance(item, dict) else item
            waiting += [(child, depth + 1) for child in children]
