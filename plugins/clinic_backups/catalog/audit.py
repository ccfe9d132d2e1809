"""The audit list: who did what, when and from where. Entries are only added, never changed or removed."""

from __future__ import annotations

from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, func, insert, select

from clinic_backups.base.clinic_id import ClinicId
from clinic_backups.catalog.any_of import any_clinic
from clinic_backups.catalog.catalog_database import CatalogDatabase
from clinic_backups.catalog.paging import Slice, Visible
from clinic_backups.catalog.tables import audit


@dataclass(frozen=True)
class AuditEntry:
    """One action of one person.

    :param role: the person's role for that clinic at that time.
    :param clinic_id: none if the action was about no clinic, or about all.
    :param address: the address that the request came from.
    """

    at: datetime
    actor: str
    role: str
    action: str
    clinic_id: ClinicId | None = None
    backup_id: str | None = None
    run_id: str | None = None
    address: str = ""
    detail: str = ""
    id: int = 0
    actor_id: int | None = None
    """The actor's user id in the clinics' application, from ``user_clinics.sql``."""


@dataclass(frozen=True)
class AuditPage:
    """One page of the list, the newest first."""

    entries: tuple[AuditEntry, ...]
    total: int
    page: int
    pages: int


_COLUMNS = [audit.c[field.name] for field in fields(AuditEntry)]


class Audit:
    """The audit list. PostgreSQL refuses to change or remove an entry."""

    def __init__(self, database: CatalogDatabase) -> None:
        self._database = database

    def write(self, entry: AuditEntry) -> int:
        """Add an entry; returns its id."""
        values = {column.name: getattr(entry, column.name) for column in _COLUMNS if column.name != "id"}
        with self._database.transaction("writing the audit list") as db:
            return int(db.execute(insert(audit).values(values).returning(audit.c.id)).scalar_one())

    def page(
        self,
        *,
        visible: Visible,
        clinic_id: ClinicId | None = None,
        actor: str | None = None,
        page: int = 1,
        per_page: int = 50,
    ) -> AuditPage:
        """The entries about the visible clinics. Entries about no clinic need the right to see all clinics."""
        part = Slice(page, per_page)
        where: list[ColumnElement[bool]] = []
        if visible is not None:
            where.append(audit.c.clinic_id == any_clinic(visible))
        if clinic_id is not None:
            where.append(audit.c.clinic_id == clinic_id)
        if actor is not None:
            where.append(audit.c.actor == actor)
        statement = select(*_COLUMNS).where(*where).order_by(audit.c.id.desc()).limit(per_page).offset(part.offset)
        with self._database.transaction("reading the audit list") as db:
            total = int(db.execute(select(func.count()).select_from(audit).where(*where)).scalar_one())
            entries = tuple(AuditEntry(*row) for row in db.execute(statement))
        return AuditPage(entries, total, page, part.pages(total))

    def count(self, actor: str, since: datetime) -> int:
        """The number of a person's actions since then."""
        statement: Any = select(func.count()).where(audit.c.actor == actor, audit.c.at >= since)
        with self._database.transaction("reading the audit list") as db:
            return int(db.execute(statement).scalar_one())
