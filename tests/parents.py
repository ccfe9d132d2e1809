"""A schema of two clinics with parent tables: users and their pictures, of which some serve both clinics."""

# ruff: noqa: E501 - a schema reads best with one table a line

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from tests.postgres_fixtures import DemoDatabase
from tests.shapes import Shaped, shaped

TABLES = """
    CREATE TABLE s.picture (id serial PRIMARY KEY, path text NOT NULL);
    CREATE TABLE s.auth_user (id serial PRIMARY KEY, username text NOT NULL UNIQUE, mail text, picture_id int REFERENCES s.picture,
                              boss_id int REFERENCES s.auth_user, last_clinic_id int REFERENCES s.clinic ON DELETE SET NULL);
    CREATE TABLE s.staff (id serial PRIMARY KEY, clinic_id int NOT NULL REFERENCES s.clinic ON DELETE CASCADE,
                          user_id int NOT NULL REFERENCES s.auth_user ON DELETE CASCADE, role text);
    CREATE TABLE s.membership (clinic_id int NOT NULL REFERENCES s.clinic ON DELETE CASCADE,
                               user_id int NOT NULL REFERENCES s.auth_user ON DELETE CASCADE, PRIMARY KEY (clinic_id, user_id));
    INSERT INTO s.picture VALUES (1, 'a.png'), (2, 'b.png'), (3, 'c.png'), (4, 'nobody.png');
    INSERT INTO s.auth_user VALUES (10, 'ana', 'ana@x', 1, NULL, 1), (11, 'both', 'both@x', 2, NULL, 2), (12, 'eva', 'eva@x', 3, NULL, 2),
                                   (13, 'boss', NULL, NULL, NULL, NULL), (14, 'stranger', NULL, 4, NULL, NULL);
    UPDATE s.auth_user SET boss_id = 13 WHERE id IN (10, 12);
    INSERT INTO s.staff VALUES (100, 1, 10, 'dentist'), (101, 1, 11, 'nurse'), (102, 2, 11, 'nurse'), (103, 2, 12, 'dentist');
    INSERT INTO s.membership VALUES (1, 11), (2, 11);
    SELECT setval('s.picture_id_seq', 4), setval('s.auth_user_id_seq', 14), setval('s.staff_id_seq', 103)
"""
USERS = """
    WITH RECURSIVE mine (id) AS (
        SELECT user_id FROM s.staff WHERE clinic_id = {{ clinic_id }}
         UNION SELECT user_id FROM s.membership WHERE clinic_id = {{ clinic_id }}
         UNION SELECT u.boss_id FROM s.auth_user AS u JOIN mine ON u.id = mine.id)
    SELECT u.* FROM s.auth_user AS u WHERE u.id IN (SELECT id FROM mine)
"""
PICTURES = f"SELECT p.* FROM s.picture AS p WHERE p.id IN (SELECT q.picture_id FROM ({USERS}) AS q)"
PARENTS = {"auth_user": USERS, "picture": PICTURES}
OWN = "clinic_id = {{ clinic_id }}"
EXTRACTS = {"staff": OWN, "membership": OWN}
LISTS = "s.auth_user.last_clinic_id: any clinic\n"


def with_parents(
    database: DemoDatabase,
    folder: Path,
    parents: Mapping[str, str] | None = None,
    extracts: Mapping[str, str] | None = None,
    *,
    lists: str = LISTS,
    more: str = "",
    owner: bool = False,
) -> Shaped:
    """The schema with its SQL folder.

    :param parents: the query of each parent table ``s.<name>``.
    :param more: further statements.
    """
    extracts = EXTRACTS if extracts is None else extracts
    rig = shaped(database, folder, f"{TABLES};{more}", extracts, lists=lists, owner=owner)
    set_parents(rig, PARENTS if parents is None else parents)
    return rig


def set_parents(rig: Shaped, parents: Mapping[str, str]) -> None:
    """Replace the queries of the parent tables."""
    folder = rig.settings.sql_dir / "parents"
    folder.mkdir(exist_ok=True)
    for file in folder.iterdir():
        file.unlink()
    for name, query in parents.items():
        (folder / f"s.{name}.sql").write_text(query)
