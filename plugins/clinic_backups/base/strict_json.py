"""Reads JSON that others may have written. Ambiguous JSON, and values that PostgreSQL cannot hold, are refused."""

from __future__ import annotations

import json
from typing import Any, NoReturn

MAX_DEPTH = 12
"""This package writes at most five levels."""


def loads(data: bytes, *, check_texts: bool = True) -> Any:
    """The value of a JSON text in UTF-8.

    :param check_texts: visit every value, and also refuse NULs, half characters, and nesting deeper than
        ``MAX_DEPTH``. Without it the caller must check the texts.
    :raises ValueError: it is not JSON, has a key twice, a number that is not whole or has thousands of digits, or one
        of the above. The message holds none of its content.
    """
    try:
        text = data.decode("utf-8")
        found = json.loads(text, object_pairs_hook=once, parse_float=_refuse_number, parse_constant=_refuse_number)
    except RecursionError:
        raise ValueError("it is nested too deep") from None
    except UnicodeDecodeError:
        raise ValueError("it is not UTF-8") from None
    except json.JSONDecodeError:
        raise ValueError("it is not JSON") from None
    if check_texts:
        _look_through(found)
    return found


def is_text(value: object) -> bool:
    """Whether PostgreSQL accepts the text: no NUL, and no half characters (lone surrogates)."""
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
    raise ValueError("it has a number that is not whole")


def _look_through(value: object) -> None:
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
