"""A rig with several stores, a clock and a real catalog, for tests of maintenance."""

from __future__ import annotations

import copy
import io
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Self
from urllib.parse import unquote, urlsplit

import pyrage

from clinic_backups.base import connections
from clinic_backups.base.backup_record import BackupRecord
from clinic_backups.catalog.erasures import Erasures
from clinic_backups.catalog.replicas import Replicas
from clinic_backups.maintenance.holds import Holds
from clinic_backups.maintenance.rebuild import Rebuilt, rebuild
from clinic_backups.maintenance.replication import Replication, Replicator
from clinic_backups.maintenance.retention_result import Cleaned
from clinic_backups.maintenance.retention_run import Cleaner
from clinic_backups.maintenance.store_check import StoreCheck
from clinic_backups.maintenance.store_comparison import Inventory, Task
from clinic_backups.restore.archives import Archives
from clinic_backups.restore.clinic_restore import ClinicRestore
from clinic_backups.restore.find_backup import source_of
from clinic_backups.restore.plan import RestorePlan
from clinic_backups.restore.request import RestoreRequest
from clinic_backups.stores.base import ObjectStore
from clinic_backups.stores.configured import Stores
from tests.postgres_fixtures import DemoDatabase, copy_of
from tests.rig import Rig

START = datetime(2026, 9, 1, 6, tzinfo=UTC)


class Fleet(Rig):
    """Backups go to the first store; the others get replicas."""

    def __init__(self, database: DemoDatabase, *stores: ObjectStore) -> None:
        super().__init__(database, stores[0])
        self.stores = Stores.of(*stores)
        for store in stores:
            store.make_place()
        self.now = START

    @property
    def replicas(self) -> Replicas:
        return Replicas(self.catalog.database)

    def on_day(self, day: float, clinic_id: int = 1, **changes: Any) -> BackupRecord:
        """Back up on a day, and leave the clock there. ``changes`` are settings."""
        self.now = START + timedelta(days=day)
        settings = self.settings.model_copy(update=changes)
        return self.run(clinic_id, now=lambda: self.now, settings=settings)

    def later(self, **duration: float) -> None:
        self.now += timedelta(**duration)

    def replicate(self, clinic_id: int | None = None, *, stores: Stores | None = None, **options: Any) -> Replication:
        replicator = Replicator(catalog=self.catalog, stores=stores or self.stores, now=lambda: self.now)
        return replicator.run(clinic_id, **options)

    def check(self, url: str | None = None, *, clinic_id: int | None = None, **task: bool) -> Inventory:
        store = self.stores.at(url or self.stores.urls[0])
        return StoreCheck(catalog=self.catalog, now=lambda: self.now).run(store, Task(**task), clinic_id=clinic_id)

    def cleaner(self, stores: Stores | None = None) -> Cleaner:
        return Cleaner(
            settings=self.settings, catalog=self.catalog, stores=stores or self.stores, now=lambda: self.now
        )  # fmt: skip

    def clean(self, day: float, *, stores: Stores | None = None, **options: Any) -> list[Cleaned]:
        self.now = START + timedelta(days=day)
        return list(self.cleaner(stores).run(**options))

    def rebuild(self, store: ObjectStore | None = None) -> Rebuilt:
        return rebuild(store or self.stores.primary, self.catalog, self.now)

    def erase(self, clinic_id: int, day: float, *, stores: Stores | None = None) -> Cleaned:
        self.now = START + timedelta(days=day)
        Erasures(self.catalog.database).request(clinic_id, reason="baja 12", by="ops", at=self.now)
        (cleaned,) = self.clean(day, clinic_id=clinic_id, stores=stores)
        return cleaned

    def holds(self) -> Holds:
        return Holds(self.catalog, self.stores, lambda: self.now)

    def restore(self, stores: Stores | None = None, **options: Any) -> ClinicRestore:
        return ClinicRestore(
            settings=self.settings,
            restore_db=connections.parse("restore_db", self.database.restorer_uri),
            archives=self.archives(stores, **options),
        )

    def archives(self, stores: Stores | None = None, **options: Any) -> Archives:
        return Archives(stores or self.stores, [pyrage.x25519.Identity.from_str(self.identity)], **options)

    def restored(self, record: BackupRecord, stores: Stores | None = None) -> RestorePlan:
        """Plan and apply; returns what was applied."""
        source, wish = source_of(record), RestoreRequest(clinic_id=record.clinic_id)
        restore = self.restore(stores)
        return restore.apply(source, wish, approved=restore.plan(source, wish).digest)

    @contextmanager
    def kept(self) -> Iterator[Self]:
        """The same again while the block lasts, with a copy of the database: what is done to it is undone.

        For tests that begin with the same backups: it costs less than one backup. All stores have to be folders, and
        nobody may be connected to the database that is copied.
        """
        self.catalog.database._engine.dispose()
        roots = [Path(unquote(urlsplit(store.url).path)) for store in self.stores]
        for root in roots:
            shutil.copytree(root, root.with_name(f"{root.name}.kept"))
        try:
            with copy_of(self.database) as database:
                again = copy.copy(self)
                again.use(database)
                yield again
        finally:
            for root in roots:
                shutil.rmtree(root)
                root.with_name(f"{root.name}.kept").rename(root)

    def state(self, record: BackupRecord) -> str:
        found = self.catalog.get(record.backup_id)
        return found.state if found else "unknown"

    def again(self, record: BackupRecord) -> BackupRecord:
        found = self.catalog.get(record.backup_id)
        assert found is not None
        return found


def objects_of(store: ObjectStore) -> dict[str, bytes]:
    """All objects and their content."""
    found: dict[str, bytes] = {}
    for info in store.list():
        with store.open(info.key) as stream:
            found[info.key] = stream.read()
    return found


def reads_of(store: ObjectStore) -> list[str]:
    """From now on, the key of each object that is opened."""
    reads: list[str] = []
    opening = store.open

    def noted(key: str) -> Any:
        reads.append(key)
        return opening(key)

    store.open = noted  # type: ignore[method-assign]
    return reads


def put(store: ObjectStore, key: str, content: bytes = b"de otro") -> None:
    store.put(key, io.BytesIO(content))


def flip(store: ObjectStore, key: str) -> None:
    """Change one byte in the middle of an object."""
    with store.open(key) as stream:
        content = bytearray(stream.read())
    content[len(content) // 2] ^= 1
    store.delete(key)
    put(store, key, bytes(content))


def age(folder: Path, days: float) -> None:
    """Make every file of a folder store older."""
    moment = time.time() - days * 86400
    for path in folder.rglob("*"):
        if path.is_file():
            os.utime(path, (moment, moment))


def lose_locks(fleet: Fleet) -> None:
    """End the connections that keep clinics' locks in the catalog, as a restart of its server does."""
    fleet.execute("""
        SELECT pg_terminate_backend(pid, 5000) FROM pg_locks
         WHERE locktype = 'advisory' AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
    """)
