"""One tenant."""

from __future__ import annotations

from dataclasses import dataclass

from clinic_backups.base.documents import Code, Count, Name


@dataclass(frozen=True)
class Clinic:
    """One tenant, as ``include/sql/all_clinics.sql`` names it."""

    id: Count
    name: Code
    language: Name = "es"
