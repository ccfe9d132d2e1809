"""``clinic-backups recover`` of other schemas: odd tables, parent tables, and rows that moved between two backups."""

# ruff: noqa: E501 - a schema reads best with one table a line

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from clinic_backups.base import connections
from clinic_backups.drill.inserts import try_inserts
from tests.integration.test_recover import Target, contents, definitions, sequences, shared
from tests.parents import PARENTS, TABLES, set_parents
from tests.postgres_fixtures import DemoDatabase
from tests.shapes import Shaped, grants, shaped

ODD = """
    CREATE EXTENSION pgcrypto;
    CREATE TYPE s.mood AS ENUM ('bien', 'mal');
    CREATE DOMAIN s.money_ AS numeric(10, 2) CHECK (VALUE >= 0);
    CREATE FUNCTION s.limit_() RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT 1000';
    CREATE FUNCTION s.below(n int) RETURNS boolean LANGUAGE plpgsql AS $$
        BEGIN RETURN n < s.limit_(); END $$;
    CREATE SEQUENCE s.invoice_number START 100 INCREMENT 5;
    CREATE SEQUENCE s.nobody START 7;
    CREATE TABLE s.person (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, clinic_id int NOT NULL REFERENCES s.clinic,
                           name text NOT NULL, upper_name text GENERATED ALWAYS AS (upper(name)) STORED, mood s.mood,
                           n int CHECK (s.below(n)), born date, raw bytea, tags text[], doc jsonb, cost s.money_);
    CREATE TABLE s.invoice (number bigint DEFAULT nextval('s.invoice_number') PRIMARY KEY, clinic_id int NOT NULL REFERENCES s.clinic,
                            person_id int REFERENCES s.person DEFERRABLE INITIALLY DEFERRED, total money);
    CREATE TABLE s.visit (clinic_id int NOT NULL, at timestamptz NOT NULL, person_id int, note text,
                          PRIMARY KEY (clinic_id, at)) PARTITION BY RANGE (at);
    CREATE TABLE s.visit_2025 PARTITION OF s.visit FOR VALUES FROM ('2025-01-01') TO ('2026-01-01');
    CREATE TABLE s.visit_2026 PARTITION OF s.visit FOR VALUES FROM ('2026-01-01') TO ('2027-01-01');
    ALTER TABLE s.visit ADD FOREIGN KEY (person_id) REFERENCES s.person;
    CREATE SCHEMA "Otro";
    CREATE TABLE "Otro"."Tabla ""x" ("Clave Uno" text PRIMARY KEY, clinic_id int NOT NULL REFERENCES s.clinic, "ñ" text);
    CREATE TABLE s.country (code text PRIMARY KEY, name text);
    CREATE TABLE s.no_key (clinic_id int, text text);
    CREATE VIEW s.people AS SELECT id, name FROM s.person;
    CREATE MATERIALIZED VIEW s.a_totals AS SELECT clinic_id, count(*) AS n FROM s.person GROUP BY 1 WITH NO DATA;
    CREATE MATERIALIZED VIEW s.a_sums AS SELECT sum(n) AS n FROM s.a_totals WITH NO DATA;
    CREATE UNIQUE INDEX ON s.a_totals (clinic_id);
    CREATE INDEX lower_name ON s.person (lower(name)) WHERE mood = 'bien';
    ALTER TABLE s.person ADD CONSTRAINT name_once UNIQUE (clinic_id, name);
    CREATE FUNCTION s.touched() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN NEW.name := NEW.name || '!'; RETURN NEW; END $$;
    CREATE TRIGGER touched BEFORE INSERT ON s.person FOR EACH ROW EXECUTE FUNCTION s.touched();
    CREATE STATISTICS s.both_ ON clinic_id, mood FROM s.person;
    COMMENT ON TABLE s.person IS 'people, with; a semicolon';
    COMMENT ON COLUMN s.person.name IS E'two\nlines';
    CREATE TABLE s.cache (id int, clinic_id int REFERENCES s.clinic);
    ALTER TABLE s.cache ENABLE ROW LEVEL SECURITY;
    CREATE POLICY all_ ON s.cache USING (clinic_id = 1);
    INSERT INTO s.person (clinic_id, name, mood, n, born, raw, tags, doc, cost)
        SELECT 1 + i % 2, 'Persona "' || i || '", ' || chr(10) || 'ñ', 'bien', i, '2001-02-03', '\\x00ff', ARRAY['a', NULL, '{,}'],
               jsonb_build_object('i', i), i FROM generate_series(1, 300) AS i;
    INSERT INTO s.person (clinic_id, name) VALUES (1, ''), (2, '\\.');
    INSERT INTO s.invoice (clinic_id, person_id, total) SELECT clinic_id, id, 12.5 FROM s.person;
    INSERT INTO s.visit SELECT 1 + i % 2, '2025-12-30'::timestamptz + i * interval '1 hour', i, 'n' FROM generate_series(1, 100) AS i;
    INSERT INTO "Otro"."Tabla ""x" VALUES ('b', 1, 'x'), ('B', 2, NULL), ('ä', 2, '');
    INSERT INTO s.country VALUES ('BO', 'Bolivia'), ('MX', 'México');
    INSERT INTO s.no_key VALUES (1, 'same'), (1, 'same'), (2, NULL), (NULL, 'nobody'), (NULL, 'nobody');
    SELECT nextval('s.nobody') FROM generate_series(1, 3);
    REFRESH MATERIALIZED VIEW s.a_totals; REFRESH MATERIALIZED VIEW s.a_sums
"""
BOTH = "SELECT t.* FROM {} AS t WHERE t.clinic_id = {{{{ clinic_id }}}}"


