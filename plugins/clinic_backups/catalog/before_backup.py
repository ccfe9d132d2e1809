"""What the catalog knows of a clinic before its backup begins, from one statement."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection as SqlConnection
from sqlalchemy import and_, bindparam, literal, or_, select

from clinic_backups.base.backup_record import BackupRecord
from clinic_backups.base.clinic_id import ClinicId
from clinic_backups.catalog.row_mapping import COLUMNS, record_of
from clinic_backups.catalog.tables import backup, backup_replica, erasure


@dataclass(frozen=True)
class BeforeBackup:
    """The clinic's records and what its next backup depends on.

    :param running: its running records, the newest first. Their processes are dead if the caller holds the lock.
    :param completed: its completed records, the newest first.
    :param is_unfinished: an earlier attempt of the same run is running or has failed.
    :param erased_until: backups that were begun until then are being erased; none if there is no open erasure.
    :param newest_source: the database of the newest backup, of any clinic, that is not suspect or was accepted.
    :param etags: the etags of completed archives that were read and right in the store that is asked for, by backup id.
    """

    running: tuple[BackupRecord, ...]
    completed: tuple[BackupRecord, ...]
    is_unfinished: bool
    erased_until: datetime | None
    newest_source: str | None
    etags: Mapping[str, str]


_OF_CLINIC = and_(
    backup.c.clinic_id == bindparam("of_clinic"),
    or_(
        backup.c.state.in_(("running", "completed")),
        and_(backup.c.state == "failed", backup.c.run_id == bindparam("of_run")),
    ),
)
_ETAG = (
    select(backup_replica.c.etag)
    .where(backup_replica.c.backup_id == backup.c.backup_id, backup_replica.c.store_url == bindparam("in_store"))
    .correlate(backup)
    .scalar_subquery()
)
_ERASED_UNTIL = (
    select(erasure.c.requested_at)
    .where(erasure.c.clinic_id == bindparam("of_clinic"), erasure.c.finished_at.is_(None))
    .scalar_subquery()
)
_OTHER = backup.alias("other")
_NEWEST_SOURCE = (
    select(_OTHER.c.source_db)
    .where(_OTHER.c.good, _OTHER.c.source_db.is_not(None))
    .order_by(_OTHER.c.started_at.desc(), _OTHER.c.id.desc())
    .limit(1)
    .scalar_subquery()
)
# One row even for a clinic without records, whose columns are then empty.
_CLINIC = select(literal(1).label("one")).subquery("clinic").outerjoin(backup, _OF_CLINIC)
# Built once, because each backup runs it.
_STATEMENT = (
    select(*COLUMNS, _ETAG.label("etag"))
    .add_columns(_ERASED_UNTIL.label("erased_until"), _NEWEST_SOURCE.label("newest_source"))
    .select_from(_CLINIC)
    .order_by(backup.c.started_at.desc(), backup.c.id.desc())
)


def read_before_backup(db: SqlConnection, clinic_id: ClinicId, run_id: str | None, store_url: str) -> BeforeBackup:
    """:param run_id: the run that the backup will belong to. :param store_url: the store that it will go to."""
    values = {"of_clinic": clinic_id, "of_run": run_id, "in_store": store_url}
    rows = db.execute(_STATEMENT, values).mappings().all()
    records = [record_of(row) for row in rows if row["backup_id"] is not None]
    return BeforeBackup(
        running=tuple(record for record in records if record.state == "running"),
        completed=tuple(record for record in records if record.state == "completed"),
        is_unfinished=any(record.run_id == run_id and record.state != "completed" for record in records)
        and run_id is not None,
        erased_until=rows[0]["erased_until"],
        newest_source=rows[0]["newest_source"],
        etags={row["backup_id"]: row["etag"] for row in rows if row["etag"] is not None},
    )
