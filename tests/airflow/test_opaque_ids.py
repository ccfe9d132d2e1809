"""The DAGs in a real Airflow, for tenants whose keys are UUIDs and then for tenants whose keys are texts."""

from __future__ import annotations

import shutil

import pytest

from clinic_backups.base.clinic_id import ClinicId, component_of
from tests.airflow.conftest import OPERATOR, Airflow, started
from tests.airflow.test_clinic_restore import answer, wait_for_approval
from tests.airflow.test_mail import to
from tests.integration.test_clinic_ids import KINDS, TABLES, Kind, folder_of, kind_id, schema

RIGHTS = """
    GRANT USAGE ON SCHEMA s TO clinic_backups_reader, clinic_backups_restorer;
    GRANT SELECT ON ALL TABLES IN SCHEMA s TO clinic_backups_reader;
    GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA s TO clinic_backups_restorer;
"""


@pytest.mark.long
def test_the_nights_of_uuids_and_of_texts() -> None:
    with started(lambda sql: folder_of(KINDS["uuid"], sql)) as airflow:
        for kind in (KINDS["uuid"], KINDS["text"]):
            shutil.rmtree(airflow.sql)
            folder_of(kind, airflow.sql)
            airflow.execute("DROP SCHEMA IF EXISTS s CASCADE", *schema(kind), RIGHTS)
            live(airflow, kind)
        a_key_that_cannot_be_an_id(airflow, {kind_id(kind, 0), kind_id(kind, 1)})


def live(airflow: Airflow, kind: Kind) -> None:
    """A night, a backup of one tenant, a restore that a person approves, and retention."""
    ids = {kind_id(kind, 0), kind_id(kind, 1)}
    run_id = airflow.scheduled()
    assert airflow.wait(run_id) == "success", airflow.log(run_id, "summary")
    assert {id_: record.state for id_, record in airflow.records(run_id).items()} == dict.fromkeys(ids, "completed")
    one = kind.ids[0]
    run_id, state = airflow.run({"clinic_id": one.upper() if kind.type == "uuid" else one})
    assert (state, set(airflow.records(run_id))) == ("success", {kind.own})
    before = rows(airflow)
    airflow.execute(f"DELETE FROM s.visit WHERE tenant_id = {kind.sql(0)} AND id > 10")
    damaged = rows(airflow)
    assert damaged != before
    run_id = airflow.start({"clinic_id": one}, "clinic_restore")
    wait_for_approval(airflow, run_id)
    assert rows(airflow) == damaged
    answer(airflow, run_id, "Approve")
    assert airflow.wait(run_id, "clinic_restore") == "success", airflow.log(run_id, "apply", "clinic_restore")
    assert rows(airflow) == before
    run_id, state = airflow.run({"clinic_id": one}, "clinic_backup_retention")
    assert state == "success", airflow.log(run_id, "clean", "clinic_backup_retention")
    assert f"{component_of(kind.own)}-" in airflow.log(run_id, "clean", "clinic_backup_retention")


def a_key_that_cannot_be_an_id(airflow: Airflow, others: set[ClinicId]) -> None:
    airflow.execute("INSERT INTO s.tenant VALUES ('acme ', 'Acme')")
    mails = len(airflow.mails())
    run_id = airflow.scheduled()
    assert airflow.wait(run_id) == "failed"
    assert set(airflow.records(run_id)) == others
    states = airflow.states(run_id)
    assert {task for task, state in states.items() if state != "success"} == {"summary"}
    sentence = "The key 'acme ' of a clinic cannot be an id: it begins or ends with a space."
    assert sentence in airflow.log(run_id, "summary")
    (digest,) = to(airflow.mails()[mails:], OPERATOR)
    assert "1 con error" in str(digest["Subject"]) or "1 failed" in str(digest["Subject"])
    assert sentence in " ".join(digest.get_body(("plain",)).get_content().split())  # type: ignore[union-attr]
    run_id, state = airflow.run({}, "clinic_backup_watch")
    assert state == "failed" and sentence in airflow.log(run_id, "watch", "clinic_backup_watch")


def rows(airflow: Airflow) -> dict[str, list[str]]:
    return {
        name: [row for (row,) in airflow.execute(f"SELECT t::text FROM s.{name} AS t ORDER BY 1")] for name in TABLES
    }
