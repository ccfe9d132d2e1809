"""A scheduled run backs up the clinics whose own schedule has its time, and says what is worth saying."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from shutil import copytree
from types import SimpleNamespace
from typing import Any

import pytest

from clinic_backups.app import Parts
from clinic_backups.backup import shares
from clinic_backups.backup.shares import NOT_BEFORE
from clinic_backups.base.errors import PermanentError
from clinic_backups.base.settings import Settings
from clinic_backups.catalog.board import Board
from clinic_backups.catalog.clinics import Clinics
from clinic_backups.stores.file import FileStore
from clinic_backups.web.next_backup import next_backups
from tests.integration.test_restore_runner import Theatre
from tests.postgres_fixtures import DemoDatabase

NIGHT, MORNING, NOON = (datetime(2026, 11, 24, hour, tzinfo=UTC) for hour in (2, 6, 12))
OWN = {"2": "0 */6 * * *", "premium": "@hourly", "5": "none"}


@pytest.fixture
def theatre(demo_database: DemoDatabase, tmp_path: Path) -> Theatre:
    return Theatre(demo_database, FileStore(tmp_path / "store"))


class Run:
    """The task ``active_clinics`` of a run."""

    def __init__(self, theatre: Theatre, patch: pytest.MonkeyPatch, **changes: Any) -> None:
        from clinic_backups.operators import tasks

        self.tasks, self.patch = tasks, patch
        folder = Path(theatre.store.url.removeprefix("file://")).parent / "sql"
        copytree(theatre.settings.sql_dir, folder)
        wanted = {"clinic_schedule": OWN, "sql_dir": folder} | changes
        settings = type(theatre.settings)(**(theatre.settings.model_dump() | wanted))
        known = {"clinic_db": theatre.clinic_db, "backup_catalog": theatre.catalog._connection}
        self.parts = Parts(settings, known.get)
        patch.setattr(tasks, "AirflowParts", lambda: self.parts)
        for name in ("active_clinics.sql", "all_clinics.sql"):
            path = settings.sql_dir / name
            classed = "idioma AS language, CASE WHEN id IN (3, 2) THEN 'premium' END AS class"
            path.write_text(path.read_text().replace("idioma AS language", classed))

    def items(self, moment: datetime, run_type: str = "scheduled", conf: dict[str, Any] | None = None) -> list[Any]:
        run = SimpleNamespace(run_type=run_type, run_after=moment, conf=conf, run_id="r")
        self.patch.setattr(self.tasks, "get_current_context", lambda: {"dag_run": run})
        return list(self.tasks.active_clinics.function())

    def ids(self, *arguments: Any) -> list[Any]:
        return [item["id"] for item in self.items(*arguments)]


def test_a_run_is_for_the_clinics_that_are_due(theatre: Theatre, monkeypatch: pytest.MonkeyPatch) -> None:
    run = Run(theatre, monkeypatch)
    assert run.ids(NIGHT) == ["~shared", 1, 3, 4]
    assert run.ids(MORNING) == [2, 3]
    assert run.ids(MORNING + timedelta(hours=1)) == [3]
    # Airflow had planned a time that no schedule has any more: nobody goes without.
    assert run.ids(MORNING + timedelta(minutes=7)) == ["~shared", 1, 2, 3, 4, 5]
    # By hand: as asked, whatever the schedules say.
    assert run.ids(NIGHT, "manual") == ["~shared", 1, 2, 3, 4, 5]
    assert run.ids(NIGHT, "manual", {"clinic_id": 5}) == [5]
    assert run.ids(NIGHT, "manual", {"shared": True}) == ["~shared"]
    assert run.ids(NIGHT, "manual", {"shared": True, "clinic_ids": [5, 1]}) == ["~shared", 1, 5]
    assert run.ids(NIGHT, "manual", {"shared": False}) == [1, 2, 3, 4, 5]


def test_the_tasks_are_spread_over_the_window(theatre: Theatre, monkeypatch: pytest.MonkeyPatch) -> None:
    run = Run(theatre, monkeypatch, clinic_schedule={}, start_window_minutes=60)
    begins = [datetime.fromisoformat(item[NOT_BEFORE]) for item in run.items(NIGHT)]
    assert begins == [NIGHT + timedelta(minutes=10 * number) for number in range(6)]
    assert not any(NOT_BEFORE in item for item in run.items(NIGHT, "manual"))


def test_small_clinics_have_fewer_tasks_unless_they_are_spread(
    theatre: Theatre, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Run(theatre, monkeypatch, clinic_schedule={}, start_window_minutes=60, tasks=4)
    monkeypatch.setattr(shares, "LEAST_TASKS", 2)
    assert len(run.items(NIGHT, "manual")) == 2, "the database is small"
    monkeypatch.setattr(type(run.parts), "database_bytes", lambda self: None)
    assert len(run.items(NIGHT, "manual")) == 4, "nobody knows how long they take"
    monkeypatch.setattr(Clinics, "seconds", lambda self: dict.fromkeys(range(1, 6), 0.3))
    assert [item["name"] for item in run.items(NIGHT, "manual")] == ["Datos compartidos", "5 clinics, 1 to 5"]
    assert len(run.items(NIGHT)) == 4
    monkeypatch.setattr(Clinics, "seconds", lambda self: dict.fromkeys(range(1, 6), 600.0))
    assert len(run.items(NIGHT, "manual")) == 4


def test_the_catalog_learns_the_objectives(theatre: Theatre, monkeypatch: pytest.MonkeyPatch) -> None:
    run = Run(theatre, monkeypatch, clinic_rpo_hours={"1": 100})
    active, every = run.parts.clinics()
    assert {clinic.id: clinic.clinic_class for clinic in active if clinic.clinic_class} == {2: "premium", 3: "premium"}
    run.parts.see(active, every)
    health = {clinic.clinic_id: clinic.objective_hours for clinic in run.parts.known_clinics.health()}
    assert health == {1: 100, 2: 8, 3: 3, 4: None, 5: None, "~shared": None}
    board, now = Board(run.parts.catalog.database), datetime(2026, 11, 24, 12, 30, tzinfo=UTC)
    next_of = next_backups(now, run.parts.settings, now)
    lines = board.page(visible=None, now=now, objective_hours=26, prove_within_days=0, sort="id").lines
    assert [next_of(line.schedule) for line in lines] == [
        NIGHT + timedelta(days=1), NOON + timedelta(hours=6), NOON + timedelta(hours=1),
        NIGHT + timedelta(days=1), None, NIGHT + timedelta(days=1),
    ]  # fmt: skip
    assert next_backups(None, run.parts.settings, now)(None) is None  # paused


def test_a_query_with_five_columns_is_refused(theatre: Theatre, monkeypatch: pytest.MonkeyPatch) -> None:
    run = Run(theatre, monkeypatch)
    path = run.parts.settings.sql_dir / "active_clinics.sql"
    path.write_text(path.read_text().replace("AS class", "AS class, 1 AS x"))
    with pytest.raises(PermanentError, match="or four \\(the class too\\)"):
        run.parts.clinics()


@pytest.mark.parametrize(
    ("general", "own", "moment", "run_type", "partial"),
    [
        ("0 2 * * *", OWN, NIGHT, "scheduled", False),
        ("0 2 * * *", OWN, MORNING, "scheduled", True),
        ("0 2 * * *", OWN, MORNING, "manual", False),
        ("0 2 * * *", OWN, MORNING + timedelta(minutes=7), "scheduled", False),  # of no schedule: of all clinics
        ("0 2 * * *", {}, MORNING, "scheduled", False),
        ("none", OWN, MORNING, "scheduled", True),
    ],
)
def test_a_run_of_some_clinics_says_nothing_of_the_others(
    general: str, own: dict[str, str], moment: datetime, run_type: str, partial: bool
) -> None:
    """Its preflight does not read every table, and the page does not take it for the newest run of all clinics."""
    from clinic_backups.operators.due_schedules import is_partial
    from clinic_backups.web.runs import _is_for_all

    settings = Settings(schedule=general, clinic_schedule=own)
    run: Any = SimpleNamespace(run_type=run_type, run_after=moment, conf={})
    assert is_partial(settings, run) == partial
    assert _is_for_all(run, settings) == (not partial or general == "none")
