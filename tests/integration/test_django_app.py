"""The app that the clinics' application installs: its list, rules, client, admin and commands."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from fastapi import FastAPI
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse
from starlette.routing import Mount, Route

from clinic_backups.web import access
from clinic_backups.web.caller import Caller
from clinic_backups.web.problems import TooMany
from clinic_backups.web.viewer import Viewer
from tests.django_fixtures import APP
from tests.fake_web import Fake, app_for
from tests.postgres_fixtures import DemoDatabase
from tests.servers import free_ports

SERVICE = Viewer("servicio", "servicio@saas.example", superadmin=True)
FIELDS = {
    "id", "clinica", "clinica_nombre", "tipo", "estado", "nombre_archivo", "tamano_bytes", "tamano_legible",
    "tablas_respaldadas", "registros_totales", "tiempo_ejecucion", "fecha_creacion", "fecha_expiracion", "creado_por",
    "creado_por_nombre", "notas",
}  # fmt: skip


class Service(Fake):
    """The API's actions; what they begin is written into the catalog as a worker would."""

    def __init__(self) -> None:
        super().__init__()
        self.begins: list[str] = []
        self.database: DemoDatabase | None = None
        self.logins = 0
        self.refuses_token = ""
        self.clinic_of_all = 1

    def by_number(self, number: int, visible: Any) -> Any:
        entry = super().by_number(number, visible)
        return entry and replace(entry, record=replace(entry.record, clinic_id=self.clinic_of_all))

    def back_up(self, caller: Caller, clinic_id: int, **asked: Any) -> Any:
        if self.begins and self.begins[0] == "429":
            raise TooMany("You have started 60 actions in the last hour.", hint="Wait, or ask the operator.",
                          retry_after_seconds=900)  # fmt: skip
        started = super().back_up(caller, clinic_id, **asked)
        for state in self.begins:
            record(self.database, clinic_id, state, "2026-09-02T06:00Z", trigger="manual")
        return replace(started, clinic_id=clinic_id)


@pytest.fixture(scope="module")
def server() -> Iterator[tuple[str, Service]]:
    """Airflow's login and our API on loopback; any token but the refused one is that of the service's user."""
    fake = Service()
    app: FastAPI = app_for(fake, SERVICE)

    async def caller(request: Request) -> Caller:
        token = request.headers.get("authorization", "").removeprefix("Bearer ")
        if not token or token == fake.refuses_token:
            from starlette.exceptions import HTTPException

            raise HTTPException(401, "Invalid JWT token")
        return Caller(SERVICE, "203.0.113.9", None)

    app.dependency_overrides[access.caller] = caller

    async def login(request: Request) -> JSONResponse:
        fake.logins += 1
        right = (await request.json()) == {"username": "servicio", "password": "clave"}
        return JSONResponse({"access_token": f"t{fake.logins}"} if right else {"detail": "no"}, 201 if right else 401)

    async def elsewhere(request: Request) -> RedirectResponse:
        return RedirectResponse("http://203.0.113.1/steal", status_code=307)

    routes = [Route("/auth/token", login, methods=["POST"]), Mount("/backups", app),
              Route("/moved/{path:path}", elsewhere, methods=["GET", "POST"])]  # fmt: skip
    with running(Starlette(routes=routes)) as url:
        yield url, fake


@contextmanager
def running(app: Any) -> Iterator[str]:
    (port,) = free_ports(1)
    found = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=port, log_level="error"))
    thread = threading.Thread(target=found.run)
    thread.start()
    while not found.started:
        thread.join(0.02)
        assert thread.is_alive()
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        found.should_exit = True
        thread.join(10)


def record(database: DemoDatabase | None, clinic_id: int, state: str, at: str, *, trigger: str = "scheduled") -> None:
    """A backup as the catalog has it."""
    assert database is not None
    done = {"completed": ", finished_at = started_at + interval '84 s', expires_at = now(), size_bytes = 12345678, "
            "sha256 = 'ab', md5 = 'cd', rows = '{\"public.a\": 3}'",
            "failed": ", finished_at = started_at, error = 'secret words'", "running": ""}[state]  # fmt: skip
    execute(
        database,
        f"""INSERT INTO clinic_backups.backup (backup_id, clinic_id, clinic_name, kind, trigger, state, started_at,
                archive_key, requested_by)
            VALUES ('{clinic_id}-{at}', {clinic_id}, 'Clínica {clinic_id}', 'full', '{trigger}', 'running', '{at}',
                'backups/{clinic_id}', 'scheduled')""",
        f"UPDATE clinic_backups.backup SET state = '{state}'{done} WHERE backup_id = '{clinic_id}-{at}'",
    )


