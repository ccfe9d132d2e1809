"""What a small incremental backup asks of the catalog and of the store: each question costs a round trip."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from psycopg2.extensions import TRANSACTION_STATUS_IDLE

from clinic_backups.base.kept_connections import KeptConnections
from clinic_backups.base.silence import WatchedConnection, WatchedCursor
from clinic_backups.catalog.identities import Identities
from clinic_backups.catalog.records import Catalog
from clinic_backups.stores.base import ObjectStore
from clinic_backups.stores.file import FileStore
from clinic_backups.stores.identified import IdentifiedStore
from tests.postgres_fixtures import DemoDatabase
from tests.rig import Rig

REQUESTS = ("put", "open", "stat", "delete", "list")


@contextmanager
def round_trips(monkeypatch: pytest.MonkeyPatch) -> Iterator[Counter[str]]:
    """The round trips of every connection, by its role. The driver sends BEGIN, COMMIT and ROLLBACK alone."""
    found: Counter[str] = Counter()
    execute, commit, rollback = WatchedCursor.execute, WatchedConnection.commit, WatchedConnection.rollback

    def executed(cursor: WatchedCursor, *arguments: Any, **options: Any) -> None:
        info = cursor.connection.info
        begins = not cursor.connection.autocommit and info.transaction_status == TRANSACTION_STATUS_IDLE
        found[info.user] += 1 + begins
        execute(cursor, *arguments, **options)

    def ended(how: Any) -> Any:
        def end(connection: WatchedConnection) -> None:
            found[connection.info.user] += connection.info.transaction_status != TRANSACTION_STATUS_IDLE
            how(connection)

        return end

    with monkeypatch.context() as patched:
        patched.setattr(WatchedCursor, "execute", executed)
        patched.setattr(WatchedConnection, "commit", ended(commit))
        patched.setattr(WatchedConnection, "rollback", ended(rollback))
        yield found


class Counted:
    """A store that counts requests. As a bucket it is trusted for a while once its marker was read."""

    trusted_seconds = 60

    def __init__(self, store: ObjectStore, requests: Counter[str]) -> None:
        self._store, self._requests = store, requests

    def __getattr__(self, name: str) -> Any:
        if name in REQUESTS:
            self._requests[name] += 1
        return getattr(self._store, name)


def test_a_small_incremental_backup_asks_no_more_than_it_did(
    demo_database: DemoDatabase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rig, kept = Rig(demo_database, FileStore(tmp_path / "store"), kind="auto"), KeptConnections()
    rig.initialise()
    rig.catalog = Catalog(rig.catalog._connection, kept=kept)
    requests: Counter[str] = Counter()
    bare: Any = Counted(rig.store, requests)
    rig.store = IdentifiedStore(bare, Identities(rig.catalog.database).expected(rig.store.url))
    with kept.keeping():
        for clinic_id in (2, 1, 2):  # as in a share, whose connections are open
            rig.run(clinic_id, kept=kept)
        requests.clear()
        with round_trips(monkeypatch) as found:
            record = rig.run(1, kept=kept)
    assert record.kind == "incremental"
    # A slow machine asks whether a connection is still open, which is one round trip, and a backup in the same second
    # as the one before tries a second name, which is another one.
    assert found[demo_database.roles.catalog] <= 24, found
    # Without the COPY of each table.
    assert found[demo_database.roles.reader] <= 22, found
    # A folder has no digest of its own, so the parent's archive is read: two requests more than in a bucket.
    assert requests.total() <= 10, requests
