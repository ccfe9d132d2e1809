"""The part of Airflow's REST API that the demo uses. https://airflow.apache.org/docs/apache-airflow/stable/stable-rest-api-ref.html"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from types import TracebackType
from typing import Any
from urllib.parse import quote

import httpx

from include.demo.layout import WEB_USER, DemoError

PAGE = 100  # Airflow's own limit, api.maximum_page_limit
COMPONENTS = {  # as the API calls them, and the server whose log tells why one is not healthy
    "metadatabase": "api-server",
    "scheduler": "scheduler",
    "dag_processor": "dag-processor",
    "triggerer": "triggerer",
}


class AirflowApi:
    """A client of one Airflow; a context manager that logs in with the first call that needs it."""

    def __init__(self, url: str, password: str, user: str = WEB_USER) -> None:
        self._user, self._password = user, password
        # trust_env: a proxy of the caller must not get requests to loopback. The timeout: when the first task runs,
        # Airflow builds its API for tasks and answers nobody meanwhile (3.3.2; 15 s on a machine with other work).
        self._http = httpx.Client(base_url=url, timeout=60, trust_env=False)

    def __enter__(self) -> AirflowApi:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._http.close()

    def unhealthy(self, since: datetime) -> list[str]:
        """The servers that are not healthy yet.

        :param since: a heartbeat from before it is that of an earlier start.
        """
        try:
            answer = self._http.get("/api/v2/monitor/health", timeout=5)
            health = answer.json() if answer.status_code == httpx.codes.OK else {}
        except (httpx.TransportError, ValueError):
            return ["api-server"]
        return [server for name, server in COMPONENTS.items() if not _healthy(name, health.get(name) or {}, since)]

    def parsed_since(self, dag_id: str, since: datetime) -> bool:
        """Whether Airflow has read the DAG's file after that moment. :raises DemoError: a DAG file has an error."""
        errors = [
            error
            for error in self._call("GET", "/importErrors")["import_errors"]
            if datetime.fromisoformat(error["timestamp"]) >= since
        ]
        if errors:
            raise DemoError("\n".join(f"{error['filename']}:\n{error['stack_trace']}" for error in errors))
        answer = self._request("GET", f"/dags/{dag_id}")
        if answer.status_code == httpx.codes.NOT_FOUND:
            return False
        parsed = _checked(answer)["last_parsed_time"]
        return parsed is not None and datetime.fromisoformat(parsed) >= since

    def unpause(self, dag_id: str) -> None:
        """Let the DAG's runs start."""
        self._call("PATCH", f"/dags/{dag_id}", json={"is_paused": False})

    def trigger(self, dag_id: str, conf: Mapping[str, Any] | None = None) -> str:
        """Start a run now; returns its id."""
        body = {"logical_date": None, "conf": dict(conf or {})}
        return str(self._call("POST", f"/dags/{dag_id}/dagRuns", json=body)["dag_run_id"])

    def approve(self, dag_id: str, run_id: str, task_id: str) -> None:
        """Answer a task that waits for a person."""
        path = f"/dags/{dag_id}/dagRuns/{quote(run_id, safe='')}/taskInstances/{task_id}/-1/hitlDetails"
        self._call("PATCH", path, json={"chosen_options": ["Approve"], "params_input": {}})

    def clear(self, dag_id: str, run_id: str, tasks: Sequence[str | tuple[str, int]]) -> None:
        """Clear tasks of a run, as the page does, with all that follows them."""
        body = {
            "dry_run": False,
            "dag_run_id": run_id,
            "task_ids": tasks,
            "only_failed": False,
            "include_downstream": True,
            "reset_dag_runs": True,
        }
        self._call("POST", f"/dags/{dag_id}/clearTaskInstances", json=body)

    def run_state(self, dag_id: str, run_id: str) -> str:
        """queued, running, success or failed."""
        return str(self._call("GET", f"/dags/{dag_id}/dagRuns/{quote(run_id, safe='')}")["state"])

    def unfinished_runs(self, dag_id: str) -> list[str]:
        """The ids of the DAG's runs that are queued or running; none if Airflow does not know the DAG."""
        answer = self._request("GET", f"/dags/{dag_id}/dagRuns", params={"state": ["queued", "running"], "limit": PAGE})
        if answer.status_code == httpx.codes.NOT_FOUND:
            return []
        return [str(run["dag_run_id"]) for run in _checked(answer)["dag_runs"]]

    def fail_run(self, dag_id: str, run_id: str) -> None:
        """Mark a run and its unfinished tasks as failed."""
        self._call("PATCH", f"/dags/{dag_id}/dagRuns/{quote(run_id, safe='')}", json={"state": "failed"})

    def task_instances(self, dag_id: str, run_id: str) -> list[dict[str, Any]]:
        """All task instances of a run, with the keys ``task_id``, ``map_index``, ``rendered_map_index``, ``state``."""
        found: list[dict[str, Any]] = []
        while True:
            path = f"/dags/{dag_id}/dagRuns/{quote(run_id, safe='')}/taskInstances"
            page = self._call("GET", path, params={"limit": PAGE, "offset": len(found), "order_by": "map_index"})
            found += page["task_instances"]
            if not page["task_instances"] or len(found) >= page["total_entries"]:
                return found

    def returned(self, dag_id: str, run_id: str, task_id: str) -> Any:
        """A task's return value. None: it has not returned yet."""
        path = f"/dags/{dag_id}/dagRuns/{quote(run_id, safe='')}/taskInstances/{task_id}/xcomEntries/return_value"
        answer = self._request("GET", path, params={"deserialize": "false", "stringify": "false"})
        return None if answer.status_code == httpx.codes.NOT_FOUND else _checked(answer)["value"]

    def _call(self, method: str, path: str, **arguments: Any) -> Any:
        return _checked(self._request(method, path, **arguments))

    def _request(self, method: str, path: str, **arguments: Any) -> httpx.Response:
        try:
            if "Authorization" not in self._http.headers:
                login = self._http.post("/auth/token", json={"username": self._user, "password": self._password})
                self._http.headers["Authorization"] = f"Bearer {_checked(login)['access_token']}"
            return self._http.request(method, f"/api/v2{path}", **arguments)
        except httpx.TransportError as error:
            raise DemoError(f"Airflow's API does not answer: {error!r}") from error


def _checked(answer: httpx.Response) -> Any:
    if answer.is_error:
        raise DemoError(f"Airflow answered {answer.status_code} to {answer.request.url.path}: {answer.text[:500]}")
    return answer.json()


def _healthy(name: str, health: dict[str, Any], since: datetime) -> bool:
    beat = health.get(f"latest_{name}_heartbeat")
    fresh = name == "metadatabase" or (beat is not None and datetime.fromisoformat(beat) >= since)
    return health.get("status") == "healthy" and fresh
