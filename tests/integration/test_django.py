"""The clinics' Django application deletes, damages and migrates data, and a restore brings them back."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import closing
from io import StringIO
from pathlib import Path
from typing import Any

import psycopg2
import pytest
from sqlalchemy import NullPool, create_engine

from clinic_backups.base.backup_record import BackupRecord
from clinic_backups.base.errors import PermanentError
from clinic_backups.base.project import PROJECT_SQL
from clinic_backups.catalog import migrate
from clinic_backups.restore.find_backup import source_of
from clinic_backups.restore.request import RestoreRequest
from clinic_backups.stores.file import FileStore
from clinic_backups.tenant.extract import SqlFolder, render
from include.demo import database
from include.demo.postgres import EmbeddedPostgres, PostgresError
from tests.django_fixtures import APP, APP_PASSWORD, disconnect
from tests.fleet import Fleet
from tests.postgres_fixtures import DemoDatabase
from tests.servers import CHECKOUT

LINES = CHECKOUT / "tests" / "django_project" / "extractos.txt"
LATER = {"usuarios": "tests.django_project.usuarios.later_migrations"}
"""Where the migrations are that are made between a backup and its restore."""


@pytest.fixture
def practice(django_database: DemoDatabase, tmp_path: Path) -> Fleet:
    """The project's database with extracts that ``manage.py extractos`` made, and a backup of each clinic."""
    fleet = Fleet(django_database, FileStore(tmp_path / "store"))
    folder = tmp_path / "sql"
    shutil.copytree(PROJECT_SQL, folder, ignore=shutil.ignore_patterns("extract"))
    lines = tmp_path / "lines.txt"
    lines.write_text(LINES.read_text() + "usuarios.Usuario_user_permissions: usuario__clinica\n")
    command("extractos", str(lines), carpeta=folder / "extract")
    with (folder / "not_backed_up.txt").open("a") as file:
        file.write("public.auth_permission: shared, made by Django\npublic.auth_group_permissions: shared, of groups\n")
    fleet.settings = fleet.settings.model_copy(update={"sql_dir": folder})
    return fleet


def command(name: str, *words: str, **options: Any) -> str:
    """What a command of ``manage.py`` prints."""
    from django.core.management import call_command

    out = StringIO()
    call_command(name, *words, stdout=out, stderr=out, **options)
    return out.getvalue()


def rows(apps: Any = None) -> dict[str, str]:
    """Every row of the clinics' models, as Django's own serializer writes it."""
    from django.apps import apps as now
    from django.core import serializers

    labels = ("comun", "usuarios", "profesionales", "inventario", "citas", "historial_clinico", "sistema_pagos",
              "auditoria")  # fmt: skip
    found: dict[str, str] = {}
    for label in labels:
        for model in (apps or now).get_app_config(label).get_models(include_auto_created=True):
            if model.__name__ == "Recordatorio":
                continue  # made anew every night
            for row in model._base_manager.order_by("pk"):
                found[f"{model.__name__} {row.pk}"] = serializers.serialize("json", [row])
    return found


def restored(fleet: Fleet, record: BackupRecord, **wished: Any) -> None:
    """Plan and apply; Django lets go of what it has open before."""
    source, wish = source_of(record), RestoreRequest(clinic_id=record.clinic_id, **wished)
    plan = fleet.restore().plan(source, wish)
    assert plan.refusals == (), plan.refusals
    fleet.restore().apply(source, wish, approved=plan.digest)


def test_what_the_orm_damages_comes_back_as_django_had_it(practice: Fleet) -> None:
    from django.contrib.auth.models import Group

    from tests.django_project.citas.models import Consulta
    from tests.django_project.comun.models import Clinica
    from tests.django_project.inventario.models import Inventario
    from tests.django_project.usuarios.models import Paciente, Usuario

    before = rows()
    assert len(before) > 500
    made = [practice.run(clinic.pk) for clinic in Clinica.objects.order_by("pk")]
    clinic = made[0].clinic_id
    Usuario.objects.get(username="recepcionista.1").delete()  # SET_NULL in visits and payments
    Paciente.objects.filter(clinica=clinic)[3].delete()  # a cascade over seven tables
    Inventario.objects.filter(clinica=clinic).update(cantidad=0, etiquetas=[])
    Usuario.objects.get(username="administrador.1").groups.set([Group.objects.create(name="Nuevo")])
    Consulta.objects.bulk_update(
        [Consulta(pk=visit.pk, motivo="otro") for visit in Consulta.objects.filter(paciente__clinica=clinic)],
        ["motivo"],
    )
    Paciente.objects.create(nombres="Nueva", apellidos="X", cedula="Z", fecha_nacimiento="2000-01-01", sexo="F",
                            telefono="1", direccion="", clinica_id=clinic)  # fmt: skip
    Clinica.objects.get(pk=made[1].clinic_id).usuario_set.exclude(tipo="odontologo").delete()
    assert len({name for name, row in rows().items() if before.get(name) != row}) > 20
    for record in made[:2]:
        restored(practice, record)
    assert rows() == before
    # What Django makes next gets a number that nobody has.
    Paciente.objects.create(nombres="Otra", apellidos="X", cedula="Z", fecha_nacimiento="2000-01-01", sexo="F",
                            telefono="1", direccion="", clinica_id=clinic)  # fmt: skip


