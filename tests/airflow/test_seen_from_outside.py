"""What others see of a run: Airflow's metrics, the fields of the log's lines, and assets that other DAGs follow."""

from __future__ import annotations

import re
import time
from collections import defaultdict
from contextlib import ExitStack, closing
from typing import Any

import psycopg2

from include.demo import databases
from tests.airflow.conftest import RUN_LIMIT_SECONDS, Airflow
from tests.unit.test_monitoring import OTHERS, RULES, names_in

OURS = {"clinic_id", "backup_id", "stage"}


def test_a_backups_figures_are_in_airflows_metrics_without_the_clinic(airflow: Airflow) -> None:
    since = len(airflow.metrics.lines)
    run_id, _ = airflow.run({"clinic_id": 4, "kind": "full"})
    record = airflow.records(run_id)[4]
    tags = "kind=full,outcome=completed"
    lines = airflow.metrics.wait(lambda lines: any("backup.duration" in line for line in lines), since)
    assert lines[:3] == [
        f"clinic_backups.backup.completed,{tags}:1|c",
        f"clinic_backups.backup.stored_bytes,{tags}:{record.size_bytes}|c",
        f"clinic_backups.backup.rows,{tags}:{record.rows_total}|c",
    ]
    assert lines[3].startswith(f"clinic_backups.backup.duration,{tags}:") and lines[3].endswith("|ms")
    assert len(lines) == 4
    since = len(airflow.metrics.lines)
    with airflow.stock_condition("1 / ({{ clinic_id }} - 4) IS NOT NULL"):
        airflow.run({"clinic_id": 4})
    assert airflow.metrics.wait(bool, since) == ["clinic_backups.backup.failed,outcome=permanent:1|c"]
    since = len(airflow.metrics.lines)
    airflow.run({}, "clinic_backup_watch")
    found = airflow.metrics.wait(lambda lines: "clinic_backups.watch.completed:1|c" in lines, since)
    assert "clinic_backups.clinics.active:6|g" in found


def test_the_endpoint_gives_the_figures_that_the_alert_rules_use(airflow: Airflow) -> None:
    airflow.run({}, "clinic_backup_watch")
    airflow.run({"clinic_id": 1})
    with closing(airflow.web("admin")) as admin, closing(airflow.web("administrador.2.1")) as other:
        text, less = (web.get("/backups/metrics").raise_for_status().text for web in (admin, other))
    families = set(re.findall(r"^# TYPE (\w+) gauge$", text, re.MULTILINE))
    assert {name for rule in RULES for name in names_in(rule["expr"])} <= families | OTHERS
    for line in (
        'clinics{state="late"} ',
        'run_failed{dag_id="clinic_backup_watch"} ',
        'replicas_missing{store="file://',
    ):
        assert f"clinic_backups_{line}" in text
    assert 'clinic_backups_clinics{state="late"} ' in less
    assert "dag_id=" not in less and "store=" not in less


def test_each_line_of_a_backup_says_of_which_clinic_and_backup_and_in_which_stage(airflow: Airflow) -> None:
    run_id, _ = airflow.run({"clinic_ids": [3, 4]})
    records = airflow.records(run_id)
    stages = defaultdict[int, list[str]](list)
    for line in airflow.log_lines(run_id, "back_up"):
        if line["event"].startswith(("Backing up", "Backup ", "Replicating")):
            stages[line["clinic_id"]].append(line["stage"])
            assert line.get("backup_id", "") in line["event"]
    assert stages == {number: ["begin", "begin", "replicate", "done"] for number in (3, 4)}
    told = {
        line["clinic_id"]: line["backup_id"] for line in airflow.log_lines(run_id, "summary") if "backup_id" in line
    }
    assert told == {number: record.backup_id for number, record in records.items()}


def test_an_error_says_in_which_stage_it_came(airflow: Airflow) -> None:
    with airflow.stock_condition("1 / ({{ clinic_id }} - 3) IS NOT NULL"):
        run_id, _ = airflow.run({"clinic_id": 3})
    record = airflow.records(run_id)[3]
    (line, *_) = [found for found in airflow.log_lines(run_id, "back_up") if "22012" in found["event"]]
    assert {name: line[name] for name in OURS} == {"clinic_id": 3, "backup_id": record.backup_id, "stage": "check"}


