"""Settings of a server or role that matter are overridden or reported."""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pytest
from pydantic import ValidationError

from clinic_backups.backup.server_checks import check_encoding, check_locks
from clinic_backups.base import connections
from clinic_backups.base.findings import Report
from clinic_backups.catalog.board import ClinicMetrics
from clinic_backups.catalog.locks import lock_clinic
from clinic_backups.tenant.pg_catalog import catalog_query
from clinic_backups.tenant.session_settings import SESSION
from clinic_backups.tenant.tenant_db import Snapshot
from clinic_backups.web.metrics import exposition
from clinic_backups.web.schemas import NuevoRespaldo
from include.demo import database as demo
from tests.postgres_fixtures import DemoDatabase
from tests.shapes import shaped

ODD = {
    "datestyle": "SQL, DMY", "intervalstyle": "iso_8601", "timezone": "Asia/Tokyo", "extra_float_digits": "-15",
    "bytea_output": "escape", "xmloption": "document", "row_security": "on", "search_path": "nowhere",
    "statement_timeout": "200", "lock_timeout": "1", "idle_in_transaction_session_timeout": "50",
    "default_transaction_isolation": "serializable", "default_transaction_read_only": "on",
    "default_transaction_deferrable": "on", "standard_conforming_strings": "off", "array_nulls": "off",
    "transform_null_equals": "on", "gin_fuzzy_search_limit": "1", "exit_on_error": "on", "client_encoding": "LATIN1",
    "quote_all_identifiers": "on", "escape_string_warning": "off", "xmlbinary": "hex", "transaction_timeout": "200",
}  # fmt: skip
DDL = """
    CREATE TABLE s.t (id int PRIMARY KEY, clinic_id int REFERENCES s.clinic, at timestamptz, day date, i interval,
                      f float8, b bytea, x xml, a text[], n text, m money);
    INSERT INTO s.t VALUES (1, 1, '2026-01-02 03:04:05.678+00', '2026-02-03', '1 year 2 days 03:04', 0.1::float8 + 0.2,
                            '\\x00ff', '<a/>', ARRAY['NULL', NULL, 'ñ'], E'a\\b''c', 1234.5),
                           (2, 1, NULL, NULL, NULL, 'NaN', NULL, 'x<a/>', '{}', 'NULL', NULL);
"""


def test_a_roles_settings_change_neither_a_backup_nor_a_restore(demo_database: DemoDatabase, tmp_path: Path) -> None:
    rig = shaped(demo_database, tmp_path, DDL, {"t": "clinic_id = {{ clinic_id }}"})
    before = rig.everything()
    plain = rig.run(1)
    roles = (rig.database.roles.reader, rig.database.roles.restorer)
    with closing(rig.database.connect()) as db, db, db.cursor() as cursor:
        for role in roles:
            for name, value in ODD.items():
                if name != "transaction_timeout" or db.server_version >= 170000:
                    cursor.execute(f"ALTER ROLE {role} IN DATABASE {rig.database.name} SET {name} = %s", (value,))
    record = rig.run(1)
    assert rig.open(record).tables == rig.open(plain).tables
    rig.execute("UPDATE s.t SET a = NULL, n = NULL, b = NULL, i = NULL, at = now(), f = 1, x = NULL", "DELETE FROM s.t"
                " WHERE id = 2")  # fmt: skip
    rig.bring_back(record)
    assert rig.everything() == before


def test_every_setting_that_a_dump_pins_is_pinned() -> None:
    assert ODD.keys() - SESSION.keys() <= {
        "statement_timeout", "lock_timeout", "client_encoding", "escape_string_warning",
        "default_transaction_isolation", "default_transaction_read_only", "default_transaction_deferrable",
    }  # fmt: skip


def test_a_clinics_lock_outlives_the_timeouts_of_the_catalogs_role(demo_database: DemoDatabase) -> None:
    role = demo_database.roles.catalog
    with closing(demo_database.connect()) as db, db, db.cursor() as cursor:
        for name in ("idle_in_transaction_session_timeout", "transaction_timeout")[: 1 + (db.server_version >= 170000)]:
            cursor.execute(f"ALTER ROLE {role} IN DATABASE {demo_database.name} SET {name} = '500ms'")
    connection = connections.parse("backup_catalog", demo_database.catalog_uri)
    with lock_clinic(connection, 1, "clinic") as lock, closing(demo_database.connect()) as db, db.cursor() as cursor:
        cursor.execute("SELECT pg_sleep(1)")
        lock.require()


@pytest.mark.parametrize(("share", "level"), [(0.01, None), (0.3, "warning"), (1.1, "error")])
def test_locks_are_counted_against_the_servers_room(
    demo_database: DemoDatabase, tmp_path: Path, share: float, level: str | None
) -> None:
    ddl = "CREATE TABLE s.t (id int PRIMARY KEY, clinic_id int REFERENCES s.clinic) PARTITION BY LIST (id)"
    rig = shaped(demo_database, tmp_path, ddl, {"t": "clinic_id = {{ clinic_id }}"})
    values = {"names": ["s.t"]}
    with Snapshot(rig.clinic_db) as snapshot:
        ((needed, room),) = snapshot.rows(catalog_query("lock_room"), values, "counting")
    assert needed == 2
    rig.execute("CREATE TABLE s.t_1 PARTITION OF s.t DEFAULT; CREATE INDEX ON s.t (clinic_id)")
    with Snapshot(rig.clinic_db) as snapshot:
        assert snapshot.rows(catalog_query("lock_room"), values, "counting") == [(6, room)]
    report = Report()
    check_locks(Counted(int(room * share), room), ["s.t"], report)  # type: ignore[arg-type]
    assert [finding.level for finding in report.findings] == ([level] if level else [])


@dataclass
class Counted:
    """A server with so many tables: making them takes longer than a test may."""

    needed: int
    room: int

    def rows(self, *_: object) -> list[tuple[int, int]]:
        return [(self.needed, self.room)]


def test_a_database_without_an_encoding_is_named(demo_database: DemoDatabase) -> None:
    server, name = demo_database.postgres, "ascii_only"
    with closing(server.connect()) as db, db.cursor() as cursor:
        db.autocommit = True
        how = "ENCODING 'SQL_ASCII' LC_COLLATE 'C' LC_CTYPE 'C' LOCALE_PROVIDER libc TEMPLATE template0"
        cursor.execute(f"CREATE DATABASE {name} {how}")
    try:
        for database, count in ((name, 1), (demo_database.name, 0)):
            report = Report()
            with Snapshot(connections.parse("clinic_db", server.uri(database))) as snapshot:
                check_encoding(snapshot, report)
            assert len(report.findings) == count
    finally:
        demo.drop(server, name)


@pytest.mark.parametrize("value", [True, False, 1.0, 1.5, -1, 2**63, [1], {"id": 1}])
def test_what_is_no_whole_number_is_no_clinic(value: object) -> None:
    with pytest.raises(ValidationError):
        NuevoRespaldo(clinica=value)  # type: ignore[arg-type]
    assert NuevoRespaldo(clinica=7).clinica == 7


def test_a_clinics_name_cannot_turn_the_text_of_the_metrics() -> None:
    name = "Uno\u202eodasiver\u2066 \x1b[31m\nDos\u2028Tres\u200f"
    clinic = ClinicMetrics(1, name, datetime(2026, 1, 1, tzinfo=UTC), 1.0, 1, 1, 1, 0, None)
    text = exposition([clinic], datetime(2026, 1, 2, tzinfo=UTC)).decode()
    assert all(line.isprintable() for line in text.split("\n"))
    assert "Unoodasiver" in text
