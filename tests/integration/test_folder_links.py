"""A folder store follows no link, and reports nothing as missing that it could not read."""

from __future__ import annotations

import io
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from clinic_backups.base.backup_record import BackupRecord
from clinic_backups.base.errors import ClinicBackupsError, ObjectNotFound, PermanentError
from clinic_backups.stores.file import OWN, FileStore
from tests.fleet import Fleet, objects_of
from tests.postgres_fixtures import DemoDatabase

KEY = "backups/1/2026/x"
UNFINISHED = f"{OWN}x.{'0' * 32}.part"


@pytest.fixture
def store(tmp_path: Path) -> FileStore:
    found = FileStore(tmp_path / "store")
    found.make_place()
    found.put("backups/2/y", io.BytesIO(b"y"))
    return found


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    folder = tmp_path / "outside"
    folder.mkdir()
    for name in ("x", UNFINISHED):
        (folder / name).write_bytes(b"of somebody else")
    return folder


@contextmanager
def nobody() -> Iterator[None]:
    """Root reads everything; this user does not."""
    if os.geteuid():
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that every user may reach."""
    folder = Path(tempfile.mkdtemp(prefix="clinic-backups-"))
    folder.chmod(0o755)
    yield folder
    for path in [*folder.rglob("*"), folder]:
        if path.is_dir():
            path.chmod(0o700)
    shutil.rmtree(folder)


@pytest.mark.parametrize("ask", ["stat", "open", "put", "delete", "purge", "abort"])
def test_what_lies_behind_a_linked_folder_is_neither_absent_nor_touched(
    store: FileStore, outside: Path, ask: str
) -> None:
    (store.root / "backups" / "1").mkdir()
    (store.root / "backups" / "1" / "2026").symlink_to(outside)
    before = {path.name: path.read_bytes() for path in outside.iterdir()}
    asks: dict[str, Callable[[], object]] = {
        "stat": lambda: store.stat(KEY),
        "open": lambda: store.open(KEY).__enter__(),
        "put": lambda: store.put(f"{KEY}2", io.BytesIO(b"new")),
        "delete": lambda: store.delete(KEY),
        "purge": lambda: store.purge(KEY),
        "abort": lambda: store.abort(next(iter(_unfinished(store)))),
    }
    with pytest.raises(PermanentError, match="symbolic link") as caught:
        asks[ask]()
    assert not isinstance(caught.value, ObjectNotFound)
    assert {path.name: path.read_bytes() for path in outside.iterdir()} == before


def _unfinished(store: FileStore) -> list[object]:
    from datetime import UTC, datetime

    from clinic_backups.stores.base import UnfinishedUpload

    return [UnfinishedUpload(KEY, datetime.now(UTC), UNFINISHED)]


def test_links_are_in_no_listing_and_an_erasure_asks_about_linked_folders(store: FileStore, outside: Path) -> None:
    (store.root / "backups" / "1").symlink_to(outside)
    (store.root / "backups" / "z").symlink_to(outside / "x")
    (store.root / "backups" / "loop").symlink_to(store.root)
    assert [info.key for info in store.list()] == ["backups/2/y"]
    assert list(store.unfinished()) == []
    assert list(store.all_keys("backups/2/")) == ["backups/2/y"]
    # Something may be left behind it.
    with pytest.raises(PermanentError, match="symbolic link"):
        list(store.all_keys("backups/1/"))
    with pytest.raises(ObjectNotFound):
        store.stat("backups/z")
    with pytest.raises(ObjectNotFound):
        store.open("backups/z").__enter__()
    store.delete("backups/z")
    assert (outside / "x").read_bytes() == b"of somebody else"


@pytest.mark.parametrize("ask", ["list", "all_keys", "unfinished"])
@pytest.mark.parametrize("mode", [0, 0o444])
def test_a_folder_that_may_not_be_read_is_an_error_and_no_absence(open_folder: Path, ask: str, mode: int) -> None:
    """With 0o444 the names can be read, and nothing behind them."""
    with nobody_owns(open_folder):
        store = FileStore(open_folder / "store")
        store.make_place()
        store.put(KEY, io.BytesIO(b"x"))
        (store.root / "backups/1/2026" / UNFINISHED).write_bytes(b"x")
        (store.root / "backups" / "1" / "2026").chmod(mode)
        with pytest.raises(PermanentError, match="Permission denied") as caught:
            list(getattr(store, ask)("backups/1/"))
        assert not isinstance(caught.value, ObjectNotFound)
        for use in (store.stat, store.delete):
            with pytest.raises(PermanentError, match="Permission denied") as caught:
                use(KEY)
            assert not isinstance(caught.value, ObjectNotFound)


@contextmanager
def nobody_owns(folder: Path) -> Iterator[None]:
    if not os.geteuid():
        os.chown(folder, 65534, -1)
    with nobody():
        yield


def test_hidden_files_that_are_links_or_pipes_keep_nobody_waiting(store: FileStore, outside: Path) -> None:
    for name, make in (("y", lambda path: os.mkfifo(path)), ("y2", lambda path: path.symlink_to(outside / "x"))):
        store.delete(f"backups/2/{name}")
        store.put(f"backups/2/{name}", io.BytesIO(b"y"))
        make(store.root / "backups" / "2" / f"{OWN}{name}.meta")
        assert store.stat(f"backups/2/{name}").metadata == {}
    (store.root / f"{OWN}lock").unlink()
    (store.root / f"{OWN}lock").symlink_to(outside / "made")
    with pytest.raises(ClinicBackupsError):
        store.put("backups/2/y3", io.BytesIO(b"y"))
    assert not (outside / "made").exists()


def test_archives_behind_a_linked_folder_are_not_recorded_as_lost_nor_said_to_be_erased(
    demo_database: DemoDatabase, tmp_path: Path
) -> None:
    fleet = Fleet(demo_database, FileStore(tmp_path / "store"))
    fleet.store.make_place()
    mine, other = fleet.on_day(0, 1), fleet.on_day(0.1, 2)
    folder, moved = _folder_of(fleet, mine), tmp_path / "moved"
    folder.rename(moved)
    folder.symlink_to(moved)
    before = {path.name for path in moved.iterdir()}
    found = fleet.check(record=True)
    assert (found.losses, found.archives) == ([], {other.backup_id: "not compared"})
    assert [key for key, _ in found.problems] == [mine.archive_key]
    assert fleet.state(mine) == "completed"
    cleaned = fleet.erase(1, 1)
    assert cleaned.erasure is not None
    assert cleaned.erasure.finished_at is None
    assert "symbolic link" in cleaned.problem
    assert {path.name for path in moved.iterdir()} == before
    folder.unlink()
    moved.rename(folder)
    (cleaned,) = fleet.clean(2, clinic_id=1)
    assert cleaned.problem == ""
    assert [key for key in objects_of(fleet.store) if key.startswith("backups/1/")] == []


def _folder_of(fleet: Fleet, record: BackupRecord) -> Path:
    assert isinstance(fleet.store, FileStore)
    return (fleet.store.root / record.archive_key).parent
