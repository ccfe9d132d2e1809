"""Comparing stores and catalog: losses are recorded, debris is removed, and foreign objects stay."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, BinaryIO
from uuid import uuid4

import pytest

from clinic_backups.archive.object_keys import envelope_key_of, hold_key_of, parse_key
from clinic_backups.base.errors import ClinicBackupsError, IntegrityError, PermanentError, TransientError
from clinic_backups.catalog.locks import AlreadyRunning
from clinic_backups.maintenance.outages import GIVEN_UP_AFTER
from clinic_backups.maintenance.store_comparison import Inventory
from clinic_backups.restore.find_backup import choose_backup
from clinic_backups.restore.request import RestoreRequest
from clinic_backups.stores import envelopes
from clinic_backups.stores.base import ObjectInfo, UnfinishedUpload
from clinic_backups.stores.connect import store_from_client
from clinic_backups.stores.file import FileStore
from clinic_backups.stores.marker import MARKER_KEY
from tests.conftest import BUCKET, MakeStore
from tests.fleet import Fleet, age, flip, lose_locks, objects_of, put
from tests.postgres_fixtures import DemoDatabase

OTHERS = (
    "backups/1/notas.txt",
    "backups/1/2026/09/backup_otra.tar.zst.age",
    "backups/1/2026/09/backup_clinica_2_20260901_060000.tar.zst.age",  # of clinic 2, in the folder of 1
    "backups/1/2026/09/backup_clinica_1_20260901_060000.tar.zst.age.tmp",
    "backups/01/2026/09/backup_clinica_1_20260901_060000.json",
    "backups/fotos/1.jpg",
    "backups/notas.txt",
    "preflight/informe.pdf",
)
ELSEWHERE = ("informe.pdf", "backups.txt", "otros/backups/1/2026/09/backup_x_1_20260901_060000.json")


def key(day: int, *, clinic_id: int = 1, part: str = ".tar.zst.age") -> str:
    return f"backups/{clinic_id}/2026/09/backup_clinica_{clinic_id}_202609{day:02}_060000{part}"


def found(inventory: Inventory) -> dict[str, str]:
    return {item.key: f"{item.kind} {item.action}".strip() for item in inventory.discrepancies}


@pytest.fixture
def fleet(demo_database: DemoDatabase, tmp_path: Path) -> Fleet:
    return Fleet(demo_database, FileStore(tmp_path / "store"))


def test_on_every_store_debris_goes_and_others_and_backups_stay(
    demo_database: DemoDatabase, make_store: MakeStore
) -> None:
    fleet = Fleet(demo_database, make_store(f"sweep-{uuid4().hex}"))
    store = fleet.stores.primary
    record, other = fleet.on_day(0), fleet.on_day(0.1, 2)
    unknown = {key(20): b"archive", key(20, part=".json"): b"{}"}
    others = dict.fromkeys((*OTHERS, *ELSEWHERE), b"de otro") | unknown
    debris = [key(1), key(2, part=".json"), key(3, part=".hold.json"), f"preflight/{uuid4()}", key(4, clinic_id=77)]
    for name in (*others, *debris):
        put(store, name, others.get(name, b"resto"))
    ours = [name for made in (record, other) for name in (made.archive_key, envelope_key_of(made.archive_key))]
    before = objects_of(store)

    # Of today: it may belong to something that goes on.
    fleet.now = datetime.now(UTC) + timedelta(hours=23)
    fresh = fleet.check(sweep=True, record=True)
    assert found(fresh) == {key(20): "unknown backup"}
    assert fresh.other_objects == len(OTHERS)
    fleet.now = datetime.now(UTC) + timedelta(hours=25)
    assert found(fleet.check()) == {key(20): "unknown backup"} | dict.fromkeys(debris, "debris")
    assert objects_of(store) == before

    swept = fleet.check(sweep=True, record=True)
    assert found(swept) == {key(20): "unknown backup"} | dict.fromkeys(debris, "debris removed")
    assert objects_of(store) == {name: before[name] for name in (*ours, *others)}
    assert found(fleet.check(sweep=True)) == {key(20): "unknown backup"}
    assert [fleet.state(made) for made in (record, other)] == ["completed", "completed"]


def test_unfinished_uploads_go_after_a_day(fleet: Fleet, tmp_path: Path) -> None:
    record = fleet.on_day(0)
    path = tmp_path / "store" / key(2)
    part = path.with_name(f".~{path.name}.{uuid4().hex}.part")
    part.write_bytes(b"half")
    fleet.now = datetime.now(UTC)
    assert fleet.check(sweep=True).discrepancies == []
    os.utime(part, (time.time() - 90_000,) * 2)
    (item,) = fleet.check().discrepancies
    assert (item.kind, item.key) == ("unfinished upload", key(2))
    assert part.exists()
    (item,) = fleet.check(sweep=True).discrepancies
    assert item.action == "removed"
    assert not part.exists()
    assert fleet.state(record) == "completed"


def test_uploads_of_others_go_on(demo_database: DemoDatabase, s3_client: Any) -> None:
    prefix = f"uploads/{uuid4().hex}"
    fleet = Fleet(demo_database, store_from_client(f"s3://{BUCKET}/{prefix}", s3_client))
    fleet.on_day(0)
    ours = [key(2), key(2, part=".json"), key(3, clinic_id=77)]
    others = [*OTHERS, *ELSEWHERE, "backups/1/.~doc", f"backups/1/2026/09/.~backup.{uuid4().hex}.part"]
    for name in (*ours, *others):
        s3_client.create_multipart_upload(Bucket=BUCKET, Key=f"{prefix}/{name}")
    fleet.now = datetime.now(UTC) + timedelta(hours=25)
    assert found(fleet.check()) == dict.fromkeys(ours, "unfinished upload")
    assert found(fleet.check(sweep=True)) == dict.fromkeys(ours, "unfinished upload removed")
    left = [upload.key for upload in fleet.stores.primary.unfinished()]
    assert sorted(left) == sorted(others)


@pytest.mark.parametrize("busy", ["clinic", "replicas"])
def test_nothing_is_removed_or_recorded_of_a_clinic_that_is_worked_at(fleet: Fleet, busy: str, tmp_path: Path) -> None:
    record = fleet.on_day(0)
    store = fleet.stores.primary
    put(store, key(2))
    age(tmp_path / "store", 2)
    store.delete(record.archive_key)
    fleet.now = datetime.now(UTC)
    with fleet.catalog.lock(1, busy):  # type: ignore[arg-type]
        inventory = fleet.check(record=True, sweep=True)
    assert [what for what, _ in inventory.problems] == ["clinic 1"]
    assert inventory.discrepancies == []
    assert key(2) in objects_of(store)
    assert fleet.state(record) == "completed"


@pytest.mark.parametrize("damage", ["gone", "shorter", "all gone"])
def test_what_is_lost_is_recorded_and_when_it_is_back_that_too(fleet: Fleet, damage: str) -> None:
    store = fleet.stores.primary
    old, record = fleet.on_day(0), fleet.on_day(1)
    whole = objects_of(store)
    store.delete(record.archive_key)
    if damage == "shorter":
        put(store, record.archive_key, whole[record.archive_key][:-1])
    if damage == "all gone":
        store.delete(envelope_key_of(record.archive_key))
    kind = "damaged" if damage == "shorter" else "missing"
    assert found(fleet.check()) == {record.archive_key: kind}
    assert fleet.state(record) == "completed"
    inventory = fleet.check(record=True)
    assert found(inventory) == {record.archive_key: f"{kind} recorded"}
    assert [(loss.backup_id, loss.problem) for loss in inventory.losses] == [(record.backup_id, kind)]
    assert fleet.state(record) == "lost"
    assert fleet.catalog.latest(1, fleet.now) == fleet.again(old)
    assert fleet.check(record=True).losses == []

    store.delete(record.archive_key)
    put(store, record.archive_key, whole[record.archive_key])
    if damage == "all gone":
        put(store, envelope_key_of(record.archive_key), whole[envelope_key_of(record.archive_key)])
    assert found(fleet.check(record=True)) == {record.archive_key: "found recorded"}
    assert fleet.state(record) == "completed"


@pytest.mark.parametrize("damage", ["gone", "flipped", "shorter", "forgotten"])
def test_what_is_lost_is_told_each_time_until_it_is_back_or_deleted(fleet: Fleet, damage: str) -> None:
    store = fleet.stores.primary
    record = fleet.on_day(0)
    whole = objects_of(store)[record.archive_key]
    fleet.on_day(1, 2)
    if damage == "flipped":
        flip(store, record.archive_key)
    else:
        store.delete(record.archive_key)
    if damage == "shorter":
        put(store, record.archive_key, whole[:-1])
    fleet.check(record=True, read=True)
    assert fleet.state(record) == "lost"
    if damage == "forgotten":
        fleet.execute(f"DELETE FROM clinic_backups.backup_replica WHERE backup_id = '{record.backup_id}'")
    kind = "no store" if damage == "forgotten" else "lost"
    for task in ({}, {"read": True}, {"record": True}, {"record": True, "read": True}):
        assert [(item.key, item.kind) for item in fleet.check(**task).wrong] == [(record.archive_key, kind)]
    with pytest.raises(PermanentError, match=f"no completed backup; {record.backup_id} is lost: no store has"):
        choose_backup(fleet.catalog, RestoreRequest(clinic_id=1), fleet.now)
    store.delete(record.archive_key)
    put(store, record.archive_key, whole)
    assert found(fleet.check()) == {record.archive_key: "found"}
    assert found(fleet.check(record=True)) == {record.archive_key: "found recorded"}
    assert found(fleet.check(read=True)) == {}


def test_what_another_store_has_is_not_lost_and_a_child_is_not_told_for_its_parent(
    demo_database: DemoDatabase, tmp_path: Path
) -> None:
    fleet = Fleet(demo_database, FileStore(tmp_path / "one"), FileStore(tmp_path / "two"))
    one, two = fleet.stores
    fleet.kind = "auto"
    full, child = (fleet.on_day(day, incremental_percent=10_000) for day in (0, 1))
    fleet.replicate()
    one.delete(full.archive_key)
    fleet.check(one.url, record=True)
    assert found(fleet.check(one.url)) == {}
    two.delete(full.archive_key)
    fleet.check(two.url, record=True)
    assert (fleet.state(full), fleet.state(child)) == ("lost", "lost")
    for store in (one, two):
        (item,) = fleet.check(store.url).wrong
        assert (item.kind, item.key, item.needed_by) == ("lost", full.archive_key, (child.backup_id,))


def test_what_comes_back_of_an_erased_clinic_is_told_as_such(fleet: Fleet) -> None:
    store = fleet.stores.primary
    old, other = fleet.on_day(0), fleet.on_day(0, 2)
    erased = objects_of(store)
    fleet.erase(1, 1)
    later, _ = fleet.on_day(2), fleet.on_day(3)
    for name in (old.archive_key, envelope_key_of(old.archive_key)):
        put(store, name, erased[name])
    fleet.execute(f"DELETE FROM clinic_backups.backup WHERE backup_id IN ('{later.backup_id}', '{other.backup_id}')")
    for task in ({}, {"record": True, "read": True, "sweep": True}):
        assert found(fleet.check(**task)) == {
            old.archive_key: "erased backup", later.archive_key: "unknown backup", other.archive_key: "unknown backup",
        }  # fmt: skip
        assert [item.kind for item in fleet.check(**task).wrong] == ["erased backup"]


def test_a_flipped_byte_is_found_by_reading_and_not_believed_again_by_its_size(fleet: Fleet) -> None:
    store = fleet.stores.primary
    record = fleet.on_day(0)
    flip(store, record.archive_key)
    assert found(fleet.check(record=True)) == {}
    assert found(fleet.check(read=True, record=True)) == {record.archive_key: "damaged recorded"}
    assert fleet.state(record) == "lost"
    assert found(fleet.check(record=True)) == {}
    assert fleet.state(record) == "lost"


def test_a_missing_envelope_is_written_again(fleet: Fleet) -> None:
    store = fleet.stores.primary
    record = fleet.on_day(0)
    whole = objects_of(store)
    store.delete(envelope_key_of(record.archive_key))
    assert found(fleet.check()) == {record.archive_key: "no envelope"}
    assert found(fleet.check(record=True)) == {record.archive_key: "no envelope written again"}
    assert objects_of(store) == whole


def test_one_clinic_can_be_looked_at_alone(fleet: Fleet) -> None:
    mine, other = fleet.on_day(0), fleet.on_day(0.1, 2)
    for made in (mine, other):
        fleet.stores.primary.delete(made.archive_key)
    assert found(fleet.check(clinic_id=1, record=True)) == {mine.archive_key: "missing recorded"}
    assert [fleet.state(made) for made in (mine, other)] == ["lost", "completed"]


def test_retention_does_not_count_on_a_last_backup_that_is_gone(fleet: Fleet) -> None:
    old, older = fleet.on_day(1), fleet.on_day(0)
    new = fleet.on_day(40)
    fleet.stores.primary.delete(new.archive_key)
    (cleaned,) = fleet.clean(45)
    assert [loss.backup_id for loss in cleaned.losses] == [new.backup_id]
    assert [fleet.state(made) for made in (new, old, older)] == ["lost", "completed", "deleted"]
    # The record of the lost one goes in its time, with what may be left of it.
    fleet.on_day(60)
    fleet.clean(90)
    assert fleet.state(new) == "deleted"
    assert envelope_key_of(new.archive_key) not in objects_of(fleet.stores.primary)


@pytest.mark.parametrize("theirs", [OTHERS, ("backups/2024/db.dump",), (key(2), key(2, part=".json"), key(3))])
@pytest.mark.parametrize("clinic_id", [None, 1])
def test_in_another_bucket_nothing_is_lost_and_nothing_is_swept(
    fleet: Fleet, tmp_path: Path, theirs: tuple[str, ...], clinic_id: int | None
) -> None:
    """Where somebody else's objects lie, or backups of another installation."""
    records = [fleet.on_day(0), fleet.on_day(40)]
    (tmp_path / "store").rename(tmp_path / "ours")
    fleet.stores.primary.make_place()
    for name in theirs:
        put(fleet.stores.primary, name)
    age(tmp_path / "store", 2)
    fleet.now = datetime.now(UTC)
    before = objects_of(fleet.stores.primary)
    for task in ({"record": True}, {"sweep": True}):
        with pytest.raises(TransientError, match="holds none of the catalog's backups"):
            fleet.check(clinic_id=clinic_id, **task)
    (cleaned,) = fleet.clean(100)
    assert (cleaned.deleted, cleaned.losses) == (0, [])
    assert "holds none of the catalog's backups" in cleaned.problem
    assert [fleet.state(record) for record in records] == ["completed", "completed"]
    assert objects_of(fleet.stores.primary) == before


