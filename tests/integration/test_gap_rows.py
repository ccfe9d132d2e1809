"""Each row of an extracted table is in one backup exactly once, also without a key or with half of a foreign key."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from clinic_backups.base.errors import PermanentError
from clinic_backups.base.findings import Finding
from tests.integration.test_gaps import Guard
from tests.postgres_fixtures import DemoDatabase
from tests.shapes import Shaped, shaped

TABLES = """
    CREATE TABLE s.log (clinic_id int REFERENCES s.clinic, line text);
    INSERT INTO s.log VALUES (1, 'a'), (1, 'a'), (1, 'b'), (1, NULL), (1, NULL), (2, 'a'), (2, 'b');
    CREATE TABLE s.visit (id int PRIMARY KEY, clinic_id int NOT NULL REFERENCES s.clinic);
    INSERT INTO s.visit VALUES (1, 1), (2, 1), (3, 2);
    CREATE TABLE s.step (visit_id int REFERENCES s.visit, clinic_id int REFERENCES s.clinic, n int, at json)
     PARTITION BY LIST (n);
    CREATE TABLE s.step_1 PARTITION OF s.step FOR VALUES IN (1);
    CREATE TABLE s.step_2 PARTITION OF s.step DEFAULT;
    INSERT INTO s.step VALUES (1, NULL, 1, '{}'), (1, NULL, 1, '{}'), (1, 1, 2, '{}'), (1, 1, 2, '{}'), (3, 2, 1, '{}');
    CREATE TABLE s.loose (sede int, line text);
    INSERT INTO s.loose VALUES (1, 'a'), (1, 'a'), (1, 'b'), (2, 'a'), (NULL, 'z'), (NULL, 'z');
