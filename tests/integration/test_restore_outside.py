"""Rows of a clinic that its extracts do not return now: left out on purpose, without a link to it, or given away."""

# ruff: noqa: E501 - a case reads best in one line

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from clinic_backups.archive.manifest_checks import chosen_of
from clinic_backups.base.backup_record import BackupRecord
from clinic_backups.base.clinic import Clinic
from clinic_backups.restore.plan import RestorePlan
from clinic_backups.restore.request import Wish
from clinic_backups.restore.safety import SafetyBackup
from tests.postgres_fixtures import DemoDatabase
from tests.shapes import Shaped, shaped

OWN = "clinic_id = {{ clinic_id }}"


def restored(rig: Shaped, record: BackupRecord, plan: RestorePlan | None = None, **wish: Any) -> BackupRecord | None:
    """Plan and apply as a person does, with the safety backup; returns it."""
    plan = plan or rig.plan(record, **wish)
    assert plan.refusals == ()
    restore = rig.restore()
    safety = SafetyBackup(
        settings=rig.settings, backup=rig.backup(clinic_db=restore.database), restore_db=restore.database
    )
    saved: list[BackupRecord | None] = []
    with rig.catalog.lock(record.clinic_id) as lock:

        def save(*seen: Any) -> None:
            saved.append(
                safety.take(
                    Clinic(record.clinic_id, record.clinic_name),
                    *seen,
                    of=record.backup_id,
                    requested_by="x",
                    lock=lock,
                )
            )

        restore.apply(rig.source(record), Wish(**wish), approved=plan.digest, plan=plan, save=save)
    return saved[0] if saved else None


VISITS = """
    CREATE TABLE s.since (day date); INSERT INTO s.since VALUES ('2020-01-01');
    CREATE TABLE s.visit (id int PRIMARY KEY, clinic_id int NOT NULL REFERENCES s.clinic, day date NOT NULL, gone boolean NOT NULL DEFAULT false, code text UNIQUE);
    CREATE TABLE s.note (id int PRIMARY KEY, visit_id int REFERENCES s.visit ON DELETE SET NULL, gone boolean NOT NULL DEFAULT false, v text);
    CREATE TABLE s.log (clinic_id int NOT NULL REFERENCES s.clinic, day date NOT NULL, v text);
    INSERT INTO s.visit SELECT k, 1 + (k - 1) / 5, date '2020-06-01' + k, false, 'c' || k FROM generate_series(1, 10) AS k;
    INSERT INTO s.note SELECT k, k, false, 'n' || k FROM generate_series(1, 10) AS k;
    INSERT INTO s.log SELECT 1 + (k - 1) / 5, date '2020-06-01' + k / 2, 'l' FROM generate_series(1, 10) AS k
"""
YOUNG = "NOT gone AND day > (SELECT max(day) FROM s.since)"
VISIT_EXTRACTS = {
    "visit": f"{OWN} AND {YOUNG}",
    "note": f"NOT t.gone AND EXISTS (SELECT FROM s.visit v WHERE v.id = t.visit_id AND {OWN})",
    "log": f"{OWN} AND day > (SELECT max(day) FROM s.since)",
}
VISIT_LISTS = (
    "s.since: shared, when rows are too old\ns.visit: rows, only the young\ns.note: rows, not what is gone\n"
    "s.log: rows, only the young\n"
)
AGED = "UPDATE s.since SET day = '2020-06-03'"
"""Two visits, their notes' parents, and some of the log are too old now."""


@pytest.fixture
def visits(demo_database: DemoDatabase, tmp_path: Path) -> Shaped:
    return shaped(demo_database, tmp_path, VISITS, VISIT_EXTRACTS, lists=VISIT_LISTS)


@dataclass(frozen=True)
class LeftOut:
    """``stays``: rows that a restore has brought back, and that its undo does not see. ``only``: these tables."""

    after: str
    stays: bool = False
    says: str = ""
    only: tuple[str, ...] = ()


