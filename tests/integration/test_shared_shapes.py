"""The shared unit over unusual schemas: with the clinics' backups it holds each row exactly once."""

from __future__ import annotations

import csv
import io
from collections import Counter
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from clinic_backups.base.backup_request import BackupRequest
from clinic_backups.base.errors import PermanentError
from clinic_backups.base.shared_unit import SHARED
from tests.postgres_fixtures import DemoDatabase
from tests.shapes import Shaped, shaped

OWN = "t.clinic_id = {{ clinic_id }}"
MORE = """
    INSERT INTO s.clinic VALUES (3, 'tres', NULL)
"""

SHAPES: dict[str, tuple[str, dict[str, str], str]] = {
    "names that are text in SQL and patterns": (
        '''CREATE TABLE s."a{b}%s ""c" (id int PRIMARY KEY, clinic_id int REFERENCES s.clinic, "x%(y)s {}" text);
           INSERT INTO s."a{b}%s ""c" VALUES (1, 1, 'a'), (2, NULL, 'b'), (3, 2, 'c');
           CREATE TABLE s."%d{0}" (id int PRIMARY KEY, "%" text); INSERT INTO s."%d{0}" VALUES (1, 'x')''',
        {'a{b}%s "c': 'SELECT t.* FROM s."a{b}%s ""c" AS t WHERE t.clinic_id = {{ clinic_id }}'},
        's."%d{0}": shared, x\n',
    ),
    "a key of several columns, one of them of a domain": (
        """CREATE DOMAIN s.code AS text CHECK (value <> '');
           CREATE TABLE s.a (x s.code, y numeric, clinic_id int REFERENCES s.clinic, v jsonb, PRIMARY KEY (x, y));
           INSERT INTO s.a VALUES ('p', 1.0, 1, '{}'), ('p', 2, NULL, '{"a": null}'), ('q', 'NaN', NULL, NULL),
                                  ('r', 'NaN', 2, NULL)""",
        {"a": OWN}, "",
    ),
    "a table without a key, with equal rows and types without an operator for equality": (
        """CREATE TABLE s.a (clinic_id int REFERENCES s.clinic, v json, w point, numero_de_fila int);
           INSERT INTO s.a SELECT c, '{"k": 1}', '(1,2)', 5 FROM unnest(ARRAY[1, 1, 1, 2, NULL, NULL]) AS c;
           INSERT INTO s.a VALUES (NULL, NULL, NULL, NULL), (NULL, NULL, NULL, NULL), (3, NULL, NULL, NULL)""",
        {"a": OWN}, "",
    ),
    "partitions": (
        """CREATE TABLE s.a (id int, clinic_id int REFERENCES s.clinic, PRIMARY KEY (id)) PARTITION BY RANGE (id);
           CREATE TABLE s.a_1 PARTITION OF s.a FOR VALUES FROM (0) TO (10);
           CREATE TABLE s.a_2 PARTITION OF s.a FOR VALUES FROM (10) TO (20);
           INSERT INTO s.a VALUES (1, 1), (2, NULL), (11, 2), (12, NULL);
           CREATE TABLE s.b (id int PRIMARY KEY, v text) PARTITION BY HASH (id);
           CREATE TABLE s.b_1 PARTITION OF s.b FOR VALUES WITH (MODULUS 2, REMAINDER 0);
           CREATE TABLE s.b_2 PARTITION OF s.b FOR VALUES WITH (MODULUS 2, REMAINDER 1);
           INSERT INTO s.b SELECT g, 'x' FROM generate_series(1, 9) AS g""",
        {"a": OWN}, "s.b: shared, x\n",
    ),
    "inheritance": (
        """CREATE TABLE s.a (id int PRIMARY KEY, clinic_id int REFERENCES s.clinic);
           CREATE TABLE s.b (PRIMARY KEY (id), more text, FOREIGN KEY (clinic_id) REFERENCES s.clinic) INHERITS (s.a);
           INSERT INTO s.a VALUES (1, 1), (2, NULL); INSERT INTO s.b VALUES (1, 2, 'b'), (2, NULL, 'none');
           CREATE TABLE s.k (id int PRIMARY KEY); CREATE TABLE s.l (PRIMARY KEY (id), v text) INHERITS (s.k);
           INSERT INTO s.k VALUES (1); INSERT INTO s.l VALUES (2, 'l')""",
        {"a": "SELECT t.* FROM ONLY s.a AS t WHERE t.clinic_id = {{ clinic_id }}",
         "b": "SELECT t.* FROM ONLY s.b AS t WHERE t.clinic_id = {{ clinic_id }}"},
        "s.k: shared, x\ns.l: shared, x\n",
    ),
    "generated and dropped columns": (
        """CREATE TABLE s.a (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, gone int,
                              clinic_id int REFERENCES s.clinic, twice int GENERATED ALWAYS AS (clinic_id * 2) STORED);
           INSERT INTO s.a (gone, clinic_id) VALUES (1, 1), (1, NULL), (1, 2); ALTER TABLE s.a DROP COLUMN gone""",
        {"a": OWN}, "",
    ),
    "rows behind other rows, some of nobody": (
        """CREATE TABLE s.a (id int PRIMARY KEY, clinic_id int REFERENCES s.clinic);
           CREATE TABLE s.b (id int PRIMARY KEY, a_id int REFERENCES s.a);
           CREATE TABLE s.c (id int PRIMARY KEY, b_id int REFERENCES s.b, a_id int REFERENCES s.a);
           INSERT INTO s.a VALUES (1, 1), (2, 2), (3, NULL);
           INSERT INTO s.b VALUES (1, 1), (2, 2), (3, 3), (4, NULL);
           INSERT INTO s.c VALUES (1, 1, NULL), (2, NULL, 2), (3, 3, NULL), (4, NULL, NULL), (5, 4, 3)""",
        {"a": OWN, "b": "t.a_id IN (SELECT id FROM s.a WHERE clinic_id = {{ clinic_id }})",
         "c": "SELECT t.* FROM s.c AS t JOIN s.b AS b ON b.id = t.b_id JOIN s.a AS a ON a.id = b.a_id"
              " WHERE a.clinic_id = {{ clinic_id }} UNION ALL SELECT t.* FROM s.c AS t JOIN s.a AS a ON a.id = t.a_id"
              " WHERE t.b_id IS NULL AND a.clinic_id = {{ clinic_id }}"},
        "",
    ),
    "row level security": (
        """CREATE TABLE s.a (id int PRIMARY KEY, clinic_id int REFERENCES s.clinic);
           INSERT INTO s.a VALUES (1, 1), (2, NULL); ALTER TABLE s.a ENABLE ROW LEVEL SECURITY;
           ALTER ROLE {reader} BYPASSRLS""",
        {"a": OWN}, "",
    ),
    "what is left out on purpose is not held": (
        """CREATE TABLE s.a (id int PRIMARY KEY, clinic_id int REFERENCES s.clinic, old boolean);
           INSERT INTO s.a VALUES (1, 1, false), (2, 2, false)""",
        {"a": "t.clinic_id = {{ clinic_id }} AND NOT t.old"}, "s.a: rows, not the old ones\n",
    ),
}  # fmt: skip


