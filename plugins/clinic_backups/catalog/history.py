"""The list of backups as the clinics' application knows it: its types, its states, and its numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, NamedTuple

from sqlalchemy import ColumnElement, UnaryExpression, and_, any_, bindparam, func, or_, select, text
from sqlalchemy import Connection as SqlConnection
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.types import BigInteger

from clinic_backups.catalog.database import CatalogDatabase
from clinic_backups.catalog.lists import BIGINT, Search, Slice, Visible, comparable, ids
from clinic_backups.catalog.progress import RunningBackup, running
from clinic_backups.catalog.rows import COLUMNS, record_of
from clinic_backups.catalog.tables import backup, backup_copy, clinic
from clinic_backups.model import BackupRecord, Kind

Type = Literal["completo", "incremental", "manual"]
Status = Literal["en_proceso", "completado", "fallido"]


@dataclass(frozen=True)
class HistoryEntry:
    """One backup.

    :param number: what the clinics' application knows it by: ``respaldos/{number}``.
    :param copies: each store with the state of its copy.
    :param running: how far it is, while it runs.
    """

    number: int
    record: BackupRecord
    copies: tuple[tuple[str, str], ...] = ()
    running: RunningBackup | None = None

    @property
    def type(self) -> Type:
        """As the view ``respaldo`` computes ``tipo``."""
        if self.record.trigger == "manual":
            return "manual"
        return "completo" if self.record.kind == "full" else "incremental"

    @property
    def status(self) -> Status:
        """As the view ``respaldo`` computes ``estado``."""
        if self.record.state == "running":
            return "en_proceso"
        return "completado" if self.record.state == "completed" else "fallido"


@dataclass(frozen=True)
class HistoryPage:
    """Some of the backups that fit; ``total`` counts all of them."""

    entries: tuple[HistoryEntry, ...]
    total: int
    page: int
    pages: int


class Moment(NamedTuple):
    """A backup that can be restored."""

    number: int
    backup_id: str
    started_at: datetime
    kind: Kind
    held: bool


_THERE = backup.c.state.not_in(("deleting", "deleted"))
_SCHEDULED = backup.c.trigger != "manual"
_TYPES: dict[Type, ColumnElement[bool]] = {
    "manual": backup.c.trigger == "manual",
    "completo": and_(_SCHEDULED, backup.c.kind == "full"),
    "incremental": and_(_SCHEDULED, backup.c.kind != "full"),
}
_STATES: dict[Status, ColumnElement[bool]] = {
    "en_proceso": backup.c.state == "running",
    "completado": backup.c.state == "completed",
    "fallido": backup.c.state.in_(("failed", "lost")),
}
_NEWEST_FIRST = (backup.c.started_at.desc(), backup.c.id.desc())
_OLDEST_FIRST = (backup.c.started_at, backup.c.id)


class History:
    """Reads the list. Every query is told which clinics may be seen (``None``: all), and says nothing of any other.

    Backups that retention removes or has removed are not in it, as they are not in the view ``respaldo``.
    """

    def __init__(self, database: CatalogDatabase) -> None:
        self._database = database

    def page(
        self,
        *,
        visible: Visible,
        clinic_id: int | None = None,
        types: Sequence[Type] = (),
        states: Sequence[Status] = (),
        since: datetime | None = None,
        until: datetime | None = None,
        search: str = "",
        oldest_first: bool = False,
        page: int = 1,
        per_page: int = 50,
    ) -> HistoryPage:
        """The backups that fit, the newest first.

        :param types: only these; all when empty. So are the states.
        :param since: begun then or later.
        :param until: begun before.
        :param search: part of the clinic's name, its id, or the backup's id or number.
        """
        part, sought = Slice(page, per_page), Search(search)
        if not sought.possible:
            return HistoryPage((), 0, page, 1)
        where = [_THERE, *_seen(visible), *_period(since, until)]
        if clinic_id is not None:
            where.append(backup.c.clinic_id == clinic_id if abs(clinic_id) < BIGINT else backup.c.id.is_(None))
        if types:
            where.append(or_(*(_TYPES[name] for name in dict.fromkeys(types))))
        if states:
            where.append(or_(*(_STATES[name] for name in dict.fromkeys(states))))
        if sought.text.strip():
            where.append(_matches(sought))
        order = _OLDEST_FIRST if oldest_first else _NEWEST_FIRST
        with self._database.transaction("reading the list of backups") as db:
            total = int(db.execute(select(func.count()).select_from(backup).where(*where)).scalar_one())
            numbers = select(backup.c.id).where(*where).order_by(*order).limit(per_page).offset(part.offset)
            found = _entries(db, backup.c.id.in_(numbers.scalar_subquery()), order)
        return HistoryPage(tuple(found), total, page, part.pages(total))

    def by_number(self, number: int, visible: Visible) -> HistoryEntry | None:
        """The backup ``respaldos/{number}``; none also when it may not be seen."""
        return self._one(visible, backup.c.id == number) if abs(number) < BIGINT else None

    def by_id(self, backup_id: str, visible: Visible) -> HistoryEntry | None:
        """One backup; none also when it may not be seen."""
        return self._one(visible, backup.c.backup_id == backup_id) if Search(backup_id).possible else None

    def of_run(self, clinic_id: int, run_id: str, visible: Visible) -> HistoryEntry | None:
        """The clinic's newest backup of an Airflow run; none also when it may not be seen."""
        if not Search(run_id).possible or abs(clinic_id) >= BIGINT:
            return None
        return self._one(visible, backup.c.clinic_id == clinic_id, backup.c.run_id == run_id)

    def moments(self, clinic_id: int) -> list[Moment]:
        """What the clinic can be restored to, the newest first."""
        statement = (
            select(
                backup.c.id,
                backup.c.backup_id,
                backup.c.started_at,
                backup.c.kind,
                backup.c.hold_reason.is_not(None),
            )
            .where(backup.c.clinic_id == clinic_id, backup.c.state == "completed")
            .order_by(*_NEWEST_FIRST)
        )
        with self._database.transaction("reading the list of backups") as db:
            return [Moment(*row) for row in db.execute(statement)]

    def _one(self, visible: Visible, *where: ColumnElement[bool]) -> HistoryEntry | None:
        numbers = select(backup.c.id).where(_THERE, *_seen(visible), *where).order_by(*_NEWEST_FIRST).limit(1)
        with self._database.transaction("reading one backup") as db:
            found = _entries(db, backup.c.id.in_(numbers.scalar_subquery()), _NEWEST_FIRST)
        return found[0] if found else None


