"""Odder schemas than those of test_shapes.py: they are restored exactly, or the plan refuses in plain words."""

# ruff: noqa: E501 - a schema reads best with one table a line

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from psycopg2 import sql

import clinic_backups
from clinic_backups.base.errors import PermanentError
from clinic_backups.restore import unique_values
from clinic_backups.restore.request import Wish
from clinic_backups.restore.workspace import Workspace
from clinic_backups.tenant.every_clinic import CLINICS
from tests.integration.test_shapes import CHILD, CHILDREN, OWN, require_extensions
from tests.postgres_fixtures import DemoDatabase
from tests.shapes import shaped

LONG = (pytest.mark.long,)

SOURCES = Path(clinic_backups.__file__).parent


@dataclass(frozen=True)
class Odd:
    """``says``: what the plan of the ordinary role refuses with. A superuser's, and without it all plans: all is back."""

    ddl: str
    extracts: Mapping[str, str]
    after: str
    says: str = ""
    lists: str = ""
    raises: str = ""
    """The same, where nothing can be planned at all."""
    noted: str = ""
    """A table in which the database itself writes down what was done."""
    always: bool = False
    """A superuser's plan is refused too."""
    drift: str = ""
    """Done before ``after``; it stays."""


def internal_names() -> list[str]:
    """Every name that SQL of the package gives to a column or a table, and those that it asks for."""
    names = {f"{letter}{number}" for letter in "ek" for number in range(3)}
    for source in [*SOURCES.rglob("*.py"), *SOURCES.rglob("pg_catalog/*.sql")]:
        text = source.read_text()
        names |= set(re.findall(r"\bAS (?:MATERIALIZED )?([a-z_]\w*)", text))
        names |= set(re.findall(r"\b[a-z]{1,2}\.([a-z_]\w*)", text))
    system = {"tableoid", "xmin", "cmin", "xmax", "cmax", "ctid", "clinic_id"}
    return sorted({*names, CLINICS} - system)


def table_of_internal_names(key: int) -> str:
    """One with all these columns, of which some are the key, beside a unique one."""
    names = internal_names()
    must = ["op", "times", "moves", "row_text", "present_hash", "o", "w", "p", "t", "e0", "k0", "k1", "number", "shown"]
    assert set(must) <= set(names)
    keys = must[:key] or ["id"]
    columns = "".join(f', "{name}" text' for name in sorted({*names, *keys, "value", "rows"}))
    quoted = ", ".join(f'"{name}"' for name in keys)
    end = f", PRIMARY KEY ({quoted})" if key else ""
    rows = "; ".join(
        f'INSERT INTO s.odd (clinic_id, {quoted}, "value", "rows") VALUES ({clinic}'
        + "".join(f", '{letter}{number}'" for number, _ in enumerate(keys))
        + f", '{letter}', '{letter}')"
        for clinic, letter in ((1, "a"), (1, "b"), (1, "c"), (2, "z"))
    )
    unique = ', UNIQUE ("value", "rows")' if key else ""
    return f"CREATE TABLE s.odd (clinic_id int REFERENCES s.clinic{columns}{end}{unique}); {rows}"


def names_case(key: int) -> Odd:
    return Odd(
        table_of_internal_names(key), {"odd": OWN},
        """DELETE FROM s.odd WHERE "value" = 'c'; UPDATE s.odd SET "value" = 'x' WHERE "value" = 'a';"""
        """UPDATE s.odd SET "value" = 'a', "rows" = 'a' WHERE "value" = 'b'; UPDATE s.odd SET "value" = 'b', "rows" = 'b' WHERE "value" = 'x'""",
    )  # fmt: skip


SWAP = "UPDATE s.u SET v = {spare} WHERE id = 1; UPDATE s.u SET v = {one} WHERE id = 2; UPDATE s.u SET v = {two} WHERE id = 1"
NOTES = "; CREATE TABLE s.note (id int PRIMARY KEY, u_id int NOT NULL REFERENCES s.u ON DELETE CASCADE); INSERT INTO s.note VALUES (1, 1), (2, 2), (3, 3)"
NOTE_OF = "u_id IN (SELECT id FROM s.u WHERE clinic_id = {{ clinic_id }})"


STUCK = r"[12] rows? of s\.u must make way .*\((u_v_key|one)\).*note_u_id_fkey"


def swap(column: str, one: str, two: str, three: str, spare: str, *, more: str = "", says: str = "") -> Odd:
    """Two rows swap a unique value that others may not be NULL, while children would be deleted with a row."""
    ddl = (
        f"CREATE TABLE s.u (id int PRIMARY KEY, clinic_id int REFERENCES s.clinic, {column}); {more};"
        f"INSERT INTO s.u (id, clinic_id, v) VALUES (1, 1, {one}), (2, 1, {two}), (3, 2, {three})" + NOTES
    )
    return Odd(ddl, {"u": OWN, "note": NOTE_OF}, SWAP.format(spare=spare, one=one, two=two), says)


def edited(column: str, one: str, two: str, three: str, *, new: tuple[str, str], more: str = "") -> Odd:
    """Two rows have other unique values that were nobody's, while children would be deleted with a row."""
    found = swap(column, one, two, three, one, more=more)
    return replace(found, after=f"UPDATE s.u SET v = {new[0]} WHERE id = 1; UPDATE s.u SET v = {new[1]} WHERE id = 2")


