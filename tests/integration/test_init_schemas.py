"""``init`` on schemas that it has never seen: what it writes gives each tenant exactly its rows."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg2.extensions
import pytest
from psycopg2 import sql

from clinic_backups.base import connections
from clinic_backups.onboarding import init
from clinic_backups.onboarding.init import InitPlan, Wanted
from clinic_backups.tenant.tenant_db import Snapshot
from include.demo.postgres import EmbeddedPostgres
from tests.schemas import Rows, Spec

SCHEMAS = {"uuid_tenants": "uuid", "django_auth": "bigint", "rails_loose": "bigint"}
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


@dataclass
class Foreign:
    """A database with a foreign schema, and what is known of its rows."""

    name: str
    spec: Spec
    rows: Rows
    tenants: list[Any]
    folder: Path
    server: EmbeddedPostgres
    database: str

    def plan(self, **wanted: Any) -> InitPlan:
        with Snapshot(connections.parse("clinic_db", self.server.uri(self.database))) as snapshot:
            return init.plan(snapshot, self.folder, Wanted(f"public.{self.spec.tenant}", **wanted))

    def connect(self) -> psycopg2.extensions.connection:
        return self.server.connect(self.database)


@pytest.fixture(scope="module", params=SCHEMAS)
def foreign(
    request: pytest.FixtureRequest, postgres: EmbeddedPostgres, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Foreign]:
    name, database = request.param, f"foreign_{request.param}"
    spec, folder = Spec.read(name, key=SCHEMAS[name]), tmp_path_factory.mktemp(name)
    (folder / "polymorphic.txt").write_text(PAIRS[name])
    with closing(postgres.connect()) as connection, connection.cursor() as cursor:
        connection.autocommit = True
        cursor.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(database)))
    with closing(postgres.connect(database)) as connection, connection, connection.cursor() as cursor:
        cursor.execute(spec.ddl())
        rows = Rows(spec, cursor)
        tenants = rows.make(3, 6)
    found = Foreign(name, spec, rows, tenants, folder, postgres, database)
    init.apply(folder, found.plan())
    yield found
    with closing(postgres.connect()) as connection, connection.cursor() as cursor:
        connection.autocommit = True
        cursor.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(database)))


def test_each_table_has_the_class_that_it_was_made_with(foreign: Foreign) -> None:
    kinds = {"": "tenant", "+": "parent", "-": "unknown", "*": "parent or shared"}
    found = {choice.table: choice.table_class for choice in foreign.plan().choices}
    wrong = {
        table.name: (kinds[table.kind], found[f"public.{table.name}"])
        for table in foreign.spec.tables.values()
        if found[f"public.{table.name}"] not in kinds[table.kind]
        and not (table.kind == "-" and found[f"public.{table.name}"] == "shared")
    }
    assert wrong == {}


def test_each_extract_gives_exactly_the_rows_of_its_tenant(foreign: Foreign) -> None:
    wrong = {}
    with closing(foreign.connect()) as connection, connection.cursor() as cursor:
        for table in foreign.spec.tables.values():
            path = foreign.folder / "extract" / f"{table.name}.sql"
            if table.kind == "" and path.exists():
                for tenant in foreign.tenants:
                    key = f"'{tenant}'::uuid" if foreign.spec.key == "uuid" else str(tenant)
                    cursor.execute(path.read_text().replace("{{ clinic_id }}", key))
                    assert cursor.description is not None
                    at = [column.name for column in cursor.description].index("id")
                    got = sorted(str(row[at]) for row in cursor.fetchall())
                    if got != sorted(map(str, foreign.rows.of[table.name][tenant])):
                        wrong[table.name, tenant] = (len(got), len(foreign.rows.of[table.name][tenant]))
    assert wrong == {}
