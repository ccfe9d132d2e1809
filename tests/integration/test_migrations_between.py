"""Migrations between a backup and its restore, of the kinds that Django makes, with and without lines in drift.txt."""

# ruff: noqa: E501 - a schema reads best with one table a line

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pytest

from clinic_backups.backup.preflight import run
from clinic_backups.base.errors import PermanentError
from clinic_backups.base.table import Table
from clinic_backups.catalog.restores import RestoreMode
from clinic_backups.restore.clinic_restore import ClinicChanged
from clinic_backups.restore.request import Wish
from clinic_backups.stores.configured import Stores
from tests.postgres_fixtures import DemoDatabase
from tests.shapes import Shaped, shaped

OWN = "clinic_id = {{ clinic_id }}"
DDL = """
    CREATE TABLE s.person (
        id int PRIMARY KEY, clinic_id int NOT NULL REFERENCES s.clinic, correo text NOT NULL, age int);
    CREATE TABLE s.visit (id int PRIMARY KEY, person_id int NOT NULL REFERENCES s.person, note text);
    INSERT INTO s.person VALUES (1, 1, 'ana@x', 30), (2, 1, 'eva@x', 40), (3, 2, 'leo@x', 50);
    INSERT INTO s.visit VALUES (1, 1, 'v1'), (2, 2, 'v2'), (3, 3, 'v3')
"""
EXTRACTS = {
    "person": OWN,
    "visit": "person_id IN (SELECT id FROM s.person WHERE clinic_id = {{ clinic_id }})",
}
DAMAGE = "DELETE FROM s.visit WHERE id = 1; DELETE FROM s.person WHERE id = 1"
RENAME = "ALTER TABLE s.person RENAME correo TO email"
ADD = """ALTER TABLE s.person ADD alergias text NOT NULL DEFAULT 'none';
         ALTER TABLE s.person ALTER alergias DROP DEFAULT"""


@dataclass(frozen=True)
class Case:
    """``expected``: all persons after the restore, as their rows are written."""

    migration: str
    lines: str
    expected: list[str]
    notes: tuple[str, ...] = ()


LEO = "(3,2,leo@x,50)"
CASES = {
    "a column renamed": Case(
        RENAME, "s.person: correo -> email", ["(1,1,ana@x,30)", "(2,1,eva@x,40)", LEO],
        ("Column email was correo in the backup (drift.txt).",),
    ),
    "a column renamed, and then a value of it changed by hand": Case(
        RENAME + "; UPDATE s.person SET email = 'new@x' WHERE id = 2", "s.person: correo -> email",
        ["(1,1,ana@x,30)", "(2,1,eva@x,40)", LEO],
    ),
    "renamed twice": Case(
        RENAME + "; ALTER TABLE s.person RENAME email TO mail", "s.person: correo -> email\ns.person: email -> mail",
        ["(1,1,ana@x,30)", "(2,1,eva@x,40)", LEO],
    ),
    "renamed and retyped": Case(
        RENAME + "; ALTER TABLE s.person RENAME age TO years; ALTER TABLE s.person ALTER years TYPE bigint",
        "s.person: correo -> email\ns.person: age -> years", ["(1,1,ana@x,30)", "(2,1,eva@x,40)", LEO],
    ),
    "the key renamed": Case(
        "ALTER TABLE s.person RENAME id TO person_no", "s.person: id -> person_no",
        ["(1,1,ana@x,30)", "(2,1,eva@x,40)", LEO],
    ),
    "two columns that exchanged their places in the table": Case(
        "ALTER TABLE s.person ADD mail2 text; UPDATE s.person SET mail2 = correo; ALTER TABLE s.person DROP correo",
        "s.person: correo -> mail2", ["(1,1,30,ana@x)", "(2,1,40,eva@x)", "(3,2,50,leo@x)"],
    ),
    "a column added": Case(
        ADD, "s.person: alergias = 'it''s'", ["(1,1,ana@x,30,it's)", "(2,1,eva@x,40,none)", "(3,2,leo@x,50,none)"],
        ("Column alergias was added since: restored rows get 'it's' (drift.txt).",
         "1 row that comes back gets the values of drift.txt in: alergias."),
    ),
    "columns of other types added": Case(
        "ALTER TABLE s.person ADD n numeric(6,2) NOT NULL DEFAULT 1, ADD ok bool NOT NULL DEFAULT false,"
        " ADD j json NOT NULL DEFAULT '{}', ADD a text[] NOT NULL DEFAULT '{}';"
        "ALTER TABLE s.person ALTER n DROP DEFAULT, ALTER ok DROP DEFAULT, ALTER j DROP DEFAULT, ALTER a DROP DEFAULT",
        "s.person: n = 2.5\ns.person: ok = true\ns.person: j = '[1, 2]'\ns.person: a = '{x}'",
        ["(1,1,ana@x,30,2.50,t,\"[1, 2]\",{x})", "(2,1,eva@x,40,1.00,f,{},{})", "(3,2,leo@x,50,1.00,f,{},{})"],
    ),
    "a column added and renamed later": Case(
        ADD + "; ALTER TABLE s.person RENAME alergias TO allergies",
        "s.person: alergias = 'x'\ns.person: alergias -> allergies",
        ["(1,1,ana@x,30,x)", "(2,1,eva@x,40,none)", "(3,2,leo@x,50,none)"],
    ),
    "a name that was given to another column": Case(
        RENAME + "; ALTER TABLE s.person ADD correo text", "s.person: correo -> email\ns.person: correo = null",
        ["(1,1,ana@x,30,)", "(2,1,eva@x,40,)", "(3,2,leo@x,50,)"],
    ),
    "lines that are of no use here": Case(
        "SELECT 1", "s.person: nothing -> else\ns.person: correo -> email\ns.gone -> s.lost\ns.person: x = '1'",
        ["(1,1,ana@x,30)", "(2,1,eva@x,40)", LEO],
    ),
}  # fmt: skip


