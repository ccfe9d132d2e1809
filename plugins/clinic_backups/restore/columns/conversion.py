"""A way to convert a column's values from their type in the backup to the present one."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from psycopg2 import sql

from clinic_backups.base.table import Column
from clinic_backups.restore.columns.shape import Shape


@dataclass(frozen=True)
class Conversion:
    """One way to convert a column's values. Each part is SQL with ``{}`` for the value.

    :param there: from the text in the backup to the present type.
    :param returned: from a value of the present type back to a text of the backup's type.
    """

    there: str
    returned: str

    @property
    def back(self) -> str:
        """From the text in the backup to the present type, and back."""
        return self.returned.replace("{}", f"({self.there})")


def types_of(shape: Shape, name: str) -> tuple[str, str]:
    """A column's type in the backup and now."""
    then, now = _both(shape, name)
    return then.type, now.type


def shown_types_of(shape: Shape, name: str) -> tuple[str, str]:
    """The same for people."""
    then, now = _both(shape, name)
    return then.shown_type, now.shown_type


def _both(shape: Shape, name: str) -> Iterator[Column]:
    return (next(column for column in table.columns if column.name == name) for table in (shape.then, shape.now))


def family(type_: str) -> str:
    """A type without its length or precision; text and varchar are one."""
    name = re.sub(r"\([0-9, ]*\)", "", type_)
    return "text" if name == "character varying" else name


def is_same_family(shape: Shape, name: str) -> bool:
    """Whether a column's type differs from that of the backup by its length or precision at most.

    A domain that has the name of before may be made of another type.
    """
    then, now = _both(shape, name)
    if name in shape.namesakes:
        return then.base_type is None or now.base_type is None or then.base_type == now.base_type
    return family(then.type) == family(now.type)


def filled(template: str, value: sql.Composable) -> sql.Composed:
    """A conversion with a column or variable in place of its value.

    It is no format string, because a type's name may hold braces.
    """
    parts = [sql.SQL(part) for part in template.split("{}")]
    pieces: list[sql.Composable] = [parts[0]]
    for part in parts[1:]:
        pieces += [value, part]
    return sql.Composed(pieces)
