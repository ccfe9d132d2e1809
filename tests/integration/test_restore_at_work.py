"""Restoring a clinic while people work: the mode ``live``, the hooks, and other clinics at the same time."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from clinic_backups.base.errors import ClinicBackupsError, PermanentError
from clinic_backups.base.listening import Listener
from clinic_backups.catalog.restores import RestoreMode
from clinic_backups.restore.clinic_restore import ClinicChanged
from clinic_backups.restore.plan import RestorePlan
from clinic_backups.restore.request import Wish
from clinic_backups.restore.writing import claim, live
from tests.postgres_fixtures import DemoDatabase
from tests.shapes import Shaped, grants, shaped

DDL = """
    CREATE TABLE s.t (id int PRIMARY KEY, clinic_id int NOT NULL REFERENCES s.clinic, v text, n int DEFAULT 0);
    CREATE TABLE s.bag (clinic_id int NOT NULL REFERENCES s.clinic, v text);
    INSERT INTO s.t SELECT k, 1 + k % 2, 'v' || k FROM generate_series(1, 400) AS k;
    INSERT INTO s.bag SELECT 1 + k % 2, 'b' || k % 5 FROM generate_series(1, 40) AS k
"""
OWN = "clinic_id = {{ clinic_id }}"


@pytest.fixture
def rig(demo_database: DemoDatabase, tmp_path: Path) -> Shaped:
    return shaped(demo_database, tmp_path, DDL, {"t": OWN, "bag": OWN})


@contextmanager
def somebody_working(rig: Shaped, statement: str, pause_seconds: float) -> Iterator[list[float]]:
    """Run a statement over and over, as the application would; gives the seconds that each took."""
    stop, took = threading.Event(), list[float]()

    def work() -> None:
        with closing(rig.database.connect()) as db:
            db.autocommit = True
            while not stop.is_set():
                with db.cursor() as cursor:
                    began = time.perf_counter()
                    cursor.execute(statement)
                    took.append(time.perf_counter() - began)
                time.sleep(pause_seconds)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield took
    finally:
        stop.set()
        thread.join()


def apply(rig: Shaped, record: object, plan: RestorePlan, **wish: object) -> RestorePlan:
    source = rig.source(record)  # type: ignore[arg-type]
    return rig.restore().apply(source, Wish(**wish), approved=plan.digest, plan=plan)  # type: ignore[arg-type]


def damage(rig: Shaped) -> None:
    rig.execute(
        "DELETE FROM s.t WHERE clinic_id = 1 AND id < 100",
        "UPDATE s.t SET v = 'damaged' WHERE clinic_id = 1 AND id BETWEEN 100 AND 200",
        "INSERT INTO s.t VALUES (1001, 1, 'added')",
        "DELETE FROM s.bag WHERE clinic_id = 1 AND v = 'b1'",
    )


def test_a_hot_row_stops_an_exact_restore_and_not_a_live_one(rig: Shaped) -> None:
    record = rig.run(1)
    before = rig.everything()
    damage(rig)
    with somebody_working(rig, "UPDATE s.t SET n = n + 1 WHERE id = 300", 0.05) as took:
        while len(took) < 3:
            time.sleep(0.01)
        with pytest.raises(
            ClinicChanged, match=r"has changed since the plan was made, in s\.t: .*\n.*HINT: .*mode `live`"
        ):
            apply(rig, record, rig.plan(record))
        plan = rig.plan(record, mode="live")
        assert plan.refusals == ()
        time.sleep(0.2)
        done = apply(rig, record, plan, mode="live")
    assert "1 row changed since the plan" in str(done.tables)
    now = rig.everything()
    assert [row for row in now["s.t"] if not row.startswith("(300,")] == [
        row for row in before["s.t"] if not row.startswith("(300,")
    ]
    assert rig.execute_rows("SELECT n > 0 FROM s.t WHERE id = 300") == [(True,)]
    assert now["s.bag"] == before["s.bag"]


@pytest.mark.parametrize("at_once", [claim.AT_ONCE, 7, 1])
def test_rows_of_the_plan_that_people_write_at_the_same_moment_are_left_and_the_others_restored(
    rig: Shaped, monkeypatch: pytest.MonkeyPatch, at_once: int
) -> None:
    monkeypatch.setattr(claim, "AT_ONCE", at_once)
    record = rig.run(1)
    before = rig.everything()
    damage(rig)
    rig.execute("INSERT INTO s.t VALUES (1003, 1, 'added')")
    plan = rig.plan(record, mode="live")
    steps: list[str] = []

    def meanwhile(step: str) -> None:
        """After the restore has seen the rows, and before it writes."""
        steps.append(step)
        if step == "comparing":
            rig.execute("UPDATE s.t SET n = n + 1 WHERE id IN (102, 150, 198, 1003)", "DELETE FROM s.t WHERE id = 110")

    restore = rig.restore()
    restore.listener = Listener(meanwhile)
    done = restore.apply(rig.source(record), Wish("live"), approved=plan.digest, plan=plan)
    assert steps.count("comparing") == 1, "the restore did not have to begin again"
    assert "5 rows changed since the plan" in str(done.tables)
    theirs = ("(102,", "(110,", "(150,", "(198,", "(1003,")
    now = rig.everything()
    assert [row for row in now["s.t"] if not row.startswith(theirs)] == [
        row for row in before["s.t"] if not row.startswith(theirs)
    ]
    assert rig.execute_rows("SELECT id, v, n FROM s.t WHERE id IN (102, 110, 150, 198, 1003) ORDER BY id") == [
        (102, "damaged", 1), (150, "damaged", 1), (198, "damaged", 1), (1003, "added", 1),
    ]  # fmt: skip
    assert now["s.bag"] == before["s.bag"]


@pytest.mark.parametrize(
    ("held", "left"),
    [
        ("UPDATE s.t SET n = n + 1 WHERE id IN (102, 150)", ("(102,", "(150,")),
        ("SELECT FROM s.t WHERE id = 150 FOR UPDATE", ("(150,",)),
        ("INSERT INTO s.child VALUES (1001)", ("(1001,",)),
    ],
)
def test_rows_of_the_plan_that_somebody_holds_are_left_without_waiting(
    rig: Shaped, held: str, left: tuple[str, ...]
) -> None:
    """A transaction that stays open. While a restore waited for it, everybody waited for the rows of the plan."""
    rig.execute("CREATE TABLE s.child (t_id int REFERENCES s.t (id))")
    (rig.settings.sql_dir / "not_backed_up.txt").open("a").write("s.child: only refers\n")
    rig.settings = rig.settings.model_copy(update={"lock_timeout_seconds": 30})
    record = rig.run(1)
    before = rig.everything()
    damage(rig)
    plan = rig.plan(record, mode="live")
    assert plan.refusals == ()
    with closing(rig.database.connect()) as db, db.cursor() as cursor:
        cursor.execute(held)
        done = apply(rig, record, plan, mode="live")
        again = rig.plan(record, mode="live")
        db.rollback()
    assert f"{len(left)} row" in str(done.tables)
    now = rig.everything()
    assert [row for row in now["s.t"] if not row.startswith(left)] == [
        row for row in before["s.t"] if not row.startswith(left)
    ]
    assert rig.plan(record).writes == len(left)
    if again.writes:
        assert "somebody wrote or held the same rows" in str(again.tables)


@pytest.mark.parametrize(
    ("meanwhile", "kept"),
    [
        ("UPDATE s.t SET v = 'typed' WHERE id = 150", "SELECT v FROM s.t WHERE id = 150"),
        ("INSERT INTO s.t VALUES (2000, 1, 'new')", "SELECT v FROM s.t WHERE id = 2000"),
        ("INSERT INTO s.t VALUES (50, 1, 'written again')", "SELECT v FROM s.t WHERE id = 50"),
        ("DELETE FROM s.t WHERE id = 302", "SELECT count(*) FROM s.t WHERE id = 302"),
        ("INSERT INTO s.bag VALUES (1, 'new')", "SELECT count(*) FROM s.bag WHERE v = 'new'"),
        ("BEGIN; SAVEPOINT a; UPDATE s.t SET v = 'nested' WHERE id = 152; RELEASE a; COMMIT",
         "SELECT v FROM s.t WHERE id = 152"),
    ],
)  # fmt: skip
def test_what_changed_since_the_plan_stays(rig: Shaped, meanwhile: str, kept: str) -> None:
    record = rig.run(1)
    damage(rig)
    plan = rig.plan(record, mode="live")
    rig.execute(*meanwhile.removeprefix("BEGIN; ").removesuffix("; COMMIT").split("; "))
    wanted = rig.execute_rows(kept)
    done = apply(rig, record, plan, mode="live")
    assert rig.execute_rows(kept) == wanted
    assert "left as" in str(done.tables)
    assert rig.execute_rows("SELECT count(*) FROM s.t WHERE v = 'damaged' AND clinic_id = 1") == [(0,)]


ROOMS = """
    CREATE TABLE s.room (id int PRIMARY KEY, clinic_id int NOT NULL REFERENCES s.clinic, name text);
    CREATE TABLE s.bill (id int PRIMARY KEY, room_id int NOT NULL REFERENCES s.room, no text);
    CREATE TABLE s.item (id int PRIMARY KEY, bill_id int REFERENCES s.bill, no text);
    INSERT INTO s.room SELECT k, 1 + k % 2, 'r' || k FROM generate_series(1, 6) AS k;
    INSERT INTO s.bill SELECT k, 1 + k % 6, 'F' || k FROM generate_series(1, 24) AS k;
    INSERT INTO s.item SELECT k, 1 + k % 24, 'i' || k FROM generate_series(1, 48) AS k
