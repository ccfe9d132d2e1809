"""What a small incremental backup asks of the catalog and of the store: each question costs a round trip."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import event
from sqlalchemy.engine import Engine

from clinic_backups.stores.base import ObjectStore
from clinic_backups.stores.file import FileStore
from tests.postgres_fixtures import DemoDatabase
from tests.rig import Rig

REQUESTS = ("put", "open", "stat", "delete", "list")


@contextmanager
def questions() -> Iterator[Counter[str]]:
    """Counts the catalog's statements by their first word, and its transactions."""
    found: Counter[str] = Counter()

    def asked(connection: Any, cursor: Any, statement: str, *rest: Any) -> None:
        found[statement.split()[0]] += 1

    def ended(connection: Any) -> None:
        found["transactions"] += 1

    listeners = (("before_cursor_execute", asked), ("commit", ended), ("rollback", ended))
    for name, listener in listeners:
        event.listen(Engine, name, listener)
    try:
        yield found
    finally:
        for name, listener in listeners:
            event.remove(Engine, name, listener)


class Counted:
    """A store that counts requests."""

    def __init__(self, store: ObjectStore, requests: Counter[str]) -> None:
        self._store, self._requests = store, requests

    def __getattr__(self, name: str) -> Any:
        if name in REQUESTS:
            self._requests[name] += 1
        return getattr(self._store, name)


def test_a_small_incremental_backup_asks_no_more_than_it_did(demo_database: DemoDatabase, tmp_path: Path) -> None:
    rig = Rig(demo_database, FileStore(tmp_path / "store"), kind="auto")
    rig.run(2)
    requests: Counter[str] = Counter()
    whole: Any = Counted(rig.store, requests)
    rig.store = whole
    with questions() as found:
        record = rig.run(2)
    assert record.kind == "incremental"
    # A backup in the same second as the one before tries a second name: that is one statement and one transaction.
    assert found["transactions"] <= 11
    assert found.total() - found["transactions"] <= 17
    assert found["INSERT"] <= 5
    assert requests.total() <= 7, requests