def null_moved(row: int) -> Odd:
    """Another row had the only NULL that the index takes. Each case is about one order of the rows."""
    return Odd(
        "CREATE TABLE s.u (id int PRIMARY KEY, clinic_id int REFERENCES s.clinic, v int, w int NOT NULL DEFAULT 1,"
        " UNIQUE NULLS NOT DISTINCT (clinic_id, v, w));"
        f"INSERT INTO s.u VALUES (1, 1, 1), (2, 1, 2), (3, 2, NULL); UPDATE s.u SET v = NULL WHERE id = {3 - row}"
        + NOTES,
        {"u": OWN, "note": NOTE_OF},
        f"UPDATE s.u SET v = 9 WHERE id = {3 - row}; UPDATE s.u SET v = NULL WHERE id = {row}",
    )


EDITED = {
    "under a CHECK": edited("v text NOT NULL UNIQUE CHECK (v LIKE '%@%')", "'a@x'", "'b@x'", "'c@x'", new=("'d@x'", "'e@x'")),
    "of a domain": edited("v s.short NOT NULL UNIQUE", "'a'", "'b'", "'c'", new=("'A'", "'B'")),
    "of addresses": edited("v inet NOT NULL UNIQUE", "'10.0.0.1'", "'10.0.0.2'", "'10.0.0.3'", new=("'10.0.1.1'", "'10.0.1.2'")),
    "of numbers": edited("v int NOT NULL UNIQUE CHECK (v > 0)", "1", "2", "3", new=("11", "12")),
    "that differ in case alone": edited("v text NOT NULL CHECK (v LIKE '%@%')", "'a@x'", "'b@x'", "'c@x'", new=("'A@x'", "'B@x'"), more="CREATE UNIQUE INDEX low ON s.u (lower(v))"),
    "that differ in their digits alone": edited("v numeric NOT NULL UNIQUE CHECK (v > 0)", "1.0", "2.0", "3.0", new=("1.00", "2.00")),
    "of rows whose old values a new row has": Odd(
        "CREATE TABLE s.u (id int PRIMARY KEY, clinic_id int REFERENCES s.clinic, v int NOT NULL UNIQUE CHECK (v > 0));"
        "INSERT INTO s.u VALUES (1, 1, 1), (2, 1, 2), (3, 2, 3)" + NOTES,
        {"u": OWN, "note": NOTE_OF},
        "UPDATE s.u SET v = v + 10 WHERE clinic_id = 1; INSERT INTO s.u VALUES (4, 1, 1), (5, 1, 2)",
    ),
    **{f"of which the row {row} has the only NULL now": null_moved(row) for row in (1, 2)},
    "of which another clinic has the only NULL now": Odd(
        "CREATE TABLE s.u (id int PRIMARY KEY, clinic_id int REFERENCES s.clinic, v int UNIQUE NULLS NOT DISTINCT);"
        "INSERT INTO s.u VALUES (1, 1, NULL), (2, 1, 2), (3, 2, 3)",
        {"u": OWN}, "UPDATE s.u SET v = 9 WHERE id = 1; UPDATE s.u SET v = NULL WHERE id = 3",
        says=r"1 rows of the backup have unique values in s\.u that rows outside of the restore have now \(u_v_key\): 1\.",
        always=True,
    ),
    "of which an expression gives NULL a value that is used": Odd(
        "CREATE TABLE s.u (id int PRIMARY KEY, clinic_id int REFERENCES s.clinic, v int);"
        "CREATE UNIQUE INDEX one ON s.u (COALESCE(v, -1)); INSERT INTO s.u VALUES (1, 1, 1), (2, 1, 2), (3, 1, NULL)" + NOTES,
        {"u": OWN, "note": NOTE_OF},
        "UPDATE s.u SET v = 9 WHERE id = 1; UPDATE s.u SET v = 1 WHERE id = 2; UPDATE s.u SET v = 2 WHERE id = 1",
    ),
}  # fmt: skip

ORPHANS = (
    "CREATE TABLE s.doctor (id int PRIMARY KEY, clinic_id int NOT NULL REFERENCES s.clinic);"
    "CREATE TABLE s.call (doctor_id int REFERENCES s.doctor ON DELETE SET NULL, why text);"
    "INSERT INTO s.doctor VALUES (1, 1), (2, 1), (3, 2);"
    "INSERT INTO s.call VALUES (1, 'a'), (1, 'a'), (1, 'b'), (2, 'c'), (3, 'd')"
)

