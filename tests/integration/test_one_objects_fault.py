"""An error at one object or one clinic is not the store's fault. Only what the store itself says is."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any, BinaryIO

import pytest

from clinic_backups.base.backup_record import BackupRecord
from clinic_backups.base.errors import PermanentError, StoreAway, TransientError
from clinic_backups.base.plain import iso
from clinic_backups.catalog.erasures import Erasures
from clinic_backups.stores.base import ByteSource, ObjectInfo, ObjectStore, StoredObject
from clinic_backups.stores.configured import Stores
from clinic_backups.stores.file import FileStore
from clinic_backups.stores.identified import IdentifiedStore
from clinic_backups.stores.marker import MARKER_KEY
from tests.fleet import START, Fleet, objects_of
from tests.postgres_fixtures import DemoDatabase


class Odd(FileStore):
    """Fails at some objects; at all of them where ``everything`` is set."""

    def __init__(self, root: Path, *keys: str, error: type[Exception] = TransientError) -> None:
        super().__init__(root)
        self.keys, self.error, self.everything = list(keys), error, False
        self.asked: list[str] = []

    def _fail(self, key: str) -> None:
        self.asked.append(key)
        if self.everything or any(key.startswith(each) for each in self.keys):
            raise self.error(f"{key} failed")

    def stat(self, key: str) -> ObjectInfo:
        self._fail(key)
        return super().stat(key)

    @contextmanager
    def open(self, key: str) -> Iterator[BinaryIO]:
        self._fail(key)
        with super().open(key) as stream:
            yield stream

    def put(self, key: str, source: ByteSource, **options: Any) -> StoredObject:
        self._fail(key)
        return super().put(key, source, **options)

    def delete(self, key: str) -> None:
        self._fail(key)
        super().delete(key)


@pytest.fixture
def fleet(demo_database: DemoDatabase, tmp_path: Path) -> Fleet:
    return Fleet(demo_database, FileStore(tmp_path / "one"), FileStore(tmp_path / "two"))


def identified(fleet: Fleet, store: ObjectStore) -> IdentifiedStore:
    store_id = fleet.initialise(store)
    return IdentifiedStore(store, lambda: store_id)


@pytest.mark.parametrize("error", [PermanentError, TransientError])
def test_what_fails_at_one_clinics_objects_keeps_no_other_clinic_from_its_replicas(
    fleet: Fleet, tmp_path: Path, error: type[Exception]
) -> None:
    bad = [fleet.on_day(day, 1) for day in (0, 1, 2)]
    good = [fleet.on_day(day, clinic_id) for day, clinic_id in ((0.1, 2), (0.2, 3))]
    odd = Odd(tmp_path / "two", "backups/1/", error=error)
    two = identified(fleet, odd)
    done = fleet.replicate(stores=Stores.of(fleet.store, two))
    assert {replica.backup_id for replica in done.replicas if replica.error is None} == {
        record.backup_id for record in good
    }
    assert {replica.backup_id for replica, _ in done.problems} == {record.backup_id for record in bad}
    assert fleet.replicas.resting(fleet.now) == set()


def test_a_store_that_shows_its_marker_and_fails_for_every_clinic_is_left_alone(fleet: Fleet, tmp_path: Path) -> None:
    for clinic_id in (1, 2, 3):
        fleet.on_day(clinic_id / 10, clinic_id)
    odd = Odd(tmp_path / "two", "backups/")
    two = identified(fleet, odd)
    odd.asked.clear()
    done = fleet.replicate(stores=Stores.of(fleet.store, two))
    assert len(done.problems) == 3
    assert {key.split("/")[1] for key in odd.asked if key != MARKER_KEY} == {"1", "2"}
    assert fleet.replicas.resting(fleet.now) == {two.url}


@pytest.mark.parametrize("error", [PermanentError, TransientError])
@pytest.mark.parametrize("is_identified", [True, False])
def test_one_objects_error_stops_no_other_deletion_of_a_retention(
    fleet: Fleet, tmp_path: Path, is_identified: bool, error: type[Exception]
) -> None:
    old = {number: [fleet.on_day(day + number / 10, number) for day in (0, 1)] for number in (1, 2, 3)}
    for number in old:
        fleet.on_day(50 + number / 10, number)
    odd = Odd(tmp_path / "one", old[1][0].archive_key, error=error)
    stores = Stores.of(identified(fleet, odd) if is_identified else odd)
    cleaned = {each.clinic_id: each for each in fleet.clean(60, stores=stores)}
    assert [cleaned[number].deleted for number in (1, 2, 3)] == [1, 2, 2]
    assert [bool(cleaned[number].problem) for number in (1, 2, 3)] == [True, False, False]
    assert fleet.state(old[1][0]) == "completed"
    odd.keys.clear()
    fleet.clean(61, stores=stores)
    assert fleet.state(old[1][0]) == "deleted"


def test_a_store_that_is_down_is_asked_once_in_a_retention(fleet: Fleet, tmp_path: Path) -> None:
    for number in (1, 2, 3):
        for day in (0, 50):
            fleet.on_day(day + number / 10, number)
    odd = Odd(tmp_path / "one")
    one = identified(fleet, odd)
    odd.everything = True
    odd.asked.clear()
    cleaned = fleet.clean(60, stores=Stores.of(one))
    assert {each.deleted for each in cleaned} == {0}
    assert all(each.problem for each in cleaned)
    assert set(odd.asked) == {MARKER_KEY}
    assert len(odd.asked) <= 2


def test_another_store_in_its_place_is_down_at_once(tmp_path: Path) -> None:
    from clinic_backups.stores.configured import AnsweringStores, Outages

    store = FileStore(tmp_path / "one")
    store.make_place()
    outages = Outages()
    assert outages.note(store.url, store, 1, StoreAway("another"))
    with pytest.raises(StoreAway):
        outages.require(store.url)
    answering = AnsweringStores(Stores.of(FileStore(tmp_path / "gone")))
    for _ in range(2):
        with pytest.raises(PermanentError), answering.at(answering.urls[0], 1) as gone:
            list(gone.list())


def test_three_objects_that_cannot_be_read_stop_no_check_of_other_clinics(fleet: Fleet, tmp_path: Path) -> None:
    bad = [fleet.on_day(day, 1) for day in range(4)]
    good = fleet.on_day(4, 2)
    odd = Odd(tmp_path / "one", "backups/1/")
    from clinic_backups.maintenance.store_check import StoreCheck
    from clinic_backups.maintenance.store_comparison import Task

    found = StoreCheck(catalog=fleet.catalog, now=lambda: fleet.now).run(identified(fleet, odd), Task(read=True))
    assert {key for key, _ in found.problems} == {record.archive_key for record in bad}
    assert found.unchecked == []
    assert found.read == {good.backup_id: "intact"}
    odd.keys = ["backups/"]
    three = fleet.on_day(5, 3)
    assert three.state == "completed"


def test_one_envelope_that_cannot_be_read_stops_no_rebuild(fleet: Fleet, tmp_path: Path) -> None:
    bad, good = fleet.on_day(0, 1), fleet.on_day(1, 2)
    fleet.execute("DELETE FROM clinic_backups.backup_blocks", "DELETE FROM clinic_backups.backup_replica",
                  "DELETE FROM clinic_backups.backup")  # fmt: skip
    odd = Odd(tmp_path / "one", "backups/1/")
    rebuilt = fleet.rebuild(odd)
    assert (rebuilt.adopted, [key for key, _ in rebuilt.conflicts]) == (1, [bad.archive_key])
    assert fleet.state(good) == "completed"
    odd.everything = True
    with pytest.raises(TransientError):
        fleet.rebuild(odd)


class Locked(FileStore):
    """Its answer is what a bucket says that locks objects, or one that does not say it."""

    until: Any = None
    silent = False

    def stat(self, key: str) -> ObjectInfo:
        from dataclasses import replace

        if self.silent:
            raise TransientError("no answer")
        return replace(super().stat(key), locked_until=self.until)


def claim(fleet: Fleet, record: BackupRecord, until: Any) -> None:
    """As a rebuild takes it over from an envelope that somebody wrote."""
    fleet.execute(f"UPDATE clinic_backups.backup SET locked_until = '{iso(until)}' WHERE backup_id ="
                  f" '{record.backup_id}'")  # fmt: skip


def test_a_lock_that_no_store_knows_of_keeps_nothing_of_an_erasure(fleet: Fleet) -> None:
    for number, record in enumerate([fleet.on_day(0), fleet.on_day(1)]):
        claim(fleet, record, START + timedelta(days=40_000 - number))
    cleaned = fleet.erase(1, 2)
    assert (cleaned.problem, cleaned.deleted) == ("", 2)
    assert cleaned.erasure is not None
    assert cleaned.erasure.finished_at is not None
    assert objects_of(fleet.store) == {}


def test_a_lock_that_a_store_tells_of_keeps_it_whatever_the_record_says(fleet: Fleet, tmp_path: Path) -> None:
    record = fleet.on_day(0)
    claim(fleet, record, START + timedelta(days=1000))
    locked = Locked(tmp_path / "one")
    locked.until = START + timedelta(days=30)
    cleaned = fleet.erase(1, 2, stores=Stores.of(locked))
    assert (cleaned.deleted, fleet.state(record)) == (0, "completed")
    assert [decision.reason for decision in cleaned.decisions] == ["locked until 2026-10-01 06:00 UTC"]
    # Where it does not answer, what may be locked stays; the erasure goes on once it does.
    locked.until, locked.silent = None, True
    (cleaned,) = fleet.clean(3, stores=Stores.of(locked), clinic_id=1)
    assert (cleaned.deleted, fleet.state(record)) == (0, "completed")
    locked.silent = False
    (cleaned,) = fleet.clean(4, stores=Stores.of(locked), clinic_id=1)
    assert (cleaned.problem, cleaned.deleted) == ("", 1)
    assert Erasures(fleet.catalog.database).open_of(1) is None
