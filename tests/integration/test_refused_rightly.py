"""Restores that were refused although they are possible, and refusals whose words did not help."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import pytest

from clinic_backups.restore.clinic_restore import ClinicChanged
from clinic_backups.restore.request import Wish
from tests.integration.test_shapes import require_extensions
from tests.integration.test_trial import trial
from tests.postgres_fixtures import DemoDatabase
from tests.shapes import Shaped, shaped

OWN = "clinic_id = {{ clinic_id }}"
DDL = """
    CREATE TABLE s.parent (id int PRIMARY KEY, clinic_id int NOT NULL REFERENCES s.clinic, name text);
    CREATE TABLE s.child (id int PRIMARY KEY, clinic_id int NOT NULL REFERENCES s.clinic, parent_id int);
    INSERT INTO s.parent VALUES (1, 1, 'p1'), (2, 2, 'p2');
    INSERT INTO s.child VALUES (1, 1, 1), (2, 2, 2)
"""


def version(database: DemoDatabase) -> int:
    with closing(database.connect()) as db:
        return int(db.server_version) // 10_000


GONE = {
    "detached": ("ALTER TABLE s.t DETACH PARTITION s.t2", "2 rows of the backup are still in s.t2"),
    "dropped": ("DROP TABLE s.t2", "s.t has no partition for at least one row of the backup."),
}  # fmt: skip


@pytest.mark.parametrize("gone", GONE)
def test_a_part_that_was_detached_is_said(demo_database: DemoDatabase, tmp_path: Path, gone: str) -> None:
    rig = shaped(
        demo_database, tmp_path,
        """CREATE TABLE s.t (id int, clinic_id int NOT NULL REFERENCES s.clinic, PRIMARY KEY (id))
               PARTITION BY RANGE (id);
           CREATE TABLE s.t1 PARTITION OF s.t FOR VALUES FROM (0) TO (10);
           CREATE TABLE s.t2 PARTITION OF s.t FOR VALUES FROM (10) TO (20);
           INSERT INTO s.t VALUES (1, 1), (2, 2), (11, 1), (12, 1)""",
        {"t": OWN}, owner=True,
    )  # fmt: skip
    record = rig.run()
    statement, message = GONE[gone]
    rig.execute(statement)
    (refusal,) = rig.plan(record).refusals
    assert refusal.message.startswith(message)
    assert "ATTACH PARTITION" in refusal.hint


@pytest.mark.parametrize("owner", [True, False], ids=["owner", "role"])
def test_a_check_that_reads_the_parent_is_told_how_to_come_back(
    demo_database: DemoDatabase, tmp_path: Path, owner: bool
) -> None:
    # PostgreSQL does not show a STABLE function the rows that its own statement writes.
    rig = shaped(
        demo_database, tmp_path,
        DDL + """;
        CREATE FUNCTION s.has(int) RETURNS boolean LANGUAGE sql STABLE
            AS 'SELECT EXISTS (SELECT FROM s.parent WHERE id = $1)';
        ALTER TABLE s.child ADD CONSTRAINT known CHECK (s.has(parent_id)), ADD CONSTRAINT small CHECK (id < 9)""",
        {"parent": OWN, "child": OWN}, owner=owner,
    )  # fmt: skip
    record, before = rig.run(), rig.everything()
    rig.execute("DELETE FROM s.child WHERE id = 1", "DELETE FROM s.parent WHERE id = 1")
    (refusal,) = rig.plan(record).refusals
    assert refusal.message == "Constraint known of s.child refuses 1 row of the backup."
    assert "If s.has() reads other tables, it does not see rows that come back together with s.child" in refusal.hint
    rig.bring_back(record, tables=("s.parent",))
    rig.bring_back(record)
    assert rig.everything() == before
    rig.execute(
        "DELETE FROM s.child WHERE id = 1", "ALTER TABLE s.child DROP CONSTRAINT small, ADD CONSTRAINT small"
        " CHECK (id > 1)",
    )  # fmt: skip
    (refusal,) = rig.plan(record).refusals
    assert refusal.hint.startswith("Drop or widen small for the time of the restore")


@pytest.mark.parametrize("type_", ["s.state", "s.state_of"], ids=["a domain", "a domain over a domain"])
def test_a_default_may_be_that_of_a_domain(demo_database: DemoDatabase, tmp_path: Path, type_: str) -> None:
    rig = shaped(demo_database, tmp_path, DDL, {"parent": OWN, "child": OWN}, owner=True)
    record = rig.run()
    rig.execute(
        "CREATE DOMAIN s.state AS text DEFAULT 'open'", "CREATE DOMAIN s.state_of AS s.state",
        f"ALTER TABLE s.parent ADD state {type_} NOT NULL", "DELETE FROM s.parent WHERE id = 1",
    )  # fmt: skip
    plan = rig.bring_back(record)
    assert rig.everything()["s.parent"][0] == "(1,1,p1,open)"
    notes = [note for table in plan.tables for note in table.notes]
    assert "Column state was added since: restored rows get its default." in notes


@pytest.mark.parametrize("owner", [True, False], ids=["triggers are kept quiet", "triggers fire"])
def test_a_foreign_key_that_is_not_enforced_is_none(demo_database: DemoDatabase, tmp_path: Path, owner: bool) -> None:
    if version(demo_database) < 18:
        pytest.skip("NOT ENFORCED foreign keys are of PostgreSQL 18")
    rig = shaped(
        demo_database, tmp_path,
        f"{DDL}; ALTER TABLE s.child ADD CONSTRAINT loose FOREIGN KEY (parent_id) REFERENCES s.parent NOT ENFORCED",
        {"parent": OWN, "child": OWN}, owner=owner,
    )  # fmt: skip
    rig.execute("INSERT INTO s.child VALUES (3, 1, 77)")
    record = rig.run()
    assert record.suspect is None
    before = rig.everything()
    rig.execute("DELETE FROM s.child WHERE clinic_id = 1", "INSERT INTO s.parent VALUES (5, 1, 'new')",
                "INSERT INTO s.child VALUES (9, 2, 5)")  # fmt: skip
    rig.bring_back(record)
    assert rig.everything() == before | {"s.child": [*before["s.child"], "(9,2,5)"]}


TRIES = """
    CREATE FUNCTION s.tries() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$
    BEGIN
        BEGIN
            {does};
            RAISE EXCEPTION 'not this time';
        EXCEPTION WHEN OTHERS THEN NULL;
        END;
        {stays}
        RETURN NEW;
    END $$"""


@pytest.mark.parametrize(
    ("does", "stays", "goes"),
    [
        ("INSERT INTO s.log VALUES (2)", "", True),
        ("INSERT INTO s.child VALUES (77, 1, 1)", "", True),
        ("UPDATE s.log SET n = 5", "", True),
        ("INSERT INTO s.log VALUES (2), (3)", "INSERT INTO s.log VALUES (9);", False),
        ("INSERT INTO s.log VALUES (2)", "UPDATE s.log SET n = n;", False),
        ("INSERT INTO s.log VALUES (2)", "DELETE FROM s.log;", False),
        ("INSERT INTO s.child VALUES (77, 1, 1)", "INSERT INTO s.child VALUES (78, 2, 1);", False),
    ],
)
def test_what_a_trigger_takes_back_is_no_write_of_its(
    demo_database: DemoDatabase, tmp_path: Path, does: str, stays: str, goes: bool
) -> None:
    rig = shaped(demo_database, tmp_path, DDL, {"parent": OWN, "child": OWN}, lists="s.log: made anew")
    rig.execute("CREATE TABLE s.log (n int)", "INSERT INTO s.log VALUES (1)",
                f"GRANT SELECT ON s.log TO {demo_database.roles.restorer}")  # fmt: skip
    record = rig.run()
    rig.execute(
        "DELETE FROM s.parent WHERE id = 1", TRIES.format(does=does, stays=stays),
        "CREATE TRIGGER t BEFORE INSERT ON s.parent FOR EACH ROW EXECUTE FUNCTION s.tries()",
    )  # fmt: skip
    before = rig.everything()
    if goes:
        rig.bring_back(record)
        assert rig.everything() == before | {"s.parent": ["(1,1,p1)", "(2,2,p2)"]}
    else:
        (refusal,) = rig.plan(record).refusals
        assert "but the plan has" in refusal.message
        assert rig.everything() == before


# A range stands for the number, whose operators are those of the extension btree_gist: it is not everywhere.
TEMPORAL = """
    CREATE TABLE s.price (no int4range, during daterange, clinic_id int NOT NULL REFERENCES s.clinic, amount int,
                          PRIMARY KEY (no, during WITHOUT OVERLAPS));
    INSERT INTO s.price VALUES ('[1,2)', '[2026-01-01,2026-02-01)', 1, 10), ('[1,2)', '[2026-02-01,2026-03-01)', 1, 20),
                               ('[2,3)', '[2026-01-01,2027-01-01)', 2, 30);
    CREATE TABLE s.sale (id int PRIMARY KEY, clinic_id int NOT NULL REFERENCES s.clinic, price int4range,
                         during daterange, FOREIGN KEY (price, PERIOD during) REFERENCES s.price (no, PERIOD during));
    INSERT INTO s.sale VALUES (1, 1, '[1,2)', '[2026-01-20,2026-02-10)'), (2, 2, '[2,3)', '[2026-01-20,2026-02-10)')
