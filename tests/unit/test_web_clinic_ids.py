"""Page and API with clinics whose ids are texts: links lead to routes, and forged ids lead nowhere."""

from __future__ import annotations

import re
from contextlib import closing
from dataclasses import replace
from html import unescape
from typing import Any
from urllib.parse import quote, unquote

import pytest
from starlette.testclient import TestClient

from clinic_backups.base.clinic_id import ClinicId, component_of
from clinic_backups.web.viewer import Viewer
from tests.fake_web import OPERATOR, Fake, app_for

SOME_UUID = "0b6a4c1e-6d0f-4b0e-9f2a-1d2c3b4a5f60"
ODD = "../a/b 'o' \\ %2e <b>é?#"
IDS: list[ClinicId] = [7, SOME_UUID, ODD, ".."]
CREATE = "/respaldos/crear_respaldo_manual/"
FORGED_PATHS = (
    "%252e%252e", "..%252Fx", "%2527", "07", "%2B7", "7%2520", "%2520", "%2500", "%EF%BC%97x%0A", "x" * 400,
    "%253Cb%253e",
)  # fmt: skip
FORGED_IDS: list[Any] = [
    "", " 7", "7 ", "7\n", "a\0b", "a\u202eb", "x" * 201, 7.0, True, [7], {"id": 7}, -1, 2**63
]  # fmt: skip


def fake(clinic_id: ClinicId) -> Fake:
    """The usual answers, about a clinic of that id."""
    known = Fake()
    known.lines = [replace(known.lines[2], clinic_id=clinic_id)]
    known.entries = [replace(entry, record=replace(entry.record, clinic_id=clinic_id)) for entry in known.entries]
    known.runs = [replace(run, clinic_id=clinic_id, conf=run.conf | {"clinic_id": clinic_id}) for run in known.runs]
    known.log = [replace(entry, clinic_id=clinic_id) for entry in known.log]
    return known


def client(known: Fake, viewer: Viewer) -> Any:
    headers = {"authorization": "Bearer x", "sec-fetch-site": "same-origin"}
    app = app_for(known, viewer)

    async def decoded_once(scope: Any, receive: Any, send: Any) -> None:
        # Starlette's client decodes a path twice, and servers once.
        path = {"path": unquote(scope["raw_path"].decode())} if scope["type"] == "http" else {}
        await app(scope | path, receive, send)

    return closing(TestClient(decoded_once, headers=headers, raise_server_exceptions=False, follow_redirects=False))


@pytest.mark.parametrize("clinic_id", IDS)
def test_every_link_of_the_pages_leads_to_the_clinic(clinic_id: ClinicId) -> None:
    known = fake(clinic_id)
    address = f"/ui/clinics/{quote(component_of(clinic_id), safe='')}"
    viewer = Viewer("ana", clinics={clinic_id: "administrador"})
    with client(known, viewer) as browser:
        found = set[str]()
        for page in ("/ui/", address, f"{address}/restore", "/ui/backups/12", "/ui/audit", f"{address}?page=1"):
            answer = browser.get(page)
            assert answer.status_code == 200, page
            assert "<b>é" not in answer.text
            found |= {unescape(link) for link in re.findall(r'(?:href|action)="([^"]*/ui/clinics/[^"]*)"', answer.text)}
        assert {f"{address}", f"{address}/restore", f"{address}/back-up"} <= {link.partition("?")[0] for link in found}
        for link in found:
            assert link.startswith(address) and browser.get(link).status_code in (200, 303, 405), link
        assert browser.post(f"{address}/back-up", data={"kind": "full"}).status_code == 303
        assert known.asked[-1][1] == clinic_id
        assert browser.post(f"{address}/restore", data={"backup": "12"}).status_code == 303
        audit = browser.get("/ui/audit", params={"clinic": str(clinic_id)})
        assert audit.status_code == 200


@pytest.mark.parametrize("clinic_id", IDS)
def test_the_api_takes_and_gives_the_id_as_it_is(clinic_id: ClinicId) -> None:
    known = fake(clinic_id)
    with client(known, Viewer("ana", clinics={clinic_id: "administrador"})) as program:
        started = program.post(CREATE, json={"clinica": clinic_id})
        assert started.status_code == 202 and known.asked[-1][1] == clinic_id
        listed = program.get("/respaldos/", params={"clinica": str(clinic_id)}).json()
        assert {entry["clinica"] for entry in listed["results"]} == {clinic_id}
        (state,) = program.get("/clinics/").json()["results"]
        assert (state["id"], type(state["id"])) == (clinic_id, type(clinic_id))
        assert program.post("/respaldos/12/restaurar/", json={"clinica": clinic_id}).status_code == 202
        assert program.post("/respaldos/12/restaurar/", json={"clinica": "another"}).status_code == 409
        assert program.post(CREATE, json={"clinica": "another"}).status_code == 404


@pytest.mark.parametrize("viewer", [OPERATOR, Viewer("ana", clinics={7: "administrador", "..": "administrador"})])
def test_a_forged_id_in_an_address_is_of_no_clinic(viewer: Viewer) -> None:
    known = Fake()
    with client(known, viewer) as browser:
        for path in FORGED_PATHS:
            for page in ("", "/restore"):
                assert browser.get(f"/ui/clinics/{path}{page}").status_code == 404, path
            browser.post(f"/ui/clinics/{path}/back-up", data={})
    assert not any(asked[1] in (7, "..") for asked in known.asked if asked[0] == "clinic_backup")


def test_a_forged_id_in_a_body_is_refused() -> None:
    known = Fake()
    json = {"content-type": "application/json"}
    with client(known, OPERATOR) as program:
        for path in (CREATE, "/respaldos/12/restaurar/"):
            for clinica in FORGED_IDS:
                assert program.post(path, json={"clinica": clinica}).status_code == 422, clinica
            for text in (rb'"\ud800"', b"1e999", b"NaN", b"7.0", b"9" * 400):
                assert program.post(path, content=b'{"clinica": %s}' % text, headers=json).status_code == 422, text
    assert known.asked == []
