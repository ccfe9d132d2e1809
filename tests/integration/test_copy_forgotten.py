"""Rows that must not come back are in no copy, and an approval knows what a copy masks and leaves out."""

from __future__ import annotations

import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from clinic_backups.catalog.approvals import Approval, Approvals, NotApproved
from clinic_backups.restore.copy_runner import CopyRunner
from clinic_backups.restore.copying.into_report import IntoReport
from clinic_backups.restore.into_schema import IntoRestore
from clinic_backups.restore.request import RestoreRequest, parse
from clinic_backups.stores.file import FileStore
from tests.integration.test_forget import Forgetting, without
from tests.integration.test_masks import dump_of
from tests.integration.test_restore import PATIENTS, PAYMENTS, STOCK, VISITS
from tests.integration.test_restore_rows import guardian
from tests.postgres_fixtures import DemoDatabase

__all__ = ["guardian"]


class Copying(Forgetting):
    """As the restoring role, which may make schemas here."""

    def into(self, **options: Any) -> IntoReport:
        restore = self.restore()
        return IntoRestore(restore).run(self.source(options.pop("record")), options.pop("schema", "copia"), **options)

    def rows_in(self, schema: str, report: IntoReport) -> dict[str, Counter[str]]:
        """All rows of the copy, as PostgreSQL writes them."""
        return {
            made.table: Counter(row for (row,) in self.execute_rows(f"SELECT t::text FROM {schema}.{made.name} AS t"))
            for made in report.tables
        }


@pytest.fixture
def ward(demo_database: DemoDatabase, tmp_path: Path) -> Copying:
    made = Copying(demo_database, FileStore(tmp_path / "store"))
    made.execute(f"GRANT CREATE ON DATABASE {demo_database.name} TO {demo_database.roles.restorer}")
    return made


def test_a_forgotten_patient_is_in_no_copy(ward: Copying, guardian: int) -> None:
    ward.execute(f"UPDATE usuarios_paciente SET notas = 'ZQXFORGET' WHERE id = {guardian}")
    record = ward.run(1)
    whole = ward.rows_in("antes", ward.into(record=record, schema="antes"))
    without(ward, guardian)
    ward.forget(guardian)
    report = ward.into(record=record)
    # The oracle: the application deleted the patient, and the clinic is backed up and copied again.
    clean = ward.into(record=ward.run(1), schema="limpia")
    assert ward.rows_in("copia", report) == ward.rows_in("limpia", clean)
    assert "ZQXFORGET" not in dump_of(ward, ward.database.name, "copia")  # type: ignore[arg-type]
    counted = {made.table: made.forgotten for made in report.tables if made.forgotten}
    assert counted[PATIENTS] == 1 and counted[VISITS] > 0 < counted[PAYMENTS] and STOCK not in counted
    now = ward.rows_in("copia", report)
    assert counted == {
        name: rows.total() - now[name].total() for name, rows in whole.items() if rows.total() != now[name].total()
    }
    assert report.forgotten == sum(counted.values()) == report.to_json()["forgotten"]
    assert [note for made in report.tables for note in made.notes if "lacks rows" in note] == []


def test_some_tables_alone_leave_them_out_too(ward: Copying, guardian: int) -> None:
    record = ward.run(1)
    ward.forget(guardian)
    report = ward.into(record=record, tables=(PAYMENTS,))
    (made,) = report.tables
    left = (
        "SELECT count(*) FROM copia.sistema_pagos_pago AS p JOIN sistema_pagos_factura AS f ON f.id = p.factura_id"
        " JOIN citas_consulta AS c ON c.id = f.consulta_id WHERE c.paciente_id = {}"
    )
    assert made.forgotten > 0
    assert ward.execute_rows(left.format(guardian)) == [(0,)]


def test_a_masked_key_does_not_hide_what_must_not_come_back(ward: Copying, guardian: int, tmp_path: Path) -> None:
    record = ward.run(1)
    folder = tmp_path / "sql"
    shutil.copytree(ward.settings.sql_dir, folder)
    (folder / "masks.txt").write_text(f"{PATIENTS}.cedula: hash\n{PATIENTS}.nombres: name\n")
    ward.settings = ward.settings.model_copy(update={"sql_dir": folder})
    ward.forget(guardian)
    report = ward.into(record=record)
    assert {made.table: made.forgotten for made in report.tables}[PATIENTS] == 1
    assert ward.execute_rows(f"SELECT count(*) FROM copia.usuarios_paciente WHERE id = {guardian}") == [(0,)]
    assert ward.execute_rows("SELECT count(*) FROM copia.usuarios_paciente AS c JOIN public.usuarios_paciente AS o"
                             " USING (id, cedula)") == [(0,)]  # fmt: skip