def execute(database: DemoDatabase, *statements: str) -> None:
    from contextlib import closing

    with closing(database.connect()) as db, db, db.cursor() as cursor:
        for statement in statements:
            cursor.execute(statement)


@pytest.fixture
def project(django_database: DemoDatabase, server: tuple[str, Service]) -> Iterator[DemoDatabase]:
    """The project with three backups, and the service that it asks."""
    from django.test import override_settings

    url, fake = server
    fake.asked.clear()
    fake.begins, fake.database, fake.refuses_token, fake.clinic_of_all = [], django_database, "", 1
    for clinic_id, state, day in ((1, "completed", 1), (1, "failed", 2), (2, "completed", 3)):
        record(django_database, clinic_id, state, f"2026-08-0{day}T06:00Z")
    known = {"CLINIC_MODEL": "comun.Clinica", "URL": url, "TOKEN": "t", "WAIT_SECONDS": 0}
    with override_settings(CLINIC_BACKUPS=known):
        yield django_database


def client(username: str | None) -> Any:
    """Django's test client, logged in."""
    from rest_framework.test import APIClient

    from tests.django_project.usuarios.models import Usuario

    found = APIClient()
    if username == "superusuario":
        user = Usuario.objects.create_superuser(username, "s@x.example", "clave", tipo="auditor")
        found.force_login(user)
    elif username is not None:
        found.force_login(Usuario.objects.get(username=username))
    return found


def test_each_clinic_sees_its_own_list_and_every_field(project: DemoDatabase) -> None:
    admin = client("administrador.1")
    listed = admin.get("/api/respaldos/").json()
    assert (listed["count"], [row["estado"] for row in listed["results"]]) == (2, ["fallido", "completado"])
    failed, done = listed["results"]
    assert done.keys() == FIELDS
    assert (done["tamano_legible"], done["tiempo_ejecucion"], done["clinica_nombre"]) == (
        "12,3 MB",
        "00:01:24",
        "Clínica 1",
    )
    assert (failed["tamano_bytes"], failed["tablas_respaldadas"], failed["tamano_legible"]) == (0, [], "")
    assert "secret words" not in str(listed)
    one = admin.get(f"/api/respaldos/{done['id']}/")
    assert (one.status_code, one.json()) == (200, done)
    other = client("administrador.2").get("/api/respaldos/").json()["results"][0]["id"]
    hidden = admin.get(f"/api/respaldos/{other}/")
    assert (hidden.status_code, list(hidden.json())) == (404, ["error"])
    assert client("superusuario").get("/api/respaldos/").json()["count"] == 3
    stranger = client(None).get("/api/respaldos/")
    assert (stranger.status_code, list(stranger.json())) == (403, ["error"])
    for method in ("put", "patch", "delete"):
        refused = getattr(admin, method)(f"/api/respaldos/{done['id']}/")
        assert (refused.status_code, list(refused.json())) == (405, ["error"])


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("?estado=completado", [3, 1]), ("?estado=completado&estado=fallido", [3, 2, 1]), ("?tipo=manual", []),
        ("?clinica=2", [3]), ("?desde=2026-08-02T00:00", [3, 2]), ("?hasta=2026-08-02T07:00:00", [2, 1]),
        ("?search=Clínica 2", [3]), ("?ordering=fecha_creacion", [1, 2, 3]), ("?ordering=-tamano_bytes,id", [1, 3, 2]),
        ("?page_size=1&estado=fallido", [2]), ("?ordering=nada", [3, 2, 1]), ("?estado=", [3, 2, 1]),
        ("?tipo=&estado=completado", [3, 1]), ("?estado=&estado=fallido", [2]), ("?hasta=2026-08-02", [2, 1]),
        ("?desde=2026-08-02&hasta=2026-08-02", [2]),
    ],
)  # fmt: skip
def test_filters_and_orders(project: DemoDatabase, query: str, found: list[int]) -> None:
    rows = client("superusuario").get(f"/api/respaldos/{query}").json()["results"]
    assert [row["id"] for row in rows] == found


