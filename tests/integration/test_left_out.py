"""Rows that must not come back are left out of what the archives give, without a database."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from clinic_backups.archive.blocks import Block
from clinic_backups.archive.same_blocks import rows_of
from clinic_backups.base.backup_record import BackupRecord
from clinic_backups.base.errors import PermanentError
from clinic_backups.restore.heirs import requests_for
from clinic_backups.restore.leaving_out import reader_of
from clinic_backups.restore.left_out import LeftOut
from clinic_backups.restore.missing_blocks import MissingBlocks
from clinic_backups.stores.file import FileStore
from clinic_backups.tenant.drift import Drift
from tests.integration.test_forget import Forgetting, without
from tests.integration.test_restore import PATIENTS, PAYMENTS, STOCK, VISITS
from tests.integration.test_restore_rows import guardian, payment_of
from tests.postgres_fixtures import DemoDatabase

__all__ = ["guardian"]
Sets = dict[str, Counter[bytes]]


@pytest.fixture
def ward(demo_database: DemoDatabase, tmp_path: Path) -> Forgetting:
    return Forgetting(demo_database, FileStore(tmp_path / "store"))


def sets(tables: dict[str, bytes]) -> Sets:
    return {name: Counter(rows_of(data)) for name, data in tables.items() if data}


def kept(ward: Forgetting, record: BackupRecord) -> tuple[Sets, LeftOut]:
    archives, found = ward.restore().archives, dict[str, bytes]()
    fetched = archives.fetch(ward.source(record))
    contents = fetched.manifest.tables
    tables = {name: content.table for name, content in contents.items()}
    left_out = LeftOut(tables, requests_for(tables, ward.forgotten.of_clinic(1).tables, Drift()))
    left_out.find(reader_of(contents, lambda wanted: archives.read(fetched, wanted)))

    def use(table: str, _: Block, data: bytes, times: int) -> None:
        found[table] = found.get(table, b"") + left_out.kept(table, data, times) * times

    wanted = MissingBlocks.every(contents, use)
    archives.read(fetched, wanted)
    wanted.require_all()
    return sets(found), left_out


def test_a_forgotten_patient_with_all_that_belongs_to_it(ward: Forgetting, guardian: int) -> None:
    record, before = ward.run(1), sets(ward.rows_now(1))
    without(ward, guardian)
    expected = sets(ward.rows_now(1))
    ward.forget(guardian)
    found, left_out = kept(ward, record)
    assert found == expected
    gone = {name: (rows - expected[name]).total() for name, rows in before.items()}
    gone[PATIENTS] = 1
    assert dict(left_out.counts) == {name: count for name, count in gone.items() if count}
    assert dict(left_out.emptied) == {PATIENTS: 3}
    assert left_out.counts[VISITS] > 0 < left_out.counts[PAYMENTS]
    assert STOCK not in left_out.concerned


def test_a_forgotten_payment_alone(ward: Forgetting, guardian: int) -> None:
    record, before = ward.run(1), sets(ward.rows_now(1))
    payment = payment_of(ward, guardian)
    ward.forget(payment, table=PAYMENTS)
    found, left_out = kept(ward, record)
    assert {name: (rows - found[name]).total() for name, rows in before.items() if rows != found[name]} == dict(
        left_out.counts
    )
    assert left_out.counts[PAYMENTS] == 1


def test_without_foreign_keys_names_lead_to_what_belongs_to_it(ward: Forgetting, guardian: int) -> None:
    ward.execute(
        "ALTER TABLE citas_consulta DROP CONSTRAINT citas_consulta_paciente_id_f0baf1d2_fk_usuarios_paciente_id"
    )
    record = ward.run(1)
    ((visits,),) = ward.execute_rows(f"SELECT count(*) FROM citas_consulta WHERE paciente_id = {guardian}")
    ward.forget(guardian)
    assert kept(ward, record)[1].counts[VISITS] == visits > 0


def test_nothing_is_read_twice_without_requests(ward: Forgetting) -> None:
    record = ward.run(1)
    found, left_out = kept(ward, record)
    assert (found, left_out.concerned, dict(left_out.counts)) == (sets(ward.rows_now(1)), frozenset(), {})


def test_a_table_without_a_key(ward: Forgetting) -> None:
    ward.execute("ALTER TABLE inventario_inventario DROP CONSTRAINT inventario_inventario_pkey")
    record = ward.run(1)
    ward.forget(1, table=STOCK)
    with pytest.raises(PermanentError, match="no primary key of it"):
        kept(ward, record)
