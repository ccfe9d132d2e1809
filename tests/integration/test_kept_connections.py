"""Connections that serve several backups in a row carry nothing from one to the next."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from clinic_backups.base import kept_connections
from clinic_backups.base.errors import ClinicBackupsError
from clinic_backups.base.kept_connections import KeptConnections
from clinic_backups.catalog.records import Catalog
from clinic_backups.stores.file import FileStore
from clinic_backups.tenant.tenant_db import Snapshot
from tests.postgres_fixtures import DemoDatabase
from tests.rig import Rig


@pytest.fixture
def rig(demo_database: DemoDatabase, tmp_path: Path) -> Rig:
    return Rig(demo_database, FileStore(tmp_path / "store"))


@pytest.fixture
def kept() -> Iterator[KeptConnections]:
    found = KeptConnections()
    with found.keeping():
        yield found


def ask(rig: Rig, kept: KeptConnections, *queries: str) -> list[Any]:
    """One use of a connection for reading; returns each query's first value."""
    with Snapshot(rig.clinic_db, kept=kept) as snapshot:
        return [snapshot.rows(query, None, "asking")[0][0] for query in queries]


def pid(rig: Rig, kept: KeptConnections) -> int:
    return int(ask(rig, kept, "SELECT pg_backend_pid()")[0])


def sessions(rig: Rig) -> int:
    return int(
        rig.execute_rows(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
            " AND application_name = 'clinic-backups'"
        )[0][0]
    )


def all_closed(rig: Rig) -> bool:
    """Whether no session is left. A server ends one a moment after its client has closed it."""
    until = time.monotonic() + 10
    while (left := sessions(rig)) and time.monotonic() < until:
        time.sleep(0.05)
    return not left


def test_one_connection_serves_all_in_a_row_and_is_closed_at_the_end(rig: Rig) -> None:
    kept = KeptConnections()
    with kept.keeping():
        first = pid(rig, kept)
        assert {pid(rig, kept) for _ in range(3)} == {first}
        assert sessions(rig) == 1
    assert all_closed(rig)
    assert pid(rig, kept) != first, "outside of the block each use has a connection of its own"
    assert all_closed(rig)


def test_two_at_a_time_have_two(rig: Rig, kept: KeptConnections) -> None:
    with Snapshot(rig.clinic_db, kept=kept) as snapshot:
        ((one,),) = snapshot.rows("SELECT pg_backend_pid()", None, "asking")
        assert pid(rig, kept) != one


LEFT_BEHIND = {
    "a lock": (
        "SELECT pg_advisory_lock(99)",
        "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND objid = 99",
    ),
    "a prepared statement": ("PREPARE stays AS SELECT 1; SELECT 1", "SELECT count(*) FROM pg_prepared_statements"),
}


@pytest.mark.parametrize("what", LEFT_BEHIND)
def test_what_an_extract_leaves_in_the_session_reaches_nobody(rig: Rig, kept: KeptConnections, what: str) -> None:
    # A rollback takes settings back, but neither of these.
    leave, left = LEFT_BEHIND[what]
    first = pid(rig, kept)
    ask(rig, kept, leave)
    assert ask(rig, kept, "SELECT pg_backend_pid()", left) == [first, 0]


def test_reading_leaves_no_transaction_mode_behind_for_who_locks(rig: Rig, kept: KeptConnections) -> None:
    # The catalog may be in the clinics' own database: then both use the same connection.
    catalog = Catalog(rig.catalog._connection, kept=kept)
    with Snapshot(rig.catalog._connection, kept=kept) as snapshot:
        ((reader,),) = snapshot.rows("SELECT pg_backend_pid()", None, "asking")
    with catalog.lock(1) as lock, lock._db.cursor() as cursor:
        cursor.execute("SELECT pg_backend_pid(), current_setting('transaction_isolation'),"
                       " current_setting('transaction_read_only')")  # fmt: skip
        assert cursor.fetchone() == (reader, "read committed", "off")


def test_a_lock_is_free_once_its_connection_is_given_back(rig: Rig, kept: KeptConnections) -> None:
    catalog = Catalog(rig.catalog._connection, kept=kept)
    for _ in range(2):
        with catalog.lock(1):
            pass
        with rig.catalog.lock(1):  # over a connection of its own
            pass


def test_after_an_error_the_connection_is_not_used_again(rig: Rig, kept: KeptConnections) -> None:
    first = pid(rig, kept)
    with pytest.raises(ClinicBackupsError):
        ask(rig, kept, "SELECT 1 / 0")
    assert pid(rig, kept) != first
    assert sessions(rig) == 1


def test_a_connection_that_the_server_ended_is_replaced(rig: Rig, kept: KeptConnections) -> None:
    first = pid(rig, kept)
    rig.execute(f"SELECT pg_terminate_backend({first}, 5000)")
    assert pid(rig, kept) != first


def test_an_old_connection_is_not_used_again(rig: Rig, kept: KeptConnections, monkeypatch: pytest.MonkeyPatch) -> None:
    first = pid(rig, kept)
    assert pid(rig, kept) == first
    monkeypatch.setattr(kept_connections, "MAX_AGE_SECONDS", 0)
    assert pid(rig, kept) != first, "it has grown old since it was given back"
    assert all_closed(rig)


def test_another_password_or_role_is_another_connection(rig: Rig, kept: KeptConnections) -> None:
    first = pid(rig, kept)
    with Snapshot(rig.catalog._connection, kept=kept) as snapshot:
        assert snapshot.rows("SELECT pg_backend_pid()", None, "asking") != [(first,)]


def test_backups_in_a_row_are_right_and_open_two_connections(rig: Rig, kept: KeptConnections) -> None:
    rig.catalog = Catalog(rig.catalog._connection, kept=kept)
    for clinic_id in (1, 2, 3):
        before = rig.rows_now(clinic_id)
        record = rig.run(clinic_id, kept=kept)
        assert rig.open(record).tables == before
    assert len(kept._idle) == 2
