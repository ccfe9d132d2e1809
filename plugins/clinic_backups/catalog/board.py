"""The board: one line for each clinic's backups, filtered, sorted and paged by PostgreSQL."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any, Literal, NamedTuple, get_args

from sqlalchemy import Connection as SqlConnection

from clinic_backups.base.backup_facts import Kind
from clinic_backups.base.backup_record import FUTURE_TOLERANCE
from clinic_backups.base.clinic_id import ClinicId, clinic_id_of
from clinic_backups.catalog import board_sql as sql
from clinic_backups.catalog.catalog_database import CatalogDatabase
from clinic_backups.catalog.paging import Search, Slice, Visible, ids
from clinic_backups.catalog.progress import BackupProgress as BackupProgress
from clinic_backups.catalog.progress import RunningBackup as RunningBackup
from clinic_backups.catalog.progress import running

Standing = Literal["ok", "unproven", "late", "never"]
"""never: it has no good backup. late: its last good backup is older than the objective. unproven: its last drill
failed, or its last proof is older than it may be."""
Sort = Literal["standing", "name", "age", "size", "id"]
SORTS: tuple[Sort, ...] = get_args(Sort)
TREND_DAYS = 30
FAILED_DRILL_DAYS = 30
_PROVEN_LATELY_DAYS = 8
"""Almost every clinic has a proof in so many days. The others' proofs are looked up one by one."""
"""How long a failed drill counts where proofs may have any age."""
RECENT_HOURS = 26
"""A little more than a day: see :mod:`clinic_backups.catalog.board_sql`."""
_PAGES = {(sort, descending): sql.page(sort, descending) for sort in SORTS for descending in (False, True)}


@dataclass(frozen=True)
class TrendPoint:
    """The last good backup of a day in UTC."""

    day: date
    size_bytes: int
    rows: int


@dataclass(frozen=True)
class BoardLine:
    """One clinic. ``kind``, ``size_bytes`` and ``rows`` belong to its last good backup.

    :param trend: the last 30 days, the oldest first; days without a good backup are left out.
    :param last_failure: why its newest backup failed; none if it did not fail.
    :param schedule: its own schedule; none: the general one.
    :param restored_at: when its last completed restore ended.
    :param proven_at: when a drill last proved one of its backups; ``proof_seconds``: how long that took, which is its
        recovery time; ``proof_number``: the certificate.
    :param drill_error: why its last drill failed; none if it did not fail. ``drill_hint``: what to do.
    :param suspect: why its newest completed backup is suspect; none after somebody accepted it. Until then an older
        backup is the last good one. ``suspect_id`` is the suspect backup's id.
    """

    clinic_id: ClinicId
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
    proven_at: datetime | None = None
    proof_seconds: float | None = None
    proof_number: int | None = None
    drill_error: str | None = None
    drill_hint: str | None = None
    suspect: str | None = None
    suspect_id: str | None = None
    schedule: str | None = None


@dataclass(frozen=True)
class BoardPage:
    """A page of the matching lines; ``total`` counts all of them."""

    lines: tuple[BoardLine, ...]
    total: int
    page: int
    pages: int


@dataclass(frozen=True)
class Counts:
    """Counts of the visible active clinics. ``failed``: clinics whose newest backup failed."""

    clinics: int
    ok: int
    unproven: int
    late: int
    never: int
    running: int
    failed: int


class ClinicMetrics(NamedTuple):
    """Figures of one active clinic for a monitoring system. Totals count the records in the catalog.

    :param drills_failed: how many drills failed since the newest one that did not.
    """

    clinic_id: ClinicId
    name: str
    last_good_at: datetime | None
    last_duration_seconds: float | None
    last_size_bytes: int | None
    last_rows: int | None
    completed_total: int
    failed_total: int
    restored_at: datetime | None
    proven_at: datetime | None = None
    proof_seconds: float | None = None
    drills_failed: int = 0