"""
"""Rooms 2, 4 and 6 are of clinic 1. A bill is its room's, and an item its bill's."""
BILLS = "SELECT t.* FROM s.bill AS t JOIN s.room AS r ON r.id = t.room_id WHERE r.clinic_id = {{ clinic_id }}"
ITEMS = (
    "SELECT t.* FROM s.item AS t JOIN s.bill AS b ON b.id = t.bill_id JOIN s.room AS r ON r.id = b.room_id"
    " WHERE r.clinic_id = {{ clinic_id }}"
)


@pytest.mark.parametrize("many", [False, True], ids=["one by one", "in groups"])
@pytest.mark.parametrize(
    "meanwhile",
    [
        ("UPDATE s.room SET clinic_id = 1 WHERE id = 3",),
        ("INSERT INTO s.room VALUES (7, 1, 'new')", "UPDATE s.bill SET room_id = 7 WHERE id = 2"),
    ],
    ids=["a room is moved", "a bill is moved"],
)
def test_rows_that_became_the_clinics_after_the_plan_stay(
    demo_database: DemoDatabase,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    meanwhile: tuple[str, ...],
    many: bool,
) -> None:
    # Nobody writes the bills and items themselves: only their parent is another one, or another clinic's.
    if many:
        monkeypatch.setattr(live, "MOST_DIGESTS", 4)
        monkeypatch.setattr(live, "ALONE", 2)
    rig = shaped(demo_database, tmp_path, ROOMS, {"room": OWN, "bill": BILLS, "item": ITEMS})
    record = rig.run(1)
    rig.execute(
        "UPDATE s.bill SET no = 'damaged' WHERE id = 1",
        "INSERT INTO s.bill VALUES (100, 2, 'added'), (101, 4, 'added')",
        "DELETE FROM s.item WHERE id IN (2, 8, 14)",
        "INSERT INTO s.item VALUES (100, 3, 'added')",
        "UPDATE s.room SET name = 'damaged' WHERE id IN (2, 4)",
    )
    plan = rig.plan(record, mode="live")
    assert plan.refusals == ()
    rig.execute(*meanwhile)
    before = rig.everything()
    done = apply(rig, record, plan, mode="live")
    gone = {row for table, rows in before.items() for row in {*rows} - {*rig.everything()[table]}}
    assert gone <= {row for rows in before.values() for row in rows if "damaged" in row or "added" in row}
    assert (plan.moment["operations"]["s.bill"]["groups"] is None) != many
    if not many:
        assert len(gone) == 6
        assert rig.execute_rows("SELECT count(*) FROM s.item WHERE id IN (2, 8, 14)") == [(3,)]
    assert "changed since the plan. They are left as they are" in str(done.tables)


@pytest.mark.parametrize(
    ("extract", "change"),
    [
        ("SELECT t.* FROM s.mine AS t WHERE t.clinic_id = {{ clinic_id }}",
         "CREATE OR REPLACE VIEW s.mine AS SELECT id, 1 AS clinic_id, v, n FROM s.t"),
        ("SELECT t.* FROM s.t AS t WHERE s.clinic_of(t.clinic_id) = {{ clinic_id }}",
         "CREATE OR REPLACE FUNCTION s.clinic_of(int) RETURNS int LANGUAGE sql STABLE AS 'SELECT 1'"),
    ],
    ids=["view", "function"],
)  # fmt: skip
def test_another_view_or_function_in_an_extract_adds_nothing_to_the_plan(
    demo_database: DemoDatabase, tmp_path: Path, extract: str, change: str
) -> None:
    ddl = (
        f"{DDL}; CREATE VIEW s.mine AS SELECT id, clinic_id, v, n FROM s.t;"
        "CREATE FUNCTION s.clinic_of(int) RETURNS int LANGUAGE sql STABLE AS 'SELECT $1'"
    )
    rig = shaped(demo_database, tmp_path, ddl, {"t": extract, "bag": OWN})
    record, before = rig.run(1), rig.everything()
    damage(rig)
    plan = rig.plan(record, mode="live")
    assert plan.refusals == ()
    rig.execute(change)
    done = apply(rig, record, plan, mode="live")
    assert rig.everything() == before
    assert "200 rows changed since the plan. They are left as they are" in str(done.tables)


@pytest.mark.parametrize("most", [65_536, 40])
def test_a_plan_holds_a_bounded_number_of_digests(rig: Shaped, monkeypatch: pytest.MonkeyPatch, most: int) -> None:
    monkeypatch.setattr(live, "MOST_DIGESTS", most)
    monkeypatch.setattr(live, "ALONE", 10)
    record = rig.run(1)
    rig.execute("UPDATE s.t SET v = 'damaged' WHERE clinic_id = 1")
    plan = rig.plan(record, mode="live")
    digests = plan.moment["operations"]["s.t"]["digests"]
    assert len(digests) == pytest.approx(min(most, 200) * 8 * 4 / 3, abs=12)
    rig.execute("UPDATE s.t SET v = 'typed' WHERE id = 300")
    apply(rig, record, plan, mode="live")
    assert rig.execute_rows("SELECT v FROM s.t WHERE id = 300") == [("typed",)]
    ((left,),) = rig.execute_rows("SELECT count(*) FROM s.t WHERE v = 'damaged' AND clinic_id = 1")
    # Of a group, which has 5 operations on average, all stay.
    assert left == 0 if most > 200 else left < 20


ADDED = ("ALTER TABLE s.t ADD extra text DEFAULT '-'", "INSERT INTO s.t VALUES (1003, 1, 'added too')")
"""A column that the backup does not have, and a second row that it does not have."""


@pytest.mark.parametrize("mode", ["exact", "live"])
@pytest.mark.parametrize(
    "meanwhile",
    [
        "UPDATE s.t SET extra = 'by people' WHERE id = 1001",
        "WITH gone AS (DELETE FROM s.t WHERE id = 1001 RETURNING *) SELECT; "
        "INSERT INTO s.t VALUES (1001, 1, 'added', 0, 'by people')",
    ],
)
def test_a_row_that_goes_stays_if_only_a_new_column_changed(rig: Shaped, meanwhile: str, mode: RestoreMode) -> None:
    record = rig.run(1)
    damage(rig)
    rig.execute(*ADDED)
    plan = rig.plan(record, mode=mode)
    rig.execute(*meanwhile.split("; "))
    if mode == "exact":
        with pytest.raises(ClinicChanged, match=r"has changed since the plan was made, in s\.t"):
            apply(rig, record, plan, mode=mode)
    else:
        apply(rig, record, plan, mode=mode)
    kept = rig.execute_rows("SELECT id FROM s.t WHERE extra = 'by people'")
    assert kept == [(1001,)]
    assert rig.execute_rows("SELECT count(*) FROM s.t WHERE id = 1003") == [(int(mode == "exact"),)]


@pytest.mark.parametrize("mode", ["exact", "live"])
def test_a_row_that_is_updated_keeps_what_people_wrote_into_a_new_column(rig: Shaped, mode: RestoreMode) -> None:
    record = rig.run(1)
    damage(rig)
    rig.execute(*ADDED)
    plan = rig.plan(record, mode=mode)
    rig.execute("UPDATE s.t SET extra = 'by people' WHERE id = 150")
    apply(rig, record, plan, mode=mode)
    assert rig.execute_rows("SELECT v, extra FROM s.t WHERE id = 150") == [("v150", "by people")]
    assert rig.execute_rows("SELECT count(*) FROM s.t WHERE id > 1000") == [(0,)]


@pytest.mark.parametrize("forged", ["snapshot", "operations", "part"])
def test_a_plan_that_is_not_the_approved_one_is_not_applied(rig: Shaped, forged: str) -> None:
    record = rig.run(1)
    damage(rig)
    plan = rig.plan(record, mode="live")
    data = plan.to_json()
    if forged == "part":
        data["parts"]["s.t"] = "0" * 64
    else:
        data["moment"][forged] = {"snapshot": "1000000:1000000:", "operations": {}}[forged]
    damaged = rig.everything()
    with pytest.raises(PermanentError, match="not the one that was approved"):
        apply(rig, record, RestorePlan.from_json(data), mode="live")
    with pytest.raises(PermanentError, match="not the one that was approved"):
        rig.restore().apply(rig.source(record), Wish(mode="live"), approved=plan.digest)
    assert rig.everything() == damaged


def test_a_row_that_is_written_at_the_same_moment_is_looked_at_again(rig: Shaped) -> None:
    # Somebody writes a row of the plan, and takes it back: the clinic is as the plan saw it, and the first try fails.
    record, before = rig.run(1), rig.everything()
    damage(rig)
    plan = rig.plan(record)
    restore, steps = rig.restore(), list[str]()

    def meanwhile(step: str) -> None:
        steps.append(step)
        if step.startswith("writing") and len([s for s in steps if s.startswith("writing")]) == 1:
            rig.execute("UPDATE s.t SET v = 'x' WHERE id = 150")
            rig.execute("UPDATE s.t SET v = 'damaged' WHERE id = 150")

    restore.listener = Listener(meanwhile)
    restore.apply(rig.source(record), Wish(), approved=plan.digest)
    assert any("comparing again" in step for step in steps)
    assert rig.everything() == before


def test_the_hooks_run_before_and_after_whatever_happens(rig: Shaped, demo_database: DemoDatabase) -> None:
    rig.execute(
        "CREATE TABLE s.closed (clinic_id int, at timestamptz DEFAULT clock_timestamp())", *grants(demo_database)
    )
    folder = rig.settings.sql_dir
    (folder / "not_backed_up.txt").write_text("s.closed: who is being restored\n")
    (folder / "before_restore.sql").write_text("INSERT INTO s.closed VALUES ({{ clinic_id }})")
    (folder / "after_restore.sql").write_text("DELETE FROM s.closed WHERE clinic_id = {{ clinic_id }}")
    record = rig.run(1)
    damage(rig)
    plan = rig.plan(record)
    assert rig.execute_rows("SELECT count(*) FROM s.closed") == [(0,)]
    restore, seen = rig.restore(), list[int]()
    restore.listener = Listener(lambda step: seen.append(rig.execute_rows("SELECT count(*) FROM s.closed")[0][0]))
    restore.apply(rig.source(record), Wish(), approved=plan.digest)
    assert seen[1:-1] and set(seen[1:-1]) == {1}
    assert rig.execute_rows("SELECT count(*) FROM s.closed") == [(0,)]
    with pytest.raises(ClinicChanged):  # it is restored by now
        rig.restore().apply(rig.source(record), Wish(), approved=plan.digest)
    assert rig.execute_rows("SELECT count(*) FROM s.closed") == [(0,)]


def test_a_hook_that_fails_before_changes_nothing(rig: Shaped, demo_database: DemoDatabase) -> None:
    rig.execute("CREATE TABLE s.gate (n int); INSERT INTO s.gate VALUES (1)", *grants(demo_database))
    (rig.settings.sql_dir / "not_backed_up.txt").write_text("s.gate: the test's own\n")
    (rig.settings.sql_dir / "before_restore.sql").write_text("SELECT 1 / n FROM s.gate")
    record = rig.run(1)
    damage(rig)
    plan = rig.plan(record)
    rig.execute("UPDATE s.gate SET n = 0")
    damaged = rig.everything()
    with pytest.raises(ClinicBackupsError, match=r"before_restore\.sql"):
        rig.restore().apply(rig.source(record), Wish(), approved=plan.digest)
    assert rig.everything() == damaged


@pytest.mark.parametrize("added", ["while it is planned", "while it is written"])
def test_in_replica_role_a_new_reference_to_a_row_that_goes_stops_the_restore(
    demo_database: DemoDatabase, tmp_path: Path, added: str
) -> None:
    # PostgreSQL's own check does not run then: a row that the snapshot does not see must be found all the same.
    rig = shaped(
        demo_database,
        tmp_path,
        DDL + "; CREATE TABLE s.other (id int PRIMARY KEY, t_id int REFERENCES s.t);"
        "CREATE FUNCTION s.no() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN RETURN NULL; END$$;"
        "CREATE TRIGGER no BEFORE INSERT OR DELETE ON s.t FOR EACH ROW EXECUTE FUNCTION s.no()",
        {"t": OWN, "bag": OWN},
        lists="s.other: of another application\n",
        owner=True,
    )
    record = rig.run(1)
    rig.execute("ALTER TABLE s.t DISABLE TRIGGER no", "INSERT INTO s.t VALUES (1001, 1, 'goes')",
                "ALTER TABLE s.t ENABLE TRIGGER no")  # fmt: skip
    plan, restore = rig.plan(record), rig.restore()
    assert "session_replication_role" in str(plan.tables)
    when = "comparing" if added == "while it is planned" else "writing"
    done: list[bool] = []

    def meanwhile(step: str) -> None:
        if step.startswith(when) and not done:
            done.append(True)
            rig.execute("INSERT INTO s.other VALUES (1, 1001)")

    restore.listener = Listener(meanwhile)
    with pytest.raises(ClinicBackupsError, match="refer to rows of"):
        restore.apply(rig.source(record), Wish(), approved=plan.digest)
    assert rig.execute_rows("SELECT v FROM s.t WHERE id = 1001") == [("goes",)]


@pytest.mark.parametrize("children", ["", " ON DELETE CASCADE"])
def test_rows_that_swapped_values_come_back_although_another_row_is_left(
    demo_database: DemoDatabase, tmp_path: Path, children: str
) -> None:
    """The operations are counted again when some are left out."""
    rig = shaped(
        demo_database,
        tmp_path,
        "CREATE TABLE s.u (id int PRIMARY KEY, clinic_id int NOT NULL REFERENCES s.clinic, v text NOT NULL UNIQUE);"
        f"CREATE TABLE s.note (id int PRIMARY KEY, u_id int REFERENCES s.u{children});"
        "INSERT INTO s.u SELECT k, 1 + k % 2, 'v' || k FROM generate_series(1, 8) AS k;"
        "INSERT INTO s.note SELECT id, id FROM s.u",
        {"u": OWN, "note": "u_id IN (SELECT id FROM s.u WHERE clinic_id = {{ clinic_id }})"},
    )
    record, before = rig.run(1), rig.everything()
    rig.execute(
        "UPDATE s.u SET v = 'x' WHERE id = 2", "UPDATE s.u SET v = 'v2' WHERE id = 4",
        "UPDATE s.u SET v = 'v4' WHERE id = 2", "UPDATE s.u SET v = 'damaged' WHERE id = 6",
    )  # fmt: skip
    plan = rig.plan(record, mode="live")
    rig.execute("UPDATE s.u SET v = 'by hand' WHERE id = 6")
    apply(rig, record, plan, mode="live")
    rig.execute("UPDATE s.u SET v = 'v6' WHERE id = 6")
    assert rig.everything() == before
