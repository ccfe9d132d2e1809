"""A database of the Django project in tests/django_project, made by its migrations and filled through its models."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import closing
from datetime import date, time, timedelta
from decimal import Decimal
from typing import Any

import pytest
from psycopg2 import sql
from sqlalchemy import NullPool, create_engine

from clinic_backups.base.connections import parse
from clinic_backups.catalog import migrate
from clinic_backups.catalog.catalog_database import CatalogDatabase
from clinic_backups.catalog.respaldo_rights import RespaldoRights
from include.demo import database
from include.demo.postgres import EmbeddedPostgres
from tests.postgres_fixtures import DemoDatabase, copy_of

CLINICS, PATIENTS = 3, 20
APP, APP_PASSWORD = "clinica_app", "only for tests"
"""The role of the application: it owns its tables, and is no superuser."""
TEMPLATE = "django_template"


@pytest.fixture(scope="session")
def django_template(postgres: EmbeddedPostgres) -> DemoDatabase:
    """Migrated and filled once. Nobody may stay connected."""
    with closing(postgres.connect()) as connection, connection.cursor() as cursor:
        connection.autocommit = True
        cursor.execute(sql.SQL("CREATE DATABASE {} TEMPLATE template0").format(sql.Identifier(TEMPLATE)))
        cursor.execute(f"CREATE ROLE {APP} LOGIN NOSUPERUSER PASSWORD %s", (APP_PASSWORD,))
    with closing(postgres.connect(TEMPLATE)) as connection, connection, connection.cursor() as cursor:
        cursor.execute(f"GRANT USAGE, CREATE ON SCHEMA public TO {APP}")
    set_up(postgres, TEMPLATE)
    from django.core.management import call_command

    call_command("migrate", verbosity=0)
    fill()
    disconnect()
    template = DemoDatabase(postgres, TEMPLATE, database.create_roles(postgres, TEMPLATE))
    with closing(template.connect()) as connection, connection, connection.cursor() as cursor:
        cursor.execute(f"GRANT CONNECT ON DATABASE {TEMPLATE} TO {APP}")  # roles.sql takes it from everybody
    engine = create_engine(template.catalog_uri, poolclass=NullPool)
    with engine.begin() as db:
        migrate.upgrade(db)
    catalog = CatalogDatabase(parse("backup_catalog", template.catalog_uri))
    RespaldoRights(APP).apply(catalog)
    catalog._engine.dispose()
    return template


@pytest.fixture
def django_database(django_template: DemoDatabase) -> Iterator[DemoDatabase]:
    """A copy for one test, to which Django's connections lead."""
    with copy_of(django_template) as made:
        set_up(made.postgres, made.name)
        try:
            yield made
        finally:
            disconnect()


def set_up(postgres: EmbeddedPostgres, name: str) -> None:
    """Django in this process, as the application's role in that database."""
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "tests.django_project.settings")
    import django
    from django.db import connections

    django.setup()
    host, port = postgres.uri().rpartition("@")[2].partition("/")[0].split(":")
    for alias in connections:
        place = {"NAME": name, "USER": APP, "PASSWORD": APP_PASSWORD, "HOST": host, "PORT": port}
        connections[alias].close()
        connections[alias].settings_dict.update(place)


def disconnect() -> None:
    """Close what Django has open: a database in use cannot be copied or dropped."""
    from django.db import connections

    connections.close_all()


def fill() -> None:
    """Clinics with people and all that belongs to them, through the models."""
    for clinic in range(1, CLINICS + 1):
        _clinic(clinic)


