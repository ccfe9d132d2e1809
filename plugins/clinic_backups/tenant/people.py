"""Asks the clinics' database which clinics there are, who gets their mails, and who belongs to them."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from typing import Any

from clinic_backups.base.clinic import Clinic
from clinic_backups.base.clinic_id import ClinicId, clinic_id_of, order_of
from clinic_backups.base.connections import Connection
from clinic_backups.base.errors import PermanentError
from clinic_backups.tenant.extract import SqlFolder
from clinic_backups.tenant.strangers import refuse, strangers_code
from clinic_backups.tenant.tenant_db import Snapshot


def read_clinics(snapshot: Snapshot, folder: SqlFolder, file: str) -> list[Clinic]:
    """The clinics that ``active_clinics.sql`` or ``all_clinics.sql`` returns, in id order.

    A fourth column is the clinic's class.

    :raises PermanentError: the query returns other columns, or an id twice.
    """
    found = snapshot.rows(folder.text(file), None, f"running {file}", source="file")
    wrong = ""
    try:
        clinics = [
            Clinic(_id(id_), str(name), str(language or "es"), *(str(group or "") for group in rest[:1]))
            for id_, name, language, *rest in found
            if len(rest) <= 1
        ]
    except (TypeError, ValueError, ArithmeticError) as error:
        clinics, wrong = [], f" One id cannot be used: {error}."
    if len({clinic.id for clinic in clinics}) != len(found):
        raise PermanentError(
            f"{file} must return three columns (id, name, language), or four (the class too); each id is a number or"
            f" a text, and comes once.{wrong}",
            hint=f"Correct {folder.path / file}.",
        )
    return sorted(clinics, key=lambda clinic: order_of(clinic.id))


def _id(value: object) -> ClinicId:
    return clinic_id_of(int(value) if isinstance(value, Decimal) and value == int(value) else value)


def _is(value: object, clinic_id: ClinicId) -> bool:
    try:
        return _id(value) == clinic_id
    except (ValueError, ArithmeticError):
        return False


def clinics(
    clinic_db: Connection, folder: SqlFolder, *, trusted_owners: Sequence[str] = ()
) -> tuple[list[Clinic], list[Clinic]]:
    """The active clinics, and all of them, in id order.

    :raises PermanentError: a query would run code of a stranger, or returns something else.
    """
    files = "active_clinics.sql", "all_clinics.sql"
    with Snapshot(clinic_db, trusted_owners=trusted_owners) as snapshot:
        _require_no_strangers(snapshot, folder, *map(folder.text, files), doing="The list of clinics")
        active, every = (read_clinics(snapshot, folder, file) for file in files)
    return active, every


def admins(
    clinic_db: Connection, folder: SqlFolder, clinic_id: ClinicId, *, trusted_owners: Sequence[str] = ()
) -> list[tuple[str, str]]:
    """The addresses and names of those who get the mails about one clinic, from ``clinic_admins.sql``.

    :raises PermanentError: the query would run code of a stranger.
    """
    file = "clinic_admins.sql"
    query = folder.rendered(file, clinic_id)
    with Snapshot(clinic_db, trusted_owners=trusted_owners) as snapshot:
        _require_no_strangers(snapshot, folder, query, doing="The list of a clinic's administrators")
        rows = snapshot.rows(query, None, f"running {file}", source="file")
    return [(str(address), str(name or "")) for address, name in rows]


def _require_no_strangers(snapshot: Snapshot, folder: SqlFolder, *queries: str, doing: str) -> None:
    refuse(strangers_code(snapshot, folder.queries(), folder.clinic_table, unlocked=queries), doing)


def belongs_to(clinic_db: Connection, folder: SqlFolder, name: str, clinic_id: ClinicId) -> bool:
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
    roles = [role for clinic, role, *_ in found if role == "superadmin" or _is(clinic, clinic_id)]
    return bool(roles) and "superadmin" not in roles
