"""A database with one of the foreign schemas of ``tests/schemas``, and what is known of its rows."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg2.extensions
from psycopg2 import sql

from include.demo.postgres import EmbeddedPostgres
from tests.schemas import Rows, Spec

SCHEMAS = {"uuid_tenants": "uuid", "django_auth": "bigint", "rails_loose": "bigint"}
"""The type of the keys of each schema."""
PAIRS = {
    "uuid_tenants": """\
public.error_details (owner_type, owner_id): Invoice = public.invoices, Customer = public.customers
public.versions (item_type, item_id): Customer = public.customers, Plan = public.plans,Subscription=public.subscriptions
public.active_storage (record_type, record_id): Invoice = public.invoices, CreditNote = public.credit_notes
public.idempotency_records (resource_type, resource_id): Invoice = public.invoices, Wallet = public.wallets
""",
    "django_auth": "",
    "rails_loose": """\
public.comments (commentable_type, commentable_id): Project = public.projects, Task = public.tasks
public.attachments (attachable_type, attachable_id): Comment = public.comments, Task = public.tasks
public.labelings (labelable_type, labelable_id): Project = public.projects, Task = public.tasks
""",
}
"""The lines of ``polymorphic.txt``."""


@dataclass
class Foreign:
    """One such database, without roles and without a catalog.

    :ivar folder: the SQL folder, which has nothing but ``polymorphic.txt``.
    """

    name: str
    spec: Spec
    rows: Rows
    tenants: list[Any]
    folder: Path
    server: EmbeddedPostgres
    database: str

    @property
    def tenant_table(self) -> str:
        return f"public.{self.spec.tenant}"

    def connect(self) -> psycopg2.extensions.connection:
        return self.server.connect(self.database)

    def execute(self, *statements: str) -> None:
        with closing(self.connect()) as connection, connection, connection.cursor() as cursor:
            for statement in statements:
                cursor.execute(statement)

    def everything(self) -> dict[str, list[str]]:
        """All rows of all tables, by SQL that the product does not use."""
        with closing(self.connect()) as connection, connection.cursor() as cursor:
            found = {}
            for name in self.spec.tables:
                cursor.execute(sql.SQL("SELECT t::text FROM {} AS t ORDER BY 1").format(sql.Identifier(name)))
                found[name] = [row for (row,) in cursor.fetchall()]
        return found


@contextmanager
def foreign_database(name: str, server: EmbeddedPostgres, folder: Path, *, each: int = 6) -> Iterator[Foreign]:
    """Make the database while the block lasts: three tenants with ``each`` rows in each table."""
    spec, database = Spec.read(name, key=SCHEMAS[name]), f"foreign_{name}"
    folder.mkdir(exist_ok=True)
    (folder / "polymorphic.txt").write_text(PAIRS[name])
    with closing(server.connect()) as connection, connection.cursor() as cursor:
        connection.autocommit = True
        cursor.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(database)))
        try:
            with closing(server.connect(database)) as inner, inner, inner.cursor() as filling:
                filling.execute(spec.ddl())
                rows = Rows(spec, filling)
                tenants = rows.make(3, each)
            yield Foreign(name, spec, rows, tenants, folder, server, database)
        finally:
            cursor.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(database)))