CASES: dict[str, Odd] = {
    **{f"internal names, {key} of them the key": names_case(key) for key in (0, 5, 14)},
    "ids of a table that inherits are those of its parent": Odd(
        "CREATE TABLE s.base (id int PRIMARY KEY, clinic_id int REFERENCES s.clinic, v text, code text UNIQUE);"
        "CREATE TABLE s.heir (w text, PRIMARY KEY (id)) INHERITS (s.base);"
        "INSERT INTO s.base SELECT k, 1 + k % 2, 'v', 'c' || k FROM generate_series(1, 6) AS k;"
        "INSERT INTO s.heir SELECT k, 1 + k % 2, 'v', 'c' || k, 'w' FROM generate_series(1, 6) AS k",
        {"base": f"SELECT t.* FROM ONLY s.base AS t WHERE {OWN}", "heir": OWN},
        "UPDATE ONLY s.base SET v = 'x' WHERE id = 2; DELETE FROM ONLY s.base WHERE id = 4; DELETE FROM s.heir WHERE id = 6",
    ),
    "a foreign key to a generated column": Odd(
        "CREATE TABLE s.doc (id int PRIMARY KEY, clinic_id int REFERENCES s.clinic, g text GENERATED ALWAYS AS ('g' || id::text) STORED UNIQUE);"
        "CREATE TABLE s.page (id int PRIMARY KEY, clinic_id int NOT NULL REFERENCES s.clinic, g text REFERENCES s.doc (g) ON DELETE CASCADE);"
        "INSERT INTO s.doc SELECT k, 1 + k % 2 FROM generate_series(1, 6) AS k; INSERT INTO s.page SELECT k, 1 + k % 2, 'g' || k FROM generate_series(1, 6) AS k",
        {"doc": OWN, "page": OWN},
        "DELETE FROM s.doc WHERE id = 2; DELETE FROM s.page WHERE id = 4",
    ),
    "a foreign key to a generated column that nothing gives back": Odd(
        "CREATE TABLE s.doc (id int PRIMARY KEY, clinic_id int REFERENCES s.clinic, n int, g int GENERATED ALWAYS AS (n * 2) STORED UNIQUE);"
        "CREATE TABLE s.page (id int PRIMARY KEY, clinic_id int NOT NULL REFERENCES s.clinic, g int);"
        "INSERT INTO s.doc SELECT k, 1 + k % 2, k FROM generate_series(1, 6) AS k; INSERT INTO s.page SELECT k, 1 + k % 2, 90 FROM generate_series(1, 6) AS k;"
        "ALTER TABLE s.page ADD FOREIGN KEY (g) REFERENCES s.doc (g) NOT VALID",
        {"doc": OWN, "page": OWN},
        "DELETE FROM s.doc WHERE id = 2; DELETE FROM s.page WHERE id = 4",
        says="A foreign key of s.page would be broken",
        always=True,
    ),
    "a publication of all tables, and one without a replica identity": Odd(
        "CREATE TABLE s.bag (clinic_id int NOT NULL REFERENCES s.clinic, no text); INSERT INTO s.bag SELECT 1 + k % 2, 'F' || k FROM generate_series(1, 6) AS k;"
        "CREATE PUBLICATION everything FOR ALL TABLES",
        {"bag": OWN},
        "INSERT INTO s.bag VALUES (1, 'new')",
        says=r"s\.bag has no replica identity, and the publication everything .* ALTER TABLE s\.bag REPLICA IDENTITY FULL",
        always=True,
    ),
    "a publication of one partitioned table without a replica identity": Odd(
        "CREATE TABLE s.part (clinic_id int NOT NULL REFERENCES s.clinic, no text) PARTITION BY LIST (clinic_id);"
        "CREATE TABLE s.part_1 PARTITION OF s.part FOR VALUES IN (1); CREATE TABLE s.part_2 PARTITION OF s.part FOR VALUES IN (2);"
        "INSERT INTO s.part SELECT 1 + k % 2, 'F' || k FROM generate_series(1, 6) AS k; CREATE PUBLICATION sent FOR TABLE s.part",
        {"part": OWN},
        "INSERT INTO s.part VALUES (1, 'new')",
        says=r"s\.part_1 has no replica identity, and the publication sent .* ALTER TABLE s\.part_1 REPLICA IDENTITY FULL",
        always=True,
    ),
    "a swap of dates": swap("v date NOT NULL UNIQUE", "'2026-01-01'", "'2026-01-02'", "'2026-01-03'", "'1999-01-01'"),
    "a swap of times": swap("v timestamptz NOT NULL UNIQUE", "'2026-01-01'", "'2026-01-02'", "'2026-01-03'", "'1999-01-01'"),
    "a swap of ranges": swap("v int4range NOT NULL, EXCLUDE USING gist (v WITH &&)", "'[1,5)'", "'[5,9)'", "'[20,30)'", "'[100,101)'"),
    "a swap of numbers": swap("v numeric(6,2) NOT NULL UNIQUE", "1.5", "2.5", "3.5", "9"),
    "a swap of flags": swap("v boolean NOT NULL, w int DEFAULT 1", "true", "false", "NULL::boolean IS NULL", "false", more="CREATE UNIQUE INDEX one ON s.u (clinic_id) WHERE v", says=STUCK),
    "a swap of a partial unique value": swap("v text NOT NULL, on_ boolean DEFAULT true", "'a'", "'b'", "'c'", "'q'", more="CREATE UNIQUE INDEX part ON s.u (v) WHERE v <> 'none'"),
    "a swap under a CHECK": swap("v text NOT NULL UNIQUE CHECK (v IN ('a', 'b', 'c', 'd'))", "'a'", "'b'", "'c'", "'d'", says=STUCK),
    "a swap under a full CHECK": swap("v int NOT NULL UNIQUE CHECK (v BETWEEN 1 AND 4)", "1", "2", "3", "4", says=STUCK),
    "a swap with NULLS NOT DISTINCT": swap("v int, UNIQUE NULLS NOT DISTINCT (v)", "1", "2", "3", "9"),
    "a swap with one NULL": swap("v int UNIQUE NULLS NOT DISTINCT", "1", "NULL", "3", "9"),
    "a swap of a generated value": swap("v text NOT NULL, low text GENERATED ALWAYS AS (lower(v)) STORED UNIQUE", "'A'", "'B'", "'C'", "'Q'"),
    "a swap of an enum": swap("v s.letter NOT NULL UNIQUE", "'a'", "'b'", "'c'", "'d'", says=STUCK),
    "a swap of a domain": swap("v s.short NOT NULL UNIQUE", "'a'", "'b'", "'c'", "'d'", says=STUCK),
    **{f"edited unique values, {what}": case for what, case in EDITED.items()},
    "a swap in a partition": Odd(
        "CREATE TABLE s.u (id int, clinic_id int REFERENCES s.clinic, y int, v text NOT NULL, PRIMARY KEY (id, y)) PARTITION BY RANGE (y);"
        "CREATE TABLE s.u_1 PARTITION OF s.u FOR VALUES FROM (0) TO (10); CREATE TABLE s.u_2 PARTITION OF s.u FOR VALUES FROM (10) TO (20);"
        "CREATE UNIQUE INDEX only_there ON s.u_1 (v); INSERT INTO s.u VALUES (1, 1, 1, 'a'), (2, 1, 1, 'b'), (3, 2, 11, 'a')",
        {"u": OWN}, SWAP.format(spare="'x'", one="'a'", two="'b'"),
    ),
    "one orphan without a key beside a row that is alike": Odd(
        ORPHANS + "; INSERT INTO s.call VALUES (NULL, 'a'), (2, 'a')",
        {"doctor": OWN, "call": "doctor_id IN (SELECT id FROM s.doctor WHERE clinic_id = {{ clinic_id }})"},
        "DELETE FROM s.call WHERE doctor_id = 1 AND why = 'b'",
    ),
    "an equal key that is written otherwise, ON UPDATE CASCADE": Odd(
        "CREATE TABLE s.num (k numeric PRIMARY KEY, clinic_id int REFERENCES s.clinic);"
        "CREATE TABLE s.of (id int PRIMARY KEY, k numeric REFERENCES s.num ON UPDATE CASCADE);"
        "INSERT INTO s.num VALUES (1.0, 1), (2, 2); INSERT INTO s.of VALUES (1, 1.0), (2, 2)",
        {"num": OWN, "of": "k IN (SELECT k FROM s.num WHERE clinic_id = {{ clinic_id }})"},
        "UPDATE s.num SET k = 1.00 WHERE k = 1",
    ),
    "an equal key that is written otherwise, ON UPDATE SET NULL": Odd(
        "CREATE EXTENSION citext SCHEMA public; CREATE TABLE s.kind (k public.citext PRIMARY KEY, clinic_id int REFERENCES s.clinic);"
        "CREATE TABLE s.of (id int PRIMARY KEY, clinic_id int REFERENCES s.clinic, k public.citext REFERENCES s.kind ON UPDATE SET NULL);"
        "INSERT INTO s.kind VALUES ('a', 1), ('z', 2); INSERT INTO s.of VALUES (1, 1, 'A'), (2, 2, 'z')",
        {"kind": OWN, "of": OWN},
        "UPDATE s.kind SET k = 'A' WHERE k = 'a'; UPDATE s.of SET k = 'a' WHERE id = 1",
    ),
    "a foreign key to a unique value of a table without a key": Odd(
        "CREATE TABLE s.room (clinic_id int NOT NULL REFERENCES s.clinic, code int UNIQUE, v text);"
        "CREATE TABLE s.bed (id int PRIMARY KEY, code int REFERENCES s.room (code), v text);"
        "INSERT INTO s.room VALUES (1, 10, 'a'), (1, 11, 'b'), (2, 20, 'c'); INSERT INTO s.bed VALUES (1, 10, 'x'), (2, 11, 'y'), (3, 20, 'z')",
        {"room": OWN, "bed": "code IN (SELECT code FROM s.room WHERE clinic_id = {{ clinic_id }})"},
        "DELETE FROM s.bed WHERE id = 1; DELETE FROM s.room WHERE code = 10; UPDATE s.room SET v = 'n' WHERE code = 11;"
        "INSERT INTO s.room VALUES (1, 12, 'n'); INSERT INTO s.bed VALUES (7, 12, 'n')",
    ),
    "a foreign key of one partition": Odd(
        "CREATE TABLE s.kind (id int PRIMARY KEY, clinic_id int REFERENCES s.clinic);"
        "CREATE TABLE s.part (id int, clinic_id int REFERENCES s.clinic, y int, kind int, PRIMARY KEY (id, y)) PARTITION BY RANGE (y);"
        "CREATE TABLE s.part_1 PARTITION OF s.part FOR VALUES FROM (0) TO (10); CREATE TABLE s.part_2 PARTITION OF s.part FOR VALUES FROM (10) TO (20);"
        "ALTER TABLE s.part_1 ADD CONSTRAINT only_here FOREIGN KEY (kind) REFERENCES s.kind;"
        "INSERT INTO s.kind VALUES (1, 1), (2, 2); INSERT INTO s.part VALUES (1, 1, 1, 1), (2, 1, 11, 77), (3, 2, 12, 78)",
        {"kind": OWN, "part": OWN},
        "DELETE FROM s.part WHERE clinic_id = 1",
    ),
    "a referring table that the role may not read": Odd(
        CHILD.format(action="") + "; CREATE TABLE s.secret (id int PRIMARY KEY, parent_id int REFERENCES s.parent); INSERT INTO s.secret VALUES (1, 3)",
        CHILDREN, "INSERT INTO s.parent VALUES (9, 1, 'n'); UPDATE s.parent SET name = 'x' WHERE id = 1",
        lists="s.secret: nobody's\n", drift="REVOKE ALL ON s.secret FROM {restorer}",
    ),
    "a rule that does something else": Odd(
        "CREATE TABLE s.t (id int PRIMARY KEY, clinic_id int REFERENCES s.clinic, v text); CREATE TABLE s.log (v text); INSERT INTO s.t VALUES (1, 1, 'a'), (2, 2, 'b')",
        {"t": OWN}, "DELETE FROM s.t WHERE id = 1", lists="s.log: what a rule did\n",
        drift="CREATE RULE no AS ON INSERT TO s.t DO ALSO INSERT INTO s.log VALUES (NEW.v)", says="rule",
    ),
    "an event trigger that notes": Odd(
        "CREATE TABLE s.t (id int PRIMARY KEY, clinic_id int REFERENCES s.clinic, v text); CREATE TABLE s.log (v text); INSERT INTO s.t VALUES (1, 1, 'a'), (2, 2, 'b');"
        "CREATE FUNCTION s.note() RETURNS event_trigger LANGUAGE plpgsql SECURITY DEFINER AS $$BEGIN INSERT INTO s.log VALUES (tg_tag); END$$",
        {"t": OWN}, "DELETE FROM s.t WHERE id = 1", lists="s.log: what changed\n",
        drift="CREATE EVENT TRIGGER note_{database} ON ddl_command_end EXECUTE FUNCTION s.note()", noted="s.log",
    ),
    "an event trigger that forbids": Odd(
        "CREATE TABLE s.t (id int PRIMARY KEY, clinic_id int REFERENCES s.clinic, v text); INSERT INTO s.t VALUES (1, 1, 'a'), (2, 2, 'b');"
        "CREATE FUNCTION s.no() RETURNS event_trigger LANGUAGE plpgsql AS $$BEGIN RAISE EXCEPTION 'not today'; END$$",
        {"t": OWN}, "DELETE FROM s.t WHERE id = 1",
        drift="CREATE EVENT TRIGGER no_{database} ON ddl_command_start EXECUTE FUNCTION s.no()", raises="forbids it.*no_demo",
    ),
    **{
        f"rows below a table that is declared as {declared.split(',')[0]}": Odd(
            CHILD.format(action="") + "; CREATE TABLE s.mid (id int PRIMARY KEY, parent_id int REFERENCES s.parent ON DELETE CASCADE);"
            "CREATE TABLE s.leaf (id int PRIMARY KEY, mid_id int REFERENCES s.mid ON DELETE CASCADE)",
            CHILDREN | ({"mid": "parent_id IN (SELECT id FROM s.parent WHERE clinic_id = {{ clinic_id }}) AND id > 1"} if declared.startswith("rows") else {}),
            "INSERT INTO s.parent VALUES (9, 1, 'n'); INSERT INTO s.mid VALUES (1, 9); INSERT INTO s.leaf VALUES (1, 1)",
            lists=f"s.mid: {declared}\ns.leaf: by hand\n", says=says, always=True,
        )
        for declared, says in (
            ("derived, made anew", "s.leaf: delete touched 1 rows, but the plan has 0"),
            ("shared, all clinics'", "1 rows of s.mid refer to rows of s.parent that the restore would delete"),
            ("rows, some are of nobody", "1 rows of s.mid refer to rows of s.parent that the restore would delete"),
        )
    },
    "a domain that looks a table up": Odd(
        "CREATE TABLE s.word (w text PRIMARY KEY); INSERT INTO s.word VALUES ('a'), ('b'), ('c'); SET search_path = s, public;"
        "CREATE FUNCTION s.is_word(x text) RETURNS boolean LANGUAGE plpgsql AS $$BEGIN RETURN EXISTS (SELECT FROM word WHERE w = x); END$$;"
        "CREATE DOMAIN s.known AS text CHECK (s.is_word(VALUE)); CREATE TABLE s.t (id int PRIMARY KEY, clinic_id int REFERENCES s.clinic, v s.known);"
        "INSERT INTO s.t VALUES (1, 1, 'a'), (2, 1, 'b'), (3, 2, 'c')",
        {"t": OWN}, "SET search_path = s, public; DELETE FROM s.t WHERE id = 1; UPDATE s.t SET v = 'a' WHERE id = 2", lists="s.word: shared, words\n",
        drift="DO $$BEGIN EXECUTE format('ALTER DATABASE %I SET search_path = s, public', current_database()); END$$",
    ),
    "an index expression that looks a table up": Odd(
        "CREATE TABLE s.word (w text PRIMARY KEY, n int); INSERT INTO s.word VALUES ('a', 1), ('b', 2), ('c', 3);"
        "CREATE FUNCTION s.nr(x text) RETURNS int LANGUAGE plpgsql IMMUTABLE AS $$BEGIN RETURN (SELECT n FROM word WHERE w = x); END$$;"
        "CREATE TABLE s.t (id int PRIMARY KEY, clinic_id int REFERENCES s.clinic, v text); SET search_path = s, public;"
        "CREATE UNIQUE INDEX by_nr ON s.t (s.nr(v)); INSERT INTO s.t VALUES (1, 1, 'a'), (2, 1, 'b'), (3, 2, 'c')",
        {"t": OWN}, "SET search_path = s, public; DELETE FROM s.t WHERE id = 1", lists="s.word: shared, words\n",
        drift="DO $$BEGIN EXECUTE format('ALTER DATABASE %I SET search_path = s, public', current_database()); END$$",
    ),
    **{
        f"labels that exchanged their names, {where}": Odd(
            f"CREATE TABLE s.t (id int PRIMARY KEY, clinic_id int REFERENCES s.clinic, v {type_}); INSERT INTO s.t VALUES (1, 1, '{one}'), (2, 1, '{two}'), (3, 2, NULL)",
            {"t": OWN}, "DELETE FROM s.t WHERE id = 1", always=True, says="2 labels of the type s.letter stand for other values",
            drift="ALTER TYPE s.letter RENAME VALUE 'a' TO 'x'; ALTER TYPE s.letter RENAME VALUE 'b' TO 'a'; ALTER TYPE s.letter RENAME VALUE 'x' TO 'b'",
        )
        for where, type_, one, two in (("alone", "s.letter", "a", "b"), ("in an array", "s.letter[]", "{a}", "{b}"),
                                       ("in a composite type", "s.pair", "(1,2,a)", "(1,2,b)"),
                                       ("under a domain of a composite array", "s.pairs", '{"(1,2,a)"}', '{"(1,2,b)"}'))
    },
    **{
        f"attributes that {what}": Odd(
            "CREATE TABLE s.t (id int PRIMARY KEY, clinic_id int REFERENCES s.clinic, v s.pair); INSERT INTO s.t VALUES (1, 1, '(1,2,a)'), (2, 1, '(3,4,a)'), (3, 2, NULL)",
            {"t": OWN}, "DELETE FROM s.t WHERE id = 1", always=True, says=says, drift=drift,
        )
        for what, drift, says in (
            ("exchanged their names", "ALTER TYPE s.pair RENAME ATTRIBUTE a TO x; ALTER TYPE s.pair RENAME ATTRIBUTE b TO a; ALTER TYPE s.pair RENAME ATTRIBUTE x TO b", "2 attributes of the type s.pair are in other places"),
            ("one of which has another name", "ALTER TYPE s.pair RENAME ATTRIBUTE a TO x", ""),
            ("were made anew in another order", "ALTER TYPE s.pair RENAME TO old; CREATE TYPE s.pair AS (b int, a int, c s.letter); ALTER TABLE s.t ALTER v TYPE s.pair USING ROW((v).b, (v).a, (v).c)::s.pair", "2 attributes of the type s.pair are in other places"),
        )
    },
    **{
        f"a column that is no longer generated, {what}": Odd(
            "CREATE TABLE s.t (id int PRIMARY KEY, clinic_id int REFERENCES s.clinic, v text, low text GENERATED ALWAYS AS (lower(v)) STORED); INSERT INTO s.t VALUES (1, 1, 'A'), (2, 1, 'B'), (3, 2, 'C')",
            {"t": OWN}, after, always=True, says="Column low of s.t was generated", drift="ALTER TABLE s.t ALTER low DROP EXPRESSION",
        )
        for what, after in (("a row comes back", "DELETE FROM s.t WHERE id = 1"), ("a row is changed", "UPDATE s.t SET v = 'x', low = 'x' WHERE id = 1"))
    },
    **{
        f"a domain that was narrowed, {what}": Odd(
            f"CREATE DOMAIN s.d AS int; CREATE DOMAIN s.dd AS s.d; CREATE TYPE s.of AS (x s.dd); CREATE TABLE s.t (id int PRIMARY KEY, clinic_id int REFERENCES s.clinic, v {type_}); INSERT INTO s.t VALUES (1, 1, '{value}'), (2, 1, NULL), (3, 2, NULL)",
            {"t": OWN}, "DELETE FROM s.t WHERE clinic_id = 1", always=True, says="1 value of s.t.v in the backup is not allowed by the type", drift="ALTER DOMAIN s.d ADD CHECK (VALUE < 5) NOT VALID",
        )
        for what, type_, value in (("alone", "s.d", "7"), ("under another one", "s.dd", "7"), ("in an array", "s.d[]", "{7}"), ("in a composite type", "s.of", "(7)"))
    },
}  # fmt: skip
TYPES = "CREATE TYPE s.letter AS ENUM ('a', 'b', 'c', 'd'); CREATE DOMAIN s.short AS varchar(1) CHECK (VALUE <= 'd');"
TYPES += "CREATE TYPE s.pair AS (a int, b int, c s.letter); CREATE DOMAIN s.pairs AS s.pair[];"


