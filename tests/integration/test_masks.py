"""Masked copies: no masked value is in the copy's database, and everything else is."""

from __future__ import annotations

import re
import shutil
import subprocess
from contextlib import closing
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from clinic_backups.backup.database_checks import DatabaseChecks
from clinic_backups.base.errors import SettingsError
from clinic_backups.base.findings import Report
from clinic_backups.base.listening import Listener
from clinic_backups.base.postgres_tools import find_tool
from clinic_backups.restore.copying.into_report import IntoReport
from clinic_backups.restore.copying.masking import shifted
from clinic_backups.tenant.masks import parse
from clinic_backups.tenant.tenant_db import Snapshot
from tests.integration.test_copy_runs import into
from tests.integration.test_restore_into import Annex, annex, empty_database, notes
from tests.postgres_fixtures import DemoDatabase
from tests.shapes import shaped

__all__ = ["annex", "empty_database"]
MARK, KEPT = "ZQXMARK", "ZQXKEPT"
PATIENTS = "public.usuarios_paciente"
MASKS = f"""
# a comment
{PATIENTS}.nombres: name
{PATIENTS}.apellidos: text
{PATIENTS}.cedula: hash
{PATIENTS}.fecha_nacimiento: shift
{PATIENTS}.telefono: phone
{PATIENTS}.correo: email
{PATIENTS}.direccion: empty
{PATIENTS}.alergias: empty
{PATIENTS}.contacto_emergencia: empty
{PATIENTS}.notas: null
{PATIENTS}.creado_en: shift
public.usuarios_usuario.email: email
public.usuarios_usuario.username: name
public.historial_clinico_historialclinico.observaciones: text
public.historial_clinico_historialclinico.antecedentes: empty
public.historial_clinico_historialclinico.radiografia: null
public.citas_consulta.fecha: shift
"""


def with_masks(rig: Any, tmp_path: Path, text: str) -> None:
    """The rig's SQL folder with this ``masks.txt``."""
    folder = tmp_path / "masked-sql"
    if not folder.exists():
        shutil.copytree(rig.settings.sql_dir, folder)
        rig.settings = rig.settings.model_copy(update={"sql_dir": folder})
    (folder / "masks.txt").write_text(text)


def marked(annex: Annex) -> None:
    """Each masked column of texts gets a mark, and columns beside them another one."""
    annex.execute(
        f"UPDATE usuarios_paciente SET nombres = '{MARK} n' || id, apellidos = '{MARK} a' || id,"
        f" cedula = '{MARK}' || id, telefono = '{MARK}' || id, correo = '{MARK}' || id || '@x.org',"
        f" direccion = '{MARK}, \"{MARK}\"' || id, alergias = ARRAY['{MARK}', 'a,b'], notas = E'{MARK}\\n\"' || id,"
        f" contacto_emergencia = '{{\"a\": \"{MARK}\"}}', sexo = 'K' WHERE clinica_id = 1",
        f"UPDATE usuarios_usuario SET email = '{MARK}' || id || '@x.org', username = '{MARK}' || id,"
        f" first_name = '{KEPT}' || id WHERE clinica_id = 1",
        f"UPDATE historial_clinico_historialclinico SET observaciones = '{MARK} o' || id,"
        f" antecedentes = '[\"{MARK}\"]', radiografia = '{MARK}'::bytea, grupo_sanguineo = 'ZQ+'",
        f"UPDATE citas_consulta SET motivo = '{KEPT}' || id",
    )


def dump_of(annex: Annex, name: str, schema: str) -> str:
    """Everything that is in the schema, by pg_dump."""
    tool = str(find_tool("pg_dump", at_least=17).path)
    command = [tool, f"--schema={schema}", f"--dbname={annex.database.postgres.uri(name)}"]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def _in_files_of(annex: Annex, name: str) -> list[str]:
    """The files of a database in which a mark is, also in rows that nobody sees any more."""
    annex.execute("CHECKPOINT")
    ((oid,),) = annex.execute_rows(f"SELECT oid FROM pg_database WHERE datname = '{name}'")
    folder = annex.database.postgres.data_dir / "cluster" / "base" / str(oid)
    assert any(KEPT.encode() in file.read_bytes() for file in folder.iterdir())
    return [file.name for file in folder.iterdir() if MARK.encode() in file.read_bytes()]


def by_name(report: IntoReport) -> dict[str, dict[str, str]]:
    return {table.table: dict(table.masked) for table in report.tables if table.masked}