@pytest.fixture
def rig(demo_database: DemoDatabase, tmp_path: Path) -> Shaped:
    return shaped(demo_database, tmp_path, DDL, EXTRACTS, owner=True)


def write(rig: Shaped, lines: str) -> None:
    (rig.settings.sql_dir / "drift.txt").write_text(lines)


def persons(rig: Shaped) -> list[str]:
    return rig.everything()["s.person"]


@pytest.mark.parametrize("case", CASES.values(), ids=list(CASES))
def test_values_come_back_under_the_names_of_now(rig: Shaped, case: Case) -> None:
    record = rig.run()
    extract = rig.settings.sql_dir / "extract/s.visit.sql"
    rig.execute(DAMAGE, *case.migration.split(";"))
    if "person_no" in case.migration:
        extract.write_text(extract.read_text().replace("SELECT id FROM", "SELECT person_no FROM"))
    write(rig, case.lines)
    plan = rig.bring_back(record)
    assert persons(rig) == case.expected
    assert rig.everything()["s.visit"] == ["(1,1,v1)", "(2,2,v2)", "(3,3,v3)"]
    told = [note for table in plan.tables for note in table.notes]
    assert set(case.notes) <= set(told), told
    assert rig.plan(record).writes == 0


def test_a_renamed_table_gets_its_rows_of_a_whole_chain(rig: Shaped) -> None:
    rig.run()
    rig.execute("UPDATE s.visit SET note = 'later' WHERE id = 2")
    rig.kind = "incremental"
    record = rig.run()
    assert record.kind == "incremental"
    before = rig.everything()
    rig.execute("ALTER TABLE s.visit RENAME TO appointment", "DELETE FROM s.appointment WHERE id < 3")
    folder = rig.settings.sql_dir / "extract"
    (folder / "s.visit.sql").rename(folder / "s.appointment.sql")
    text = (folder / "s.appointment.sql").read_text()
    (folder / "s.appointment.sql").write_text(text.replace("s.visit", "s.appointment"))
    (refusal,) = rig.plan(record).refusals
    assert "`s.visit -> s.appointment`" in refusal.hint
    write(rig, "s.visit -> s.appointment")
    rig.bring_back(record, tables=("s.visit",))
    assert rig.everything()["s.appointment"] == before["s.visit"]
    assert rig.everything()["s.person"] == before["s.person"]


