"""Constraints, types and damage of ordinary databases: a plan without refusals can be applied, exactly.

Each case has a schema, the extracts, and what happens after the backup. The expected state is the one before, in every
table and of every clinic, compared with separate SQL.
"""

# ruff: noqa: E501 - a schema reads best with one table a line

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from clinic_backups.base import connections
from clinic_backups.base.findings import Report
from clinic_backups.restore.trial import try_tables
from tests.postgres_fixtures import DemoDatabase
from tests.shapes import Shaped, shaped

LONG = (pytest.mark.long,)

OWN = "clinic_id = {{ clinic_id }}"


@dataclass(frozen=True)
class Case:
    """``after`` is done to clinic 1 after the backup; ``changed`` is what else of the schema stays as it is then."""

    ddl: str
    extracts: Mapping[str, str]
    after: str
    drift: str = ""
    lists: str = ""
    stays: tuple[str, ...] = field(default=())


USERS = """
    CREATE TABLE s.person (id int PRIMARY KEY, clinic_id int REFERENCES s.clinic, username text NOT NULL UNIQUE, code int UNIQUE);
    INSERT INTO s.person VALUES (1, 1, 'ana', 10), (2, 1, 'eva', 20), (3, 2, 'leo', 300)
"""
CHILD = """
    CREATE TABLE s.parent (id int PRIMARY KEY, clinic_id int NOT NULL REFERENCES s.clinic, name text);
    CREATE TABLE s.child (id int PRIMARY KEY, parent_id int NOT NULL REFERENCES s.parent {action}, name text);
    INSERT INTO s.parent VALUES (1, 1, 'p1'), (2, 1, 'p2'), (3, 2, 'p3');
    INSERT INTO s.child VALUES (1, 1, 'c1'), (2, 2, 'c2'), (3, 3, 'c3')
"""
CHILD_OF = "parent_id IN (SELECT id FROM s.parent WHERE clinic_id = {{ clinic_id }})"
CHILDREN = {"parent": OWN, "child": CHILD_OF}
# After the backup the child is pointed at a new parent, which the restore deletes.
REPOINTED = """
    INSERT INTO s.parent VALUES (9, 1, 'new');
    UPDATE s.child SET parent_id = 9 WHERE id = 1
"""

