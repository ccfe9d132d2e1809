"""The demo's clinic database: how it gets its rows, and the roles that may use it."""

from __future__ import annotations

import json
import os
import secrets
from contextlib import closing
from dataclasses import asdict, dataclass, field
from pathlib import Path

from psycopg2 import sql

from include.demo.postgres import EmbeddedPostgres, PostgresError

DATABASE = "clinica"
HERE = Path(__file__).parent


@dataclass(frozen=True)
class Roles:
    """Who backups read with, who owns the catalog's schema ``clinic_backups``, and who restores write with."""

    reader_password: str = field(repr=False)
    catalog_password: str = field(repr=False)
    restorer_password: str = field(repr=False)
    reader: str = "clinic_backups_reader"
    catalog: str = "clinic_backups_catalog"
    restorer: str = "clinic_backups_restorer"


def load(postgres: EmbeddedPostgres, database: str = DATABASE, clinics: int = 6, patients: int = 200) -> None:
    """Make the database and fill it: the same bytes at every load. One that is there at the same scale is kept.

    A clinic of p patients has 21 p + 43 + 13 (2 + p // 500) + 3 (1 + p // 1000) rows in its backup, and one more for
    each patient whose number in the clinic ends in 1, 2 or 3 (a payment online).

    :param clinics: how many; the sixth has closed and has 12 patients at most.
    :param patients: of each other clinic.
    :raises PostgresError: the database is there at another scale, or its load failed (it is then empty).
    """
    if clinics < 1 or patients < 1:
        raise ValueError("A demo needs at least one clinic and one patient.")
    scale = f"clinic_backups demo, clinics={clinics}, patients={patients}"
    exists, found = _scale(postgres, database)
    if found == scale:
        return
    if found is not None:
        raise PostgresError(
            f"Database {database} was loaded as {found!r}; wanted is {scale!r}.\n"
            f"HINT: ask for the scale that is there, or drop the database first: every row in it is lost then."
        )
    if not exists:
        _execute(
            postgres, "postgres", sql.SQL("CREATE DATABASE {} TEMPLATE template0").format(sql.Identifier(database))
        )
    postgres.psql(database, HERE / "load.sql", {"clinicas": clinics, "pacientes": patients, "escala": scale})


def drop(postgres: EmbeddedPostgres, database: str = DATABASE) -> None:
    """Remove the database and all its rows, whoever is connected to it. No-op if there is none."""
    _execute(postgres, "postgres", dropping(database))


def dropping(database: str) -> sql.Composed:
    """The statement of :func:`drop`."""
    return sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(database))


def create_roles(postgres: EmbeddedPostgres, database: str = DATABASE) -> Roles:
    """Make the three roles, or give them their passwords and rights anew.

    The passwords are random, and kept beside the server's own in the file ``roles.json`` (0600).
    """
    kept = postgres.data_dir / "roles.json"
    known = json.loads(kept.read_text()) if kept.exists() else {}
    names = ("reader_password", "catalog_password", "restorer_password")
    roles = Roles(**{name: known.get(name) or secrets.token_urlsafe(24) for name in names})
    with os.fdopen(os.open(kept, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        json.dump(asdict(roles), file)
    known = asdict(roles)
    postgres.psql(database, HERE / "roles.sql", {name: known[name] for name in known if "restorer" not in name})
    postgres.psql(database, HERE / "restorer.sql", {name: known[name] for name in known if "restorer" in name})
    return roles


def _scale(postgres: EmbeddedPostgres, database: str) -> tuple[bool, str | None]:
    """Whether the database exists, and its comment, which ``load.sql`` writes in the transaction of the load."""
    with closing(postgres.connect()) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT shobj_description(oid, 'pg_database') FROM pg_database WHERE datname = %s", (database,))
        row = cursor.fetchone()
    return row is not None, row[0] if row else None


def _execute(postgres: EmbeddedPostgres, database: str, statement: sql.Composable) -> None:
    with closing(postgres.connect(database)) as connection, connection.cursor() as cursor:
        connection.autocommit = True
        cursor.execute(statement)
