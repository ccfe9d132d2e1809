"""Rules that every DAG of the package follows."""

from __future__ import annotations

import json
from datetime import datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

CHECKOUT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def dags() -> dict[str, object]:
    from airflow.dag_processing.dagbag import DagBag

    bag = DagBag(CHECKOUT / "dags")
    assert bag.import_errors == {}
    return dict(bag.dags)


def test_every_dag_file_holds_a_documented_dag_that_the_docs_name(dags: dict[str, object]) -> None:
    assert set(dags) == {path.stem for path in (CHECKOUT / "dags").glob("*.py")}
    page = (CHECKOUT / "docs" / "dags.md").read_text(encoding="utf-8")
    for dag_id, dag in dags.items():
        assert f"`{dag_id}`" in page
        assert len(dag.doc_md) > 300  # type: ignore[attr-defined]
        assert dag.tags == {"clinic backups"}  # type: ignore[attr-defined]
        assert dag.catchup is False  # type: ignore[attr-defined]
        assert dag.description  # type: ignore[attr-defined]
        assert dag.owner == "clinic-backups"  # type: ignore[attr-defined]
        assert dag.dagrun_timeout  # type: ignore[attr-defined]
        runs = {run_type.value for run_type in dag.allowed_run_types}  # type: ignore[attr-defined]
        assert runs - {"scheduled"} == {"manual", "operator_triggered"}
        assert ("scheduled" in runs) == dag.timetable.can_be_scheduled  # type: ignore[attr-defined]
        # Restores of several clinics may wait for approval side by side, and reading changes nothing.
        side_by_side = {"clinic_backup": 16, "clinic_restore": 4, "clinic_backup_verify": 4}
        assert dag.max_active_runs == side_by_side.get(dag_id, 1)  # type: ignore[attr-defined]


def test_a_clinic_s_name_of_any_length_is_one_that_airflow_can_keep(dags: dict[str, object]) -> None:
    """Otherwise Airflow refuses the end of a task whose backup is complete, and the task counts as failed."""
    from airflow.models.taskinstance import TaskInstance
    from jinja2 import Template

    template = dags["clinic_backup"].get_task("back_up").partial_kwargs["map_index_template"]  # type: ignore[attr-defined]
    limit = TaskInstance.__table__.c.rendered_map_index.type.length
    for name in ("Clínica Ñandú", "é😀" * 400):
        assert Template(template).render(task={"clinic": {"name": name}}) == name[:limit]


