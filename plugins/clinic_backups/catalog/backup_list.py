"""The list of backups for the clinics' application, with its types, states and numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal, NamedTuple

from sqlalchemy import ColumnElement, and_, func, or_, select, true
from sqlalchemy import Connection as SqlConnection

from clinic_backups.base.backup_facts import Kind
from clinic_backups.base.backup_record import FUTURE_TOLERANCE, BackupRecord, State
from clinic_backups.base.clinic_id import ClinicId
from clinic_backups.base.replica import Condition
from clinic_backups.catalog.any_of import any_clinic, any_number
from clinic_backups.catalog.backup_counts import Classes, Place, place_of, within
from clinic_backups.catalog.catalog_database import CatalogDatabase
from clinic_backups.catalog.paging import BIGINT, Search, Slice, Visible
from clinic_backups.catalog.progress import RunningBackup, running
from clinic_backups.catalog.replicas import READ
from clinic_backups.catalog.row_mapping import COLUMNS, record_of
from clinic_backups.catalog.tables import audit, backup, backup_replica, clinic

Type = Literal["completo", "incremental", "manual"]
Status = Literal["en_proceso", "completado", "fallido"]


@dataclass(frozen=True)
class HistoryEntry:
    """One backup.

    :param number: its number in the clinics' application: ``respaldos/{number}``.
    :param replicas: each store with the condition of its replica.
    :param running: its progress, while it runs.
    """

    number: int
    record: BackupRecord
    replicas: tuple[tuple[str, Condition], ...] = ()
    running: RunningBackup | None = None
    asked_by: int | None = None
    """The user of the clinics' application who asked for it, as in the view's ``creado_por_id``."""

    @property
    def type(self) -> Type:
        """The type, as the view ``respaldo`` computes ``tipo``."""
        if self.record.trigger == "manual":
            return "manual"
        return "completo" if self.record.kind == "full" else "incremental"

    @property
    def status(self) -> Status:
        """The status, as the view ``respaldo`` computes ``estado``."""
        if self.record.state == "running":
            return "en_proceso"
        return "completado" if self.record.state == "completed" else "fallido"


@dataclass(frozen=True)
class HistoryPage:
    """A page of the matching backups; ``total`` counts all of them."""

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
    safety_of: str | None = None
    """For a safety backup: the id of the backup that was restored."""
    read_from: str | None = None
    """For a backup of a point in time: the database that it was read from."""
    data_time: datetime | None = None

    @property
    def is_regular(self) -> bool:
        """As :attr:`BackupFacts.is_regular`."""
        return self.safety_of is None and self.read_from is None


# The trigger and the kinds of each type.
_TYPES: dict[Type, tuple[str, tuple[Kind, ...]]] = {
    "completo": ("scheduled", ("full",)),
    "incremental": ("scheduled", ("incremental",)),
    "manual": ("manual", ("full", "incremental")),
}
_STATES: dict[Status, tuple[State, ...]] = {
    "en_proceso": ("running",),
    "completado": ("completed",),
    "fallido": ("failed", "lost"),
}
_THERE = backup.c.state.not_in(("deleting", "deleted"))
_ASKED_BY = (
    select(audit.c.actor_id)
    .where(audit.c.run_id == backup.c.run_id, audit.c.clinic_id == backup.c.clinic_id, audit.c.action == "back_up")
    .where(audit.c.actor_id.is_not(None))
    .order_by(audit.c.id)
    .limit(1)
    .correlate(backup)
    .scalar_subquery()
    .label("asked_by")
)
_NEWEST_FIRST = (backup.c.started_at.desc(), backup.c.id.desc())
_OLDEST_FIRST = (backup.c.started_at, backup.c.id)


class History:
    """Reads the list. Every query gets the visible clinics (``None``: all) and returns no others.

    Like the view ``respaldo``, it does not contain backups that retention is deleting or has deleted.
    """

    def __init__(self, database: CatalogDatabase) -> None:
        self._database = database

    def page(
        self,
        *,
        visible: Visible,
        clinic_id: ClinicId | None = None,
        types: Sequence[Type] = (),
        states: Sequence[Status] = (),
        since: datetime | None = None,
        until: datetime | None = None,
        search: str = "",
        oldest_first: bool = False,
        page: int = 1,
        per_page: int = 50,
    ) -> HistoryPage:
        """The matching backups, the newest first.

        :param types: only these types; all if empty. The same applies to the states.
        :param since: begun at this time or later.
        :param until: begun before this time.
        :param search: part of the clinic's name, its id, or the backup's id or number.
        """
        part, sought = Slice(page, per_page), Search(search)
        if not sought.possible:
            return HistoryPage((), 0, page, 1)
        classes, period = _classes(types, states), within(since, until)
        where = [*_seen(visible), *period]
        if clinic_id is not None:
            where.append(backup.c.clinic_id == clinic_id)
        with self._database.transaction("reading the list of backups") as db:
            if sought.pattern is not None:
                where.append(_matches(db, sought))
            chosen = [_of_types(types), _of_states(states)]
            if len(where) == len(period):
                place = place_of(db, part.offset, classes, since=since, until=until, oldest_first=oldest_first)
                total, numbers = place.total, _numbers_at(db, [*period, *chosen], place, per_page, oldest_first)
            else:
                total = _count(db, where, chosen)
                numbers = _numbers(db, [*where, *chosen], part, total, oldest_first)
            found = _entries(db, numbers)
        return HistoryPage(tuple(found), total, page, part.pages(total))

    def by_number(self, number: int, visible: Visible) -> HistoryEntry | None:
        """The backup ``respaldos/{number}``; none if it does not exist or is not visible."""
        return self._one(visible, backup.c.id == number) if abs(number) < BIGINT else None

    def by_id(self, backup_id: str, visible: Visible) -> HistoryEntry | None:
        """One backup; none if it does not exist or is not visible."""
        return self._one(visible, backup.c.backup_id == backup_id) if Search(backup_id).possible else None

    def of_run(self, clinic_id: ClinicId, run_id: str, visible: Visible) -> HistoryEntry | None:
        """The clinic's newest backup of an Airflow run; none if it does not exist or is not visible."""
        if not Search(run_id).possible:
            return None
        return self._one(visible, backup.c.clinic_id == clinic_id, backup.c.run_id == run_id)

    def moments(self, clinic_id: ClinicId) -> list[Moment]:
        """The backups that the clinic can be restored to, the newest first. Future-dated ones come last."""
        of_future = backup.c.started_at > func.clock_timestamp() + FUTURE_TOLERANCE
        statement = (
            select(
                backup.c.id,
                backup.c.backup_id,
                backup.c.started_at,
                backup.c.kind,
                backup.c.hold_reason.is_not(None),
                backup.c.safety_of,
                backup.c.read_from,
                backup.c.data_time,
            )
            .where(backup.c.clinic_id == clinic_id, backup.c.state == "completed")
            .order_by(of_future, *_NEWEST_FIRST)
        )
        with self._database.transaction("reading the list of backups") as db:
            return [Moment(*row) for row in db.execute(statement)]

    def _one(self, visible: Visible, *where: ColumnElement[bool]) -> HistoryEntry | None:
        newest = select(backup.c.id).where(_THERE, *_seen(visible), *where).order_by(*_NEWEST_FIRST).limit(1)
        with self._database.transaction("reading one backup") as db:
            found = _entries(db, db.execute(newest).scalars().all())
        return found[0] if found else None


