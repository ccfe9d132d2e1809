"""A backup from a standby carries the time of its replayed data, or is not made."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import psycopg2
import pytest

from clinic_backups.base import connections
from clinic_backups.base.backup_request import BackupRequest
from clinic_backups.base.clinic import Clinic
from clinic_backups.base.errors import TransientError
from clinic_backups.base.findings import Report
from clinic_backups.base.shared_unit import DEFINITION, SHARED
from clinic_backups.catalog import migrate
from clinic_backups.catalog.board import Board
from clinic_backups.catalog.clinics import Clinics
from clinic_backups.stores.file import FileStore
from clinic_backups.tenant.standby import check_standby
from clinic_backups.tenant.tenant_db import Snapshot
from include.demo import database
from include.demo.postgres import THROWAWAY, EmbeddedPostgres
from tests.postgres_fixtures import DemoDatabase, copy_files, server_folder, standby_on
from tests.rig import Rig

STOCK = "public.inventario_inventario"
# Replay waits a second for queries that are in its way, and none is in its way but those of the tests.
PRIMARY = {
    "wal_level": "replica", "max_wal_senders": "4", "max_standby_streaming_delay": "1s", "autovacuum": "off",
}  # fmt: skip


@pytest.fixture(scope="module")
def pair() -> Iterator[tuple[DemoDatabase, DemoDatabase]]:
    """A primary, and a standby that streams from it: a copy of the primary's folder, as pg_basebackup would make."""
    from sqlalchemy import NullPool, create_engine

    settings = {**THROWAWAY, **PRIMARY}
    with server_folder() as first, server_folder() as second, EmbeddedPostgres(first, settings=settings) as primary:
        database.load(primary, "demo", clinics=2, patients=10)
        roles = database.create_roles(primary, "demo")
        source = DemoDatabase(primary, "demo", roles)
        with create_engine(source.catalog_uri, poolclass=NullPool).begin() as db:
            migrate.upgrade(db)
        with (first / "cluster" / "pg_hba.conf").open("a") as file:
            file.write("\nhost replication all 127.0.0.1/32 scram-sha-256\n")
        copy_files(primary, second)
        with standby_on(second, primary, settings) as standby:
            yield source, replace(source, postgres=standby)


@pytest.fixture
def rig(pair: tuple[DemoDatabase, DemoDatabase], tmp_path: Path) -> Iterator[Rig]:
    """Reads from the standby; everything else is at the primary."""
    primary, standby = pair
    rig = Rig(primary, FileStore(tmp_path / "store"))
    rig.clinic_db = connections.parse("clinic_db", standby.reader_uri)
    caught_up(pair)
    yield rig
    ask(standby, "SELECT pg_wal_replay_resume()")
    rig.execute("TRUNCATE clinic_backups.backup, clinic_backups.clinic CASCADE")


def ask(server: DemoDatabase, query: str) -> Any:
    """One value; a standby that replays just now may cancel a query."""
    for _ in range(20):
        try:
            return ask_once(server, query)
        except psycopg2.errors.SerializationFailure:
            time.sleep(0.1)
    return ask_once(server, query)


def ask_once(server: DemoDatabase, query: str) -> Any:
    with closing(server.connect()) as db, db.cursor() as cursor:
        cursor.execute(query)
        row = cursor.fetchone()
        return row[0] if row else None


def caught_up(pair: tuple[DemoDatabase, DemoDatabase]) -> None:
    primary, standby = pair
    # What was committed need not be written yet: the throwaway servers commit asynchronously.
    at = ask(primary, "SELECT pg_current_wal_insert_lsn()")
    wait_for(lambda: ask(standby, f"SELECT pg_last_wal_replay_lsn() >= '{at}'::pg_lsn"))


