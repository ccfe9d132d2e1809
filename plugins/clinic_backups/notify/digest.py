"""The facts of the operator's mails: the results of a run, and the clinics that miss the objective."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from clinic_backups.base.backup_record import BackupRecord
from clinic_backups.base.clinic import Clinic
from clinic_backups.base.clinic_id import ClinicId
from clinic_backups.base.plain import iso
from clinic_backups.catalog.clinics import ClinicHealth, Shrunk
from clinic_backups.catalog.proofs import Candidate
from clinic_backups.catalog.row_changes import Loss

UNDELIVERED_AFTER = timedelta(days=1)


def digest_facts(
    *,
    run_id: str,
    run_url: str,
    clinics: Sequence[Clinic],
    records: Mapping[ClinicId, BackupRecord],
    urls: Mapping[ClinicId, str],
    health: Iterable[ClinicHealth],
    shrunk: Iterable[Shrunk],
    losses: Iterable[Loss] = (),
    undelivered: Sequence[Mapping[str, Any]],
    replicas: Sequence[Mapping[str, Any]] = (),
    problem: Mapping[str, str] | None = None,
    unusable: Sequence[Mapping[str, Any]] = (),
    unproven: Mapping[str, Any] | None = None,
    objective_hours: int,
    started_at: datetime,
    now: datetime,
) -> dict[str, Any]:
    """The facts of one run's digest.

    :param clinics: the clinics of the run.
    :param records: the run's newest record of each clinic; none if a clinic's backup was not begun.
    :param urls: the address of each clinic's task in Airflow.
    :param replicas: stores that lack replicas of completed backups, each with ``store_url``, ``missing`` (their
        number), ``oldest_at`` (time of the oldest, ISO 8601), and the store's last ``error`` and ``hint``, which may
        be empty.
    :param losses: from :meth:`~clinic_backups.catalog.row_changes.RowChanges.unusual_losses`.
    :param problem: why the run failed before any backup began: ``task``, ``error``, ``hint``.
    :param unusable: the clinics whose key cannot be an id. They are told of as failed ones.
    :param unproven: from :func:`unproven_facts`.
    """
    completed = [record for record in records.values() if record.state == "completed"]
    incomplete = [
        {
            "clinic_id": record.clinic_id,
            "clinic_name": record.clinic_name,
            "tables": sorted({g.table for g in record.gaps}),
        }
        for record in completed
        if record.gaps
    ]
    return {
        "run_id": run_id,
        "run_url": run_url,
        "started_at": iso(started_at),
        "finished_at": iso(now),
        "total": len(clinics) + len(unusable),
        "completed": len(completed),
        "rows": sum(record.rows_total for record in completed),
        "size_bytes": sum(record.size_bytes or 0 for record in completed),
        **({"problem": dict(problem)} if problem else {}),
        "failed": [
            _failure(clinic, records.get(clinic.id), urls.get(clinic.id, ""))
            for clinic in clinics
            if not is_complete(records.get(clinic.id))
        ]
        + [{**each, "url": ""} for each in unusable],
        **({"incomplete": incomplete} if incomplete else {}),
        **overdue_facts(health, objective_hours, now, new_ones_too=True),
        "shrunk": [
            {"clinic_id": s.clinic_id, "clinic_name": s.name, "what": s.what, "before": s.before, "now": s.now}
            for s in shrunk
        ],
        "losses": [
            {
                "clinic_id": loss.clinic_id,
                "clinic_name": loss.clinic_name,
                "removed": loss.removed,
                "usual": loss.usual,
                "tables": [{"table": table, "rows": rows} for table, rows in loss.tables],
            }
            for loss in losses
        ],
        "suspect": [
            {
                "clinic_id": record.clinic_id,
                "clinic_name": record.clinic_name,
                "backup_id": record.backup_id,
                "reason": record.suspect,
            }
            for record in completed
            if not record.is_trusted
        ],
        "undelivered": [dict(letter) for letter in undelivered],
        "replicas": [dict(store) for store in replicas],
        **(unproven or {}),
    }


def unproven_facts(candidates: Iterable[Candidate], now: datetime, within_days: int) -> dict[str, Any]:
    """The facts about :func:`unproven` units; empty if all are proven."""
    found = [
        {
            "clinic_id": each.clinic_id,
            "clinic_name": each.name,
            **({"proven_at": iso(each.proven_at)} if each.proven_at else {}),
        }
        for each in unproven(candidates, now, within_days)
    ]
    return {"unproven": found, "prove_within_days": within_days} if found else {}


def unproven(candidates: Iterable[Candidate], now: datetime, within_days: int) -> list[Candidate]:
    """The units that have a backup, and whose newest good proof is older than the days. A new unit has as long."""
    if within_days == 0:
        return []
    oldest = now - timedelta(days=within_days)
    return [each for each in candidates if each.backup_id is not None and (each.proven_at or each.since) < oldest]


def overdue_facts(
    health: Iterable[ClinicHealth], objective_hours: int, now: datetime, *, new_ones_too: bool = False
) -> dict[str, Any]:
    """The active clinics that have never been backed up, and those whose last good backup is too old.

    :param new_ones_too: include clinics without a backup that have not been known for that long.
    """
    late = [
        clinic
        for clinic in health
        if clinic.is_overdue(now, objective_hours) or (new_ones_too and clinic.last_good_at is None)
    ]
    return {
        "objective_hours": objective_hours,
        "never": [
            {"clinic_id": clinic.clinic_id, "clinic_name": clinic.name}
            for clinic in late
            if clinic.last_good_at is None
        ],
        "overdue": [
            {
                "clinic_id": clinic.clinic_id,
                "clinic_name": clinic.name,
                "last_good_at": iso(clinic.last_good_at),
                **({"objective_hours": clinic.objective_hours} if clinic.objective_hours is not None else {}),
            }
            for clinic in late
            if clinic.last_good_at is not None
        ],
    }


def is_complete(record: BackupRecord | None) -> bool:
    """Whether a clinic has its backup."""
    return record is not None and record.state == "completed"


def _failure(clinic: Clinic, record: BackupRecord | None, url: str) -> dict[str, Any]:
    if record is None:
        error, hint = "Its backup was not begun.", "See the run's first error, and this clinic's task back_up."
    else:
        error, hint = record.error or f"It is still {record.state}.", record.hint or ""
    return {"clinic_id": clinic.id, "clinic_name": clinic.name, "error": error, "hint": hint, "url": url}