LEFT_OUT = {
    "aged": LeftOut(AGED),
    "aged, beside other damage": LeftOut(f"{AGED}; UPDATE s.visit SET code = 'x' WHERE id = 5; DELETE FROM s.note WHERE id = 4"),
    "aged, and their children are gone": LeftOut(f"{AGED}; DELETE FROM s.note WHERE id < 3"),
    "aged and changed": LeftOut(f"{AGED}; UPDATE s.visit SET code = 'x' WHERE id = 1"),
    "aged and deleted": LeftOut(f"{AGED}; DELETE FROM s.note WHERE id = 1; DELETE FROM s.visit WHERE id = 1", stays=True),
    "soft-deleted": LeftOut("UPDATE s.visit SET gone = true WHERE id = 1"),
    "soft-deleted and changed": LeftOut("UPDATE s.visit SET gone = true, code = 'x' WHERE id = 1"),
    "soft-deleted with its child": LeftOut("UPDATE s.visit SET gone = true WHERE id = 1; UPDATE s.note SET gone = true, v = 'x' WHERE id = 1"),
    "soft-deleted without its way": LeftOut("UPDATE s.note SET gone = true, visit_id = NULL WHERE id = 1", says="1 rows of s.note have keys of the backup's rows and have lost their clinic"),
    "without its way": LeftOut("UPDATE s.note SET visit_id = NULL WHERE id = 1"),
    "soft-deleted child alone": LeftOut("UPDATE s.note SET gone = true WHERE id IN (1, 2)", only=("s.note",)),
    "every one soft-deleted": LeftOut("UPDATE s.visit SET gone = true WHERE clinic_id = 1; UPDATE s.note SET gone = true WHERE id < 6"),
    "some lines of a log aged": LeftOut(f"{AGED}; DELETE FROM s.log WHERE ctid IN (SELECT ctid FROM s.log WHERE day = '2020-06-01')", stays=True),
    "a key that is another clinic's now": LeftOut("UPDATE s.visit SET gone = true, clinic_id = 2 WHERE id = 1", says="1 rows of the backup have keys in s.visit"),
    "a unique value that is a left-out row's": LeftOut("DELETE FROM s.note WHERE id = 1; DELETE FROM s.visit WHERE id = 1; INSERT INTO s.visit VALUES (77, 1, '2020-07-01', true, 'c1')", says="1 rows of the backup have unique values in s.visit"),
    "a left-out child of a row that goes": LeftOut("INSERT INTO s.visit VALUES (77, 1, '2020-07-01', false, 'n'); INSERT INTO s.note VALUES (77, 77, true, 'n')", says="1 rows of s.note refer to rows of s.visit"),
}  # fmt: skip


@pytest.mark.parametrize(
    ("mode", "name"),
    [
        *(("exact", name) for name in LEFT_OUT),
        ("missing", "aged and changed"),
        ("missing", "aged and deleted"),
        ("missing", "soft-deleted with its child"),
    ],
)
def test_rows_that_an_extract_leaves_out_are_the_clinics_own(visits: Shaped, mode: str, name: str) -> None:
    record, case = visits.run(1), LEFT_OUT[name]
    before = visits.everything()
    visits.execute(case.after)
    damaged = visits.everything()
    plan = visits.plan(record, mode=mode, tables=case.only)
    if case.says and mode == "exact":
        assert case.says in str(plan.refusals)
    if plan.refusals:
        assert case.says and visits.everything() == damaged
        return
    assert ("restoring the safety backup does not remove them" in str(plan.tables)) == case.stays
    saved = restored(visits, record, plan, mode=mode, tables=case.only)
    done = visits.everything()
    if mode == "missing":
        assert all(set(rows) >= set(damaged[name]) for name, rows in done.items())
    else:
        assert done | {"s.since": []} == before | {"s.since": []}
        assert visits.plan(record, tables=case.only).writes == 0
    if saved is None:
        assert done == damaged
        return
    again = restored(visits, saved, tables=case.only)
    assert (visits.everything() == damaged) != case.stays
    assert visits.plan(saved, tables=case.only).writes == 0
    if again is not None and not case.stays:
        restored(visits, again, tables=case.only)
        assert visits.everything() == done