# Who may keep triggers quiet writes in another way.
OF_BOTH = (
    "a swap",
    "edited unique values",
    "an equal key",
    "a rule",
    "a foreign key",
    "a referring table",
    "an index",
    "an event trigger",
)


@pytest.mark.parametrize(
    ("case", "owner"),
    [
        pytest.param(case, owner, id=f"{name}, {'superuser' if owner else 'restorer'}", marks=LONG if owner else ())
        for name, case in CASES.items()
        for owner in ((False, True) if name.startswith(OF_BOTH) else (False,))
    ],
)
def test_what_is_odd_comes_back_exactly_or_is_refused_in_plain_words(
    demo_database: DemoDatabase, tmp_path: Path, case: Odd, owner: bool
) -> None:
    require_extensions(demo_database, case.ddl)
    rig = shaped(demo_database, tmp_path, TYPES + case.ddl, case.extracts, lists=case.lists, owner=owner)
    record, before = rig.run(1), rig.everything()
    if case.drift:
        rig.execute(
            case.drift.replace("{restorer}", demo_database.roles.restorer).replace("{database}", demo_database.name)
        )
    rig.execute(case.after)
    damaged = rig.everything()
    assert damaged != before
    if case.raises and not owner:
        with pytest.raises(PermanentError) as caught:
            rig.plan(record)
        assert re.search(case.raises, str(caught.value)) and "SQLSTATE" not in str(caught.value)
        return
    plan = rig.plan(record)
    assert "SQLSTATE" not in str(plan.refusals)
    if case.says and (case.always or not owner):
        assert re.search(case.says, " ".join(f"{refusal.message} {refusal.hint}" for refusal in plan.refusals))
        assert rig.everything() == damaged
    else:
        assert plan.refusals == ()
        rig.bring_back(record)
        now = rig.everything()
        assert now | {case.noted: []} == before | {case.noted: []}
        assert rig.plan(record).writes == 0


