"""The shared unit: with the clinics' backups it holds every row that must not be lost, each once."""

from __future__ import annotations

from pathlib import Path

import pytest

from clinic_backups.base.backup_request import BackupRequest
from clinic_backups.base.shared_unit import SHARED
from clinic_backups.stores.file import FileStore
from tests.postgres_fixtures import DemoDatabase
from tests.rig import Rig


@pytest.fixture
def rig(demo_database: DemoDatabase, tmp_path: Path) -> Rig:
    return Rig(demo_database, FileStore(tmp_path / "store"))


def shared(rig: Rig, **options: object):
    return rig.backup().run(BackupRequest(SHARED, requested_by="prueba", **options))


class TestRows:
    def test_try(self, rig: Rig) -> None:
        record = shared(rig)
        print(record)
        opened = rig.open(record)
        print({k: v[:300] for k, v in opened.tables.items()})
        print(opened.manifest.get("files"))
        assert 0
