"""The DAG ``clinic_restore`` in a real Airflow: planned, approved or not, applied, undone."""

from __future__ import annotations

import time
from urllib.parse import quote

from clinic_backups.catalog.restores import Restores
from tests.airflow.conftest import OPERATOR, Airflow
from tests.airflow.test_mail import to

DAG = "clinic_restore"
STOCK = "public.inventario_inventario"
CHANGE = f"UPDATE {STOCK} SET cantidad = cantidad + 1000 WHERE clinica_id = 5"


def state_of(airflow: Airflow) -> object:
    return airflow.execute(f"SELECT clinica_id, sum(cantidad), count(*) FROM {STOCK} GROUP BY 1 ORDER BY 1")


def wait_for_approval(airflow: Airflow, run_id: str, rest_seconds: float = 5) -> None:
    deadline = time.monotonic() + 60
    while airflow.states(run_id, DAG)["approve"] != "awaiting_input":
        assert time.monotonic() < deadline, airflow.states(run_id, DAG)
        time.sleep(0.3)
    # As a person would: an answer within a second meets Airflow's scheduler before it has taken note that the task
    # waits, and it takes the resumed task for a lost one.
    time.sleep(rest_seconds)


def answer(airflow: Airflow, run_id: str, option: str, **given: str) -> None:
    path = f"/dags/{DAG}/dagRuns/{run_id.replace('+', '%2B').replace(':', '%3A')}/taskInstances/approve/-1/hitlDetails"
    airflow.api._call("PATCH", path, json={"chosen_options": [option], "params_input": given})


def test_one_click_restores_a_clinic_and_another_one_undoes_it(airflow: Airflow) -> None:
    airflow.run({"clinic_id": 5})
    good = state_of(airflow)
    airflow.execute(CHANGE)
    damaged = state_of(airflow)
    before = len(airflow.mails())
    run_id = airflow.start({"clinic_id": 5}, DAG)
    wait_for_approval(airflow, run_id)
    assert state_of(airflow) == damaged
    details = airflow.api._call("GET", f"/dags/{DAG}/dagRuns/~/hitlDetails")["hitl_details"]
    body = next(detail["body"] for detail in details if detail["task_instance"]["dag_run_id"] == run_id)
    assert f"| `{STOCK}` | 0 |" in body
    assert "cantidad" in body
    answer(airflow, run_id, "Approve")
    assert airflow.wait(run_id, DAG) == "success", (
        airflow.states(run_id, DAG),
        airflow.log(run_id, "apply", DAG),
    )
    assert state_of(airflow) == good
    (record,) = Restores(airflow.catalog.database).find(run_id=run_id)
    assert (record.state, record.approved_by, record.requested_by) == ("completed", "admin", "admin")
    assert record.safety_backup_id is not None
    mails = airflow.mails()[before:]
    assert [str(mail["Subject"])[:1] for mail in to(mails, "administrador1@clinica5.example.com")] == ["✅"]
    # The plan that waits, the answer, the outcome.
    assert [str(mail["Subject"])[:1] for mail in to(mails, OPERATOR)] == ["✋", "✅", "✅"]
    # Undone by the safety backup, without asking.
    run_id, state = airflow.run({"clinic_id": 5, "backup_id": record.safety_backup_id, "approve": True}, DAG)
    assert state == "success"
    assert state_of(airflow) == damaged
    airflow.execute(CHANGE.replace("+ 1000", "- 1000"))
    assert state_of(airflow) == good


def path_of(run_id: str) -> str:
    return f"/dags/{DAG}/dagRuns/{quote(run_id, safe='')}"


def clear(airflow: Airflow, run_id: str, *tasks: str) -> str:
    """Clear these tasks as the web UI does; returns how the run ends."""
    body = {"dry_run": False, "dag_run_id": run_id, "task_ids": tasks, "only_failed": False, "reset_dag_runs": True}
    airflow.api._call("POST", f"/dags/{DAG}/clearTaskInstances", json=body)
    return airflow.wait(run_id, DAG)


def mark_approved(airflow: Airflow, run_id: str) -> None:
    """Mark the task `approve` as success, and say in its XCom that the administrator has approved."""
    approve = f"{path_of(run_id)}/taskInstances/approve"
    airflow.api._call("PATCH", approve, json={"new_state": "success"})
    airflow.api._call("POST", f"{approve}/xcomEntries", json={"key": "return_value", "value": {"approved_by": "admin"}})


