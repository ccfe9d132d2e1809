"""The catalog trusts a store only for what it noted before.

The tests forge envelopes, plant objects and change times.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from clinic_backups.app import Parts
from clinic_backups.archive.object_keys import archive_key_of, envelope_key_of, parse_key
from clinic_backups.backup.backup_outcomes import Outcomes
from clinic_backups.base.backup_record import BackupRecord
from clinic_backups.base.errors import IntegrityError, ObjectExists, PermanentError, TransientError
from clinic_backups.base.table import Column, Table
from clinic_backups.cli.restore import source_in_store
from clinic_backups.notify.backup_mails import Announcer
from clinic_backups.restore.find_backup import source_of
from clinic_backups.stores import envelopes
from clinic_backups.stores.base import StoredObject
from clinic_backups.stores.file import FileStore
from tests.fleet import Fleet, objects_of, put
from tests.integration.test_archive_reader import write as write_archive
from tests.postgres_fixtures import DemoDatabase

EVIL = b"evil"


@pytest.fixture
def fleet(demo_database: DemoDatabase, tmp_path: Path) -> Fleet:
    return Fleet(demo_database, FileStore(tmp_path / "store"))


def fail_once(fleet: Fleet, run_id: str) -> BackupRecord:
    """A backup whose first attempt fails in the middle, as one whose store is out of reach."""

    def fail(progress: object) -> None:
        raise TransientError("the store is out of reach")

    with pytest.raises(TransientError, match="out of reach"):
        fleet.run(1, run_id=run_id, on_progress=fail, now=lambda: fleet.now)
    (record,) = fleet.catalog.find(run_id=run_id)
    assert record.state == "failed"
    return record


def forged(fleet: Fleet, record: BackupRecord, like: BackupRecord, content: bytes = EVIL, **changes: Any) -> bytes:
    """An envelope of that record for another archive, as somebody makes it who can read the store."""
    archive = FileStore(Path(fleet.store.url.removeprefix("file://")) / "forge")
    archive.make_place()
    told = archive.put(f"x{len(list(archive.list()))}", io.BytesIO(content))
    data = like.envelope().to_json() | {
        "backup_id": record.backup_id,
        "started_at": record.started_at.isoformat(),
        "finished_at": record.started_at.isoformat(),
        "rows": {},
        "raw_bytes": 0,
        "archive": {"key": record.archive_key, "size_bytes": told.size_bytes, "sha256": told.sha256, "md5": told.md5},
    }
    return json.dumps(data | changes).encode()


def plant(fleet: Fleet, record: BackupRecord, like: BackupRecord, **changes: Any) -> None:
    """Put an archive and a matching envelope where a record's would lie."""
    for key in (record.archive_key, envelope_key_of(record.archive_key)):
        fleet.store.delete(key)
    put(fleet.store, record.archive_key, EVIL)
    put(fleet.store, envelope_key_of(record.archive_key), forged(fleet, record, like, **changes))


def is_real(fleet: Fleet, record: BackupRecord) -> bool:
    return fleet.open(record).tables == fleet.rows_now(1) and record.rows_total > 0


ODD = {
    "matching": {},
    "kind": {"kind": "evil"},
    "huge": {"raw_bytes": 2**70},
    "end of time": {"locked_until": "9999-12-31T23:59:59-12:00"},
    "future": {"started_at": "2199-01-01T00:00:00Z", "finished_at": "2199-01-01T00:00:00Z"},
}


