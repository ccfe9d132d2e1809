"""How a person writes the key of a row, and how PostgreSQL writes it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from datetime import UTC, date, datetime, time
from decimal import Decimal
from functools import lru_cache
from typing import Literal
from uuid import UUID

from clinic_backups.base.span import justified

PART = "/"
"""Between the parts of a key of several columns."""
_NUMBERS = ("smallint", "integer", "bigint")
Kind = Literal["text", "number", "uuid"]
Reading = Literal["text", "number", "uuid", "padded", "anycase", "date", "time", "timestamp", "timestamptz", "span"]
"""How a part of a key can be read. ``padded``: spaces at its end do not count; ``anycase``: its case does not."""
_DECIMAL = re.compile(
    r"[+-]?([0-9]{1,200}(\.[0-9]{0,400})?|\.[0-9]{1,400})(e[+-]?[0-4]?[0-9]{1,2})?", re.ASCII | re.IGNORECASE
)
_NOT_FINITE = re.compile(r"(?P<nan>nan)|[+-]?inf(inity)?", re.IGNORECASE)
_READ: dict[str, Reading] = {
    "smallint": "number", "integer": "number", "bigint": "number", "oid": "number", "numeric": "number", "uuid": "uuid",
    "character": "padded", "citext": "anycase", "date": "date", "time without time zone": "time",
    "timestamp without time zone": "timestamp", "timestamp with time zone": "timestamptz",
    "real": "number", "double precision": "number", "interval": "span",
}  # fmt: skip


def kind_of(type_: str) -> Kind:
    """How keys of a type are written: as numbers, as UUIDs, or as they are. ``type_`` as ``format_type`` spells it."""
    return "number" if type_ in _NUMBERS else "uuid" if type_ == "uuid" else "text"


def bare_type(type_: str) -> str:
    """A type without lengths and precisions. ``type_`` as ``format_type`` spells it."""
    return re.sub(r"\(.*?\)", "", type_)


@lru_cache(maxsize=1024)
def read_as(type_: str) -> tuple[Reading, ...]:
    """The readings by which a value of a type is recognised, whatever spelling somebody chose for it."""
    bare = bare_type(type_).rpartition(".")[2]
    is_span = bare.startswith("interval ") and not bare.endswith("[]")
    reading = _READ.get("interval" if is_span else bare, "text")
    return (reading,) if reading in {"text", "uuid"} or type_ in _NUMBERS else (reading, "text")


def readings_of(value: str, type_: str, base_type: str | None = None) -> list[tuple[Reading, str]]:
    """The ways in which somebody may have named a stored value, with the text of each.

    :param base_type: of a domain. Without it, a type that is not PostgreSQL's own is read in every way.
    """
    if base_type is None and "." in type_ and read_as(type_) == ("text",):
        return list(readings(value))
    found = list[tuple[Reading, str]]()
    for reading in read_as(base_type or type_):
        if reading == "text":
            found.append((reading, value))
        elif reading == "padded":
            found.append((reading, value.rstrip(" ")))
        elif reading == "anycase":
            found.append((reading, value.lower()))
        else:
            # What cannot be read so, such as an infinite date, is known by its exact spelling.
            with suppress(ValueError, OverflowError):
                found.append((reading, _WRITTEN[reading](value)))
    return found


def readings(part: str) -> Iterator[tuple[Reading, str]]:
    """Each way to read a part of a key, with the text that PostgreSQL writes for such a value.

    A time without an offset is one of UTC, as backups show it.
    """
    yield "text", part
    yield "padded", part.rstrip(" ")
    yield "anycase", part.lower()
    for reading, write in _WRITTEN.items():
        with suppress(ValueError, OverflowError):
            yield reading, write(part.strip())


def plain_decimal(text: str) -> str:
    """A number without an exponent and without zeros at its end.

    :raises ValueError: the text is not a number, or the number is huge.
    """
    if found := _NOT_FINITE.fullmatch(text):
        return "NaN" if found["nan"] else "-Infinity" if text.startswith("-") else "Infinity"
    if not _DECIMAL.fullmatch(text):
        raise ValueError("no number")
    if text.isdecimal() and text[0] != "0":
        return text
    digits = f"{Decimal(text):f}"
    plain = digits.rstrip("0").rstrip(".") if "." in digits else digits
    return "0" if plain == "-0" else plain


def _seconds(text: str, fraction: int) -> str:
    return f"{text}.{fraction:06}".rstrip("0") if fraction else text


def _time(text: str) -> str:
    found = time.fromisoformat(text)
    if found.tzinfo is not None:
        raise ValueError("a time with an offset")
    return _seconds(found.isoformat("seconds"), found.microsecond)


def _timestamp(text: str) -> str:
    found = datetime.fromisoformat(text)
    if found.tzinfo is not None:
        raise ValueError("a time with an offset")
    return _seconds(found.isoformat(" ", "seconds"), found.microsecond)


def _timestamptz(text: str) -> str:
    found = datetime.fromisoformat(text)
    found = found.astimezone(UTC) if found.tzinfo else found
    return _timestamp(found.replace(tzinfo=None).isoformat()) + "+00"


_WRITTEN: dict[Reading, Callable[[str], str]] = {
    "number": plain_decimal,
    "uuid": lambda text: str(UUID(text)),
    "date": lambda text: date.fromisoformat(text).isoformat(),
    "time": _time,
    "timestamp": _timestamp,
    "timestamptz": _timestamptz,
    "span": justified,
}


def is_numeric(type_: str) -> bool:
    """Whether it is a ``numeric``: 1.0 and 1.00 are the same key. ``type_`` as ``format_type`` spells it."""
    return type_ == "numeric" or type_.startswith("numeric(")


def is_exact_number(type_: str) -> bool:
    """Whether it is a whole number or a ``numeric``. ``type_`` as ``format_type`` spells it."""
    return bare_type(type_) in {*_NUMBERS, "oid", "numeric"}


def example(types: Sequence[str]) -> str:
    """A key of these types, for a hint."""
    return PART.join(str(number + 1) for number in range(len(types)))
