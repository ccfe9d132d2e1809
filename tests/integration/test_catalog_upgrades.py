"""A catalog of each version, with rows in all its tables, is upgraded: no row is lost, and all can be read."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from datetime import UTC, datetime

import pytest
from alembic import command
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, create_engine, inspect, text

from clinic_backups.base import connections
from clinic_backups.catalog import migrate
from clinic_backups.catalog.board import Board
from clinic_backups.catalog.proofs import Proofs
from clinic_backups.catalog.records import Catalog
from clinic_backups.catalog.restores import Restores
from clinic_backups.catalog.tables import SCHEMA, metadata
from tests.postgres_fixtures import DemoDatabase

VERSIONS = [script.revision for script in ScriptDirectory.from_config(migrate._config()).walk_revisions()][::-1]
AT = "'2026-11-24 06:00Z'"
SOMETHING = {
    "clinic_id": "'{n}'", "clinic_name": "'Clínica {n}'", "requested_by": "'ana'", "reason": "'a letter'",
    "started_at": AT, "finished_at": AT, "stored_at": AT, "created_at": AT, "at": AT, "requested_at": AT,
    "data_time": AT, "made_at": AT, "recorded_at": AT, "planned_at": AT, "compared_at": AT, "begun_at": AT,
}  # fmt: skip
"""What a column with that name gets, as SQL; ``{n}`` is the version's number."""
BACKUP = {
    "kind": "'full'", "trigger": "'scheduled'", "archive_key": "'backups/{n}/a.age'", "run_id": "'r{n}'",
    "notes": "'líneas'",
    "rows": """'{{"public.a": 3, "public.b": 2}}'""", "recipients": """'["age1x"]'""", "raw_bytes": "5",
}  # fmt: skip
DONE = {
    "backup_id": "'{n}-done'", "state": "'completed'", "size_bytes": "10", "sha256": "'ab'", "md5": "'cd'",
    "fingerprint": "'ef'", "expires_at": "'2026-12-24Z'",
}  # fmt: skip
ROWS: list[tuple[str, Mapping[str, str]]] = [
    ("clinic", {"name": "'Clínica {n}'", "language": "'es'", "active": "true"}),
    ("backup", BACKUP | DONE),
    ("backup", BACKUP | {"backup_id": "'{n}-failed'", "state": "'failed'", "error": "'No.'", "hint": "'Again.'"}),
    ("backup", BACKUP | {"backup_id": "'{n}-running'", "state": "'running'", "finished_at": "NULL"}),
    ("backup_blocks", {"backup_id": "'{n}-done'", "part": "0", "digests": r"'\x00'"}),
    ("backup_copy", {"backup_id": "'{n}-done'", "store_url": "'s3://a'"}),
    ("backup_replica", {"backup_id": "'{n}-done'", "store_url": "'s3://a'"}),
    ("store", {"store_url": "'s3://{n}'", "failed_at": AT, "error": "'No.'"}),
    ("store_identity", {
        "store_url": "'s3://{n}'", "store_id": "'00000000-0000-0000-0000-{n:012}'", "recorded_by": "'ana'",
    }),
    ("notification", {"key": "'backup:{n}'", "kind": "'failure'", "backup_id": "'{n}-failed'", "facts": "'{{}}'"}),
    ("delivery", {
        "notification_id": "(SELECT max(id) FROM clinic_backups.notification)", "address": "'a@b.example'",
        "name": "'Ana'",
        "message_id": "'<{n}>'", "next_attempt_at": AT,
    }),
    ("restore", {
        "restore_id": "'r-{n}'", "backup_id": "'{n}-done'", "mode": "'exact'", "state": "'completed'",
        "plan_digest": "'ab'",
        "plan": """'{{"tables": [], "writes": 0, "snapshot_at": "2026-11-24T06:00:00Z"}}'""",
        "transaction_id": "'7'", "committing_at": AT,
    }),
    ("approval", {
        "backup_id": "'{n}-done'", "plan_digest": "'ab'", "target": "'db'", "request": "'{{}}'", "plan": "'{{}}'",
        "page": "'x'",
        "waits_until": AT, "reason": "NULL",
    }),
    ("audit", {"actor": "'ana'", "role": "'superadmin'", "action": "'hold'"}),
    ("erasure", {}),
    ("comparison", {
        "run_id": "'r{n}'", "database": "'d'", "definitions": "'d'", "folder": "'f'", "tables": "'{{t}}'",
        "clinics": "'{{{n}}}'",
    }),
    ("proof", {
        "backup_id": "'{n}-done'", "outcome": "'proven'", "seconds": "1.5", "place": "'drill'", "certificate": "'{{}}'",
    }),
    ("forgotten", {
        "table_name": "'public.a'", "key_hashes": r"ARRAY['\x00'::bytea]", "forgotten_by": "'ana'",
        "reason_class": "'person'",
        "key_id": "(SELECT key_id FROM clinic_backups.forgotten_key)",
    }),
    ("export", {"backup_id": "'{n}-done'", "format": "'csv'", "protection": "'password'"}),
]  # fmt: skip


