"""The core's objects, built with Airflow's connections and hooks."""

from __future__ import annotations

from clinic_backups.app import Parts
from clinic_backups.base.load_settings import load
from clinic_backups.base.settings import Settings
from clinic_backups.operators.airflow_connections import find_connection
from clinic_backups.operators.airflow_store import Store
from clinic_backups.stores.base import ObjectStore


class AirflowParts(Parts):
    """The objects of one task. :raises SettingsError: a setting is wrong."""

    def __init__(self, upload: Store | None = None, *, usable: Settings | None = None) -> None:
        """Read the settings and find the connections in Airflow.

        :param usable: use these settings although others are wrong. Only for notifying people, see ``load_usable``.
        """
        super().__init__(usable or load(), find_connection)
        self._upload = upload or Store()

    def open_store(self, url: str, conn_id: str) -> ObjectStore:
        """Open a store with the provider's hook."""
        primary = conn_id == "backup_store"
        return self._upload.open(self.settings, url, self._upload.conn_id if primary else conn_id)
