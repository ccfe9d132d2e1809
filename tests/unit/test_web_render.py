"""The pages: texts of others stay text, there is no inline script or style, and every page exists in both languages."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator
from dataclasses import replace
from datetime import date, timedelta
from html import unescape
from html.parser import HTMLParser
from typing import Any
from urllib.parse import quote
from zoneinfo import ZoneInfo

import pyrage
import pytest
from babel import Locale
from starlette.applications import Starlette
from starlette.routing import Mount
from starlette.testclient import TestClient

from clinic_backups.archive.encryption import generate_identity
from clinic_backups.base.backup_facts import Gap
from clinic_backups.base.settings import Settings
from clinic_backups.catalog.backup_list import HistoryEntry
from clinic_backups.catalog.board import BoardLine
from clinic_backups.notify.formats import Formats
from clinic_backups.stores.envelopes import FROM_NOTE
from clinic_backups.web.charts import places, trend
from clinic_backups.web.language import Texts
from clinic_backups.web.viewer import Viewer
from tests.fake_web import (
    ADMINISTRATOR,
    NOW,
    OPERATOR,
    READER,
    Fake,
    app_for,
    backup_run,
    entries,
    failed_run,
    record,
    rejected_run,
    restore_run,
    restored_run,
)
from tests.fake_web import (
    trend as trend_points,
)
from tests.servers import CHECKOUT

ROOT = "/base/backups"
WEB = CHECKOUT / "plugins" / "clinic_backups" / "web"
PAGES = [
    "", "?q=x&standing=late&sort=size&desc=1&page=2&all=1&failed=1", "clinics/7", "clinics/119", "clinics/7/restore",
    "clinics/7/changes", "clinics/7/export",
    "clinics/119/runs/manual__1", "backups/13", "backups/12", "backups/11", "backups/10", "backups/9", "audit",
    "audit?clinic=7&actor=ana", "dag/clinic_backup", "dag/anything%20else",
    *(f"runs/{run.dag_id}/{quote(run.run_id, safe='')}?done=planning"
      for run in (restore_run(), restored_run(), failed_run(), rejected_run(), backup_run())),
]  # fmt: skip
VOID = {"meta", "link", "input", "br", "path", "line", "polyline", "circle"}
HOSTILE = "\u202e<script>alert(1)</script>\"'><img src=x onerror=alert(1)>{{7*7}} مرحبا " + "x" * 5000


class Checked(HTMLParser):
    """Reads a page strictly: every element is closed where it should be, and none carries code or style."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.wrong: list[str] = []
        self.ids: list[str] = []
        self.references: list[str] = []
        self.links: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        known = dict(attrs)
        if tag == "script" and not (known.get("src") or "").startswith("/base/backups/ui/static/app.js?v="):
            self.wrong.append("script")
        self.wrong += [tag for _ in range(tag in ("style", "iframe", "object", "img", "base"))]
        self.wrong += [name for name in known if name == "style" or name.startswith("on")]
        self.ids += [known["id"] or ""] if "id" in known else []
        for name in ("aria-labelledby", "aria-describedby", "for"):
            self.references += (known.get(name) or "").split()
        self.links += [known[name] or "" for name in ("href", "src", "action") if name in known]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.open.pop() != tag:
            self.wrong.append(f"</{tag}>")

    def handle_data(self, data: str) -> None:
        self.text += data


def client(fake: Fake, viewer: Viewer = OPERATOR, language: str = "es") -> TestClient:
    """Mounted below a path, as Airflow does it."""
    app = Starlette(routes=[Mount(ROOT, app_for(fake, viewer))])
    headers = {"Accept-Language": language}
    return TestClient(app, base_url=f"http://testserver{ROOT}", headers=headers, follow_redirects=False)


