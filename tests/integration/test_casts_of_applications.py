"""A cast to text may be a function of the application: it is never called to compare values."""

# ruff: noqa: E501 - a schema reads best with one table a line

from __future__ import annotations

from pathlib import Path

import pytest

from clinic_backups.base import connections
from clinic_backups.restore.into_schema import IntoRestore
from tests.integration.test_restore_outside import OWN, restored
from tests.integration.test_trial import trial
from tests.postgres_fixtures import DemoDatabase
from tests.shapes import shaped

CASTS = {
    "gives the same for all": "LANGUAGE sql IMMUTABLE AS $$SELECT 'same'$$",
    "looks a table up": "LANGUAGE sql STABLE AS $$SELECT v FROM allowed WHERE v = 'm5'$$",
    "fails": "LANGUAGE plpgsql AS $$BEGIN RAISE 'no'; END$$",
    "gives nothing": "LANGUAGE sql IMMUTABLE AS $$SELECT NULL::text$$",
}
LABELS = ", ".join(f"'m{number}'" for number in range(60))
TYPES = {
    "an enum": (f"CREATE TYPE s.mood AS ENUM ({LABELS});", "('m' || {})::s.mood"),
    "a composite type": ("CREATE TYPE s.mood AS (a text, b int);", "ROW('m' || {}, 1)::s.mood"),
}
DDL = """
    SET LOCAL search_path = s, public; CREATE TABLE allowed (v text); INSERT INTO allowed VALUES ('m5'); GRANT SELECT ON allowed TO PUBLIC;
    {type_} GRANT USAGE ON TYPE s.mood TO PUBLIC;
    CREATE TABLE bill (id int PRIMARY KEY, clinic_id int NOT NULL REFERENCES clinic, v s.mood, phone int);
    CREATE TABLE kind (m s.mood PRIMARY KEY, clinic_id int NOT NULL REFERENCES clinic, v text);
    CREATE TABLE item (m s.mood UNIQUE, clinic_id int REFERENCES clinic ON DELETE SET NULL, kind s.mood REFERENCES kind, id int PRIMARY KEY);
    CREATE TABLE log (clinic_id int NOT NULL REFERENCES clinic, v s.mood);
    CREATE FUNCTION s.mt(s.mood) RETURNS text {cast}; CREATE CAST (s.mood AS text) WITH FUNCTION s.mt(s.mood) AS ASSIGNMENT;
    INSERT INTO bill SELECT k, 1 + k % 2, {value}, k FROM generate_series(1, 20) k;
    INSERT INTO kind SELECT {value}, 1 + k % 2, 'v' FROM generate_series(1, 20) k;
    INSERT INTO item SELECT {value}, 1 + k % 2, {value}, k FROM generate_series(1, 20) k;
    INSERT INTO log SELECT 1 + k % 2, {value} FROM generate_series(1, 20) k
"""
DAMAGE = (
    "UPDATE s.bill SET v = {one}, phone = 0 WHERE id IN (6, 8)",
    "DELETE FROM s.item WHERE id = 10",
    "UPDATE s.item SET m = CASE id WHEN 4 THEN {two} WHEN 2 THEN {three} END WHERE id IN (2, 4)",
    "UPDATE s.log SET v = {one} WHERE clinic_id = 1",
    "UPDATE s.item SET clinic_id = NULL WHERE id = 12",
    "INSERT INTO s.kind SELECT {one}, 1",
    "UPDATE s.kind SET v = 'x' WHERE clinic_id = 1",
)


@pytest.mark.parametrize(
    ("type_", "cast", "quiet"),
    [
        ("an enum", "gives the same for all", False),
        ("an enum", "looks a table up", True),
        ("a composite type", "fails", True),
        ("a composite type", "gives nothing", False),
    ],
)
def test_values_are_compared_without_the_applications_cast(
    demo_database: DemoDatabase, tmp_path: Path, cast: str, type_: str, quiet: bool
) -> None:
    making, value = TYPES[type_]
    ddl = DDL.format(type_=making, cast=CASTS[cast], value=value.format("k"))
    extracts = {"bill": OWN, "kind": OWN, "item": OWN, "log": OWN}
    rig = shaped(demo_database, tmp_path, ddl, extracts, lists="s.allowed: shared, x\ns.item: lasting keys, x\n")
    role = demo_database.roles.restorer
    record, before = rig.run(1), rig.everything()
    assert [found for found in trial(rig) if found.level != "ok"] == []
    one, two, three = value.format("50"), value.format("2"), value.format("51")
    if type_ != "an enum":
        rig.execute("UPDATE s.bill SET v = ROW('m1', NULL)::s.mood WHERE id = 14")
        record, before = rig.run(1), rig.everything()
    rig.execute(*(damage.format(one=one, two=two, three=three) for damage in DAMAGE))
    try:
        if quiet:
            rig.execute(f"GRANT SET ON PARAMETER session_replication_role TO {role}")
        restored(rig, record)
        assert rig.everything() == before
        assert rig.plan(record).writes == 0
        restore = rig.restore()
        restore.database = connections.parse("restore_target", rig.database.postgres.uri(rig.database.name))
        assert IntoRestore(restore).run(rig.source(record), "a_copy").rows == 41
    finally:
        rig.execute(f"REVOKE SET ON PARAMETER session_replication_role FROM {role}")


ONE_WAY = {
    "timestamp to time": ("timestamp", "'2024-01-01 10:00'", "time", "time without time zone"),
    "timestamptz to timetz": ("timestamptz", "'2024-01-01 10:00'", "timetz", "time with time zone"),
    "int to money": ("int", "7", "money", "money"),
    "a cast of the application": ("int", "7", "s.c USING v::s.c", "s.c"),
}


@pytest.mark.parametrize("case", ONE_WAY)
def test_a_cast_without_a_way_back_is_refused_in_plain_words(
    demo_database: DemoDatabase, tmp_path: Path, case: str
) -> None:
    type_, value, becomes, shown = ONE_WAY[case]
    ddl = f"""
        CREATE TYPE s.c AS (x int, y int); CREATE FUNCTION s.mk(int) RETURNS s.c IMMUTABLE LANGUAGE sql AS 'SELECT ROW($1, 1)::s.c'; CREATE CAST (int AS s.c) WITH FUNCTION s.mk(int);
        CREATE TABLE s.note (id int PRIMARY KEY, clinic_id int NOT NULL REFERENCES s.clinic); INSERT INTO s.note VALUES (1, 1), (2, 2);
        CREATE TABLE s.t (id int PRIMARY KEY, clinic_id int NOT NULL REFERENCES s.clinic, v {type_}); INSERT INTO s.t SELECT k, 1 + k / 4, {value} FROM generate_series(1, 5) AS k
    """
    rig = shaped(demo_database, tmp_path, ddl, {"t": OWN, "note": OWN})
    record, before = rig.run(1), rig.everything()
    rig.execute(f"ALTER TABLE s.t ALTER v TYPE {becomes}", "DELETE FROM s.note WHERE id = 1")
    (refusal,) = rig.plan(record).refusals
    assert refusal.table == "s.t"
    assert "3 values of s.t.v would change: the column was " in refusal.message
    assert f"and is {shown} now" in refusal.message
    rig.bring_back(record, tables=("s.note",))
    assert rig.everything()["s.note"] == before["s.note"]
