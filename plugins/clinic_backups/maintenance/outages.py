"""Whether transient errors concern one object or clinic, or the whole store or catalog."""

from __future__ import annotations

from clinic_backups.base.clinic_id import ClinicId
from clinic_backups.base.errors import ClinicBackupsError, TransientError
from clinic_backups.stores.base import ObjectStore
from clinic_backups.stores.identified import answers

GIVEN_UP_AFTER = 3
"""After this many transient errors in a row, the store or the catalog counts as down and the rest is skipped. That is
not so if the store shows its marker and fewer clinics were affected."""


class Failures:
    """Transient errors in a row. ``given_up``: they concern the store or the catalog, not one object or clinic."""

    def __init__(self) -> None:
        self.count, self.given_up = 0, False
        self._clinics: set[ClinicId | None] = set()

    def note(self, error: ClinicBackupsError, store: ObjectStore, clinic_id: ClinicId | None) -> None:
        if not isinstance(error, TransientError):
            self.passed()
            return
        self.count += 1
        self._clinics.add(clinic_id)
        if self.count >= GIVEN_UP_AFTER:
            self.given_up = len(self._clinics) >= GIVEN_UP_AFTER or not answers(store)

    def passed(self) -> None:
        self.count = 0
        self._clinics.clear()