def _seen(visible: Visible) -> list[ColumnElement[bool]]:
    return [] if visible is None else [backup.c.clinic_id == any_clinic(visible)]


def _classes(types: Sequence[Type], states: Sequence[Status]) -> Classes:
    wanted = sorted(set(states) or set(_STATES))
    return [
        (_TYPES[name][0], kind, state)
        for name in sorted(set(types) or set(_TYPES))
        for kind in _TYPES[name][1]
        for status in wanted
        for state in _STATES[status]
    ]


def _of_types(types: Sequence[Type]) -> ColumnElement[bool]:
    wanted = set(types) or set(_TYPES)
    if len(wanted) == len(_TYPES):
        return true()
    return or_(
        *(and_(backup.c.trigger == _TYPES[name][0], backup.c.kind.in_(_TYPES[name][1])) for name in sorted(wanted))
    )


def _of_states(states: Sequence[Status]) -> ColumnElement[bool]:
    wanted = set(states) or set(_STATES)
    # This compares less than a list of the remaining states.
    if len(wanted) == len(_STATES):
        return _THERE
    return backup.c.state.in_([state for name in sorted(wanted) for state in _STATES[name]])


def _count(db: SqlConnection, where: Sequence[ColumnElement[bool]], chosen: Sequence[ColumnElement[bool]]) -> int:
    statement = select(func.count()).select_from(backup).where(*where, *chosen)
    return int(db.execute(statement).scalar_one())


