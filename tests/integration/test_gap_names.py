"""Names of keys in other forms, and keys in columns of other types, also show to which clinic rows belong."""

# ruff: noqa: E501 - a case reads best in one line

from __future__ import annotations

from pathlib import Path

import pytest

from clinic_backups.base.errors import PermanentError
from clinic_backups.base.text import in_sql
from clinic_backups.tenant.key_names import stems
from tests.integration.test_gaps import Guard
from tests.integration.test_restore_outside import OWN
from tests.integration.test_sequences_owners import hostile
from tests.postgres_fixtures import DemoDatabase
from tests.shapes import Shaped, shaped

TABLES = """
    ALTER TABLE s.clinic ADD country text DEFAULT 'BO', ADD clinic_no int;
    UPDATE s.clinic SET clinic_no = id;
    ALTER TABLE s.clinic ADD UNIQUE (country, clinic_no);
    CREATE TABLE s.patient (id bigint PRIMARY KEY, clinic_id int REFERENCES s.clinic);
    CREATE TABLE s.scan (id uuid PRIMARY KEY, patient_id bigint REFERENCES s.patient);
    CREATE TABLE s.print (id int PRIMARY KEY, scan_id uuid REFERENCES s.scan);
    CREATE TABLE s.branch (id int PRIMARY KEY, country text, clinic_no int,
                           FOREIGN KEY (country, clinic_no) REFERENCES s.clinic (country, clinic_no));
    INSERT INTO s.patient VALUES (11, 1), (22, 2);
    INSERT INTO s.scan VALUES ('6ff1ea9e-1111-4222-8333-9d2e4c1a0b7f', 11);
    CREATE DOMAIN s.code AS bigint;
"""
EXTRACTS = {
    "patient": "clinic_id = {{ clinic_id }}",
    "scan": "patient_id IN (SELECT id FROM s.patient WHERE clinic_id = {{ clinic_id }})",
    "print": "scan_id IN (SELECT c.id FROM s.scan c JOIN s.patient p ON p.id = c.patient_id"
    " WHERE p.clinic_id = {{ clinic_id }})",
    "branch": "clinic_no = {{ clinic_id }}",
}
GAPS = {
    "the word before": ("id_clinic bigint", "s.clinic"),
    "the word before in other letters": ('"idClinic" bigint', "s.clinic"),
    "without a word between": ("idclinic int PRIMARY KEY", "s.clinic"),
    "another word": ("clinic_uuid text", "s.clinic"),
    "another word before": ("fk_clinic int", "s.clinic"),
    "the name alone": ("clinic bigint", "s.clinic"),
    "an array": ("clinic_ids bigint[]", "s.clinic"),
    "an array of several": ("clinics int[]", "s.clinic"),
    "texts of several": ("clinics_ids text", "s.clinic"),
    "two columns": ("country text, clinic_no int", "s.clinic"),
    "two columns that are the key": ("clinic_no int, country text, PRIMARY KEY (country, clinic_no)", "s.clinic"),
    "two columns in other letters": ('"Country" text, "clinicNo" bigint', "s.clinic"),
    "another key's word before": ("id_patient bigint", "s.patient"),
    "another key's array": ("patient_ids bigint[]", "s.patient"),
    "a number as text": ("patient_id text", "s.patient"),
    "a number as varchar": ("patient_id varchar(20)", "s.patient"),
    "a number as numeric": ("id_patient numeric(20)", "s.patient"),
    "a number of a domain": ("patient_id s.code", "s.patient"),
    "a uuid as text": ("scan_id text", "s.scan"),
    "a uuid as characters": ("id_scan char(36)", "s.scan"),
    "a uuid as bytes": ("scan_id bytea", "s.scan"),
    "uuids as texts": ("scan_ids text[]", "s.scan"),
}
LOOK_ALIKES = {
    "the values alone": ("a bigint, b text", "SELECT id, id::text FROM s.clinic"),
    "a text that is called like a table": ("clinic text, patient text", "SELECT 'uno', 'dos'"),
    "its own key": ("id_patient bigint PRIMARY KEY", "SELECT 11"),
    "one column of two": ("clinic_no int", "SELECT 1"),
    "another type that holds no key": ("patient_id uuid, scan_id bigint", "SELECT NULL::uuid, 1"),
    "texts of another system": ("patient_id text, scan_id varchar", "SELECT 'X-1', 'Y-2'"),
    "words that only end or begin so": ("paid int, idea int, clinical bool", "SELECT 1, 1, true"),
}


