"""Checks the chain of an incremental backup in the store that it goes to."""

from __future__ import annotations

import os.path
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime

from clinic_backups.archive.object_keys import envelope_key_of
from clinic_backups.base.backup_record import BackupRecord
from clinic_backups.base.errors import PermanentError
from clinic_backups.base.replica import Condition
from clinic_backups.catalog.records import Catalog
from clinic_backups.catalog.replicas import Replicas
from clinic_backups.notify.losses import LossAlarm
from clinic_backups.stores import envelopes
from clinic_backups.stores.base import ObjectInfo, ObjectStore
from clinic_backups.stores.condition import compare, look, look_closely, read_marked, require_any


class Parents:
    """Checks a chain in one store. The caller holds the clinic's lock.

    :param now: the clock.
    """

    def __init__(self, store: ObjectStore, catalog: Catalog, now: Callable[[], datetime]) -> None:
        self._store, self._catalog, self._now = store, catalog, now
        self._replicas = Replicas(catalog.database)

    def require_store(self, backups: Sequence[BackupRecord]) -> None:
        """Check the store before a full backup goes there. Its marker is read, unless that was a short while ago.

        :raises TransientError: it should hold backups but is empty: it is not mounted, or it is the wrong store.
        """
        here = next((backup for backup in backups if self._store.url in backup.stores), None)
        if here is None:
            self._store.identified()
        elif look(here.archive, self._store) == "missing":
            self._require_any()

    def problem(self, chain: Sequence[BackupRecord], seen: Mapping[str, str]) -> str:
        """Why no backup can be built on a chain; empty if all its archives are in the store as recorded.

        Size and MD5 are compared if the store computed the MD5, otherwise the store's mark of the object. An archive
        without either is read: in a folder each time, in a bucket once. A loss is recorded, and the operator is
        told. A missing envelope is written again, because without it a rebuild would refuse the backups that
        are built on it.

        :param seen: the etags of archives that were read and right in this store, by backup id.
        :raises ClinicBackupsError: the store failed.
        """
        listed = self._listed(chain)
        for parent in chain:
            what = f"the archive of {parent.backup_id} in its chain"
            before = seen.get(parent.backup_id)
            condition, etag = self._condition(parent, listed.get(parent.archive_key), before)
            if condition != "intact" and self._store.url not in parent.stores:
                return f"{what} is not in this store"
            if condition != "intact":
                self._require_any()
                self._replicas.lose(parent, self._store.url, condition, self._now(), LossAlarm(self._now))
                return f"{what} is missing in the store or differs from its record"
            if etag is not None and etag != before:
                self._replicas.note_etag(parent.backup_id, self._store.url, etag)
            is_there = envelope_key_of(parent.archive_key) in listed
            if not is_there and not envelopes.exists(parent.archive_key, self._store):
                envelopes.ensure(parent.envelope(), self._store, now=self._now())
        return ""

    def _listed(self, chain: Sequence[BackupRecord]) -> dict[str, ObjectInfo]:
        """The objects of a chain by key, from one listing for each folder that the chain lies in.

        A listing shows what two requests for each backup would show: its archive and its envelope. Its etags show that
        it is this store. An archive that it does not show is asked for, and then the marker is read. If this account
        may not list objects, only the marker is read, and nothing is returned.
        """
        keys: defaultdict[str, list[str]] = defaultdict(list)
        for parent in chain:
            keys[parent.archive_key.rpartition("/")[0]] += [parent.archive_key, envelope_key_of(parent.archive_key)]
        try:
            starts = map(os.path.commonprefix, keys.values())
            return {info.key: info for start in starts for info in self._store.recognised(start)}
        except PermanentError:
            self._store.identified()
            return {}

    def _condition(
        self, parent: BackupRecord, listed: ObjectInfo | None, seen: str | None
    ) -> tuple[Condition, str | None]:
        """As :func:`look_closely`. Only what a listing proves to be intact is not asked for once more."""
        told = compare(parent.archive, listed, seen) if listed is not None else "missing"
        if told == "intact":
            return told, seen
        if told == "not compared":
            return read_marked(parent.archive, self._store)
        return look_closely(parent.archive, self._store, seen)

    def _require_any(self) -> None:
        require_any(self._store, self._catalog.archive_keys)
