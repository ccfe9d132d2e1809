"""Transactions of the catalog whose statements share round trips: they are one transaction like any other."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from clinic_backups.base.backup_record import BackupRecord
from clinic_backups.base.errors import ClinicBackupsError, PermanentError
from clinic_backups.catalog.catalog_database import CatalogDatabase
from clinic_backups.catalog.shared_round_trips import MAX_WAITING, later
from clinic_backups.stores.file import FileStore
from tests.postgres_fixtures import DemoDatabase
from tests.rig import Rig

WRITE = later(
    text("INSERT INTO clinic_backups.store (store_url, failed_at, error) VALUES (:url, now(), :error)").bindparams(
        error="100 % full; DROP"
    )
)
READ = text("SELECT error FROM clinic_backups.store WHERE store_url LIKE 's3://%' ORDER BY store_url")


@pytest.fixture
def rig(demo_database: DemoDatabase, tmp_path: Path) -> Rig:
    return Rig(demo_database, FileStore(tmp_path / "store"))


def written(database: CatalogDatabase) -> list[str]:
    with database.transaction("reading") as db:
        return list(db.execute(READ).scalars())


def pid_of(rig: Rig) -> int:
    """The process of the server that the catalog's connection leads to."""
    with rig.catalog.database.statement("asking") as db:
        return int(db.execute(text("SELECT pg_backend_pid()")).scalar_one())


def test_what_waits_is_done_before_the_next_statement_and_at_the_end(rig: Rig) -> None:
    database = rig.catalog.database
    with database.short_transaction("writing") as db:
        db.execute(WRITE, {"url": "s3://a"})
        assert list(db.execute(READ).scalars()) == ["100 % full; DROP"]
        assert written(Rig(rig.database, rig.store).catalog.database) == []
        db.execute(WRITE, {"url": "s3://b", "error": "x" * MAX_WAITING})
        db.execute(WRITE, {"url": "s3://c", "error": "the last one"})
    assert written(database) == ["100 % full; DROP", "x" * MAX_WAITING, "the last one"]


@pytest.mark.parametrize("at_the_end", [True, False])
def test_a_failure_of_what_waited_undoes_all_and_the_connection_goes_on(rig: Rig, at_the_end: bool) -> None:
    database, before = rig.catalog.database, pid_of(rig)
    with pytest.raises(ClinicBackupsError, match="while writing"), database.short_transaction("writing") as db:
        db.execute(WRITE, {"url": "s3://a"})
        db.execute(READ)
        db.execute(WRITE, {"url": "s3://a"})  # the same key
        if not at_the_end:
            db.execute(READ)
    assert pid_of(rig) == before
    assert written(database) == []
    with database.short_transaction("writing") as db:
        db.execute(WRITE, {"url": "s3://b"})
    assert len(written(database)) == 1


def test_an_error_of_the_caller_undoes_all(rig: Rig) -> None:
    database = rig.catalog.database
    with pytest.raises(KeyboardInterrupt), database.short_transaction("writing") as db:
        db.execute(WRITE, {"url": "s3://a"})
        db.execute(READ)
        db.execute(WRITE, {"url": "s3://b"})
        raise KeyboardInterrupt
    assert written(database) == []


def test_a_connection_that_is_lost_meanwhile_is_not_used_again(rig: Rig) -> None:
    database = rig.catalog.database
    with pytest.raises(ClinicBackupsError), database.short_transaction("writing") as db:
        db.execute(WRITE, {"url": "s3://a"})
        pid = db.execute(text("SELECT pg_backend_pid()")).scalar_one()
        rig.execute(f"SELECT pg_terminate_backend({pid})")
        db.execute(WRITE, {"url": "s3://b"})
    assert written(database) == []


def test_a_backup_whose_mail_cannot_be_written_is_not_completed(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """The record, its blocks, its store and its mail are written together or not at all."""
    rig.execute(
        "ALTER TABLE clinic_backups.notification ADD CONSTRAINT no_success CHECK (kind <> 'success') NOT VALID",
    )
    with pytest.raises(PermanentError):
        rig.run(1)
    found: list[Any] = rig.execute_rows("SELECT 1 FROM clinic_backups.backup_blocks")
    found += rig.execute_rows("SELECT 1 FROM clinic_backups.backup_replica")
    record: BackupRecord = rig.catalog.find()[0]
    assert (record.state, found) == ("running", [])
    rig.execute("ALTER TABLE clinic_backups.notification DROP CONSTRAINT no_success")
    assert rig.run(1).state == "completed"
    assert [record.state for record in rig.catalog.find()] == ["completed", "completed"]
