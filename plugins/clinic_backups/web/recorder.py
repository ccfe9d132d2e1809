"""Records what people do before it is done, and limits how much one person may do."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta

from clinic_backups.base.clinic_id import ClinicId
from clinic_backups.base.errors import ClinicBackupsError
from clinic_backups.catalog.audit import Audit, AuditEntry
from clinic_backups.catalog.backup_list import HistoryEntry
from clinic_backups.web.caller import Caller
from clinic_backups.web.problems import TooMany

WINDOW = timedelta(hours=1)


class Recorder:
    """Writes the audit list.

    :param per_hour: how many actions each person of a clinic may start in an hour; operators have no limit.
    """

    def __init__(self, audit: Audit, *, per_hour: int, now: Callable[[], datetime]) -> None:
        self._audit, self._per_hour, self._now = audit, per_hour, now

    def note(
        self,
        caller: Caller,
        action: str,
        clinic_id: ClinicId,
        *,
        backup: HistoryEntry | None = None,
        run_id: str | None = None,
        detail: str = "",
        on_behalf_of: int | None = None,
    ) -> None:
        """Add a line. An action that cannot be recorded must not happen."""
        self._audit.write(
            AuditEntry(
                at=self._now(),
                actor=caller.viewer.name,
                role=caller.viewer.role_in(clinic_id) or "",
                action=action,
                clinic_id=clinic_id,
                backup_id=backup.record.backup_id if backup else None,
                run_id=run_id,
                address=caller.address,
                detail=detail.strip(),
                actor_id=caller.viewer.user_in(clinic_id) if on_behalf_of is None else on_behalf_of,
            )
        )

    @contextmanager
    def telling_failure(
        self, caller: Caller, action: str, clinic_id: ClinicId, *, run_id: str, backup: HistoryEntry | None = None
    ) -> Iterator[None]:
        """Add a second line to the audit if the recorded action fails."""
        try:
            yield
        except ClinicBackupsError as error:
            self.note(caller, f"{action} failed", clinic_id, backup=backup, run_id=run_id, detail=error.message)
            raise

    def limit(self, caller: Caller) -> None:
        """:raises TooMany: this person has started too many actions in the last hour."""
        if caller.viewer.superadmin:
            return
        if self._audit.count(caller.viewer.name, self._now() - WINDOW) >= self._per_hour:
            raise TooMany(
                f"You have started {self._per_hour} actions in the last hour.",
                hint="Wait, or ask the operator.",
                retry_after_seconds=int(WINDOW.total_seconds()) // 4,
            )
