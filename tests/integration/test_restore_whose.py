"""To which clinic a row belongs that no extract returns: the present database decides, not the backup."""

# ruff: noqa: E501 - a case reads best in one line

from __future__ import annotations

import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from clinic_backups.base.errors import PermanentError
from clinic_backups.restore.plan import RestorePlan
from clinic_backups.restore.request import Wish
from tests.integration.test_restore_outside import OWN, restored
from tests.postgres_fixtures import DemoDatabase
from tests.shapes import Shaped, shaped

DOCTORS = f"(SELECT id FROM s.doctor WHERE {OWN})"
PATIENTS = f"(SELECT id FROM s.patient WHERE {OWN})"


@dataclass(frozen=True)
class Shape:
    """A schema, the extracts of its tables, and ``not_backed_up.txt``."""

    ddl: str
    extracts: dict[str, str]
    lists: str = ""

    def but(self, old: str, new: str) -> Shape:
        """Another one, by a change of the tables."""
        assert old in self.ddl
        return Shape(self.ddl.replace(old, new), self.extracts, self.lists)

    def rig(self, database: DemoDatabase, folder: Path, *, owner: bool = False) -> Shaped:
        return shaped(database, folder, self.ddl, self.extracts, lists=self.lists, owner=owner)


VISIT = Shape(
    """
    CREATE TABLE s.doctor (id int PRIMARY KEY, clinic_id int NOT NULL REFERENCES s.clinic, name text);
    CREATE TABLE s.visit (id int PRIMARY KEY, clinic_id int NOT NULL, doctor_id int REFERENCES s.doctor ON DELETE SET NULL, gone boolean NOT NULL DEFAULT false, v text);
    INSERT INTO s.doctor VALUES (1, 1, 'a'), (2, 1, 'b'), (3, 2, 'c');
    INSERT INTO s.visit VALUES (1, 1, 1, false, 'v1'), (2, 1, 2, false, 'v2'), (3, 2, 3, false, 'v3')
    """,
    {"doctor": OWN, "visit": f"{OWN} AND NOT gone"},
    "s.visit: rows, not the gone\n",
)
TREATMENT = Shape(
    """
    CREATE TABLE s.doctor (id int PRIMARY KEY, clinic_id int NOT NULL REFERENCES s.clinic, name text);
    CREATE TABLE s.patient (id int PRIMARY KEY, clinic_id int NOT NULL REFERENCES s.clinic, v text);
    CREATE TABLE s.treatment (id int PRIMARY KEY, patient_id int NOT NULL REFERENCES s.patient, doctor_id int REFERENCES s.doctor, gone boolean NOT NULL DEFAULT false, v text);
    CREATE TABLE s.bill (id int PRIMARY KEY, patient_id int NOT NULL REFERENCES s.patient);
    INSERT INTO s.doctor VALUES (1, 1, 'a'), (3, 2, 'c');
    INSERT INTO s.patient VALUES (1, 1, 'p1'), (2, 1, 'p2'), (3, 2, 'p3');
    INSERT INTO s.treatment VALUES (1, 1, 1, false, 't1'), (2, 2, 1, false, 't2'), (3, 3, 3, false, 't3')
    """,
    {
        "doctor": OWN,
        "patient": OWN,
        "treatment": f"NOT t.gone AND t.patient_id IN {PATIENTS}",
        "bill": f"patient_id IN {PATIENTS}",
    },
    "s.treatment: rows, not the gone\ns.treatment.doctor_id: a doctor may be of the patient's former clinic\n",
)
BY_NAME = TREATMENT.but("patient_id int NOT NULL REFERENCES s.patient, doctor_id", "patient_id int NOT NULL, doctor_id")
BOTH_COUNT = Shape(TREATMENT.ddl, TREATMENT.extracts, "s.treatment: rows, not the gone\n")
BARE = Shape(
    BY_NAME.ddl, BY_NAME.extracts | {"treatment": f"patient_id IN {PATIENTS}"}, BY_NAME.lists.split("\n")[1] + "\n"
)
TAG = Shape(
    """
    CREATE TABLE s.kind (id int PRIMARY KEY, model text);
    CREATE TABLE s.patient (id int PRIMARY KEY, clinic_id int NOT NULL REFERENCES s.clinic, v text);
    CREATE TABLE s.tagged (id int PRIMARY KEY, kind_id int NOT NULL REFERENCES s.kind, object_id int NOT NULL, tag text);
    INSERT INTO s.kind VALUES (1, 'patient'); INSERT INTO s.patient VALUES (1, 1, 'a'), (2, 1, 'b'), (3, 2, 'c');
    INSERT INTO s.tagged VALUES (1, 1, 1, 'x'), (2, 1, 2, 'y'), (3, 1, 3, 'z')
    """,
    {"patient": OWN, "tagged": f"kind_id = 1 AND object_id IN {PATIENTS}"},
    "s.kind: shared, x\n",
)
VARCHAR = Shape(
    """
    CREATE TABLE s.doctor (id int PRIMARY KEY, clinic_id int NOT NULL REFERENCES s.clinic, name text);
    CREATE TABLE s.visit (id int PRIMARY KEY, doctor_id int REFERENCES s.doctor ON DELETE SET NULL, clinic_id varchar(10), v text);
    INSERT INTO s.doctor VALUES (1, 1, 'a'), (2, 1, 'b'), (3, 2, 'c');
    INSERT INTO s.visit VALUES (1, 1, '1', 'v1'), (2, 2, '1', 'v2'), (3, 3, '2', 'v3')
    """,
    {"doctor": OWN, "visit": "clinic_id = '{{ clinic_id }}' AND doctor_id IS NOT NULL"},
    "s.visit: rows, those without a doctor are not kept\n",
)
ARRAY = Shape(
    VARCHAR.ddl.replace("clinic_id varchar(10)", "clinic_ids int[]")
    .replace("'1', 'v", "'{1}', 'v")
    .replace("'2', 'v", "'{2}', 'v"),
    {"doctor": OWN, "visit": f"doctor_id IN {DOCTORS}"},
)
ORPHAN = Shape(
    """
    CREATE TABLE s.doctor (id int PRIMARY KEY, clinic_id int NOT NULL REFERENCES s.clinic, name text);
    CREATE TABLE s.visit (id int PRIMARY KEY, doctor_id int REFERENCES s.doctor ON DELETE SET NULL, v text);
    INSERT INTO s.doctor VALUES (1, 1, 'a'), (2, 1, 'b'), (3, 2, 'c'), (4, 2, 'd');
    INSERT INTO s.visit VALUES (1, 1, 'v1'), (2, 2, 'v2'), (3, 3, 'v3')
    """,
    {"doctor": OWN, "visit": f"doctor_id IN {DOCTORS}"},
)
CODE = Shape(
    """
    CREATE TABLE s.doctor (id int PRIMARY KEY, clinic_id int NOT NULL REFERENCES s.clinic);
    CREATE TABLE s.visit (code text PRIMARY KEY, doctor_id int REFERENCES s.doctor ON DELETE SET NULL, v text);
    INSERT INTO s.doctor VALUES (1, 1), (2, 1), (3, 2), (4, 2);
    INSERT INTO s.visit VALUES ('a', 1, 'x')
    """,
    {"doctor": OWN, "visit": f"doctor_id IN {DOCTORS}"},
)
ROOM = Shape(
    """
    CREATE TABLE s.room (id uuid PRIMARY KEY DEFAULT gen_random_uuid()); INSERT INTO s.room DEFAULT VALUES;
    CREATE TABLE s.doctor (id int PRIMARY KEY, clinic_id int NOT NULL REFERENCES s.clinic);
    CREATE TABLE s.visit (room uuid REFERENCES s.room, hour int, doctor_id int REFERENCES s.doctor ON DELETE SET NULL, v text, PRIMARY KEY (room, hour));
    INSERT INTO s.doctor VALUES (1, 1), (2, 1), (3, 2), (4, 2);
    INSERT INTO s.visit SELECT id, 8, 1, 'v' FROM s.room
    """,
    {"doctor": OWN, "visit": f"doctor_id IN {DOCTORS}"},
    "s.room: shared, of all clinics\n",
)
NUMBERED = Shape(
    """
    CREATE TABLE s.doctor (id int PRIMARY KEY, clinic_id int NOT NULL REFERENCES s.clinic);
    CREATE TABLE s.visit (id int GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY, doctor_id int REFERENCES s.doctor ON DELETE SET NULL, v text);
    INSERT INTO s.doctor VALUES (1, 1), (2, 1), (3, 2), (4, 2);
    INSERT INTO s.visit (doctor_id, v) VALUES (1, 'v1'), (1, 'v2'), (3, 'v3')
    """,
    {"doctor": OWN, "visit": f"doctor_id IN {DOCTORS}"},
)
LASTING = "s.visit: lasting keys, the sequence never starts again\n"
TEMPLATE = Shape(
    """
    CREATE TABLE s.template (id int PRIMARY KEY, clinic_id int REFERENCES s.clinic ON DELETE CASCADE, v text);
    INSERT INTO s.template VALUES (1, 1, 'a'), (2, 2, 'b')
    """,
    {"template": OWN},
)
TAKEN = "that belong to rows outside of this clinic now"
LOST = "have lost their clinic"
TO_OTHERS = "UPDATE s.patient SET clinic_id = 2 WHERE id = 1"