"""
OWN = "clinic_id = {{ clinic_id }}"
STEPS = "SELECT {} FROM s.step t JOIN s.visit v ON v.id = t.visit_id WHERE v.clinic_id = {{{{ clinic_id }}}}"
EXTRACTS = {"log": OWN, "visit": OWN, "step": STEPS.format("t.*"), "loose": "sede = {{ clinic_id }}"}
LOST, EQUAL_LOST = "in no backup, but the", "in no backup, but equal rows are in one"
REPEATED = "more often in a backup than in the table"
COUNTED = {
    "DISTINCT": ("log", f"SELECT DISTINCT * FROM s.log WHERE {OWN}", (2, LOST)),
    "GROUP BY": ("log", f"SELECT clinic_id, line FROM s.log WHERE {OWN} GROUP BY 1, 2", (2, LOST)),
    "UNION": ("log", f"SELECT * FROM s.log WHERE {OWN} UNION SELECT * FROM s.log WHERE {OWN}", (2, LOST)),
    "LIMIT": ("log", f"SELECT * FROM s.log WHERE {OWN} ORDER BY line DESC LIMIT 4", (1, LOST)),
    "a join": ("log", f"SELECT l.* FROM s.log l JOIN s.visit v USING (clinic_id) WHERE l.{OWN}", (5, REPEATED)),
    "UNION ALL": ("log", f"SELECT * FROM s.log WHERE {OWN} UNION ALL SELECT * FROM s.log WHERE {OWN} AND line = 'b'",
                  (1, REPEATED)),
    "as many lost as repeated": ("log", f"SELECT * FROM (SELECT DISTINCT * FROM s.log WHERE {OWN}) AS l"
                                 f" UNION ALL SELECT l.* FROM s.log l, generate_series(1, 2) WHERE l.{OWN}"
                                 " AND line = 'b'", (2, LOST), (2, REPEATED)),
    "of partitions": ("step", f"SELECT DISTINCT ON (n) q.* FROM ({STEPS.format('t.*')}) AS q", (2, LOST)),
    "by two ways": ("step", f"SELECT q.* FROM ({STEPS.format('t.*')}) AS q, generate_series(1, 2)", (4, REPEATED)),
    "without a foreign key": ("loose", "SELECT DISTINCT * FROM s.loose WHERE sede IN ({{ clinic_id }})",
                              (1, EQUAL_LOST)),
    "repeated without one": ("loose", "SELECT l.* FROM s.loose l, generate_series(1, 3) WHERE sede IN"
                             " ({{ clinic_id }})", (6, REPEATED)),
}  # fmt: skip


def findings(rig: Shaped, level: str = "error") -> list[Finding]:
    guard = Guard(rig.database, rig.store)
    guard.settings = guard.settings.model_copy(update={"sql_dir": rig.settings.sql_dir, "shared": False})
    return [item for item in guard.errors(level, rows=True) if item.check == "rows"]


@pytest.mark.parametrize("name", COUNTED)
def test_equal_rows_of_a_table_without_key_are_counted(demo_database: DemoDatabase, tmp_path: Path, name: str) -> None:
    table, extract, *said = COUNTED[name]
    rig = shaped(demo_database, tmp_path, TABLES, EXTRACTS | {table: extract})
    with pytest.raises(PermanentError) as caught:
        rig.run(1)
    for count, words in said:
        assert re.search(rf"s\.{table}: {count} rows? .*{words}", caught.value.message)
    assert rig.objects() == []
    found = [item.message for item in findings(rig)]
    for _, words in said:
        assert any(message.startswith(f"s.{table}: ") and words in message for message in found)


def test_equal_rows_that_are_all_there_are_no_finding(demo_database: DemoDatabase, tmp_path: Path) -> None:
    rig = shaped(demo_database, tmp_path, TABLES, EXTRACTS)
    assert findings(rig) == []
    record = rig.run(1)
    assert (record.gaps, record.rows["s.log"], record.rows["s.step"], record.rows["s.loose"]) == ((), 5, 4, 3)
    assert [item.message for item in findings(rig, "warning")] == [
        "s.loose: 2 of 6 rows belong to no clinic and are in no backup."
    ]
    assert [item.message for item in findings(rig, "ok")] == [
        "5 tables were compared with the backups of all clinics, 2 by their primary keys and 3 without one by whole"
        " rows and their number: 21 rows are in one backup each, 2 belong to no clinic."
    ]


def test_what_is_left_out_or_changed_on_purpose_is_not_counted(demo_database: DemoDatabase, tmp_path: Path) -> None:
    changed = f"SELECT clinic_id + 0 AS clinic_id, NULL::text AS line FROM s.log WHERE {OWN}"
    rig = shaped(
        demo_database, tmp_path, TABLES,
        EXTRACTS | {"log": changed, "loose": "SELECT DISTINCT * FROM s.loose WHERE sede IN ({{ clinic_id }})"},
        lists="s.log.line: kept by another system\ns.loose: rows, one of each will do\n",
    )  # fmt: skip
    assert rig.run(1).gaps == ()
    assert findings(rig) == []
    # What is left out is not said to be in a backup.
    assert findings(rig, "ok")[-1].message.endswith(": 20 rows are in one backup each, 3 are left out on purpose.")


PATIENTS = """
    CREATE TABLE s.patient (clinic_id int NOT NULL REFERENCES s.clinic, id int, PRIMARY KEY (clinic_id, id));
    INSERT INTO s.patient VALUES (1, 1), (1, 2), (2, 1);
    CREATE TABLE s.note (id int {key}, {sede} int, patient int,
                         FOREIGN KEY ({sede}, patient) REFERENCES s.patient (clinic_id, id));
    INSERT INTO s.note VALUES (1, 1, 1), (2, 1, NULL), (3, 2, 1), (4, NULL, NULL), (5, 2, NULL);