@pytest.mark.parametrize("beside", [True, False])
def test_no_marked_value_is_in_a_masked_copy(annex: Annex, empty_database: str, tmp_path: Path, beside: bool) -> None:
    marked(annex)
    with_masks(annex, tmp_path, MASKS)
    record, steps = annex.run(1), list[str]()
    name = annex.database.name if beside else empty_database
    options = {} if beside else {"clinic_db": annex.clinic_db}
    report = annex.into(annex.uri(name), listener=Listener(steps.append), **options).run(annex.source(record), "copia")
    assert report.masked
    rules = parse(MASKS).tables
    assert by_name(report) == {table: dict(columns) for table, columns in rules.items()}
    dump = dump_of(annex, name, "copia")
    assert MARK not in dump + str(report.to_json()) + "".join(steps)
    assert MARK.encode().hex() not in dump
    assert KEPT in dump
    with closing(annex.database.postgres.connect(name)) as db, db.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM copia.usuarios_paciente WHERE sexo = 'K'")
        assert cursor.fetchone() == (record.rows[PATIENTS],)
    assert {table.table: table.rows for table in report.tables} == record.rows
    if not beside:
        assert _in_files_of(annex, empty_database) == []
    assert [note for table in report.tables for note in table.notes if "missing" in note or "NOT VALID" in note] == []


def test_masks_keep_what_the_application_needs(annex: Annex, tmp_path: Path) -> None:
    with_masks(annex, tmp_path, MASKS)
    record = annex.run(1)
    annex.into().run(annex.source(record), "copia")
    before, after = (
        annex.execute_rows(
            "SELECT id, nombres, apellidos, cedula, fecha_nacimiento, telefono, correo, direccion, alergias,"
            f" contacto_emergencia, notas, creado_en FROM {schema}.usuarios_paciente WHERE clinica_id = 1 ORDER BY id"
        )
        for schema in ("public", "copia")
    )
    assert len(before) == len(after) > 10
    shifts = {(new[4] - old[4], new[11] - old[11]) for old, new in zip(before, after, strict=True)}
    ((days, time),) = shifts  # one distance for the clinic, so order and ages stay
    assert days == time and -365 <= days.days <= -30
    visits = annex.execute_rows(
        "SELECT DISTINCT c.fecha - o.fecha FROM copia.citas_consulta AS c JOIN public.citas_consulta AS o USING (id)"
    )
    assert visits == [(days.days,)]
    assert len({new[3] for new in after}) == len(after)  # a unique column
    assert all(re.fullmatch("[a-z2-7]{16}", new[3]) for new in after)
    for old, new in zip(before, after, strict=True):
        assert [value is None for value in new[:10]] == [value is None for value in old[:10]]
        assert new[1] != old[1] and len(new[2]) <= len(old[2]) and new[2] != old[2]
        assert re.fullmatch(r"\d{7,15}", new[5]) and new[7:9] == ("", []) and new[9] in (None, {}) and new[10] is None
        assert new[6] in (None, "") or new[6].endswith("@example.invalid")
        assert (new[6] == "") == (old[6] == "")
    # Equal values have equal masks, and another copy has others.
    names = annex.execute_rows("SELECT count(DISTINCT nombres) FROM public.usuarios_paciente WHERE clinica_id = 1")
    assert len({new[1] for new in after}) <= names[0][0]
    annex.into().run(annex.source(record), "otra")
    both = "SELECT count(*) FROM copia.usuarios_paciente AS a JOIN otra.usuarios_paciente AS b USING (id, cedula)"
    assert annex.execute_rows(both) == [(0,)]


def test_somebody_has_to_say_that_a_copy_is_in_clear(annex: Annex, tmp_path: Path) -> None:
    marked(annex)
    record = annex.run(1)
    with pytest.raises(SettingsError, match=r"masks\.txt has no lines"):
        annex.into().run(annex.source(record), "copia", masked=True)
    assert "copia" not in annex.schemas()
    with_masks(annex, tmp_path, f"{PATIENTS}.nombres: name\n")
    report = annex.into().run(annex.source(record), "clara", masked=False)
    assert (report.masked, by_name(report)) == (False, {})
    assert "Nothing is masked, although" in " ".join(report.notes)
    assert annex.rows_in(report) == annex.rows_now(1)
    some = annex.into().run(annex.source(record), "parte", ("public.citas_consulta",))
    assert (some.masked, by_name(some)) == (True, {})


