"""A store is used only as long as its marker is the one that the catalog knows, on every provider."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from clinic_backups.base.errors import ObjectNotFound, PermanentError, StoreAway, StoreUnknown, TransientError
from clinic_backups.stores.base import ObjectStore, UnfinishedUpload
from clinic_backups.stores.file import FileStore
from clinic_backups.stores.identified import IdentifiedStore
from clinic_backups.stores.marker import MARKER_KEY, UnreadableMarker, new_marker, read_marker, write_marker
from tests.contract.buckets import keys, read

NOW = datetime(2026, 9, 1, 6, tzinfo=UTC)


class Clock:
    seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


@pytest.fixture
def known(store: ObjectStore) -> IdentifiedStore:
    """A store with a marker, as the catalog knows it."""
    marker = new_marker(NOW)
    write_marker(marker, store)
    return IdentifiedStore(store, lambda: marker.store_id, Clock())


def put(store: ObjectStore, key: str, content: bytes = b"de la clinica") -> None:
    store.put(key, io.BytesIO(content))


OPERATIONS: dict[str, Callable[[ObjectStore], Any]] = {
    "put": lambda store: put(store, "backups/1/new"),
    "open": lambda store: read(store, "backups/1/there"),
    "open one that is not there": lambda store: read(store, "backups/1/none"),
    "stat": lambda store: store.stat("backups/1/there"),
    "stat one that is not there": lambda store: store.stat("backups/1/none"),
    "list": lambda store: list(store.list("backups/")),
    "all_keys": lambda store: list(store.all_keys("backups/")),
    "unfinished": lambda store: list(store.unfinished("backups/")),
    "delete": lambda store: store.delete("backups/1/there"),
    "purge": lambda store: store.purge("backups/1/there"),
    "abort": lambda store: store.abort(UnfinishedUpload("backups/1/none", NOW, "none")),
    "lock_problem": lambda store: store.lock_problem(),
    "presign": lambda store: store.presign("backups/1/there", expires_in=timedelta(minutes=1), filename="x"),
}


def test_with_its_marker_it_does_all_that_the_store_does(known: IdentifiedStore) -> None:
    put(known, "backups/1/a")
    assert read(known, "backups/1/a") == b"de la clinica"
    assert known.stat("backups/1/a").size_bytes == 13
    assert [info.key for info in known.list("backups/")] == ["backups/1/a"]
    assert list(known.all_keys("backups/")) == ["backups/1/a"]
    assert list(known.unfinished("backups/")) == []
    known.delete("backups/1/a")
    known.delete("backups/1/a")
    with pytest.raises(ObjectNotFound):
        known.stat("backups/1/a")
    known.purge("backups/1/a")
    assert known.identified() == read_marker(known.inner).store_id  # type: ignore[union-attr]


@pytest.mark.parametrize("found", ["none", "another", "not a marker"])
def test_without_its_marker_nothing_is_done_and_nothing_believed(store: ObjectStore, found: str) -> None:
    put(store, "backups/1/there")
    if found == "another":
        write_marker(new_marker(NOW), store)
    elif found == "not a marker":
        put(store, MARKER_KEY, b'{"format": 1, "store_id": 7}')
    expected = str(uuid4())
    away = IdentifiedStore(store, lambda: expected)
    before = keys(store)
    for operation in OPERATIONS.values():
        with pytest.raises(StoreAway) as caught:
            operation(away)
        assert store.url in caught.value.message
        assert expected in caught.value.message
        assert "store init" in caught.value.hint
    assert keys(store) == before


def test_one_that_nobody_initialised_says_how_to(store: ObjectStore) -> None:
    for operation in OPERATIONS.values():
        with pytest.raises(StoreUnknown, match="is not initialised") as caught:
            operation(IdentifiedStore(store, lambda: None))
        assert "store init" in caught.value.hint
    assert keys(store) == []


@pytest.mark.parametrize(
    "name", ["put", "open one that is not there", "stat one that is not there", "delete", "purge", "abort"]
)
def test_what_changes_right_after_a_look_is_noticed(known: IdentifiedStore, name: str) -> None:
    """Between the look at the marker and the operation: what a wrong store would say as well is not believed."""
    known.inner.trusted_seconds = 60
    put(known, "backups/1/there")
    known.inner.delete(MARKER_KEY)
    with pytest.raises(StoreAway):
        OPERATIONS[name](known)
    assert "backups/1/new" not in keys(known.inner)


@pytest.mark.parametrize("name", ["list", "all_keys", "unfinished"])
def test_a_listing_counts_when_the_store_is_the_same_at_its_end(known: IdentifiedStore, name: str) -> None:
    put(known, "backups/1/there")
    put(known, "backups/1/too")
    listing = getattr(known, name)("backups/")
    if name != "unfinished":
        next(listing)
    known.inner.trusted_seconds = 60
    known.inner.delete(MARKER_KEY)
    with pytest.raises(StoreAway):
        list(listing)


def test_the_look_is_repeated_after_a_while_and_after_an_error(known: IdentifiedStore, provider: str) -> None:
    clock = known._clock
    assert isinstance(clock, Clock)
    put(known, "backups/1/there")
    known.inner.delete(MARKER_KEY)
    if provider == "file":
        with pytest.raises(StoreAway):  # a folder is unmounted in a moment
            known.stat("backups/1/there")
        return
    known.stat("backups/1/there")
    clock.seconds += 61
    with pytest.raises(StoreAway):
        known.stat("backups/1/there")


def test_a_store_without_its_bucket_or_folder_is_away(provider: str, make_store: Callable[..., ObjectStore]) -> None:
    if provider == "file":
        store = make_store("prefix")
        FileStore(store.url.removeprefix("file://")).root.rmdir()
    else:
        store = make_store("prefix", bucket="no-such-bucket")
    expected = str(uuid4())
    for operation in OPERATIONS.values():
        with pytest.raises(StoreAway, match=expected):
            operation(IdentifiedStore(store, lambda: expected))
    if provider == "file":
        assert not Path(store.url.removeprefix("file://")).exists()


def test_a_deletion_that_did_nothing_is_no_deletion(known: IdentifiedStore, monkeypatch: pytest.MonkeyPatch) -> None:
    put(known, "backups/1/there")
    monkeypatch.setattr(known.inner, "delete", lambda key: None)
    monkeypatch.setattr(known.inner, "purge", lambda key: None)
    for remove in (known.delete, known.purge):
        with pytest.raises(TransientError, match="the store still has it"):
            remove("backups/1/there")


@contextmanager
def forbidden(store: ObjectStore) -> Iterator[None]:
    """The marker may not be read: as a permission of the bucket, or of the folder, would have it."""
    kept = store.open

    def refuse(key: str) -> Any:
        if key == MARKER_KEY:
            raise PermanentError(f"403 for {key}.", hint="Allow it.")
        return kept(key)

    store.open = refuse  # type: ignore[method-assign]
    yield
    store.open = kept  # type: ignore[method-assign]


def test_a_marker_that_may_not_be_read_is_not_a_missing_one(known: IdentifiedStore) -> None:
    put(known, "backups/1/there")
    known._asked_at = None
    with forbidden(known.inner):
        for operation in OPERATIONS.values():
            with pytest.raises(PermanentError, match="403") as caught:
                operation(known)
            assert not isinstance(caught.value, ObjectNotFound)
    assert read(known, "backups/1/there") == b"de la clinica"


@pytest.mark.parametrize(
    "content",
    [
        b"", b"null", b"[]", b"{}", b"\xff", b"[" * 4000, b"x" * 9000,
        b'{"format": 2, "store_id": "0b9c8e6e-1111-4222-8333-444455556666", "made_at": "2026-09-01T06:00:00Z"}',
        b'{"format": 1, "store_id": "no uuid", "made_at": "2026-09-01T06:00:00Z"}',
        b'{"format": 1, "store_id": "0b9c8e6e-1111-4222-8333-444455556666", "made_at": "ayer"}',
        b'{"format": 1, "store_id": "0b9c8e6e-1111-4222-8333-444455556666", "made_at": "2026-09-01T06:00:00"}',
        b'{"format": 1, "store_id": "0b9c8e6e-1111-4222-8333-444455556666", "made_at": 9e999}',
    ],
)  # fmt: skip
def test_what_is_not_a_marker_is_not_believed(content: bytes, tmp_path: Path) -> None:
    store = FileStore(tmp_path)
    put(store, MARKER_KEY, content)
    with pytest.raises(UnreadableMarker):
        read_marker(store)
