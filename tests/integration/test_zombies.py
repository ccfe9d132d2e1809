"""An attempt that continues after its retry began makes no second backup and changes no other record."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from clinic_backups.base.backup_record import BackupRecord
from clinic_backups.base.errors import ClinicBackupsError
from clinic_backups.stores.base import ByteSource, StoredObject
from clinic_backups.stores.file import FileStore
from tests.fleet import Fleet, lose_locks, objects_of
from tests.postgres_fixtures import DemoDatabase
from tests.rig import once

MOMENTS = ["in its reading", "after its archive", "after its note", "after its envelope"]
LIMIT = 60


class Stopped(FileStore):
    """The store of an attempt that stands still at a moment, until somebody lets it go on."""

    def __init__(self, root: Path, moment: str) -> None:
        super().__init__(root)
        self.moment = moment
        self.reached, self.go_on = threading.Event(), threading.Event()

    def put(self, key: str, source: ByteSource, **options: Any) -> StoredObject:
        is_envelope = key.endswith(".json")
        if is_envelope and self.moment == "after its note":
            self.stand()
        stored = super().put(key, source, **options)
        if self.moment == ("after its envelope" if is_envelope else "after its archive"):
            self.stand()
        return stored

    def stand(self) -> None:
        self.reached.set()
        assert self.go_on.wait(LIMIT)


class Zombie:
    """An attempt in a thread, which lost its lock while it stood still."""

    def __init__(self, fleet: Fleet, moment: str) -> None:
        self.store = Stopped(Path(fleet.store.url.removeprefix("file://")), moment)
        self.done: BackupRecord | None = None
        self.error: ClinicBackupsError | None = None
        stand = once(lambda progress: moment == "in its reading", self.store.stand)
        backup = fleet.backup(store=self.store, on_progress=stand, now=lambda: fleet.now)
        self._thread = threading.Thread(target=self._run, args=(lambda: backup.run(fleet.request(1, run_id="r")),))
        self._thread.start()
        assert self.store.reached.wait(LIMIT)
        lose_locks(fleet)
        fleet.later(minutes=10)

    def _run(self, run: Callable[[], BackupRecord]) -> None:
        try:
            self.done = run()
        except ClinicBackupsError as error:
            self.error = error

    def goes_on(self) -> None:
        self.store.go_on.set()
        self._thread.join(LIMIT)
        assert not self._thread.is_alive()


@pytest.fixture
def fleet(demo_database: DemoDatabase, tmp_path: Path) -> Fleet:
    return Fleet(demo_database, FileStore(tmp_path / "store"))


@pytest.mark.parametrize("when", ["while its retry reads", "after its retry"])
@pytest.mark.parametrize("moment", MOMENTS)
def test_a_zombie_leaves_its_retry_alone(fleet: Fleet, moment: str, when: str) -> None:
    zombie = Zombie(fleet, moment)
    let_go = once(lambda progress: when == "while its retry reads", zombie.goes_on)
    done = fleet.run(1, run_id="r", on_progress=let_go, now=lambda: fleet.now)
    zombie.goes_on()
    (record,) = fleet.catalog.find()
    assert (record.state, record.attempt, record.archive_key) == ("completed", 2, done.archive_key)
    assert fleet.open(record).tables == fleet.rows_now(1)
    assert set(objects_of(fleet.store)) == {record.archive_key, record.archive_key.replace(".tar.zst.age", ".json")}
    assert [found.kind for found in fleet.check(read=True).discrepancies] == []
    # It may have finished what its retry then only had to find: then both tell of the one backup.
    assert zombie.done is None or zombie.done.archive_key == record.archive_key
    assert zombie.done is not None or zombie.error is not None
    fleet.later(days=1)
    assert fleet.run(1, run_id="next", now=lambda: fleet.now).state == "completed"


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_zombie_whose_record_another_run_has_closed_makes_no_backup_beside(fleet: Fleet, moment: str) -> None:
    zombie = Zombie(fleet, moment)
    fleet.later(minutes=10)
    other = fleet.run(1, run_id="other", now=lambda: fleet.now)
    before = {record.backup_id: record for record in fleet.catalog.find()}
    objects = objects_of(fleet.store)
    zombie.goes_on()
    assert {record.backup_id: record for record in fleet.catalog.find()} == before
    assert objects_of(fleet.store) == objects
    states = sorted(record.state for record in before.values())
    assert states == (["completed"] * 2 if moment == "after its envelope" else ["completed", "failed"])
    assert fleet.state(other) == "completed"
