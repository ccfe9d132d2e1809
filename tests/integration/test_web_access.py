"""A person's rights on the page, from Airflow's login and include/sql/user_clinics.sql."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from starlette.requests import Request

from clinic_backups.base import connections
from clinic_backups.base.errors import SettingsError, TransientError
from clinic_backups.base.project import PROJECT_SQL
from clinic_backups.web.access import Access, refuse_other_sites
from clinic_backups.web.databases import WebDatabase
from clinic_backups.web.problems import CrossSite, Unavailable
from clinic_backups.web.viewer import ACTIONS, MAY, Viewer
from tests.postgres_fixtures import DemoDatabase
from tests.servers import free_ports


@dataclass
class User:
    """As Airflow's auth managers give them: FAB has e-mail and roles, the simple one a role."""

    name: str = ""
    email: str | None = None
    role: str | None = None
    roles: list[Any] = field(default_factory=list)

    def get_name(self) -> str:
        return self.name


@pytest.fixture
def access(demo_database: DemoDatabase) -> Iterator[Access]:
    with closing(demo_database.connect()) as db, db, db.cursor() as cursor:
        cursor.execute("UPDATE usuarios_usuario SET is_active = false WHERE username = 'odontologo.2.2'")
        twice = "UPDATE usuarios_usuario SET email = 'Dos@Clinicas.example' WHERE username ~ '^administrador.[34].'"
        cursor.execute(twice)
    database = WebDatabase(lambda: connections.parse("clinic_db", demo_database.reader_uri), "It", own_path=False)
    yield Access(lambda: database, PROJECT_SQL)
    database._engine.dispose()


def test_airflows_administrators_are_superadmin_and_others_are_what_the_application_says(access: Access) -> None:
    admin = SimpleNamespace(name="Admin")
    for user, superadmin, clinics in (
        (User("anybody", role="admin"), True, {}),
        (User("anybody", role="ADMIN"), True, {}),
        (User("anybody", roles=[SimpleNamespace(name="User"), admin]), True, {}),
        (User("administrador.1.1", role="op"), False, {1: "administrador"}),
        (User("administrador.1.1", roles=[SimpleNamespace(name="Administrators")]), False, {1: "administrador"}),
        (User("odontologo.1.2"), False, {1: "lector"}),
        (User("auditor.1"), True, {}),  # the application's superuser, of no clinic
        (User("odontologo.2.2"), False, {}),  # not active
        (User("nobody"), False, {}),
        (User(""), False, {}),
        # The e-mail decides where there is one, whatever the name is.
        (User("nobody", email="ADMINISTRADOR1@clinica2.example.com"), False, {2: "administrador"}),
        (User("administrador.1.1", email="nobody@example.com"), False, {}),
        (User("x", email="dos@clinicas.example"), False, {3: "administrador", 4: "administrador"}),
        # People without an e-mail must not be found by an empty one.
        (User("nobody", email="  "), False, {}),
        # Values are bound.
        (User("' OR true --"), False, {}),
        (User("x\n; DELETE FROM usuarios_usuario; --"), False, {}),
        (User("%s %(name)s :name %"), False, {}),
        (User("nobody", email="' OR '1'='1"), False, {}),
    ):
        viewer = access.viewer(user)
        assert (viewer.superadmin, dict(viewer.clinics)) == (superadmin, clinics), user


def test_the_file_may_hold_anything_and_its_columns_are_checked(access: Access, tmp_path: Path) -> None:
    shutil.copytree(PROJECT_SQL, tmp_path / "sql")
    file = tmp_path / "sql" / "user_clinics.sql"
    access._sql_dir = tmp_path / "sql"
    file.write_text("SELECT 5, 'odontologo' UNION ALL SELECT 5, 'administrador' -- 100 % %s %(x)s :name\n;\n")
    assert access.viewer(User("x\n' -- ")).clinics == {5: "administrador"}
    file.write_text("SELECT 7, 'superadmin'")
    assert access.viewer(User("x")).superadmin
    file.write_text("SELECT NULL, 'administrador'")
    assert access.viewer(User("x")).clinics == {}
    # A tenant that chose this key itself does not see what belongs to nobody.
    file.write_text("SELECT '~shared', 'administrador'")
    with pytest.raises(SettingsError, match="~shared is the id of the data that belong to no clinic"):
        access.viewer(User("x"))
    file.write_text("SELECT 5")
    with pytest.raises(SettingsError, match="gives 1 columns") as caught:
        access.viewer(User("x"))
    assert "clinic_id and role" in caught.value.hint
    file.unlink()
    with pytest.raises(SettingsError, match="cannot be read"):
        access.viewer(User("x"))


def test_what_each_role_may() -> None:
    viewer = Viewer("x", clinics={1: "administrador", 2: "lector"})
    assert (viewer.visible, Viewer("y", superadmin=True).visible, Viewer("z").visible) == ((1, 2), None, ())
    for clinic_id, role in ((1, "administrador"), (2, "lector"), (3, None)):
        allowed = {action for action in ACTIONS if viewer.may(action, clinic_id)}
        assert allowed == (MAY[role] if role else set())  # type: ignore[index]
    assert MAY["lector"] == {"see"}
    assert not MAY["administrador"] & {"approve", "hold", "release", "verify"}
    assert all(Viewer("y", superadmin=True).may(action, 9) for action in ACTIONS)


def test_a_database_that_is_down_is_left_alone_for_a_while() -> None:
    tries: list[int] = []

    def find() -> connections.Connection:
        tries.append(1)
        return connections.parse("backup_catalog", f"postgres://nobody@127.0.0.1:{free_ports(1)[0]}/nothing")

    database = WebDatabase(find, "It")
    with pytest.raises(TransientError), database.transaction("trying"):
        pass
    begin = time.monotonic()
    for _ in range(100):
        with pytest.raises(Unavailable, match="cannot be reached"), database.transaction("trying"):
            pass
    assert time.monotonic() - begin < 1
    assert len(tries) == 1