class TestForged:
    @pytest.mark.parametrize("changes", ODD.values(), ids=ODD.keys())
    def test_a_retry_of_the_same_run_makes_its_own_backup(self, fleet: Fleet, changes: dict[str, Any]) -> None:
        like = fleet.on_day(0)
        fleet.later(days=1)
        failed = fail_once(fleet, "run-1")
        plant(fleet, failed, like, **changes)
        done = fleet.run(1, run_id="run-1", now=lambda: fleet.now)
        assert (done.backup_id, done.state) == (failed.backup_id, "completed")
        assert is_real(fleet, done)
        assert fleet.check(read=True).discrepancies == []

    @pytest.mark.parametrize("by", ["next backup", "summary"])
    def test_what_died_is_not_completed_by_it(self, fleet: Fleet, by: str) -> None:
        like = fleet.on_day(0)
        fleet.later(days=1)
        dead = replace(fail_once(fleet, "run-1"))
        fleet.execute(f"""
            UPDATE clinic_backups.backup SET state = 'running', finished_at = NULL, error = NULL
             WHERE backup_id = '{dead.backup_id}'""")
        plant(fleet, dead, like)
        fleet.later(hours=1)
        if by == "next backup":
            assert is_real(fleet, fleet.run(1, run_id="run-2", now=lambda: fleet.now))
        else:
            outcomes = Outcomes(fleet.catalog, lambda: fleet.store, Announcer(), lambda: fleet.now)
            (closed,) = outcomes.close_abandoned(run_id="run-1")
            assert closed.state == "failed"
        again = fleet.again(dead)
        assert (again.state, again.size_bytes) == ("failed", None)
        assert dead.archive_key not in objects_of(fleet.store)

    @pytest.mark.parametrize("state", ["failed", "deleted"])
    def test_a_rebuild_does_not_take_it_for_a_record_that_the_catalog_knows(self, fleet: Fleet, state: str) -> None:
        like, old = fleet.on_day(50), fleet.on_day(0)
        fleet.now = like.started_at + timedelta(days=1)
        if state == "failed":
            known = fail_once(fleet, "run-1")
        else:
            fleet.clean(60)
            known = fleet.again(old)
            assert known.state == "deleted"
        plant(fleet, known, like)
        report = fleet.rebuild()
        assert [key for key, _ in report.conflicts] == [known.archive_key]
        assert fleet.again(known) == known

    def test_a_repair_of_the_catalog_writes_none_again(self, fleet: Fleet) -> None:
        record = fleet.on_day(0)
        key = envelope_key_of(record.archive_key)
        right = objects_of(fleet.store)[key]
        fleet.store.delete(key)
        content = objects_of(fleet.store)[record.archive_key]
        put(fleet.store, key, forged(fleet, record, record, content, notes="forged", raw_bytes=1))
        (item,) = fleet.check(read=True, record=True).discrepancies
        assert (item.kind, item.action) == ("no envelope", "written again")
        assert (objects_of(fleet.store)[key], fleet.again(record)) == (right, record)

    def test_what_was_stored_and_noted_is_completed_by_the_note(self, fleet: Fleet) -> None:
        """The answer to the catalog's last statement was lost, or the process died just then."""

        def die(*arguments: Any, **options: Any) -> None:
            raise TransientError("the catalog is out of reach")

        backup = fleet.backup(now=lambda: fleet.now)
        backup._outcomes.complete = die  # type: ignore[method-assign, assignment]
        with pytest.raises(TransientError, match="out of reach"):
            backup.run(fleet.request(1, run_id="run-1"))
        (running,) = fleet.catalog.find(run_id="run-1")
        assert running.state == "running" and running.noted is not None
        done = fleet.run(1, run_id="run-1", now=lambda: fleet.now)
        assert (done.attempt, done.archive_key, done.noted) == (2, running.archive_key, None)
        assert done.envelope() == running.noted
        assert is_real(fleet, done)

    @pytest.mark.parametrize("change", ["archive", "envelope"])
    def test_and_not_when_something_else_lies_there_by_then(self, fleet: Fleet, change: str) -> None:
        def die(*arguments: Any, **options: Any) -> None:
            raise TransientError("the catalog is out of reach")

        backup = fleet.backup(now=lambda: fleet.now)
        backup._outcomes.complete = die  # type: ignore[method-assign, assignment]
        with pytest.raises(TransientError):
            backup.run(fleet.request(1, run_id="run-1"))
        (running,) = fleet.catalog.find(run_id="run-1")
        there = objects_of(fleet.store)
        key = running.archive_key if change == "archive" else envelope_key_of(running.archive_key)
        fleet.store.delete(key)
        # As long as before: a folder knows no checksum.
        other = b"x" * len(there[key]) if change == "archive" else there[key].replace(b'"full"', b'"none"')
        put(fleet.store, key, other)
        done = fleet.run(1, run_id="run-1", now=lambda: fleet.now)
        assert done.archive_key != running.archive_key
        assert is_real(fleet, done)