def read(text: str) -> Checked:
    page = Checked()
    page.feed(text)
    page.close()
    assert not page.wrong
    assert page.open == []
    assert len(page.ids) == len(set(page.ids)), "an id twice"
    assert set(page.references) <= set(page.ids)
    ours = ("/base/backups/ui/", "/base/dags/clinic_")  # and Airflow's own pages of our DAGs
    assert all(link in ("", "#main") or link.startswith(ours) for link in page.links), page.links
    return page


@pytest.mark.parametrize("viewer", [OPERATOR, ADMINISTRATOR, READER], ids=lambda viewer: viewer.name)
@pytest.mark.parametrize("language", ["es", "en"])
def test_every_page_is_sound_for_everybody(viewer: Viewer, language: str) -> None:
    with client(Fake(), viewer, language) as browser:
        for path in PAGES:
            answer = browser.get(f"ui/{path}")
            forbidden = viewer is READER and path in ("clinics/7/restore", "clinics/7/export")
            hidden = viewer is not OPERATOR and "119" in path
            assert answer.status_code == (403 if forbidden else 404 if hidden else 200), path
            assert f'<html lang="{language}">' in answer.text
            assert answer.headers["content-language"] == language
            read(answer.text)


@pytest.mark.parametrize(
    ("language", "said", "remedy"),
    [
        ("es", "Su rol en la clínica 7 no lo permite.", "Pídalo a quien administra la clínica o al operador."),
        ("en", "Your role in clinic 7 does not allow that.", "or the operator."),
    ],
)
def test_an_error_is_told_in_the_language_of_its_page(language: str, said: str, remedy: str) -> None:
    with client(Fake(), READER, language) as browser:
        text = browser.get("ui/clinics/7/restore").text
        assert said in text and remedy in text
        assert ("No existe." in browser.get("ui/nada").text) == (language == "es")


def test_buttons_are_for_those_who_may() -> None:
    changing = re.compile(r'action="/base/backups/ui/([^"]+)"')

    def forms(viewer: Viewer, path: str) -> set[str]:
        with client(Fake(), viewer) as browser:
            return {found.rpartition("/")[2] for found in changing.findall(browser.get(f"ui/{path}").text)}

    waiting = f"runs/clinic_restore/{quote(restore_run().run_id, safe='')}"
    assert forms(OPERATOR, "clinics/7") == {"back-up", "verify", "hold", "release"}
    assert forms(ADMINISTRATOR, "clinics/7") == {"back-up"}
    assert forms(READER, "clinics/7") == set()
    assert forms(OPERATOR, waiting) == {"answer"}
    assert forms(ADMINISTRATOR, waiting) == forms(READER, waiting) == set()


def test_names_and_errors_that_others_wrote_stay_text() -> None:
    evil: dict[str, Any] = {
        "clinic_name": HOSTILE, "requested_by": HOSTILE, "notes": HOSTILE, "hold_reason": HOSTILE,
        "archive_key": f"backups/{HOSTILE}", "rows": {HOSTILE: 1}, "trigger": "manual",
        "safety_of": HOSTILE,
        "suspect": HOSTILE,
    }  # fmt: skip
    fake = Fake()
    fake.lines = [
        BoardLine(7, HOSTILE, True, "ok", NOW, 12, "b", "full", 1, 1, trend_points(), last_failure=HOSTILE,
                  last_failure_hint=HOSTILE, suspect=HOSTILE, suspect_id=HOSTILE)
    ]  # fmt: skip
    failed = {"state": "failed", "error": HOSTILE, "hint": HOSTILE}
    fake.entries = [
        HistoryEntry(12, record(12, **evil), ((HOSTILE, HOSTILE),)),
        HistoryEntry(10, record(10, **evil | failed), ((HOSTILE, "intact"),)),
    ]
    run = restore_run(
        requested_by=HOSTILE, target=HOSTILE, conf={"notes": HOSTILE, "mode": HOSTILE, "tables": [HOSTILE]}
    )
    fake.runs = [run, failed_run()]
    with client(fake, Viewer(HOSTILE, superadmin=True)) as browser:
        for path in ("", f"?q={quote(HOSTILE[:90])}", "clinics/7", "clinics/7/restore", "clinics/7/changes",
                     "backups/12", "backups/10",
                     f"audit?actor={quote(HOSTILE[:90])}", f"runs/clinic_restore/{quote(run.run_id, safe='')}",
                     f"clinics/7/runs/{quote(HOSTILE[:90], safe='')}", "?done=<b>"):  # fmt: skip
            text = browser.get(f"ui/{path}").text
            page = read(text)
            assert "<script>alert" not in text, path
            assert "\u202e" not in text, path
            assert "49" not in re.findall(r"\d+", page.text.replace("{{7*7}}", "")), path
            assert max(map(len, re.findall(r"\S+", page.text))) <= 1000, path


