"""The download of a backup with its chain: one tar, complete, with the order in which to open the archives."""

from __future__ import annotations

import io
import tarfile
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pyrage
import pytest

from clinic_backups.base.errors import ClinicBackupsError
from clinic_backups.catalog.audit import Audit
from clinic_backups.catalog.backup_list import HistoryEntry
from clinic_backups.stores.configured import Stores
from clinic_backups.stores.file import FileStore
from clinic_backups.web.caller import Caller
from clinic_backups.web.downloads import Downloads
from clinic_backups.web.problems import Denied, NotVisible
from clinic_backups.web.recorder import Recorder
from clinic_backups.web.viewer import Viewer
from tests.integration.test_restore_runner import DAMAGE, Theatre
from tests.postgres_fixtures import DemoDatabase

ADMIN = Caller(Viewer("ana", clinics={1: "administrador"}), "203.0.113.9", None)
READER = Caller(Viewer("leo", clinics={1: "lector"}), "203.0.113.9", None)


@pytest.fixture
def theatre(demo_database: DemoDatabase, tmp_path: Path) -> Theatre:
    return Theatre(demo_database, FileStore(tmp_path / "store"))


def downloads_of(theatre: Theatre) -> Downloads:
    recorder = Recorder(Audit(theatre.catalog.database), per_hour=60, now=theatre.tick)
    return Downloads(recorder, lambda: Stores.of(theatre.store), theatre.tick)


def test_it_holds_every_archive_in_the_order_of_their_opening(theatre: Theatre) -> None:
    records = [theatre.back_up()]
    theatre.kind = "incremental"
    for _ in range(2):
        theatre.execute(DAMAGE)
        records.append(theatre.back_up())
    newest = records[-1]
    assert len(newest.chain) == 2
    entry = HistoryEntry(3, newest, ())
    pieces, name, size = downloads_of(theatre).whole(ADMIN, entry)
    content = b"".join(pieces)
    assert (len(content), name.endswith("_con_todo.tar")) == (size, True)
    files = [record.archive_key.rpartition("/")[2] for record in records]
    with tarfile.open(fileobj=io.BytesIO(content)) as whole:
        assert whole.getnames() == ["LEEME.txt", "README.txt", *files]
        for text in ("LEEME.txt", "README.txt"):
            member = whole.extractfile(text)
            assert member is not None
            said = member.read().decode()
            assert [said.index(file) for file in files] == sorted(said.index(file) for file in files)
        for file in files:
            member = whole.extractfile(file)
            assert member is not None
            assert pyrage.decrypt(member.read(), [pyrage.x25519.Identity.from_str(theatre.identity)])
    found = Audit(theatre.catalog.database).page(visible=None, page=1, per_page=10).entries  # type: ignore[call-arg]
    assert [(line.action, line.detail) for line in found] == [("fetch", "3 archives")]
    with pytest.raises((Denied, NotVisible)):
        downloads_of(theatre).whole(READER, entry)


@pytest.mark.parametrize("harm", ["gone", "shorter"])
def test_where_a_part_is_missing_nothing_is_handed_out(theatre: Theatre, harm: str) -> None:
    first = theatre.back_up()
    theatre.kind = "incremental"
    theatre.now += timedelta(hours=1)
    second = theatre.back_up()
    if harm == "gone":
        theatre.store.delete(first.archive_key)
    else:
        chain = (replace(second.chain[0], size_bytes=second.chain[0].size_bytes + 1),)
        second = replace(second, chain=chain)
    with pytest.raises(ClinicBackupsError):
        downloads_of(theatre).whole(ADMIN, HistoryEntry(2, second, ()))