@pytest.mark.parametrize("query", ["?estado=x", "?clinica=x", "?desde=ayer", "?tipo=completo&tipo=x"])
def test_a_filter_that_cannot_be_is_an_error(project: DemoDatabase, query: str) -> None:
    answer = client("superusuario").get(f"/api/respaldos/{query}")
    assert answer.status_code == 400 and query[1:].partition("=")[0] in answer.json()["error"]


@pytest.mark.parametrize(
    ("begins", "status", "said", "state"),
    [
        (["completed"], 201, "mensaje", "completado"), (["running"], 202, "mensaje", "en_proceso"),
        ([], 202, "mensaje", None), (["failed"], 500, "error", "fallido"),
    ],
)  # fmt: skip
def test_a_backup_that_is_asked_for_answers_as_it_stands(
    project: DemoDatabase, server: tuple[str, Service], begins: list[str], status: int, said: str, state: str | None
) -> None:
    from tests.django_project.usuarios.models import Usuario

    fake, user = server[1], Usuario.objects.get(username="administrador.1")
    fake.begins = begins
    answer = client(user.username).post("/api/respaldos/crear_respaldo_manual/", {"notas": "hoy"}, format="json")
    body = answer.json()
    assert (answer.status_code, body.keys()) == (status, {said, "respaldo"})
    assert (body["respaldo"] or {}).get("estado") == state
    assert "secret words" not in str(body)
    ((dag, clinic_id, asked),) = fake.asked
    assert (dag, clinic_id, asked) == ("clinic_backup", 1, {"kind": "auto", "notes": "hoy", "on_behalf_of": user.pk})


def test_who_may_not_hears_so_in_spanish_before_anything_else(
    project: DemoDatabase, server: tuple[str, Service]
) -> None:
    create = "/api/respaldos/crear_respaldo_manual/"
    for username, body in (
        ("odontologo.1", {}), ("odontologo.1", {"clinica": 1, "tipo": "x"}), ("administrador.1", {"clinica": 2}),
    ):  # fmt: skip
        answer = client(username).post(create, body, format="json")
        assert (answer.status_code, "No tiene permiso" in answer.json()["error"]) == (403, True)
    reader = client("odontologo.1")
    assert reader.get("/api/respaldos/1/descargar/").status_code == 403
    assert reader.post("/api/respaldos/1/restaurar/", {"modo": "x"}, format="json").status_code == 403
    boss = client("superusuario")
    assert boss.post(create, {}, format="json").status_code == 400
    wrong = client("administrador.1").post(create, {"tipo": "x"}, format="json")
    assert (wrong.status_code, wrong.json()["error"].startswith("tipo: ")) == (400, True)
    assert server[1].asked == []


def test_downloads_and_restores_go_to_the_api(project: DemoDatabase, server: tuple[str, Service]) -> None:
    url, fake = server
    admin = client("administrador.1")
    number = 1
    answer = admin.get(f"/api/respaldos/{number}/descargar/")
    link = answer.json()
    assert answer.status_code == 200, link
    assert link["expira_en"] == 3600 and link["url"] == f"{url}/backups/respaldos/1/archivo/"
    asked = admin.post(f"/api/respaldos/{number}/restaurar/", {"notas": "se borró"}, format="json")
    assert (asked.status_code, "apruebe" in asked.json()["mensaje"]) == (202, True)
    assert fake.asked[0][:2] == ("clinic_restore", 1) and fake.asked[0][2]["notes"] == "se borró"


def test_a_backup_of_another_clinic_is_not_restored(project: DemoDatabase, server: tuple[str, Service]) -> None:
    fake, boss = server[1], client("superusuario")
    path = "/api/respaldos/1/restaurar/"
    other = boss.post(path, {"clinica": 2}, format="json")
    assert (other.status_code, "no es de la clínica 2" in other.json()["error"]) == (409, True)
    assert boss.post(path, {"clinica": 1}, format="json").status_code == 202
    # The application reads another catalog than Airflow.
    fake.clinic_of_all, asked = 7, len(fake.asked)
    mixed = boss.post(path, {}, format="json")
    assert (mixed.status_code, "no es de la clínica 1" in mixed.json()["error"]) == (409, True)
    assert len(fake.asked) == asked


