"""A copy in a new schema is one that the application can run on: pg_dump, inserts and Django are the oracles."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg2
import pytest

from clinic_backups.base import connections
from clinic_backups.base.backup_record import BackupRecord
from clinic_backups.base.postgres_tools import find_tool
from clinic_backups.restore.clinic_restore import ClinicRestore
from clinic_backups.restore.into_schema import IntoRestore
from tests.django_fixtures import APP, APP_PASSWORD
from tests.fleet import Fleet
from tests.integration.test_django import practice
from tests.integration.test_restore_into import Annex, annex, empty_database, notes
from tests.postgres_fixtures import DemoDatabase
from tests.shapes import Shaped, shaped

__all__ = ["annex", "empty_database", "practice"]
OWN = "clinic_id = {{ clinic_id }}"


def dumped(database: DemoDatabase, schema: str, name: str | None = None) -> set[str]:
    """What pg_dump writes of a schema: its statements with the schema's name taken away."""
    words = ["--schema-only", "--no-owner", "--no-privileges", f"--schema={schema}"]
    uri = f"--dbname={database.postgres.uri(name or database.name)}"
    tool = str(find_tool("pg_dump", at_least=17).path)
    text = subprocess.run([tool, *words, uri], check=True, capture_output=True, text=True).stdout
    found = re.split(r";\n", re.sub(r"(?m)^(--.*|\\.*|)\n", "", text))
    return {re.sub(r"\s+", " ", each.replace(f"{schema}.", "")).strip() for each in found}


LEADS_OUT = """
    WITH RECURSIVE own (class, oid) AS (
        SELECT classid, objid FROM pg_depend
         WHERE refclassid = 'pg_namespace'::regclass AND refobjid = 'copia'::regnamespace
         UNION
        SELECT d.classid, d.objid FROM own AS o
          JOIN pg_depend AS d ON d.refclassid = o.class AND d.refobjid = o.oid AND d.deptype IN ('a', 'i')
    )
    SELECT DISTINCT i.type || ' ' || i.identity
      FROM own AS o
      JOIN pg_depend AS d ON d.classid = o.class AND d.objid = o.oid
     CROSS JOIN LATERAL pg_identify_object(d.refclassid, d.refobjid, 0) AS i
     WHERE i.schema NOT IN ('copia', 'pg_catalog', 'pg_toast') AND d.refclassid <> 'pg_namespace'::regclass
       AND NOT EXISTS (SELECT FROM pg_depend AS e
                        WHERE e.classid = d.refclassid AND e.objid = d.refobjid AND e.deptype = 'e')
"""
"""What objects of the copy depend on outside of it and of extensions: PostgreSQL's own answer."""


def into(rig: Any, uri: str | None = None, **options: Any) -> IntoRestore:
    """As the superuser, unless an address is given."""
    return IntoRestore(
        ClinicRestore(
            settings=rig.settings,
            restore_db=connections.parse("restore_target", uri or rig.database.postgres.uri(rig.database.name)),
            archives=rig.restore().archives,
            **options,
        )
    )


def test_pg_dump_finds_the_same_in_the_copy(annex: Annex) -> None:
    record = annex.run(1)
    report = annex.into().run(annex.source(record), "copia")
    held = {table.name for table in report.tables}
    own, copied = dumped(annex.database, "public"), dumped(annex.database, "copia")

    def of_tables(statements: set[str]) -> set[str]:
        named = re.compile(
            r"^(?:CREATE TABLE|ALTER TABLE(?: ONLY)?|CREATE (?:UNIQUE )?INDEX \w+ ON|COMMENT ON TABLE) (\w+)"
        )
        return {each for each in statements if (match := named.match(each)) and match[1] in held}

    types = {each for each in own if each.startswith("CREATE TYPE")}
    assert len(types) == 2 and types <= copied
    missing = of_tables(own) - copied
    assert [each for each in missing if "REFERENCES auth_group" not in each] == []
    assert of_tables(copied) <= of_tables(own)
    for word in ("GENERATED ALWAYS AS ((subtotal + impuesto)) STORED", "CHECK ((cantidad >= 0))", "varchar_pattern_ops",
                 "UNIQUE (clinica_id, cedula)", "SEQUENCE NAME"):  # fmt: skip
        assert any(word in each for each in of_tables(copied)), word
    # And not one name of the original is left in it.
    assert annex.execute_rows(LEADS_OUT) == []
    assert not any("public." in each for each in copied)


