"""Copies: the same bytes in every store, whatever was down, killed or damaged on the way."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from clinic_backups import envelopes
from clinic_backups.errors import ClinicBackupsError, IntegrityError, SettingsError, TransientError
from clinic_backups.model import envelope_key_of
from clinic_backups.restore.model import RestoreRequest
from clinic_backups.restore.runner import source_of, wish_of
from clinic_backups.storage import Stores, canonical
from clinic_backups.stores.base import ByteSource, ObjectStore, StoredObject
from clinic_backups.stores.file import FileStore
from tests.conftest import MakeStore
from tests.fleet import Fleet, flip, objects_of, put
from tests.postgres_fixtures import DemoDatabase


class Down(FileStore):
    """Answers nothing."""

    calls = 0

    def __getattribute__(self, name: str) -> Any:
        if name in ("put", "open", "stat", "list", "delete"):
            type(self).calls += 1
            raise TransientError("out of reach", hint="Try again.")
        return super().__getattribute__(name)


@pytest.fixture
def folders(tmp_path: Path) -> tuple[FileStore, FileStore, FileStore]:
    return FileStore(tmp_path / "one"), FileStore(tmp_path / "two"), FileStore(tmp_path / "three")


@pytest.fixture
def fleet(demo_database: DemoDatabase, folders: tuple[FileStore, ...]) -> Fleet:
    return Fleet(demo_database, *folders)


def test_every_store_gets_the_same_bytes_and_the_catalog_knows(
    demo_database: DemoDatabase, make_store: MakeStore, tmp_path: Path
) -> None:
    fleet = Fleet(demo_database, FileStore(tmp_path / "first"), make_store(f"copies-{uuid4().hex}"))
    first, second = fleet.on_day(0), fleet.on_day(1)
    assert [backlog.missing for backlog in fleet.places.backlog(fleet.stores.urls)] == [2]
    done = fleet.copy(1)
    assert [(copy.backup_id, copy.error) for copy in done.copies] == [(second.backup_id, None), (first.backup_id, None)]
    ours, theirs = fleet.stores
    assert objects_of(ours) == objects_of(theirs)
    assert theirs.stat(first.archive_key).metadata["backup_id"] == first.backup_id
    assert fleet.again(first).stores == fleet.stores.urls
    assert fleet.places.backlog(fleet.stores.urls) == []
    assert fleet.copy().copies == []
    fleet.restored(first, Stores.of(theirs))


def test_a_replica_that_is_down_is_left_alone_for_a_while_and_caught_up_later(
    fleet: Fleet, folders: tuple[FileStore, ...], tmp_path: Path
) -> None:
    one, two, _ = folders
    broken = Stores.of(one, Down(tmp_path / "two"))
    records = [fleet.on_day(0), fleet.on_day(0.1, 2)]
    before = Down.calls
    done = fleet.copy(stores=broken)
    assert [(copy.backup_id, error.message) for copy, error in done.problems] == [
        (record.backup_id, "out of reach") for record in records
    ]
    # One question only: the second clinic's copy knows already.
    assert Down.calls == before + 1
    (backlog,) = fleet.places.backlog(broken.urls)
    assert (backlog.store_url, backlog.missing, backlog.error) == (two.url, 2, "out of reach")
    assert backlog.oldest_at == records[0].started_at
    fleet.later(minutes=14)
    assert fleet.copy(stores=broken).copies == []
    assert Down.calls == before + 1
    assert len(fleet.copy(stores=Stores.of(one, two), patient=True).copies) == 2
    assert objects_of(one) == objects_of(two)
    assert fleet.places.resting(fleet.now) == set()


def test_a_store_that_cannot_even_be_opened_keeps_nobody_from_the_others(fleet: Fleet) -> None:
    one, two, three = fleet.stores
    record = fleet.on_day(0)

    def open_store(url: str, conn_id: str) -> ObjectStore:
        if conn_id == "wrong":
            raise SettingsError("Connection 'wrong' is unusable.")
        return {one.url: one, three.url: three}[url]

    stores = Stores(one.url, {"wrong": two.url, "good": three.url}, open_store)
    done = fleet.copy(stores=stores)
    assert [(copy.store_url, copy.error is None) for copy in done.copies] == [(three.url, True), (two.url, False)]
    assert fleet.again(record).stores == (one.url, three.url)


@pytest.mark.parametrize("crash", ["before the archive", "in the archive", "after the archive", "after the envelope"])
def test_a_copy_that_was_killed_is_finished_by_the_next_run(fleet: Fleet, crash: str) -> None:
    one, two, _ = fleet.stores
    record = fleet.on_day(0)

    class Killed(FileStore):
        puts = 0

        def put(self, key: str, source: ByteSource, **options: Any) -> StoredObject:
            type(self).puts += 1
            if crash == "before the archive":
                raise KeyboardInterrupt
            if crash == "in the archive":
                source = _Cut(source)
            if crash == "after the archive" and self.puts == 2:
                raise KeyboardInterrupt
            stored = super().put(key, source, **options)
            if crash == "after the envelope" and self.puts == 2:
                raise KeyboardInterrupt
            return stored

    with pytest.raises(KeyboardInterrupt):
        fleet.copy(stores=Stores.of(one, Killed(two.url.removeprefix("file://"))))
    assert fleet.again(record).stores == (one.url,)
    assert fleet.copy(stores=Stores.of(one, two)).problems == []
    assert objects_of(one) == objects_of(two)
    assert fleet.again(record).stores == (one.url, two.url)


class _Cut:
    def __init__(self, source: ByteSource) -> None:
        self._source, self._reads = source, 0

    def read(self, size: int = -1, /) -> bytes:
        self._reads += 1
        if self._reads > 1:
            raise KeyboardInterrupt
        return self._source.read(size)


@pytest.mark.parametrize("debris", ["other bytes", "the same length", "another envelope"])
def test_what_lies_in_the_way_and_is_not_the_backup_is_replaced(fleet: Fleet, debris: str) -> None:
    one, two, _ = fleet.stores
    record = fleet.on_day(0)
    if debris == "another envelope":
        put(two, envelope_key_of(record.archive_key), b'{"format": 1}')
    else:
        put(two, record.archive_key, b"x" * (record.size_bytes or 0) if debris == "the same length" else b"x")
    assert fleet.copy(stores=Stores.of(one, two)).problems == []
    assert objects_of(one) == objects_of(two)


@pytest.mark.parametrize("damage", ["flipped", "gone"])
def test_a_damaged_archive_is_not_copied_and_another_copy_heals_it(fleet: Fleet, damage: str) -> None:
    one, two, three = fleet.stores
    record = fleet.on_day(0)
    fleet.copy(stores=Stores.of(one, two))
    whole = objects_of(two)
    if damage == "flipped":
        flip(one, record.archive_key)
    else:
        one.delete(record.archive_key)
    done = fleet.copy()
    # The third store got the second's copy, and the first is known to have lost its own.
    assert [(loss.store_url, loss.problem) for loss in done.losses] == [
        (one.url, "damaged" if damage == "flipped" else "missing")
    ]
    assert done.problems == []
    assert objects_of(three) == whole
    assert fleet.again(record).stores == (two.url, three.url)
    # The next run brings it back.
    assert [copy.store_url for copy in fleet.copy().copies] == [one.url]
    assert objects_of(one) == whole
    fleet.restored(fleet.again(record), Stores.of(one))


def test_with_no_good_copy_left_the_backup_is_lost_and_no_last_good_one(fleet: Fleet) -> None:
    one, two, _ = fleet.stores
    good, bad = fleet.on_day(0), fleet.on_day(1)
    flip(one, bad.archive_key)
    done = fleet.copy(stores=Stores.of(one, two))
    assert [type(error) for _, error in done.problems] == [IntegrityError]
    assert fleet.state(bad) == "lost"
    assert fleet.catalog.latest(1) == fleet.again(good)
    assert bad.archive_key not in objects_of(two)


def test_copies_and_backups_do_not_wait_for_each_other(fleet: Fleet) -> None:
    fleet.on_day(0)
    with fleet.catalog.lock(1, "copies"):
        fleet.on_day(1)
        (problem, *_) = [error.message for _, error in fleet.copy().problems]
        assert "being copied" in problem
        (cleaned,) = fleet.clean(60)
        assert "being copied" in cleaned.problem
    with fleet.catalog.lock(1):
        assert fleet.copy().problems == []


def test_a_hold_is_noted_in_every_store_and_comes_along_with_copies(fleet: Fleet) -> None:
    one, two, three = fleet.stores
    record = fleet.on_day(0)
    fleet.copy(stores=Stores.of(one, two))
    fleet.holds().hold(record.backup_id, " pleito\n12 ", "abogada")
    fleet.copy()
    for store in (one, two, three):
        assert envelopes.load_hold(record.archive_key, store) == ("pleito 12", "abogada")
    fleet.holds().release(record.backup_id)
    assert [envelopes.load_hold(record.archive_key, store) for store in (one, two, three)] == [None, None, None]


@pytest.mark.parametrize("damage", ["flipped", "gone", "down", "exchanged"])
def test_a_restore_takes_the_next_store_when_the_first_has_no_good_copy(
    fleet: Fleet, damage: str, tmp_path: Path
) -> None:
    one, two, _ = fleet.stores
    record, other = fleet.on_day(0), fleet.on_day(0.1, 2)
    fleet.copy()
    rows = fleet.rows_now(1)
    fleet.execute("UPDATE public.inventario_inventario SET cantidad = cantidad + 1 WHERE clinica_id = 1")
    stores = fleet.stores
    if damage == "flipped":
        flip(one, record.archive_key)
    elif damage == "down":
        stores = Stores.of(Down(tmp_path / "one"), two)
    else:
        one.delete(record.archive_key)
        if damage == "exchanged":
            put(one, record.archive_key, objects_of(one)[other.archive_key])
    bad: list[tuple[str, ClinicBackupsError]] = []
    steps: list[str] = []
    restore = fleet.restore(
        stores, on_bad_copy=lambda source, url, error: bad.append((url, error)), on_step=steps.append
    )

    source, wish = source_of(record), wish_of(RestoreRequest(clinic_id=1))
    restore.apply(source, wish, approved=restore.plan(source, wish).digest)
    assert fleet.rows_now(1) == rows
    assert {url for url, _ in bad} == {one.url}
    assert f"checking the copy in {two.url}" in steps


def test_when_no_store_has_a_good_copy_the_restore_says_what_each_said(fleet: Fleet) -> None:
    one, two, three = fleet.stores
    record = fleet.on_day(0)
    fleet.copy()
    flip(one, record.archive_key)
    two.delete(record.archive_key)
    three.delete(record.archive_key)
    with pytest.raises(IntegrityError) as raised:
        fleet.restored(record)
    assert [note[:25] for note in raised.value.__notes__] == ["And: There is no object f"] * 2


def test_retention_deletes_in_all_stores_and_waits_for_one_that_is_down(fleet: Fleet, tmp_path: Path) -> None:
    one, two, three = fleet.stores
    old, new = fleet.on_day(0), fleet.on_day(40)
    fleet.copy()
    (cleaned,) = fleet.clean(45, stores=Stores.of(one, Down(tmp_path / "two"), three))
    assert (cleaned.problem, cleaned.deleted) == ("out of reach", 0)
    assert fleet.state(old) == "deleting"
    assert old.archive_key not in {*objects_of(one), *objects_of(three)}
    (cleaned,) = fleet.clean(46)
    assert (cleaned.problem, cleaned.deleted) == ("", 1)
    assert set(objects_of(two)) == {new.archive_key, envelope_key_of(new.archive_key)}


def test_a_store_that_is_none_of_the_settings_any_more_is_named_with_the_remedy(fleet: Fleet) -> None:
    one, two, _ = fleet.stores
    old = fleet.on_day(0)
    fleet.copy(stores=Stores.of(one, two))
    fleet.on_day(40)
    (cleaned,) = fleet.clean(45, stores=Stores.of(one))
    assert two.url in cleaned.problem
    assert f"catalog forget-store {two.url}" in cleaned.hint
    assert fleet.places.store_urls() == [one.url, two.url]
    assert fleet.places.forget_store(two.url) == 1
    assert fleet.clean(46, stores=Stores.of(one))[0].deleted == 1
    assert fleet.state(old) == "deleted"


def test_backups_of_before_places_were_recorded_are_said_to_lie_in_the_primary_store(fleet: Fleet) -> None:
    record = fleet.on_day(0)
    fleet.execute("DELETE FROM clinic_backups.backup_copy")
    assert fleet.again(record).stores == ()
    assert fleet.places.adopt(fleet.stores.urls[0], fleet.now) == 1
    assert fleet.places.adopt(fleet.stores.urls[0], fleet.now) == 0
    assert fleet.again(record).stores == fleet.stores.urls[:1]


@pytest.mark.parametrize(
    ("url", "place"),
    [
        ("s3://bucket/a/b/", "s3://bucket/a/b"),
        ("gs://bucket", "gs://bucket"),
        ("az://box/", "az://box"),
        ("file:///srv/a%20b/", "file:///srv/a%20b"),
    ],
)
def test_a_place_has_one_name(url: str, place: str) -> None:
    assert canonical(url) == canonical(canonical(url)) == place


def test_one_place_cannot_be_two_stores() -> None:
    with pytest.raises(SettingsError, match=r"s3://bucket/a is named twice"):
        Stores("s3://bucket/a", {"replica": "s3://bucket/a/"}, lambda url, conn_id: pytest.fail(url))
