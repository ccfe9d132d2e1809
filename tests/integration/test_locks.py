"""The whole life of locked backups, on a service that enforces the lock."""

from __future__ import annotations

import os
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from clinic_backups.archive.object_keys import envelope_key_of
from clinic_backups.backup import preflight
from clinic_backups.base.clock import machine_now
from clinic_backups.base.errors import ObjectLocked, PermanentError, TransientError
from clinic_backups.stores.base import CONTENT_TYPE_JSON, ByteSource, ObjectStore, StoredObject
from clinic_backups.stores.configured import Stores
from clinic_backups.stores.connect import store_from_client
from clinic_backups.stores.file import FileStore
from tests.contract.buckets import LOCKED, VERSIONED
from tests.fleet import START, Fleet, objects_of
from tests.postgres_fixtures import DemoDatabase

DAYS = 30


def s3(client: Any, bucket: str) -> ObjectStore:
    return store_from_client(f"s3://{bucket}/lives/{os.urandom(6).hex()}", client, lock_mode="compliance")


def locked_for(fleet: Fleet, seconds: float, clinic_id: int = 1) -> Any:
    """Back up with a lock that really ends in so many seconds."""
    at = datetime.now(UTC) + timedelta(seconds=seconds) - timedelta(days=DAYS)
    return fleet.on_day((at - START) / timedelta(days=1), clinic_id, lock_days=DAYS, full_every_days=0)


@pytest.mark.usefixtures("buckets")
def test_while_it_is_locked_neither_retention_nor_erasure_nor_anybody_deletes_it(
    demo_database: DemoDatabase, s3_client: Any
) -> None:
    fleet = Fleet(demo_database, s3(s3_client, LOCKED), s3(s3_client, LOCKED))
    record = locked_for(fleet, 15)
    assert record.locked_until is not None
    assert abs(record.locked_until - record.started_at - timedelta(days=DAYS)) < timedelta(seconds=2)
    assert fleet.replicate().problems == []
    for store in fleet.stores:
        for key in (record.archive_key, envelope_key_of(record.archive_key)):
            assert store.stat(key).locked_until == record.locked_until
            version = s3_client.head_object(Bucket=LOCKED, Key=f"{store.url.removeprefix(f's3://{LOCKED}/')}/{key}")
            with pytest.raises(ClientError, match="AccessDenied"):
                s3_client.delete_object(
                    Bucket=LOCKED,
                    Key=f"{store.url.removeprefix(f's3://{LOCKED}/')}/{key}",
                    VersionId=version["VersionId"],
                )
    # The catalog is lost: the envelope knows of the lock.
    fleet.execute("TRUNCATE clinic_backups.backup CASCADE")
    fleet.rebuild()
    assert fleet.again(record).locked_until == record.locked_until

    now_day = (datetime.now(UTC) - START) / timedelta(days=1)
    cleaned = fleet.erase(1, now_day)
    assert [decision.reason[:12] for decision in cleaned.decisions] == ["locked until"]
    assert cleaned.erasure is not None
    assert cleaned.erasure.remaining == 1
    # Even with a clock here that is wrong, the service keeps it.
    (cleaned,) = fleet.clean(now_day + 1)
    assert "lock" in cleaned.problem
    assert fleet.state(record) == "deleting"
    for store in fleet.stores:
        with pytest.raises(ObjectLocked):
            store.purge(record.archive_key)
        assert record.archive_key in objects_of(store)

    time.sleep(max(0.0, (record.locked_until - datetime.now(UTC)).total_seconds()) + 1.5)
    (cleaned,) = fleet.clean(now_day + 2)
    assert cleaned.problem == ""
    assert cleaned.erasure is not None
    assert cleaned.erasure.finished_at == fleet.now
    for store in fleet.stores:
        answer = s3_client.list_object_versions(Bucket=LOCKED, Prefix=store.url.removeprefix(f"s3://{LOCKED}/"))
        assert answer.get("Versions", []) + answer.get("DeleteMarkers", []) == []


@pytest.mark.usefixtures("buckets")
def test_a_bucket_that_cannot_lock_is_found_by_the_preflight_and_by_the_backup(
    demo_database: DemoDatabase, s3_client: Any, tmp_path: Path
) -> None:
    for day, primary in enumerate((s3(s3_client, VERSIONED), FileStore(tmp_path / "store"))):
        fleet = Fleet(demo_database, primary)
        with pytest.raises(PermanentError):
            fleet.on_day(day, lock_days=DAYS)
        assert objects_of(primary) == {}

    def found(lock_days: int, *stores: ObjectStore) -> list[tuple[str, str]]:
        findings = preflight.run(
            settings=fleet.settings.model_copy(update={"lock_days": lock_days}),
            clinic_db=lambda: fleet.clinic_db,
            stores=lambda: Stores.of(*stores),
            now=machine_now,
            catalog_version=fleet.catalog.require_newest,
            count_rows=False,
        )
        return [(each.level, each.message) for each in findings if each.check == "store"]

    able, unable = s3(s3_client, LOCKED), s3(s3_client, VERSIONED)
    ((level, message),) = found(DAYS, unable)
    assert level == "error"
    assert message.startswith(f"CLINIC_BACKUPS_LOCK_DAYS is {DAYS}, and ")
    assert [level for level, _ in found(DAYS, able)] == ["ok"]
    assert [level for level, _ in found(0, unable)] == ["ok"]
    # A further store is no reason not to back up.
    ((level, message),) = [each for each in found(DAYS, able, unable) if each[0] != "ok"]
    assert level == "warning"
    assert message.startswith(f"Further store {unable.url}: ")


class HalfLocked(FileStore):
    """A store that locks as Google's and Azure's do: a locked object is not even hidden. And that fails once."""

    failed = False

    def put(self, key: str, source: ByteSource, **options: Any) -> StoredObject:
        if options.get("content_type") == CONTENT_TYPE_JSON and not self.failed:
            type(self).failed = True
            raise TransientError("out of reach")
        return super().put(key, source, **options | {"locked_until": None})

    def delete(self, key: str) -> None:
        if key.endswith(".age"):
            raise ObjectLocked("locked", hint="Wait.")
        super().delete(key)


def test_an_attempt_whose_locked_archive_stays_is_continued_under_another_key(
    demo_database: DemoDatabase, tmp_path: Path
) -> None:
    fleet = Fleet(demo_database, HalfLocked(tmp_path / "store"))
    with pytest.raises(TransientError, match="out of reach") as raised:
        fleet.run(1, run_id="run-1", now=lambda: START)
    assert any("may have stayed" in note for note in raised.value.__notes__)
    (left,) = objects_of(fleet.stores.primary)
    record = fleet.run(1, run_id="run-1", now=lambda: START + timedelta(minutes=1))
    assert record.attempt == 2
    assert record.archive_key != left
    assert set(objects_of(fleet.stores.primary)) == {left, record.archive_key, envelope_key_of(record.archive_key)}
    assert fleet.again(record).archive_key == record.archive_key
    fleet.restored(record)
    # What stayed is debris, and the record of the backup does not depend on it.
    fleet.now = datetime.now(UTC) + timedelta(days=2)
    assert [item.key for item in fleet.check().discrepancies] == [left]
