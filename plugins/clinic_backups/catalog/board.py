"""How every clinic's backups stand: one line for each, filtered, sorted and cut into pages by PostgreSQL."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any, Literal, get_args

from sqlalchemy import Connection as SqlConnection
from sqlalchemy import text

from clinic_backups.catalog.database import CatalogDatabase
from clinic_backups.catalog.lists import Search, Slice, Visible, comparable, ids
from clinic_backups.catalog.progress import BackupProgress as BackupProgress
from clinic_backups.catalog.progress import RunningBackup as RunningBackup
from clinic_backups.catalog.progress import running
from clinic_backups.model import Kind

Standing = Literal["ok", "late", "never"]
"""never: no good backup at all; late: the last one is older than the objective."""
Sort = Literal["standing", "name", "age", "size", "id"]
SORTS: tuple[Sort, ...] = get_args(Sort)
TREND_DAYS = 30


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


# The last good backup of each clinic, from the index backup_last_good alone.
_GOOD = """
    LEFT JOIN LATERAL (
        SELECT b.id, b.started_at, b.finished_at, b.size_bytes, b.rows_total
          FROM clinic_backups.backup AS b
         WHERE b.clinic_id = c.clinic_id AND b.state = 'completed'
         ORDER BY b.started_at DESC, b.id DESC
         LIMIT 1) AS good ON true"""
_STANDING = "CASE WHEN good.finished_at IS NULL THEN 'never' WHEN good.finished_at < :moment THEN 'late' ELSE 'ok' END"
_NAME = comparable("c.name")
# Each ends with what no two clinics share, so that the pages hold every clinic once.
_ORDERS: dict[Sort, str] = {
    "standing": f"""
        CASE WHEN good.finished_at IS NULL THEN 0 WHEN good.finished_at < :moment THEN 1 ELSE 2 END {{0}},
        CASE WHEN good.finished_at < :moment THEN good.finished_at END {{0}}, {_NAME} {{0}}, c.clinic_id {{0}}""",
    "name": f"{_NAME} {{0}}, c.clinic_id {{0}}",
    "age": "good.finished_at {1}, c.clinic_id {0}",
    "size": "good.size_bytes {1}, c.clinic_id {0}",
    "id": "c.clinic_id {0}",
}
_DIRECTIONS = {False: ("ASC", "ASC NULLS FIRST"), True: ("DESC", "DESC NULLS LAST")}


class Board:
    """Reads the board. Every query is told which clinics may be seen, and says nothing of any other.

    In all methods ``visible`` are those clinics, ``None`` for all of them, and a clinic is late when its last good
    backup ended more than ``objective_hours`` before ``now``.
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
        active: bool | None = True,
        sort: Sort = "standing",
        descending: bool = False,
        page: int = 1,
        per_page: int = 50,
    ) -> BoardPage:
        """The clinics that fit, in an order that is the same on every page.

        :param search: part of a name, without regard to case and accents, or a whole id.
        :param active: only those that are, or are not; ``None``: both.
        :param sort: standing (never, late with the oldest first, ok; then by name), name, age or size of the last
            good backup with those that have none first, or id.
        """
        part, sought = Slice(page, per_page), Search(search)
        if not sought.possible:
            return BoardPage((), 0, page, 1)
        moment = now - timedelta(hours=objective_hours)
        where, values = _conditions(visible, sought, active)
        if standing is not None:
            where.append(f"{_STANDING} = :standing")
        if running_only:
            where.append(
                "c.clinic_id IN (SELECT r.clinic_id FROM clinic_backups.backup AS r WHERE r.state = 'running')"
            )
        order = _ORDERS[sort].format(*_DIRECTIONS[descending])
        needs_good = standing is not None or "good." in order
        statement = text(f"""
            WITH found AS MATERIALIZED (
                SELECT c.clinic_id, row_number() OVER (ORDER BY {order}) AS place
                  FROM clinic_backups.clinic AS c{_GOOD if needs_good else ""}
                 WHERE {" AND ".join(where)})
            SELECT (SELECT count(*) FROM found) AS total,
                   ARRAY(SELECT clinic_id FROM found ORDER BY place LIMIT :limit OFFSET :offset) AS clinic_ids""")  # noqa: S608
        values |= {"moment": moment, "standing": standing, "limit": per_page, "offset": part.offset}
        with self._database.transaction("reading the board") as db:
            total, clinic_ids = db.execute(statement, values).one()
            lines = _lines(db, clinic_ids, now, moment)
        return BoardPage(tuple(lines[clinic_id] for clinic_id in clinic_ids), total, page, part.pages(total))

    def clinic(self, clinic_id: int, *, now: datetime, objective_hours: float) -> BoardLine | None:
        """One clinic's line, active or not; none for a clinic that the catalog never saw."""
        if not (seen := ids([clinic_id])):
            return None
        with self._database.transaction("reading the board") as db:
            return _lines(db, seen, now, now - timedelta(hours=objective_hours)).get(clinic_id)

    def counts(self, *, visible: Visible, now: datetime, objective_hours: float) -> Counts:
        """How many clinics stand how."""
        where, values = _conditions(visible, Search(""), True)
        statement = text(f"""
            SELECT count(*) AS clinics,
                   count(*) FILTER (WHERE good.finished_at >= :moment) AS ok,
                   count(*) FILTER (WHERE good.finished_at < :moment) AS late,
                   count(*) FILTER (WHERE good.finished_at IS NULL) AS never,
                   count(*) FILTER (WHERE EXISTS (SELECT FROM clinic_backups.backup AS r
                                                   WHERE r.clinic_id = c.clinic_id AND r.state = 'running')) AS running,
                   count(*) FILTER (WHERE (SELECT n.state FROM clinic_backups.backup AS n
                                            WHERE n.clinic_id = c.clinic_id
                                            ORDER BY n.started_at DESC, n.id DESC LIMIT 1) = 'failed') AS failed
              FROM clinic_backups.clinic AS c{_GOOD}
             WHERE {" AND ".join(where)}""")  # noqa: S608
        values["moment"] = now - timedelta(hours=objective_hours)
        with self._database.transaction("counting the clinics") as db:
            return Counts(*db.execute(statement, values).one())

    def metrics(self, *, visible: Visible, now: datetime) -> Iterator[ClinicMetrics]:
        """Every active clinic, in id order."""
        where, values = _conditions(visible, Search(""), True)
        statement = text(f"""
            SELECT c.clinic_id, c.name, good.finished_at,
                   extract(epoch FROM good.finished_at - good.started_at)::double precision,
                   good.size_bytes, good.rows_total,
                   (SELECT count(*) FROM clinic_backups.backup AS b
                     WHERE b.clinic_id = c.clinic_id AND b.state = 'completed'),
                   (SELECT count(*) FROM clinic_backups.backup AS b
                     WHERE b.clinic_id = c.clinic_id AND b.state = 'failed'),
                   (SELECT max(r.finished_at) FROM clinic_backups.restore AS r
                     WHERE r.clinic_id = c.clinic_id AND r.state = 'completed')
              FROM clinic_backups.clinic AS c{_GOOD}
             WHERE {" AND ".join(where)}
             ORDER BY c.clinic_id""")  # noqa: S608
        # Read to its end before the first is given out: a slow client must not keep a transaction open.
        with self._database.transaction("reading the metrics") as db:
            rows = db.execute(statement, values).all()
        return (ClinicMetrics(*row) for row in rows)