def test_another_database_gets_the_same(annex: Annex, empty_database: str) -> None:
    record = annex.run(1)
    here = annex.into().run(annex.source(record), "copia")
    there = annex.into(annex.uri(empty_database), clinic_db=annex.clinic_db).run(annex.source(record), "copia")
    assert there.tables == here.tables
    assert dumped(annex.database, "copia", empty_database) == dumped(annex.database, "copia")


def test_new_rows_get_numbers_behind_the_last_and_the_originals_sequences_stay(annex: Annex) -> None:
    record = annex.run(1)
    positions = "SELECT sequencename, last_value FROM pg_sequences WHERE schemaname = 'public' ORDER BY 1"
    before = annex.execute_rows(positions)
    report = annex.into().run(annex.source(record), "copia")
    tried = 0
    for name in (made.name for made in report.tables):
        last = "SELECT max(last_value) FROM pg_sequences WHERE schemaname = 'public' AND sequencename = '{}_id_seq'"
        ((expected,),) = annex.execute_rows(last.format(name))
        if expected is None:
            continue
        names = "SELECT string_agg(quote_ident(attname), ', ') FROM pg_attribute WHERE attrelid = 'copia.{}'::regclass"
        ((columns,),) = annex.execute_rows(
            names.format(name) + " AND attnum > 0 AND attname <> 'id' AND attgenerated = ''"
        )
        with annex.database.session.transaction() as cursor:
            cursor.execute(f"CREATE TEMP TABLE one AS SELECT {columns} FROM copia.{name} LIMIT 1")
            cursor.execute(f"TRUNCATE copia.{name} CASCADE")
            cursor.execute(f"INSERT INTO copia.{name} ({columns}) SELECT {columns} FROM one RETURNING id")
            assert cursor.fetchall() == [(expected + 1,)], name
            cursor.connection.rollback()
        tried += 1
    assert tried >= 12
    assert annex.execute_rows(positions) == before


def test_django_creates_changes_and_deletes_a_row_of_each_model(practice: Fleet) -> None:
    record = practice.run(1)
    app = practice.database.postgres.uri(practice.database.name, APP, APP_PASSWORD)
    practice.execute(f"GRANT CREATE ON DATABASE {practice.database.name} TO {APP}")
    report = into(practice, app, clinic_db=practice.clinic_db).run(_source(record), "copia")
    assert [note for table in report.tables for note in table.notes if "missing" in note or "left out:" in note] == []
    from django.apps import apps
    from django.db import connection

    before = practice.rows_now(1)
    tried = 0
    with connection.cursor() as cursor:
        cursor.execute("SET search_path = copia, public")
        try:
            for model in apps.get_models(include_auto_created=True):
                if record.rows.get(f"public.{model._meta.db_table}"):
                    _life_of_a_row(model)
                    tried += 1
        finally:
            cursor.execute("RESET search_path")
    assert tried >= 12
    assert practice.rows_now(1) == before


def _life_of_a_row(model: Any) -> None:
    """A row like the newest one is made, changed and deleted; if it may not be there twice, without that one."""
    from django.db import IntegrityError, transaction

    row, manager = model._base_manager.order_by("-pk").first(), model._base_manager
    old, count = row.pk, manager.count()
    for alone in (False, True):
        with transaction.atomic():
            if alone:
                manager.filter(pk=old)._raw_delete("default")
            try:
                with transaction.atomic():
                    row.pk, row._state.adding = None, True
                    row.save(force_insert=True)
            except IntegrityError:
                assert not alone, model
                continue
            assert (row.pk != old, manager.count()) == (True, count + (not alone)), model
            row.save(force_update=True)
            row.delete()
            transaction.set_rollback(alone)
            break
    assert manager.count() == count


def _source(record: BackupRecord) -> Any:
    from clinic_backups.restore.find_backup import source_of

    return source_of(record)


