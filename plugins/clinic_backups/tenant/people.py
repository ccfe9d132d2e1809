"""Asks the clinics' database which clinics there are, who gets their mails, and who belongs to them."""

from __future__ import annotations

from typing import Any

from clinic_backups.base.clinic import Clinic
from clinic_backups.base.connections import Connection
from clinic_backups.tenant.extract import SqlFolder, render
from clinic_backups.tenant.tenant_db import Snapshot


def clinics(clinic_db: Connection, folder: SqlFolder) -> tuple[list[Clinic], list[Clinic]]:
    """The active clinics, and all of them, in id order."""
    with Snapshot(clinic_db) as snapshot:
        return snapshot.clinics(folder, "active_clinics.sql"), snapshot.clinics(folder, "all_clinics.sql")


def admins(clinic_db: Connection, folder: SqlFolder, clinic_id: int) -> list[tuple[str, str]]:
    """The addresses and names of those who get the mails about one clinic, from ``clinic_admins.sql``."""
    file = "clinic_admins.sql"
    query = render(folder.text(file), clinic_id, name=file)
    with Snapshot(clinic_db) as snapshot:
        rows = snapshot.rows(query, None, f"running {file}", source="file")
    return [(str(address), str(name or "")) for address, name in rows]


def belongs_to(clinic_db: Connection, folder: SqlFolder, name: str, clinic_id: int) -> bool:
    """Whether the person with that name belongs to the clinic, as ``user_clinics.sql`` says.

    A superadmin does not belong to any clinic.
    """
    query = folder.user_clinics()
    found: list[tuple[Any, ...]] = []
    with Snapshot(clinic_db) as snapshot:
        for email in ("", name) if "@" in name else ("",):
            found += snapshot.rows(
                query, {"email": email, "name": name}, "looking up the clinics of a person", source="file"
            )
    roles = [role for clinic, role, *_ in found if role == "superadmin" or clinic == clinic_id]
    return bool(roles) and "superadmin" not in roles
