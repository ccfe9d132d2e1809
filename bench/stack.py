"""Airflow with a demo database, for the figures that need the scheduler."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType
from typing import Any

from psycopg2 import sql

from bench import children
from bench.figures import BenchError
from bench.world import World
from clinic_backups.base.connections import Connection
from include.demo import databases
from include.demo.api import AirflowApi
from include.demo.database import DATABASE
from include.demo.layout import CHECKOUT, Layout, Secrets
from include.demo.postgres import HOST
from include.demo.stack import DAG_ID, Stack
from include.demo.state import State

EMPTY_DAG_ID = "bench_empty"
EMPTY_DAG = f'''
from airflow.sdk import dag, task
from clinic_backups.operators import pool

@dag(dag_id="{EMPTY_DAG_ID}", schedule=None)
def empty():
    @task
    def items():
        return list(range({{count}}))

    @task(task_id="back_up", pool=pool.NAME)
    def nothing(item):
        return None

    nothing.expand(item=items())

empty()
'''
TASK_ID = "back_up"
PARSE_LIMIT_SECONDS = 120
RUN_LIMIT_SECONDS = 3600


class BenchStack(Stack):
    """The demo's servers with a folder of DAG files of their own: ours, and one whose mapped task does nothing."""

    @property
    def dags(self) -> Path:
        """The folder of DAG files."""
        return self.layout.root / "dags"

    more: Mapping[str, str] = MappingProxyType({})
    """Further variables of all programs."""

    def variables(self) -> dict[str, str]:
        return super().variables() | {"AIRFLOW__CORE__DAGS_FOLDER": str(self.dags)} | self.more

    def superuser(self) -> Connection:
        """The clinics' database, for statements of the application itself."""
        server = self._postgres
        return Connection(
            "application", "postgres", host=HOST, port=server.port, schema=DATABASE, login=server.user,
            password=server.password,
        )  # fmt: skip

    def peak_rss_bytes(self, name: str) -> int:
        """The most memory that one of Airflow's servers has had so far, without the processes that it started."""
        return next(children.peak_rss_bytes(process.pid) for process in self.state.processes if process.name == name)

    def metadata_bytes(self) -> int:
        """The size of Airflow's own database."""
        size = sql.SQL("SELECT pg_database_size({})").format(sql.Literal(databases.AIRFLOW))
        return int(self.query(size)[0][0])

    def run(self, api: AirflowApi, dag_id: str, watch: Callable[[], object] = lambda: None) -> list[dict[str, Any]]:
        """Run a DAG once; returns its mapped tasks. :raises BenchError: the run failed or takes too long.

        :param watch: called a few times each second while it goes on.
        """
        api.unpause(dag_id)
        run_id = api.trigger(dag_id)
        deadline, next_look = time.monotonic() + RUN_LIMIT_SECONDS, 0.0
        state = "queued"
        while state not in ("success", "failed"):
            watch()
            time.sleep(0.05)
            if time.monotonic() > next_look:
                self.state.require_alive()
                state, next_look = api.run_state(dag_id, run_id), time.monotonic() + 0.5
            if time.monotonic() > deadline:
                raise BenchError(f"DAG {dag_id} has not ended after {RUN_LIMIT_SECONDS} s.")
        if state != "success":
            raise BenchError(f"The run of DAG {dag_id} failed.\nHINT: try `make demo`, which shows why.")
        return [task for task in api.task_instances(dag_id, run_id) if task["task_id"] == TASK_ID]


@contextmanager
def airflow(
    world: World, *, clinics: int, patients: int, empty_tasks: int | None = None,
    more: Mapping[str, str] = MappingProxyType({}),
) -> Iterator[BenchStack]:  # fmt: skip
    """Start Airflow (LocalExecutor) with its own database server and demo clinics, and remove it all at the end.

    :param empty_tasks: how many tasks do nothing, by default one for each clinic.
    :param more: further variables of all programs.
    """
    layout = Layout(root=world.folder / f"airflow-{clinics}-{patients}")
    layout.make()
    stack = BenchStack(layout, State.load(layout), Secrets.load(layout), world.say)
    stack.more = more
    stack.dags.mkdir()
    shutil.copy(CHECKOUT / "dags" / f"{DAG_ID}.py", stack.dags)
    stack.dags.joinpath(f"{EMPTY_DAG_ID}.py").write_text(EMPTY_DAG.format(count=empty_tasks or active(clinics)))
    since = datetime.now(UTC)
    try:
        stack.start(clinics=clinics, patients=patients)
        with stack.api() as api:
            _wait_until_parsed(api, stack, since)
        yield stack
    finally:
        world.say("Stopping Airflow")
        stack.stop()
        shutil.rmtree(layout.root, ignore_errors=True)


def active(clinics: int) -> int:
    """How many of a demo's clinics are backed up. The sixth one has closed."""
    return clinics - 1 if clinics >= 6 else clinics


def _wait_until_parsed(api: AirflowApi, stack: Stack, since: datetime) -> None:
    deadline = time.monotonic() + PARSE_LIMIT_SECONDS
    while not api.parsed_since(EMPTY_DAG_ID, since):
        stack.state.require_alive()
        if time.monotonic() > deadline:
            raise BenchError(f"Airflow does not read the DAG {EMPTY_DAG_ID}.")
        time.sleep(0.5)
