"""Who may do what: every role on every route, in the own clinic and in another one.

A new route fails here until it is added.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from urllib.parse import quote

import httpx
import pytest
from fastapi.routing import APIRoute

from clinic_backups.base.clinic_id import component_of
from clinic_backups.catalog.proofs import ProofRecord, Proofs
from clinic_backups.web.application import make_app
from clinic_backups.web.runs import DAG_IDS
from tests.airflow.conftest import Airflow

OWN, OTHER = 1, 2
ROLES = ("anonymous", "nobody", "lector", "administrador", "superuser", "admin")
USERS = {
    "nobody": "nadie",
    "lector": "odontologo.1.2",
    "administrador": "administrador.1.1",
    "superuser": "auditor.1",
    "admin": "admin",
}
# Which roles may do it in their own clinic. The last two may do it in every clinic.
ALLOWED = {
    "anyone": ("nobody", "lector", "administrador", "superuser", "admin"),
    "see": ("lector", "administrador", "superuser", "admin"),
    "back_up": ("administrador", "superuser", "admin"),
    "download": ("administrador", "superuser", "admin"),
    "restore": ("administrador", "superuser", "admin"),
    "export": ("administrador", "superuser", "admin"),
    "audit": ("administrador", "superuser", "admin"),
    "operate": ("superuser", "admin"),
}
# Action, and the answer where it is allowed. All DAGs are paused and nothing waits for an approval, so that what would
# start a run is refused as a conflict, after it was found to be allowed.
ROUTES: dict[tuple[str, str], tuple[str, int]] = {
    ("GET", "/respaldos/"): ("anyone", 200),
    ("GET", "/respaldos/{number}/"): ("see", 200),
    ("GET", "/respaldos/{number}/descargar/"): ("download", 200),
    ("GET", "/respaldos/{number}/archivo/"): ("download", 200),
    ("GET", "/respaldos/{number}/completo/"): ("download", 200),
    ("POST", "/respaldos/crear_respaldo_manual/"): ("back_up", 409),
    ("POST", "/respaldos/{number}/restaurar/"): ("restore", 409),
    ("GET", "/clinics/"): ("anyone", 200),
    ("GET", "/health"): ("anyone", 200),
    ("GET", "/metrics"): ("anyone", 200),
    ("GET", "/openapi.json"): ("anyone", 200),
    ("GET", "/"): ("anyone", 303),
    ("GET", "/ui"): ("anyone", 303),
    ("GET", "/ui/"): ("anyone", 200),
    ("GET", "/ui/static/{name}"): ("anyone", 200),
    ("GET", "/ui/audit"): ("anyone", 200),
    ("GET", "/ui/dag/{dag_id}"): ("anyone", 200),
    ("GET", "/ui/clinics/{clinic_id}"): ("see", 200),
    ("GET", "/ui/clinics/{clinic_id}/certificate"): ("see", 200),
    ("GET", "/ui/clinics/{clinic_id}/changes"): ("see", 200),
    ("GET", "/ui/clinics/{clinic_id}/runs/{run_id:path}"): ("see", 303),
    ("GET", "/ui/backups/{number}"): ("see", 200),
    ("GET", "/ui/backups/{number}/download"): ("download", 303),
    ("GET", "/ui/backups/{number}/download-whole"): ("download", 303),
    ("GET", "/ui/clinics/{clinic_id}/restore"): ("restore", 200),
    ("GET", "/ui/clinics/{clinic_id}/export"): ("export", 200),
    ("POST", "/ui/clinics/{clinic_id}/export"): ("export", 409),
    ("GET", "/ui/exports/{number}/download"): ("export", 200),
    ("GET", "/ui/runs/{dag_id}/{run_id:path}"): ("see", 200),
    ("POST", "/ui/clinics/{clinic_id}/back-up"): ("back_up", 409),
    ("POST", "/ui/clinics/{clinic_id}/restore"): ("restore", 409),
    ("POST", "/ui/backups/{number}/hold"): ("operate", 409),
    ("POST", "/ui/backups/{number}/release"): ("operate", 409),
    ("POST", "/ui/backups/{number}/verify"): ("operate", 409),
    ("POST", "/ui/runs/clinic_restore/{run_id:path}/answer"): ("operate", 409),
}
BODIES = {
    "/respaldos/{number}/restaurar/": {"json": {}},
    "/ui/clinics/{clinic_id}/back-up": {"data": {"kind": "auto", "notes": ""}},
    "/ui/backups/{number}/hold": {"data": {"reason": "expediente 12"}},
    "/ui/backups/{number}/release": {"data": {"sure": "yes"}},
    "/ui/runs/clinic_restore/{run_id:path}/answer": {"data": {"approve": "yes", "sure": "yes"}},
}


@dataclass
class Clinic:
    """What a request about one clinic names, and what must never be told to people of another one."""

    clinic_id: int
    number: int
    backup_id: str
    backup_run: str
    restore_run: str
    secrets: tuple[str, ...]


@dataclass
class World:
    airflow: Airflow
    clients: dict[str, httpx.Client]
    clinics: dict[int, Clinic]

    def ask(self, role: str, method: str, path: str, clinic: Clinic) -> httpx.Response:
        dag_id, run_id = "clinic_restore", clinic.restore_run
        if path.startswith("/ui/clinics"):
            run_id = clinic.backup_run
        url = path.replace(":path", "").format(
            number=clinic.number, clinic_id=clinic.clinic_id, run_id=quote(run_id, safe=""), dag_id=dag_id,
            name="style.css",
        )  # fmt: skip
        more = BODIES.get(path, {})
        if path == "/respaldos/crear_respaldo_manual/":
            more = {"json": {"clinica": clinic.clinic_id}}
        if path == "/ui/clinics/{clinic_id}/restore" and method == "POST":
            more = {"data": {"backup": clinic.number, "mode": "exact", "notes": ""}}
        if path == "/ui/clinics/{clinic_id}/export" and method == "POST":
            more = {"data": {"backup": clinic.number, "format": "xlsx"}}
        return self.clients[role].request(method, f"/backups{url}", **more)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def world(airflow: Airflow) -> Iterator[World]:
    run_id, state = airflow.run({"clinic_ids": [OWN, OTHER]})
    assert state == "success"
    records = airflow.records(run_id)
    numbers = dict(airflow.execute("SELECT clinic_number::int, max(id) FROM clinic_backups.backup GROUP BY 1"))
    proofs, now = Proofs(airflow.catalog.database), airflow.catalog.clock()
    for clinic_id in (OWN, OTHER):
        record = records[clinic_id]
        proofs.add(
            ProofRecord(
                number=proofs.next_number(), clinic_id=clinic_id, clinic_name=record.clinic_name,
                backup_id=record.backup_id, outcome="proven", data_time=record.data_time, finished_at=now, seconds=1.0,
                place="embedded", certificate="{}",
            )
        )  # fmt: skip
        # An export with the number of the backup; its file is the archive.
        with airflow.catalog.database.transaction("a test") as db:
            db.exec_driver_sql(
                "INSERT INTO clinic_backups.export (id, clinic_id, backup_id, format, protection, requested_by,"
                " made_at, rows, store_url, key, file_name, size_bytes, expires_at)"
                " OVERRIDING SYSTEM VALUE"
                " VALUES (%s, %s, %s, 'xlsx', 'password', 'x', now(), 1, %s, %s, 'datos.zip', %s,"
                " now() + interval '1 day')",
                (numbers[clinic_id], str(clinic_id), record.backup_id, record.stores[0], record.archive_key,
                 record.size_bytes),
            )  # fmt: skip
    clients = {"anonymous": airflow.web()} | {role: airflow.web(user) for role, user in USERS.items()}
    clinics = {}
    with airflow.paused(*DAG_IDS):
        for clinic_id in (OWN, OTHER):
            record = records[clinic_id]
            restore_run = airflow.start({"clinic_id": clinic_id}, "clinic_restore")
            # What no other clinic has: its name, its backups' ids and files, its restore.
            secrets = (record.clinic_name, record.backup_id, record.archive_key, restore_run)
            number = numbers[clinic_id]
            clinics[clinic_id] = Clinic(clinic_id, number, record.backup_id, run_id, restore_run, secrets)
        yield World(airflow, clients, clinics)
        for clinic in clinics.values():
            airflow.api._request("DELETE", f"/dags/clinic_restore/dagRuns/{quote(clinic.restore_run, safe='')}")
    for client in clients.values():
        client.close()


def test_every_route_is_in_the_matrix_and_asks_who_it_is() -> None:
    routes = [route for route in make_app().routes if isinstance(route, APIRoute)]
    assert {(method, route.path) for route in routes for method in route.methods} == set(ROUTES)
    # And nothing else is served: no description without a login, no static folder, no mount.
    assert len(routes) == len(make_app().routes)


@pytest.mark.parametrize("role", ROLES)
def test_each_role_may_do_what_it_may_and_nothing_else(world: World, role: str) -> None:
    wrong = []
    for (method, path), (action, success) in ROUTES.items():
        for clinic in world.clinics.values():
            answer = world.ask(role, method, path, clinic)
            expected = status(role, method, path, action, success, own=clinic.clinic_id == OWN)
            if answer.status_code != expected:
                wrong.append((method, path, clinic.clinic_id, expected, answer.status_code, answer.text[-300:]))
            if role in ("anonymous", "nobody", "lector", "administrador"):
                body = answer.text + answer.headers.get("location", "")
                told = [secret for secret in world.clinics[OTHER].secrets if secret in body]
                # What one asked for oneself may be repeated.
                if told and not answer.is_error and quote(told[0], safe="") not in str(answer.request.url):
                    wrong.append((method, path, clinic.clinic_id, told))
    assert not wrong, wrong


def status(role: str, method: str, path: str, action: str, success: int, *, own: bool) -> int:
    if role == "anonymous":
        return 303 if method == "GET" and (path in ("/", "/ui") or path.startswith("/ui/")) else 401
    everywhere = role in ("superuser", "admin") or action == "anyone"
    if not everywhere and (role == "nobody" or not own):
        return 404
    return success if role in ALLOWED[action] else 403


def test_what_may_not_be_seen_is_as_what_does_not_exist(world: World) -> None:
    """Status, body and headers are the same, but for the number that was asked for."""
    other, nowhere = world.clinics[OTHER], Clinic(987654321, 987654321, "", "web__never", "web__never", ())
    asked = {str(clinic.number) for clinic in (other, nowhere)} | {str(clinic.clinic_id) for clinic in (other, nowhere)}
    asked |= {run_id for clinic in (other, nowhere) for run_id in (clinic.restore_run, clinic.backup_run)}
    asked |= {quote(name, safe="") for name in asked}
    names = re.compile("|".join(rf"\b{re.escape(name)}\b" for name in asked))
    for method, path in ROUTES:
        if "{" not in path or "{name}" in path or path == "/ui/dag/{dag_id}":
            continue
        seen, missing = (world.ask("administrador", method, path, clinic) for clinic in (other, nowhere))
        texts = [names.sub("N", answer.text) for answer in (seen, missing)]
        assert seen.status_code == missing.status_code == 404, (method, path)
        assert texts[0] == texts[1], (method, path)


def test_lists_and_figures_know_of_the_own_clinic_alone(world: World) -> None:
    reader = world.clients["lector"]
    listed = reader.get("/backups/respaldos/?page_size=500").json()
    assert listed["count"] == len(listed["results"]) > 0
    assert {one["clinica"] for one in listed["results"]} == {OWN}
    assert reader.get(f"/backups/respaldos/?clinica={OTHER}").json()["count"] == 0
    name = world.clinics[OTHER].secrets[0]
    assert reader.get("/backups/respaldos/", params={"buscar": name}).json()["count"] == 0
    assert reader.get("/backups/clinics/", params={"search": str(OTHER)}).json()["count"] == 0
    assert reader.get("/backups/health").json()["clinics"] == 1
    figures = [line for line in reader.get("/backups/metrics").text.splitlines() if not line.startswith("#")]
    counts = {line for line in figures if line.startswith("clinic_backups_clinics{")}
    standings = ("ok", "unproven", "late", "never")
    assert sum(float(line.split()[1]) for line in counts if line.split('"')[1] in standings) == 1
    assert {line.split('clinic_id="')[1][0] for line in figures if line not in counts} == {str(OWN)}
    assert world.clients["nobody"].get("/backups/health").json()["clinics"] == 0
    assert world.clients["nobody"].get("/backups/respaldos/").json()["count"] == 0
    assert world.clients["superuser"].get("/backups/health").json()["clinics"] > 2


def test_a_cookie_acts_only_on_requests_of_our_own_pages(world: World) -> None:
    """A page of another site sends the cookie of whoever is logged in; a bearer token it does not have."""
    token = world.clients["admin"].headers["Authorization"].removeprefix("Bearer ")
    with httpx.Client(base_url=world.airflow.stack.url, cookies={"_token": token}, trust_env=False) as browser:
        url = f"/backups/ui/clinics/{OWN}/back-up"
        before = world.airflow.execute("SELECT count(*) FROM clinic_backups.audit")
        for headers in ({"Sec-Fetch-Site": "cross-site"}, {"Origin": "https://evil.example"}, {}):
            assert browser.post(url, data={"kind": "auto"}, headers=headers).status_code == 403
            assert browser.get("/backups/ui/", headers=headers).status_code == 200
        assert world.airflow.execute("SELECT count(*) FROM clinic_backups.audit") == before
        assert browser.post(url, data={"kind": "auto"}, headers={"Sec-Fetch-Site": "same-origin"}).status_code == 409


def test_every_action_is_in_the_audit_and_nothing_edits_it(world: World) -> None:
    since = world.airflow.execute("SELECT coalesce(max(id), 0) FROM clinic_backups.audit")[0][0]
    clinic = world.clinics[OWN]
    world.ask("administrador", "GET", "/respaldos/{number}/descargar/", clinic)
    world.ask("administrador", "POST", "/respaldos/crear_respaldo_manual/", clinic)
    world.ask("admin", "POST", "/ui/backups/{number}/hold", clinic)
    world.ask("admin", "POST", "/ui/runs/clinic_restore/{run_id:path}/answer", clinic)  # nothing waits
    world.ask("lector", "GET", "/respaldos/{number}/descargar/", clinic)  # 403
    rows = world.airflow.execute(
        "SELECT actor, role, action, clinic_id::int, backup_id, address FROM clinic_backups.audit "
        f"WHERE id > {since} ORDER BY id"
    )
    assert rows == [
        ("administrador.1.1", "administrador", "download", OWN, clinic.backup_id, "127.0.0.1"),
        ("administrador.1.1", "administrador", "back_up", OWN, None, "127.0.0.1"),
        ("administrador.1.1", "administrador", "back_up failed", OWN, None, "127.0.0.1"),
        ("admin", "superadmin", "hold", OWN, clinic.backup_id, "127.0.0.1"),
        ("admin", "superadmin", "hold failed", OWN, clinic.backup_id, "127.0.0.1"),
        ("admin", "superadmin", "approve", OWN, None, "127.0.0.1"),
        ("admin", "superadmin", "approve failed", OWN, None, "127.0.0.1"),
    ]


def test_people_of_a_clinic_have_a_limit_and_operators_none(world: World) -> None:
    world.airflow.execute(
        "INSERT INTO clinic_backups.audit (at, actor, role, action, clinic_id, address, detail) SELECT now(), "
        f"'administrador.2.1', 'administrador', 'download', {OTHER}, '', '' FROM generate_series(1, 60)"
    )
    with closing(world.airflow.web("administrador.2.1")) as client:
        answer = client.get(f"/backups/respaldos/{world.clinics[OTHER].number}/descargar/")
        assert answer.status_code == 429
        assert int(answer.headers["Retry-After"]) > 0
        assert answer.json()["remedy"]
        assert client.get("/backups/respaldos/").status_code == 200


def test_the_page_of_a_clinic_whose_id_is_a_text_is_found(world: World) -> None:
    """The server decodes an address once."""
    odd = "../a/b é"
    insert = "INSERT INTO clinic_backups.clinic (clinic_id, name, language, active) VALUES ('{}', 'Odd', 'es', false)"
    world.airflow.execute(insert.format(odd))
    try:
        address = f"/backups/ui/clinics/{quote(component_of(odd), safe='')}"
        found = world.clients["admin"].get(address)
        assert (found.status_code, "Odd" in found.text, f"{address}/back-up" in found.text) == (200, True, True)
        assert world.clients["lector"].get(address).status_code == 404
        for forged in ("..%2Fa%2Fb%20%C3%A9", "%2e%2e", "%252e%252e%252Fa", "07"):
            assert world.clients["admin"].get(f"/backups/ui/clinics/{forged}").status_code == 404
    finally:
        world.airflow.execute(f"DELETE FROM clinic_backups.clinic WHERE clinic_id = '{odd}'")


def test_what_fails_is_told_in_part_and_logged_whole(world: World) -> None:
    sql = world.airflow.sql / "user_clinics.sql"
    kept = sql.read_text()
    sql.write_text("SELECT 1, 2, 3, 4")
    try:
        answer = world.clients["lector"].get("/backups/respaldos/")
    finally:
        sql.write_text(kept)
    assert (answer.status_code, "user_clinics" in answer.text) == (503, False)
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    log = (world.airflow.stack.layout.logs / "api-server.log").read_text()
    assert "user_clinics.sql gives 4 columns" in log


def test_a_record_whose_process_died_keeps_nobody_from_backing_up(world: World) -> None:
    """The clinic's lock decides, and not what the record says."""
    dead = f"UPDATE clinic_backups.backup SET state = '{{}}', finished_at = {{}} WHERE id = {world.clinics[OWN].number}"
    world.airflow.execute(dead.format("running", "NULL"))
    try:
        answer = world.ask("admin", "POST", "/respaldos/crear_respaldo_manual/", world.clinics[OWN])
    finally:
        world.airflow.execute(dead.format("completed", "now()"))
    assert "paused" in answer.json()["detail"]
    with world.airflow.catalog.lock(OWN):
        answer = world.ask("admin", "POST", "/respaldos/crear_respaldo_manual/", world.clinics[OWN])
    assert "is being backed up" in answer.json()["detail"]
