"""The audit list cannot be changed."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import psycopg2
import pytest

from clinic_backups.base import connections
from clinic_backups.base.errors import PermanentError
from clinic_backups.catalog.audit import Audit, AuditEntry
from clinic_backups.catalog.records import Catalog
from tests.postgres_fixtures import DemoDatabase

NOW = datetime(2026, 11, 24, 6, 0, tzinfo=UTC)


@pytest.fixture
def audit(demo_database: DemoDatabase) -> Audit:
    catalog = Catalog(connections.parse("backup_catalog", demo_database.catalog_uri))
    catalog.migrate()
    return Audit(catalog.database)


def entry(minutes: int, actor: str = "ana", clinic_id: int | None = 1) -> AuditEntry:
    return AuditEntry(
        NOW + timedelta(minutes=minutes), actor, "administrador", "download", clinic_id, "1-x", None, "::1", "detalle"
    )


def test_entries_are_listed_newest_first_and_by_who_may_see_them(audit: Audit) -> None:
    for minutes, clinic_id in enumerate((1, 2, None, 1)):
        assert audit.write(entry(minutes, clinic_id=clinic_id)) == minutes + 1
    everything = audit.page(visible=None)
    assert [found.id for found in everything.entries] == [4, 3, 2, 1]
    assert everything.entries[0] == AuditEntry(**(vars(entry(3)) | {"id": 4}))
    assert [found.id for found in audit.page(visible=[1]).entries] == [4, 1]
    assert audit.page(visible=[]).total == audit.page(visible=[1], clinic_id=2).total == 0
    assert [found.id for found in audit.page(visible=None, page=2, per_page=3).entries] == [1]
    assert (audit.page(visible=None, page=2, per_page=3).pages, audit.page(visible=None, actor="eva").total) == (2, 0)


def test_what_somebody_did_since_is_counted(audit: Audit) -> None:
    for minutes in range(5):
        audit.write(entry(minutes))
        audit.write(entry(minutes, actor="eva"))
    assert audit.count("ana", NOW + timedelta(minutes=2)) == 3
    assert audit.count("nadie", NOW) == 0


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE clinic_backups.audit SET actor = 'nadie'",
        "UPDATE clinic_backups.audit SET actor = 'nadie' WHERE false",
        "DELETE FROM clinic_backups.audit",
        "TRUNCATE clinic_backups.audit",
        "INSERT INTO clinic_backups.audit (id, at, actor, role, action) OVERRIDING SYSTEM VALUE"
        " VALUES (1, now(), 'x', 'x', 'x') ON CONFLICT (id) DO UPDATE SET actor = 'nadie'",
        "MERGE INTO clinic_backups.audit AS a USING (SELECT 1) ON true WHEN MATCHED THEN DELETE",
    ],
)
@pytest.mark.parametrize("role", ["catalog", "superuser that replicates"])
def test_no_entry_is_changed_or_removed(audit: Audit, demo_database: DemoDatabase, role: str, statement: str) -> None:
    audit.write(entry(0))
    before = audit.page(visible=None)
    login = {} if role != "catalog" else {
        "user": demo_database.roles.catalog, "password": demo_database.roles.catalog_password
    }  # fmt: skip
    connection = demo_database.connect(**login)
    try:
        with connection.cursor() as cursor:
            if role != "catalog":
                cursor.execute("SET session_replication_role = replica")
            with pytest.raises(psycopg2.errors.ObjectNotInPrerequisiteState, match="only ever added to"):
                cursor.execute(statement)
    finally:
        connection.close()
    assert audit.page(visible=None) == before


def test_a_refusal_says_why(audit: Audit) -> None:
    from sqlalchemy import text

    with pytest.raises(PermanentError, match="only ever added to"), audit._database.transaction("tidying up") as db:
        db.execute(text("DELETE FROM clinic_backups.audit"))