DDL = r"""
    CREATE TYPE s.mood AS ENUM ('mal', 'bien');
    CREATE TYPE s."Mood 2" AS ENUM ('b', 'a');
    CREATE DOMAIN s.code AS varchar(12) DEFAULT 'X-1' CONSTRAINT code_form CHECK (VALUE ~ '^[A-Z]');
    CREATE DOMAIN s.needed AS s.mood NOT NULL;
    CREATE TYPE s.spot AS (x int, m s.mood, c s.code);
    CREATE TYPE s.hours AS RANGE (SUBTYPE = float8, SUBTYPE_DIFF = float8mi);
    CREATE FUNCTION s.loud(text) RETURNS text IMMUTABLE LANGUAGE sql RETURN upper($1);
    CREATE FUNCTION s.logs() RETURNS trigger LANGUAGE plpgsql AS $f$BEGIN RAISE 'no'; END$f$;
    CREATE SEQUENCE s.folio START 100 INCREMENT 5;
    CREATE TABLE s.shared (id int PRIMARY KEY);
    INSERT INTO s.shared VALUES (7);
    CREATE TABLE s.bill (
        id serial PRIMARY KEY, clinic_id int NOT NULL REFERENCES s.clinic,
        shared_id int REFERENCES s.shared ON DELETE CASCADE,
        m s.mood NOT NULL DEFAULT 'bien', m2 s."Mood 2"[] DEFAULT ARRAY['a'::s."Mood 2"], c s.code,
        n s.needed DEFAULT 'mal', spot s.spot, hours s.hours,
        number text NOT NULL DEFAULT ('F-' || nextval('s.folio')), folio bigint DEFAULT nextval('s.folio'),
        name text COLLATE "C", total numeric GENERATED ALWAYS AS (id * 2) STORED,
        shout text GENERATED ALWAYS AS (s.loud(name)) STORED, made timestamptz NOT NULL DEFAULT now(),
        said text DEFAULT 's.mood ''s.folio''::regclass', loud text DEFAULT s.loud('x'),
        CONSTRAINT good CHECK (m <> 'mal'::s.mood OR number LIKE 'F%'), CONSTRAINT calls CHECK (s.loud(number) <> ''),
        CONSTRAINT once UNIQUE (clinic_id, number), CONSTRAINT apart EXCLUDE USING gist (hours WITH &&),
        CONSTRAINT at_last UNIQUE (number, id) DEFERRABLE INITIALLY DEFERRED
    );
    CREATE UNIQUE INDEX bill_lower ON s.bill (lower(name), clinic_id) WHERE name <> '';
    CREATE INDEX bill_loud ON s.bill (s.loud(name));
    CREATE INDEX bill_brin ON s.bill USING brin (made) WITH (pages_per_range = 32);
    CREATE TRIGGER logged BEFORE INSERT ON s.bill FOR EACH ROW EXECUTE FUNCTION s.logs();
    CREATE RULE quiet AS ON DELETE TO s.bill DO ALSO NOTHING;
    ALTER TABLE s.bill DISABLE TRIGGER logged;
    COMMENT ON TABLE s.bill IS 'cuentas ''todas''';
    COMMENT ON COLUMN s.bill.m IS 'ánimo';
    INSERT INTO s.bill (clinic_id, shared_id, name, spot, hours, c) VALUES
        (1, 7, 'Ana', ROW(1, 'bien', 'A1'), '[1,2)', 'A1'), (1, NULL, 'Eva', NULL, '[3,4)', NULL),
        (2, 7, 'ana', NULL, '[5,6)', 'B');
    CREATE TABLE s.line (
        id bigint GENERATED ALWAYS AS IDENTITY (START 10 INCREMENT 10) PRIMARY KEY, clinic_id int NOT NULL,
        bill_id int NOT NULL REFERENCES s.bill ON DELETE CASCADE ON UPDATE CASCADE DEFERRABLE INITIALLY IMMEDIATE,
        number text, FOREIGN KEY (clinic_id, number) REFERENCES s.bill (clinic_id, number),
        amount numeric(8, 2) CHECK (amount > 0) NO INHERIT
    );
    INSERT INTO s.line (clinic_id, bill_id, number, amount) SELECT clinic_id, id, NULL, 5 FROM s.bill;
    ALTER TABLE s.line ADD CONSTRAINT later CHECK (amount < 5) NOT VALID;
    CREATE POLICY mine ON s.line USING (true)
"""