def test_another_dag_follows_one_clinic_or_the_fleet(airflow: Airflow) -> None:
    """Clinic 5 is in a task with others: the run has more clinics than tasks."""
    followers = {"follows_clinic_backups_5": "clinic_backups/5", "follows_clinic_backups": "clinic_backups"}
    for dag_id in followers:
        airflow.api.unpause(dag_id)
    airflow.execute("UPDATE public.comun_clinica SET activa = true WHERE id = 6")
    try:
        run_id, state = airflow.run()
        assert state == "success"
        records = airflow.records(run_id)
        found = {dag_id: _events(airflow, dag_id) for dag_id in followers}
    finally:
        airflow.execute("UPDATE public.comun_clinica SET activa = false WHERE id = 6")
        for dag_id in followers:
            airflow.api._call("PATCH", f"/dags/{dag_id}", json={"is_paused": True})
    five = records[5]
    # A follower that has never run gets the events of earlier runs too.
    assert ["clinic_backups/5", {
        "backup_id": five.backup_id, "kind": five.kind, "rows": five.rows_total, "bytes": five.size_bytes,
        "data_time": five.to_json()["data_at"], "is_suspect": False, "is_incomplete": False,
    }] in found["follows_clinic_backups_5"]  # fmt: skip
    assert ["clinic_backups", {
        "backups": 7, "is_whole": True, "oldest_data_time": min(r.to_json()["data_at"] for r in records.values()),
        "rows": sum(r.rows_total for r in records.values()), "bytes": sum(r.size_bytes or 0 for r in records.values()),
        "suspect": 0, "incomplete": 0,
    }] in found["follows_clinic_backups"]  # fmt: skip
    assert {name for events in found.values() for name, _ in events} == set(followers.values())


def test_a_run_without_its_backups_updates_no_asset(airflow: Airflow) -> None:
    before = _asset_events(airflow)
    with airflow.stock_condition("1 / ({{ clinic_id }} - 3) IS NOT NULL"):
        _, state = airflow.run({"clinic_ids": [3, 4]})
    assert state == "failed"
    new = {name: after - before[name] for name, after in _asset_events(airflow).items() if after != before[name]}
    assert new == {"clinic_backups/4": 1}


def test_a_good_backup_is_told_although_another_clinic_makes_its_task_fail(airflow: Airflow) -> None:
    """There are more clinics than tasks: one task has two of them, and one of the two fails."""
    airflow.execute("UPDATE public.comun_clinica SET activa = true WHERE id = 6")
    before, uri = _asset_events(airflow), airflow.stack.variables()["AIRFLOW_CONN_BACKUP_CATALOG"]
    with ExitStack() as meanwhile:
        meanwhile.callback(airflow.execute, "UPDATE public.comun_clinica SET activa = false WHERE id = 6")
        with closing(psycopg2.connect(uri)) as db, db.cursor() as cursor:
            # Every task waits until it is known which one has two clinics.
            cursor.execute(
                "SELECT pg_advisory_xact_lock(hashtextextended('clinic_backups:clinic:' || n, 0))"
                " FROM generate_series(1, 6) AS n"
            )
            run_id = airflow.start()
            _, bad = sorted(_two_of_one_task(airflow, run_id))  # the preflight tries the extracts with the first clinic
            meanwhile.enter_context(airflow.stock_condition(f"1 / ({{{{ clinic_id }}}} - {bad}) IS NOT NULL"))
        assert airflow.wait(run_id) == "failed"
    made = {number for number, record in airflow.records(run_id).items() if record.state == "completed"}
    assert made == {1, 2, 3, 4, 5, 6} - {bad}
    new = {name: after - before[name] for name, after in _asset_events(airflow).items() if after != before[name]}
    assert new == {f"clinic_backups/{clinic_id}": 1 for clinic_id in made}
    assert "1 assets of tasks that failed are updated" in airflow.log(run_id, "tell_assets")


def _two_of_one_task(airflow: Airflow, run_id: str) -> list[int]:
    """The clinics of the task that has two."""
    deadline = time.monotonic() + RUN_LIMIT_SECONDS
    while airflow.states(run_id).get("active_clinics") != "success":
        assert time.monotonic() < deadline, airflow.states(run_id)
        time.sleep(0.2)
    path = f"/dags/clinic_backup/dagRuns/{run_id.replace(':', '%3A').replace('+', '%2B')}/taskInstances/active_clinics"
    shares = airflow.api._call("GET", f"{path}/xcomEntries/return_value", params={"stringify": "false"})["value"]
    (two,) = [share["clinics"] for share in shares if "clinics" in share]
    return [clinic["id"] for clinic in two]


def _events(airflow: Airflow, dag_id: str) -> list[Any]:
    """What a follower got, once it has run."""
    deadline = time.monotonic() + RUN_LIMIT_SECONDS
    while not (runs := airflow.api._call("GET", f"/dags/{dag_id}/dagRuns")["dag_runs"]):
        assert time.monotonic() < deadline, f"{dag_id} does not run."
        time.sleep(0.2)
    (run,) = runs
    assert airflow.wait(run["dag_run_id"], dag_id) == "success"
    path = f"/dags/{dag_id}/dagRuns/{run['dag_run_id'].replace(':', '%3A').replace('+', '%2B')}/taskInstances/events"
    value = airflow.api._call("GET", f"{path}/xcomEntries/return_value", params={"stringify": "false"})["value"]
    assert isinstance(value, list)
    return value


def _asset_events(airflow: Airflow) -> defaultdict[str, int]:
    with closing(airflow.stack._postgres.connect(databases.AIRFLOW)) as db, db.cursor() as cursor:
        cursor.execute("SELECT a.name, count(*) FROM asset AS a JOIN asset_event AS e ON e.asset_id = a.id GROUP BY 1")
        return defaultdict(int, cursor.fetchall())
