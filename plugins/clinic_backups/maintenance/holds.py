"""A person's decisions about one backup: to keep it whatever the policy says, or to accept it although suspect."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from clinic_backups.base.backup_record import BackupRecord
from clinic_backups.base.documents import MAX_REASON
from clinic_backups.base.errors import ClinicBackupsError, SettingsError, TransientError
from clinic_backups.base.text import one_line
from clinic_backups.catalog.audit import Audit, AuditEntry
from clinic_backups.catalog.records import Catalog
from clinic_backups.stores import envelopes
from clinic_backups.stores.base import ObjectStore
from clinic_backups.stores.configured import Stores


def require_reason(text: str) -> str:
    """A reason that the audit needs, as one line. :raises SettingsError: it is empty or too long."""
    reason = one_line(text)
    if not reason or len(reason) > MAX_REASON:
        raise SettingsError("The reason is empty or too long.", hint=f"One line of at most {MAX_REASON} characters.")
    return reason


class Holds:
    """Sets and ends holds, in the catalog and in a note beside the archive in each store that has it.

    With the notes, a rebuilt catalog knows the holds.

    :param now: the clock.
    """

    def __init__(self, catalog: Catalog, stores: Stores, now: Callable[[], datetime]) -> None:
        self._catalog, self._stores, self._now = catalog, stores, now

    def hold(self, backup_id: str, reason: str, by: str) -> BackupRecord:
        """Keep a backup until it is released.

        :param reason: one line without patient data.
        :raises SettingsError: the reason is empty or too long.
        :raises PermanentError: there is no such completed backup, or it is on hold for another reason.
        :raises TransientError: the hold is set, but the note could not be written to a store.
        """
        reason = require_reason(reason)
        held = self._catalog.hold(self._catalog.require(backup_id), reason, by, self._now())
        self._tell(held, "on hold", envelopes.write_hold)
        return held

    def release(self, backup_id: str, by: str) -> BackupRecord:
        """End a hold, so that the policy decides again. :raises PermanentError, TransientError: see :meth:`hold`."""
        released = self._catalog.release(self._catalog.require(backup_id), by, self._now())
        self._tell(released, "released", envelopes.drop_hold)
        return released

    def accept(self, backup_id: str, reason: str, by: str) -> BackupRecord:
        """Accept a suspect backup. The audit list has the person and the reason.

        After a rebuild this has to be repeated.

        :param reason: one line without patient data.
        :raises SettingsError: the reason is empty or too long.
        :raises PermanentError: there is no such backup, it is not suspect, or somebody else accepted it.
        """
        reason, at = require_reason(reason), self._now()
        accepted = self._catalog.accept(self._catalog.require(backup_id), by, at)
        entry = AuditEntry(
            at=at, actor=by, role="command line", action="accept", clinic_id=accepted.clinic_id,
            backup_id=backup_id, detail=reason,
        )  # fmt: skip
        Audit(self._catalog.database).write(entry)
        return accepted

    def _tell(self, record: BackupRecord, what: str, tell: Callable[[BackupRecord, ObjectStore], None]) -> None:
        """Write the note to every store, even if another store fails."""
        failed: list[str] = []
        for url in record.stores:
            try:
                tell(record, self._stores.at(url))
            except ClinicBackupsError as error:
                failed.append(f"{url}: {error.message}")
        if failed:
            raise TransientError(
                f"{record.backup_id} is {what} in the catalog, but the note was not updated in {'; '.join(failed)}",
                hint="The catalog's state is valid. Repeat this, so that a rebuilt catalog knows it too.",
            )