"""


@pytest.mark.parametrize("owner", [True, False], ids=["triggers are kept quiet", "triggers fire"])
@pytest.mark.parametrize(
    "damage",
    [
        "DELETE FROM s.sale WHERE id = 1; DELETE FROM s.price WHERE clinic_id = 1",
        "UPDATE s.price SET amount = 0 WHERE clinic_id = 1",
        "DELETE FROM s.sale WHERE id = 1;"
        "UPDATE s.price SET during = '[2026-02-15,2026-03-01)' WHERE no = '[1,2)' AND amount = 20;"
        "INSERT INTO s.price VALUES ('[1,2)', '[2026-02-01,2026-02-15)', 1, 15)",
    ],
    ids=["deleted", "changed", "split"],
)
def test_keys_without_overlaps_come_back(demo_database: DemoDatabase, tmp_path: Path, damage: str, owner: bool) -> None:
    if version(demo_database) < 18:
        pytest.skip("WITHOUT OVERLAPS is of PostgreSQL 18")
    rig: Shaped = shaped(demo_database, tmp_path, TEMPORAL, {"price": OWN, "sale": OWN}, owner=owner)
    record = rig.run()
    assert record.suspect is None
    before = rig.everything()
    rig.execute(*damage.split(";"))
    assert [finding for finding in trial(rig) if finding.level == "error"] == []
    rig.bring_back(record)
    assert rig.everything() == before


COARSER = {
    "a key of fewer columns": ("DROP CONSTRAINT t_pkey, ADD PRIMARY KEY (a)", "the same a", "the primary key (a, b)"),
    "another of its columns": ("DROP CONSTRAINT t_pkey, ADD PRIMARY KEY (b)", "the same b", "the primary key (a, b)"),
    "a type that knows no case": ("ALTER a TYPE public.citext", "the same a, b", "another type or collation"),
}


@pytest.mark.parametrize(("name", "is_there"), [(name, n) for name in COARSER for n in (True, False)][:-1])
def test_a_key_that_is_coarser_now_is_named_with_its_rows(
    demo_database: DemoDatabase, tmp_path: Path, name: str, is_there: bool
) -> None:
    change, same, was = COARSER[name]
    extension = "CREATE EXTENSION citext SCHEMA public;" if "citext" in change else ""
    require_extensions(demo_database, extension)
    rig = shaped(
        demo_database, tmp_path,
        f"""{extension}
           CREATE TABLE s.t (a text, b text, clinic_id int REFERENCES s.clinic, v text, PRIMARY KEY (a, b));
           INSERT INTO s.t VALUES ('a', '1', 1, 'x'), ('a', '2', 1, 'y'), ('A', '1', 1, 'z'), ('b', '3', 2, 'z')""",
        {"t": OWN}, owner=True,
    )  # fmt: skip
    record = rig.run(1)
    rig.execute("DELETE FROM s.t WHERE clinic_id = 1", f"ALTER TABLE s.t {change}")
    if is_there:
        rig.execute("INSERT INTO s.t VALUES ('a', '1', 1, 'x')")
    (refusal,) = rig.plan(record).refusals
    assert f"2 rows of the backup have {same} in s.t" in refusal.message and was in refusal.message
    assert "too many" not in refusal.message and "key of the backup" in refusal.hint


ORPHANS = """
    CREATE TABLE s.branch (id int PRIMARY KEY, clinic_id int NOT NULL REFERENCES s.clinic);
    CREATE TABLE s.patient (dni text PRIMARY KEY, branch_id int REFERENCES s.branch ON DELETE SET NULL, name text);
    CREATE TABLE s.visit (id int PRIMARY KEY, clinic_id int REFERENCES s.clinic, dni text REFERENCES s.patient);
    INSERT INTO s.branch VALUES (1, 1), (2, 2); INSERT INTO s.patient VALUES ('d1', 1, 'Ana'), ('d2', 2, 'Bob');
    INSERT INTO s.visit VALUES (1, 1, 'd1')