@dataclass(frozen=True)
class Case:
    """``only``: these tables are restored."""

    shape: Shape
    after: str
    only: tuple[str, ...] = ()
    says: str = TAKEN


OTHERS = {
    "clinic_id without a constraint": Case(VISIT, "UPDATE s.visit SET clinic_id = 2 WHERE id = 1"),
    "and changed": Case(VISIT, "UPDATE s.visit SET clinic_id = 2, v = 'secret' WHERE id = 1"),
    "its extract wants a number": Case(Shape(VISIT.ddl, VISIT.extracts | {"visit": "clinic_id = {{ clinic_id + 0 }} AND NOT gone"}, VISIT.lists), "UPDATE s.visit SET clinic_id = 2, v = 'secret' WHERE id = 1"),
    "a parent given away": Case(TREATMENT, f"{TO_OTHERS}; UPDATE s.treatment SET v = 'secret' WHERE id = 1", ("s.treatment",)),
    "a parent given away, and its child left out": Case(BOTH_COUNT, f"{TO_OTHERS}; UPDATE s.treatment SET gone = true WHERE id = 1", ("s.treatment",)),
    "another parent by name": Case(BY_NAME, "UPDATE s.treatment SET patient_id = 3, v = 'secret' WHERE id = 1"),
    "another parent by name, and left out": Case(BY_NAME, "UPDATE s.treatment SET patient_id = 3, gone = true WHERE id = 1"),
    "a key by name that another clinic took": Case(BY_NAME, f"{TO_OTHERS}; UPDATE s.treatment SET v = 'secret' WHERE id = 1", ("s.treatment",)),
    "a column added since": Case(VISIT, "ALTER TABLE s.visit ADD COLUMN owner_clinic_id int REFERENCES s.clinic; UPDATE s.visit SET owner_clinic_id = 2, gone = true WHERE id = 1"),
    "only another extract says it": Case(TAG, "DELETE FROM s.patient WHERE id = 1; INSERT INTO s.patient VALUES (1, 2, 'new')", ("s.tagged",)),
    "nothing says it": Case(TAG, "DELETE FROM s.patient WHERE id = 1; UPDATE s.tagged SET tag = 'changed' WHERE id = 1"),
    "a lost row that names another clinic's": Case(Shape(VISIT.ddl.replace("clinic_id int NOT NULL, doctor_id", "clinic_id int, doctor_id"), {"doctor": OWN, "visit": f"doctor_id IN {DOCTORS}"}, "s.visit.clinic_id: an old way\n"), "UPDATE s.visit SET doctor_id = NULL, clinic_id = 2 WHERE id = 1"),
    "a number of another clinic as a text": Case(VARCHAR, "UPDATE s.visit SET doctor_id = NULL, clinic_id = '2', v = 'secret' WHERE id = 1"),
    "and the parent is there": Case(VARCHAR, "UPDATE s.visit SET doctor_id = 2, clinic_id = '2', v = 'secret' WHERE id = 1"),
    "an array that names another clinic": Case(ARRAY, "UPDATE s.visit SET doctor_id = NULL, clinic_ids = '{2}' WHERE id = 1"),
    "a key that another clinic's orphan has": Case(ORPHAN, "DELETE FROM s.visit WHERE id = 1; INSERT INTO s.visit VALUES (1, 4, 'secret'); DELETE FROM s.doctor WHERE id = 4"),
    "and its own parent is gone as well": Case(ORPHAN, "DELETE FROM s.visit WHERE id = 1; INSERT INTO s.visit VALUES (1, 4, 'secret'); DELETE FROM s.doctor WHERE id IN (1, 4)"),
    "a numbered key, and its own parent is there": Case(NUMBERED, "UPDATE s.visit SET doctor_id = NULL, v = 'secret' WHERE id = 1"),
    "a numbered key, and its parent takes its rows along": Case(NUMBERED.but("SET NULL", "CASCADE"), "UPDATE s.visit SET doctor_id = NULL, v = 'secret' WHERE id = 1; DELETE FROM s.doctor WHERE id = 1"),
    "a key that a row for all clinics has": Case(TEMPLATE, "DELETE FROM s.template WHERE id = 1; INSERT INTO s.template VALUES (1, NULL, 'for all')"),
    "what the backup does not have was written": Case(CODE, "ALTER TABLE s.visit ADD phone text; DELETE FROM s.visit WHERE code = 'a'; INSERT INTO s.visit VALUES ('a', 4, 'x', 'secret'); DELETE FROM s.doctor WHERE id IN (1, 4)"),
    "nothing but a key, and its own parent is there": Case(CODE.but(", v text", "").but(", 'x')", ")"), "DELETE FROM s.visit WHERE code = 'a'; INSERT INTO s.visit VALUES ('a', 4); DELETE FROM s.doctor WHERE id = 4"),
    "a UUID that refers to a room": Case(ROOM, "DELETE FROM s.visit WHERE doctor_id = 1; INSERT INTO s.visit SELECT id, 8, 4, 'secret' FROM s.room; DELETE FROM s.doctor WHERE id IN (1, 4)"),
    "a sequence that began anew": Case(NUMBERED, "TRUNCATE s.visit RESTART IDENTITY; INSERT INTO s.visit (doctor_id, v) VALUES (4, 'secret'); DELETE FROM s.doctor WHERE id IN (1, 4)"),
    "a sequence that began anew and passed the old keys": Case(NUMBERED, "TRUNCATE s.visit RESTART IDENTITY; DELETE FROM s.doctor WHERE clinic_id = 1; INSERT INTO s.visit (doctor_id, v) VALUES (4, 'secret'), (4, 'x'), (3, 'y'); DELETE FROM s.doctor WHERE id = 4"),
    "a key that an import gave": Case(NUMBERED, "DELETE FROM s.visit WHERE id IN (1, 2); DELETE FROM s.doctor WHERE clinic_id = 1; INSERT INTO s.visit (id, doctor_id, v) VALUES (1, 4, 'secret'), (2, 4, 'imported'); DELETE FROM s.doctor WHERE id = 4"),
    "a UUID that moved to another clinic and was changed there": Case(NUMBERED.but("id int GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY", "id uuid PRIMARY KEY DEFAULT gen_random_uuid()"), "UPDATE s.visit SET doctor_id = 4, v = 'secret' WHERE v = 'v1'; DELETE FROM s.doctor WHERE id IN (1, 4)"),
    "what the backup does not have has today's date": Case(CODE, "ALTER TABLE s.visit ADD day date DEFAULT CURRENT_DATE; DELETE FROM s.visit WHERE code = 'a'; INSERT INTO s.visit (code, v) VALUES ('a', 'x'); DELETE FROM s.doctor WHERE id = 1"),
    "changed after it lost its clinic, and nobody says that keys last": Case(NUMBERED, "DELETE FROM s.doctor WHERE id = 1; UPDATE s.visit SET v = 'x' WHERE id = 1"),
    "lasting keys, and its own parent is there": Case(Shape(NUMBERED.ddl, NUMBERED.extracts, LASTING), "UPDATE s.visit SET doctor_id = NULL, v = 'secret' WHERE id = 1"),
    "lasting keys, and its parent takes its rows along": Case(Shape(NUMBERED.but("SET NULL", "CASCADE").ddl, NUMBERED.extracts, LASTING), "UPDATE s.visit SET doctor_id = NULL, v = 'secret' WHERE id = 1; DELETE FROM s.doctor WHERE id = 1"),
    "a sequence that begins anew by itself": Case(NUMBERED.but("AS IDENTITY", "AS IDENTITY (MAXVALUE 3 CYCLE)"), "DELETE FROM s.visit WHERE id = 1; INSERT INTO s.visit (doctor_id, v) VALUES (4, 'secret'); DELETE FROM s.doctor WHERE id IN (1, 4)"),
    "to insert under a parent by name": Case(BY_NAME, f"{TO_OTHERS}; DELETE FROM s.treatment WHERE id = 1", ("s.treatment",), "that belong to another clinic now"),
}  # fmt: skip