def rig_of(database: DemoDatabase, folder: Path, columns: str, rows: str = "") -> Shaped:
    insert = f"INSERT INTO s.log {rows};" if rows else ""
    return shaped(database, folder, f"{TABLES} CREATE TABLE s.log ({columns}); {insert}", EXTRACTS)


@pytest.mark.parametrize("name", GAPS)
def test_a_table_is_named_by_its_columns(demo_database: DemoDatabase, tmp_path: Path, name: str) -> None:
    columns, parent = GAPS[name]
    rig = rig_of(demo_database, tmp_path, columns)
    with pytest.raises(PermanentError, match="for 1 reason") as caught:
        rig.run(1)
    assert "s.log is a table whose column" in str(caught.value)
    assert f"named like a foreign key to {parent}." in str(caught.value)
    (rig.settings.sql_dir / "not_backed_up.txt").write_text("s.log: nothing of worth\n")
    assert rig.run(1).gaps == ()


@pytest.mark.parametrize("name", LOOK_ALIKES)
def test_what_only_looks_like_a_key_stops_no_backup(demo_database: DemoDatabase, tmp_path: Path, name: str) -> None:
    assert rig_of(demo_database, tmp_path, *LOOK_ALIKES[name]).run(1).gaps == ()


@pytest.mark.parametrize(
    ("columns", "rows", "level"),
    [
        ("patient_id text", "SELECT 'X-1'", "warning"), ("patient_id text", "SELECT '011'", "error"),
        ("scan_id text", "SELECT upper(id::text) FROM s.scan", "error"),
        ("patient_ids text[]", "SELECT '{a,b}'::text[]", "warning"),
        ("patient_ids text[]", "SELECT '{a,11}'::text[]", "error"), ("patient bigint", "SELECT 11", "warning"),
    ],
)  # fmt: skip
def test_values_tell_where_the_type_is_another(
    demo_database: DemoDatabase, tmp_path: Path, columns: str, rows: str, level: str
) -> None:
    shape = rig_of(demo_database, tmp_path, columns, rows)
    rig = Guard(demo_database, shape.store)
    rig.settings = rig.settings.model_copy(update={"sql_dir": tmp_path / "sql"})
    (finding,) = [item for item in rig.errors(level) if "s.log" in item.message]
    assert "is named like a foreign key" in finding.message
    assert rig.errors({"error": "warning", "warning": "error"}[level]) == []


def test_the_name_of_the_clinics_table_is_a_key_too(demo_database: DemoDatabase, tmp_path: Path) -> None:
    rig = shaped(
        demo_database,
        tmp_path,
        "CREATE TABLE s.visit (id int PRIMARY KEY, sede int REFERENCES s.clinic);"
        "CREATE TABLE s.log (id int PRIMARY KEY, id_clinic int); CREATE TABLE s.poll (id int, sede_id int)",
        {"visit": "sede = {{ clinic_id }}"},
    )
    with pytest.raises(PermanentError, match="for 2 reasons"):
        rig.run(1)


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("clinica_id", {"clinica"}), ("idClinica", {"clinica"}), ("CLINICAID", {"clinica"}), ("ids_sede", {"sede"}),
        ("idsede", {"sede"}), ("comun_clinica_id", {"comunclinica"}), ("id", set()), ("ids", set()), ("clinica", set()),
    ],
)  # fmt: skip
def test_stems(name: str, found: set[str]) -> None:
    assert stems(name) == found