CASES: dict[str, Case] = {
    "a unique value swapped": Case(
        USERS, {"person": OWN},
        "UPDATE s.person SET username = 'x' WHERE id = 1; UPDATE s.person SET username = 'ana' WHERE id = 2;"
        "UPDATE s.person SET username = 'eva' WHERE id = 1",
    ),
    "a chain of unique values": Case(
        USERS + "; INSERT INTO s.person SELECT n, 1, 'u' || n, n * 10 FROM generate_series(4, 9) AS n",
        {"person": OWN},
        "UPDATE s.person SET code = -code WHERE clinic_id = 1; UPDATE s.person SET code = -code + 10 WHERE clinic_id = 1",
    ),
    "a unique value moved to a new row": Case(
        USERS, {"person": OWN},
        "UPDATE s.person SET username = 'old' WHERE id = 1; INSERT INTO s.person VALUES (7, 1, 'ana', 70)",
    ),
    "a swap while others refer with ON DELETE CASCADE": Case(
        USERS + "; CREATE TABLE s.note (id int PRIMARY KEY, person_id int REFERENCES s.person ON DELETE CASCADE);"
        "INSERT INTO s.note VALUES (1, 1), (2, 2), (3, 3)",
        {"person": OWN, "note": "person_id IN (SELECT id FROM s.person WHERE clinic_id = {{ clinic_id }})"},
        "UPDATE s.person SET username = 'x' WHERE id = 1; UPDATE s.person SET username = 'ana' WHERE id = 2;"
        "UPDATE s.person SET username = 'eva' WHERE id = 1",
    ),
    "a swap under a unique expression": Case(
        "CREATE TABLE s.mail (id int PRIMARY KEY, clinic_id int REFERENCES s.clinic, address text NOT NULL);"
        "CREATE UNIQUE INDEX ON s.mail (lower(address)) WHERE address <> '';"
        "INSERT INTO s.mail VALUES (1, 1, 'A@x'), (2, 1, 'B@x'), (3, 2, 'c@x')",
        {"mail": OWN},
        "UPDATE s.mail SET address = '' WHERE id = 1; UPDATE s.mail SET address = 'a@X' WHERE id = 2;"
        "UPDATE s.mail SET address = 'b@X' WHERE id = 1",
    ),
    "a swap under an exclusion constraint": Case(
        "CREATE TABLE s.room (id int PRIMARY KEY, clinic_id int REFERENCES s.clinic, taken int4range,"
        " EXCLUDE USING gist (taken WITH &&));"
        "INSERT INTO s.room VALUES (1, 1, '[1,5)'), (2, 1, '[5,9)'), (3, 2, '[20,30)')",
        {"room": OWN},
        "UPDATE s.room SET taken = '[100,101)' WHERE id = 1; UPDATE s.room SET taken = '[1,5)' WHERE id = 2;"
        "UPDATE s.room SET taken = '[5,9)' WHERE id = 1",
    ),
    "a deferrable unique value swapped": Case(
        "CREATE TABLE s.place (id int PRIMARY KEY, clinic_id int REFERENCES s.clinic, pos int UNIQUE DEFERRABLE);"
        "INSERT INTO s.place VALUES (1, 1, 1), (2, 1, 2), (3, 2, 3)",
        {"place": OWN},
        "SET CONSTRAINTS ALL DEFERRED; UPDATE s.place SET pos = 3 - pos WHERE clinic_id = 1",
    ),
    **{
        f"re-pointed to a parent that goes, {action or 'no action'}": Case(
            CHILD.format(action=action), CHILDREN, REPOINTED
        )
        for action in ("", "ON DELETE RESTRICT", "ON DELETE CASCADE", "DEFERRABLE INITIALLY DEFERRED")
    },
    "two tables that refer to each other": Case(
        "CREATE TABLE s.team (id int PRIMARY KEY, clinic_id int NOT NULL REFERENCES s.clinic, boss_id int, phone text);"
        "CREATE TABLE s.member (id int PRIMARY KEY, team_id int NOT NULL REFERENCES s.team, phone text);"
        "ALTER TABLE s.team ADD FOREIGN KEY (boss_id) REFERENCES s.member;"
        "INSERT INTO s.team VALUES (1, 1, NULL, '1'), (2, 2, NULL, '2');"
        "INSERT INTO s.member VALUES (1, 1, '1'), (2, 2, '2'); UPDATE s.team SET boss_id = id",
        {"team": OWN, "member": "team_id IN (SELECT id FROM s.team WHERE clinic_id = {{ clinic_id }})"},
        "UPDATE s.team SET boss_id = NULL WHERE id = 1; DELETE FROM s.member WHERE id = 1; DELETE FROM s.team WHERE id = 1;"
        "INSERT INTO s.team VALUES (8, 1, NULL, 'x'); INSERT INTO s.member VALUES (8, 8, 'x');"
        "UPDATE s.team SET boss_id = 8 WHERE id = 8",
    ),
    "two tables that need each other": Case(
        "CREATE TABLE s.a (id int PRIMARY KEY, clinic_id int NOT NULL REFERENCES s.clinic, b_id int NOT NULL);"
        "CREATE TABLE s.b (id int PRIMARY KEY, a_id int NOT NULL REFERENCES s.a);"
        "WITH a AS (INSERT INTO s.a VALUES (1, 1, 1), (2, 2, 2)) INSERT INTO s.b VALUES (1, 1), (2, 2);"
        "ALTER TABLE s.a ADD CONSTRAINT circle FOREIGN KEY (b_id) REFERENCES s.b",
        {"a": OWN, "b": "a_id IN (SELECT id FROM s.a WHERE clinic_id = {{ clinic_id }})"},
        "WITH b AS (DELETE FROM s.b WHERE id = 1) DELETE FROM s.a WHERE id = 1",
    ),
    "a tree in one table": Case(
        "CREATE TABLE s.node (id int PRIMARY KEY, clinic_id int NOT NULL REFERENCES s.clinic, up int REFERENCES s.node"
        " ON DELETE CASCADE); INSERT INTO s.node VALUES (1, 1, NULL), (2, 1, 1), (3, 1, 2), (4, 2, NULL)",
        {"node": OWN},
        "DELETE FROM s.node WHERE id = 1; INSERT INTO s.node VALUES (7, 1, NULL), (3, 1, 7)",
    ),
    "a generated column in the key": Case(
        "CREATE TABLE s.gen (n int NOT NULL, clinic_id int NOT NULL REFERENCES s.clinic,"
        " key text GENERATED ALWAYS AS ('k' || (n * 2)::text) STORED PRIMARY KEY, name text);"
        "INSERT INTO s.gen VALUES (1, 1, DEFAULT, 'a'), (2, 1, DEFAULT, 'b'), (3, 2, DEFAULT, 'c')",
        {"gen": OWN},
        "DELETE FROM s.gen WHERE n = 1; UPDATE s.gen SET name = 'x' WHERE n = 2; INSERT INTO s.gen VALUES (5, 1, DEFAULT, 'y')",
    ),
    "a key of an extension's type": Case(
        "CREATE EXTENSION ltree SCHEMA public; CREATE TABLE s.path (p public.ltree PRIMARY KEY, clinic_id int REFERENCES s.clinic, v text);"
        "INSERT INTO s.path VALUES ('a.b', 1, '1'), ('a.c', 1, '2'), ('z', 2, '3')",
        {"path": OWN},
        "DELETE FROM s.path WHERE p = 'a.b'; UPDATE s.path SET v = 'x' WHERE p = 'a.c'; INSERT INTO s.path VALUES ('n', 1, '')",
    ),
    "more columns than a join may have": Case(
        "DO $$BEGIN EXECUTE 'CREATE TABLE s.wide (id int PRIMARY KEY, clinic_id int REFERENCES s.clinic, '"
        " || (SELECT string_agg('c' || n || ' smallint', ', ') FROM generate_series(1, 1200) AS n) || ')'; END$$;"
        "INSERT INTO s.wide (id, clinic_id, c1, c1200) VALUES (1, 1, 1, 1), (2, 1, 2, 2), (3, 2, 3, 3)",
        {"wide": OWN},
        "DELETE FROM s.wide WHERE id = 1; UPDATE s.wide SET c1 = 9, c1200 = 9 WHERE id = 2; INSERT INTO s.wide (id, clinic_id) VALUES (4, 1)",
    ),
    "a numeric key with another scale": Case(
        "CREATE TABLE s.num (k numeric PRIMARY KEY, clinic_id int REFERENCES s.clinic, v text);"
        "INSERT INTO s.num VALUES (1.0, 1, 'a'), (2.50, 1, 'b'), (3, 2, 'c')",
        {"num": OWN},
        "UPDATE s.num SET k = 1.00 WHERE k = 1; UPDATE s.num SET k = 2.5, v = 'x' WHERE k = 2.5",
    ),
    "a citext key and its reference in another case": Case(
        "CREATE EXTENSION citext SCHEMA public;"
        "CREATE TABLE s.kind (code public.citext PRIMARY KEY, clinic_id int REFERENCES s.clinic);"
        "CREATE TABLE s.item (id int PRIMARY KEY, code public.citext REFERENCES s.kind, clinic_id int REFERENCES s.clinic);"
        "INSERT INTO s.kind VALUES ('a', 1), ('b', 1), ('z', 2); INSERT INTO s.item VALUES (1, 'A', 1), (2, 'B', 1), (3, 'Z', 2)",
        {"kind": OWN, "item": OWN},
        "DELETE FROM s.item WHERE id = 1; DELETE FROM s.kind WHERE code = 'a'; UPDATE s.item SET code = 'b' WHERE id = 2",
    ),
    "rows whose way was nulled": Case(
        "CREATE TABLE s.doctor (id int PRIMARY KEY, clinic_id int NOT NULL REFERENCES s.clinic, name text);"
        "CREATE TABLE s.visit (id int PRIMARY KEY, doctor_id int REFERENCES s.doctor ON DELETE SET NULL, why text);"
        "CREATE TABLE s.pill (id int PRIMARY KEY, visit_id int NOT NULL REFERENCES s.visit, name text);"
        "INSERT INTO s.doctor VALUES (1, 1, 'd1'), (2, 1, 'd2'), (3, 2, 'd3');"
        "INSERT INTO s.visit VALUES (1, 1, 'v1'), (2, 2, 'v2'), (3, 3, 'v3'); INSERT INTO s.pill VALUES (1, 1, 'x'), (2, 2, 'y'), (3, 3, 'z')",
        {
            "doctor": OWN,
            "visit": "doctor_id IN (SELECT id FROM s.doctor WHERE clinic_id = {{ clinic_id }})",
            "pill": "visit_id IN (SELECT v.id FROM s.visit AS v JOIN s.doctor AS d ON d.id = v.doctor_id"
            " WHERE d.clinic_id = {{ clinic_id }})",
        },
        "DELETE FROM s.doctor WHERE id = 1",
    ),
    "derived rows in the way": Case(
        CHILD.format(action="") + "; CREATE TABLE s.reminder (id int PRIMARY KEY, child_id int REFERENCES s.child);"
        "INSERT INTO s.reminder VALUES (1, 1), (3, 3)",
        CHILDREN,
        "INSERT INTO s.child VALUES (7, 1, 'new'); INSERT INTO s.reminder VALUES (7, 7)",
        lists="s.reminder: derived, made anew every night from s.child\n",
    ),
    "a partitioned table with a row that moved": Case(
        "CREATE TABLE s.part (id int, clinic_id int REFERENCES s.clinic, y int, v text, PRIMARY KEY (id, y)) PARTITION BY RANGE (y);"
        "CREATE TABLE s.part_1 PARTITION OF s.part FOR VALUES FROM (0) TO (10);"
        "CREATE TABLE s.part_2 PARTITION OF s.part FOR VALUES FROM (10) TO (20);"
        "INSERT INTO s.part VALUES (1, 1, 1, 'a'), (2, 1, 11, 'b'), (3, 2, 12, 'c')",
        {"part": OWN},
        "UPDATE s.part SET y = 15 WHERE id = 1; DELETE FROM s.part WHERE id = 2",
    ),
    "inherited tables with ONLY": Case(
        "CREATE TABLE s.base (id int PRIMARY KEY, clinic_id int REFERENCES s.clinic, v text);"
        "CREATE TABLE s.more (extra text NOT NULL, PRIMARY KEY (id), FOREIGN KEY (clinic_id) REFERENCES s.clinic) INHERITS (s.base);"
        "INSERT INTO s.base VALUES (1, 1, 'a'), (2, 2, 'b'); INSERT INTO s.more VALUES (5, 1, 'c', 'e1'), (6, 2, 'd', 'e2')",
        {
            "base": "SELECT t.* FROM ONLY s.base AS t WHERE clinic_id = {{ clinic_id }}",
            "more": OWN,
        },
        "DELETE FROM s.base WHERE clinic_id = 1",
    ),
    "an identity that is always generated, beside the key": Case(
        "CREATE TABLE s.seq (id int PRIMARY KEY, clinic_id int REFERENCES s.clinic, no int GENERATED ALWAYS AS IDENTITY, v text);"
        "INSERT INTO s.seq (id, clinic_id, v) VALUES (1, 1, 'a'), (2, 1, 'b'), (3, 2, 'c')",
        {"seq": OWN},
        "DELETE FROM s.seq WHERE id = 1; INSERT INTO s.seq (id, clinic_id, v) VALUES (1, 1, 'a')",
    ),
    "names that need quotes": Case(
        'CREATE TABLE s."Año nuevo" ("Id %s" int PRIMARY KEY, "clinic" int REFERENCES s.clinic, "a""b" text UNIQUE);'
        """INSERT INTO s."Año nuevo" VALUES (1, 1, 'x'), (2, 1, 'y'), (3, 2, 'z')""",
        {"Año nuevo": 'SELECT t.* FROM s."Año nuevo" AS t WHERE t."clinic" = {{ clinic_id }}'},
        """UPDATE s."Año nuevo" SET "a""b" = 'q' WHERE "Id %s" = 1; DELETE FROM s."Año nuevo" WHERE "Id %s" = 2""",
    ),
}  # fmt: skip


