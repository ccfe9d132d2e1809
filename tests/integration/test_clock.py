"""The catalog's clock counts. A machine with a wrong clock changes nothing, and a date in the future has no effect."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import fields, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from alembic import command
from sqlalchemy import NullPool, create_engine, inspect

from clinic_backups.app import Parts
from clinic_backups.base import clock, connections
from clinic_backups.base.backup_record import BackupRecord
from clinic_backups.base.clinic import Clinic
from clinic_backups.base.clock import ClocksDiffer, DatabaseClock
from clinic_backups.base.errors import PermanentError, TransientError
from clinic_backups.catalog import migrate, tables
from clinic_backups.catalog.backup_list import History
from clinic_backups.catalog.board import Board
from clinic_backups.catalog.clinics import Clinics
from clinic_backups.catalog.erasures import Erasures
from clinic_backups.catalog.records import Catalog
from clinic_backups.maintenance.replication import Replicator
from clinic_backups.maintenance.retention_run import Cleaner
from clinic_backups.maintenance.store_check import StoreCheck
from clinic_backups.maintenance.store_comparison import Task
from clinic_backups.maintenance.watch import alarm_notice
from clinic_backups.notify.digest import overdue_facts
from clinic_backups.restore.consolidation import Consolidation
from clinic_backups.restore.find_backup import choose_backup
from clinic_backups.restore.request import RestoreRequest
from clinic_backups.stores.base import ByteSource, ObjectInfo, StoredObject
from clinic_backups.stores.file import FileStore
from clinic_backups.stores.s3 import S3Store
from tests.conftest import BUCKET
from tests.fleet import Fleet, age, objects_of, put
from tests.integration.test_cli import Run, run  # noqa: F401 - a fixture
from tests.missing import needs
from tests.postgres_fixtures import DemoDatabase
from tests.servers import CHECKOUT

SHIFTS = (timedelta(days=20), timedelta(minutes=-3))
AT = datetime(2026, 9, 1, 6, tzinfo=UTC)


@pytest.fixture
def fleet(demo_database: DemoDatabase, tmp_path: Path) -> Fleet:
    return Fleet(demo_database, FileStore(tmp_path / "store"))


def shifted(by: timedelta) -> Callable[[], datetime]:
    return lambda: datetime.now(UTC) + by


def wrong(fleet: Fleet, by: timedelta) -> Catalog:
    """The catalog, as a machine with a wrong clock has it."""
    return Catalog(connections.parse("backup_catalog", fleet.database.catalog_uri), machine=shifted(by))


class Fake:
    """A database and a machine, whose clocks a test moves."""

    def __init__(self) -> None:
        self.database = self.machine = AT
        self.monotonic, self.asked, self.down = 100.0, 0, False
        self.clock = DatabaseClock(self.ask, machine=lambda: self.machine, monotonic=lambda: self.monotonic)

    def ask(self) -> datetime:
        self.asked += 1
        if self.down:
            raise TransientError("down")
        return self.database

    def passes(self, seconds: float) -> None:
        self.monotonic += seconds
        self.database += timedelta(seconds=seconds)
        self.machine += timedelta(seconds=seconds)


class TestTold:
    def test_it_is_the_databases_and_is_asked_once_a_minute(self) -> None:
        fake = Fake()
        fake.machine += timedelta(days=20)
        for _ in range(60):
            assert fake.clock() == fake.database
            fake.passes(1)
        assert fake.asked == 1
        fake.passes(1)
        assert (fake.clock(), fake.asked) == (fake.database, 2)

    def test_a_machine_that_is_set_in_between_moves_nothing(self) -> None:
        fake = Fake()
        before = fake.clock()
        fake.machine -= timedelta(hours=5)
        assert fake.clock() == before
        with pytest.raises(ClocksDiffer):
            fake.clock.require_same()

    def test_a_statement_that_is_made_anyway_tells_it(self) -> None:
        fake = Fake()
        fake.clock.observe(lambda: AT + timedelta(hours=1))
        assert (fake.clock(), fake.asked) == (AT + timedelta(hours=1), 0)

    def test_who_does_not_answer_keeps_no_backup_from_going_on_for_a_while(self) -> None:
        fake = Fake()
        fake.clock()
        fake.down = True
        fake.passes(clock.TRUSTED_SECONDS - 1)
        assert fake.clock() == fake.database
        fake.passes(2)
        with pytest.raises(TransientError, match="down"):
            fake.clock()
        with pytest.raises(TransientError, match="down"):
            DatabaseClock(fake.ask)()

    @pytest.mark.parametrize("seconds", [119, -119, 121, -121, 86_400 * 400])
    def test_the_limit(self, seconds: float) -> None:
        fake = Fake()
        fake.machine += timedelta(seconds=seconds)
        if abs(seconds) < 120:
            fake.clock.require_same()
            fake.clock.require_same_as("Another", lambda: fake.machine)
            return
        for require in (fake.clock.require_same, lambda: fake.clock.require_same_as("Another", lambda: fake.machine)):
            with pytest.raises(ClocksDiffer) as caught:
                require()
            for moment in (fake.machine, fake.database):
                assert f"{moment:%Y-%m-%dT%H:%M:%SZ}" in caught.value.message
            assert "CLINIC_BACKUPS_CLOCK_DIFFERENCE_SECONDS" in caught.value.hint

    def test_a_slow_answer_is_no_difference(self) -> None:
        fake = Fake()

        def slow() -> datetime:
            fake.passes(300)
            return fake.database - timedelta(seconds=150)

        fake.clock.require_same_as("Another", slow)

    def test_it_is_carried_on_without_asking_anybody(self) -> None:
        fake = Fake()
        carried = clock.carried_on(fake.clock)
        fake.down = True
        assert abs(carried() - AT) < timedelta(minutes=1)
        assert fake.asked == 1
        assert clock.carried_on(shifted(timedelta())) is not carried


class TestRefused:
    @pytest.mark.parametrize("by", SHIFTS, ids=str)
    def test_nothing_is_named_deleted_or_decided_by_a_wrong_clock(self, fleet: Fleet, by: timedelta) -> None:
        fleet.kind = "auto"
        fleet.on_day(0)
        record = fleet.on_day(1)
        assert record.kind == "incremental"
        before, objects = fleet.catalog.find(), objects_of(fleet.store)
        catalog = wrong(fleet, by)
        cleaner = Cleaner(settings=fleet.settings, catalog=catalog, stores=fleet.stores, now=catalog.clock)
        check = StoreCheck(catalog=catalog, now=catalog.clock)
        consolidation = Consolidation(
            settings=fleet.settings, catalog=catalog, archives=fleet.archives(), store=fleet.store
        )
        actions: dict[str, Callable[[], Any]] = {
            "backup": lambda: fleet.run(1, catalog=catalog),
            "retention": lambda: list(cleaner.run()),
            "retention of records": cleaner.forget_old,
            "dry run": lambda: list(cleaner.run(dry_run=True)),
            "sweep": lambda: check.run(fleet.store, Task(sweep=True)),
            "record": lambda: check.run(fleet.store, Task(record=True)),
            "replicas": lambda: Replicator(catalog=catalog, stores=fleet.stores, now=catalog.clock).run(),
            "consolidate": lambda: consolidation.run(record.backup_id, requested_by="x"),
        }
        for name, do in actions.items():
            with pytest.raises(ClocksDiffer, match="This machine's clock says"):
                do()
                pytest.fail(name)
        assert (fleet.catalog.find(), objects_of(fleet.store)) == (before, objects)

    def test_one_that_differs_by_little_names_by_the_database(self, fleet: Fleet) -> None:
        record = fleet.run(1, catalog=wrong(fleet, timedelta(seconds=100)))
        ((apart,),) = fleet.execute_rows(
            "SELECT abs(extract(epoch FROM now() - started_at)) FROM clinic_backups.backup"
        )
        assert apart < 60
        assert record.finished_at is not None and record.finished_at >= record.started_at

    @pytest.mark.parametrize("hours", [1, -1])
    def test_two_servers_that_do_not_agree(self, fleet: Fleet, hours: int) -> None:
        catalog = wrong(fleet, timedelta(hours=hours))
        catalog.clock = DatabaseClock(shifted(timedelta(hours=hours)), machine=shifted(timedelta(hours=hours)))
        catalog.clock.observe = lambda ask: ask()  # type: ignore[method-assign, assignment]
        catalog.clock._known = (shifted(timedelta(hours=hours))(), clock.time.monotonic())
        with pytest.raises(ClocksDiffer, match="The clinics' database says"):
            fleet.run(1, catalog=catalog)
        assert objects_of(fleet.store) == {}

    def test_the_command_says_both_times(
        self,
        run: Run,  # noqa: F811
        monkeypatch: pytest.MonkeyPatch,
        tmp_path: Path,
    ) -> None:
        replica = f'{{"other": "{(tmp_path / "replica").as_uri()}"}}'
        with monkeypatch.context() as patch:
            patch.setattr(clock, "machine_now", shifted(timedelta(days=400)))
            for words in (
                ("backup", "--clinic", "1"), ("retention",), ("catalog", "verify", "--sweep"), ("replicate",),
                ("erase-clinic", "99", "--reason", "baja", "--yes"),
            ):  # fmt: skip
                done = run(*words, CLINIC_BACKUPS_REPLICA_STORES=replica)
                assert (words, done.code) == (words, 75)
                assert "This machine's clock says 20" in done.err
                assert "catalog's database says 20" in done.err
        assert run("list", "--json").json() == run("erasures", "--json").json() == []

    @pytest.mark.parametrize("hours", [30, -30])
    def test_nothing_is_swept_where_the_store_dates_it_wrongly(self, fleet: Fleet, tmp_path: Path, hours: int) -> None:
        class Wrong(FileStore):
            def stat(self, key: str) -> ObjectInfo:
                found = super().stat(key)
                return replace(found, last_modified=found.last_modified + timedelta(hours=hours))

        debris = "backups/1/2026/09/backup_vieja_1_20260801_060000.tar.zst.age"
        put(fleet.store, debris)
        age(tmp_path, 2)
        check = StoreCheck(catalog=fleet.catalog, now=fleet.catalog.clock)
        with pytest.raises(ClocksDiffer, match=r"The store file://.* says"):
            check.run(Wrong(tmp_path / "store"), Task(sweep=True))
        assert list(objects_of(fleet.store)) == [debris]
        check.run(fleet.store, Task(sweep=True))
        assert objects_of(fleet.store) == {}

    def test_the_preflight_finds_it(self, fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
        names = {"clinic_db": fleet.database.reader_uri, "backup_catalog": fleet.database.catalog_uri}
        parts = Parts(fleet.settings, lambda name: connections.parse(name, names[name]) if name in names else None)
        assert [found.level for found in parts.preflight(count_rows=False) if found.check == "clock"] == ["ok"]
        monkeypatch.setattr(clock, "machine_now", shifted(timedelta(days=-1)))
        (found,) = [found for found in parts.preflight(count_rows=False) if found.check == "clock"]
        assert (found.level, "This machine's clock says" in found.message) == ("error", True)


class TestOfTheFuture:
    """As a worker left them whose clock was ahead, before clocks were compared; or as somebody made them up."""

    @pytest.fixture
    def ahead(self, fleet: Fleet) -> tuple[BackupRecord, BackupRecord]:
        """The last real backup, and the one of 2199; another is 20 days ahead."""
        real, odd, far = fleet.run(1), fleet.run(1), fleet.run(1)
        for record, moment in ((odd, "now() + interval '20 days'"), (far, "timestamptz '2199-01-01'")):
            fleet.execute(f"""
                UPDATE clinic_backups.backup SET started_at = {moment}, finished_at = {moment}, data_at = {moment}
                 WHERE backup_id = '{record.backup_id}'""")
        Clinics(fleet.catalog.database).see(active=[Clinic(1, "Una")], every=[Clinic(1, "Una")])
        return real, fleet.again(far)

    def test_it_is_not_the_newest_and_not_restored_by_itself(
        self, fleet: Fleet, ahead: tuple[BackupRecord, BackupRecord]
    ) -> None:
        real, odd = ahead
        assert fleet.catalog.latest(1) == real
        for request in (
            RestoreRequest(clinic_id=1),
            RestoreRequest(clinic_id=1, as_of=datetime(2199, 12, 1, tzinfo=UTC)),
        ):
            assert choose_backup(fleet.catalog, request) == real
        assert choose_backup(fleet.catalog, RestoreRequest(clinic_id=1, backup_id=odd.backup_id)) == odd
        assert History(fleet.catalog.database).moments(1)[0].backup_id == real.backup_id
        fleet.execute(f"DELETE FROM clinic_backups.backup WHERE backup_id = '{real.backup_id}'")
        with pytest.raises(PermanentError, match=f"except {odd.backup_id}, which is dated in the future") as caught:
            choose_backup(fleet.catalog, RestoreRequest(clinic_id=1))
        assert "give its id" in caught.value.hint

    def test_the_watch_and_the_board_are_not_silenced(
        self, fleet: Fleet, ahead: tuple[BackupRecord, BackupRecord]
    ) -> None:
        real, _ = ahead
        now = fleet.catalog.clock()
        (health,) = Clinics(fleet.catalog.database).health(now)
        assert health.last_good_at == real.data_time
        later = now + timedelta(hours=30)
        facts = overdue_facts(Clinics(fleet.catalog.database).health(later), 26, later)
        assert alarm_notice(facts, None, later) is not None
        board = Board(fleet.catalog.database)
        assert board.counts(visible=None, now=later, objective_hours=26, prove_within_days=0).late == 1
        (line,) = board.page(visible=None, now=later, objective_hours=26, prove_within_days=0).lines
        assert (line.standing, line.last_good_id) == ("late", real.backup_id)
        (metrics,) = board.metrics(visible=None, now=later)
        assert metrics.last_good_at == real.data_time

    def test_what_a_wrong_clock_wrote_of_alarms_and_rests_silences_nothing(self, fleet: Fleet) -> None:
        late = {"never": [{"clinic_id": 1}], "overdue": []}
        for ahead, silent in ((timedelta(hours=-1), True), (timedelta(days=-2), False), (timedelta(days=20), False)):
            assert (alarm_notice(late, (late, AT + ahead), AT) is None) == silent
        for ahead, rests in ((timedelta(minutes=-1), True), (timedelta(days=20), False)):
            fleet.replicas.note_failure("file:///x", TransientError("down"), AT + ahead)
            assert fleet.replicas.resting(AT) == ({"file:///x"} if rests else set())

    def test_the_command_says_so(
        self,
        fleet: Fleet,
        ahead: tuple[BackupRecord, BackupRecord],
        run: Run,  # noqa: F811
    ) -> None:
        real, odd = ahead
        for words in (("list",), ("show", odd.backup_id)):
            said = run(*words).err
            assert f"Backup {odd.backup_id} is dated in the future" in said
            assert f"Backup {real.backup_id} is" not in said

    def test_the_next_backup_is_compared_with_the_last_real_one_and_built_on_none(
        self, fleet: Fleet, ahead: tuple[BackupRecord, BackupRecord]
    ) -> None:
        fleet.kind = "auto"
        done = fleet.run(1)
        assert (done.kind, done.suspect) == ("full", None)
        assert "dated in the future" in (done.kind_reason or "")

    def test_an_erasure_covers_it(self, fleet: Fleet, ahead: tuple[BackupRecord, BackupRecord]) -> None:
        now = fleet.catalog.clock()
        Erasures(fleet.catalog.database).request(1, reason="baja", by="ops", at=now)
        cleaner = Cleaner(settings=fleet.settings, catalog=fleet.catalog, stores=fleet.stores, now=fleet.catalog.clock)
        (cleaned,) = cleaner.run(clinic_id=1)
        assert (cleaned.problem, cleaned.deleted) == ("", 3)
        assert objects_of(fleet.store) == {}


def test_times_that_python_cannot_read_are_put_right_by_the_migration(fleet: Fleet) -> None:
    record, other = fleet.run(1), fleet.run(2)
    with create_engine(fleet.database.catalog_uri, poolclass=NullPool).begin() as db:
        command.downgrade(migrate._config(db), "0013")
        before = {column["name"] for column in inspect(db).get_columns("backup", tables.SCHEMA)}
    fleet.execute(f"""
        UPDATE clinic_backups.backup
           SET locked_until = '9999-12-31 23:59:59-12', size_bytes = -1, finished_at = '1970-01-01'
         WHERE backup_id = '{record.backup_id}'""")
    fleet.catalog.migrate()
    again = fleet.again(record)
    assert again.size_bytes == 0
    assert again.locked_until is not None and again.locked_until.year == 2199
    assert again.finished_at == again.started_at
    # The way back and forth forgot only what has a column since then, such as the database that it was read from.
    since = {column.name for column in tables.backup.columns} - before
    new = {field.name: field.default for field in fields(BackupRecord) if field.name in since}
    assert new["source_db"] is None
    assert fleet.again(other) == replace(other, **new)
    for change in ("size_bytes = -1", "locked_until = 'infinity'", "started_at = '1999-01-01'", "raw_bytes = -5"):
        with pytest.raises(Exception, match="violates check constraint"):
            fleet.execute(f"UPDATE clinic_backups.backup SET {change} WHERE backup_id = '{other.backup_id}'")


FAKETIME = next(iter(Path("/usr/lib").glob("*/faketime/libfaketime.so.1")), None)


@needs("faketime")
def test_with_a_real_clock_that_is_wrong(fleet: Fleet) -> None:
    variables = {
        "AIRFLOW_CONN_CLINIC_DB": fleet.database.reader_uri,
        "AIRFLOW_CONN_BACKUP_CATALOG": fleet.database.catalog_uri,
        "CLINIC_BACKUPS_STORE_URL": fleet.store.url,
        "LD_PRELOAD": str(FAKETIME),
        "FAKETIME": "+400d",
    }
    done = subprocess.run(
        [sys.executable, "-m", "clinic_backups.cli", "retention"],
        env=os.environ | variables | {"PYTHONPATH": str(CHECKOUT / "plugins")}, capture_output=True, text=True,
    )  # fmt: skip
    assert (done.returncode, "This machine's clock says" in done.stderr) == (75, True)


@pytest.mark.parametrize("does", ["retention", "erasure"])
@pytest.mark.parametrize("by", [timedelta(days=400), timedelta(minutes=-10)])
def test_a_store_that_says_another_time_than_database_and_machine_deletes_nothing(
    demo_database: DemoDatabase, s3_client: Any, does: str, by: timedelta
) -> None:
    """The database runs on this machine: their one clock is wrong, and only the store can tell."""
    fleet = Fleet(demo_database, S3Store(s3_client, BUCKET, f"clock-{uuid4().hex}"))
    for back in (60, 50):
        fleet.now = datetime.now(UTC) - timedelta(days=back)
        fleet.run(1, now=lambda: fleet.now)
    if does == "erasure":
        Erasures(fleet.catalog.database).request(1, reason="baja", by="ops", at=datetime.now(UTC))
    before = objects_of(fleet.store)

    def cleaner(off: timedelta) -> Cleaner:
        one = DatabaseClock(shifted(off), machine=shifted(off))
        return Cleaner(settings=fleet.settings, catalog=fleet.catalog, stores=fleet.stores, now=one)

    with pytest.raises(ClocksDiffer, match=r"The store s3://\S+ says 20\S+Z; the catalog's database says 2"):
        list(cleaner(by).run())
    assert objects_of(fleet.store) == before
    assert {record.state for record in fleet.catalog.find()} == {"completed"}
    (cleaned,) = cleaner(timedelta(0)).run()
    assert cleaned.deleted == (2 if does == "erasure" else 1)


def test_a_store_that_does_not_tell_its_time_deletes_nothing(demo_database: DemoDatabase, tmp_path: Path) -> None:
    class Untold(FileStore):
        has_clock = True

        def put(self, key: str, source: ByteSource, **options: Any) -> StoredObject:
            if key.startswith("preflight/"):
                raise PermanentError("Access denied.")
            return super().put(key, source, **options)

    fleet = Fleet(demo_database, Untold(tmp_path / "store"))
    for back in (60, 50):
        fleet.now = datetime.now(UTC) - timedelta(days=back)
        fleet.run(1, now=lambda: fleet.now)
    clock = DatabaseClock(shifted(timedelta(0)), machine=shifted(timedelta(0)))
    cleaner = Cleaner(settings=fleet.settings, catalog=fleet.catalog, stores=fleet.stores, now=clock)
    (cleaned,) = cleaner.run()
    assert (cleaned.deleted, cleaned.problem) == (0, "Access denied.")
