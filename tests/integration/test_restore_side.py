"""``clinic-backups check --restore``: whatever a restore needs is asked for, and what is missing is named."""

from __future__ import annotations

import io
import os
import resource
import shutil
from collections import namedtuple
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyrage
import pytest

from clinic_backups.archive.codec import CODEC
from clinic_backups.archive.encryption import generate_identity
from clinic_backups.archive.opening import require_opens
from clinic_backups.base.errors import IntegrityError
from clinic_backups.base.postgres_tools import SERVER
from clinic_backups.restore import side_checks
from clinic_backups.stores.file import FileStore
from tests.fleet import flip
from tests.integration.test_cli import Run, restore_keys
from tests.integration.test_cli import run as run  # the fixture
from tests.postgres_fixtures import DemoDatabase
from tests.spoiled import Break, statement, variable

CHECKS = {"identity", "key", "store", "catalog", "clock", "target", "restore", "programs", "room"}
Usage = namedtuple("Usage", "total used free")


class House:
    """A place that backs up and restores, with one backup, to be spoiled by a test."""

    def __init__(self, run: Run, database: DemoDatabase, folder: Path) -> None:
        self.database, self.folder, self._run = database, folder, run
        self.keys: dict[str, str | None] = dict(restore_keys(run, folder / "identity", database))
        self.keys["CLINIC_BACKUPS_IDENTITY_FILE"] = str(folder / "identity")
        assert run("store", "init", **self.keys).code == 0
        assert run("backup", "--clinic", "1", **self.keys).code == 0

    def check(self, *words: str, **changes: str | None) -> tuple[int, list[dict[str, str]]]:
        done = self._run("check", "--restore", "--json", *words, **self.keys | changes)
        return done.code, done.json()

    def execute(self, statement: str) -> None:
        with self.database.session.transaction() as cursor:
            cursor.execute(statement)


@pytest.fixture
def house(run: Run, demo_database: DemoDatabase, tmp_path: Path) -> House:
    return House(run, demo_database, tmp_path)


def said(findings: list[dict[str, str]], *levels: str) -> list[tuple[str, str, str]]:
    return [(each["check"], each["message"], each["hint"]) for each in findings if each["level"] in (levels or "error")]


def test_all_is_well_and_nothing_is_changed(house: House, run: Run) -> None:
    code, found = house.check()
    assert (code, said(found, "error", "warning")) == (0, [])
    assert {each["check"] for each in found} == CHECKS
    (key,) = [each["message"] for each in found if each["check"] == "key"]
    assert "opens the newest archive of each set of public keys, 1: 1-" in key
    assert house.check("--clinic", "1")[0] == 0
    shown = run("check", "--restore", **house.keys)
    assert (shown.code, "Restore side" in shown.out) == (0, True)


def _mode(database: DemoDatabase, folder: Path) -> Mapping[str, str | None]:
    (folder / "identity").chmod(0o640)
    return {}


def _other_key(database: DemoDatabase, folder: Path) -> Mapping[str, str | None]:
    (folder / "other").write_text(generate_identity()[0])
    (folder / "other").chmod(0o600)
    return {"CLINIC_BACKUPS_IDENTITY_FILE": str(folder / "other")}


def _damaged(database: DemoDatabase, folder: Path) -> Mapping[str, str | None]:
    store = FileStore(folder / "store")
    (archive,) = [info.key for info in store.list() if info.key.endswith(".age")]
    flip(store, archive)
    return {}


def _cut(database: DemoDatabase, folder: Path) -> Mapping[str, str | None]:
    (archive,) = (folder / "store").rglob("*.age")
    os.truncate(archive, 100)
    return {}


def _gone(database: DemoDatabase, folder: Path) -> Mapping[str, str | None]:
    shutil.rmtree(folder / "store")
    return {}


def _reader(database: DemoDatabase, folder: Path) -> Mapping[str, str | None]:
    return {"AIRFLOW_CONN_RESTORE_DB": database.reader_uri}


def _old_tools(database: DemoDatabase, folder: Path) -> Mapping[str, str | None]:
    (folder / "bin").mkdir()
    for name in SERVER:
        (folder / "bin" / name).write_text(f"#!/bin/sh\necho '{name} (PostgreSQL) 9.6.1'\n")
        (folder / "bin" / name).chmod(0o755)
    return {"CLINIC_BACKUPS_POSTGRES_BIN": str(folder / "bin")}


