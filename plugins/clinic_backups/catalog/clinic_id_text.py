"""The ids of clinics in the catalog: columns of the type text, in the order of ``base.clinic_id.in_order``.

Whether an id is a number follows from its text alone, so that there is no column beside it that says so.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import Dialect, Text, text
from sqlalchemy.types import TypeDecorator

from clinic_backups.base.clinic_id import ClinicId, clinic_id_of


class ClinicIdText(TypeDecorator[ClinicId]):
    """A column of ids, in byte order as Python compares texts."""

    impl = Text(collation="C")
    cache_ok = True

    def process_bind_param(self, value: ClinicId | None, dialect: Dialect) -> str | None:
        """:meta private:"""
        return None if value is None else str(value)

    def process_result_value(self, value: Any, dialect: Dialect) -> ClinicId | None:
        """:meta private:"""
        return None if value is None else clinic_id_of(value)


NUMBER = """CASE WHEN {0} ~ '^(0|-?[1-9][0-9]{{0,18}})$' THEN
            CASE WHEN {0}::numeric BETWEEN -9223372036854775808 AND 9223372036854775807 THEN {0}::bigint END END"""
"""The SQL for the number that an id is; NULL for other ids. No order of texts orders numbers by value."""


def in_sql_order(column: str, direction: str = "ASC") -> str:
    """The keys of an ORDER BY for ids: numbers by value, then texts."""
    first, nulls = NUMBER.format(column), "LAST" if direction.startswith("ASC") else "FIRST"
    return f'{first} {direction.split()[0]} NULLS {nulls}, {column} COLLATE "C" {direction.split()[0]}'


IN_ORDER = (text(in_sql_order("clinic_backups.clinic.clinic_id")),)
"""The same for statements of SQLAlchemy on the table of clinics."""
