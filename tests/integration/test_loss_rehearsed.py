"""check --rehearse: all rows of a clinic are lost, come back, are proven, and nothing was changed."""

from __future__ import annotations

from pathlib import Path

import pytest

from clinic_backups.stores.file import FileStore
from tests.postgres_fixtures import DemoDatabase
from tests.rig import Rig
from tests.shapes import Shaped


def rows_of_all(rig: Rig) -> dict[str, list[str]]:
    tables = rig.execute_rows(
        "SELECT format('%I.%I', schemaname, tablename) FROM pg_tables WHERE schemaname = 'public'"
    )
    return {
        name: [str(row[0]) for row in rig.execute_rows(f"SELECT t::text FROM {name} AS t ORDER BY 1")]
        for (name,) in tables
    }


@pytest.mark.parametrize("as_owner", [False, True], ids=["restorer", "superuser"])
def test_a_clinic_of_the_demo_comes_back_whole(demo_database: DemoDatabase, tmp_path: Path, as_owner: bool) -> None:
    rig = Shaped(demo_database, FileStore(tmp_path / "store"), as_owner=as_owner)
    record = rig.run(3)
    before = rows_of_all(rig)
    plan, rows = rig.restore().rehearse_loss(rig.source(record))
    assert plan.refusals == ()
    assert rows == record.rows_total
    assert rows_of_all(rig) == before