@pytest.fixture
def odd(demo_database: DemoDatabase, tmp_path: Path) -> Iterator[tuple[Shaped, BackupRecord]]:
    rig = shaped(
        demo_database, tmp_path, DDL, {"bill": OWN, "line": OWN}, lists="s.shared: shared, of all\n", owner=True
    )
    yield rig, rig.run(1)


def needs_extension(rig: Shaped, name: str) -> None:
    if not rig.execute_rows(f"SELECT FROM pg_available_extensions WHERE name = '{name}'"):
        pytest.skip(f"this server has no {name}")


class TestOddDefinitions:
    def test_what_is_made(self, odd: tuple[Shaped, BackupRecord]) -> None:
        rig, record = odd
        report = into(rig).run(rig.source(record), "copia")
        said = notes(report)
        assert sorted(said["s.bill"].replace(". ", ".\n").splitlines()) == [
            "Check calls is left out: it uses the function s.loud(pg_catalog.text).",
            "Column shout is generated in the original, and an empty ordinary one here: what computes it uses the"
            " function s.loud(pg_catalog.text).",
            "Index bill_loud is left out: it uses the function s.loud(pg_catalog.text).",
            "Not in the copy: rule quiet, trigger logged.",
            "The default of column loud is left out: it uses the function s.loud(pg_catalog.text).",
            "There is no foreign key to s.shared: that table is not in the copy.",
        ]
        assert said["s.line"] == "Not in the copy: policy mine."
        own, copied = dumped(rig.database, "s"), dumped(rig.database, "copia")
        kinds = r"CREATE (TYPE|DOMAIN|SEQUENCE|UNIQUE INDEX|INDEX)|ALTER (TABLE|SEQUENCE)|COMMENT ON (TABLE|COLUMN)"
        apart = {each for each in own if re.match(kinds, each)} - copied
        assert all(re.search(r"loud|shared|DISABLE TRIGGER|CREATE DOMAIN code", each) for each in apart), apart
        assert rig.execute_rows(LEADS_OUT) == []
        assert not any("s.loud" in each or "FUNCTION" in each or "TRIGGER" in each for each in copied)
        # PostgreSQL checks no rows for a domain that a composite type has too.
        assert "ALTER DOMAIN code ADD CONSTRAINT code_form CHECK (((VALUE)::text ~ '^[A-Z]'::text)) NOT VALID" in copied
        for word in ("CREATE TYPE hours AS RANGE", "EXCLUDE USING gist", "pages_per_range",
                     "ON UPDATE CASCADE ON DELETE CASCADE DEFERRABLE", "NOT VALID", "START WITH 100 INCREMENT BY 5",
                     "FOREIGN KEY (clinic_id, number)"):  # fmt: skip
            assert any(word in each for each in copied), word

    def test_defaults_work_and_take_nothing_of_the_original(self, odd: tuple[Shaped, BackupRecord]) -> None:
        rig, record = odd
        into(rig).run(rig.source(record), "copia")
        last = "SELECT last_value FROM s.folio UNION ALL SELECT last_value FROM s.bill_id_seq"
        before = rig.execute_rows(last)
        ((given, number, folio, m, m2, c, n, said, total),) = rig.execute_rows(
            "INSERT INTO copia.bill (clinic_id, hours) VALUES (1, '[8,9)')"
            " RETURNING id, number, folio, m::text, m2::text, c, n::text, said, total"
        )
        # The original has given 3 ids, and 6 numbers from 100 in steps of 5.
        assert (given, {number, f"F-{folio}"}, total) == (4, {"F-130", "F-135"}, 8)
        assert (m, m2, c, n, said) == ("bien", "{a}", "X-1", "mal", "s.mood 's.folio'::regclass")
        assert rig.execute_rows(last) == before
        ((line,),) = rig.execute_rows(
            "INSERT INTO copia.line (clinic_id, bill_id, amount) SELECT 1, min(id), 1 FROM copia.bill RETURNING id"
        )
        assert line == 40
        for wrong in (
            "(m, number) VALUES ('mal', 'G')",
            "(c) VALUES ('a')",
            "(name) VALUES ('ANA')",
            "(n) VALUES (NULL)",
        ):
            columns, values = wrong.split(" VALUES ")
            with pytest.raises(psycopg2.IntegrityError):
                rig.execute(
                    f"INSERT INTO copia.bill (clinic_id, hours, {columns[1:]} VALUES (1, '[20,21)', {values[1:]}"
                )

    def test_the_original_may_be_changed_and_dropped(self, odd: tuple[Shaped, BackupRecord]) -> None:
        rig, record = odd
        into(rig).run(rig.source(record), "copia")
        rows = rig.execute_rows("SELECT b::text FROM copia.bill AS b ORDER BY id")
        rig.execute("DELETE FROM s.shared WHERE id = 7", "DELETE FROM s.clinic WHERE false")
        rig.execute("ALTER TYPE s.mood RENAME VALUE 'bien' TO 'otro'", "DROP TABLE s.line, s.bill",
                    "DROP TYPE s.spot", "DROP DOMAIN s.needed, s.code", 'DROP TYPE s.mood, s."Mood 2", s.hours',
                    "DROP SEQUENCE s.folio", "DROP FUNCTION s.loud(text)")  # fmt: skip
        assert rig.execute_rows("SELECT b::text FROM copia.bill AS b ORDER BY id") == rows
        rig.execute("INSERT INTO copia.bill (clinic_id) VALUES (1)", "DROP SCHEMA copia CASCADE")

    def test_rows_of_before_a_check(self, odd: tuple[Shaped, BackupRecord]) -> None:
        """What older rows break is there for new ones alone, or a note; the rows come in any case."""
        rig, record = odd
        rig.execute(
            "UPDATE s.bill SET name = 'Zoe ' || id, number = 'N' || id; DELETE FROM s.line",
            "ALTER TABLE s.bill ADD CONSTRAINT short CHECK (length(name) > 4)",
            "ALTER TABLE s.bill ADD COLUMN extra int, ADD CONSTRAINT has_extra CHECK (extra IS NULL)",
            "ALTER DOMAIN s.code ADD CONSTRAINT long CHECK (length(VALUE) > 2) NOT VALID",
            "CREATE UNIQUE INDEX alone ON s.bill ((clinic_id * 0)) WHERE number LIKE 'F%'",
        )
        report = into(rig).run(rig.source(record), "copia")
        said = notes(report)["s.bill"]
        assert "Check short is NOT VALID, and holds for new rows alone: rows of the backup break it." in said
        assert "Check has_extra is missing: a column of it is not in the backup." in said
        assert "Unique index alone is missing: rows are not unique there." in said
        assert "Check code_form of the type s.code is NOT VALID" in " ".join(report.notes)
        assert rig.execute_rows("SELECT count(*) FROM copia.bill") == [(2,)]
        with pytest.raises(psycopg2.IntegrityError):
            rig.execute("INSERT INTO copia.bill (clinic_id, name, hours) VALUES (1, 'ab', '[30,31)')")

    def test_a_stranger_gives_no_definitions(self, odd: tuple[Shaped, BackupRecord]) -> None:
        rig, record = odd
        role = f"stranger_{rig.database.name}"
        rig.execute(f"CREATE ROLE {role}", f"ALTER TABLE s.line OWNER TO {role}")
        try:
            report = into(rig).run(rig.source(record), "copia")
            assert "belongs to a role that may not write all rows" in " ".join(report.notes)
            assert rig.execute_rows(
                "SELECT count(*) FROM pg_constraint WHERE contype = 'c' AND connamespace = 'copia'::regnamespace"
            ) == [(0,)]
            # Numbers and labels are no code.
            assert rig.execute_rows(
                "INSERT INTO copia.line (clinic_id, bill_id, amount) SELECT 1, 1, 1 RETURNING id"
            ) == [(21,)]
        finally:
            rig.execute(f"DROP OWNED BY {role} CASCADE; DROP ROLE {role}")

    def test_an_extension(self, odd: tuple[Shaped, BackupRecord], empty_database: str) -> None:
        rig, record = odd
        needs_extension(rig, "btree_gist")
        rig.execute("CREATE EXTENSION btree_gist; ALTER TABLE s.line ADD CONSTRAINT far EXCLUDE USING gist (id WITH =)")
        here = into(rig).run(rig.source(record), "copia")
        assert notes(here)["s.line"] == "Not in the copy: policy mine."
        there = into(rig, rig.database.postgres.uri(empty_database), clinic_db=rig.clinic_db).run(
            rig.source(record), "copia"
        )
        assert "Constraint far is left out: it uses the extension btree_gist." in notes(there)["s.line"]

    def test_types_of_extensions_and_of_tables_and_a_sequence_by_text(
        self, odd: tuple[Shaped, BackupRecord], empty_database: str
    ) -> None:
        rig, _ = odd
        needs_extension(rig, "citext")
        rig.execute(
            "ALTER TABLE s.line DROP CONSTRAINT later",
            "CREATE EXTENSION citext SCHEMA s",
            "CREATE DOMAIN s.mail AS s.citext CHECK (VALUE ~ '@')",
            "CREATE SEQUENCE s.old",
            "ALTER TABLE s.line ADD COLUMN mail s.mail DEFAULT 'A@b', ADD COLUMN word s.citext DEFAULT 'x',"
            " ADD COLUMN was s.bill, ADD COLUMN old int DEFAULT nextval('s.old'::text::regclass),"
            " ADD COLUMN said text DEFAULT 'a' || nextval('s.old'::text::regclass)",
            "UPDATE s.line AS l SET was = b FROM s.bill AS b WHERE b.id = l.bill_id",
        )  # fmt: skip
        record = rig.run(1)
        last = rig.execute_rows("SELECT max(old), (SELECT last_value FROM s.old) FROM s.line WHERE clinic_id = 1")
        report = into(rig).run(rig.source(record), "copia")
        said = notes(report)["s.line"]
        assert "Column was is text: a copy here can have no type s.bill." in said
        assert "The default of column said is left out: it uses a sequence that is named by a text." in said
        ((mail, same, old, number),) = rig.execute_rows(
            "INSERT INTO copia.line (clinic_id, bill_id, amount) SELECT 1, 1, 1 RETURNING pg_typeof(mail)::text,"
            " mail OPERATOR(s.=) 'a@B'::s.citext AND word OPERATOR(s.=) 'X'::s.citext, old,"
            " (SELECT last_value FROM s.old)"
        )
        assert rig.execute_rows(LEADS_OUT) == []
        assert (mail, same, [(old - 1, number)]) == ("copia.mail", True, last)
        rig.execute("DROP TABLE s.line, s.bill; DROP DOMAIN s.mail")
        # A database without the extension.
        rig.execute("CREATE TABLE s.line (id int)")
        there = into(rig, rig.database.postgres.uri(empty_database)).run(rig.source(record), "copia")
        assert "Column word is text" in notes(there)["s.line"]

    def test_a_virtual_column(self, odd: tuple[Shaped, BackupRecord]) -> None:
        rig, _ = odd
        if int(rig.execute_rows("SHOW server_version_num")[0][0]) < 180000:
            pytest.skip("PostgreSQL 18 has them first")
        rig.execute("ALTER TABLE s.line ADD COLUMN more int GENERATED ALWAYS AS (bill_id + 1) VIRTUAL NOT NULL")
        into(rig).run(rig.source(rig.run(1)), "copia")
        assert rig.execute_rows("SELECT bool_and(more = bill_id + 1) FROM copia.line") == [(True,)]
        assert rig.execute_rows("SELECT attgenerated::text FROM pg_attribute WHERE attname = 'more'") == [("v",)] * 2

    def test_restores_and_backups_beside_a_copy_are_as_before(self, odd: tuple[Shaped, BackupRecord]) -> None:
        rig, record = odd
        before = rig.everything()
        rig.execute("UPDATE s.line SET amount = 1 WHERE clinic_id = 1")
        notes_before = [table.notes for table in rig.plan(record).tables]
        into(rig).run(rig.source(record), "copia")
        rig.execute("ALTER TABLE s.line DROP CONSTRAINT later")
        plan = rig.bring_back(record)
        assert [table.notes for table in plan.tables] == notes_before
        assert rig.everything() == before
        assert rig.run(1).rows == record.rows


