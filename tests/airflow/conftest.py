"""A real Airflow with everything that the demo starts, in a folder of the tests, for all tests of this folder."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import dataclass
from email import message_from_bytes, policy
from email.message import EmailMessage
from pathlib import Path
from typing import Any, cast
from urllib.parse import quote

import httpx
import psycopg2
import pytest

from clinic_backups.base import connections
from clinic_backups.base.backup_record import BackupRecord
from clinic_backups.base.clinic_id import ClinicId
from clinic_backups.base.project import PROJECT_SQL
from clinic_backups.catalog.records import Catalog
from clinic_backups.operators import pool
from include.demo import databases
from include.demo.api import AirflowApi
from include.demo.layout import CHECKOUT, WEB_USERS, Layout, Secrets, write_private
from include.demo.stack import Stack
from include.demo.state import State
from tests.postgres_fixtures import server_folder
from tests.spoiled import stock_condition
from tests.statsd import Statsd

RUN_LIMIT_SECONDS = 120
DAGS, BUNDLE = CHECKOUT / "dags", "airflow.dag_processing.bundles.local.LocalDagBundle"
FOLLOWERS = """
from airflow.sdk import Asset, dag, task

from clinic_backups.operators.assets import FLEET, of_clinic


@task
def events(**context):
    found = context["triggering_asset_events"]  # by asset, and by the alias that updated it
    return [[key.name, event.extra] for key, events in found.items() if isinstance(key, Asset) for event in events]


for followed in (FLEET, of_clinic(5)):

    @dag(dag_id="follows_" + followed.name.replace("/", "_"), schedule=followed, catchup=False)
    def follower():
        events()

    follower()
