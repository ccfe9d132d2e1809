"""Rows are named by key in the same way everywhere: whatever spelling PostgreSQL takes for equal names the row.

One matrix of types and spellings, over ``restore --rows``, ``find`` with and without the database, and ``forget``. The
oracle is the server's own equality.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import pytest

from clinic_backups.archive.blocks import Block
from clinic_backups.archive.whole_rows import rows_of
from clinic_backups.base.backup_record import BackupRecord
from clinic_backups.base.errors import PermanentError, SettingsError
from clinic_backups.catalog.forgotten import Forgotten, ForgottenOfClinic
from clinic_backups.differences.record_history import RecordHistory
from clinic_backups.differences.record_look import Sought
from clinic_backups.restore.clinic_restore import ClinicRestore
from clinic_backups.restore.forgotten_keys import read_forgotten
from clinic_backups.restore.keys_now import keys_now
from clinic_backups.restore.leaving_out import leaving_out
from clinic_backups.restore.missing_blocks import MissingBlocks
from clinic_backups.restore.request import Wish
from clinic_backups.tenant.extract import SqlFolder
from clinic_backups.tenant.tenant_db import Snapshot
from tests import ALL
from tests.postgres_fixtures import DemoDatabase, copy_of
from tests.shapes import Shaped, shaped

BEFORE = """
    CREATE EXTENSION IF NOT EXISTS citext SCHEMA public; CREATE TYPE s.en AS ENUM ('a b', 'c');
    CREATE DOMAIN s.dn AS numeric; CREATE DOMAIN s.dc AS public.citext; CREATE DOMAIN s.dv AS char(5);
    CREATE DOMAIN s.dd AS date CHECK (VALUE > '2000-01-01'); CREATE TYPE s.co AS (a int, b text)
