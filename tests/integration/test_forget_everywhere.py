"""A forgotten patient is in no export, in no recovered service, and not shown by a comparison or a search.

The patient and all that belongs to the patient have marks in their texts. What is looked for is these marks.
"""

from __future__ import annotations

import re
import sqlite3
import subprocess
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from clinic_backups.base.errors import PermanentError
from clinic_backups.base.postgres_tools import find_tool
from clinic_backups.maintenance.forgotten_in_stores import ForgottenInStores
from clinic_backups.maintenance.store_init import StoreInit
from clinic_backups.recovery.definition import Definition
from clinic_backups.stores.configured import Stores
from clinic_backups.stores.file import FileStore
from tests.integration.test_cli import run as run
from tests.integration.test_diff import life as life
from tests.integration.test_find import backed_up
from tests.integration.test_forget import Forgetting, without
from tests.integration.test_forget_in_stores import lost_catalog
from tests.integration.test_recover import ON_PURPOSE, Target, back_up_all, contents
from tests.integration.test_recover import target as target
from tests.integration.test_restore import PATIENTS, PAYMENTS, STOCK, VISITS
from tests.integration.test_restore_rows import BILLS, guardian
from tests.postgres_fixtures import DemoDatabase

__all__ = ["guardian", "life", "run", "target"]

MARK, OTHER = "Zzyzx", "Qqoph"
"""In what must not come back, and in what must."""
HISTORY = "public.historial_clinico_historialclinico"


@pytest.fixture
def rig(demo_database: DemoDatabase, tmp_path: Path) -> Forgetting:
    return Forgetting(demo_database, FileStore(tmp_path / "store"))


@pytest.fixture
def ward(rig: Forgetting) -> Forgetting:
    return rig


@pytest.fixture
def marked(ward: Forgetting, guardian: int) -> int:
    """The patient, with marks in all that belongs to the patient and in one other patient of the clinic."""
    visits = f"SELECT id FROM {VISITS} WHERE paciente_id = {guardian}"
    bills = f"SELECT id FROM {BILLS} WHERE consulta_id IN ({visits})"
    places = {
        PATIENTS: f"id = {guardian}", VISITS: f"id IN ({visits})", BILLS: f"id IN ({bills})",
        PAYMENTS: f"factura_id IN ({bills})", HISTORY: f"paciente_id = {guardian}",
    }  # fmt: skip
    for table, where in places.items():
        ((column,),) = ward.execute_rows(
            f"SELECT attname FROM pg_attribute WHERE attrelid = '{table}'::regclass AND attnum > 0"
            " AND atttypid IN ('text'::regtype, 'varchar'::regtype) AND attgenerated = ''"
            " AND attname NOT IN ('estado', 'sexo', 'metodo', 'moneda') ORDER BY attname <> 'apellidos',"
            " atttypmod <> -1, atttypmod DESC, attnum LIMIT 1"
        )
        ward.execute(f"UPDATE {table} SET {column} = '{MARK}' || id WHERE {where}")
        assert ward.execute_rows(f"SELECT count(*) > 0 FROM {table} WHERE {column} ~ '{MARK}'") == [(True,)], table
    ward.execute(
        f"UPDATE {PATIENTS} SET apellidos = '{OTHER}' WHERE id = (SELECT max(id) FROM {PATIENTS} WHERE clinica_id = 1)"
    )
    return guardian


def dump(target: Target) -> str:
    tool = find_tool("pg_dump", at_least=17).path
    uri = target.postgres.uri(target.name)
    return subprocess.run([tool, "--inserts", uri], capture_output=True, text=True, check=True).stdout


def in_stores(ward: Forgetting) -> ForgottenInStores:
    return ForgottenInStores(ward.forgotten, ward.settings.recipients)