LOST = """
    CREATE TABLE s.doctor (id int PRIMARY KEY, clinic_id int REFERENCES s.clinic ON DELETE SET NULL, name text);
    CREATE TABLE s.shift (id int PRIMARY KEY, clinic_id int REFERENCES s.clinic, doctor_id int REFERENCES s.doctor ON DELETE SET NULL, v text);
    CREATE TABLE s.call (doctor_id int REFERENCES s.doctor ON DELETE SET NULL, why text);
    CREATE TABLE s.line (shift_id int REFERENCES s.shift, why text);
    INSERT INTO s.doctor VALUES (1, 1, 'a'), (2, 1, 'b'), (3, 2, 'c');
    INSERT INTO s.shift VALUES (1, 1, 1, 'x'), (2, NULL, 1, 'y'), (3, NULL, 2, 'z'), (4, 2, 3, 'w');
    INSERT INTO s.call VALUES (1, 'a'), (1, 'a'), (1, 'b'), (2, 'c'), (3, 'd');
    INSERT INTO s.line VALUES (1, 'a'), (2, 'b'), (2, 'b'), (4, 'd')
"""
DOCTORS = f"(SELECT id FROM s.doctor WHERE {OWN})"
LOST_EXTRACTS = {
    "doctor": OWN,
    "shift": f"doctor_id IN {DOCTORS}",
    "call": f"doctor_id IN {DOCTORS}",
    "line": f"shift_id IN (SELECT id FROM s.shift WHERE doctor_id IN {DOCTORS})",
}


@pytest.mark.parametrize(
    "after",
    [
        "UPDATE s.shift SET doctor_id = NULL WHERE id = 2",
        "DELETE FROM s.doctor WHERE id = 1",
        "UPDATE s.doctor SET clinic_id = NULL WHERE clinic_id = 1",
    ],
)
def test_an_undo_takes_back_what_rows_without_a_clinic_got(
    demo_database: DemoDatabase, tmp_path: Path, after: str
) -> None:
    rig = shaped(demo_database, tmp_path, LOST, LOST_EXTRACTS, lists="s.shift.clinic_id: an old way\n")
    record = rig.run(1)
    before = rig.everything()
    rig.execute(after)
    damaged = rig.everything()
    # Without a key nobody knows them again: they stay, and the clinic's come back beside them.
    nobodys = [row for row in damaged["s.call"] if row.startswith("(,")]
    done = before | {"s.call": sorted([*before["s.call"], *nobodys])}
    saved = restored(rig, record)
    assert rig.everything() == done
    assert saved is not None
    again = restored(rig, saved)
    assert rig.everything() == damaged
    assert rig.plan(saved).writes == 0
    assert again is not None
    restored(rig, again)
    assert rig.everything() == done


TOUCHES = "CREATE FUNCTION s.touch() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN {does}; RETURN NEW; END$$; CREATE TRIGGER touch {when} ON s.t FOR EACH ROW EXECUTE FUNCTION s.touch()"


ONE = "UPDATE s.t SET v = 'x' WHERE id = 1"
SWAPPED = f"{ONE}; UPDATE s.t SET v = 'a' WHERE id = 2; UPDATE s.t SET v = 'b' WHERE id = 1"
"""Rows that are written by deleting and inserting them."""


@pytest.mark.parametrize(
    ("after", "does", "when", "changed"),
    [
        (ONE, "NEW.note = 'touched'", "BEFORE UPDATE", True),
        (ONE, "NEW.at = NEW.at + 1", "BEFORE UPDATE OF v", True),
        (ONE, "NEW.note = OLD.note", "BEFORE UPDATE", False),
        (SWAPPED, "NEW.note = NULL; NEW.at = NULL", "BEFORE INSERT OR UPDATE", True),
        (SWAPPED, "NEW.at = 7", "BEFORE UPDATE", False),
    ],
)
def test_a_trigger_that_changes_columns_which_the_backup_lacks_is_noticed(
    demo_database: DemoDatabase, tmp_path: Path, after: str, does: str, when: str, changed: bool
) -> None:
    rig = shaped(
        demo_database, tmp_path,
        "CREATE TABLE s.t (id int PRIMARY KEY, clinic_id int NOT NULL REFERENCES s.clinic, v text UNIQUE);"
        "INSERT INTO s.t VALUES (1, 1, 'a'), (2, 1, 'b'), (3, 2, 'c')",
        {"t": OWN},
    )  # fmt: skip
    record = rig.run(1)
    rig.execute(
        "ALTER TABLE s.t ADD COLUMN note text, ADD COLUMN at int DEFAULT 1",
        "UPDATE s.t SET note = 'k' || id, at = id",
        after,
        TOUCHES.format(does=does, when=when),
    )
    damaged, plan = rig.everything(), rig.plan(record)
    if changed:
        assert "would not keep the values of columns that the backup does not have: note, at" in str(plan.refusals)
        assert rig.everything() == damaged
        return
    assert plan.refusals == ()
    rig.restore().apply(rig.source(record), Wish(), approved=plan.digest)
    assert rig.execute_rows("SELECT v, note, at FROM s.t ORDER BY id") == [
        ("a", "k1", 1),
        ("b", "k2", 2),
        ("c", "k3", 3),
    ]