@pytest.mark.parametrize("name", OTHERS)
def test_another_clinics_row_is_neither_written_nor_copied(
    demo_database: DemoDatabase, tmp_path: Path, name: str
) -> None:
    case = OTHERS[name]
    rig = case.shape.rig(demo_database, tmp_path)
    record = rig.run(1)
    rig.execute(case.after)
    damaged, plan = rig.everything(), rig.plan(record, tables=case.only)
    said = str(plan.refusals)
    assert case.says in said or (case.says == TAKEN and LOST in said)
    assert "rehearsal" not in str(plan.refusals)
    assert rig.everything() == damaged


@pytest.mark.parametrize(
    ("shape", "meanwhile"),
    [
        (TREATMENT, TO_OTHERS),
        (BOTH_COUNT, "UPDATE s.treatment SET patient_id = 3 WHERE id = 1"),
        (BY_NAME, "UPDATE s.treatment SET patient_id = 3, v = 'secret' WHERE id = 1"),
        (BY_NAME, TO_OTHERS),
    ],
)
def test_live_leaves_what_another_clinic_got_since_the_plan(
    demo_database: DemoDatabase, tmp_path: Path, shape: Shape, meanwhile: str
) -> None:
    rig = shape.rig(demo_database, tmp_path)
    record = rig.run(1)
    rig.execute("UPDATE s.treatment SET v = 'x' WHERE id IN (1, 2)")
    plan = rig.plan(record, mode="live")
    assert plan.refusals == ()
    rig.execute(meanwhile)
    now = rig.everything()
    rig.restore().apply(rig.source(record), Wish(mode="live"), approved=plan.digest, plan=plan)
    assert rig.everything() == now | {"s.treatment": [now["s.treatment"][0], "(2,2,1,f,t2)", "(3,3,3,f,t3)"]}


