"""Starts and stops the demo's servers: PostgreSQL, a mail server and the four processes of Airflow."""

from __future__ import annotations

import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import replace
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any, ClassVar

import psutil
from psycopg2 import sql

from include.demo import databases, environment
from include.demo.api import AirflowApi
from include.demo.environment import HOST, Endpoints
from include.demo.layout import CHECKOUT, DemoError, Layout, Secrets
from include.demo.postgres import EmbeddedPostgres
from include.demo.state import State

DAG_ID = "clinic_backup"
API_PORT = 8080
COMMAND_LIMIT_SECONDS = 180
START_LIMIT_SECONDS = 180
STOP_LIMIT_SECONDS = 15
STOP_LIMITS = {"triggerer": 3}  # it waits 10 s for a child that has ended long ago, and here it holds nothing to lose
ROLE_URIS = ("clinic_uri", "catalog_uri", "restore_uri")
Say = Callable[[str], None]


class Stack:
    """All servers of one demo folder.

    :param changes: variables of the servers' environment beside or instead of the demo's own.
    :param api_port: where Airflow listens if nobody else does; ``None``: on any free port.
    """

    SERVERS: ClassVar[Mapping[str, Sequence[str]]] = {
        "api-server": (),
        "scheduler": ("--skip-serve-logs",),
        "dag-processor": (),
        "triggerer": ("--skip-serve-logs",),
    }
    """Airflow's programs, and the words after their names."""

    def __init__(
        self,
        layout: Layout,
        state: State,
        secrets: Secrets,
        say: Say,
        changes: Mapping[str, str] | None = None,
        api_port: int | None = API_PORT,
    ) -> None:
        self.layout = layout
        self.state = state
        self.secrets = secrets
        self._say = say
        self._changes = dict(changes or {})
        self._preferred_port = api_port
        self._postgres = EmbeddedPostgres(layout.postgres)
        self._comment = ""

    @property
    def url(self) -> str:
        """Address of Airflow."""
        return self._endpoints.url

    def api(self) -> AirflowApi:
        """A client of the running Airflow. It sends the password: so whoever answers there has to be ours.

        :raises DemoError: another program listens at that port, or nobody.
        """
        if not self._listens():
            raise DemoError(
                f"The demo's Airflow does not listen at {self.url}: nothing was sent there.\n"
                "HINT: make down, then make up"
            )
        return AirflowApi(self.url, self.secrets.web_password)

    def start(self, *, clinics: int | None, patients: int | None) -> None:
        """Start everything; returns once Airflow is healthy and has read the DAG.

        What can run side by side does: Airflow's database is migrated while the clinics' is filled, and the catalog is
        migrated while Airflow starts.

        :raises DemoError, PostgresError: something does not start; what did start still runs, for ``stop``.
        """
        since = datetime.now(UTC)
        self.state.save()
        self._say("Starting PostgreSQL")
        self._postgres.start()
        self._migrate_airflow_and_load(clinics, patients)
        self._say("Starting Airflow")
        if self._preferred_port == self._endpoints.api_port and not _is_free(self._endpoints.api_port):
            # Somebody has taken it while the databases were made.
            self.state.endpoints = replace(self._endpoints, api_port=self._api_port())
            self.state.save()
        variables = self.variables()
        mail = _python("include.demo.smtp", str(self._endpoints.smtp_port), str(self.layout.mail))
        self.state.start("mail", mail, variables | {"PYTHONPATH": str(CHECKOUT)})
        for name, words in self.SERVERS.items():
            self.state.start(name, _python("airflow", name, *words), variables)
        self.command("catalog", "migrate")
        self.command("store", "init")
        self._wait(lambda: [] if self._listens() else ["api-server"])
        with self.api() as api:
            self._wait(lambda: [name for name in api.unhealthy(since) if name in self.SERVERS])
            self._wait(lambda: [] if api.parsed_since(DAG_ID, since) else ["dag-processor"])
        self._give_up_runs()  # those of a demo that was killed

    def start_database(self, clinics: int | None = None, patients: int | None = None) -> None:
        """Start PostgreSQL alone, with the demo's clinics and catalog in it, for the command line."""
        self.state.save()
        self._say("Starting PostgreSQL")
        self._postgres.start()
        if databases.make_clinic_database(self._postgres, clinics, patients):
            self._say("Filled the demo database with made-up clinics")
        self.state.endpoints = Endpoints(0, free_port(), "", *databases.make_clinic_roles(self._postgres))
        self.command("catalog", "migrate")
        self.command("store", "init")

    def stop(self) -> None:
        """Stop everything; whoever the others talk to stops after them. Idempotent.

        :raises DemoError: a process cannot be ended.
        """
        servers = {process.name: process for process in self.state.processes}
        if "api-server" in servers and servers["api-server"].alive:
            # An API that is not ready, or that has lost its database, must not keep the rest from being stopped.
            with suppress(DemoError):
                self._give_up_runs()
        last = servers.pop("api-server", None)
        self.state.stop({process: STOP_LIMITS.get(name, STOP_LIMIT_SECONDS) for name, process in servers.items()})
        if last:
            self.state.stop({last: STOP_LIMIT_SECONDS})
        self._postgres.stop()
        self.state.forget()

    def _give_up_runs(self) -> None:
        """Fail runs that go on: their tasks are told so with their next heartbeat, and no later start resumes them."""
        with self.api() as api:
            for run_id in api.unfinished_runs(DAG_ID):
                self._say(f"Giving up run {run_id}")
                api.fail_run(DAG_ID, run_id)

    def execute(self, *statements: str) -> None:
        """Change the clinics' database as its superuser, in one transaction."""
        with closing(self._postgres.connect(databases.database.DATABASE)) as db, db, db.cursor() as cursor:
            for statement in statements:
                cursor.execute(statement)

    def query(self, query: str | sql.Composable) -> list[tuple[Any, ...]]:
        """The rows of a query in the clinics' database, as its superuser."""
        with closing(self._postgres.connect(databases.database.DATABASE)) as db, db.cursor() as cursor:
            cursor.execute("SET timezone = 'UTC'")
            cursor.execute(query)
            return cursor.fetchall()

    def lose_server(self) -> None:
        """Delete the database server's folder, with everything in it."""
        self._comment = self.query("SELECT shobj_description(oid, 'pg_database') FROM pg_database"
                                   " WHERE datname = current_database()")[0][0]  # fmt: skip
        self._postgres.stop()
        shutil.rmtree(self.layout.postgres)

    def start_empty_server(self) -> None:
        """A new server with an empty database, to which the connection ``new_server`` leads."""
        self._postgres.start()
        databases.make_empty_clinic_database(self._postgres)
        self._changes["AIRFLOW_CONN_NEW_SERVER"] = self._postgres.uri(databases.database.DATABASE)

    def use_new_server(self) -> None:
        """Give the roles passwords, and make the catalog again from the store."""
        self.state.endpoints = replace(
            self._endpoints, **dict(zip(ROLE_URIS, databases.make_clinic_roles(self._postgres), strict=True))
        )
        # What this demo was loaded with: see database.load. The definition of a database does not hold its comment.
        self.execute(f"COMMENT ON DATABASE {databases.database.DATABASE} IS '{self._comment}'")
        self.command("catalog", "migrate")
        self.command("catalog", "rebuild")

    @property
    def postgres_runs(self) -> bool:
        """Whether the database server runs, also when nothing else does."""
        return self._postgres.running

    def variables(self) -> dict[str, str]:
        """The environment of the demo's programs."""
        return environment.build(self.layout, self.secrets, self._endpoints) | self._changes

    def command(self, *words: str) -> str:
        """The output of ``clinic-backups <words>``. :raises DemoError: it failed."""
        return _run(["clinic-backups", *words], self.variables())

    @property
    def _endpoints(self) -> Endpoints:
        if self.state.endpoints is None:
            raise DemoError("The demo is not running.\nHINT: make up")
        return self.state.endpoints

    def _migrate_airflow_and_load(self, clinics: int | None, patients: int | None) -> None:
        airflow_uri = databases.make_owned_database(self._postgres, databases.AIRFLOW, self.secrets.airflow_database)
        self.state.endpoints = Endpoints(self._api_port(), free_port(), airflow_uri, "", "", "")
        release = version("apache-airflow")
        migration = None
        if not self.layout.migrated.exists() or self.layout.migrated.read_text() != release:
            self._say("Making Airflow's database")
            migration = self.state.start("migrate", _python("airflow", "db", "migrate"), self.variables())
        if databases.make_clinic_database(self._postgres, clinics, patients):
            self._say("Filled the demo database with made-up clinics")
        reader_uri, catalog_uri, restore_uri = databases.make_clinic_roles(self._postgres)
        self.state.endpoints = replace(
            self.state.endpoints, clinic_uri=reader_uri, catalog_uri=catalog_uri, restore_uri=restore_uri
        )
        self.state.save()
        if migration:
            self.state.finish(migration, limit_seconds=COMMAND_LIMIT_SECONDS)
            self.layout.migrated.write_text(release)

    def _api_port(self) -> int:
        if self._preferred_port is None:
            return free_port()
        if _is_free(self._preferred_port):
            return self._preferred_port
        port = free_port()
        self._say(f"Port {self._preferred_port} is in use; Airflow takes {port} instead")
        return port

    def _listens(self) -> bool:
        """Whether it is the API server that this demo has started, or a child of it, that listens at its port."""
        pids = [process.pid for process in self.state.processes if process.name == "api-server"]
        return any(listens(pid, self._endpoints.api_port) for pid in pids)

    def _wait(self, unready: Callable[[], Sequence[str]]) -> None:
        """:param unready: names the servers that are still waited for."""
        deadline = time.monotonic() + START_LIMIT_SECONDS
        while names := unready():
            self.state.require_alive()
            if time.monotonic() > deadline:
                raise self.state.failure(names[0], f"is not ready after {START_LIMIT_SECONDS} s")
            time.sleep(0.3)


def listens(pid: int, port: int) -> bool:
    """Whether a process or one of its children listens at a port of this machine."""
    try:
        family = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
        sockets = [each for process in family for each in process.net_connections("tcp")]
    except psutil.Error:
        return False
    return any(each.status == psutil.CONN_LISTEN and each.laddr.port == port for each in sockets)


def free_port() -> int:
    """A port that nothing uses now."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
        return True


def _python(module: str, *arguments: str) -> list[str]:
    return [sys.executable, "-m", module, *arguments]


def _run(command: list[str], variables: Mapping[str, str]) -> str:
    """Run a short command. :raises DemoError: it failed, took too long or is not installed; with what it said."""
    try:
        done = subprocess.run(
            command,
            env=dict(variables),
            cwd=CHECKOUT,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=COMMAND_LIMIT_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise DemoError(f"`{' '.join(command)}` failed: {error}") from error
    if done.returncode:
        said = (done.stderr or done.stdout).strip()
        raise DemoError(f"`{' '.join(command)}` failed with exit code {done.returncode}:\n{said}")
    return done.stdout
