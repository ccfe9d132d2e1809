"""One odd object in a store affects only itself: other backups, listings and replicas go on."""

from __future__ import annotations

import io
import os
from datetime import UTC
from pathlib import Path
from typing import Any

import pytest

from clinic_backups.archive.object_keys import envelope_key_of, hold_key_of
from clinic_backups.base.errors import ObjectNotFound, SettingsError, TransientError
from clinic_backups.restore.request import parse
from clinic_backups.stores import envelopes
from clinic_backups.stores.configured import Stores
from clinic_backups.stores.file import FileStore
from clinic_backups.stores.marker import MARKER_KEY, UnreadableMarker, read_marker
from tests.fleet import Fleet, objects_of, put
from tests.postgres_fixtures import DemoDatabase


@pytest.fixture
def fleet(demo_database: DemoDatabase, tmp_path: Path) -> Fleet:
    return Fleet(demo_database, FileStore(tmp_path / "store"), FileStore(tmp_path / "replicas"))


@pytest.fixture
def store(tmp_path: Path) -> FileStore:
    found = FileStore(tmp_path / "alone")
    found.make_place()
    return found


def path_of(store: object, key: str) -> Path:
    assert isinstance(store, FileStore)
    return store.root / key


@pytest.mark.parametrize("made_at", ["9999-12-31T23:59:59-12:00", "1970-01-01T00:00:00Z", "2026-01-01T00:00:00", 5])
def test_a_marker_whose_time_no_catalog_can_hold_is_not_a_marker(made_at: object, store: FileStore) -> None:
    text = f'{{"format": 1, "store_id": "b4f1b7de-6a5c-4f4b-9a55-111111111111", "made_at": "{made_at}"}}'
    store.put(MARKER_KEY, io.BytesIO(text.encode()))
    with pytest.raises(UnreadableMarker):
        read_marker(store)


def test_a_pipe_a_folder_and_a_device_under_a_key_are_no_objects(store: FileStore) -> None:
    store.put("a/real", io.BytesIO(b"x"))
    os.mkfifo(store.root / "a" / "pipe")
    (store.root / "a" / "folder").mkdir()
    (store.root / "a" / "device").symlink_to("/dev/zero")
    for name in ("pipe", "folder", "device"):
        for ask in (store.stat, lambda key: store.open(key).__enter__()):
            with pytest.raises(ObjectNotFound):
                ask(f"a/{name}")
    assert [info.key for info in store.list()] == ["a/real"]
    store.delete("a/folder")
    store.delete("a/pipe")
    assert not (store.root / "a" / "pipe").exists()


def test_what_cannot_be_read_is_the_stores_error_and_the_next_replica_serves(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Reading a process's memory where it has none gives EIO, as a bad sector does; opening it does not."""
    record = fleet.on_day(0)
    assert fleet.replicate().problems == []
    path = path_of(fleet.store, record.archive_key)
    opening = os.open

    def bad_sector(name: Any, *flags: Any, **options: Any) -> int:
        return opening("/proc/self/mem" if name == path else name, *flags, **options)

    monkeypatch.setattr(os, "open", bad_sector)
    bad = Stores.of(fleet.store)
    with pytest.raises(TransientError, match="Input/output error"), bad.primary.open(record.archive_key) as stream:
        stream.read(10)
    fleet.execute("DELETE FROM public.usuarios_paciente WHERE id IN (SELECT id FROM public.usuarios_paciente LIMIT 0)")
    assert fleet.restored(fleet.again(record)).writes == 0


@pytest.mark.parametrize("state", ["failed", "deleted"])
def test_a_rebuild_reads_before_it_completes_a_record_or_counts_a_copy(fleet: Fleet, state: str) -> None:
    record = fleet.on_day(0)
    right = objects_of(fleet.store)
    if state == "failed":
        fleet.execute(f"""
            UPDATE clinic_backups.backup SET state = 'failed', error = 'x', noted = NULL
             WHERE backup_id = '{record.backup_id}'""")
    else:
        fleet.on_day(50)
        fleet.clean(60)
        put(fleet.store, envelope_key_of(record.archive_key), right[envelope_key_of(record.archive_key)])
    before = fleet.again(record)
    path = path_of(fleet.store, record.archive_key)
    path.unlink(missing_ok=True)
    put(fleet.store, record.archive_key, bytes(len(right[record.archive_key])))
    assert [key for key, _ in fleet.rebuild().conflicts] == [record.archive_key]
    assert fleet.again(record) == before


def test_a_note_that_somebody_put_there_never_looks_like_a_hold_of_ours(fleet: Fleet) -> None:
    record = fleet.on_day(0)
    note = f'{{"backup_id": "{record.backup_id}", "reason": "legal", "by": "ana (command line)", "at": null}}'
    put(fleet.store, hold_key_of(record.archive_key), note.encode())
    fleet.check(record=True)
    held = fleet.again(record)
    assert held.hold_reason == "legal"
    assert (held.held_by or "").endswith(envelopes.FROM_NOTE)
    assert [found.backup_id for found, _, _ in fleet.cleaner().unknown_holds(1)] == [record.backup_id]


def test_a_folder_under_the_key_of_a_dead_attempts_envelope_stops_no_later_backup(fleet: Fleet) -> None:
    record = fleet.on_day(0)
    fleet.execute(f"""
        UPDATE clinic_backups.backup SET state = 'running', finished_at = NULL, noted = NULL
         WHERE backup_id = '{record.backup_id}'""")
    path = path_of(fleet.store, envelope_key_of(record.archive_key))
    path.unlink()
    path.mkdir()
    assert fleet.on_day(1).state == "completed"
    assert fleet.state(record) == "failed"


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_a_parent_that_may_not_be_read_is_not_built_on(fleet: Fleet) -> None:
    path_of(fleet.store, fleet.on_day(0).archive_key).chmod(0)
    assert fleet.on_day(1).kind == "full"


def test_a_number_of_five_thousand_digits_is_no_clinic() -> None:
    with pytest.raises(SettingsError):
        parse({"clinic_id": "9" * 5000}, every=[], requested_by="yo", run_id=None, zone=UTC)
