"""How a person writes the key of a row, and how PostgreSQL writes it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Literal, get_args
from uuid import UUID

PART = "/"
"""Between the parts of a key of several columns."""
_NUMBERS = ("smallint", "integer", "bigint")
Kind = Literal["text", "number", "uuid"]
KINDS: tuple[Kind, ...] = get_args(Kind)


def kind_of(type_: str) -> Kind:
    """How keys of a type are written: as numbers, as UUIDs, or as they are. ``type_`` as ``format_type`` spells it."""
    return "number" if type_ in _NUMBERS else "uuid" if type_ == "uuid" else "text"


def key_parts(key: str, types: Sequence[str]) -> tuple[str, ...]:
    """The parts of a key as PostgreSQL writes them.

    :param types: the types of the key's columns, as ``format_type`` spells them.
    :raises ValueError: it has another number of parts, or a part cannot be of its type.
    """
    parts = key.split(PART) if len(types) > 1 else [key]
    return tuple(written(kind_of(type_), part) for type_, part in zip(types, parts, strict=True))


def written(kind: Kind, text: str) -> str:
    """One part of a key as PostgreSQL writes it. :raises ValueError: the part cannot be of that kind."""
    if kind == "number":
        if not re.fullmatch(r"[+-]?[0-9]{1,19}", text.strip(), re.ASCII):
            raise ValueError("no whole number")
        return str(int(text))
    return str(UUID(text)) if kind == "uuid" else text


def example(types: Sequence[str]) -> str:
    """A key of these types, for a hint."""
    return PART.join(str(number + 1) for number in range(len(types)))