def test_a_recovery_from_the_store_and_the_key_leaves_the_patient_out(
    ward: Forgetting, target: Target, marked: int
) -> None:
    back_up_all(ward)
    before = contents(ward.database.connect)
    ward.forget(marked)
    assert in_stores(ward).write(Stores.of(ward.store)) == []
    without(ward, marked)
    ward.execute("REFRESH MATERIALIZED VIEW public.sistema_pagos_resumen_mensual")
    after = contents(ward.database.connect)
    report = target.report()
    found = contents(lambda: target.postgres.connect(target.name))
    for name in after.keys() - ON_PURPOSE:
        assert found[name] == after[name], name
    unit = next(unit for unit in report["units"] if unit["unit"] == 1)
    held = before.keys() - ON_PURPOSE - {"public.sistema_pagos_resumen_mensual"}
    gone = {name: before[name].total() - after[name].total() for name in held}
    assert unit["forgotten_rows"] == {name: count for name, count in gone.items() if count}
    assert unit["emptied_links"] == {PATIENTS: 3}
    assert unit["state"] == "explained"
    assert "1 row is forgotten and left out" in " ".join(unit["explained"])
    assert {each["state"] for each in report["units"] if each["unit"] != 1} == {"proven"}
    assert report["is_whole"]
    assert "1 erasure requests from the stores are followed" in report["forgotten"][0]
    text = dump(target)
    assert MARK not in text
    assert OTHER in text


@pytest.mark.parametrize("known_to", ["catalog", "store"])
def test_a_recovery_with_the_catalog_follows_what_the_catalog_has_made(
    ward: Forgetting, target: Target, marked: int, known_to: str
) -> None:
    """Also if it does not have the request any more, because it came back from an older backup of its own."""
    back_up_all(ward)
    ward.forget(marked)
    if known_to == "store":
        in_stores(ward).write(Stores.of(ward.store))
        ward.execute(
            "ALTER TABLE clinic_backups.forgotten DISABLE TRIGGER ALL", "DELETE FROM clinic_backups.forgotten",
            "ALTER TABLE clinic_backups.forgotten ENABLE ALWAYS TRIGGER forgotten_is_kept",
        )  # fmt: skip
    catalog = {"AIRFLOW_CONN_BACKUP_CATALOG": ward.database.catalog_uri}
    StoreInit(ward.catalog, ward.catalog.clock, "ana").run(ward.store)
    report = target.report("--clinic", "1", **catalog)
    said = {
        "catalog": "The catalog has 1 erasure requests.",
        "store": "does not have any more. They are followed, too.",
    }
    assert said[known_to] in " ".join(report["forgotten"])
    assert MARK not in dump(target)
    assert OTHER in dump(target)


