"""The catalog's records of one run of Airflow."""

from __future__ import annotations

from typing import Any

from clinic_backups.base.backup_record import BackupRecord, State
from clinic_backups.catalog.records import Catalog


def records_of(catalog: Catalog, run: Any, state: State | None = None) -> list[BackupRecord]:
    """The records of a run.

    A run that somebody deleted may have had the same id: Airflow has forgotten it, and the catalog has not. What had
    ended before this run was due is of that one.
    """
    found = catalog.find(run_id=run.run_id, state=state)
    return [record for record in found if record.finished_at is None or record.finished_at >= run.run_after]
