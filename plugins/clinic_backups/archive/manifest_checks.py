"""Checks types, names and times in an archive's manifest, before it is written and after it is read.

Anybody with a public key can make an archive that opens, and the manifest's tables and columns become SQL.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping
from dataclasses import MISSING, fields
from datetime import datetime
from typing import Any

from clinic_backups.archive.envelope_checks import BIGINT, usable_time
from clinic_backups.base.errors import IntegrityError
from clinic_backups.base.model import Clinic, Column, ForeignKey, Table
from clinic_backups.base.strict_json import is_text

MAX_NAME, MAX_CODE, MAX_DEFINITION = 1_000, 100_000, 1024 * 1024
"""The longest names (with schema), expressions, and definitions of enums or composite types, in characters."""
MAX_COLUMNS, MAX_KEYS = 1_700, 10_000


def clinic_of(data: Any) -> Clinic:
    """:raises KeyError, TypeError, ValueError: the data do not describe a clinic."""
    clinic = Clinic(**_fields(Clinic, data))
    _require(type(clinic.id) is int and 0 <= clinic.id < BIGINT, _is_name(clinic.language))
    _require(is_text(clinic.name) and len(clinic.name) <= MAX_CODE)
    return clinic


def time_of(value: Any) -> datetime:
    """:raises ValueError: it is not a time, or not one that the catalog can hold."""
    moment = usable_time(value)
    if moment is None:
        raise ValueError("no usable time")
    return moment


def table_of(data: Any) -> Table:
    """:raises KeyError, TypeError, ValueError: the data do not describe a table."""
    _require(isinstance(data["columns"], list) and len(data["columns"]) <= MAX_COLUMNS)
    _require(isinstance(data["foreign_keys"], list) and len(data["foreign_keys"]) <= MAX_KEYS)
    columns = tuple(_column(column) for column in data["columns"])
    names = [column.name for column in columns]
    key = _names(data["primary_key"])
    _require(_is_name(data["name"]), len(set(names)) == len(names), set(key) <= set(names), len(set(key)) == len(key))
    oid, numbers = data.get("oid"), [column.number for column in columns if column.number is not None]
    _require(_is_number(oid, 2**32), len(set(numbers)) == len(numbers))
    return Table(data["name"], columns, key, tuple(_foreign_key(each) for each in data["foreign_keys"]), oid)


def database_of(value: Any) -> str | None:
    """The database that was backed up; none in older manifests. :raises ValueError: it is not a valid identity."""
    _require(value is None or (_is_name(value) and value.count("/") >= 2))
    found: str | None = value
    return found


def chosen_of(value: Any, tables: Collection[str]) -> tuple[str, ...]:
    """Tables of the archive. :raises TypeError, ValueError: the value does not name some of them, each once."""
    _require(isinstance(value, list) and all(map(_is_name, value)))
    _require(len(set(value)) == len(value), set(value) <= set(tables))
    return tuple(value)


def require_readable(
    clinic: Clinic, snapshot_at: datetime, tables: Iterable[Table], database: str | None = None
) -> None:
    """Check a manifest before it is written. :raises IntegrityError: it could not be read again."""
    try:
        clinic_of(_as_json(clinic))
        time_of(snapshot_at.isoformat())
        database_of(database)
        for table in tables:
            table_of(_as_json(table))
    except (KeyError, TypeError, ValueError):
        raise IntegrityError(
            f"The manifest of this backup of clinic {clinic.id} would not be readable.",
            hint="Nothing was stored. Check that names of tables and columns are plain text, and the database's clock.",
        ) from None


def _as_json(noun: Clinic | Table) -> Any:
    return json.loads(json.dumps(noun, default=vars))


def _column(data: Any) -> Column:
    column = Column(**_fields(Column, data))
    _require(_is_name(column.name), column.type is not None and _is_code(column.type), type(column.not_null) is bool)
    _require(column.identity in ("", "always", "by default"), _is_code(column.default), _is_code(column.generated))
    _require(_is_code(column.definition, MAX_DEFINITION), _is_number(column.number, 2**15))
    return column


def _foreign_key(data: Any) -> ForeignKey:
    values = _fields(ForeignKey, data)
    for name in ("columns", "references_columns"):
        values[name] = _names(values[name])
    key = ForeignKey(**values)
    _require(_is_name(key.name), _is_name(key.references), type(key.deferrable) is bool, type(key.indexed) is bool)
    return key


def _names(values: Any) -> tuple[str, ...]:
    _require(isinstance(values, list) and len(values) <= MAX_COLUMNS)
    _require(*map(_is_name, values))
    return tuple(values)


def _is_name(value: object) -> bool:
    return isinstance(value, str) and 0 < len(value) <= MAX_NAME and is_text(value)


def _is_code(value: object, most: int = MAX_CODE) -> bool:
    return value is None or (isinstance(value, str) and len(value) <= most and is_text(value))


def _is_number(value: object, end: int) -> bool:
    return value is None or (type(value) is int and 0 < value < end)


def _require(*conditions: bool) -> None:
    if not all(conditions):
        raise ValueError("a value of a wrong type, or out of range")


def _fields(kind: type[Any], data: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a class of the model. Fields of later versions are ignored; missing ones get their default."""
    named = [field.name for field in fields(kind) if field.name in data or field.default is MISSING]
    return {name: data[name] for name in named}