class TestKeys:
    def test_keys_cannot_be_guessed_and_are_known_again(self, fleet: Fleet) -> None:
        clinic = fleet.request(1).clinic
        keys = {archive_key_of(clinic, fleet.now) for _ in range(50)}
        assert len(keys) == 50
        for key in keys:
            random = key.removesuffix(".tar.zst.age").rpartition("_")[2]
            assert len(random) * 5 >= 128
            for name in (key, envelope_key_of(key)):
                parts = parse_key(name)
                assert parts is not None
                assert (parts.clinic_id, parts.archive_key, parts.began) == (1, key, "20260901_060000")

    def test_keys_of_earlier_versions_are_ours(self) -> None:
        old = "backups/7/2026/09/backup_a_1_20260101_000000_7_20260901_060000"
        for ending, part in ((".tar.zst.age", "archive"), (".json", "envelope"), (".hold.json", "hold")):
            parts = parse_key(old + ending)
            assert parts is not None
            assert (parts.clinic_id, parts.archive_key, parts.part) == (7, f"{old}.tar.zst.age", part)
        for other in (f"{old}_abc.json", f"{old}_{'a' * 25}1.json", f"{old}_{'a' * 27}.json", f"{old}_{'A' * 26}.json"):
            assert parse_key(other) is None

    @pytest.mark.parametrize("part", ["archive", "envelope"])
    @pytest.mark.parametrize("times", [1, 2])
    def test_what_lies_there_already_is_not_ours_and_another_key_is_drawn(
        self, fleet: Fleet, tmp_path: Path, part: str, times: int
    ) -> None:
        left = [times]

        class Planted(FileStore):
            """Somebody is faster, however that may be."""

            def put(self, key: str, source: Any, **options: Any) -> StoredObject:
                if left[0] and key.startswith("backups/") and key.endswith(".json" if part == "envelope" else ".age"):
                    left[0] -= 1
                    super().put(key, io.BytesIO(EVIL))
                return super().put(key, source, **options)

        fleet.store = Planted(tmp_path / "store")
        done = fleet.run(1, now=lambda: fleet.now)
        assert left == [0]
        assert is_real(fleet, done)
        assert fleet.objects() == sorted([done.archive_key, envelope_key_of(done.archive_key)])

    def test_and_that_has_an_end(self, fleet: Fleet, tmp_path: Path) -> None:
        class Planted(FileStore):
            def put(self, key: str, source: Any, **options: Any) -> StoredObject:
                raise ObjectExists(f"{key} is there already", hint="Look at who writes there.")

        fleet.store = Planted(tmp_path / "store")
        with pytest.raises(ObjectExists):
            fleet.run(1, now=lambda: fleet.now)


class TestWritten:
    """What is written passes the check that reads it."""

    def test_a_clock_that_is_set_back_in_between_makes_no_envelope_that_a_rebuild_refuses(self, fleet: Fleet) -> None:
        times = iter([fleet.now])
        record = fleet.run(1, now=lambda: next(times, fleet.now - timedelta(seconds=5)))
        assert record.finished_at == record.started_at
        fleet.execute("DELETE FROM clinic_backups.backup")
        report = fleet.rebuild()
        assert (report.adopted, report.conflicts) == (1, [])

    @pytest.mark.parametrize(
        ("what", "problem"),
        [
            (
                lambda envelope: replace(envelope, finished_at=envelope.finished_at + timedelta(days=3)),
                "a start or an end",
            ),
            (lambda envelope: replace(envelope, rows={"a\nb": 1}), "names of tables"),
            (lambda envelope: replace(envelope, notes="a\0b"), "wrong type"),
        ],
    )
    def test_an_envelope_that_nobody_could_use_is_not_stored(
        self, fleet: Fleet, monkeypatch: pytest.MonkeyPatch, what: Callable[[Any], Any], problem: str
    ) -> None:
        write = envelopes.write
        monkeypatch.setattr(envelopes, "write", lambda envelope, *args, **named: write(what(envelope), *args, **named))
        with pytest.raises(envelopes.IntegrityError, match=problem):
            fleet.run(1, now=lambda: fleet.now)
        assert fleet.objects() == []


