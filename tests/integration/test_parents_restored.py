"""Parent tables in restores: missing rows are inserted, and no row is changed or deleted, whatever the mode is."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from clinic_backups.archive import writer
from clinic_backups.base import connections
from clinic_backups.base.backup_record import BackupRecord
from clinic_backups.base.clinic import Clinic
from clinic_backups.base.errors import IntegrityError
from clinic_backups.restore.clinic_restore import ClinicChanged
from clinic_backups.restore.plan import RestorePlan, TablePlan
from clinic_backups.restore.plan_text import as_lines, as_markdown
from clinic_backups.restore.request import Wish
from clinic_backups.restore.safety import SafetyBackup
from clinic_backups.restore.seals import Seals
from tests.parents import EXTRACTS, LISTS, OWN, PARENTS, USERS, set_parents, with_parents
from tests.postgres_fixtures import DemoDatabase, copy_of
from tests.shapes import Shaped

KEPT = "This is a parent table: only missing rows are inserted. Rows that are there are kept as they are."
GONE = (
    "DELETE FROM s.clinic WHERE id = 1",
    "DELETE FROM s.auth_user AS u WHERE username <> 'boss' AND NOT EXISTS (SELECT FROM s.staff WHERE user_id = u.id)",
    "DELETE FROM s.picture WHERE NOT EXISTS (SELECT FROM s.auth_user WHERE picture_id = picture.id)",
)
"""Clinic 1 goes, and with it those of its users that nobody else has."""


def of(plan: RestorePlan, table: str) -> TablePlan:
    return next(each for each in plan.tables if each.table == f"s.{table}")


def counts(plan: RestorePlan) -> dict[str, tuple[int, int, int]]:
    return {each.table.removeprefix("s."): (each.insert, each.update, each.delete) for each in plan.tables}


def unlike(before: dict[str, list[str]], after: dict[str, list[str]]) -> dict[str, tuple[list[str], list[str]]]:
    """By table, the rows that only one side has."""
    return {
        name: (sorted({*before[name]} - {*after[name]}), sorted({*after[name]} - {*before[name]}))
        for name in before
        if before[name] != after[name]
    }


@pytest.mark.parametrize("mode", ["exact", "missing"])
def test_a_clinic_comes_back_with_its_users(demo_database: DemoDatabase, tmp_path: Path, mode: Any) -> None:
    rig = with_parents(demo_database, tmp_path)
    backups = {clinic: rig.run(clinic) for clinic in (1, 2)}
    before = rig.everything()
    rig.execute(*GONE, "SELECT setval('s.auth_user_id_seq', 1)")
    assert len(rig.everything()["s.auth_user"]) == 3
    plan = rig.bring_back(backups[1], mode=mode)
    # The user of both clinics lost nothing. The one of nobody is not clinic 1's to bring back, nor is its picture.
    after = rig.everything()
    assert unlike(before, after) == {
        "s.auth_user": (["(14,stranger,,4,,)"], []),
        "s.picture": (["(4,nobody.png)"], []),
    }
    assert counts(plan) == {
        "clinic": (1, 0, 0), "staff": (2, 0, 0), "membership": (1, 0, 0), "auth_user": (1, 0, 0), "picture": (1, 0, 0)
    }  # fmt: skip
    assert {each.table: each.is_parent for each in plan.tables if each.is_parent} == {
        "s.auth_user": True, "s.picture": True
    }  # fmt: skip
    assert all(KEPT in of(plan, name).notes for name in ("auth_user", "picture"))
    assert rig.execute_rows("SELECT nextval('s.auth_user_id_seq') > 10") == [(True,)]
    assert rig.plan(backups[1], mode=mode).writes == 0 == rig.plan(backups[2], mode=mode).writes


def test_people_read_that_only_missing_rows_are_inserted(demo_database: DemoDatabase, tmp_path: Path) -> None:
    rig = with_parents(demo_database, tmp_path)
    record = rig.run(1)
    rig.execute(*GONE)
    plan = rig.plan(record)
    assert "\n".join(as_lines(plan)).count(KEPT) == 2
    assert as_markdown(plan, requested_by="ops", notes="").count("only missing rows are inserted") == 2
    assert [each["table"] for each in plan.to_json()["tables"] if each["is_parent"]] == ["s.auth_user", "s.picture"]


CHANGED = (
    "UPDATE s.auth_user SET mail = 'new@x', boss_id = NULL WHERE id IN (10, 11);"
    "INSERT INTO s.auth_user (id, username) VALUES (50, 'new')"
)


@pytest.mark.parametrize("mode", ["exact", "missing", "live"])
def test_users_that_were_changed_since_stay_changed(demo_database: DemoDatabase, tmp_path: Path, mode: Any) -> None:
    rig = with_parents(demo_database, tmp_path)
    record = rig.run(1)
    rig.execute(CHANGED, "UPDATE s.staff SET role = 'x' WHERE id = 100; DELETE FROM s.staff WHERE id = 101")
    before = rig.everything()
    plan = rig.plan(record, mode=mode)
    assert (of(plan, "auth_user").writes, plan.refusals) == (0, ())
    assert "2 rows differ from the backup. They are kept as they are." in of(plan, "auth_user").notes
    # Others go on changing users: that is no reason to plan again.
    rig.execute("UPDATE s.auth_user SET mail = 'newer@x' WHERE id IN (10, 13)")
    rig.restore().apply(rig.source(record), Wish(mode=mode), approved=plan.digest, plan=plan)
    after = rig.everything()
    assert [row for row in after["s.auth_user"] if "newer" not in row] == [
        row for row in before["s.auth_user"] if not row.startswith(("(10,", "(13,"))
    ]
    assert sum("newer" in row for row in after["s.auth_user"]) == 2
    assert len(after["s.staff"]) == 4


@pytest.mark.parametrize("mode", ["exact", "missing"])
def test_a_username_that_is_taken_is_refused(demo_database: DemoDatabase, tmp_path: Path, mode: Any) -> None:
    rig = with_parents(demo_database, tmp_path)
    record = rig.run(1)
    rig.execute(*GONE, "INSERT INTO s.auth_user (id, username) VALUES (60, 'ana')")
    plan = rig.plan(record, mode=mode)
    assert [refusal.table for refusal in plan.refusals] == ["s.auth_user"]
    assert plan.refusals[0].message == (
        "1 missing row of the parent table s.auth_user cannot be inserted, because other rows have the unique values"
        " now (auth_user_username_key)."
    )


def test_live_leaves_what_somebody_has_taken_meanwhile(demo_database: DemoDatabase, tmp_path: Path) -> None:
    rig = with_parents(demo_database, tmp_path)
    record = rig.run(1)
    rig.execute(*GONE)
    plan = rig.plan(record, mode="live")
    rig.execute("INSERT INTO s.auth_user (id, username) VALUES (60, 'ana')")
    done = rig.restore().apply(rig.source(record), Wish(mode="live"), approved=plan.digest, plan=plan)
    # Neither the user nor the row that needs it comes back, and everything else does.
    assert (of(done, "auth_user").insert, of(done, "staff").insert, of(done, "membership").insert) == (0, 1, 1)


def test_a_user_that_came_back_meanwhile_needs_a_new_plan(demo_database: DemoDatabase, tmp_path: Path) -> None:
    rig = with_parents(demo_database, tmp_path)
    record = rig.run(1)
    rig.execute(*GONE)
    plan = rig.plan(record)
    rig.execute("INSERT INTO s.auth_user (id, username) VALUES (10, 'someone')")
    with pytest.raises(ClinicChanged, match=r"has changed since the plan was made, in s\.auth_user"):
        rig.restore().apply(rig.source(record), Wish(), approved=plan.digest, plan=plan)
    assert of(rig.bring_back(record), "auth_user").insert == 0


LOST = (
    "1 row that comes back names in last_clinic_id a row of s.clinic that does not exist: NULL is written there,"
    " because not_backed_up.txt says that the column may name something outside of the backup."
)
EVERYTHING = (
    "UPDATE s.auth_user SET last_clinic_id = 3 - last_clinic_id",
    "DELETE FROM s.clinic; DELETE FROM s.auth_user; DELETE FROM s.picture",
)


@pytest.mark.parametrize("mode", ["exact", "live"])
def test_clinics_whose_users_name_each_other_come_back_one_by_one(
    demo_database: DemoDatabase, tmp_path: Path, mode: Any
) -> None:
    rig = with_parents(demo_database, tmp_path)
    rig.execute("DELETE FROM s.auth_user WHERE id = 14; DELETE FROM s.picture WHERE id = 4", EVERYTHING[0])
    backups, before = {clinic: rig.run(clinic) for clinic in (1, 2)}, rig.everything()
    rig.execute(EVERYTHING[1])
    plan = rig.plan(backups[1], mode=mode)
    assert of(plan, "auth_user").notes[1:] == (LOST,)
    for clinic in (1, 2):
        plan = rig.plan(backups[clinic], mode=mode)
        rig.restore().apply(rig.source(backups[clinic]), Wish(mode=mode), approved=plan.digest, plan=plan)
    # Ana's clinic was not there when she came back.
    assert unlike(before, rig.everything()) == {
        "s.auth_user": (["(10,ana,ana@x,1,13,2)"], ["(10,ana,ana@x,1,13,)"])
    }  # fmt: skip


@pytest.mark.parametrize("mode", ["exact", "live"])
def test_values_of_another_type_are_as_approved(demo_database: DemoDatabase, tmp_path: Path, mode: Any) -> None:
    """Their digest in the plan is of the values that are written: also of the NULL."""
    rig = with_parents(demo_database, tmp_path)
    rig.execute(EVERYTHING[0])
    record = rig.run(1)
    rig.execute("DELETE FROM s.clinic WHERE id = 2; DELETE FROM s.staff WHERE id = 100",
                "UPDATE s.auth_user SET boss_id = NULL; DELETE FROM s.auth_user WHERE id IN (10, 13)",
                "ALTER TABLE s.auth_user ALTER picture_id TYPE bigint")  # fmt: skip
    plan = rig.plan(record, mode=mode)
    assert LOST in of(plan, "auth_user").notes
    if mode == "live":
        rig.execute("INSERT INTO s.auth_user (id, username) VALUES (13, 'boss')")
    rig.restore().apply(rig.source(record), Wish(mode=mode), approved=plan.digest, plan=plan)
    assert rig.execute_rows("SELECT username, last_clinic_id FROM s.auth_user WHERE id = 10") == [("ana", None)]
    assert rig.execute_rows("SELECT count(*) FROM s.staff WHERE id = 100") == [(1,)]


def test_a_row_that_must_name_a_lost_clinic_is_refused(demo_database: DemoDatabase, tmp_path: Path) -> None:
    rig = with_parents(
        demo_database, tmp_path, more="DELETE FROM s.auth_user WHERE last_clinic_id IS NULL AND id = 14;"
        "UPDATE s.auth_user SET last_clinic_id = 2; ALTER TABLE s.auth_user ALTER last_clinic_id SET NOT NULL",
    )  # fmt: skip
    record = rig.run(1)
    rig.execute("DELETE FROM s.staff; DELETE FROM s.membership; DELETE FROM s.auth_user; DELETE FROM s.clinic")
    (refusal,) = rig.plan(record).refusals
    assert "3 rows of s.auth_user refer to rows of s.clinic that do not exist" in refusal.message


def test_a_row_that_a_user_names_is_not_deleted(demo_database: DemoDatabase, tmp_path: Path) -> None:
    """ON DELETE SET NULL would change the user."""
    rig = with_parents(
        demo_database, tmp_path, extracts=EXTRACTS | {"branch": OWN}, lists=LISTS + "s.auth_user.branch_id: any\n",
        more="CREATE TABLE s.branch (id int PRIMARY KEY, clinic_id int NOT NULL REFERENCES s.clinic ON DELETE CASCADE);"
        "ALTER TABLE s.auth_user ADD branch_id int REFERENCES s.branch ON DELETE SET NULL",
    )  # fmt: skip
    record = rig.run(1)
    rig.execute("INSERT INTO s.branch VALUES (5, 1); UPDATE s.auth_user SET branch_id = 5 WHERE id = 12")
    (refusal,) = rig.plan(record).refusals
    assert "1 rows of s.auth_user refer to rows of s.branch that the restore would delete" in refusal.message


def test_the_undo_leaves_the_users_that_came_back(demo_database: DemoDatabase, tmp_path: Path) -> None:
    """The undo is the restore of the safety backup, which holds the parents that it saw."""
    rig = with_parents(demo_database, tmp_path)
    record = rig.run(1)
    rig.execute("DELETE FROM s.staff WHERE id = 100; DELETE FROM s.auth_user WHERE id = 10")
    before, saved = rig.everything(), []
    plan = rig.plan(record)
    rig.restore().apply(
        rig.source(record), Wish(), approved=plan.digest, save=lambda present: saved.append(take(rig, record, present))
    )
    assert saved[0].rows["s.auth_user"] == 1
    assert saved[0].rows["s.staff"] == 1
    undone = rig.restore().plan(replace(rig.source(saved[0]), is_undo=True), Wish())
    assert undone.notes == (
        "This undoes a restore. Rows of parent tables that the restore inserted stay: other clinics may refer to them"
        " by now.",
    )
    rig.bring_back(saved[0])
    assert unlike(before, rig.everything()) == {"s.auth_user": ([], ["(10,ana,ana@x,1,13,1)"])}


def take(rig: Shaped, record: BackupRecord, present: Any) -> BackupRecord:
    """The safety backup of what a restore saw."""
    restorer = connections.parse("restore_db", rig.database.restorer_uri)
    safety = SafetyBackup(settings=rig.settings, backup=rig.backup(clinic_db=restorer), restore_db=restorer)
    with rig.catalog.lock(record.clinic_id) as lock:
        taken = safety.take(Clinic(1, "uno"), present, of=record.backup_id, requested_by="ops", lock=lock)
    assert taken is not None
    return taken


ORDINARY = "SELECT u.* FROM s.auth_user AS u WHERE u.home_id = {{ clinic_id }}"
HOME = """
    ALTER TABLE s.auth_user ADD home_id int REFERENCES s.clinic;
    UPDATE s.auth_user SET home_id = CASE WHEN id < 12 THEN 1 ELSE 2 END, boss_id = NULL
