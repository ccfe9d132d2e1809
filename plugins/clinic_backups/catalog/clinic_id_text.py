"""The ids of clinics in the catalog: columns of the type text, in the order of ``base.clinic_id.in_order``.

Whether an id is a number follows from its text alone, so that there is no column beside it that says so.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import Dialect, Text
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


def in_sql_order(clinics: str, *, descending: bool = False) -> str:
    """The keys of an ORDER BY for ids: numbers by value, then texts. No order of texts orders numbers by value.

    :param clinics: the name of the table ``clinic`` in the statement, or of one with its two columns.
    """
    if descending:
        return f"{clinics}.clinic_number DESC NULLS FIRST, {clinics}.clinic_id DESC"
    return f"{clinics}.clinic_number ASC NULLS LAST, {clinics}.clinic_id ASC"
