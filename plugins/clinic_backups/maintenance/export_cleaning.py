"""Deletes exports whose time is over, also those that no catalog knows: they hold patients' data."""

from __future__ import annotations

from collections import defaultdict
from datetime import datetime, timedelta

from clinic_backups.archive.object_keys import EXPORTS
from clinic_backups.base.clinic_id import ClinicId, from_component
from clinic_backups.base.errors import ClinicBackupsError
from clinic_backups.catalog.exports import Exports
from clinic_backups.maintenance.retention_result import Cleaned
from clinic_backups.stores.configured import AnsweringStores

NOBODY = -1
"""Used in place of a clinic's id for requests that are about no clinic."""


class ExportCleaner:
    """Cleans exports clinic by clinic. Call :meth:`look` first, once for all clinics.

    :param days: how long an export may be downloaded.
    """

    def __init__(self, exports: Exports, stores: AnsweringStores, days: int) -> None:
        self._exports, self._stores, self._days = exports, stores, days
        self._unknown: dict[ClinicId, list[tuple[str, str]]] = {}

    def look(self, now: datetime) -> set[ClinicId]:
        """List the stores. Returns the clinics with old files that the catalog does not know, as after a rebuild."""
        known, found = self._exports.keys(), defaultdict[ClinicId, list[tuple[str, str]]](list)
        for url in self._stores.urls:
            try:
                with self._stores.at(url, NOBODY) as store:
                    for info in store.list(EXPORTS):
                        clinic_id = from_component(info.key.split("/")[1])
                        is_old = info.last_modified + timedelta(days=self._days) <= now
                        if clinic_id is not None and is_old and info.key not in known:
                            found[clinic_id].append((url, info.key))
            except ClinicBackupsError as error:
                self._stores.give_up(url, error)
        self._unknown = dict(found)
        return set(found)

    def clean(self, cleaned: Cleaned, now: datetime) -> None:
        """Delete those of one clinic. If the clinic is erased, delete all of them, with every version."""
        is_erased = cleaned.erasure is not None
        recorded = self._exports.stored(cleaned.clinic_id, ended_before=None if is_erased else now)
        for record in recorded:
            if self._delete(cleaned, record.store_url or "", record.key or "", purge=is_erased):
                self._exports.mark_deleted(record.id)
        for url, key in self._unknown.get(cleaned.clinic_id, ()):
            self._delete(cleaned, url, key, purge=is_erased)

    def _delete(self, cleaned: Cleaned, url: str, key: str, *, purge: bool) -> bool:
        try:
            with self._stores.at(url, cleaned.clinic_id) as store:
                (store.purge if purge else store.delete)(key)
        except ClinicBackupsError as error:
            cleaned.fail(error)
            return False
        return True
