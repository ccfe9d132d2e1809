"""The API's answers: in Spanish where that is asked for, durations and lists for Django, 403 first."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from contextlib import closing
from datetime import timedelta
from typing import Any

import pytest
from django.utils.duration import duration_string
from starlette.testclient import TestClient

from clinic_backups.web import api_errors, problems
from clinic_backups.web.language import LANGUAGES
from clinic_backups.web.schemas import duration
from clinic_backups.web.viewer import Viewer
from tests.fake_web import ADMINISTRATOR, OPERATOR, READER, Fake, app_for
from tests.servers import CHECKOUT

WEB = CHECKOUT / "plugins" / "clinic_backups" / "web"
BACK_UP, RESTORE = "/respaldos/crear_respaldo_manual/", "/respaldos/12/restaurar/"
ANSWERS = {name for name, found in vars(problems).items() if isinstance(found, type)
           and issubclass(found, problems.HttpProblem)}  # fmt: skip


FAKE = Fake()
apps: dict[str, Any] = {}


def client(viewer: Viewer = ADMINISTRATOR, **headers: str) -> Any:
    """A program of that person. Applications are made once: that takes longer than what is asked of them."""
    if repr(viewer) not in apps:
        apps[repr(viewer)] = app_for(FAKE, viewer)
    headers = {"authorization": "Bearer x"} | {name.replace("_", "-"): value for name, value in headers.items()}
    return closing(TestClient(apps[repr(viewer)], headers=headers, raise_server_exceptions=False))


def sentences() -> Iterator[tuple[str, str]]:
    """Every text that web/ puts into an error: where it stands, and the text with ``7`` for what differs."""
    for path in sorted(WEB.glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Call) or getattr(node.func, "id", "") not in ANSWERS:
                continue
            ending = " was not found." if node.func.id == "NotVisible" else ""  # type: ignore[attr-defined]
            said = node.args[:1]
            said += [keyword.value for keyword in node.keywords if keyword.arg == "hint"]
            for value in said:
                for text in _texts(value):
                    yield f"{path.name}:{node.lineno}", text + ending


def _texts(value: ast.expr) -> list[str]:
    if isinstance(value, ast.Constant):
        return [value.value] if value.value else []
    if isinstance(value, ast.JoinedStr):
        return ["".join(part.value if isinstance(part, ast.Constant) else "7" for part in value.values)]
    if isinstance(value, ast.IfExp):
        return _texts(value.body) + _texts(value.orelse)
    return []  # what another module says


def translated(language: str) -> api_errors.ErrorTexts:
    texts = api_errors.of(language)
    assert texts is not None
    return texts


OTHERS = [language for language in LANGUAGES if language != "en"]
SPANISH = translated("es")


@pytest.mark.parametrize("language", OTHERS)
@pytest.mark.parametrize(("place", "english"), sorted(set(sentences())))
def test_every_sentence_of_an_error_is_translated(place: str, english: str, language: str) -> None:
    texts = translated(language)
    quoted = texts.unknown.format(english=english)
    assert texts.sentence(english) != quoted, f"{place}: add it to texts/errors/{language}.toml"


def test_no_translation_is_left_over_and_every_place_is_filled() -> None:
    used = {english for _, english in sentences()}
    written = "".join((WEB / name).read_text(encoding="utf-8") for name in ("application.py", "problems.py"))
    for language in OTHERS:
        for english, said in translated(language).sentences.items():
            pattern = api_errors.pattern_of(english)
            assert any(map(pattern.fullmatch, used)) or english in written or "{what}" in english, english
            assert set(pattern.groupindex) >= set(api_errors.pattern_of(said).groupindex), english
        assert translated(language).titles.keys() == problems.TITLES.keys()
        assert translated(language).values.keys() == SPANISH.values.keys()
        assert translated(language).words.keys() == SPANISH.words.keys()


def test_what_others_say_is_quoted_and_names_are_words() -> None:
    assert SPANISH.sentence("The disk is full.") == "El sistema informa en inglés: The disk is full."
    assert SPANISH.sentence("Backup 7-1 is failed.") == "El respaldo 7-1 no se puede usar: falló."
    assert SPANISH.sentence("Clinic 7 was not found.") == "No se encontró: la clínica 7."
    assert SPANISH.sentence("{x} was not found.") == "No se encontró: {x}."


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "detail", "remedy"),
    [
        ("GET", "/respaldos/770/", None, 404, "No se encontró: el respaldo 770.", "Puede ser de una clínica"),
        ("POST", BACK_UP, {"clinica": 8}, 404, "No se encontró: la clínica 8.", "Puede ser"),
        ("POST", BACK_UP, {"clinica": 7, "tipo": "x"}, 422,
         "body.tipo: no es uno de 'auto', 'completo' o 'incremental'", "Corríjalos"),
        ("POST", BACK_UP, {"clinica": 7, "nota": ""}, 422, "body.nota: es un campo que no existe aquí", "Corríjalos"),
        ("GET", "/respaldos/?page_size=0&desde=x", None, 422,
         "query.desde: no es una fecha; query.page_size: es menor que 1", "Corríjalos"),
        ("GET", "/nada", None, 404, "No existe.", "Revise la dirección."),
        ("DELETE", "/health", None, 405, "Método no permitido.", "openapi.json"),
    ],
)  # fmt: skip
def test_errors_are_in_spanish_where_that_is_asked_for(
    method: str, path: str, body: Any, status: int, detail: str, remedy: str
) -> None:
    with client(accept_language="es-BO,es;q=0.9,en;q=0.5") as browser:
        answer = browser.request(method, path, json=body)
        told = answer.json()
        assert (answer.status_code, told["detail"], told["title"]) == (status, detail, SPANISH.titles[status])
        assert remedy in told["remedy"]
        assert (answer.headers["content-language"], answer.headers["vary"]) == ("es", "Accept-Language")
        large = browser.post(BACK_UP, content=b"x" * 100_000)
        assert (large.status_code, "demasiado grande" in large.json()["detail"]) == (413, True)
    with client() as program:
        told = program.request(method, path, json=body).json()
        assert told["title"] == problems.TITLES[status] and told["detail"] != detail


BODIES = (b"{", b"[]", b'{"clinica": 7, "tipo": 1}', b'{"modo": "x"}', b'{"clinica": "7", "x": 1}', b"null", b"")


@pytest.mark.parametrize("path", [BACK_UP, RESTORE])
def test_who_may_not_do_it_hears_so_whatever_the_body_is(path: str) -> None:
    FAKE.asked.clear()
    readers = (READER, Viewer("x", clinics={7: "lector", 8: "lector"}))
    for viewer, allowed in (
        *((reader, {403}) for reader in readers),
        (Viewer("x", clinics={8: "administrador"}), {404}),
    ):
        with client(viewer) as browser:
            for content in BODIES:
                answer = browser.post(path, content=content, headers={"content-type": "application/json"})
                named = b"clinica" in content or path == RESTORE
                assert answer.status_code in (allowed if named or allowed == {403} else {409, 422}), (path, content)
    assert FAKE.asked == []


def test_bodies_are_read_as_they_were() -> None:
    with client() as browser:
        for content, kind in (
            (b"", ""),
            (b"{}", "application/json"),
            (b"{}", "application/problem+json; charset=utf-8"),
        ):
            assert browser.post(BACK_UP, content=content, headers={"content-type": kind}).status_code == 202
        for content, kind in ((b"{}", "text/plain"), (b"{", "application/json"), (b"[" * 10_000, "application/json")):
            assert browser.post(BACK_UP, content=content, headers={"content-type": kind}).status_code == 422
        described = browser.get("/openapi.json").json()["paths"]["/respaldos/crear_respaldo_manual/"]["post"]
        fields = described["requestBody"]["content"]["application/json"]["schema"]["properties"]
        assert fields.keys() == {"clinica", "tipo", "notas", "creado_por"}


@pytest.mark.parametrize("seconds", [0, 0.5, 84, 3_661.000001, 90_061.25, 864_000])
def test_durations_are_written_as_django_writes_them(seconds: float) -> None:
    assert duration(seconds) == duration_string(timedelta(seconds=seconds))
    assert duration(None) is None


def test_one_backup_and_its_link_have_old_and_new_fields() -> None:
    with client() as browser:
        found = browser.get("/respaldos/12/").json()
        assert (found["tiempo_ejecucion"], found["segundos"]) == ("00:01:24", 84)
        link = browser.get("/respaldos/12/descargar/").json()
        assert link["expira_en"] == 3600 and link["expira"]


@pytest.mark.parametrize("query", ["estado=", "tipo=", "tipo=&estado=completado", "estado=&estado=fallido"])
def test_an_empty_choice_is_no_filter(query: str) -> None:
    with client() as browser:
        assert browser.get(f"/respaldos/?{query}").status_code == 200
        assert browser.get("/respaldos/?estado=x").status_code == 422


def test_a_restore_compares_the_clinic_that_it_is_given() -> None:
    with client() as browser:
        assert browser.post("/respaldos/12/restaurar/", json={"clinica": 8}).status_code == 409
        assert browser.post("/respaldos/12/restaurar/", json={"clinica": 7}).status_code == 202


def test_a_list_that_is_not_paged_says_how_many_there_are() -> None:
    with client(OPERATOR) as browser:
        paged = browser.get("/respaldos/?page_size=500").json()
        answer = browser.get("/respaldos/?sin_paginar=true")
        assert answer.json() == paged["results"]
        assert answer.headers["x-total-count"] == str(paged["count"])