@pytest.mark.parametrize("state", ["gone", "shorter", "whole"])
def test_a_backup_of_which_no_store_is_known_is_told(fleet: Fleet, state: str) -> None:
    record, store = fleet.on_day(0), fleet.stores.primary
    whole = objects_of(store)[record.archive_key]
    fleet.on_day(1)
    fleet.execute(f"DELETE FROM clinic_backups.backup_replica WHERE backup_id = '{record.backup_id}'")
    if state != "whole":
        store.delete(record.archive_key)
    if state == "shorter":
        put(store, record.archive_key, whole[:-1])
    kind = "found" if state == "whole" else "no store"
    before = objects_of(store)
    assert found(fleet.check()) == {record.archive_key: kind}
    done = f"{kind} recorded" if state == "whole" else kind
    assert found(fleet.check(record=True, sweep=True)) == {record.archive_key: done}
    assert objects_of(store) == before
    assert fleet.state(record) == "completed"
    # Where it should be and is not is another thing.
    fleet.replicas.mark(record.backup_id, "file:///elsewhere", "intact", fleet.now)
    assert found(fleet.check()) == {}


@pytest.mark.parametrize("name", [*OTHERS, *ELSEWHERE])
def test_names_of_others_are_none_of_ours(name: str) -> None:
    assert parse_key(name) is None


