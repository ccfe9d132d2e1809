"""The Backups page as people use it: in Chromium, in a real Airflow, and each time what the catalog says of it."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from playwright.sync_api import Browser, Locator, Page, expect

from include.demo.layout import CLINIC_ADMIN
from tests.airflow import browser
from tests.airflow.browser import RUN_LIMIT_MS, People
from tests.airflow.conftest import Airflow

CLINIC = 1
NAME = "Clínica Sonrisas"
OTHER_NAME = 'Odontología "El Ángel"'
STOCK = "public.inventario_inventario"
PATIENTS = "public.usuarios_paciente"


@pytest.fixture(scope="module")
def people(airflow: Airflow, chromium: Browser) -> People:
    """Whoever opens a window finds that all clinics were backed up once."""
    _, state = airflow.run({"notes": "la noche anterior"})
    assert state == "success"
    return People(chromium, airflow)


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    with browser.chromium() as found:
        yield found


def test_a_clinics_administrator_backs_up_watches_it_and_takes_the_file_along(
    airflow: Airflow, people: People, tmp_path: Path
) -> None:
    since = audited(airflow)
    with people.window() as page:
        page.goto("/backups/ui/")
        people.log_in(page, CLINIC_ADMIN)
        expect(page).to_have_url(re.compile(r"/backups/ui/$"))
        expect(page.get_by_role("heading", name="Respaldos de las clínicas")).to_be_visible()
        expect(page.locator("tbody tr")).to_have_count(1)
        assert OTHER_NAME not in page.content()
        expect(tile(page, "clínica")).to_contain_text("1")
        page.get_by_role("link", name=NAME).click()

        # An extract that takes its time, so that there is something to watch.
        with airflow.stock_condition("(SELECT pg_sleep(9)) IS NOT NULL"):
            page.get_by_label("Tipo de respaldo").select_option(label="completo")
            page.get_by_label("Notas").fill("antes de la mudanza")
            page.get_by_role("button", name="Respaldar ahora").click()
            expect(page.get_by_text("Se pidió el respaldo.")).to_be_visible()
            run_id = run_of(page)
            mark_as_loaded(page)
            expect(page.get_by_role("progressbar")).to_be_visible(timeout=RUN_LIMIT_MS)
            expect(page.locator("main")).to_contain_text(re.compile(rf"Tabla \d+ de \d+:\s+{STOCK}"))
        expect(page.get_by_text("El respaldo está listo.")).to_be_visible(timeout=RUN_LIMIT_MS)
        assert_not_loaded_again(page)
        expect(page.locator(".steps li").filter(has_text="hecho")).to_have_count(4)
        record = airflow.records(run_id)[CLINIC]
        assert (record.state, record.kind, record.trigger) == ("completed", "full", "manual")
        assert (record.requested_by, record.notes) == (CLINIC_ADMIN, "antes de la mudanza")

        page.get_by_role("link", name="Ver el respaldo").click()
        expect(page.locator(".head")).to_contain_text("Completo")
        expect(page.locator("main")).to_contain_text("antes de la mudanza")
        expect(page.locator("main")).to_contain_text(record.backup_id)
        with page.expect_download() as download:
            page.get_by_role("link", name="Descargar").click()
        assert download.value.suggested_filename == record.archive_key.rpartition("/")[2]
        archive = tmp_path / "archive"
        download.value.save_as(archive)
        expect(page.get_by_role("button", name="Retener")).to_have_count(0)

    assert hashlib.sha256(archive.read_bytes()).hexdigest() == record.sha256
    tables = opened(airflow, archive, tmp_path)
    assert {name: len(rows) for name, rows in tables.items()} == dict(record.rows)
    own = airflow.execute(f"SELECT id::text FROM {PATIENTS} WHERE clinica_id = {CLINIC}")
    assert {row["id"] for row in tables[PATIENTS]} == {row[0] for row in own} != set()
    backup = record.backup_id
    assert audited(airflow, since) == [
        (CLINIC_ADMIN, "back_up", CLINIC, None, run_id),
        (CLINIC_ADMIN, "download", CLINIC, backup, None),
        (CLINIC_ADMIN, "fetch", CLINIC, backup, None),
    ]


def tile(page: Page, label: str) -> Locator:
    """One of the counts above the board."""
    return page.locator(".tile").filter(has_text=re.compile(rf"\b{label}\s*$"))


def run_of(page: Page) -> str:
    """The run that the page follows."""
    return unquote(urlsplit(page.url).path.rpartition("/")[2])


def mark_as_loaded(page: Page) -> None:
    """From here on, a page that was loaded anew is told from one that was kept up to date."""
    page.evaluate("window.sameDocument = true")


def assert_not_loaded_again(page: Page) -> None:
    assert page.evaluate("window.sameDocument") is True


def opened(airflow: Airflow, archive: Path, folder: Path) -> dict[str, list[dict[str, str]]]:
    """The rows of each table in an archive, got out with nothing of ours."""
    identity = airflow.stack.layout.identity
    subprocess.run(
        ["bash", "-o", "pipefail", "-c", 'age -d -i "$1" "$2" | zstd -dq | tar x', "bash", identity, archive],
        cwd=folder, check=True,
    )  # fmt: skip
    tables = {}
    for table in json.loads((folder / "manifest.json").read_text())["tables"]:
        columns = [column["name"] for column in table["columns"] if column["generated"] is None]
        segments = sorted((folder / "tables" / table["name"]).glob("*.csv"))
        text = b"".join(segment.read_bytes() for segment in segments).decode()
        rows = csv.reader(io.StringIO(text, newline=""))
        tables[table["name"]] = [dict(zip(columns, row, strict=True)) for row in rows]
    return tables


def audited(airflow: Airflow, since: list[tuple[object, ...]] | None = None) -> list[tuple[object, ...]]:
    """Who did what; ``since`` is an earlier answer, whose lines are left out."""
    rows = airflow.execute("SELECT actor, action, clinic_id, backup_id, run_id FROM clinic_backups.audit ORDER BY id")
    return list(rows[len(since or ()) :])
