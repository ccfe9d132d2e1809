"""A task of several clinics with a real catalog, database and store: each clinic has its own record and failure."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.sdk.exceptions import AirflowException, AirflowFailException, AirflowRescheduleException
from airflow.sdk.execution_time.context import OutletEventAccessors

from clinic_backups.app import Parts
from clinic_backups.archive.codec import CODEC
from clinic_backups.archive.encryption import ENCRYPTION
from clinic_backups.backup.shares import NOT_BEFORE, Share
from clinic_backups.backup.stream import ArchiveStream
from clinic_backups.base.backup_record import BackupRecord
from clinic_backups.base.clinic import Clinic
from clinic_backups.operators.assets import OF_CLINICS
from clinic_backups.restore.request import RestoreRequest
from clinic_backups.stores.base import ByteSource, StoredObject
from clinic_backups.stores.file import FileStore
from clinic_backups.tenant.extract import SqlExtract
from tests.integration.test_restore_runner import Theatre
from tests.postgres_fixtures import DemoDatabase
from tests.spoiled import stock_condition

SHARE = Share(tuple(Clinic(number, f"Clínica {number}") for number in (1, 2, 3)))


@contextmanager
def failing_for(theatre: Theatre, clinic_id: int) -> Iterator[None]:
    """Meanwhile an extract divides by zero for this clinic."""
    with stock_condition(theatre.settings.sql_dir, f"1 / ({{{{ clinic_id }}}} - {clinic_id}) IS NOT NULL"):
        yield


class Task:
    """One task instance of the operator, which may be tried several times."""

    def __init__(self, theatre: Theatre, patch: pytest.MonkeyPatch, share: Share = SHARE, *, at_once: int = 4) -> None:
        from clinic_backups.operators import backup_operator
        from clinic_backups.operators.airflow_store import Store

        self.theatre = theatre
        known = {"clinic_db": theatre.clinic_db, "backup_catalog": theatre.catalog._connection}
        theatre.settings = theatre.settings.model_copy(update={"clinics_at_once": at_once})
        self.parts = Parts(theatre.settings, known.get)
        theatre.initialise()
        patch.setattr(backup_operator, "AirflowParts", lambda upload: self.parts)
        self.operator = backup_operator.ClinicBackupOperator(
            task_id="back_up", clinic=share.to_item(), extract=SqlExtract(), compress=CODEC, encrypt=ENCRYPTION,
            upload=Store(),
        )  # fmt: skip
        self.tries = 0
        self.run_after = self.run_began = datetime.now(UTC) - timedelta(minutes=1)

    def run(self, *, run_id: str = "r", max_tries: int = 1) -> Any:
        self.tries += 1
        run = SimpleNamespace(
            run_id=run_id, run_type="scheduled", triggering_user_name=None, run_after=self.run_after,
            start_date=self.run_began,
        )  # fmt: skip
        instance = SimpleNamespace(try_number=self.tries, max_tries=max_tries, xcom_push=lambda *arguments: None)
        self.outlet_events = OutletEventAccessors()
        context: Any = {"dag_run": run, "ti": instance, "outlet_events": self.outlet_events}
        extract: Any = SqlExtract()
        folder = self.theatre.settings.sql_dir
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("CLINIC_BACKUPS_SQL_DIR", str(folder))
            self.operator.extract = extract(context={"task": self.operator}, jinja_env=None)
        return self.operator.execute(context)

    def records(self, run_id: str = "r") -> dict[int, BackupRecord]:
        return {record.clinic_id: record for record in reversed(self.theatre.catalog.find(run_id=run_id))}


@pytest.fixture
def theatre(demo_database: DemoDatabase, tmp_path: Path) -> Theatre:
    theatre = Theatre(demo_database, FileStore(tmp_path / "store"))
    theatre.with_extracts(tmp_path / "sql", {})
    return theatre


def test_each_clinic_of_a_share_has_its_backup_and_xcom_has_no_clinics_names(
    theatre: Theatre, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = Task(theatre, monkeypatch)
    result = task.run()
    records = task.records()
    assert {number: record.state for number, record in records.items()} == dict.fromkeys((1, 2, 3), "completed")
    assert result == {
        "clinics": 3,
        "rows": sum(record.rows_total for record in records.values()),
        "raw_bytes": sum(record.raw_bytes or 0 for record in records.values()),
        "size_bytes": sum(record.size_bytes or 0 for record in records.values()),
        "gaps": 0,
    }
    shown = str(task.operator.extract)
    assert "clinica_id = {{ clinic_id }}" in shown
    good = theatre.rows_now(2)
    theatre.execute("DELETE FROM public.inventario_inventario WHERE clinica_id = 2")
    theatre.go(RestoreRequest(clinic_id=2, backup_id=records[2].backup_id))
    assert theatre.rows_now(2) == good


def test_what_the_conf_asks_of_the_backups_is_asked_of_each(theatre: Theatre, monkeypatch: pytest.MonkeyPatch) -> None:
    task = Task(theatre, monkeypatch)
    task.run()
    options = {"kind": "full", "notes": "before the holidays"}
    for number, given in enumerate((options, json.dumps(options))):
        task.operator.options = given
        task.run(run_id=f"r{number}")
        done = task.records(f"r{number}").values()
        assert {(record.kind, record.notes) for record in done} == {("full", "before the holidays")}


def test_a_clinic_that_fails_stops_no_other_and_a_retry_does_what_is_missing(
    theatre: Theatre, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = Task(theatre, monkeypatch)
    task.operator.outlets = [OF_CLINICS]
    with (
        failing_for(theatre, 2),
        pytest.raises(AirflowFailException, match=r"1 of the 3 clinics of this task have no backup: 2\."),
    ):
        task.run()
    first = task.records()
    assert {number: record.state for number, record in first.items()} == {1: "completed", 2: "failed", 3: "completed"}
    assert "22012" in (first[2].error or "")
    task.run()
    second = task.records()
    assert {record.state for record in second.values()} == {"completed"}
    assert (second[1], second[3]) == (first[1], first[3])
    # Airflow drops the events of a try that failed, so the next one sends them.
    events = task.outlet_events[OF_CLINICS].asset_alias_events
    assert {event.dest_asset_key.name: event.extra["backup_id"] for event in events} == {
        f"clinic_backups/{number}": record.backup_id for number, record in second.items()
    }
    # All of them are there: a person who clears the task wants them anew.
    task.run()
    assert {number: len(theatre.catalog.find(clinic_id=number, run_id="r")) for number in (1, 2, 3)} == {
        1: 2,
        2: 2,
        3: 2,
    }


def test_what_may_pass_is_tried_again_and_what_will_not_is_not(
    theatre: Theatre, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another role's session holds the lock: nobody knows whether it ends."""
    task = Task(theatre, monkeypatch)
    theatre.execute(
        "CREATE ROLE forastero LOGIN PASSWORD 'x'",
        f"GRANT CONNECT ON DATABASE {theatre.database.name} TO forastero",
    )
    try:
        with closing(theatre.database.connect(user="forastero", password="x")) as other, other.cursor() as cursor:
            cursor.execute("SELECT pg_advisory_lock(hashtextextended('clinic_backups:clinic:3', 0))")
            with pytest.raises(AirflowException, match=r"have no backup: 3\.") as failed:
                task.run()
        assert not isinstance(failed.value, AirflowFailException | AirflowRescheduleException)
    finally:
        theatre.execute("DROP OWNED BY forastero", "DROP ROLE forastero")
    task.run()
    assert {record.state for record in task.records().values()} == {"completed"}