def test_own_names_are_known_again(fleet: Fleet) -> None:
    record = fleet.on_day(0)
    for name, part in (
        (record.archive_key, "archive"),
        (envelope_key_of(record.archive_key), "envelope"),
        (hold_key_of(record.archive_key), "hold"),
    ):
        parts = parse_key(name)
        assert parts is not None
        assert (parts.clinic_id, parts.archive_key, parts.part) == (1, record.archive_key, part)


NOT_AN_ENVELOPE = {
    "empty": b"",
    "too large": b"{" + b" " * envelopes.MAX_BYTES + b"}",
    "no JSON": b"\xff",
    "no envelope": b'{"format": 1}',
}


def exchange(fleet: Fleet, key: str, content: bytes) -> None:
    fleet.stores.primary.delete(key)
    put(fleet.stores.primary, key, content)


def other_notes(content: bytes) -> bytes:
    changed = content.replace(b'"notes": ""', b'"notes": "otra"')
    assert changed != content
    return changed


@pytest.mark.parametrize("damage", [*NOT_AN_ENVELOPE, "another one"])
def test_a_damaged_envelope_is_found_by_reading_and_written_again(fleet: Fleet, damage: str) -> None:
    store = fleet.stores.primary
    record = fleet.on_day(0)
    whole, name = objects_of(store), envelope_key_of(record.archive_key)
    exchange(fleet, name, NOT_AN_ENVELOPE.get(damage) or (other_notes(whole[name]) if "one" in damage else b""))
    # Where the listing shows that it cannot be one, without reading.
    cheap = {record.archive_key: "no envelope"} if damage in ("empty", "too large") else {}
    assert found(fleet.check()) == cheap
    assert found(fleet.check(read=True)) == {record.archive_key: "no envelope"}
    assert found(fleet.check(read=True, record=True)) == {record.archive_key: "no envelope written again"}
    assert objects_of(store) == whole
    assert found(fleet.check(read=True)) == {}


