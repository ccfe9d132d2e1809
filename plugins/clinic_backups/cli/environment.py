"""The parts of the command line: settings and connections from the environment alone."""

from __future__ import annotations

import os

from clinic_backups import connections, settings
from clinic_backups.connections import Connection
from clinic_backups.parts import Parts


def parts() -> Parts:
    """The parts of this process. :raises SettingsError: a setting is wrong."""
    return Parts(settings.load(), _find)


def _find(conn_id: str) -> Connection | None:
    defined = os.environ.get(f"AIRFLOW_CONN_{conn_id.upper()}")
    return connections.from_environment(conn_id, os.environ) if defined else None