def require_extensions(database: DemoDatabase, ddl: str) -> None:
    """Not every build of PostgreSQL has all extensions; the one that CI uses has them."""
    wanted = set(re.findall(r"CREATE EXTENSION (\w+)", ddl))
    with closing(database.connect()) as db, db.cursor() as cursor:
        cursor.execute("SELECT name FROM pg_available_extensions")
        missing = wanted - {name for (name,) in cursor.fetchall()}
    if missing:
        pytest.skip(f"this PostgreSQL has no extension {', '.join(sorted(missing))}")


@pytest.mark.parametrize(
    ("case", "owner"),
    [
        pytest.param(case, owner, id=f"{name}-{'superuser' if owner else 'restorer'}", marks=LONG if owner else ())
        for name, case in CASES.items()
        for owner in (False, True)
    ],
)
def test_what_happened_after_the_backup_is_undone_exactly(
    demo_database: DemoDatabase, tmp_path: Path, case: Case, owner: bool
) -> None:
    require_extensions(demo_database, case.ddl)
    rig = shaped(demo_database, tmp_path, case.ddl, case.extracts, lists=case.lists, owner=owner)
    record, before = rig.run(1), rig.everything()
    rig.execute(case.after)
    assert rig.everything() != before
    rig.bring_back(record)
    assert rig.everything() == before
    assert rig.plan(record).writes == 0


@pytest.mark.parametrize("damage", ["DELETE FROM s.t WHERE v = 8", "UPDATE s.t SET v = 0 WHERE v = 4"])
def test_the_same_rows_in_another_order_are_equal(demo_database: DemoDatabase, tmp_path: Path, damage: str) -> None:
    # As under another collation: the order of the key's values is another one than when the backup was made.
    rig = shaped(
        demo_database,
        tmp_path,
        "CREATE TYPE s.state AS ENUM ('a', 'b', 'c');"
        "CREATE TABLE s.t (k s.state, n int, clinic_id int REFERENCES s.clinic, v int, PRIMARY KEY (k, n));"
        "INSERT INTO s.t SELECT k, n, 1 + n % 2, n FROM generate_series(1, 700) AS n, unnest('{a,b,c}'::s.state[]) AS k",
        {"t": OWN},
    )
    record, before = rig.run(1), rig.everything()
    rig.execute(
        "CREATE TYPE s.other AS ENUM ('c', 'a', 'b'); ALTER TABLE s.t ALTER k TYPE s.other USING k::text::s.other;"
        "DROP TYPE s.state; ALTER TYPE s.other RENAME TO state",
        damage,
    )
    rig.bring_back(record)
    assert rig.everything() == before


@pytest.fixture
def plain(demo_database: DemoDatabase, tmp_path: Path) -> Shaped:
    return shaped(
        demo_database,
        tmp_path,
        "CREATE TYPE s.state AS ENUM ('open', 'done'); CREATE DOMAIN s.small AS int;"
        "CREATE TABLE s.t (id int PRIMARY KEY, clinic_id int REFERENCES s.clinic, price numeric(10,2), name varchar(20),"
        " state s.state, small s.small, doc json, at timestamptz, ratio float8, flag boolean, raw bytea);"
        "INSERT INTO s.t VALUES (1, 1, 8.39, 'Margarita', 'open', 5, '{\"b\": 1,  \"a\": 2}', '2026-01-02 03:04:05.678+00',"
        " 0.1234567890123456, true, '\\x0001'), (2, 1, 7.00, 'Ana', 'done', 1, '{}', '2026-01-02', 1, NULL, NULL),"
        " (3, 2, 1, 'x', 'open', 1, '1', now(), 1, true, NULL)",
        {"t": OWN},
    )


@pytest.mark.parametrize(
    ("drift", "count", "column"),
    [
        ("ALTER TABLE s.t ALTER price TYPE numeric(10,0)", 1, "price"),
        ("ALTER TABLE s.t ALTER name TYPE varchar(5)  USING left(name, 5)", 1, "name"),
        ("ALTER TABLE s.t ALTER name TYPE char(3) USING left(name, 3)", 1, "name"),
        ("ALTER TABLE s.t ALTER doc TYPE jsonb", 1, "doc"),
        ("ALTER TABLE s.t ALTER at TYPE timestamptz(0)", 1, "at"),
        ("ALTER TABLE s.t ALTER at TYPE date", 1, "at"),
        ("ALTER TABLE s.t ALTER ratio TYPE real", 1, "ratio"),
        ("ALTER TABLE s.t ALTER price TYPE int", 1, "price"),
        ("ALTER TABLE s.t ALTER name TYPE int USING 1", 2, "name"),
        ("ALTER TYPE s.state RENAME VALUE 'done' TO 'closed'", 1, "state"),
        ("ALTER DOMAIN s.small ADD CHECK (VALUE < 5) NOT VALID", 1, "small"),
    ],
)
def test_a_value_that_its_type_would_change_is_refused_and_counted(
    plain: Shaped, drift: str, count: int, column: str
) -> None:
    record = plain.run(1)
    plain.execute("DELETE FROM s.t WHERE clinic_id = 1", drift)
    damaged = plain.everything()
    (refusal,) = plain.plan(record).refusals
    assert f"{count} value" in refusal.message and f"s.t.{column}" in refusal.message
    assert "Margarita" not in str(refusal) and "8.39" not in str(refusal)
    assert plain.everything() == damaged


