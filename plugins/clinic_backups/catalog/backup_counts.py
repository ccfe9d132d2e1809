"""How many backups there are, by day and by clinic, as the catalog itself counts them (migration 0029).

Each change of a record appends rows with +1 and -1, so that no backup waits for another one. Running backups are not
counted: they are few, and are asked for each time. The replicas of completed backups are counted in the same way, by
day and by store (migration 0039).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    Date,
    Table,
    and_,
    case,
    cast,
    false,
    func,
    literal,
    or_,
    select,
    text,
    union_all,
)

from clinic_backups.catalog.catalog_database import CatalogDatabase
from clinic_backups.catalog.tables import backup, backup_count

_COMPACT = """
    WITH several AS (
        SELECT ctid, count(*) OVER (PARTITION BY {columns}) AS rows
          FROM clinic_backups.{table}),
    gone AS (
        DELETE FROM clinic_backups.{table}
         WHERE ctid = ANY (ARRAY(SELECT ctid FROM several WHERE rows > 1))
        RETURNING {columns}, n)
    INSERT INTO clinic_backups.{table} ({columns}, n)
    SELECT {columns}, sum(n) FROM gone GROUP BY {columns} HAVING sum(n) <> 0"""
_COUNTED = {"backup_count": "day, clinic_id, trigger, kind, state", "replica_count": "day, store_url"}
"""The tables, and what each counts by."""
_COMPACTED = [text(_COMPACT.format(table=table, columns=columns)) for table, columns in _COUNTED.items()]
_RECOUNTED = [text(statement) for statement in (
    "DELETE FROM clinic_backups.backup_count",
    """
    INSERT INTO clinic_backups.backup_count (day, clinic_id, trigger, kind, state, n)
    SELECT (started_at AT TIME ZONE 'UTC')::date, NULL, trigger, kind, state, count(*)
      FROM clinic_backups.backup WHERE state <> 'running' GROUP BY 1, trigger, kind, state
     UNION ALL
    SELECT NULL, clinic_id, trigger, kind, state, count(*)
      FROM clinic_backups.backup WHERE state <> 'running' GROUP BY clinic_id, trigger, kind, state""",
    "DELETE FROM clinic_backups.replica_count",
    """
    INSERT INTO clinic_backups.replica_count (day, store_url, n)
    SELECT (b.started_at AT TIME ZONE 'UTC')::date, r.store_url, count(*)
      FROM clinic_backups.backup AS b JOIN clinic_backups.backup_replica AS r ON r.backup_id = b.backup_id
     WHERE b.state = 'completed' AND r.state = 'present' GROUP BY 1, 2""",
)]  # fmt: skip
DAY = timedelta(days=1)
Classes = Sequence[tuple[str, str, str]]
"""Trigger, kind and state of backups that are counted together."""


@dataclass(frozen=True)
class Place:
    """Where a page of the list of backups begins.

    :param total: the number of all matching backups.
    :param bound: the page's backups begin at this moment or after it (oldest first), or before it (newest first). None:
        there is no such page.
    :param skip: how many matching backups lie between the bound and the page.
    """

    total: int
    bound: datetime | None
    skip: int


class BackupCounts:
    """Keeps the counts small and right."""

    def __init__(self, database: CatalogDatabase) -> None:
        self._database = database

    def compact(self) -> None:
        """Add up the rows of equal backups. Those that others add meanwhile stay as they are."""
        for statement in _COMPACTED:
            with self._database.transaction("adding up the counts of backups") as db:
                db.execute(statement)

    def recount(self) -> None:
        """Count all records again, in one snapshot: after a restore of the catalog the counts might be others."""
        with self._database.transaction("counting the backups again") as db:
            db.execute(text("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ"))
            for statement in _RECOUNTED:
                db.execute(statement)


def place_of(
    db: Connection,
    offset: int,
    classes: Classes,
    *,
    since: datetime | None,
    until: datetime | None,
    oldest_first: bool,
) -> Place:
    """Find the day on which a page of all clinics' backups begins.

    :param offset: how many matching backups lie before the page.
    :param classes: those of the matching backups.
    :param since: only those that begin at this time or later.
    :param until: only those that begin before this time.
    """
    days = _days(classes, since, until)
    order = days.c.day if oldest_first else days.c.day.desc()
    before = (func.sum(days.c.n).over(order_by=order) - days.c.n).label("before")
    placed = select(days.c.day, days.c.n, before, func.sum(days.c.n).over().label("total")).subquery()
    here = and_(placed.c.before <= offset, placed.c.before + placed.c.n > offset)
    statement = select(placed.c.total, case((here, placed.c.day)), placed.c.before).order_by(here.desc()).limit(1)
    found = db.execute(statement).one_or_none()
    if found is None:
        return Place(0, None, 0)
    total, day, skipped = found
    if day is None:
        return Place(int(total), None, 0)
    begins = datetime(day.year, day.month, day.day, tzinfo=UTC)
    if oldest_first:
        return Place(int(total), begins if since is None else max(begins, since), offset - int(skipped))
    return Place(int(total), begins + DAY if until is None else min(begins + DAY, until), offset - int(skipped))


def _days(classes: Classes, since: datetime | None, until: datetime | None) -> Any:
    """The number of matching backups of each day in UTC.

    Days of which a period has only a part are counted from the records.
    """
    day = cast(func.timezone("UTC", backup.c.started_at), Date).label("day")
    whole_since = None if since is None else _next_midnight(since)
    whole_until = None if until is None else _midnight(until)
    counted = select(backup_count.c.day, backup_count.c.n).where(
        backup_count.c.day.is_not(None), _is_of(backup_count, classes)
    )
    if whole_since is not None:
        counted = counted.where(backup_count.c.day >= whole_since.date())
    if whole_until is not None:
        counted = counted.where(backup_count.c.day < whole_until.date())
    parts = [counted, _records(day, classes, [backup.c.state == "running", *within(whole_since, whole_until)])]
    if whole_since is not None and whole_until is not None and whole_since >= whole_until:
        # Not one whole day, so that both ends are in the same or in neighbouring days.
        parts = [_records(day, classes, within(since, until))]
    else:
        if since is not None and whole_since != since:
            parts.append(_records(day, classes, within(since, whole_since)))
        if until is not None and whole_until != until:
            parts.append(_records(day, classes, within(whole_until, until)))
    rows = union_all(*parts).subquery()
    return (
        select(rows.c.day, func.sum(rows.c.n).label("n")).group_by(rows.c.day).having(func.sum(rows.c.n) > 0).subquery()
    )


def _records(day: Any, classes: Classes, where: Sequence[ColumnElement[bool]]) -> Any:
    return select(day, literal(1).label("n")).where(_is_of(backup, classes), *where)


def within(since: datetime | None, until: datetime | None) -> list[ColumnElement[bool]]:
    """The conditions for backups that begin in a period."""
    begins = [] if since is None else [backup.c.started_at >= since]
    return begins if until is None else [*begins, backup.c.started_at < until]


def _is_of(table: Table, classes: Classes) -> ColumnElement[bool]:
    """Whether a row is of one of the classes."""
    states: dict[tuple[str, str], list[str]] = {}
    for trigger, kind, state in classes:
        states.setdefault((trigger, kind), []).append(state)
    return or_(
        false(),
        *(
            and_(table.c.trigger == trigger, table.c.kind == kind, table.c.state.in_(sorted(of)))
            for (trigger, kind), of in states.items()
        ),
    )


def _midnight(at: datetime) -> datetime:
    return at.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)


def _next_midnight(at: datetime) -> datetime:
    midnight = _midnight(at)
    return midnight if midnight == at else midnight + DAY