@pytest.mark.parametrize(
    ("migration", "line"),
    [(RENAME, "`s.person: correo -> email`"), (ADD, "`s.person: alergias = '…'`")],
    ids=["a column renamed", "a column added"],
)
def test_without_a_line_it_is_proposed_and_nothing_else_is_listed(rig: Shaped, migration: str, line: str) -> None:
    """The visit refers to a person who cannot come back: a consequence, and no refusal of its own."""
    record = rig.run()
    rig.execute(DAMAGE, *migration.split(";"))
    before = rig.everything()
    (refusal,) = rig.plan(record).refusals
    assert refusal.table == "s.person"
    assert line in refusal.hint
    assert rig.everything() == before


def test_leaving_out_a_column_that_may_have_been_renamed_is_said(rig: Shaped) -> None:
    record = rig.run()
    rig.execute(DAMAGE, RENAME, "ALTER TABLE s.person ALTER email DROP NOT NULL")
    plan = rig.plan(record, ignore_dropped=True)
    notes = [note for table in plan.tables for note in table.notes]
    assert any("If a migration renamed columns" in note and "correo -> email" in note for note in notes), notes


def test_a_value_that_its_type_does_not_allow_is_refused_by_name(rig: Shaped) -> None:
    record = rig.run()
    rig.execute(
        DAMAGE, "ALTER TABLE s.person ADD n int NOT NULL DEFAULT 1", "ALTER TABLE s.person ALTER n DROP DEFAULT"
    )
    write(rig, "s.person: n = 'many'")
    (refusal,) = rig.plan(record).refusals
    assert "drift.txt gives a value for n of s.person that its type does not allow" in refusal.message


def test_an_approval_is_of_the_values_that_the_plan_showed(rig: Shaped) -> None:
    record = rig.run()
    rig.execute(DAMAGE, *ADD.split(";"))
    write(rig, "s.person: alergias = 'a'")
    plan = rig.plan(record)
    write(rig, "s.person: alergias = 'b'")
    before = rig.everything()
    with pytest.raises(PermanentError, match="has changed since the plan"):
        rig.restore().apply(rig.source(record), Wish(), approved=plan.digest)
    assert rig.everything() == before


@pytest.mark.parametrize("owner", [True, False], ids=["the owner restores", "a role that cannot turn triggers off"])
def test_a_trigger_does_not_change_a_filled_value(demo_database: DemoDatabase, tmp_path: Path, owner: bool) -> None:
    rig = shaped(demo_database, tmp_path, DDL, EXTRACTS, owner=owner)
    record = rig.run()
    rig.execute(
        DAMAGE, *ADD.split(";"),
        "CREATE FUNCTION s.other() RETURNS trigger LANGUAGE plpgsql AS"
        " $$ BEGIN NEW.alergias = 'other'; RETURN NEW; END $$",
        "CREATE TRIGGER other BEFORE INSERT ON s.person FOR EACH ROW EXECUTE FUNCTION s.other()",
        "ALTER TABLE s.person ENABLE ALWAYS TRIGGER other",
    )  # fmt: skip
    write(rig, "s.person: alergias = 'a'")
    if owner:
        rig.bring_back(record)
        assert persons(rig)[0] == "(1,1,ana@x,30,a)"
    else:
        (refusal,) = rig.plan(record).refusals
        assert "values that drift.txt gives" in refusal.message, refusal


def test_an_edit_after_a_type_was_widened_is_told_from_a_changed_meaning_by_a_line(rig: Shaped) -> None:
    record = rig.run()
    rig.execute("ALTER TABLE s.person ALTER age TYPE bigint", "UPDATE s.person SET age = age + 1 WHERE clinic_id = 1")
    (refusal,) = rig.plan(record).refusals
    line = "s.person: age (integer) -> age (bigint)"
    assert f"`{line}`" in refusal.hint
    write(rig, "s.person: age -> age")  # of which change?
    assert rig.plan(record).refusals == (refusal,)
    write(rig, line)
    rig.bring_back(record)
    assert persons(rig)[:2] == ["(1,1,ana@x,30)", "(2,1,eva@x,40)"]
    # A later change of the type is another one, for older and for newer backups.
    later = rig.run()
    rig.execute("ALTER TABLE s.person ALTER age TYPE numeric USING age * 100")
    for backup in (record, later):
        (refusal,) = rig.plan(backup).refusals
        assert "is numeric now" in refusal.message


