"""The progress of a running backup is shown while it runs, removed at its end, and never delays it."""

from __future__ import annotations

import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event, text

from clinic_backups.base import connections
from clinic_backups.base.backup_record import BackupRecord
from clinic_backups.base.clinic import Clinic
from clinic_backups.base.errors import ClinicBackupsError, TransientError
from clinic_backups.catalog import progress
from clinic_backups.catalog.backup_list import History
from clinic_backups.catalog.board import Board, RunningBackup
from clinic_backups.catalog.catalog_database import CatalogDatabase
from clinic_backups.catalog.clinics import Clinics
from clinic_backups.catalog.progress import BackupProgress, ProgressNotes
from clinic_backups.stores.file import FileStore
from tests.postgres_fixtures import DemoDatabase
from tests.rig import Rig

NOW = datetime(2026, 11, 24, 6, 0, tzinfo=UTC)
LOCKED = "public.inventario_inventario"


@pytest.fixture
def rig(demo_database: DemoDatabase, tmp_path: Path) -> Rig:
    rig = Rig(demo_database, FileStore(tmp_path / "store"))
    clinics = [Clinic(1, "Clínica N.º 1"), Clinic(2, "Clínica N.º 2")]
    Clinics(rig.catalog.database).see(active=clinics, every=clinics)
    return rig


@contextmanager
def stuck(rig: Rig, table: str = LOCKED, **options: Any) -> Iterator[Callable[[], BackupRecord]]:
    """A backup that cannot go past a table while the block lasts; what is given out ends that, and waits for it."""
    done: list[BackupRecord | BaseException] = []

    def run() -> None:
        try:
            done.append(rig.run(1, **options))
        except ClinicBackupsError as error:
            done.append(error)

    with rig.gate(Path(tempfile.mkdtemp()) / "sql", table) as open_gate:
        thread = threading.Thread(target=run)
        thread.start()

        def finish() -> BackupRecord:
            open_gate()
            thread.join(60)
            (result,) = done
            if isinstance(result, BaseException):
                raise result
            return result

        try:
            yield finish
        finally:
            open_gate()
            thread.join(60)


def wait_for(found: Callable[[], Any], seconds: float = 20) -> Any:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if result := found():
            return result
        time.sleep(0.05)
    raise AssertionError("It never came.")


def notes_of(rig: Rig) -> list[tuple[Any, ...]]:
    return rig.execute_rows("SELECT backup_id, table_name, rows FROM clinic_backups.backup_progress")


def seen(rig: Rig) -> RunningBackup | None:
    line = Board(rig.catalog.database).clinic(1, now=rig.catalog.clock(), objective_hours=26, prove_within_days=0)
    return line.running if line else None


def test_progress_is_seen_while_a_backup_runs_and_is_gone_after_it(rig: Rig) -> None:
    last = rig.run(1, now=lambda: NOW)
    began = time.monotonic()
    with stuck(rig) as finish:
        found = wait_for(lambda: (running := seen(rig)) and running.progress and running)
        assert time.monotonic() - began > progress.SECONDS_BETWEEN_NOTES
        (running_id,) = [record.backup_id for record in rig.catalog.find(state="running")]
        assert found.backup_id == running_id
        assert found.expected_bytes == last.raw_bytes
        assert (found.progress.table, found.progress.tables) == (LOCKED, len(last.rows))
        assert 1 < found.progress.table_number < found.progress.tables
        assert 0 < found.progress.rows < last.rows_total
        assert 0 < found.progress.raw_bytes < (last.raw_bytes or 0)
        history = History(rig.catalog.database)
        assert history.page(visible=[1]).entries[0].running == found
        assert history.by_number(found.number, [1]).running == found  # type: ignore[union-attr]
        record = finish()
    assert (record.state, record.backup_id) == ("completed", running_id)
    assert notes_of(rig) == []
    assert seen(rig) is None


def test_progress_is_gone_after_a_failure(rig: Rig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "SECONDS_BETWEEN_NOTES", 0.1)
    with rig.gate(tmp_path / "sql", LOCKED):
        backup = rig.backup()
        failures: list[BaseException] = []

        def run() -> None:
            try:
                backup.run(rig.request())
            except TransientError as error:
                failures.append(error)

        thread = threading.Thread(target=run)
        thread.start()
        wait_for(lambda: notes_of(rig))
        backup.stop(TransientError("stopped", hint="try again"))
        thread.join(60)
    assert len(failures) == 1
    assert notes_of(rig) == []


def test_progress_is_gone_when_a_dead_backup_is_closed_or_tried_again(rig: Rig) -> None:
    for number, end in enumerate((lambda: rig.run(1), lambda: rig.run(1, run_id="again"))):
        dead = rig.catalog.begin(running_record(number))
        note(rig, dead)
        assert len(notes_of(rig)) == 1
        end()
        assert notes_of(rig) == []
    note(rig, rig.catalog.begin(running_record(2)))
    assert rig.catalog.resume(1, "again", NOW)
    assert notes_of(rig) == []


def running_record(number: int) -> BackupRecord:
    return BackupRecord(
        backup_id=f"1-20261123T06000{number}Z", clinic_id=1, clinic_name="Clínica", kind="full", trigger="manual",
        state="running", started_at=NOW - timedelta(days=1, minutes=number),
        archive_key=f"backups/1/2026/11/backup_clinica_1_20261123_06000{number}.tar.zst.age",
        run_id="again" if number else None,
    )  # fmt: skip


