"""The mode ``rows``: what is said of rows that nobody can find, and whose work stays, over links of all kinds."""

from __future__ import annotations

from pathlib import Path

import pyrage
import pytest

from clinic_backups.catalog.forgotten import ForgottenOfClinic
from clinic_backups.differences.record_history import RecordHistory
from clinic_backups.differences.record_look import Sought
from clinic_backups.restore.archives import Archives
from clinic_backups.restore.clinic_restore import ClinicChanged
from clinic_backups.restore.plan import RestorePlan
from clinic_backups.restore.request import Wish
from clinic_backups.stores.configured import Stores
from tests.postgres_fixtures import DemoDatabase
from tests.shapes import Shaped, grants, shaped

OF = "c int NOT NULL REFERENCES s.clinic"
OWN = "c = {{ clinic_id }}"


@pytest.fixture
def make(demo_database: DemoDatabase, tmp_path: Path) -> object:
    def made(ddl: str, *tables: str) -> Shaped:
        return shaped(demo_database, tmp_path, ddl, dict.fromkeys(tables, OWN))

    return made


def notes_of(plan: RestorePlan, table: str) -> str:
    return " ".join(note for each in plan.tables if each.table == table for note in each.notes)


def test_a_foreign_key_that_was_dropped_since_is_followed(make: object) -> None:
    rig = make(  # type: ignore[operator]
        f"CREATE TABLE s.p (id int PRIMARY KEY, {OF}); CREATE TABLE s.k (id int PRIMARY KEY, {OF},"
        " owner int NOT NULL REFERENCES s.p ON DELETE CASCADE)", "p", "k",
    )  # fmt: skip
    rig.execute(
        "INSERT INTO s.p VALUES (1, 1), (2, 1), (3, 2)", "INSERT INTO s.k VALUES (1, 1, 1), (2, 1, 2), (3, 2, 3)"
    )
    record, before = rig.run(1), rig.everything()
    rig.execute("DELETE FROM s.p WHERE id = 1", "ALTER TABLE s.k DROP CONSTRAINT k_owner_fkey",
                "ALTER TABLE s.k RENAME owner TO whose", *grants(rig.database))  # fmt: skip
    (rig.settings.sql_dir / "drift.txt").write_text("s.k: owner -> whose\n")
    rig.bring_back(record, mode="rows", rows={"s.p": ("1",)})
    assert rig.everything() == before


@pytest.mark.parametrize(
    "pair", ["content_type_id int, object_id int", "kind_content_type int, kind_object_id text",
             '"commentableType" text, "commentableId" bigint'],
)  # fmt: skip
def test_links_by_a_type_and_a_key_are_named(make: object, pair: str) -> None:
    """As in Django's generic relations and in Rails. Nobody can follow them, so the plan must not look complete."""
    rig = make(  # type: ignore[operator]
        f"CREATE TABLE s.p (id int PRIMARY KEY, {OF}); CREATE TABLE s.remark (id int PRIMARY KEY, {OF}, {pair});"
        f" CREATE TABLE s.bill (id int PRIMARY KEY, {OF}, p_type text, p_id int REFERENCES s.p)", "p", "remark", "bill",
    )  # fmt: skip
    rig.execute("INSERT INTO s.p VALUES (1, 1), (3, 2)", "INSERT INTO s.remark VALUES (1, 1, '7', '1')",
                "INSERT INTO s.bill VALUES (1, 1, 'x', 1)")  # fmt: skip
    record = rig.run(1)
    rig.execute("DELETE FROM s.bill", "DELETE FROM s.remark", "DELETE FROM s.p WHERE id = 1")
    plan = rig.plan(record, mode="rows", rows={"s.p": ("1",)})
    assert "by a type and a key" in notes_of(plan, "s.remark")
    assert "by a type and a key" not in notes_of(plan, "s.bill")  # that is a foreign key
    assert notes_of(rig.plan(record, mode="rows", rows={"s.p": ("1",)}, only=True), "s.remark") == ""


