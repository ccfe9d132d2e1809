"""What is asked of one backup."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from clinic_backups.base.backup_facts import Trigger
from clinic_backups.base.clinic import Clinic
from clinic_backups.base.compared_rows import ComparedRows

WantedKind = Literal["auto", "full", "incremental"]


@dataclass(frozen=True)
class BackupRequest:
    """A request for one backup of one clinic."""

    clinic: Clinic
    trigger: Trigger = "manual"
    requested_by: str = ""
    notes: str = ""
    run_id: str | None = None
    """Airflow's run id: a retry with the same one continues the same record."""
    kind: WantedKind = "auto"
    retries_left: bool = False
    """Whether a transient failure will be retried. If so, nobody is notified yet."""
    allow_gaps: bool = False
    """Whether gaps are allowed. The backup is then marked as incomplete."""
    compared: ComparedRows | None = None
    """What the preflight of the same run has compared, so that this backup need not do it again."""
    safety_of: str | None = None
    """For a safety backup: the id of the backup that will be restored."""
    chosen: tuple[str, ...] = ()
    """For a safety backup: the tables that will be restored, if that is not all."""
