"""One tenant."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from clinic_backups.base.documents import Code, Name, StoredId


@dataclass(frozen=True)
class Clinic:
    """One tenant, as ``include/sql/all_clinics.sql`` names it."""

    id: StoredId
    name: Code
    language: Name = "es"
    clinic_class: Code = ""
    """The class of clinics that it belongs to: settings may name it instead of the clinic. Empty: to none."""

    def described(self) -> dict[str, Any]:
        """What a task and an archive keep of it."""
        return {"id": self.id, "name": self.name, "language": self.language}