"""


@pytest.mark.parametrize("then_parent", [False, True])
def test_a_table_of_another_class_in_the_backup_is_only_filled(
    demo_database: DemoDatabase, tmp_path: Path, then_parent: bool
) -> None:
    """An older backup in which it was the clinic's own table, and the reverse: either side is enough."""
    lists = LISTS + "s.auth_user.home_id: any clinic\ns.staff.user_id: of any clinic\ns.membership.user_id: of any\n"
    own, parent = ({"auth_user": ORDINARY}, {"picture": PARENTS["picture"].replace(USERS, ORDINARY)}), ({}, PARENTS)
    before, after = (parent, own) if then_parent else (own, parent)
    rig = with_parents(demo_database, tmp_path, before[1], EXTRACTS | before[0], lists=lists, more=HOME)
    record = rig.run(1)
    classes = {table["name"] for table in rig.open(record).manifest["tables"] if table.get("class") == "parent"}
    assert ("s.auth_user" in classes) is then_parent
    extract = rig.settings.sql_dir / "extract" / "s.auth_user.sql"
    extract.unlink(missing_ok=True)
    if "auth_user" in after[0]:
        extract.write_text(after[0]["auth_user"])
    set_parents(rig, after[1])
    rig.execute(
        "INSERT INTO s.auth_user (id, username, home_id) VALUES (70, 'later', 1)",
        "UPDATE s.auth_user SET mail = 'changed' WHERE id = 11",
        "DELETE FROM s.staff WHERE user_id = 10; DELETE FROM s.auth_user WHERE id = 10",
    )
    plan = rig.bring_back(record)
    assert (of(plan, "auth_user").insert, of(plan, "auth_user").update, of(plan, "auth_user").delete) == (1, 0, 0)
    said = " ".join(of(plan, "auth_user").notes)
    assert ("Only the backup says that it is a parent table" in said) is then_parent
    assert ("In the backup it was a table of the clinic" in said) is not then_parent
    found = {row.split(",")[0]: row for row in rig.everything()["s.auth_user"]}
    assert (found["(10"], "changed" in found["(11"], "(70" in found) == ("(10,ana,ana@x,1,,1,1)", True, True)