def _seen(visible: Visible) -> list[ColumnElement[bool]]:
    seen = ids(visible)
    return [] if seen is None else [backup.c.clinic_id == any_(bindparam("visible", seen, ARRAY(BigInteger)))]


def _period(since: datetime | None, until: datetime | None) -> list[ColumnElement[bool]]:
    begins = [] if since is None else [backup.c.started_at >= since]
    return begins if until is None else [*begins, backup.c.started_at < until]


def _matches(sought: Search) -> ColumnElement[bool]:
    named = select(clinic.c.clinic_id).where(text(f"{comparable('name')} LIKE :pattern")).params(pattern=sought.pattern)
    either = [backup.c.clinic_id.in_(named), backup.c.backup_id == sought.text.strip()]
    if sought.number is not None:
        either += [backup.c.clinic_id == sought.number, backup.c.id == sought.number]
    return or_(*either)


def _entries(
    db: SqlConnection, where: ColumnElement[bool], order: Sequence[UnaryExpression[Any] | ColumnElement[Any]]
) -> list[HistoryEntry]:
    rows = db.execute(select(backup.c.id, *COLUMNS).where(where).order_by(*order)).mappings().all()
    copies: dict[str, list[tuple[str, str]]] = {}
    statement = (
        select(backup_copy.c.backup_id, backup_copy.c.store_url, backup_copy.c.state)
        .where(backup_copy.c.backup_id.in_([row["backup_id"] for row in rows]))
        .order_by(backup_copy.c.stored_at, backup_copy.c.store_url)
    )
    for backup_id, store_url, state in db.execute(statement) if rows else ():
        copies.setdefault(backup_id, []).append((store_url, state))
    under_way = running(db, [row["clinic_id"] for row in rows if row["state"] == "running"])
    by_id = {found.backup_id: found for found in under_way.values()}
    return [
        HistoryEntry(row["id"], record_of(row), tuple(copies.get(row["backup_id"], ())), by_id.get(row["backup_id"]))
        for row in rows
    ]