def test_an_incomplete_backup_is_not_shown_as_a_complete_one() -> None:
    fake = Fake()
    gap = Gap("public.nueva", f"public.nueva leads to the clinic. {HOSTILE}")
    fake.entries = [HistoryEntry(12, record(12, gaps=(gap,)), (("file:///s", "intact"),))]
    for viewer, sees in ((OPERATOR, True), (ADMINISTRATOR, False)):
        with client(fake, viewer) as browser:
            for path in ("clinics/7", "backups/12"):
                text = browser.get(f"ui/{path}").text
                assert "Incompleto" in read(text).text
                assert "<script>alert" not in text and "\u202e" not in text
                assert ("public.nueva leads" in text) == (sees and path == "backups/12")


@pytest.mark.parametrize(("language", "said"), [("en", "before the restore of"), ("es", "antes de la restauración de")])
def test_a_safety_backup_is_called_so_and_chosen_by_nobody_but_a_person(language: str, said: str) -> None:
    fake = Fake()
    safeties = {12, 11}
    fake.entries = [
        replace(
            entry, record=replace(entry.record, safety_of=record(9).backup_id if entry.number in safeties else None)
        )
        for entry in fake.entries
    ]
    chosen = re.compile(r'value="(\d+)" required checked')
    with client(fake, language=language) as browser:
        for page, times in (
            ("ui/clinics/7", 2),
            ("ui/backups/12", 1),
            ("ui/clinics/7/restore", 2),
            ("ui/backups/8", 0),
        ):
            assert browser.get(page).text.count(said) == times, page
        # Not the newest, which is a safety backup; one that was asked for is shown.
        assert chosen.findall(browser.get("ui/clinics/7/restore").text) == ["8"]
        assert chosen.findall(browser.get("ui/clinics/7/restore?backup=11").text) == ["11"]
        fake.entries = [entry for entry in fake.entries if entry.number in safeties]
        assert chosen.findall(browser.get("ui/clinics/7/restore").text) == []


def test_the_approval_is_for_the_plan_and_the_database_that_are_shown() -> None:
    fake = Fake()
    path = f"ui/runs/clinic_restore/{quote(restore_run().run_id, safe='')}"
    with client(fake) as browser:
        page = browser.get(path).text
    assert f'name="plan" value="{"ab" * 32}"' in page
    assert "database clinica at db.example:5432" in page


def test_the_undo_of_a_restore_of_some_tables_is_of_these_tables() -> None:
    run_id = quote(restored_run().run_id, safe="")
    with client(Fake()) as browser:
        page = browser.get(f"ui/runs/clinic_restore/{run_id}").text
    assert '<input type="hidden" name="tables" value="public.citas_consulta">' in page