# A condition of an index is evaluated when a query of its table is planned.
STRANGER = """
    CREATE FUNCTION h.ran(int) RETURNS boolean IMMUTABLE LANGUAGE plpgsql AS 'BEGIN RETURN true; END';
    CREATE TABLE h.log (id int, patient_id text); INSERT INTO h.log VALUES (1, '11'); GRANT SELECT ON h.log TO PUBLIC;
    CREATE INDEX ON h.log (id) WHERE h.ran(1);
    CREATE OR REPLACE FUNCTION h.ran(int) RETURNS boolean IMMUTABLE LANGUAGE plpgsql
        AS 'BEGIN RAISE LOG ''STRANGER RAN IN %'', current_database(); RETURN true; END'
"""


APPLICATIONS = "ALTER TABLE h.log OWNER TO {app}; ALTER TABLE s.patient OWNER TO {app}"
WHAT = {
    "the table": "SELECT 1",
    "its schema": APPLICATIONS,
    "a function of its index": APPLICATIONS + "; ALTER TABLE s.clinic OWNER TO {app}; ALTER SCHEMA h OWNER TO postgres",
    "the table, and is a member without rights": "CREATE ROLE app_{role}; ALTER TABLE s.clinic OWNER TO app_{role};"
    " GRANT app_{role} TO {role} WITH INHERIT FALSE, SET FALSE, ADMIN FALSE",
}


@pytest.mark.parametrize("owns", WHAT)
def test_no_table_that_runs_a_strangers_code_is_read(demo_database: DemoDatabase, tmp_path: Path, owns: str) -> None:
    shape = rig_of(demo_database, tmp_path, "n int")
    if "SET FALSE" in WHAT[owns] and shape.execute_rows("SHOW server_version_num")[0][0] < "160000":
        pytest.skip("every member has the rights there")
    role = hostile(shape, STRANGER)
    shape.execute(WHAT[owns].format(role=role, app=demo_database.roles.restorer))
    assert shape.run(1).gaps == ()
    guard = Guard(demo_database, shape.store)
    guard.settings = guard.settings.model_copy(update={"sql_dir": tmp_path / "sql"})
    (finding,) = guard.errors("warning")
    assert "h.log is a table whose column patient_id" in finding.message
    assert "a role that may not write all rows" in finding.message
    log = demo_database.postgres._log.read_text("utf-8", "replace")
    assert f"STRANGER RAN IN {demo_database.name}\n" not in log
    # The values count as soon as the table is the application's.
    shape.execute(
        "ALTER TABLE h.log OWNER TO CURRENT_USER", "ALTER SCHEMA h OWNER TO CURRENT_USER",
        "ALTER FUNCTION h.ran OWNER TO CURRENT_USER",
    )  # fmt: skip
    with pytest.raises(PermanentError, match=r"h\.log is a table whose column patient_id"):
        shape.run(1)


PATIENTS = "CREATE TABLE s.patient (id int PRIMARY KEY, clinic_id int NOT NULL REFERENCES s.clinic); INSERT INTO s.patient SELECT k, 1 + k % 2 FROM generate_series(1, 10) AS k"
NOTES = "CREATE TABLE s.note (id int PRIMARY KEY, {column} int NOT NULL, body text); INSERT INTO s.note SELECT k, k, 'b' FROM generate_series(1, 10) AS k"
OF_PATIENTS = "{} IN (SELECT id FROM s.patient WHERE clinic_id = {{{{ clinic_id }}}})"
"""An extract's condition."""


@pytest.mark.parametrize("column", ["patient_id", "patientId", "id_patient", "patient_uuid"])
@pytest.mark.parametrize("table", ["patient", "patients", "app_patient", "AppPatient"])
def test_a_column_named_after_a_table_is_its_key_even_if_no_foreign_key_has_that_name(
    demo_database: DemoDatabase, tmp_path: Path, table: str, column: str
) -> None:
    ddl = f"{PATIENTS.replace('s.patient', f's.{in_sql(table)}')}; {NOTES.format(column=in_sql(column))}"
    rig = shaped(demo_database, tmp_path, ddl, {table: f"SELECT t.* FROM s.{in_sql(table)} AS t WHERE {OWN}"})
    with pytest.raises(PermanentError, match=rf"s\.note is a table whose column {column} is named like a foreign key"):
        rig.run(1)


