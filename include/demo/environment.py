"""The environment of every process of the demo: settings of Airflow and of the package, without the caller's variables.

Airflow's options: https://airflow.apache.org/docs/apache-airflow/stable/configurations-ref.html
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from include.demo.layout import CHECKOUT, WEB_USERS, Layout, Secrets, public_key

HOST = "127.0.0.1"
KEPT = ("PATH", "HOME", "USER", "LOGNAME", "TERM", "TMPDIR", "SSL_CERT_FILE", "SSL_CERT_DIR")


@dataclass(frozen=True)
class Endpoints:
    """The addresses of the servers of one start, and how the package logs in to the database."""

    api_port: int
    smtp_port: int
    airflow_uri: str
    clinic_uri: str
    catalog_uri: str
    restore_uri: str

    @property
    def url(self) -> str:
        """Address of the web page and the API."""
        return f"http://{HOST}:{self.api_port}"


def build(
    layout: Layout, secrets: Secrets, endpoints: Endpoints, caller: Mapping[str, str] = os.environ
) -> dict[str, str]:
    """All variables of a process of the demo."""
    return _of_caller(layout, caller) | _of_airflow(layout, secrets, endpoints) | _of_package(layout, endpoints)


def options(sections: Mapping[str, Mapping[str, object]]) -> dict[str, str]:
    """Options of Airflow as variables. :param sections: of each section the options with their values."""
    return {
        f"AIRFLOW__{section}__{option}".upper(): str(value)
        for section, values in sections.items()
        for option, value in values.items()
    }


def _of_caller(layout: Layout, caller: Mapping[str, str]) -> dict[str, str]:
    """The variables that a program needs from the caller.

    All others (AIRFLOW_*, PG*, PYTHON*, clouds' keys, proxies) are left out.
    """
    kept = {name: caller[name] for name in KEPT if name in caller}
    kept["PATH"] = os.pathsep.join((str(Path(sys.executable).parent), kept.get("PATH", os.defpath)))
    if not os.access(kept.get("HOME", ""), os.W_OK):
        kept["HOME"] = str(layout.home)
    # BLAS starts a thread per core at import, in every worker, and nothing here computes with it.
    threads = dict.fromkeys(("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    return kept | threads | {"LC_ALL": "C.UTF-8", "TZ": "UTC", "PYTHONUNBUFFERED": "1", "NO_PROXY": "*"}


def _of_airflow(layout: Layout, secrets: Secrets, endpoints: Endpoints) -> dict[str, str]:
    values: Mapping[str, Mapping[str, object]] = {
        "core": {
            "dags_folder": CHECKOUT / "dags",
            "plugins_folder": CHECKOUT / "plugins",
            "load_examples": False,
            "executor": "LocalExecutor",
            "parallelism": 4,
            "hostname_callable": "socket.gethostname",
            "max_templated_field_length": 65536,
            "fernet_key": secrets.fernet_key,
            "simple_auth_manager_users": ",".join(f"{user}:{role}" for user, role in WEB_USERS.items()),
            "simple_auth_manager_passwords_file": layout.passwords,
            "execution_api_server_url": f"{endpoints.url}/execution/",
        },
        "database": {
            "sql_alchemy_conn": endpoints.airflow_uri.replace("postgresql://", "postgresql+psycopg2://", 1),
            "sql_alchemy_conn_async": endpoints.airflow_uri.replace("postgresql://", "postgresql+asyncpg://", 1),
        },
        "api": {
            "host": HOST,
            "port": endpoints.api_port,
            "base_url": endpoints.url,
            "workers": 1,
            "secret_key": secrets.api_secret_key,
            "instance_name": "clinic-backups demo",
        },
        "api_auth": {"jwt_secret": secrets.jwt_secret, "jwt_issuer": "clinic-backups-demo"},
        "logging": {
            "base_log_folder": layout.logs / "tasks",
            "dag_processor_child_process_log_directory": layout.logs / "dag-files",
            "file_task_handler_new_folder_permissions": "0o700",
            "file_task_handler_new_file_permissions": "0o600",
            "colored_console_log": False,
            # Nobody listens there: the API server reads the files itself. Airflow's log servers bind to all addresses.
            "worker_log_server_port": 1,
            "trigger_log_server_port": 1,
        },
        "scheduler": {"enable_health_check": False, "scheduler_heartbeat_sec": 2},
        # A worker may notice only at its next heartbeat that its task has ended; the default of 5 s is long for a demo.
        "workers": {"min_heartbeat_interval": 1},
        "dag_processor": {
            "parsing_processes": 1,
            "refresh_interval": 5,
            "bundle_refresh_check_interval": 2,
            "min_file_process_interval": 15,
        },
    }
    return {"AIRFLOW_HOME": str(layout.airflow)} | options(values)


def _of_package(layout: Layout, endpoints: Endpoints) -> dict[str, str]:
    return {
        "CLINIC_BACKUPS_STORE_URL": layout.store.as_uri(),
        "CLINIC_BACKUPS_RECIPIENTS": public_key(layout),
        "CLINIC_BACKUPS_TIME_ZONE": "America/La_Paz",
        "CLINIC_BACKUPS_OPERATOR_EMAILS": "guardia@saas.example",
        "CLINIC_BACKUPS_SUPPORT_CONTACT": "soporte@saas.example",
        "AIRFLOW_CONN_CLINIC_DB": endpoints.clinic_uri,
        "AIRFLOW_CONN_BACKUP_CATALOG": endpoints.catalog_uri,
        # One machine plays all parts here: elsewhere only workers that restore get these two.
        "AIRFLOW_CONN_RESTORE_DB": endpoints.restore_uri,
        "CLINIC_BACKUPS_IDENTITY_FILE": str(layout.identity),
        "AIRFLOW_CONN_SMTP_DEFAULT": (
            f"smtp://{HOST}:{endpoints.smtp_port}/?disable_ssl=true&disable_tls=true"
            "&from_email=backups%40clinica.example&timeout=10&retry_limit=1"
        ),
    }