def test_forms_lead_to_the_run_that_does_it() -> None:
    fake = Fake()
    waiting = f"ui/runs/clinic_restore/{quote(restore_run().run_id, safe='')}"
    with client(fake) as browser:
        for path, data, end in (
            ("ui/clinics/7/back-up", {"kind": "full", "notes": "antes"}, "?done=backing_up"),
            ("ui/clinics/7/restore", {"backup": "11", "mode": "missing", "tables": ["a.b", "c.d"]}, "?done=planning"),
            ("ui/backups/12/hold", {"reason": "expediente 12"}, "?done=holding"),
            ("ui/backups/11/release", {"sure": "yes"}, "?done=releasing"),
            ("ui/backups/12/verify", {}, "?done=verifying"),
            (f"{waiting}/answer", {"approve": "yes", "sure": "yes", "plan": "ab"}, "?done=approved"),
            (f"{waiting}/answer", {"approve": "no", "reason": "no es ella"}, "?done=rejected"),
        ):
            answer = browser.post(path, data=data)
            assert answer.status_code == 303, (path, answer.text)
            assert answer.headers["location"].startswith("/base/backups/ui/runs/clinic_")
            assert answer.headers["location"].endswith(end)
            assert browser.get(f"http://testserver{answer.headers['location']}").status_code == 200
        assert ("clinic_backup", 7, {"kind": "full", "notes": "antes"}) in fake.asked
        assert ("answer", restore_run().run_id, True, "ab", "") in fake.asked
        assert ("answer", restore_run().run_id, False, "", "no es ella") in fake.asked
        number, how = next(asked[1:] for asked in fake.asked if asked[0] == "clinic_restore")
        assert (number, how["mode"], how["tables"]) == (11, "missing", ("a.b", "c.d"))
        done = len(fake.asked)
        # Without the box that must be ticked, and with values that no form of ours sends.
        for path, data in (("ui/backups/11/release", {}), (f"{waiting}/answer", {"approve": "yes"}),
                           ("ui/clinics/7/back-up", {"kind": "sideways"}), ("ui/clinics/7/restore", {"backup": "x"}),
                           (f"{waiting}/answer", {})):  # fmt: skip
            answer = browser.post(path, data=data)
            assert answer.status_code == 422, path
            read(answer.text)
        assert len(fake.asked) == done
        answer = browser.get("ui/backups/12/download")
        assert (answer.status_code, answer.headers["location"]) == (303, "/base/backups/respaldos/12/archivo/")


@pytest.mark.parametrize("language", ["es", "en"])
def test_the_password_of_an_export_is_shown_once_and_kept_nowhere(language: str) -> None:
    fake, (secret, public) = Fake(), generate_identity()
    fake.settings = Settings(time_zone="America/La_Paz", recipients=(public,))
    with client(fake, ADMINISTRATOR, language) as browser:
        answer = browser.post("ui/clinics/7/export", data={"backup": "11", "format": "csv"})
        assert (answer.status_code, answer.headers["cache-control"]) == (200, "no-store")
        read(answer.text)
        (shown,) = re.findall(r"(?:[a-z2-9]{4}-){4}[a-z2-9]{4}", answer.text)
        (asked,) = fake.asked
        assert asked[:3] == ("clinic_restore", 11, "csv")
        sealed = base64.b64decode(asked[3]["sealed_password"])
        assert pyrage.decrypt(sealed, [pyrage.x25519.Identity.from_str(secret)]).decode() == shown
        again = browser.post("ui/clinics/7/export", data={"backup": "11", "format": "csv"})
        assert shown not in again.text
        assert shown not in browser.get("ui/clinics/7").text


def test_without_the_keys_of_backups_nobody_gets_a_password() -> None:
    fake = Fake()
    with client(fake, ADMINISTRATOR, "en") as browser:
        answer = browser.post("ui/clinics/7/export", data={"backup": "11", "format": "csv"})
        assert answer.status_code == 409 and "CLINIC_BACKUPS_RECIPIENTS" in answer.text
    assert fake.asked == []


def test_a_clinic_with_a_key_of_its_own_gets_no_password() -> None:
    fake = Fake()
    fake.settings = Settings(time_zone="America/La_Paz", clinic_recipients={7: (generate_identity()[1],)})
    with client(fake, ADMINISTRATOR) as browser:
        answer = browser.post("ui/clinics/7/export", data={"backup": "11", "format": "xlsx"})
        assert answer.status_code == 303 and answer.headers["location"].endswith("?done=exporting")
    assert fake.asked == [("clinic_restore", 11, "xlsx", {"notes": ""})]