FAULTS: dict[str, tuple[Break, str, str]] = {
    "no identity": (variable(CLINIC_BACKUPS_IDENTITY_FILE=None), "identity", "CLINIC_BACKUPS_IDENTITY_FILE"),
    "identity away": (variable(CLINIC_BACKUPS_IDENTITY_FILE="/nonexistent"), "identity", "cannot be read"),
    "open mode": (_mode, "identity", "chmod 600"),
    "other key": (_other_key, "key", "not encrypted to this key"),
    "damaged": (_damaged, "store", "damaged"),
    "cut": (_cut, "store", "100 bytes"),
    "store gone": (_gone, "store", "store"),
    "catalog away": (
        variable(AIRFLOW_CONN_BACKUP_CATALOG="postgres://a:b@127.0.0.1:9/c?connect_timeout=1"), "catalog", "onnect",
    ),
    "older catalog": (
        statement("UPDATE clinic_backups.alembic_version SET version_num = '0001'"), "catalog", "catalog migrate",
    ),
    "no restore_db": (variable(AIRFLOW_CONN_RESTORE_DB=None), "target", "restore_db"),
    "wrong restore_db": (
        variable(AIRFLOW_CONN_RESTORE_DB="postgres://a:b@127.0.0.1:9/c?connect_timeout=1"), "target", "onnect",
    ),
    "a role that only reads": (_reader, "restore", "GRANT"),
    "another database": (
        statement("UPDATE clinic_backups.backup SET source_db = '1/2/elsewhere'"), "target", "another database",
    ),
    "old programs": (_old_tools, "programs", "PostgreSQL 9"),
    "no programs": (variable(CLINIC_BACKUPS_POSTGRES_BIN="/nonexistent"), "programs", "initdb was not found"),
    "no backup": (statement("DELETE FROM clinic_backups.backup"), "key", "no completed one"),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_one_thing_is_missing(house: House, fault: str) -> None:
    breaks, check, words = FAULTS[fault]
    code, found = house.check(**breaks(house.database, house.folder))
    errors = said(found)
    assert code != 0, found
    assert any(each[0] == check and words in f"{each[1]} {each[2]}" for each in errors), found
    assert all(hint for _, _, hint in errors), errors


def test_a_disk_without_room(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(side_checks.shutil, "disk_usage", lambda path: Usage(10, 9, 1))
    code, found = house.check()
    assert (code, [each[0] for each in said(found)]) == (1, ["room"])


def test_a_former_key_is_tried_too(house: House, run: Run, tmp_path: Path) -> None:
    """The key was changed, and the identity file has only the new one: old backups cannot be restored."""
    secret, public = generate_identity()
    (tmp_path / "new").write_text(secret)
    (tmp_path / "new").chmod(0o600)
    new: dict[str, Any] = {
        "CLINIC_BACKUPS_RECIPIENTS": public, "CLINIC_BACKUPS_IDENTITY_FILE": str(tmp_path / "new"),
    }  # fmt: skip
    assert run("backup", "--clinic", "1", "--kind", "full", **house.keys | new).code == 0
    code, found = house.check(**new)
    assert code == 0
    ((check, message, hint),) = said(found, "warning")
    assert (check, "A former key is missing" in message, "identity file" in hint) == ("key", True, True)
    # With both keys in the file there is nothing to say.
    (tmp_path / "new").write_text(secret + "\n" + (tmp_path / "identity").read_text())
    code, found = house.check(**new)
    assert (code, said(found, "warning", "error")) == (0, [])


def test_a_further_store_serves_while_the_first_is_away(house: House, run: Run, tmp_path: Path) -> None:
    url = (tmp_path / "further").as_uri()
    further: dict[str, Any] = {"CLINIC_BACKUPS_REPLICA_STORES": f'{{"other_store": "{url}"}}'}
    assert run("store", "init", **house.keys | further).code == 0
    assert run("replicate", **house.keys | further).code == 0
    _gone(house.database, tmp_path)
    code, found = house.check(**further)
    assert (code, [each[0] for each in said(found, "warning")]) == (0, ["store"]), found


def _archives(folder: Path) -> list[Path]:
    return sorted((folder / "store").rglob("*.age"))


def test_an_archive_that_the_newest_backup_is_built_on_is_asked_for(house: House, run: Run, tmp_path: Path) -> None:
    house.execute("UPDATE public.comun_clinica SET telefono = '1' WHERE id = 1")
    assert run("backup", "--clinic", "1", "--kind", "incremental", **house.keys).code == 0
    assert house.check()[0] == 0
    _archives(tmp_path)[0].unlink()
    code, found = house.check()
    assert (code, [each[0] for each in said(found)]) == (1, ["store"])


def test_what_a_restore_does_without_is_a_warning(house: House, tmp_path: Path) -> None:
    for path in (tmp_path / "store").rglob("*.json"):
        if path.name != "clinic-backups-store.json":
            path.unlink()
    house.execute("UPDATE clinic_backups.backup SET source_db = NULL")
    code, found = house.check(AIRFLOW_CONN_CLINIC_DB=None)
    assert (code, [each[0] for each in said(found, "warning")]) == (0, ["store", "target"]), found


def test_an_archive_that_somebody_exchanged_does_not_hide_a_good_replica(
    house: House, run: Run, tmp_path: Path
) -> None:
    url = (tmp_path / "further").as_uri()
    further: dict[str, Any] = {"CLINIC_BACKUPS_REPLICA_STORES": f'{{"other_store": "{url}"}}'}
    assert run("store", "init", **house.keys | further).code == 0
    assert run("replicate", **house.keys | further).code == 0
    (archive,) = _archives(tmp_path)
    other = pyrage.encrypt(bytes(archive.stat().st_size), [pyrage.x25519.Identity.generate().to_public()])
    archive.write_bytes(other[: archive.stat().st_size])
    assert house.check()[0] == 1
    assert house.check(**further)[0] == 0


def test_the_programs_of_drills_are_found_while_the_databases_are_down(house: House) -> None:
    away = "postgres://a:b@127.0.0.1:9/c?connect_timeout=1"
    _, found = house.check(AIRFLOW_CONN_CLINIC_DB=away, AIRFLOW_CONN_RESTORE_DB=away)
    assert {each["level"] for each in found if each["check"] == "programs"} == {"ok"}


def test_a_frame_that_unpacks_to_gigabytes_is_not_unpacked() -> None:
    secret = pyrage.x25519.Identity.generate()
    packed = _bomb()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(IntegrityError, match="does not hold a backup"):
        require_opens(io.BytesIO(pyrage.encrypt(packed, [secret.to_public()])), [secret])
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000  # KiB


def _bomb() -> bytes:
    """600 MB of zeros, in about 20 KB."""
    packing = CODEC.writer()
    pieces = [packing.compress(bytes(1_000_000)) for _ in range(600)]
    return b"".join([*pieces, packing.flush()])
