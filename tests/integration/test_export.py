"""``export`` writes what PostgreSQL itself says, in every format."""

from __future__ import annotations

import csv
import errno
import io
import json
import re
import resource
import sqlite3
import tarfile
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pyrage
import pytest
import xlsxwriter

from clinic_backups.archive.encryption import ENCRYPTION, generate_identity, load_identities
from clinic_backups.base.errors import PermanentError
from clinic_backups.base.table import Column, Table
from clinic_backups.catalog.forgotten import ForgottenOfClinic
from clinic_backups.export import xlsx
from clinic_backups.export.content import Exported, is_exact, names_for
from clinic_backups.export.export import Export
from clinic_backups.export.text_files import CsvFolder
from clinic_backups.export.xlsx import XlsxFile
from clinic_backups.restore.archives import Archives
from clinic_backups.stores.configured import Stores
from clinic_backups.stores.file import FileStore
from tests.fleet import flip
from tests.integration.test_cli import run as run
from tests.integration.test_diff import change
from tests.integration.test_diff import life as life
from tests.postgres_fixtures import DemoDatabase
from tests.rig import Rig

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
    f"UPDATE {PATIENTS} SET notas = '=1+1', correo = '', direccion = E'a \"b\", c\\r\\nd\\te' WHERE clinica_id = 1"
    f" AND id = (SELECT min(id) FROM {PATIENTS} WHERE clinica_id = 1)",
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
            texts = ", ".join(f"CASE WHEN {name} IS NOT NULL THEN format('%s', {name}) END" for name, _ in columns)
            cursor.execute(f"SELECT {texts} FROM public.{table} WHERE {whose}")
            types = [kind for _, kind in columns]
            found[f"public.{table}"] = Counter(
                tuple(value(kind, text) for kind, text in zip(types, row, strict=True)) for row in cursor.fetchall()
            )
    return found


def in_csv(_: str, text: str | None) -> Any:
    return text


def in_json(kind: str, text: str | None) -> Any:
    if text is None:
        return None
    if kind == "boolean":
        return text == "t"
    if kind in {"smallint", "integer", "bigint", "double precision", "numeric"} and text != "NaN":
        return Decimal(text)
    return text


def in_sqlite(kind: str, text: str | None) -> Any:
    if text is None or text == "NaN":
        return text
    if kind == "boolean":
        return int(text == "t")
    if kind in {"smallint", "integer", "bigint"}:
        return int(text)
    if kind == "double precision":
        return float(text)
    return bytes.fromhex(text[2:]) if kind == "bytea" else text


def in_xlsx(kind: str, text: str | None) -> Any:
    if not text:
        return text
    if kind == "boolean":
        return text == "t"
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
            found[name] = [[cells.get(letter) for letter in letters] for _, cells in rows]
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