@pytest.mark.parametrize("index", ["(clinic_id, v) WHERE gone IS NULL", "(clinic_id, v, gone) NULLS NOT DISTINCT"])
def test_unique_values_are_not_compared_each_with_each(
    demo_database: DemoDatabase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, index: str
) -> None:
    # PostgreSQL expects few NULLs in a temporary table. 30,000 rows took minutes then.
    rig = shaped(
        demo_database, tmp_path,
        "CREATE TABLE s.t (id int PRIMARY KEY, clinic_id int REFERENCES s.clinic, v int NOT NULL, gone date);"
        "INSERT INTO s.t SELECT k, 1 + k % 2, k / 2, CASE k % 10 WHEN 0 THEN DATE '2026-01-01' END"
        f" FROM generate_series(1, 4000) AS k; CREATE UNIQUE INDEX ON s.t {index}",
        {"t": OWN},
    )  # fmt: skip
    record, before = rig.run(1), rig.everything()
    rig.execute("UPDATE s.t SET v = v + 1000000 WHERE clinic_id = 1")
    plans = list[str]()
    ask = Workspace.as_application

    def explained(workspace: Workspace, query: sql.Composable, columns: int, doing: str) -> list[tuple[Any, ...]]:
        if doing == unique_values.DOING:
            explain = sql.SQL("EXPLAIN {}").format(query)
            plans.append("\n".join(line for (line,) in workspace.rows(explain, None, doing)))
        return ask(workspace, query, columns, doing)

    monkeypatch.setattr(Workspace, "as_application", explained)
    rig.bring_back(record)
    assert rig.everything() == before
    assert plans and not any("Nested Loop" in plan for plan in plans)