def _conditions(visible: Visible, sought: Search, active: bool | None) -> tuple[list[str], dict[str, Any]]:
    where, values = ["true"], dict[str, Any]()
    if (seen := ids(visible)) is not None:
        where.append("c.clinic_id = ANY(CAST(:visible AS bigint[]))")
        values["visible"] = seen
    if active is not None:
        where.append("c.active = :active")
        values["active"] = active
    if sought.text.strip():
        where.append(f"({_NAME} LIKE :pattern OR c.clinic_id = CAST(:number AS bigint))")
        values |= {"pattern": sought.pattern, "number": sought.number}
    return where, values


def _lines(db: SqlConnection, clinic_ids: Sequence[int], now: datetime, moment: datetime) -> dict[int, BoardLine]:
    """The lines of these clinics, by id."""
    values = {"clinic_ids": list(clinic_ids), "moment": moment, "since": now - timedelta(days=TREND_DAYS)}
    trends: dict[int, dict[date, TrendPoint]] = {}
    for row in db.execute(_TREND, values):
        day = row.started_at.astimezone(UTC).date()
        trends.setdefault(row.clinic_id, {})[day] = TrendPoint(day, row.size_bytes, row.rows_total or 0)
    under_way = running(db, clinic_ids)
    return {
        row["clinic_id"]: BoardLine(
            **row, trend=tuple(trends.get(row["clinic_id"], {}).values()), running=under_way.get(row["clinic_id"])
        )
        for row in db.execute(_LINES, values).mappings()
    }


_LINES = text(f"""
    SELECT c.clinic_id, c.name, c.active, {_STANDING} AS standing,
           good.finished_at AS last_good_at, good.id AS last_good_number, record.backup_id AS last_good_id,
           record.kind, good.size_bytes, good.rows_total AS rows,
           failed.error AS last_failure, failed.hint AS last_failure_hint,
           (SELECT max(r.finished_at) FROM clinic_backups.restore AS r
             WHERE r.clinic_id = c.clinic_id AND r.state = 'completed') AS restored_at
      FROM clinic_backups.clinic AS c{_GOOD}
      LEFT JOIN clinic_backups.backup AS record ON record.id = good.id
      LEFT JOIN LATERAL (
          SELECT n.state, n.error, n.hint
            FROM clinic_backups.backup AS n
           WHERE n.clinic_id = c.clinic_id
           ORDER BY n.started_at DESC, n.id DESC
           LIMIT 1) AS failed ON failed.state = 'failed'
     WHERE c.clinic_id = ANY(CAST(:clinic_ids AS bigint[]))""")  # noqa: S608
_TREND = text("""
    SELECT b.clinic_id, b.started_at, b.size_bytes, b.rows_total
      FROM clinic_backups.backup AS b
     WHERE b.clinic_id = ANY(CAST(:clinic_ids AS bigint[])) AND b.state = 'completed' AND b.started_at >= :since
     ORDER BY b.clinic_id, b.started_at, b.id""")