def test_a_column_that_was_renamed_and_retyped_needs_two_lines(rig: Shaped) -> None:
    record = rig.run()
    rig.execute("ALTER TABLE s.person RENAME age TO years", "ALTER TABLE s.person ALTER years TYPE bigint", DAMAGE,
                "UPDATE s.person SET years = years + 1")  # fmt: skip
    write(rig, "s.person: age -> years")
    (refusal,) = rig.plan(record).refusals
    line = "s.person: years (integer) -> years (bigint)"
    assert f"`{line}`" in refusal.hint
    write(rig, f"s.person: age -> years\n{line}")
    rig.bring_back(record)
    assert persons(rig)[:2] == ["(1,1,ana@x,30)", "(2,1,eva@x,40)"]


@pytest.mark.parametrize(
    ("lines", "message"),
    [("s.person: correo -> emial", "s.person.correo became emial, and there is no such column"),
     ("s.person: correo", "line 1: 's.person: correo' is not a change of a table")],
)  # fmt: skip
def test_check_names_lines_that_no_restore_can_follow(rig: Shaped, lines: str, message: str) -> None:
    write(rig, lines)
    found = [
        finding
        for finding in run(
            settings=rig.settings, clinic_db=lambda: rig.clinic_db, stores=lambda: Stores.of(rig.store),
            catalog_version=lambda: None, now=lambda: datetime.now(UTC), count_rows=False,
        )
        if finding.check == "drift"
    ]  # fmt: skip
    assert [finding.level for finding in found] == ["warning"]
    assert message in found[0].message


def test_rows_without_a_value_get_the_one_that_the_migration_gave(rig: Shaped) -> None:
    rig.execute("UPDATE s.person SET age = NULL WHERE id IN (1, 2)")
    record = rig.run()
    rig.execute(DAMAGE, "UPDATE s.person SET age = 7 WHERE age IS NULL", "ALTER TABLE s.person ALTER age SET NOT NULL")
    (refusal,) = rig.plan(record).refusals
    assert "`s.person: age = '…'`" in refusal.hint
    write(rig, "s.person: age = 7")
    plan = rig.bring_back(record)
    assert persons(rig) == ["(1,1,ana@x,7)", "(2,1,eva@x,7)", LEO]
    assert plan.writes == 2  # a person and a visit; the other row has that value already
    notes = [note for table in plan.tables for note in table.notes]
    assert "Column age may no longer be NULL: 2 of the backup's rows get '7' (drift.txt)." in notes


def test_a_generated_key_is_computed_from_the_value_that_a_row_gets(rig: Shaped) -> None:
    rig.execute(
        "UPDATE s.visit SET note = NULL WHERE id = 2",
        "ALTER TABLE s.visit DROP CONSTRAINT visit_pkey",
        "ALTER TABLE s.visit ADD k text GENERATED ALWAYS AS (coalesce(note, '-') || id) STORED PRIMARY KEY",
    )
    record = rig.run()
    rig.execute(
        DAMAGE, "UPDATE s.visit SET note = 'x' WHERE note IS NULL", "ALTER TABLE s.visit ALTER note SET NOT NULL"
    )
    write(rig, "s.visit: note = 'x'")
    plan = rig.bring_back(record)
    assert rig.execute_rows("SELECT k FROM s.visit ORDER BY k") == [("v11",), ("v33",), ("x2",)]
    assert plan.writes == 2


CENTS = "ALTER TABLE s.person ALTER age TYPE bigint USING age * 100"


