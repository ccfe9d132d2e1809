"""The demo's database and ``include/sql``, on which the other tests, the demo and the benchmarks rely."""

from __future__ import annotations

import hashlib
import io
import os
import signal
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg2
import pytest
from jinja2 import Template

from include.demo import database
from include.demo.postgres import EmbeddedPostgres, PostgresError
from tests.postgres_fixtures import CLINICS, PATIENTS, DemoDatabase, server_folder

SQL = Path(__file__).parents[2] / "include" / "sql"
EXTRACTS = {path.stem: path.read_text() for path in sorted((SQL / "extract").glob("*.sql"))}
NO_CLINIC = {"usuarios_usuario": 3, "usuarios_usuario_groups": 3, "auditoria_bitacora": 75}
SHARED = {"django_migrations", "django_content_type", "django_session", "auth_group"}


def extract(table: str, clinic_id: int) -> str:
    return str(Template(EXTRACTS[table]).render(clinic_id=clinic_id))


def not_backed_up() -> set[str]:
    lines = (SQL / "not_backed_up.txt").read_text().splitlines()
    return {line.partition(":")[0].removeprefix("public.") for line in lines if line and not line.startswith("#")}


class Query:
    """Runs SQL as the package does: with only the system catalog in the search path."""

    def __init__(self, connection: psycopg2.extensions.connection) -> None:
        self._cursor = connection.cursor()
        self._cursor.execute("SET search_path = pg_catalog")

    def __call__(self, statement: str) -> list[tuple[Any, ...]]:
        self._cursor.execute(statement)
        return self._cursor.fetchall()


@pytest.fixture
def query(demo_template: DemoDatabase) -> Iterator[Query]:
    with closing(demo_template.connect()) as connection:
        yield Query(connection)


def content(postgres: EmbeddedPostgres, name: str) -> dict[str, str]:
    """SHA-256 of every table's rows, ordered by their text."""
    with closing(postgres.connect(name)) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT relname FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace")
        digests = {}
        for (table,) in cursor.fetchall():
            rows = io.BytesIO()
            cursor.copy_expert(f"COPY (SELECT t.* FROM {table} t ORDER BY t::text) TO STDOUT", rows)
            digests[table] = hashlib.sha256(rows.getvalue()).hexdigest()
    return digests


def test_two_loads_are_equal_byte_by_byte(postgres: EmbeddedPostgres, demo_template: DemoDatabase) -> None:
    database.load(postgres, "again", clinics=CLINICS, patients=PATIENTS)
    try:
        assert content(postgres, "again") == content(postgres, demo_template.name)
    finally:
        database.drop(postgres, "again")


def test_a_load_keeps_what_is_there_and_refuses_another_scale(demo_database: DemoDatabase) -> None:
    server, name = demo_database.postgres, demo_database.name
    with pytest.raises(PostgresError, match="psql failed"):  # a copy of a template has no comment: not ours to fill
        database.load(server, name, clinics=CLINICS, patients=PATIENTS)
    database.drop(server, name)
    database.load(server, name, clinics=1, patients=3)
    with closing(demo_database.connect()) as connection, connection, connection.cursor() as cursor:
        cursor.execute("DELETE FROM public.inventario_inventario")
    database.load(server, name, clinics=1, patients=3)
    with closing(demo_database.connect()) as connection:
        assert Query(connection)("SELECT count(*) FROM public.inventario_inventario") == [(0,)]
    with pytest.raises(PostgresError, match=r"patients=3.*wanted.*patients=4"):
        database.load(server, name, clinics=1, patients=4)


def test_every_table_is_extracted_or_excluded_or_shared(query: Query) -> None:
    tables = query("SELECT relname FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace")
    extracted = set(EXTRACTS)
    assert {name for (name,) in tables} == extracted | not_backed_up() | SHARED
    assert not extracted & not_backed_up()