TWICE = """
    CREATE SCHEMA o; GRANT USAGE ON SCHEMA o TO PUBLIC;
    CREATE TYPE s.kind AS ENUM ('a', 'b'); CREATE TYPE o.kind AS ENUM ('b', 'c'); CREATE TYPE o.part AS ENUM ('x');
    CREATE SEQUENCE s.num; CREATE SEQUENCE o.num START 50;
    CREATE TABLE s.bill (id int PRIMARY KEY DEFAULT nextval('s.num'), clinic_id int, k s.kind DEFAULT 'a',
        CHECK (k IN ('a', 'b')));
    CREATE TABLE o.bill (id int PRIMARY KEY DEFAULT nextval('o.num'), clinic_id int, k o.kind DEFAULT 'c',
        k2 s.kind DEFAULT 'b', bill_id int REFERENCES s.bill);
    CREATE INDEX of_clinic ON s.bill (clinic_id); CREATE INDEX of_clinic ON o.bill (clinic_id);
    CREATE TABLE s.part (id int GENERATED BY DEFAULT AS IDENTITY, day date, clinic_id int, k o.part, UNIQUE (id, day))
        PARTITION BY RANGE (day);
    CREATE TABLE s.part_1 PARTITION OF s.part FOR VALUES FROM ('2026-01-01') TO ('2027-01-01');
    CREATE INDEX of_day ON s.part (day DESC);
    INSERT INTO s.bill (clinic_id) VALUES (1), (1), (2); INSERT INTO o.bill (clinic_id, bill_id) VALUES (1, 1), (2, 3);
    INSERT INTO s.part (day, clinic_id, k) VALUES ('2026-05-05', 1, 'x'); GRANT SELECT ON o.bill TO PUBLIC
"""