@pytest.mark.parametrize(
    "drift",
    [
        "ALTER TABLE s.t ALTER price TYPE numeric(12,4)",
        "ALTER TABLE s.t ALTER name TYPE text",
        "ALTER TABLE s.t ALTER id TYPE bigint",
        "ALTER TABLE s.t ALTER at TYPE timestamp USING at AT TIME ZONE 'UTC'",
        "ALTER TABLE s.t ALTER ratio TYPE numeric USING ratio::numeric",
        "ALTER TABLE s.t ALTER state TYPE text",
        "ALTER TABLE s.t ALTER flag TYPE int USING flag::int",
        "ALTER TABLE s.t ALTER price TYPE money USING price::money",
        "ALTER TYPE s.state RENAME TO status",
        "ALTER TYPE s.state ADD VALUE 'new' BEFORE 'open'",
    ],
)
def test_a_value_that_its_new_type_keeps_comes_back(plain: Shaped, drift: str) -> None:
    record = plain.run(1)
    plain.execute(drift)
    before = plain.everything()
    # The other row is changed in another column: it shows that the migration kept the values of this one.
    changed = "name = 'x'" if "price" in drift else "price = 1, name = 'x'"
    plain.execute("DELETE FROM s.t WHERE id = 1", f"UPDATE s.t SET {changed} WHERE id = 2")
    if "flag" in drift:  # it is NULL there, which shows nothing: somebody has to say so
        assert any("there is no row to show" in refusal.message for refusal in plain.plan(record).refusals)
        (plain.settings.sql_dir / "drift.txt").write_text("s.t: flag (boolean) -> flag (integer)")
    plain.bring_back(record)
    if "ratio" not in drift:  # the cast of ALTER TABLE itself rounds: the backup knows the digits
        assert plain.everything() == before


SEQUENCES = """
    CREATE SEQUENCE s.loose; CREATE SEQUENCE s.down INCREMENT -1 MINVALUE -1000 MAXVALUE 0 START 0;
    CREATE SEQUENCE s.odd INCREMENT 2 START 1; CREATE SEQUENCE s.ring MAXVALUE 50 CYCLE; CREATE SEQUENCE s.word;
    CREATE TABLE s.t (id int PRIMARY KEY, clinic_id int REFERENCES s.clinic,
        loose int DEFAULT nextval('s.loose') UNIQUE, down int DEFAULT nextval('s.down') UNIQUE,
        odd int DEFAULT nextval('s.odd') UNIQUE, ring int DEFAULT nextval('s.ring') UNIQUE,
        named int DEFAULT nextval('s.word'::text) UNIQUE, own serial UNIQUE,
        ident int GENERATED BY DEFAULT AS IDENTITY (INCREMENT 5) UNIQUE,
        word text DEFAULT 'W-' || nextval('s.word'::regclass) UNIQUE);
    INSERT INTO s.t (id, clinic_id) SELECT n, 1 + n % 2 FROM generate_series(1, 40) AS n
"""


@pytest.mark.parametrize(
    "damage",
    [
        "TRUNCATE s.t RESTART IDENTITY CASCADE; ALTER SEQUENCE s.loose RESTART; ALTER SEQUENCE s.down RESTART;"
        "ALTER SEQUENCE s.odd RESTART; ALTER SEQUENCE s.ring RESTART; ALTER SEQUENCE s.word RESTART",
        "DELETE FROM s.t; SELECT setval('s.loose', 1, false), setval('s.down', 0, false), setval('s.odd', 1, false),"
        "setval('s.ring', 1, false), setval('s.word', 1, false), setval('s.t_own_seq', 1, false), setval('s.t_ident_seq', 1, false)",
        "DELETE FROM s.t WHERE id > 20",
    ],
)
def test_the_next_number_of_every_sequence_is_free(demo_database: DemoDatabase, tmp_path: Path, damage: str) -> None:
    rig = shaped(demo_database, tmp_path, SEQUENCES, {"t": OWN})
    record = rig.run(1)
    rig.execute(damage)
    rig.bring_back(record)
    rig.execute(*(f"INSERT INTO s.t (id, clinic_id) VALUES ({n}, 1)" for n in range(1001, 1006)))
    assert rig.execute_rows("SELECT bool_and(odd % 2 = 1) FROM s.t") == [(True,)]


UNSEEN = {
    "a domain": "CREATE DOMAIN s.d AS int DEFAULT nextval('s.q'); CREATE TABLE s.t (id s.d PRIMARY KEY, {});",
    "a domain of a domain": "CREATE DOMAIN s.c AS int DEFAULT nextval('s.q'); CREATE DOMAIN s.d AS s.c;"
    "CREATE TABLE s.t (id s.d PRIMARY KEY, {});",
    "standard SQL": "CREATE FUNCTION s.f() RETURNS bigint LANGUAGE sql RETURN nextval('s.q');"
    "CREATE TABLE s.t (id int PRIMARY KEY DEFAULT s.f(), {});",
    "functions in each other": "CREATE FUNCTION s.f() RETURNS bigint LANGUAGE sql RETURN nextval('s.q');"
    "CREATE FUNCTION s.g() RETURNS bigint LANGUAGE sql RETURN s.f() + 0;"
    "CREATE TABLE s.t (id int PRIMARY KEY DEFAULT s.g(), {});",
    "a function's text": "CREATE FUNCTION s.f() RETURNS bigint LANGUAGE plpgsql AS $$ BEGIN RETURN NEXTVAL ('q'); END $$"
    " SET search_path = s; CREATE TABLE s.t (id int PRIMARY KEY DEFAULT s.f(), {});",
    "a domain's function": "CREATE FUNCTION s.f() RETURNS bigint LANGUAGE sql AS $$ SELECT nextval('s.q') $$;"
    "CREATE DOMAIN s.d AS int DEFAULT s.f(); CREATE TABLE s.t (id s.d PRIMARY KEY, {});",
    "no default": "CREATE TABLE s.t (id int PRIMARY KEY, {}); ALTER SEQUENCE s.q OWNED BY s.t.id;",
    "a trigger": "CREATE TABLE s.t (id int PRIMARY KEY, {}); CREATE FUNCTION s.f() RETURNS trigger LANGUAGE plpgsql AS"
    " $$ BEGIN IF NEW.id IS NULL THEN NEW.id := nextval('s.q'); END IF; RETURN NEW; END $$;"
    "CREATE TRIGGER g BEFORE INSERT ON s.t FOR EACH ROW EXECUTE FUNCTION s.f();",
}  # fmt: skip


