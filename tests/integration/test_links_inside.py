"""All rows come back: foreign keys that lead only to rows that come back are asked about once, all others as ever."""

# ruff: noqa: E501 - a case reads best in one line

from __future__ import annotations

from pathlib import Path

import pytest

from clinic_backups.base.errors import ClinicBackupsError
from clinic_backups.restore import links_inside as module
from clinic_backups.restore.request import Wish
from tests.integration.test_restore_outside import OWN
from tests.postgres_fixtures import DemoDatabase
from tests.shapes import Shaped, shaped

DDL = """
    CREATE TABLE s.plan (code text PRIMARY KEY); INSERT INTO s.plan VALUES ('a'), ('b');
    CREATE TABLE s.bill (id int PRIMARY KEY, clinic_id int NOT NULL REFERENCES s.clinic, no text UNIQUE, plan text REFERENCES s.plan,
                         previous_id int REFERENCES s.bill);
    CREATE TABLE s.line (id int PRIMARY KEY, clinic_id int NOT NULL, bill_id int REFERENCES s.bill, bill_no text REFERENCES s.bill (no),
                         also_id int REFERENCES s.bill);
    INSERT INTO s.bill SELECT k, 1 + k % 2, 'F' || k, CASE WHEN k % 3 > 0 THEN 'a' END, CASE WHEN k > 2 THEN k - 2 END FROM generate_series(1, 20) AS k;
    INSERT INTO s.line SELECT k, 1 + k % 2, k, 'F' || k, CASE WHEN k = 20 THEN k - 1 END FROM generate_series(1, 20) AS k
"""
LISTS = "s.plan: the provider's plans\ns.line.also_id: bills of other clinics\n"
LOST = ("DELETE FROM s.line WHERE clinic_id = 1", "DELETE FROM s.bill WHERE clinic_id = 1")


@pytest.fixture
def rig(demo_database: DemoDatabase, tmp_path: Path) -> Shaped:
    """Two clinics. Line 20 of the first also names bill 19 of the second."""
    return shaped(demo_database, tmp_path, DDL, {"bill": OWN, "line": OWN}, lists=LISTS)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[set[str]]:
    """The names of the foreign keys that were found to lead only to rows that come back, of each restore."""
    found: list[set[str]] = []
    real = module.links_inside

    def noted(*arguments: object) -> frozenset[object]:
        inside = real(*arguments)  # type: ignore[arg-type]
        found.append({each.name for each in inside})
        return inside  # type: ignore[return-value]

    monkeypatch.setattr("clinic_backups.restore.comparison.links_inside", noted)
    return found


def test_all_rows_come_back(rig: Shaped, asked: list[set[str]]) -> None:
    record, before = rig.run(1), rig.everything()
    rig.execute(*LOST)
    plan = rig.plan(record)
    assert (plan.refusals, plan.writes) == ((), 20)
    rig.restore().apply(rig.source(record), Wish(), approved=plan.digest)
    assert rig.everything() == before
    assert asked == [{"bill_previous_id_fkey", "line_bill_id_fkey", "line_bill_no_fkey"}] * 2


def test_what_leads_out_is_still_looked_for(rig: Shaped, asked: list[set[str]]) -> None:
    record = rig.run(1)
    rig.execute(
        *LOST, "UPDATE s.bill SET plan = NULL WHERE clinic_id = 2", "DELETE FROM s.plan WHERE code = 'a'",
        "DELETE FROM s.line WHERE id = 19", "DELETE FROM s.bill WHERE id = 19",
    )  # fmt: skip
    said = [refusal.message for refusal in rig.plan(record).refusals]
    assert any("7 rows of s.bill refer to rows of s.plan that do not exist" in each for each in said)
    assert any(
        "1 rows of s.line refer to rows of s.bill that do not exist (line_also_id_fkey)" in each for each in said
    )
    assert "line_also_id_fkey" not in asked[0]


def test_values_that_others_took_are_refused(rig: Shaped) -> None:
    """Each takes the place of a row that the clinic's lines refer to."""
    record = rig.run(1)
    rig.execute(*LOST, "INSERT INTO s.bill (id, clinic_id, no) VALUES (4, 2, 'other'), (100, 2, 'F6')")
    said = [refusal.message for refusal in rig.plan(record).refusals]
    assert any("1 rows of the backup have keys in s.bill" in each or "keys" in each for each in said)
    assert any("unique values in s.bill" in each for each in said)


@pytest.mark.parametrize("event", ["BEFORE INSERT", "AFTER INSERT"])
def test_a_trigger_that_always_fires_does_not_lose_a_parent_unseen(rig: Shaped, event: str) -> None:
    does = "RETURN NULL" if event.startswith("BEFORE") else "DELETE FROM s.bill WHERE id = 4; RETURN NULL"
    record = rig.run(1)
    rig.execute(
        f"CREATE FUNCTION s.meddles() RETURNS trigger LANGUAGE plpgsql AS $f$BEGIN IF NEW.id = 4 THEN {does}; END IF; RETURN NEW; END$f$",
        f"CREATE TRIGGER meddles {event} ON s.bill FOR EACH ROW EXECUTE FUNCTION s.meddles()",
        "ALTER TABLE s.bill ENABLE ALWAYS TRIGGER meddles", *LOST,
    )  # fmt: skip
    before, plan = rig.everything(), rig.plan(record)
    assert plan.refusals
    with pytest.raises(ClinicBackupsError, match="Nothing was changed"):
        rig.restore().apply(rig.source(record), Wish(), approved=plan.digest)
    assert rig.everything() == before


@pytest.mark.parametrize("as_owner", [False, True])
def test_a_foreign_key_between_two_collations(
    demo_database: DemoDatabase, tmp_path: Path, asked: list[set[str]], *, as_owner: bool
) -> None:
    """PostgreSQL compares by the parent's collation. With a trigger, the restore proves the key itself."""
    ddl = """
        CREATE TABLE s.kind (code text COLLATE "C" PRIMARY KEY, clinic_id int REFERENCES s.clinic);
        CREATE TABLE s.item (id int PRIMARY KEY, clinic_id int REFERENCES s.clinic, kind text REFERENCES s.kind, other varchar(9) COLLATE "POSIX" REFERENCES s.kind);
        INSERT INTO s.kind SELECT 'k' || k, 1 + k % 2 FROM generate_series(1, 6) AS k;
        INSERT INTO s.item SELECT k, 1 + k % 2, 'k' || k, 'k' || k FROM generate_series(1, 6) AS k;
        CREATE FUNCTION s.same() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
        CREATE TRIGGER same BEFORE INSERT ON s.item FOR EACH ROW EXECUTE FUNCTION s.same()
    """
    rig = shaped(demo_database, tmp_path, ddl, {"kind": OWN, "item": OWN}, owner=as_owner)
    record, before = rig.run(1), rig.everything()
    rig.execute("DELETE FROM s.item WHERE clinic_id = 1 AND id > 2", "DELETE FROM s.kind WHERE code IN ('k4', 'k6')")
    rig.bring_back(record)
    assert rig.everything() == before
    rig.execute("DELETE FROM s.item WHERE clinic_id = 1", "DELETE FROM s.kind WHERE clinic_id = 1")
    rig.bring_back(record)
    assert rig.everything() == before
    assert asked[-1] == {"item_kind_fkey", "item_other_fkey"}
    rig.execute("DELETE FROM s.item WHERE id = 2", "DELETE FROM s.kind WHERE code = 'k2'")
    said = [refusal.message for refusal in rig.plan(record, tables=("s.item",)).refusals]
    assert any("1 rows of s.item refer to rows of s.kind that do not exist" in each for each in said)
