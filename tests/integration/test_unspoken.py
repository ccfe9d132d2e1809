"""No message contains a value of a row, whatever the database reports. The marks stand for patients' names."""

from __future__ import annotations

import io
import logging
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from uuid import uuid4

import psycopg2
import pytest
from psycopg2 import sql

from clinic_backups import cli
from clinic_backups.base import connections
from clinic_backups.base.database import connect
from clinic_backups.base.database_errors import refusal_of
from clinic_backups.base.errors import ClinicBackupsError, frames, to_record
from clinic_backups.operators.airflow_connections import failing_clearly
from clinic_backups.tenant.tenant_db import Snapshot
from tests.postgres_fixtures import DemoDatabase, copy_of

MARK = f"zacarias{uuid4().hex}"
TABLE = f"""
    CREATE TABLE public.marcado (id int PRIMARY KEY, texto text DEFAULT '{MARK}');
    INSERT INTO public.marcado VALUES (1, '{MARK}');
    CREATE TYPE public.marcas AS ENUM ('a');
    CREATE DOMAIN public.corto AS text CONSTRAINT corto_check CHECK (length(VALUE) < 3);
    CREATE FUNCTION public.habla(estado text) RETURNS int LANGUAGE plpgsql AS $f$
    DECLARE nombre text := (SELECT texto FROM public.marcado);
    BEGIN
        RAISE NOTICE 'Paciente %', nombre;
        RAISE WARNING 'Paciente %', nombre;
        RAISE EXCEPTION 'Paciente %', nombre USING ERRCODE = estado, DETAIL = nombre, HINT = nombre,
            SCHEMA = nombre, TABLE = nombre, COLUMN = nombre, CONSTRAINT = nombre, DATATYPE = nombre;
    END $f$;
"""
OF = "FROM public.marcado"
STATES = {
    "42P01": f"SELECT texto::regclass {OF}",
    "42704 a type": f"SELECT texto::regtype {OF}",
    "42704 a setting": f"SELECT current_setting(texto) {OF}",
    "42704 a role": f"SELECT texto::regrole {OF}",
    "42704 a configuration": f"SELECT to_tsvector(texto::regconfig, 'x') {OF}",
    "42883": f"SELECT (texto || '()')::regprocedure {OF}",
    "42601 a query": f"SELECT to_tsquery('simple', texto || ' ' || texto) {OF}",
    "42601 a path": f"SELECT (texto || ' $.')::jsonpath {OF}",
    "3F000": f"SELECT texto::regnamespace {OF}",
    "42703": f"SELECT has_column_privilege('public.marcado', texto, 'select') {OF}",
    "3D000": f"SELECT has_database_privilege(texto, 'connect') {OF}",
    "58P01": f"SELECT pg_read_file(texto) {OF}",
    "54000": f"SELECT repeat(texto, 100)::tsvector {OF}",
    "22P02": f"SELECT texto::int {OF}",
    "22P02 an enum": f"SELECT texto::public.marcas {OF}",
    "23514": f"SELECT texto::public.corto {OF}",
    "0A000": f"SELECT DISTINCT texto {OF} FOR UPDATE",
    "25006": f"INSERT INTO public.marcado SELECT 2, texto {OF}",
    "57014": f"SELECT texto, set_config('statement_timeout', '1ms', true) {OF}; SELECT pg_sleep(0.2), texto {OF}",
    "55000": f"SELECT currval('public.marcado_s'), texto {OF}",
    "42809": f"SELECT nextval('public.marcado'), texto {OF}",
    "57P01": f"SELECT pg_terminate_backend(pg_backend_pid()), texto {OF}",
    "42601": f"SELECT texto FRM '{MARK}'",
    **{f"said {state}": f"SELECT public.habla('{state}')"
       for state in ("DT001", "0A000", "25006", "28000", "40001", "42501", "42601", "42703", "42P01", "53400", "54000",
                     "55000", "55P03", "57014", "58030", "08006", "23505", "22P02", "3F000", "P0001")},
    "said 42501 within SQL": f"SELECT count(*) {OF} WHERE public.habla('42501') = id",
}  # fmt: skip