def test_a_foreign_key_of_one_partition_undoes_no_work_in_another(make: object) -> None:
    rig = make(  # type: ignore[operator]
        f"CREATE TABLE s.a (id int PRIMARY KEY, {OF}, n text);"
        f" CREATE TABLE s.p (id int, y int, {OF}, ref int NOT NULL, n text, PRIMARY KEY (id, y)) PARTITION BY LIST (y);"
        " CREATE TABLE s.p1 PARTITION OF s.p FOR VALUES IN (1); CREATE TABLE s.p2 PARTITION OF s.p FOR VALUES IN (2);"
        " ALTER TABLE s.p1 ADD FOREIGN KEY (ref) REFERENCES s.a", "a", "p",
    )  # fmt: skip
    rig.execute("INSERT INTO s.a VALUES (1, 1, 'a')", "INSERT INTO s.p VALUES (1, 1, 1, 1, 'x'), (2, 2, 1, 1, 'y')")
    record = rig.run(1)
    rig.execute("UPDATE s.a SET n = 'bad'", "UPDATE s.p SET n = 'work'", "DELETE FROM s.p WHERE id = 1")
    rig.bring_back(record, mode="rows", rows={"s.a": ("1",)})
    now = rig.everything()
    assert (now["s.a"], now["s.p1"], now["s.p2"]) == (["(1,1,a)"], ["(1,1,1,1,x)"], ["(2,2,1,1,work)"])


def test_without_a_key_changed_rows_remain_and_the_plan_says_so(make: object) -> None:
    rig = make(  # type: ignore[operator]
        f"CREATE TABLE s.p (id int PRIMARY KEY, {OF}, n text); CREATE TABLE s.k (p int NOT NULL REFERENCES s.p, {OF},"
        " q text)", "p", "k",
    )  # fmt: skip
    rig.execute("INSERT INTO s.p VALUES (1, 1, 'a')", "INSERT INTO s.k VALUES (1, 1, 'r'), (1, 1, 's')")
    record = rig.run(1)
    rig.execute("UPDATE s.p SET n = 'bad'", "UPDATE s.k SET q = 'r2' WHERE q = 'r'")
    plan = rig.bring_back(record, mode="rows", rows={"s.p": ("1",)})
    assert rig.everything()["s.k"] == ["(1,1,r)", "(1,1,r2)", "(1,1,s)"]
    assert "beside" in notes_of(plan, "s.k")


@pytest.mark.parametrize("link", ["text NOT NULL", "text"])
def test_a_code_that_was_changed_comes_back_with_what_follows_it(make: object, link: str) -> None:
    """ON UPDATE CASCADE carried the new code to the rows that refer to it. They still refer to the same row."""
    rig = make(  # type: ignore[operator]
        f"CREATE TABLE s.p (id int PRIMARY KEY, {OF}, code text UNIQUE); CREATE TABLE s.k (id int PRIMARY KEY, {OF},"
        f" code {link} REFERENCES s.p (code) ON UPDATE CASCADE, q text)", "p", "k",
    )  # fmt: skip
    rig.execute("INSERT INTO s.p VALUES (1, 1, 'a'), (2, 1, 'b'), (3, 2, 'z')",
                "INSERT INTO s.k VALUES (1, 1, 'a', 'r'), (2, 1, 'b', 'x'), (3, 2, 'z', 'r')",
                "INSERT INTO s.k VALUES (4, 1, 'a', 's')")  # fmt: skip
    record = rig.run(1)
    rig.execute("UPDATE s.p SET code = 'a2' WHERE id = 1", "UPDATE s.k SET q = 'work' WHERE id < 3",
                "UPDATE s.k SET code = 'b' WHERE id = 4")  # fmt: skip
    plan = rig.bring_back(record, mode="rows", rows={"s.p": ("1",)})
    # A row that cannot be without the other one becomes what it was; one that can only gets the code back.
    first = "(1,1,a,r)" if "NOT NULL" in link else "(1,1,a,work)"
    assert rig.everything()["s.k"] == [first, "(2,1,b,work)", "(3,2,z,r)", "(4,1,b,s)"]
    assert rig.everything()["s.p"] == ["(1,1,a)", "(2,1,b)", "(3,2,z)"]
    assert "1 row belonged to a row that comes back" in notes_of(plan, "s.k")
    assert rig.plan(record, mode="rows", rows={"s.p": ("1",)}).writes == 0


