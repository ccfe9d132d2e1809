"""What functions of extracts read is proven too: partitions that leave, and tables whose lock was taken back."""

from __future__ import annotations

from pathlib import Path

import pytest

from clinic_backups.base.errors import TransientError
from tests.postgres_fixtures import DemoDatabase
from tests.rig import once
from tests.shapes import Shaped, shaped

DDL = """
    CREATE TABLE s.aaa (id int PRIMARY KEY, clinic_id int NOT NULL REFERENCES s.clinic);
    INSERT INTO s.aaa VALUES (1, 1);
    CREATE TABLE s.part (id int PRIMARY KEY, clinic_id int NOT NULL REFERENCES s.clinic) PARTITION BY RANGE (id);
    CREATE TABLE s.part1 PARTITION OF s.part FOR VALUES FROM (0) TO (100);
    CREATE TABLE s.part2 PARTITION OF s.part FOR VALUES FROM (100) TO (200);
    INSERT INTO s.part SELECT n, 1 + n % 2 FROM generate_series(1, 199) AS n;
    CREATE TABLE s.kind (id int PRIMARY KEY, ok boolean);
    INSERT INTO s.kind SELECT n, true FROM generate_series(1, 20) AS n;
    CREATE TABLE s.thing (id int PRIMARY KEY, clinic_id int NOT NULL REFERENCES s.clinic,
                          kind int REFERENCES s.kind DEFERRABLE);
    INSERT INTO s.thing SELECT n, 1, n % 3 + 1 FROM generate_series(1, 20) AS n;
    CREATE FUNCTION s.parts(int) RETURNS SETOF s.part LANGUAGE plpgsql STABLE AS
        $$ BEGIN RETURN QUERY SELECT * FROM s.part WHERE clinic_id = $1; END $$;
    CREATE VIEW s.all_parts AS SELECT * FROM s.parts(1);
    CREATE FUNCTION s.is_ok(int) RETURNS boolean LANGUAGE plpgsql STABLE AS
        $$ DECLARE r boolean; BEGIN SELECT ok INTO STRICT r FROM s.kind WHERE id = $1; RETURN r;
           EXCEPTION WHEN no_data_found THEN RETURN false; END $$;
    CREATE FUNCTION s.through(int) RETURNS boolean LANGUAGE sql STABLE AS $$ SELECT s.is_ok($1) $$;
    CREATE FUNCTION s.by_text(int) RETURNS boolean LANGUAGE plpgsql STABLE AS
        $$ DECLARE r boolean; BEGIN EXECUTE 'SELECT ok FROM s.kind WHERE id = $1' INTO STRICT r USING $1; RETURN r;
           EXCEPTION WHEN no_data_found THEN RETURN false; END $$;
    CREATE FUNCTION s.same(int, int) RETURNS boolean LANGUAGE plpgsql STABLE AS
        $$ BEGIN RETURN s.is_ok($2) AND $1 = 1; END $$;
    CREATE OPERATOR s.~~~ (LEFTARG = int, RIGHTARG = int, FUNCTION = s.same);
    CREATE VIEW s.good AS SELECT t.* FROM s.thing AS t WHERE s.is_ok(t.kind);
    CREATE TABLE s.unnamed (id int);
"""
OWN = "clinic_id = {{ clinic_id }}"
EXTRACTS = {"aaa": OWN, "part": "SELECT * FROM s.parts({{ clinic_id }})", "thing": OWN}
NOT_BACKED_UP = (
    "s.kind: shared, the same for all\ns.unnamed: shared, of nobody\ns.base: not needed\ns.heir: not needed\n"
)
REWRITTEN = "ALTER TABLE s.kind ADD COLUMN token uuid NOT NULL DEFAULT gen_random_uuid()"


def rig_with(database: DemoDatabase, folder: Path, thing: str = OWN, more: str = "") -> Shaped:
    return shaped(database, folder, DDL + more, EXTRACTS | {"thing": thing}, lists=NOT_BACKED_UP)


@pytest.mark.parametrize("is_first", [True, False])
@pytest.mark.parametrize(
    "statement",
    [
        "ALTER TABLE s.part DETACH PARTITION s.part2",
        "DROP TABLE s.part2",
        "CREATE TABLE s.old AS SELECT * FROM s.part2; DROP TABLE s.part2",
        "TRUNCATE s.part2",
    ],
)
def test_a_partition_that_leaves_while_a_function_reads_its_parent_is_noticed(
    demo_database: DemoDatabase, tmp_path: Path, statement: str, is_first: bool
) -> None:
    rig = rig_with(demo_database, tmp_path)
    if not is_first:
        assert rig.run(1).rows["s.part"] == 99
    with pytest.raises(TransientError):
        rig.run(1, on_progress=once(lambda progress: progress.table == "s.aaa", lambda: rig.execute(statement)))


@pytest.mark.parametrize("is_first", [True, False])
@pytest.mark.parametrize(
    "thing",
    [
        f"{OWN} AND (kind = 2 OR s.is_ok(kind))",
        f"{OWN} AND s.through(kind)",
        f"{OWN} AND s.by_text(kind)",
        f"{OWN} AND 1 OPERATOR(s.~~~) kind",
        "SELECT * FROM s.good WHERE clinic_id = {{ clinic_id }}",
    ],
)
def test_a_table_that_only_a_functions_block_has_read_is_proven(
    demo_database: DemoDatabase, tmp_path: Path, thing: str, is_first: bool
) -> None:
    """The rewritten table looks empty, and the block's exception takes its lock back."""
    rig = rig_with(demo_database, tmp_path, thing)
    if not is_first:
        assert rig.run(1).rows["s.thing"] == 20
    with pytest.raises(TransientError, match=r"s\.kind"):
        rig.run(1, on_progress=once(lambda progress: progress.table == "s.aaa", lambda: rig.execute(REWRITTEN)))


def test_what_no_function_of_the_extracts_names_may_change(demo_database: DemoDatabase, tmp_path: Path) -> None:
    rig = rig_with(demo_database, tmp_path)
    changed = "ALTER TABLE s.unnamed ADD COLUMN token uuid NOT NULL DEFAULT gen_random_uuid()"
    done = rig.run(
        1, on_progress=once(lambda progress: progress.table == "s.aaa", lambda: rig.execute(changed, REWRITTEN))
    )
    assert done.state == "completed"
    assert done.rows["s.thing"] == 20