@pytest.mark.parametrize("name", UNSEEN)
def test_a_sequence_is_found_wherever_it_is_used(demo_database: DemoDatabase, tmp_path: Path, name: str) -> None:
    ddl = "CREATE SEQUENCE s.q;" + UNSEEN[name].format("clinic_id int REFERENCES s.clinic")
    value = "nextval('s.q')" if name == "no default" else "NULL" if name == "a trigger" else "DEFAULT"
    ddl += "".join(f"INSERT INTO s.t VALUES ({value}, {1 + n % 2});" for n in range(6))
    rig = shaped(demo_database, tmp_path, ddl, {"t": OWN})
    record = rig.run(1)
    rig.execute("DELETE FROM s.t WHERE id > 2", "SELECT setval('s.q', 3, false)")
    assert not any("cannot be seen" in note for table in rig.bring_back(record).tables for note in table.notes)
    rig.execute(f"INSERT INTO s.t VALUES ({value}, 1)", f"INSERT INTO s.t VALUES ({value}, 2)")


BODY = "CREATE FUNCTION s.f{i}() RETURNS {} LANGUAGE plpgsql AS $$ BEGIN RETURN {}; END $$;"
TRIGGER = (
    "CREATE FUNCTION s.f{i}() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN {} RETURN NEW; END $$;"
    "CREATE TRIGGER g{i} BEFORE INSERT ON s.t FOR EACH ROW EXECUTE FUNCTION s.f{i}();"
)
MADE = (  # the type and default of n, what comes before the table, what after it
    ("int DEFAULT (2026000000 + nextval('s.q{i}'))", "", ""),
    ("bigint DEFAULT (2026000000 + nextval('s.q{i}'))", "", ""),
    ("numeric(12,0) DEFAULT (nextval('s.q{i}') * 10 - 7)", "", ""),
    ("int DEFAULT (-nextval('s.q{i}'))", "", ""),
    ("int DEFAULT s.f{i}()", BODY.format("bigint", "2026000000 + nextval('s.q{i}')", i="{i}"), ""),
    ("int DEFAULT s.f{i}()", "CREATE FUNCTION s.f{i}() RETURNS bigint LANGUAGE sql RETURN 2026000000 + nextval('s.q{i}');", ""),
    ("text DEFAULT ('x' || s.f{i}())", BODY.format("text", "'C' || lpad(nextval('s.q{i}')::text, 5, '0') || '/26'", i="{i}"), ""),
    ("int", "", TRIGGER.format("NEW.n{i} := 2026000000 + nextval('s.q{i}');", i="{i}")),
    ("int", "", TRIGGER.format("NEW.n{i} := coalesce(NEW.n{i}, nextval('s.q{i}'));", i="{i}")),
    ("text", "", TRIGGER.format("IF NEW.n{i} IS NULL THEN NEW.n{i} := 'T' || nextval('s.q{i}'); END IF;", i="{i}")),
    ("varchar(9) DEFAULT ('F-' || lpad(nextval('s.q{i}')::text, 4, '0'))", "", ""),
    ("text DEFAULT to_hex(nextval('s.q{i}'))", "", ""),
)  # fmt: skip


@pytest.mark.parametrize("damage", ["a value", "a row", "all"])
def test_a_sequence_moves_by_what_its_numbers_become_and_no_further(
    demo_database: DemoDatabase, tmp_path: Path, damage: str
) -> None:
    made = [[part.replace("{i}", str(i)) for part in parts] for i, parts in enumerate(MADE)]
    ddl = "".join(f"CREATE SEQUENCE s.q{i}; {before}" for i, (_, before, _) in enumerate(made))
    columns = "".join(f", n{i} {column} UNIQUE NOT NULL" for i, (column, _, _) in enumerate(made))
    ddl += f"CREATE TABLE s.t (id int PRIMARY KEY, clinic_id int REFERENCES s.clinic, v text{columns});"
    ddl += "".join(after for _, _, after in made)
    ddl += "INSERT INTO s.t (id, clinic_id) SELECT n, 1 + n % 2 FROM generate_series(1, 7) AS n"
    rig = shaped(demo_database, tmp_path, ddl, {"t": OWN}, owner=True)
    record, wanted = rig.run(1), rig.execute_rows("SELECT * FROM s.t WHERE clinic_id = 1 ORDER BY id")
    restart = "".join(f"; ALTER SEQUENCE s.q{i} RESTART" for i, _ in enumerate(made))
    rig.execute({
        "a value": "UPDATE s.t SET v = 'x'",
        "a row": "DELETE FROM s.t WHERE id = 4",
        "all": f"TRUNCATE s.t{restart}",
    }[damage])  # fmt: skip
    rig.bring_back(record)
    assert rig.execute_rows("SELECT * FROM s.t WHERE clinic_id = 1 ORDER BY id") == wanted
    for i, (column, _, _) in enumerate(made):
        ((reached,),) = rig.execute_rows(f"SELECT last_value FROM s.q{i}")
        # What a function makes of a number is seen by calling it.
        asked = 6 if "s.f" in column and damage != "a value" else 0
        assert (6 if damage == "all" else 7) <= reached <= 7 + asked, column
    for number in range(101, 105):
        rig.execute(f"INSERT INTO s.t (id, clinic_id) VALUES ({number}, {1 + number % 2})")


@pytest.mark.parametrize(
    ("column", "sequence", "others", "reached"),
    [
        pytest.param("int DEFAULT nextval('s.q')", "", "1000000", 6, id="another clinic's number is far"),
        pytest.param("int DEFAULT nextval('s.q')", "", "7", 7, id="another clinic's number is next"),
        pytest.param("smallint DEFAULT nextval('s.q')", "", "32767", 6, id="the end of the type"),
        pytest.param("int DEFAULT (2147483000 + nextval('s.q'))", "", "2147483647", 6, id="near the end of the type"),
        pytest.param("int DEFAULT nextval('s.q')", "MAXVALUE 20", "20", 7, id="the end of the sequence"),
    ],
)
def test_a_sequence_never_goes_beyond_its_type_or_its_end(
    demo_database: DemoDatabase, tmp_path: Path, column: str, sequence: str, others: str, reached: int
) -> None:
    ddl = (
        f"CREATE SEQUENCE s.q {sequence}; CREATE TABLE s.t (id int PRIMARY KEY, clinic_id int REFERENCES s.clinic,"
        f" n {column} UNIQUE NOT NULL); INSERT INTO s.t (id, clinic_id) SELECT n, 1 FROM generate_series(1, 6) AS n;"
    )
    own = others in ("32767", "2147483647", "20")
    outlier = f"INSERT INTO s.t VALUES (50, {1 if own else 2}, {others})"
    rig = shaped(demo_database, tmp_path, ddl + (outlier if own else ""), {"t": OWN})
    record = rig.run(1)
    rig.execute("TRUNCATE s.t; ALTER SEQUENCE s.q RESTART", *([] if own else [outlier]))
    rig.bring_back(record)
    ((there,),) = rig.execute_rows("SELECT last_value FROM s.q")
    assert there in (reached, reached + 1)
    for number in range(101, 105):
        rig.execute(f"INSERT INTO s.t (id, clinic_id) VALUES ({number}, 2)")


