"""``manage.py crear_respaldo --clinica N | --todas``."""

from __future__ import annotations

from argparse import ArgumentParser
from typing import Any

from django.apps import apps
from django.core.exceptions import FieldDoesNotExist
from django.core.management.base import BaseCommand, CommandError

from clinic_backups_django.client import BackupsClient, BackupsError, client
from clinic_backups_django.conf import conf


class Command(BaseCommand):
    """Requests backups. Each becomes a run in Airflow."""

    help = "Pide un respaldo de una clínica, de varias o de todas las activas."

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Define the options."""
        which = parser.add_mutually_exclusive_group(required=True)
        which.add_argument("--clinica", type=_id, action="append", help="la clínica: número u otra clave; repetible")
        which.add_argument("--todas", action="store_true", help="todas las clínicas activas")
        parser.add_argument("--tipo", choices=("auto", "completo", "incremental"), default="auto")
        parser.add_argument("--notas", default="", help="una línea; sin datos de pacientes")

    def handle(self, *_: Any, **options: Any) -> None:
        """:raises CommandError: a request was refused. The others were made."""
        service, failed = client(), 0
        clinics = options["clinica"] or _active()
        if not clinics:
            raise CommandError("No hay clínicas activas: no se pidió ningún respaldo.")
        for clinic_id in clinics:
            failed += not self._ask(service, clinic_id, options)
        if failed:
            raise CommandError(f"{failed} de {len(clinics)} respaldos no se pudieron pedir.")

    def _ask(self, service: BackupsClient, clinic_id: int | str, options: dict[str, Any]) -> bool:
        try:
            run = service.back_up(clinic_id, tipo=options["tipo"], notas=options["notas"])
        except BackupsError as error:
            self.stderr.write(f"Clínica {clinic_id}: {error.message}")
            return False
        self.stdout.write(f"Clínica {clinic_id}: se pidió el respaldo ({run.get('run_id', '')}).")
        return True


def _id(value: Any) -> int | str:
    """A clinic's key as the API takes it: a number, or the text of any other key."""
    text = str(value)
    return int(text) if text.isascii() and text.isdecimal() and text == str(int(text)) else text


def _active() -> list[int | str]:
    model = apps.get_model(conf().clinic_model)
    found = model._default_manager.order_by("pk")
    try:
        model._meta.get_field("activa")
    except FieldDoesNotExist:
        active = found
    else:
        active = found.filter(activa=True)
    return [_id(key) for key in active.values_list("pk", flat=True)]