GIVEN_AWAY = """
    CREATE TABLE s.patient (id int PRIMARY KEY, clinic_id int NOT NULL REFERENCES s.clinic, v text);
    CREATE TABLE s.visit (id int PRIMARY KEY, patient_id int NOT NULL REFERENCES s.patient, v text);
    CREATE TABLE s.bill (id int PRIMARY KEY, visit_id int NOT NULL REFERENCES s.visit, v text);
    CREATE TABLE s.line (visit_id int NOT NULL REFERENCES s.visit, v text);
    INSERT INTO s.patient VALUES (1, 1, 'a'), (2, 1, 'b'), (3, 2, 'c');
    INSERT INTO s.visit VALUES (1, 1, 'a'), (2, 2, 'b'), (3, 3, 'c');
    INSERT INTO s.bill VALUES (1, 1, 'a'), (2, 2, 'b'), (3, 3, 'c');
    INSERT INTO s.line VALUES (1, 'a'), (2, 'b'), (3, 'c')
"""
PATIENTS = f"SELECT id FROM s.patient WHERE {OWN}"
AWAY_EXTRACTS = {
    "patient": OWN,
    "visit": f"patient_id IN ({PATIENTS})",
    "bill": f"visit_id IN (SELECT id FROM s.visit WHERE patient_id IN ({PATIENTS}))",
    "line": f"visit_id IN (SELECT id FROM s.visit WHERE patient_id IN ({PATIENTS}))",
}
GIVEN = "UPDATE s.patient SET clinic_id = 2 WHERE id = 1"


@pytest.fixture
def away(demo_database: DemoDatabase, tmp_path: Path) -> Shaped:
    return shaped(demo_database, tmp_path, GIVEN_AWAY, AWAY_EXTRACTS)


@pytest.mark.parametrize(
    ("mode", "tables"),
    [("exact", ()), ("exact", ("s.line",)), ("missing", ("s.visit", "s.bill", "s.line")), ("live", ("s.bill",))],
)
def test_a_parent_that_is_another_clinics_now_is_a_refusal_by_name(
    away: Shaped, mode: str, tables: tuple[str, ...]
) -> None:
    record = away.run(1)
    away.execute(
        "DELETE FROM s.line WHERE visit_id < 3",
        "DELETE FROM s.bill WHERE id = 1",
        "UPDATE s.bill SET v = 'x' WHERE id = 2",
        GIVEN,
    )
    damaged, plan = away.everything(), away.plan(record, mode=mode, tables=tables)
    said = " ".join(refusal.message for refusal in plan.refusals)
    assert "outside of this clinic" in said or "to another clinic" in said
    assert "rehearsal" not in said
    assert away.everything() == damaged