def test_more_rows_than_a_sheet_has_and_texts_longer_than_a_cell(
    life: Any, demo_database: DemoDatabase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    long = "=ñ😀" * 20_000
    with closing(demo_database.connect()) as db, db, db.cursor() as cursor:
        cursor.execute(
            f"UPDATE {PATIENTS} SET notas = %s WHERE id = (SELECT max(id) FROM {PATIENTS} WHERE clinica_id = 1)",
            (long,),
        )
    life("backup", "--clinic", "1")
    monkeypatch.setattr(xlsx, "SHEET_ROWS", 16)
    out = tmp_path / "out.xlsx"
    words = ("--clinic", "1", "--table", PATIENTS, "--format", "xlsx", "--output", str(out))
    said = life("export", *words).out
    assert (
        f"{PATIENTS} has more rows than an Excel sheet: they are in {PATIENTS}, {PATIENTS} (2), {PATIENTS} (3)." in said
    )
    assert "1 texts are too long for a cell" in said
    sheets = sheets_of(out)
    assert list(sheets) == ["LEEME", PATIENTS, f"{PATIENTS} (2)", f"{PATIENTS} (3)", "Long texts"]
    patients = [row for name in list(sheets)[1:4] for row in sheets[name][1:]]
    assert [len(sheets[name]) for name in list(sheets)[1:4]] == [16, 16, 11]
    assert len({row[0] for row in patients}) == 40
    _, *parts = sheets["Long texts"]
    assert "".join(part[4] for part in parts) == long
    (sheet, row, column) = parts[0][:3]
    place = sheets[sheet][0].index(column)
    assert sheets[sheet][int(row) - 1][place] == f"[Long texts: 2-{len(parts) + 1}]"
    readme = [row[0] for row in sheets["LEEME"]]
    assert "Solo están las tablas que se pidieron." in readme
    assert any("1 textos no caben" in line for line in readme)
    assert any(f"La tabla {PATIENTS} sigue en otras hojas" in line for line in readme)


@pytest.mark.parametrize("language", ["es", "en"])
def test_the_readme_names_tables_columns_types_and_rows(
    language: str, life: Any, demo_database: DemoDatabase, tmp_path: Path
) -> None:
    change(demo_database, *ODD)
    life("backup", "--clinic", "1")
    out = tmp_path / "out"
    words = ("--clinic", "1", "--output", str(out), "--format", "csv")
    life("export", *words, CLINIC_BACKUPS_OPERATOR_LANGUAGE=language)
    readme = (out / {"es": "LEEME.txt", "en": "README.txt"}[language]).read_text()
    assert f"{PATIENTS}: 40 {'filas' if language == 'es' else 'rows'}" in readme
    for line in ("  In: ", "  En: "):
        assert (line + f"{PATIENTS}.csv\n" in readme) == (line == {"es": "  En: ", "en": "  In: "}[language])
    assert "  alergias: text[]\n" in readme
    assert "  precio_unitario: numeric(10,2)\n" in readme
    assert ("la base las calcula: total" if language == "es" else "the database computes them: total") in readme
    assert out.stat().st_mode & 0o777 == 0o700
    assert {each.stat().st_mode & 0o777 for each in out.iterdir()} == {0o600}
    assert ",=1+1," in (out / f"{PATIENTS}.csv").read_text()


@pytest.mark.parametrize("kind", ["csv", "xlsx", "sqlite", "json"])
def test_nothing_is_written_over_and_nothing_is_left(
    kind: str, life: Any, demo_database: DemoDatabase, tmp_path: Path
) -> None:
    (record,) = life("backup", "--clinic", "1", "--json").json()
    place = tmp_path / "place"
    place.mkdir()
    out = place / "out"
    words = ("export", "--backup", record["backup_id"], "--format", kind, "--output", str(out))
    more = ("--encrypt-to", generate_identity()[1])
    out.write_text("mine")
    for each in ((), more):
        assert "cannot be made" in life(*words, *each, code=2).err
    assert out.read_text() == "mine"
    out.unlink()
    for each in ((), more):
        assert "The backup has no table" in life(*words, *each, "--table", "public.inventario", code=2).err
        assert list(place.iterdir()) == []
    flip(FileStore(tmp_path / "store"), life("show", record["backup_id"], "--json").json()["archive_key"])
    for each in ((), more):
        life(*words, *each, code=1)
        assert list(place.iterdir()) == []


@pytest.mark.parametrize("kind", ["csv", "xlsx", "sqlite", "json"])
def test_a_fault_while_it_writes_leaves_nothing(
    kind: str, life: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    life("backup", "--clinic", "1")
    place = tmp_path / "place"
    place.mkdir()
    rows = iter(range(30))

    def values(self: Exported, data: bytes) -> Any:
        if next(rows, None) is None or self.rows > 5:
            raise OSError(errno.ENOSPC, "No space left on device")
        return before(self, data)

    before = Exported.values
    monkeypatch.setattr(Exported, "values", values)
    if kind == "csv":
        monkeypatch.setattr(CsvFolder, "write", lambda self, name, data: values(self.tables[name], data))
    done = life("export", "--clinic", "1", "--format", kind, "--output", str(place / "out"), code=1)
    assert "out cannot be written: No space left on device" in done.err
    assert list(place.iterdir()) == []


@pytest.mark.parametrize("sealed", [False, True], ids=["plain", "encrypted"])
@pytest.mark.parametrize("kind", ["csv", "xlsx", "sqlite", "json"])
def test_a_full_disk_at_any_moment_leaves_nothing(
    kind: Any, sealed: bool, demo_database: DemoDatabase, tmp_path: Path
) -> None:
    """The limit of a file's size grows until the export fits: SQLite, Excel's and age's libraries have own errors."""
    rig = Rig(demo_database, FileStore(tmp_path / "store"))
    record = rig.run(1)
    archives = Archives(Stores.of(rig.store), [pyrage.x25519.Identity.from_str(rig.identity)])
    export = Export(archives, "es", forgotten=lambda _: ForgottenOfClinic({}))
    place = tmp_path / "place"
    place.mkdir()
    limits = iter(int(1_000 * 1.2**step) for step in range(60))
    failures = 0
    while True:
        try:
            with limited(next(limits)):
                export.run(record, kind, place / "out", recipients=[generate_identity()[1]] if sealed else [])
            break
        except PermanentError as error:
            assert "cannot be written: " in error.message
            assert list(place.iterdir()) == []
            failures += 1
    assert failures > 3
    assert [each.name for each in place.iterdir()] == ["out"]


def test_a_disk_that_is_full_when_the_excel_file_is_packed(
    demo_database: DemoDatabase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The sheets are written, and the file that is made of them does not fit."""
    rig = Rig(demo_database, FileStore(tmp_path / "store"))
    record = rig.run(1)
    close = xlsxwriter.Workbook.close

    def packed(book: xlsxwriter.Workbook) -> None:
        with limited(1_000):
            close(book)

    monkeypatch.setattr(xlsxwriter.Workbook, "close", packed)
    archives = Archives(Stores.of(rig.store), [pyrage.x25519.Identity.from_str(rig.identity)])
    export = Export(archives, "es", forgotten=lambda _: ForgottenOfClinic({}))
    place = tmp_path / "place"
    place.mkdir()
    with pytest.raises(PermanentError, match="out cannot be written: File too large"):
        export.run(record, "xlsx", place / "out")
    assert list(place.iterdir()) == []


@contextmanager
def limited(size_bytes: int) -> Iterator[None]:
    """No file of this process may become larger. The database's server is another process."""
    before, most = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, most))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (before, most))