def alone(rig: Shaped) -> Shaped:
    """Only the test's own tables are in the database, and the role of backups may read them."""
    rig.execute("DROP SCHEMA public CASCADE", "CREATE SCHEMA public", *grants(rig.database))
    reader = rig.database.roles.reader
    rig.execute(f"GRANT SELECT ON ALL SEQUENCES IN SCHEMA s TO {reader}", f"GRANT USAGE ON SCHEMA public TO {reader}")
    return rig


@pytest.fixture
def odd(demo_database: DemoDatabase, tmp_path: Path) -> Shaped:
    mine = "clinic_id = {{ clinic_id }}"
    rig = shaped(
        demo_database, tmp_path, ODD, {"person": mine, "invoice": mine, "visit": mine, "no_key": mine},
        lists="s.country: shared, the same for all\ns.cache: derived, a cache\n",
    )  # fmt: skip
    (rig.settings.sql_dir / "extract" / 'Otro.Tabla "x.sql').write_text(BOTH.format('"Otro"."Tabla ""x"'))
    reader = rig.database.roles.reader
    rig.execute(f'GRANT USAGE ON SCHEMA "Otro" TO {reader}', f'GRANT SELECT ON ALL TABLES IN SCHEMA "Otro" TO {reader}')
    return alone(rig)