@pytest.mark.parametrize("tables", [(), ("s.bill", "s.line")])
@pytest.mark.parametrize("meanwhile", [GIVEN, "UPDATE s.visit SET patient_id = 3 WHERE id = 1"])
def test_live_leaves_what_belongs_to_a_parent_that_was_given_away(
    away: Shaped, tables: tuple[str, ...], meanwhile: str
) -> None:
    record = away.run(1)
    away.execute(
        "DELETE FROM s.line WHERE visit_id < 3", "DELETE FROM s.bill WHERE id = 1", "UPDATE s.bill SET v = 'x' WHERE id = 2",
        "UPDATE s.patient SET v = 'x' WHERE clinic_id = 1",
    )  # fmt: skip
    plan = away.plan(record, mode="live", tables=tables)
    away.execute(meanwhile)
    now = away.everything()
    away.restore().apply(away.source(record), Wish(mode="live", tables=tables), approved=plan.digest, plan=plan)
    done = away.everything()
    assert done["s.bill"] == ["(2,2,b)", "(3,3,c)"]
    assert done["s.visit"] == now["s.visit"]
    assert "(1,1,a)" not in done["s.line"]


CHAIN = """
    CREATE TABLE s.a (id int PRIMARY KEY, clinic_id int REFERENCES s.clinic);
    CREATE TABLE s.b (id int PRIMARY KEY, a_id int REFERENCES s.a ON DELETE SET NULL);
    CREATE TABLE s.c (id int GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY, b_id int REFERENCES s.b ON DELETE SET NULL, v text);
    CREATE TABLE s.d (id int PRIMARY KEY, c_id int REFERENCES s.c ON DELETE SET NULL, v text);
    INSERT INTO s.a SELECT k, 1 + k % 2 FROM generate_series(1, 4) AS k; INSERT INTO s.b SELECT k, k FROM generate_series(1, 4) AS k;
    INSERT INTO s.c (b_id, v) SELECT k, 'c' FROM generate_series(1, 4) AS k; INSERT INTO s.d SELECT k, k, 'd' FROM generate_series(1, 4) AS k
"""
OF_A = f"a_id IN (SELECT id FROM s.a WHERE {OWN})"
OF_B = f"b_id IN (SELECT id FROM s.b WHERE {OF_A})"
CHAINED = {"a": OWN, "b": OF_A, "c": OF_B, "d": f"c_id IN (SELECT id FROM s.c WHERE {OF_B})"}


@pytest.mark.parametrize("renamed", [False, True])
def test_the_safety_backup_of_a_restore_of_some_tables_says_which_it_takes_back(
    demo_database: DemoDatabase, tmp_path: Path, renamed: bool
) -> None:
    """Without the catalog too: the archive itself knows it, and its own safety backup does."""
    lasting = "s.c: lasting keys, an identity\n"
    rig = shaped(demo_database, tmp_path, CHAIN, CHAINED, owner=True, lists=lasting)
    record = rig.run(1)
    rig.execute("DELETE FROM s.b WHERE id IN (1, 2)", "UPDATE s.c SET v = 'x'")
    damaged, tables, name = rig.everything(), ("s.b", "s.c"), "s.c"
    safety = restored(rig, record, tables=tables)
    assert safety is not None
    if renamed:
        rig.execute("ALTER TABLE s.c RENAME TO e")
        extracts = rig.settings.sql_dir / "extract"
        (extracts / "s.c.sql").rename(extracts / "s.e.sql")
        for name in ("s.e", "s.d"):
            path = extracts / f"{name}.sql"
            path.write_text(path.read_text().replace("s.c ", "s.e "))
        (rig.settings.sql_dir / "drift.txt").write_text("s.c -> s.e\n")
        (rig.settings.sql_dir / "not_backed_up.txt").write_text(lasting.replace("s.c", "s.e"))
        name = "s.e"
    done, plan = rig.everything(), rig.plan(safety)
    assert {table.table for table in plan.tables} == {"s.b", name}
    assert f"before a restore of s.b, {name}: only that is taken back" in " ".join(plan.notes)
    again = restored(rig, safety, plan)
    assert {key: rows for key, rows in rig.everything().items() if key != name} == {
        key: rows for key, rows in damaged.items() if key != "s.c"
    }
    assert rig.everything()[name] == damaged["s.c"]
    assert again is not None
    restored(rig, again)
    assert rig.everything() == done


@pytest.mark.parametrize("chosen", ["s.a", ["s.gone"], ["s.a", "s.a"], [1], None])
def test_a_manifest_that_chooses_what_is_not_there_is_refused(chosen: Any) -> None:
    with pytest.raises((TypeError, ValueError)):
        chosen_of(chosen, ["s.a", "s.b"])