def test_a_clinic_that_django_deleted_comes_back_with_all_that_was_its(practice: Fleet) -> None:
    from tests.django_project.comun.models import Clinica

    before, record = rows(), practice.run(2)
    _delete_clinic(2)
    assert not Clinica.objects.filter(pk=2).exists()
    restored(practice, record)
    assert rows() == before


def _delete_clinic(number: int) -> None:
    """As the application does: visits first, which protect their dentists."""
    from tests.django_project.citas.models import Consulta
    from tests.django_project.comun.models import Clinica

    Consulta.objects.filter(paciente__clinica=number).delete()
    Clinica.objects.get(pk=number).delete()


@pytest.mark.parametrize("what", ["user", "clinic"])
def test_no_rule_of_deletion_reaches_a_backup(practice: Fleet, what: str) -> None:
    """CASCADE, SET_NULL and DO_NOTHING at once: three models of the project, and the app's, refer to both."""
    from clinic_backups_django.models import Respaldo
    from tests.django_project.comun.models import Clinica
    from tests.django_project.respaldos.models import Anulado, EnCascada, Intacto
    from tests.django_project.usuarios.models import Usuario

    made = practice.run(1, run_id="web__1")
    user = Usuario.objects.get(username="recepcionista.1")
    practice.execute(
        f"""INSERT INTO clinic_backups.audit (at, actor, role, action, clinic_id, run_id, actor_id)
             VALUES (now(), 'x', 'x', 'back_up', 1, 'web__1', {user.pk})"""
    )
    every = [list(model.objects.values()) for model in (Anulado, EnCascada, Intacto, Respaldo)]
    assert [respaldo["creado_por_id"] for (respaldo,) in every] == [user.pk] * 4
    if what == "user":
        user.delete()
        assert not Usuario.objects.filter(pk=user.pk).exists()
    else:
        _delete_clinic(1)
        assert not Clinica.objects.filter(pk=1).exists()
    assert [list(model.objects.values()) for model in (Anulado, EnCascada, Intacto, Respaldo)] == every
    assert Anulado.objects.all().delete()[0] == EnCascada.objects.get().delete()[0] == 0
    with pytest.raises(psycopg2.Error):  # no right to it
        _raw(practice, "UPDATE clinic_backups.respaldo SET estado = 'fallido'")
    assert Anulado.objects.count() == 1
    restored(practice, made)


def _raw(fleet: Fleet, statement: str) -> None:
    with closing(fleet.database.connect(user=APP, password=APP_PASSWORD)) as db, db, db.cursor() as cursor:
        cursor.execute(statement)


@pytest.fixture
def later(settings_of_migrations: None, practice: Fleet) -> Iterator[Any]:
    """Migrates ``usuarios`` to its newest state, and gives out the models as they are then."""

    def migrate() -> Any:
        from django.db import connection
        from django.db.migrations.executor import MigrationExecutor

        executor = MigrationExecutor(connection)
        executor.migrate(executor.loader.graph.leaf_nodes())
        state = MigrationExecutor(connection).loader.project_state()
        disconnect()
        return state.apps

    yield migrate


@pytest.fixture
def settings_of_migrations() -> Iterator[None]:
    from django.test import override_settings

    with override_settings(MIGRATION_MODULES=LATER):
        yield


def extract_of_the_new_model(fleet: Fleet) -> None:
    (fleet.settings.sql_dir / "extract" / "usuarios_seguro.sql").write_text(
        "SELECT t0.* FROM public.usuarios_seguro AS t0 JOIN public.usuarios_paciente AS t1 ON t1.id = t0.paciente_id"
        " WHERE t1.clinica_id = {{ clinic_id }}\n"
    )


