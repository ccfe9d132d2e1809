"""check --rehearse: all rows of a clinic are lost, come back, are proven, and nothing was changed."""

from __future__ import annotations

from pathlib import Path

import pytest

from clinic_backups.restore.rehearse_clinics import rehearse
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
    loss = rig.restore().rehearse_loss(rig.source(record))
    assert loss.refusals == ()
    # A row of django_admin_log, which is in no backup, refers to a user; users and what they need stay.
    assert loss.kept == ("public.comun_clinica", "public.usuarios_usuario")
    held = {table["name"]: table["rows"] for table in rig.open(record).manifest["tables"]}
    stay = sum(held[name] for name in loss.kept)
    assert loss.rows == record.rows_total - stay
    assert rows_of_all(rig) == before


def test_what_could_not_come_back_is_said_before_the_loss(demo_database: DemoDatabase, tmp_path: Path) -> None:
    rig = Shaped(demo_database, FileStore(tmp_path / "store"))
    # Rows that are there break a rule that later rows may not break. No change of the data shows it.
    rig.execute("ALTER TABLE public.sistema_pagos_pago ADD CONSTRAINT nunca CHECK (monto < 0) NOT VALID")
    record, before = rig.run(3), rows_of_all(rig)
    assert rig.plan(record).refusals == ()
    (refusal,) = rig.restore().rehearse_loss(rig.source(record)).refusals
    assert (refusal.table, "nunca" in refusal.message) == ("public.sistema_pagos_pago", True)
    assert rows_of_all(rig) == before


def test_the_smallest_and_the_largest_clinic_are_rehearsed(demo_database: DemoDatabase, tmp_path: Path) -> None:
    rig = Shaped(demo_database, FileStore(tmp_path / "store"))
    assert rehearse(rig.restore(), rig.catalog.extremes(rig.catalog.clock()))[0].level == "warning"
    for number in (2, 3):
        rig.execute(
            "DELETE FROM public.inventario_inventario WHERE id IN (SELECT id FROM public.inventario_inventario"
            f" WHERE clinica_id = {number} LIMIT {number})"
        )
    records = {number: rig.run(number) for number in (1, 2, 3)}
    rig.run(3)  # a newer one of the same clinic
    rows = {number: record.rows_total for number, record in records.items()}
    chosen = rig.catalog.extremes(rig.catalog.clock())
    assert [each.clinic_id for each in chosen] == [min(rows, key=rows.__getitem__), max(rows, key=rows.__getitem__)]
    found = rehearse(rig.restore(), chosen)
    assert [each.level for each in found] == ["ok", "ok"]
    assert all("restored, proven and rolled back" in each.message for each in found)
