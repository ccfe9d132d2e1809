"""Replication: every store gets the same bytes, whatever was down, killed or damaged meanwhile."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any, BinaryIO
from uuid import uuid4

import pytest
from sqlalchemy import event

from clinic_backups.archive.object_keys import envelope_key_of, hold_key_of
from clinic_backups.base.backup_record import BackupRecord
from clinic_backups.base.errors import (
    ClinicBackupsError,
    IntegrityError,
    ObjectNotFound,
    PermanentError,
    SettingsError,
    TransientError,
)
from clinic_backups.base.listening import Listener
from clinic_backups.base.plain import iso
from clinic_backups.base.replica import Loss
from clinic_backups.catalog.outbox import Outbox
from clinic_backups.notify.losses import LISTED, LossAlarm
from clinic_backups.restore.find_backup import source_of
from clinic_backups.restore.request import RestoreRequest
from clinic_backups.stores import envelopes
from clinic_backups.stores.base import ByteSource, ObjectInfo, ObjectStore, StoredObject
from clinic_backups.stores.configured import Stores, canonical
from clinic_backups.stores.file import FileStore
from tests.conftest import MakeStore
from tests.fleet import START, Fleet, flip, objects_of, put
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
    fleet = Fleet(demo_database, FileStore(tmp_path / "first"), make_store(f"replicas-{uuid4().hex}"))
    first, second = fleet.on_day(0), fleet.on_day(1)
    assert [backlog.missing for backlog in fleet.replicas.backlog(fleet.stores.urls)] == [2]
    done = fleet.replicate(1)
    assert [(replica.backup_id, replica.error) for replica in done.replicas] == [
        (second.backup_id, None),
        (first.backup_id, None),
    ]
    ours, theirs = fleet.stores
    assert objects_of(ours) == objects_of(theirs)
    assert theirs.stat(first.archive_key).metadata["backup_id"] == first.backup_id
    assert fleet.again(first).stores == fleet.stores.urls
    assert fleet.replicas.backlog(fleet.stores.urls) == []
    assert fleet.replicate().replicas == []
    fleet.restored(first, Stores.of(theirs))


def test_a_further_store_that_is_down_is_left_alone_for_a_while_and_caught_up_later(
    fleet: Fleet, folders: tuple[FileStore, ...], tmp_path: Path
) -> None:
    one, two, _ = folders
    broken = Stores.of(one, Down(tmp_path / "two"))
    records = [fleet.on_day(0), fleet.on_day(0.1, 2)]
    before = Down.calls
    done = fleet.replicate(stores=broken)
    assert [(replica.backup_id, error.message) for replica, error in done.problems] == [
        (record.backup_id, "out of reach") for record in records
    ]
    # One question, and one for its marker: the second clinic's replica knows already.
    assert Down.calls == before + 2
    (backlog,) = fleet.replicas.backlog(broken.urls)
    assert (backlog.store_url, backlog.missing, backlog.error) == (two.url, 2, "out of reach")
    assert backlog.oldest_at == records[0].started_at
    fleet.later(minutes=14)
    assert fleet.replicate(stores=broken).replicas == []
    assert Down.calls == before + 2
    assert len(fleet.replicate(stores=Stores.of(one, two), patient=True).replicas) == 2
    assert objects_of(one) == objects_of(two)
    assert fleet.replicas.resting(fleet.now) == set()


def test_a_store_that_cannot_even_be_opened_keeps_nobody_from_the_others(fleet: Fleet) -> None:
    one, two, three = fleet.stores
    record = fleet.on_day(0)

    def open_store(url: str, conn_id: str) -> ObjectStore:
        if conn_id == "wrong":
            raise SettingsError("Connection 'wrong' is unusable.")
        return {one.url: one, three.url: three}[url]

    stores = Stores(one.url, {"wrong": two.url, "good": three.url}, open_store)
    done = fleet.replicate(stores=stores)
    assert [(replica.store_url, replica.error is None) for replica in done.replicas] == [
        (three.url, True),
        (two.url, False),
    ]
    assert fleet.again(record).stores == (one.url, three.url)


@pytest.mark.parametrize("crash", ["before the archive", "in the archive", "after the archive", "after the envelope"])
def test_a_replica_that_was_killed_is_finished_by_the_next_run(fleet: Fleet, crash: str) -> None:
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
        fleet.replicate(stores=Stores.of(one, Killed(two.url.removeprefix("file://"))))
    assert fleet.again(record).stores == (one.url,)
    assert fleet.replicate(stores=Stores.of(one, two)).problems == []
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
    assert fleet.replicate(stores=Stores.of(one, two)).problems == []
    assert objects_of(one) == objects_of(two)


@pytest.mark.parametrize("damage", ["flipped", "gone"])
def test_a_damaged_archive_is_not_replicated_and_another_replica_heals_it(fleet: Fleet, damage: str) -> None:
    one, two, three = fleet.stores
    record = fleet.on_day(0)
    fleet.replicate(stores=Stores.of(one, two))
    whole = objects_of(two)
    if damage == "flipped":
        flip(one, record.archive_key)
    else:
        one.delete(record.archive_key)
    done = fleet.replicate()
    # The third store got the second's replica, and the first is known to have lost its own.
    assert [(loss.store_url, loss.problem) for loss in done.losses] == [
        (one.url, "damaged" if damage == "flipped" else "missing")
    ]
    assert done.problems == []
    assert objects_of(three) == whole
    assert fleet.again(record).stores == (two.url, three.url)
    # The next run brings it back.
    assert [replica.store_url for replica in fleet.replicate().replicas] == [one.url]
    assert objects_of(one) == whole
    fleet.restored(fleet.again(record), Stores.of(one))


def test_with_no_good_replica_left_the_backup_is_lost_and_no_last_good_one(fleet: Fleet) -> None:
    one, two, _ = fleet.stores
    good, bad = fleet.on_day(0), fleet.on_day(1)
    flip(one, bad.archive_key)
    done = fleet.replicate(stores=Stores.of(one, two))
    assert [type(error) for _, error in done.problems] == [IntegrityError]
    assert fleet.state(bad) == "lost"
    assert fleet.catalog.latest(1, fleet.now) == fleet.again(good)
    assert bad.archive_key not in objects_of(two)


def test_replicas_and_backups_do_not_wait_for_each_other(fleet: Fleet) -> None:
    fleet.on_day(0)
    with fleet.catalog.lock(1, "replicas"):
        fleet.on_day(1)
        (problem, *_) = [error.message for _, error in fleet.replicate().problems]
        assert "being replicated" in problem
        (cleaned,) = fleet.clean(60)
        assert "being replicated" in cleaned.problem
    with fleet.catalog.lock(1):
        assert fleet.replicate().problems == []


def test_a_hold_is_noted_in_every_store_and_comes_along_with_replicas(fleet: Fleet) -> None:
    one, two, three = fleet.stores
    record = fleet.on_day(0)
    fleet.replicate(stores=Stores.of(one, two))
    fleet.holds().hold(record.backup_id, " pleito\n12 ", "abogada")
    fleet.replicate()
    for store in (one, two, three):
        assert envelopes.load_hold(record.archive_key, store) == ("pleito 12", "abogada")
    fleet.holds().release(record.backup_id, "juez")
    assert [envelopes.load_hold(record.archive_key, store) for store in (one, two, three)] == [None, None, None]


@pytest.mark.parametrize("damage", ["flipped", "gone", "down", "exchanged"])
def test_a_restore_takes_the_next_store_when_the_first_has_no_good_copy(
    fleet: Fleet, damage: str, tmp_path: Path
) -> None:
    one, two, _ = fleet.stores
    record, other = fleet.on_day(0), fleet.on_day(0.1, 2)
    fleet.replicate()
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
        stores, on_bad_replica=lambda source, url, error: bad.append((url, error)), listener=Listener(steps.append)
    )

    source, wish = source_of(record), RestoreRequest(clinic_id=1)
    restore.apply(source, wish, approved=restore.plan(source, wish).digest)
    assert fleet.rows_now(1) == rows
    assert {url for url, _ in bad} == {one.url}
    assert f"checking the archive of {record.backup_id} in {two.url}" in steps


def test_when_no_store_has_a_good_replica_the_restore_says_what_each_said(fleet: Fleet) -> None:
    one, two, three = fleet.stores
    record = fleet.on_day(0)
    fleet.replicate()
    flip(one, record.archive_key)
    two.delete(record.archive_key)
    three.delete(record.archive_key)
    with pytest.raises(IntegrityError) as raised:
        fleet.restored(record)
    assert [note[:25] for note in raised.value.__notes__] == ["And: There is no object f"] * 2


def test_retention_deletes_in_all_stores_and_waits_for_one_that_is_down(fleet: Fleet, tmp_path: Path) -> None:
    one, two, three = fleet.stores
    old, new = fleet.on_day(0), fleet.on_day(40)
    fleet.replicate()
    (cleaned,) = fleet.clean(45, stores=Stores.of(one, Down(tmp_path / "two"), three))
    assert (cleaned.problem, cleaned.deleted) == ("out of reach", 0)
    assert fleet.state(old) == "completed"
    (cleaned,) = fleet.clean(46)
    assert (cleaned.problem, cleaned.deleted) == ("", 1)
    for store in (one, two, three):
        assert set(objects_of(store)) == {new.archive_key, envelope_key_of(new.archive_key)}


def test_a_store_that_is_none_of_the_settings_any_more_is_named_with_the_remedy(fleet: Fleet) -> None:
    one, two, _ = fleet.stores
    old = fleet.on_day(0)
    fleet.replicate(stores=Stores.of(one, two))
    fleet.on_day(40)
    (cleaned,) = fleet.clean(45, stores=Stores.of(one))
    assert two.url in cleaned.problem
    assert f"catalog forget-store {two.url}" in cleaned.hint
    assert fleet.replicas.store_urls() == [one.url, two.url]
    assert fleet.replicas.forget_store(two.url) == 1
    assert fleet.clean(46, stores=Stores.of(one))[0].deleted == 1
    assert fleet.state(old) == "deleted"


def test_backups_of_before_places_were_recorded_are_said_to_lie_in_the_primary_store(fleet: Fleet) -> None:
    record = fleet.on_day(0)
    fleet.execute("DELETE FROM clinic_backups.backup_replica")
    assert fleet.again(record).stores == ()
    assert fleet.replicas.adopt(fleet.stores.urls[0], fleet.now) == 1
    assert fleet.replicas.adopt(fleet.stores.urls[0], fleet.now) == 0
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


@pytest.mark.parametrize(("url", "said"), [("s3://bucket/a/", "is named twice"), ("s4://x", "an unknown kind")])
def test_what_is_wrong_with_a_further_store_keeps_nobody_from_the_primary(fleet: Fleet, url: str, said: str) -> None:
    one, *_ = fleet.stores
    wrong = Stores("s3://bucket/a", {"replica": url}, lambda url, conn_id: one)
    assert wrong.primary is one
    assert wrong.urls == ("s3://bucket/a", "store replica")
    with pytest.raises(SettingsError, match=f"REPLICA_STORES, replica: .*{said}"):
        wrong.at("store replica")


def forge(store: ObjectStore, record: BackupRecord) -> None:
    """Exchange a backup for another one, archive and envelope, as somebody could who may write into the store."""
    archive = b"otro archivo"
    envelope = record.envelope().to_json()
    envelope["archive"] |= {
        "size_bytes": len(archive),
        "sha256": hashlib.sha256(archive).hexdigest(),
        "md5": hashlib.md5(archive).hexdigest(),
    }
    for key, content in ((record.archive_key, archive), (envelope_key_of(record.archive_key), json.dumps(envelope))):
        store.delete(key)
        put(store, key, content if isinstance(content, bytes) else content.encode())


def test_after_a_rebuild_from_a_forged_store_the_good_replica_elsewhere_is_not_overwritten(fleet: Fleet) -> None:
    one, two, _ = fleet.stores
    record = fleet.on_day(0)
    fleet.replicate(stores=Stores.of(one, two))
    good = objects_of(two)
    forge(one, record)
    fleet.execute("TRUNCATE clinic_backups.backup CASCADE")
    assert fleet.rebuild(one).adopted == 1
    ((_, error),) = fleet.replicate(stores=Stores.of(one, two)).problems
    assert isinstance(error, IntegrityError)
    assert f"wo different backups have one key in {two.url}" in error.message
    assert "catalog verify" in error.hint
    assert objects_of(two) == good
    # It is about this object alone.
    assert fleet.replicas.resting(fleet.now) == set()


@pytest.mark.parametrize("source", ["gone", "flipped", "down"])
def test_a_damaged_replica_stays_until_a_good_one_was_read(fleet: Fleet, source: str, tmp_path: Path) -> None:
    one, two, _ = fleet.stores
    record = fleet.on_day(0)
    fleet.replicate(stores=Stores.of(one, two))
    flip(two, record.archive_key)
    damaged = objects_of(two)
    fleet.replicas.mark(record.backup_id, two.url, "damaged", fleet.now)
    stores, whole = Stores.of(one, two), objects_of(one)
    if source == "flipped":
        flip(one, record.archive_key)
    elif source == "gone":
        one.delete(record.archive_key)
    else:
        stores = Stores.of(Down(tmp_path / "one"), two)
    done = fleet.replicate(stores=stores)
    assert len(done.problems) == 1
    assert [loss.problem for loss in done.losses] == {"gone": ["missing"], "flipped": ["damaged"], "down": []}[source]
    assert objects_of(two) == damaged
    assert fleet.replicas.resting(fleet.now) == set()
    if source == "down":
        assert fleet.replicate(stores=Stores.of(one, two)).problems == []
        assert objects_of(two) == whole


class Locking(FileStore):
    """Locks what is put with a lock, as far as this says; what is put by hand has none."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.locks: dict[str, Any] = {}

    def put(self, key: str, source: ByteSource, *, locked_until: Any = None, **options: Any) -> StoredObject:
        stored = super().put(key, source, **options)
        self.locks[key] = locked_until
        return stored

    def stat(self, key: str) -> ObjectInfo:
        return replace(super().stat(key), locked_until=self.locks.get(key))