@pytest.mark.parametrize(
    ("statements", "lines"),
    [
        ((CENTS, "DELETE FROM s.visit WHERE id < 3", "DELETE FROM s.person WHERE clinic_id = 1"), ""),
        ((CENTS, "ALTER TABLE s.person ALTER id TYPE bigint", DAMAGE), ""),
        ((CENTS, "UPDATE s.person SET correo = upper(correo)", DAMAGE), ""),
        ((CENTS, "ALTER TABLE s.person RENAME age TO cents", DAMAGE), "s.person: age -> cents"),
    ],
    ids=["all rows are gone", "the key was retyped too", "every row was changed elsewhere", "renamed as well"],
)
def test_values_that_a_migration_changed_are_refused_where_nothing_tells_that_it_kept_them(
    rig: Shaped, statements: tuple[str, ...], lines: str
) -> None:
    record = rig.run()
    rig.execute(*(part for statement in statements for part in statement.split(";")))
    write(rig, lines)
    before = rig.everything()
    assert any(
        "was integer in the backup and is bigint now" in refusal.message for refusal in rig.plan(record).refusals
    )
    assert rig.everything() == before


KEPT_BY_ALL = {
    "zeros": ("int", "0", "k", "bigint USING v * 100", True),
    "zeros of a numeric": ("numeric(8,2)", "0", "k", "bigint USING (v * 100)::bigint", True),
    "infinity": ("timestamp", "'infinity'", "'2024-03-10'::timestamp + k * interval '1 day'",
                 "timestamptz USING v AT TIME ZONE 'America/La_Paz'", True),
    "half of all values": ("boolean", "true", "false", "int USING CASE WHEN v THEN 1 ELSE -1 END", True),
    "one value in most rows": ("int", "7", "k + 10", "bigint USING CASE WHEN v = 7 THEN 7 ELSE v * 100 END", True),
    "zeros, and values that were kept": ("int", "0", "k", "bigint", False),
}  # fmt: skip


@pytest.mark.parametrize("case", KEPT_BY_ALL)
def test_values_that_every_migration_keeps_are_no_evidence(
    demo_database: DemoDatabase, tmp_path: Path, case: str
) -> None:
    """Three of four rows have such a value."""
    type_, usual, rare, becomes, refused = KEPT_BY_ALL[case]
    ddl = f"CREATE TABLE s.bill (id int PRIMARY KEY, clinic_id int REFERENCES s.clinic, v {type_}, w text); INSERT INTO s.bill SELECT k, 1, CASE WHEN k % 4 > 0 THEN {usual} ELSE {rare} END, 'w' FROM generate_series(1, 40) AS k"
    rig = shaped(demo_database, tmp_path, ddl, {"bill": "clinic_id = {{ clinic_id }}"})
    record = rig.run()
    rig.execute(f"ALTER TABLE s.bill ALTER v TYPE {becomes}", "UPDATE s.bill SET w = 'damaged' WHERE id IN (3, 4)")
    found = [refusal.message for refusal in rig.plan(record).refusals]
    assert any("than a conversion gives" in message for message in found) == refused, found
    if not refused:
        before = rig.execute_rows("SELECT id, v FROM s.bill ORDER BY id")
        rig.bring_back(record)
        assert rig.execute_rows("SELECT id, v FROM s.bill ORDER BY id") == before


def test_a_line_that_leads_to_a_column_with_the_name_of_a_dropped_one(rig: Shaped) -> None:
    record = rig.run()
    rig.execute("ALTER TABLE s.person DROP correo", "ALTER TABLE s.person RENAME age TO correo", DAMAGE)
    write(rig, "s.person: age -> correo")
    (refusal,) = rig.plan(record).refusals
    assert "columns that s.person lacks now: correo (of the backup)" in refusal.message
    rig.bring_back(record, ignore_dropped=True)
    assert persons(rig) == ["(1,1,30)", "(2,1,40)", "(3,2,50)"]


