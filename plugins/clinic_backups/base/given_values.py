"""Reads true-or-false values and numbers as people and other programs write them.

Values come from the extra of a connection, from a conf, an environment variable or an address. All of them are read
here, so that one spelling has one meaning everywhere.
"""

from __future__ import annotations

import math

TRUE, FALSE = ("true", "yes", "on", "1", "t", "y"), ("false", "no", "off", "0", "f", "n")
WRITE_TRUTH = "Write true, yes, on or 1; or false, no, off or 0."
"""What to do about a value that is neither."""


def is_given(value: object) -> bool:
    """Whether there is a value. Forms and URIs send ``None`` or an empty text for an empty field."""
    return value is not None and not (isinstance(value, str) and not value.strip())


def truth(value: object) -> bool:
    """True or false, whatever its spelling.

    :raises ValueError: it is neither. The message does not repeat the value, which may be a secret in a wrong place.
    """
    if isinstance(value, bool):
        return value
    if isinstance(value, int) and value in (0, 1):
        return value == 1
    if isinstance(value, str):
        word = value.strip().lower()
        if word in TRUE:
            return True
        if word in FALSE:
            return False
    raise ValueError("neither true nor false")


def number(value: object, *, least: float = -math.inf, most: float = math.inf) -> float:
    """A number, or the text of one.

    :raises ValueError: it is no number, or it is out of bounds. ``true`` is refused, although Python takes it for 1.
    """
    found = math.nan
    if isinstance(value, (int, float, str)) and not isinstance(value, bool):
        try:
            found = float(value)
        except (ValueError, OverflowError):
            found = math.nan
    if not least <= found <= most:  # nothing is within bounds that is not a number
        raise ValueError("not a number" + _bounds(least, most))
    return found


def whole_number(value: object, *, least: int, most: int) -> int:
    """A whole number. :raises ValueError: see :func:`number`."""
    try:
        found = number(value, least=least, most=most)
        if not found.is_integer():
            raise ValueError
    except ValueError:
        raise ValueError("not a whole number" + _bounds(least, most)) from None
    return int(found)


def _bounds(least: float, most: float) -> str:
    if math.isinf(least) and math.isinf(most):
        return ""
    if math.isinf(most):
        return f" from {least:g} on"
    return f" from {least:.15g} to {most:.15g}"