def test_an_envelope_of_another_archive_is_told_and_left_alone(fleet: Fleet) -> None:
    store = fleet.stores.primary
    record = fleet.on_day(0)
    name = envelope_key_of(record.archive_key)
    exchange(fleet, name, objects_of(store)[name].replace((record.sha256 or "").encode(), b"0" * 64))
    before = objects_of(store)
    inventory = fleet.check(read=True, record=True)
    assert found(inventory) == {record.archive_key: "no envelope"}
    assert [(what, type(error)) for what, error in inventory.problems] == [(record.archive_key, IntegrityError)]
    assert objects_of(store) == before
    assert inventory.unchecked == []


def test_where_a_clinic_is_put_right_all_its_envelopes_are_looked_at(fleet: Fleet) -> None:
    lost, record = fleet.on_day(0), fleet.on_day(1)
    exchange(fleet, envelope_key_of(record.archive_key), b"x")
    assert found(fleet.check(record=True)) == {}
    fleet.stores.primary.delete(lost.archive_key)
    assert found(fleet.check(record=True)) == {
        lost.archive_key: "missing recorded",
        record.archive_key: "no envelope written again",
    }


def test_a_lock_that_lasts_longer_than_the_envelope_knew_is_no_discrepancy(fleet: Fleet) -> None:
    fleet.on_day(0)
    fleet.execute("UPDATE clinic_backups.backup SET locked_until = now() + interval '9 days'")
    assert found(fleet.check(read=True)) == {}


