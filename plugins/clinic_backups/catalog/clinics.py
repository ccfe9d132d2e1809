"""The clinics that the last run saw, and the age of their backups."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import func, literal, select, text, tuple_
from sqlalchemy.dialects.postgresql import insert

from clinic_backups.base.backup_record import FUTURE_TOLERANCE
from clinic_backups.base.clinic import Clinic
from clinic_backups.base.clinic_id import ClinicId, order_of
from clinic_backups.base.shared_unit import SHARED_ID
from clinic_backups.catalog.catalog_database import CatalogDatabase
from clinic_backups.catalog.clinic_id_text import ClinicIdText, in_sql_order
from clinic_backups.catalog.tables import backup, clinic


@dataclass(frozen=True)
class ClinicHealth:
    """One active clinic and the time of its last good backup; ``None``: it has none."""

    clinic_id: ClinicId
    name: str
    last_good_at: datetime | None
    first_seen_at: datetime
    objective_hours: int | None = None
    """Its own objective; ``None``: the general one."""

    def is_overdue(self, now: datetime, objective_hours: float) -> bool:
        """Whether it has no good backup within its objective, and was known before that.

        :param objective_hours: the general one.
        """
        hours = objective_hours if self.objective_hours is None else self.objective_hours
        return (self.last_good_at or self.first_seen_at) < now - timedelta(hours=hours)


NEVER_BACKED_UP = """(
    NOT EXISTS (SELECT FROM clinic_backups.backup AS n WHERE n.clinic_id = c.clinic_id AND n.good)
    AND NOT EXISTS (SELECT FROM clinic_backups.erasure AS e WHERE e.clinic_id = c.clinic_id))"""
"""The condition on a clinic c: it has no good backup, and was not erased either."""


@dataclass(frozen=True)
class Shrunk:
    """A clinic whose new backup has fewer rows or bytes of CSV than the one before."""

    clinic_id: ClinicId
    name: str
    what: str
    before: int
    now: int


class Clinics:
    """The catalog's list of clinics."""

    def __init__(self, database: CatalogDatabase) -> None:
        self._database = database

    def see(
        self,
        *,
        active: Sequence[Clinic],
        every: Sequence[Clinic],
        objective_hours: Mapping[ClinicId, int] | None = None,
        schedules: Mapping[ClinicId, str] | None = None,
    ) -> None:
        """Record names, languages and which clinics are active. A clinic that is missing becomes inactive.

        :param objective_hours: the objectives of the clinics that have one of their own.
        :param schedules: the same of their schedules.
        """
        ids = {found.id for found in active}
        own, their = objective_hours or {}, schedules or {}
        rows = [
            {
                "clinic_id": found.id,
                "name": found.name,
                "language": found.language,
                "active": found.id in ids,
                "objective_hours": own.get(found.id),
                "schedule": their.get(found.id),
            }
            for found in {found.id: found for found in (*every, *active)}.values()
        ]
        with self._database.transaction("taking over the list of clinics") as db:
            if rows:
                # One statement for all clinics, and no new version of rows that are as they were.
                statement = insert(clinic).values(rows)
                new = {name: statement.excluded[name] for name in rows[0] if name != "clinic_id"}
                is_new = tuple_(*(clinic.c[name] for name in new)).is_distinct_from(tuple_(*new.values()))
                db.execute(statement.on_conflict_do_update(index_elements=["clinic_id"], set_=new, where=is_new))
            gone = clinic.c.clinic_id.not_in([row["clinic_id"] for row in rows])
            db.execute(clinic.update().where(clinic.c.active, gone).values(active=False))

    def active_ids(self) -> set[ClinicId]:
        """The active clinics of the last run."""
        with self._database.transaction("reading which clinics are known") as db:
            return set(db.execute(select(clinic.c.clinic_id).where(clinic.c.active)).scalars())

    def health(self, now: datetime | None = None) -> list[ClinicHealth]:
        """All active clinics, in id order. A backup that is dated in the future does not count.

        :param now: by default the database's time.
        """
        until = (literal(now) if now else func.clock_timestamp()) + FUTURE_TOLERANCE
        last_good_at = (
            select(backup.c.data_time)
            .where(backup.c.clinic_id == clinic.c.clinic_id, backup.c.good)
            .where(backup.c.started_at <= until, backup.c.data_time <= until)
            .order_by(backup.c.started_at.desc())
            .limit(1)
            .scalar_subquery()
        )
        statement = (
            select(clinic.c.clinic_id, clinic.c.name, last_good_at, clinic.c.first_seen_at, clinic.c.objective_hours)
            .where(clinic.c.active)
            .order_by(text(in_sql_order("clinic_backups.clinic")))
        )
        with self._database.transaction("reading how the clinics stand") as db:
            return [ClinicHealth(*row) for row in db.execute(statement)]

    def closed_without_backup(self) -> list[Clinic]:
        """The clinics that are not active and have no good backup: they would be lost with the database."""
        statement = text(
            f"SELECT c.clinic_id, c.name, c.language FROM clinic_backups.clinic AS c"  # noqa: S608 - our own words
            f" WHERE NOT c.active AND c.clinic_id <> '{SHARED_ID}' AND {NEVER_BACKED_UP}"
            f" ORDER BY {in_sql_order('c')}"
        ).columns(clinic_id=ClinicIdText)
        with self._database.transaction("looking for clinics without a backup") as db:
            return [Clinic(*row) for row in db.execute(statement)]

    def seconds(self) -> dict[ClinicId, float]:
        """The duration of each active clinic's newest good backup. Clinics without one are left out."""
        newest = (
            select(backup.c.started_at, backup.c.finished_at)
            .where(backup.c.clinic_id == clinic.c.clinic_id, backup.c.good)
            .order_by(backup.c.started_at.desc())
            .limit(1)
            .lateral("newest")
        )
        took = func.extract("epoch", newest.c.finished_at - newest.c.started_at)
        statement = select(clinic.c.clinic_id, took).join(newest, literal(True)).where(clinic.c.active)
        with self._database.transaction("reading how long backups took") as db:
            return {clinic_id: max(0.0, float(took)) for clinic_id, took in db.execute(statement) if took is not None}

    def shrunk(self, run_id: str, percent: int) -> list[Shrunk]:
        """The clinics whose backup of this run is smaller than the one before by at least this share."""
        statement = text("""
            SELECT n.clinic_id, n.clinic_name, p.raw_bytes AS old_bytes, n.raw_bytes AS new_bytes,
                   (SELECT sum(value::bigint) FROM jsonb_each_text(p.rows)) AS old_rows,
                   (SELECT sum(value::bigint) FROM jsonb_each_text(n.rows)) AS new_rows
              FROM clinic_backups.backup AS n
              JOIN LATERAL (SELECT p.raw_bytes, p.rows
                              FROM clinic_backups.backup AS p
                             WHERE p.clinic_id = n.clinic_id AND p.state = 'completed' AND p.started_at < n.started_at
                             ORDER BY p.started_at DESC
                             LIMIT 1) AS p ON true
             WHERE n.run_id = :run_id AND n.state = 'completed'
""").columns(clinic_id=ClinicIdText)
        found: list[Shrunk] = []
        with self._database.transaction("comparing with the backups before") as db:
            for row in sorted(db.execute(statement, {"run_id": run_id}), key=lambda row: order_of(row.clinic_id)):
                for what, before, now in (("rows", row.old_rows, row.new_rows), ("size", row.old_bytes, row.new_bytes)):
                    if before and now <= before * (100 - percent) / 100:
                        found.append(Shrunk(row.clinic_id, row.clinic_name, what, int(before), int(now)))
        return found