@pytest.mark.parametrize(
    ("changes", "status", "says"),
    [
        ({"TOKEN": "old"}, 503, "no acepta la clave"),
        ({"TOKEN": "", "USERNAME": "servicio", "PASSWORD": "otra"}, 503, "no acepta la clave"),
        ({"URL": "http://127.0.0.1:1"}, 503, "no responde"),
        ({"URL": "{url}/moved"}, 503, "no responde"),
        ({"URL": "{url}/nothing"}, 503, "no responde"),
        ({"URL": ""}, 503, "no está configurado"),
        ({"TOKEN": "", "USERNAME": ""}, 503, "no está configurado"),
        ({"TOKEN": "t\n"}, 503, "no acepta la clave"),
        ({"TOKEN": "clavé"}, 503, "no acepta la clave"),
    ],
)
def test_a_service_that_cannot_be_used_is_not_the_users_fault(
    project: DemoDatabase, server: tuple[str, Service], changes: dict[str, str], status: int, says: str
) -> None:
    from django.conf import settings
    from django.test import override_settings

    url, fake = server
    fake.refuses_token = "old"
    known = settings.CLINIC_BACKUPS | {name: value.format(url=url) for name, value in changes.items()}
    with override_settings(CLINIC_BACKUPS=known):
        answer = client("administrador.1").post("/api/respaldos/crear_respaldo_manual/", {}, format="json")
    assert answer.status_code == status and says in answer.json()["error"]


@contextmanager
def speaking(*answers: bytes) -> Iterator[str]:
    """A server that says these bytes, one to each question, and the last one to all that follow."""
    listener = socket.create_server(("127.0.0.1", 0))
    rest, stop = list(answers), threading.Event()

    def one(peer: socket.socket, said: bytes) -> None:
        with peer, suppress(OSError):
            peer.settimeout(5)
            asked = b""
            while b"\r\n\r\n" not in asked:
                asked += peer.recv(65536)
            if said == DRIP:
                whole = b" " * 15 + b'{"run_id":"r","url":"https://a/b"}'
                peer.sendall(OK + f"Content-Length: {len(whole)}\r\n\r\n".encode())
                for piece in whole[:15]:  # each within the time that one of them may take
                    if stop.wait(0.05):
                        return
                    peer.sendall(bytes([piece]))
                peer.sendall(whole[15:])
                return
            peer.sendall(said)

    def serve() -> None:
        with suppress(OSError):
            while True:
                peer = listener.accept()[0]
                said = rest.pop(0) if len(rest) > 1 else rest[0]
                threading.Thread(target=one, args=(peer, said), daemon=True).start()

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        stop.set()
        with suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join(10)


OK = b"HTTP/1.1 200 OK\r\n"
DRIP = b"drip"
STARTED = OK + b"Content-Length: 14\r\n\r\n" + b'{"run_id":"r"}'
BROKEN = {
    "no http": b"garbage garbage\r\n\r\n",
    "nothing": b"",
    "chunks that end": OK + b'Transfer-Encoding: chunked\r\n\r\n10\r\n{"a"',
    "no chunks": OK + b'Transfer-Encoding: chunked\r\n\r\nzz\r\n{"a"',
    "cut": OK + b'Content-Length: 100\r\n\r\n{"run_id":"r","url":"https://a/b"}',
    "long header": OK + b"X: " + b"a" * 70000 + b"\r\n\r\n{}",
    "html": OK + b"Content-Length: 6\r\n\r\n<html>",
    "empty": OK + b"Content-Length: 0\r\n\r\n",
    "list": OK + b"Content-Length: 2\r\n\r\n[]",
    "object without a word": OK + b"Content-Length: 2\r\n\r\n{}",
    "null": OK + b'Content-Length: 26\r\n\r\n{"url":null,"run_id":null}',
    "wrong link": OK + b'Content-Length: 35\r\n\r\n{"url":"http://[bad/", "run_id": ""}',
    "deep": OK + b"Content-Length: 200000\r\n\r\n" + b"[" * 200_000,
    "no content": b"HTTP/1.1 204 X\r\n\r\n",
    "not modified": b"HTTP/1.1 304 X\r\n\r\n",
    "error that is cut": b"HTTP/1.1 502 Bad\r\nTransfer-Encoding: chunked\r\n\r\n10\r\nabc",
    "error without words": b"HTTP/1.1 403 No\r\nContent-Length: 6\r\n\r\n<html>",
    "error of a list": b'HTTP/1.1 500 X\r\nContent-Length: 14\r\n\r\n{"detail":[1]}',
    "drip": DRIP,
}


