"""What the plugin registers in Airflow."""

from __future__ import annotations

import ast
import inspect
import runpy
import sys
from importlib.metadata import version
from typing import Any

import pytest

from clinic_backups.operators import airflow_internals
from tests.servers import CHECKOUT

PLUGIN = CHECKOUT / "plugins" / "clinic_backups" / "airflow_plugin.py"
PUBLIC = (
    "airflow.sdk", "airflow.providers", "airflow.plugins_manager", "airflow.listeners", "airflow.timetables",
    "airflow.task.priority_strategy",
)  # fmt: skip
"""https://airflow.apache.org/docs/apache-airflow/stable/public-airflow-interface.html"""


@pytest.mark.parametrize(
    ("base_url", "prefix"),
    [("", ""), ("http://127.0.0.1:8080", ""), ("https://saas.example/airflow/", "/airflow"), ("/flow", "/flow")],
)
def test_its_pages_lie_where_airflow_lies(monkeypatch: pytest.MonkeyPatch, base_url: str, prefix: str) -> None:
    monkeypatch.setenv("AIRFLOW__API__BASE_URL", base_url)
    # Not imported: Airflow loads it once in each process, under the file's bare name.
    plugin = runpy.run_path(str(PLUGIN))["ClinicBackupsPlugin"]
    page, tab = plugin.external_views
    assert page["href"] == f"{prefix}/backups/ui/"
    assert page["icon"] == f"{prefix}/backups/ui/static/icon.svg"
    assert tab["href"] == f"{prefix}/backups/ui/dag/{{DAG_ID}}"


def test_what_is_private_in_airflow_stands_in_one_module() -> None:
    found = set()
    for folder in ("plugins", "dags"):
        for path in (CHECKOUT / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
                names += [node.module or ""] if isinstance(node, ast.ImportFrom) and not node.level else []
                for name in names:
                    if name.split(".")[0] == "airflow" and not f"{name}.".startswith(tuple(f"{p}." for p in PUBLIC)):
                        found.add((path.name, name))
    assert found == set()


def test_the_installed_airflow_has_what_is_used_of_it() -> None:
    assert version("apache-airflow") == airflow_internals.TRIED
    readme = (CHECKOUT / "README.md").read_text(encoding="utf-8")
    assert f"Airflow {airflow_internals.TRIED}" in readme
    found: dict[str, Any] = {name: getattr(airflow_internals, name) for name in airflow_internals.WHERE}
    taken = inspect.signature(found["trigger_dag"]).parameters
    assert {"dag_id", "run_id", "conf", "run_type", "triggered_by", "triggering_user_name"} <= set(taken)
    assert list(inspect.signature(found["update_hitl_detail"]).parameters)[:6] == [
        "dag_id", "dag_run_id", "task_id", "update_hitl_detail_payload", "user", "session",
    ]  # fmt: skip
    assert {"pool", "slots", "description", "include_deferred"} <= set(found["Pool"].__table__.columns.keys())
    keys = {"dag_run_id", "task_id", "map_index", "key", "dag_id", "run_id", "value"}
    assert keys <= set(found["XComModel"].__table__.columns.keys())
    with pytest.raises(AttributeError):
        airflow_internals.nosuch  # noqa: B018


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("trigger_dag", "the page"),
        ("GetUserDep", "the page"),
        ("conf", "the address of the pages"),
    ],
)
def test_it_loads_whatever_airflow_lacks_and_says_what(name: str, part: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from fastapi.testclient import TestClient

    monkeypatch.setitem(airflow_internals.WHERE, name, "airflow.moved.elsewhere")
    for module in [module for module in sys.modules if module.startswith("clinic_backups.web")]:
        monkeypatch.delitem(sys.modules, module)
    known: dict[str, str] = {}
    monkeypatch.setitem(airflow_internals.__dict__, "get_import_errors", lambda: known)
    loaded = runpy.run_path(str(PLUGIN))
    plugin = loaded["ClinicBackupsPlugin"]
    assert plugin.listeners and plugin.timetables
    (mounted,) = plugin().fastapi_apps
    assert part in loaded["problems"]
    if part == "the page":
        answer = TestClient(mounted["app"]).get("/ui/clinics/7")
        assert (answer.status_code, "airflow.moved" in answer.text) == (503, True)
        assert "airflow.moved" in known["clinic_backups: the page"]
    with pytest.raises(ImportError, match=r"airflow\.moved"):
        loaded["ClinicBackupsProblems"].on_load()


def test_it_names_no_problem_where_there_is_none() -> None:
    loaded = runpy.run_path(str(PLUGIN))
    loaded["ClinicBackupsProblems"].on_load()
    assert loaded["problems"] == {}
