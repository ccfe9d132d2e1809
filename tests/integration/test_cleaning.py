"""Retention deletes exactly the expired backups, on every store, and after a crash at any point."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, ClassVar
from uuid import uuid4

import pytest

from clinic_backups.archive.object_keys import envelope_key_of, hold_key_of, keys_beside
from clinic_backups.base.backup_record import BackupRecord
from clinic_backups.base.errors import ClinicBackupsError, PermanentError, TransientError
from clinic_backups.base.settings import Settings
from clinic_backups.catalog.records import Catalog
from clinic_backups.catalog.restores import RestoreRecord, Restores
from clinic_backups.maintenance.retention_run import Cleaner
from clinic_backups.stores import envelopes
from clinic_backups.stores.base import ObjectInfo, ObjectStore
from clinic_backups.stores.configured import Stores
from clinic_backups.stores.file import FileStore
from clinic_backups.stores.marker import MARKER_KEY
from tests.conftest import MakeStore
from tests.fleet import Fleet, objects_of, put
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
    fleet.replicate()
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


def killed(*arguments: object, **options: object) -> None:
    raise KeyboardInterrupt


def test_a_clinic_that_is_being_backed_up_waits_and_the_others_do_not(archive: Archive) -> None:
    for clinic_id in (1, 2):
        archive.on_day(0, clinic_id)
        archive.on_day(40, clinic_id)
    with archive.catalog.lock(1):
        (problem,) = archive.clean(45)
    assert "Clinic 1 is already being backed up" in problem
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
    for make, said in (
        (lambda: None, "is not there"),
        ((tmp_path / "store").mkdir, "none of the catalog's backups"),
    ):
        make()
        (cleaned,) = fleet.clean(100)
        assert (cleaned.deleted, cleaned.losses) == (0, [])
        assert said in cleaned.problem
        for clinic_id in (None, 1):
            with pytest.raises(ClinicBackupsError, match=said):
                fleet.check(record=True, clinic_id=clinic_id)
        assert {fleet.state(record) for record in records} == {"completed"}
    # Even if all are said to be lost.
    for record in records:
        fleet.replicas.mark(record.backup_id, fleet.stores.urls[0], "missing", fleet.now)
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

        def open(self, key: str) -> Any:
            return self.stat(key)

    cleaned = fleet.clean(90, stores=Stores.of(Down(tmp_path / "store")))
    assert [result.problem for result in cleaned] == ["out of reach"] * 3
    assert calls[1:] == [MARKER_KEY]


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


def test_a_replica_that_died_before_it_was_recorded_is_deleted_too(demo_database: DemoDatabase, tmp_path: Path) -> None:
    fleet = Fleet(demo_database, FileStore(tmp_path / "one"), FileStore(tmp_path / "two"))
    old, new = fleet.on_day(0), fleet.on_day(40)
    fleet.replicate()
    fleet.execute(f"DELETE FROM clinic_backups.backup_replica WHERE store_url = '{fleet.stores.urls[1]}'")
    fleet.clean(90)
    assert fleet.state(old) == "deleted"
    assert set(objects_of(fleet.stores.at(fleet.stores.urls[1]))) == {
        new.archive_key, envelope_key_of(new.archive_key),
    }  # fmt: skip


class Locks(FileStore):
    """A store that tells of locks: the day until which each key is locked."""

    days: ClassVar[dict[str, int]] = {}

    def stat(self, key: str) -> ObjectInfo:
        info = super().stat(key)
        day = self.days.get(key)
        return replace(info, locked_until=START + timedelta(days=day)) if day else info


def test_what_a_lock_of_the_buckets_own_keeps_needs_its_chain(demo_database: DemoDatabase, tmp_path: Path) -> None:
    store = Locks(tmp_path / "store")
    fleet = Fleet(demo_database, store)
    fleet.kind = "auto"
    full, child = fleet.on_day(0), fleet.on_day(5, incremental_percent=10_000)
    new = fleet.on_day(60)
    assert [record.kind for record in (full, child, new)] == ["full", "incremental", "full"]
    Locks.days = {full.archive_key: 60, child.archive_key: 65}
    (told,) = fleet.clean(62, dry_run=True)
    (cleaned,) = fleet.clean(62)
    assert cleaned.decisions == told.decisions
    assert [(each.keep, each.reason[:12]) for each in cleaned.decisions] == [
        (True, "the clinic's"), (True, "locked until"), (True, "needed by 1-"),
    ]  # fmt: skip
    assert {fleet.state(record) for record in (full, child, new)} == {"completed"}
    fleet.restored(fleet.again(child))
    (cleaned,) = fleet.clean(66)
    assert (cleaned.deleted, cleaned.problem) == (2, "")


def test_while_a_store_does_not_say_whether_it_locks_a_backup_it_stays_everywhere(
    demo_database: DemoDatabase, tmp_path: Path
) -> None:
    one, two = FileStore(tmp_path / "one"), FileStore(tmp_path / "two")
    fleet = Fleet(demo_database, one, two)
    old, new = fleet.on_day(0), fleet.on_day(40)
    fleet.replicate()
    (cleaned,) = fleet.clean(90, stores=Stores.of(one, Down(two.root)))
    assert [each.reason for each in cleaned.decisions][1:] == [f"{two.url} did not say whether it is locked there"]
    assert (cleaned.deleted, cleaned.problem, fleet.state(old)) == (0, "out of reach", "completed")
    assert old.archive_key in objects_of(one)
    # Locked there alone: it is not deleted here either.
    Locks.days = {old.archive_key: 200}
    (cleaned,) = fleet.clean(91, stores=Stores.of(one, Locks(two.root)))
    assert (cleaned.deleted, cleaned.problem, fleet.again(old).locked_until) == (0, "", START + timedelta(days=200))
    assert old.archive_key in objects_of(one)
    # A lock that is set while its deletion is under way: what is locked is not hidden.
    Locks.days = {old.archive_key: 300}
    with pytest.raises(KeyboardInterrupt):
        fleet.clean(210, stores=Stores.of(Killing(one.root), two))
    (cleaned,) = fleet.clean(211, stores=Stores.of(one, Locks(two.root)))
    assert (cleaned.deleted, fleet.state(old)) == (0, "deleting")
    assert cleaned.problem == f"{two.url} keeps {old.backup_id} locked until 2027-06-28T06:00:00Z."
    assert old.archive_key in objects_of(two)
    (cleaned,) = fleet.clean(301, stores=Stores.of(one, Locks(two.root)))
    assert (cleaned.deleted, fleet.state(old), fleet.state(new)) == (1, "deleted", "completed")


class Down(FileStore):
    def stat(self, key: str) -> ObjectInfo:
        raise TransientError("out of reach")


class Killing(FileStore):
    def delete(self, key: str) -> None:
        raise KeyboardInterrupt


@pytest.mark.parametrize("note", ["whole", "unreadable"])
def test_a_note_of_a_hold_that_the_catalog_does_not_know_keeps_it(
    demo_database: DemoDatabase, tmp_path: Path, note: str
) -> None:
    """The second store was down when it was set, and the catalog was rebuilt from there."""
    one, two = FileStore(tmp_path / "one"), FileStore(tmp_path / "two")
    fleet = Fleet(demo_database, one, two)
    old, _ = fleet.on_day(0), fleet.on_day(40)
    fleet.replicate()
    if note == "whole":
        envelopes.write_hold(replace(old, hold_reason="pleito", held_by="abogada"), one)
    else:
        put(one, hold_key_of(old.archive_key))
    reason = "pleito" if note == "whole" else "unreadable hold note"
    for _ in range(2):
        (cleaned,) = fleet.clean(90)
        assert cleaned.decisions[1].reason == f"on hold: {reason}"
    assert (fleet.state(old), fleet.again(old).hold_reason) == ("completed", reason)
    assert hold_key_of(old.archive_key) in objects_of(one)
    fleet.holds().release(old.backup_id, "juez")
    (cleaned,) = fleet.clean(90)
    assert (cleaned.deleted, set(objects_of(one)) & set(keys_beside(old.archive_key))) == (1, set())


def test_a_run_whose_lock_was_lost_deletes_nothing_more(demo_database: DemoDatabase, tmp_path: Path) -> None:
    fleet = Fleet(demo_database, FileStore(tmp_path / "store"))
    records = [fleet.on_day(day) for day in (0, 1, 40)]

    class Ending(FileStore):
        def delete(self, key: str) -> None:
            super().delete(key)
            fleet.execute_rows(
                "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory'"
                " AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
            )

    (cleaned,) = fleet.clean(90, stores=Stores.of(Ending(tmp_path / "store")))
    assert "lock in the catalog was lost" in cleaned.problem
    left = [record.archive_key in objects_of(fleet.stores.primary) for record in records]
    assert sorted(left) == [False, True, True]
    (cleaned,) = fleet.clean(91)
    assert [fleet.state(record) for record in records] == ["deleted", "deleted", "completed"]


def test_of_each_backup_the_archive_goes_first_and_a_store_that_fails_keeps_no_other_from_it(
    demo_database: DemoDatabase, tmp_path: Path
) -> None:
    calls: list[str] = []

    class Noting(FileStore):
        def delete(self, key: str) -> None:
            calls.append(key)
            super().delete(key)

    class Refusing(FileStore):
        def delete(self, key: str) -> None:
            raise PermanentError("Access denied.", hint="Allow it.")

    one, two, three = (FileStore(tmp_path / name) for name in ("one", "two", "three"))
    fleet = Fleet(demo_database, one, two, three)
    old = fleet.on_day(0)
    fleet.on_day(40)
    fleet.replicate()
    (cleaned,) = fleet.clean(90, stores=Stores.of(Refusing(one.root), Noting(two.root), three))
    assert (cleaned.deleted, cleaned.problem, fleet.state(old)) == (0, "Access denied.", "deleting")
    assert calls == list(keys_beside(old.archive_key))
    assert old.archive_key not in {*objects_of(two), *objects_of(three)}


def test_a_last_backup_without_an_envelope_is_none(demo_database: DemoDatabase, tmp_path: Path) -> None:
    """From the bucket alone it could not be restored."""
    fleet = Fleet(demo_database, FileStore(tmp_path / "store"))
    old, new = fleet.on_day(0), fleet.on_day(40)
    fleet.stores.primary.delete(envelope_key_of(new.archive_key))
    (cleaned,) = fleet.clean(90)
    assert [loss.backup_id for loss in cleaned.losses] == [new.backup_id]
    assert fleet.state(old) == "completed"


def test_what_undoes_a_restore_stays_for_seven_days(demo_database: DemoDatabase, tmp_path: Path) -> None:
    fleet = Fleet(demo_database, FileStore(tmp_path / "store"))
    safety, new = fleet.on_day(0), fleet.on_day(40)
    Restores(fleet.catalog.database).begin(
        RestoreRecord(
            restore_id="r-1", clinic_id=1, clinic_name="Uno", backup_id=new.backup_id, mode="exact", plan={},
            plan_digest="d", started_at=START + timedelta(days=80), safety_backup_id=safety.backup_id,
        )
    )  # fmt: skip
    for day, reason, state in ((86.9, "undoes restore r-1", "completed"), (87, "older than 30 days", "deleted")):
        (cleaned,) = fleet.clean(day)
        assert (cleaned.decisions[1].reason, fleet.state(safety)) == (reason, state)


def test_a_record_is_forgotten_after_its_deletion_and_not_while_another_names_it(
    demo_database: DemoDatabase, tmp_path: Path
) -> None:
    fleet = Fleet(demo_database, FileStore(tmp_path / "store"))
    fleet.kind = "auto"
    full, child = fleet.on_day(0), fleet.on_day(1, incremental_percent=10_000)
    fleet.on_day(60)
    fleet.clean(100)
    assert [fleet.state(record) for record in (full, child)] == ["deleted", "deleted"]
    with pytest.raises(PermanentError, match="is not completed or lost"):
        fleet.catalog.hold(full, "pleito", "abogada")
    forgotten = [fleet.catalog.forget(before=START + timedelta(days=day)) for day in (99, 101, 101)]
    assert forgotten == [0, 1, 1]


@pytest.mark.parametrize("dry_run", [True, False])
def test_a_backup_whose_parent_turns_out_to_be_gone_is_not_asked_for_again(
    demo_database: DemoDatabase, tmp_path: Path, dry_run: bool
) -> None:
    fleet = Fleet(demo_database, FileStore(tmp_path / "store"))
    fleet.kind = "auto"
    old, older = fleet.on_day(0), fleet.on_day(1, full_every_days=1)
    full, child = fleet.on_day(60), fleet.on_day(61, incremental_percent=10_000)
    assert [record.kind for record in (old, older, full, child)] == ["full", "full", "full", "incremental"]
    fleet.stores.primary.delete(full.archive_key)
    (cleaned,) = fleet.clean(70, dry_run=dry_run)
    assert [(loss.backup_id, loss.problem) for loss in cleaned.losses][:1] == [(full.backup_id, "missing")]
    assert {each.backup.backup_id: each.keep for each in cleaned.decisions} == {
        old.backup_id: False, older.backup_id: True, full.backup_id: True, child.backup_id: True,
    }  # fmt: skip
