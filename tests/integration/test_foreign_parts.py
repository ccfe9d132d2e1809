"""A foreign table's rows are another server's: a tenant's table that has some of them is refused by name."""

from __future__ import annotations

from pathlib import Path

import pytest

from clinic_backups.base.errors import PermanentError
from tests.integration.test_restore_outside import OWN
from tests.postgres_fixtures import DemoDatabase
from tests.shapes import Shaped, shaped

COLUMNS = "id int NOT NULL, clinic_id int NOT NULL"
FAR = "SERVER far OPTIONS (schema_name 's', table_name 'far_rows')"
PARTS = {
    "a partition": f"""
        CREATE TABLE s.bill ({COLUMNS}) PARTITION BY RANGE (id);
        CREATE TABLE s.bill_1 PARTITION OF s.bill FOR VALUES FROM (0) TO (1000);
        CREATE FOREIGN TABLE s.bill_2 PARTITION OF s.bill FOR VALUES FROM (1000) TO (2000) {FAR}""",
    "a partition's partition": f"""
        CREATE TABLE s.bill ({COLUMNS}) PARTITION BY RANGE (id);
        CREATE TABLE s.bill_1 PARTITION OF s.bill FOR VALUES FROM (0) TO (1000);
        CREATE TABLE s.later PARTITION OF s.bill DEFAULT PARTITION BY LIST (clinic_id);
        CREATE FOREIGN TABLE s.bill_2 PARTITION OF s.later FOR VALUES IN (1) {FAR}""",
}
HEIRS = {
    "a child": f"""
        CREATE TABLE s.bill ({COLUMNS});
        CREATE FOREIGN TABLE s.bill_2 () INHERITS (s.bill) {FAR}""",
    "a child's child": f"""
        CREATE TABLE s.bill ({COLUMNS}); CREATE TABLE s.later () INHERITS (s.bill);
        CREATE FOREIGN TABLE s.bill_2 () INHERITS (s.later) {FAR}""",
}


def rig_of(database: DemoDatabase, folder: Path, tables: str, extract: str = OWN, lists: str = "") -> Shaped:
    server = database.postgres
    ddl = f"""
        CREATE EXTENSION postgres_fdw;
        CREATE TABLE s.far_rows ({COLUMNS}); INSERT INTO s.far_rows VALUES (1001, 1);
        CREATE SERVER far FOREIGN DATA WRAPPER postgres_fdw
            OPTIONS (host '127.0.0.1', port '{server.port}', dbname '{database.name}');
        CREATE USER MAPPING FOR PUBLIC SERVER far OPTIONS (user '{server.user}', password '{server.password}');
        {tables};
        INSERT INTO s.bill SELECT k, 1 FROM generate_series(1, 20) AS k"""
    return shaped(database, folder, ddl, {"bill": extract}, lists=f"s.far_rows: elsewhere\ns.later: empty\n{lists}")


@pytest.mark.parametrize("part", PARTS)
def test_a_foreign_partition_is_refused(demo_database: DemoDatabase, tmp_path: Path, part: str) -> None:
    rig = rig_of(demo_database, tmp_path, PARTS[part])
    with pytest.raises(PermanentError, match=r"s\.bill_2 is a foreign table and a partition of s\.bill"):
        rig.run(1)
    assert rig.objects() == []


@pytest.mark.parametrize("heir", HEIRS)
def test_a_foreign_child_is_refused_unless_it_is_left_out(
    demo_database: DemoDatabase, tmp_path: Path, heir: str
) -> None:
    rig = rig_of(demo_database, tmp_path, HEIRS[heir])
    with pytest.raises(PermanentError, match=r"s\.bill_2 inherits from s\.bill and has no extract") as refused:
        rig.run(1)
    assert "extract/s.bill_2.sql" not in refused.value.message
    lines = rig.settings.sql_dir / "not_backed_up.txt"
    lines.write_text(f"{lines.read_text()}s.bill_2: of the other server\n")
    with pytest.raises(PermanentError, match=r"The extract of s\.bill also reads rows of s\.bill_2"):
        rig.run(1)
    extract = rig.settings.sql_dir / "extract" / "s.bill.sql"
    extract.write_text("SELECT t.* FROM ONLY s.bill AS t WHERE clinic_id = {{ clinic_id }}\n")
    assert rig.run(1).rows["s.bill"] == 20
