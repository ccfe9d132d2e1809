"""The app that the clinics' application installs: its list, rules, client, admin and commands."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from io import StringIO
from typing import Any

import pytest
import uvicorn
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

    def back_up(self, caller: Caller, clinic_id: int, **asked: Any) -> Any:
        if self.begins and self.begins[0] == "429":
            raise TooMany("You have begun 60 actions in the last hour.", hint="Wait, or ask the operator.",
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
    fake.begins, fake.database, fake.refuses_token = [], django_database, ""
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
        ("?page_size=1&estado=fallido", [2]), ("?ordering=nada", [3, 2, 1]),
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


@pytest.mark.parametrize(
    ("changes", "status", "says"),
    [
        ({"TOKEN": "old"}, 503, "no acepta la clave"),
        ({"TOKEN": "", "USERNAME": "servicio", "PASSWORD": "otra"}, 503, "no acepta la clave"),
        ({"URL": "http://127.0.0.1:1"}, 503, "no responde"),
        ({"URL": "{url}/moved"}, 503, "no responde"),
        ({"URL": "{url}/nothing"}, 404, ""),
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


def test_what_the_api_refuses_is_handed_on(project: DemoDatabase, server: tuple[str, Service]) -> None:
    server[1].begins = ["429"]
    answer = client("administrador.1").post("/api/respaldos/crear_respaldo_manual/", {}, format="json")
    assert (answer.status_code, answer.headers["Retry-After"]) == (429, "900")
    assert answer.json() == {
        "error": "Usted pidió 60 acciones en la última hora. Espere, o hable con el equipo de soporte."
    }


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
    page = boss.get("/admin/clinic_backups_django/respaldo/").content.decode()
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


def test_sizes_are_written_as_the_page_writes_them() -> None:
    from clinic_backups.web.schemas import SPANISH
    from clinic_backups_django.words import size

    for size_bytes in (1, 999, 1000, 1049, 12_345_678, 999_949_999, 999_950_000, 10**12, 5 * 10**15):
        assert size(size_bytes).replace(".", "") == SPANISH.size(size_bytes).replace("\u00a0", " ").replace(".", "")
