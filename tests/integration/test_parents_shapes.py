"""Parent tables of odd shapes: `check` writes the query, and what was lost comes back with it."""

# ruff: noqa: E501 - a schema reads best with one table a line

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.integration.test_parents import findings
from tests.integration.test_shapes import require_extensions
from tests.parents import set_parents
from tests.postgres_fixtures import DemoDatabase
from tests.shapes import Shaped, shaped

OWN = "clinic_id = {{ clinic_id }}"
VISIT = "CREATE TABLE s.visit (id int PRIMARY KEY, clinic_id int NOT NULL REFERENCES s.clinic ON DELETE CASCADE, {columns}); INSERT INTO s.visit VALUES {rows}"
SHAPES = {
    "partitioned": (
        "CREATE TABLE s.p (id int PRIMARY KEY, v text) PARTITION BY HASH (id);"
        "CREATE TABLE s.p_0 PARTITION OF s.p FOR VALUES WITH (MODULUS 2, REMAINDER 0);"
        "CREATE TABLE s.p_1 PARTITION OF s.p FOR VALUES WITH (MODULUS 2, REMAINDER 1);"
        "INSERT INTO s.p SELECT n, 'v' || n FROM generate_series(1, 8) AS n;"
        + VISIT.format(columns="p_id int REFERENCES s.p", rows="(1, 1, 1), (2, 1, 2), (3, 2, 2), (4, 2, NULL)"),
        "id = 1",
    ),
    "an identity that is always generated, and a generated column": (
        "CREATE TABLE s.p (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, v text, w text GENERATED ALWAYS AS (upper(v)) STORED);"
        "INSERT INTO s.p (v) SELECT 'v' || n FROM generate_series(1, 8) AS n;"
        + VISIT.format(columns="p_id int REFERENCES s.p", rows="(1, 1, 1), (2, 1, 2), (3, 2, 2)"),
        "id = 1",
    ),
    "names that need quotes": (
        'CREATE TABLE s."P De" ("El Id" int PRIMARY KEY, "user" text);'
        """INSERT INTO s."P De" SELECT n, 'v' || n FROM generate_series(1, 8) AS n;"""
        + VISIT.format(columns='"order" int REFERENCES s."P De"', rows="(1, 1, 1), (2, 1, 2), (3, 2, 2)"),
        '"El Id" = 1',
    ),
    "a key of two columns, of which one may be NULL": (
        "CREATE TABLE s.p (a int, b text, v text, PRIMARY KEY (a, b)); INSERT INTO s.p SELECT n, 'b' || n, 'v' FROM generate_series(1, 8) AS n;"
        + VISIT.format(columns="a int, b text, FOREIGN KEY (a, b) REFERENCES s.p", rows="(1, 1, 1, 'b1'), (2, 1, 2, NULL), (3, 2, 2, 'b2'), (4, 1, 3, 'b3')"),
        "a = 1",
    ),
    "a reference to another column than the key": (
        "CREATE TABLE s.p (id int PRIMARY KEY, code text UNIQUE); INSERT INTO s.p SELECT n, 'c' || n FROM generate_series(1, 8) AS n;"
        + VISIT.format(columns="p text REFERENCES s.p (code)", rows="(1, 1, 'c1'), (2, 1, 'c2'), (3, 2, 'c2')"),
        "id = 1",
    ),
    "an extension's operators": (
        "CREATE EXTENSION citext SCHEMA public; CREATE TABLE s.p (id public.citext PRIMARY KEY, v text);"
        "INSERT INTO s.p SELECT 'K' || n, 'v' FROM generate_series(1, 8) AS n;"
        + VISIT.format(columns="p public.citext REFERENCES s.p", rows="(1, 1, 'k1'), (2, 1, 'K2'), (3, 2, 'k2')"),
        "v = 'v' AND id::text = 'K1'",
    ),
    "two references, by other types": (
        "CREATE TABLE s.p (id bigint PRIMARY KEY, up int REFERENCES s.p, v text); INSERT INTO s.p SELECT n, nullif(n + 1, 9), 'v' FROM generate_series(8, 1, -1) AS n;"
        + VISIT.format(columns="p int REFERENCES s.p, q smallint REFERENCES s.p", rows="(1, 1, 1, 5), (2, 1, NULL, 6), (3, 2, 6, NULL)"),
        "id IN (1, 2, 3)",
    ),
    "a UUID, and rows that refer to each other": (
        "CREATE TABLE s.p (id uuid PRIMARY KEY, twin uuid); INSERT INTO s.p SELECT md5(n::text)::uuid, md5((9 - n)::text)::uuid FROM generate_series(1, 8) AS n;"
        "ALTER TABLE s.p ADD FOREIGN KEY (twin) REFERENCES s.p DEFERRABLE INITIALLY DEFERRED;"
        + VISIT.format(columns="p uuid REFERENCES s.p", rows="(1, 1, md5('1')::uuid), (2, 2, md5('2')::uuid)"),
        "id IN (md5('1')::uuid, md5('8')::uuid)",
    ),
}  # fmt: skip


def with_proposed_queries(rig: Shaped) -> None:
    """Write the query that the check proposes."""
    (warning,) = (item for item in findings(rig, "warning") if item.check == "parents")
    ((name, query),) = re.findall(r"/parents/s\.(.*)\.sql: (.*;)$", warning.hint)
    set_parents(rig, {name: query})


@pytest.mark.parametrize("name", SHAPES)
def test_it_comes_back_with_the_query_that_the_check_writes(
    demo_database: DemoDatabase, tmp_path: Path, name: str
) -> None:
    ddl, lost = SHAPES[name]
    require_extensions(demo_database, ddl)
    rig = shaped(demo_database, tmp_path, ddl, {"visit": OWN})
    with_proposed_queries(rig)
    assert findings(rig) == [] == findings(rig, "warning")
    record, before = rig.run(1), rig.everything()
    table = '"P De"' if "quotes" in name else "p"
    rig.execute(f"DELETE FROM s.clinic WHERE id = 1; DELETE FROM s.{table} WHERE {lost}")
    assert rig.everything() != before
    rig.bring_back(record)
    assert rig.everything() == before
