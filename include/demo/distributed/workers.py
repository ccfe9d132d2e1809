"""A Celery worker: its user, its folder with everything that it writes, and the only variables that it gets."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from include.demo.distributed.accounts import Account
from include.demo.distributed.python import Python
from include.demo.layout import CHECKOUT

OF_THE_SERVERS = (
    "AIRFLOW__CORE__FERNET_KEY",
    "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE",
    "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS",
    "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN",
    "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN_ASYNC",
    "AIRFLOW__API__SECRET_KEY",
    "AIRFLOW__API_AUTH__JWT_SECRET",
    "AIRFLOW__LOGGING__DAG_PROCESSOR_CHILD_PROCESS_LOG_DIRECTORY",
)
"""Variables that no worker gets: Airflow's database, and the secrets of its API. A worker needs none of them."""


@dataclass(frozen=True)
class Worker:
    """One worker.

    :param folder: belongs to its user, and nobody else can open it.
    :param own: the variables that only this worker has, beside those of all programs.
    """

    name: str
    folder: Path
    account: Account
    python: Python
    queue: str
    own: Mapping[str, str]

    def make(self) -> None:
        """Make the folder: the worker's own copies of the DAG files and the SQL, and places for what it writes."""
        for name in ("airflow", "home", "tmp", "logs", "plugins"):
            (self.folder / name).mkdir(mode=0o700, parents=True)
        for name, source in (("dags", CHECKOUT / "dags"), ("sql", CHECKOUT / "include" / "sql")):
            shutil.copytree(source, self.folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        self.account.own(self.folder)

    def command(self, concurrency: int) -> list[str]:
        """The command that starts it."""
        words = ["celery", "worker", "--skip-serve-logs", "--queues", self.queue, "--concurrency", str(concurrency)]
        # Each worker has its own name: they run on one machine here.
        worker = [self.python.program, "-m", "airflow", *words, "--celery-hostname", f"{self.name}@%h"]
        return self.account.command(worker)

    def variables(self, common: Mapping[str, str]) -> dict[str, str]:
        """Its environment. :param common: that of the servers."""
        kept = {name: value for name, value in common.items() if name not in OF_THE_SERVERS}
        return kept | {
            "HOME": str(self.folder / "home"),
            "TMPDIR": str(self.folder / "tmp"),
            "USER": self.name,
            "LOGNAME": self.name,
            "AIRFLOW_HOME": str(self.folder / "airflow"),
            "AIRFLOW__CORE__DAGS_FOLDER": str(self.folder / "dags"),
            # The plugin comes with the installed package.
            "AIRFLOW__CORE__PLUGINS_FOLDER": str(self.folder / "plugins"),
            "AIRFLOW__LOGGING__BASE_LOG_FOLDER": str(self.folder / "logs"),
            "CLINIC_BACKUPS_SQL_DIR": str(self.folder / "sql"),
            **self.python.variables,
            **self.own,
        }  # fmt: skip