def test_the_undo_takes_back_only_the_tables_that_were_written(make: object) -> None:
    rig = make(  # type: ignore[operator]
        f"CREATE TABLE s.p (id int PRIMARY KEY, {OF}, n text); CREATE TABLE s.k (id int PRIMARY KEY, {OF}, n text)",
        "p", "k",
    )  # fmt: skip
    rig.execute("INSERT INTO s.p VALUES (1, 1, 'a'), (2, 1, 'b')", "INSERT INTO s.k VALUES (1, 1, 'a')")
    record = rig.run(1)
    rig.execute("DELETE FROM s.p WHERE id = 1")
    wish, saved = Wish(mode="rows", rows={"s.p": ("1",)}), []
    plan = rig.restore().plan(rig.source(record), wish)
    rig.restore().apply(rig.source(record), wish, approved=plan.digest, save=saved.append)
    assert [present.chosen for present in saved] == [("s.p",)]


ANEW = (
    f"CREATE TABLE s.p (id int PRIMARY KEY, {OF}, code text, n text, UNIQUE (c, code), UNIQUE (n));"
    f" CREATE TABLE s.k (id int PRIMARY KEY, {OF}, p int REFERENCES s.p ON DELETE CASCADE, q text);"
    f" CREATE TABLE s.m ({OF}, p int REFERENCES s.p ON DELETE CASCADE, q text, PRIMARY KEY (p, q))",
    "p", "k", "m",
)  # fmt: skip
ROWS = (
    "INSERT INTO s.p VALUES (1, 1, 'a', 'x'), (2, 1, 'b', 'y'), (3, 2, 'a', 'z')",
    "INSERT INTO s.k VALUES (1, 1, 1, 'r'), (2, 1, 2, 's'), (3, 2, 3, 't')",
    "INSERT INTO s.m VALUES (1, 1, 'r'), (1, 2, 's'), (2, 3, 't')",
    "DELETE FROM s.p WHERE id = 1",
)


def test_a_row_that_was_made_anew_stands_where_the_needed_one_stood(make: object) -> None:
    rig = make(*ANEW)  # type: ignore[operator]
    rig.execute(*ROWS[:-1])
    record = rig.run(1)
    rig.execute(ROWS[-1], "INSERT INTO s.p VALUES (10, 1, 'a', 'new')")
    before, wish = rig.everything(), {"mode": "rows", "rows": {"s.k": ("1",)}}
    plan = rig.bring_back(record, **wish)
    assert {table.table: table.writes for table in plan.tables if table.writes} == {"s.k": 1}
    assert "1 row that comes back needs a row of s.p that is gone. Another row of the clinic" in notes_of(plan, "s.k")
    assert rig.everything() == before | {"s.k": sorted([*before["s.k"], "(1,1,10,r)"])}
    assert rig.plan(record, **wish).writes == 0
    # Which row stands there is part of what was approved.
    rig.execute("DELETE FROM s.k WHERE id = 1")
    plan = rig.plan(record, **wish)
    rig.execute("UPDATE s.p SET id = 11 WHERE id = 10")
    with pytest.raises(ClinicChanged):
        rig.restore().apply(rig.source(record), Wish(**wish), approved=plan.digest)


@pytest.mark.parametrize(
    ("named", "also"),
    [
        ({"s.p": ("1",)}, ()),  # it is to be what it was
        ({"s.m": ("1/r",)}, ()),  # the link is a part of the row's own key
        ({"s.k": ("1",)}, ("INSERT INTO s.p VALUES (11, 1, 'other', 'x')",)),  # two rows have values of it
    ],
    ids=["named", "key", "several"],
)
def test_where_that_is_not_clear_the_plan_is_refused(
    make: object, named: dict[str, tuple[str, ...]], also: tuple[str, ...]
) -> None:
    rig = make(*ANEW)  # type: ignore[operator]
    rig.execute(*ROWS[:-1])
    record = rig.run(1)
    rig.execute(ROWS[-1], "INSERT INTO s.p VALUES (10, 1, 'a', 'new')", *also)
    assert "unique values in s.p" in " ".join(
        each.message for each in rig.plan(record, mode="rows", rows=named).refusals
    )


