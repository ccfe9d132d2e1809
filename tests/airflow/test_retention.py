"""The DAGs ``clinic_backup_retention`` and ``clinic_backup_hold``, and replicas in a second store, in Airflow."""

from __future__ import annotations

import pytest

from include.demo.layout import DemoError
from tests.airflow.conftest import OPERATOR, Airflow

DAG, HOLD = "clinic_backup_retention", "clinic_backup_hold"


def test_it_shows_first_and_deletes_then(airflow: Airflow) -> None:
    for _ in range(2):
        airflow.run({"clinic_id": 4, "kind": "full"})
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
    # A hold, set through a conf, is stronger than the policy.
    _, state = airflow.run({"backup_id": old.backup_id, "reason": "pleito 12"}, HOLD)
    assert state == "success"
    run_id, state = airflow.run({"clinic_id": 4}, DAG)
    assert f"{old.backup_id} stays: on hold: pleito 12" in airflow.log(run_id, "clean", DAG)
    _, state = airflow.run({"backup_id": old.backup_id, "release": True}, HOLD)
    assert state == "success"
    run_id, state = airflow.run({}, DAG)
    assert state == "success", airflow.log(run_id, "clean", DAG)
    for folder in (airflow.stack.layout.store, airflow.further):
        assert not (folder / old.archive_key).exists()
        assert (folder / new.archive_key).exists()


def test_a_wrong_conf_deletes_nothing(airflow: Airflow) -> None:
    before = len(airflow.catalog.find(state="completed"))
    with pytest.raises(DemoError, match="not of type 'boolean'"):
        airflow.start({"dry_run": "no"}, DAG)
    with pytest.raises(DemoError, match="'todas' does not match"):
        airflow.start({"clinic_id": "todas"}, DAG)
    wrong: list[tuple[str, dict[str, object]]] = [
        (DAG, {"clinic_id": 99}), (DAG, {"clinic": 4}), (HOLD, {}), (HOLD, {"backup_id": "x", "reason": "y"}),
        (HOLD, {"backup_id": airflow.catalog.find(limit=1)[0].backup_id}),
    ]  # fmt: skip
    for dag, run_id in [(dag, airflow.start(conf, dag)) for dag, conf in wrong]:
        assert airflow.wait(run_id, dag) == "failed"
    assert len(airflow.catalog.find(state="completed")) == before


def test_each_backup_is_replicated_and_what_the_first_store_loses_comes_back(airflow: Airflow) -> None:
    run_id, _ = airflow.run({"clinic_id": 5})
    record = airflow.records(run_id)[5]
    ours, theirs = (folder / record.archive_key for folder in (airflow.stack.layout.store, airflow.further))
    content = ours.read_bytes()
    assert theirs.read_bytes() == content
    assert f"Replicating {record.backup_id} to file://" in airflow.log(run_id, "back_up")
    assert record.stores == (airflow.stack.layout.store.as_uri(), airflow.further.as_uri())
    ours.unlink()
    before = len(airflow.mails())
    run_id, state = airflow.run({}, DAG)
    assert state == "success", airflow.log(run_id, "check_stores", DAG)
    assert "missing: the archive is in the catalog but not in the store (recorded)" in airflow.log(
        run_id, "check_stores", DAG
    )
    assert ours.read_bytes() == content
    (mail,) = [mail for mail in airflow.mails()[before:] if mail["X-Envelope-To"] == OPERATOR]
    assert str(mail["Subject"]).startswith("❌")
    assert record.backup_id in mail.get_body(("plain",)).get_content()  # type: ignore[union-attr]


def test_a_further_store_that_is_down_fails_no_backup_is_in_the_digest_and_is_caught_up(airflow: Airflow) -> None:
    kept = airflow.further.with_name("kept")
    airflow.further.rename(kept)
    airflow.further.write_text("a file where a folder should be")
    before = len(airflow.mails())
    try:
        run_id, state = airflow.run({"clinic_id": 5})
        assert state == "success"
        record = airflow.records(run_id)[5]
        assert f"{record.backup_id} is not in {airflow.further.as_uri()} yet" in airflow.log(run_id, "back_up")
        (digest,) = [mail for mail in airflow.mails()[before:] if mail["X-Envelope-To"] == OPERATOR]
        assert str(digest["Subject"]).startswith("⚠️")
        assert airflow.further.as_uri() in digest.get_body(("plain",)).get_content()  # type: ignore[union-attr]
        run_id, state = airflow.run({}, DAG)
        assert state == "failed"
        assert airflow.states(run_id, DAG)["clean"] == "success"
    finally:
        airflow.further.unlink()
        kept.rename(airflow.further)
    run_id, state = airflow.run({}, DAG)
    assert state == "success", airflow.log(run_id, "replicate_missing", DAG)
    assert (airflow.further / record.archive_key).exists()
