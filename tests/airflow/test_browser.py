"""The Backups page as people use it, in Chromium and a real Airflow, compared with the catalog."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import re
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from urllib.parse import quote, unquote, urlsplit

import httpx
import pytest
from playwright.sync_api import Browser, FrameLocator, Locator, Page, expect

from clinic_backups.base.backup_record import BackupRecord
from clinic_backups.catalog.restores import Restores
from include.demo.layout import CLINIC_ADMIN, WEB_USER
from tests.airflow import browser
from tests.airflow.browser import RUN_LIMIT_MS, People
from tests.airflow.conftest import Airflow
from tests.rig import waits_for

CLINIC = 1
NAME = "Clínica Sonrisas"
OTHER_NAME = 'Odontología "El Ángel"'
HOSTILE = "<img src=x onerror=alert(1)>"
STOCK = "public.inventario_inventario"
LOCK = 4711
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
    with people.window(hurry=False) as page:
        page.goto("/backups/ui/")
        people.log_in(page, CLINIC_ADMIN)
        expect(page).to_have_url(re.compile(r"/backups/ui/$"))
        expect(page.get_by_role("heading", name="Respaldos de las clínicas")).to_be_visible()
        expect(page.locator("tbody tr")).to_have_count(1)
        assert OTHER_NAME not in page.content()
        expect(tile(page, "en total")).to_contain_text("1")
        page.get_by_role("link", name=NAME).click()

        # One extract waits until it was seen how far the backup is; not so the preflight, which tries its first row.
        last = f"inventario.id = (SELECT max(id) FROM {STOCK} WHERE clinica_id = {CLINIC})"
        wait = f"CASE WHEN current_query() LIKE '%; COPY' || ' (%' AND {last} THEN {waits_for(LOCK)} ELSE true END"
        with airflow.stock_condition(wait), locked(airflow):
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
        expect(page.locator(".head")).to_contain_text("Completado")
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


def test_a_restore_is_asked_for_planned_approved_by_the_operator_and_followed_to_its_end(
    airflow: Airflow, people: People
) -> None:
    for _ in range(2):  # a time line has two ends
        airflow.run({"clinic_id": CLINIC})
    good = stock(airflow)
    damage = f"UPDATE {STOCK} SET cantidad = cantidad + 1000 WHERE clinica_id = {CLINIC}"
    airflow.execute(damage)
    damaged = stock(airflow)
    since = audited(airflow)
    rows = good[CLINIC][1]
    with people.window(CLINIC_ADMIN) as page, people.window(WEB_USER, locale="en-US") as operator:
        page.goto(f"/backups/ui/clinics/{CLINIC}")
        page.get_by_role("link", name="Planear una restauración").click()
        expect(page.get_by_role("heading", name=f"Restaurar: {NAME}")).to_be_visible()
        newest = choose_newest_moment(airflow, page)
        page.get_by_role("radio", name="Exacto").check()
        page.get_by_role("button", name="Preparar el plan").click()
        expect(page.get_by_text("Todavía no se cambia nada.")).to_be_visible()
        run_id = run_of(page)
        mark_as_loaded(page)

        expect(page.get_by_role("heading", name="El plan", exact=True)).to_be_visible(timeout=RUN_LIMIT_MS)
        line = page.get_by_role("row").filter(has_text=STOCK)
        expect(line.get_by_role("cell")).to_have_text(["0", f"{rows}", "0", "0", f"cantidad {rows}"])
        expect(page.get_by_role("row").filter(has_text="Total").get_by_role("cell").nth(1)).to_have_text(f"{rows}")
        expect(page.get_by_text("El plan espera al operador")).to_be_visible(timeout=RUN_LIMIT_MS)
        expect(page.get_by_role("button", name="Aprobar")).to_have_count(0)
        expect(page.get_by_role("button", name="Rechazar")).to_have_count(0)
        assert stock(airflow) == damaged

        operator.goto(f"/backups/ui/clinics/{CLINIC}")
        waiting = operator.get_by_role("row").filter(has_text="Waits for approval")
        expect(waiting).to_contain_text(CLINIC_ADMIN)
        waiting.get_by_role("link").click()
        expect(operator.get_by_role("heading", name="The plan", exact=True)).to_be_visible()
        line = operator.get_by_role("row").filter(has_text=STOCK)
        expect(line.get_by_role("cell")).to_have_text(["0", f"{rows}", "0", "0", f"cantidad {rows}"])
        answer(operator, "Approve and restore", "The plan is approved.", box="I have read the plan")
        mark_as_loaded(operator)
        for window, said in ((operator, "The clinic is restored."), (page, "La clínica está restaurada.")):
            expect(window.get_by_text(said)).to_be_visible(timeout=RUN_LIMIT_MS)
            assert_not_loaded_again(window)
        assert stock(airflow) == good

        (record,) = Restores(airflow.catalog.database).find(run_id=run_id)
        assert (record.state, record.requested_by, record.approved_by) == ("completed", CLINIC_ADMIN, WEB_USER)
        assert record.backup_id == newest
        assert record.safety_backup_id is not None
        operator.get_by_text("The state before the restore is in the safety backup").get_by_role("link").click()
        expect(operator.locator("main")).to_contain_text(record.safety_backup_id)
        operator.go_back()

        # The way back is offered, planned like any restore, and this time nobody wants it.
        operator.get_by_role("button", name="Plan the undo").click()
        undo_id = run_of(operator)
        line = operator.get_by_role("row").filter(has_text=STOCK)
        expect(line.get_by_role("cell").nth(1)).to_have_text(f"{rows}", timeout=RUN_LIMIT_MS)
        answer(operator, "Reject", "The plan is rejected")
        expect(operator.locator(".head")).to_contain_text("Rejected", timeout=RUN_LIMIT_MS)
        assert airflow.wait(undo_id, "clinic_restore") == "success"
        assert stock(airflow) == good
    assert audited(airflow, since) == [
        (CLINIC_ADMIN, "restore", CLINIC, newest, run_id),
        (WEB_USER, "approve", CLINIC, None, run_id),
        (WEB_USER, "restore", CLINIC, record.safety_backup_id, undo_id),
        (WEB_USER, "reject", CLINIC, None, undo_id),
    ]


def test_the_operator_holds_releases_and_verifies_a_backup_and_the_audit_tells_it(
    airflow: Airflow, people: People
) -> None:
    number, record = newest_backup(airflow, 3)
    backup_id = record.backup_id
    since = audited(airflow)
    with people.window(WEB_USER, locale="en-US") as page:
        page.goto(f"/backups/ui/backups/{number}")
        page.get_by_label("Reason for the hold").fill("file 12/2026 of the court")
        page.get_by_role("button", name="Hold").click()
        hold_id = see_it_done(page, "The hold was changed as requested.")
        page.get_by_role("link", name="See the backup").click()
        expect(page.locator(".head")).to_contain_text("On hold")
        expect(page.locator("main")).to_contain_text("Until it is released. Reason: file 12/2026 of the court")
        held = newest_backup(airflow, 3)[1]
        assert (held.backup_id, held.hold_reason, held.held_by) == (backup_id, "file 12/2026 of the court", WEB_USER)

        page.get_by_label("I know that the retention policy may then delete it").check()
        page.get_by_role("button", name="Release").click()
        release_id = see_it_done(page, "The hold was changed as requested.")
        page.get_by_role("link", name="See the backup").click()
        expect(page.locator(".head")).not_to_contain_text("On hold")
        assert newest_backup(airflow, 3)[1].hold_reason is None

        page.get_by_role("button", name="Verify").click()
        verify_id = see_it_done(page, "All replicas are whole.")
        assert "replicas that" in airflow.log(verify_id, "verify", "clinic_backup_verify")

        page.get_by_role("link", name="Audit", exact=True).click()
        page.get_by_label("Clinic no.").fill("3")
        page.get_by_label("Who").fill(WEB_USER)
        page.get_by_role("button", name="Search").click()
        lines = page.locator("tbody tr")
        for line, did in enumerate(("Asked to verify a backup", "Released a backup", "Put a backup on hold")):
            expect(lines.nth(line)).to_contain_text(did)
            expect(lines.nth(line)).to_contain_text(backup_id)
            expect(lines.nth(line)).to_contain_text("127.0.0.1")
        expect(lines.nth(2)).to_contain_text("file 12/2026 of the court")
    assert audited(airflow, since) == [
        (WEB_USER, "hold", 3, backup_id, hold_id),
        (WEB_USER, "release", 3, backup_id, release_id),
        (WEB_USER, "verify", 3, backup_id, verify_id),
    ]


def test_in_airflows_own_pages_it_works_in_a_frame_a_tab_and_behind_a_tasks_link(
    airflow: Airflow, people: People, tmp_path: Path
) -> None:
    with people.window(WEB_USER, locale="en-US") as page:
        page.goto("/")
        page.get_by_test_id("nav-sidebar").get_by_role("link", name="Backups").click()
        frame = framed(page)
        expect(frame.get_by_role("heading", name="Clinics' backups")).to_be_visible()
        background = "getComputedStyle(document.body).backgroundColor"
        light = frame.locator("body").evaluate(background)
        page.get_by_role("button", name="User").click()
        page.get_by_role("menuitem", name="Appearance").click()
        page.get_by_role("menuitemradio", name="Dark Mode").click()
        expect(frame.locator("html")).to_have_attribute("data-theme", "dark")
        assert frame.locator("body").evaluate(background) != light

        frame.get_by_role("link", name=OTHER_NAME).click()
        frame.get_by_role("button", name="Back up now").click()
        expect(frame.get_by_text("The backup is ready.")).to_be_visible(timeout=RUN_LIMIT_MS)
        frame.get_by_role("link", name="See the backup").click()
        number, record = newest_backup(airflow, 2)
        expect(frame.locator("main")).to_contain_text(record.backup_id)
        with page.expect_download() as download:
            frame.get_by_role("link", name="Download", exact=True).click()
        assert hashlib.sha256(Path(download.value.path()).read_bytes()).hexdigest() == record.sha256
        assert "/plugin/backups" in page.url

        page.goto("/dags/clinic_backup")
        page.locator("a[href$='/plugin/backups-health']").click()
        tab = framed(page)
        expect(tab.get_by_role("heading", name="Health of the backups")).to_be_visible()
        active = len(airflow.execute((airflow.sql / "active_clinics.sql").read_text()))
        # And the shared data.
        expect(tab.locator(".tile").first).to_have_text(f"{active + 1} in all")
        expect(tab.locator("html")).to_have_attribute("data-theme", "dark")

        run_id = record.run_id
        assert run_id is not None
        task = f"/dags/clinic_backup/runs/{quote(run_id, safe='')}/tasks/back_up/mapped/0/details"
        page.goto(task)
        page.get_by_role("link", name="Backup", exact=True).click()
        expect(page).to_have_url(re.compile(rf"/backups/ui/backups/{number}$"))
        expect(page.locator("main")).to_contain_text(record.backup_id)
        page.goto(str(airflow.links(run_id, "back_up", 0)["Backup"]))
        expect(page).to_have_url(re.compile(rf"/backups/ui/backups/{number}$"))


@dataclass(frozen=True)
class Sights:
    """Pages below ``ui/`` that show everything that pages show, and which of them name the clinic of a hostile name."""

    pages: tuple[str, ...]
    naming: frozenset[str]


@pytest.fixture(scope="module")
def sights(airflow: Airflow, people: People) -> Iterator[Sights]:
    """A clinic whose name is an attack, with a restore that waits for approval, and one whose newest backup failed."""
    name = airflow.execute("SELECT nombre FROM public.comun_clinica WHERE id = 2")[0][0]
    rename = "UPDATE public.comun_clinica SET nombre = $n${}$n$ WHERE id = 2"
    airflow.execute(rename.format(HOSTILE))
    try:
        with airflow.stock_condition("1 / ({{ clinic_id }} - 3) IS NOT NULL"):
            backup_run, state = airflow.run({"clinic_ids": [2, 3]})
        assert state == "failed"
        airflow.execute(f"UPDATE {STOCK} SET cantidad = cantidad + 1 WHERE clinica_id = 2")
        restore_run = airflow.start({"clinic_id": 2, "notes": HOSTILE}, "clinic_restore")
        while airflow.states(restore_run, "clinic_restore").get("approve") != "awaiting_input":
            time.sleep(0.3)
        good, bad = newest_backup(airflow, 2)[0], newest_backup(airflow, 3)[0]
        naming = (
            "", "?q=img", "clinics/2", f"backups/{good}", "clinics/2/restore", "clinics/2/runs/none",
            f"runs/clinic_restore/{quote(restore_run, safe='')}",
        )  # fmt: skip
        others = (
            "?standing=never", "?failed=1", "clinics/3", f"backups/{bad}", "clinics/999",
            f"runs/clinic_backup/{quote(backup_run, safe='')}", "audit", "dag/clinic_backup",
        )  # fmt: skip
        yield Sights(naming + others, frozenset(naming))
        airflow.api.fail_run("clinic_restore", restore_run)
    finally:
        airflow.execute(
            rename.format(name),
            "UPDATE clinic_backups.clinic SET name = (SELECT nombre FROM public.comun_clinica WHERE id = 2) "
            "WHERE clinic_id = '2'",
            f"UPDATE {STOCK} SET cantidad = cantidad - 1 WHERE clinica_id = 2",
        )


@pytest.mark.parametrize(
    ("locale", "scheme", "width"),
    # Each of them occurs at least once. Most people see Spanish, and axe does not look at the language.
    [("es-BO", "light", 390), ("es-BO", "dark", 1280), ("en-US", "light", 1280)],
)
def test_every_page_is_accessible_fits_its_screen_and_lets_no_name_act(
    people: People, sights: Sights, locale: str, scheme: Literal["light", "dark"], width: int
) -> None:
    size = {"width": width, "height": 844}
    wrong = []
    with people.window(WEB_USER, locale=locale, expected="404", color_scheme=scheme, viewport=size) as page:
        for path in sights.pages:
            page.goto(f"/backups/ui/{path}")
            expect(page.locator("h1")).to_have_count(1)
            expect(page.locator("html")).to_have_attribute("lang", locale[:2])
            assert is_dark(page) == (scheme == "dark")
            expect(page.locator("img, iframe, object, script:not([src])")).to_have_count(0)
            if path in sights.naming:
                expect(page.get_by_text(HOSTILE).filter(visible=True).first).to_be_visible()
            for opened in (False, True):
                if opened:
                    page.evaluate("for (const one of document.querySelectorAll('details')) one.open = true")
                if (across := page.evaluate("document.documentElement.scrollWidth")) > width:
                    wrong.append(f"{path}: {across} px wide")
            if locale == "es-BO":
                wrong += [f"{path}: {violation}" for violation in browser.axe(page)]
    assert not wrong, "\n".join(wrong)


def test_with_the_keyboard_alone_one_gets_from_the_board_to_a_backup(airflow: Airflow, people: People) -> None:
    with people.window(WEB_USER) as page:
        page.goto("/backups/ui/")
        page.keyboard.press("Tab")
        expect(page.get_by_role("link", name="Ir al contenido")).to_be_focused()
        press_tab_until(page, page.get_by_role("link", name="Dental Norte/Sur"))
        page.keyboard.press("Enter")
        page.wait_for_url("**/clinics/4")
        press_tab_until(page, page.get_by_role("button", name="Respaldar ahora"))
        page.keyboard.press("Enter")
        expect(page.get_by_text("Se pidió el respaldo.")).to_be_visible()
        run_id = run_of(page)
    assert airflow.wait(run_id) == "success"
    assert airflow.records(run_id)[4].requested_by == WEB_USER


def test_while_the_catalog_is_down_the_page_says_so_and_airflow_goes_on(airflow: Airflow, people: People) -> None:
    with people.window(CLINIC_ADMIN, expected="503") as page, ThreadPoolExecutor(30) as threads:
        page.goto("/backups/ui/")
        with closing(airflow.web(WEB_USER)) as client:
            # It hangs: its tables are locked, and nobody gets an answer.
            with closing(airflow.stack._postgres.connect("clinica")) as db, db.cursor() as cursor:
                cursor.execute("LOCK TABLE clinic_backups.backup, clinic_backups.clinic IN ACCESS EXCLUSIVE MODE")
                asked = [threads.submit(client.get, "/backups/ui/", timeout=60) for _ in range(30)]
                for _ in range(5):
                    airflow_answers_quickly(client)
                assert not any(one.done() for one in asked)
            assert {one.result().status_code for one in asked} == {200}

            # It cannot be reached: nobody is let in, and whoever is in is thrown out.
            role = airflow.execute("SELECT rolname FROM pg_roles WHERE rolname ~ 'catalog$'")[0][0]
            lock_out = f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = '{role}'"
            airflow.execute(f"ALTER ROLE {role} NOLOGIN", lock_out)
            try:
                for _ in range(2):
                    look_again(page)
                expect(page.get_by_text("Esta página no se pudo actualizar")).to_be_visible()
                with people.window(CLINIC_ADMIN, expected="503") as other:
                    begun = time.monotonic()
                    answer = other.goto("/backups/ui/")
                    assert answer is not None
                    assert answer.status == 503
                    assert time.monotonic() - begun < 5
                    assert int(answer.headers["retry-after"]) > 0
                    expect(other.get_by_role("heading", name="El servicio no responde ahora")).to_be_visible()
                    expect(other.get_by_text("Los respaldos guardados no están afectados.")).to_be_visible()
                    assert role not in other.content()
                asked = [threads.submit(client.get, "/backups/ui/") for _ in range(30)]
                airflow_answers_quickly(client)
                assert {one.result().status_code for one in asked} == {503}
            finally:
                airflow.execute(f"ALTER ROLE {role} LOGIN")
        # It is back: so is the page, without a restart and without a reload.
        for _ in range(20):
            look_again(page)
            if page.get_by_text("Esta página no se pudo actualizar").is_hidden():
                break
            page.wait_for_timeout(500)
        expect(page.get_by_text("Esta página no se pudo actualizar")).to_be_hidden()
        page.reload()
        expect(page.get_by_role("link", name=NAME)).to_be_visible()


def tile(page: Page, label: str) -> Locator:
    """One of the counts above the board."""
    return page.locator(".tile").filter(has_text=re.compile(rf"\b{label}\s*$"))


def run_of(page: Page) -> str:
    """The run that the page follows."""
    return unquote(urlsplit(page.url).path.rpartition("/")[2])


@contextmanager
def locked(airflow: Airflow) -> Iterator[None]:
    """Meanwhile, whoever asks the clinics' database for the lock waits."""
    with closing(airflow.stack._postgres.connect("clinica")) as db, db.cursor() as cursor:
        cursor.execute(f"SELECT pg_advisory_lock({LOCK})")
        yield


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
    query = "SELECT actor, action, clinic_id::int, backup_id, run_id FROM clinic_backups.audit ORDER BY id"
    rows = airflow.execute(query)
    return list(rows[len(since or ()) :])