"""
"""DAGs of a team. They follow our assets. Airflow pauses every new DAG, these too."""
CLINICS, PATIENTS = 6, 40
OPERATOR = "guardia@saas.example"
PEOPLE = ("auditor.1", "administrador.2.1", "nadie")
"""Further people who can log in to Airflow and may do nothing in it: the application's superuser, another clinic's
administrator, and somebody whom the application does not know."""


@dataclass
class Airflow:
    """``sql`` is the copy of ``include/sql`` that the tasks use: a test may change it and puts it back.

    ``further`` is the folder of the second store, ``metrics`` gets Airflow's own metrics.
    """

    stack: Stack
    api: AirflowApi
    sql: Path
    further: Path
    metrics: Statsd

    def web(self, user: str | None = None) -> httpx.Client:
        """A client of the page and its API, logged in as somebody of ``PEOPLE`` or the demo, or as nobody."""
        client = httpx.Client(base_url=self.stack.url, timeout=30, trust_env=False)
        if user is not None:
            login = client.post("/auth/token", json={"username": user, "password": self.stack.secrets.web_password})
            client.headers["Authorization"] = f"Bearer {login.raise_for_status().json()['access_token']}"
        return client

    def start(self, conf: dict[str, Any] | None = None, dag_id: str = "clinic_backup") -> str:
        """Start a run; returns its id."""
        answer = self.api._call("POST", f"/dags/{dag_id}/dagRuns", json={"logical_date": None, "conf": conf or {}})
        return str(answer["dag_run_id"])

    def wait(self, run_id: str, dag_id: str = "clinic_backup") -> str:
        """The state in which the run ended. Airflow's database is asked: its API takes a hundred times as long."""
        deadline = time.monotonic() + RUN_LIMIT_SECONDS
        with closing(self.stack._postgres.connect(databases.AIRFLOW)) as db, db.cursor() as cursor:
            db.autocommit = True
            while True:
                cursor.execute("SELECT state FROM dag_run WHERE dag_id = %s AND run_id = %s", (dag_id, run_id))
                ((state,),) = cursor.fetchall()
                if state not in ("queued", "running"):
                    return str(state)
                self.stack.state.require_alive()
                assert time.monotonic() < deadline, self.tasks(run_id, dag_id)
                time.sleep(0.2)

    def run(self, conf: dict[str, Any] | None = None, dag_id: str = "clinic_backup") -> tuple[str, str]:
        """Start a run and wait for it; returns its id and state."""
        run_id = self.start(conf, dag_id)
        return run_id, self.wait(run_id, dag_id)

    def scheduled(self, dag_id: str = "clinic_backup") -> str:
        """A run that the scheduler starts by itself: its time, 02:00 of the next night, is set to now."""
        before = self._scheduled_runs(dag_id)
        with closing(self.stack._postgres.connect(databases.AIRFLOW)) as db, db, db.cursor() as cursor:
            cursor.execute(
                "UPDATE dag SET next_dagrun = now(), next_dagrun_data_interval_start = now(),"
                " next_dagrun_data_interval_end = now(), next_dagrun_create_after = now() WHERE dag_id = %s",
                (dag_id,),
            )
        deadline = time.monotonic() + RUN_LIMIT_SECONDS
        while not (new := self._scheduled_runs(dag_id) - before):
            assert time.monotonic() < deadline, "The scheduler starts no run."
            time.sleep(0.2)
        (run_id,) = new
        return run_id

    def _scheduled_runs(self, dag_id: str) -> set[str]:
        found = self.api._call("GET", f"/dags/{dag_id}/dagRuns", params={"run_type": "scheduled"})["dag_runs"]
        return {str(run["dag_run_id"]) for run in found}

    @contextmanager
    def slots(self, number: int) -> Iterator[None]:
        """The pool has so many slots meanwhile."""
        body = {"name": pool.NAME, "include_deferred": False}
        self.api._call("PATCH", f"/pools/{pool.NAME}", json=body | {"slots": number})
        try:
            yield
        finally:
            self.api._call("PATCH", f"/pools/{pool.NAME}", json=body | {"slots": pool.SLOTS})

    def tasks(self, run_id: str, dag_id: str = "clinic_backup") -> dict[str, dict[str, Any]]:
        """Each task instance by its id, and by its clinic's number in brackets where it is mapped."""
        return {
            task["task_id"] + (f"[{task['map_index']}]" if task["map_index"] >= 0 else ""): task
            for task in self.api.task_instances(dag_id, run_id)
        }

    def states(self, run_id: str, dag_id: str = "clinic_backup") -> dict[str, str]:
        """The state of each task instance."""
        return {name: task["state"] for name, task in self.tasks(run_id, dag_id).items()}

    def log_lines(self, run_id: str, task: str, dag_id: str = "clinic_backup") -> list[dict[str, Any]]:
        """The lines in the log files of a task, of every try and every clinic."""
        folder = self.stack.layout.logs / "tasks" / f"dag_id={dag_id}" / f"run_id={run_id}" / f"task_id={task}"
        return [json.loads(line) for path in sorted(folder.rglob("*.log")) for line in path.read_text().splitlines()]

    def log(self, run_id: str, task: str, dag_id: str = "clinic_backup") -> str:
        """The same as one text, with JSON's escapes undone."""
        lines = self.log_lines(run_id, task, dag_id)
        return "\n".join(json.dumps(line, ensure_ascii=False).replace('\\"', '"') for line in lines)

    def links(self, run_id: str, task: str, map_index: int, dag_id: str = "clinic_backup") -> dict[str, str | None]:
        """The buttons of a task instance, as the web page asks for them."""
        path = f"/dags/{dag_id}/dagRuns/{quote(run_id, safe='')}/taskInstances/{task}/links"
        found: dict[str, str | None] = self.api._call("GET", path, params={"map_index": map_index})["extra_links"]
        return found

    def xcoms(self, run_id: str, dag_id: str = "clinic_backup") -> str:
        """All XCom values of a run as one text."""
        path = f"/dags/{dag_id}/dagRuns/{quote(run_id, safe='')}/taskInstances/~/xcomEntries"
        entries = self.api._call("GET", path, params={"limit": 100})["xcom_entries"]
        texts = []
        for entry in entries:
            one = f"{path.replace('~', entry['task_id'])}/{entry['key']}"
            value = self.api._call("GET", one, params={"map_index": entry["map_index"], "stringify": "true"})
            texts.append(json.dumps(value, ensure_ascii=False))
        return "\n".join(texts)

    def stock_condition(self, condition: str) -> AbstractContextManager[None]:
        """See :func:`tests.spoiled.stock_condition`."""
        return stock_condition(self.sql, condition)

    @contextmanager
    def paused(self, *dag_ids: str) -> Iterator[None]:
        """These DAGs start nothing meanwhile."""
        for dag_id in dag_ids:
            self.api._call("PATCH", f"/dags/{dag_id}", json={"is_paused": True})
        try:
            yield
        finally:
            for dag_id in dag_ids:
                self.api.unpause(dag_id)

    def mails(self) -> list[EmailMessage]:
        """What the demo's mail server got, in order; its ``X-Envelope-To`` says for whom."""
        paths = sorted(self.stack.layout.mail.glob("*.eml"))
        found = [message_from_bytes(path.read_bytes(), policy=policy.default) for path in paths]
        return cast("list[EmailMessage]", found)

    @property
    def catalog(self) -> Catalog:
        return Catalog(connections.parse("backup_catalog", self.stack.variables()["AIRFLOW_CONN_BACKUP_CATALOG"]))

    def records(self, run_id: str) -> dict[ClinicId, BackupRecord]:
        """The newest record of each clinic in a run."""
        return {record.clinic_id: record for record in reversed(self.catalog.find(run_id=run_id))}

    def execute(self, *statements: str) -> Sequence[tuple[Any, ...]]:
        """Run statements in the clinics' database as the server's superuser; returns the last one's rows."""
        with closing(self.stack._postgres.connect("clinica")) as db, db.cursor() as cursor:
            db.autocommit = True
            for statement in statements:
                cursor.execute(statement)
            try:
                return cursor.fetchall()
            except psycopg2.ProgrammingError:
                return []