def test_no_task_that_is_cleared_marked_or_given_a_value_takes_the_place_of_an_approval(airflow: Airflow) -> None:
    airflow.run({"clinic_id": 5})
    airflow.execute(CHANGE)
    try:
        run_id, state = airflow.run({"clinic_id": 5, "approve": True}, DAG)
        assert state == "success"
        airflow.execute(CHANGE)
        damaged, restores = state_of(airflow), Restores(airflow.catalog.database)
        # What was approved was done. It is not done again.
        assert clear(airflow, run_id, "apply", "report") == "failed"
        assert "has used that approval" in airflow.log(run_id, "apply", DAG)
        # Planned anew, and approved by nobody. Today's plan is not the approved one.
        clear(airflow, run_id, "plan")
        assert clear(airflow, run_id, "apply", "report") == "failed"
        assert "was not approved by anybody" in airflow.log(run_id, "apply", DAG)
        assert (state_of(airflow), len(restores.find(run_id=run_id))) == (damaged, 1)
        # One that waits is marked as approved.
        run_id = airflow.start({"clinic_id": 5}, DAG)
        wait_for_approval(airflow, run_id, rest_seconds=0)
        mark_approved(airflow, run_id)
        assert airflow.wait(run_id, DAG) == "failed"
        assert "was not approved by anybody" in airflow.log(run_id, "apply", DAG)
        assert (state_of(airflow), restores.find(run_id=run_id)) == (damaged, [])
    finally:
        airflow.run({"clinic_id": 5, "approve": True}, DAG)


def test_a_rejected_plan_changes_nothing(airflow: Airflow) -> None:
    airflow.run({"clinic_id": 5})
    airflow.execute(CHANGE)
    damaged, before = state_of(airflow), len(airflow.mails())
    run_id = airflow.start({"clinic_id": 5}, DAG)
    wait_for_approval(airflow, run_id)
    assert [str(mail["Subject"])[:1] for mail in to(airflow.mails()[before:], OPERATOR)] == ["✋"]
    answer(airflow, run_id, "Reject", reason="no es ella")
    assert airflow.wait(run_id, DAG) == "success"
    assert airflow.states(run_id, DAG) == {
        "preflight": "success", "plan": "success", "approve": "success", "apply": "skipped", "report": "success",
    }  # fmt: skip
    assert "rejected by admin: no es ella" in airflow.log(run_id, "report", DAG)
    assert len(to(airflow.mails()[before:], OPERATOR)) == 2
    assert state_of(airflow) == damaged
    assert Restores(airflow.catalog.database).find(run_id=run_id) == []
    airflow.execute(CHANGE.replace("+ 1000", "- 1000"))


def test_a_wrong_conf_or_a_missing_backup_is_named(airflow: Airflow) -> None:
    wrong: list[tuple[dict[str, object], str]] = [
        ({}, "The conf names no clinic"),
        ({"clinic_id": 5, "backup_id": "5-nunca"}, "Clinic 5 has no backup '5-nunca'"),
        ({"clinic_id": 5, "tables": ["public.nada"]}, "no table public.nada"),
        ({"clinic_id": 5, "as_of": "ayer"}, "is not a time"),
        ({"clinic_id": 99}, "Clinic 99 has no completed backup"),
    ]
    for run_id, conf, said in [(airflow.start(conf, DAG), conf, said) for conf, said in wrong]:
        task = "plan" if "tables" in conf else "preflight"
        assert airflow.wait(run_id, DAG) == "failed"
        assert said in airflow.log(run_id, task, DAG)
        assert airflow.tasks(run_id, DAG)[task]["try_number"] == 1


def test_a_copy_into_a_new_schema_touches_no_clinic(airflow: Airflow) -> None:
    airflow.run({"clinic_id": 5})
    before = state_of(airflow)
    role = airflow.execute("SELECT rolname FROM pg_roles WHERE rolname ~ 'restorer$'")[0][0]
    airflow.execute(f"GRANT CREATE ON DATABASE clinica TO {role}")
    conf = {"clinic_id": 5, "mode": "into", "schema": "mirar_5", "approve": True}
    run_id, state = airflow.run(conf, DAG)
    assert state == "success", airflow.log(run_id, "apply", DAG)
    ours = "SELECT sum(cantidad), count(*) FROM {} WHERE clinica_id = 5"
    assert airflow.execute(ours.format("mirar_5.inventario_inventario")) == airflow.execute(ours.format(STOCK))
    assert state_of(airflow) == before
    _, state = airflow.run(conf, DAG)
    assert state == "failed"
    airflow.execute("DROP SCHEMA mirar_5 CASCADE", f"REVOKE CREATE ON DATABASE clinica FROM {role}")
