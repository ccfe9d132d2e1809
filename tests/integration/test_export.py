"""``export`` writes what PostgreSQL itself says, in every format."""

from __future__ import annotations

import csv
import io
import json
import re
import sqlite3
import tarfile
import zipfile
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from decimal import Decimal
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from clinic_backups.archive.encryption import ENCRYPTION, generate_identity, load_identities
from clinic_backups.export import xlsx
from clinic_backups.export.content import is_exact, names_for
from tests.integration.test_cli import run as run
from tests.integration.test_diff import change
from tests.integration.test_diff import life as life
from tests.postgres_fixtures import DemoDatabase

PATIENTS, STOCK = "public.usuarios_paciente", "public.inventario_inventario"
OF_PATIENT = "paciente_id IN (SELECT id FROM usuarios_paciente WHERE clinica_id = 1)"
OF_USER = "usuario_id IN (SELECT id FROM usuarios_usuario WHERE clinica_id = 1)"
OF_VISIT = f"consulta_id IN (SELECT id FROM citas_consulta WHERE {OF_PATIENT})"
OF_INVOICE = f"factura_id IN (SELECT id FROM sistema_pagos_factura WHERE {OF_VISIT})"
WHOSE = {
    "auditoria_bitacora": OF_USER,
    "citas_consulta": OF_PATIENT,
    "citas_horario": "odontologo_id IN (SELECT id FROM profesionales_odontologo WHERE clinica_id = 1)",
    "comun_clinica": "id = 1",
    "historial_clinico_historialclinico": OF_PATIENT,
    "historial_clinico_tratamiento": "historial_id IN (SELECT id FROM historial_clinico_historialclinico"
    f" WHERE {OF_PATIENT})",
    "inventario_inventario": "clinica_id = 1",
    "profesionales_odontologo": "clinica_id = 1",
    "profesionales_recepcionista": "clinica_id = 1",
    "sistema_pagos_factura": OF_VISIT,
    "sistema_pagos_pago": OF_INVOICE,
    "sistema_pagos_pagoenlinea": f"pago_id IN (SELECT id FROM sistema_pagos_pago WHERE {OF_INVOICE})",
    "usuarios_paciente": "clinica_id = 1",
    "usuarios_usuario": "clinica_id = 1",
    "usuarios_usuario_groups": OF_USER,
}
"""The clinic's rows by table, without the extracts."""
Rows = dict[str, Counter[tuple[Any, ...]]]
ODD = (
    f"UPDATE {PATIENTS} SET notas = '=1+1', correo = '', direccion = E'a \"b\", c\\r\\nd\\te' WHERE clinica_id = 1 AND id"
    f" = (SELECT min(id) FROM {PATIENTS} WHERE clinica_id = 1)",
    f"UPDATE {PATIENTS} SET notas = NULL, correo = NULL, direccion = E'@x\\x01 _x0041_ ñ 😀' WHERE id"
    f" = (SELECT max(id) FROM {PATIENTS} WHERE clinica_id = 1)",
    "UPDATE sistema_pagos_pagoenlinea SET comision = 0.1::float8 + 0.2 WHERE id = (SELECT min(id::text)::uuid FROM"
    f" sistema_pagos_pagoenlinea WHERE {WHOSE['sistema_pagos_pagoenlinea']})",
    "UPDATE sistema_pagos_pagoenlinea SET comision = 'NaN' WHERE id = (SELECT max(id::text)::uuid FROM"
    f" sistema_pagos_pagoenlinea WHERE {WHOSE['sistema_pagos_pagoenlinea']})",
)


def expected(database: DemoDatabase, value: Callable[[str, str | None], Any]) -> Rows:
    """All rows of the clinic. ``value`` makes of a type and PostgreSQL's own text what a file should have."""
    found: Rows = {}
    with closing(database.connect()) as db, db.cursor() as cursor:
        cursor.execute("SET TimeZone = 'UTC'; SET IntervalStyle = 'postgres'; SET bytea_output = 'hex'")
        for table, whose in WHOSE.items():
            cursor.execute(
                "SELECT attname, format_type(atttypid, NULL) FROM pg_attribute WHERE attrelid = %s::regclass"
                " AND attnum > 0 AND NOT attisdropped AND attgenerated = '' ORDER BY attnum",
                (f"public.{table}",),
            )
            columns = cursor.fetchall()
            texts = ", ".join(f'"{name}"::text' for name, _ in columns)
            cursor.execute(f"SELECT {texts} FROM public.{table} WHERE {whose}")
            types = [kind for _, kind in columns]
            found[f"public.{table}"] = Counter(
                tuple(value(kind, text) for kind, text in zip(types, row, strict=True)) for row in cursor.fetchall()
            )
    return found


def in_csv(kind: str, text: str | None) -> Any:
    return text[0] if text is not None and kind == "boolean" else text


def in_json(kind: str, text: str | None) -> Any:
    if text is None:
        return None
    if kind == "boolean":
        return text == "true"
    if kind in {"smallint", "integer", "bigint", "double precision", "numeric"} and text != "NaN":
        return Decimal(text)
    return text


def in_sqlite(kind: str, text: str | None) -> Any:
    if text is None or text == "NaN":
        return text
    if kind == "boolean":
        return int(text == "true")
    if kind in {"smallint", "integer", "bigint"}:
        return int(text)
    if kind == "double precision":
        return float(text)
    return bytes.fromhex(text[2:]) if kind == "bytea" else text