def test_who_may_ask_for_data_and_get_them() -> None:
    fake = Fake()
    for viewer, status in ((OPERATOR, 200), (ADMINISTRATOR, 200), (READER, 403)):
        with client(fake, viewer) as browser:
            answer = browser.get("ui/exports/3/download", headers={"Sec-Fetch-Site": "same-origin"})
            assert answer.status_code == status
            if status == 200:
                assert answer.content == b"sealed"
                assert 'filename="clinica_sonrisas_7_20260519.xlsx.zip"' in answer.headers["content-disposition"]
            assert ("export" in browser.get("ui/clinics/7").text) == (status == 200)
            for number in ("4", "0", "-1", str(2**63)):
                assert browser.get(f"ui/exports/{number}/download").status_code == 404
            for data in ({"backup": "11", "format": "exe"}, {"backup": "x"}, {}):
                assert browser.post("ui/clinics/7/export", data=data).status_code in (403, 422)
    with client(fake, READER) as browser:
        assert browser.post("ui/clinics/7/export", data={"backup": "11"}).status_code == 403
    with client(fake, ADMINISTRATOR) as browser:
        assert browser.post("ui/clinics/8/export", data={"backup": "11"}).status_code == 404
    assert [asked for asked in fake.asked if asked[0] != "fetch_export"] == []


@pytest.mark.parametrize("language", ["es", "en"])
def test_a_run_that_exports_is_not_called_a_restore(language: str) -> None:
    conf = {"clinic_id": 7, "mode": "export", "format": "xlsx"}
    wrong = {"es": ["restaura", "Restaura"], "en": ["restore", "Restore"]}[language]
    for state, changes in (("running", {}), ("success", {"waiting_for_approval": False, "ended_at": NOW})):
        fake = Fake(runs=[restore_run(state, conf=conf, plan=None, target="", **changes)])
        with client(fake, OPERATOR, language) as browser:
            text = browser.get(f"ui/runs/clinic_restore/{quote(restore_run().run_id, safe='')}").text
        body = text[text.index("<main") :].replace("clinic_restore", "").replace("restore%", "")
        assert [word for word in wrong if word in body] == []
        with client(fake, OPERATOR, language) as browser:
            page = browser.get("ui/clinics/7").text
        restores, exports = (page.index(f'id="{name}-title"') for name in ("restores", "exports"))
        places = [found.start() for found in re.finditer("runs/clinic_restore/web__", page)]
        assert all(place > exports > restores for place in places)
        assert len(places) == (state == "running")


@pytest.mark.parametrize("path", [
    "?page=abc&sort=;drop&standing=all&desc=maybe&running=yes", "?page=-1", "?page=99999999999999999999", "?q=%00%FF",
    "clinics/7?page=0", "clinics/7/restore?backup=abc", "audit?clinic=-1&page=1e9",
])  # fmt: skip
def test_values_that_make_no_sense_count_as_not_given(path: str) -> None:
    with client(Fake()) as browser:
        assert browser.get(f"ui/{path}").status_code == 200


@pytest.mark.parametrize("path", [
    "clinics/abc", "clinics/99999999999999999999", "backups/0", "static/../pages.py", "static/app.js.map", "nothing",
    "runs/clinic_restore/%00", f"runs/x/{'y' * 300}",
])  # fmt: skip
def test_what_is_not_there_is_said_in_plain_words(path: str) -> None:
    with client(Fake(), language="en") as browser:
        answer = browser.get(f"ui/{path}")
        assert answer.status_code in (404, 422)
        assert "See the clinics" in read(answer.text).text


def test_static_files_are_kept_by_browsers_until_they_change() -> None:
    with client(Fake()) as browser:
        links = [link for link in read(browser.get("ui/").text).links if "/static/" in link]
        assert len(links) == 3
        for link in links:
            answer = browser.get(f"http://testserver{link}")
            assert answer.status_code == 200
            assert "immutable" in answer.headers["cache-control"]
            assert "immutable" not in browser.get(f"http://testserver{link.partition('?')[0]}").headers["cache-control"]