def lock_until(fleet: Fleet, record: BackupRecord, moment: Any) -> BackupRecord:
    fleet.execute(f"UPDATE clinic_backups.backup SET locked_until = '{iso(moment)}'")
    return fleet.again(record)


@pytest.mark.parametrize(("lasts", "counts"), [(None, False), (-2.0, False), (-0.5, True), (0.0, True), (60.0, True)])
def test_what_is_there_already_counts_as_a_replica_only_when_it_is_locked(
    fleet: Fleet, tmp_path: Path, lasts: float | None, counts: bool
) -> None:
    one, two = fleet.stores.primary, Locking(tmp_path / "two")
    record = fleet.on_day(0)
    record = lock_until(fleet, record, fleet.now + timedelta(days=30))
    assert record.locked_until is not None
    put(two, record.archive_key, objects_of(one)[record.archive_key])
    if lasts is not None:
        two.locks[record.archive_key] = record.locked_until + timedelta(seconds=lasts)
    done = fleet.replicate(stores=Stores.of(one, two))
    if counts:
        assert done.problems == []
        return
    ((_, error),) = done.problems
    assert isinstance(error, PermanentError)
    assert "not locked until" in error.message
    assert "Delete that object by hand" in error.hint
    assert fleet.again(record).stores == (one.url,)
    assert fleet.replicas.resting(fleet.now) == set()
    two.delete(record.archive_key)
    assert fleet.replicate(stores=Stores.of(one, two)).problems == []
    assert two.stat(record.archive_key).locked_until == record.locked_until


