"""A schema clinic_backups of a stranger is not trusted: its owner could replace the table of approvals."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from sqlalchemy import NullPool, create_engine

from clinic_backups.app import Parts
from clinic_backups.base import connections
from clinic_backups.base.errors import PermanentError
from clinic_backups.base.settings import Settings
from clinic_backups.catalog import migrate
from clinic_backups.catalog.records import Catalog
from tests.postgres_fixtures import DemoDatabase

PLANTER = "planter_of_catalogs"
THINGS = {
    "schema": ("ALTER SCHEMA clinic_backups OWNER TO {role}", "the schema"),
    "table": ("ALTER TABLE clinic_backups.approval OWNER TO {role}", "the table or view approval"),
    "view": ("ALTER VIEW clinic_backups.respaldo OWNER TO {role}", "the table or view respaldo"),
    "function": ("ALTER FUNCTION clinic_backups.rows_total(jsonb) OWNER TO {role}", "the function rows_total"),
}


@pytest.fixture
def planter(demo_database: DemoDatabase) -> Iterator[str]:
    execute(demo_database, f"CREATE ROLE {PLANTER} LOGIN; GRANT CREATE ON DATABASE {demo_database.name} TO {PLANTER}")
    yield PLANTER
    execute(demo_database, f"REASSIGN OWNED BY {PLANTER} TO CURRENT_USER; DROP OWNED BY {PLANTER}; DROP ROLE {PLANTER}")


def execute(database: DemoDatabase, *statements: str) -> None:
    with database.session.transaction() as cursor:
        for statement in statements:
            cursor.execute(statement)


def catalog_of(database: DemoDatabase, uri: str | None = None) -> Catalog:
    return Catalog(connections.parse("backup_catalog", uri or database.catalog_uri))


def test_a_schema_that_was_planted_is_not_migrated(demo_database: DemoDatabase, planter: str) -> None:
    execute(
        demo_database, "DROP SCHEMA clinic_backups CASCADE", f"SET LOCAL ROLE {planter}",
        "CREATE SCHEMA clinic_backups", "GRANT ALL ON SCHEMA clinic_backups TO PUBLIC",
    )  # fmt: skip
    said = rf"the schema \({planter}\)\. .*could replace"
    with pytest.raises(PermanentError, match=said) as refused:
        catalog_of(demo_database).migrate()
    assert "ALTER SCHEMA clinic_backups RENAME TO" in refused.value.hint
    # A connection that was opened before.
    engine = create_engine(demo_database.catalog_uri, poolclass=NullPool)
    with pytest.raises(PermanentError, match=said), engine.begin() as db:
        migrate.upgrade(db)
    execute(demo_database, "ALTER SCHEMA clinic_backups RENAME TO planted")
    execute(demo_database, f"CREATE SCHEMA clinic_backups AUTHORIZATION {demo_database.roles.catalog}")
    assert catalog_of(demo_database).migrate() == migrate.newest()


@pytest.mark.parametrize("thing", THINGS)
def test_a_catalog_with_something_of_a_stranger_is_not_opened(
    demo_database: DemoDatabase, planter: str, thing: str
) -> None:
    before = catalog_of(demo_database)
    before.require_newest()
    change, said = THINGS[thing]
    execute(demo_database, change.format(role=planter))
    with pytest.raises(PermanentError, match=rf"These belong to another role: {said} \({planter}\)"):
        before.require_newest()
    for use in (lambda: catalog_of(demo_database).find(), lambda: catalog_of(demo_database).lock(1).__enter__()):
        with pytest.raises(PermanentError, match=f"These belong to another role: {said}"):
            use()
    parts = Parts(Settings(), {"backup_catalog": before._connection}.get)
    assert any(said in finding.message for finding in parts.preflight(count_rows=False) if finding.check == "catalog")


@pytest.mark.parametrize("how", ["a role that the catalog's is a member of", "superuser", "the database's owner"])
def test_roles_that_could_do_it_anyway_are_trusted(demo_database: DemoDatabase, planter: str, how: str) -> None:
    execute(demo_database, f"ALTER SCHEMA clinic_backups OWNER TO {planter}")
    execute(demo_database, f"GRANT ALL ON SCHEMA clinic_backups TO {demo_database.roles.catalog}")
    if how == "superuser":
        execute(demo_database, f"ALTER ROLE {planter} SUPERUSER")
    elif how == "the database's owner":
        execute(demo_database, f"ALTER DATABASE {demo_database.name} OWNER TO {planter}")
    else:
        execute(demo_database, f"CREATE ROLE {planter}_2; GRANT {planter}_2 TO {demo_database.roles.catalog}")
        execute(demo_database, f"GRANT {planter} TO {planter}_2")
    try:
        assert catalog_of(demo_database).migrate() == migrate.newest()
        catalog_of(demo_database).require_newest()
    finally:
        execute(demo_database, f"DROP ROLE IF EXISTS {planter}_2")
        execute(demo_database, f"ALTER DATABASE {demo_database.name} OWNER TO CURRENT_USER")


def test_a_superuser_trusts_no_more_than_the_catalogs_role(demo_database: DemoDatabase, planter: str) -> None:
    server = demo_database.postgres
    execute(demo_database, f"ALTER TABLE clinic_backups.approval OWNER TO {planter}")
    with pytest.raises(PermanentError, match="approval"):
        catalog_of(demo_database, server.uri(demo_database.name, server.user, server.password)).find()