def made(rig: Shaped, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> Iterator[Target]:
    target = Target(rig, tmp_path, monkeypatch, capsys, name="Clínica's = \\x")
    yield target
    target.drop()


@pytest.fixture
def odd_target(odd: Shaped, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> Iterator[Target]:
    yield from made(odd, tmp_path, monkeypatch, capsys)


def test_a_schema_with_everything_odd(odd: Shaped, odd_target: Target) -> None:
    odd.kind = "auto"
    shared(odd)
    for clinic in (1, 2):
        odd.run(clinic)
    # The second backup of a clinic is incremental: its blocks lie in two archives.
    odd.execute("UPDATE s.person SET n = n + 1 WHERE id = 7", "INSERT INTO s.no_key VALUES (2, 'same')")
    assert odd.run(2).kind == "incremental"
    shared(odd)
    report = odd_target.report()
    before, after = contents(odd.database.connect), contents(lambda: odd_target.postgres.connect(odd_target.name))
    assert before == after
    assert sum(rows.total() for rows in after.values()) > 700
    assert definitions(odd, odd_target.name) == definitions(odd, odd.database.name)
    assert sequences(lambda: odd_target.postgres.connect(odd_target.name)) == sequences(odd.database.connect)
    assert {unit["state"] for unit in report["units"]} == {"proven"}
    # Nothing that is given out next was given out before.
    odd_target.execute(
        "INSERT INTO s.person (clinic_id, name) VALUES (1, 'next')", "INSERT INTO s.invoice (clinic_id) VALUES (1)"
    )


@pytest.fixture
def parents(demo_database: DemoDatabase, tmp_path: Path) -> Shaped:
    mine = "clinic_id = {{ clinic_id }}"
    rig = shaped(
        demo_database, tmp_path, TABLES, {"staff": mine, "membership": mine},
        lists="s.auth_user.last_clinic_id: any clinic\n",
    )  # fmt: skip
    set_parents(rig, PARENTS)
    return alone(rig)


@pytest.fixture
def parents_target(parents: Shaped, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> Iterator[Target]:
    yield from made(parents, tmp_path, monkeypatch, capsys)


class TestSeveralBackups:
    def test_of_a_parent_row_in_several_the_newest_counts(self, parents: Shaped, parents_target: Target) -> None:
        shared(parents)
        parents.run(1)
        parents.execute("UPDATE s.auth_user SET mail = 'new@x' WHERE username = 'both'")
        parents.run(2)
        report = parents_target.report()
        assert contents(lambda: parents_target.postgres.connect(parents_target.name)) == contents(
            parents.database.connect
        )
        told = {(each["table"], each["unit"], each["newer"]): each["differing"] for each in report["replaced"]}
        assert told["s.auth_user", "1", "2"] == 1
        states = {unit["unit"]: (unit["state"], unit["explained"]) for unit in report["units"]}
        assert states[1] == ("explained", ["s.auth_user: 1 rows have the values of newer backups (2)"])
        assert states[2] == ("proven", [])
        assert states["~shared"] == ("proven", [])

    def test_a_row_that_moved_is_taken_from_the_newer_backup(self, parents: Shaped, parents_target: Target) -> None:
        shared(parents)
        parents.run(1)
        parents.execute("UPDATE s.staff SET clinic_id = 2, role = 'moved' WHERE id = 100")
        parents.run(2)
        report = parents_target.report()
        assert parents_target.rows("SELECT clinic_id, role FROM s.staff WHERE id = 100") == [(2, "moved")]
        assert parents_target.rows("SELECT count(*) FROM s.staff") == [(4,)]
        (unit,) = [unit for unit in report["units"] if unit["unit"] == 1]
        assert unit["state"] == "explained"
        assert "s.staff: 1 rows had moved to, or changed in, newer backups (2)" in unit["explained"]

    def test_a_row_of_nobody_that_a_clinic_took_meanwhile(self, parents: Shaped, parents_target: Target) -> None:
        parents.run(1)
        shared(parents)
        parents.execute("INSERT INTO s.staff VALUES (104, 2, 14, 'new')")
        parents.run(2)
        report = parents_target.report()
        assert contents(lambda: parents_target.postgres.connect(parents_target.name)) == contents(
            parents.database.connect
        )
        # The position of the sequence was read before, and the row did not take its number from there.
        assert parents_target.rows("SELECT nextval('s.staff_id_seq')") == [(105,)]
        (unit,) = [unit for unit in report["units"] if unit["unit"] == "~shared"]
        assert unit["state"] == "explained"
        assert "s.auth_user: 1 rows had moved to, or changed in, newer backups (2)" in unit["explained"]

    def test_a_unique_value_that_two_backups_have_is_a_problem(self, parents: Shaped, parents_target: Target) -> None:
        shared(parents)
        parents.run(1)
        parents.execute(
            "UPDATE s.auth_user SET username = 'ana maria' WHERE id = 10",
            "UPDATE s.auth_user SET username = 'ana' WHERE id = 12",
        )
        parents.run(2)
        report = parents_target.report(code=1)
        assert not report["is_whole"]
        (problem,) = [each for each in report["left"] if each["is_problem"]]
        assert "because rows of several backups have the same value" in problem["what"]
        assert "ADD CONSTRAINT auth_user_username_key UNIQUE (username)" in problem["sql"]
        # Everything else is there, and so is the way to the end.
        assert parents_target.rows("SELECT count(*) FROM s.auth_user") == [(5,)]
        parents_target.execute("UPDATE s.auth_user SET username = 'ana maria' WHERE id = 10", problem["sql"])
        assert definitions(parents, parents_target.name) == definitions(parents, parents.database.name)


NO_COLUMN = """
    CREATE SEQUENCE s.folio;
    CREATE TABLE s.bill (folio text PRIMARY KEY DEFAULT 'F-' || nextval('s.folio'), clinic_id int NOT NULL REFERENCES s.clinic);
    CREATE SEQUENCE s.nr;
    CREATE TABLE s.visit (id int PRIMARY KEY, clinic_id int NOT NULL REFERENCES s.clinic);
    CREATE FUNCTION s.numbered() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN NEW.id := coalesce(NEW.id, nextval('s.nr')); RETURN NEW; END $$;
    CREATE TRIGGER numbered BEFORE INSERT ON s.visit FOR EACH ROW EXECUTE FUNCTION s.numbered();
    CREATE SEQUENCE s.cyc MAXVALUE 5 CYCLE;
    CREATE TABLE s.box (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, n int DEFAULT nextval('s.cyc'), clinic_id int NOT NULL REFERENCES s.clinic);
    INSERT INTO s.bill (clinic_id) SELECT 1 + i % 2 FROM generate_series(1, 10) AS i;
    INSERT INTO s.visit (clinic_id) SELECT 1 + i % 2 FROM generate_series(1, 10) AS i;
    INSERT INTO s.box (clinic_id) SELECT 1 + i % 2 FROM generate_series(1, 7) AS i
"""
MINE = "t.clinic_id = {{ clinic_id }}"
NEXT = ("INSERT INTO s.bill (clinic_id) VALUES (1)", "INSERT INTO s.visit (clinic_id) VALUES (1)")


def test_no_number_is_given_twice_where_no_column_holds_it(
    demo_database: DemoDatabase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rig = alone(shaped(demo_database, tmp_path, NO_COLUMN, dict.fromkeys(("bill", "visit", "box"), MINE)))
    shared(rig)
    rig.execute(*NEXT)
    for clinic in (1, 2):
        assert rig.open(rig.run(clinic)).manifest["files"].keys() == {"sequences.json"}
    for target in made(rig, tmp_path, monkeypatch, capsys):
        code, out, err = target.recover()
        assert code == 0, out + err
        assert target.rows("SELECT last_value FROM s.cyc") == [(2,)]
        tried = try_inserts(connections.parse("t", target.postgres.uri(target.name))).check()
        assert (tried.outcome, "s.visit: a trigger may give its keys" in tried.detail) == ("passed", True)
        target.execute(*NEXT)  # neither key is there


def test_a_sequence_that_newer_backups_say_nothing_of_is_named(
    demo_database: DemoDatabase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As backups of an earlier version."""
    rig = alone(shaped(demo_database, tmp_path, NO_COLUMN, dict.fromkeys(("bill", "visit", "box"), MINE)))
    shared(rig)
    rig.execute(*NEXT)
    with monkeypatch.context() as patch:
        patch.setattr("clinic_backups.backup.backup.clinic_files", lambda snapshot, folder: {})
        for clinic in (1, 2):
            rig.run(clinic)
    for target in made(rig, tmp_path, monkeypatch, capsys):
        code, out, err = target.recover()
        said = " ".join((out + err).split())
        assert code == 1
        assert "The sequence s.folio stands where it was at the backup of the shared data. 2 newer backups" in said
        assert "s.nr stands" in said and "s.cyc stands" not in said
        place = connections.parse("t", target.postgres.uri(target.name))
        assert try_inserts(place).failed == [
            "s.bill would give out a key twice: the default of folio gives one that is there"
        ]
        assert try_inserts(place, are_behind=True).failed == []
