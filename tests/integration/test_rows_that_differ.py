"""Of blocks that differ, only the rows that differ are loaded; the plan is the same as if all were."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from clinic_backups.restore import kept_rows, staging
from clinic_backups.restore.request import Wish
from clinic_backups.restore.workspace import Workspace
from clinic_backups.stores.file import FileStore
from tests.integration.test_restore import VISITS, Ward
from tests.postgres_fixtures import DemoDatabase

PATIENTS = "public.usuarios_paciente"
BAG = "public.usuarios_bolsa"
DAMAGE = (
    # Every tenth row of a large table, so that each block differs, and some of a table without a key.
    f"UPDATE {VISITS} SET motivo = 'otro' WHERE id IN (SELECT v.id FROM {VISITS} AS v JOIN {PATIENTS} AS p"
    " ON p.id = v.paciente_id WHERE p.clinica_id = 1 AND v.id / 6 % 10 = 0)",
    f"DELETE FROM {BAG} WHERE ctid IN (SELECT ctid FROM {BAG} WHERE clinica_id = 1 LIMIT 7)",
    f"INSERT INTO {BAG} SELECT 1, 'nuevo' FROM generate_series(1, 3)",
)


@pytest.fixture
def ward(demo_database: DemoDatabase, tmp_path: Path) -> Ward:
    """A clinic with a table without a key that has equal rows."""
    rig = Ward(demo_database, FileStore(tmp_path / "store"))
    rig.execute(
        f"CREATE TABLE {BAG} (clinica_id bigint NOT NULL REFERENCES public.comun_clinica, texto text)",
        f"INSERT INTO {BAG} SELECT 1 + n % 2, 'fila ' || n / 40 FROM generate_series(1, 2000) AS n",
        f"GRANT SELECT ON {BAG} TO {demo_database.roles.reader}",
        f"GRANT SELECT, INSERT, UPDATE, DELETE ON {BAG} TO {demo_database.roles.restorer}",
    )
    rig.with_extracts(
        tmp_path / "sql", {BAG: f"SELECT * FROM {BAG} WHERE clinica_id = {{{{ clinic_id }}}} ORDER BY texto"}
    )
    return rig


@pytest.fixture
def loaded(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """The rows that were loaded, by temporary table."""
    seen, copy_in = list[tuple[str, int]](), Workspace.copy_in

    def counted(self: Workspace, target: Any, *arguments: Any) -> int:
        rows = copy_in(self, target, *arguments)
        seen.append((target.strings[-1], rows))
        return rows

    monkeypatch.setattr(Workspace, "copy_in", counted)
    return seen


def test_only_rows_that_differ_are_loaded_and_the_plan_is_the_same(
    ward: Ward, loaded: list[tuple[str, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    before, others = ward.rows_now(1), ward.others()
    record = ward.run(1)
    ward.execute(*DAMAGE)
    plan = ward.plan(record)
    writes = {table.table: table.writes for table in plan.tables if table.writes}
    assert writes[VISITS] > 10
    assert writes[BAG] == 7 + 3
    changed = writes[VISITS]
    assert sum(rows for name, rows in loaded if name.startswith("present")) == changed + 3
    assert sum(rows for name, rows in loaded if name.startswith("wanted")) == changed + 7
    assert next(table.unchanged for table in plan.tables if table.table == BAG) == 1000 - 7
    loaded.clear()
    monkeypatch.setattr(staging, "Room", lambda: kept_rows.Room(0))
    whole = ward.plan(record)
    assert sum(rows for _, rows in loaded) > 10 * changed
    assert whole.digest == plan.digest
    assert whole.tables == plan.tables
    monkeypatch.undo()
    applied = ward.restore().apply(ward.source(record), Wish(), approved=whole.digest)
    assert applied.digest == plan.digest
    assert ward.rows_now(1) == before
    assert ward.others() == others