def test_a_backup_whose_lock_has_ended_can_be_replicated_where_nothing_can_be_locked(fleet: Fleet) -> None:
    one, two, _ = fleet.stores
    record = fleet.on_day(0)
    lock_until(fleet, record, fleet.now - timedelta(days=1))
    assert fleet.replicate(stores=Stores.of(one, two)).problems == []
    assert two.stat(envelope_key_of(record.archive_key))


class Refusing(FileStore):
    """Refuses to store some archives."""

    refuse: Callable[[str], bool] = staticmethod(lambda key: True)
    error: Callable[[str], ClinicBackupsError] = PermanentError
    tried: list[str]

    def put(self, key: str, source: ByteSource, **options: Any) -> StoredObject:
        if key.endswith(".age"):
            self.tried.append(key)
            if self.refuse(key):
                raise self.error("the metadata are too long")
        return super().put(key, source, **options)


@pytest.mark.parametrize("error", [PermanentError, IntegrityError, ObjectNotFound])
def test_what_is_wrong_with_one_object_keeps_no_other_from_being_copied(
    fleet: Fleet, tmp_path: Path, error: type[ClinicBackupsError]
) -> None:
    # What is plainly about one object may even happen to several.
    bad = [fleet.on_day(day) for day in range(1 if error is PermanentError else 3)]
    good = fleet.on_day(0.1, 2)
    store = Refusing(tmp_path / "two")
    store.tried, store.error = [], error
    store.refuse = lambda key: key != good.archive_key
    stores = Stores.of(fleet.stores.primary, store)
    done = fleet.replicate(stores=stores)
    assert {replica.backup_id for replica, _ in done.problems} == {record.backup_id for record in bad}
    assert fleet.again(good).stores == stores.urls
    assert fleet.replicas.resting(fleet.now) == set()


