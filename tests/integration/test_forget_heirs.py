"""Forgotten rows stay away wherever they lie: in heirs, and in partitions that were attached or detached since."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from clinic_backups.catalog.forgotten import Forgotten
from tests.integration.test_cli import run as run
from tests.integration.test_forget_shapes import Forgetting, without_mark
from tests.integration.test_forgotten_links import KEPT, MARK, OF, OWN, Site
from tests.integration.test_forgotten_links import earlier as earlier
from tests.integration.test_forgotten_links import make as make
from tests.postgres_fixtures import DemoDatabase
from tests.shapes import shaped

ONLY = "SELECT t.* FROM ONLY s.persona AS t WHERE " + OWN
HEIRS = f"""
CREATE TABLE s.persona (id int PRIMARY KEY, {OF}, n text);
CREATE TABLE s.vieja_persona (extra text, {{key}}) INHERITS (s.persona);
CREATE TABLE s.nota (id int PRIMARY KEY, {OF}, persona_id int NOT NULL, q text);
INSERT INTO s.persona VALUES (1, 1, '{KEPT}'), (9, 2, 'z');
INSERT INTO s.vieja_persona VALUES (43, 1, '{MARK}', '{MARK}'), (44, 1, '{KEPT}', '{KEPT}');
INSERT INTO s.nota VALUES (1, 1, 43, '{MARK}'), (2, 1, 44, '{KEPT}'), (3, 1, 1, '{KEPT}');
"""
KEYS = ["PRIMARY KEY (id)", "PRIMARY KEY (extra)", "UNIQUE (id, extra)"]


def with_heirs(make: Callable[..., Site]) -> Site:
    site = make(HEIRS.format(key=KEYS[0]), tables="persona vieja_persona nota")
    (site.rig.settings.sql_dir / "extract" / "s.persona.sql").write_text(ONLY)
    return site


def test_no_command_gives_a_row_of_an_heir_that_was_named_by_its_parent(
    make: Callable[..., Site], tmp_path: Path, earlier: Callable[[], str]
) -> None:
    heirs = with_heirs(make)
    backup = heirs.backup()
    heirs.forget("s.persona:43")
    heirs("export", "--backup", backup, "--format", "csv", "--output", str(tmp_path / "out"))
    assert MARK not in heirs.texts(tmp_path / "out")
    assert KEPT in heirs.texts(tmp_path / "out")
    found = heirs("find", "--clinic", "1", "--rows", "s.vieja_persona:43,44", "--json").json()
    assert {each["key"]: each["is_forgotten"] for each in found} == {"43": True, "44": False}
    heirs.variables["AIRFLOW_CONN_RESTORE_TARGET"] = heirs.rig.database.postgres.uri(heirs.rig.database.name)
    heirs("restore-into", "--clinic", "1", "--schema", "copia", "--backup", backup)
    copied = heirs.rig.execute_rows("SELECT id FROM copia.persona UNION ALL SELECT id FROM copia.vieja_persona")
    assert copied == [(1,), (44,)]
    assert heirs.rig.execute_rows("SELECT id FROM copia.nota ORDER BY 1") == [(2,), (3,)]
    heirs.variables["AIRFLOW_CONN_PITR_DB"] = earlier()
    kept = without_mark(heirs.rig)
    heirs.rig.execute("DELETE FROM s.nota WHERE c = 1", "DELETE FROM s.persona WHERE c = 1")
    for words in ((backup, "now"), ("pitr_db", "now")):
        shown = heirs("diff", *words, "--clinic", "1", "--values").out
        assert MARK not in shown
        assert KEPT in shown
    heirs("restore", "--clinic", "1", "--backup", backup, "--yes")
    assert heirs.rig.everything() == kept


@pytest.mark.parametrize("key", KEYS)
def test_an_heir_with_another_key_or_none_is_looked_through_by_its_parents(
    demo_database: DemoDatabase, tmp_path: Path, key: str
) -> None:
    """PostgreSQL's heirs do not get the primary key of their parent."""
    extracts = {"persona": ONLY, "vieja_persona": OWN, "nota": OWN}
    lists = "s.nota.persona_id: it refers to heirs, too\n"
    rig = shaped(demo_database, tmp_path, HEIRS.format(key=key), extracts, lists=lists)
    rig.__class__ = Forgetting
    record = rig.run(1)
    Forgotten(rig.catalog.database).add(1, {"s.persona": ["43"]}, by="ana", reason="Art. 17")
    kept = without_mark(rig)
    rig.execute("DELETE FROM s.nota", "DELETE FROM s.persona WHERE c = 1")
    rig.bring_back(record)
    assert rig.everything() == kept