WRONG: dict[str, str] = {
    f"{PATIENTS}.nombre: name": "usuarios_paciente.nombre: the backup has no such column",
    "public.paciente.nombres: name": "public.paciente: there is no such table",
    f"{PATIENTS}.id: shift": "usuarios_paciente.id, shift: the rule does not fit the type bigint",
    f"{PATIENTS}.nombres: null": "usuarios_paciente.nombres, null: it may not be NULL",
    f"{PATIENTS}.cedula: phone": "it may not have the same value twice, and this rule does not keep values apart",
    f"{PATIENTS}.sexo: email": "sexo, email: email needs 28 characters",
    f"{PATIENTS}.notas: shift": "notas, shift: the rule does not fit the type text",
    f"{PATIENTS}.contacto_emergencia: text": "contacto_emergencia, text: the rule does not fit the type jsonb",
    f"{PATIENTS}.clinica_id: null": "clinica_id, null: it may not be NULL",
    "public.sistema_pagos_factura.total: empty": "the database computes it",
    f"{PATIENTS}.nombres: number": "nombres, number: the rule does not fit the type",
    "public.citas_consulta.id: number": "the database numbers these rows itself",
    "public.usuarios_usuario.tipo: hash": "the rule does not fit the type public.usuarios_tipo",
}


@pytest.mark.parametrize("line", WRONG)
def test_a_mask_that_does_not_fit_is_an_error_before_anything_is_made(annex: Annex, tmp_path: Path, line: str) -> None:
    source = annex.source(annex.run(1))
    with_masks(annex, tmp_path, f"{PATIENTS}.notas: null\n{line}\n" if "notas" not in line else f"{line}\n")
    with pytest.raises(SettingsError) as caught:
        annex.into().run(source, "copia")
    assert WRONG[line] in str(caught.value)
    assert "copia" not in annex.schemas()
    assert "--no-masks" in caught.value.hint
    # `check` says it too, of the clinics' database.
    report = Report()
    with Snapshot(annex.clinic_db) as snapshot:
        checks = DatabaseChecks(snapshot, annex.settings, report, lambda _: None)
        checks.check_key()
        checks.check_extracts()
        checks.check_masks()
    said = [finding.message for finding in report.findings if finding.check == "masks" and finding.level == "warning"]
    assert any(WRONG[line].replace("the backup has no such column", "").rstrip(": ") in each for each in said)


def test_what_a_masked_copy_holds_in_clear_is_said(annex: Annex, tmp_path: Path) -> None:
    source = annex.source(annex.run(1))
    annex.execute(
        "ALTER TABLE inventario_inventario DROP COLUMN etiquetas", "ALTER TABLE citas_consulta RENAME notas TO nota"
    )
    with_masks(annex, tmp_path, f"{PATIENTS}.nombres: name\n{PATIENTS}.notas: null\npublic.auth_group.name: hash\n")
    (annex.settings.sql_dir / "drift.txt").write_text("public.citas_consulta: notas -> nota\n")
    said = notes(annex.into().run(source, "copia"))
    assert "without a mask and so in clear here: etiquetas." in said["public.inventario_inventario"]
    assert "without a mask" not in said.get("public.citas_consulta", "")
    assert (
        "Without a mask, so in clear, are these columns that may hold texts: apellidos, cedula, sexo, telefono, correo,"
        " direccion, alergias, contacto_emergencia."
    ) in said[PATIENTS]
    clear = notes(annex.into().run(source, "clara", masked=False))
    assert "in clear" not in str(clear)


@pytest.mark.parametrize(
    ("type_", "is_said"),
    [
        *((each, True) for each in ("tsvector", "xml", "name", "jsonpath", "inet", "public.etiqueta", "text[]")),
        *((each, True) for each in ("public.texto_libre", "public.textos", "point")),
        *((each, False) for each in ("interval(3)", "int4range", "public.cantidad", "numeric(10,2)", "bigint[]")),
        ("timestamp(3) with time zone", False),
    ],
)  # fmt: skip
def test_every_type_that_may_hold_a_text_is_said(annex: Annex, tmp_path: Path, type_: str, is_said: bool) -> None:
    """A search vector holds the names that the mask has just hidden."""
    annex.execute(
        "CREATE TYPE public.etiqueta AS (nombre text); CREATE DOMAIN public.texto_libre AS text;"
        " CREATE DOMAIN public.cantidad AS numeric(10, 2); CREATE TYPE public.textos AS RANGE (subtype = text)",
        f"ALTER TABLE {PATIENTS} ADD COLUMN otra {type_}",
    )
    source = annex.source(annex.run(1))
    with_masks(annex, tmp_path, f"{PATIENTS}.nombres: name\n")
    said = str(notes(annex.into().run(source, "copia"))[PATIENTS])
    assert ("otra" in said) == is_said


