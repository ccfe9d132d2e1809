"""Finds the backup that a restore request means, and its store."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta

from clinic_backups.archive.bounds import bound_of
from clinic_backups.base.backup_record import BackupRecord
from clinic_backups.base.clinic_id import in_shell, nearest
from clinic_backups.base.errors import PermanentError
from clinic_backups.base.plain import iso
from clinic_backups.catalog.approvals import AGAIN, NotApproved
from clinic_backups.catalog.records import Catalog
from clinic_backups.restore.archives import Source
from clinic_backups.restore.request import RestoreRequest

_BACK = "If its archive is in a store again, run: clinic-backups catalog verify --record"


def notes_of(backup: BackupRecord) -> tuple[str, ...]:
    """Facts about a backup that people need before it is restored."""
    notes = []
    if backup.safety_of is not None:
        notes.append(
            f"This is the safety backup of the restore of {backup.safety_of}: it holds what was replaced then."
        )
    if backup.read_from is not None:
        notes.append(f"Its rows are as of {iso(backup.data_time)}. They were read from {backup.read_from}.")
    notes += [f"The backup is incomplete: {gap.table} is not in it as it should be." for gap in backup.gaps]
    if backup.suspect and not backup.is_trusted:
        notes.append(f"The backup is suspect, and nobody has accepted it: {backup.suspect}")
    return tuple(notes)


def require_told(backup: BackupRecord, is_told: Callable[[str], bool]) -> None:
    """:raises NotApproved: the approver was not told what people have to know of the backup by now."""
    if new := [note for note in notes_of(backup) if not is_told(note)]:
        raise NotApproved(
            f"The approved plan does not say this of backup {backup.backup_id}: {' '.join(new)}", hint=AGAIN
        )


def only_taken_back(tables: Sequence[str]) -> str:
    """A sentence about a safety backup of a restore of some tables: it brings back only these tables."""
    return (
        f"It was made before a restore of {', '.join(tables)}: only that is taken back. What people changed in these"
        " tables since is taken back too. To restore other tables of it, name them."
    )


def choose_backup(catalog: Catalog, request: RestoreRequest, now: datetime | None = None) -> BackupRecord:
    """The backup that a request means.

    A safety backup, or one of a point in time, is chosen only by its id. The same is true of a backup that is dated in
    the future, because a clock was wrong.

    :param now: by default the catalog's time.
    :raises PermanentError: there is no such backup, or it is not complete.
    """
    if request.backup_id is not None:
        found = catalog.get(request.backup_id)
        if found is None or found.clinic_id != request.clinic_id:
            raise PermanentError(
                f"Clinic {request.clinic_id} has no backup {request.backup_id!r}.",
                hint=f"See clinic-backups list --clinic {in_shell(request.clinic_id)}",
            )
        require_completed(found)
        return found
    before = request.as_of + timedelta(microseconds=1) if request.as_of else None
    now = now or catalog.clock()
    known = catalog.find(
        clinic_id=request.clinic_id, state="completed", data_before=before, only_regular=True, until=now
    )
    # A suspect backup that nobody accepted is chosen only if there is no other.
    if known:
        return next((record for record in known if record.is_trusted), known[0])
    when = f" at or before {request.as_of.isoformat()}" if request.as_of else ""
    others = catalog.find(clinic_id=request.clinic_id, state="completed", data_before=before, limit=1)
    lost = catalog.find(clinic_id=request.clinic_id, state="lost", data_before=before, limit=1)
    besides = by_id = ""
    if others and others[0].is_of_future(now):
        besides = f" except {others[0].backup_id}, which is dated in the future: a clock was wrong"
        by_id = " To restore it, give its id."
    elif others:
        besides = " except safety backups and backups of a point in time"
        by_id = " To restore one of these, give its id."
    if lost:
        by_id += f" {_BACK}"
        besides += (
            f"; {lost[0].backup_id} is lost: no store has a good replica of it, or of a backup that it is built on"
        )
    raise PermanentError(
        f"Clinic {request.clinic_id} has no completed backup{when}{besides}.",
        hint=f"See clinic-backups list --clinic {in_shell(request.clinic_id)}.{by_id}{_alike(catalog, request)}",
    )


def _alike(catalog: Catalog, request: RestoreRequest) -> str:
    """Which ids the catalog has, if it knows nothing of the clinic."""
    known = catalog.clinic_ids()
    if request.clinic_id in known or not (near := nearest(request.clinic_id, known)):
        return ""
    return f" The nearest ids of clinics with backups are {', '.join(map(str, near))}."


def require_completed(record: BackupRecord) -> None:
    """:raises PermanentError: the backup cannot be restored."""
    if record.state == "completed":
        return
    hint = "Choose a completed one."
    if record.state == "lost":
        hint += f" {_BACK}"
    raise PermanentError(f"Backup {record.backup_id} is {record.state}, not completed.", hint=hint)


def source_of(record: BackupRecord) -> Source:
    """Where a completed backup lies, for reading it."""
    is_undo = record.safety_of is not None
    return Source(record.backup_id, record.clinic_id, record.archive, record.chain, bound_of(record), is_undo)