@pytest.mark.parametrize("case", BROKEN)
def test_whatever_airflow_answers_is_one_error_in_spanish(project: DemoDatabase, case: str) -> None:
    from django.conf import settings
    from django.test import override_settings

    admin = client("administrador.1")
    with speaking(BROKEN[case]) as url:
        known = settings.CLINIC_BACKUPS | {"URL": url, "TIMEOUT_SECONDS": 0.3 if case == "drip" else 5}
        with override_settings(CLINIC_BACKUPS=known):
            for answer in (
                admin.post("/api/respaldos/crear_respaldo_manual/", {}, format="json"),
                admin.get("/api/respaldos/1/descargar/"),
                admin.post("/api/respaldos/1/restaurar/", {}, format="json"),
            ):
                assert (answer.status_code, list(answer.json())) == (503, ["error"])
                assert "no responde" in answer.json()["error"]


def test_a_header_that_would_be_two_is_left_out(project: DemoDatabase) -> None:
    from django.conf import settings
    from django.test import override_settings

    said = b'HTTP/1.1 429 X\r\nRetry-After: a\r\n b\r\nContent-Length: 18\r\n\r\n{"detail":"Basta"}'
    with speaking(said) as url, override_settings(CLINIC_BACKUPS=settings.CLINIC_BACKUPS | {"URL": url}):
        answer = client("administrador.1").get("/api/respaldos/1/descargar/")
    assert (answer.status_code, answer.json(), "Retry-After" in answer.headers) == (429, {"error": "Basta."}, False)


def test_all_clinics_are_asked_for_where_one_answer_is_broken(project: DemoDatabase) -> None:
    from django.conf import settings
    from django.core.management import CommandError, call_command
    from django.test import override_settings

    from tests.django_project.comun.models import Clinica

    out = StringIO()
    with speaking(BROKEN["no http"], STARTED) as url:
        known = override_settings(CLINIC_BACKUPS=settings.CLINIC_BACKUPS | {"URL": url})
        with known, pytest.raises(CommandError, match="1 de 2 respaldos no se pudieron pedir"):
            call_command("crear_respaldo", "--todas", stdout=out, stderr=out)
    assert "Clínica 1: El servicio" in out.getvalue() and "Clínica 2: se pidió el respaldo (r)" in out.getvalue()
    Clinica.objects.update(activa=False)
    with pytest.raises(CommandError, match="No hay clínicas activas"):
        call_command("crear_respaldo", "--todas", stdout=out)


def test_the_command_takes_keys_that_are_not_numbers(project: DemoDatabase, monkeypatch: pytest.MonkeyPatch) -> None:
    from django.core.management import call_command

    from clinic_backups_django.client import BackupsClient

    asked: list[object] = []

    def back_up(_: BackupsClient, clinic_id: object, **__: object) -> dict[str, str]:
        asked.append(clinic_id)
        return {"run_id": "r"}

    monkeypatch.setattr(BackupsClient, "back_up", back_up)
    keys = ("7", "0b6a4c1e-6d0f-4b0e-9f2a-1d2c3b4a5f60", "acme", "07")
    call_command("crear_respaldo", *(word for key in keys for word in ("--clinica", key)), stdout=StringIO())
    call_command("crear_respaldo", "--todas", stdout=StringIO())
    assert asked == [7, *keys[1:], 1, 2]


def test_causes_are_in_the_log_and_no_secret_is(
    project: DemoDatabase, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    from clinic_backups_django.client import BackupsClient, BackupsError

    def told(url: str, token: str) -> str:
        caplog.clear()
        with pytest.raises(BackupsError):
            BackupsClient(url, token).link(1)
        assert {record.name for record in caplog.records} == {"clinic_backups_django"}
        assert token.strip() not in caplog.text
        return caplog.text

    assert "refused" in told("http://127.0.0.1:1", "geheim")
    assert "line break" in told("http://127.0.0.1:1", "geheim\n")
    with speaking(BROKEN["cut"]) as url:
        assert "the answer is cut" in told(url, "geheim")
    with untrusted(tmp_path) as url:
        assert "certificate of 127.0.0.1 is not accepted" in told(url, "geheim")


@contextmanager
def untrusted(folder: Path) -> Iterator[str]:
    """A server with a certificate that nobody issued."""
    key = ec.generate_private_key(ec.SECP256R1())
    name, now = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "otro.example")]), datetime.now(UTC)
    made = x509.CertificateBuilder(name, name, key.public_key(), 1, now, now + timedelta(days=1))
    pem = made.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM) + key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    (folder / "pem").write_bytes(pem)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "pem")
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            with suppress(OSError), listener.accept()[0] as peer, context.wrap_socket(peer, server_side=True):
                pass

        thread = threading.Thread(target=serve)
        thread.start()
        yield f"https://127.0.0.1:{listener.getsockname()[1]}"
        thread.join(10)