def templates() -> Iterator[tuple[str, str]]:
    for path in WEB.glob("templates/*.html"):
        yield path.name, path.read_text(encoding="utf-8")


def test_no_template_switches_escaping_off() -> None:
    for name, text in templates():
        assert not re.search(r"\|\s*safe\b|autoescape|\bstyle=|\son\w+=|javascript:", text), name


def test_the_trend_of_no_one_and_many_points() -> None:
    today = date(2026, 5, 20)
    assert (trend([], today).points, trend([], today).last) == ("", None)
    one = trend([(today, 5.0)], today, width=96, height=24)
    assert (one.points, one.last) == ("", (94.0, 2.0))
    many = trend([(today - timedelta(days=90), 0), (today - timedelta(days=15), 50.0), (today, 100.0)], today)
    assert many.points == "2,22 48,12 94,2"
    assert (many.lowest, many.highest, many.first_value, many.last_value) == (0, 100.0, 0, 100.0)
    assert trend([(today, 0), (today, 0)], today).points == "94,22 94,22"
    assert places([]) == []
    assert places([NOW]) == [998.0]
    assert places([NOW, NOW - timedelta(hours=1), NOW - timedelta(hours=4)]) == [998.0, 749.0, 2.0]


@pytest.mark.parametrize(("language", "says", "asks"), [
    ("en", "the catalog did not write", "Ask who put it"), ("es", "el catálogo no hizo", "Pregunte quién la puso"),
])  # fmt: skip
def test_a_hold_that_comes_from_a_note_is_shown_as_such(language: str, says: str, asks: str) -> None:
    note = record(12, hold_reason="pleito", held_by=f"ana{FROM_NOTE}", held_at=NOW)
    ours = record(12, hold_reason="pleito", held_by="ana", held_at=NOW)
    for held, is_note in ((note, True), (ours, False)):
        fake = Fake()
        fake.entries = [HistoryEntry(12, held, ())]
        for viewer, may_release in ((OPERATOR, True), (READER, False)):
            with client(fake, viewer, language) as browser:
                text = read(browser.get("ui/backups/12").text).text
                assert (says in text, asks in text) == (is_note, is_note and may_release)
                told = browser.get("respaldos/12/").json()
                assert (told["retencion"], told["retencion_de_nota"]) == ("pleito", is_note)


@pytest.mark.parametrize("language", ["es", "en"])
def test_whoever_runs_the_system_is_told_how_one_archive_is_made_of_a_chain(language: str) -> None:
    for viewer, sees in ((OPERATOR, True), (ADMINISTRATOR, False)):
        with client(Fake(), viewer, language) as browser:
            part, full = (browser.get(f"ui/backups/{number}").text for number in (12, 11))
            told = (
                f"clinic-backups consolidate {next(each.record.backup_id for each in entries() if each.number == 12)}"
            )
            assert (told in part, "consolidate" in full) == (sees, False)


def test_what_is_suspect_is_named_and_the_command_that_accepts_it() -> None:
    fake = Fake()
    reason = "public.inventario_inventario has no rows, but had 40 in 7-1"
    fake.entries = [HistoryEntry(12, record(12, suspect=reason), ())]
    fake.lines = [replace(line, suspect=reason, suspect_id="7-2") for line in fake.lines if line.clinic_id == 7]
    with client(fake, OPERATOR) as browser:
        for path in ("clinics/7", "backups/12"):
            text = browser.get(f"ui/{path}").text
            assert reason in text
            assert "clinic-backups accept" in text
        fake.lines = [replace(line, running=None) for line in fake.lines]
        assert reason in browser.get("ui/").text
    with client(fake, READER) as browser:
        assert reason not in browser.get("ui/clinics/7").text
    accepted = record(12, suspect=reason, accepted_by="ana", accepted_at=NOW)
    fake.entries = [HistoryEntry(12, accepted, ())]
    with client(fake, OPERATOR) as browser:
        text = browser.get("ui/backups/12").text
        assert "ana" in text
        assert "clinic-backups accept" not in text


