"""What every DAG of the package keeps to."""

from __future__ import annotations

from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def dags() -> dict[str, object]:
    from airflow.dag_processing.dagbag import DagBag

    bag = DagBag(CHECKOUT / "dags")
    assert bag.import_errors == {}
    return dict(bag.dags)


def test_every_dag_file_holds_a_documented_dag_that_the_readme_names(dags: dict[str, object]) -> None:
    assert set(dags) == {path.stem for path in (CHECKOUT / "dags").glob("*.py")}
    readme = (CHECKOUT / "README.md").read_text()
    for dag_id, dag in dags.items():
        assert f"`{dag_id}`" in readme
        assert len(dag.doc_md) > 300  # type: ignore[attr-defined]
        assert dag.tags == {"clinic backups"}  # type: ignore[attr-defined]
        assert dag.catchup is False  # type: ignore[attr-defined]
        # Restores of several clinics may wait for approval side by side, and reading changes nothing.
        side_by_side = dag_id in ("clinic_restore", "clinic_backup_verify")
        assert dag.max_active_runs == (4 if side_by_side else 1)  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("name", "expression"), [("clinic_backup", "0 2 * * *"), ("clinic_backup_retention", "0 3 * * 0")]
)
def test_the_schedule_is_in_the_configured_zone(name: str, expression: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from airflow.dag_processing.dagbag import DagBag

    monkeypatch.setenv("CLINIC_BACKUPS_TIME_ZONE", "America/La_Paz")
    dag = DagBag(CHECKOUT / "dags" / f"{name}.py").dags[name]
    assert dag.timetable.expression == expression
    assert str(dag.timetable.timezone) == "America/La_Paz"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("KEEP_DAYS", "30 days"), ("TIME_ZONE", "Bolivia"), ("TIME_ZONE", "../etc"), ("CLINIC_RETENTION", "{x"),
        ("REPLICA_STORES", "[]"), ("RETRIES", "-1"), ("APPROVAL_HOURS", "9" * 30), ("KEEP_DAY", "365"),
    ],
)  # fmt: skip
def test_every_dag_file_parses_whatever_the_environment_says(
    name: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from airflow.dag_processing.dagbag import DagBag

    monkeypatch.setenv(f"CLINIC_BACKUPS_{name}", value)
    bag = DagBag(CHECKOUT / "dags")
    assert bag.import_errors == {}
    assert len(bag.dags) == len(list((CHECKOUT / "dags").glob("*.py")))


def test_the_bulk_of_the_work_is_bounded_and_stops_a_retry_that_cannot_help(dags: dict[str, object]) -> None:
    from clinic_backups.operators import pool

    task = dags["clinic_backup"].get_task("back_up")  # type: ignore[attr-defined]
    assert task.pool == pool.NAME
    assert task.retries == 3
    assert task.retry_exponential_backoff
    summary = dags["clinic_backup"].get_task("summary")  # type: ignore[attr-defined]
    assert summary.trigger_rule == "all_done"
    assert [leaf.task_id for leaf in dags["clinic_backup"].leaves] == ["summary"]  # type: ignore[attr-defined]


def test_without_a_word_a_backup_is_incremental_where_that_can_be(dags: dict[str, object]) -> None:
    assert dags["clinic_backup"].params["kind"] == "auto"  # type: ignore[attr-defined]