def test_a_catalog_that_is_down_is_told_in_spanish(project: DemoDatabase, caplog: pytest.LogCaptureFixture) -> None:
    from django.conf import settings
    from django.db import connections
    from django.test import override_settings

    admin = client("administrador.1")
    known = connections["respaldos"].settings_dict
    port = known["PORT"]
    connections["respaldos"].close()
    known["PORT"] = "1"
    try:
        with override_settings(CLINIC_BACKUPS=settings.CLINIC_BACKUPS | {"DATABASE": "respaldos"}):
            for method, path in (
                ("get", ""), ("get", "1/"), ("get", "1/descargar/"), ("post", "1/restaurar/"),
                ("post", "crear_respaldo_manual/"),
            ):  # fmt: skip
                answer = getattr(admin, method)(f"/api/respaldos/{path}")
                assert (answer.status_code, list(answer.json())) == (503, ["error"])
                assert "no está disponible" in answer.json()["error"]
    finally:
        known["PORT"] = port
    assert "OperationalError" in caplog.text


@pytest.mark.parametrize("language", ["es", "en-us"])
@pytest.mark.parametrize(
    ("method", "path", "content", "kind", "status", "says"),
    [
        ("get", "999/", b"", "", 404, "Ese respaldo no existe"), ("get", "?page=99", b"", "", 404, "Esa página"),
        ("delete", "1/", b"", "", 405, "Esta operación no existe"),
        ("post", "crear_respaldo_manual/", b"{", "application/json", 400, "no es JSON válido"),
        ("post", "crear_respaldo_manual/", b"\xff", "application/json", 400, "no es JSON válido"),
        ("post", "crear_respaldo_manual/", b"<a/>", "text/xml", 415, "no se acepta"),
        ("post", "crear_respaldo_manual/", b'{"tipo":"x","clinica":1}', "application/json", 400, "no es una elección"),
        ("post", "crear_respaldo_manual/", b'{"notas":"\\ud800","clinica":1}', "application/json", 400, "U+D800"),
        ("post", "1/restaurar/", b'{"notas":"\\ud800"}', "application/json", 400, "incompleto (U+D800)"),
        ("get", "?estado=x", b"", "", 400, "Escoja una opción válida"),
    ],
)  # fmt: skip
def test_every_refusal_is_in_spanish_whatever_the_projects_language(
    project: DemoDatabase, language: str, method: str, path: str, content: bytes, kind: str, status: int, says: str
) -> None:
    from django.test import override_settings
    from django.utils import translation

    with override_settings(LANGUAGE_CODE=language), translation.override(language):
        asked = {"data": content, "content_type": kind} if kind else {}
        answer = getattr(client("superusuario"), method)(f"/api/respaldos/{path}", **asked)
        assert (answer.status_code, list(answer.json())) == (status, ["error"])
        assert says in answer.json()["error"], answer.json()


@pytest.mark.parametrize(
    ("content", "kind"), [(b"{", "application/json"), (b"<a/>", "text/xml"), (b"[]", "text/plain")]
)
def test_who_may_do_it_nowhere_hears_so_before_the_body_is_read(
    project: DemoDatabase, content: bytes, kind: str
) -> None:
    for path in ("crear_respaldo_manual/", "1/restaurar/"):
        answer = client("odontologo.1").post(f"/api/respaldos/{path}", content, content_type=kind)
        assert (answer.status_code, "No tiene permiso" in answer.json()["error"]) == (403, True)


def test_sentences_have_a_full_stop_between_them() -> None:
    from clinic_backups_django.error_texts import text_of

    told = {"detail": ["Uno", "Dos."], "tipo": ["Tres"]}
    assert text_of(told) == "Uno. Dos. tipo: Tres."


