"""Starts and stops Airflow with Celery: two kinds of workers, Redis, an S3 store, and PostgreSQL."""

from __future__ import annotations

import secrets
import shutil
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import ClassVar

from include.demo import databases
from include.demo.distributed.accounts import Account, different
from include.demo.distributed.broker import Broker
from include.demo.distributed.object_store import BUCKET, ObjectStore, free_ports
from include.demo.distributed.python import Python, beside, reads_packages
from include.demo.distributed.workers import Worker
from include.demo.environment import options
from include.demo.layout import CHECKOUT, DemoError, Layout, Secrets
from include.demo.processes import Process
from include.demo.stack import Say, Stack
from include.demo.state import State

DISTRIBUTED = CHECKOUT / ".demo-distributed"
RESULTS = "celery_results"
QUEUE, RESTORE_QUEUE = "backups", "restores"
READY_LIMIT_SECONDS = 60
SLOTS = 2
SECRETS_OF_RESTORES = ("CLINIC_BACKUPS_IDENTITY_FILE", "AIRFLOW_CONN_RESTORE_DB")

CELERY: Mapping[str, Mapping[str, object]] = {
    "celery": {
        # While Redis is away, nothing is lost and nothing has failed: Airflow goes on trying to hand the task over.
        "task_publish_max_retries": 1_000_000,
        "extra_celery_config": '{"task_publish_retry_policy": {"max_retries": 1000000, "interval_max": 1}}',
    },
    "celery_broker_transport_options": {"visibility_timeout": 86400},
    "scheduler": {
        # A task that was handed over and has not begun is handed over again, without costing a retry.
        "task_queued_timeout": 60,
        "task_queued_timeout_check_interval": 15,
        "num_stuck_in_queued_retries": 1_000_000,
        # A task whose worker sends no sign of life is tried again.
        "task_instance_heartbeat_timeout": 120,
    },
    # A task whose API server is away waits for it, and asks often enough not to be given up when it is back.
    "workers": {"execution_api_retries": 60, "execution_api_retry_wait_max": 5},
}
"""The same as in docker-compose.yaml. What each does: docs/operations.md."""
SILENCE_SECONDS = 40
"""How long the demo waits for a sign of life: less than docker-compose.yaml, so that the story is short."""


