"""The store as Airflow's tasks reach it: through the providers' hooks, which know every way to log in."""

from __future__ import annotations

import json
from copy import copy
from dataclasses import dataclass
from typing import Any

from clinic_backups.operators.connections import find_connection
from clinic_backups.settings import Settings
from clinic_backups.stores.base import ObjectStore
from clinic_backups.stores.connect import (
    conditional_writes,
    open_store,
    parse_url,
    require_type,
    s3_config,
    store_from_client,
)


@dataclass(frozen=True)
class Store:
    """The upload stage as a DAG file names it; the place comes from the settings (``CLINIC_BACKUPS_STORE_URL``).

    :param conn_id: the connection of type aws, google_cloud_platform or wasb. Where nobody has defined it, the
        credentials of the machine itself are used; a ``file://`` store needs none.
    """

    conn_id: str = "backup_store"

    def open(self, settings: Settings, url: str, conn_id: str) -> ObjectStore:
        """The store at a URL. :raises SettingsError: the URL or the connection is wrong."""
        scheme = parse_url(url).scheme
        connection = find_connection(conn_id) if scheme != "file" else None
        if connection is None:
            return open_store(url, None, **settings.store_options(url))
        require_type(connection, url)
        hooks = {"s3": lambda: _s3(conn_id, s3_config(connection)), "gs": lambda: _gcs(conn_id)}
        client = hooks.get(scheme, lambda: _azure(conn_id))()
        return store_from_client(
            url, client, **settings.store_options(url), conditional_writes=conditional_writes(connection.extra)
        )


def _s3(conn_id: str, config: Any) -> Any:
    from airflow.providers.amazon.aws.hooks.s3 import S3Hook

    return S3Hook(aws_conn_id=conn_id, config=config).get_conn()


def _gcs(conn_id: str) -> Any:
    from airflow.providers.google.cloud.hooks.gcs import GCSHook

    return GCSHook(gcp_conn_id=conn_id).get_conn()


def _azure(conn_id: str) -> Any:
    from airflow.providers.microsoft.azure.hooks.wasb import WasbHook
    from airflow.sdk import Connection

    from clinic_backups.stores.azure import CLIENT_OPTIONS

    class BoundedWasbHook(WasbHook):
        """With our time-outs: the hook hands the connection's extra to the client, and has no other way in."""

        @classmethod
        def get_connection(cls, conn_id: str) -> Connection:
            connection = copy(super().get_connection(conn_id))
            connection.extra = json.dumps(CLIENT_OPTIONS | connection.extra_dejson)
            return connection

    return BoundedWasbHook(wasb_conn_id=conn_id).get_conn()