"""
# The type, the keys of two rows as SQL, and how somebody names the first one, or another one, or none.
TYPES: dict[str, tuple[str, str, str, tuple[str, ...]]] = {
    "char": ("char(5)", "'ab'", "'AB'", ("ab", "ab   ", "ab ", "Ab", " ab", "abc")),
    "varchar": ("varchar(10)", "'ab '", "'ab'", ("ab ", "ab", "ab  ", "AB ")),
    "text": ("text", "'Ñandú, \"1/2\" \\'", "'x'", ('Ñandú, "1/2" \\', "ñandú", "x", "y")),
    "name": ("name", "'abc'", "'d'", ("abc", "ABC", "a")),
    '"char"': ('"char"', "'a'", "'b'", ("a", "A")),
    "citext": ("public.citext", "'Ana'", "'Eva'", ("Ana", "aNA", "ana", "Ana ", "Anna")),
    "citext beyond ASCII": ("public.citext", "'ÑANDÚ'", "'Eva'", ("ñandú", "ÑANDÚ", "nandu")),
    "citext and sharp s": ("public.citext", "'Straße'", "'Eva'", ("straße", "STRASSE", "STRAßE")),
    "smallint": ("smallint", "43", "5", ("43", "043", " 43", "43.0", "43x", "99999", "")),
    "integer": ("int", "-5", "5", ("-5", "-05", "5", "+5", "5e0", "99999999999")),
    "bigint": ("bigint", "9223372036854775807", "5", ("9223372036854775807", "9223372036854775807.0", "9e18")),
    "oid": ("oid", "43", "35", ("43", "0043", "x")),
    "numeric": ("numeric", "43.00", "2", ("43", "43.00", "4.3e1", "+43", "043", ".43e2", "43,0", "44", "x", "1e400")),
    "numeric with a scale": ("numeric(6,2)", "-1.50", "2", ("-1.5", "-01.5", "-1.50", "-15e-1", "1.5", "-1.504")),
    "numeric NaN": ("numeric", "'NaN'", "2", ("NaN", "nan", "Infinity")),
    "numeric infinite": ("numeric", "'Infinity'", "'-Infinity'", ("Infinity", "inf", "-inf", "+infinity", "NaN")),
    "numeric long": ("numeric", "123456789012345678901234567890.123", "2", ("123456789012345678901234567890.1230",)),
    "double": ("float8", "0.1", "5", ("0.1", "0.10", "1e-1", ".1", "0.10000000000000000001", "0.2", "x", "1e999")),
    "double large": ("float8", "1e20", "1000", ("1e+20", "1e20", "100000000000000000000", "1E20", "1e3", "1e21")),
    "double -0": ("float8", "'-0'::float8", "5", ("0", "-0", "0.0", "-0.0")),
    "double NaN": ("float8", "'NaN'", "'Infinity'", ("NaN", "nan", "inf", "-inf")),
    "real": ("real", "0.1", "5", ("0.1", "0.10", "0.100000001", "0.2", "1e39")),
    "uuid": (
        "uuid", "'A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11'", "'b0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11'",
        ("a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11", "A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11",
         "{a0eebc999c0b4ef8bb6d6bb9bd380a11}", "a0eebc999c0b4ef8bb6d6bb9bd380a11",
         "a0ee-bc99-9c0b-4ef8-bb6d-6bb9-bd38-0a11", "a0eebc99", "urn:uuid:a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"),
    ),
    "timestamp": (
        "timestamp", "'2024-01-05 08:00'", "'2024-01-06'",
        ("2024-01-05 08:00:00", "2024-01-05 08:00", "2024-01-05T08:00", "2024-1-5 8:00", "2024-01-05 08:00:00.000",
         "20240105 080000", "2024-01-05 08:00:00+04", "Jan 5 2024 8:00", "2024-01-06", "2024-13-01", "ayer"),
    ),
    "timestamptz": (
        "timestamptz", "'2024-01-05 08:00-04'", "'2024-01-06'",
        ("2024-01-05 12:00:00+00", "2024-01-05T08:00:00-04:00", "2024-01-05T12:00:00Z", "2024-01-05 12:00",
         "2024-01-05 17:30+05:30", "2024-01-05 12:00:00 UTC", "2024-01-05 08:00", "x"),
    ),
    "timestamptz infinite": ("timestamptz", "'infinity'", "'-infinity'", ("infinity", "-infinity", "inf")),
    "date": (
        "date", "'2024-01-05'", "'2024-01-06'",
        ("2024-01-05", "20240105", "2024-1-5", "2024-01-05T08:00", "January 5, 2024", "2024-02-30", "2024-01-07"),
    ),
    "date infinite": ("date", "'infinity'", "'2024-01-06'", ("infinity", "Infinity", "-infinity")),
    "date BC": ("date", "'0044-03-15 BC'", "'0044-03-15'", ("0044-03-15 BC", "0044-03-15", "44-03-15 BC")),
    "date long ago": ("date", "'1799-03-15'", "'12024-01-06'", ("1799-03-15", "17990315", "12024-01-06")),
    "time": ("time", "'08:00'", "'09:00'", ("08:00:00", "08:00", "8:00", "8:00 am", "08:00:00.0", "25:00")),
    "timetz": ("timetz", "'08:00-04'", "'09:00-04'", ("08:00:00-04", "08:00-04:00", "12:00+00", "08:00-0400")),
    "interval": (
        "interval", "'1 day'", "'2 days'",
        ("1 day", "24:00:00", "24 hours", "P1D", "1d", "-1 day", "48:00:00", "1 x"),
    ),
    "interval months": ("interval", "'1 mon -1 days'", "'-1 year'", ("29 days", "696:00:00", "-12 mons", "1 month")),
    "boolean": ("boolean", "true", "false", ("t", "true", "1", "TRUE", "yes", "on", "f", "0", "2", "o")),
    "inet": ("inet", "'10.0.0.1'", "'10.0.0.0/8'", ("10.0.0.1", "10.0.0.1/32", "10.0.0.0/8", "10.0.0.1/8", "10.1")),
    "inet 6": ("inet", "'2001:DB8::1'", "'::ffff:1.2.3.4'", ("2001:db8:0::1", "2001:db8::1/128", "::ffff:102:304")),
    "cidr": ("cidr", "'10.0.0.0/8'", "'10.0.0.1'", ("10.0.0.0/8", "10/8", "10.0.0.1/32", "10.0.0.1/8")),
    "macaddr": ("macaddr", "'08:00:2b:01:02:03'", "'08:00:2b:01:02:04'", ("08-00-2B-01-02-03", "08002b:010203", "08")),
    "bytea": ("bytea", "'\\x00ff'", "'\\x61'", ("\\x00ff", "\\x00FF", "\\x00 ff", "\\000\\377", "a", "\\xf", "\\x0")),
    "money": ("money", "1.50", "2", ("$1.50", "1.50", "1.5", "1.51", "x")),
    "enum": ("s.en", "'a b'", "'c'", ("a b", "c", "A B", "d")),
    "domain over numeric": ("s.dn", "1.50", "2", ("1.5", "1.50", "2.0", "x")),
    "domain over citext": ("s.dc", "'Ana'", "'Eva'", ("ana", "ANA", "eva", "Anna")),
    "domain over char": ("s.dv", "'ab'", "'AB'", ("ab", "ab  ", "aB")),
    "domain with a check": ("s.dd", "'2024-01-05'", "'2024-01-06'", ("2024-1-5", "2024-01-07", "x")),
    "bit": ("bit(4)", "B'0101'", "B'0001'", ("0101", "b0101", "x5", "0111", "2")),
    "bit varying": ("varbit", "B'01'", "B'010'", ("01", "B01", "0", "010")),
    "array": ("int[]", "'{1,2}'", "'{3}'", ("{1,2}", "{1, 2}", "{01,2}", "{2,1}", "{1,x}", "1")),
    "array of numeric": ("numeric[]", "'{1.0,2}'", "'{3}'", ("{1.0,2}", "{1,2}", "{1, 2.00}", "{2,1}")),
    "array of char": ("char(3)[]", "'{ab}'", "'{a}'", ("{ab}", '{"ab "}', "{a}", "{abc}")),
    "jsonb": ("jsonb", "'{\"a\": 1.00}'", "'2'", ('{"a": 1.00}', '{"a":1}', '{"a": 2}', "{a}")),
    "int4range": ("int4range", "'[1,5)'", "'[7,8)'", ("[1,5)", "[1,4]", "(0,5)", "[1,5]", "[5,1]")),
    "numrange": ("numrange", "'[1.0,2)'", "'[7,8)'", ("[1.0,2)", "[1,2)", "[1,2.00)", "(1,2)")),
    "composite": ("s.co", "'(1,x)'", "'(2,x)'", ("(1,x)", '(1,"x")', "(01,x)", "(1,X)", "(x,1)")),
}  # fmt: skip
PLAIN = {name for name in TYPES if name not in {
    "citext and sharp s", "money", "enum", "array", "array of numeric", "array of char", "jsonb",
    "int4range", "numrange", "composite",
}}  # fmt: skip
"""The types whose equality Python knows. Of the others it says that it does not."""
TEXTS = {
    "char", "varchar", "text", "name", '"char"', "citext", "citext beyond ASCII", "domain over citext",
    "domain over char",
}  # fmt: skip
SERVER_ALONE = {
    "20240105 080000", "Jan 5 2024 8:00", "2024-01-05 12:00:00 UTC", "January 5, 2024", "8:00 am", "24 hours", "P1D",
    "1d", "1 month", "44-03-15 BC", "0043", "::ffff:102:304", "inf", "Infinity", "10/8", "\\000\\377", "x5",
    "2024-01-05 08:00:00+04", "1e400", "12:00+00",
}  # fmt: skip
"""Spellings that only the server reads: without it they are refused."""
COMPOSITE = (
    "char",
    "citext",
    "numeric",
    "double -0",
    "timestamp",
    "uuid",
    "boolean",
    "interval",
    "inet",
    "cidr",
    "jsonb",
)
FOUND, OTHER, NOT_THERE, REFUSED, UNCLEAR = "found", "the other row", "not there", "refused", "unclear"
SPELLINGS = None if os.environ.get(ALL) else 3
"""Of each type. `make test` has limited time: the others are tried with TESTS_ALL=1, as in the matrix."""
Outcomes = dict[tuple[str, str], str]


@dataclass(frozen=True)
class Case:
    """A table with a key of some type. ``named``: how its row is named, and the same for the server's equality."""

    table: str
    ddl: str
    rows: str
    oracle: str
    spellings: tuple[tuple[str, str], ...]


