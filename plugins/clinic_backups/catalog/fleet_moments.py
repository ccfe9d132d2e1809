"""Fleet moments: for each day the backups of all clinics and of the shared data that are nearest to each other in time.

Together they are a state of the whole service. Each backup is of one moment of its own, so the time between the first
and the last of them tells how far apart their rows may be.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from sqlalchemy import text

from clinic_backups.base.clinic_id import ClinicId, clinic_id_of
from clinic_backups.base.plain import iso
from clinic_backups.base.shared_unit import SHARED_ID
from clinic_backups.catalog.catalog_database import CatalogDatabase
from clinic_backups.catalog.clinics import NEVER_BACKED_UP

SHOWN = 20
"""The most clinics without a backup that are named for a day."""


@dataclass(frozen=True)
class FleetMoment:
    """One day.

    :param clinics: how many of the clinics that are active now, and were known by then, have a good backup of that day.
        Closed clinics have older backups. Those without any count too, unless they were erased.
    :param expected: how many such clinics there are.
    :param missing: the ids of the first :data:`SHOWN` others.
    :param first_at: the moment of the oldest of the chosen backups; ``last_at`` that of the newest.
    """

    day: date
    shared_id: str | None
    clinics: int
    expected: int
    missing: tuple[ClinicId, ...]
    first_at: datetime
    last_at: datetime

    @property
    def is_whole(self) -> bool:
        """Whether the shared data and all clinics are there."""
        return self.shared_id is not None and self.clinics == self.expected

    @property
    def apart(self) -> timedelta:
        """The time between the first and the last moment."""
        return self.last_at - self.first_at

    def to_json(self) -> dict[str, Any]:
        """Plain JSON types."""
        return {
            "day": self.day.isoformat(),
            "whole": self.is_whole,
            "shared": self.shared_id,
            "clinics": self.clinics,
            "expected": self.expected,
            "missing": list(self.missing),
            "first_at": iso(self.first_at),
            "last_at": iso(self.last_at),
            "apart_seconds": self.apart.total_seconds(),
        }


_QUERY = text(f"""
    WITH good AS MATERIALIZED (
        SELECT b.clinic_id, b.backup_id, b.data_time, (b.data_time AT TIME ZONE :zone)::date AS day
          FROM clinic_backups.backup AS b
         WHERE b.good AND b.data_time >= :since AND b.started_at >= :since
    ), anchor AS (
        SELECT day, coalesce(max(data_time) FILTER (WHERE clinic_id = '{SHARED_ID}'), min(data_time)) AS moment
          FROM good
         GROUP BY day
    ), chosen AS (
        SELECT DISTINCT ON (g.day, g.clinic_id) g.day, g.clinic_id, g.backup_id, g.data_time
          FROM good AS g
          JOIN anchor USING (day)
         ORDER BY g.day, g.clinic_id, abs(extract(epoch FROM g.data_time - anchor.moment)), g.backup_id
    ), expected AS (
        SELECT a.day, c.clinic_id
          FROM anchor AS a
          JOIN clinic_backups.clinic AS c
            ON c.clinic_id <> '{SHARED_ID}' AND (c.first_seen_at AT TIME ZONE :zone)::date <= a.day
           AND (c.active OR {NEVER_BACKED_UP})
    ), missing AS (
        SELECT e.day, e.clinic_id, row_number() OVER (PARTITION BY e.day ORDER BY e.clinic_id) AS place,
               count(*) OVER (PARTITION BY e.day) AS number
          FROM expected AS e
         WHERE NOT EXISTS (SELECT FROM chosen AS c WHERE c.day = e.day AND c.clinic_id = e.clinic_id)
    )
    SELECT c.day, max(c.backup_id) FILTER (WHERE c.clinic_id = '{SHARED_ID}') AS shared_id,
           (SELECT count(*) FROM expected AS e WHERE e.day = c.day) AS expected,
           coalesce((SELECT max(m.number) FROM missing AS m WHERE m.day = c.day), 0) AS lacking,
           (SELECT array_agg(m.clinic_id ORDER BY m.place) FROM missing AS m WHERE m.day = c.day AND m.place <= {SHOWN})
               AS missing,
           min(c.data_time) AS first_at, max(c.data_time) AS last_at
      FROM chosen AS c
     GROUP BY c.day
     ORDER BY c.day DESC
     LIMIT :days
""")  # noqa: S608 - our own words only


def fleet_moments(database: CatalogDatabase, zone: ZoneInfo, now: datetime, days: int) -> list[FleetMoment]:
    """The last days that have a good backup, the newest first.

    :param zone: the time zone whose days are meant.
    :param days: look back so many days.
    """
    values = {"zone": zone.key, "since": now - timedelta(days=days), "days": days}
    with database.transaction("reading which nights are whole") as db:
        return [
            FleetMoment(
                row.day, row.shared_id, row.expected - row.lacking, row.expected,
                tuple(map(clinic_id_of, row.missing or ())), row.first_at, row.last_at,
            )
            for row in db.execute(_QUERY, values)
        ]  # fmt: skip
