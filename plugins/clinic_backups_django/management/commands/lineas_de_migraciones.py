"""``manage.py lineas_de_migraciones``: the lines of include/sql/drift.txt that the project's migrations need."""

from __future__ import annotations

from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from clinic_backups_django.migration_lines import new_lines


class Command(BaseCommand):
    help = (
        "Escribe las líneas de include/sql/drift.txt que corresponden a las migraciones del proyecto: columnas y tablas"
        " con otro nombre, y el valor de las columnas añadidas."
    )
    requires_system_checks: list[str] = []

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--archivo", type=Path, help="el drift.txt del paquete de respaldos: se omiten sus líneas")
        parser.add_argument("--escribir", action="store_true", help="añade las líneas que faltan al final del archivo")
        parser.add_argument("--esquema", default="public", help="el esquema de las tablas (public)")

    def handle(self, *args: Any, **options: Any) -> None:
        path: Path | None = options["archivo"]
        if options["escribir"] and path is None:
            raise CommandError("Para escribir las líneas, indique el archivo con --archivo include/sql/drift.txt.")
        text = path.read_text(encoding="utf-8-sig") if path is not None and path.exists() else ""
        missing = new_lines(text.split("\n"), options["esquema"])
        for line in missing:
            self.stdout.write(line)
        if options["escribir"] and path is not None and missing:
            ended = text if not text or text.endswith("\n") else f"{text}\n"
            path.write_text(ended + "".join(f"{line}\n" for line in missing), encoding="utf-8")
        self.stderr.write(f"{len(missing)} líneas nuevas." if missing else "No hay líneas nuevas.")