TOUCHED = """
    CREATE FUNCTION s.touch() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN NEW.at := NEW.at + 1; RETURN NEW; END$$;
    CREATE TRIGGER touch BEFORE UPDATE ON s.shift FOR EACH ROW EXECUTE FUNCTION s.touch()
"""
SHIFT = Shape(
    f"""
    CREATE TABLE s.doctor (id int PRIMARY KEY, clinic_id int NOT NULL REFERENCES s.clinic);
    CREATE TABLE s.shift (id int GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY, doctor_id int REFERENCES s.doctor ON DELETE SET NULL, v text, at int NOT NULL DEFAULT 0);
    INSERT INTO s.doctor VALUES (1, 1), (2, 2); INSERT INTO s.shift (doctor_id, v) VALUES (1, 'a'), (2, 'b'); {TOUCHED}
    """,
    {"doctor": OWN, "shift": f"doctor_id IN {DOCTORS}"},
    "s.shift: lasting keys, an identity\n",
)
CHILD = Shape(
    f"""{VISIT.ddl}; CREATE TABLE s.note (id int PRIMARY KEY, visit_id int NOT NULL REFERENCES s.visit, v text);
    INSERT INTO s.note VALUES (1, 1, 'n1'), (2, 2, 'n2'), (3, 3, 'n3')""",
    dict(VISIT.extracts) | {"note": f"visit_id IN (SELECT id FROM s.visit WHERE NOT gone AND {OWN})"},
    VISIT.lists,
)
GENERATED = Shape(
    """
    CREATE TABLE s.doctor (id int PRIMARY KEY, clinic_id int NOT NULL REFERENCES s.clinic);
    CREATE TABLE s.g (a int NOT NULL, k int GENERATED ALWAYS AS (a * 2) STORED PRIMARY KEY, doctor_id int REFERENCES s.doctor ON DELETE SET NULL, v text, upper_v text GENERATED ALWAYS AS (v || '!') STORED);
    INSERT INTO s.doctor VALUES (1, 1), (2, 2); INSERT INTO s.g (a, doctor_id, v) VALUES (3, 1, 'a'), (2, 1, 'b'), (1, 2, 'c')
    """,
    {"doctor": OWN, "g": f"doctor_id IN {DOCTORS}"},
)
LOST_GENERATED = Shape(
    """
    CREATE TABLE s.g (a int NOT NULL, clinic_id int NOT NULL REFERENCES s.clinic, k int GENERATED ALWAYS AS (a * 2) STORED, gone boolean NOT NULL DEFAULT false, v text, PRIMARY KEY (clinic_id, k));
    INSERT INTO s.g (a, clinic_id, v) VALUES (3, 1, 'a'), (2, 1, 'b'), (1, 2, 'c')
    """,
    {"g": f"{OWN} AND NOT gone"},
    "s.g: rows, not the gone\n",
)
TREE = Shape(
    """
    CREATE TABLE s.tree (id int PRIMARY KEY, clinic_id int REFERENCES s.clinic, parent_id int REFERENCES s.tree ON DELETE SET NULL, v text);
    INSERT INTO s.tree VALUES (1, 1, 1, 'r'), (2, NULL, 1, 'm'), (3, NULL, 2, 'l'), (4, NULL, 3, 'll'), (5, 2, 5, 'R'), (6, NULL, 5, 'M')
    """,
    {
        "tree": f"SELECT t.* FROM s.tree AS t WHERE t.id IN (WITH RECURSIVE x AS (SELECT id FROM s.tree WHERE {OWN} UNION SELECT c.id FROM s.tree AS c JOIN x ON c.parent_id = x.id) SELECT id FROM x)"
    },
)
CALL = Shape(
    """
    CREATE TABLE s.{doctor} (id int PRIMARY KEY, clinic_id int REFERENCES s.clinic ON DELETE SET NULL, gone boolean NOT NULL DEFAULT false);
    CREATE TABLE s.call (doctor_id int REFERENCES s.{doctor} ON DELETE SET NULL, why text);
    INSERT INTO s.{doctor} VALUES (1, 1), (2, 1), (3, 2); INSERT INTO s.call VALUES (1, 'a'), (1, 'a'), (2, 'b'), (3, 'd')
    """,
    {},
)  # fmt: skip


