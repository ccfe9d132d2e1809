"""Erasures of clinics. Of an erased clinic one line with counts and dates remains."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from datetime import datetime
from typing import Any

from sqlalchemy import Connection as SqlConnection
from sqlalchemy import bindparam, delete, func, insert, literal, select, update

from clinic_backups.base.backup_record import BackupRecord
from clinic_backups.base.clinic_id import ClinicId
from clinic_backups.base.errors import PermanentError
from clinic_backups.base.plain import plain
from clinic_backups.catalog.catalog_database import CatalogDatabase
from clinic_backups.catalog.tables import backup, clinic, erasure, export, notification, restore


@dataclass(frozen=True)
class Erasure:
    """One erasure of all backups of a clinic that were begun before ``requested_at``.

    ``backups`` and ``size_bytes`` count the deleted ones, ``remaining`` those that holds and locks still keep.
    """

    id: int
    clinic_id: ClinicId
    requested_at: datetime
    requested_by: str
    reason: str
    backups: int = 0
    size_bytes: int = 0
    first_backup_at: datetime | None = None
    last_backup_at: datetime | None = None
    remaining: int = 0
    finished_at: datetime | None = None
    ignore_unknown_holds: bool = False
    """Whether hold notes that the catalog did not write are ignored."""
    evidence: list[dict[str, Any]] = field(default_factory=list)
    """The counts of each store: see :class:`Counted`."""

    def covers(self, record: BackupRecord) -> bool:
        """Whether the backup is to be deleted. Backups that a returning clinic began later are not."""
        return record.started_at <= self.requested_at

    def to_json(self) -> dict[str, Any]:
        """Plain JSON types."""
        return plain(self)


@dataclass(frozen=True)
class Counted:
    """The objects of an erased clinic in one store, from a listing after the last deletion.

    :param store_id: the store's id at that moment.
    :param deleted: number of objects that the erasure deleted.
    :param left: number of objects that a hold or a lock keeps, or that are newer.
    """

    store_url: str
    store_id: str | None
    listed_at: datetime
    deleted: int
    left: int


_COLUMNS = [erasure.c[column.name] for column in fields(Erasure)]
_OPEN_OF = select(*_COLUMNS).where(erasure.c.clinic_id == bindparam("of_clinic"), erasure.c.finished_at.is_(None))


class Erasures:
    """The requested erasures."""

    def __init__(self, database: CatalogDatabase) -> None:
        self._database = database

    def request(
        self, clinic_id: ClinicId, *, reason: str, by: str, at: datetime, ignore_unknown_holds: bool = False
    ) -> Erasure:
        """Request an erasure. An open one continues, and then also covers backups that were begun since.

        It covers all existing backups, even those that are dated in the future because of a wrong clock.
        """
        newest = select(func.max(backup.c.started_at)).where(backup.c.clinic_id == clinic_id).scalar_subquery()
        covered = func.greatest(literal(at), newest)
        with self._database.transaction(f"recording that clinic {clinic_id} is to be erased") as db:
            row = db.execute(
                update(erasure)
                .where(erasure.c.clinic_id == clinic_id, erasure.c.finished_at.is_(None))
                .values(requested_at=covered, requested_by=by, reason=reason, ignore_unknown_holds=ignore_unknown_holds)
                .returning(*_COLUMNS)
            ).one_or_none()
            if row is None:
                values = {
                    "clinic_id": clinic_id, "requested_at": covered, "requested_by": by, "reason": reason,
                    "ignore_unknown_holds": ignore_unknown_holds,
                }  # fmt: skip
                row = db.execute(insert(erasure).values(values).returning(*_COLUMNS)).one()
        return Erasure(*row)

    def open_of(self, clinic_id: ClinicId) -> Erasure | None:
        """The clinic's unfinished erasure, or ``None``."""
        with self._database.statement("reading the erasures") as db:
            row = db.execute(_OPEN_OF, {"of_clinic": clinic_id}).one_or_none()
        return Erasure(*row) if row else None

    def find(self) -> list[Erasure]:
        """All, the newest first."""
        with self._database.transaction("reading the erasures") as db:
            return [Erasure(*row) for row in db.execute(select(*_COLUMNS).order_by(erasure.c.id.desc()))]

    def open_clinics(self) -> list[ClinicId]:
        """The clinics with an unfinished erasure."""
        statement = select(erasure.c.clinic_id).where(erasure.c.finished_at.is_(None))
        with self._database.transaction("reading the erasures") as db:
            return list(db.execute(statement).scalars())

    def count(self, db: SqlConnection, found: Erasure, record: BackupRecord) -> None:
        """Count a deleted backup, in the transaction that marks its record as deleted."""
        db.execute(
            update(erasure)
            .where(erasure.c.id == found.id)
            .values(
                backups=erasure.c.backups + 1,
                size_bytes=erasure.c.size_bytes + (record.size_bytes or 0),
                first_backup_at=func.least(erasure.c.first_backup_at, record.started_at),
                last_backup_at=func.greatest(erasure.c.last_backup_at, record.started_at),
            )
        )

    def note(self, found: Erasure, counted: Counted) -> Erasure:
        """Record a store's counts. Deleted objects are added to those of earlier runs."""
        with self._database.transaction(f"noting the erasure of clinic {found.clinic_id}") as db:
            here = erasure.c.id == found.id
            before = db.execute(select(erasure.c.evidence).where(here).with_for_update()).scalar_one()
            mine = [item for item in before if item["store_url"] == counted.store_url]
            item = plain(counted) | {"deleted": counted.deleted + sum(item["deleted"] for item in mine)}
            evidence = [item for item in before if item not in mine] + [item]
            row = db.execute(update(erasure).where(here).values(evidence=evidence).returning(*_COLUMNS)).one()
        return Erasure(*row)

    def settle(self, found: Erasure, at: datetime, *, proven: bool = True) -> Erasure:
        """Count the remaining backups. After the last one, end the erasure and delete the clinic's data in the catalog.

        That includes mails with their addresses and restores with their plans. Newer data stay.

        :param proven: whether each store was listed after the last deletion. If not, the erasure stays open.
        :raises PermanentError: it has already ended.
        """
        mine = (backup.c.clinic_id == found.clinic_id, backup.c.started_at <= found.requested_at)
        with self._database.transaction(f"settling the erasure of clinic {found.clinic_id}") as db:
            left = select(func.count()).where(*mine, backup.c.state.not_in(("deleted", "failed")))
            remaining = db.execute(left).scalar_one()
            values: dict[str, Any] = {"remaining": remaining}
            if not remaining and proven:
                values["finished_at"] = at
                db.execute(delete(restore).where(restore.c.clinic_id == found.clinic_id,
                                                 restore.c.started_at <= found.requested_at))  # fmt: skip
                db.execute(delete(notification).where(notification.c.clinic_id == found.clinic_id,
                                                      notification.c.created_at <= found.requested_at))  # fmt: skip
                db.execute(delete(export).where(export.c.clinic_id == found.clinic_id,
                                                export.c.begun_at <= found.requested_at))  # fmt: skip
                db.execute(delete(backup).where(*mine))
                came_later = select(backup.c.backup_id).where(backup.c.clinic_id == found.clinic_id).exists()
                db.execute(delete(clinic).where(clinic.c.clinic_id == found.clinic_id, ~clinic.c.active, ~came_later))
            statement = update(erasure).where(erasure.c.id == found.id, erasure.c.finished_at.is_(None))
            row = db.execute(statement.values(values).returning(*_COLUMNS)).one_or_none()
        if row is None:
            raise PermanentError(f"The erasure of clinic {found.clinic_id} has already ended.", hint="Nothing to do.")
        return Erasure(*row)