@pytest.mark.parametrize("damage", ["gone", "released", "no note", "another reason"])
def test_a_hold_note_that_does_not_fit_is_written_again(fleet: Fleet, damage: str) -> None:
    store = fleet.stores.primary
    record = fleet.on_day(0)
    name = hold_key_of(record.archive_key)
    fleet.holds().hold(record.backup_id, "pleito", "abogada")
    assert found(fleet.check(read=True)) == {}
    note = objects_of(store)[name]
    if damage == "released":
        # The store was down then.
        fleet.later(hours=1)
        fleet.holds().release(record.backup_id, "juez")
        put(store, name, note)
    else:
        store.delete(name)
        if damage != "gone":
            put(store, name, b"[]" if damage == "no note" else b'{"reason": "otro", "by": "abogada"}')
    listed = damage in ("gone", "released")
    assert found(fleet.check()) == ({name: "hold note"} if listed else {})
    assert found(fleet.check(read=True)) == {name: "hold note"}
    done = fleet.check(record=True, read=not listed)
    assert found(done) == {name: f"hold note {'removed' if damage == 'released' else 'written again'}"}
    assert envelopes.load_hold(record.archive_key, store) == (
        None if damage == "released" else ("pleito", "abogada")
    )  # fmt: skip
    assert found(fleet.check(read=True)) == {}


def note_of(reason: str = "pleito", at: object = None) -> bytes:
    return json.dumps({"reason": reason, "by": "abogada", "at": at}).encode()


UNREADABLE = "unreadable hold note"


@pytest.mark.parametrize(
    ("note", "released", "holds"),
    [
        (note_of(at="2026-09-01T06:00:00Z"), False, "pleito"),
        (note_of(), False, "pleito"),
        (b"[]", False, UNREADABLE),
        # A release is an end only of what was held before: the catalog came back from an older copy of itself, say.
        (note_of(at="2026-09-01T05:59:59Z"), True, None),
        (note_of(at="2026-09-01T06:00:00Z"), True, None),
        (note_of(at="2026-09-01T06:00:01Z"), True, "pleito"),
        (note_of(), True, "pleito"),
        (note_of(at="2026-09-01T05:00:00"), True, "pleito"),
        (note_of(at="9999-12-31T23:59:59-12:00"), True, "pleito"),
        (note_of(at=7), True, "pleito"),
        (b"[]", True, UNREADABLE),
    ],
)
@pytest.mark.parametrize("by", ["check", "rebuild"])
def test_a_hold_that_the_catalog_does_not_know_is_taken_over_unless_it_was_released(
    fleet: Fleet, by: str, note: bytes, released: bool, holds: str | None
) -> None:
    store = fleet.stores.primary
    record = fleet.on_day(0)
    if released:
        fleet.holds().release(record.backup_id, "juez")
    put(store, hold_key_of(record.archive_key), note)
    assert found(fleet.check()) == {hold_key_of(record.archive_key): "hold note"}
    assert fleet.again(record).hold_reason is None
    if by == "rebuild":
        assert fleet.rebuild().held == (holds is not None)
    else:
        fleet.check(record=True)
        assert ("hold" in str(objects_of(store).keys())) == (holds is not None)
    assert fleet.again(record).hold_reason == holds
    fleet.check(record=True, read=True)
    assert found(fleet.check(read=True)) == {}
    everything = fleet.catalog.find()
    assert [each.hold_reason for each in everything] == [holds]
    if holds:
        fleet.holds().release(record.backup_id, "juez")
        assert hold_key_of(record.archive_key) not in objects_of(store)


