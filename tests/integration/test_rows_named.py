"""Rows that are named by another name than that of their table in the backup, and what is said about them."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from clinic_backups.tenant.tenant_db import Snapshot
from tests.integration.test_cli import run as run
from tests.integration.test_forget_shapes import OF, OWN
from tests.integration.test_forgotten_links import Site
from tests.integration.test_forgotten_links import make as make
from tests.shapes import grants

Make = Callable[..., Site]
TABLE = f"CREATE TABLE s.p (id int PRIMARY KEY, {OF}, n text); INSERT INTO s.p VALUES (1, 1, 'a'), (2, 1, 'b')"
PERSONS = f"""
    CREATE TABLE s.persona (id int PRIMARY KEY, {OF}, n text);
    CREATE TABLE s.vieja (PRIMARY KEY (id)) INHERITS (s.persona);
    CREATE TABLE s.nota (id int PRIMARY KEY, {OF}, persona_id int NOT NULL, q text);
    INSERT INTO s.persona VALUES (1, 1, 'a'); INSERT INTO s.vieja VALUES (43, 1, 'b');
    INSERT INTO s.nota VALUES (1, 1, 43, 'q'), (2, 1, 1, 'q')
"""
ALL_GONE = ("DELETE FROM s.nota WHERE c = 1", "DELETE FROM s.persona WHERE c = 1")


def persons(make: Make) -> Site:
    site = make(PERSONS, tables="persona vieja nota")
    extract(site, "persona", "SELECT t.* FROM ONLY s.persona AS t WHERE " + OWN)
    return site


def extract(site: Site, table: str, text: str = "") -> None:
    text = text or f"SELECT t.* FROM s.{table} AS t WHERE {OWN}"
    (site.rig.settings.sql_dir / "extract" / f"s.{table}.sql").write_text(text)


def rename(site: Site, old: str, new: str) -> None:
    site.rig.execute(f"ALTER TABLE s.{old} RENAME TO {new}")
    (site.rig.settings.sql_dir / "extract" / f"s.{old}.sql").unlink()
    extract(site, new)
    (site.rig.settings.sql_dir / "drift.txt").write_text(f"s.{old} -> s.{new}\n")


def ids(site: Site, table: str) -> list[int]:
    return [id for (id,) in site.rig.execute_rows(f"SELECT id FROM ONLY s.{table} WHERE c = 1 ORDER BY 1")]


def restore(site: Site, backup: str, *rows: str, code: int = 0) -> str:
    named = [word for each in rows for word in ("--rows", each)]
    done = site("restore", "--clinic", "1", "--backup", backup, *named, "--yes", code=code)
    return " ".join((done.out + done.err).split())


@pytest.mark.parametrize("rows", [("s.gente:1", "s.p:2"), ("s.p:2", "s.gente:1"), ("s.p:1", "s.gente:1,2")])
def test_two_names_of_one_table_name_rows_of_it_together(make: Make, rows: tuple[str, ...]) -> None:
    site = make(TABLE, tables="p")
    backup = site.backup()
    site.rig.execute("DELETE FROM s.p")
    rename(site, "p", "gente")
    found = site("find", "--clinic", "1", "--rows", rows[0], "--rows", rows[1], "--json").json()
    assert sorted(each["key"] for each in found) == ["1", "2"]
    restore(site, backup, *rows)
    assert ids(site, "gente") == [1, 2]


@pytest.mark.parametrize("name", ["p", "gente"])
def test_right_after_a_renaming_both_names_are_taken(make: Make, name: str) -> None:
    site = make(TABLE, tables="p")
    backup = site.backup()
    rename(site, "p", "gente")
    site.rig.execute("DELETE FROM s.gente")
    (found,) = site("find", "--clinic", "1", "--rows", f"s.{name}:1", "--json").json()
    assert found["key"] == "1"
    # Before the safety backup of a restore has the table under its present name.
    site("forget", "--clinic", "1", "--rows", f"s.{name}:2", "--reason", "x")
    restore(site, backup, f"s.{name}:1")
    assert ids(site, "gente") == [1]
    restore(site, backup, "s.gente:2", code=1)
    assert ids(site, "gente") == [1]


@pytest.mark.parametrize("wrong", ["", ",x"])
def test_keys_are_read_together(make: Make, monkeypatch: pytest.MonkeyPatch, wrong: str) -> None:
    """Each question to the database is a transaction."""
    site = make(TABLE, tables="p")
    site.backup()
    asked = []

    class Counting(Snapshot):
        def __enter__(self) -> Snapshot:
            asked.append(1)
            return super().__enter__()

    monkeypatch.setattr("clinic_backups.restore.keys_now.Snapshot", Counting)
    done = site(
        "find", "--clinic", "1", "--rows", f"s.p:{','.join(map(str, range(1, 501)))}{wrong}", code=2 * bool(wrong)
    )
    assert ("'x' is no value of id (integer)" in done.err) == bool(wrong)
    assert len(asked) < 40


def test_a_row_of_an_heir_is_found_under_the_name_of_its_parent(make: Make) -> None:
    site = persons(make)
    backup = site.backup()
    site.rig.execute(*ALL_GONE)
    site.backup()
    (found,) = site("find", "--clinic", "1", "--rows", "s.persona:43", "--json").json()
    assert (found["table"], found["key"]) == ("s.vieja", "43")
    shown = site("find", "--clinic", "1", "--rows", "s.persona:43")
    assert "--rows s.vieja:43" in shown.err
    said = restore(site, backup, "s.persona:43", code=1)
    assert "s.vieja" in said
    assert ids(site, "vieja") == []


def test_an_heir_with_another_key_is_named(make: Make) -> None:
    site = make(
        f"CREATE TABLE s.persona (id int PRIMARY KEY, {OF}, n text);"
        " CREATE TABLE s.vieja (num int PRIMARY KEY) INHERITS (s.persona);"
        " INSERT INTO s.persona VALUES (1, 1, 'a'); INSERT INTO s.vieja VALUES (43, 1, 'b', 7)",
        tables="persona vieja",
    )
    extract(site, "persona", "SELECT t.* FROM ONLY s.persona AS t WHERE " + OWN)
    site.backup()
    done = site("find", "--clinic", "1", "--rows", "s.persona:43", code=1)
    assert "s.vieja" in done.err


PARTED = f"""
    CREATE TABLE s.w (id int PRIMARY KEY, {OF}, n text) PARTITION BY RANGE (id);
    CREATE TABLE s.w1 PARTITION OF s.w FOR VALUES FROM (0) TO (100);
    INSERT INTO s.w VALUES (1, 1, 'a')