@pytest.mark.parametrize("language", ["es", "en"])
def test_the_board_says_why_no_backup_goes_on_to_whoever_runs_the_system(language: str) -> None:
    fake = Fake()
    with client(fake, OPERATOR, language) as browser:
        page = read(browser.get("ui/").text)
    texts = Texts(language, Formats(Locale.parse(language), ZoneInfo("America/La_Paz")))
    for banner in fake.banners():
        assert unescape(texts(f"banner.{banner.kind}", n=banner.count)) in page.text
        assert unescape(texts(f"banner_todo.{banner.kind}")) in page.text
        assert banner.error in page.text and banner.hint in page.text
        for dag_id, run_id in banner.runs:
            assert f"/base/backups/ui/runs/{dag_id}/{quote(run_id, safe='')}" in page.links
    assert "32 <b>Sonríe</b>" in page.text
    for viewer in (ADMINISTRATOR, READER):
        with client(fake, viewer, language) as browser:
            page = read(browser.get("ui/").text)
        assert not any(unescape(texts(f"banner_todo.{banner.kind}")) in page.text for banner in fake.banners())


def test_a_run_that_failed_shows_its_cause_its_remedy_and_its_log() -> None:
    failed = failed_run()
    with client(Fake()) as browser:
        page = read(browser.get(f"ui/runs/clinic_restore/{failed.run_id}").text)
    assert failed.error in page.text and failed.hint in page.text
    assert f"/base/dags/clinic_restore/runs/{quote(failed.run_id, safe='')}/tasks/plan" in page.links
    with client(Fake(), ADMINISTRATOR) as browser:
        page = read(browser.get(f"ui/runs/clinic_restore/{failed.run_id}").text)
    assert failed.error not in page.text
    assert not any(link.startswith("/base/dags/") for link in page.links)


@pytest.mark.parametrize(
    ("language", "says", "never"),
    [("en", ["Rejected by", "jefa rejected the plan: nothing was", "Reason: es la clínica equivocada"], "Failed"),
     ("es", ["Rechazada por", "jefa rechazó el plan: no se cambió", "Motivo: es la clínica equivocada"], "Falló")],
)  # fmt: skip
def test_a_rejection_is_an_answer_and_no_failure(language: str, says: list[str], never: str) -> None:
    run = rejected_run()
    with client(Fake(), OPERATOR, language) as browser:
        page = read(browser.get(f"ui/runs/clinic_restore/{quote(run.run_id, safe='')}").text)
    assert [text for text in says if text not in page.text] == []
    assert never not in page.text


@pytest.mark.parametrize(
    ("language", "says"),
    [("en", "This file alone cannot be restored: it holds only what changed since the backup of "),
     ("es", "Este archivo solo no se puede restaurar: contiene únicamente lo que cambió desde el respaldo del ")],
)  # fmt: skip
def test_the_file_of_an_incremental_backup_does_not_look_whole(language: str, says: str) -> None:
    with client(Fake(), OPERATOR, language) as browser:
        part, full = (read(browser.get(f"ui/backups/{number}").text) for number in (12, 11))
        links = [browser.get(f"respaldos/{number}/descargar/").json() for number in (12, 11)]
    changes_since = next(each.record.parent_id for each in entries() if each.number == 12)
    assert [(link["autosuficiente"], link["cambios_desde"]) for link in links] == [(False, changes_since), (True, None)]
    assert says in part.text and says not in full.text
    assert any(link.endswith("/backups/12/download-whole") for link in part.links)
    # What of all it holds is not known without the key: the page says what all of it is.
    assert re.search(r"(out of|de un total de) [\d.,]+ (rows|registros) (in|en) \d+ (tables|tablas)\. ", part.text)
    assert "bastan age" not in part.text and "are enough" not in part.text
