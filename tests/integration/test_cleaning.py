"""Deleting what retention lets go: in any order of crashes, on every store, and nothing else."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import uuid4

import pytest

from clinic_backups.catalog.records import Catalog
from clinic_backups.cleaning import Cleaner
from clinic_backups.errors import PermanentError, TransientError
from clinic_backups.model import BackupRecord, envelope_key_of
from clinic_backups.settings import Settings
from clinic_backups.storage import Stores
from clinic_backups.stores.base import ObjectInfo, ObjectStore
from clinic_backups.stores.file import FileStore
from tests.conftest import MakeStore
from tests.fleet import Fleet, objects_of
from tests.postgres_fixtures import DemoDatabase
from tests.rig import Rig

START = datetime(2026, 9, 1, 6, tzinfo=UTC)


class Archive(Rig):
    """A rig with a clock and a cleaner."""

    now = START

    def on_day(self, day: int, clinic_id: int = 1) -> BackupRecord:
        self.now = START + timedelta(days=day)
        return self.run(clinic_id, now=lambda: self.now)

    def clean(self, day: int, store: ObjectStore | None = None, **options: object) -> list[str]:
        """Clean on a day; returns the problems."""
        self.now = START + timedelta(days=day)
        stores = Stores.of(store or self.store)
        cleaner = Cleaner(settings=self.settings, catalog=self.catalog, stores=stores, now=lambda: self.now)
        return [result.problem for result in cleaner.run(**options) if result.problem]  # type: ignore[arg-type]

    def left(self) -> set[str]:
        return {record.backup_id for record in self.catalog.find(state="completed")}


@pytest.fixture
def archive(demo_database: DemoDatabase, tmp_path: Path) -> Archive:
    return Archive(demo_database, FileStore(tmp_path / "store"))


def test_on_every_store_old_backups_go_with_all_their_objects_and_strangers_stay(
    demo_database: DemoDatabase, make_store: MakeStore
) -> None:
    import io

    archive = Archive(demo_database, make_store(f"retention-{uuid4().hex}"))
    archive.store.put("backups/1/notas.txt", io.BytesIO(b"de otro"))
    old, new, other = archive.on_day(0), archive.on_day(40), archive.on_day(0, clinic_id=2)
    assert archive.clean(45, dry_run=True) == []
    assert archive.left() == {old.backup_id, new.backup_id, other.backup_id}
    assert archive.clean(45) == []
    # The other clinic's only backup is as old, and stays.
    assert archive.left() == {new.backup_id, other.backup_id}
    stay = [key for record in (new, other) for key in (record.archive_key, envelope_key_of(record.archive_key))]
    assert archive.objects() == sorted([*stay, "backups/1/notas.txt"])
    assert old.archive_key not in archive.objects()
    gone = archive.catalog.get(old.backup_id)
    assert gone is not None
    assert (gone.state, gone.deleted_at) == ("deleted", archive.now)
    assert archive.execute_rows("SELECT count(*) FROM clinic_backups.respaldo") == [(2,)]


def test_a_hold_keeps_it_until_it_is_released(archive: Archive) -> None:
    old, new = archive.on_day(0), archive.on_day(40)
    archive.catalog.hold(old, "pleito 12", "abogada")
    archive.clean(200)
    assert archive.left() == {old.backup_id, new.backup_id}
    with pytest.raises(PermanentError, match="on hold"):
        archive.catalog.mark_deleting(old)
    archive.catalog.release(old, "abogada", archive.now)
    archive.clean(200)
    assert archive.left() == {new.backup_id}


@pytest.mark.parametrize("moment", ["before", "after"])
@pytest.mark.parametrize("crash", range(6))
def test_a_run_that_was_killed_at_any_deletion_is_continued_by_the_next(
    demo_database: DemoDatabase, tmp_path: Path, crash: int, moment: str
) -> None:
    """Archive, envelope and note of a hold in each of two stores: six deletions."""
    one, two = FileStore(tmp_path / "one"), FileStore(tmp_path / "two")
    fleet = Fleet(demo_database, one, two)
    old, new = fleet.on_day(0), fleet.on_day(40)
    fleet.copy()
    calls: list[str] = []

    class Killed(FileStore):
        def delete(self, key: str) -> None:
            calls.append(key)
            if moment == "after":
                super().delete(key)
            if len(calls) == crash + 1:
                raise KeyboardInterrupt
            if moment == "before":
                super().delete(key)

    with pytest.raises(KeyboardInterrupt):
        fleet.clean(45, stores=Stores.of(Killed(one.root), Killed(two.root)))
    assert len(calls) == crash + 1
    assert fleet.state(old) == "deleting"
    assert [found.kind for url in fleet.stores.urls for found in fleet.check(url).discrepancies] == []
    (cleaned,) = fleet.clean(46)
    assert (cleaned.problem, cleaned.deleted) == ("", 1)
    for store in (one, two):
        assert set(objects_of(store)) == {new.archive_key, envelope_key_of(new.archive_key)}


@pytest.mark.parametrize("query", ["mark_deleting", "mark_deleted"])
def test_a_run_that_was_killed_between_store_and_catalog_is_continued_by_the_next(
    archive: Archive, query: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive.on_day(0)
    new = archive.on_day(40)
    with monkeypatch.context() as patch:
        patch.setattr(Catalog, query, killed)
        with pytest.raises(KeyboardInterrupt):
            archive.clean(45)
    assert archive.clean(46) == []
    assert archive.left() == {new.backup_id}
    assert archive.objects() == sorted([new.archive_key, envelope_key_of(new.archive_key)])


def killed(*arguments: object) -> None:
    raise KeyboardInterrupt


def test_a_clinic_that_is_being_backed_up_waits_and_the_others_do_not(archive: Archive) -> None:
    for clinic_id in (1, 2):
        archive.on_day(0, clinic_id)
        archive.on_day(40, clinic_id)
    with archive.catalog.lock(1):
        (problem,) = archive.clean(45)
    assert "Clinic 1 is being backed up" in problem
    assert len(archive.catalog.find(clinic_id=1, state="completed")) == 2
    assert len(archive.catalog.find(clinic_id=2, state="completed")) == 1


def test_a_clinic_may_have_a_policy_of_its_own(archive: Archive) -> None:
    archive.settings = Settings(
        recipients=archive.settings.recipients,
        clinic_retention={"1": {"keep_days": 400}},  # type: ignore[arg-type]
    )
    for clinic_id in (1, 2):
        archive.on_day(0, clinic_id)
        archive.on_day(40, clinic_id)
    archive.clean(100)
    assert [len(archive.catalog.find(clinic_id=number, state="completed")) for number in (1, 2)] == [2, 1]


def test_failed_records_are_forgotten_after_their_term(archive: Archive) -> None:
    def broken(progress: object) -> None:
        raise TransientError("x")

    old: Callable[[], datetime] = lambda: START  # noqa: E731
    with pytest.raises(TransientError):
        archive.run(1, now=old, on_progress=broken)
    archive.on_day(1)
    for day, left in ((80, 2), (100, 1)):
        archive.now = START + timedelta(days=day)
        Cleaner(
            settings=archive.settings, catalog=archive.catalog, stores=Stores.of(archive.store), now=lambda: archive.now
        ).forget_old()
        assert len(archive.catalog.find()) == left


def test_a_store_that_is_away_costs_nothing(demo_database: DemoDatabase, tmp_path: Path) -> None:
    """Not mounted, or another bucket of the same name: every object is missing, and nothing follows from it."""
    fleet = Fleet(demo_database, FileStore(tmp_path / "store"))
    records = [fleet.on_day(day) for day in (0, 10, 20, 90)]
    (tmp_path / "store").rename(tmp_path / "away")
    for make in (lambda: None, (tmp_path / "store").mkdir):
        make()
        (cleaned,) = fleet.clean(100)
        assert (cleaned.deleted, cleaned.losses) == (0, [])
        assert "holds no backup at all" in cleaned.problem
        for clinic_id in (None, 1):
            with pytest.raises(TransientError, match="holds no backup at all"):
                fleet.check(record=True, clinic_id=clinic_id)
        assert {fleet.state(record) for record in records} == {"completed"}
    # Even if all are said to be lost.
    for record in records:
        fleet.places.mark(record.backup_id, fleet.stores.urls[0], "lost", fleet.now)
    (cleaned,) = fleet.clean(100)
    assert [decision.reason for decision in cleaned.decisions] == [
        "not older than 30 days", *["the clinic has no good backup"] * 3,
    ]  # fmt: skip
    assert fleet.holds().hold(records[0].backup_id, "pleito", "abogada").hold_reason == "pleito"
    (tmp_path / "store").rmdir()
    (tmp_path / "away").rename(tmp_path / "store")
    fleet.check(record=True)
    assert {fleet.state(record) for record in records} == {"completed"}


def test_a_dry_run_changes_nothing(demo_database: DemoDatabase, tmp_path: Path) -> None:
    fleet = Fleet(demo_database, FileStore(tmp_path / "store"))
    for clinic_id in (1, 2):
        fleet.on_day(0, clinic_id)
        last = fleet.on_day(40, clinic_id)
    fleet.stores.primary.delete(last.archive_key)
    before = fleet.catalog.find()
    found = {result.clinic_id: result for result in fleet.clean(90, dry_run=True)}
    assert fleet.catalog.find() == before
    assert [loss.backup_id for loss in found[2].losses] == [last.backup_id]
    assert {decision.backup.started_at.month: decision.keep for decision in found[2].decisions} == {9: True, 10: False}


def test_a_store_that_is_down_is_asked_once_and_not_for_each_clinic(
    demo_database: DemoDatabase, tmp_path: Path
) -> None:
    fleet = Fleet(demo_database, FileStore(tmp_path / "store"))
    for clinic_id in (1, 2, 3):
        fleet.on_day(0, clinic_id)
        fleet.on_day(40, clinic_id)
    calls: list[str] = []

    class Down(FileStore):
        def stat(self, key: str) -> ObjectInfo:
            calls.append(key)
            raise TransientError("out of reach")

    cleaned = fleet.clean(90, stores=Stores.of(Down(tmp_path / "store")))
    assert [result.problem for result in cleaned] == ["out of reach"] * 3
    assert len(calls) == 1


def test_a_lock_that_only_the_store_knows_of_keeps_it_a_backup(demo_database: DemoDatabase, tmp_path: Path) -> None:
    fleet = Fleet(demo_database, FileStore(tmp_path / "store"))
    old = fleet.on_day(0)
    fleet.on_day(40)
    until = START + timedelta(days=200)

    class Locking(FileStore):
        def stat(self, key: str) -> ObjectInfo:
            return replace(super().stat(key), locked_until=until)

    (cleaned,) = fleet.clean(90, stores=Stores.of(Locking(tmp_path / "store")))
    assert (cleaned.deleted, cleaned.problem) == (0, "")
    assert (fleet.state(old), fleet.again(old).locked_until) == ("completed", until)
    (cleaned,) = fleet.clean(100)
    assert cleaned.decisions[1].reason.startswith("locked until")
    (cleaned,) = fleet.clean(201)
    assert cleaned.deleted == 1


def test_a_copy_that_died_before_it_was_recorded_is_deleted_too(demo_database: DemoDatabase, tmp_path: Path) -> None:
    fleet = Fleet(demo_database, FileStore(tmp_path / "one"), FileStore(tmp_path / "two"))
    old, new = fleet.on_day(0), fleet.on_day(40)
    fleet.copy()
    fleet.execute(f"DELETE FROM clinic_backups.backup_copy WHERE store_url = '{fleet.stores.urls[1]}'")
    fleet.clean(90)
    assert fleet.state(old) == "deleted"
    assert set(objects_of(fleet.stores.at(fleet.stores.urls[1]))) == {
        new.archive_key, envelope_key_of(new.archive_key),
    }  # fmt: skip
