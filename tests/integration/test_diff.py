"""``diff`` counts what PostgreSQL itself counts, whatever the two sides are."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import random
import shutil
import zlib
from collections import Counter
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from clinic_backups.archive.blocks import CUT_MASK, Block, BlockList
from clinic_backups.archive.csv_rows import fields_of
from clinic_backups.archive.encryption import ENCRYPTION, load_identities
from clinic_backups.base.errors import SettingsError
from clinic_backups.base.project import PROJECT_SQL
from clinic_backups.base.table import Column, Table
from clinic_backups.cli.diff import notes_of
from clinic_backups.differences.compare import compare
from clinic_backups.differences.found import RowDifference, TableDifference
from clinic_backups.differences.sides import Digests, TakeBlock
from tests.integration.test_cli import Run, restore_keys
from tests.integration.test_cli import run as run
from tests.postgres_fixtures import DemoDatabase

PATIENTS, STOCK = "public.usuarios_paciente", "public.inventario_inventario"


class Memory:
    """A side that holds its blocks: any rows, cut anywhere."""

    def __init__(self, table: Table, blocks: list[bytes]) -> None:
        self.tables, self.parents, self._blocks = {table.name: table}, frozenset[str](), blocks
        self.reads = 0

    def rows(self, name: str) -> int | None:
        return None

    def blocks(self, name: str) -> BlockList:
        found = BlockList()
        for block in self._blocks:
            found.append(Block(hashlib.sha256(block).digest(), 1, len(block)))
        return found

    def read(self, others: Digests, like: Mapping[str, BlockList], take: TakeBlock) -> None:
        self.reads += 1
        for name, theirs in others.items():
            for block in self._blocks:
                digest = hashlib.sha256(block).digest()
                if theirs[digest] > 0:
                    theirs[digest] -= 1
                else:
                    take(name, block, 1)


def table_of(*columns: str, key: tuple[str, ...] = ()) -> Table:
    described = tuple(
        Column(name, "text", not_null=False, default=None, identity="", generated=None) for name in columns
    )
    return Table("public.t", described, key, ())


def line(values: list[str | None]) -> bytes:
    """As COPY writes it: NULL without quotes, other empty texts with them."""
    return (
        ",".join("" if v is None else f'"{v.replace(chr(34), chr(34) * 2)}"' if not v.isalnum() else v for v in values)
        + "\n"
    ).encode()


TEXTS = [None, "", "a", "b", "x,y", 'q"q', "two\nlines", "ñ", "7"]


@pytest.mark.parametrize("kept_bytes", [1_000_000, 1_500, 0])
@pytest.mark.parametrize("keyed", [True, False])
@pytest.mark.parametrize("seed", range(12))
def test_any_rows_in_any_blocks(seed: int, keyed: bool, kept_bytes: int) -> None:
    draw = random.Random(seed)

    def rows() -> list[tuple[str | None, ...]]:
        found = [(str(key), draw.choice(TEXTS), draw.choice(TEXTS)) for key in range(60) if draw.random() < 0.9]
        return found if keyed else found + draw.choices(found, k=5)

    def cut(lines: list[bytes]) -> list[bytes]:
        blocks, at = [], 0
        while at < len(lines):
            size = draw.randint(1, 9)
            blocks.append(b"".join(lines[at : at + size]))
            at += size
        return blocks

    before = rows()
    # Half of the rows stay, so that some blocks are equal.
    kept = {row[0] for row in before[:30]}
    after = [*before[:30], *(row for row in rows() if not keyed or row[0] not in kept)]
    table = table_of("id", "one", "two", key=("id",) if keyed else ())
    sides = [Memory(table, cut([line(list(row)) for row in each])) for each in (before, after)]
    told = list[RowDifference]()
    (found,) = compare(*sides, on_row=told.append, kept_bytes=kept_bytes)
    if keyed:
        one, other = ({row[0]: row for row in each} for each in (before, after))
        both = one.keys() & other.keys()
        changed = {key for key in both if one[key] != other[key]}
        expected = (len(other.keys() - both), len(one.keys() - both), len(changed))
        columns = Counter(
            name
            for key in changed
            for name, x, y in zip(("id", "one", "two"), one[key], other[key], strict=True)
            if x != y
        )
        assert found.columns == columns
        assert {row.key for row in told if row.before and row.after} == {(key,) for key in changed}
    else:
        one_bag, other_bag = Counter(before), Counter(after)
        expected = ((other_bag - one_bag).total(), (one_bag - other_bag).total(), 0)
    assert (found.added, found.removed, found.changed) == expected
    assert len(told) == found.rows
    for row in told:
        if keyed and row.before:
            assert tuple(row.before.values()) == one[str(row.before["id"])]
        if keyed and row.after:
            assert tuple(row.after.values()) == other[str(row.after["id"])]
    if kept_bytes < 100_000:
        assert sides[0].reads > 1


def typed(**types: str) -> Table:
    described = tuple(
        Column(name, type_, not_null=False, default=None, identity="", generated=None) for name, type_ in types.items()
    )
    return Table("public.t", described, ("id",), ())


def test_columns_with_another_type_are_named_and_equal_numbers_are_equal() -> None:
    one = Memory(typed(id="integer", n="bigint", d="date"), [b"1,5,2020-01-01\n2,5,2020-01-01\n3,5,2020-01-01\n"])
    other = Memory(
        typed(id="numeric(9,2)", n="numeric(8,2)", d="timestamp with time zone"),
        [b"1.00,5.00,2020-01-01\n2.00,6.00,2020-01-01\n3.00,5.00,2020-01-01 00:00:00+00\n"],
    )
    told = list[RowDifference]()
    (found,) = compare(one, other, on_row=told.append)
    assert (found.added, found.removed, found.changed) == (0, 0, 2)
    assert found.columns == {"n": 1, "d": 1}
    assert found.retyped == (
        ("id", "integer", "numeric(9,2)"), ("n", "bigint", "numeric(8,2)"), ("d", "date", "timestamp with time zone"),
    )  # fmt: skip
    (note,) = notes_of(found)
    assert "n (bigint, numeric(8,2))" in note
    assert found.turned.retyped[1] == ("n", "numeric(8,2)", "bigint")
    assert [(row.key, row.to_json()["before"]) for row in told] == [(("2",), {"n": "5"}), (("3",), {"d": "2020-01-01"})]
    # Nothing but the types: said, though no row differs.
    (same,) = compare(Memory(typed(id="integer"), [b"1\n"]), Memory(typed(id="bigint"), [b"1\n"]))
    assert (same.rows, same.is_worth_saying) == (0, True)


def test_a_key_that_is_written_otherwise_is_the_same_key() -> None:
    """As in PostgreSQL and in a restore: the row has changed, and is neither gone nor new."""
    sides = [Memory(typed(id="numeric", n="text"), [line]) for line in (b"1.0,x\n2,x\n", b"1.00,x\n2,x\n")]
    (found,) = compare(*sides)
    assert (found.added, found.removed, found.changed, found.columns) == (0, 0, 1, {"id": 1})


def test_columns_that_only_one_side_has_are_named_and_not_compared() -> None:
    one = Memory(table_of("id", "old", "same", key=("id",)), [line(["1", "a", "x"]), line(["2", "b", "y"])])
    other = Memory(table_of("id", "same", "new", key=("id",)), [line(["1", "x", None]), line(["2", "z", "n"])])
    (found,) = compare(one, other)
    assert (found.changed, found.columns, found.dropped, found.new) == (1, {"same": 1}, ("old",), ("new",))


@pytest.mark.parametrize("values", [[None, ""], ["a,b", 'say "x"'], ["l1\nl2", "end"], ["\\.", " "], ["", None]])
def test_rows_are_taken_apart_as_postgresql_wrote_them(values: list[str | None], demo_database: DemoDatabase) -> None:
    with closing(demo_database.connect()) as db, db.cursor() as cursor:
        target = io.BytesIO()
        text = cursor.mogrify("COPY (SELECT %s::text, %s::text) TO STDOUT (FORMAT csv)", values).decode()
        cursor.copy_expert(text, target)
    assert fields_of(target.getvalue()) == [None if value is None else value.encode() for value in values]


@pytest.fixture
def life(run: Run, demo_database: DemoDatabase, tmp_path: Path) -> Any:
    identity = tmp_path / "identity.txt"
    variables = restore_keys(run, identity, demo_database) | {"CLINIC_BACKUPS_IDENTITY_FILE": str(identity)}

    def call(*words: str, code: int = 0, **more: str) -> Any:
        done = run(*words, **(variables | more))
        assert done.code == code, done.err
        return done

    call("catalog", "migrate")
    call("store", "init")
    return call


def change(demo_database: DemoDatabase, *statements: str) -> None:
    with closing(demo_database.connect()) as db, db, db.cursor() as cursor:
        for statement in statements:
            cursor.execute(statement)


WORK = (
    "UPDATE usuarios_paciente SET telefono = '+591 9', notas = NULL WHERE clinica_id = 1 AND id / 6 % 3 = 0",
    "DELETE FROM inventario_inventario WHERE clinica_id = 1 AND id / 6 % 2 = 0",
    "INSERT INTO inventario_inventario (codigo, nombre, cantidad, precio_unitario, clinica_id)"
    " SELECT 'N' || n, 'nuevo', n, 1, 1 FROM generate_series(1, 7) AS n",
    "UPDATE inventario_inventario SET nombre = 'de otra' WHERE clinica_id = 2",
)


def test_backups_moments_now_and_connections(life: Any, demo_database: DemoDatabase, tmp_path: Path) -> None:
    first = life("backup", "--clinic", "1", "--json").json()[0]["backup_id"]
    with closing(demo_database.connect()) as db, db.cursor() as cursor:
        cursor.execute("SELECT now()")
        ((between,),) = cursor.fetchall()
        counted = {}
        for name, query in {
            "patients": "SELECT count(*), count(notas) FROM usuarios_paciente WHERE clinica_id = 1 AND id / 6 % 3 = 0",
            "stock": "SELECT count(*), 0 FROM inventario_inventario WHERE clinica_id = 1 AND id / 6 % 2 = 0",
        }.items():
            cursor.execute(query)
            ((counted[name], notes),) = cursor.fetchall()
            counted[f"{name} with notes"] = notes
    change(demo_database, *WORK)
    second = life("backup", "--clinic", "1", "--json").json()[0]["backup_id"]
    assert min(counted["patients"], counted["patients with notes"], counted["stock"]) > 0
    columns = {"telefono": counted["patients"], "notas": counted["patients with notes"]}
    expected = {STOCK: (7, counted["stock"], 0, {}), PATIENTS: (0, 0, counted["patients"], columns)}
    for words in (
        (first, second), (first, "now"), (first, "elsewhere"), (between.isoformat(), "now", "--clinic", "1"),
        (first,),
    ):  # fmt: skip
        found = life("diff", *words, "--json", AIRFLOW_CONN_ELSEWHERE=demo_database.reader_uri).json()
        tables = {
            each["table"]: (each["added"], each["removed"], each["changed"], each["columns"])
            for each in found["tables"] if each["added"] + each["removed"] + each["changed"]
        }  # fmt: skip
        assert tables == expected, words
    # Without the key: the same tables, exact numbers of rows, and never too few changes.
    about = {each["table"]: each for each in life("diff", first, second, "--without-key", "--json").json()}
    assert about.keys() == {STOCK, PATIENTS}
    assert about[STOCK]["after"] - about[STOCK]["before"] == 7 - counted["stock"]
    assert about[PATIENTS]["at_most"] >= counted["patients"]
    assert "at most" in life("diff", first, second, "--without-key", CLINIC_BACKUPS_IDENTITY_FILE="").out
    assert "only two backups" in life("diff", first, "now", "--without-key", code=2).err
    turned = life("diff", "now", first, "--json").json()["tables"]
    stock = next(each for each in turned if each["table"] == STOCK)
    assert (stock["added"], stock["removed"]) == (counted["stock"], 7)
    assert "nothing differs" in life("diff", second, "now").out
    both = life("diff", "elsewhere", "now", "--clinic", "1", AIRFLOW_CONN_ELSEWHERE=demo_database.reader_uri)
    assert "nothing differs" in both.out
    assert "nothing differs" in life("diff", second, second).out
    text = life("diff", first, "now", "--table", STOCK).out
    assert STOCK in text
    assert PATIENTS not in text
    assert "nuevo" not in text
    # Values go into an encrypted file alone.
    file = tmp_path / "rows.age"
    life("diff", first, second, "--output", str(file))
    assert b"nuevo" not in file.read_bytes()
    assert file.stat().st_mode & 0o777 == 0o600
    opened = io.BytesIO()
    with file.open("rb") as sealed:
        ENCRYPTION.open(sealed, opened, load_identities(tmp_path / "identity.txt"))
    rows = [json.loads(each) for each in opened.getvalue().decode().splitlines()]
    assert len(rows) == 7 + counted["stock"] + counted["patients"]
    assert sum(each["after"] is not None and each["after"].get("nombre") == "nuevo" for each in rows) == 7


@pytest.mark.parametrize("kind", ["full", "incremental"])
def test_backups_before_and_after_a_migration(life: Any, demo_database: DemoDatabase, kind: str) -> None:
    first = life("backup", "--clinic", "1", "--json").json()[0]["backup_id"]
    change(
        demo_database,
        "ALTER TABLE inventario_inventario RENAME COLUMN nombre TO titulo",
        "ALTER TABLE inventario_inventario ADD COLUMN color text",
        "UPDATE inventario_inventario SET codigo = codigo || 'x' WHERE clinica_id = 1 AND id / 6 % 2 = 0",
    )
    second = life("backup", "--clinic", "1", "--json", "--kind", kind).json()[0]["backup_id"]
    with closing(demo_database.connect()) as db, db.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM inventario_inventario WHERE clinica_id = 1 AND id / 6 % 2 = 0")
        ((changed,),) = cursor.fetchall()
    for one, other, dropped, new in (
        (first, second, ["nombre"], ["titulo", "color"]), (second, first, ["titulo", "color"], ["nombre"]),
        (first, "now", ["nombre"], ["titulo", "color"]), ("now", first, ["titulo", "color"], ["nombre"]),
    ):  # fmt: skip
        (table,) = [
            each for each in life("diff", one, other, "--json").json()["tables"]
            if each["changed"] or each["added"] or each["removed"] or each["new_columns"]
        ]  # fmt: skip
        assert (table["table"], table["changed"], table["columns"]) == (STOCK, changed, {"codigo": changed})
        assert (sorted(table["dropped_columns"]), sorted(table["new_columns"])) == (sorted(dropped), sorted(new))


def test_a_block_that_one_backup_has_more_often(life: Any, demo_database: DemoDatabase, tmp_path: Path) -> None:
    """Equal rows of a table without a key make equal blocks, which an archive stores once."""
    folder = tmp_path / "sql"
    shutil.copytree(PROJECT_SQL, folder)
    (folder / "extract" / "huella.sql").write_text("SELECT * FROM public.huella WHERE clinica_id = {{ clinic_id }}")
    text = next(f"t{number}" for number in range(10_000) if not zlib.crc32(f"1,t{number}\n".encode()) & CUT_MASK)
    change(
        demo_database,
        "CREATE TABLE public.huella (clinica_id bigint NOT NULL REFERENCES public.comun_clinica, texto text)",
        f"INSERT INTO public.huella SELECT 1, '{text}' FROM generate_series(1, 700)",
        f"GRANT SELECT ON public.huella TO {demo_database.roles.reader}",
    )
    backups = []
    for statement in ("SELECT", "DELETE FROM public.huella WHERE ctid IN (SELECT ctid FROM public.huella LIMIT 400)"):
        change(demo_database, statement)
        done = life("backup", "--clinic", "1", "--kind", "full", "--json", CLINIC_BACKUPS_SQL_DIR=str(folder))
        backups.append(done.json()[0]["backup_id"])
    for one, other, expected in ((0, 1, (0, 400)), (1, 0, (400, 0))):
        words = (backups[one], backups[other], "--table", "public.huella", "--json")
        (table,) = life("diff", *words, CLINIC_BACKUPS_SQL_DIR=str(folder)).json()["tables"]
        assert (table["added"], table["removed"], table["changed"]) == (*expected, 0)


def test_what_is_no_state_is_refused_by_name(life: Any, tmp_path: Path) -> None:
    one = life("backup", "--clinic", "1", "--json").json()[0]["backup_id"]
    two = life("backup", "--clinic", "2", "--json").json()[0]["backup_id"]
    taken = tmp_path / "taken"
    taken.touch()
    for words, said in {
        (one, two): "several clinics", ("now", "now"): "not said which clinic", (one, "ayer"): "is no backup",
        (one, "now", "--clinic", "2"): "several clinics", (one, "now", "--table", "public.nada"): "has no table",
        (one, "now", "--values"): "only in a terminal", (one, "now", "--output", str(taken)): "cannot be made",
        ("1999-01-01", "now", "--clinic", "1"): "is no backup",
    }.items():  # fmt: skip
        done = life("diff", *words, code=2)
        assert said in " ".join(done.err.split()), words
        assert "HINT:" in done.err
    assert taken.read_bytes() == b""
    assert "no completed backup" in " ".join(life("diff", "2001-01-01", "now", "--clinic", "1", code=1).err.split())


def test_a_file_that_cannot_be_finished_is_not_there(life: Any, demo_database: DemoDatabase, tmp_path: Path) -> None:
    one = life("backup", "--clinic", "1", "--json").json()[0]["backup_id"]
    change(demo_database, *WORK)
    file = tmp_path / "rows.age"
    life("diff", one, "now", "--output", str(file), "--table", "public.nada", code=2)
    assert not file.exists()
    with pytest.raises(SettingsError):
        from clinic_backups.archive.sealed_file import sealed_file

        with sealed_file(file, ()):
            pass
    assert not file.exists()


def test_a_difference_can_be_turned() -> None:
    found = TableDifference("public.t", added=1, removed=2, dropped=("a",), new=("b",), only_first=True)
    assert found.turned.turned == found
    assert (found.turned.added, found.turned.dropped, found.turned.only_second) == (2, ("b",), True)
    assert list(csv.reader(["a"])) == [["a"]]