def stock(airflow: Airflow) -> dict[int, tuple[int, int]]:
    """How much each clinic has in stock, and in how many rows."""
    rows = airflow.execute(f"SELECT clinica_id, sum(cantidad)::int, count(*) FROM {STOCK} GROUP BY 1 ORDER BY 1")
    return {clinic_id: (total, count) for clinic_id, total, count in rows}


def choose_newest_moment(airflow: Airflow, page: Page) -> str:
    """Choose a moment on the time line, with the mouse; returns the id of the newest backup."""
    moments = page.locator("#moments").get_by_role("radio")
    expect(moments.first).to_be_checked()
    line = page.get_by_role("img", name=re.compile("Línea de tiempo con"))
    box = line.bounding_box()
    assert box is not None
    line.click(position={"x": 1, "y": box["height"] / 2})
    expect(moments.last).to_be_checked()
    expect(line.locator(".chosen")).to_have_count(1)
    line.click(position={"x": box["width"] - 1, "y": box["height"] / 2})
    expect(moments.first).to_be_checked()
    number = moments.first.get_attribute("value")
    return str(airflow.execute(f"SELECT backup_id FROM clinic_backups.backup WHERE id = {number}")[0][0])


def answer(page: Page, button: str, said: str, *, box: str = "") -> None:
    """Press a button below the plan, with the box before it; an answer within seconds of the plan is held back."""
    if box:
        page.get_by_label(box).check()
    page.get_by_role("button", name=button).click()
    expect(page.get_by_text(said)).to_be_visible(timeout=15_000)


