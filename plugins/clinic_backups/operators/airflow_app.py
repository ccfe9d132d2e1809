"""The core's objects, built with Airflow's connections and hooks."""

from __future__ import annotations

from clinic_backups.app import Parts
from clinic_backups.base.errors import SettingsError
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

    def _without_identity(self) -> SettingsError:
        """A worker that backs up has no secret key, and must not get one: the task belongs to another worker."""
        queue = self.settings.restore_queue
        if queue:
            hint = (
                f"It should have run on queue {queue!r} (CLINIC_BACKUPS_RESTORE_QUEUE). Which workers serve that queue?"
            )
        else:
            hint = (
                "Set CLINIC_BACKUPS_RESTORE_QUEUE to a queue that only workers with the secret key serve. Where one"
                " worker does everything, see docs/install.md. In Kubernetes, see docs/kubernetes.md."
            )
        return SettingsError("This worker has no secret key, and the task needs it.", hint=hint)

    def open_store(self, url: str, conn_id: str) -> ObjectStore:
        """Open a store with the provider's hook."""
        primary = conn_id == "backup_store"
        return self._upload.open(self.settings, url, self._upload.conn_id if primary else conn_id)