def test_tables_of_the_next_migration_can_be_read_and_its_rows_come_back(practice: Fleet, later: Any) -> None:
    """AddField, RenameField, RemoveField, a new model and a data migration: then damage, and a restore."""
    practice.run(1)
    apps = later()
    with pytest.raises(PermanentError, match=r"public\.usuarios_seguro"):
        practice.run(1)  # nobody has said what is to become of the new table
    extract_of_the_new_model(practice)
    record = practice.run(1)
    assert record.rows["public.usuarios_seguro"] == 10  # nobody has granted anything since
    before = rows(apps)
    patient = apps.get_model("usuarios", "Paciente")
    assert patient.objects.get(pk=1).email == "p0@x.example"
    assert patient.objects.get(pk=2).estado_civil == "soltero"  # by the data migration
    patient.objects.filter(clinica_id=1).update(email="", estado_civil="casado")
    apps.get_model("usuarios", "Seguro").objects.filter(paciente__clinica_id=1).delete()
    disconnect()
    restored(practice, record)
    assert rows(apps) == before


def test_a_backup_from_before_the_migration_comes_back_with_a_drift_map(practice: Fleet, later: Any) -> None:
    """The lines are those that are read from the migrations themselves."""
    record, before = practice.run(1), rows()
    apps = later()
    extract_of_the_new_model(practice)
    file = practice.settings.sql_dir / "drift.txt"
    said = command("lineas_de_migraciones", archivo=file, escribir=True)
    assert "public.usuarios_paciente: correo -> email\n" in said
    assert "public.usuarios_paciente: estado_civil = ''\n" in said  # the data migration is not read
    assert command("lineas_de_migraciones", archivo=file) == "No hay líneas nuevas.\n"
    file.write_text(file.read_text().replace("estado_civil = ''", "estado_civil = 'soltero'"))
    patients = apps.get_model("usuarios", "Paciente").objects.filter(clinica_id=1)
    patients.update(email="roto@x.example")
    patients.filter(pk=2).update(estado_civil="casado")
    lost = patients.order_by("pk").last().pk
    patients.get(pk=lost).delete()  # by cascade, with all that hangs on it
    disconnect()
    restored(practice, record, ignore_dropped=True)
    assert patients.get(pk=lost).estado_civil == "soltero"
    assert patients.get(pk=1).email == "p0@x.example"
    assert '"correo": "p0@x.example"' in before["Paciente 1"]
    assert patients.get(pk=2).estado_civil == "casado"  # the backup does not know it: a row that is there keeps it


def test_a_backup_from_before_the_migration_is_refused_by_name(practice: Fleet, later: Any) -> None:
    record = practice.run(1)
    apps = later()
    extract_of_the_new_model(practice)
    apps.get_model("usuarios", "Paciente").objects.filter(clinica_id=1).update(email="roto@x.example")
    disconnect()
    plan = practice.restore().plan(source_of(record), RestoreRequest(clinic_id=1))
    assert any(refusal.table == "public.usuarios_paciente" for refusal in plan.refusals)


def test_lines_of_the_guide_give_the_row_sets_of_the_demos_extracts(
    demo_database: DemoDatabase, django_template: DemoDatabase, tmp_path: Path
) -> None:
    said = command("extractos", str(LINES), carpeta=tmp_path / "extract")
    own, demo = SqlFolder(tmp_path).extracts(), SqlFolder(PROJECT_SQL).extracts()
    assert own.keys() == demo.keys() and said.count(": escrito\n") == len(own)
    with closing(demo_database.connect()) as db, db.cursor() as cursor:
        for name in own:
            for clinic_id in range(1, 7):
                found = []
                for texts in (own, demo):
                    cursor.execute(f"SELECT x::text FROM ({render(texts[name], clinic_id, name=name)}) AS x ORDER BY 1")
                    found.append(cursor.fetchall())
                assert found[0] == found[1], (name, clinic_id)
            assert found[0] or name == "public.sistema_pagos_pagoenlinea" or clinic_id == 6


def test_an_extract_that_somebody_changed_is_kept(django_template: DemoDatabase, tmp_path: Path) -> None:
    command("extractos", str(LINES), carpeta=tmp_path)
    mine = tmp_path / "citas_consulta.sql"
    mine.write_text("-- mine\n")
    said = command("extractos", str(LINES), carpeta=tmp_path).splitlines()
    assert [line for line in said if not line.endswith(": ya estaba")] == [
        "citas_consulta.sql: se conserva: es distinto. Bórrelo antes para escribirlo de nuevo"
    ]
    assert mine.read_text() == "-- mine\n"


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("citas.Consulta", "no tiene la forma"),
        ("citas.Nada: paciente__clinica", "no tiene el modelo citas.Nada"),
        ("citas.Consulta: paciente__nada", "Paciente no tiene el campo nada"),
        ("citas.Consulta: motivo", "Consulta.motivo no es una clave foránea"),
        ("citas.Consulta: paciente", "el camino termina en Paciente, no en Clinica"),
        ("comun.Clinica: usuario", "no es una clave foránea"),
        ("respaldos.Anulado: clinica", "no tiene tabla propia"),
        (
            "citas.Consulta: paciente__clinica\ncitas.Consulta: odontologo__clinica",
            "más de una línea para citas_consulta",
        ),
        ("citas.Consulta: pk", "no tiene el campo pk"),
    ],
)
def test_a_wrong_line_is_named_and_nothing_is_written(
    django_template: DemoDatabase, tmp_path: Path, line: str, says: str
) -> None:
    from django.core.management import CommandError

    file = tmp_path / "lines.txt"
    file.write_text(f"# a comment\n\ncomun.Clinica: pk\n{line}\n")
    with pytest.raises(CommandError) as caught:
        command("extractos", str(file), carpeta=tmp_path / "extract")
    assert says in str(caught.value) and ("Línea 4" in str(caught.value) or "más de una" in says)
    assert not (tmp_path / "extract").exists()


