"""Reading: one moment, every type byte for byte, and errors that name the cause but no patient's value."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest

from clinic_backups.base import connections
from clinic_backups.base.copy_schema import MADE_BY_US
from clinic_backups.base.errors import ClinicBackupsError, PermanentError, TransientError
from clinic_backups.tenant import structure
from clinic_backups.tenant.pg_catalog import catalog_query
from clinic_backups.tenant.tenant_db import Snapshot
from tests.postgres_fixtures import DemoDatabase

# One value, and one awkward value, of each family of types.
VALUES = {
    "smallint": ["-32768", "7"],
    "bigint": ["9223372036854775807"],
    "numeric": ["'NaN'", "1e-30", "12345678901234567890.5"],
    "real": ["'1.1'", "'-Infinity'"],
    "float8": ["0.1::float8 + 0.2::float8"],
    "money": ["'12.34'"],
    "text": ["''", "E'a\\nb\\r\\n\\t\"c\\\\.'", "'ñandú 🦷'", "'\\.'"],
    "char(5)": ["'ab'"],
    "varchar": ["','"],
    "bytea": ["''", "'\\x00ff0a0d22'"],
    "boolean": ["true"],
    "date": ["'infinity'", "'0044-03-15 BC'"],
    "time": ["'24:00'"],
    "timetz": ["'12:00:00.000001-04'"],
    "timestamp": ["'-infinity'"],
    "timestamptz": ["'2026-11-24 02:00:00.123456-04'"],
    "interval": ["'-1 year 2 days 03:04:05.6'"],
    "uuid": ["gen_random_uuid()"],
    "json": ['\'{"b": 1,  "a": "\\u00f1"}\''],
    "jsonb": ["'null'", '\'{"a": [1, "x,y"]}\''],
    "xml": ["'<a>b</a>'"],
    "inet": ["'192.168.0.1/24'"],
    "macaddr": ["'08:00:2b:01:02:03'"],
    "bit(3)": ["B'101'"],
    "varbit": ["B''"],
    "point": ["'(1.1,2)'"],
    "polygon": ["'((0,0),(1,1))'"],
    "tsvector": ["'a:1 b'"],
    "int4range": ["'empty'", "'[1,5)'"],
    "int4[]": ["'{}'", "'[0:1]={1,NULL}'"],
    "text[]": ['\'{"a,b","",NULL,"NULL"}\''],
    "oid": ["1"],
    "pg_lsn": ["'16/B374D848'"],
    "datemultirange": ["'{}'"],
    "regclass": ["'pg_class'"],
}


def snapshot(database: DemoDatabase) -> Snapshot:
    return Snapshot(connections.parse("clinic_db", database.reader_uri), lock_timeout_seconds=1)


def test_every_type_comes_back_byte_for_byte(demo_database: DemoDatabase) -> None:
    columns = ", ".join(f'"c {number}" {type_}' for number, type_ in enumerate(VALUES))
    rows = [f"({id_}, {', '.join(values[id_ % len(values)] for values in VALUES.values())})" for id_ in range(1, 5)] + [
        f"(9, {', '.join(['NULL'] * len(VALUES))})"
    ]
    with demo_database.connect() as db, db.cursor() as cursor:
        cursor.execute(f'CREATE TABLE public."Tipos raros" (id int PRIMARY KEY, {columns})')
        cursor.execute(f'INSERT INTO public."Tipos raros" VALUES {", ".join(rows)}')
        cursor.execute('CREATE TABLE public.copia (LIKE public."Tipos raros")')
        cursor.execute('GRANT SELECT ON public."Tipos raros", public.copia TO PUBLIC')

    def read(name: str, query: str) -> list[bytes]:
        found: list[bytes] = []
        with snapshot(demo_database) as reader:
            reader.copy(reader.tables([name])[name], query, found.append)
        return found

    csv = read("public.Tipos raros", 'SELECT * FROM public."Tipos raros"')
    assert len(csv) == 5
    import io

    with demo_database.connect() as db, db.cursor() as cursor:
        cursor.execute("SET lc_monetary = 'C'; SET datestyle = 'ISO, YMD'; SET timezone = 'UTC'")
        cursor.copy_expert("COPY public.copia FROM STDIN (FORMAT csv)", io.BytesIO(b"".join(csv)))
    assert read("public.copia", "SELECT * FROM public.copia ORDER BY id") != []
    with demo_database.connect() as db, db.cursor() as cursor:
        cursor.execute(
            'SELECT count(*) FROM public."Tipos raros" a JOIN public.copia b USING (id) WHERE a::text = b::text'
        )
        assert cursor.fetchone() == (5,)


def test_all_tables_show_one_moment(demo_database: DemoDatabase) -> None:
    queries = {name: f"SELECT * FROM {name}" for name in ("public.usuarios_paciente", "public.inventario_inventario")}
    with snapshot(demo_database) as reader:
        tables = reader.tables(list(queries))
        first: list[bytes] = []
        reader.copy(tables["public.usuarios_paciente"], queries["public.usuarios_paciente"], first.append)
        with demo_database.connect() as db, db.cursor() as cursor:
            cursor.execute("DELETE FROM public.inventario_inventario")
            assert cursor.rowcount > 0
            gone = cursor.rowcount
        second: list[bytes] = []
        reader.copy(tables["public.inventario_inventario"], queries["public.inventario_inventario"], second.append)
        assert len(second) == gone


def test_errors_name_the_cause_and_no_value(demo_database: DemoDatabase) -> None:
    with snapshot(demo_database) as reader:
        with pytest.raises(PermanentError, match=r"No such table: public\.nada") as caught:
            reader.tables(["public.nada", "public.usuarios_paciente"])
        assert caught.value.hint
        patients = reader.tables(["public.usuarios_paciente"])["public.usuarios_paciente"]
    with snapshot(demo_database) as reader, pytest.raises(PermanentError) as caught:
        secret = "SELECT p.* FROM public.usuarios_paciente p WHERE ('Ana Secreta' || p.id::text)::int = 1"
        reader.copy(patients, secret, lambda row: None)
    assert "22P02" in str(caught.value)
    assert "Secreta" not in str(caught.value)
    assert caught.value.__suppress_context__


def test_a_cut_connection_and_a_locked_table_are_worth_a_retry(demo_database: DemoDatabase) -> None:
    with snapshot(demo_database) as reader:
        ((pid,),) = reader.rows("SELECT pg_backend_pid()", None, "asking")
        table = reader.tables(["public.auditoria_bitacora"])["public.auditoria_bitacora"]
        with demo_database.connect() as db, db.cursor() as cursor:
            cursor.execute("SELECT pg_terminate_backend(%s, 5000)", (pid,))
        with pytest.raises(TransientError):
            reader.copy(table, "SELECT * FROM public.auditoria_bitacora", lambda row: None)
    with demo_database.connect() as db, db.cursor() as cursor:
        cursor.execute("LOCK TABLE public.auditoria_bitacora IN ACCESS EXCLUSIVE MODE")
        with snapshot(demo_database) as reader, pytest.raises(TransientError, match="55P03"):
            reader.copy(table, "SELECT * FROM public.auditoria_bitacora", lambda row: None)


def test_an_error_of_the_sink_comes_out_unchanged(demo_database: DemoDatabase) -> None:
    error = ZeroDivisionError("sink")

    def broken(row: bytes) -> None:
        raise error

    with snapshot(demo_database) as reader, pytest.raises(ZeroDivisionError) as caught:
        table = reader.tables(["public.auditoria_bitacora"])["public.auditoria_bitacora"]
        reader.copy(table, "SELECT * FROM public.auditoria_bitacora", broken)
    assert caught.value is error


@pytest.mark.parametrize("state", ["DT001", "45000", "42501", "55000", "40001", "57014", "08000", "P0001"])
def test_what_a_function_says_is_never_shown(demo_database: DemoDatabase, state: str) -> None:
    # A trigger may raise any SQLSTATE, with a patient's name in its text.
    with closing(demo_database.connect()) as db, db, db.cursor() as cursor:
        cursor.execute(
            "CREATE FUNCTION public.says() RETURNS int LANGUAGE plpgsql AS $$BEGIN"
            f" RAISE EXCEPTION 'Paciente Margarita ya existe' USING ERRCODE = '{state}'; END$$"
        )
    clinic_db = connections.parse("clinic_db", demo_database.reader_uri)
    with Snapshot(clinic_db) as snapshot, pytest.raises(ClinicBackupsError) as caught:
        snapshot.rows("SELECT public.says()", None, "asking")
    assert "Margarita" not in f"{caught.value} {caught.value.hint}"
    assert state in str(caught.value)


def test_the_question_about_all_tables_takes_no_room_for_a_million_rows(demo_template: DemoDatabase) -> None:
    """PostgreSQL makes a recursion's hash table as large as it expects it, before the first row: 0.1 s a backup."""
    with closing(demo_template.connect()) as db, db.cursor() as cursor:
        values = {"names": ["clinica"], "words": structure.LOOSE_STEM, "clinic_table": "public.comun_clinica",
                  "copy": MADE_BY_US}  # fmt: skip
        question = catalog_query("structure", key_operator="key_operator")
        cursor.execute(f"EXPLAIN (FORMAT JSON) {question}", values)
        ((plan,),) = cursor.fetchall()
    expected = [node["Plan Rows"] for node in _nodes(plan) if node["Node Type"] == "Recursive Union"]
    assert len(expected) == 3
    assert max(expected) < 100_000


def _nodes(plan: Any) -> Iterator[dict[str, Any]]:
    for child in plan if isinstance(plan, list) else plan.values():
        if isinstance(child, (list, dict)):
            yield from _nodes(child)
    if isinstance(plan, dict) and "Node Type" in plan:
        yield plan
