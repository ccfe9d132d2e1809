"""Holds: backups that are kept until somebody releases them, whatever the policy says."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from clinic_backups import envelopes
from clinic_backups.catalog.records import Catalog
from clinic_backups.errors import ClinicBackupsError, PermanentError, SettingsError, TransientError
from clinic_backups.model import BackupRecord
from clinic_backups.storage import Stores
from clinic_backups.text import one_line

MAX_REASON = 500


class Holds:
    """Sets and ends holds, in the catalog and as a note beside the archive in each store that has it.

    The notes are for the day on which the catalog is lost: a rebuilt one knows of the holds.

    :param now: the clock.
    """

    def __init__(self, catalog: Catalog, stores: Stores, now: Callable[[], datetime]) -> None:
        self._catalog, self._stores, self._now = catalog, stores, now

    def hold(self, backup_id: str, reason: str, by: str) -> BackupRecord:
        """Keep a backup until it is released.

        :param reason: one line; nothing of a patient.
        :raises SettingsError: the reason is empty or too long.
        :raises PermanentError: there is no such completed backup.
        :raises TransientError: the hold is set, and a store could not be told of it.
        """
        reason = one_line(reason)
        if not reason or len(reason) > MAX_REASON:
            raise SettingsError(
                "The reason is empty or too long.", hint=f"One line of at most {MAX_REASON} characters."
            )
        held = self._catalog.hold(self._known(backup_id), reason, by)
        self._note(held, "on hold")
        return held

    def release(self, backup_id: str, by: str) -> BackupRecord:
        """End a hold: the policy decides again. :raises PermanentError, TransientError: as for :meth:`hold`."""
        released = self._catalog.release(self._known(backup_id), by, self._now())
        self._note(released, "released")
        return released

    def _known(self, backup_id: str) -> BackupRecord:
        record = self._catalog.get(backup_id)
        if record is None:
            raise PermanentError(f"There is no backup {backup_id!r}.", hint="See `clinic-backups list`.")
        return record

    def _note(self, record: BackupRecord, what: str) -> None:
        for url in record.stores:
            try:
                envelopes.write_hold(record, self._stores.at(url))
            except ClinicBackupsError as error:
                raise TransientError(
                    f"{record.backup_id} is {what} in the catalog, but not noted in {url}: {error.message}",
                    hint="The hold counts as the catalog says. Do it again, so that a rebuilt catalog knows it too.",
                ) from None