def note(rig: Rig, record: BackupRecord) -> None:
    notes = ProgressNotes(rig.catalog.database, record.backup_id, lambda: NOW)
    notes._put(BackupProgress("public.a", 1, 3, 10, 100, NOW))


def test_a_quick_backup_asks_the_catalog_nothing_more(rig: Rig) -> None:
    rig.run(2)
    statements: list[str] = []
    connects: list[object] = []
    engine = rig.catalog.database._engine
    event.listen(engine, "before_cursor_execute", lambda *called: statements.append(called[2]))
    event.listen(engine, "connect", lambda *called: connects.append(called))
    rig.run(1)
    assert statements
    assert not connects
    assert not [statement for statement in statements if "progress" in statement]


def test_a_catalog_that_fails_is_told_of_once_and_the_backup_goes_on(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "SECONDS_BETWEEN_NOTES", 0.1)
    rig.execute(f"REVOKE INSERT ON clinic_backups.backup_progress FROM {rig.database.roles.catalog}")
    told: list[ClinicBackupsError] = []
    with stuck(rig, on_unnoted=told.append) as finish:
        wait_for(lambda: told)
        time.sleep(0.5)
        assert finish().state == "completed"
    assert len(told) == 1
    assert "noting how far 1-" in told[0].message


def test_a_catalog_that_hangs_is_not_waited_for(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "SECONDS_BETWEEN_NOTES", 0.1)
    hanging, let_go = threading.Event(), threading.Event()
    statement = CatalogDatabase.statement

    @contextmanager
    def hang(self: CatalogDatabase, doing: str) -> Iterator[Any]:
        if not doing.startswith("noting how far"):
            with statement(self, doing) as db:
                yield db
            return
        hanging.set()
        let_go.wait(60)
        raise TransientError("gone", hint="")

    monkeypatch.setattr(CatalogDatabase, "statement", hang)
    try:
        with stuck(rig) as finish:
            assert hanging.wait(20)
            assert finish().state == "completed"
            assert not let_go.is_set()
    finally:
        let_go.set()


class TestNoNoteComesAfterTheEnd:
    """Whichever of the two comes first."""

    END = text("UPDATE clinic_backups.backup SET state = 'failed', finished_at = now() WHERE backup_id = :id")

    def test_the_record_is_being_ended(self, rig: Rig) -> None:
        record = rig.catalog.begin(running_record(0))
        with rig.catalog.database.transaction("ending") as db:
            db.execute(self.END, {"id": record.backup_id})
            note(rig, record)  # does not wait for the end
        assert notes_of(rig) == []
        note(rig, record)
        assert notes_of(rig) == []

    def test_a_note_is_being_written(self, rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
        record = rig.catalog.begin(running_record(0))
        database = rig.catalog.database
        with database.transaction("noting") as db:
            # The same statement in a transaction that is still open.
            with monkeypatch.context() as patch:
                patch.setattr(database, "statement", lambda doing: _given(db))
                note(rig, record)

            def end() -> None:
                with database.transaction("ending") as other:
                    other.execute(self.END, {"id": record.backup_id})

            thread = threading.Thread(target=end)
            thread.start()
            thread.join(0.5)
            assert thread.is_alive()
        thread.join(20)
        assert rig.catalog.require(record.backup_id).state == "failed"
        assert notes_of(rig) == []


@contextmanager
def _given(db: Any) -> Iterator[Any]:
    yield db


def test_a_catalog_that_is_away_fails_a_note_and_nothing_else(demo_database: DemoDatabase) -> None:
    database = CatalogDatabase(connections.parse("backup_catalog", "postgres://u:p@127.0.0.1:1/x"))
    told: list[ClinicBackupsError] = []
    notes = ProgressNotes(database, "1-x", lambda: NOW, on_failure=told.append)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(progress, "SECONDS_BETWEEN_NOTES", 0.05)
        with notes:
            notes.note("public.a", 1, 2, 3, 4)
            wait_for(lambda: told)
            notes.note("public.b", 2, 2, 3, 4)
            time.sleep(0.3)
    assert len(told) == 1


@pytest.mark.parametrize(
    ("read", "after", "asked", "rest"),
    [
        (250, 10, 10, 30.0),
        (250, 10, 20, 20.0),
        (250, 10, 100, 0.0),
        (0, 10, 10, None),
        (1000, 10, 10, None),
        (2000, 10, 10, None),
        (250, 0, 0, None),
    ],
)
def test_the_rest_is_estimated_from_the_last_good_backup(read: int, after: int, asked: int, rest: float | None) -> None:
    def at(seconds: int) -> datetime:
        return NOW + timedelta(seconds=seconds)

    reached = BackupProgress("public.a", 1, 2, 3, read, at(after))
    assert RunningBackup("1-x", 1, NOW, reached, 1000).rest_seconds(at(asked)) == rest
    assert RunningBackup("1-x", 1, NOW, reached, None).rest_seconds(at(asked)) is None
    assert RunningBackup("1-x", 1, NOW, None, 1000).rest_seconds(at(asked)) is None


def test_only_news_is_written(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "SECONDS_BETWEEN_NOTES", 0.02)
    written: list[int] = []
    monkeypatch.setattr(ProgressNotes, "_put", lambda self, latest: written.append(latest.table_number))
    database = CatalogDatabase(connections.parse("backup_catalog", "postgres://u:p@127.0.0.1:1/x"))
    with ProgressNotes(database, "1-x", lambda: NOW) as notes:
        for number in (1, 2):
            notes.note("public.a", number, 2, 3, 4)
            wait_for(lambda number=number: number in written)
            time.sleep(0.2)
    assert written == [1, 2]