def lines_of(data: bytes) -> Counter[tuple[str, ...]]:
    return Counter(map(tuple, csv.reader(io.StringIO(data.decode()))))


@pytest.mark.parametrize("shape", SHAPES)
def test_each_row_is_in_exactly_one_backup(demo_database: DemoDatabase, tmp_path: Path, shape: str) -> None:
    ddl, extracts, lists = SHAPES[shape]
    rig = made(demo_database, tmp_path, ddl.replace("{reader}", demo_database.roles.reader), extracts, lists)
    try:
        held: dict[str, Counter[tuple[str, ...]]] = {}
        records = [shared(rig), *(rig.run(clinic) for clinic in (1, 2, 3))]
        for record in records:
            for name, data in rig.open(record).tables.items():
                held.setdefault(name, Counter()).update(lines_of(data))
        names = {*records[0].rows, *records[1].rows}
        assert {name.partition(".")[0] for name in names} == {"s"}
        for name in names:
            assert held.get(_quoted(name), Counter()) == rows_of(rig, name), name
    finally:
        rig.execute(f"ALTER ROLE {demo_database.roles.reader} NOBYPASSRLS")


def made(database: DemoDatabase, folder: Path, ddl: str, extracts: dict[str, str], lists: str) -> Shaped:
    rig = shaped(database, folder, MORE + ";" + ddl, extracts, lists=lists)
    rig.execute(f"GRANT SELECT ON ALL SEQUENCES IN SCHEMA s TO {database.roles.reader}")
    # The demo's own tables are of somebody else here.
    with (rig.settings.sql_dir / "not_backed_up.txt").open("a") as file:
        file.write("public.*: the demo's\n")
    return rig


