"""Tables of Django whose rows belong to one row of another table: bases of inherited models, and profiles of users."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from psycopg2 import sql

from include.demo.postgres import EmbeddedPostgres
from tests.integration.test_cli import Run
from tests.integration.test_cli import run as command  # noqa: F401 - a fixture
from tests.integration.test_foreign_life import Life, newest

DATABASE = "foreign_inherited"
SCHEMA = """
CREATE TABLE company (id int PRIMARY KEY, name text);
CREATE TABLE place (id int PRIMARY KEY, name text);
CREATE TABLE restaurant (place_ptr_id int PRIMARY KEY REFERENCES place ON DELETE CASCADE,
                         company_id int NOT NULL REFERENCES company ON DELETE CASCADE, menu text);
CREATE TABLE dish (id int PRIMARY KEY, restaurant_id int NOT NULL REFERENCES restaurant ON DELETE CASCADE, t text);
CREATE INDEX ON restaurant (company_id);
CREATE INDEX ON dish (restaurant_id);
INSERT INTO company VALUES (1, 'a'), (2, 'b');
INSERT INTO place SELECT n, 'place ' || n FROM generate_series(1, 7) AS n;
INSERT INTO restaurant SELECT n, 1 + n % 2, 'm' FROM generate_series(1, 6) AS n;
INSERT INTO dish SELECT n, n, 'd' FROM generate_series(1, 6) AS n;
CREATE TABLE auth_user (id int PRIMARY KEY, username text);
CREATE TABLE member (id int PRIMARY KEY, company_id int NOT NULL REFERENCES company ON DELETE CASCADE,
                     user_id int NOT NULL REFERENCES auth_user ON DELETE CASCADE);
CREATE TABLE profile (id int PRIMARY KEY, user_id int NOT NULL UNIQUE REFERENCES auth_user ON DELETE CASCADE, v text);
CREATE INDEX ON member (company_id);
CREATE INDEX ON member (user_id);
INSERT INTO auth_user VALUES (1, 'u1'), (2, 'u2'), (3, 'of both');
INSERT INTO member VALUES (1, 1, 1), (2, 2, 2), (3, 1, 3), (4, 2, 3);
INSERT INTO profile SELECT id, id, 'p' || id FROM auth_user;
"""
PROFILES = """\
SELECT profile.*
  FROM public.profile AS profile
 WHERE profile.user_id IN (SELECT member.user_id FROM public.member AS member WHERE member.company_id = {{ clinic_id }})
"""
LINE = "public.profile: rows, those of the users that a company's members are\n"
DAMAGE = {
    "the tenant": "DELETE FROM company WHERE id = 1",
    "its rows": "DELETE FROM restaurant WHERE company_id = 1",
    "its rows and their bases": "DELETE FROM place WHERE id IN (SELECT place_ptr_id FROM restaurant"
    " WHERE company_id = 1)",
}


@pytest.fixture
def life(command: Run, postgres: EmbeddedPostgres, tmp_path: Path) -> Iterator[Life]:  # noqa: F811
    named = sql.Identifier(DATABASE)
    with closing(postgres.connect()) as server, server.cursor() as cursor:
        server.autocommit = True
        cursor.execute(sql.SQL("CREATE DATABASE {}").format(named))
        try:
            execute(postgres, SCHEMA)
            foreign: Any = SimpleNamespace(
                name="inherited", server=postgres, database=DATABASE, folder=tmp_path / "sql",
                tenant_table="public.company", execute=lambda *statements: execute(postgres, *statements),
            )  # fmt: skip
            life = Life(command, foreign, tmp_path)
            (life.foreign.folder / "parents").mkdir(parents=True)
            (life.foreign.folder / "parents" / "profile.sql").write_text(PROFILES)
            life.begin(lines=LINE)
            yield life
        finally:
            cursor.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(named))


def execute(postgres: EmbeddedPostgres, *statements: str) -> None:
    with closing(postgres.connect(DATABASE)) as connection, connection, connection.cursor() as cursor:
        for statement in statements:
            cursor.execute(statement)


def rows(life: Life) -> dict[str, list[str]]:
    with closing(life.foreign.server.connect(DATABASE)) as connection, connection.cursor() as cursor:
        found = {}
        for name in ("company", "place", "restaurant", "dish", "auth_user", "member", "profile"):
            cursor.execute(sql.SQL("SELECT t::text FROM {} AS t ORDER BY 1").format(sql.Identifier(name)))
            found[name] = [row for (row,) in cursor.fetchall()]
        return found


def test_the_base_of_an_inherited_model_comes_back_after_each_damage(life: Life) -> None:
    before = rows(life)
    life.done("backup", "--all")
    for damage in DAMAGE.values():
        life.foreign.execute(damage)
        assert rows(life) != before
        life.done("restore", "--clinic", "1", "--yes", "--backup", newest(life, "1"))
        assert rows(life) == before, damage
    # Nothing shows whose a base is whose other half is gone, if it was changed since. So a person has to say it.
    life.foreign.execute("DELETE FROM restaurant WHERE company_id = 1; UPDATE place SET name = 'x' WHERE id = 2")
    refused = life.run("restore", "--clinic", "1", "--yes", "--backup", newest(life, "1"))
    assert refused.code == 1 and "belong to rows outside of this clinic now: 2" in refused.err
    life.foreign.execute("DELETE FROM place WHERE id = 2")
    life.done("restore", "--clinic", "1", "--yes", "--backup", newest(life, "1"))
    assert rows(life) == before


def test_a_profile_goes_along_with_its_user(life: Life) -> None:
    """As docs/your-schema.md says: a query in parents/, and a line that says why no row refers to its rows."""
    grant = "GRANT INSERT ON public.profile TO restorer_inherited"
    assert f"{grant};" in life.run("check").out
    life.foreign.execute(grant)
    checked = life.run("check")
    assert "error" not in checked.out, checked.out
    before = rows(life)
    life.done("backup", "--all")
    life.foreign.execute("DELETE FROM auth_user WHERE id = 1", "UPDATE profile SET v = 'newer' WHERE id = 3")
    life.done("restore", "--clinic", "1", "--yes", "--backup", newest(life, "1"))
    now = rows(life)
    assert now["profile"][0] == before["profile"][0] and now["profile"][2] == "(3,3,newer)"
    assert now | {"profile": before["profile"]} == before