"""
IN_BRANCH = "branch_id IN (SELECT id FROM s.branch WHERE clinic_id = {{ clinic_id }})"
IN_VISIT = f"{IN_BRANCH} OR dni IN (SELECT dni FROM s.visit WHERE clinic_id = {{{{ clinic_id }}}})"


@pytest.mark.parametrize(
    ("extract", "name", "found"),
    [
        (IN_BRANCH, "Eva", "differ from the backup in other columns too: 1."),
        (IN_VISIT, "Ana", "extracts of other clinics return: 1."),
        (IN_VISIT, "Eva", "return: 1. Rows of them that differ from the backup in other columns too: 1."),
    ],
)
def test_why_a_row_that_lost_its_clinic_is_not_taken_is_what_was_found(
    demo_database: DemoDatabase, tmp_path: Path, extract: str, name: str, found: str
) -> None:
    """The key is one that people give, and another clinic's row refers to the row."""
    rig = shaped(demo_database, tmp_path, ORPHANS, {"branch": OWN, "patient": extract, "visit": OWN}, owner=True)
    record = rig.run(1)
    rig.execute("DELETE FROM s.visit; DELETE FROM s.branch WHERE id = 1; INSERT INTO s.visit VALUES (5, 2, 'd1')")
    rig.execute(f"UPDATE s.patient SET name = '{name}' WHERE dni = 'd1'")
    child, own = sorted(rig.plan(record).refusals, key=lambda refusal: refusal.table, reverse=True)
    assert own.table == "s.patient" and "have lost their clinic (no value in branch_id leads to one)" in own.message
    assert found in own.message
    belongs = "have lost their clinic" if extract == IN_BRANCH else "belong to another clinic now"
    assert child.table == "s.visit" and belongs in child.message


