"""The button of a clinic's task that leads to its backup."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from airflow.sdk import BaseOperatorLink
from airflow.sdk.configuration import conf as airflow_conf

if TYPE_CHECKING:
    from airflow.sdk.types import TaskInstanceKey


def airflow_url() -> str:
    """Where Airflow's web UI is, without a slash at its end; empty where ``[api] base_url`` is not set."""
    return str(airflow_conf.get("api", "base_url", fallback="")).rstrip("/")


class BackupLink(BaseOperatorLink):
    """The page of one clinic's backup in one run. The page looks for the record: so it is there for a failed one too.

    Airflow asks for it in the task's own process once the task has ended, and keeps the answer as an XCom.
    """

    name = "Backup"

    def get_link(self, operator: Any, *, ti_key: TaskInstanceKey) -> str:
        """Relative to Airflow's own address where ``[api] base_url`` is not set.

        :param operator: that of one clinic: Airflow takes it out of the mapped one before anything of it can fail.
        """
        return f"{airflow_url()}/backups/ui/clinics/{operator.clinic['id']}/runs/{quote(ti_key.run_id, safe='')}"