def newest_backup(airflow: Airflow, clinic_id: int) -> tuple[int, BackupRecord]:
    """The newest completed backup, and its number."""
    rows = airflow.execute(
        "SELECT id, backup_id FROM clinic_backups.backup "
        f"WHERE clinic_id = '{clinic_id}' AND state = 'completed' ORDER BY id DESC LIMIT 1"
    )
    record = airflow.catalog.get(rows[0][1])
    assert record is not None
    return rows[0][0], record


def see_it_done(page: Page, said: str) -> str:
    """Follow a run to its end without a reload; returns its id."""
    mark_as_loaded(page)
    expect(page.get_by_text(said)).to_be_visible(timeout=RUN_LIMIT_MS)
    assert_not_loaded_again(page)
    return run_of(page)


def framed(page: Page) -> FrameLocator:
    """Our page in Airflow's own, which lets it do no more than it must."""
    frame = page.locator("iframe[title=Backups]")
    expect(frame).to_have_attribute("sandbox", "allow-scripts allow-same-origin allow-forms allow-downloads")
    return frame.content_frame


def is_dark(page: Page) -> bool:
    """Whether the page's text is lighter than what it stands on."""
    brightness = """name => {
        const context = document.createElement("canvas").getContext("2d");
        context.fillStyle = getComputedStyle(document.body)[name];
        context.fillRect(0, 0, 1, 1);
        return context.getImageData(0, 0, 1, 1).data.slice(0, 3).reduce((sum, part) => sum + part);
    }"""
    text, background = (page.evaluate(brightness, name) for name in ("color", "backgroundColor"))
    return bool(text > background)


def press_tab_until(page: Page, wanted: Locator) -> None:
    """Press Tab until that has the focus; whatever has it on the way shows that it has."""
    for _ in range(60):
        page.keyboard.press("Tab")
        focus = page.evaluate("""() => {
            const one = document.activeElement, style = getComputedStyle(one), box = one.getBoundingClientRect();
            return {
                what: one.outerHTML.slice(0, 200),
                shown: style.outlineStyle !== "none" && parseFloat(style.outlineWidth) >= 2 && box.width > 0
                    && box.bottom > 0 && box.top < innerHeight && box.right > 0 && box.left < innerWidth,
            };
        }""")
        assert focus["shown"], focus
        if wanted.evaluate("one => one === document.activeElement"):
            return
    raise AssertionError(f"{wanted} cannot be reached")


def look_again(page: Page) -> None:
    """What the page does by itself when somebody comes back to it: it gets what is new."""
    with page.expect_response("**/backups/ui/"):
        page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")


def airflow_answers_quickly(client: httpx.Client) -> None:
    """Airflow's own API, while requests to our pages wait."""
    for path in ("/api/v2/version", "/api/v2/monitor/health"):
        begun = time.monotonic()
        assert client.get(path).status_code == 200
        assert time.monotonic() - begun < 2
