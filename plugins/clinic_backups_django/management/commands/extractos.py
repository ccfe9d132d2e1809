"""``manage.py extractos LINEAS --carpeta include/sql/extract``."""

from __future__ import annotations

import sys
from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from clinic_backups_django.conf import conf
from clinic_backups_django.extracts import LineError, extracts


class Command(BaseCommand):
    """Writes extracts. Existing files are kept."""

    help = "Escribe include/sql/extract desde líneas como historial_clinico.Tratamiento: historial__paciente__clinica"

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Define the options."""
        parser.add_argument("lineas", help="archivo con una línea por modelo; - lee la entrada")
        parser.add_argument("--carpeta", type=Path, required=True, help="la carpeta include/sql/extract")
        parser.add_argument("--esquema", default="public", help="esquema de las tablas")

    def handle(self, *_: Any, **options: Any) -> None:
        """:raises CommandError: a line is wrong. Nothing was written."""
        given = options["lineas"]
        try:
            text = sys.stdin.read() if given == "-" else Path(given).read_text(encoding="utf-8")
            found = extracts(text, conf().clinic_model, options["esquema"])
        except (OSError, LineError) as error:
            raise CommandError(str(error)) from None
        options["carpeta"].mkdir(parents=True, exist_ok=True)
        for extract in found:
            file = options["carpeta"] / extract.file_name(options["esquema"])
            self.stdout.write(f"{file.name}: {_written(file, extract.query)}")


def _written(file: Path, query: str) -> str:
    try:
        with file.open("x", encoding="utf-8") as new:
            new.write(query)
    except FileExistsError:
        same = file.read_text(encoding="utf-8") == query
        return "ya estaba" if same else "se conserva: es distinto. Bórrelo antes para escribirlo de nuevo"
    return "escrito"
