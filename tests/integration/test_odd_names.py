"""Tables whose names have a dot or a colon: what a command prints can be given to it again."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.integration.test_cli import run as run
from tests.integration.test_forget_shapes import OF, OWN
from tests.integration.test_forgotten_links import Site
from tests.integration.test_forgotten_links import make as make

Make = Callable[..., Site]
NAMES = ["a.b", "a:b", "a.b:c", ":a:", 'a"b']


def shop(make: Make, name: str) -> tuple[Site, str, str]:
    """A table of that name with one row. Returns its name in SQL, and the id of a backup."""
    table = f's."{name.replace(chr(34), chr(34) * 2)}"'
    site = make(
        f"CREATE TABLE {table} (id int PRIMARY KEY, {OF}, n text); INSERT INTO {table} VALUES (1, 1, 'x'), (2, 1, 'y')",
        tables="clinic",
    )
    folder = site.rig.settings.sql_dir / "extract"
    (folder / "s.clinic.sql").write_text("SELECT t.* FROM s.clinic AS t WHERE id = {{ clinic_id }}")
    (folder / f"s.{name}.sql").write_text(f"SELECT t.* FROM {table} AS t WHERE {OWN}")
    return site, table, site.backup()


def ids(site: Site, table: str) -> list[int]:
    return [id_ for (id_,) in site.rig.execute_rows(f"SELECT id FROM {table} ORDER BY id")]


@pytest.mark.parametrize("name", NAMES)
def test_the_command_that_find_prints_brings_the_row_back(make: Make, name: str) -> None:
    site, table, _ = shop(make, name)
    site.rig.execute(f"DELETE FROM {table} WHERE id = 1")
    site.backup()
    found = site("find", "--clinic", "1", "--rows", f"{table}:1")
    assert table in found.out
    command = found.err.split("To bring it back: clinic-backups ")[1].strip()
    done = site(*shlex.split(command), "--yes")
    assert f"{table}: 1 to insert" in done.err
    assert ids(site, table) == [1, 2]
    site.rig.execute(f"DELETE FROM {table}")
    site(*shlex.split(done.out.split("To undo: clinic-backups ")[1]), "--yes")


@pytest.mark.parametrize("name", NAMES)
def test_every_command_takes_the_name_in_quotes(make: Make, name: str, tmp_path: Path) -> None:
    site, table, backup = shop(make, name)
    site.rig.execute(f"DELETE FROM {table} WHERE id = 2")
    later = site.backup()
    assert table in site("diff", backup, later, "--table", table).out
    exported = site(
        "export", "--format", "csv", "--output", str(tmp_path / "out"), "--backup", backup, "--table", table
    )
    assert exported.code == 0
    site("restore", "--clinic", "1", "--backup", backup, "--table", table, "--yes")
    assert ids(site, table) == [1, 2]
    site("restore", "--clinic", "1", "--backup", later, "--table", f"s.{name}", "--yes")
    assert ids(site, table) == [1]
    site("forget", "--clinic", "1", "--rows", f"{table}:2", "--reason", "x")
    assert table in site("forget", "--list", COLUMNS="300").out
    site("restore", "--clinic", "1", "--backup", backup, "--yes")
    assert ids(site, table) == [1]


@pytest.mark.parametrize("name", ["a.b", "a:b"])
def test_an_error_names_the_table_as_it_can_be_given(make: Make, name: str) -> None:
    site, table, backup = shop(make, name)
    wrong = site("restore", "--clinic", "1", "--backup", backup, "--table", f"x.{name}", "--yes", code=2)
    assert f"Did you mean {table}?" in " ".join(wrong.err.split())
    wrong = site("find", "--clinic", "1", "--rows", f"{table}:x", code=2)
    assert f"For instance: {table}:1" in " ".join(wrong.err.split())


@pytest.mark.parametrize("name", ["a.b", "a:b"])
def test_a_copy_and_a_workbook_take_it_too(make: Make, name: str, tmp_path: Path) -> None:
    site, table, backup = shop(make, name)
    site.rig.execute(f"GRANT CREATE ON DATABASE {site.rig.database.name} TO clinic_backups_restorer")
    site("restore-into", "--clinic", "1", "--schema", "look", "--backup", backup, "--table", table)
    assert ids(site, f'look."{name}"') == [1, 2]
    for form in ("xlsx", "json"):
        site("export", "--format", form, "--output", str(tmp_path / form), "--backup", backup, "--table", table)