class Board:
    """Reads the board. Every query gets the visible clinics and returns no others.

    In all methods ``visible`` are these clinics; ``None`` means all. A clinic is late if the data of its last good
    backup are older than ``objective_hours`` at ``now``. Otherwise it is unproven if its last drill failed or its last
    proof is older than ``prove_within_days``; 0 means that proofs may have any age.
    """

    def __init__(self, database: CatalogDatabase) -> None:
        self._database = database

    def page(
        self,
        *,
        visible: Visible,
        now: datetime,
        objective_hours: float,
        prove_within_days: int,
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
        """The matching clinics, in an order that is stable over all pages.

        :param search: part of a name, ignoring case and accents, or a whole id.
        :param failed_only: only clinics whose newest backup failed.
        :param active: only active ones, or only inactive ones; ``None``: both.
        :param sort: by standing (never; late, the oldest first; unproven; ok; then by name), name, id, or age or size
            of the last good backup (clinics without one first).
        """
        part, sought = Slice(page, per_page), Search(search)
        if not sought.possible:
            return BoardPage((), 0, page, 1)
        values = {
            **_values(visible, now, objective_hours, prove_within_days),
            "pattern": sought.pattern, "sought_ids": ids(sought.clinic_ids),
            "active": active, "standing": standing, "running_only": running_only, "failed_only": failed_only,
            "limit": per_page, "offset": part.offset,
        }  # fmt: skip
        with self._database.transaction("reading the board") as db:
            total, texts = db.execute(_PAGES[sort, descending], values).one()
            clinic_ids = list(map(clinic_id_of, texts))
            lines = _lines(db, clinic_ids, values) if clinic_ids else {}
        return BoardPage(tuple(lines[clinic_id] for clinic_id in clinic_ids), total, page, part.pages(total))

    def clinic(
        self, clinic_id: ClinicId, *, now: datetime, objective_hours: float, prove_within_days: int
    ) -> BoardLine | None:
        """One clinic's line, active or not; none if the catalog does not know the clinic."""
        with self._database.transaction("reading the board") as db:
            values = _values([clinic_id], now, objective_hours, prove_within_days)
            return _lines(db, [clinic_id], values).get(clinic_id)

    def counts(self, *, visible: Visible, now: datetime, objective_hours: float, prove_within_days: int) -> Counts:
        """The number of clinics in each state."""
        with self._database.transaction("counting the clinics") as db:
            values = _values(visible, now, objective_hours, prove_within_days)
            return Counts(*db.execute(sql.COUNTS, values).one())

    def metrics(self, *, visible: Visible, now: datetime) -> Iterator[ClinicMetrics]:
        """Every active clinic, in id order."""
        # All rows are read before the first is returned, so that a slow client keeps no transaction open.
        with self._database.transaction("reading the metrics") as db:
            rows = db.execute(sql.METRICS, _values(visible, now, 0, _PROVEN_LATELY_DAYS)).all()
        return (ClinicMetrics(clinic_id_of(row[0]), *row[1:]) for row in rows)


def _values(visible: Visible, now: datetime, objective_hours: float, prove_within_days: int) -> dict[str, Any]:
    return {
        "visible": ids(visible),
        "moment": now - timedelta(hours=objective_hours),
        "now": now,
        "until": now + FUTURE_TOLERANCE,
        "recent": now - timedelta(hours=RECENT_HOURS),
        "since": now - timedelta(days=TREND_DAYS),
        "must_prove": prove_within_days > 0,
        "proven_since": now - timedelta(days=prove_within_days or FAILED_DRILL_DAYS),
    }


def _lines(db: SqlConnection, clinic_ids: Sequence[ClinicId], values: dict[str, Any]) -> dict[ClinicId, BoardLine]:
    """The lines of these clinics, by id."""
    values = values | {"clinic_ids": list(map(str, clinic_ids))}
    first_day = values["since"].astimezone(UTC).date()
    trends = {
        clinic_id_of(text): tuple(
            TrendPoint(first_day + timedelta(days=day), size_bytes, rows)
            for day, size_bytes, rows in zip(days, sizes, counts, strict=True)
        )
        for text, days, sizes, counts in db.execute(sql.TREND, values | {"first_day": first_day})
    }
    under_way = running(db, clinic_ids)
    return {
        row["clinic_id"]: BoardLine(
            **row, trend=trends.get(row["clinic_id"], ()), running=under_way.get(row["clinic_id"])
        )
        for row in db.execute(sql.LINES, values).mappings()
    }