def test_a_sequence_stays_where_nobody_can_tell(demo_database: DemoDatabase, tmp_path: Path) -> None:
    """Two sequences in one value, and chance, in a default and in a trigger."""
    ddl = (
        "CREATE SEQUENCE s.q; CREATE SEQUENCE s.r; CREATE SEQUENCE s.p; CREATE SEQUENCE s.o;"
        + BODY.format("text", "nextval('s.q') || '-' || nextval('s.r')", i="")
        + "CREATE TABLE s.t (id int PRIMARY KEY, clinic_id int REFERENCES s.clinic, n text UNIQUE DEFAULT s.f(),"
        " m text UNIQUE DEFAULT md5(nextval('s.p') || random()::text), n1 text UNIQUE);"
        + TRIGGER.format("NEW.n1 := random() || '-' || nextval('s.o');", i="1")
        + "INSERT INTO s.t SELECT n, 1 FROM generate_series(1, 6) AS n"
    )
    rig = shaped(demo_database, tmp_path, ddl, {"t": OWN}, owner=True)
    record = rig.run(1)
    rig.execute("DELETE FROM s.t")
    notes = str([table.notes for table in rig.bring_back(record).tables])
    for made in ("n is made from s.q", "n is made from s.r", "m is made from s.p"):
        assert f"s.t.{made}, but how" in notes
    assert notes.count("The sequence is not moved") == 3
    assert "how those of s.o become values cannot be told" in notes
    for name in "qrpo":
        assert rig.execute_rows(f"SELECT last_value FROM s.{name}") == [(6,)]


def test_a_function_that_hides_its_sequence_is_named(demo_database: DemoDatabase, tmp_path: Path) -> None:
    ddl = (
        "CREATE SEQUENCE s.q; CREATE FUNCTION s.f() RETURNS bigint LANGUAGE plpgsql AS $$ DECLARE n bigint;"
        " BEGIN EXECUTE 'SELECT next' || 'val(' || quote_literal(reverse('q.s')) || ')' INTO n; RETURN n; END $$;"
        "CREATE TABLE s.t (id int PRIMARY KEY DEFAULT s.f(), clinic_id int REFERENCES s.clinic, n int DEFAULT s.f());"
        "INSERT INTO s.t (clinic_id) VALUES (1), (2)"
    )
    rig = shaped(demo_database, tmp_path, ddl, {"t": OWN})
    record = rig.run(1)
    rig.execute("DELETE FROM s.t WHERE clinic_id = 1")
    notes = [note for table in rig.plan(record).tables for note in table.notes if "which calls s.f" in note]
    assert [note.split(",")[0] for note in notes] == [
        "s.t.id gets numbers by the default",
        "s.t.n gets numbers by the default",
    ]


def test_a_sequence_that_may_not_be_set_is_refused_in_the_plan(demo_database: DemoDatabase, tmp_path: Path) -> None:
    rig = shaped(demo_database, tmp_path, SEQUENCES, {"t": OWN})
    record = rig.run(1)
    rig.execute("DELETE FROM s.t WHERE id > 20", f"REVOKE UPDATE ON s.odd FROM {demo_database.roles.restorer}")
    (refusal,) = rig.plan(record).refusals
    assert "may not set s.odd" in refusal.message
    assert refusal.hint.startswith("GRANT SELECT, UPDATE ON SEQUENCE s.odd TO")


TRIGGERS = """
    CREATE TABLE s.t (id int PRIMARY KEY, clinic_id int REFERENCES s.clinic, v text);
    CREATE TABLE s.log (n serial, what text);
    INSERT INTO s.t VALUES (1, 1, 'a'), (2, 1, 'b'), (3, 2, 'c');
    CREATE FUNCTION s.note() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$
        BEGIN INSERT INTO s.log (what) VALUES (TG_NAME); RETURN COALESCE(NEW, OLD); END$$;
    CREATE TRIGGER on_o AFTER INSERT OR UPDATE OR DELETE ON s.t FOR EACH ROW EXECUTE FUNCTION s.note();
    CREATE TRIGGER on_d AFTER INSERT ON s.t FOR EACH ROW EXECUTE FUNCTION s.note();
    ALTER TABLE s.t DISABLE TRIGGER on_d
"""
FOUR = """;
    CREATE TRIGGER on_a AFTER INSERT ON s.t FOR EACH ROW EXECUTE FUNCTION s.note();
    CREATE TRIGGER on_r AFTER INSERT ON s.t FOR EACH ROW EXECUTE FUNCTION s.note();
    ALTER TABLE s.t ENABLE ALWAYS TRIGGER on_a; ALTER TABLE s.t ENABLE REPLICA TRIGGER on_r
"""


@pytest.mark.parametrize("ddl", [TRIGGERS, TRIGGERS + FOUR], ids=["replica role", "disabled by name"])
@pytest.mark.parametrize("who", ["superuser", "owner", "granted"])
def test_triggers_stay_quiet_and_keep_their_states(
    demo_database: DemoDatabase, tmp_path: Path, ddl: str, who: str
) -> None:
    rig = shaped(demo_database, tmp_path, ddl, {"t": OWN}, lists="s.log: what triggers did\n", owner=who == "superuser")
    role = demo_database.roles.restorer
    if who == "owner":
        rig.execute(f"ALTER TABLE s.t OWNER TO {role}")
    try:
        if who == "granted":
            rig.execute(
                f"GRANT SET ON PARAMETER session_replication_role TO {role}", f"ALTER TABLE s.t OWNER TO {role}"
            )
        states = "SELECT tgname, tgenabled FROM pg_trigger WHERE tgrelid = 's.t'::regclass ORDER BY 1"
        record, before, had = rig.run(1), rig.everything(), rig.execute_rows(states)
        rig.execute("DELETE FROM s.t WHERE id = 1", "UPDATE s.t SET v = 'x' WHERE id = 2", "INSERT INTO s.t VALUES (9, 1, 'n')",
                    "TRUNCATE s.log")  # fmt: skip
        plan = rig.bring_back(record)
        assert rig.everything() == before | {"s.log": []}
        assert rig.execute_rows(states) == had
        replica = FOUR not in ddl and who != "owner"
        assert ("session_replication_role" in str(plan.tables)) == replica
    finally:
        rig.execute(f"REVOKE SET ON PARAMETER session_replication_role FROM {role}")