def cases() -> dict[str, Case]:
    found = dict[str, Case]()
    for number, (name, (type_, mine, other, spellings)) in enumerate(TYPES.items()):
        # Without a length: with one, the server would cut what was written, and take another key for it.
        bare = {"char": "bpchar", "bit": '"bit"', "char[]": "bpchar[]"}.get(
            short := re.sub(r"\(.*?\)", "", type_), short
        )
        oracle = f"SELECT %(named)s::{bare} = {mine}::{type_}, %(named)s::{bare} = {other}::{type_}"
        for prefix, table, more in (("", f"s.t{number}", ""), ("7/", f"s.u{number}", "7, ")):
            if not prefix or name in COMPOSITE:
                first, key = ("o int, ", "o, id") if prefix else ("", "id")
                found[prefix + name] = Case(
                    table,
                    f"CREATE TABLE {table} ({first}id {type_}, c int NOT NULL REFERENCES s.clinic, n text,"
                    f" PRIMARY KEY ({key}))",
                    f"INSERT INTO {table} VALUES ({more}{mine}, 1, 'MARK'), ({more}{other}, 1, 'other')",
                    oracle,
                    tuple((prefix + each, each) for each in spellings[:SPELLINGS]),
                )
    return found


CASES = cases()
MATRIX = [(name, named) for name, case in CASES.items() for named, _ in case.spellings]