def in_xlsx(kind: str, text: str | None) -> Any:
    if not text:
        return ""
    if kind == "boolean":
        return text == "true"
    if kind in {"smallint", "integer", "bigint", "double precision", "numeric"} and text != "NaN":
        return Decimal(text) if len(text.replace(".", "").strip("-0")) <= 15 else text
    return text


def read_csv(path: Path) -> Rows:
    """Taken apart by a reader of its own: Python's does not tell NULL and '' apart."""
    found: Rows = {}
    for file in path.glob("*.csv"):
        text, row, rows, at = file.read_bytes().decode(), [], [], 0
        field = re.compile(r'("(?:[^"]|"")*"|[^,"\n]*)([,\n])')
        while at < len(text):
            match = field.match(text, at)
            assert match
            value, end = match.groups()
            row.append(value[1:-1].replace('""', '"') if value[:1] == '"' else value or None)
            at = match.end()
            if end == "\n":
                rows.append(tuple(row))
                row = []
        assert [["" if v is None else v for v in each] for each in rows] == list(
            csv.reader(io.StringIO(text, newline=""))
        )
        found[file.stem] = Counter(rows[1:])
    return found


def read_json(path: Path) -> Rows:
    return {
        file.stem: Counter(
            tuple(json.loads(line, parse_float=Decimal, parse_int=Decimal).values())
            for line in file.read_bytes().decode().split("\n")[:-1]
        )
        for file in path.glob("*.jsonl")
    }


def read_sqlite(path: Path) -> Rows:
    with closing(sqlite3.connect(path)) as db:
        names = [name for (name,) in db.execute("SELECT name FROM sqlite_schema") if name.startswith("public.")]
        return {name: Counter(db.execute(f'SELECT * FROM "{name}"').fetchall()) for name in names}


def sheets_of(path: Path) -> dict[str, list[list[Any]]]:
    """Sheets by name, as the standard says, without the library that wrote them."""
    space = "{http://schemas.openxmlformats.org/spreadsheetml/2006/main}"
    found = {}
    with zipfile.ZipFile(path) as book:
        names = [
            each.attrib["name"] for each in ElementTree.fromstring(book.read("xl/workbook.xml")).iter(f"{space}sheet")
        ]
        for number, name in enumerate(names, start=1):
            rows = []
            for row in ElementTree.fromstring(book.read(f"xl/worksheets/sheet{number}.xml")).iter(f"{space}row"):
                cells = {}
                for cell in row:
                    assert cell.find(f"{space}f") is None, "a formula"
                    cells[re.sub(r"\d", "", cell.attrib["r"])] = _cell(cell, space)
                rows.append((int(row.attrib["r"]), cells))
            letters = list(rows[0][1]) if rows else []
            found[name] = [[cells.get(letter, "") for letter in letters] for _, cells in rows]
    return found


def _cell(cell: ElementTree.Element, space: str) -> Any:
    if cell.attrib.get("t") == "inlineStr":
        text = "".join(each.text or "" for each in cell.iter(f"{space}t"))
        return re.sub("_x([0-9A-F]{4})_", lambda match: chr(int(match[1], 16)), text)
    value = cell.findtext(f"{space}v")
    assert value is not None
    return value == "1" if cell.attrib.get("t") == "b" else Decimal(value)


def rows_in(path: Path, places: dict[str, list[str]]) -> Rows:
    sheets = sheets_of(path)
    return {name: Counter(tuple(row) for each in own for row in sheets[each][1:]) for name, own in places.items()}


@pytest.mark.parametrize("kind_of_backup", ["full", "incremental"])
def test_every_format_has_what_postgresql_says(
    kind_of_backup: str, life: Any, demo_database: DemoDatabase, tmp_path: Path
) -> None:
    change(demo_database, *ODD)
    (record,) = life("backup", "--clinic", "1", "--json").json()
    if kind_of_backup == "incremental":
        change(
            demo_database,
            f"UPDATE {STOCK} SET cantidad = 3 WHERE id = (SELECT max(id) FROM {STOCK} WHERE clinica_id = 1)",
        )
        (record,) = life("backup", "--clinic", "1", "--json").json()
    assert record["kind"] == kind_of_backup
    now = {key: expected(demo_database, value) for key, value in VALUES.items()}
    change(demo_database, f"UPDATE {STOCK} SET cantidad = 4711 WHERE clinica_id = 1")
    for kind, read in READERS.items():
        out = tmp_path / f"out.{kind}"
        said = life("export", "--backup", record["backup_id"], "--format", kind, "--output", str(out), "--json").json()
        found = read(out) if read else rows_in(out, said["places"])
        assert found.keys() == now[kind].keys()
        for table, rows in now[kind].items():
            assert found[table] == rows, (kind, table)
            assert said["rows"][table] == rows.total()
    assert not list(tmp_path.glob(".export-*"))


VALUES: dict[str, Callable[[str, str | None], Any]] = {
    "csv": in_csv, "json": in_json, "sqlite": in_sqlite, "xlsx": in_xlsx,
}  # fmt: skip
READERS: dict[str, Callable[[Path], Rows] | None] = {
    "csv": read_csv, "json": read_json, "sqlite": read_sqlite, "xlsx": None,
}  # fmt: skip