def test_an_incremental_backup_of_a_chain(annex: Annex, tmp_path: Path) -> None:
    marked(annex)
    with_masks(annex, tmp_path, MASKS)
    annex.kind = "incremental"
    annex.run(1)
    annex.execute(f"UPDATE usuarios_paciente SET nombres = '{MARK} otra' WHERE id % 7 = 0 AND clinica_id = 1")
    record = annex.run(1)
    assert record.parent_id
    source = replace(annex.source(record), chain=record.chain)
    report = annex.into().run(source, "copia")
    assert {table.table: table.rows for table in report.tables} == record.rows
    assert MARK not in dump_of(annex, annex.database.name, "copia")


def test_lines_that_cannot_be_read(annex: Annex, tmp_path: Path) -> None:
    source = annex.source(annex.run(1))
    for line, said in {
        f"{PATIENTS}.nombres: nombre": "'nombre' is not a rule",
        f"{PATIENTS}: name": "is not `schema.table.column: rule`",
        f"{PATIENTS}.nombres: name\n{PATIENTS}.nombres: hash": "line 2: nombres has another line already",
    }.items():
        with_masks(annex, tmp_path, line)
        with pytest.raises(SettingsError, match=re.escape(said)):
            annex.into().run(source, "copia")


def test_a_renamed_column_never_comes_in_clear(annex: Annex, tmp_path: Path) -> None:
    """A mask has the present name, and an older backup the former one."""
    marked(annex)
    source = annex.source(annex.run(1))
    annex.execute(
        "ALTER TABLE usuarios_paciente RENAME COLUMN nombres TO nombre", "ALTER TABLE citas_consulta ADD nota text"
    )
    annex.execute("ALTER TABLE historial_clinico_tratamiento RENAME TO tratamiento")
    with_masks(annex, tmp_path, f"{PATIENTS}.nombre: name\npublic.citas_consulta.nota: null\n")
    with pytest.raises(
        SettingsError, match=r"citas_consulta\.nota: the backup has no such column.*drift\.txt"
    ) as caught:
        annex.into().run(source, "copia")
    assert "usuarios_paciente.nombre: the backup has no such column" in str(caught.value)
    drift = annex.settings.sql_dir / "drift.txt"
    drift.write_text(f"{PATIENTS}: nombres -> nombre\npublic.citas_consulta: nota = null\n")
    report = annex.into().run(source, "copia")
    assert by_name(report) == {PATIENTS: {"nombres": "name"}}
    assert annex.execute_rows(f"SELECT count(*) FROM copia.usuarios_paciente WHERE nombres LIKE '{MARK}%'") == [(0,)]
    with_masks(annex, tmp_path, "public.tratamiento.descripcion: text\n")
    with pytest.raises(SettingsError, match=r"has public\.historial_clinico_tratamiento, which is gone now"):
        annex.into().run(source, "otra")
    drift.write_text("public.historial_clinico_tratamiento -> public.tratamiento\n")
    assert by_name(annex.into().run(source, "otra")) == {
        "public.historial_clinico_tratamiento": {"descripcion": "text"}
    }


DDL = """
    CREATE DOMAIN s.some AS text[]; CREATE DOMAIN s.tags AS s.some NOT NULL;
    CREATE DOMAIN s.mail AS varchar(40) CHECK (VALUE LIKE '%@%');
    CREATE TABLE s.person (id uuid PRIMARY KEY, clinic_id int, key text UNIQUE, born timestamp, mail s.mail,
        seen date, code char(14) UNIQUE, tags s.tags, bytes bytea NOT NULL, doc json, words varchar(5),
        called varchar(30), dni bigint UNIQUE, owed numeric(9,2) CHECK (owed > 0));
    CREATE UNIQUE INDEX called ON s.person (lower(called));
    CREATE TABLE s.visit (id int PRIMARY KEY, clinic_id int, person_id uuid REFERENCES s.person, key text
        REFERENCES s.person (key), dni bigint REFERENCES s.person (dni));
    INSERT INTO s.person SELECT md5('p' || n)::uuid, 1, 'ZQXMARK' || n, '2000-02-29 10:00:00.5',
        'ZQXMARK' || n || '@a', NULL, 'ZQ' || n, ARRAY['ZQXMARK', NULL], 'ZQXMARK', '"ZQXMARK"', 'ZQXM',
        'ZQXMARK ' || n, 918273645000 + n, 7777770 + n / 100.0
        FROM generate_series(1, 300) AS n;
    UPDATE s.person SET seen = 'infinity', born = '0044-03-15 BC' WHERE key = 'ZQXMARK1';
    UPDATE s.person SET seen = '2024-03-01', born = '20000-01-01' WHERE key = 'ZQXMARK2';
    INSERT INTO s.visit SELECT n, 1, md5('p' || n)::uuid, 'ZQXMARK' || n, 918273645000 + n
        FROM generate_series(1, 300) AS n
"""
RULES = """
s.person.id: hash
s.person.key: hash
s.person.born: shift
s.person.seen: shift
s.person.mail: email
s.person.code: hash
s.person.tags: empty
s.person.bytes: empty
s.person.doc: empty
s.person.words: text
s.person.called: name
s.person.dni: number
s.person.owed: number
s.visit.dni: number
s.visit.person_id: hash
s.visit.key: hash
"""


