"""The demo's databases on one server: Airflow's own, and the clinics' with the schema of the catalog in it."""

from __future__ import annotations

from contextlib import closing

from psycopg2 import sql

from include.demo import database
from include.demo.layout import DemoError
from include.demo.postgres import EmbeddedPostgres, PostgresError

AIRFLOW = "airflow"


def make_owned_database(postgres: EmbeddedPostgres, database: str, password: str) -> str:
    """A database, owned by a role of its own with the same name; returns its URI. Idempotent."""
    name = sql.Identifier(database)
    with closing(postgres.connect()) as connection:
        connection.autocommit = True  # CREATE DATABASE runs in no transaction
        with connection.cursor() as cursor:
            cursor.execute("SELECT FROM pg_roles WHERE rolname = %s", (database,))
            verb = sql.SQL("ALTER" if cursor.rowcount else "CREATE")
            cursor.execute(sql.SQL("{} ROLE {} LOGIN PASSWORD %s").format(verb, name), (password,))
            cursor.execute("SELECT FROM pg_database WHERE datname = %s", (database,))
            if not cursor.rowcount:
                cursor.execute(sql.SQL("CREATE DATABASE {} OWNER {}").format(name, name))
    return postgres.uri(database, database, password)


def make_clinic_database(postgres: EmbeddedPostgres, clinics: int | None, patients: int | None) -> bool:
    """The clinics' database with made-up rows; returns whether it was filled now.

    :param clinics: when neither size is asked for, a database that is there is kept at its own.
    :raises DemoError: it is there at another size.
    :raises PostgresError: it cannot be filled.
    """
    loaded = _is_loaded(postgres)
    sizes = {name: size for name, size in (("clinics", clinics), ("patients", patients)) if size is not None}
    if not loaded or sizes:
        try:
            database.load(postgres, database.DATABASE, **sizes)
        except PostgresError as error:
            if not loaded:
                raise
            reason = str(error).partition("\n")[0]
            hint = (
                "HINT: leave CLINICS and PATIENTS out; or `rm -r .demo` starts anew, and the demo's backups go with it."
            )
            raise DemoError(f"{reason}\n{hint}") from error
    return not loaded


def make_empty_clinic_database(postgres: EmbeddedPostgres) -> None:
    """The clinics' database without anything in it, on a new server."""
    with closing(postgres.connect()) as connection, connection.cursor() as cursor:
        connection.autocommit = True  # CREATE DATABASE runs in no transaction
        cursor.execute(sql.SQL("CREATE DATABASE {} TEMPLATE template0").format(sql.Identifier(database.DATABASE)))


def make_clinic_roles(postgres: EmbeddedPostgres) -> tuple[str, str, str]:
    """The roles in the clinics' database; returns the URIs of those that back up, own the catalog, and restore."""
    roles = database.create_roles(postgres)
    return (
        postgres.uri(database.DATABASE, roles.reader, roles.reader_password),
        postgres.uri(database.DATABASE, roles.catalog, roles.catalog_password),
        postgres.uri(database.DATABASE, roles.restorer, roles.restorer_password),
    )


def _is_loaded(postgres: EmbeddedPostgres) -> bool:
    """Whether a load has completed: it ends with a comment on the database."""
    with closing(postgres.connect()) as connection, connection.cursor() as cursor:
        cursor.execute(
            "SELECT FROM pg_database WHERE datname = %s AND shobj_description(oid, 'pg_database') IS NOT NULL",
            (database.DATABASE,),
        )
        return bool(cursor.rowcount)
