"""A mask of a table holds for its partitions and heirs, or there is no masked copy."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.integration.test_cli import run as run
from tests.integration.test_forgotten_links import OF, OWN, Site
from tests.integration.test_forgotten_links import make as make
from tests.shapes import grants

MARK, KEPT = "ZQXMARK", "ZQXKEPT"
HEIRS = f"""
CREATE TABLE s.p (id int PRIMARY KEY, {OF}, n text, kept text);
CREATE TABLE s.p1 (extra text, PRIMARY KEY (id)) INHERITS (s.p);
CREATE TABLE s.p2 (PRIMARY KEY (id)) INHERITS (s.p1);
INSERT INTO s.p VALUES (1, 1, '{MARK}', '{KEPT}'); INSERT INTO s.p1 VALUES (2, 1, '{MARK}', '{KEPT}', 'x');
INSERT INTO s.p2 VALUES (3, 1, '{MARK}', '{KEPT}', 'x');
"""
PARTS = f"""
CREATE TABLE s.p (id int PRIMARY KEY, {OF}, n text, kept text) PARTITION BY RANGE (id);
CREATE TABLE s.p1 PARTITION OF s.p FOR VALUES FROM (0) TO (50);
CREATE TABLE s.p2 PARTITION OF s.p FOR VALUES FROM (50) TO (99);
CREATE VIEW s.v AS SELECT * FROM s.p;
INSERT INTO s.p VALUES (1, 1, '{MARK}', '{KEPT}'), (51, 1, '{MARK}', '{KEPT}');
"""
DETACHED = "ALTER TABLE s.p DETACH PARTITION s.p1"
ATTACHED = "ALTER TABLE s.p ATTACH PARTITION s.p1 FOR VALUES FROM (0) TO (50)"


def copied(site: Site, backup: str, masks: str, *, code: int = 0) -> str:
    """What the copy holds in all its tables, or the error."""
    (site.rig.settings.sql_dir / "masks.txt").write_text(masks)
    site.rig.execute("DROP SCHEMA IF EXISTS copia CASCADE")
    target = {"AIRFLOW_CONN_RESTORE_TARGET": site.rig.database.postgres.uri(site.rig.database.name)}
    done = site("restore-into", "--clinic", "1", "--schema", "copia", "--backup", backup, code=code, **target)
    tables = site.rig.execute_rows("SELECT tablename FROM pg_tables WHERE schemaname = 'copia'")
    rows = [row for (name,) in tables for row in site.rig.execute_rows(f"SELECT t::text FROM ONLY copia.{name} AS t")]
    return str(rows) if code == 0 else str(done.err)


def heirs(make: Callable[..., Site]) -> Site:
    site = make(HEIRS, tables="p p1 p2")
    for name in ("p", "p1"):
        only = f"SELECT t.* FROM ONLY s.{name} AS t WHERE {OWN}"
        (site.rig.settings.sql_dir / "extract" / f"s.{name}.sql").write_text(only)
    return site


@pytest.mark.parametrize("masks", ["s.p.n: name\n", "s.p.n: name\ns.p1.n: hash\n"])
def test_heirs_at_any_depth_are_masked(make: Callable[..., Site], masks: str) -> None:
    site = heirs(make)
    found = copied(site, site.backup(), masks)
    assert MARK not in found
    assert found.count(KEPT) == 3


def test_heirs_that_left_since_are_masked(make: Callable[..., Site]) -> None:
    site = heirs(make)
    backup = site.backup()
    site.rig.execute("ALTER TABLE s.p1 NO INHERIT s.p")
    assert MARK not in copied(site, backup, "s.p.n: name\n")


def test_a_rule_that_does_not_fit_an_heir_is_refused(make: Callable[..., Site]) -> None:
    """A column may be unique in the heir alone."""
    site = heirs(make)
    site.rig.execute("UPDATE s.p2 SET n = n || id", "ALTER TABLE s.p2 ADD UNIQUE (n)")
    assert "s.p2.n, phone: it may not have the same value twice" in copied(
        site, site.backup(), "s.p.n: phone\n", code=2
    )


def test_partitions_are_masked_with_their_table(make: Callable[..., Site]) -> None:
    site = make(PARTS, tables="p")
    found = copied(site, site.backup(), "s.p.n: name\n")
    assert MARK not in found
    assert found.count(KEPT) == 2


def test_a_partition_that_was_attached_since_is_masked(make: Callable[..., Site]) -> None:
    """An older backup has it as a table of its own."""
    site = make(PARTS, DETACHED, tables="p p1")
    backup = site.backup()
    site.rig.execute(ATTACHED)
    assert MARK not in copied(site, backup, "s.p.n: name\n")


@pytest.mark.parametrize("levels", [1, 2])
def test_a_partition_that_was_attached_and_renamed_since_is_masked(make: Callable[..., Site], levels: int) -> None:
    site = make(PARTS, DETACHED, tables="p p1")
    backup = site.backup()
    site.rig.execute("CREATE TABLE s.q (LIKE s.p INCLUDING ALL) PARTITION BY RANGE (id)")
    whole = "s.q"
    if levels == 2:
        site.rig.execute("CREATE TABLE s.qq PARTITION OF s.q FOR VALUES FROM (0) TO (99) PARTITION BY RANGE (id)")
        whole = "s.qq"
    site.rig.execute(
        f"ALTER TABLE {whole} ATTACH PARTITION s.p1 FOR VALUES FROM (0) TO (50)", "ALTER TABLE s.p1 RENAME TO q1",
        *grants(site.rig.database),
    )  # fmt: skip
    folder = site.rig.settings.sql_dir
    (folder / "extract" / "s.p1.sql").unlink()
    (folder / "extract" / "s.q.sql").write_text(f"SELECT t.* FROM s.q AS t WHERE {OWN}")
    (folder / "drift.txt").write_text("s.p1 -> s.q1\n")
    found = copied(site, backup, "s.q.n: name\ns.p.n: name\n")
    assert MARK not in found
    assert found.count(KEPT) == 2
    # A column that cannot be recognised in the partition must not come in clear.
    site.rig.execute("ALTER TABLE s.q RENAME n TO m")
    assert "s.p1.m: the backup has no such column" in copied(site, backup, "s.q.m: name\ns.p.n: name\n", code=2)
    (folder / "drift.txt").write_text("s.p1 -> s.q1\ns.q: n -> m\n")
    assert MARK not in copied(site, backup, "s.q.m: name\ns.p.n: name\n")


@pytest.mark.parametrize(
    ("masks", "said"),
    [
        ("s.p1.n: name\n", "s.p1: its rows are backed up as rows of s.p, so its lines mask nothing."),
        ("s.v.n: name\n", "s.v: there is no such table"),
    ],
)
def test_a_line_that_would_mask_nothing_is_refused(make: Callable[..., Site], masks: str, said: str) -> None:
    """Of a partition, of one that was detached since, and of a view."""
    site = make(PARTS, tables="p")
    backup = site.backup()
    assert said in copied(site, backup, masks, code=2)
    warned = site("check", "--json", code=1).out if masks.startswith("s.p1") else said
    assert said in warned
    site.rig.execute("DROP VIEW s.v", DETACHED)
    assert said in copied(site, backup, masks, code=2)