def test_a_store_that_refuses_one_backup_after_the_other_is_left_alone(fleet: Fleet, tmp_path: Path) -> None:
    records = [fleet.on_day(0), fleet.on_day(0.1, 2), fleet.on_day(0.2, 3)]
    store = Refusing(tmp_path / "two")
    store.tried = []
    done = fleet.replicate(stores=Stores.of(fleet.stores.primary, store))
    assert len(done.problems) == 3
    assert store.tried == [record.archive_key for record in records[:2]]
    assert fleet.replicas.resting(fleet.now) == {store.url}


def test_a_replica_in_between_shows_that_the_store_works(fleet: Fleet, tmp_path: Path) -> None:
    records = [fleet.on_day(0), fleet.on_day(0.1, 2), fleet.on_day(0.2, 3)]
    store = Refusing(tmp_path / "two")
    store.tried = []
    store.refuse = lambda key: key != records[1].archive_key
    fleet.replicate(stores=Stores.of(fleet.stores.primary, store))
    assert store.tried == [record.archive_key for record in records]
    assert fleet.replicas.resting(fleet.now) == set()


@pytest.mark.parametrize("moment", ["while the archive is replicated", "after the note was written"])
@pytest.mark.parametrize("ends", [False, True])
def test_a_hold_that_is_set_or_ended_while_the_replica_is_made_is_in_it(
    fleet: Fleet, tmp_path: Path, moment: str, ends: bool
) -> None:
    record = fleet.on_day(0)
    if ends:
        fleet.holds().hold(record.backup_id, "pleito", "abogada")

    class Slow(FileStore):
        done = False

        def _meanwhile(self) -> None:
            if not self.done:
                self.done = True
                if ends:
                    fleet.holds().release(record.backup_id, "juez")
                else:
                    fleet.holds().hold(record.backup_id, "pleito", "abogada")

        def put(self, key: str, source: ByteSource, **options: Any) -> StoredObject:
            if key == record.archive_key and moment.startswith("while"):
                self._meanwhile()
            return super().put(key, source, **options)

        def delete(self, key: str) -> None:
            super().delete(key)
            if key == hold_key_of(record.archive_key) and moment.startswith("after"):
                self._meanwhile()

    store = Slow(tmp_path / "two")
    assert fleet.replicate(stores=Stores.of(fleet.stores.primary, store)).problems == []
    assert store.done
    assert envelopes.load_hold(record.archive_key, store) == (None if ends else ("pleito", "abogada"))