@pytest.mark.parametrize(
    ("damage", "after_backup", "said"),
    [
        ("DELETE FROM s.person WHERE id = 1", "INSERT INTO s.person VALUES (50, 2, 'ana', 500)", "person_username_key"),
        ("UPDATE s.person SET username = 'other' WHERE id = 1", "UPDATE s.person SET code = 10 WHERE id = 3", "person_code_key"),
        ("DELETE FROM s.person WHERE id = 1", "ALTER TABLE s.person ADD CHECK (code > 15) NOT VALID", "person_code_check"),
        ("DELETE FROM s.person WHERE id = 1", "ALTER TABLE s.person ADD nick text NOT NULL DEFAULT 'x';"
         "ALTER TABLE s.person ALTER nick DROP DEFAULT", "nick"),
        ("DELETE FROM s.person WHERE id = 1", "CREATE UNIQUE INDEX short ON s.person (left(username, 1));"
         "INSERT INTO s.person VALUES (60, 2, 'ajeno', 600)", "short"),
    ],
)  # fmt: skip
def test_what_postgresql_would_refuse_is_a_refusal_of_the_plan(
    demo_database: DemoDatabase, tmp_path: Path, damage: str, after_backup: str, said: str
) -> None:
    rig = shaped(demo_database, tmp_path, USERS, {"person": OWN})
    record = rig.run(1)
    rig.execute("UPDATE s.person SET code = NULL WHERE id = 1", damage, after_backup)
    damaged = rig.everything()
    refusals = rig.plan(record).refusals
    assert said in " ".join(refusal.message for refusal in refusals)
    assert "SQLSTATE" not in str(refusals)
    assert rig.everything() == damaged


def test_an_inherited_table_without_an_extract_for_its_children_is_refused(
    demo_database: DemoDatabase, tmp_path: Path
) -> None:
    rig = shaped(
        demo_database,
        tmp_path,
        "CREATE TABLE s.base (id int PRIMARY KEY, clinic_id int REFERENCES s.clinic);"
        "CREATE TABLE s.more (extra text) INHERITS (s.base); INSERT INTO s.base VALUES (1, 1);",
        {"base": OWN},
        lists="s.more: for this test\n",
    )
    # The backup refuses it too, unless it is told to go on.
    record = rig.backup().run(replace(rig.request(1), allow_gaps=True))
    (refusal,) = rig.plan(record).refusals
    assert "inherit from s.base" in refusal.message and "s.more" in refusal.message


@pytest.mark.parametrize(
    "change",
    [
        "INSERT INTO s.n VALUES (2, 2, NULL, 'of clinic two')",
        "INSERT INTO s.n VALUES (2, 1, NULL, 'changed after')",
        "INSERT INTO s.n VALUES (2, 2, NULL, 'b')",
    ],
)
def test_an_orphan_that_was_changed_or_is_somebody_elses_is_not_taken(
    demo_database: DemoDatabase, tmp_path: Path, change: str
) -> None:
    rig = shaped(
        demo_database,
        tmp_path,
        "CREATE TABLE s.n (id int PRIMARY KEY, clinic_id int NOT NULL, up int REFERENCES s.n ON DELETE SET NULL, v text);"
        "INSERT INTO s.n VALUES (1, 1, NULL, 'a'), (2, 1, 1, 'b'), (3, 2, NULL, 'c')",
        {"n": OWN},
    )
    record = rig.run(1)
    rig.execute("DELETE FROM s.n WHERE id = 2", change)
    damaged = rig.everything()
    if "1, NULL" in change:
        rig.bring_back(record)  # the extract gives it: it is the clinic's, and is updated
        assert rig.execute_rows("SELECT v FROM s.n WHERE id = 2") == [("b",)]
    else:
        assert "belong to rows outside of this clinic" in str(rig.plan(record).refusals)
        assert rig.everything() == damaged


@pytest.mark.parametrize(
    ("was", "becomes", "value"),
    [
        ("DOMAIN s.price AS numeric(10,2)", "DOMAIN s.price AS numeric(10,0)", "8.39"),
        ("DOMAIN s.price AS timestamptz", "DOMAIN s.price AS timestamptz(0)", "2026-01-02 03:04:05.75+00"),
        ("TYPE s.price AS (p numeric(10,2))", "TYPE s.price AS (p numeric(10,0))", "(8.39)"),
    ],
)
def test_a_type_that_was_made_anew_under_its_name_changes_no_value(
    demo_database: DemoDatabase, tmp_path: Path, was: str, becomes: str, value: str
) -> None:
    rig = shaped(
        demo_database,
        tmp_path,
        f"CREATE {was}; CREATE TABLE s.x (id int PRIMARY KEY, clinic_id int REFERENCES s.clinic, v s.price);"
        f"INSERT INTO s.x VALUES (1, 1, '{value}'), (2, 2, NULL)",
        {"x": OWN},
    )
    record = rig.run(1)
    rig.execute(
        "DELETE FROM s.x WHERE id = 1",
        f"ALTER {was.split()[0]} s.price RENAME TO old",
        f"CREATE {becomes}",
        "ALTER TABLE s.x ALTER v TYPE s.price USING v::text::s.price",
    )
    (refusal,) = rig.plan(record).refusals
    assert "1 value of s.x.v in the backup is not allowed" in refusal.message


REPLICA = (
    "; CREATE FUNCTION s.quiet() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN RETURN NULL; END$$;"
    "CREATE TRIGGER tr AFTER INSERT OR UPDATE OR DELETE ON s.x FOR EACH ROW EXECUTE FUNCTION s.quiet()"
)


@pytest.mark.parametrize(
    ("ddl", "after"),
    [
        (
            "CREATE TABLE s.x (id int PRIMARY KEY, clinic_id int REFERENCES s.clinic, name text,"
            " low text GENERATED ALWAYS AS (lower(name)) STORED UNIQUE);"
            "CREATE TABLE s.y (id int PRIMARY KEY, low text REFERENCES s.x (low));"
            "INSERT INTO s.x (id, clinic_id, name) VALUES (1, 1, 'A'), (2, 2, 'B')",
            "UPDATE s.x SET name = 'N' WHERE id = 1; INSERT INTO s.y VALUES (1, 'n')",
        ),
        (
            "CREATE TABLE s.q (a int, b int, UNIQUE (a, b));"
            "CREATE TABLE s.x (id int PRIMARY KEY, clinic_id int REFERENCES s.clinic, a int, b int);"
            "INSERT INTO s.x VALUES (1, 1, 1, NULL), (2, 2, NULL, NULL); CREATE TABLE s.y (id int)",
            "DELETE FROM s.x WHERE id = 1; ALTER TABLE s.x ADD FOREIGN KEY (a, b) REFERENCES s.q (a, b) MATCH FULL",
        ),
    ],
    ids=["to a generated column", "MATCH FULL"],
)
def test_foreign_keys_that_the_restore_cannot_prove_are_postgresqls_to_check(
    demo_database: DemoDatabase, tmp_path: Path, ddl: str, after: str
) -> None:
    rig = shaped(demo_database, tmp_path, ddl + REPLICA, {"x": OWN}, lists="s.y: r\ns.q: r\n", owner=True)
    record = rig.run(1)
    rig.execute(after)
    damaged, plan = rig.everything(), rig.plan(record)
    assert "session_replication_role" not in str(plan.tables)
    assert plan.refusals
    assert rig.everything() == damaged