@dataclass
class Life:
    """One schema, one backup, and what each command made of each spelling."""

    rig: Shaped
    record: BackupRecord
    oracle: Outcomes
    results: dict[str, Outcomes]
    unsure: set[tuple[str, str]]


def server_says(rig: Shaped) -> Outcomes:
    found: Outcomes = {}
    with closing(rig.database.connect()) as db:
        db.autocommit = True
        with db.cursor() as cursor:
            cursor.execute("SET timezone = 'UTC'")
            cursor.execute("SET datestyle = 'ISO, YMD'")
            cursor.execute("SET lc_monetary = 'C'")
            for name, case in CASES.items():
                for named, text in case.spellings:
                    try:
                        cursor.execute(case.oracle, {"named": text})
                        ((is_first, is_other),) = cursor.fetchall()
                        found[name, named] = FOUND if is_first else OTHER if is_other else NOT_THERE
                    except Exception:  # noqa: BLE001
                        found[name, named] = REFUSED
    return found


def rounds(wanted: Callable[[str, str], bool]) -> Iterator[dict[str, str]]:
    """The spellings, one of each type at a time."""
    most = max(len(case.spellings) for case in CASES.values())
    for number in range(most):
        yield {
            name: case.spellings[number][0]
            for name, case in CASES.items()
            if number < len(case.spellings) and wanted(name, case.spellings[number][0])
        }


def one_by_one(name_: str, life: Life, ask: Callable[[dict[str, str]], dict[str, str]]) -> None:
    """Ask for many spellings at once; and alone for those that are expected to be refused, or if all were refused."""
    found = life.results.setdefault(name_, {})
    for named in rounds(lambda name, spelling: life.oracle[name, spelling] != REFUSED):
        try:
            found |= {(name, named[name]): outcome for name, outcome in ask(named).items()}
        except PermanentError:
            for name, spelling in named.items():
                found[name, spelling] = alone(ask, name, spelling)
    for (name, spelling), outcome in life.oracle.items():
        if outcome == REFUSED:
            found[name, spelling] = alone(ask, name, spelling)


