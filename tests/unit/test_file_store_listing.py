"""Listings of a folder store: what a prefix names is found without reading the folders beside it."""

from __future__ import annotations

import io
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clinic_backups.base.errors import ClinicBackupsError
from clinic_backups.stores import _files
from clinic_backups.stores.file import FileStore

PARTS = st.sampled_from(["a", "a.b", "a0", "ab", "A", "ñ", "1", "10", "a b"])
KEYS = st.lists(PARTS, min_size=1, max_size=4).map("/".join)


def filled(folder: Path, keys: Sequence[str]) -> FileStore:
    store = FileStore(folder)
    store.make_place()
    for key in keys:
        with suppress(ClinicBackupsError):  # one key is a folder of another one
            store.put(key, io.BytesIO(b"x"))
    return store


@given(keys=st.lists(KEYS, max_size=12), prefix=KEYS, ending=st.sampled_from(["", "/", "/a", "a"]))
def test_a_prefix_finds_what_a_listing_of_everything_has(keys: list[str], prefix: str, ending: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        store = filled(Path(folder) / "store", keys)
        every = [info.key for info in store.list()]
        assert [info.key for info in store.list(prefix + ending)] == [
            key for key in every if key.startswith(prefix + ending)
        ]
        unfinished = [each.key for each in store.unfinished(prefix + ending)]
        assert unfinished == []


def test_the_folders_of_other_clinics_are_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keys = [f"backups/{clinic}/2026/11/a.tar" for clinic in range(30)]
    store, read = filled(tmp_path / "store", keys), list[Path]()

    def noted(folder: Path) -> list[str]:
        read.append(folder.relative_to(store.root))
        return names_in(folder)

    names_in = _files.names_in
    monkeypatch.setattr(_files, "names_in", noted)
    assert [info.key for info in store.list("backups/7/2026/11/a")] == ["backups/7/2026/11/a.tar"]
    assert read == [Path("backups/7/2026/11")]
    assert list(store.unfinished("backups/7/2026/")) == []
    assert Path("backups") not in read
    assert Path() not in read


def test_a_folder_that_is_a_link_is_still_no_folder(tmp_path: Path) -> None:
    store = filled(tmp_path / "store", ["backups/1/a"])
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "b").write_text("x")
    (store.root / "backups" / "2").symlink_to(outside)
    assert list(store.list("backups/2/")) == []
    assert list(store.unfinished("backups/2/")) == []
    assert [info.key for info in store.list("backups/")] == ["backups/1/a"]