"""
BY_PATIENT = "SELECT n.* FROM s.note n JOIN s.patient p ON p.clinic_id = n.SEDE AND p.id = n.patient WHERE p." + OWN
LEVELS = (
    PATIENTS.format(key="PRIMARY KEY", sede="sede")
    + """
    CREATE UNIQUE INDEX note_sede ON s.note (sede, id);
    CREATE TABLE s.line (id int PRIMARY KEY, lugar int, note int,
                         FOREIGN KEY (lugar, note) REFERENCES s.note (sede, id));
    INSERT INTO s.line VALUES (1, 1, 1), (2, 1, NULL), (3, 2, 3);
"""
)
REGIONS = """
    ALTER TABLE s.clinic ADD region int DEFAULT 9, ADD UNIQUE (region, id);
    CREATE TABLE s.note (id int PRIMARY KEY, region int, sede int,
                         FOREIGN KEY (region, sede) REFERENCES s.clinic (region, id));
    INSERT INTO s.note VALUES (1, 9, 1), (2, NULL, 1), (3, NULL, 2);
"""
VISITS = """
    CREATE TABLE s.person (id int PRIMARY KEY, clinic_id int REFERENCES s.clinic);
    INSERT INTO s.person VALUES (1, 1), (2, 2);
    CREATE TABLE s.visit (person int REFERENCES s.person, id int, PRIMARY KEY (person, id));
    INSERT INTO s.visit VALUES (1, 1), (2, 1);
    CREATE TABLE s.bill (id int PRIMARY KEY, who int, visit int, FOREIGN KEY (who, visit) REFERENCES s.visit);
    INSERT INTO s.bill VALUES (1, 1, 1), (2, 1, NULL), (3, 2, 1);
