"""The board and the list of backups: against a brute-force computation, and nothing of a clinic that is not visible."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from clinic_backups import connections
from clinic_backups.catalog.board import Board
from clinic_backups.catalog.clinics import Clinics
from clinic_backups.catalog.history import History
from clinic_backups.catalog.records import Catalog
from clinic_backups.model import BackupRecord, Clinic, backup_id_of
from tests.postgres_fixtures import DemoDatabase

NOW = datetime(2026, 11, 24, 6, 0, tzinfo=UTC)
HOURS = 26


@pytest.fixture
def catalog(demo_database: DemoDatabase) -> Catalog:
    catalog = Catalog(connections.parse("backup_catalog", demo_database.catalog_uri))
    catalog.migrate()
    return catalog


def record(clinic_id: int, hours_ago: float, **changes: Any) -> BackupRecord:
    started_at = NOW - timedelta(hours=hours_ago)
    finished_at = started_at + timedelta(minutes=5)
    known: dict[str, Any] = {
        "backup_id": backup_id_of(clinic_id, started_at), "clinic_id": clinic_id, "clinic_name": f"Clínica {clinic_id}",
        "kind": "full", "trigger": "scheduled", "state": "completed", "started_at": started_at,
        "finished_at": finished_at, "expires_at": finished_at + timedelta(days=30),
        "archive_key": f"backups/{clinic_id}/{started_at:%Y%m%d%H%M%S}.age", "size_bytes": 1000 + clinic_id,
        "raw_bytes": 5000, "sha256": "ab", "md5": "cd", "rows": {"public.a": 2, "public.b": 3},
        "stores": ("file:///a",),
    }  # fmt: skip
    return BackupRecord(**(known | changes))


def test_a_line_says_how_a_clinic_stands(catalog: Catalog) -> None:
    clinics = [Clinic(number, f"Clínica {number}") for number in (1, 2, 3)]
    Clinics(catalog.database).see(active=clinics, every=clinics)
    catalog.adopt(record(1, 5))
    catalog.adopt(record(2, 50))
    catalog.adopt(record(2, 26, state="failed", error="Sin espacio", hint="Ampliar", size_bytes=None))
    board = Board(catalog.database)
    page = board.page(visible=None, now=NOW, objective_hours=HOURS)
    assert [(line.clinic_id, line.standing) for line in page.lines] == [(3, "never"), (2, "late"), (1, "ok")]
    late, ok = page.lines[1:]
    assert (late.last_failure, late.last_failure_hint) == ("Sin espacio", "Ampliar")
    assert (ok.rows, ok.size_bytes, ok.kind, ok.last_good_id) == (5, 1001, "full", record(1, 5).backup_id)
    assert [(point.size_bytes, point.rows) for point in ok.trend] == [(1001, 5)]
    counts = board.counts(visible=None, now=NOW, objective_hours=HOURS)
    assert vars(counts) == {"clinics": 3, "ok": 1, "late": 1, "never": 1, "running": 0, "failed": 1}
    assert [found.last_rows for found in board.metrics(visible=[1], now=NOW)] == [5]


def test_the_list_of_backups(catalog: Catalog) -> None:
    clinics = [Clinic(number, f"Clínica {number}") for number in (1, 2, 3)]
    Clinics(catalog.database).see(active=clinics, every=clinics)
    for number in (1, 2):
        catalog.adopt(record(number, 5))
        catalog.adopt(record(number, 29, trigger="manual"))
    history = History(catalog.database)
    page = history.page(visible=[1])
    assert [entry.record.backup_id for entry in page.entries] == [record(1, 5).backup_id, record(1, 29).backup_id]
    assert page.entries[0].copies == (("file:///a", "present"),)
    assert history.page(visible=None, types=["manual"], search="clinica 2").total == 1
    entry = page.entries[0]
    assert history.by_number(entry.number, None) == history.by_id(entry.record.backup_id, [1]) == entry
    assert history.by_number(entry.number, [2]) is None
    assert [moment.number for moment in history.moments(1)] == [found.number for found in page.entries]