def test_no_list_loses_the_backups_of_a_clinic_that_is_gone(project: DemoDatabase) -> None:
    from clinic_backups_django.models import Respaldo

    record(project, 99, "completed", "2026-08-04T06:00Z")
    for found in (
        Respaldo.objects.select_related("clinica", "creado_por"), Respaldo.objects.order_by("clinica__nombre"),
        Respaldo.objects.exclude(clinica__nombre="x"),
    ):  # fmt: skip
        assert len(found) == found.count() == 4


def test_the_applications_own_model_hears_why_it_is_refused(project: DemoDatabase) -> None:
    from django.db import DatabaseError, transaction

    from tests.django_project.respaldos.models import Anulado

    Anulado.objects.get(pk=1).save()
    Anulado.objects.get(pk=1).delete()
    Anulado.objects.update(creado_por=None)
    for refused in (
        lambda: Anulado.objects.update(notas="x"),
        lambda: Anulado.objects.create(tipo="manual", estado="en_proceso", clinica_id=1),
    ):
        with pytest.raises(DatabaseError, match="use its page, its API or its command"):
            refused()
    with pytest.raises(DatabaseError, match="respaldo_rows"), transaction.atomic():
        list(Anulado.objects.select_for_update())
    assert Anulado.objects.count() == 3


def test_one_login_serves_many_requests(project: DemoDatabase, server: tuple[str, Service]) -> None:
    from django.conf import settings
    from django.test import override_settings

    fake, admin = server[1], client("administrador.1")
    known = {"TOKEN": "", "USERNAME": "servicio", "PASSWORD": "clave", "TIMEOUT_SECONDS": 29}
    fake.logins = 0
    with override_settings(CLINIC_BACKUPS=settings.CLINIC_BACKUPS | known):
        assert [admin.get("/api/respaldos/1/descargar/").status_code for _ in range(3)] == [200] * 3
        assert fake.logins == 1
        fake.refuses_token = "t1"
        assert admin.get("/api/respaldos/1/descargar/").status_code == 200
    assert fake.logins == 2


def test_what_the_api_refuses_is_handed_on(project: DemoDatabase, server: tuple[str, Service]) -> None:
    server[1].begins = ["429"]
    answer = client("administrador.1").post("/api/respaldos/crear_respaldo_manual/", {}, format="json")
    assert (answer.status_code, answer.headers["Retry-After"]) == (429, "900")
    assert answer.json() == {"error": "Usted pidió 60 acciones en la última hora. Espere, o hable con el operador."}


def test_a_token_that_ended_is_got_anew(server: tuple[str, Service]) -> None:
    from clinic_backups_django.client import BackupsClient

    url, fake = server
    service = BackupsClient(url, username="servicio", password="clave")
    fake.logins, fake.refuses_token = 0, ""
    service.link(12)
    service.link(12)
    fake.refuses_token = service.token
    service.link(12)
    assert fake.logins == 2


def test_the_view_is_read_by_a_connection_of_its_own_or_by_the_search_path(project: DemoDatabase) -> None:
    from django.conf import settings
    from django.db import connections
    from django.test import override_settings

    from clinic_backups_django.models import Respaldo
    from tests.django_project.comun.models import Clinica

    with override_settings(CLINIC_BACKUPS=settings.CLINIC_BACKUPS | {"DATABASE": "respaldos"}):
        found = Respaldo.objects.order_by("id")[0]
        assert found._state.db == "respaldos"
        assert found.clinica == Clinica.objects.using("default").get(pk=1) and found.clinica._state.db == "default"
        assert client("administrador.1").get("/api/respaldos/").json()["count"] == 2
    execute(project, f"ALTER ROLE {APP} IN DATABASE {project.name} SET search_path = public, clinic_backups")
    connections.close_all()
    table = Respaldo._meta.db_table
    try:
        Respaldo._meta.db_table = "respaldo"
        assert Respaldo.objects.count() == 3
    finally:
        Respaldo._meta.db_table = table


def test_the_model_refuses_what_would_change_a_backup(project: DemoDatabase) -> None:
    from django.db import NotSupportedError

    from clinic_backups_django.models import Respaldo

    one = Respaldo.objects.get(pk=1)
    for refused in (
        one.save, one.delete, Respaldo.objects.all().delete, lambda: Respaldo.objects.update(notas="x"),
        lambda: Respaldo.objects.create(id=9), lambda: Respaldo.objects.bulk_create([one]),
    ):  # fmt: skip
        with pytest.raises(NotSupportedError, match="solo se pueden leer"):
            refused()
    assert Respaldo.objects.count() == 3


