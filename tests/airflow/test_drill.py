"""The DAG ``clinic_restore_drill`` in Airflow: proven, damaged, and proven again."""

from __future__ import annotations

from contextlib import closing
from typing import Any

from clinic_backups.stores.file import FileStore
from tests.airflow.conftest import OPERATOR, Airflow
from tests.fleet import flip

DAG, CLINIC = "clinic_restore_drill", 2


def test_a_drill_proves_what_it_can_and_names_the_damaged_one(airflow: Airflow) -> None:
    def line() -> dict[str, Any]:
        with closing(airflow.web("admin")) as web:
            found = web.get("/backups/clinics/").raise_for_status().json()["results"]
        return next(each for each in found if each["id"] == CLINIC)

    for conf in ({"shared": True}, {"clinic_id": CLINIC, "kind": "full"}):
        assert airflow.run(conf)[1] == "success"
    run_id, state = airflow.run({"clinic_id": CLINIC}, DAG)
    log = airflow.log(run_id, "drill", DAG)
    assert state == "success", log
    assert "inventario_inventario.precio_unitario" in log  # the sums of amounts
    assert line()["standing"] == "ok"
    assert line()["proven_at"] is not None
    with closing(airflow.web("administrador.2.1")) as web:
        certificate = web.get(f"/backups/ui/clinics/{CLINIC}/certificate")
    assert certificate.status_code == 200
    # Airflow has nothing of a patient.
    ((patient,),) = airflow.execute("SELECT email FROM usuarios_usuario WHERE clinica_id = 2 AND email <> '' LIMIT 1")
    assert patient not in log + airflow.xcoms(run_id, DAG)
    # Both replicas of a new backup are damaged.
    run_id, _ = airflow.run({"clinic_id": CLINIC, "kind": "full"})
    record, before = airflow.records(run_id)[CLINIC], len(airflow.mails())
    for folder in (airflow.stack.layout.store, airflow.further):
        flip(FileStore(folder), record.archive_key)
    run_id, state = airflow.run({"clinic_id": CLINIC}, DAG)
    log = airflow.log(run_id, "drill", DAG)
    assert state == "failed"
    assert record.backup_id in log
    assert (line()["standing"], line()["proven_at"] is not None) == ("unproven", True)
    told = [mail for mail in airflow.mails()[before:] if mail["X-Envelope-To"] == OPERATOR]
    assert any(record.backup_id in mail.get_body(("plain",)).get_content() for mail in told)  # type: ignore[union-attr]
    with closing(airflow.web("admin")) as web:
        board = web.get("/backups/ui/", params={"standing": "unproven"}).text
        page = web.get(f"/backups/ui/clinics/{CLINIC}").text
    assert "Sin probar" in board
    assert "El último simulacro de restauración falló" in page
    # A new full backup is proven, and all is well again.
    assert airflow.run({"clinic_id": CLINIC, "kind": "full"})[1] == "success"
    run_id, state = airflow.run({"clinic_id": CLINIC}, DAG)
    assert state == "success", airflow.log(run_id, "drill", DAG)
    assert line()["standing"] == "ok"
