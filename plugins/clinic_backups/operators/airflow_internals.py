"""The private names of Airflow that this package uses. No other module of the package imports such a name.

Airflow may move or change these names in any minor version:
https://airflow.apache.org/docs/apache-airflow/stable/public-airflow-interface.html. A test compares them with the
installed Airflow. They are needed because the page starts runs for people without rights in Airflow itself, reads runs
without anybody's token, and answers approvals as Airflow's own page does; and to create the pool.
Each name is imported when it is first used. A worker needs ``Stats`` alone, and goes on without it.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

TRIED = "3.3.2"
"""The version of Airflow that the tests run with."""
WHERE = {
    "DagModel": "airflow.models.dag",
    "DagRun": "airflow.models.dagrun",
    "DagRunTriggeredByType": "airflow.utils.types",
    "DagRunType": "airflow.utils.types",
    "GetUserDep": "airflow.api_fastapi.core_api.security",
    "HITLDetail": "airflow.models.hitl",
    "Pool": "airflow.models.pool",
    "Stats": "airflow.sdk.observability.stats",
    "TaskInstance": "airflow.models.taskinstance",
    "UpdateHITLDetailPayload": "airflow.api_fastapi.core_api.datamodels.hitl",
    "XComModel": "airflow.models.xcom",
    "conf": "airflow.configuration",
    "create_session": "airflow.utils.session",
    "get_import_errors": "airflow.plugins_manager",
    "trigger_dag": "airflow.api.common.trigger_dag",
    "update_hitl_detail": "airflow.api_fastapi.core_api.routes.public.hitl",
}


def __getattr__(name: str) -> Any:
    """Import a part of Airflow when it is first used.

    :raises AttributeError: it is not in ``WHERE``.
    :raises ImportError: the installed Airflow does not have it there.
    """
    if name not in WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        return getattr(import_module(WHERE[name]), name)
    except AttributeError as error:
        raise ImportError(f"cannot import name {name!r} from {WHERE[name]!r}", name=WHERE[name]) from error
