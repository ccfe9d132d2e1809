"""Opens the store for Airflow's tasks through the providers' hooks, which support every way to log in."""

from __future__ import annotations

import json
from collections.abc import Mapping
from copy import copy
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from clinic_backups.base.connections import Connection
from clinic_backups.base.settings import Settings
from clinic_backups.operators.airflow_connections import find_connection
from clinic_backups.stores.base import ObjectStore
from clinic_backups.stores.connect import open_store, require_type, store_from_client
from clinic_backups.stores.kinds import AirflowHook, parse_url


@dataclass(frozen=True)
class Store:
    """The upload stage for DAG files. Its URL comes from the settings (``CLINIC_BACKUPS_STORE_URL``).

    :param conn_id: the connection of type aws, google_cloud_platform or wasb. If it is not defined, the machine's own
        credentials are used; a ``file://`` store needs none.
    """

    conn_id: str = "backup_store"

    def open(self, settings: Settings, url: str, conn_id: str) -> ObjectStore:
        """The store at a URL. :raises SettingsError: the URL or the connection is wrong."""
        module = parse_url(url).kind.load()
        connection = find_connection(conn_id) if module.HOOK is not None else None
        if connection is None or module.HOOK is None:
            return open_store(url, None, **settings.store_options(url))
        require_type(connection, url)
        client = _client(module.HOOK, connection)
        return store_from_client(url, client, connection=connection, **settings.store_options(url))


def _client(hook: AirflowHook, connection: Connection) -> Any:
    module, _, name = hook.path.rpartition(".")
    made: Any = getattr(import_module(module), name)
    if hook.extra:
        made = _with_extra(made, hook.extra)
    return made(**{hook.conn_argument: connection.conn_id}, **hook.arguments(connection)).get_conn()


def _with_extra(base: Any, extra: Mapping[str, Any]) -> Any:
    class Hook(base):  # type: ignore[misc]
        """The provider's hook, with defaults for its connection's extra."""

        @classmethod
        def get_connection(cls, conn_id: str) -> Any:
            found = copy(super().get_connection(conn_id))
            found.extra = json.dumps({**extra, **found.extra_dejson})
            return found

    return Hook