@pytest.mark.parametrize("table", EXTRACTS)
def test_each_row_is_in_one_clinics_extract_or_counted_as_nobodys(query: Query, table: str) -> None:
    """The union of all clinics' extracts is the table, whole rows, none twice, but for the rows of no clinic."""
    union = "\nUNION ALL\n".join(f"SELECT r FROM ({extract(table, clinic)}) AS r" for clinic in range(1, CLINICS + 1))
    [(rows, distinct)] = query(f"SELECT count(*), count(DISTINCT r::text) FROM ({union}) AS u")
    [(missing,)] = query(
        f"SELECT count(*) FROM public.{table} AS t WHERE t::text NOT IN (SELECT r::text FROM ({union}) AS u)"
    )
    assert rows == distinct > 0
    assert missing == NO_CLINIC.get(table, 0)
    assert query(f"SELECT count(*) FROM public.{table}") == [(rows + missing,)]


def test_rows_of_a_clinic_follow_the_documented_formula(query: Query) -> None:
    for clinic, p in ((1, PATIENTS), (6, 12)):
        rows = sum(query(f"SELECT count(*) FROM ({extract(table, clinic)}) AS r")[0][0] for table in EXTRACTS)
        online = sum(1 for number in range(1, p + 1) if number % 10 in (1, 2, 3))
        assert rows == 21 * p + 43 + 13 * (2 + p // 500) + 3 * (1 + p // 1000) + online


def foreign_keys(query: Query) -> list[tuple[str, str, str]]:
    """(table, column, referenced table) of each foreign key; all of the demo's have one column and point to an id."""
    return query(
        "SELECT c.relname, a.attname, r.relname FROM pg_constraint f JOIN pg_class c ON c.oid = f.conrelid"
        " JOIN pg_class r ON r.oid = f.confrelid JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = f.conkey[1]"
        " WHERE f.contype = 'f' AND f.condeferrable AND f.condeferred AND f.connamespace = 'public'::regnamespace"
        " ORDER BY 1, 2"
    )


def test_every_foreign_key_is_deferred_and_indexed(query: Query) -> None:
    indexed = set(
        query(
            "SELECT c.relname, a.attname FROM pg_index i JOIN pg_class c ON c.oid = i.indrelid"
            " JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = i.indkey[0] WHERE i.indpred IS NULL"
        )
    )
    found = foreign_keys(query)
    count = "SELECT count(*) FROM pg_constraint WHERE contype = 'f' AND connamespace = 'public'::regnamespace"
    assert query(count) == [(len(found),)]
    assert {(table, column) for table, column, _ in found} <= indexed


@pytest.mark.parametrize("clinic", [1, 6])
def test_a_clinics_extracts_are_closed_under_foreign_keys(query: Query, clinic: int) -> None:
    """A restored clinic refers to its own rows and to shared tables, never to another clinic's rows."""
    for table, column, parent in foreign_keys(query):
        if table in EXTRACTS and parent in EXTRACTS:
            outside = query(
                f"SELECT count(*) FROM ({extract(table, clinic)}) AS r WHERE r.{column} IS NOT NULL"
                f" AND r.{column} NOT IN (SELECT p.id FROM ({extract(parent, clinic)}) AS p)"
            )
            assert outside == [(0,)], f"{table}.{column}"


def test_a_small_clinic_in_a_big_database_is_read_through_indexes(postgres: EmbeddedPostgres) -> None:
    database.load(postgres, "big", clinics=200, patients=60)
    try:
        with closing(postgres.connect("big")) as connection:
            query = Query(connection)
            big = {name for (name,) in query("SELECT relname FROM pg_class WHERE relkind = 'r' AND reltuples > 5000")}
            assert len(big) > 5
            for table in EXTRACTS:
                plan = "\n".join(line for (line,) in query(f"EXPLAIN {extract(table, 6)}"))
                assert not [name for name in big if f"Seq Scan on {name} " in plan], plan
    finally:
        database.drop(postgres, "big")


def test_the_reading_role_reads_and_cannot_write(new_database: DemoDatabase) -> None:
    attempts = [
        "INSERT INTO public.auth_group (name) VALUES ('x')",
        "UPDATE public.usuarios_paciente SET notas = ''",
        "DELETE FROM public.auditoria_bitacora",
        "CREATE TABLE public.mine ()",
        "CREATE TEMP TABLE mine ()",
        "SELECT * FROM public.django_session",
    ]
    with closing(psycopg2.connect(new_database.reader_uri)) as connection:
        connection.autocommit = True
        query = Query(connection)
        for table in EXTRACTS:
            query(extract(table, 1))
        with pytest.raises(psycopg2.errors.ReadOnlySqlTransaction):
            query(attempts[0])
        # The default only guards against mistakes; the rights hold when it is switched off.
        query("SELECT set_config('default_transaction_read_only', 'off', false)")
        for attempt in attempts:
            with pytest.raises(psycopg2.errors.InsufficientPrivilege):
                query(attempt)


def test_the_catalog_role_owns_its_schema_and_sees_nothing_else(new_database: DemoDatabase) -> None:
    with closing(psycopg2.connect(new_database.catalog_uri)) as connection, connection.cursor() as cursor:
        cursor.execute("CREATE TABLE backup (id int); SELECT 'clinic_backups.backup'::regclass")
        connection.commit()
        for attempt in ("SELECT * FROM public.usuarios_paciente", "CREATE TABLE public.mine ()", "CREATE SCHEMA mine"):
            with pytest.raises(psycopg2.errors.InsufficientPrivilege):
                cursor.execute(attempt)
            connection.rollback()


@pytest.mark.parametrize(
    ("file", "ids"), [("active_clinics.sql", [1, 2, 3, 4, 5]), ("all_clinics.sql", [1, 2, 3, 4, 5, 6])]
)
def test_the_clinics_lists(query: Query, file: str, ids: list[int]) -> None:
    rows = query((SQL / file).read_text())
    assert [id_ for id_, _, _ in rows] == ids
    assert {language for _, _, language in rows} == {"es", "en"}
    assert "Clínica D'Ávila" in {name for _, name, _ in rows}


def test_the_administrators_of_a_clinic(query: Query) -> None:
    [(email, name)] = query(Template((SQL / "clinic_admins.sql").read_text()).render(clinic_id=2))
    assert email.endswith("@clinica2.example.com") and name


def test_the_next_row_gets_the_next_number(demo_database: DemoDatabase) -> None:
    with closing(demo_database.connect()) as connection:
        query = Query(connection)
        insert = "INSERT INTO public.auth_group (name) VALUES ('Nuevo') RETURNING id"
        assert query(insert) == [(5,)]
        [(last,)] = query("SELECT max(id) FROM public.auditoria_bitacora")
        insert = (
            "INSERT INTO public.auditoria_bitacora (accion, modelo, objeto_id, agente_usuario, ocurrido_en, usuario_id)"
            " VALUES ('crear', 'paciente', '1', '', now(), 1) RETURNING id"
        )
        assert query(insert) == [(last + 1,)]


def test_any_object_on_the_folder_finds_the_server(postgres: EmbeddedPostgres) -> None:
    server = EmbeddedPostgres(postgres.data_dir)
    with server:  # leaving the block does not stop what it did not start
        assert server.port == postgres.port
        assert server.psql("postgres", "SELECT :'v'", {"v": "it's \\ñ\n😀"}) == "it's \\ñ\n😀\n"
    assert postgres.running
    with pytest.raises(PostgresError, match="syntax error"):
        server.psql("postgres", "SELEC 1")


def test_a_server_that_was_killed_starts_again_on_its_port() -> None:
    with server_folder() as folder:
        server = EmbeddedPostgres(folder)
        server.stop()
        assert not server.running
        with pytest.raises(PostgresError, match="No PostgreSQL server was ever started"):
            server.uri()
        server.start()
        try:
            port = server.port
            os.kill(int((folder / "cluster" / "postmaster.pid").read_text().split()[0]), signal.SIGKILL)
            deadline = time.monotonic() + 60  # until process 1 has collected the dead one
            while server.running and time.monotonic() < deadline:
                time.sleep(0.1)
            server.start()
            assert server.port == port
            assert server.psql("postgres", "SHOW listen_addresses; SHOW unix_socket_directories") == "127.0.0.1\n\n"
            assert (folder / "password").stat().st_mode & 0o077 == 0
        finally:
            server.stop()
        assert not server.running
        broken = EmbeddedPostgres(folder, settings={"shared_buffers": "none"})
        with pytest.raises(PostgresError, match='invalid value for parameter "shared_buffers"'):
            broken.start()
