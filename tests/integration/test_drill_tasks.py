"""The task of ``clinic_restore_drill``: what it drills, and when it is red."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.sdk.exceptions import AirflowFailException

from clinic_backups.app import Parts
from clinic_backups.base.backup_request import BackupRequest
from clinic_backups.base.clinic import Clinic
from clinic_backups.base.shared_unit import SHARED
from clinic_backups.catalog.clinics import Clinics
from clinic_backups.operators import drill_tasks
from clinic_backups.stores.file import FileStore
from tests.fleet import flip
from tests.postgres_fixtures import DemoDatabase
from tests.rig import Rig
from tests.statsd import receiving


@pytest.fixture
def rig(demo_database: DemoDatabase, tmp_path: Path) -> Rig:
    rig = Rig(demo_database, FileStore(tmp_path / "store"))
    rig.initialise()
    return rig


def task(rig: Rig, tmp_path: Path, patch: pytest.MonkeyPatch, *, key: bool = True) -> Any:
    """Runs the task with a conf."""
    file = tmp_path / "identity"
    file.touch(mode=0o600)
    file.write_text(rig.identity)
    settings = rig.settings.model_copy(update={"identity_file": file if key else None})
    known = {"clinic_db": rig.clinic_db, "backup_catalog": rig.catalog._connection}

    def run(**conf: Any) -> Any:
        patch.setattr(drill_tasks, "AirflowParts", lambda: Parts(settings, known.get))
        context = {"dag_run": SimpleNamespace(run_id="scheduled__1", conf=conf)}
        patch.setattr(drill_tasks, "get_current_context", lambda: context)
        return drill_tasks.drill.function()

    return run


def test_a_night_drills_those_that_are_due_and_names_the_one_that_fails(
    rig: Rig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = task(rig, tmp_path, monkeypatch)
    rig.backup().run(BackupRequest(SHARED, requested_by="prueba"))
    rig.run(1)
    two = rig.run(2)
    known = [Clinic(1, "Uno"), Clinic(2, "Dos"), SHARED]
    Clinics(rig.catalog.database).see(active=known, every=known)
    assert run() == {"proven": 3}
    assert run() == {"proven": 0}  # nothing is new
    assert run(clinic_id=1) == {"proven": 1}
    assert run(shared=True) == {"proven": 1}
    flip(rig.store, two.archive_key)
    with receiving() as statsd, pytest.raises(AirflowFailException, match=r"1 of 1 backups are not proven: 2 "):
        run(clinic_id=2)
    counted, timed = statsd.ours()
    assert counted == "clinic_backups.drill.failed,outcome=failed:1|c"
    assert timed.startswith("clinic_backups.drill.duration,outcome=failed:")
    # No store has a good replica, so it is lost, and nothing of that clinic is due until it is backed up again.
    assert rig.catalog.require(two.backup_id).state == "lost"
    assert run() == {"proven": 0}
    rig.run(2)
    assert run() == {"proven": 1}


def test_a_worker_without_the_key_fails_at_once(rig: Rig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = task(rig, tmp_path, monkeypatch, key=False)
    with pytest.raises(AirflowFailException, match="CLINIC_BACKUPS_IDENTITY_FILE"):
        run()