def test_the_proof_of_a_live_restore_does_not_compare_each_row_with_each(
    demo_database: DemoDatabase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Somebody has marked all rows as deleted, so PostgreSQL expects that the extract returns few.
    rig = shaped(
        demo_database, tmp_path,
        "CREATE TABLE s.t (id int PRIMARY KEY, clinic_id int REFERENCES s.clinic, v text, gone date);"
        "INSERT INTO s.t SELECT k, 1 + k % 2, 'v' || k FROM generate_series(1, 20000) AS k",
        {"t": f"{OWN} AND gone IS NULL"}, lists="s.t: rows, marked as deleted",
    )  # fmt: skip
    record, before = rig.run(1), rig.everything()
    rig.execute("UPDATE s.t SET gone = DATE '2026-01-01' WHERE clinic_id = 1", "ANALYZE s.t")
    plans = list[str]()
    ask = Workspace.rows

    def explained(workspace: Workspace, query: Any, values: Any, doing: str, **more: Any) -> list[tuple[Any, ...]]:
        if doing == "reading s.t again" and isinstance(query, sql.Composed):
            plans.append("\n".join(line for (line,) in ask(workspace, sql.SQL("EXPLAIN ") + query, None, doing)))
        return ask(workspace, query, values, doing, **more)

    monkeypatch.setattr(Workspace, "rows", explained)
    plan = rig.plan(record, mode="live")
    rig.restore().apply(rig.source(record), Wish("live"), approved=plan.digest, plan=plan)
    assert rig.everything() == before
    assert plans and not any("Nested Loop" in plan for plan in plans)


def test_a_rehearsal_says_which_sequences_it_moved(demo_database: DemoDatabase, tmp_path: Path) -> None:
    rig = shaped(
        demo_database,
        tmp_path,
        "CREATE SEQUENCE s.q; CREATE TABLE s.t (id int PRIMARY KEY, clinic_id int REFERENCES s.clinic);"
        "CREATE FUNCTION s.count() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN PERFORM nextval('s.q'); RETURN NEW; END$$;"
        "INSERT INTO s.t VALUES (1, 1), (2, 1), (3, 2);"
        "CREATE TRIGGER counts BEFORE INSERT ON s.t FOR EACH ROW EXECUTE FUNCTION s.count()",
        {"t": OWN},
    )
    record = rig.run(1)
    rig.execute("DELETE FROM s.t WHERE clinic_id = 1")
    notes = " ".join(note for table in rig.plan(record).tables for note in table.notes)
    assert "The sequence s.q moved by 2 while this plan was rehearsed" in notes


@pytest.mark.parametrize("action", ["SET NULL", "SET DEFAULT", "CASCADE", "RESTRICT", "NO ACTION"])
@pytest.mark.parametrize("how", ["as owner", "as restorer", "nobody refers to it"])
@pytest.mark.parametrize(
    "damage",
    [
        "UPDATE s.p SET id = 7 WHERE id = 1",
        "UPDATE s.v SET code = NULL WHERE code = 'A'; DELETE FROM s.p WHERE id = 1;"
        "INSERT INTO s.p VALUES (7, 1, 'A'); UPDATE s.v SET code = 'A' WHERE id = 1",
    ],
    ids=["renumbered", "made again"],
)
def test_a_value_that_others_refer_to_comes_back_with_another_row(
    demo_database: DemoDatabase, tmp_path: Path, action: str, how: str, damage: str
) -> None:
    rig = shaped(
        demo_database,
        tmp_path,
        "CREATE TABLE s.p (id int PRIMARY KEY, clinic_id int NOT NULL REFERENCES s.clinic, code text NOT NULL UNIQUE);"
        "CREATE TABLE s.v (id int PRIMARY KEY, clinic_id int NOT NULL REFERENCES s.clinic,"
        f" code text REFERENCES s.p (code) ON DELETE {action});"
        "INSERT INTO s.p VALUES (1, 1, 'A'), (2, 1, 'B'), (3, 2, 'C');"
        "INSERT INTO s.v VALUES (1, 1, 'A'), (2, 1, 'B'), (3, 2, 'C')",
        {"p": OWN, "v": OWN},
        owner=how == "as owner",
    )
    if how == "nobody refers to it":
        rig.execute("DELETE FROM s.v WHERE id = 1")
    record, before = rig.run(1), rig.everything()
    rig.execute(damage)
    if how == "as restorer" and action != "NO ACTION":
        (refusal,) = rig.plan(record).refusals
        assert "rows with the same code inserted" in refusal.message and "of s.v that refer to them" in refusal.message
        assert "GRANT SET ON PARAMETER session_replication_role" in refusal.hint
        return
    rig.bring_back(record)
    assert rig.everything() == before


def test_present_rows_that_are_older_than_a_check_of_their_domain(demo_database: DemoDatabase, tmp_path: Path) -> None:
    rig = shaped(
        demo_database,
        tmp_path,
        "CREATE DOMAIN s.d AS text; CREATE TABLE s.t (id int PRIMARY KEY, clinic_id int REFERENCES s.clinic, a s.d, b int);"
        "INSERT INTO s.t VALUES (1, 1, 'a1', 1), (2, 2, 'a2', 1)",
        {"t": OWN},
    )
    record, before = rig.run(1), rig.everything()
    rig.execute("UPDATE s.t SET b = 2 WHERE id = 1", "ALTER DOMAIN s.d ADD CHECK (VALUE <> 'a1') NOT VALID")
    with pytest.raises(
        PermanentError, match=r"Rows that are in s\.t now break the check d_check of a domain"
    ) as caught:
        rig.plan(record)
    remedy = re.search(r"DROP CONSTRAINT d_check;", caught.value.hint)
    assert remedy
    rig.execute(f"ALTER DOMAIN s.d {remedy[0]}")
    rig.bring_back(record)
    assert rig.everything() == before


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ("ALTER TABLE s.note ENABLE ALWAYS TRIGGER t", "the trigger t of s.note would fire then (ENABLE ALWAYS)"),
        ("ALTER TABLE s.note ADD UNIQUE (id, u_id) DEFERRABLE", "a unique key of s.note is DEFERRABLE"),
        (
            "ALTER TABLE s.note ADD again int REFERENCES s.u",
            "could not prove the foreign key note_again_fkey of s.note",
        ),
    ],
)
def test_a_refusal_does_not_ask_for_a_right_that_would_not_help(
    demo_database: DemoDatabase, tmp_path: Path, more: str, says: str
) -> None:
    case = CASES["a swap under a CHECK"]
    trigger = (
        "; CREATE FUNCTION s.n() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';"
        " CREATE TRIGGER t BEFORE INSERT OR UPDATE ON s.note FOR EACH ROW EXECUTE FUNCTION s.n();"
        " ALTER TABLE s.note ADD v int"
    )
    rig = shaped(demo_database, tmp_path, case.ddl + trigger, case.extracts, owner=True)
    record = rig.run(1)
    rig.execute(more, case.after, "UPDATE s.note SET v = 1")
    (refusal,) = rig.plan(record).refusals
    assert says in refusal.hint and "GRANT" not in refusal.hint
