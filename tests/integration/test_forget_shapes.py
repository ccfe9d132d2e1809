"""Forgotten rows stay away over keys and links of all kinds, and all other rows come back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from clinic_backups.archive.blocks import Block
from clinic_backups.archive.whole_rows import rows_of
from clinic_backups.base.backup_record import BackupRecord
from clinic_backups.catalog.forgotten import Forgotten
from clinic_backups.restore.clinic_restore import ClinicRestore
from clinic_backups.restore.leaving_out import leaving_out
from clinic_backups.restore.missing_blocks import MissingBlocks
from clinic_backups.restore.request import Wish
from tests.postgres_fixtures import DemoDatabase
from tests.shapes import Shaped, grants, shaped

OF = "c int NOT NULL REFERENCES s.clinic"
OWN = "c = {{ clinic_id }}"
MARK = "OLVIDADA"
"""In a value of each row that must not come back."""


class Forgetting(Shaped):
    """Restores with a catalog that knows what was forgotten."""

    def restore(self) -> ClinicRestore:
        made = super().restore()
        made._forgotten = Forgotten(self.catalog.database).of_clinic
        return made


@dataclass(frozen=True)
class Shape:
    """Tables with rows of both clinics. What belongs to the forgotten row has the mark.

    :param gone: what deletes the forgotten row and all that belongs to it.
    :param migrations: what happens to the tables after that.
    """

    ddl: str
    rows: tuple[str, ...]
    forgotten: Mapping[str, list[str]]
    tables: tuple[str, ...] = ("p", "k")
    gone: tuple[str, ...] = (f"DELETE FROM s.k WHERE q = '{MARK}'", f"DELETE FROM s.p WHERE n = '{MARK}'")
    migrations: tuple[str, ...] = ()
    files: Mapping[str, str] = field(default_factory=dict)


def family(type_: str, mine: str, other: str, foreign: str, key: str, *, before: str = "") -> Shape:
    """A table with a key of some type, and one that refers to it."""
    return Shape(
        f"{before} CREATE TABLE s.p (id {type_} PRIMARY KEY, {OF}, n text);"
        f" CREATE TABLE s.k (id int PRIMARY KEY, {OF}, p {type_} NOT NULL REFERENCES s.p ON DELETE CASCADE, q text)",
        (
            f"INSERT INTO s.p VALUES ({mine}, 1, '{MARK}'), ({other}, 1, 'b'), ({foreign}, 2, 'z')",
            f"INSERT INTO s.k VALUES (1, 1, {mine}, '{MARK}'), (2, 1, {other}, 'x'), (3, 2, {foreign}, 'z')",
        ),
        {"s.p": [key]},
    )


def linked(link: str, *migrations: str, **more: Mapping[str, str]) -> Shape:
    """A table whose column ``owner`` refers to the forgotten row in some way."""
    return Shape(
        f"CREATE TABLE s.p (id int PRIMARY KEY, {OF}, n text);"
        f" CREATE TABLE s.k (id int PRIMARY KEY, {OF}, owner {link}, q text)",
        (
            f"INSERT INTO s.p VALUES (43, 1, '{MARK}'), (44, 1, 'b'), (45, 2, 'z')",
            f"INSERT INTO s.k VALUES (1, 1, 43, '{MARK}'), (2, 1, 44, 'x'), (3, 2, 45, 'z')",
        ),
        {"s.p": ["43"]},
        migrations=migrations,
        files=more.get("files", {}),
    )


def spelled(parent: str, value: str, child: str, same: str, key: str, *others: str, before: str = "") -> Shape:
    """A foreign key whose values have other texts than those that they refer to, over two tables.

    :param value, same: one value as each table writes it.
    :param others: values of rows that stay, as both tables write them.
    """
    kept = [(number, each) for number, each in enumerate(others, 10)]
    return Shape(
        f"CREATE EXTENSION IF NOT EXISTS citext SCHEMA public; {before}"
        f" CREATE TABLE s.p (id {parent} PRIMARY KEY, {OF}, n text);"
        f" CREATE TABLE s.k (id int PRIMARY KEY, {OF}, p {child} NOT NULL REFERENCES s.p ON DELETE CASCADE, q text);"
        f" CREATE TABLE s.g (id int PRIMARY KEY, {OF}, k int NOT NULL REFERENCES s.k ON DELETE CASCADE, q text)",
        (
            f"INSERT INTO s.p VALUES ({value}, 1, '{MARK}')",
            f"INSERT INTO s.k VALUES (1, 1, {same}, '{MARK}')",
            f"INSERT INTO s.g VALUES (1, 1, 1, '{MARK}')",
            *(f"INSERT INTO s.p VALUES ({each}, 1, 'b')" for _, each in kept),
            *(f"INSERT INTO s.k VALUES ({number}, 1, {each}, 'x')" for number, each in kept),
            *(f"INSERT INTO s.g VALUES ({number}, 1, {number}, 'x')" for number, _ in kept),
        ),
        {"s.p": [key]},
        ("p", "k", "g"),
        (f"DELETE FROM s.g WHERE q = '{MARK}'", f"DELETE FROM s.k WHERE q = '{MARK}'",
         f"DELETE FROM s.p WHERE n = '{MARK}'"),
    )  # fmt: skip


def called(parent: str, value: str, child: str, same: str, key: str) -> Shape:
    """A column that is named like a foreign key and has none."""
    return Shape(
        "CREATE EXTENSION IF NOT EXISTS citext SCHEMA public;"
        f" CREATE TABLE s.persona (id {parent} PRIMARY KEY, {OF}, n text);"
        f" CREATE TABLE s.nota (id int PRIMARY KEY, {OF}, persona_id {child} NOT NULL, q text)",
        (f"INSERT INTO s.persona VALUES ({value}, 1, '{MARK}')", f"INSERT INTO s.nota VALUES (1, 1, {same}, '{MARK}')"),
        {"s.persona": [key]},
        ("persona", "nota"),
        (f"DELETE FROM s.nota WHERE q = '{MARK}'", f"DELETE FROM s.persona WHERE n = '{MARK}'"),
    )


def dropped(shape: Shape) -> Shape:
    """The foreign key is dropped after the backup."""
    return replace(shape, migrations=("ALTER TABLE s.k DROP CONSTRAINT k_p_fkey",))


CITEXT = spelled("public.citext", "'Ana'", "public.citext", "'ANA'", "ana", "'Ána'", "'Ana '", "'Eva'")
MOMENTS = spelled("date", "'2024-01-05'", "timestamp", "'2024-01-05 00:00'", "2024-01-05", "'2024-01-06'")
SPELLED = {
    "citext": CITEXT,
    "numeric": spelled("numeric", "43", "numeric", "43.00", "43", "430", "4.3", "44.0"),
    "numeric, int": spelled("numeric", "43.0", "int", "43", "43", "430"),
    "int, bigint": spelled("int", "43", "bigint", "43", "43", "430"),
    "float, int": spelled("float8", "1e16", "bigint", "10000000000000000", "1e+16", "43"),
    "real, float": spelled("float8", "0.1::real", "real", "0.1", "0.10000000149011612", "0.5", "43"),
    "0, -0": spelled("float8", "'0'", "float8", "'-0'", "0", "1"),
    "char": spelled("char(5)", "'ab'", "char(8)", "'ab'", "ab", "'AB'", "'abc'"),
    "char, text": spelled("char(5)", "'ab'", "text", "'ab'", "ab", "'AB'"),
    "text": spelled("text", "'Ana'", "varchar(9)", "'Ana'", "Ana", "'ANA'", "'ana'", "'An-a'"),
    "date, timestamp": MOMENTS,
    "timestamp, timestamptz": spelled(
        "timestamp", "'2024-01-05 00:00'", "timestamptz", "'2024-01-05 00:00+00'", "2024-01-05 00:00:00",
        "'2024-01-06 08:00'",
    ),
    "interval": spelled("interval", "'1 month'", "interval", "'29 days 24:00:00'", "1 mon", "'1 day'", "'-1 day'"),
    "interval, time": spelled("interval", "'8 hours'", "time", "'08:00'", "08:00:00", "'09:00'"),
    "inet, cidr": spelled("inet", "'10.0.0.1'", "cidr", "'10.0.0.1'", "10.0.0.1", "'10.0.0.2'"),
    "jsonb": spelled(
        "jsonb", """'{"a": 1}'""", "jsonb", """'{"a": 1.00}'""", '{"a": 1}', """'{"a": 10}'""", "'1'"
    ),
    "an array of numbers": spelled("numeric[]", "'{1}'", "numeric[]", "'{1.0}'", "{1}", "'{10}'", "'{-1}'", "'{1,1}'"),
    "an array of spans": spelled("interval[]", "'{1 day}'", "interval[]", "'{24:00}'", '{"1 day"}', "'{2 days}'"),
    "an array of citext": spelled(
        "public.citext[]", "'{Ana}'", "public.citext[]", "'{ANA}'", "{Ana}", "'{Ána}'", "'{Eva}'"
    ),
    "a range": spelled("numrange", "'[1,2)'", "numrange", "'[1.0,2)'", "[1,2)", "'[1,2]'", "'[10,20)'"),
    "an enum": spelled("s.e", "'a'", "s.e", "'a'", "a", "'b'", before="CREATE TYPE s.e AS ENUM ('a', 'b');"),
    "a domain of citext": spelled(
        "s.d", "'Ana'", "s.d", "'ANA'", "Ana", "'Eva'", before="CREATE DOMAIN s.d AS public.citext;"
    ),
    "a domain of numeric": spelled(
        "s.d", "43", "numeric", "43.00", "43", "430", before="CREATE DOMAIN s.d AS numeric;"
    ),
    "citext, and the foreign key was dropped": dropped(CITEXT),
    "date, timestamp, and the foreign key was dropped": dropped(MOMENTS),
    "named, int, text": called("int", "43", "text", "'43'", "43"),
    "named, numeric, text": called("numeric", "43.0", "text", "'43.00'", "43"),
    "named, citext": called("public.citext", "'Ana'", "public.citext", "'ANA'", "ana"),
    "named, uuid, text": called(
        "uuid", "'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11'", "text", "'A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11'",
        "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11",
    ),
}  # fmt: skip

SHAPES = {
    "a link that may be NULL, and ON DELETE CASCADE": linked("int REFERENCES s.p ON DELETE CASCADE"),
    "a tree with ON DELETE CASCADE": Shape(
        f"CREATE TABLE s.p (id int PRIMARY KEY, {OF}, n text, up int REFERENCES s.p ON DELETE CASCADE)",
        (f"INSERT INTO s.p VALUES (43, 1, '{MARK}', NULL), (44, 1, '{MARK}', 43), (45, 1, 'x', NULL),"
         " (46, 2, 'z', NULL)",),
        {"s.p": ["43"]},
        ("p",),
        (f"DELETE FROM s.p WHERE n = '{MARK}'",),
    ),
    "MATCH FULL over a column that may be NULL and one that may not": Shape(
        f"CREATE TABLE s.p ({OF}, code text, n text, PRIMARY KEY (c, code));"
        f" CREATE TABLE s.k (id int PRIMARY KEY, {OF}, code text, q text,"
        " FOREIGN KEY (c, code) REFERENCES s.p MATCH FULL)",
        (
            f"INSERT INTO s.p VALUES (1, 'a', '{MARK}'), (1, 'b', 'n'), (2, 'a', 'n')",
            f"INSERT INTO s.k VALUES (1, 1, 'a', '{MARK}'), (2, 1, 'b', 'x'), (3, 2, 'a', 'r')",
        ),
        {"s.p": ["1/a"]},
    ),
    "the foreign key was dropped since": linked(
        "int NOT NULL REFERENCES s.p", "ALTER TABLE s.k DROP CONSTRAINT k_owner_fkey"
    ),
    "the foreign key was dropped and both columns renamed": linked(
        "int NOT NULL REFERENCES s.p", "ALTER TABLE s.k DROP CONSTRAINT k_owner_fkey",
        "ALTER TABLE s.k RENAME owner TO whose", "ALTER TABLE s.p RENAME id TO number",
        files={"drift.txt": "s.k: owner -> whose\ns.p: id -> number\n"},
    ),
    "numeric": family("numeric", "43.00", "44", "45", "43"),
    "numeric with a scale": family("numeric(8,2)", "43", "430", "45", "+43.0"),
    "a domain": family("s.d", "43", "44", "45", "043", before="CREATE DOMAIN s.d AS bigint;"),
    "a domain of a domain": family(
        "s.e", "43", "44", "45", " 43", before="CREATE DOMAIN s.d AS numeric(9,3); CREATE DOMAIN s.e AS s.d;"
    ),
    "oid": family("oid", "43", "44", "45", "043"),
    "char": family("char(5)", "'ab'", "'AB'", "'ad'", "ab "),
    "citext": family("public.citext", "'Ana'", "'Ana '", "'Ida'", "aNA",
                     before="CREATE EXTENSION IF NOT EXISTS citext SCHEMA public;"),
    "date": family("date", "'2024-01-05'", "'2024-01-06'", "'2024-01-07'", "20240105"),
    "timestamp": family("timestamp(3)", "'2024-01-05 08:00:00.5'", "'2024-01-05'", "'2024-01-07'",
                        "2024-01-05T08:00:00.500"),
    "timestamptz": family("timestamptz", "'2024-01-05 00:00Z'", "'2024-01-06'", "'2024-01-07'",
                          "2024-01-04T20:00:00-04:00"),
    "a key with a time": Shape(
        f"CREATE TABLE s.p (o int, h time, {OF}, n text, PRIMARY KEY (o, h))",
        (f"INSERT INTO s.p VALUES (1, '08:00', 1, '{MARK}'), (1, '09:00', 1, 'b'), (2, '08:00', 2, 'z')",),
        {"s.p": ["01/08:00"]},
        ("p",),
        (f"DELETE FROM s.p WHERE n = '{MARK}'",),
    ),
    "texts that only look like numbers": Shape(
        f"CREATE TABLE s.p (id text PRIMARY KEY, {OF}, n text)",
        (f"INSERT INTO s.p VALUES ('43', 1, '{MARK}'), ('043', 1, 'b'), ('43.0', 1, 'b'), (' 43', 1, 'b'),"
         " ('2024-01-05 00:00:00', 1, 'b'), ('A', 1, 'b'), ('44', 2, 'z')",),
        {"s.p": ["43", "2024-01-05", "a"]},
        ("p",),
        (f"DELETE FROM s.p WHERE n = '{MARK}'",),
    ),
}  # fmt: skip
SHAPES |= {f"other texts: {name}": shape for name, shape in SPELLED.items()}


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_what_was_forgotten_stays_away_and_nothing_else(
    demo_database: DemoDatabase, tmp_path: Path, shape: Shape
) -> None:
    rig = shaped(demo_database, tmp_path, shape.ddl, dict.fromkeys(shape.tables, OWN))
    rig.__class__ = Forgetting
    rig.execute(*shape.rows)
    record = rig.run(1)
    Forgotten(rig.catalog.database).add(1, shape.forgotten, by="ana", reason="Art. 17")
    for name, text in shape.files.items():
        (tmp_path / "sql" / name).write_text(text)
    kept = without_mark(rig)
    assert sum(map(len, kept.values())) < sum(map(len, rig.everything().values()))
    for mode in ("exact", "missing", "live"):
        rig.execute(*shape.gone)
        if mode == "exact" and shape.migrations:
            rig.execute(*shape.migrations, *grants(rig.database))
        rig.execute(f"DELETE FROM s.{shape.tables[-1]} WHERE c = 1")
        restore(rig, record, Wish(mode=mode))  # type: ignore[arg-type]
        assert rig.everything() == kept, mode


def without_mark(rig: Shaped) -> dict[str, list[str]]:
    """The oracle: all rows of all tables but the marked ones."""
    return {name: [row for row in rows if MARK not in row] for name, rows in rig.everything().items()}


def restore(rig: Shaped, record: BackupRecord, wish: Wish) -> None:
    plan = rig.restore().plan(rig.source(record), wish)
    assert plan.refusals == ()
    assert "left out" in " ".join(note for table in plan.tables for note in table.notes)
    rig.restore().apply(rig.source(record), wish, approved=plan.digest, plan=plan)


@pytest.mark.parametrize(
    ("shape", "alone", "without"),
    [
        (SHAPES["the foreign key was dropped since"], "s.k", "s.p"),
        (SPELLED["named, citext"], "s.nota", "s.persona"),
    ],
    ids=["a foreign key that was dropped", "a column that is named like a foreign key"],
)
def test_tables_alone_are_refused_over(
    demo_database: DemoDatabase, tmp_path: Path, shape: Shape, alone: str, without: str
) -> None:
    rig = shaped(demo_database, tmp_path, shape.ddl, dict.fromkeys(shape.tables, OWN))
    rig.__class__ = Forgetting
    rig.execute(*shape.rows)
    record = rig.run(1)
    Forgotten(rig.catalog.database).add(1, shape.forgotten, by="ana", reason="Art. 17")
    rig.execute(*shape.gone, *shape.migrations)
    (refusal,) = rig.plan(record, tables=(alone,)).refusals
    assert refusal.message.startswith(f"Rows of this clinic were forgotten. Without {without} ")


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_the_archives_alone_leave_out_the_same(demo_database: DemoDatabase, tmp_path: Path, shape: Shape) -> None:
    """As exports and recoveries do: without the database."""
    rig = shaped(demo_database, tmp_path, shape.ddl, dict.fromkeys(shape.tables, OWN))
    rig.__class__ = Forgetting
    rig.execute(*shape.rows)
    record = rig.run(1)
    Forgotten(rig.catalog.database).add(1, shape.forgotten, by="ana", reason="Art. 17")
    archives = rig.restore().archives
    fetched = archives.fetch(rig.source(record))
    leaving = leaving_out(archives, fetched, Forgotten(rig.catalog.database).of_clinic(1))
    assert leaving is not None
    before, after = dict[str, list[bytes]](), dict[str, list[bytes]]()

    def use(table: str, _: Block, data: bytes, times: int) -> None:
        before.setdefault(table, []).extend(rows_of(data))
        after.setdefault(table, []).extend(rows_of(leaving.left_out.kept(table, data, times)))

    wanted = MissingBlocks.every(fetched.manifest.tables, use)
    archives.read(fetched, wanted)
    wanted.require_all()
    kept = {name: [row for row in rows if MARK.encode() not in row] for name, rows in before.items()}
    assert after == kept
    assert leaving.rows == {name: len(rows) - len(kept[name]) for name, rows in before.items() if rows != kept[name]}


def test_requests_before_and_after_a_renaming_hold_for_backups_of_both_times(
    demo_database: DemoDatabase, tmp_path: Path
) -> None:
    rig = shaped(demo_database, tmp_path, f"CREATE TABLE s.p (id int PRIMARY KEY, {OF}, n text)", {"p": OWN})
    rig.__class__ = Forgetting
    rig.execute(
        f"INSERT INTO s.p VALUES (43, 1, '{MARK}'), (44, 1, '{MARK}'), (45, 1, 'b'), (46, 2, 'z'), (47, 1, '{MARK}')"
    )
    before, forgotten = rig.run(1), Forgotten(rig.catalog.database)
    forgotten.add(1, {"s.p": ["43"]}, by="ana", reason="before")
    rig.execute("ALTER TABLE s.p RENAME TO persona", *grants(rig.database))
    extracts = tmp_path / "sql" / "extract"
    (extracts / "s.p.sql").unlink()
    (extracts / "s.persona.sql").write_text(f"SELECT t.* FROM s.persona AS t WHERE {OWN}")
    (tmp_path / "sql" / "drift.txt").write_text("s.p -> s.persona\n")
    after = rig.run(1)
    forgotten.add(1, {"s.persona": ["44"]}, by="ana", reason="after")
    forgotten.add(1, {"s.persona": ["47"], "s.p": ["47"]}, by="ana", reason="both")
    kept = without_mark(rig)
    for record in (before, after):
        rig.execute("DELETE FROM s.persona WHERE c = 1")
        restore(rig, record, Wish())
        assert rig.everything() == kept, record.backup_id