def test_a_hold_that_one_store_alone_noted_outlives_the_catalog(demo_database: DemoDatabase, tmp_path: Path) -> None:
    class Down(FileStore):
        def delete(self, key: str) -> None:
            raise TransientError("out of reach")

    fleet = Fleet(demo_database, FileStore(tmp_path / "one"), FileStore(tmp_path / "two"))
    one, two = fleet.stores
    record = fleet.on_day(0)
    fleet.on_day(40)
    fleet.replicate()
    stores, fleet.stores = fleet.stores, type(fleet.stores).of(one, Down(tmp_path / "two"))
    with pytest.raises(TransientError, match="out of reach"):
        fleet.holds().hold(record.backup_id, "pleito", "abogada")
    fleet.stores = stores
    held_at = fleet.now
    fleet.execute("TRUNCATE clinic_backups.backup CASCADE")
    fleet.rebuild(two)
    assert fleet.again(record).hold_reason is None
    # A replica is made first: it leaves the note alone.
    assert fleet.replicate(patient=True).problems == []
    assert found(fleet.check(one.url, record=True)) == {hold_key_of(record.archive_key): "hold note recorded"}
    again = fleet.again(record)
    assert (again.hold_reason, again.held_by, again.held_at) == ("pleito", "abogada (note in the store)", held_at)
    assert found(fleet.check(two.url, record=True)) == {hold_key_of(record.archive_key): "hold note written again"}
    fleet.clean(400)
    assert fleet.state(record) == "completed"


def test_with_a_replica_that_is_found_its_hold_is(fleet: Fleet) -> None:
    record = fleet.on_day(0)
    put(fleet.stores.primary, hold_key_of(record.archive_key), note_of())
    fleet.replicas.mark(record.backup_id, fleet.stores.primary.url, "missing", fleet.now)
    fleet.check(record=True)
    again = fleet.again(record)
    assert (again.state, again.hold_reason) == ("completed", "pleito")


@pytest.mark.parametrize("state", ["failed", "deleted"])
def test_what_is_a_backup_is_never_debris_whatever_its_record_says(fleet: Fleet, state: str, tmp_path: Path) -> None:
    record = fleet.on_day(0)
    before = objects_of(fleet.stores.primary)
    deleted_at = "now()" if state == "deleted" else "NULL"
    fleet.execute(f"UPDATE clinic_backups.backup SET state = '{state}', deleted_at = {deleted_at}")
    age(tmp_path / "store", 2)
    fleet.now = datetime.now(UTC)
    assert found(fleet.check(sweep=True, record=True)) == {record.archive_key: "unknown backup"}
    assert objects_of(fleet.stores.primary) == before
    # One half of it is.
    fleet.stores.primary.delete(record.archive_key)
    assert found(fleet.check(sweep=True)) == {envelope_key_of(record.archive_key): "debris removed"}


@pytest.mark.parametrize("part", [".tar.zst.age", ".json", ".hold.json"])
def test_what_a_running_backup_has_stored_is_no_debris(fleet: Fleet, tmp_path: Path, part: str) -> None:
    """However old it is: the run may have been killed, and its next attempt goes on with the record."""
    record = fleet.on_day(0)
    fleet.execute("UPDATE clinic_backups.backup SET state = 'running', finished_at = NULL")
    store = fleet.stores.primary
    for name in objects_of(store):
        store.delete(name)
    put(store, record.archive_key.removesuffix(".tar.zst.age") + part)
    age(tmp_path / "store", 9)
    fleet.now = datetime.now(UTC)
    assert found(fleet.check(sweep=True)) == {}
    assert len(objects_of(store)) == 1


