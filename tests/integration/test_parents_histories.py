"""Random histories of two clinics that share users: what a restore leaves is what the test's own SQL computes."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from clinic_backups.base.backup_record import BackupRecord
from clinic_backups.restore.plan import RestorePlan
from clinic_backups.restore.request import Wish
from tests.parents import LISTS, with_parents
from tests.postgres_fixtures import DemoDatabase
from tests.shapes import Shaped

ROUNDS = 6
OWN = ("clinic", "staff", "membership")
USER = "(SELECT id FROM s.auth_user ORDER BY random() LIMIT 1)"
PICTURE = "(SELECT id FROM s.picture ORDER BY random() LIMIT 1)"
STEPS = (
    "INSERT INTO s.picture (path) VALUES (random()::text)",
    f"INSERT INTO s.auth_user (username, picture_id) VALUES (random()::text, {PICTURE})",
    f"INSERT INTO s.auth_user (username, boss_id) SELECT random()::text, {USER}",
    f"INSERT INTO s.staff (clinic_id, user_id) SELECT {{clinic}}, u.id FROM s.auth_user AS u WHERE id = {USER}",
    f"INSERT INTO s.membership SELECT {{clinic}}, u.id FROM s.auth_user AS u WHERE id = {USER} ON CONFLICT DO NOTHING",
    f"UPDATE s.auth_user SET mail = random()::text, picture_id = {PICTURE} WHERE id = {USER}",
    f"UPDATE s.auth_user SET last_clinic_id = {{clinic}} WHERE id = {USER}",
    "UPDATE s.staff SET role = random()::text WHERE id = (SELECT id FROM s.staff ORDER BY random() LIMIT 1)",
    "DELETE FROM s.staff WHERE id = (SELECT id FROM s.staff ORDER BY random() LIMIT 1)",
    f"UPDATE s.auth_user SET boss_id = NULL; DELETE FROM s.auth_user WHERE id = {USER}",
    "UPDATE s.auth_user SET picture_id = NULL WHERE id < 12; DELETE FROM s.picture AS p"
    " WHERE NOT EXISTS (SELECT FROM s.auth_user WHERE picture_id = p.id)",
    "DELETE FROM s.staff WHERE clinic_id = {clinic}",
)


def keep(rig: Shaped, clinic: int) -> None:
    """Copies of everything, and of what the clinic's rows need, outside of the schema."""
    rig.execute(
        "DROP SCHEMA IF EXISTS kept CASCADE; CREATE SCHEMA kept",
        *(f"CREATE TABLE kept.{name} AS TABLE s.{name}" for name in (*OWN, "auth_user", "picture")),
        f"CREATE TABLE kept.users AS WITH RECURSIVE u (id) AS (SELECT user_id FROM s.staff WHERE clinic_id = {clinic}"
        f" UNION SELECT user_id FROM s.membership WHERE clinic_id = {clinic}"
        " UNION SELECT boss_id FROM s.auth_user JOIN u USING (id)) SELECT id FROM u WHERE id IS NOT NULL",
        "CREATE TABLE kept.pictures AS SELECT DISTINCT picture_id AS id FROM s.auth_user JOIN kept.users USING (id)",
    )


def expected(rig: Shaped, clinic: int) -> dict[str, list[str]]:
    """All rows after an exact restore, computed from the state of now and what was kept."""
    rows = {}
    for name in OWN:
        column = "id" if name == "clinic" else "clinic_id"
        rows[name] = (
            f"SELECT t::text FROM s.{name} AS t WHERE {column} <> {clinic}"
            f" UNION ALL SELECT t::text FROM kept.{name} AS t WHERE {column} = {clinic}"
        )
    for name, needed in (("auth_user", "users"), ("picture", "pictures")):
        rows[name] = (
            f"SELECT t::text FROM s.{name} AS t UNION ALL SELECT t::text FROM kept.{name} AS t JOIN kept.{needed}"
            f" USING (id) WHERE NOT EXISTS (SELECT FROM s.{name} AS n WHERE n.id = t.id)"
        )
    return {f"s.{name}": [text for (text,) in rig.execute_rows(f"{query} ORDER BY 1")] for name, query in rows.items()}


def apply(rig: Shaped, record: BackupRecord, plan: RestorePlan) -> None:
    rig.restore().apply(rig.source(record), Wish(), approved=plan.digest, plan=plan)


@pytest.mark.parametrize("seed", [1, 2])
def test_a_restore_leaves_what_the_history_says(demo_database: DemoDatabase, tmp_path: Path, seed: int) -> None:
    rig = with_parents(demo_database, tmp_path, lists=f"{LISTS}kept.*: of this test\n")
    chance = random.Random(seed)
    inserted = 0
    for _ in range(ROUNDS):
        clinic = chance.choice((1, 2))
        keep(rig, clinic)
        record = rig.run(clinic)
        rig.execute(f"SELECT setseed({chance.random()})")
        for step in chance.choices(STEPS, k=12):
            rig.execute(step.format(clinic=chance.choice((1, 2))))
        wanted = expected(rig, clinic)
        plan = rig.plan(record)
        assert plan.refusals == ()
        inserted += sum(table.insert for table in plan.tables if table.is_parent)
        apply(rig, record, plan)
        assert rig.everything() == wanted
    assert inserted
