"""Reads the records of backups."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from datetime import datetime
from typing import Any

from sqlalchemy import Select, func, or_, select, text, true, union_all

from clinic_backups.base.backup_record import FUTURE_TOLERANCE, BackupRecord, State
from clinic_backups.base.clinic_id import ClinicId, in_order
from clinic_backups.base.clock import DatabaseClock
from clinic_backups.base.errors import PermanentError
from clinic_backups.base.shared_unit import SHARED_ID
from clinic_backups.catalog import block_lists
from clinic_backups.catalog import record_statements as statements
from clinic_backups.catalog.before_backup import BeforeBackup, read_before_backup
from clinic_backups.catalog.catalog_database import CatalogDatabase
from clinic_backups.catalog.row_mapping import record_of
from clinic_backups.catalog.tables import backup, clinic

_ACTIVE = select(clinic.c.clinic_id).where(clinic.c.active)


class RecordReader:
    """Finds records, and what they say together. It changes nothing."""

    def __init__(self, database: CatalogDatabase, clock: DatabaseClock) -> None:
        self.database = database
        self.clock = clock
        """The catalog's clock: see docs/decisions/0014."""

    def get(self, backup_id: str) -> BackupRecord | None:
        """One record, or ``None``."""
        found = self._select(statements.GET, {"of": backup_id})
        return found[0] if found else None

    def require(self, backup_id: str) -> BackupRecord:
        """One record. :raises PermanentError: the catalog has no such record."""
        record = self.get(backup_id)
        if record is None:
            raise PermanentError(f"There is no backup {backup_id!r}.", hint="See `clinic-backups list`.")
        return record

    def find(
        self,
        *,
        clinic_id: ClinicId | None = None,
        run_id: str | None = None,
        state: State | None = None,
        started_before: datetime | None = None,
        only_regular: bool = False,
        data_before: datetime | None = None,
        until: datetime | None = None,
        limit: int | None = None,
    ) -> list[BackupRecord]:
        """The matching records, the newest first.

        :param only_regular: leave out safety backups and backups of a point in time.
        :param data_before: only records whose rows are from before then.
        :param until: leave out records that are future-dated at that time: see
            :meth:`BackupRecord.is_of_future`.
        """
        asked: dict[str, Any] = {
            "clinic_id": clinic_id, "run_id": run_id, "state": state, "started_before": started_before,
            "data_before": data_before, "until": until and until + FUTURE_TOLERANCE, "limit": limit,
            "only_regular": only_regular or None,
        }  # fmt: skip
        values = {name: value for name, value in asked.items() if value is not None}
        return self._select(statements.finding(frozenset(values)), values)

    def latest(self, clinic_id: ClinicId, now: datetime | None = None) -> BackupRecord | None:
        """The clinic's newest completed backup that is not dated in the future.

        :param now: by default the database's time.
        """
        found = self.find(clinic_id=clinic_id, state="completed", until=now or self.clock(), limit=1)
        return found[0] if found else None

    def _select(self, statement: Select[Any], values: Mapping[str, Any]) -> list[BackupRecord]:
        with self.database.statement("reading the catalog") as db:
            return [record_of(row) for row in db.execute(statement, values).mappings()]

    def before_backup(self, clinic_id: ClinicId, run_id: str | None, store_url: str) -> BeforeBackup:
        """What is known of a clinic before its backup of this run, which goes to this store."""
        with self.database.statement("reading the catalog") as db:
            return read_before_backup(db, clinic_id, run_id, store_url)

    def blocks(self, *backup_ids: str) -> Generator[tuple[str, bytes]]:
        """The lists of the blocks in the own archives of these backups: see :func:`.block_lists.pieces`."""
        return block_lists.pieces(self.database, *backup_ids)

    def clinic_ids(self) -> list[ClinicId]:
        """Every clinic that has a backup, active or not."""
        with self.database.transaction("reading the catalog") as db:
            return in_order(db.scalars(select(backup.c.clinic_id).distinct()))

    def extremes(self, now: datetime) -> list[BackupRecord]:
        """The newest good backups of the clinics with the fewest and the most rows: none, one or two.

        Not of the shared data, whose rows other rows need.
        """
        newest = (
            select(backup.c.backup_id, backup.c.rows_total)
            .distinct(backup.c.clinic_id)
            .where(
                backup.c.state == "completed", backup.c.regular,
                backup.c.started_at <= now + FUTURE_TOLERANCE, backup.c.clinic_id != SHARED_ID,
                or_(backup.c.suspect.is_(None), backup.c.accepted_at.is_not(None)),
            )
            .order_by(backup.c.clinic_id, backup.c.started_at.desc())
            .cte()
        )  # fmt: skip
        ends = [
            select(select(newest.c.backup_id).order_by(order, newest.c.backup_id).limit(1).subquery().c.backup_id)
            for order in (newest.c.rows_total, newest.c.rows_total.desc())
        ]
        with self.database.statement("reading the catalog") as db:
            found = list(dict.fromkeys(db.scalars(union_all(*ends))))
        return [self.require(backup_id) for backup_id in found]

    def newest_of_each(self, clinic_id: ClinicId | None = None) -> list[BackupRecord]:
        """The newest completed backup of one unit, or of each active one, the newest first."""
        wanted = backup.c.clinic_id == clinic_id if clinic_id is not None else backup.c.clinic_id.in_(_ACTIVE)
        return self._newest_by(backup.c.clinic_id, wanted)

    def newest_by_recipients(self, clinic_id: ClinicId | None = None) -> list[BackupRecord]:
        """The newest completed backup that is encrypted to each set of public keys, the newest first."""
        wanted = backup.c.clinic_id == clinic_id if clinic_id is not None else true()
        return self._newest_by(backup.c.recipients, wanted)

    def _newest_by(self, column: Any, wanted: Any) -> list[BackupRecord]:
        ids = (
            select(backup.c.id)
            .distinct(column)
            .where(backup.c.state == "completed", wanted)
            .order_by(column, backup.c.started_at.desc(), backup.c.id.desc())
        )
        newest_first = statements.finding(frozenset())
        return self._select(newest_first.where(backup.c.id.in_(ids)), {})

    def archive_keys(self, clinic_id: ClinicId) -> set[str]:
        """The keys of the archives of a clinic's backups, present and past, in any state."""
        with self.database.transaction("reading the catalog") as db:
            return set(db.scalars(select(backup.c.archive_key).where(backup.c.clinic_id == clinic_id)))

    def recipients_of_others(self, clinic_id: ClinicId) -> set[str]:
        """The public keys that backups of other clinics are encrypted to."""
        key = func.jsonb_array_elements_text(backup.c.recipients).table_valued("value")
        statement = select(key.c.value).distinct().where(backup.c.clinic_id != clinic_id)
        with self.database.transaction("reading which keys open which backups") as db:
            there = backup.c.state.in_(("completed", "lost", "deleting"))
            return {
                value for (value,) in db.execute(statement.where(there).select_from(backup.join(key, text("true"))))
            }
