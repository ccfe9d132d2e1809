"""The DAG ``clinic_backup_verify`` in a real Airflow: every replica is read, and bad ones are recorded and reported."""

from __future__ import annotations

import pytest

from include.demo.layout import DemoError
from tests.airflow.conftest import OPERATOR, Airflow

DAG = "clinic_backup_verify"


def test_a_damaged_replica_is_found_recorded_and_told_and_counts_again_once_it_is_back(airflow: Airflow) -> None:
    for kind in ("full", "incremental"):
        run_id, _ = airflow.run({"clinic_id": 5, "kind": kind})
    record = airflow.records(run_id)[5]
    assert record.kind == "incremental"
    conf = {"backup_id": record.backup_id}
    run_id, state = airflow.run(conf, DAG)
    log = airflow.log(run_id, "verify", DAG)
    assert state == "success", log
    (full,) = record.chain
    replicas = (airflow.stack.layout.store.as_uri(), airflow.further.as_uri())
    for backup_id in (record.backup_id, full.backup_id):
        for url in replicas:
            assert f"{backup_id} in {url}: intact" in log
    assert f"All 4 replicas that {record.backup_id} needs are intact." in log
    assert airflow.states(run_id, DAG) == {"verify": "success"}

    # One byte of what it is built on.
    path = airflow.further / full.key
    content = path.read_bytes()
    before = len(airflow.mails())
    path.chmod(0o600)
    path.write_bytes(content[:100] + bytes([content[100] ^ 1]) + content[101:])
    try:
        run_id, state = airflow.run(conf, DAG)
    finally:
        path.write_bytes(content)
    log = airflow.log(run_id, "verify", DAG)
    assert (state, airflow.tasks(run_id, DAG)["verify"]["try_number"]) == ("failed", 1)
    assert f"{full.backup_id} in {replicas[1]}: damaged, which is recorded now" in log
    assert f"{full.backup_id} is damaged in {replicas[1]}" in log
    assert "clinic_backup_retention, makes it again from there" in log
    assert (found := airflow.catalog.get(full.backup_id)) is not None
    assert (found.state, found.stores) == ("completed", replicas[:1])
    (mail,) = airflow.mails()[before:]
    assert mail["X-Envelope-To"] == OPERATOR
    assert full.backup_id in mail.get_body(("plain",)).get_content()  # type: ignore[union-attr]

    run_id, state = airflow.run(conf, DAG)
    log = airflow.log(run_id, "verify", DAG)
    assert state == "success", log
    assert f"{full.backup_id} in {replicas[1]}: intact, which is recorded now" in log
    assert (found := airflow.catalog.get(full.backup_id)) is not None
    assert set(found.stores) == set(replicas)
    assert len(airflow.mails()) == before + 1


def test_a_store_that_does_not_answer_is_tried_again_and_nothing_is_recorded(airflow: Airflow) -> None:
    run_id, _ = airflow.run({"clinic_id": 5})
    record = airflow.records(run_id)[5]
    kept = airflow.further.with_name("kept")
    airflow.further.rename(kept)
    try:
        run_id, state = airflow.run({"backup_id": record.backup_id}, DAG)
    finally:
        kept.rename(airflow.further)
    assert (state, airflow.tasks(run_id, DAG)["verify"]["try_number"]) == ("failed", 2)
    assert "is not the store that the catalog knows" in airflow.log(run_id, "verify", DAG)
    assert (found := airflow.catalog.get(record.backup_id)) is not None
    assert found.stores == record.stores


def test_a_wrong_conf_is_named_and_fails_at_once(airflow: Airflow) -> None:
    for conf, said in (
        ({}, "backup_id is missing"),
        ({"backup_id": "7-20261124T060000Z"}, "There is no backup '7-20261124T060000Z'"),
        ({"backup_id": "x", "clinic_id": 5}, "The conf has unknown keys: 'clinic_id'"),
    ):
        run_id, state = airflow.run(conf, DAG)
        assert (state, airflow.tasks(run_id, DAG)["verify"]["try_number"]) == ("failed", 1)
        assert said in airflow.log(run_id, "verify", DAG)
    with pytest.raises(DemoError, match="not of type 'string'"):
        airflow.start({"backup_id": 5}, DAG)
