"""docs/runbook.md, "With Airflow": each command runs in a real Airflow, and the logs have what the page says.

With ``RUNBOOK_TRANSCRIPT=folder``, the seconds of each situation are written there: the page's times are from that.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from include.demo.restore import damage
from tests.airflow.conftest import Airflow
from tests.airflow.test_clinic_restore import DAG, answer, wait_for_approval
from tests.runbook import Shell, Value, blocks
from tests.servers import CHECKOUT

WITH_AIRFLOW = [block for block in blocks(CHECKOUT / "docs" / "runbook.md") if block.in_airflow]
PATIENTS = "public.usuarios_paciente"
Values = Mapping[str, Value]


def patients(airflow: Airflow) -> Any:
    return airflow.execute(f"SELECT t::text FROM {PATIENTS} AS t ORDER BY id")


def nothing(airflow: Airflow) -> Values:
    return {}


def rows_deleted(airflow: Airflow) -> Values:
    _, state = airflow.run({"clinic_id": 3})
    assert state == "success"
    newest = airflow.catalog.find(clinic_id=3)[0]
    airflow.execute(*damage(3))
    return {"BACKUP": newest.backup_id}


def patient_deleted(airflow: Airflow) -> Values:
    airflow.run({"clinic_id": 3})
    at = datetime.now(UTC).isoformat()
    ((patient,),) = airflow.execute(f"SELECT min(id) FROM {PATIENTS} WHERE clinica_id = 3")
    airflow.execute(*damage(3, f"id = {patient}"))
    return {"AS_OF": at, "PATIENT": str(patient)}


def values_changed(airflow: Airflow) -> Values:
    airflow.run()
    at = datetime.now(UTC).isoformat()
    airflow.execute(f"UPDATE {PATIENTS} SET telefono = '' WHERE clinica_id <> 6")
    return {"AS_OF": at}


SITUATIONS: Mapping[int, Callable[[Airflow], Values]] = {
    0: nothing, 1: rows_deleted, 2: patient_deleted, 5: nothing, 7: values_changed, 8: nothing, 9: nothing,
}  # fmt: skip


def runs(airflow: Airflow) -> set[tuple[str, str]]:
    found = airflow.api._call("GET", "/dags/~/dagRuns", params={"limit": 100, "order_by": "-id"})["dag_runs"]
    return {(str(run["dag_id"]), str(run["dag_run_id"])) for run in found}


@pytest.mark.parametrize("section", SITUATIONS)
def test_each_command_runs_and_the_logs_have_what_the_page_says(section: int, airflow: Airflow, tmp_path: Path) -> None:
    before = patients(airflow)
    values = SITUATIONS[section](airflow)
    variables = airflow.stack.variables() | {"HOME": str(tmp_path), "COLUMNS": "250"}
    shell = Shell(tmp_path, variables, values)
    began, spent = time.monotonic(), 0.0
    for block in WITH_AIRFLOW:
        if block.part[0] != section:
            continue
        known = runs(airflow)
        shell.run(block)
        for dag_id, run_id in sorted(runs(airflow) - known):
            if dag_id == DAG and "approve" not in block.text:
                wait_for_approval(airflow, run_id)
                answer(airflow, run_id, "Approve")
            assert airflow.wait(run_id, dag_id) == "success", airflow.states(run_id, dag_id)
            for task in {name.partition("[")[0] for name in airflow.states(run_id, dag_id)}:
                shell.saw(airflow.log(run_id, task, dag_id))
            spent = time.monotonic() - began
    assert patients(airflow) == before
    if transcript := os.environ.get("RUNBOOK_TRANSCRIPT"):
        (Path(transcript) / f"airflow {section}.txt").write_text(f"{shell.transcript}\n[{spent:.1f} s in all]\n")


def test_all_of_them_are_run() -> None:
    assert {block.part[0] for block in WITH_AIRFLOW} == SITUATIONS.keys()