@pytest.mark.parametrize(
    ("migration", "lines", "expected"),
    [
        (f"{RENAME}; ALTER TABLE s.person RENAME email TO correo",
         "s.person: correo -> email\ns.person: email -> correo", "(1,1,ana@x,30)"),
        (f"{RENAME}; ALTER TABLE s.person RENAME email TO correo; ALTER TABLE s.person RENAME correo TO mail",
         "s.person: correo -> email\ns.person: email -> correo\ns.person: correo -> mail", "(1,1,ana@x,30)"),
        (f"{RENAME}; ALTER TABLE s.person ADD correo text NOT NULL DEFAULT 'd'; ALTER TABLE s.person ALTER correo DROP"
         " DEFAULT; ALTER TABLE s.person RENAME correo TO other; ALTER TABLE s.person ADD correo text",
         "s.person: correo -> email\ns.person: correo = 'new'\ns.person: correo -> other\ns.person: correo = null",
         "(1,1,ana@x,30,new,)"),
        ("ALTER TABLE s.person ADD x int NOT NULL DEFAULT 0; ALTER TABLE s.person RENAME x TO y;"
         "ALTER TABLE s.person ADD x int NOT NULL DEFAULT 0; ALTER TABLE s.person ALTER x DROP DEFAULT",
         "s.person: x = 1\ns.person: x -> y\ns.person: x = 2", "(1,1,ana@x,30,1,2)"),
    ],
    ids=["back", "back and forth", "a name given twice", "values of two columns that had the same name"],
)  # fmt: skip
def test_lines_about_the_same_name_are_followed_in_order(
    rig: Shaped, migration: str, lines: str, expected: str
) -> None:
    record = rig.run()
    rig.execute(DAMAGE, *migration.split(";"))
    write(rig, lines)
    rig.bring_back(record)
    assert persons(rig)[0] == expected


@pytest.mark.parametrize(
    ("column", "extract"),
    [
        ("clinic_id int REFERENCES s.clinic", None),
        ("clinic_id int", None),
        ('"clinicId" bigint', None),
        ("person_id2 int REFERENCES s.person", None),
        ("owner_no int", "t.owner_no = {{ clinic_id }}"),
    ],
    ids=["a foreign key", "a name", "a name in another form", "a row of a clinic", "the extract"],
)
def test_one_value_says_nobodys_clinic(rig: Shaped, column: str, extract: str | None) -> None:
    record, name = rig.run(), column.split()[0]
    rig.execute(
        f"ALTER TABLE s.visit ADD {column}",
        "DELETE FROM s.visit WHERE id = 1",
        f"UPDATE s.visit SET {name} = CASE id WHEN 2 THEN 1 ELSE 2 END",
        f"ALTER TABLE s.visit ALTER {name} SET NOT NULL",
    )  # fmt: skip
    if extract is not None:
        query = f"SELECT t.* FROM s.visit AS t WHERE {extract}"
        (rig.settings.sql_dir / "extract" / "s.visit.sql").write_text(query)
    write(rig, f"s.visit: {name} = 2")
    damaged, (refusal,) = rig.everything(), rig.plan(record).refusals
    said = f"gives one value for {name.strip(chr(34))} of s.visit, which says to which clinic a row belongs"
    assert said in refusal.message
    assert rig.everything() == damaged


@pytest.mark.parametrize(
    "later",
    [
        "ALTER TABLE s.person ALTER age SET DEFAULT 9",
        "ALTER TABLE s.person ADD x text DEFAULT 'not shown'",
        "ALTER TABLE s.person DROP age",
        None,
    ],
    ids=["a default", "an added column", "a dropped column", "the lines"],
)
def test_an_approval_is_of_the_columns_that_the_plan_showed(rig: Shaped, later: str | None) -> None:
    record = rig.run()
    rig.execute(DAMAGE, "ALTER TABLE s.person ADD other text", RENAME)
    write(rig, "s.person: correo -> email")
    wish = Wish(ignore_dropped=True)
    plan = rig.plan(record, ignore_dropped=True)
    assert plan.refusals == ()
    if later is None:
        write(rig, "s.person: correo -> other")
        rig.execute("ALTER TABLE s.person ALTER email DROP NOT NULL")
    else:
        rig.execute(later)
    before = rig.everything()
    with pytest.raises(PermanentError):
        rig.restore().apply(rig.source(record), wish, approved=plan.digest)
    assert rig.everything() == before