def shared(rig: Shaped, **options: Any) -> Any:
    return rig.backup().run(BackupRequest(SHARED, requested_by="prueba", **options))


def _quoted(name: str) -> str:
    return quote(name, safe=".-_~ ")


def rows_of(rig: Shaped, name: str) -> Counter[tuple[str, ...]]:
    """The rows of one table, by SQL that the product does not use."""
    with rig.database.connect() as db, db.cursor() as cursor:
        cursor.execute("SELECT format('%%I.%%I', %s::text, %s::text)", name.split(".", 1))
        (sql_name,) = cursor.fetchone() or ()
        cursor.execute(
            "SELECT string_agg(quote_ident(attname), ', ' ORDER BY attnum), min(relkind) FROM pg_attribute"
            " JOIN pg_class AS c ON c.oid = attrelid WHERE attrelid = %s::regclass AND attnum > 0 AND NOT attisdropped"
            " AND attgenerated = ''",
            (sql_name,),
        )
        columns, kind = cursor.fetchone() or ()
        text = io.StringIO()
        only = "" if kind == "p" else "ONLY "
        cursor.copy_expert(f"COPY (SELECT {columns} FROM {only}{sql_name}) TO STDOUT (FORMAT csv)", text)
    return Counter(map(tuple, csv.reader(io.StringIO(text.getvalue()))))


def test_an_extract_that_cannot_be_asked_for_all_clinics_is_a_gap(demo_database: DemoDatabase, tmp_path: Path) -> None:
    ddl = "CREATE TABLE s.a (id int PRIMARY KEY, clinic_id int REFERENCES s.clinic); INSERT INTO s.a VALUES (1, NULL)"
    rig = made(demo_database, tmp_path, ddl, {"a": "t.clinic_id = '{{ clinic_id }}'"}, "")
    with pytest.raises(PermanentError) as found:
        shared(rig)
    assert "The rows of s.a that belong to no clinic cannot be found" in str(found.value)
    record = shared(rig, allow_gaps=True)
    assert "s.a" not in record.rows
    assert [gap.table for gap in record.gaps] == ["s.a"]


@pytest.mark.parametrize(
    ("ddl", "said"),
    [
        ("CREATE UNLOGGED TABLE s.k (id int PRIMARY KEY)", "s.k is unlogged"),
        ("CREATE TABLE s.k (id int PRIMARY KEY); CREATE TABLE s.l (v int) INHERITS (s.k)", "s.l inherits from s.k"),
    ],
)
def test_a_shared_table_that_cannot_be_backed_up_is_a_gap(
    demo_database: DemoDatabase, tmp_path: Path, ddl: str, said: str
) -> None:
    own = "CREATE TABLE s.a (id int PRIMARY KEY, clinic_id int REFERENCES s.clinic)"
    rig = made(demo_database, tmp_path, f"{own}; {ddl}", {"a": OWN}, "s.k: shared, x\n")
    with pytest.raises(PermanentError) as found:
        shared(rig)
    assert said in str(found.value)
