"""A catalog that was lost comes back from the envelopes, and every clinic from the store that is left."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from clinic_backups.errors import PermanentError
from clinic_backups.model import envelope_key_of
from clinic_backups.storage import Stores
from clinic_backups.stores.file import FileStore
from include.demo.restore import damage
from tests.conftest import MakeStore
from tests.fleet import START, Fleet, objects_of, put
from tests.postgres_fixtures import DemoDatabase

CLINICS = (1, 2, 3)


@pytest.fixture
def fleet(demo_database: DemoDatabase, tmp_path: Path) -> Fleet:
    return Fleet(demo_database, FileStore(tmp_path / "store"))


def lose_catalog(fleet: Fleet) -> None:
    fleet.execute("DROP SCHEMA clinic_backups CASCADE")
    with pytest.raises(PermanentError):
        fleet.catalog.require_newest()
    fleet.execute(f"CREATE SCHEMA clinic_backups AUTHORIZATION {fleet.database.roles.catalog}")
    fleet.catalog.migrate()
    assert fleet.catalog.find() == []


def test_drill_the_catalog_and_one_of_two_stores_are_lost_and_every_clinic_is_restored(
    demo_database: DemoDatabase, make_store: MakeStore, tmp_path: Path
) -> None:
    fleet = Fleet(demo_database, FileStore(tmp_path / "first"), make_store(f"drill-{uuid4().hex}"))
    first, second = fleet.stores
    for day in (0, 40):
        for clinic_id in CLINICS:
            fleet.on_day(day, clinic_id)
    held = fleet.catalog.find(clinic_id=2)[-1]
    fleet.holds().hold(held.backup_id, "pleito 12", "abogada")
    put(second, "backups/1/notas.txt")
    assert fleet.copy().problems == []
    before = {record.backup_id: record for record in fleet.catalog.find()}
    rows = {clinic_id: fleet.rows_now(clinic_id) for clinic_id in CLINICS}

    lose_catalog(fleet)
    for info in list(first.list()):
        first.delete(info.key)
    for clinic_id in CLINICS:
        fleet.execute(*damage(clinic_id))

    report = fleet.rebuild(second)
    assert (report.adopted, report.known, report.held, report.strangers) == (len(before), 0, 1, 1)
    assert (report.conflicts, report.incomplete) == ([], [])
    rebuilt = {record.backup_id: record for record in fleet.catalog.find()}
    assert rebuilt.keys() == before.keys()
    for backup_id, record in rebuilt.items():
        # All but what only the catalog knew: the run and the attempt.
        assert record.envelope() == before[backup_id].envelope()
        assert (record.stores, record.hold_reason) == ((second.url,), before[backup_id].hold_reason)
    again = fleet.rebuild(second)
    assert (again.adopted, again.known, again.held) == (0, len(before), 0)
    assert {record.backup_id: record for record in fleet.catalog.find()} == rebuilt

    for clinic_id in CLINICS:
        newest = fleet.catalog.latest(clinic_id)
        assert newest is not None
        fleet.restored(newest, Stores.of(second))
        assert fleet.rows_now(clinic_id) == rows[clinic_id]

    # Retention works again, and respects the hold; the first store gets its copies back; backups go on.
    cleaned = fleet.clean(75)
    assert [result.problem for result in cleaned] == ["", "", ""]
    left = {record.backup_id for record in fleet.catalog.find(state="completed")}
    newer = {record.backup_id for record in before.values() if record.started_at > START}
    assert left == {held.backup_id, *newer}
    assert fleet.copy(patient=True).problems == []
    assert objects_of(first).keys() == objects_of(second).keys() - {"backups/1/notas.txt"}
    assert fleet.on_day(76).state == "completed"


def test_a_second_store_adds_what_the_first_did_not_have_and_the_newest_stays_the_newest(
    demo_database: DemoDatabase, tmp_path: Path
) -> None:
    fleet = Fleet(demo_database, FileStore(tmp_path / "one"), FileStore(tmp_path / "two"))
    one, two = fleet.stores
    old, new = fleet.on_day(0), fleet.on_day(1)
    fleet.copy()
    for key in (old.archive_key, envelope_key_of(old.archive_key)):
        one.delete(key)
    lose_catalog(fleet)
    assert fleet.rebuild(one).adopted == 1
    report = fleet.rebuild(two)
    assert (report.adopted, report.known) == (1, 1)
    latest = fleet.catalog.latest(1)
    assert latest is not None
    assert (latest.backup_id, latest.stores) == (new.backup_id, (one.url, two.url))
    assert [record.backup_id for record in fleet.catalog.find()] == [new.backup_id, old.backup_id]


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"clinic_id": 2}, "names another"),
        ({"clinic_id": True}, "names another"),
        ({"backup_id": "2-20260901T060000Z"}, "backup id"),
        ({"backup_id": 7}, "backup id"),
        ({"backup_id": "1-20260901T060000Z'; DROP TABLE x"}, "backup id"),
        ({"kind": "whole"}, "no known kind"),
        ({"rows": ["x"]}, "wrong type"),
        ({"rows": {"a": -1}}, "wrong type"),
        ({"rows": {"a\0": 1}}, "wrong type"),
        ({"raw_bytes": 2**70}, "wrong type"),
        ({"clinic_name": "\ud800"}, "wrong type"),
        ({"clinic_name": None}, "wrong type"),
        ({"notes": "a\0b"}, "wrong type"),
        ({"recipients": [1]}, "wrong type"),
        ({"started_at": "2026-09-01T06:00:00"}, "without a zone"),
        ({"started_at": "yesterday"}, "is no envelope"),
        ({"started_at": 7}, "is no envelope"),
        ({"format": 2}, "is of format 2"),
        ({"format": "1"}, "is no envelope"),
        ({"parent_id": "1-20250101T000000Z"}, "built on"),
        ({"archive": "x"}, "is no envelope"),
        ({"archive": {"key": "backups/1/x", "size_bytes": 1, "sha256": "", "md5": ""}}, "another archive"),
        ({"sha256": "x"}, "checksum"),
        ({"sha256": None}, "checksum"),
        ({"size_bytes": 1}, "says otherwise"),
    ],
    ids=str,
)
def test_an_envelope_that_somebody_made_up_is_reported_and_stops_no_other(
    fleet: Fleet, changes: dict[str, Any], problem: str
) -> None:
    bad, good = fleet.on_day(0), fleet.on_day(1)
    store = fleet.stores.primary
    key = envelope_key_of(bad.archive_key)
    made_up = json.loads(objects_of(store)[key])
    for name, value in changes.items():
        if name in ("sha256", "size_bytes"):
            made_up["archive"][name] = value
        else:
            made_up[name] = value
    store.delete(key)
    put(store, key, json.dumps(made_up).encode())
    lose_catalog(fleet)
    report = fleet.rebuild()
    ((conflict, why),) = report.conflicts
    assert conflict == bad.archive_key
    assert problem in why
    assert [record.backup_id for record in fleet.catalog.find()] == [good.backup_id]


@pytest.mark.parametrize("garbage", [b"", b"{", b"[]", b"null", b"7", b'"x"', b"\xff\xfe", b"{}" + b" " * 2_000_000])
def test_an_envelope_that_is_none_is_reported(fleet: Fleet, garbage: bytes) -> None:
    bad = fleet.on_day(0)
    store = fleet.stores.primary
    store.delete(envelope_key_of(bad.archive_key))
    put(store, envelope_key_of(bad.archive_key), garbage)
    lose_catalog(fleet)
    report = fleet.rebuild()
    assert [key for key, _ in report.conflicts] == [bad.archive_key]
    assert fleet.catalog.find() == []


def test_what_the_catalog_says_otherwise_is_a_conflict_and_nothing_is_changed(fleet: Fleet) -> None:
    records = {name: fleet.on_day(day) for day, name in enumerate(("other", "failed", "deleting", "good"))}
    fleet.execute(
        f"UPDATE clinic_backups.backup SET sha256 = repeat('0', 64) WHERE backup_id = '{records['other'].backup_id}'",
        f"UPDATE clinic_backups.backup SET state = 'failed' WHERE backup_id = '{records['failed'].backup_id}'",
        f"UPDATE clinic_backups.backup SET state = 'deleting' WHERE backup_id = '{records['deleting'].backup_id}'",
    )
    before = fleet.catalog.find()
    report = fleet.rebuild()
    assert dict(report.conflicts) == {
        records["other"].archive_key: "the catalog says otherwise about its sha256",
        records["failed"].archive_key: "the catalog says that it is failed",
        records["deleting"].archive_key: "the catalog says that it is deleting",
    }
    assert (report.adopted, report.known) == (0, 1)
    assert fleet.catalog.find() == before


def test_archives_without_envelope_are_no_backups(fleet: Fleet) -> None:
    whole, half = fleet.on_day(0), fleet.on_day(1)
    fleet.stores.primary.delete(envelope_key_of(half.archive_key))
    lose_catalog(fleet)
    report = fleet.rebuild()
    assert report.incomplete == [half.archive_key]
    assert [record.backup_id for record in fleet.catalog.find()] == [whole.backup_id]