"""
OF_VISITS = {"person": OWN, "visit": "SELECT t.* FROM s.visit t JOIN s.person p ON p.id = t.person WHERE p." + OWN}
IN_PARTS = {
    "a name": (PATIENTS.format(key="PRIMARY KEY", sede="clinic_id"),
               {"patient": OWN, "note": BY_PATIENT.replace("SEDE", "clinic_id")},
               "s.note: 1 row is in no backup, but the column clinic_id refers to a row of s.clinic"),
    "no name": (PATIENTS.format(key="PRIMARY KEY", sede="sede"),
                {"patient": OWN, "note": BY_PATIENT.replace("SEDE", "sede")},
                "s.note: 1 row is in no backup, but the column sede refers to a row of s.clinic"),
    "no key": (PATIENTS.format(key="", sede="sede"),
               {"patient": OWN, "note": BY_PATIENT.replace("SEDE", "sede")},
               "s.note: 1 row is in no backup, but the column sede refers to a row of s.clinic"),
    "given": (PATIENTS.format(key="PRIMARY KEY", sede="sede"),
              {"patient": OWN, "note": "patient IS NOT NULL AND sede = {{ clinic_id }} OR patient IS NULL AND sede ="
               " {{ clinic_id }} % 2 + 1"}, "s.note: 1 row of a backup belongs to another clinic, as the column sede"),
    "two levels": (LEVELS, {"patient": OWN, "note": "sede = {{ clinic_id }}", "line":
                            "SELECT l.* FROM s.line l JOIN s.note n ON n.id = l.note WHERE n.sede = {{ clinic_id }}"},
                   "s.line: 1 row is in no backup, but the column lugar refers to a row of s.clinic"),
    "the clinics' own key": (REGIONS, {"note": "region = 9 AND sede = {{ clinic_id }}"},
                             "s.note: 1 row is in no backup, but the column sede refers to a row of s.clinic"),
    "another table": (VISITS, OF_VISITS | {"bill": "SELECT b.* FROM s.bill b JOIN s.visit v ON v.person = b.who AND"
                      " v.id = b.visit JOIN s.person p ON p.id = v.person WHERE p." + OWN},
                      "s.bill: 1 row is in no backup, but the column who refers to a row of s.person"),
}  # fmt: skip


@pytest.mark.parametrize("name", IN_PARTS)
def test_half_a_foreign_key_says_whose_a_row_is(demo_database: DemoDatabase, tmp_path: Path, name: str) -> None:
    ddl, extracts, said = IN_PARTS[name]
    rig = shaped(demo_database, tmp_path, ddl, extracts)
    with pytest.raises(PermanentError, match=said):
        rig.run(1)
    assert rig.objects() == []
    assert any(item.message.startswith(said.split(":")[0]) for item in findings(rig))


def test_half_a_foreign_key_that_says_nothing_is_an_error_of_check(demo_database: DemoDatabase, tmp_path: Path) -> None:
    ddl = """
        CREATE TABLE s.code (kind int, code int, clinic_id int REFERENCES s.clinic, PRIMARY KEY (kind, code));
        INSERT INTO s.code VALUES (1, 1, 1), (1, 2, 2);
        CREATE TABLE s.use (id int {key}, kind int, code int, FOREIGN KEY (kind, code) REFERENCES s.code);
        INSERT INTO s.use VALUES (1, 1, 1), (2, 1, NULL), (3, NULL, 2), (4, NULL, NULL), (5, 1, 2);
    """.format(key="PRIMARY KEY")
    by_code = "SELECT u.* FROM s.use u JOIN s.code c USING (kind, code) WHERE c." + OWN
    rig = shaped(demo_database, tmp_path, ddl, {"code": OWN, "use": by_code})
    (error,) = findings(rig)
    assert error.message == (
        "s.use: 2 rows are in no backup, and only some of the columns kind, code have a value."
        " Together they refer to a row of s.code."
    )
    assert error.level == "error"
    rig.execute("DELETE FROM s.use WHERE id = 3")
    (error,) = findings(rig)
    assert error.message.startswith("s.use: 1 row is in no backup, and only some of the columns kind, code")
    (rig.settings.sql_dir / "not_backed_up.txt").write_text("s.use: rows, half a code is a slip\n")
    assert findings(rig) == []


def test_half_a_foreign_key_in_the_right_backup_is_no_finding(demo_database: DemoDatabase, tmp_path: Path) -> None:
    rig = shaped(demo_database, tmp_path, LEVELS, {"patient": OWN, "note": "sede = {{ clinic_id }}",
                                                   "line": "lugar = {{ clinic_id }}"})  # fmt: skip
    assert findings(rig) == []
    assert (rig.run(1).rows["s.note"], rig.run(2).rows["s.line"]) == (2, 1)


def test_a_key_that_is_declared_says_nothing_by_its_parts(demo_database: DemoDatabase, tmp_path: Path) -> None:
    ddl = PATIENTS.format(key="PRIMARY KEY", sede="sede") + "ALTER TABLE s.note ADD clinic_id int REFERENCES s.clinic;"
    ddl += "UPDATE s.note SET clinic_id = 1;"
    rig = shaped(demo_database, tmp_path, ddl, {"patient": OWN, "note": OWN})
    assert findings(rig)
    (rig.settings.sql_dir / "not_backed_up.txt").write_text("s.note.patient: people visit other clinics\n")
    assert findings(rig) == []
    assert rig.run(1).rows["s.note"] == 5


def test_a_column_of_a_key_of_several_columns_may_be_the_clinics(demo_database: DemoDatabase, tmp_path: Path) -> None:
    ddl = """
        CREATE TABLE s.code (place int, code int, PRIMARY KEY (place, code));
        CREATE TABLE s.visit (id int PRIMARY KEY, clinic_id int REFERENCES s.clinic);
        CREATE TABLE s.audit (id int, clinic_id int, code int, FOREIGN KEY (clinic_id, code) REFERENCES s.code);
    """
    rig = shaped(demo_database, tmp_path, ddl, {"visit": OWN}, lists="s.code: shared, a list of all\n")
    with pytest.raises(PermanentError, match=r"s\.audit is a table whose column clinic_id is named like a foreign key"):
        rig.run(1)