def _clinic(number: int) -> None:
    from django.contrib.auth.models import Group, Permission

    from tests.django_project.auditoria.models import Bitacora
    from tests.django_project.citas.models import Horario
    from tests.django_project.comun.models import Clinica
    from tests.django_project.inventario.models import Inventario
    from tests.django_project.profesionales.models import Odontologo, Recepcionista
    from tests.django_project.usuarios.models import Usuario

    clinic = Clinica.objects.create(
        nombre=f"Clínica Ñandú N.º {number}", direccion="Calle 1\nLa Paz", telefono="1", correo=f"c{number}@x.example",
        activa=number != 3, configuracion={"color": "#fff", "filas": [1, None]},
    )  # fmt: skip
    people: dict[str, Any] = {}
    for kind in ("administrador", "odontologo", "recepcionista"):
        person = Usuario.objects.create_user(
            f"{kind}.{number}", f"{kind}.{number}@x.example", "clave", first_name="Ana", last_name=f"D'Ávila {number}",
            tipo=kind, clinica=clinic, is_staff=kind == "administrador", preferencias={"tema": "oscuro"},
        )  # fmt: skip
        people[kind] = person
        person.groups.add(Group.objects.get_or_create(name=kind.title())[0])
        person.user_permissions.add(Permission.objects.order_by("id")[number])
        Bitacora.objects.create(accion="alta", modelo="Usuario", objeto_id=str(person.pk), ip="203.0.113.9",
                                agente_usuario="x", usuario=person)  # fmt: skip
    dentist = Odontologo.objects.create(
        especialidad="Ortodoncia", numero_licencia=f"L{number}", dias_laborables=[1, 3],
        tarifa_consulta=Decimal("30.5"),
        duracion_cita=timedelta(minutes=40), firma=b"\x00\xff", clinica=clinic, usuario=people["odontologo"],
    )  # fmt: skip
    Recepcionista.objects.create(hora_entrada=time(7, 30), hora_salida=time(19, 45, 30, 5), clinica=clinic,
                                 usuario=people["recepcionista"])  # fmt: skip
    Horario.objects.create(odontologo=dentist, dia_semana=1, hora_inicio=time(8), hora_fin=time(13))
    for item in range(10):
        Inventario.objects.create(codigo=f"I{item}", nombre="Guantes", cantidad=item, precio_unitario=Decimal("0.05"),
                                  etiquetas=["frágil", None], clinica=clinic)  # fmt: skip
    for patient in range(PATIENTS):
        _patient(clinic, dentist, people["recepcionista"], patient)


def _patient(clinic: Any, dentist: Any, receptionist: Any, number: int) -> None:
    from tests.django_project.citas.models import Consulta, Recordatorio
    from tests.django_project.historial_clinico.models import HistorialClinico, Tratamiento
    from tests.django_project.sistema_pagos.models import Factura, Pago, PagoEnLinea
    from tests.django_project.usuarios.models import Paciente

    patient = Paciente.objects.create(
        nombres="José", apellidos='Núñez "Pepe"', cedula=f"C{number}", fecha_nacimiento=date(1990, 1, 1 + number),
        sexo="M", telefono="2", correo=None if number % 2 else f"p{number}@x.example", direccion="a,b;\\N",
        alergias=["látex", 'con "comillas"'], contacto_emergencia={"tel": None}, notas="línea\nuna\ttab",
        clinica=clinic, responsable=Paciente.objects.filter(clinica=clinic).first() if number > 15 else None,
    )  # fmt: skip
    record = HistorialClinico.objects.create(fecha_apertura=date(2026, 1, 1), antecedentes={}, observaciones="",
                                             radiografia=bytes(range(256)), paciente=patient)  # fmt: skip
    visit = Consulta.objects.create(fecha=date(2026, 2, 1), hora=time(9), duracion=timedelta(minutes=30), motivo="X",
                                    paciente=patient, odontologo=dentist, registrada_por=receptionist)  # fmt: skip
    first = Tratamiento.objects.create(descripcion="Endodoncia", piezas=[11, 48], costo=Decimal("120.10"),
                                       fecha=date(2026, 2, 1), historial=record, consulta=visit)  # fmt: skip
    Tratamiento.objects.create(descripcion="Corona", costo=Decimal("300"), fecha=date(2026, 3, 1), historial=record,
                               anterior=first)  # fmt: skip
    Recordatorio.objects.create(canal="correo", programado_para=visit.registrada_en, consulta=visit)
    invoice = Factura.objects.create(numero=f"F-{clinic.pk}-{number}", subtotal=Decimal("100"), impuesto=Decimal("21"),
                                     lineas=[{"n": 1}], consulta=visit)  # fmt: skip
    payment = Pago.objects.create(monto=Decimal("121"), metodo="tarjeta", fecha=date(2026, 2, 1), factura=invoice,
                                  recibido_por=receptionist)  # fmt: skip
    PagoEnLinea.objects.create(pasarela="x", respuesta={"ok": True}, comision=0.1, pago=payment)