def wait_for(found: Callable[[], Any], seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while not found():
        assert time.monotonic() < end, "It never came."
        time.sleep(0.05)


def lagging(pair: tuple[DemoDatabase, DemoDatabase], rig: Rig, seconds: float) -> None:
    """Stop the replay, commit, and wait."""
    primary, standby = pair
    rig.execute(f"UPDATE {STOCK} SET cantidad = cantidad + 1")
    caught_up(pair)
    ask(standby, "SELECT pg_wal_replay_pause()")
    wait_for(lambda: ask(standby, "SELECT pg_get_wal_replay_pause_state()") == "paused")
    rig.execute(f"UPDATE {STOCK} SET cantidad = cantidad + 1")
    at = ask(primary, "SELECT pg_current_wal_insert_lsn()")
    wait_for(lambda: ask(standby, f"SELECT pg_last_wal_receive_lsn() >= '{at}'::pg_lsn"))
    time.sleep(seconds)


def test_a_standby_that_is_caught_up_is_as_good_as_its_primary(
    rig: Rig, pair: tuple[DemoDatabase, DemoDatabase]
) -> None:
    rig.execute(f"UPDATE {STOCK} SET cantidad = cantidad + 1")  # else it may have replayed no commit since it started
    caught_up(pair)
    time.sleep(3)  # idle: no commit is younger, and the data are as of now all the same
    settings = rig.settings.model_copy(update={"standby_lag_seconds": 90})
    record = rig.run(1, settings=settings)
    assert record.data_at is not None
    # The record's own commit, or the one before it.
    assert timedelta() <= record.started_at - record.data_at <= timedelta(seconds=10)
    assert rig.open(record).tables == rig.rows_now(1)


def test_lag_is_the_datas_age(rig: Rig, pair: tuple[DemoDatabase, DemoDatabase]) -> None:
    lagging(pair, rig, 2)
    record = rig.run(1)
    assert record.data_at is not None
    assert timedelta(seconds=2) <= record.started_at - record.data_at < timedelta(seconds=30)
    assert rig.catalog.require(record.backup_id).data_time == record.data_at
    manifest = rig.open(record).manifest
    assert manifest["snapshot_at"] < record.started_at.isoformat()
    clinic = Clinic(1, "Uno")
    Clinics(rig.catalog.database).see(active=[clinic], every=[clinic])
    board, late = Board(rig.catalog.database), record.started_at + timedelta(hours=26) - timedelta(seconds=1)
    line = board.clinic(1, now=late, objective_hours=26, prove_within_days=0)
    assert line is not None
    assert line.standing == "late"
    (health,) = Clinics(rig.catalog.database).health()
    assert health.last_good_at == record.data_at


def test_too_much_lag_is_refused_before_anything_is_stored(rig: Rig, pair: tuple[DemoDatabase, DemoDatabase]) -> None:
    lagging(pair, rig, 2)
    settings = rig.settings.model_copy(update={"standby_lag_seconds": 1})
    with pytest.raises(TransientError, match=r"data are as of 20.* It is 20") as caught:
        rig.run(1, settings=settings)
    assert "CLINIC_BACKUPS_STANDBY_LAG_SECONDS" in caught.value.hint
    assert rig.objects() == []
    report = Report()
    with Snapshot(rig.clinic_db) as snapshot:
        check_standby(snapshot, 1, report)
    (finding,) = report.findings
    assert (finding.level, finding.transient) == ("error", True)
    ask(pair[1], "SELECT pg_wal_replay_resume()")
    caught_up(pair)
    settings = rig.settings.model_copy(update={"standby_lag_seconds": 90})
    assert rig.run(1, settings=settings).state == "completed"


def test_a_conflict_with_the_replay_is_worth_a_retry(rig: Rig, pair: tuple[DemoDatabase, DemoDatabase]) -> None:
    with Snapshot(rig.clinic_db, reads={STOCK: f"SELECT * FROM {STOCK}"}) as snapshot:
        rig.execute(f"ALTER TABLE {STOCK} ALTER COLUMN cantidad TYPE bigint")
        with pytest.raises(TransientError):
            for _ in range(200):
                snapshot.rows("SELECT pg_sleep(0.1)", None, "waiting")
                snapshot.prove()


def test_a_primary_is_no_standby(rig: Rig, pair: tuple[DemoDatabase, DemoDatabase]) -> None:
    rig.clinic_db = connections.parse("clinic_db", pair[0].reader_uri)
    settings = rig.settings.model_copy(update={"standby_lag_seconds": 0})
    record = rig.run(1, settings=settings)
    assert record.data_at == record.started_at


def test_an_idle_primary_counts_if_the_standby_receives_from_it(
    rig: Rig, pair: tuple[DemoDatabase, DemoDatabase]
) -> None:
    """With the catalog elsewhere nothing is committed. Without the operator's word nobody knows who sends."""
    rig.execute(f"UPDATE {STOCK} SET cantidad = cantidad + 1")
    caught_up(pair)
    time.sleep(3)
    for direct in (False, True):
        report = Report()
        with Snapshot(rig.clinic_db, standby_of_primary=direct) as snapshot:
            check_standby(snapshot, 2 if not direct else 90, report)
        assert [finding.level for finding in report.findings] == ["ok" if direct else "error"]
    report = Report()
    with Snapshot(rig.clinic_db) as snapshot:
        check_standby(snapshot, 2, report, rig.catalog.beat)
    assert [finding.level for finding in report.findings] == ["ok"]


@pytest.mark.long
def test_a_standby_whose_sender_has_lost_the_primary_is_not_fresh(
    rig: Rig, pair: tuple[DemoDatabase, DemoDatabase]
) -> None:
    primary, standby = pair
    caught_up(pair)
    with server_folder() as second:
        copy_files(standby.postgres, second)
        quick = {**THROWAWAY, **PRIMARY, "wal_receiver_status_interval": "1s", "wal_receiver_timeout": "5s"}
        with standby_on(second, standby.postgres, quick) as behind:
            last = replace(standby, postgres=behind)
            rig.clinic_db = connections.parse("clinic_db", last.reader_uri)
            rig.execute(f"UPDATE {STOCK} SET cantidad = 1")
            caught_up((primary, last))
            alone = rig.settings.model_copy(update={"standby_lag_seconds": 8})
            assert rig.run(1, settings=alone).state == "completed"
            of_primary = ask(standby, "SELECT current_setting('primary_conninfo')")
            configure(standby, "ALTER SYSTEM SET primary_conninfo = ''")
            try:
                wait_for(lambda: ask(standby, "SELECT count(*) FROM pg_stat_wal_receiver") == 0)
                rig.execute(f"UPDATE {STOCK} SET cantidad = 4242")
                time.sleep(10)
                assert ask(last, "SELECT now() - last_msg_receipt_time < '8 s' FROM pg_stat_wal_receiver")
                with pytest.raises(TransientError, match="data are as of"):
                    rig.run(1, settings=alone)
                report = Report()
                with Snapshot(rig.clinic_db) as snapshot:
                    check_standby(snapshot, 8, report, rig.catalog.beat)
                assert [finding.level for finding in report.findings] == ["error"]
            finally:
                configure(standby, f"ALTER SYSTEM SET primary_conninfo = '{of_primary}'")
                wait_for(lambda: ask(standby, "SELECT count(*) FROM pg_stat_wal_receiver") == 1)


def configure(server: DemoDatabase, statement: str) -> None:
    with closing(server.connect()) as db, db.cursor() as cursor:
        db.autocommit = True
        cursor.execute(statement)
        cursor.execute("SELECT pg_reload_conf()")


def test_the_shared_data_are_read_from_a_standby_with_their_definition(
    pair: tuple[DemoDatabase, DemoDatabase], rig: Rig
) -> None:
    rig.execute(f"UPDATE {STOCK} SET cantidad = cantidad + 1")
    caught_up(pair)
    record = rig.backup().run(BackupRequest(SHARED, requested_by="prueba"))
    assert (record.state, record.gaps) == ("completed", ())
    assert record.rows["public.auth_group"] > 0
    assert DEFINITION in rig.open(record).manifest["files"]
