"""The stores against the catalog: what is lost is recorded, debris is removed, and nothing of a stranger is touched."""

from __future__ import annotations

import os
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import uuid4

import pytest

from clinic_backups.inventory import Inventory
from clinic_backups.model import envelope_key_of, hold_key_of, parse_key
from clinic_backups.stores.file import FileStore
from tests.conftest import MakeStore
from tests.fleet import Fleet, age, flip, objects_of, put
from tests.postgres_fixtures import DemoDatabase

STRANGERS = (
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


def test_on_every_store_debris_goes_and_strangers_and_backups_stay(
    demo_database: DemoDatabase, make_store: MakeStore
) -> None:
    fleet = Fleet(demo_database, make_store(f"sweep-{uuid4().hex}"))
    store = fleet.stores.primary
    record, other = fleet.on_day(0), fleet.on_day(0.1, 2)
    unknown = {key(20): b"archive", key(20, part=".json"): b"{}"}
    strangers = dict.fromkeys((*STRANGERS, *ELSEWHERE), b"de otro") | unknown
    debris = [key(1), key(2, part=".json"), key(3, part=".hold.json"), f"preflight/{uuid4()}", key(4, clinic_id=77)]
    for name in (*strangers, *debris):
        put(store, name, strangers.get(name, b"resto"))
    ours = [name for made in (record, other) for name in (made.archive_key, envelope_key_of(made.archive_key))]
    before = objects_of(store)

    # Of today: it may belong to something that goes on.
    fleet.now = datetime.now(UTC) + timedelta(hours=23)
    fresh = fleet.check(sweep=True, record=True)
    assert found(fresh) == {key(20): "unknown backup"}
    assert fresh.strangers == len(STRANGERS)
    fleet.now = datetime.now(UTC) + timedelta(hours=25)
    assert found(fleet.check()) == {key(20): "unknown backup"} | dict.fromkeys(debris, "debris")
    assert objects_of(store) == before

    swept = fleet.check(sweep=True, record=True)
    assert found(swept) == {key(20): "unknown backup"} | dict.fromkeys(debris, "debris removed")
    assert objects_of(store) == {name: before[name] for name in (*ours, *strangers)}
    assert found(fleet.check(sweep=True)) == {key(20): "unknown backup"}
    assert [fleet.state(made) for made in (record, other)] == ["completed", "completed"]


def test_unfinished_uploads_go_after_a_day(fleet: Fleet, tmp_path: Path) -> None:
    record = fleet.on_day(0)
    folder = tmp_path / "store" / record.archive_key.rpartition("/")[0]
    part = folder / ".~0123456789abcdef0123456789abcdef.part"
    part.write_bytes(b"half")
    fleet.now = datetime.now(UTC)
    assert fleet.check(sweep=True).discrepancies == []
    os.utime(part, (time.time() - 90_000,) * 2)
    (item,) = fleet.check().discrepancies
    assert item.kind == "unfinished upload"
    assert part.exists()
    (item,) = fleet.check(sweep=True).discrepancies
    assert item.action == "removed"
    assert not part.exists()
    assert fleet.state(record) == "completed"


@pytest.mark.parametrize("busy", ["clinic", "copies"])
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
    assert fleet.catalog.latest(1) == fleet.again(old)
    assert fleet.check(record=True).losses == []

    store.delete(record.archive_key)
    put(store, record.archive_key, whole[record.archive_key])
    if damage == "all gone":
        put(store, envelope_key_of(record.archive_key), whole[envelope_key_of(record.archive_key)])
    assert found(fleet.check(record=True)) == {record.archive_key: "found recorded"}
    assert fleet.state(record) == "completed"


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


@pytest.mark.parametrize("name", [*STRANGERS, *ELSEWHERE])
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
