"""The undo of a restore of single records, row by row: the state before, and what others did since."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.integration.test_cli import run as run
from tests.integration.test_forgotten_links import OF, Site
from tests.integration.test_forgotten_links import make as make

DDL = f"""
CREATE TABLE s.p (id int PRIMARY KEY, {OF}, n text);
CREATE TABLE s.k (id int PRIMARY KEY, {OF}, p int NOT NULL REFERENCES s.p ON DELETE CASCADE, q text);
CREATE TABLE s.l (id int PRIMARY KEY, {OF}, p int REFERENCES s.p ON DELETE SET NULL, q text);
CREATE TABLE s.m ({OF}, p int NOT NULL REFERENCES s.p ON DELETE CASCADE, q text);
CREATE TABLE s.u (id int PRIMARY KEY, {OF}, q text);
INSERT INTO s.p VALUES (1, 1, 'a'), (2, 1, 'b'), (9, 2, 'z');
INSERT INTO s.k VALUES (1, 1, 1, 'a'), (2, 1, 2, 'b'), (9, 2, 9, 'z');
INSERT INTO s.l VALUES (1, 1, 1, 'a'), (2, 1, 2, 'b'), (3, 1, 1, 'c'), (9, 2, 9, 'z');
INSERT INTO s.m VALUES (1, 1, 'a'), (1, 1, 'a'), (1, 2, 'b'), (2, 9, 'z');
INSERT INTO s.u VALUES (1, 1, 'a'), (9, 2, 'z');
"""
DAMAGES = {
    "deleted": ("DELETE FROM s.p WHERE id = 1", "UPDATE s.l SET q = 'work' WHERE id = 1"),
    "changed": ("UPDATE s.p SET n = 'bad' WHERE id = 1", "UPDATE s.k SET q = 'bad' WHERE id = 1"),
    "made anew": ("DELETE FROM s.p WHERE id = 1", "INSERT INTO s.p VALUES (1, 1, 'new')",
                  "INSERT INTO s.k VALUES (7, 1, 1, 'new')", "UPDATE s.l SET p = 2 WHERE id = 3"),
}  # fmt: skip


def restored(site: Site, damage: tuple[str, ...]) -> tuple[dict[str, list[str]], tuple[str, ...]]:
    """Damage, and bring back the record. Returns the state before that, and the words of the command that undoes it."""
    backup = site.backup()
    site.rig.execute(*damage)
    before = site.rig.everything()
    site("restore", "--clinic", "1", "--backup", backup, "--rows", "s.p:1", "--yes", "--json")
    assert site.rig.everything() != before
    (safety,) = [each for each in site("list", "--clinic", "1", "--json").json() if each["backup_id"] != backup]
    return before, ("restore", "--clinic", "1", "--backup", safety["backup_id"])


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_the_undo_gives_the_state_before_row_by_row(make: Callable[..., Site], damage: tuple[str, ...]) -> None:
    site = make(DDL, tables="p k l m u")
    before, undo = restored(site, damage)
    # Other tables and the other clinic were changed meanwhile.
    site.rig.execute("UPDATE s.u SET q = 'work'", "UPDATE s.k SET q = 'work' WHERE c = 2")
    site(*undo, "--yes")
    others = {"s.u": ["(1,1,work)", "(9,2,work)"], "s.k": [row.replace("(9,2,9,z)", "(9,2,9,work)")
                                                          for row in before["s.k"]]}  # fmt: skip
    assert site.rig.everything() == before | others


def test_the_plan_of_the_undo_shows_and_says_that_work_in_these_tables_is_taken_back(
    make: Callable[..., Site],
) -> None:
    """The undo is a restore of whole tables. Whoever approves it has to know."""
    site = make(DDL, tables="p k l m u")
    before, undo = restored(site, DAMAGES["deleted"])
    site.rig.execute("UPDATE s.p SET n = 'work' WHERE id = 2", "INSERT INTO s.p VALUES (3, 1, 'work')")
    shown = site(*undo, "--plan").err
    assert "s.p: 0 to insert, 1 to update (n), 2 to delete" in shown
    assert "What people changed in these tables since is taken back too" in shown
    site(*undo, "--yes")
    assert site.rig.everything() == before
