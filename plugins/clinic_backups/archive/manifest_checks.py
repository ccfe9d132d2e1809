"""Checks types, names and times in an archive's manifest, before it is written and after it is read.

Anybody with a public key can make an archive that opens, and the manifest's tables and columns become SQL. The limits
of each field are in :mod:`clinic_backups.base.table` and :mod:`clinic_backups.base.documents`.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Annotated

from pydantic import AfterValidator, BaseModel, TypeAdapter

from clinic_backups.base.clinic import Clinic
from clinic_backups.base.documents import DOCUMENT, Name, Time
from clinic_backups.base.errors import IntegrityError
from clinic_backups.base.plain import iso
from clinic_backups.base.table import Table


def _with_unique_names(table: Table) -> Table:
    names = {column.name for column in table.columns}
    numbers = [column.number for column in table.columns if column.number is not None]
    _require(len(names) == len(table.columns), len(set(numbers)) == len(numbers))
    _require(len(set(table.primary_key)) == len(table.primary_key), names.issuperset(table.primary_key))
    return table


def _identity(database: str) -> str:
    _require(database.count("/") >= 2)
    return database


class Head(BaseModel):
    """What a manifest says of the whole backup.

    :param database: none in older manifests.
    """

    model_config = DOCUMENT
    clinic: Clinic
    snapshot_at: Time
    database: Annotated[Name, AfterValidator(_identity)] | None = None


_CHOSEN = TypeAdapter(tuple[Name, ...])
_TABLE: TypeAdapter[Table] = TypeAdapter(Annotated[Table, AfterValidator(_with_unique_names)])


def chosen_of(value: object, tables: Collection[str]) -> tuple[str, ...]:
    """Tables of the archive. :raises ValueError: the value does not name some of them, each once."""
    chosen = _CHOSEN.validate_python(value)
    _require(len(set(chosen)) == len(chosen), set(chosen) <= set(tables))
    return chosen


def table_of(data: object) -> Table:
    """:raises ValueError: the data do not describe a table."""
    return _TABLE.validate_python(data)


def require_readable(
    clinic: Clinic,
    snapshot_at: datetime,
    tables: Collection[Table],
    database: str | None = None,
    chosen: Sequence[str] = (),
) -> None:
    """Check a manifest before it is written. :raises IntegrityError: it could not be read again."""
    try:
        Head.model_validate({"clinic": clinic.described(), "snapshot_at": iso(snapshot_at), "database": database})
        chosen_of(list(chosen), {table.name for table in tables})
        for table in tables:
            table_of(json.loads(json.dumps(table, default=vars)))
    except ValueError:
        raise IntegrityError(
            f"The manifest of this backup of clinic {clinic.id} would not be readable.",
            hint="Nothing was stored. Check that names of tables and columns are plain text, and the database's clock.",
        ) from None


def _require(*conditions: bool) -> None:
    if not all(conditions):
        raise ValueError("a value of a wrong type, or out of range")
