"""Where each night compares some clinics' rows only: which ones, and what is said of it."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from clinic_backups.backup import preflight
from clinic_backups.backup.row_report import RowReport
from clinic_backups.backup.sample import Sample
from clinic_backups.base import connections
from clinic_backups.base.clinic_id import ClinicId
from clinic_backups.base.compared_rows import ComparedRows
from clinic_backups.base.findings import Finding
from clinic_backups.base.settings import Settings
from clinic_backups.stores.configured import Stores
from tests.integration.test_preflight import Preflight
from tests.postgres_fixtures import DemoDatabase

STOCK = "public.inventario_inventario"
FIRST = datetime(2026, 11, 28, 2, tzinfo=UTC)
IDS = st.frozensets(st.one_of(st.integers(1, 10**6), st.uuids().map(str)), max_size=60)


@given(IDS, IDS, st.integers(2, 7))
def test_each_clinic_has_one_night_of_them_whatever_others_there_are(
    clinics: frozenset[ClinicId], more: frozenset[ClinicId], nights: int
) -> None:
    found: list[ClinicId] = []
    for number in range(nights):
        sample, with_more = Sample.of_night(clinics, nights, number), Sample.of_night(clinics | more, nights, number)
        assert sample is not None and with_more is not None
        assert set(sample.clinics) == clinics & set(with_more.clinics)
        found += sample.clinics
    assert sorted(found, key=str) == sorted(clinics, key=str)
    assert Sample.of_night(clinics, 1, 5) is None


def test_a_night_looks_at_its_own_clinics_and_says_so(demo_database: DemoDatabase, tmp_path: Path) -> None:
    demo = Preflight(demo_database, tmp_path)
    demo.settings["compare_nights"] = 7
    path = demo.sql / "extract" / "inventario_inventario.sql"
    path.write_text(f"{path.read_text()}   AND NOT (clinica_id = 3 AND id % 7 = 0)\n")
    looked, red = 0, []
    for number in range(7):
        compared: list[ComparedRows] = []
        findings = of_rows(demo, number, compared)
        (said,) = [each.message for each in findings if "COMPARE_NIGHTS" in each.message]
        few = re.search(r"the backups of (\d) of 6 clinics", said)
        assert few is not None
        looked += int(few[1])
        assert not any("all clinics" in each.message for each in findings)
        errors = [each.message for each in findings if each.level == "error"]
        assert all(STOCK in message for message in errors)
        red += [number] if errors else []
        assert compared[0].clinics == {1, 2, 3, 4, 5, 6} and (STOCK in compared[0].tables) == (not errors)
        sample = Sample.of_night(compared[0].clinics, 7, number)
        assert sample is not None and bool(errors) == (3 in sample.clinics)
    assert looked == 6 and len(red) == 1
    # Who asks where all rows are gets an answer about all of them.
    report = RowReport(60)
    assert any("all clinics" in each.message or STOCK in each.message for each in of_rows(demo, 0, [], report))
    assert report.tables[STOCK].in_shared


def of_rows(demo: Preflight, turn: int, compared: list[ComparedRows], rows: RowReport | None = None) -> list[Finding]:
    found = preflight.run(
        settings=Settings(**demo.settings), clinic_db=lambda: connections.parse("clinic_db", demo.clinic_db),
        stores=lambda: Stores.of(demo.store()), catalog_version=demo.catalog, now=lambda: FIRST, turn=lambda: turn,
        on_compared=compared.append, rows=rows,
    )  # fmt: skip
    return [each for each in found if each.check == "rows"]