def _numbers_at(
    db: SqlConnection, where: Sequence[ColumnElement[bool]], place: Place, length: int, oldest_first: bool
) -> list[int]:
    """The numbers of the page that begins at a place, in order."""
    if place.bound is None:
        return []
    begins = backup.c.started_at >= place.bound if oldest_first else backup.c.started_at < place.bound
    order = _OLDEST_FIRST if oldest_first else _NEWEST_FIRST
    statement = select(backup.c.id).where(*where, begins).order_by(*order).limit(length).offset(place.skip)
    return list(db.execute(statement).scalars())


def _numbers(
    db: SqlConnection, where: Sequence[ColumnElement[bool]], part: Slice, total: int, oldest_first: bool
) -> list[int]:
    """The numbers on one page in order. A page in the second half is read from the list's other end."""
    length = min(part.per_page, total - part.offset)
    if length <= 0:
        return []
    behind = total - part.offset - length
    reverse = behind < part.offset
    order = _OLDEST_FIRST if oldest_first != reverse else _NEWEST_FIRST
    statement = select(backup.c.id).where(*where).order_by(*order).limit(length)
    numbers = list(db.execute(statement.offset(behind if reverse else part.offset)).scalars())
    return numbers[::-1] if reverse else numbers


def _matches(db: SqlConnection, sought: Search) -> ColumnElement[bool]:
    """The conditions use only columns that the indexes contain."""
    by_id = clinic.c.clinic_id == any_clinic(sought.clinic_ids)
    named = or_(clinic.c.search_name.like(func.lower(sought.pattern)), by_id)
    clinic_ids = list(db.execute(select(clinic.c.clinic_id).where(named)).scalars())
    numbers = list(db.execute(select(backup.c.id).where(backup.c.backup_id == sought.text.strip())).scalars())
    clinic_ids += sought.clinic_ids  # the clinic may be missing from the catalog's list
    if sought.number is not None:
        numbers.append(sought.number)
    in_clinics = backup.c.clinic_id == any_clinic(clinic_ids)
    return or_(in_clinics, backup.c.id == any_number(numbers)) if numbers else in_clinics


def _entries(db: SqlConnection, numbers: Sequence[int]) -> list[HistoryEntry]:
    """The backups with these numbers, in this order."""
    if not numbers:
        return []
    rows = (
        db.execute(select(backup.c.id, *COLUMNS, _ASKED_BY).where(backup.c.id == any_number(numbers))).mappings().all()
    )
    replicas: dict[str, list[tuple[str, Condition]]] = {}
    statement = (
        select(backup_replica.c.backup_id, backup_replica.c.store_url, backup_replica.c.state)
        .where(backup_replica.c.backup_id.in_([row["backup_id"] for row in rows]))
        .order_by(backup_replica.c.stored_at, backup_replica.c.store_url)
    )
    for backup_id, store_url, state in db.execute(statement):
        replicas.setdefault(backup_id, []).append((store_url, READ[state]))
    clinic_ids = [row["clinic_id"] for row in rows if row["state"] == "running"]
    under_way = {found.backup_id: found for found in running(db, clinic_ids).values()} if clinic_ids else {}
    entries = {
        row["id"]: HistoryEntry(
            row["id"],
            record_of(row),
            tuple(replicas.get(row["backup_id"], ())),
            under_way.get(row["backup_id"]),
            row["asked_by"],
        )
        for row in rows
    }
    return [entries[number] for number in numbers if number in entries]