def told(fleet: Fleet) -> list[dict[str, Any]]:
    """The facts of all mails about losses, the oldest first."""
    rows = fleet.execute_rows("SELECT facts FROM clinic_backups.notification WHERE kind = 'loss' ORDER BY id")
    return [facts for (facts,) in rows]


def test_a_loss_is_recorded_together_with_the_mail_about_it(fleet: Fleet, tmp_path: Path) -> None:
    one, two, _ = fleet.stores
    record, other = fleet.on_day(0), fleet.on_day(0.1, 2)
    one.delete(record.archive_key)

    class Killed(FileStore):
        def open(self, key: str) -> AbstractContextManager[BinaryIO]:
            if key == other.archive_key:
                raise KeyboardInterrupt
            return super().open(key)

    with pytest.raises(KeyboardInterrupt):
        fleet.replicate(stores=Stores.of(Killed(tmp_path / "one"), two))
    assert fleet.state(record) == "lost"
    (facts,) = told(fleet)
    loss = {"store_url": one.url, "problem": "missing", "left": [], "backup_id": record.backup_id}
    assert facts["lost"] == [loss | {"clinic_id": 1, "clinic_name": record.clinic_name}]
    assert facts["without"] == [{"clinic_id": 1, "clinic_name": record.clinic_name}]
    assert facts["count"] == 1


def test_what_cannot_be_told_is_not_recorded(fleet: Fleet) -> None:
    record = fleet.on_day(0)

    def announce(db: object, losses: list[Loss]) -> None:
        assert [(loss.backup_id, loss.problem) for loss in losses] == [(record.backup_id, "damaged")]
        raise TransientError("no mail")

    with pytest.raises(TransientError, match="no mail"):
        fleet.replicas.mark(record.backup_id, fleet.stores.urls[0], "damaged", fleet.now, announce)
    assert fleet.state(record) == "completed"
    assert fleet.replicas.mark(record.backup_id, fleet.stores.urls[0], "intact", fleet.now, announce) == []