PARTS = f"""
CREATE TABLE s.persona (id int PRIMARY KEY, {OF}, n text) PARTITION BY RANGE (id);
CREATE TABLE s.persona_1 PARTITION OF s.persona FOR VALUES FROM (0) TO (50);
CREATE TABLE s.persona_2 PARTITION OF s.persona FOR VALUES FROM (50) TO (99);
INSERT INTO s.persona VALUES (43, 1, '{MARK}'), (44, 1, '{KEPT}'), (55, 1, '{KEPT}'), (60, 2, 'z');
"""
DETACHED = "ALTER TABLE s.persona DETACH PARTITION s.persona_1"
ATTACHED = "ALTER TABLE s.persona ATTACH PARTITION s.persona_1 FOR VALUES FROM (0) TO (50)"


def test_a_partition_that_was_detached_since_holds_no_forgotten_row(make: Callable[..., Site], tmp_path: Path) -> None:
    """A backup that was made after that has the partition as a table of its own."""
    site = make(PARTS, tables="persona")
    sql = site.rig.settings.sql_dir
    site.backup()
    site.forget("s.persona:43")
    site.rig.execute(DETACHED)
    (sql / "extract" / "s.persona_1.sql").write_text(f"SELECT t.* FROM s.persona_1 AS t WHERE {OWN}")
    (sql / "drift.txt").write_text("s.persona without s.persona_1\n")
    later = site.backup()
    site("export", "--backup", later, "--format", "csv", "--output", str(tmp_path / "out"))
    assert MARK not in site.texts(tmp_path / "out")
    site.rig.execute("DELETE FROM s.persona_1")
    site("restore", "--clinic", "1", "--backup", later, "--yes")
    assert site.rig.execute_rows("SELECT id FROM s.persona_1") == [(44,)]


@pytest.mark.parametrize("named", ["s.persona:43", "s.persona_1:43"])
def test_a_partition_that_was_attached_since_holds_no_forgotten_row(
    make: Callable[..., Site], tmp_path: Path, named: str
) -> None:
    """An older backup has it as a table of its own, and a newer one has its rows in the partitioned table."""
    site = make(PARTS, DETACHED, tables="persona persona_1")
    sql = site.rig.settings.sql_dir
    older = site.backup()
    site.rig.execute(ATTACHED)
    (sql / "extract" / "s.persona_1.sql").unlink()
    newer = site.backup()
    site.forget(named)
    for backup in (older, newer):
        site("export", "--backup", backup, "--format", "csv", "--output", str(tmp_path / backup))
        assert MARK not in site.texts(tmp_path / backup)
        assert KEPT in site.texts(tmp_path / backup)
    site.rig.execute("DELETE FROM s.persona WHERE c = 1")
    site("restore", "--clinic", "1", "--backup", newer, "--yes")
    assert site.rig.execute_rows("SELECT id FROM s.persona WHERE c = 1 ORDER BY 1") == [(44,), (55,)]


def test_a_partition_that_no_backup_has_is_refused_and_the_table_is_named(make: Callable[..., Site]) -> None:
    site = make(PARTS, tables="persona")
    site.backup()
    words = ("forget", "--clinic", "1", "--rows", "s.persona_1:43", "--reason", "Art. 17")
    done = site(*words, code=1)
    assert "its rows are backed up as rows of s.persona." in done.err
    assert "--rows s.persona:KEY" in done.err
    assert site("forget", "--list", "--json").json() == []