@pytest.mark.parametrize(
    ("more", "extracts"),
    [
        ("CREATE TABLE s.visit (id int PRIMARY KEY, patient_id int NOT NULL)", {"visit": OF_PATIENTS.format("patient_id")}),
        ("CREATE TABLE s.visit (id int PRIMARY KEY, author_id int REFERENCES s.patient)", {"visit": OF_PATIENTS.format("author_id")}),
    ],
    ids=["another table without a constraint", "a foreign key of another name"],
)  # fmt: skip
def test_what_other_tables_call_their_key_hides_no_gap(
    demo_database: DemoDatabase, tmp_path: Path, more: str, extracts: dict[str, str]
) -> None:
    ddl = f"{PATIENTS}; {NOTES.format(column='patient_id')}; {more}"
    rig = shaped(demo_database, tmp_path, ddl, {"patient": OWN} | extracts)
    with pytest.raises(PermanentError, match=r"s\.note is a table whose column patient_id is named like a foreign key"):
        rig.run(1)


@pytest.mark.parametrize(
    ("extract", "says"),
    [
        (OF_PATIENTS.format("patient_id").replace("clinic_id }}", "clinic_id }} % 2 + 1"), "5 rows of a backup refer in patient_id to a row of s.patient that is not in"),
        (f"{OF_PATIENTS.format('patient_id')} AND id > 2", "1 row is in no backup, but the column patient_id refers to a row of s.patient"),
    ],
    ids=["another clinic's rows", "rows that are lost"],
)  # fmt: skip
def test_rows_are_compared_by_a_column_that_is_named_after_a_table(
    demo_database: DemoDatabase, tmp_path: Path, extract: str, says: str
) -> None:
    ddl = f"{PATIENTS}; {NOTES.format(column='patient_id')}"
    rig = shaped(demo_database, tmp_path, ddl, {"patient": OWN, "note": extract})
    with pytest.raises(PermanentError, match=says):
        rig.run(1)


def test_a_name_that_fits_two_tables_says_nothing(demo_database: DemoDatabase, tmp_path: Path) -> None:
    ddl = f"{PATIENTS}; {NOTES.format(column='patient_id')}; CREATE TABLE s.other_patient (id int PRIMARY KEY)"
    rig = shaped(demo_database, tmp_path, ddl, {"patient": OWN})
    assert rig.run(1).state == "completed"


@pytest.mark.parametrize("name", ["we\nird", "we\tird", "we\u200dird"], ids=ascii)
def test_a_table_whose_name_no_backup_can_hold_is_refused_with_the_statement_that_helps(
    demo_database: DemoDatabase, tmp_path: Path, name: str
) -> None:
    """It was read whole, and then called an error of this package."""
    table = f's."{name}"'
    rig = shaped(demo_database, tmp_path, f"CREATE TABLE {table} (id int PRIMARY KEY, clinic_id int)", {})
    extract = rig.settings.sql_dir / "extract" / f"s.{name}.sql"
    extract.write_text(f"SELECT t.* FROM {table} AS t WHERE t.clinic_id = {{{{ clinic_id }}}}")
    with pytest.raises(PermanentError, match="The name of a table is not one line of visible text") as refused:
        rig.run(1)
    rig.execute(refused.value.hint.removeprefix("Rename it: ").partition(";")[0])
    extract.unlink()
    (rig.settings.sql_dir / "extract" / "s.we_ird.sql").write_text(
        "SELECT t.* FROM s.we_ird AS t WHERE t.clinic_id = {{ clinic_id }}"
    )
    assert rig.run(1).rows["s.we_ird"] == 0
