"""``clinic-backups recover`` on another server, as after the loss of the first: roles, rights and versions."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, cast

import pytest

from clinic_backups.base.errors import PermanentError
from clinic_backups.recovery import target
from clinic_backups.stores.file import FileStore
from include.demo.postgres import THROWAWAY, EmbeddedPostgres
from tests.integration.test_recover import ON_PURPOSE, Target, back_up_all, contents, definitions
from tests.postgres_fixtures import DemoDatabase, server_folder
from tests.rig import Rig


@pytest.fixture(scope="module")
def new_server() -> Iterator[EmbeddedPostgres]:
    with server_folder() as folder, EmbeddedPostgres(folder, settings=THROWAWAY) as server:
        yield server


@pytest.fixture
def rig(demo_database: DemoDatabase, tmp_path: Path) -> Iterator[Rig]:
    rig = Rig(demo_database, FileStore(tmp_path / "store"))
    rig.execute(
        "CREATE ROLE el_dueno NOLOGIN BYPASSRLS", "CREATE ROLE la_app LOGIN CONNECTION LIMIT 7 IN ROLE el_dueno",
        "ALTER TABLE public.inventario_inventario OWNER TO el_dueno",
        f"ALTER DATABASE {demo_database.name} SET search_path = \"$user\", public, \"Otra\"",
        "ALTER ROLE la_app SET work_mem = '5MB'", "GRANT USAGE ON SCHEMA public TO la_app",
        "GRANT SELECT (id) ON public.usuarios_paciente TO la_app",
    )  # fmt: skip
    rig.settings = rig.settings.model_copy(update={"trusted_owners": ("el_dueno",)})
    yield rig
    rig.execute(
        "REASSIGN OWNED BY el_dueno TO postgres", "DROP OWNED BY el_dueno, la_app", "DROP ROLE el_dueno, la_app"
    )


def on(server: EmbeddedPostgres, rig: Rig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> Target:
    return Target(rig, tmp_path, monkeypatch, capsys, server)


def test_the_roles_come_back_without_passwords_and_powers(
    rig: Rig, new_server: EmbeddedPostgres, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    back_up_all(rig)
    new = on(new_server, rig, tmp_path, monkeypatch, capsys)
    report = new.report()
    before, after = contents(rig.database.connect), contents(lambda: new_server.connect(new.name))
    assert {name: before[name] for name in before.keys() - ON_PURPOSE} == {
        name: after[name] for name in after.keys() - ON_PURPOSE
    }
    assert definitions(rig, new.name, new_server) == definitions(rig, rig.database.name)
    assert new.rows(
        "SELECT rolname, rolcanlogin, rolconnlimit, rolbypassrls, rolpassword FROM pg_authid"
        " WHERE rolname IN ('el_dueno', 'la_app') ORDER BY 1"
    ) == [("el_dueno", False, -1, False, None), ("la_app", True, 7, False, None)]
    assert new.rows("SELECT pg_has_role('la_app', 'el_dueno', 'MEMBER')") == [(True,)]
    assert new.rows("SHOW search_path") == [('"$user", public, "Otra"',)]
    to_do = {each["sql"] for each in report["left"]}
    assert "ALTER ROLE la_app PASSWORD '…';" in to_do
    assert "ALTER ROLE el_dueno BYPASSRLS;" in to_do
    assert not any("PASSWORD" in sql and "el_dueno" in sql for sql in to_do)
    # A role that was there before is not made a member, and gets no members.
    assert all("SUPERUSER" not in sql for sql in to_do)


def test_a_target_role_that_may_not_make_roles(
    rig: Rig, new_server: EmbeddedPostgres, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    back_up_all(rig)
    with closing(new_server.connect()) as db, db.cursor() as cursor:
        db.autocommit = True
        cursor.execute("DROP ROLE IF EXISTS solo")
        cursor.execute("CREATE ROLE solo LOGIN PASSWORD 'x1'")
    new = on(new_server, rig, tmp_path, monkeypatch, capsys)
    with closing(new_server.connect()) as db, db.cursor() as cursor:
        db.autocommit = True
        cursor.execute(f"ALTER DATABASE {new.name} OWNER TO solo")
    report = new.report(AIRFLOW_CONN_NEW=new_server.uri(new.name, "solo", "x1"))
    before, after = contents(rig.database.connect), contents(lambda: new_server.connect(new.name))
    for name in before.keys() - ON_PURPOSE:
        assert after[name] == before[name], name
    # A person with more rights finishes it with what the report says.
    with closing(new_server.connect(new.name)) as db, db.cursor() as cursor:
        db.autocommit = True
        for each in report["left"]:
            if "…" not in each["sql"]:
                cursor.execute(each["sql"])
        cursor.execute(f"ALTER DATABASE {new.name} OWNER TO postgres")
    assert definitions(rig, new.name, new_server) == definitions(rig, rig.database.name)


class Answering:
    """A session whose server gives one answer."""

    def __init__(self, *answer: object) -> None:
        self.answer = answer

    def rows(self, query: str) -> list[tuple[object, ...]]:
        return [self.answer]


def test_a_standby_and_an_older_server_are_refused() -> None:
    assert target.require_primary(cast(Any, Answering(False, 170004))) == 17
    with pytest.raises(PermanentError, match="The target is a standby"):
        target.require_primary(cast(Any, Answering(True, 170004)))
    target.require_version(17, 17)
    with pytest.raises(
        PermanentError, match="The target is PostgreSQL 16, and the database that was backed up was"
    ) as e:
        target.require_version(16, 17)
    assert e.value.hint == "Recover into PostgreSQL 17 or newer."
