"""Deletes exports whose time is over, also those that no catalog knows: they hold patients' data."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable
from datetime import datetime, timedelta

from clinic_backups.archive.object_keys import EXPORTS, exports_of
from clinic_backups.base.backup_record import BackupRecord
from clinic_backups.base.clinic_id import ClinicId, from_component
from clinic_backups.base.errors import ClinicBackupsError, TransientError
from clinic_backups.catalog.erasures import Erasure
from clinic_backups.catalog.exports import Exports
from clinic_backups.catalog.locks import ClinicLock
from clinic_backups.maintenance.retention_result import Cleaned
from clinic_backups.stores.base import ObjectStore
from clinic_backups.stores.configured import NO_CLINIC, AnsweringStores


class ExportCleaner:
    """Cleans exports clinic by clinic. Call :meth:`look` first, once for all clinics.

    :param days: how long an export may be downloaded.
    """

    def __init__(self, exports: Exports, stores: AnsweringStores, days: int) -> None:
        self._exports, self._stores, self._days = exports, stores, days
        self._unknown: dict[ClinicId, list[tuple[str, str]]] = {}

    def look(self, now: datetime) -> set[ClinicId]:
        """List the stores. Returns the clinics that have files, or old ones that the catalog does not know.

        Such a clinic may have no backups any more.
        """
        known, found = self._exports.keys(), defaultdict[ClinicId, list[tuple[str, str]]](list)
        for url in self._stores.urls:
            try:
                with self._stores.at(url, NO_CLINIC) as store:
                    for info in store.list(EXPORTS):
                        clinic_id = from_component(info.key.split("/")[1])
                        is_old = info.last_modified + timedelta(days=self._days) <= now
                        if clinic_id is not None and is_old and info.key not in known:
                            found[clinic_id].append((url, info.key))
            except ClinicBackupsError as error:
                self._stores.give_up(url, error)
        self._unknown = dict(found)
        return {*found, *known.values()}

    def clean(self, cleaned: Cleaned, now: datetime) -> None:
        """Delete those of one clinic."""
        for record in self._exports.stored(cleaned.clinic_id, ended_before=now):
            if self._delete(cleaned, record.store_url or "", record.key or ""):
                self._exports.mark_deleted(record.id)
        for url, key in self._unknown.get(cleaned.clinic_id, ()):
            self._delete(cleaned, url, key)

    def _delete(self, cleaned: Cleaned, url: str, key: str) -> bool:
        try:
            with self._stores.at(url, cleaned.clinic_id) as store:
                store.delete(key)
        except ClinicBackupsError as error:
            cleaned.fail(error)
            return False
        return True

    def kept(self, erasure: Erasure, records: Iterable[BackupRecord]) -> set[str]:
        """The keys that an erasure leaves: files of newer backups, which it does not cover."""
        newer = {each.backup_id for each in records if not erasure.covers(each)}
        return {str(each.key) for each in self._exports.stored(erasure.clinic_id) if each.backup_id in newer}

    def erase(self, url: str, erasure: Erasure, kept: Collection[str], lock: ClinicLock) -> int:
        """Remove an erased clinic's files from one store, with all versions, whether the catalog knows them or not.

        :param kept: see :meth:`kept`.
        :returns: how many the last listing still showed.
        :raises ClinicBackupsError: the store does not answer, or a file is still there.
        """
        with self._stores.at(url, erasure.clinic_id) as store:
            gone = self.keys_of(store, erasure.clinic_id) - {*kept}
        for key in sorted(gone):
            lock.require()
            with self._stores.at(url, erasure.clinic_id) as store:
                store.purge(key)
        with self._stores.at(url, erasure.clinic_id) as store:
            left = self.keys_of(store, erasure.clinic_id)
        if still := left - {*kept}:
            raise TransientError(
                f"{url} still lists {len(still)} exports of clinic {erasure.clinic_id} that were deleted.",
                hint="Run the erasure again. If it happens again, check whether another program writes there.",
            )
        return len(left)

    @staticmethod
    def keys_of(store: ObjectStore, clinic_id: ClinicId) -> set[str]:
        """The keys of a clinic's exports in a store, including hidden versions."""
        return set(store.all_keys(exports_of(clinic_id)))
