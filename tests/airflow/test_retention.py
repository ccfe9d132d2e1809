"""The DAG ``clinic_backup_retention`` in a real Airflow."""

from __future__ import annotations

import pytest

from include.demo.layout import DemoError
from tests.airflow.conftest import Airflow

DAG = "clinic_backup_retention"


def test_it_shows_first_and_deletes_then(airflow: Airflow) -> None:
    airflow.run({"clinic_id": 4})
    airflow.run({"clinic_id": 4})
    new, old, *_ = airflow.catalog.find(clinic_id=4, state="completed")
    airflow.execute(
        "UPDATE clinic_backups.backup SET started_at = started_at - interval '99 days', finished_at = finished_at -"
        f" interval '99 days', expires_at = expires_at - interval '99 days' WHERE backup_id = '{old.backup_id}'"
    )
    run_id, state = airflow.run({"clinic_id": 4, "dry_run": True}, DAG)
    assert state == "success"
    assert f"{old.backup_id} would go: older than 30 days" in airflow.log(run_id, "clean", DAG)
    assert f"{new.backup_id} stays: the clinic's last good backup" in airflow.log(run_id, "clean", DAG)
    assert (airflow.stack.layout.store / old.archive_key).exists()
    run_id, state = airflow.run({}, DAG)
    assert state == "success", airflow.log(run_id, "clean", DAG)
    assert not (airflow.stack.layout.store / old.archive_key).exists()
    assert (airflow.stack.layout.store / new.archive_key).exists()


def test_a_wrong_conf_deletes_nothing(airflow: Airflow) -> None:
    before = len(airflow.catalog.find(state="completed"))
    with pytest.raises(DemoError, match="not of type 'boolean'"):
        airflow.start({"dry_run": "no"}, DAG)
    for conf in ({"clinic_id": "todas"}, {"clinic": 4}):
        _, state = airflow.run(conf, DAG)
        assert state == "failed"
    assert len(airflow.catalog.find(state="completed")) == before