def test_a_value_in_an_added_column_is_named_as_the_reason(demo_database: DemoDatabase, tmp_path: Path) -> None:
    rig = shaped(demo_database, tmp_path, ORPHANS, {"branch": OWN, "patient": IN_BRANCH, "visit": OWN}, owner=True)
    record = rig.run(1)
    rig.execute("DELETE FROM s.visit; DELETE FROM s.branch WHERE id = 1; ALTER TABLE s.patient ADD phone text")
    rig.execute("UPDATE s.patient SET phone = '7' WHERE dni = 'd1'")
    own = next(refusal for refusal in rig.plan(record).refusals if refusal.table == "s.patient")
    assert "with a value in a column that the backup does not have: 1. So it cannot be told" in own.message
    assert "Another row may" not in own.message


def test_a_table_that_changed_after_its_plan_is_said_in_words(demo_database: DemoDatabase, tmp_path: Path) -> None:
    rig = shaped(demo_database, tmp_path, DDL, {"parent": OWN, "child": OWN})
    record = rig.run()
    rig.execute("DELETE FROM s.child WHERE id = 1")
    plan = rig.plan(record)
    rig.execute("ALTER TABLE s.child ADD note text")
    with pytest.raises(ClinicChanged, match=r"changed since the plan was made: the columns of s\.child\."):
        rig.restore().apply(rig.source(record), Wish(), approved=plan.digest, plan=plan)