class Troubled(FileStore):
    """Does something else where it is asked for some key."""

    def __init__(self, root: Path, **instead: Callable[[str], object]) -> None:
        super().__init__(root)
        self.instead = instead

    def _meanwhile(self, what: str, key: str) -> None:
        self.instead.get(what, lambda key: None)(key)

    def open(self, key: str) -> AbstractContextManager[BinaryIO]:
        self._meanwhile("open", key)
        return super().open(key)

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        self._meanwhile("list", prefix)
        return super().list(prefix)

    def delete(self, key: str) -> None:
        self._meanwhile("delete", key)
        super().delete(key)

    def unfinished(self, prefix: str = "") -> Iterator[UnfinishedUpload]:
        self._meanwhile("unfinished", prefix)
        return super().unfinished(prefix)


def troubled(fleet: Fleet, tmp_path: Path, **instead: Callable[[str], object]) -> None:
    """From now on the fleet's store is one that does something else."""
    store = Troubled(tmp_path / "store", **instead)
    fleet.stores = type(fleet.stores).of(store)


def refusing(error: type[ClinicBackupsError], *keys: str) -> Callable[[str], None]:
    def refuse(key: str) -> None:
        if not keys or key in keys:
            raise error("refused")

    return refuse


def test_who_may_not_list_uploads_gets_the_rest_checked(fleet: Fleet, tmp_path: Path) -> None:
    record = fleet.on_day(0)
    fleet.stores.primary.delete(record.archive_key)
    troubled(fleet, tmp_path, unfinished=refusing(PermanentError))
    inventory = fleet.check(record=True)
    assert [(what, error.message) for what, error in inventory.problems] == [("unfinished uploads", "refused")]
    assert found(inventory) == {record.archive_key: "missing recorded"}
    assert inventory.unchecked == []


@pytest.mark.parametrize("error", [PermanentError, TransientError])
def test_what_cannot_be_read_throws_nothing_else_away(
    fleet: Fleet, tmp_path: Path, error: type[ClinicBackupsError]
) -> None:
    first, second, other = fleet.on_day(0), fleet.on_day(1), fleet.on_day(0.1, 2)
    flip(fleet.stores.primary, second.archive_key)
    fleet.stores.primary.delete(other.archive_key)
    troubled(fleet, tmp_path, open=refusing(error, first.archive_key))
    inventory = fleet.check(record=True, read=True)
    assert [what for what, _ in inventory.problems] == [first.archive_key]
    assert found(inventory) == {second.archive_key: "damaged recorded", other.archive_key: "missing recorded"}
    assert [loss.backup_id for loss in inventory.losses] == [second.backup_id, other.backup_id]
    # A whole clinic.
    fleet.stores.primary.delete(second.archive_key)
    troubled(fleet, tmp_path, list=refusing(error, "backups/1/"))
    fleet.execute("UPDATE clinic_backups.backup_replica SET state = 'present'")
    fleet.execute("UPDATE clinic_backups.backup SET state = 'completed'")
    inventory = fleet.check(record=True)
    assert [what for what, _ in inventory.problems] == ["clinic 1"]
    assert inventory.unchecked == [1]
    assert found(inventory) == {other.archive_key: "missing recorded"}


def test_a_store_that_goes_down_is_not_asked_for_every_archive(fleet: Fleet, tmp_path: Path) -> None:
    for day in range(GIVEN_UP_AFTER + 2):
        fleet.on_day(day)
    fleet.on_day(0.1, 2)
    asked: list[str] = []

    def down(key: str) -> None:
        asked.append(key)
        raise TransientError("out of reach")

    troubled(fleet, tmp_path, open=down)
    inventory = fleet.check(record=True, read=True)
    # Then it is asked for its marker: if it showed it, only this clinic's objects would be at fault.
    assert (len(asked), asked[-1]) == (GIVEN_UP_AFTER + 1, MARKER_KEY)
    assert inventory.unchecked == [1, 2]
    assert [error.message for _, error in inventory.problems] == ["out of reach"] * GIVEN_UP_AFTER


def test_what_was_recorded_before_a_kill_is_told(fleet: Fleet, tmp_path: Path) -> None:
    lost = [fleet.on_day(0), fleet.on_day(1)]
    other = fleet.on_day(0.1, 2)
    for record in (*lost, other):
        fleet.stores.primary.delete(record.archive_key)

    def kill(prefix: str) -> None:
        if prefix == "backups/2/":
            raise KeyboardInterrupt

    troubled(fleet, tmp_path, list=kill)
    with pytest.raises(KeyboardInterrupt):
        fleet.check(record=True)
    assert [fleet.state(record) for record in (*lost, other)] == ["lost", "lost", "completed"]
    ((facts,),) = fleet.execute_rows("SELECT facts FROM clinic_backups.notification WHERE kind = 'loss'")
    assert {loss["backup_id"] for loss in facts["lost"]} == {record.backup_id for record in lost}
    assert facts["without"] == [{"clinic_id": 1, "clinic_name": lost[0].clinic_name}]


