"""Keys that are equal by a real collation without regard to case, in what tells of rows: forget, export, find, diff.

Such collations need a PostgreSQL with ICU, which that of the test suite lacks. ``make test-matrix`` runs these with 15.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.integration.test_cli import run as run
from tests.integration.test_collations import CI
from tests.integration.test_collations import icu as icu
from tests.integration.test_forgotten_links import KEPT, MARK, OF, Site
from tests.integration.test_forgotten_links import make as make

DDL = f"""{CI}
CREATE TABLE s.p (code {{0}} PRIMARY KEY, {OF}, n text);
CREATE TABLE s.k (id int PRIMARY KEY, {OF}, p {{0}} NOT NULL REFERENCES s.p, q text);
INSERT INTO s.p VALUES ('Ana', 1, '{MARK}'), ('Bea', 1, '{KEPT}');
INSERT INTO s.k VALUES (1, 1, 'ANA', '{MARK}'), (2, 1, 'bea', '{KEPT}');
"""
TYPES = {
    "without case": "text COLLATE s.ci",
    "with a length": "varchar(9) COLLATE s.ci",
}


def export(site: Site, backup: str, folder: Path) -> str:
    site("export", "--backup", backup, "--format", "csv", "--output", str(folder))
    return site.texts(folder)


@pytest.mark.parametrize("type_", TYPES.values(), ids=TYPES)
def test_what_hangs_on_a_forgotten_row_is_told_by_no_command(
    make: Callable[..., Site], tmp_path: Path, type_: str
) -> None:
    """The link has another case than the key. The archives alone do not know that it is the same value."""
    site = make(DDL.format(type_), tables="p k")
    backup = site.backup()
    site.forget("s.p:Ana")
    found = export(site, backup, tmp_path / "out")
    assert MARK not in found
    assert found.count(KEPT) == 2
    site.rig.execute("DELETE FROM s.k", "DELETE FROM s.p WHERE c = 1")
    shown = site("diff", backup, "now", "--clinic", "1", "--values")
    assert MARK not in shown.out
    assert "s.k" in shown.out
    for words in (("--rows", "s.p:Ana"), ("--rows", "s.k:1")):
        assert MARK not in site("find", "--clinic", "1", *words, "--values").out
    site("restore", "--clinic", "1", "--backup", backup, "--yes")
    assert site.rig.everything()["s.p"] == [f"(Bea,1,{KEPT})"]
    assert site.rig.everything()["s.k"] == [f"(2,1,bea,{KEPT})"]


def test_links_of_one_spelling_are_followed_without_the_server(make: Callable[..., Site], tmp_path: Path) -> None:
    site = make(DDL.format(TYPES["without case"]).replace("'ANA'", "'Ana'").replace("'bea'", "'Bea'"), tables="p k")
    backup = site.backup()
    site.forget("s.p:Ana")
    found = export(site, backup, tmp_path / "out")
    assert MARK not in found
    assert KEPT in found


def test_a_key_whose_case_changed_is_a_change_in_a_comparison(make: Callable[..., Site]) -> None:
    site = make(DDL.format(TYPES["without case"]), tables="p k")
    backup = site.backup()
    site.rig.execute("UPDATE s.p SET n = 'x' WHERE code = 'BEA'")
    (changed,) = [
        each for each in site("diff", backup, "now", "--clinic", "1", "--json").json()["tables"]
        if each["table"] == "s.p"
    ]  # fmt: skip
    assert (changed["added"], changed["removed"], changed["changed"]) == (0, 0, 1)
    (found,) = site("find", "--clinic", "1", "--rows", "s.p:Bea", "--json").json()
    assert found["is_gone"] is False