def alone(ask: Callable[[dict[str, str]], dict[str, str]], name: str, spelling: str) -> str:
    try:
        return ask({name: spelling})[name]
    except SettingsError as error:
        # The error says what was not understood, of which column and which type.
        said = str(error)
        assert CASES[name].table in said
        assert "of the type" in said
        return REFUSED
    except PermanentError as error:
        assert "cannot be told without" in str(error)
        return UNCLEAR


def named_tables(named: dict[str, str]) -> dict[str, list[str]]:
    return {CASES[name].table: [spelling] for name, spelling in named.items()}


@pytest.fixture(scope="module")
def life(demo_template: DemoDatabase, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Life]:
    with copy_of(demo_template) as database:
        ddl = "; ".join((BEFORE, *(case.ddl for case in CASES.values())))
        extracts = {case.table[2:]: "c = {{ clinic_id }}" for case in CASES.values()}
        rig = shaped(database, tmp_path_factory.mktemp("life"), ddl, extracts)
        rig.execute(*(case.rows for case in CASES.values()))
        made = Life(rig, rig.run(1), server_says(rig), {}, set())
        forgotten_early = forget(made)
        rig.execute(*(f"DELETE FROM {case.table} WHERE n = 'MARK'" for case in CASES.values()))
        one_by_one("rows", made, lambda named: picked(made, named))
        one_by_one("find", made, lambda named: looked_for(made, named, server=True))
        one_by_one("find without the database", made, lambda named: looked_for(made, named, server=False))
        left_out("forget", made, forgotten_early)
        left_out("forget later", made, forget(made, late=True), restored=False)
        yield made


def picked(life: Life, named: dict[str, str]) -> dict[str, str]:
    """What a restore of the named rows would bring back."""
    plan = life.rig.plan(
        life.record, mode="rows", rows={table: tuple(keys) for table, keys in named_tables(named).items()}
    )
    back = {each.table for each in plan.tables if each.insert}
    missing = {refusal.table for refusal in plan.refusals}
    assert [each.message for each in plan.refusals if "not in this backup" not in each.message] == []
    return {
        name: {(True, False): FOUND, (False, True): NOT_THERE, (False, False): OTHER}[table in back, table in missing]
        for name in named
        for table in [CASES[name].table]
    }


def looked_for(life: Life, named: dict[str, str], *, server: bool) -> dict[str, str]:
    more: dict[str, Any] = {}
    if server:
        more = {"server": keys_now(lambda: life.rig.clinic_db, life.rig.settings)}
    history = RecordHistory(life.rig.restore().archives, forgotten=lambda _: ForgottenOfClinic({}), **more)
    found = history.find([life.record], Sought(named_tables(named)))
    there = {each.table: each.values["n"] for each in found}
    if history.notes:  # which of them, is said for one at a time
        raise PermanentError("cannot be told without") if len(named) > 1 else AssertionError(history.notes)
    outcomes = {"MARK": FOUND, "other": OTHER, None: NOT_THERE}
    return {name: outcomes[there.get(CASES[name].table)] for name in named}


def forget(life: Life, *, late: bool = False) -> dict[tuple[str, str], Any]:
    """How ``forget`` reads each spelling; none if it refuses it."""
    found = dict[tuple[str, str], Any]()
    folder = SqlFolder(life.rig.settings.sql_dir)
    with Snapshot(life.rig.clinic_db) as snapshot:
        for name, spelling in MATRIX:
            try:
                read = read_forgotten(snapshot, folder, 1, {CASES[name].table: [spelling]}, {CASES[name].table})
            except SettingsError:
                found[name, spelling] = None
                continue
            found[name, spelling] = read.keys[CASES[name].table]
            if late and any("may be written differently" in note for note in read.notes):
                life.unsure.add((name, spelling))
    return found