@pytest.fixture(scope="package")
def airflow() -> Iterator[Airflow]:
    """It ends with the last test of this folder: its servers never rest, and others need the machine."""
    with started(lambda sql: shutil.copytree(PROJECT_SQL, sql)) as found:
        yield found


@contextmanager
def started(write_sql: Callable[[Path], object]) -> Iterator[Airflow]:
    """An Airflow of its own. :param write_sql: makes the SQL folder that its tasks use."""
    with server_folder() as folder, Statsd() as metrics:
        layout = Layout(folder)
        layout.root.mkdir()
        layout.make()
        sql = folder / "sql"
        write_sql(sql)
        followers = folder / "followers"
        followers.mkdir()
        (followers / "followers.py").write_text(FOLLOWERS)
        changes = {
            "AIRFLOW__SCHEDULER__SCHEDULER_IDLE_SLEEP_TIME": "0.4",  # the default of 1 s is long for tests
            # No test changes a DAG: each is read once.
            "AIRFLOW__DAG_PROCESSOR__MIN_FILE_PROCESS_INTERVAL": "3600",
            "AIRFLOW__DAG_PROCESSOR__REFRESH_INTERVAL": "3600",
            "AIRFLOW__DAG_PROCESSOR__BUNDLE_REFRESH_CHECK_INTERVAL": "60",
            "AIRFLOW__DAG_PROCESSOR__DAG_BUNDLE_CONFIG_LIST": json.dumps(
                [{"name": path.name, "classpath": BUNDLE, "kwargs": {"path": str(path)}} for path in (DAGS, followers)]
            ),
            "AIRFLOW__METRICS__STATSD_ON": "true",
            "AIRFLOW__METRICS__STATSD_PORT": str(metrics.port),
            "AIRFLOW__METRICS__STATSD_INFLUXDB_ENABLED": "true",
            "CLINIC_BACKUPS_ASSETS": "each",
            "CLINIC_BACKUPS_SQL_DIR": str(sql),
            "CLINIC_BACKUPS_TASKS": "6",  # the active clinics and the shared data
            "CLINIC_BACKUPS_RETRIES": "1",
            "CLINIC_BACKUPS_RETRY_DELAY_SECONDS": "1",
            "CLINIC_BACKUPS_OPERATOR_EMAILS": OPERATOR,
            "CLINIC_BACKUPS_REPLICA_STORES": json.dumps({"backup_replica": (folder / "replica").as_uri()}),
        }
        secrets = Secrets.load(layout)
        users = dict.fromkeys(PEOPLE, "") | WEB_USERS
        changes["AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS"] = ",".join(f"{name}:{role}" for name, role in users.items())
        write_private(layout.passwords, json.dumps(dict.fromkeys(users, secrets.web_password)))
        stack = Stack(layout, State.load(layout), secrets, print, changes, api_port=None)
        try:
            stack.start(clinics=CLINICS, patients=PATIENTS)
            with stack.api() as api:
                for dag in (CHECKOUT / "dags").glob("*.py"):
                    api.unpause(dag.stem)
                yield Airflow(stack, api, sql, folder / "replica", metrics)
        finally:
            stack.stop()
