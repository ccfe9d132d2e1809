"""What a small incremental backup asks of the catalog and of the store: each question costs a round trip."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from psycopg2.extensions import TRANSACTION_STATUS_IDLE

from clinic_backups.base import kept_connections
from clinic_backups.base.backup_record import BackupRecord
from clinic_backups.base.kept_connections import KeptConnections
from clinic_backups.base.silence import WatchedConnection, WatchedCursor
from clinic_backups.catalog import catalog_database
from clinic_backups.catalog.identities import Identities
from clinic_backups.catalog.records import Catalog
from clinic_backups.stores.base import ObjectInfo, ObjectStore, StoredObject
from clinic_backups.stores.file import FileStore
from clinic_backups.stores.identified import IdentifiedStore
from tests.postgres_fixtures import DemoDatabase
from tests.rig import Rig

REQUESTS = ("put", "open", "stat", "delete", "list")


@contextmanager
def round_trips(monkeypatch: pytest.MonkeyPatch) -> Iterator[Counter[str]]:
    """The round trips of every connection, by its role: each text that is sent, with one or several statements.

    The driver sends its own BEGIN, COMMIT and ROLLBACK alone, so each of them counts too.
    """
    found: Counter[str] = Counter()
    execute, commit, rollback = WatchedCursor.execute, WatchedConnection.commit, WatchedConnection.rollback

    def executed(cursor: WatchedCursor, *arguments: Any, **options: Any) -> None:
        info = cursor.connection.info
        begins = not cursor.connection.autocommit and info.transaction_status == TRANSACTION_STATUS_IDLE
        found[info.user] += 1 + begins
        execute(cursor, *arguments, **options)

    def ended(how: Any) -> Any:
        def end(connection: WatchedConnection) -> None:
            idle = connection.autocommit or connection.info.transaction_status == TRANSACTION_STATUS_IDLE
            found[connection.info.user] += not idle
            how(connection)

        return end

    with monkeypatch.context() as patched:
        patched.setattr(WatchedCursor, "execute", executed)
        patched.setattr(WatchedConnection, "commit", ended(commit))
        patched.setattr(WatchedConnection, "rollback", ended(rollback))
        # On a slow machine a second passes between two uses of a connection, and then the server is asked once more.
        for module in (catalog_database, kept_connections):
            patched.setattr(module, "TRUSTED_SECONDS", 60.0)
        yield found


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
    demo_database: DemoDatabase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, earlier: int
) -> None:
    rig, kept = Rig(demo_database, FileStore(tmp_path / "store"), kind="auto"), KeptConnections()
    rig.settings = rig.settings.model_copy(update={"incremental_percent": 10_000})
    rig.initialise()
    rig.catalog = Catalog(rig.catalog._connection, kept=kept)
    requests: Counter[str] = Counter()
    bare: Any = Counted(rig.store, requests)
    rig.store = IdentifiedStore(bare, Identities(rig.catalog.database).expected(rig.store.url))
    record: BackupRecord | None = None
    with kept.keeping():
        for number, clinic_id in enumerate((2, *[1] * earlier, 2)):  # as in a share, whose connections are open
            next_second(rig)
            rig.run(clinic_id, kept=kept, run_id=f"scheduled__{number}")
        requests.clear()
        next_second(rig)
        with round_trips(monkeypatch) as found:
            record = rig.run(1, kept=kept, run_id="scheduled__last")
    assert (record.kind, len(record.chain)) == ("incremental", earlier)
    # However many backups it is built on.
    assert found[demo_database.roles.catalog] <= 11, found
    # Without the COPY of each table.
    assert found[demo_database.roles.reader] <= 22, found
    # The marker is read after each answer that another store could give too.
    assert requests == {"list": 1, "open": 3, "put": 2}
