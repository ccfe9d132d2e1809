"""The catalog's schema: made from nothing, up and down, and the view that the clinics' application reads."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from alembic import command
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, create_engine, inspect, select, text
from sqlalchemy.exc import IntegrityError

from clinic_backups.base.clinic_id import clinic_id_of, in_order
from clinic_backups.base.errors import PermanentError
from clinic_backups.catalog import migrate
from clinic_backups.catalog.clinic_id_text import in_sql_order
from clinic_backups.catalog.tables import SCHEMA, backup, clinic, comparison, metadata, notification, restore
from tests.postgres_fixtures import DemoDatabase

BEFORE_RESTORES = {"success", "weekly", "failure", "recovery", "digest", "alarm"}
KINDS = BEFORE_RESTORES | {"restore", "restore_report", "loss", "approval", "answer"}


@pytest.fixture
def catalog(new_database: DemoDatabase) -> Any:
    engine = create_engine(new_database.catalog_uri.replace("postgresql://", "postgresql+psycopg2://"))
    with engine.begin() as connection:
        yield connection
    engine.dispose()


def test_migrations_make_the_tables_that_the_code_names(catalog: Connection) -> None:
    with pytest.raises(PermanentError, match="version none"):
        migrate.require_newest(catalog)
    assert migrate.upgrade(catalog) == migrate.upgrade(catalog) == migrate.newest()
    assert migrate.newest() == ScriptDirectory.from_config(migrate._config()).get_current_head()
    assert migrate.current(catalog) == migrate.newest()
    migrate.require_newest(catalog)
    for table in metadata.sorted_tables:
        found = {column["name"]: column for column in inspect(catalog).get_columns(table.name, SCHEMA)}
        nullable = {name: column["nullable"] for name, column in found.items()}
        assert nullable == {column.name: bool(column.nullable) for column in table.columns}, table.name
        kinds = {name: column["type"]._type_affinity for name, column in found.items()}
        assert kinds == {column.name: column.type._type_affinity for column in table.columns}, table.name


def test_the_view_respaldo_speaks_the_applications_words(catalog: Connection) -> None:
    migrate.upgrade(catalog)
    catalog.execute(
        text("""INSERT INTO clinic_backups.backup (backup_id, clinic_id, clinic_name, kind, trigger, state, started_at,
            finished_at, expires_at, archive_key, size_bytes, sha256, md5, rows) VALUES ('7-x', 7, 'Clínica', 'full',
            'scheduled', 'completed', '2026-11-24T06:00Z', '2026-11-24T06:00:02.5Z', '2026-12-24Z', 'backups/7/a.age',
            10, 'ab', 'cd', '{"public.b": 2, "public.a": 3}')""")
    )
    row = dict(catalog.execute(text("SELECT * FROM clinic_backups.respaldo")).mappings().one())
    assert (row["clinica_id"], row["tipo"], row["estado"]) == (7, "completo", "completado")
    assert (row["nombre_archivo"], row["ruta_nube"]) == ("a.age", "backups/7/a.age")
    assert (row["tablas_respaldadas"], row["registros_totales"]) == (["public.a", "public.b"], 5)
    assert (row["tiempo_ejecucion"], row["hash_md5"], row["creado_por_id"]) == (timedelta(seconds=2.5), "cd", None)


def test_migrations_can_be_taken_back(catalog: Connection) -> None:
    migrate.upgrade(catalog)
    command.downgrade(migrate._config(catalog), "base")
    assert not inspect(catalog).has_table("backup", schema=SCHEMA)
    assert not inspect(catalog).has_table("restore", schema=SCHEMA)


def test_safety_backups_are_known_of_old_records_too(catalog: Connection) -> None:
    migrate.upgrade(catalog)
    command.downgrade(migrate._config(catalog), "0009")
    backup = """INSERT INTO clinic_backups.backup (backup_id, clinic_id, clinic_name, kind, trigger, state, started_at,
        archive_key, notes) VALUES (:id, 7, 'Clínica', 'full', 'manual', 'running', now(), :id, :notes)"""
    notes = {
        "7-1": "",
        "7-2": "before the restore of 7-1",
        "7-3": "said otherwise",
        "7-4": "before the restore of 7-1, twice",
    }
    for backup_id, said in notes.items():
        catalog.execute(text(backup), {"id": backup_id, "notes": said})
    catalog.execute(
        text("""INSERT INTO clinic_backups.restore (restore_id, clinic_id, clinic_name, backup_id, mode, state, plan,
            plan_digest, started_at, safety_backup_id) VALUES ('r', 7, 'Clínica', '7-1', 'exact', 'running', '{}', 'd',
            now(), '7-3')""")
    )
    migrate.upgrade(catalog)
    found = dict(catalog.execute(text("SELECT backup_id, safety_of FROM clinic_backups.backup")).tuples().all())
    assert found == {"7-1": None, "7-2": "7-1", "7-3": "7-1", "7-4": None}


def tell(catalog: Connection, *kinds: str) -> None:
    for kind in kinds:
        values = {"key": kind, "kind": kind, "facts": "{}"}
        statement = (
            "INSERT INTO clinic_backups.notification (key, kind, facts, created_at) VALUES (:key, :kind, :facts, now())"
        )
        catalog.execute(text(statement), values)


def test_before_restores_were_recorded_nothing_was_told_of_them(catalog: Connection) -> None:
    migrate.upgrade(catalog)
    tell(catalog, *KINDS)
    command.downgrade(migrate._config(catalog), "0002")
    left = set(catalog.execute(text("SELECT kind FROM clinic_backups.notification")).scalars())
    assert left == BEFORE_RESTORES
    with pytest.raises(IntegrityError, match="notification_kind_check"), catalog.begin_nested():
        tell(catalog, "restore")
    migrate.upgrade(catalog)
    tell(catalog, "restore", "restore_report")


def test_a_new_kind_of_mail_needs_no_migration_and_is_a_plain_word(catalog: Connection) -> None:
    migrate.upgrade(catalog)
    tell(catalog, "gossip", "restore")
    for path in ("../es/success", "_backup", "", "Success", "a\n"):
        with pytest.raises(IntegrityError, match="notification_kind_check"), catalog.begin_nested():
            tell(catalog, path)
    command.downgrade(migrate._config(catalog), "0027")
    assert catalog.execute(text("SELECT kind FROM clinic_backups.notification")).scalars().all() == ["restore"]
    with pytest.raises(IntegrityError, match="notification_kind_check"), catalog.begin_nested():
        tell(catalog, "gossip")


def test_notices_of_before_are_as_urgent_as_they_were(catalog: Connection) -> None:
    migrate.upgrade(catalog)
    command.downgrade(migrate._config(catalog), "0027")
    tell(catalog, *KINDS)
    migrate.upgrade(catalog)
    rows = catalog.execute(notification.select()).all()
    assert {row.kind for row in rows if row.urgent} == {"failure", "alarm", "loss", "restore_report", "approval"}
    assert {row.kind for row in rows if row.to_approvers} == {"approval"}


@pytest.mark.parametrize(
    "changes",
    [
        {"state": "completed"},
        {"finished_at": "2026-11-24T07:00Z"},
        {"state": "planned"},
        {"mode": "some"},
        {"transaction_id": "7"},
    ],
)
def test_a_restore_that_cannot_be_is_not_recorded(catalog: Connection, changes: dict[str, str]) -> None:
    migrate.upgrade(catalog)
    good = {
        "restore_id": "r-7-x", "clinic_id": 7, "clinic_name": "Clínica", "backup_id": "7-gone", "mode": "exact",
        "state": "running", "plan": {}, "plan_digest": "ab", "started_at": "2026-11-24T06:00Z",
    }  # fmt: skip
    with pytest.raises(IntegrityError, match=r"restore_.*check"), catalog.begin_nested():
        catalog.execute(restore.insert().values(good | changes))
    catalog.execute(restore.insert().values(good))


def test_replicas_that_were_called_copies_are_kept_with_their_rows_and_rights(catalog: Connection) -> None:
    migrate.upgrade(catalog)
    command.downgrade(migrate._config(catalog), "0023")
    catalog.execute(
        text("""INSERT INTO clinic_backups.backup (backup_id, clinic_id, clinic_name, kind, trigger, state, started_at,
            archive_key) VALUES ('7-1', 7, 'Clínica', 'full', 'manual', 'running', now(), '7-1')""")
    )
    catalog.execute(
        text("""INSERT INTO clinic_backups.backup_copy (backup_id, store_url, state, stored_at, etag)
            VALUES ('7-1', 's3://a', 'present', '2026-11-24Z', 'e'), ('7-1', 's3://b', 'lost', '2026-11-25Z', NULL)""")
    )
    stores = {"copies": [{"store_url": "s3://b", "missing": 1}], "total": 1}
    values = {"key": "digest", "kind": "digest", "facts": stores, "created_at": text("now()")}
    catalog.execute(notification.insert().values(values))
    catalog.exec_driver_sql("GRANT SELECT ON clinic_backups.backup_copy TO PUBLIC")
    asked = "SELECT backup_id, store_url, state, stored_at::date::text, etag FROM clinic_backups.{} ORDER BY store_url"
    before = catalog.exec_driver_sql(asked.format("backup_copy")).all()
    migrate.upgrade(catalog)
    assert catalog.exec_driver_sql(asked.format("backup_replica")).all() == before
    assert len(before) == 2
    may = "SELECT has_table_privilege('public', 'clinic_backups.backup_replica', 'SELECT')"
    assert catalog.execute(text(may)).scalar()
    named = """SELECT c.relname FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = relnamespace
                WHERE nspname = 'clinic_backups' UNION ALL SELECT conname FROM pg_constraint"""
    assert not [name for (name,) in catalog.execute(text(named)) if "copy" in name]
    (facts,) = catalog.execute(select(notification.c.facts)).scalars()
    assert facts == {"replicas": stores["copies"], "total": 1}
    command.downgrade(migrate._config(catalog), "0023")
    assert catalog.exec_driver_sql(asked.format("backup_copy")).all() == before
    assert catalog.execute(select(notification.c.facts)).scalars().one() == stores


def test_triggers_look_names_up_in_pg_catalog_whoever_fires_them(catalog: Connection) -> None:
    migrate.upgrade(catalog)
    asked = text("""SELECT proname FROM pg_proc JOIN pg_namespace AS n ON n.oid = pronamespace
        WHERE nspname = 'clinic_backups' AND prorettype = 'trigger'::regtype
          AND NOT coalesce('search_path=pg_catalog, pg_temp' = ANY (proconfig), false)""")
    assert catalog.execute(asked).all() == []


BACKUP = """INSERT INTO clinic_backups.backup (backup_id, clinic_id, clinic_name, kind, trigger, state, started_at,
    archive_key, finished_at, error)
    VALUES (:id || '-x', :id, 'x', 'full', 'scheduled', 'failed', now(), 'a', now(), 'e')"""
IDS = ("-5", "0", "7", "10", "9223372036854775807", "007", "9223372036854775808", "Z", "a", "Ñ", "漢")
"""In their order: numbers by value, then texts."""


def test_ids_become_texts_and_the_view_keeps_its_numbers_and_rights(catalog: Connection) -> None:
    migrate.upgrade(catalog)
    command.downgrade(migrate._config(catalog), "0029")
    catalog.execute(text("GRANT SELECT (id, clinica_id) ON clinic_backups.respaldo TO PUBLIC"))
    for number in (9, 10):
        catalog.execute(text(BACKUP), {"id": number})
    catalog.execute(text("INSERT INTO clinic_backups.comparison VALUES ('r', now(), 'd', 'd', 'f', '{t}', '{9,10}')"))
    migrate.upgrade(catalog)
    assert catalog.execute(select(backup.c.clinic_id).order_by(backup.c.clinic_id)).scalars().all() == [10, 9]
    assert catalog.execute(select(comparison.c.clinics)).scalars().all() == [[9, 10]]
    rows = catalog.execute(text("SELECT clinica_id, clinica_clave FROM clinic_backups.respaldo ORDER BY 1")).all()
    assert [tuple(row) for row in rows] == [(9, "9"), (10, "10")]
    granted = (
        "SELECT attacl::text FROM pg_attribute WHERE attrelid = 'clinic_backups.respaldo'::regclass AND attnum = 2"
    )
    assert "=r/" in catalog.execute(text(granted)).scalar_one()
    assert catalog.execute(text("DELETE FROM clinic_backups.respaldo")).rowcount == 0
    assert catalog.execute(text("SELECT sum(n) FROM clinic_backups.backup_count WHERE clinic_id = '9'")).scalar() == 1
    catalog.execute(text("UPDATE clinic_backups.backup SET clinic_id = '11' WHERE clinic_id = '9'"))
    assert catalog.execute(text("SELECT sum(n) FROM clinic_backups.backup_count WHERE clinic_id = '9'")).scalar() == 0


def test_version_0029_is_not_gone_back_to_with_ids_that_are_texts(catalog: Connection) -> None:
    migrate.upgrade(catalog)
    catalog.execute(text(BACKUP), {"id": "a-text"})
    row = catalog.execute(text("SELECT clinica_id, clinica_clave FROM clinic_backups.respaldo")).one()
    assert tuple(row) == (None, "a-text")
    with pytest.raises(PermanentError, match="whose id is not a number"), catalog.begin_nested():
        command.downgrade(migrate._config(catalog), "0029")
    assert migrate.upgrade(catalog) == migrate.newest()


def test_the_catalog_orders_ids_as_the_code_does(catalog: Connection) -> None:
    migrate.upgrade(catalog)
    for id_ in IDS:
        catalog.execute(clinic.insert().values(clinic_id=clinic_id_of(id_), name="x", language="es", active=True))
    found = list(
        catalog.execute(select(clinic.c.clinic_id).order_by(text(in_sql_order("clinic_backups.clinic")))).scalars()
    )
    assert list(map(str, found)) == list(IDS) and found == in_order(found)
    backwards = text(in_sql_order("clinic_backups.clinic", descending=True))
    assert list(catalog.execute(select(clinic.c.clinic_id).order_by(backwards)).scalars()) == found[::-1]
