"""Mail about backups in a real Airflow: after each clinic, after the run, and when a task is killed."""

from __future__ import annotations

import time
from email.message import EmailMessage

import psutil

from tests.airflow.conftest import OPERATOR, Airflow


def to(mails: list[EmailMessage], address: str) -> list[EmailMessage]:
    return [mail for mail in mails if mail["X-Envelope-To"] == address]


def test_each_clinic_gets_its_mail_and_the_operator_one_digest(airflow: Airflow) -> None:
    before = len(airflow.mails())
    run_id, state = airflow.run()
    assert state == "success"
    mails = airflow.mails()[before:]
    for number in range(1, 6):
        (mail,) = to(mails, f"administrador1@clinica{number}.example.com")
        assert str(mail["Subject"]).startswith("✅")
    (digest,) = to(mails, OPERATOR)
    assert "6 de 6" in str(digest["Subject"])
    assert len(mails) == 6
    assert "mails were sent" in airflow.log(run_id, "summary") + airflow.log(run_id, "back_up")


def test_a_task_that_is_killed_has_a_failed_record_and_its_mail_after_the_summary(airflow: Airflow) -> None:
    before = len(airflow.mails())
    # Its backup takes a minute, so that it can be killed.
    with airflow.stock_condition("(SELECT pg_sleep(60 * ({{ clinic_id }} = 2)::int)) IS NOT NULL"):
        run_id = airflow.start({"clinic_id": 2})
        for attempt in (1, 2):
            kill_task(airflow, run_id, attempt)
        assert airflow.wait(run_id) == "failed"
    record = airflow.records(run_id)[2]
    assert (record.state, record.attempt) == ("failed", 2)
    assert "ended without a result" in (record.error or "")
    mails = airflow.mails()[before:]
    (mail,) = to(mails, "administrador1@clinica2.example.com")
    assert str(mail["Subject"]).startswith("❌")
    (digest,) = to(mails, OPERATOR)
    text = digest.get_body(("plain",)).get_content()  # type: ignore[union-attr]
    assert "ended without a result" in text
    assert f"{airflow.stack.url}/dags/clinic_backup/runs/" in text
    # The next good backup is a recovery, in the same thread.
    airflow.run({"clinic_id": 2})
    (recovery,) = to(airflow.mails()[before + 2 :], "administrador1@clinica2.example.com")
    assert recovery["References"] == mail["Message-ID"]


def kill_task(airflow: Airflow, run_id: str, attempt: int) -> None:
    """Kill the process of the clinic's task once its record says that it runs."""
    deadline = time.monotonic() + 60
    while True:
        record = airflow.records(run_id).get(2)
        if record is not None and (record.state, record.attempt) == ("running", attempt):
            break
        assert time.monotonic() < deadline, airflow.states(run_id)
        time.sleep(0.1)
    instance = airflow.tasks(run_id)["back_up[0]"]["id"]
    # The innermost is the task itself; its supervisor is to notice.
    found = [
        process for process in psutil.process_iter(["cmdline"]) if instance in " ".join(process.info["cmdline"] or [])
    ]
    (task,) = [process for process in found if not process.children()]
    task.kill()


def test_a_clinic_that_is_late_alarms_the_operator_once_and_the_watch_is_red(airflow: Airflow) -> None:
    run_id, state = airflow.run(dag_id="clinic_backup_watch")
    assert state == "success", airflow.log(run_id, "watch", "clinic_backup_watch")
    before = len(airflow.mails())
    airflow.execute("UPDATE clinic_backups.backup SET data_at = data_at - interval '3 days' WHERE clinic_id = '3'")
    for _ in range(2):
        run_id, state = airflow.run(dag_id="clinic_backup_watch")
        assert state == "failed"
    log = airflow.log(run_id, "watch", "clinic_backup_watch")
    assert "1 clinics have no good backup younger than 26 hours" in log
    assert "Clínica D'Ávila" in log
    (alarm,) = airflow.mails()[before:]
    assert alarm["X-Envelope-To"] == OPERATOR
    assert alarm["Importance"] == "high"
    airflow.run({"clinic_id": 3})
    assert airflow.run(dag_id="clinic_backup_watch")[1] == "success"
