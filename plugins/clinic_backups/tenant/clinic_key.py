"""The key of the clinics' table: its type decides how SQL writes a clinic's id."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal
from uuid import UUID

from clinic_backups.base.clinic_id import ClinicId
from clinic_backups.base.errors import SettingsError
from clinic_backups.base.text import literal, quoted
from clinic_backups.tenant.declarations import unquoted

FILE = "clinic_table.txt"
KeyType = Literal["integer", "uuid", "text"]
_TYPES: dict[str, KeyType] = {
    "smallint": "integer", "integer": "integer", "bigint": "integer", "int2": "integer", "int4": "integer",
    "int8": "integer", "int": "integer", "numeric": "integer",
    "uuid": "uuid",
    "text": "text", "varchar": "text", "character varying": "text",
}  # fmt: skip
_LINE = re.compile(
    r"""key:\s*(?P<column>"(?:[^"]|"")+"|\S+)\s+(?P<type>character\s+varying|\w+)\s*(?:\(\s*[0-9]+\s*\))?"""
)
_PLAIN = re.compile(r"[a-z_][a-z0-9_]*")


def line_of(column: str, type_: str) -> str:
    """The line that names this key. See :meth:`ClinicKey.of_line`."""
    return f"key: {column if _PLAIN.fullmatch(column) else quoted(column)} {type_}"


def type_of(name: str) -> KeyType | None:
    """The type of keys that a type of PostgreSQL is, without its length; none for every other type."""
    return _TYPES.get(" ".join(name.partition("(")[0].lower().split()))


@dataclass(frozen=True)
class ClinicKey:
    """The column and the type that ``clinic_table.txt`` names.

    :param column: none if it names none. Then the key is a number.
    """

    column: str | None = None
    type: KeyType = "integer"

    @classmethod
    def of_line(cls, line: str) -> ClinicKey | None:
        """The key in a line such as ``key: id uuid``; none if the line is not one."""
        found = _LINE.fullmatch(line.strip())
        type_ = type_of(found["type"]) if found else None
        if found is None or type_ is None:
            return None
        return cls(unquoted(found["column"]), type_)

    @property
    def sql_type(self) -> str:
        """The type that a column of ids is compared in."""
        return "bigint" if self.type == "integer" else self.type

    @property
    def sample(self) -> ClinicId:
        """An id of this type, for trying a query without a clinic."""
        samples: dict[KeyType, ClinicId] = {"integer": 0, "uuid": str(UUID(int=0)), "text": "-"}
        return samples[self.type]

    def literal(self, clinic_id: ClinicId) -> str:
        """The id in SQL: a bare number, or a quoted text with its type.

        :raises SettingsError: no key of this type can be this id.
        """
        if self.type == "integer":
            if isinstance(clinic_id, int):
                return f"{clinic_id:d}"
            raise _other(clinic_id, "a number", 'Write the key\'s column and type there, for instance "key: id uuid".')
        text = str(clinic_id)
        if self.type == "uuid" and not _is_uuid(text):
            raise _other(
                clinic_id, "a UUID in PostgreSQL's form, with small letters", "Give the id as the table has it."
            )
        return f"{literal(text)}::{self.type}"


def _is_uuid(text: str) -> bool:
    try:
        return str(UUID(text)) == text
    except ValueError:
        return False


def _other(clinic_id: ClinicId, wanted: str, hint: str) -> SettingsError:
    return SettingsError(
        f"Clinic {clinic_id} cannot be a key of the clinics' table: {FILE} says that each is {wanted}.", hint=hint
    )


NUMBER = ClinicKey()
"""The key if ``clinic_table.txt`` names none."""