def test_another_clinics_row_stands_in_for_nothing(make: object) -> None:
    rig = make(ANEW[0].replace("UNIQUE (c, code)", "UNIQUE (code)"), *ANEW[1:])  # type: ignore[operator]
    rig.execute(ROWS[0].replace("(3, 2, 'a'", "(3, 2, 'c'"), *ROWS[1:-1])
    record = rig.run(1)
    rig.execute(ROWS[-1], "INSERT INTO s.p VALUES (10, 2, 'a', 'new')")
    plan = rig.plan(record, mode="rows", rows={"s.k": ("1",)})
    assert "unique values in s.p" in " ".join(each.message for each in plan.refusals)


def test_a_number_names_a_row_in_any_spelling_and_after_a_new_type(make: object) -> None:
    rig = make(f"CREATE TABLE s.p (id numeric PRIMARY KEY, {OF}, n int)", "p")  # type: ignore[operator]
    rig.execute("INSERT INTO s.p VALUES (1.0, 1, 5), (2, 1, 5), (3, 2, 5)")
    first, before = rig.run(1), rig.everything()
    rig.execute("UPDATE s.p SET id = 1.00 WHERE id = 1", "ALTER TABLE s.p ALTER n TYPE numeric(8,2)")
    second = rig.run(1)
    archives = Archives(Stores.of(rig.store), [pyrage.x25519.Identity.from_str(rig.identity)])
    history = RecordHistory(archives, forgotten=lambda _: ForgottenOfClinic({}))
    (found,) = history.find([first, second], Sought(keys={"s.p": ("+1.000",)}))
    assert (found.shown_key, [(each.what, each.columns) for each in found.events]) == (
        "1", [("there", ()), ("changed", ("id",))],
    )  # fmt: skip
    rig.execute("DELETE FROM s.p WHERE id = 1")
    rig.execute("ALTER TABLE s.p ALTER n TYPE int")
    rig.bring_back(first, mode="rows", rows={"s.p": (found.shown_key,)})
    assert rig.everything() == before


UNRELATED = {
    "dropped": "DROP TABLE s.u", "a column dropped": "ALTER TABLE s.u DROP COLUMN n",
    "another type": "ALTER TABLE s.u ALTER n TYPE numeric(9,2)",
}  # fmt: skip


@pytest.mark.parametrize("migration", UNRELATED.values(), ids=UNRELATED)
def test_a_table_that_is_not_concerned_does_not_refuse_the_plan(make: object, migration: str) -> None:
    rig = make(  # type: ignore[operator]
        f"CREATE TABLE s.p (id int PRIMARY KEY, {OF}); CREATE TABLE s.u (id int PRIMARY KEY, {OF}, n int)", "p", "u",
    )  # fmt: skip
    rig.execute("INSERT INTO s.p VALUES (1, 1), (3, 2)", "INSERT INTO s.u VALUES (1, 1, 5), (3, 2, 6)")
    record = rig.run(1)
    rig.execute("DELETE FROM s.u WHERE c = 1", "DELETE FROM s.p WHERE id = 1", migration, *grants(rig.database))
    before = rig.everything()
    rig.bring_back(record, mode="rows", rows={"s.p": ("1",)})
    assert rig.everything() == before | {"s.p": ["(1,1)", "(3,2)"]}


def test_what_hung_on_the_row_in_a_table_that_is_gone_is_refused_and_only_leaves_it_out(make: object) -> None:
    rig = make(  # type: ignore[operator]
        f"CREATE TABLE s.p (id int PRIMARY KEY, {OF}); CREATE TABLE s.k (id int PRIMARY KEY, {OF},"
        " owner int NOT NULL REFERENCES s.p)", "p", "k",
    )  # fmt: skip
    rig.execute("INSERT INTO s.p VALUES (1, 1), (3, 2)", "INSERT INTO s.k VALUES (1, 1, 1), (3, 2, 3)")
    record = rig.run(1)
    rig.execute("DROP TABLE s.k", "DELETE FROM s.p WHERE id = 1")
    (refusal,) = rig.plan(record, mode="rows", rows={"s.p": ("1",)}).refusals
    assert (refusal.table, "only" in refusal.hint) == ("s.k", True)
    rig.bring_back(record, mode="rows", rows={"s.p": ("1",)}, only=True)
    assert rig.everything()["s.p"] == ["(1,1)", "(3,2)"]