def test_keys_that_are_masked_alike_still_refer_to_their_rows(demo_database: DemoDatabase, tmp_path: Path) -> None:
    own = "clinic_id = {{ clinic_id }}"
    rig = shaped(demo_database, tmp_path, DDL, {"person": own, "visit": own}, owner=True)
    record = rig.run(1)
    (rig.settings.sql_dir / "masks.txt").write_text(RULES)
    report = into(rig).run(rig.source(record), "copia")
    assert [note for table in report.tables for note in table.notes] == []
    assert [note for note in report.notes if "NOT VALID" in note or "missing" in note] == []
    joined = "SELECT count(*) FROM copia.visit AS v JOIN copia.person AS p ON p.id = v.person_id AND p.key = v.key"
    assert rig.execute_rows(joined) == [(300,)]
    dump = dump_of(rig, rig.database.name, "copia")
    assert rig.execute_rows(f"{joined} AND v.dni = p.dni AND p.dni BETWEEN 100000000000 AND 999999999999") == [(300,)]
    assert "918273645" not in dump and "777777" not in dump
    assert "ZQX" not in dump and b"ZQX".hex() not in dump
    assert rig.execute_rows("SELECT count(*) FROM copia.person WHERE id IN (SELECT id FROM s.person)") == [(0,)]
    ((far, early, late, usual),) = rig.execute_rows(
        "SELECT bool_or(seen = 'infinity'), bool_or(born < '0043-12-31 BC'), bool_or(born > '19998-01-01'),"
        " count(DISTINCT '2000-02-29 10:00:00.5'::timestamp - born)"
        " FILTER (WHERE born BETWEEN '1990-01-01' AND '2010-01-01')"
        " FROM copia.person"
    )
    assert (far, early, late, usual) == (True, True, True, 1)
    nulls = RULES.replace("code: hash", "code: null").replace("tags: empty", "tags: null")
    (rig.settings.sql_dir / "masks.txt").write_text(nulls)
    with pytest.raises(SettingsError, match=r"s\.person\.tags, null: it may not be NULL") as caught:
        into(rig).run(rig.source(record), "otra")
    assert "code" not in str(caught.value)
    for one in ("s.visit.key: hash", "s.person.key: hash", "s.visit.dni: number", "s.person.dni: number"):
        (rig.settings.sql_dir / "masks.txt").write_text(RULES.replace(f"{one}\n", ""))
        with pytest.raises(SettingsError, match=r"s\.visit\.(\w+) refers to s\.person\.\1: both need the same rule"):
            into(rig).run(rig.source(record), "otra")


def _by_python(value: bytes, days: int) -> bytes:
    text = value.decode()
    moved = date.fromordinal(date.fromisoformat(text[:10]).toordinal() + days)
    return (moved.isoformat() + text[10:]).encode()


def test_shifting_is_what_calendars_say(annex: Annex) -> None:
    for value in (
        b"2024-02-29",
        b"2024-03-01 10:00:00.000001+00",
        b"0001-01-01",
        b"9999-12-31 23:59:59",
        b"1900-02-28",
    ):
        for days in (0, 1, 365, 146_097):
            if date.fromisoformat(value[:10].decode()).toordinal() + days <= date.max.toordinal():
                assert shifted(value, days) == _by_python(value, days)
    asked = annex.execute_rows(
        "SELECT d::text, (d - n)::text, n FROM unnest(ARRAY['0001-01-01', '0001-01-05 BC', '4712-06-01 BC',"
        " '12024-02-29', '0044-03-15 BC']::date[]) AS d, unnest(ARRAY[1, 30, 365]) AS n"
    )
    for before, after, days in asked:
        assert shifted(before.encode(), -days) == after.encode()
    assert shifted(b"-infinity", -3) == b"-infinity"