"""


def test_a_partition_leads_to_the_table_that_has_its_rows(make: Make) -> None:
    site = make(PARTED, tables="w")
    backup = site.backup()
    done = site("find", "--clinic", "1", "--rows", "s.w1:1", code=2)
    assert "--rows s.w:KEY" in done.err
    assert "--rows s.w:KEY" in restore(site, backup, "s.w1:1", code=2)


@pytest.mark.parametrize("renamed", [False, True])
def test_a_table_leads_to_the_partition_that_was_attached_since(make: Make, renamed: bool) -> None:
    site = make(
        f"CREATE TABLE s.w1 (id int PRIMARY KEY, {OF}, n text); INSERT INTO s.w1 VALUES (1, 1, 'a'), (2, 1, 'b')",
        tables="w1",
    )
    backup = site.backup()
    site.rig.execute(
        f"CREATE TABLE s.w (id int PRIMARY KEY, {OF}, n text) PARTITION BY RANGE (id)",
        "ALTER TABLE s.w ATTACH PARTITION s.w1 FOR VALUES FROM (0) TO (100)",
        *grants(site.rig.database),
    )
    extract(site, "w")
    part = "s.w1"
    if renamed:
        rename(site, "w1", "w_2024")
        part = "s.w_2024"
        (site.rig.settings.sql_dir / "extract" / "s.w_2024.sql").unlink()
    else:
        (site.rig.settings.sql_dir / "extract" / "s.w1.sql").unlink()
    assert f"--rows {part}:KEY" in restore(site, backup, "s.w:1", code=2)
    done = site("find", "--clinic", "1", "--rows", "s.w:1", code=2)
    assert f"--rows {part}:KEY" in done.err
    if renamed:
        assert f"--rows {part}:KEY" in site("forget", "--clinic", "1", "--rows", "s.w:1", "--reason", "x", code=1).err
    site("forget", "--clinic", "1", "--rows", f"{part if renamed else 's.w'}:1", "--reason", "x")
    done = site("find", "--clinic", "1", "--rows", f"{part}:1", "--json")
    assert done.json()[0]["is_forgotten"]


@pytest.mark.parametrize(
    ("rows", "back"),
    [
        ("s.vieja:43", {"persona": [], "vieja": [43], "nota": [1]}),
        ("s.nota:1", {"persona": [], "vieja": [43], "nota": [1]}),
        ("s.persona:1", {"persona": [1], "vieja": [], "nota": [2]}),
    ],
)
def test_columns_named_like_a_link_reach_heirs(make: Make, rows: str, back: dict[str, list[int]]) -> None:
    site = persons(make)
    backup = site.backup()
    site.rig.execute(*ALL_GONE)
    restore(site, backup, rows)
    assert {table: ids(site, table) for table in back} == back


@pytest.mark.parametrize(("rows", "table"), [("s.gente:1", "nota"), ("s.nota:2", "gente")])
def test_columns_named_like_a_link_are_followed_after_a_renaming(make: Make, rows: str, table: str) -> None:
    site = make(
        f"CREATE TABLE s.persona (id int PRIMARY KEY, {OF}, n text);"
        f" CREATE TABLE s.nota (id int PRIMARY KEY, {OF}, persona_id int NOT NULL, q text);"
        " INSERT INTO s.persona VALUES (1, 1, 'a'); INSERT INTO s.nota VALUES (2, 1, 1, 'q')",
        tables="persona nota",
    )
    backup = site.backup()
    site.rig.execute(*ALL_GONE)
    rename(site, "persona", "gente")
    restore(site, backup, rows)
    assert ids(site, "gente") == [1]
    assert ids(site, "nota") == [2]


@pytest.mark.parametrize(
    "column", ["seq int GENERATED ALWAYS AS IDENTITY", "seq int UNIQUE GENERATED ALWAYS AS IDENTITY"]
)
def test_a_row_that_cannot_be_updated_is_refused_for_the_reason(make: Make, column: str) -> None:
    site = make(
        f"CREATE TABLE s.p (id int PRIMARY KEY, {OF}, n text, {column});"
        f" CREATE TABLE s.k (id int PRIMARY KEY, {OF}, p int NOT NULL REFERENCES s.p ON DELETE CASCADE);"
        " INSERT INTO s.p VALUES (1, 1, 'a'); INSERT INTO s.k VALUES (1, 1, 1)",
        tables="p k",
    )
    backup = site.backup()
    site.rig.execute("DELETE FROM s.p", "INSERT INTO s.p VALUES (1, 1, 'anew')", "INSERT INTO s.k VALUES (2, 1, 1)")
    said = restore(site, backup, "s.p:1", code=1)
    assert "seq is GENERATED ALWAYS AS IDENTITY" in said
    assert "get their unique values" not in said


@pytest.mark.parametrize("rows", ["s.persona:1", "s.nota:1"])
def test_a_column_that_only_forget_follows_is_named(make: Make, rows: str) -> None:
    """It is named like a foreign key, and has another type."""
    site = make(
        f"CREATE TABLE s.persona (id int PRIMARY KEY, {OF}, n text);"
        f" CREATE TABLE s.nota (id int PRIMARY KEY, {OF}, persona_id text, q text);"
        " INSERT INTO s.persona VALUES (1, 1, 'a'); INSERT INTO s.nota VALUES (1, 1, '1', 'q')",
        tables="persona nota",
    )
    backup = site.backup()
    site.rig.execute(*ALL_GONE)
    said = "Links in persona_id between s.nota and s.persona are not followed"
    assert said in restore(site, backup, rows)
    site.rig.execute(*ALL_GONE)
    (site.rig.settings.sql_dir / "not_backed_up.txt").write_text("s.nota.persona_id: a number on paper\n")
    assert said not in restore(site, backup, rows)


def test_forget_counts_the_rows_that_were_named(make: Make) -> None:
    site = persons(make)
    site.backup()
    done = site("forget", "--clinic", "1", "--rows", "s.persona:1,43", "--reason", "x")
    assert done.out.startswith("2 rows of clinic 1 will not come back")