@pytest.mark.parametrize("kind", ["json", "sqlite"])
def test_encrypted_to_a_recipient(kind: str, life: Any, demo_database: DemoDatabase, tmp_path: Path) -> None:
    life("backup", "--clinic", "1")
    secret, recipient = generate_identity()
    out, key, opened = tmp_path / "out.age", tmp_path / "key.txt", io.BytesIO()
    key.touch(0o600)
    key.write_text(secret)
    life("export", "--clinic", "1", "--format", kind, "--output", str(out), "--encrypt-to", recipient)
    assert out.stat().st_mode & 0o777 == 0o600
    with out.open("rb") as file:
        ENCRYPTION.open(file, opened, load_identities(key))
    if kind == "json":
        opened.seek(0)
        with tarfile.open(fileobj=opened) as tar:
            tar.extractall(tmp_path, filter="data")
        found = read_json(tmp_path / "export")
    else:
        (tmp_path / "export").write_bytes(opened.getvalue())
        found = read_sqlite(tmp_path / "export")
    assert found == expected(demo_database, VALUES[kind])


def test_which_backup(life: Any, demo_database: DemoDatabase, tmp_path: Path) -> None:
    (first,) = life("backup", "--clinic", "1", "--json").json()
    before = expected(demo_database, in_csv)
    change(demo_database, f"DELETE FROM {STOCK} WHERE clinica_id = 1")
    life("backup", "--clinic", "1")
    out = ("--format", "csv", "--output", str(tmp_path / "out"))
    life("export", "--clinic", "1", "--as-of", first["finished_at"], *out)
    assert read_csv(tmp_path / "out") == before
    for words, said in (
        ((), "No backup is named"),
        (("--as-of", "2026-01-01"), "No backup is named"),
        (("--backup", first["backup_id"], "--as-of", "2026-01-01"), "both say which backup"),
        (("--clinic", "1", "--as-of", "ayer"), "is not a time"),
    ):
        assert said in life("export", *words, *out, code=2).err
    assert "has no backup" in life("export", "--clinic", "2", "--backup", first["backup_id"], *out, code=1).err


@pytest.mark.parametrize(
    ("text", "exact"),
    [
        ("0", True), ("-12.50", True), ("999999999999999", True), ("9007199254740993", False), ("1e+20", True),
        ("0.30000000000000004", False), ("100000000000000000000", True), ("NaN", False), ("-Infinity", False),
        ("1e-320", False), ("0.000", True), ("100000000000000000000000000000001", False),
        ("-1234567890123.450000000000000000000", True), ("1e400", False),
    ],
)  # fmt: skip
def test_which_numbers_a_double_holds(text: str, exact: bool) -> None:
    assert is_exact(text) is exact
    if exact:
        assert Decimal(repr(float(text))) == Decimal(text)


def test_names_are_safe_and_unique() -> None:
    names = names_for(["a.B", "a.b", "../x", "a/b", "a_b", "sqlite_a.b", "x" * 200, "x" * 199], longest=20)
    assert list(names.values()) == [
        "a.B", "a.b~2", "_x", "a_b", "a_b~2", "_sqlite_a.b", "x" * 20, "x" * 18 + "~2",
    ]  # fmt: skip


def test_any_name_is_a_name_of_a_sheet(tmp_path: Path) -> None:
    """Excel's own rules are checked by the library; a character beyond the first plane counts twice there."""
    names = ["s." + "a" * 21 + "'zzz", "s.'q'", "s.[a]:*?/\\(b)", "s." + "😀" * 14, "s.History", "S.HISTORY", "History"]
    column = Column("id", "integer", not_null=True, default=None, identity="", generated=None)
    tables = {name: Exported(Table(name, (column,), (), ()), 1) for name in names}
    sink = XlsxFile(tmp_path / "out.xlsx", tables, "LEEME")
    for name in names:
        sink.write(name, b"1\n")
    sink.finish(["x"])
    sheets = [place for places in sink.placed.places.values() for place in places]
    assert len({each.casefold() for each in sheets}) == len(names)
    assert all(len(each.encode("utf-16-le")) // 2 <= 31 for each in sheets)