def test_the_losses_of_a_run_come_in_one_mail_and_later_ones_in_another(fleet: Fleet) -> None:
    one, two, _ = fleet.stores
    records = [fleet.on_day(0), fleet.on_day(0.1, 2), fleet.on_day(0.2, 3)]
    fleet.replicate(stores=Stores.of(one, two))
    alarm = LossAlarm(lambda: fleet.now)
    for url, record in ((one.url, records[0]), (two.url, records[0]), (one.url, records[1])):
        fleet.replicas.mark(record.backup_id, url, "missing", fleet.now, alarm)
        fleet.later(seconds=1)
    (facts,) = told(fleet)
    # In the end nothing is left of the first, whatever the first loss said; and the worst comes first.
    assert [(loss["backup_id"], loss["left"]) for loss in facts["lost"]] == [
        (records[0].backup_id, []), (records[0].backup_id, []), (records[1].backup_id, [two.url]),
    ]  # fmt: skip
    assert (facts["count"], [clinic["clinic_id"] for clinic in facts["without"]]) == (3, [1])
    # Once it is addressed nothing is added to it any more.
    outbox = Outbox(fleet.catalog.database)
    for notice, clinic_id, _ in outbox.unaddressed():
        if clinic_id is None:
            outbox.address({notice: []}, domain="x.example", now=fleet.now)
    fleet.replicas.mark(records[2].backup_id, one.url, "damaged", fleet.now, alarm)
    assert [facts["count"] for facts in told(fleet)] == [3, 1]
    # Another run, in the same moment.
    fleet.replicas.mark(records[2].backup_id, two.url, "damaged", fleet.now, LossAlarm(lambda: fleet.now))
    assert len(told(fleet)) == 3


def statements(fleet: Fleet) -> list[str]:
    """The statements that go to the catalog's database from now on."""
    sent: list[str] = []
    event.listen(
        fleet.catalog.database._engine,
        "before_cursor_execute",
        lambda db, cursor, statement, *rest: sent.append(statement),
    )
    return sent


def many(fleet: Fleet, record: BackupRecord, count: int, *, chain: bool = False) -> list[str]:
    """Replicas of a record in the catalog, each built on the one before where that is wanted."""
    columns = [
        name for (name,) in fleet.execute_rows(
            "SELECT column_name FROM information_schema.columns WHERE table_schema = 'clinic_backups'"
            " AND table_name = 'backup' AND column_name NOT IN ('backup_id', 'id', 'parent_id')"
            " AND is_generated = 'NEVER'"
        )
    ]  # fmt: skip
    names = ", ".join(f'"{name}"' for name in columns)
    parent = f"CASE WHEN n > 1 THEN '{record.backup_id}-' || (n - 1) END" if chain else "NULL"
    fleet.execute(
        f"INSERT INTO clinic_backups.backup (backup_id, parent_id, {names})"
        f" SELECT backup_id || '-' || n, {parent}, {names} FROM clinic_backups.backup, generate_series(1, {count}) AS n"
        f" WHERE backup_id = '{record.backup_id}'",
        "INSERT INTO clinic_backups.backup_replica (backup_id, store_url, state, stored_at)"
        f" SELECT '{record.backup_id}-' || n, store_url, state, stored_at"
        f" FROM clinic_backups.backup_replica, generate_series(1, {count}) AS n WHERE backup_id = '{record.backup_id}'",
    )
    return [f"{record.backup_id}-{number}" for number in range(1, count + 1)]


def test_a_store_is_forgotten_in_a_few_statements_however_many_backups_it_held(fleet: Fleet) -> None:
    one, two, _ = fleet.stores
    here, both = fleet.on_day(0), fleet.on_day(0.1, 2)
    fleet.replicate(2, stores=Stores.of(one, two))
    many(fleet, here, 500)
    kept = many(fleet, both, 500)
    sent = statements(fleet)
    assert fleet.replicas.forget_store(one.url) == 1002
    assert len(sent) < 10
    states = dict(
        fleet.execute_rows("SELECT clinic_id::int, array_agg(DISTINCT state) FROM clinic_backups.backup GROUP BY 1")
    )
    assert states == {1: ["lost"], 2: ["completed"]}
    assert fleet.replicas.of_clinic(2)[kept[0]] == {two.url: "intact"}