def calls(doctor: str, *, rows: bool = False) -> Shape:
    """The calls of doctors whose table sorts before or behind them."""
    own = f"{OWN} AND NOT gone" if rows else OWN
    return Shape(
        CALL.ddl.format(doctor=doctor),
        {doctor: own, "call": f"doctor_id IN (SELECT id FROM s.{doctor} WHERE {OWN})"},
        f"s.{doctor}: rows, not the gone\n" if rows else "",
    )


OWNED = {
    "a key by name that nobody has": Case(BY_NAME, "DELETE FROM s.patient WHERE id = 1"),
    "and no line says that rows are left out": Case(BARE, "DELETE FROM s.patient WHERE id = 1; UPDATE s.treatment SET v = 'x' WHERE id = 1"),
    "and changed": Case(BY_NAME, "DELETE FROM s.patient WHERE id = 1; UPDATE s.treatment SET v = 'x' WHERE id = 1"),
    "a generic key that nobody has": Case(TAG, "DELETE FROM s.patient WHERE id = 1"),
    "lost, and touched by a trigger": Case(SHIFT, "DELETE FROM s.doctor WHERE id = 1"),
    "changed and lost, beside a link that is NULL and would cascade": Case(Shape(NUMBERED.but("ON DELETE SET NULL, v text", "ON DELETE SET NULL, other_id int REFERENCES s.doctor ON DELETE CASCADE, v text").ddl, NUMBERED.extracts, LASTING), "UPDATE s.visit SET v = 'x' WHERE id = 1; DELETE FROM s.doctor WHERE id = 1"),
    "a changed child of a left-out row": Case(CHILD, "UPDATE s.visit SET gone = true, v = 'x' WHERE id = 1; UPDATE s.note SET v = 'x' WHERE id = 1"),
    "changed and lost, and its keys last": Case(Shape(NUMBERED.ddl, NUMBERED.extracts, LASTING), "DELETE FROM s.doctor WHERE id = 1; UPDATE s.visit SET v = 'x' WHERE id = 1"),
    "lost, with a generated key": Case(GENERATED, "DELETE FROM s.doctor WHERE id = 1"),
    "left out, with a generated key": Case(LOST_GENERATED, "UPDATE s.g SET gone = true, v = 'x' WHERE a = 3; UPDATE s.g SET v = 'y' WHERE a = 2"),
    "a branch without its tree": Case(TREE, "DELETE FROM s.tree WHERE id = 2"),
    "a tree without its clinic": Case(TREE, "UPDATE s.tree SET clinic_id = NULL WHERE id = 1; UPDATE s.tree SET parent_id = NULL WHERE id = 3"),
    "no key, parent before": Case(calls("adoctor"), "DELETE FROM s.adoctor WHERE id = 1; UPDATE s.adoctor SET clinic_id = NULL WHERE id = 2"),
    "no key, parent behind": Case(calls("zdoctor"), "DELETE FROM s.zdoctor WHERE id = 1; UPDATE s.zdoctor SET clinic_id = NULL WHERE id = 2"),
    "no key, parent left out": Case(calls("zdoctor", rows=True), "DELETE FROM s.zdoctor WHERE id = 1; UPDATE s.zdoctor SET gone = true WHERE id = 2"),
}  # fmt: skip