@pytest.mark.parametrize(
    ("name", "expression"),
    [("clinic_backup", "0 2 * * *"), ("clinic_backup_retention", "0 3 * * 0"), ("clinic_restore_drill", "0 4 * * *")],
)
def test_the_schedule_is_in_the_configured_zone(name: str, expression: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from airflow.dag_processing.dagbag import DagBag

    monkeypatch.setenv("CLINIC_BACKUPS_TIME_ZONE", "America/La_Paz")
    dag = DagBag(CHECKOUT / "dags" / f"{name}.py").dags[name]
    written = dag.timetable.serialize()
    assert (written["expressions"], written["timezone"]) == ([expression], "America/La_Paz")
    assert type(dag.timetable).deserialize(written).serialize() == written


@pytest.mark.parametrize(
    ("said", "expression"),
    [
        ("*/30 6-22 * * 1-5", "*/30 6-22 * * 1-5"),
        ("@hourly", "0 * * * *"),
        (" 15   3 * * * ", "15 3 * * *"),
        ("None", None),
    ],
)
@pytest.mark.parametrize(
    ("name", "setting"), [("clinic_backup", "SCHEDULE"), ("clinic_backup_retention", "RETENTION_SCHEDULE")]
)
def test_the_schedule_is_a_setting(
    name: str, setting: str, said: str, expression: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    from airflow.dag_processing.dagbag import DagBag

    monkeypatch.setenv(f"CLINIC_BACKUPS_{setting}", said)
    bag = DagBag(CHECKOUT / "dags" / f"{name}.py")
    assert bag.import_errors == {}
    timetable = bag.dags[name].timetable
    assert timetable.can_be_scheduled == (expression is not None)
    if expression is not None:
        assert timetable.serialize()["expressions"] == [expression]


def test_schedules_of_clinics_are_times_of_the_same_dag(monkeypatch: pytest.MonkeyPatch) -> None:
    from airflow.dag_processing.dagbag import DagBag

    own = '{"7": "0 */6 * * *", "p": "@hourly", "8": "none", "9": "0 2 * * *"}'
    monkeypatch.setenv("CLINIC_BACKUPS_CLINIC_SCHEDULE", own)
    timetable = DagBag(CHECKOUT / "dags" / "clinic_backup.py").dags["clinic_backup"].timetable
    written = timetable.serialize()
    assert written["expressions"] == ["0 2 * * *", "0 */6 * * *", "0 * * * *"]
    assert type(timetable).deserialize(written).serialize() == written
    # A DAG that was stored by an earlier version.
    before = {name: value for name, value in written.items() if name != "expressions"} | {"expression": "0 2 * * *"}
    assert type(timetable).deserialize(before).serialize()["expressions"] == ["0 2 * * *"]


@pytest.mark.parametrize(
    ("zone", "moment", "due"),
    [
        ("America/La_Paz", "2026-03-10T06:00+00:00", {"0 2 * * *", "0 * * * *"}),
        ("America/La_Paz", "2026-03-10T07:00+00:00", {"0 * * * *"}),
        ("America/La_Paz", "2026-03-10T10:00+00:00", {"0 * * * *", "0 */6 * * *"}),
        # In the night of 29 March, 02:00 to 03:00 are left out in Madrid: the run of 02:00 is at 03:00.
        ("Europe/Madrid", "2026-03-29T01:00+00:00", {"0 2 * * *", "0 * * * *"}),
        ("Europe/Madrid", "2026-03-28T01:00+00:00", {"0 2 * * *", "0 * * * *"}),
        # In the night of 25 October, 02:00 comes twice. Airflow has one of them, which depends on the run before.
        ("Europe/Madrid", "2026-10-25T01:00+00:00", {"0 2 * * *", "0 * * * *"}),
    ],
)
def test_a_run_is_of_the_schedules_that_have_its_time(zone: str, moment: str, due: set[str]) -> None:
    from airflow.timetables.base import DataInterval, TimeRestriction
    from pendulum import parse

    from clinic_backups.operators.timetable import OnTimeTimetable, is_due

    crons = ("0 2 * * *", "0 * * * *", "0 */6 * * *", "none")
    assert {cron for cron in crons if is_due(cron, datetime.fromisoformat(moment), zone)} == due
    # Airflow has a run at that time and at none between.
    timetable = OnTimeTimetable(*crons[:3], timezone=zone)
    before = DataInterval.exact(parse(moment) - timedelta(minutes=20))
    restriction = TimeRestriction(earliest=None, latest=None, catchup=True)
    found = timetable.next_dagrun_info(last_automated_data_interval=before, restriction=restriction)
    assert found is not None and found.run_after >= parse(moment)


def test_what_somebody_waits_for_begins_first() -> None:
    from clinic_backups.operators.priority import ByHandFirst

    night, hand = (
        ByHandFirst().get_weight(SimpleNamespace(run_id=run_id))
        for run_id in ("scheduled__2026-03-10T06:00:00+00:00", "manual__x")
    )
    assert hand > night


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("SCHEDULE", "at night"), ("CLINIC_SCHEDULE", '{"7": "at night"}'), ("CLINIC_RPO_HOURS", '{"7": 0}'),
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


def test_the_params_of_backups_and_restores_are_the_keys_that_a_conf_may_have(dags: dict[str, object]) -> None:
    from clinic_backups.backup import choose_clinics
    from clinic_backups.restore import request

    assert set(dags["clinic_backup"].params) == set(choose_clinics.KEYS)  # type: ignore[attr-defined]
    assert set(dags["clinic_restore"].params) == set(request.KEYS)  # type: ignore[attr-defined]


def test_the_runbook_of_a_dag_names_each_of_its_params(dags: dict[str, object]) -> None:
    for dag_id, dag in dags.items():
        text = dag.doc_md  # type: ignore[attr-defined]
        names = list(dag.params)  # type: ignore[attr-defined]
        assert [name for name in names if f'"{name}"' not in text and f"`{name}`" not in text] == [], dag_id


def test_every_param_of_a_backup_reaches_it(dags: dict[str, object]) -> None:
    from clinic_backups.base.backup_request import BackupOptions

    dag = dags["clinic_backup"]
    template = dag.get_task("back_up").partial_kwargs["options"]  # type: ignore[attr-defined]

    def given(**conf: object) -> BackupOptions:
        params = {name: dag.params[name] for name in dag.params} | conf  # type: ignore[attr-defined]
        rendered = dag.get_template_env().from_string(template).render(params=params)  # type: ignore[attr-defined]
        return BackupOptions.from_conf(json.loads(rendered))

    assert given() == given(kind=None, notes=None, allow_gaps=None) == BackupOptions()
    notes = """it's <b>"ñ"</b> {{ dag }} \\ 'x'"""
    assert given(clinic_ids=[7, 9], kind="full", notes=notes, allow_gaps=True) == BackupOptions(
        kind="full", notes=notes, allow_gaps=True
    )


def test_without_a_word_a_backup_is_incremental_where_that_can_be(dags: dict[str, object]) -> None:
    assert dags["clinic_backup"].params["kind"] == "auto"  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("now", "last", "expected"),
    [
        # Unpaused at noon, after a week or for the first time: the next night's, and none "for 02:00".
        ("2026-03-10T12:00", "2026-03-03T02:00", "2026-03-11T02:00"),
        ("2026-03-10T12:00", None, "2026-03-11T02:00"),
        ("2026-03-10T03:01", "2026-03-09T02:00", "2026-03-11T02:00"),
        # The scheduler was away at 02:00.
        ("2026-03-10T02:40", "2026-03-09T02:00", "2026-03-10T02:00"),
        ("2026-03-10T02:40", "2026-03-03T02:00", "2026-03-10T02:00"),
        # Every night.
        ("2026-03-10T02:00:05", "2026-03-10T02:00", "2026-03-11T02:00"),
        ("2026-03-10T01:59", "2026-03-09T02:00", "2026-03-10T02:00"),
        ("2026-03-10T01:59", None, "2026-03-10T02:00"),
    ],
)
def test_a_missed_run_is_not_made_up_for(
    now: str, last: str | None, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from airflow.timetables import trigger
    from airflow.timetables.base import DataInterval, TimeRestriction
    from pendulum import parse

    from clinic_backups.operators import timetable as ours

    timetable = ours.OnTimeTimetable("0 2 * * *", timezone="America/La_Paz")
    moments = {name: parse(text, tz="America/La_Paz") for name, text in (("now", now), ("last", last)) if text}
    monkeypatch.setattr(trigger, "utcnow", lambda: moments["now"])
    monkeypatch.setattr(ours, "utc_now", lambda: moments["now"])
    found = timetable.next_dagrun_info(
        last_automated_data_interval=DataInterval.exact(moments["last"]) if last else None,
        restriction=TimeRestriction(earliest=None, latest=None, catchup=False),
    )
    assert found is not None
    assert found.run_after == parse(expected, tz="America/La_Paz")


UUID_KEY = "0b6a4c1e-6d0f-4b0e-9f2a-1d2c3b4a5f60"


@pytest.mark.parametrize(
    ("key", "taken", "refused"),
    [
        ("", (None, 7), (0, "seis", UUID_KEY, 7.5, True)),
        ("key: id bigint", (None, 7), ("seis",)),
        ("key: id uuid", (None, UUID_KEY), ("", "x" * 201, 7.5, True, ["x"])),
        ("key: id text", (None, "seis", 12, "../x"), ("", "x" * 201)),
        ("key: nonsense", (None, 7), ("seis",)),
    ],
)
def test_the_params_take_what_the_key_of_the_clinics_may_be(
    key: str, taken: tuple[object, ...], refused: tuple[object, ...], tmp_path: Path
) -> None:
    from airflow.exceptions import ParamValidationError

    from clinic_backups.base.settings import Settings
    from clinic_backups.operators import clinic_param, clinics_param

    (tmp_path / "clinic_table.txt").write_text(f"public.tenant\n{key}\n")
    settings = Settings(sql_dir=tmp_path)
    for value in taken:
        assert clinic_param(settings, "Id").resolve(value) == value
        if value is not None:
            assert clinics_param(settings, "Ids").resolve([value]) == [value]
    for value in refused:
        with pytest.raises(ParamValidationError):
            clinic_param(settings, "Id").resolve(value)
        with pytest.raises(ParamValidationError):
            clinics_param(settings, "Ids").resolve([value])


def test_each_task_runs_where_what_it_needs_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tasks of restores and drills need the secret key, and those of all other DAGs must not have it."""
    from airflow.dag_processing.dagbag import DagBag

    monkeypatch.setenv("CLINIC_BACKUPS_QUEUE", "backups")
    monkeypatch.setenv("CLINIC_BACKUPS_RESTORE_QUEUE", " restores ")
    monkeypatch.setenv("CLINIC_BACKUPS_TASK_HOURS", "5")
    monkeypatch.setenv("CLINIC_BACKUPS_RUN_HOURS", "20")
    bag = DagBag(CHECKOUT / "dags")
    assert bag.import_errors == {}
    for dag_id, dag in bag.dags.items():
        for task in dag.tasks:
            assert task.queue == ("restores" if _restores(task) else "backups"), (dag_id, task.task_id)
        limits = {task.task_id: task.execution_timeout for task in dag.tasks}
        own = {"replicate_missing": timedelta(hours=6), "approve": None}
        assert limits == {name: own.get(name, timedelta(hours=5)) for name in limits}, dag_id
        assert dag.dagrun_timeout is not None
    assert bag.dags["clinic_backup"].dagrun_timeout == timedelta(hours=20)


def test_only_tasks_of_restores_get_the_pod_template_with_the_key(monkeypatch: pytest.MonkeyPatch) -> None:
    from airflow.dag_processing.dagbag import DagBag

    monkeypatch.setenv("CLINIC_BACKUPS_RESTORE_POD_TEMPLATE", "/pods/restore.yaml")
    dags = DagBag(CHECKOUT / "dags").dags
    assert len(dags) > 5
    for dag_id, dag in dags.items():
        for task in dag.tasks:
            wanted = {"pod_template_file": "/pods/restore.yaml"} if _restores(task) else {}
            assert task.executor_config == wanted, (dag_id, task.task_id)


def _restores(task: Any) -> bool:
    """Whether the task needs the secret key."""
    return bool(task.dag_id.startswith("clinic_restore"))


def test_without_a_word_airflows_own_queue_is_used(dags: dict[str, object]) -> None:
    assert {task.queue for dag in dags.values() for task in dag.tasks} == {"default"}  # type: ignore[attr-defined]


@pytest.mark.parametrize(("queue", "said"), [("restores", "on queue 'restores'"), ("", "CLINIC_BACKUPS_RESTORE_QUEUE")])
def test_a_worker_without_the_key_says_where_the_task_belongs(
    queue: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from clinic_backups.base.errors import SettingsError
    from clinic_backups.operators.airflow_app import AirflowParts

    monkeypatch.setenv("CLINIC_BACKUPS_RESTORE_QUEUE", queue)
    monkeypatch.delenv("CLINIC_BACKUPS_IDENTITY_FILE", raising=False)
    with pytest.raises(SettingsError, match="has no secret key") as caught:
        AirflowParts().archives()
    assert said in caught.value.hint
    assert "IDENTITY" not in caught.value.hint