@pytest.mark.parametrize("mode", ["exact", "missing", "live"])
def test_a_column_that_was_added_after_the_plan_is_named(rig: Shaped, mode: str) -> None:
    record = rig.run()
    # The mode exact deletes this row, with the new column.
    rig.execute(DAMAGE, "INSERT INTO s.person VALUES (9, 1, 'new@x', 1)")
    plan = rig.plan(record, mode=mode)
    rig.execute("ALTER TABLE s.person ADD x text")
    with pytest.raises(ClinicChanged, match=r"this has changed since the plan was made: the columns of s\.person"):
        rig.restore().apply(rig.source(record), Wish(mode=mode), approved=plan.digest, plan=plan)


@pytest.mark.parametrize(
    "does", ["TRUNCATE s.cache", "DROP TABLE s.cache", "ALTER TABLE s.cache ADD y int", "PERFORM lo_unlink(77)"]
)
def test_what_a_trigger_does_to_whole_tables_undoes_the_restore(
    demo_database: DemoDatabase, tmp_path: Path, does: str
) -> None:
    """The restoring role may not keep triggers quiet, and the server counts no such writes."""
    rig = shaped(demo_database, tmp_path, DDL, EXTRACTS, lists="s.cache: made anew")
    rig.execute(
        "CREATE TABLE s.cache (n int)", "INSERT INTO s.cache VALUES (1), (2)", "SELECT lo_create(77)",
        f"CREATE FUNCTION s.empties() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS"
        f" $$ BEGIN {does}; RETURN NULL; END $$",
    )  # fmt: skip
    record = rig.run()
    rig.execute(
        "DELETE FROM s.visit WHERE id = 1",
        "CREATE TRIGGER t AFTER INSERT ON s.visit FOR EACH STATEMENT EXECUTE FUNCTION s.empties()",
    )
    before = rig.everything()
    (refusal,) = rig.plan(record).refusals
    said = "PostgreSQL's own table pg_largeobject" if "lo_unlink" in does else "truncated, dropped, created or"
    assert said in refusal.message, refusal
    assert rig.everything() == before


SAME_FAMILY = {
    "a longer text": ("varchar(5)", "varchar(10)", False),
    "a text without a limit": ("varchar(5)", "text", False),
    "more digits": ("numeric(8,2)", "numeric(12,2)", False),
    "more digits of other values": ("numeric(8,2)", "numeric(12,2) USING v * 100", True),
    "more digits behind the point": ("numeric(8,2)", "numeric(12,4)", True),
    "a longer text of other values": ("varchar(5)", "varchar(10) USING '1' || v", True),
}


@pytest.mark.parametrize("older", [False, True], ids=["", "older"])
@pytest.mark.parametrize("parted", [False, True], ids=["", "partitions"])
@pytest.mark.parametrize("case", SAME_FAMILY)
def test_a_length_or_precision_that_changed_where_no_row_is_left_to_compare(
    demo_database: DemoDatabase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, case: str, parted: bool, older: bool
) -> None:
    """PostgreSQL rewrites a table when a type's change computes values, and not when the type only gets more room.

    Then an UPDATE may have computed them afterwards.
    """
    type_, becomes, rewritten = SAME_FAMILY[case]
    ddl = f"CREATE TABLE s.bill (id int PRIMARY KEY, clinic_id int REFERENCES s.clinic, v {type_}){' PARTITION BY RANGE (id); CREATE TABLE s.bill_1 PARTITION OF s.bill DEFAULT' if parted else ''}; INSERT INTO s.bill SELECT k, 1 + k % 2, k FROM generate_series(1, 40) AS k"
    rig = shaped(demo_database, tmp_path, ddl, {"bill": OWN})
    made = Table.__init__
    with monkeypatch.context() as patch:
        without = {"parts": None, "file": None} if older else {}
        patch.setattr(Table, "__init__", lambda *given, **named: made(*given, **named | without))
        record = rig.run()
    before = rig.everything()["s.bill"]
    rig.execute(f"ALTER TABLE s.bill ALTER v TYPE {becomes}", "DELETE FROM s.bill WHERE clinic_id = 1")
    now = becomes.partition(" USING")[0].replace("varchar", "character varying")
    line = f"s.bill: v ({type_.replace('varchar', 'character varying')}) -> v ({now})"
    plan = rig.plan(record)
    notes = [note for table in plan.tables for note in table.notes if "no row is left" in note]
    if rewritten and not older:
        (refusal,) = plan.refusals
        assert "there is no row to show whether the migration kept the values" in refusal.message
        assert "its rows were written anew since the backup" in refusal.message
        assert f"`{line}`" in refusal.hint
    else:
        assert plan.refusals == ()
    assert len(notes) == (older or not rewritten) and all(f"`{line}`" in note for note in notes)
    write(rig, line)
    plan = rig.plan(record)
    assert plan.refusals == () and not any("no row is left" in note for table in plan.tables for note in table.notes)
    if not rewritten:
        rig.bring_back(record)
        assert rig.everything()["s.bill"] == before