def test_with_a_store_that_is_forgotten_goes_what_is_built_on_what_lay_there(fleet: Fleet) -> None:
    one, two, _ = fleet.stores
    record = fleet.on_day(0)
    fleet.replicate(stores=Stores.of(one, two))
    links = many(fleet, record, 6, chain=True)
    third = f"backup_id = '{links[2]}'"
    fleet.execute(f"DELETE FROM clinic_backups.backup_replica WHERE {third} AND store_url = '{two.url}'")
    assert fleet.replicas.forget_store(one.url) == 7
    found = [fleet.catalog.get(link) for link in links]
    assert [each.state for each in found if each] == ["completed"] * 2 + ["lost"] * 4


def test_a_notice_of_many_losses_takes_few_statements_and_names_not_all(fleet: Fleet) -> None:
    one, two, _ = fleet.stores
    record = fleet.on_day(0)
    fleet.replicate(stores=Stores.of(one, two))
    last = fleet.on_day(0.1, 2)
    ids = many(fleet, record, LISTED + 50)
    fleet.replicas.mark(last.backup_id, one.url, "missing", fleet.now)
    losses = [replace(Loss.of(record, one.url, "missing"), backup_id=backup_id) for backup_id in ids]
    sent = statements(fleet)
    with fleet.catalog.database.transaction("telling of losses") as db:
        LossAlarm(lambda: fleet.now)(db, [*losses, Loss.of(last, one.url, "missing")])
    assert len(sent) < 12
    ((facts,),) = fleet.execute_rows("SELECT facts FROM clinic_backups.notification WHERE kind = 'loss'")
    assert (len(facts["lost"]), facts["count"]) == (LISTED, LISTED + 51)
    assert (facts["lost"][0]["backup_id"], facts["lost"][0]["left"]) == (last.backup_id, [])
    assert facts["lost"][1]["left"] == [one.url, two.url]
    assert [clinic["clinic_id"] for clinic in facts["without"]] == [2]


def test_every_store_is_told_of_a_hold_and_each_that_was_not_is_named(fleet: Fleet, tmp_path: Path) -> None:
    class Down(FileStore):
        def delete(self, key: str) -> None:
            raise TransientError(f"{self.root.name} is out of reach")

    one, two, three = fleet.stores
    record = fleet.on_day(0)
    fleet.replicate()
    down = [Down(store.url.removeprefix("file://")) for store in (one, three)]
    up, fleet.stores = fleet.stores, Stores.of(down[0], two, down[1])
    for do, noted in (
        (lambda: fleet.holds().hold(record.backup_id, "pleito", "abogada"), ("pleito", "abogada")),
        (lambda: fleet.holds().release(record.backup_id, "juez"), None),
    ):
        with pytest.raises(TransientError) as caught:
            do()
        for store in (one, three):
            assert f"{store.url}: {store.url.rpartition('/')[2]} is out of reach" in caught.value.message
        assert two.url not in caught.value.message
        assert envelopes.load_hold(record.archive_key, two) == noted
    # The retry of a task says the same once more.
    fleet.stores = up
    for _ in range(2):
        fleet.holds().hold(record.backup_id, "pleito", "abogada")
        assert [envelopes.load_hold(record.archive_key, store) for store in up] == [("pleito", "abogada")] * 3


@pytest.mark.parametrize(("reason", "by"), [("otro", "abogada"), ("pleito", "otra")])
def test_a_second_hold_does_not_take_the_place_of_the_first(fleet: Fleet, reason: str, by: str) -> None:
    record = fleet.on_day(0)
    fleet.holds().hold(record.backup_id, "pleito", "abogada")
    fleet.later(hours=1)
    with pytest.raises(PermanentError) as caught:
        fleet.holds().hold(record.backup_id, reason, by)
    assert "on hold already since 2026-09-01T06:00:00Z, by abogada: pleito" in caught.value.message
    assert "To add another reason" in caught.value.hint
    assert envelopes.load_hold(record.archive_key, fleet.stores.primary) == ("pleito", "abogada")
    again = fleet.again(record)
    assert (again.hold_reason, again.held_by, again.held_at) == ("pleito", "abogada", START)
    released = fleet.holds().release(record.backup_id, "juez")
    assert (released.held_at, released.released_at) == (None, fleet.now)
    assert fleet.holds().hold(record.backup_id, reason, by).released_at is None