def test_a_column_that_the_database_shows_to_be_a_link(ward: Copying, guardian: int) -> None:
    """Neither the manifest nor the name alone shows it: two tables are called so, and one of them is no clinic's."""
    ward.execute(
        "ALTER TABLE citas_consulta DROP CONSTRAINT citas_consulta_paciente_id_f0baf1d2_fk_usuarios_paciente_id"
    )
    record = ward.run(1)
    ward.forget(guardian)
    report = ward.into(record=record)
    assert {made.table: made.forgotten for made in report.tables}[VISITS] > 0


def test_requests_under_both_names_of_a_renamed_table(ward: Copying, guardian: int, tmp_path: Path) -> None:
    record = ward.run(1)
    ((other,),) = ward.execute_rows(f"SELECT min(id) FROM usuarios_paciente WHERE clinica_id = 1 AND id <> {guardian}")
    ward.forget(guardian)
    ward.forget(other, table="public.pacientes")
    folder = tmp_path / "sql"
    shutil.copytree(ward.settings.sql_dir, folder)
    (folder / "drift.txt").write_text(f"{PATIENTS} -> public.pacientes\n")
    ward.settings = ward.settings.model_copy(update={"sql_dir": folder})
    report = ward.into(record=record)
    assert {made.table: made.forgotten for made in report.tables}[PATIENTS] == 2
    left = f"SELECT count(*) FROM copia.usuarios_paciente WHERE id IN ({guardian}, {other})"
    assert ward.execute_rows(left) == [(0,)]


def test_an_approval_is_for_what_is_masked_and_left_out(ward: Copying, guardian: int, tmp_path: Path) -> None:
    record = ward.run(1)
    folder = tmp_path / "sql"
    shutil.copytree(ward.settings.sql_dir, folder)
    ward.settings = ward.settings.model_copy(update={"sql_dir": folder})
    approvals = Approvals(ward.catalog.database, 24, ())

    def runner() -> CopyRunner:
        return CopyRunner(copier=IntoRestore(ward.restore()), catalog=ward.catalog, approvals=approvals)

    def approved(schema: str, said: str, masked: bool | None = None) -> Approval:
        request = RestoreRequest(clinic_id=1, into_schema=schema, run_id=f"manual__{schema}", masked=masked)
        proposed = runner().propose(request)
        assert said in proposed.page.replace("\\", "")
        return approvals.answer(proposed.id, "approved", by="jefa", how="ui")

    plain = approved("copia_1", "Nothing is masked: include/sql/masks.txt has no lines.")
    (folder / "masks.txt").write_text(f"{PATIENTS}.nombres: name\n")
    with pytest.raises(NotApproved, match="masks, or which rows must not come back, have changed"):
        runner().apply(plain)
    masked = approved("copia_2", "Masked as include/sql/masks.txt says. It names 1 column.")
    ward.forget(guardian)
    with pytest.raises(NotApproved, match="have changed since"):
        runner().apply(masked)
    clear = approved("copia_3", "Nothing is masked, although include/sql/masks.txt has lines", masked=False)
    made = runner().apply(clear)
    assert (made.masked, made.forgotten > 0) == (False, True)
    again = runner().apply(approved("copia_4", "Rows of this clinic must not come back."))
    assert (again.masked, again.backup_id) == (True, record.backup_id)


def test_the_conf(ward: Copying) -> None:
    def read(**conf: Any) -> RestoreRequest:
        return parse({"clinic_id": 1} | conf, every=[], requested_by="", run_id=None, zone=ward.settings.zone)[0]

    into = {"mode": "into", "schema": "a"}
    assert [read(**into, **more).masked for more in ({}, {"masked": None}, {"masked": True}, {"masked": False})] == [
        None, None, True, False,
    ]  # fmt: skip
    request = read(**into, masked=False)
    assert RestoreRequest.from_json(request.to_json()) == request
    for wrong in ({"masked": True}, into | {"masked": "perhaps"}):
        with pytest.raises(Exception, match="masked"):
            read(**wrong)