class DistributedStack(Stack):
    """The servers of :class:`Stack`, with Celery for the tasks. Nothing needs a triggerer here."""

    SERVERS: ClassVar[Mapping[str, Sequence[str]]] = {
        "api-server": (),
        "scheduler": ("--skip-serve-logs",),
        "dag-processor": (),
    }

    def __init__(
        self, layout: Layout, state: State, kept: Secrets, say: Say, changes: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(layout, state, kept, say, changes, api_port=None)
        self.store = ObjectStore(layout.root / "s3", secrets.token_hex(10), secrets.token_hex(20))
        self.broker = Broker(layout.root / "redis", free_ports(1)[0], secrets.token_hex(24))
        self.workers: dict[str, Worker] = {}
        self.same_user = ""
        self._results = ""

    def start(self, *, clinics: int | None, patients: int | None) -> None:
        """Start everything anew; nothing of an earlier run is kept but its secrets."""
        for name in ("pgdata", "python", "s3", "redis", "workers", "logs", "mail", "store"):
            shutil.rmtree(self.layout.root / name, ignore_errors=True)
        self.layout.make()
        self.layout.workers.mkdir(mode=0o711)
        # Others may pass through to their own folders below. Everything else here is closed to them.
        for folder in (self.layout.root, self.layout.workers):
            folder.chmod(0o711)
        self._say("Starting Redis and the S3 store")
        self.start_broker()
        self.state.start("store", self.store.command(), self._plain() | self.store.variables)
        self._postgres.start()
        self._results = databases.make_owned_database(self._postgres, RESULTS, secrets.token_hex(24))
        self.wait_for("redis", self.broker.answers)
        self.wait_for("store", self.store.answers)
        super().start(clinics=clinics, patients=patients)
        self._start_workers()

    def stop(self) -> None:
        """Stop everything."""
        super().stop()
        self.store.tidy()

    def variables(self) -> dict[str, str]:
        """The environment of the servers. They have no secret key, and no connection for restores."""
        celery = {
            "core": {"executor": "CeleryExecutor"},
            "scheduler": {"task_instance_heartbeat_timeout": SILENCE_SECONDS},
            "celery": {"broker_url": self.broker.url, "result_backend": f"db+{self._results}"},
            # No folder is shared: the API server reads the logs of tasks in the store.
            "logging": {
                "remote_logging": True,
                "remote_base_log_folder": f"s3://{BUCKET}/logs",
                "remote_log_conn_id": "backup_store",
            },
        }
        own = {
            "AIRFLOW_CONN_BACKUP_STORE": self.store.connection,
            "CLINIC_BACKUPS_STORE_URL": f"s3://{BUCKET}/clinics",
            "CLINIC_BACKUPS_QUEUE": QUEUE,
            "CLINIC_BACKUPS_RESTORE_QUEUE": RESTORE_QUEUE,
            "CLINIC_BACKUPS_RETRY_DELAY_SECONDS": "1",
        }
        everything = super().variables() | options(CELERY) | options(celery) | own | self._changes
        return {name: value for name, value in everything.items() if name not in SECRETS_OF_RESTORES}

    def start_broker(self) -> Process:
        """Start Redis; also again, after it was killed."""
        return self.state.start("redis", self.broker.command(), self._plain())

    def start_worker(self, worker: Worker) -> Process:
        """Start a worker, and return once it takes tasks."""
        if not worker.folder.exists():
            worker.make()
        self.workers[worker.name] = worker
        variables = worker.variables(self.variables())
        process = self.state.start(worker.name, worker.command(SLOTS), variables, worker.folder)
        log = self.state.log(worker.name)
        self.wait_for(worker.name, lambda: " ready." in log.read_text(errors="replace"))
        return process

    def backup_worker(self, number: int) -> Worker:
        """A worker for backups: it has the public key alone."""
        return self._worker(f"backup-worker-{number}", self._accounts[0], QUEUE, {"CLINIC_BACKUPS_THROTTLE_MB_S": "8"})

    def wait_for(self, name: str, ready: Callable[[], bool], limit_seconds: float = READY_LIMIT_SECONDS) -> None:
        """:raises DemoError: a server has ended, or what is waited for does not happen."""
        deadline = time.monotonic() + limit_seconds
        while not ready():
            self.state.require_alive()
            if time.monotonic() > deadline:
                raise self.state.failure(name, f"is not ready after {limit_seconds:.0f} s")
            time.sleep(0.1)

    def process(self, name: str) -> Process:
        """The running program with this name. :raises DemoError: no such program runs."""
        for process in self.state.processes:
            if process.name == name:
                return process
        raise DemoError(f"{name} does not run.")

    def running_workers(self) -> list[Process]:
        """The workers' programs."""
        return [process for process in self.state.processes if process.name in self.workers]

    def forget(self, process: Process) -> None:
        """Take note that a program was ended on purpose."""
        self.state.processes.remove(process)
        self.state.save()

    def _start_workers(self) -> None:
        self._accounts, self._python, self.same_user = self._who()
        self.start_worker(self.backup_worker(1))
        restores = self._worker(
            "restore-worker",
            self._accounts[1],
            RESTORE_QUEUE,
            {
                "AIRFLOW_CONN_RESTORE_DB": self._endpoints.restore_uri,
                "CLINIC_BACKUPS_IDENTITY_FILE": str(self.layout.workers / "restore-worker" / "identity.txt"),
            },
        )
        restores.make()
        shutil.copy(self.layout.identity, restores.folder / "identity.txt")
        (restores.folder / "identity.txt").chmod(0o600)
        restores.account.own(restores.folder)
        self.start_worker(restores)

    def _who(self) -> tuple[list[Account], Python, str]:
        """The users of the two kinds of workers, their Python, and why they are not different users."""
        accounts, reason = different(2)
        if accounts:
            if all(Python().works_for(account) for account in accounts):
                return accounts, Python(), ""
            if all(reads_packages(account) for account in accounts):
                python = beside(self.layout.root / "python")
                if all(python.works_for(account) for account in accounts):
                    return accounts, python, ""
            reason = f"other users cannot read what is installed in {sys.prefix}"
        return [Account()] * 2, Python(), reason

    def _worker(self, name: str, account: Account, queue: str, own: Mapping[str, str]) -> Worker:
        return Worker(name, self.layout.workers / name, account, self._python, queue, own)

    def _plain(self) -> dict[str, str]:
        return {"PATH": f"{sys.prefix}/bin:/usr/bin:/bin", "HOME": str(self.layout.home), "LC_ALL": "C.UTF-8"}