def test_the_projects_migrations_are_those_of_its_models_and_the_app_has_none(django_database: DemoDatabase) -> None:
    from django.apps import apps
    from django.db.migrations.loader import MigrationLoader

    command("makemigrations", check=True, dry_run=True)  # exits with 1 where one is missing
    command("check", fail_level="WARNING")
    assert "clinic_backups_django" in MigrationLoader(None).unmigrated_apps
    assert not apps.get_model("clinic_backups_django.Respaldo")._meta.managed


def test_the_remedy_of_a_table_that_cannot_be_read_is_also_about_the_next_one(practice: Fleet) -> None:
    reader = practice.database.roles.reader
    _raw(practice, f"ALTER DEFAULT PRIVILEGES IN SCHEMA public REVOKE SELECT ON TABLES FROM {reader}")
    _raw(practice, f"REVOKE SELECT ON public.citas_consulta FROM {reader}")
    with pytest.raises(PermanentError, match=r"may not read public\.citas_consulta") as caught:
        practice.run(1)
    remedies = f"GRANT{caught.value.hint.partition('GRANT')[2]}".replace(
        "the role of connection clinic_db.", f"{reader};"
    )
    statements = remedies.replace("For the tables that come later:", "")
    practice.execute(statements)
    _raw(practice, "CREATE TABLE public.mas_tarde AS SELECT 1 AS id")
    readable = f"SELECT has_table_privilege('{reader}', 'public.mas_tarde', 'SELECT')"
    assert practice.execute_rows(readable) == [(True,)]
    practice.execute("DROP TABLE public.mas_tarde")
    practice.run(1)


def test_a_dba_an_application_and_a_reader_none_of_them_superuser(postgres: EmbeddedPostgres) -> None:
    """The rights of include/demo/roles.sql, given by a DBA, reach the tables of the next migration."""
    name, dba, app = "rights_without_superuser", "dba_sin_super", "app_sin_super"
    roles = {"reader": "lector_sin_super", "catalog": "catalogo_sin_super"}
    with closing(postgres.connect()) as db, db.cursor() as cursor:
        db.autocommit = True
        cursor.execute(f"CREATE ROLE {dba} LOGIN CREATEROLE PASSWORD 'x'")
        cursor.execute(f"CREATE ROLE {app} LOGIN PASSWORD 'x'")
        cursor.execute(f"GRANT {app} TO {dba}")
        cursor.execute(f"CREATE DATABASE {name} OWNER {dba} TEMPLATE template0")
    try:
        postgres.psql(name, f"GRANT CREATE ON SCHEMA public TO {app}; GRANT CONNECT ON DATABASE {name} TO {app}",
                      user=dba, password="x")  # fmt: skip
        tables = "CREATE TABLE public.django_migrations (id int); CREATE TABLE public.django_session (id int);"
        postgres.psql(name, tables, user=app, password="x")
        passwords = {f"{role}_password": "x" for role in roles}
        for _ in range(2):
            postgres.psql(name, CHECKOUT / "include/demo/roles.sql", roles | passwords, user=dba, password="x")
        postgres.psql(name, "CREATE TABLE public.nueva (id int)", user=app, password="x")
        assert postgres.psql(name, "SELECT count(*) FROM public.nueva", user=roles["reader"], password="x") == "0\n"
        with pytest.raises(PostgresError, match="permission denied"):
            postgres.psql(name, "SELECT * FROM public.django_session", user=roles["reader"], password="x")
        engine = create_engine(postgres.uri(name, roles["catalog"], "x"), poolclass=NullPool)
        with engine.begin() as connection:
            assert migrate.upgrade(connection) == migrate.newest()
    finally:
        database.drop(postgres, name)
        with closing(postgres.connect()) as db, db.cursor() as cursor:
            db.autocommit = True
            for role in (*roles.values(), app, dba):
                cursor.execute(f"DROP ROLE IF EXISTS {role}")
