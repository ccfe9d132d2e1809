"""Comparisons with any of some values, as one value: so the statement is the same for any number of them."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from sqlalchemy import ARRAY, BigInteger, any_, bindparam

from clinic_backups.base.clinic_id import ClinicId
from clinic_backups.catalog.clinic_id_text import ClinicIdText


def any_clinic(clinics: Collection[ClinicId]) -> Any:
    """Any of these ids of clinics."""
    return any_(bindparam(None, list(clinics), ARRAY(ClinicIdText)))


def any_number(numbers: Collection[int]) -> Any:
    """Any of these numbers."""
    return any_(bindparam(None, list(numbers), ARRAY(BigInteger)))