def test_what_is_open_serves_while_no_new_connection_can_be_had(demo_database: DemoDatabase) -> None:
    place = demo_database.reader_uri
    database = WebDatabase(lambda: connections.parse("clinic_db", place), "It")
    with database.transaction("one"):
        place = f"postgres://nobody@127.0.0.1:{free_ports(1)[0]}/nothing"
        with pytest.raises(TransientError), database.transaction("another one"):
            pass
    with database.transaction("the first again") as db:
        assert db.exec_driver_sql("SELECT 1").scalar() == 1
    database._engine.dispose()


@pytest.mark.parametrize(
    ("method", "path", "headers", "allowed"),
    [
        ("POST", "/ui/clinics/1/back-up", {"sec-fetch-site": "same-origin"}, True),
        ("POST", "/ui/clinics/1/back-up", {"sec-fetch-site": "cross-site"}, False),
        ("POST", "/ui/clinics/1/back-up", {"sec-fetch-site": "same-site"}, False),
        ("POST", "/ui/clinics/1/back-up", {"sec-fetch-site": "none"}, False),
        ("POST", "/ui/clinics/1/back-up", {"origin": "https://airflow.example"}, True),
        ("POST", "/ui/clinics/1/back-up", {"origin": "https://airflow.example.evil.example"}, False),
        ("POST", "/ui/clinics/1/back-up", {"origin": "null"}, False),
        ("POST", "/ui/clinics/1/back-up", {"origin": "http://[airflow.example"}, False),
        ("POST", "/ui/clinics/1/back-up", {}, False),
        ("POST", "/ui/clinics/1/back-up", {"authorization": "Basic eA=="}, False),
        ("POST", "/ui/clinics/1/back-up", {"authorization": "Bearer"}, False),
        ("POST", "/ui/clinics/1/back-up", {"authorization": "Bearer x"}, True),
        ("POST", "/x", {"sec-fetch-site": "cross-site", "origin": "https://airflow.example"}, False),
        ("DELETE", "/x", {"sec-fetch-site": "cross-site"}, False),
        ("GET", "/respaldos/", {"sec-fetch-site": "cross-site"}, True),
        ("GET", "/respaldos/5/descargar/", {"sec-fetch-site": "cross-site"}, False),
        ("GET", "/respaldos/5/archivo/", {"sec-fetch-site": "same-site"}, False),
        ("GET", "/ui/backups/5/download", {"sec-fetch-site": "cross-site"}, False),
        ("GET", "/ui/backups/5/download", {"sec-fetch-site": "none"}, True),
        ("GET", "/respaldos/5/descargar/", {}, False),
        ("GET", "/respaldos/5/descargar/", {"authorization": "Bearer x"}, True),
        ("GET", "/ui/backups/5/download", {"referer": "https://airflow.example/backups/ui/"}, True),
        ("GET", "/ui/backups/5/download", {"referer": "https://evil.example/airflow.example"}, False),
    ],
)
def test_no_other_site_acts_with_somebodys_cookie(
    method: str, path: str, headers: dict[str, str], allowed: bool
) -> None:
    fields = {"host": "airflow.example"} | headers
    raw = [(name.encode(), value.encode()) for name, value in fields.items()]
    request = Request(
        {"type": "http", "method": method, "path": path, "headers": raw, "scheme": "https", "query_string": b"",
         "server": ("airflow.example", 443)}
    )  # fmt: skip
    if allowed:
        refuse_other_sites(request)
    else:
        with pytest.raises(CrossSite):
            refuse_other_sites(request)


def test_the_file_is_the_applications_own_sql(demo_database: DemoDatabase, tmp_path: Path) -> None:
    """Its names and operators are those of the role's search path: an operator of another schema is never left out."""
    role = demo_database.roles.reader
    with closing(demo_database.connect()) as db, db, db.cursor() as cursor:
        cursor.execute(
            "CREATE SCHEMA s; CREATE TYPE s.mail AS (v text);"
            "CREATE FUNCTION s.alike(s.mail, s.mail) RETURNS boolean LANGUAGE sql IMMUTABLE"
            " AS 'SELECT lower($1.v) = lower($2.v)';"
            "CREATE OPERATOR s.= (LEFTARG = s.mail, RIGHTARG = s.mail, FUNCTION = s.alike);"
            "CREATE TABLE s.usr (clinic_id int, email s.mail); CREATE TABLE s.blocked (email s.mail);"
            "INSERT INTO s.usr VALUES (1, ROW('Ana@x.example')), (2, ROW('Eva@x.example'));"
            "INSERT INTO s.blocked VALUES (ROW('ana@x.example'));"
            f"GRANT USAGE ON SCHEMA s TO {role}; GRANT SELECT ON ALL TABLES IN SCHEMA s TO {role};"
            f"ALTER ROLE {role} IN DATABASE {demo_database.name} SET search_path = s, public"
        )
    folder = tmp_path / "sql"
    shutil.copytree(PROJECT_SQL, folder)
    (folder / "user_clinics.sql").write_text(
        "SELECT u.clinic_id, 'administrador' FROM usr AS u"
        " WHERE NOT EXISTS (SELECT FROM blocked AS b WHERE b.email = u.email)\n"
    )
    connection = connections.parse("clinic_db", demo_database.reader_uri)
    database = WebDatabase(lambda: connection, "It", own_path=False)
    assert Access(lambda: database, folder).viewer(User("x")).clinics == {2: "administrador"}
    database._engine.dispose()