def test_a_difference_in_the_rest_of_the_table_is_found(
    ward: Forgetting, target: Target, marked: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The proof of the rows that stay is a proof."""
    from clinic_backups.recovery import proofs

    back_up_all(ward)
    ward.forget(marked)
    in_stores(ward).write(Stores.of(ward.store))
    real = proofs.differences

    def changed(*arguments: Any) -> Any:
        target.execute(f"UPDATE {PATIENTS} SET apellidos = 'otra' WHERE apellidos = '{OTHER}'")
        return real(*arguments)

    monkeypatch.setattr(proofs, "differences", changed)
    report = target.report("--clinic", "1", code=1)
    unit = next(unit for unit in report["units"] if unit["unit"] == 1)
    assert unit["state"] == "not proven"
    assert any("have other values than in the backup" in problem for problem in unit["problems"])


def test_a_recovery_that_was_interrupted_goes_on_without_the_patient(
    ward: Forgetting, target: Target, marked: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The rows are loaded already. What was left out is found again, for the proof and the report."""
    back_up_all(ward)
    ward.forget(marked)
    in_stores(ward).write(Stores.of(ward.store))

    def broken(*_: Any) -> Any:
        raise PermanentError("broken off", hint="Run it again.")

    with monkeypatch.context() as patch:
        patch.setattr(Definition, "make_after", broken)
        assert target.recover()[0] == 1
    assert target.rows(f"SELECT count(*) > 0 FROM {PATIENTS} WHERE apellidos = '{OTHER}'") == [(True,)]
    report = target.report()
    unit = next(unit for unit in report["units"] if unit["unit"] == 1)
    assert (unit["state"], unit["forgotten_rows"][PATIENTS]) == ("explained", 1)
    assert MARK not in dump(target)


def test_a_request_that_cannot_be_checked_stops_a_recovery(ward: Forgetting, target: Target, marked: int) -> None:
    back_up_all(ward)
    ward.forget(marked)
    in_stores(ward).write(Stores.of(ward.store))
    place = Path(ward.store.url.removeprefix("file://")) / "forgotten"
    (sealed,) = (place / "keys").iterdir()
    sealed.unlink()
    code, _, err = target.recover()
    assert code == 1
    assert "cannot be followed: this secret key does not open its key, or the key is missing." in err
    assert target.rows("SELECT count(*) FROM pg_class WHERE relname = 'usuarios_paciente'") == [(0,)]
    plan = target.recover("--plan")
    assert plan[0] == 1
    assert "its row comes back" in plan[2]
    report = target.report("--allow-missing", code=1)
    assert len(report["missing"]) == 1
    assert MARK in dump(target)


def test_a_planted_request_keeps_no_row_away(ward: Forgetting, target: Target, marked: int) -> None:
    """Somebody who may write to the store takes a genuine request and puts another table into it."""
    back_up_all(ward)
    ward.forget(987654321)
    in_stores(ward).write(Stores.of(ward.store))
    place = Path(ward.store.url.removeprefix("file://")) / "forgotten" / "clinics" / "1"
    (genuine,) = place.iterdir()
    (place / f"{'ab' * 16}.json").write_bytes(genuine.read_bytes().replace(b"usuarios_paciente", b"citas_consulta"))
    code, _, err = target.recover("--clinic", "1")
    assert code == 1
    assert "its content is not that of the request that its name says" in err
    (place / f"{'ab' * 16}.json").unlink()
    report = target.report("--clinic", "1")
    assert not any(unit["forgotten_rows"] for unit in report["units"])
    assert MARK in dump(target)


@pytest.fixture
def told(life: Any, ward: Forgetting, marked: int) -> str:
    """Clinic 1 is backed up, then the patient is forgotten. Returns the backup's id."""
    backup_id = backed_up(life)
    life("forget", "--clinic", "1", "--rows", f"{PATIENTS}:{marked}", "--reason", "Art. 17", "--class", "person")
    return backup_id


def texts(place: Path) -> str:
    if place.suffix == ".sqlite":
        with closing(sqlite3.connect(place)) as db:
            return "\n".join(db.iterdump())
    if place.is_dir():
        return "\n".join(file.read_text() for file in sorted(place.rglob("*")) if file.is_file())
    import zipfile

    with zipfile.ZipFile(place) as book:
        return "\n".join(book.read(name).decode() for name in book.namelist())


@pytest.mark.parametrize("output_format", ["csv", "json", "sqlite", "xlsx"])
def test_no_export_has_the_patient(life: Any, told: str, tmp_path: Path, output_format: str) -> None:
    place = tmp_path / (f"out.{output_format}" if output_format in ("sqlite", "xlsx") else "out")
    done = life("export", "--backup", told, "--format", output_format, "--output", str(place), "--json").json()
    assert done["forgotten_rows"][PATIENTS] == 1
    assert done["forgotten_rows"].keys() >= {VISITS, BILLS, PAYMENTS}
    text = texts(place)
    assert MARK not in text
    assert OTHER in text
    assert re.search(rf"No están las filas de la tabla {PATIENTS} que no deben volver: 1\.", text)


def test_an_export_of_some_tables_follows_the_others(life: Any, told: str, tmp_path: Path) -> None:
    """A payment belongs to the patient over a bill and a visit, which are not exported."""
    out = life("export", "--backup", told, "--format", "csv", "--output", str(tmp_path / "out"), "--table", PAYMENTS)
    assert "forgotten and left out" in out.out
    assert MARK not in texts(tmp_path / "out")
    stock = life("export", "--backup", told, "--format", "csv", "--output", str(tmp_path / "s"), "--table", STOCK)
    assert "forgotten" not in stock.out


def test_a_table_without_a_key_stops_only_what_it_concerns(life: Any, ward: Forgetting, tmp_path: Path) -> None:
    ward.execute(f"ALTER TABLE {STOCK} DROP CONSTRAINT inventario_inventario_pkey CASCADE")
    backup_id = backed_up(life)
    ward.forget(1, table=STOCK)
    words = ("export", "--backup", backup_id, "--format", "csv")
    refused = life(*words, "--output", str(tmp_path / "all"), code=1)
    assert f"Rows of {STOCK} were forgotten, and the backup has no primary key of it." in refused.err
    assert not (tmp_path / "all").exists()
    life(*words, "--output", str(tmp_path / "some"), "--table", PATIENTS)
    life("find", "--clinic", "1", "--text", "a", "--json")


def test_an_export_follows_a_renamed_table(life: Any, ward: Forgetting, told: str, tmp_path: Path, marked: int) -> None:
    """The request names the table as it is called now, and the backup has its former name."""
    ward.execute(f"ALTER TABLE {PATIENTS} RENAME TO personas")
    folder = tmp_path / "sql"
    import shutil

    shutil.copytree(ward.settings.sql_dir, folder)
    with (folder / "drift.txt").open("a") as file:
        file.write(f"\n{PATIENTS} -> public.personas\n")
    lost_catalog(ward.database)
    changed = {"CLINIC_BACKUPS_SQL_DIR": str(folder)}
    life("catalog", "migrate")
    (tmp_path / "store" / "forgotten").rename(tmp_path / "aside")
    life("catalog", "rebuild")
    ward.forgotten.add(1, {"public.personas": [str(marked)]}, by="ana", reason="x")
    life("export", "--backup", told, "--format", "csv", "--output", str(tmp_path / "out"), **changed)
    assert MARK not in texts(tmp_path / "out")


def test_a_restore_without_the_catalog_follows_the_store(life: Any, ward: Forgetting, told: str, marked: int) -> None:
    (entry,) = (each for each in life("list", "--clinic", "1", "--json").json() if each["backup_id"] == told)
    without(ward, marked)
    expected = contents(ward.database.connect)
    ward.execute(f"UPDATE {PATIENTS} SET telefono = '+1' WHERE clinica_id = 1")
    lost_catalog(ward.database)
    words = ("restore", "--clinic", "1", "--archive", entry["archive_key"])
    planned = life(*words, "--plan")
    assert "1 erasure requests from the stores are followed" in planned.err
    assert "1 row of the backup is left out" in planned.err
    life(*words, "--yes")
    found = contents(ward.database.connect)
    for name in expected.keys() - ON_PURPOSE:
        assert found[name] == expected[name], name


def test_a_restore_without_the_catalog_is_refused_if_a_request_cannot_be_followed(
    life: Any, ward: Forgetting, told: str, marked: int, tmp_path: Path
) -> None:
    (entry,) = (each for each in life("list", "--clinic", "1", "--json").json() if each["backup_id"] == told)
    (sealed,) = (tmp_path / "store" / "forgotten" / "keys").iterdir()
    sealed.unlink()
    without(ward, marked)
    done = life("restore", "--clinic", "1", "--archive", entry["archive_key"], "--yes", code=1)
    assert "1 erasure requests in the store cannot be followed" in done.err
    assert ward.execute_rows(f"SELECT count(*) FROM {PATIENTS} WHERE id = {marked}") == [(0,)]


def test_a_comparison_counts_the_patient_and_shows_nothing(
    life: Any, ward: Forgetting, told: str, marked: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    without(ward, marked)
    ward.execute(f"UPDATE {PATIENTS} SET telefono = '+591 4' WHERE apellidos = '{OTHER}'")
    second = backed_up(life)
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    for words in ((told, second), (second, told), (told, "now", "--clinic", "1"), ("now", told, "--clinic", "1")):
        shown = life("diff", *words, "--values")
        assert '"forgotten": true' in shown.out, words
        assert MARK not in shown.out, words
        assert "+591 4" in shown.out, words
        assert f'"{marked}"' not in shown.out.replace(f'"responsable_id": "{marked}"', ""), words


def test_a_search_says_forgotten(
    life: Any, ward: Forgetting, told: str, marked: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    without(ward, marked)
    backed_up(life)
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    shown = life("find", "--clinic", "1", "--rows", f"{PATIENTS}:{marked}", "--values")
    assert "forgotten, so its values are not shown" in shown.out
    assert MARK not in shown.out
    assert "To bring it back" not in shown.err
    (named,) = life("find", "--clinic", "1", "--rows", f"{PATIENTS}:{marked}", "--json").json()
    assert (named["is_forgotten"], named["is_gone"]) == (True, True)
    other = life("find", "--clinic", "1", "--text", OTHER.lower(), "--values")
    assert OTHER in other.out
    assert "forgotten" not in other.out
    by_text = life("find", "--clinic", "1", "--text", MARK.lower(), "--json").json()
    assert by_text
    assert {each["key"] for each in by_text} == {"forgotten"}
    assert all(each["is_forgotten"] for each in by_text)


def test_a_consolidated_backup_says_what_it_still_holds(life: Any, ward: Forgetting, told: str) -> None:
    ward.execute(f"UPDATE {PATIENTS} SET telefono = '+591 5' WHERE apellidos = '{OTHER}'")
    second = backed_up(life, "--kind", "incremental")
    life("forget", "--clinic", "1", "--rows", f"{PATIENTS}:7", "--reason", "Art. 17")
    done = life("consolidate", second)
    assert "It may hold rows of 1 erasure requests" in done.out


def test_links_over_generated_columns_are_named(life: Any, ward: Forgetting, tmp_path: Path, marked: int) -> None:
    """The backup does not hold such a column, so nobody can tell which rows belong to the patient."""
    ward.execute(
        "CREATE TABLE public.nota (id bigint PRIMARY KEY, clinica_id integer NOT NULL REFERENCES comun_clinica,"
        f" codigo text, de bigint GENERATED ALWAYS AS (codigo::bigint) STORED REFERENCES {PATIENTS})",
        f"INSERT INTO public.nota VALUES (1, 1, '{marked}')",
        "GRANT ALL ON public.nota TO PUBLIC",
    )
    extract = "SELECT n.* FROM public.nota AS n WHERE n.clinica_id = {{ clinic_id }}\n"
    ward.with_extracts(tmp_path / "sql", {"public.nota": extract})
    sql_dir = {"CLINIC_BACKUPS_SQL_DIR": str(tmp_path / "sql")}
    (record,) = life("backup", "--clinic", "1", "--json", **sql_dir).json()
    life("forget", "--clinic", "1", "--rows", f"{PATIENTS}:{marked}", "--reason", "x", **sql_dir)
    said = f"Rows that refer to a forgotten row of {PATIENTS} in de are not looked for"
    ward.execute("DELETE FROM public.nota")
    plan = life("restore", "--clinic", "1", "--backup", record["backup_id"], "--plan", code=1, **sql_dir)
    assert said in " ".join(plan.err.split())
    words = ("--backup", record["backup_id"], "--format", "csv", "--output", str(tmp_path / "out"))
    assert said in life("export", *words, **sql_dir).out