def left_out(name_: str, life: Life, keys: dict[tuple[str, str], Any], *, restored: bool = True) -> None:
    """What a restore, and archives alone, leave out for each spelling."""
    in_restore, alone_ = life.results.setdefault(name_, {}), life.results.setdefault(f"{name_}, export", {})
    for key, read in keys.items():
        if read is None:
            in_restore[key] = alone_[key] = REFUSED
    forgotten = Forgotten(life.rig.catalog.database)
    empty = ("ALTER TABLE clinic_backups.forgotten DISABLE TRIGGER ALL", "DELETE FROM clinic_backups.forgotten")
    for named in rounds(lambda name, spelling: keys[name, spelling] is not None):
        life.rig.execute(*empty, "ALTER TABLE clinic_backups.forgotten ENABLE ALWAYS TRIGGER forgotten_is_kept")
        forgotten.add(1, {CASES[n].table: keys[n, s] for n, s in named.items()}, by="ana", reason="x")
        restore: ClinicRestore = life.rig.restore()
        restore._forgotten = forgotten.of_clinic
        rows = rows_that_stay(life, restore, forgotten.of_clinic(1))
        back = set[str]()
        if restored:
            plan = restore.plan(life.rig.source(life.record), Wish(mode="missing"))
            assert plan.refusals == ()
            back = {each.table for each in plan.tables if each.insert}
        for name, spelling in named.items():
            table = CASES[name].table
            others = OTHER if len(rows[table]) == 1 else NOT_THERE
            alone_[name, spelling] = others if any(b"MARK" in row for row in rows[table]) else FOUND
            in_restore[name, spelling] = others if table in back else FOUND
    life.rig.execute(*empty)


def rows_that_stay(life: Life, restore: ClinicRestore, forgotten: ForgottenOfClinic) -> dict[str, list[bytes]]:
    """The rows of an export."""
    fetched = restore.archives.fetch(life.rig.source(life.record))
    leaving = leaving_out(restore.archives, fetched, forgotten)
    rows = dict[str, list[bytes]]()

    def use(table: str, _: Block, data: bytes, times: int) -> None:
        kept = leaving.left_out.kept(table, data, times) if leaving is not None else data
        rows.setdefault(table, []).extend(rows_of(kept))

    wanted = MissingBlocks.every(fetched.manifest.tables, use)
    restore.archives.read(fetched, wanted)
    wanted.require_all()
    return rows


@pytest.mark.parametrize("command", ["rows", "find", "forget", "forget, export"])
@pytest.mark.parametrize(("name", "spelling"), MATRIX)
def test_a_key_names_the_row_that_the_server_takes_for_equal(
    life: Life, command: str, name: str, spelling: str
) -> None:
    assert life.results[command][name, spelling] == life.oracle[name, spelling]


@pytest.mark.parametrize(("name", "spelling"), MATRIX)
def test_without_the_database_nothing_is_said_that_is_wrong(life: Life, name: str, spelling: str) -> None:
    said, true = life.results["find without the database"][name, spelling], life.oracle[name, spelling]
    assert said in {true, REFUSED, UNCLEAR}
    if name.removeprefix("7/") in PLAIN and spelling.removeprefix("7/") not in SERVER_ALONE:
        # A backup does not say which collation a column has. So texts like the named one may be equal to it.
        assert said == true or (said == UNCLEAR and true == NOT_THERE and name.removeprefix("7/") in TEXTS)


@pytest.mark.parametrize(("name", "spelling"), MATRIX)
def test_a_row_that_is_gone_already_is_forgotten_or_somebody_is_told(life: Life, name: str, spelling: str) -> None:
    said, true = life.results["forget later, export"][name, spelling], life.oracle[name, spelling]
    assert said == true or (said == NOT_THERE and (name, spelling) in life.unsure)
