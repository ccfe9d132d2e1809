"""What a small incremental backup asks of the catalog and of the store: each question costs a round trip."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from clinic_backups.base import connections, kept_connections
from clinic_backups.base.clinic import Clinic
from clinic_backups.base.kept_connections import KeptConnections
from clinic_backups.catalog import catalog_database
from clinic_backups.catalog.clinics import Clinics
from clinic_backups.catalog.identities import Identities
from clinic_backups.catalog.records import Catalog
from clinic_backups.stores.base import ObjectInfo, ObjectStore, StoredObject
from clinic_backups.stores.file import FileStore
from clinic_backups.stores.identified import IdentifiedStore
from include.demo.postgres import HOST
from tests.counting_proxy import CountingProxy
from tests.postgres_fixtures import DemoDatabase
from tests.rig import Rig

REQUESTS = ("put", "open", "stat", "delete", "list")


@pytest.fixture
def proxy(demo_database: DemoDatabase) -> Iterator[CountingProxy]:
    with CountingProxy(HOST, demo_database.postgres.port) as proxy:
        yield proxy


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a slow machine a second passes between two uses of a connection, and then the server is asked once more."""
    for module in (catalog_database, kept_connections):
        monkeypatch.setattr(module, "TRUSTED_SECONDS", 60.0)


class Counted:
    """A folder that counts requests. Like a bucket, it marks its objects and is trusted for a while."""

    trusted_seconds = 60

    def __init__(self, store: ObjectStore, requests: Counter[str]) -> None:
        self._store, self._requests = store, requests

    def __getattr__(self, name: str) -> Any:
        if name in REQUESTS:
            self._requests[name] += 1
        return getattr(self._store, name)

    def put(self, key: str, *content: Any, **options: Any) -> StoredObject:
        self._requests["put"] += 1
        return replace(self._store.put(key, *content, **options), etag=key)

    def stat(self, key: str) -> ObjectInfo:
        self._requests["stat"] += 1
        return replace(self._store.stat(key), etag=key)

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        self._requests["list"] += 1
        return (replace(info, etag=info.key) for info in self._store.list(prefix))


def next_second(rig: Rig) -> None:
    """A backup in the same second as the one before is begun twice."""
    now = rig.catalog.clock()
    time.sleep(1 - now.microsecond / 1e6)


@pytest.mark.parametrize("earlier", [1, 4])
def test_a_small_incremental_backup_asks_no_more_than_it_did(
    demo_database: DemoDatabase, tmp_path: Path, proxy: CountingProxy, earlier: int
) -> None:
    rig, kept = Rig(demo_database, FileStore(tmp_path / "store"), kind="auto"), KeptConnections()
    rig.settings = rig.settings.model_copy(update={"incremental_percent": 10_000})
    rig.initialise()
    catalog, reader = (
        connections.parse(name, uri.replace(f"{HOST}:{demo_database.postgres.port}", f"{HOST}:{proxy.port}"))
        for name, uri in (("backup_catalog", demo_database.catalog_uri), ("clinic_db", demo_database.reader_uri))
    )
    rig.clinic_db, rig.catalog = reader, Catalog(catalog, kept=kept)
    requests: Counter[str] = Counter()
    bare: Any = Counted(rig.store, requests)
    rig.store = IdentifiedStore(bare, Identities(rig.catalog.database).expected(rig.store.url))
    with kept.keeping():
        for number, clinic_id in enumerate((2, *[1] * earlier, 2)):  # as in a share, whose connections are open
            next_second(rig)
            rig.run(clinic_id, kept=kept, run_id=f"scheduled__{number}")
        next_second(rig)
        requests.clear()
        proxy.sent.clear()
        record = rig.run(1, kept=kept, run_id="scheduled__last")
        found = proxy.round_trips(but="COPY (")
    assert (record.kind, len(record.chain)) == ("incremental", earlier)
    # However many backups it is built on.
    assert found[demo_database.roles.catalog] <= 11, proxy.sent
    # Without the COPY of each table.
    assert found[demo_database.roles.reader] <= 18, proxy.sent
    # The marker is read after each answer that another store could give too. No other store lists the same etags.
    assert requests == {"list": 1, "open": 2, "put": 2}


def test_the_list_of_clinics_is_one_statement_and_writes_only_what_changed(
    demo_database: DemoDatabase, tmp_path: Path, proxy: CountingProxy
) -> None:
    Rig(demo_database, FileStore(tmp_path / "store"))
    uri = demo_database.catalog_uri.replace(f"{HOST}:{demo_database.postgres.port}", f"{HOST}:{proxy.port}")
    database = Catalog(connections.parse("backup_catalog", uri)).database
    known = [Clinic(number, f"Clínica {number}") for number in range(1, 61)]
    clinics = Clinics(database)

    def versions() -> dict[str, str]:
        with database.transaction("reading the clinics") as db:
            rows = db.exec_driver_sql("SELECT clinic_id, xmin::text || name FROM clinic_backups.clinic")
            return dict(rows.tuples().all())

    clinics.see(active=known, every=known)
    before = versions()
    proxy.sent.clear()
    clinics.see(active=known, every=[replace(known[0], name="Otra"), *known[1:]])
    assert proxy.round_trips()[demo_database.roles.catalog] <= 4, proxy.sent
    assert versions() == before, "the active clinics' names count"
    clinics.see(active=[replace(known[0], name="Otra"), *known[1:]], every=known)
    assert {key for key, version in versions().items() if version != before[key]} == {"1"}
