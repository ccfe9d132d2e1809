"""``find``: in which backups a record was; and what it says brings the record back."""

from __future__ import annotations

import re
import shlex
import shutil
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from clinic_backups.base.errors import SettingsError
from clinic_backups.base.project import PROJECT_SQL
from clinic_backups.base.text import folded
from clinic_backups.cli.row_param import as_given, named_rows
from clinic_backups.stores.file import FileStore
from clinic_backups.tenant.search_columns import parse
from tests.fleet import flip
from tests.integration.test_cli import run as run
from tests.integration.test_diff import change
from tests.integration.test_diff import life as life
from tests.postgres_fixtures import DemoDatabase

PATIENTS, VISITS, STOCK = "public.usuarios_paciente", "public.citas_consulta", "public.inventario_inventario"


def backed_up(life: Any, *words: str) -> str:
    (record,) = life("backup", "--clinic", "1", "--json", *words).json()
    return str(record["backup_id"])


def own_sql(place: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the SQL folder that a test may change, and that commands use."""
    folder = shutil.copytree(PROJECT_SQL, place / "own_sql")
    monkeypatch.setenv("CLINIC_BACKUPS_SQL_DIR", str(folder))
    return folder


def test_the_nights_of_a_record(life: Any, demo_database: DemoDatabase) -> None:
    with closing(demo_database.connect()) as db, db.cursor() as cursor:
        cursor.execute(f"SELECT id, apellidos FROM {PATIENTS} WHERE clinica_id = 1 ORDER BY id LIMIT 1")
        ((patient, name),) = cursor.fetchall()
        cursor.execute(f"SELECT max(id) FROM {STOCK} WHERE clinica_id = 1")
        ((item,),) = cursor.fetchall()
    first = backed_up(life)
    change(demo_database, f"UPDATE {PATIENTS} SET telefono = '+591 8', notas = 'otra' WHERE id = {patient}")
    second = backed_up(life)
    change(
        demo_database,
        f"UPDATE {PATIENTS} SET sexo = sexo WHERE id = {patient}",
        f"DELETE FROM {STOCK} WHERE id = {item}",
    )
    third = backed_up(life, "--kind", "full")
    change(
        demo_database,
        f"INSERT INTO {STOCK} (id, codigo, nombre, cantidad, precio_unitario, clinica_id) OVERRIDING SYSTEM VALUE"
        f" VALUES ({item}, 'Z', 'Ñandú', 1, 1, 1)",
    )
    fourth = backed_up(life)
    found = life(
        "find", "--clinic", "1", "--rows", f"{PATIENTS}:{patient}", "--rows", f"{STOCK}:0{item},77777", "--json"
    )
    by_table = {each["table"]: each for each in found.json()}
    events = {
        table: [(event["what"], event["backup_id"], sorted(event["columns"])) for event in each["events"]]
        for table, each in by_table.items()
    }
    assert events == {
        PATIENTS: [("there", first, []), ("changed", second, ["notas", "telefono"])],
        STOCK: [("there", first, []), ("gone", third, []), ("back", fourth, [])],
    }
    assert [each["last_in"] for each in by_table.values()] == [fourth, fourth]
    assert name not in found.out
    # By text: without case and accents, in the declared columns alone, and in a part of the time.
    by_text = life("find", "--clinic", "1", "--text", name.upper(), "--json").json()
    assert str(patient) in [each["key"] for each in by_text]
    assert {each["table"] for each in by_text} == {PATIENTS}
    life("find", "--clinic", "1", "--text", "nandu", code=1)
    until = by_table[PATIENTS]["events"][0]["moment"]
    (early,) = life("find", "--clinic", "1", "--rows", f"{PATIENTS}:{patient}", "--until", until, "--json").json()
    assert [event["what"] for event in early["events"]] == ["there"]


def test_what_it_says_brings_the_record_back(life: Any, demo_database: DemoDatabase) -> None:
    with closing(demo_database.connect()) as db, db.cursor() as cursor:
        cursor.execute(f"SELECT id FROM {STOCK} WHERE clinica_id = 1 ORDER BY id LIMIT 1")
        ((item,),) = cursor.fetchall()
    last = backed_up(life)
    change(
        demo_database, f"DELETE FROM {STOCK} WHERE id = {item}", f"UPDATE {STOCK} SET cantidad = 7 WHERE clinica_id = 1"
    )
    backed_up(life)
    said = life("find", "--clinic", "1", "--rows", f"{STOCK}:{item}")
    command = re.search(r"clinic-backups (restore .*)", said.err)
    assert command
    assert command[1] == f"restore --clinic 1 --backup {last} --rows {STOCK}:{item}"
    done = life(*command[1].split(), "--yes")
    assert "1 rows were written" in done.out
    with closing(demo_database.connect()) as db, db.cursor() as cursor:
        cursor.execute(f"SELECT count(*), count(*) FILTER (WHERE cantidad = 7) FROM {STOCK} WHERE clinica_id = 1")
        ((count, worked),) = cursor.fetchall()
        assert worked == count - 1
        cursor.execute("SELECT mode, state FROM clinic_backups.restore")
        assert cursor.fetchall() == [("rows", "completed")]


def test_an_archive_that_cannot_be_read_is_named_and_proves_no_deletion(
    life: Any, demo_database: DemoDatabase, tmp_path: Path
) -> None:
    with closing(demo_database.connect()) as db, db.cursor() as cursor:
        cursor.execute(f"SELECT id FROM {STOCK} WHERE clinica_id = 1 ORDER BY id LIMIT 1")
        ((item,),) = cursor.fetchall()
    first = backed_up(life)
    damaged = backed_up(life, "--kind", "full")
    key = life("show", damaged, "--json").json()["archive_key"]
    flip(FileStore(tmp_path / "store"), key)
    found = life("find", "--clinic", "1", "--rows", f"{STOCK}:{item}", "--json")
    assert [event["what"] for event in found.json()[0]["events"]] == ["there"]
    assert found.json()[0]["last_in"] == first
    assert f"{damaged} was not looked through" in found.err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "Nothing is looked for"), (("--rows", f"{PATIENTS}:x"), "not named by a key"),
        (("--rows", "public"), "names no row"), (("--text", "x", "--values"), "only in a terminal"),
        (("--text", "x", "--since", "ayer"), "is not a time"),
    ],
)  # fmt: skip
def test_what_cannot_be_looked_for_is_refused(life: Any, words: tuple[str, ...], said: str) -> None:
    backed_up(life)
    done = life("find", "--clinic", "1", *words, code=2)
    assert said in " ".join(done.err.split())
    assert "HINT:" in done.err


def test_a_record_that_lost_the_text_is_not_gone(life: Any, demo_database: DemoDatabase) -> None:
    with closing(demo_database.connect()) as db, db.cursor() as cursor:
        cursor.execute(f"SELECT min(id) FROM {PATIENTS} WHERE clinica_id = 1")
        ((patient,),) = cursor.fetchall()
    change(demo_database, f"UPDATE {PATIENTS} SET apellidos = 'Mamani' WHERE id = {patient}")
    first = backed_up(life)
    change(demo_database, f"UPDATE {PATIENTS} SET apellidos = 'Quispezon' WHERE id = {patient}")
    second = backed_up(life)
    change(demo_database, f"UPDATE {PATIENTS} SET apellidos = 'Mamani' WHERE id = {patient}")
    third = backed_up(life)
    done = life("find", "--clinic", "1", "--text", "quispezon")
    assert "gone" not in done.out
    assert "To bring it back" not in done.out + done.err
    (found,) = life("find", "--clinic", "1", "--text", "quispezon", "--json").json()
    assert [(event["what"], event["backup_id"]) for event in found["events"]] == [
        ("there", first), ("changed", second), ("changed", third),
    ]  # fmt: skip
    assert not found["is_gone"]


@pytest.mark.parametrize(
    ("key", "given"),
    [
        ("43", "s.p:43"), ("a,b", """'s.p:["a,b"]'"""), ("[x", """'s.p:["[x"]'"""),
        ("O'Neil x", """'s.p:O'"'"'Neil x'"""), ("$(id)", "'s.p:$(id)'"),
    ],
)  # fmt: skip
def test_a_printed_key_names_the_row_when_it_is_copied(key: str, given: str) -> None:
    assert as_given("s.p", key) == given
    assert named_rows(shlex.split(given)) == {"s.p": [key]}


def test_a_table_that_was_renamed_is_found_under_both_names(
    life: Any, demo_database: DemoDatabase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = own_sql(tmp_path, monkeypatch)
    with closing(demo_database.connect()) as db, db.cursor() as cursor:
        cursor.execute(f"SELECT max(id) FROM {STOCK} WHERE clinica_id = 1")
        ((item,),) = cursor.fetchall()
    first = backed_up(life)
    change(demo_database, f"ALTER TABLE {STOCK} RENAME TO inventario_articulo")
    renamed = "public.inventario_articulo"
    old = folder / "extract" / f"{STOCK.removeprefix('public.')}.sql"
    (folder / "extract" / "inventario_articulo.sql").write_text(
        old.read_text().replace("inventario_inventario", "inventario_articulo")
    )
    old.unlink()
    (folder / "drift.txt").write_text(f"{STOCK} -> {renamed}\n")
    second = backed_up(life, "--kind", "full")
    change(demo_database, f"DELETE FROM {renamed} WHERE id = {item}")
    third = backed_up(life)
    for name in (STOCK, renamed):
        (found,) = life("find", "--clinic", "1", "--rows", f"{name}:{item}", "--json").json()
        assert [(event["what"], event["backup_id"]) for event in found["events"]] == [("there", first), ("gone", third)]
        assert found["last_in"] == second
    life("forget", "--clinic", "1", "--rows", f"{renamed}:{item}", "--reason", "lo pidio")
    ((places,),) = [[each["may_lie_in"]] for each in life("forget", "--list", "--json").json()]
    assert {each["backup_id"] for each in places} >= {first, second}
    (found,) = life("find", "--clinic", "1", "--rows", f"{STOCK}:{item}", "--json").json()
    assert found["is_forgotten"]


def test_search_columns() -> None:
    found = parse('# a comment\n\npublic.a.b: Apellidos\npublic.a.c:x\n"s.x"."t:1".u: Ü\n').tables
    assert found == {"public.a": {"b": "Apellidos", "c": "x"}, "s.x.t:1": {"u": "Ü"}}
    for wrong in ("public.a: x", "public.a.b", "public.a.b:", "public.a.b: x\npublic.a.b: y"):
        with pytest.raises(SettingsError):
            parse(wrong)
    assert folded("ÑANDÚ É") == folded("ñandu e")


def test_without_a_plain_key_nothing_of_a_person_is_printed(
    life: Any, demo_database: DemoDatabase, tmp_path: Path
) -> None:
    """A table without a key, and one whose key is a person's number; and a table that a later backup lacks."""
    folder = tmp_path / "sql"
    shutil.copytree(PROJECT_SQL, folder)
    for name in ("apunte", "carnet"):
        (folder / "extract" / f"{name}.sql").write_text(
            f"SELECT * FROM public.{name} WHERE clinica_id = {{{{ clinic_id }}}}"
        )
    (folder / "search.txt").write_text("public.apunte.texto: Texto\npublic.carnet.nombre: Nombre")
    of = "clinica_id bigint NOT NULL REFERENCES public.comun_clinica"
    change(
        demo_database,
        f"CREATE TABLE public.apunte ({of}, texto text)",
        f"CREATE TABLE public.carnet (cedula text PRIMARY KEY, {of}, nombre text)",
        "INSERT INTO public.apunte VALUES (1, 'Quispe marca-uno'), (1, 'otra')",
        "INSERT INTO public.carnet VALUES ('marca-dos', 1, 'Ana Quispe')",
        f"GRANT SELECT ON public.apunte, public.carnet TO {demo_database.roles.reader}",
    )
    variables = {"CLINIC_BACKUPS_SQL_DIR": str(folder)}
    life("backup", "--clinic", "1", **variables)
    change(demo_database, "DELETE FROM public.apunte WHERE texto LIKE 'Q%'", "DELETE FROM public.carnet")
    life("backup", "--clinic", "1", **variables)
    for words in (("--json",), ()):
        done = life("find", "--clinic", "1", "--text", "quispe", *words, **variables)
        assert "marca" not in done.out + done.err
        assert "To bring it back" not in done.err
        assert done.out.count("gone") == (4 if words else 2) or words
    # Whoever names the key gets it back, with the command.
    named = life("find", "--clinic", "1", "--rows", "public.carnet:marca-dos", **variables)
    assert "--rows public.carnet:marca-dos" in named.err
    # A backup without the table says nothing about its rows.
    (folder / "extract" / "carnet.sql").unlink()
    (folder / "search.txt").unlink()
    change(demo_database, "DROP TABLE public.carnet")
    life("backup", "--clinic", "1", **variables)
    (record,) = life("find", "--clinic", "1", "--rows", "public.carnet:marca-dos", "--json", **variables).json()
    assert [event["what"] for event in record["events"]] == ["there", "gone"]
    assert "has no table" in life("find", "--clinic", "1", "--rows", "public.nada:1", code=2, **variables).err