def test_a_sequence_in_a_text_default_moves_by_what_the_default_gives(
    demo_database: DemoDatabase, tmp_path: Path
) -> None:
    rig = shaped(
        demo_database,
        tmp_path,
        "CREATE SEQUENCE s.q; CREATE TABLE s.x (id int PRIMARY KEY, clinic_id int REFERENCES s.clinic,"
        " code varchar(12) UNIQUE DEFAULT 'F-2026-' || lpad(nextval('s.q')::text, 4, '0'));"
        "INSERT INTO s.x (id, clinic_id) SELECT n, 1 + n % 2 FROM generate_series(1, 6) AS n;"
        "INSERT INTO s.x VALUES (7, 2, '12/05/21 17')",
        {"x": OWN},
    )
    record = rig.run(1)
    rig.execute("DELETE FROM s.x WHERE clinic_id = 1; SELECT setval('s.q', 1, false)")
    rig.bring_back(record)
    rig.execute("INSERT INTO s.x (id, clinic_id) VALUES (101, 2), (102, 1)")
    assert rig.execute_rows("SELECT last_value FROM s.q") == [(8,)]


@pytest.mark.parametrize(
    ("was", "drift"),
    [
        ("char(5)", "varchar(5)"),
        ("boolean", "text"),
        ("timestamp", "timestamptz USING v AT TIME ZONE 'America/Lima'"),
    ],
)
def test_undamaged_rows_of_a_retyped_column_stay_as_the_change_made_them(
    demo_database: DemoDatabase, tmp_path: Path, was: str, drift: str
) -> None:
    value = {"char(5)": "ab", "boolean": "true", "timestamp": "2026-01-02 03:04:05"}[was]
    rig = shaped(
        demo_database,
        tmp_path,
        f"CREATE TABLE s.x (id int PRIMARY KEY, clinic_id int REFERENCES s.clinic, v {was}, w text);"
        f"INSERT INTO s.x SELECT n, 1, '{value}', 'w' FROM generate_series(1, 5) AS n",
        {"x": OWN},
    )
    record = rig.run(1)
    rig.execute(f"ALTER TABLE s.x ALTER v TYPE {drift}")
    before = rig.everything()
    rig.execute("UPDATE s.x SET w = 'damaged' WHERE id = 1")
    plan = rig.plan(record)
    if was == "timestamp":
        assert "4 rows of 4" in plan.refusals[0].message  # no way that is known gives what the change gave
    else:
        rig.bring_back(record)
        assert rig.everything() == before


UNKEYED = """
    CREATE TABLE s.cat (nr int NOT NULL UNIQUE, code text NOT NULL UNIQUE, clinic_id int REFERENCES s.clinic, v text);
    CREATE TABLE s.item (cat text REFERENCES s.cat (code) ON DELETE CASCADE, v text);
    CREATE TABLE s.label (a int NOT NULL, b text NOT NULL, clinic_id int REFERENCES s.clinic, v text, UNIQUE (b, a));
    CREATE TABLE s.mark (a int, b text, v text, FOREIGN KEY (a, b) REFERENCES s.label (a, b) ON DELETE SET NULL);
    CREATE TABLE s.node (code text NOT NULL UNIQUE, clinic_id int REFERENCES s.clinic, v text,
        parent text REFERENCES s.node (code) ON DELETE SET NULL);
    INSERT INTO s.cat VALUES (1, 'a', 1, 'a'), (2, 'b', 1, 'b'), (3, 'z', 2, 'z');
    INSERT INTO s.item VALUES ('a', '1'), ('a', '1'), ('b', '2'), ('z', '3');
    INSERT INTO s.label VALUES (1, 'a', 1, 'a'), (1, 'b', 1, 'b'), (2, 'a', 2, 'z');
    INSERT INTO s.mark VALUES (1, 'a', '1'), (1, 'b', '2'), (2, 'a', '3');
    INSERT INTO s.node VALUES ('a', 1, 'a', NULL), ('b', 1, 'b', 'a'), ('c', 1, 'c', 'b'), ('z', 2, 'z', NULL)
"""
OF_CAT = "t.cat IN (SELECT code FROM s.cat WHERE clinic_id = {{ clinic_id }})"
OF_LABEL = "EXISTS (SELECT FROM s.label AS l WHERE l.clinic_id = {{ clinic_id }} AND (l.a, l.b) = (t.a, t.b))"


@pytest.mark.parametrize(
    "damage",
    [
        "UPDATE s.cat SET v = 'x' WHERE clinic_id = 1; UPDATE s.label SET v = 'x' WHERE clinic_id = 1;"
        "UPDATE s.node SET v = 'x' WHERE clinic_id = 1",
        "UPDATE s.cat SET nr = nr + 10, v = NULL WHERE clinic_id = 1; UPDATE s.node SET parent = 'c' WHERE code = 'b'",
        "DELETE FROM s.cat WHERE code = 'a'; UPDATE s.cat SET v = 'x' WHERE code = 'b'",
    ],
)
def test_a_unique_key_tells_the_rows_of_a_table_without_primary_key(
    demo_database: DemoDatabase, tmp_path: Path, damage: str
) -> None:
    extracts = {"cat": OWN, "label": OWN, "node": OWN, "item": OF_CAT, "mark": OF_LABEL}
    rig = shaped(demo_database, tmp_path, UNKEYED, extracts)
    assert "without error" in tried(rig)
    record, before = rig.run(1), rig.everything()
    rig.execute(damage)
    rig.bring_back(record)
    assert rig.everything() == before
    rig.execute("UPDATE s.cat SET v = 'y' WHERE clinic_id = 1")
    assert [table.update for table in rig.plan(record).tables if table.writes] == [2]


@pytest.mark.parametrize(("does", "itself"), [("CASCADE", False), ("SET NULL", True), ("RESTRICT", False)])
def test_rows_that_nothing_tells_and_others_refer_to_are_refused_by_name(
    demo_database: DemoDatabase, tmp_path: Path, does: str, itself: bool
) -> None:
    child = "node" if itself else "item"
    ddl = (
        "CREATE TABLE s.node (code text UNIQUE, clinic_id int REFERENCES s.clinic, v text, up text);"
        "CREATE TABLE s.item (clinic_id int REFERENCES s.clinic, up text);"
        f"ALTER TABLE s.{child} ADD CONSTRAINT to_node FOREIGN KEY (up) REFERENCES s.node (code) ON DELETE {does};"
        "INSERT INTO s.node VALUES ('a', 1, 'a', NULL), ('b', 1, 'b', 'a'); INSERT INTO s.item VALUES (1, 'a')"
    )
    rig = shaped(demo_database, tmp_path, ddl, {"node": OWN, "item": OWN})
    assert "s.node has no primary key, and no unique columns that may not be NULL" in tried(rig)
    record = rig.run(1)
    rig.execute("UPDATE s.node SET v = 'x' WHERE code = 'a'")
    damaged, (refusal,) = rig.everything(), rig.plan(record).refusals
    assert refusal.table == "s.node"
    assert f"to_node of s.{child}" in refusal.message
    assert "ALTER code SET NOT NULL" in refusal.hint
    assert rig.everything() == damaged
    rig.execute("ALTER TABLE s.node ALTER code SET NOT NULL")
    rig.bring_back(record)


def tried(rig: Shaped) -> str:
    """What `check` says of errors when it tries the tables."""
    report = Report()
    try_tables(rig.settings, connections.parse("restore_db", rig.database.restorer_uri), report)
    return "; ".join(finding.message for finding in report.findings if finding.level == "error") or "without error"