def beside_nobodys(before: dict[str, list[str]], damaged: dict[str, list[str]]) -> dict[str, list[str]]:
    """Calls have no key: one that has lost its doctor stays as it is."""
    if "s.call" not in before:
        return before
    lost = [row for row in damaged["s.call"] if row.startswith("(,")]
    return before | {"s.call": sorted([*before["s.call"], *lost])}


@pytest.mark.parametrize("name", OWNED)
def test_rows_of_the_clinic_come_back_and_go_again(demo_database: DemoDatabase, tmp_path: Path, name: str) -> None:
    case = OWNED[name]
    rig = case.shape.rig(demo_database, tmp_path, owner="trigger" in name)
    record, before = rig.run(1), rig.everything()
    rig.execute(case.after)
    damaged, plan = rig.everything(), rig.plan(record)
    notes = [note for table in plan.tables for note in table.notes]
    assert len(notes) == len(set(notes))
    saved = restored(rig, record, plan)
    assert rig.everything() == beside_nobodys(before, damaged)
    assert saved is not None
    restored(rig, saved)
    assert rig.everything() == damaged
    assert rig.plan(saved).writes == 0


def test_the_clinics_own_table_may_have_no_extract(demo_database: DemoDatabase, tmp_path: Path) -> None:
    shape = Shape(VISIT.ddl, VISIT.extracts, VISIT.lists + "s.clinic: shared, kept elsewhere\n")
    rig = shape.rig(demo_database, tmp_path)
    (rig.settings.sql_dir / "extract" / "s.clinic.sql").unlink()
    record, before = rig.run(1), rig.everything()
    rig.execute("UPDATE s.visit SET gone = true, v = 'x' WHERE id = 1")
    restored(rig, record)
    assert rig.everything() == before
    rig.execute("UPDATE s.visit SET clinic_id = 2 WHERE id = 1")
    assert TAKEN in str(rig.plan(record).refusals)


