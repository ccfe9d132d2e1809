"""The link from a clinic's task to its backup."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from airflow.sdk import BaseOperatorLink
from airflow.sdk.configuration import conf as airflow_conf

from clinic_backups.base.clinic_id import clinic_id_of, component_of

if TYPE_CHECKING:
    from airflow.sdk.types import TaskInstanceKey


def airflow_url() -> str:
    """The address of Airflow's web UI, without a final slash; empty if ``[api] base_url`` is not set."""
    return str(airflow_conf.get("api", "base_url", fallback="")).rstrip("/")


class BackupLink(BaseOperatorLink):
    """Links to the page of one clinic's backup in one run. That page looks up the record, so it works for a failed one.

    Airflow asks for the link in the task's own process after the task has ended, and stores it as an XCom.
    """

    name = "Backup"

    def get_link(self, operator: Any, *, ti_key: TaskInstanceKey) -> str:
        """The link; relative to Airflow's own address if ``[api] base_url`` is not set.

        :param operator: the operator of one clinic. Airflow takes it from the mapped operator first.
        """
        if "clinics" in operator.clinic:
            return f"{airflow_url()}/backups/ui/"
        clinic = quote(component_of(clinic_id_of(operator.clinic["id"])), safe="")
        return f"{airflow_url()}/backups/ui/clinics/{clinic}/runs/{quote(ti_key.run_id, safe='')}"