def test_the_admin_shows_and_changes_nothing_in_spanish(project: DemoDatabase) -> None:
    from django.contrib.auth.models import Permission

    from tests.django_project.usuarios.models import Usuario

    boss = client("superusuario")
    page = boss.get("/admin/clinic_backups_django/respaldo/").content.decode().replace("\u00a0", " ")
    for shown in ("Respaldos", "Completado", "Fallido", "12,3 MB", "hace ", "antigüedad".capitalize(), "programado"):
        assert shown in page, shown
    assert "Añadir respaldo" not in page and 'name="action"' not in page
    one = boss.get("/admin/clinic_backups_django/respaldo/2/change/").content.decode()
    assert "secret words" in one and 'name="_save"' not in one
    for path in ("add/", "1/delete/"):
        assert boss.get(f"/admin/clinic_backups_django/respaldo/{path}").status_code == 403
    staff = Usuario.objects.get(username="administrador.1")
    assert client(staff.username).get("/admin/clinic_backups_django/respaldo/").status_code == 403
    staff.user_permissions.add(
        Permission.objects.get(codename="view_respaldo", content_type__app_label="clinic_backups_django")
    )
    assert client(staff.username).get("/admin/clinic_backups_django/respaldo/").status_code == 200
    # Staff see in the admin what they may see in the API.
    assert "Clínica 2" not in client(staff.username).get("/admin/clinic_backups_django/respaldo/").content.decode()


def test_the_command_asks_for_one_clinic_or_for_all_that_are_active(
    project: DemoDatabase, server: tuple[str, Service]
) -> None:
    from django.core.management import CommandError, call_command

    fake, out = server[1], StringIO()
    call_command("crear_respaldo", "--clinica", "2", "--tipo", "completo", stdout=out)
    call_command("crear_respaldo", "--todas", stdout=out)
    assert [asked[1] for asked in fake.asked] == [2, 1, 2]  # the third clinic is not active
    assert out.getvalue().count("se pidió el respaldo") == 3
    for words in ((), ("--todas", "--clinica", "1")):
        with pytest.raises(CommandError):
            call_command("crear_respaldo", *words)
    with pytest.raises(CommandError, match="1 de 2 respaldos no se pudieron pedir"):
        call_command("crear_respaldo", "--clinica", "8", "--clinica", "1", stdout=out, stderr=out)
    assert "Clínica 8: " in out.getvalue() and "Espere a que termine" in out.getvalue()


@pytest.mark.parametrize(
    ("known", "says"),
    [({}, "CLINIC_MODEL"), ({"CLINIC_MODEL": "a.B", "TOKENS": "x"}, "no setting TOKENS"),
     ({"CLINIC_MODEL": "a.B"}, "has no URL"), ({"CLINIC_MODEL": "a.B", "URL": "https://a"}, "neither TOKEN nor")],
)  # fmt: skip
def test_a_setting_that_is_wrong_is_named(django_template: DemoDatabase, known: dict[str, str], says: str) -> None:
    from django.core.exceptions import ImproperlyConfigured
    from django.test import override_settings

    from clinic_backups_django.client import client as make

    with override_settings(CLINIC_BACKUPS=known), pytest.raises(ImproperlyConfigured, match=says):
        make()


@pytest.mark.parametrize(
    ("known", "found"),
    [({"CLINIC_MODEL": "comun.Clinica"}, "clinic_backups_django.W001"), ({}, "clinic_backups_django.E001")],
)
def test_manage_check_names_a_setting_that_is_missing(
    django_template: DemoDatabase, known: dict[str, str], found: str
) -> None:
    from django.core.checks import run_checks
    from django.test import override_settings

    assert run_checks() == []
    with override_settings(CLINIC_BACKUPS=known):
        assert [message.id for message in run_checks()] == [found]


def test_sizes_are_written_as_the_page_writes_them() -> None:
    from clinic_backups.web.schemas import SPANISH
    from clinic_backups_django.words import size

    for size_bytes in (1, 999, 1000, 1049, 12_345_678, 999_949_999, 999_950_000, 10**12, 5 * 10**15):
        assert size(size_bytes).replace(".", "") == SPANISH.size(size_bytes).replace("\u00a0", " ").replace(".", "")
