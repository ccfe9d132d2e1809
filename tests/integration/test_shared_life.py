"""The shared data through the commands: backed up, consolidated, replicated, restored, and rebuilt from the store."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from clinic_backups.archive.encryption import load_identities
from clinic_backups.archive.reader import read_archive
from clinic_backups.base.shared_unit import FILES, SHARED_ID
from tests.integration.test_cli import Run, restore_keys
from tests.integration.test_cli import run as run
from tests.postgres_fixtures import DemoDatabase


@pytest.fixture
def life(run: Run, demo_database: DemoDatabase, tmp_path: Path) -> Any:
    identity = tmp_path / "identity.txt"
    variables = restore_keys(run, identity, demo_database) | {
        "CLINIC_BACKUPS_IDENTITY_FILE": str(identity),
        "CLINIC_BACKUPS_REPLICA_STORES": f'{{"backup_replica": "{(tmp_path / "far").as_uri()}"}}',
    }

    def call(*words: str, code: int = 0) -> Any:
        done = run(*words, **variables)
        assert done.code == code, done.err
        return done

    call("catalog", "migrate")
    call("store", "init")
    return call


def backed_up(life: Any, *words: str) -> dict[str, Any]:
    (found,) = life("backup", "--shared", "--json", *words).json()
    assert (found["clinic_id"], found["state"], found["gaps"]) == (SHARED_ID, "completed", [])
    return dict(found)


def files_of(record: dict[str, Any], tmp_path: Path, store: str = "store") -> dict[str, bytes]:
    with (tmp_path / store / record["archive_key"]).open("rb") as stream:
        return dict(read_archive(stream, load_identities(tmp_path / "identity.txt"), expected=None).files)


def test_it_is_consolidated_with_its_files_and_in_every_store(
    life: Any, demo_database: DemoDatabase, tmp_path: Path
) -> None:
    first = backed_up(life)
    with closing(demo_database.connect()) as db, db, db.cursor() as cursor:
        cursor.execute("INSERT INTO public.auth_group (name) VALUES ('Nuevos'); CREATE TABLE public.django_mas (a int)")
        cursor.execute("DROP TABLE public.django_mas")
    second = backed_up(life)
    assert (second["kind"], second["parent_id"]) == ("incremental", first["backup_id"])
    full = life("consolidate", second["backup_id"], "--json").json()
    record = life("show", full["backup_id"], "--json").json()
    assert (record["kind"], record["rows"]) == ("full", second["rows"])
    files = files_of(record, tmp_path)
    assert files.keys() == set(FILES)
    assert files == files_of(second, tmp_path)
    assert files_of(second, tmp_path, "far") == files
    assert life("verify", second["backup_id"]).code == 0


def test_the_catalog_knows_it_again_from_the_store(life: Any, demo_database: DemoDatabase) -> None:
    life("backup", "--all")
    before = {each["backup_id"]: each["fingerprint"] for each in life("list", "--json").json()}
    assert len(before) == 6
    with closing(demo_database.connect()) as db, db, db.cursor() as cursor:
        cursor.execute("DELETE FROM clinic_backups.backup_replica; TRUNCATE clinic_backups.backup CASCADE")
    life("catalog", "rebuild")
    assert {each["backup_id"]: each["fingerprint"] for each in life("list", "--json").json()} == before
    assert life("list", "--fleet", "--json").json()[0]["shared"] in before
    # What would happen without the shared data is not rehearsed: all clinics' rows need them.
    said = [each["message"] for each in life("check", "--rehearse", "--json").json() if each["check"] == "rehearsal"]
    assert said and not any(SHARED_ID in message for message in said)


def test_what_was_lost_comes_back_by_a_command(life: Any, demo_database: DemoDatabase) -> None:
    backed_up(life)
    nobody = "(SELECT id FROM public.usuarios_usuario WHERE clinica_id IS NULL)"
    with closing(demo_database.connect()) as db, db, db.cursor() as cursor:
        cursor.execute(f"DELETE FROM public.auditoria_bitacora WHERE usuario_id IN {nobody}")
        lost = cursor.rowcount
        shared = "public.auth_group, public.django_content_type, public.django_migrations"
        cursor.execute(f"REVOKE SELECT, INSERT ON {shared} FROM {demo_database.roles.restorer}")
    refused = life("restore", "--clinic", SHARED_ID, "--plan", "--json", code=1)
    assert "GRANT SELECT" in refused.out + refused.err
    with closing(demo_database.connect()) as db, db, db.cursor() as cursor:
        cursor.execute(f"GRANT SELECT, INSERT ON {shared} TO {demo_database.roles.restorer}")
    plan = life("restore", "--clinic", SHARED_ID, "--plan", "--json").json()
    assert {table["table"]: table["insert"] for table in plan["tables"] if table["insert"]} == {
        "public.auditoria_bitacora": lost
    }
    life("restore", "--clinic", SHARED_ID, "--yes")
    with closing(demo_database.connect()) as db, db.cursor() as cursor:
        cursor.execute(f"SELECT count(*) FROM public.auditoria_bitacora WHERE usuario_id IN {nobody}")
        assert cursor.fetchall() == [(lost,)]
    assert life("restore", "--clinic", SHARED_ID, "--plan", "--json").json()["writes"] == 0


def test_a_closed_clinic_without_a_backup_is_named_before_it_is_lost(
    life: Any, demo_database: DemoDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    life("backup", "--all")
    (night,) = life("list", "--fleet", "--json").json()
    assert (night["whole"], night["expected"], night["missing"]) == (False, 6, [6])
    (warned,) = [each for each in life("check", "--json").json() if each["check"] == "clinics"]
    assert (warned["level"], warned["hint"][-27:]) == ("warning", "clinic-backups backup --clinic 6"[-27:])
    assert "1 clinic is closed and has no good backup. With the database they would be lost: 6 '" in warned["message"]
    with closing(demo_database.postgres.connect("postgres")) as db:
        db.autocommit = True
        with db.cursor() as cursor:
            cursor.execute("DROP DATABASE IF EXISTS recovered")
            cursor.execute("CREATE DATABASE recovered TEMPLATE template0")
    monkeypatch.setenv("AIRFLOW_CONN_RECOVER_DB", demo_database.postgres.uri("recovered"))
    refused = life("recover", "--target", "recover_db", code=1)
    assert "Clinic 6 'Consultorio Güell' was in the database and has no backup." in " ".join(refused.err.split())
    life("backup", "--clinic", "6")
    assert life("list", "--fleet", "--json").json()[0]["whole"]
    assert not [each for each in life("check", "--json").json() if each["check"] == "clinics"]
    life("recover", "--target", "recover_db")
    with closing(demo_database.postgres.connect("recovered")) as db, db.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM public.comun_clinica")
        assert cursor.fetchall() == [(6,)]
    with closing(demo_database.postgres.connect("postgres")) as db:
        db.autocommit = True
        with db.cursor() as cursor:
            cursor.execute("DROP DATABASE recovered")


def test_a_copy_beside_the_clinics_stops_no_backup_and_is_in_none(
    life: Any, demo_database: DemoDatabase, tmp_path: Path
) -> None:
    def check(code: int = 0) -> dict[str, list[str]]:
        found: dict[str, list[str]] = {}
        for each in life("check", "--json", code=code).json():
            found.setdefault(each["level"], []).append(each["message"])
        return found

    life("backup", "--clinic", "1")
    with closing(demo_database.connect()) as db, db, db.cursor() as cursor:
        cursor.execute(f"GRANT CREATE ON DATABASE {demo_database.name} TO {demo_database.roles.restorer}")
    life("restore-into", "--clinic", "1", "--schema", "copia_1")
    called = "The schema copia_1 is a copy of a backup"
    assert any(message.startswith(called) for message in check()["warning"])
    assert life("backup", "--clinic", "2", "--json").json()[0]["state"] == "completed"
    files = files_of(backed_up(life), tmp_path)
    assert b"usuarios_paciente" in files["definition.dump"]
    assert [name for name, text in files.items() if b"copia_1" in text] == []
    # The shared data can be looked at too.
    life("restore-into", "--clinic", "~shared", "--schema", "comunes")
    with closing(demo_database.connect()) as db, db, db.cursor() as cursor:
        cursor.execute("INSERT INTO comunes.auth_group (name) VALUES ('nuevo') RETURNING id")
        assert cursor.fetchone() == (5,)
    # A schema of the application is none, whatever its comment is.
    with closing(demo_database.connect()) as db, db, db.cursor() as cursor:
        cursor.execute("SELECT obj_description('copia_1'::regnamespace, 'pg_namespace')")
        ((comment,),) = cursor.fetchall()
        cursor.execute("COMMENT ON SCHEMA public IS %s", [comment])
        cursor.execute("CREATE TABLE public.nueva (clinica_id bigint REFERENCES public.comun_clinica)")
    assert any("public.nueva leads to the clinic" in message for message in check(1)["error"])
    assert "public.nueva" in life("backup", "--clinic", "2", code=1).err