@contextmanager
def forged(monkeypatch: pytest.MonkeyPatch, parents: Callable[[str], bool]) -> Iterator[None]:
    """Archives whose manifest gives the tables another class than the SQL folder does."""
    real = writer.manifest_chunks

    def chunks(*described: Any) -> Iterator[bytes]:
        *rest, _, files = described
        return real(*rest, [name for name in described[3] if parents(name)], files)

    with monkeypatch.context() as patch:
        patch.setattr(writer, "manifest_chunks", chunks)
        yield


def test_a_manifest_cannot_make_a_restore_change_parents(
    demo_database: DemoDatabase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rig = with_parents(demo_database, tmp_path)
    with forged(monkeypatch, lambda name: False):
        record = rig.run(1)
    assert not any("class" in table for table in rig.open(record).manifest["tables"])
    rig.execute(CHANGED)
    before = rig.everything()
    plan = rig.bring_back(record)
    assert (of(plan, "auth_user").writes, of(plan, "auth_user").is_parent) == (0, True)
    assert rig.everything() == before


def test_a_manifest_cannot_hide_a_table_from_the_proof_in_silence(
    demo_database: DemoDatabase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rig = with_parents(demo_database, tmp_path)
    with forged(monkeypatch, lambda name: name == "s.staff" or name in ("s.auth_user", "s.picture")):
        record = rig.run(1)
    rig.execute("UPDATE s.staff SET role = 'forged' WHERE id = 100; DELETE FROM s.staff WHERE id = 101")
    plan = rig.bring_back(record)
    notes = " ".join(of(plan, "staff").notes)
    assert "Only the backup says that it is a parent table; now it has an extract." in notes
    assert "the restore of this table is not exact" in notes
    assert "1 row differs from the backup. It is kept as it is." in notes
    assert rig.execute_rows("SELECT id, role FROM s.staff WHERE clinic_id = 1 ORDER BY 1") == [
        (100, "forged"), (101, "nurse")
    ]  # fmt: skip


def test_a_manifest_cannot_put_rows_into_another_clinic(
    demo_database: DemoDatabase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rig = with_parents(demo_database, tmp_path)
    extract = rig.settings.sql_dir / "extract" / "s.staff.sql"
    right, rig.allow_gaps = extract.read_text(), True
    extract.write_text("SELECT * FROM s.staff WHERE {{ clinic_id }} > 0")
    with forged(monkeypatch, lambda name: name.startswith(("s.staff", "s.auth", "s.pic"))):
        record = rig.run(1)
    extract.write_text(right)
    rig.execute("DELETE FROM s.staff WHERE id IN (100, 102)")
    before = rig.everything()
    (refusal,) = rig.plan(record).refusals
    assert "s.staff would not be what the backup holds: 1 rows are missing" in refusal.message
    assert rig.everything() == before


def test_in_another_database_the_kept_rows_are_pointed_out(demo_database: DemoDatabase, tmp_path: Path) -> None:
    rig = with_parents(demo_database, tmp_path)
    record = rig.run(1)
    rig.catalog.database._engine.dispose()
    with copy_of(demo_database) as copy:
        rig.use(copy)
        plan = rig.plan(record, other_database=True)
    assert (
        "Rows of s.auth_user, s.picture that are there are kept, and in another database a key may belong to another"
        " row. Compare them before you approve."
    ) in plan.notes


@pytest.mark.parametrize("class_", ["shared", None, 1])
def test_a_manifest_with_an_unknown_class_is_not_read(
    demo_database: DemoDatabase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, class_: object
) -> None:
    rig = with_parents(demo_database, tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(writer, "PARENT", class_)
        record = rig.run(1)
    with pytest.raises(IntegrityError, match=r"whose class of 's\.auth_user' is not valid"):
        rig.plan(record)


MEDDLES = """
    CREATE FUNCTION s.meddle () RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS
    $$ BEGIN {does}; RETURN NEW; END $$;
    CREATE TRIGGER meddle BEFORE INSERT ON s.{table} FOR EACH ROW EXECUTE FUNCTION s.meddle ();
    ALTER TABLE s.{table} ENABLE ALWAYS TRIGGER meddle;
    GRANT EXECUTE ON FUNCTION s.meddle TO PUBLIC
"""


@pytest.mark.parametrize(
    ("table", "does", "says"),
    [
        ("staff", "UPDATE s.auth_user SET mail = 'meddled' WHERE id = 11", "s.auth_user: update touched"),
        ("staff", "DELETE FROM s.picture WHERE id = 4", "s.picture: delete touched"),
        ("auth_user", "NEW.mail := 'meddled'", "s.auth_user would not hold the backup's rows"),
    ],
)
def test_code_that_changes_parents_undoes_the_restore(
    demo_database: DemoDatabase, tmp_path: Path, table: str, does: str, says: str
) -> None:
    rig = with_parents(demo_database, tmp_path)
    record = rig.run(1)
    rig.execute(GONE[0], *GONE[1:], "INSERT INTO s.picture VALUES (4, 'nobody.png') ON CONFLICT DO NOTHING",
                MEDDLES.format(table=table, does=does))  # fmt: skip
    before = rig.everything()
    refusals = rig.plan(record).refusals
    assert any(says in refusal.message for refusal in refusals), refusals
    assert rig.everything() == before


FORGES = """
    CREATE TABLE s.go (id int); GRANT SELECT ON s.go TO PUBLIC;
    CREATE FUNCTION s.does() RETURNS void VOLATILE LANGUAGE plpgsql AS $f$BEGIN
        IF EXISTS (SELECT FROM s.go) THEN UPDATE pg_temp.wanted_0 SET mail = 'forged' WHERE id = 10; END IF;
        EXCEPTION WHEN others THEN NULL; END$f$;
    CREATE FUNCTION s.is(int) RETURNS boolean IMMUTABLE LANGUAGE plpgsql AS 'BEGIN RETURN true; END';
    CREATE INDEX planned ON s.staff (id) WHERE s.is(1);
    CREATE OR REPLACE FUNCTION s.is(int) RETURNS boolean IMMUTABLE LANGUAGE plpgsql AS
        'BEGIN PERFORM s.does(); RETURN true; END';
"""


@pytest.mark.parametrize("sealed", [True, False])
def test_values_that_are_not_the_archives_are_not_believed(
    demo_database: DemoDatabase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sealed: bool
) -> None:
    """Code of the database changes the rows that the restore has loaded; also if nothing watched them."""
    rig = with_parents(demo_database, tmp_path, more=FORGES, lists=LISTS + "s.go: a switch\n")
    record = rig.run(1)
    rig.execute(*GONE)
    plan = rig.plan(record)
    assert plan.refusals == ()
    rig.execute("INSERT INTO s.go VALUES (1)")
    before = rig.everything()
    if not sealed:
        monkeypatch.setattr(Seals, "keep", lambda *given: None)
        monkeypatch.setattr(Seals, "require", lambda *given: None)
    says = (
        "changed wanted_0"
        if sealed
        else r"s\.auth_user would not hold the backup's rows: those that were loaded are not"
    )
    with pytest.raises(IntegrityError, match=says):
        rig.restore().apply(rig.source(record), Wish(), approved=plan.digest, plan=plan)
    assert rig.everything() == before


def test_a_right_to_insert_is_enough(demo_database: DemoDatabase, tmp_path: Path) -> None:
    rig = with_parents(demo_database, tmp_path)
    record = rig.run(1)
    before = rig.everything()
    rig.execute(f"REVOKE UPDATE, DELETE ON s.auth_user, s.picture FROM {rig.database.roles.restorer}", GONE[0],
                "DELETE FROM s.auth_user WHERE id = 10")  # fmt: skip
    rig.bring_back(record)
    assert rig.everything() == before