def test_a_clinic_that_another_process_works_on_is_waited_for_unless_something_else_failed(
    theatre: Theatre, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = Task(theatre, monkeypatch)
    with (
        failing_for(theatre, 2),
        theatre.catalog.lock(3),
        pytest.raises(AirflowException, match=r"have no backup: 2, 3\.") as failed,
    ):
        task.run()
    assert not isinstance(failed.value, AirflowRescheduleException)
    before = datetime.now(UTC)
    with theatre.catalog.lock(3), pytest.raises(AirflowRescheduleException) as waits:
        task.run()
    delay = timedelta(seconds=theatre.settings.retry_delay_seconds)
    assert waits.value.reschedule_date >= before + delay
    assert {number: record.state for number, record in task.records().items()} == {1: "completed", 2: "completed"}
    task.run()
    assert {record.state for record in task.records().values()} == {"completed"}
    assert len(theatre.catalog.find(run_id="r")) == 3


@pytest.mark.parametrize("clinics", [SHARE.clinics, SHARE.clinics[:1]])
def test_a_task_that_has_waited_for_long_fails_so_that_the_run_ends_by_itself(
    clinics: tuple[Clinic, ...], theatre: Theatre, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = Task(theatre, monkeypatch, Share(clinics))
    task.run_began = datetime.now(UTC) - timedelta(hours=theatre.settings.task_hours)
    with theatre.catalog.lock(1), pytest.raises(AirflowException) as failed:
        task.run()
    assert not isinstance(failed.value, AirflowRescheduleException | AirflowFailException)


@pytest.mark.parametrize("clinics", [SHARE.clinics, SHARE.clinics[:1]])
def test_the_backups_of_a_deleted_run_with_the_same_id_are_not_those_of_this_run(
    clinics: tuple[Clinic, ...], theatre: Theatre, monkeypatch: pytest.MonkeyPatch
) -> None:
    deleted = Task(theatre, monkeypatch, Share(clinics))
    deleted.run()
    again = Task(theatre, monkeypatch, Share(clinics))
    again.operator.retries = 1
    again.run_after = again.run_began = datetime.now(UTC)
    again.tries = 1  # the first one died before it had begun a backup
    again.run()
    assert len(theatre.catalog.find(run_id="r", state="completed")) == 2 * len(clinics)


@pytest.mark.parametrize("clinics", [SHARE.clinics, SHARE.clinics[:1]])
def test_a_retry_keeps_what_an_earlier_try_completed_before_it_died_and_a_cleared_task_makes_it_anew(
    clinics: tuple[Clinic, ...], theatre: Theatre, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = Task(theatre, monkeypatch, Share(clinics))
    task.operator.retries = 1
    result = task.run()
    records = task.records()
    assert task.run() == result
    assert task.records() == records
    assert len(theatre.catalog.find(run_id="r")) == len(clinics)
    # Airflow raises the number of tries when somebody clears the task.
    task.run(max_tries=3)
    assert len(theatre.catalog.find(run_id="r")) == 2 * len(clinics)


def test_a_task_waits_for_its_part_of_the_window(theatre: Theatre, monkeypatch: pytest.MonkeyPatch) -> None:
    task = Task(theatre, monkeypatch)
    begins = datetime.now(UTC) + timedelta(minutes=3)
    task.operator.clinic = SHARE.to_item() | {NOT_BEFORE: begins.isoformat()}
    with pytest.raises(AirflowRescheduleException) as waits:
        task.run()
    assert waits.value.reschedule_date == begins and task.records() == {}
    # Airflow's scheduler must have heard of the end of this look before the next one is queued.
    task.operator.clinic = SHARE.to_item() | {NOT_BEFORE: (datetime.now(UTC) + timedelta(seconds=2)).isoformat()}
    with pytest.raises(AirflowRescheduleException) as waits:
        task.run()
    assert waits.value.reschedule_date > datetime.now(UTC) + timedelta(seconds=8)
    task.operator.clinic = SHARE.to_item() | {NOT_BEFORE: (begins - timedelta(minutes=4)).isoformat()}
    task.run()
    assert len(task.records()) == 3


@pytest.mark.parametrize("at_once", [1, 2])
def test_a_task_that_is_stopped_begins_no_further_clinic(
    theatre: Theatre, monkeypatch: pytest.MonkeyPatch, at_once: int
) -> None:
    from clinic_backups.operators import backup_operator

    task = Task(theatre, monkeypatch, at_once=at_once)
    monkeypatch.setattr(backup_operator, "replicate_without_failing", lambda *arguments: task.operator.on_kill())
    with pytest.raises(AirflowException, match="Airflow stopped the task"):
        task.run()
    assert sorted(task.records()) == [1, 2, 3][:at_once]
    assert {record.state for record in task.records().values()} <= {"completed", "failed"}
    # The retry finds nothing that is in its way.
    monkeypatch.setattr(backup_operator, "replicate_without_failing", lambda *arguments: None)
    task.operator._stopped = None
    task.run()
    assert {number: record.state for number, record in task.records().items()} == dict.fromkeys((1, 2, 3), "completed")


class Gates(FileStore):
    """A store in which the puts of archives wait until some wait at the same time, or a limit has passed."""

    def __init__(self, root: Path, parties: int) -> None:
        super().__init__(root)
        self.met = threading.Barrier(parties, timeout=30)

    def put(self, key: str, source: ByteSource, **options: Any) -> StoredObject:
        stored = super().put(key, source, **options)
        if not key.endswith(".json"):
            self.met.wait()
        return stored


def test_clinics_wait_for_the_store_at_the_same_time_and_each_has_its_own_section(
    theatre: Theatre, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = Task(theatre, monkeypatch, at_once=3)
    gates = Gates(Path(theatre.store.url.removeprefix("file://")), parties=3)
    gates.make_place()
    monkeypatch.setattr(task.parts, "open_store", lambda url, conn_id: gates)
    lines: list[str] = []
    said = SimpleNamespace(
        **{level: lambda text, *values, **fields: lines.append(text % values) for level in ("info", "warning", "error")}
    )
    monkeypatch.setattr(type(task.operator), "log", said)
    task.run()  # with fewer than three at the same time, the barrier would break and each clinic would fail
    assert {record.state for record in task.records().values()} == {"completed"}
    begins = [number for number, line in enumerate(lines) if line.startswith("::group::")]
    assert len(begins) == 3
    for number in begins:
        clinic = re.search(r"clinic (\d)", lines[number])[1]  # type: ignore[index]
        assert lines[number + 1].startswith(f"Backing up clinic {clinic} ")
        assert lines[number + 2].startswith(f"Backup {clinic}-") and lines[number + 2].endswith(" begins, attempt 1.")
        assert lines[number + 3].startswith("Backup ") and f"_{clinic}_" in lines[number + 3]
        assert lines[number + 4] == "::endgroup::"


def test_one_clinic_at_a_time_is_read(theatre: Theatre, monkeypatch: pytest.MonkeyPatch) -> None:
    reading, most = set[int](), [0]
    read = ArchiveStream.run
    lock = threading.Lock()

    def watched(self: ArchiveStream, record: BackupRecord, *arguments: Any, **options: Any) -> Any:
        on_read = options.pop("on_read")

        def has_read() -> None:
            with lock:
                reading.discard(record.clinic_id)
            on_read()

        with lock:
            reading.add(record.clinic_id)
            most[0] = max(most[0], len(reading))
        return read(self, record, *arguments, **options, on_read=has_read)

    monkeypatch.setattr(ArchiveStream, "run", watched)
    Task(theatre, monkeypatch, at_once=3).run()
    assert most == [1] and not reading