NEW_KEY = """ALTER TABLE s.person ADD u uuid NOT NULL DEFAULT gen_random_uuid(); ALTER TABLE s.visit DROP CONSTRAINT visit_person_id_fkey;
             ALTER TABLE s.person DROP CONSTRAINT person_pkey; ALTER TABLE s.person ADD PRIMARY KEY (u)"""
BESIDE = (
    "ALTER TABLE s.person ADD UNIQUE (id); ALTER TABLE s.visit ADD FOREIGN KEY (person_id) REFERENCES s.person (id)"
)


@pytest.mark.parametrize("mode", ["exact", "missing", "live"])
@pytest.mark.parametrize("owner", [True, False], ids=["owner", "role"])
def test_a_new_key_beside_the_old_one_that_still_tells_rows_apart(
    demo_database: DemoDatabase, tmp_path: Path, mode: RestoreMode, owner: bool
) -> None:
    rig = shaped(demo_database, tmp_path, DDL, EXTRACTS, owner=owner)
    record, before = rig.run(), persons(rig)
    rig.execute(
        *NEW_KEY.split(";"),
        *BESIDE.split(";"),
        "ALTER TABLE s.person ADD slug int UNIQUE",
        "CREATE UNIQUE INDEX a ON s.person (correo)",
    )
    rig.execute(
        "ALTER TABLE s.person ADD a int NOT NULL GENERATED ALWAYS AS IDENTITY UNIQUE"
    )  # tells no row of the backup
    (kept,) = rig.execute_rows("SELECT u FROM s.person WHERE id = 2")
    rig.execute(
        *DAMAGE.split(";"),
        "UPDATE s.person SET correo = 'x' WHERE id = 2",
        "INSERT INTO s.person VALUES (9, 1, 'new', 3)",
    )
    plan = rig.plan(record, mode=mode)
    assert plan.refusals == ()
    notes = [note for table in plan.tables for note in table.notes]
    assert "The primary key (u) is newer than the backup: rows are told apart by id." in notes
    rig.restore().apply(rig.source(record), Wish(mode), approved=plan.digest, plan=plan)
    now = [
        str(row)
        for (row,) in rig.execute_rows("SELECT ROW(id, clinic_id, correo, age)::text FROM s.person ORDER BY id")
    ]
    changed = [row.replace("eva@x", "x") for row in before] + ["(9,1,new,3)"] if mode == "missing" else before
    assert now == changed
    assert rig.execute_rows("SELECT u FROM s.person WHERE id = 2") == [kept]
    assert not rig.plan(record, mode=mode).writes


def test_a_new_key_without_the_old_one_is_refused_with_what_a_person_can_do(rig: Shaped) -> None:
    record = rig.run()
    rig.execute(*NEW_KEY.split(";"), *DAMAGE.split(";"), "ALTER TABLE s.person ADD UNIQUE (correo)")
    refusals = rig.plan(record).refusals
    (refusal,) = [refusal for refusal in refusals if refusal.table == "s.person"]
    assert refusal.message == "The primary key of s.person has columns that the backup lacks: u."
    statement = "ALTER TABLE s.person ALTER id SET NOT NULL, ADD UNIQUE (id);"
    assert statement in refusal.hint
    rig.execute(statement)
    rig.bring_back(record)
    assert rig.execute_rows("SELECT id FROM s.person ORDER BY 1") == [(1,), (2,), (3,)]