def test_a_role_that_may_not_read_who_the_clinics_are_is_told_so(demo_database: DemoDatabase, tmp_path: Path) -> None:
    rig = VISIT.rig(demo_database, tmp_path)
    record = rig.run(1)
    rig.execute(
        "CREATE TABLE s.registry AS SELECT id FROM s.clinic",
        f"GRANT SELECT ON s.registry TO {demo_database.roles.reader}",
        "UPDATE s.visit SET gone = true, v = 'x' WHERE id = 1",
    )
    (rig.settings.sql_dir / "all_clinics.sql").write_text("SELECT id, 'n', 'es' FROM s.registry ORDER BY id")
    damaged = rig.everything()
    with pytest.raises(PermanentError) as refused:
        rig.plan(record)
    assert "asking for the clinics: permission denied for table registry" in refused.value.message
    assert f"restore_db uses the role {demo_database.roles.restorer}" in refused.value.message
    assert f"GRANT SELECT ON TABLE registry TO {demo_database.roles.restorer};" in str(refused.value.hint)
    assert rig.everything() == damaged


NODE = Shape(
    """
    CREATE TABLE s.node (code text UNIQUE, clinic_id int NOT NULL REFERENCES s.clinic, parent text REFERENCES s.node(code) ON DELETE SET NULL, v text);
    INSERT INTO s.node VALUES ('a', 1, NULL, 'a'), ('b', 1, 'a', 'b'), ('c', 1, 'b', 'c'), ('z', 2, NULL, 'z'), ('y', 2, 'z', 'y')
    """,
    {"node": OWN},
)


@pytest.mark.parametrize(
    "after", ["DELETE FROM s.node WHERE code = 'a'", "UPDATE s.node SET parent = NULL WHERE code = 'b'"]
)
def test_planning_ends_where_a_table_without_a_key_refers_to_itself(
    demo_database: DemoDatabase, tmp_path: Path, after: str
) -> None:
    rig = NODE.rig(demo_database, tmp_path)
    record = rig.run(1)
    rig.execute(after)
    found: list[RestorePlan] = []
    planning = threading.Thread(target=lambda: found.append(rig.plan(record)), daemon=True)
    planning.start()
    planning.join(30)
    if planning.is_alive():
        rig.execute(
            f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = '{demo_database.roles.restorer}'"
        )
    assert len(found) == 1