def fill(db: Connection, version: str) -> Counter[str]:
    """Rows in all tables of that version; returns how many each one got."""
    looked, made = inspect(db), Counter[str]()
    tables = set(looked.get_table_names(SCHEMA))
    for table, values in ROWS:
        if table not in tables:
            continue
        there = {column["name"] for column in looked.get_columns(table, SCHEMA) if "computed" not in column}
        row = {name: value for name, value in (SOMETHING | dict(values)).items() if name in there}
        written = [value.format(n=int(version)) for value in row.values()]
        db.exec_driver_sql(f"INSERT INTO {SCHEMA}.{table} ({', '.join(row)}) VALUES ({', '.join(written)})")
        made[table] += 1
    return made


def test_rows_of_every_version_survive_every_later_migration(new_database: DemoDatabase) -> None:
    engine = create_engine(new_database.catalog_uri.replace("postgresql://", "postgresql+psycopg2://"))
    made, first = Counter[str](), dict[str, str]()
    try:
        with engine.begin() as db:
            for version in VERSIONS:
                command.upgrade(migrate._config(db), version)
                new = fill(db, version)
                made += new
                for table in new:
                    first.setdefault(table, version)
        with engine.begin() as db:
            migrate.require_newest(db)
            made["backup_replica"] += made.pop("backup_copy")
            for table, rows in made.items():
                assert db.execute(text(f"SELECT count(*) FROM {SCHEMA}.{table}")).scalar() == rows, table
            view = db.execute(
                text(f"SELECT estado, registros_totales FROM {SCHEMA}.respaldo WHERE clinica_id = 1")
            ).all()
            assert Counter(map(tuple, view)) == {("completado", 5): 1, ("fallido", 5): 1, ("en_proceso", 5): 1}
        left = {table.name for table in metadata.sorted_tables} - set(first)
        assert left == {
            "backup_count", "replica_count", "backup_progress",  # counted by triggers, and of a moment
            "forgotten_key", "forgotten_sealed",  # written by the migration, and from stores
        }  # fmt: skip
    finally:
        engine.dispose()
    read(Catalog(connections.parse("backup_catalog", new_database.catalog_uri)), first)


def read(catalog: Catalog, first: Mapping[str, str]) -> None:
    """All of it, as the package does."""
    numbers = [int(version) for version in VERSIONS]
    records = {record.backup_id: record for record in catalog.find()}
    assert len(records) == 3 * len(numbers)
    for number in numbers:
        done, failed = records[f"{number}-done"], records[f"{number}-failed"]
        assert (done.clinic_id, done.rows_total, done.notes, done.recipients) == (number, 5, "líneas", ("age1x",))
        assert (done.is_trusted, done.size_bytes, failed.error, failed.hint) == (True, 10, "No.", "Again.")
        assert records[f"{number}-running"].state == "running"
        since_replicas = number >= int(first["backup_copy"])
        assert done.stores == (("s3://a",) if since_replicas else ())
    restores = {found.restore_id for found in Restores(catalog.database).find()}
    assert restores == {f"r-{number}" for number in numbers if number >= int(first["restore"])}
    now = datetime(2026, 11, 24, 7, tzinfo=UTC)
    board = {each.clinic_id: each for each in Board(catalog.database).metrics(visible=None, now=now)}
    assert set(board) == {number for number in numbers if number >= int(first["clinic"])}
    assert {each.completed_total for each in board.values()} == {1}
    proven = {each.clinic_id for each in Proofs(catalog.database).candidates(now) if each.proven_at}
    assert proven == {number for number in numbers if number >= int(first["proof"])}


@pytest.mark.parametrize("version", [VERSIONS[0], VERSIONS[-2]])
def test_one_step_of_the_command_leads_to_the_newest_version(new_database: DemoDatabase, version: str) -> None:
    engine = create_engine(new_database.catalog_uri.replace("postgresql://", "postgresql+psycopg2://"))
    with engine.begin() as db:
        command.upgrade(migrate._config(db), version)
        fill(db, version)
        assert migrate.upgrade(db) == migrate.newest()
        assert db.execute(text(f"SELECT count(*) FROM {SCHEMA}.backup")).scalar() == 3
    engine.dispose()
