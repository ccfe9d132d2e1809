"""Whatever a role or a database is set to, every connection of this package reads, writes and waits as it should."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg2
import pytest
from sqlalchemy import text

from clinic_backups.base import connections
from clinic_backups.base.database import RELIED_ON, connect
from clinic_backups.base.search_path import OWN_PATH
from clinic_backups.catalog.catalog_database import CatalogDatabase
from clinic_backups.catalog.records import Catalog
from tests.integration.test_cli import Run, restore_keys, run  # noqa: F401 - a fixture
from tests.integration.test_server_checks import ODD
from tests.postgres_fixtures import DemoDatabase

HOSTILE = ODD | {
    "search_path": "evil, pg_catalog", "statement_timeout": "1500",
}  # fmt: skip
EVIL = """
    CREATE SCHEMA evil;
    CREATE FUNCTION evil.now() RETURNS timestamptz LANGUAGE sql AS $$ SELECT '2001-01-01'::timestamptz $$;
    CREATE FUNCTION evil.coalesce(text) RETURNS text LANGUAGE sql AS $$ SELECT 'evil' $$;
    CREATE FUNCTION evil.clock_timestamp() RETURNS timestamptz LANGUAGE sql AS $$ SELECT '2001-01-01'::timestamptz $$;
    CREATE FUNCTION evil.pg_try_advisory_xact_lock(bigint) RETURNS boolean LANGUAGE sql AS $$ SELECT true $$;
    GRANT USAGE ON SCHEMA evil TO PUBLIC;
"""


@pytest.fixture
def hostile(demo_database: DemoDatabase) -> Iterator[DemoDatabase]:
    roles = demo_database.roles
    with closing(demo_database.connect()) as db, db, db.cursor() as cursor:
        cursor.execute(EVIL)
        for role in (roles.reader, roles.restorer, roles.catalog):
            for name, value in HOSTILE.items():
                if name != "transaction_timeout" or db.server_version >= 170000:
                    quoted = value if name == "search_path" else "'" + value + "'"
                    cursor.execute(f"ALTER ROLE {role} IN DATABASE {demo_database.name} SET {name} = {quoted}")
    yield demo_database


def test_a_whole_backup_and_restore_with_hostile_settings_of_every_role(
    run: Run,  # noqa: F811
    tmp_path: Path,
    hostile: DemoDatabase,
) -> None:
    keys = restore_keys(run, tmp_path / "identity", hostile)
    folder = tmp_path / "sql"
    shutil.copytree(Path(__file__).parents[2] / "include" / "sql", folder)
    hook = "SELECT 1 / (coalesce(current_setting('array_nulls'), '') = 'on')::int, pg_sleep(0.3)"
    for name in ("before_restore.sql", "after_restore.sql"):
        (folder / name).write_text(hook)
    keys |= {"CLINIC_BACKUPS_IDENTITY_FILE": str(tmp_path / "identity"), "CLINIC_BACKUPS_SQL_DIR": str(folder)}
    stock = "SELECT * FROM public.inventario_inventario ORDER BY id"

    def rows() -> list[Any]:
        with closing(hostile.connect()) as db, db.cursor() as cursor:
            cursor.execute(stock)
            return cursor.fetchall()

    before = rows()
    for words in (("store", "init"), ("check",), ("backup", "--clinic", "1"), ("list",), ("catalog", "verify")):
        done = run(*words, **keys)
        assert done.code == 0, done.err + done.out
    with closing(hostile.connect()) as db, db, db.cursor() as cursor:
        cursor.execute("UPDATE public.inventario_inventario SET cantidad = cantidad + 1 WHERE clinica_id = 1")
    for words in (("restore", "--clinic", "1", "--yes"), ("retention",), ("catalog", "rebuild")):
        done = run(*words, **keys)
        assert done.code == 0, done.err + done.out
    assert rows() == before
    with closing(hostile.connect()) as db, db.cursor() as cursor:
        cursor.execute("SELECT min(started_at) > now() - interval '1 hour', count(*) FROM clinic_backups.backup")
        assert cursor.fetchone() == (True, 2)


@pytest.mark.parametrize("role", ["catalog", "reader", "restorer"])
@pytest.mark.parametrize("autocommit", [False, True])
def test_every_transaction_has_what_is_relied_on_and_leaves_nothing_behind(
    hostile: DemoDatabase, role: str, autocommit: bool
) -> None:
    connection = connections.parse("x", getattr(hostile, f"{role}_uri"))
    with closing(connect(connection)) as db:
        db.autocommit = autocommit
        for name, (_, fits) in RELIED_ON.items():
            for _ in range(2):
                with db.cursor() as cursor:
                    cursor.execute("SELECT current_setting(%s, true)", (name,))
                    (value,) = cursor.fetchone() or (None,)
                    assert value is None or fits.fullmatch(value), (name, value)
                if not autocommit:
                    db.rollback()
        with db.cursor() as cursor:
            cursor.execute("SELECT current_setting('transaction_isolation'), current_setting('transaction_read_only')")
            assert cursor.fetchone() == ("read committed", "off")
        if not autocommit:
            db.rollback()
        # What a pooling proxy hands on is as it was.
        with psycopg2.extensions.cursor(db) as bare:
            bare.execute("SELECT current_setting('array_nulls'), current_setting('search_path')")
            assert bare.fetchone() == ("off", "pg_catalog,pg_temp")


def test_the_catalogs_clock_and_single_statements_are_its_own(hostile: DemoDatabase) -> None:
    catalog = Catalog(connections.parse("backup_catalog", hostile.catalog_uri))
    assert catalog.clock().year > 2025
    database = CatalogDatabase(connections.parse("backup_catalog", hostile.catalog_uri))
    with database.statement("asking") as db:
        assert db.execute(text("SELECT :a || now()::text"), {"a": "x"}).scalar_one() > "x2025"
        done = db.execute(text("UPDATE clinic_backups.clinic SET name = name WHERE false"))
        assert done.rowcount == 0


def test_a_server_with_ordinary_settings_is_left_alone(demo_database: DemoDatabase) -> None:
    with closing(connect(connections.parse("x", demo_database.catalog_uri))) as db:
        assert db.pins == {}


def test_a_proxy_that_refuses_the_option_gets_the_path_in_each_transaction(
    demo_database: DemoDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    opening = psycopg2.connect

    def refusing(**parameters: Any) -> Any:
        if "search_path" in parameters.get("options", ""):
            raise psycopg2.OperationalError('FATAL:  unsupported startup parameter in options: "search_path"')
        return opening(**parameters)

    monkeypatch.setattr(psycopg2, "connect", refusing)
    connection = connections.parse("x", demo_database.catalog_uri)
    for own_path in (True, False):
        with closing(connect(connection, own_path=own_path)) as db:
            assert db.pins == {"search_path": OWN_PATH}
            for _ in range(2):
                with db.cursor() as cursor:
                    cursor.execute("SELECT current_setting('search_path')")
                    assert cursor.fetchone() == ("pg_catalog, pg_temp",)
                db.rollback()