NOBODYS = {
    "one's own": ("SET NULL", "", "DELETE FROM s.doctor WHERE id = 1"),
    "one's own, and another clinic's": ("SET NULL", "", "DELETE FROM s.doctor WHERE id IN (1, 3)"),
    "another clinic's alone": ("SET NULL", "", "DELETE FROM s.call WHERE doctor_id = 1; DELETE FROM s.doctor WHERE id = 3"),
    "and one's own doctor is gone": ("SET NULL", "", "DELETE FROM s.call WHERE doctor_id = 1; DELETE FROM s.doctor WHERE id IN (1, 3)"),
    "it was nobody's before": ("CASCADE", ", (NULL, 'a')", "DELETE FROM s.doctor WHERE id = 1"),
    "and nothing cascades": ("NO ACTION", ", (NULL, 'a')", "DELETE FROM s.call WHERE doctor_id = 1; DELETE FROM s.doctor WHERE id = 1"),
}  # fmt: skip


@pytest.mark.parametrize("mode", ["exact", "missing", "live"])
@pytest.mark.parametrize("name", NOBODYS)
def test_a_row_without_a_key_that_lost_its_way_stays_and_the_clinics_row_comes_back_beside_it(
    demo_database: DemoDatabase, tmp_path: Path, mode: Any, name: str
) -> None:
    on_delete, more, after = NOBODYS[name]
    shape = Shape(
        f"""
        CREATE TABLE s.doctor (id int PRIMARY KEY, clinic_id int NOT NULL REFERENCES s.clinic);
        CREATE TABLE s.call (doctor_id int REFERENCES s.doctor ON DELETE {on_delete}, why text);
        INSERT INTO s.doctor VALUES (1, 1), (2, 1), (3, 2);
        INSERT INTO s.call VALUES (1, 'a'), (2, 'b'), (3, 'a') {more}
        """,
        {"doctor": OWN, "call": f"doctor_id IN {DOCTORS}"},
    )
    rig = shape.rig(demo_database, tmp_path)
    rig.allow_gaps = True
    record = rig.run(1)
    rig.execute(after)
    damaged, plan = rig.everything(), rig.plan(record, mode=mode)
    assert "without a link to a clinic" in str(plan.tables)
    saved = restored(rig, record, plan, mode=mode)
    assert rig.everything()["s.call"] == sorted([*damaged["s.call"], "(1,a)"])
    assert rig.plan(record, mode=mode).writes == 0
    # Another clinic loses an equal row before the undo: that changes nothing for either.
    rig.execute("UPDATE s.call SET doctor_id = NULL WHERE doctor_id = 3", "DELETE FROM s.doctor WHERE id = 3")
    lost = rig.everything()
    assert saved is not None
    restored(rig, saved)
    left = list(lost["s.call"])
    left.remove("(1,a)")
    assert rig.everything()["s.call"] == left


def test_an_undo_does_not_take_a_row_that_lost_its_clinic_for_its_own(
    demo_database: DemoDatabase, tmp_path: Path
) -> None:
    rig = ORPHAN.rig(demo_database, tmp_path)
    record = rig.run(1)
    rig.execute("DELETE FROM s.doctor WHERE id = 1")
    saved = restored(rig, record)
    rig.execute(
        "DELETE FROM s.visit WHERE id = 1; INSERT INTO s.visit VALUES (1, 4, 'secret'); DELETE FROM s.doctor WHERE id = 4"
    )
    now = rig.everything()
    assert saved is not None
    assert LOST in str(rig.plan(saved).refusals)
    assert rig.everything() == now


def test_a_row_without_a_key_that_is_left_out_stands_beside_what_comes_back_and_the_plan_says_so(
    demo_database: DemoDatabase, tmp_path: Path
) -> None:
    shape = Shape(
        "CREATE TABLE s.m (k int, clinic_id int NOT NULL REFERENCES s.clinic, gone boolean NOT NULL DEFAULT false); INSERT INTO s.m VALUES (1, 1), (2, 1), (3, 2)",
        {"m": f"{OWN} AND NOT gone"},
        "s.m: rows, not the gone\n",
    )
    rig = shape.rig(demo_database, tmp_path)
    record = rig.run(1)
    rig.execute("UPDATE s.m SET gone = true WHERE k = 1")
    plan = rig.plan(record)
    assert "1 row that comes back may be inserted beside other versions of the same rows" in str(plan.tables)
    restored(rig, record, plan)
    assert rig.everything()["s.m"] == ["(1,1,f)", "(1,1,t)", "(2,1,f)", "(3,2,f)"]