@pytest.fixture(scope="module")
def marked(demo_template: DemoDatabase) -> Iterator[DemoDatabase]:
    with copy_of(demo_template) as database:
        with closing(database.connect()) as db, db, db.cursor() as cursor:
            cursor.execute(TABLE)
            cursor.execute("CREATE SEQUENCE public.marcado_s")
        yield database


@pytest.mark.parametrize("name", STATES)
def test_no_value_is_in_what_an_error_says(
    marked: DemoDatabase, name: str, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.DEBUG)
    owner = connections.parse("clinic_db", marked.postgres.uri(marked.name))
    with Snapshot(owner) as snapshot, pytest.raises(ClinicBackupsError) as caught:
        snapshot.rows(sql.SQL(STATES[name]), None, "asking")
    error = caught.value
    out, err = capfd.readouterr()
    shown = [str(error), error.hint, str(to_record(error)), str(refusal_of(error)), caplog.text, out, err]
    if name != "42601":  # there the mark is the statement's own
        assert MARK not in " ".join(shown)
        assert MARK.title() not in " ".join(shown)
    # libpq gives no state of a connection that the server ended.
    assert name.removeprefix("said ").split()[0] in f"{error} 57P01"


@pytest.mark.parametrize(
    "wrong", [lambda: int(MARK), lambda: {}[MARK], lambda: MARK.encode().decode("ascii").index("ñ" + MARK)]
)
def test_an_unexpected_error_shows_its_kind_and_place_alone(
    wrong: Callable[[], object],
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fails() -> None:
        try:
            raise ValueError(MARK)
        except ValueError:
            wrong()

    with pytest.raises(Exception, match="Unexpected error: ") as caught, failing_clearly(logging.getLogger("x")):
        fails()
    assert caught.value.__suppress_context__
    monkeypatch.setattr("clinic_backups.cli.stopping.install", lambda: None)
    monkeypatch.setattr("clinic_backups.cli.commands.run", fails)
    with pytest.raises(SystemExit):
        cli.main()
    out, err = capfd.readouterr()
    assert "in fails" in err
    assert "in fails" in caplog.text
    for text in (str(caught.value), out, err, caplog.text):
        assert MARK not in text


def test_a_drivers_error_that_nobody_turned_into_ours_is_not_told(marked: DemoDatabase) -> None:
    with closing(marked.connect()) as db, db.cursor() as cursor, pytest.raises(Exception) as caught:
        cursor.execute(f"INSERT INTO public.marcado SELECT 1, texto {OF}")
    assert MARK not in frames(caught.value)


def test_a_connection_that_ends_in_a_copy_prints_no_row(
    demo_database: DemoDatabase, capfd: pytest.CaptureFixture[str]
) -> None:
    """psycopg2 prints the first of two errors, with the line that PostgreSQL was loading."""
    waits = "CREATE TABLE public.slow (v text CHECK (pg_sleep(60) IS NOT NULL))"
    sleeping = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE wait_event = 'PgSleep'"
    with demo_database.session.transaction() as cursor:
        cursor.execute(waits)

    def end() -> None:
        with closing(demo_database.connect()) as other, other.cursor() as cursor:
            other.autocommit = True
            while not cursor.rowcount > 0:
                time.sleep(0.02)
                cursor.execute(sleeping)

    uri = demo_database.postgres.uri(demo_database.name)
    hook, ending = sys.excepthook, threading.Thread(target=end, daemon=True)
    with closing(connect(connections.parse("clinic_db", uri))) as db, db.cursor() as cursor:
        ending.start()
        with pytest.raises(psycopg2.Error):
            cursor.copy_expert("COPY public.slow FROM STDIN", io.StringIO(f"{MARK}\n"))
    ending.join()
    assert sys.excepthook is hook
    out, err = capfd.readouterr()
    assert MARK not in out + err