def test_names_of_two_schemas_and_a_partitioned_table(demo_database: DemoDatabase, tmp_path: Path) -> None:
    rig = shaped(demo_database, tmp_path, TWICE, {"bill": OWN, "part": OWN}, owner=True)
    (rig.settings.sql_dir / "extract" / "o.bill.sql").write_text(f"SELECT t.* FROM o.bill AS t WHERE {OWN}")
    record = rig.run(1)
    report = into(rig).run(rig.source(record), "copia")
    assert {table.table: (table.name, table.rows) for table in report.tables} == {
        "s.clinic": ("clinic", 1), "s.bill": ("s_bill", 2), "o.bill": ("o_bill", 1), "s.part": ("part", 1),
    }  # fmt: skip
    assert notes(report) == {}
    made = (
        "SELECT count(*), count(*) FILTER (WHERE indisprimary) FROM pg_index JOIN pg_class AS c ON c.oid = indrelid"
        " WHERE relnamespace = 'copia'::regnamespace"
    )
    assert rig.execute_rows(made) == [(7, 3)]
    given = "INSERT INTO copia.s_bill (clinic_id) VALUES (1) RETURNING id, k::text"
    assert rig.execute_rows(given) == [(4, "a")]
    assert rig.execute_rows(
        "INSERT INTO copia.o_bill (clinic_id, bill_id) VALUES (1, 1) RETURNING id, k::text, k2::text"
    ) == [(52, "c", "b")]
    assert rig.execute_rows("INSERT INTO copia.part (day, k) VALUES ('2030-01-01', 'x') RETURNING id") == [(2,)]
    with pytest.raises(psycopg2.IntegrityError):
        rig.execute("INSERT INTO copia.o_bill (bill_id) VALUES (99)")
    kinds = rig.execute_rows(
        "SELECT attrelid::regclass::text, attname, atttypid::regtype::text FROM pg_attribute"
        " WHERE attrelid IN ('copia.o_bill'::regclass, 'copia.s_bill'::regclass) AND attname IN ('k', 'k2')"
    )
    assert len({kind for _, _, kind in kinds}) == 2
    assert all(kind.startswith("copia.") for _, _, kind in kinds)
    assert any("(day DESC)" in each for each in dumped(rig.database, "copia"))