class TestOneBadEnvelope:
    @pytest.mark.parametrize("changes", [ODD["huge"], ODD["end of time"], ODD["future"]], ids=["huge", "end", "future"])
    def test_stops_nothing_of_other_clinics(self, fleet: Fleet, changes: dict[str, Any]) -> None:
        record, other = fleet.on_day(0), fleet.on_day(0, 2)
        key = envelope_key_of(record.archive_key)
        data = json.loads(objects_of(fleet.store)[key]) | changes
        fleet.store.delete(key)
        put(fleet.store, key, json.dumps(data).encode())
        assert [item.kind for item in fleet.check(read=True).discrepancies] == ["no envelope"]
        fleet.execute("DELETE FROM clinic_backups.backup")
        report = fleet.rebuild()
        assert [conflict for conflict, _ in report.conflicts] == [record.archive_key]
        assert [found.backup_id for found in fleet.catalog.find()] == [other.backup_id]
        assert [cleaned.problem for cleaned in fleet.clean(1)] == [""]

    @pytest.mark.parametrize("content", [b"", b"[1]", b"[" * 10_000, b"\xff", b'{"a": 1}'])
    def test_what_lies_beside_an_object_in_a_folder_stops_nothing(
        self, fleet: Fleet, tmp_path: Path, content: bytes
    ) -> None:
        record = fleet.on_day(0)
        archive = tmp_path / "store" / record.archive_key
        archive.with_name(f".~{archive.name}.meta").write_bytes(content)
        os.utime(archive, (2**40, 2**40))
        assert fleet.store.stat(record.archive_key).metadata == {}
        assert fleet.check(read=True, sweep=True).discrepancies == []
        assert [cleaned.problem for cleaned in fleet.clean(1)] == [""]


class TestUnpacked:
    """An archive of 100 MB in 20 kB, under the key of a real one: wherever it is read, that ends at what is known."""

    @pytest.fixture(scope="class")
    def rows(self) -> list[list[bytes]]:
        return [[b"a" * 1023 + b"\n"] * 1024] * 100

    @pytest.fixture
    def bombed(self, fleet: Fleet, rows: list[list[bytes]]) -> BackupRecord:
        record, content = fleet.on_day(0), io.BytesIO()
        public = fleet.settings.recipients[0]
        table = Table("public.t", (Column("a", "text", True, None, "", None),), ("a",), ())
        write_archive(content, public, {table: rows})
        fleet.store.delete(record.archive_key)
        put(fleet.store, record.archive_key, content.getvalue())
        return record

    def test_with_the_catalog(self, fleet: Fleet, bombed: BackupRecord) -> None:
        taken: list[int] = []
        archives, content = fleet.archives(), objects_of(fleet.store)[bombed.archive_key]
        # Also where somebody could make its checksums the catalog's.
        archive = replace(bombed.archive, size_bytes=len(content), sha256=hashlib.sha256(content).hexdigest())
        source = replace(source_of(bombed), archive=archive)
        with pytest.raises(IntegrityError, match=f"more than the {bombed.raw_bytes:,} bytes of rows"):
            archives.read_in(fleet.store, source, lambda segment: taken.append(len(segment.data)))
        assert taken == []

    @pytest.mark.parametrize("claimed", [None, 2**40, 0])
    def test_without_it_as_the_envelope_says_and_its_size_allows(
        self, fleet: Fleet, bombed: BackupRecord, claimed: int | None
    ) -> None:
        content = objects_of(fleet.store)[bombed.archive_key]
        told = {} if claimed is None else {"raw_bytes": claimed, "rows": {"public.t": 1_000_000}}
        fleet.store.delete(envelope_key_of(bombed.archive_key))
        honest = {"raw_bytes": bombed.raw_bytes, "rows": bombed.rows}
        envelope = forged(fleet, bombed, bombed, content, **(honest | told))
        put(fleet.store, envelope_key_of(bombed.archive_key), envelope)
        parts = Parts(fleet.settings, lambda name: None)
        source = source_in_store(parts, bombed.archive_key, 1)
        most = 64 * 1024**2 if claimed else bombed.raw_bytes if claimed is None else 0
        with pytest.raises(PermanentError, match=f"more than (the )?{most:,} bytes of rows"):
            fleet.archives().fetch(source)

    @pytest.mark.parametrize("changes", [*list(ODD.values())[1:], {"clinic_id": 2}, {"rows": [1]}, {"recipients": "x"}])
    def test_an_envelope_that_cannot_be_used_is_not_used_without_the_catalog_either(
        self, fleet: Fleet, changes: dict[str, Any]
    ) -> None:
        record = fleet.on_day(0)
        key = envelope_key_of(record.archive_key)
        data = json.loads(objects_of(fleet.store)[key]) | changes
        fleet.store.delete(key)
        put(fleet.store, key, json.dumps(data).encode())
        with pytest.raises(envelopes.NoEnvelope) as caught:
            source_in_store(Parts(fleet.settings, lambda name: None), record.archive_key, 1)
        assert caught.value.hint
