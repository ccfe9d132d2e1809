"""How every clinic's backups stand: one line for each, filtered, sorted and cut into pages by PostgreSQL."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any, Literal, get_args

from sqlalchemy import Connection as SqlConnection

from clinic_backups.base.model import FUTURE_TOLERANCE, Kind
from clinic_backups.catalog import board_sql as sql
from clinic_backups.catalog.database import CatalogDatabase
from clinic_backups.catalog.lists import Search, Slice, Visible, ids
from clinic_backups.catalog.progress import BackupProgress as BackupProgress
from clinic_backups.catalog.progress import RunningBackup as RunningBackup
from clinic_backups.catalog.progress import running

Standing = Literal["ok", "late", "never"]
"""never: no good backup at all; late: the last one is older than the objective."""
Sort = Literal["standing", "name", "age", "size", "id"]
SORTS: tuple[Sort, ...] = get_args(Sort)
TREND_DAYS = 30
RECENT_HOURS = 26
"""A little more than a day: see :mod:`clinic_backups.catalog.board_sql`."""
_PAGES = {(sort, descending): sql.page(sort, descending) for sort in SORTS for descending in (False, True)}


@dataclass(frozen=True)
class TrendPoint:
    """A day's last good backup; the day in UTC."""

    day: date
    size_bytes: int
    rows: int


@dataclass(frozen=True)
class BoardLine:
    """One clinic. ``kind``, ``size_bytes`` and ``rows`` are those of its last good backup.

    :param trend: the last 30 days, the oldest first; days without a good backup are left out.
    :param last_failure: why its newest backup failed; none if that did not fail.
    :param restored_at: when its last completed restore ended.
    :param suspect: why its newest completed backup is suspect, until somebody accepts it: until then the last good one
        is an older one. ``suspect_id`` is its id.
    """

    clinic_id: int
    name: str
    active: bool
    standing: Standing
    last_good_at: datetime | None = None
    last_good_number: int | None = None
    last_good_id: str | None = None
    kind: Kind | None = None
    size_bytes: int | None = None
    rows: int | None = None
    trend: tuple[TrendPoint, ...] = ()
    running: RunningBackup | None = None
    last_failure: str | None = None
    last_failure_hint: str | None = None
    restored_at: datetime | None = None
    suspect: str | None = None
    suspect_id: str | None = None


@dataclass(frozen=True)
class BoardPage:
    """Some of the lines that fit; ``total`` counts all of them."""

    lines: tuple[BoardLine, ...]
    total: int
    page: int
    pages: int


@dataclass(frozen=True)
class Counts:
    """Over all active clinics that somebody may see. ``failed``: their newest backup failed."""

    clinics: int
    ok: int
    late: int
    never: int
    running: int
    failed: int


@dataclass(frozen=True)
class ClinicMetrics:
    """What a monitoring system is told of one active clinic; the totals are of the records that the catalog keeps."""

    clinic_id: int
    name: str
    last_good_at: datetime | None
    last_duration_seconds: float | None
    last_size_bytes: int | None
    last_rows: int | None
    completed_total: int
    failed_total: int
    restored_at: datetime | None


class Board:
    """Reads the board. Every query is told which clinics may be seen, and says nothing of any other.

    In all methods ``visible`` are those clinics, ``None`` for all of them, and a clinic is late when the
    data of its last good backup are as of more than ``objective_hours`` before ``now``.
    """

    def __init__(self, database: CatalogDatabase) -> None:
        self._database = database

    def page(
        self,
        *,
        visible: Visible,
        now: datetime,
        objective_hours: float,
        search: str = "",
        standing: Standing | None = None,
        running_only: bool = False,
        failed_only: bool = False,
        active: bool | None = True,
        sort: Sort = "standing",
        descending: bool = False,
        page: int = 1,
        per_page: int = 50,
    ) -> BoardPage:
        """The clinics that fit, in an order that is the same on every page.

        :param search: part of a name, without regard to case and accents, or a whole id.
        :param failed_only: those whose newest backup failed.
        :param active: only those that are, or are not; ``None``: both.
        :param sort: standing (never, late with the oldest first, ok; then by name), name, age or size of the last
            good backup with those that have none first, or id.
        """
        part, sought = Slice(page, per_page), Search(search)
        if not sought.possible:
            return BoardPage((), 0, page, 1)
        values = {
            **_values(visible, now, objective_hours), "pattern": sought.pattern, "number": sought.number,
            "active": active, "standing": standing, "running_only": running_only, "failed_only": failed_only,
            "limit": per_page, "offset": part.offset,
        }  # fmt: skip
        with self._database.transaction("reading the board") as db:
            total, clinic_ids = db.execute(_PAGES[sort, descending], values).one()
            lines = _lines(db, clinic_ids, values) if clinic_ids else {}
        return BoardPage(tuple(lines[clinic_id] for clinic_id in clinic_ids), total, page, part.pages(total))

    def clinic(self, clinic_id: int, *, now: datetime, objective_hours: float) -> BoardLine | None:
        """One clinic's line, active or not; none for a clinic that the catalog never saw."""
        if not (seen := ids([clinic_id])):
            return None
        with self._database.transaction("reading the board") as db:
            return _lines(db, seen, _values(seen, now, objective_hours)).get(clinic_id)

    def counts(self, *, visible: Visible, now: datetime, objective_hours: float) -> Counts:
        """How many clinics stand how."""
        with self._database.transaction("counting the clinics") as db:
            return Counts(*db.execute(sql.COUNTS, _values(visible, now, objective_hours)).one())

    def metrics(self, *, visible: Visible, now: datetime) -> Iterator[ClinicMetrics]:
        """Every active clinic, in id order."""
        # Read to its end before the first is given out: a slow client must not keep a transaction open.
        with self._database.transaction("reading the metrics") as db:
            rows = db.execute(sql.METRICS, _values(visible, now, 0)).all()
        return (ClinicMetrics(*row) for row in rows)


def _values(visible: Visible, now: datetime, objective_hours: float) -> dict[str, Any]:
    return {
        "visible": ids(visible),
        "moment": now - timedelta(hours=objective_hours),
        "until": now + FUTURE_TOLERANCE,
        "recent": now - timedelta(hours=RECENT_HOURS),
        "since": now - timedelta(days=TREND_DAYS),
    }


def _lines(db: SqlConnection, clinic_ids: Sequence[int], values: dict[str, Any]) -> dict[int, BoardLine]:
    """The lines of these clinics, by id."""
    values = values | {"clinic_ids": list(clinic_ids)}
    trends: dict[int, dict[date, TrendPoint]] = {}
    for row in db.execute(sql.TREND, values):
        day = row.started_at.astimezone(UTC).date()
        # In the order of their start: a day's last one stays.
        trends.setdefault(row.clinic_id, {})[day] = TrendPoint(day, row.size_bytes, row.rows_total or 0)
    under_way = running(db, clinic_ids)
    return {
        row["clinic_id"]: BoardLine(
            **row, trend=tuple(trends.get(row["clinic_id"], {}).values()), running=under_way.get(row["clinic_id"])
        )
        for row in db.execute(sql.LINES, values).mappings()
    }