def test_archives_are_read_without_the_locks_and_only_suspects_again_with_them(fleet: Fleet, tmp_path: Path) -> None:
    good, bad = fleet.on_day(0), fleet.on_day(1)
    flip(fleet.stores.primary, bad.archive_key)
    reads: list[tuple[str, bool]] = []

    def look(key: str) -> None:
        if key.endswith(".age"):
            try:
                with fleet.catalog.lock(1), fleet.catalog.lock(1, "replicas"):
                    reads.append((key, True))
            except AlreadyRunning:
                reads.append((key, False))

    troubled(fleet, tmp_path, open=look)
    assert found(fleet.check(read=True, record=True)) == {bad.archive_key: "damaged recorded"}
    assert sorted(reads) == sorted([(good.archive_key, True), (bad.archive_key, True), (bad.archive_key, False)])


@pytest.mark.parametrize("moment", ["before a loss is recorded", "before a removal", "between two removals"])
def test_when_the_lock_is_lost_nothing_more_is_done_about_that_clinic(
    fleet: Fleet, tmp_path: Path, moment: str
) -> None:
    lost, other, store = fleet.on_day(0), fleet.on_day(0.1, 2), fleet.stores.primary
    debris = [key(day, clinic_id=number) for number in (1, 2) for day in (2, 3)]
    for name in debris:
        put(store, name)
    if moment == "before a loss is recorded":
        store.delete(lost.archive_key)
    age(tmp_path / "store", 2)
    fleet.now = datetime.now(UTC)
    asked: list[str] = []

    def cut(asked_for: str) -> None:
        if asked_for in ("backups/1/", debris[0]):
            asked.append(asked_for)
            # The second listing is the one under the locks.
            if asked_for == debris[0] or len(asked) == 2:
                lose_locks(fleet)

    troubled(fleet, tmp_path, **{"delete" if moment == "between two removals" else "list": cut})
    inventory = fleet.check(record=True, sweep=True)
    ((what, error),) = inventory.problems
    assert (what, "lock in the catalog was lost" in error.message) == ("clinic 1", True)
    assert inventory.unchecked == [1]
    left = debris[1:2] if moment == "between two removals" else debris[:2]
    assert sorted(name for name in objects_of(store) if name in debris) == left
    assert [fleet.state(record) for record in (lost, other)] == ["completed", "completed"]
    assert inventory.losses == []


@pytest.mark.parametrize("meanwhile", ["deleted", "healed"])
def test_what_was_deleted_or_healed_while_archives_were_read_is_not_lost(
    fleet: Fleet, tmp_path: Path, meanwhile: str
) -> None:
    record = fleet.on_day(0)
    store = fleet.stores.primary
    whole = objects_of(store)[record.archive_key]
    flip(store, record.archive_key)
    opened: list[str] = []

    def change(key: str) -> None:
        opened.append(key)
        if meanwhile == "deleted" and len(opened) == 1:
            fleet.catalog.mark_deleting(record)
        if meanwhile == "healed" and len(opened) == 2:
            exchange(fleet, record.archive_key, whole)

    troubled(fleet, tmp_path, open=change)
    inventory = fleet.check(read=True, record=True)
    assert (found(inventory), inventory.losses, inventory.problems) == ({}, [], [])
    assert fleet.state(record) == ("deleting" if meanwhile == "deleted" else "completed")


def test_losses_of_a_chain_are_told_once_each(fleet: Fleet) -> None:
    """What is built on a lost backup and lost itself is missing, not only incomplete."""
    records = [fleet.on_day(day) for day in range(3)]
    for child, parent in zip(records[1:], records, strict=False):
        fleet.execute(
            f"UPDATE clinic_backups.backup SET parent_id = '{parent.backup_id}', kind = 'incremental'"
            f" WHERE backup_id = '{child.backup_id}'"
        )
    for record in records[:2]:
        fleet.stores.primary.delete(record.archive_key)
    problems = {loss.backup_id: loss.problem for loss in fleet.check(record=True).losses}
    assert problems == dict(
        zip([each.backup_id for each in records], ["missing", "missing", "incomplete"], strict=True)
    )
