"""Checks the chain of an incremental backup in the store that it goes to."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime

from clinic_backups.base.backup_record import BackupRecord
from clinic_backups.catalog.records import Catalog
from clinic_backups.catalog.replicas import Replicas
from clinic_backups.notify.losses import LossAlarm
from clinic_backups.stores import envelopes
from clinic_backups.stores.base import ObjectStore
from clinic_backups.stores.condition import look, look_closely, require_any


class Parents:
    """Checks a chain in one store. The caller holds the clinic's lock.

    :param now: the clock.
    """

    def __init__(self, store: ObjectStore, catalog: Catalog, now: Callable[[], datetime]) -> None:
        self._store, self._catalog, self._now = store, catalog, now
        self._replicas = Replicas(catalog.database)

    def require_store(self, backups: Sequence[BackupRecord]) -> None:
        """Check the store before a full backup goes there.

        :raises TransientError: it should hold backups but is empty: it is not mounted, or it is the wrong store.
        """
        here = next((backup for backup in backups if self._store.url in backup.stores), None)
        if here is not None and look(here.archive, self._store) == "missing":
            self._require_any()

    def problem(self, chain: Sequence[BackupRecord]) -> str:
        """Why no backup can be built on a chain; empty if all its archives are in the store as recorded.

        Size and MD5 are compared if the store computed the MD5, otherwise the store's mark of the object. An archive
        without either is read: in a folder each time, in a bucket once. A loss is recorded, and the operator is
        told. A missing envelope is written again, because without it a rebuild would refuse the backups that
        are built on it.

        :raises ClinicBackupsError: the store failed.
        """
        seen = self._replicas.etags([parent.backup_id for parent in chain], self._store.url)
        for parent in chain:
            what = f"the archive of {parent.backup_id} in its chain"
            before = seen.get(parent.backup_id)
            condition, etag = look_closely(parent.archive, self._store, before)
            if condition != "intact" and self._store.url not in parent.stores:
                return f"{what} is not in this store"
            if condition != "intact":
                self._require_any()
                self._replicas.lose(parent, self._store.url, condition, self._now(), LossAlarm(self._now))
                return f"{what} is missing in the store or differs from its record"
            if etag is not None and etag != before:
                self._replicas.note_etag(parent.backup_id, self._store.url, etag)
            if not envelopes.exists(parent.archive_key, self._store):
                envelopes.ensure(parent.envelope(), self._store, now=self._now())
        return ""

    def _require_any(self) -> None:
        require_any(self._store, self._catalog.archive_keys)
