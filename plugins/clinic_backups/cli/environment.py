"""The command line's objects, from settings and connections in the environment."""

from __future__ import annotations

import os

from clinic_backups.app import Parts
from clinic_backups.base import connections
from clinic_backups.base.clinic_id import ClinicId, nearest
from clinic_backups.base.connections import Connection
from clinic_backups.base.errors import SettingsError
from clinic_backups.base.load_settings import load

SHOWN = 3


def parts() -> Parts:
    """The parts of this process. :raises SettingsError: a setting is wrong."""
    return Parts(load(), _find)


def require_known_clinic(with_parts: Parts, clinic_id: ClinicId | None) -> None:
    """:raises SettingsError: the catalog has no backup of the clinic, so the command would silently do nothing."""
    if clinic_id is None or clinic_id in (known := with_parts.catalog.clinic_ids()):
        return
    near = nearest(clinic_id, known)[:SHOWN]
    raise SettingsError(
        f"The catalog has no backup of clinic {clinic_id}.",
        hint=f"Did you mean {' or '.join(map(str, near))}? `clinic-backups list` shows all."
        if near
        else "`clinic-backups list` shows which clinics have backups.",
    )


def _find(conn_id: str) -> Connection | None:
    defined = os.environ.get(f"AIRFLOW_CONN_{conn_id.upper()}")
    return connections.from_environment(conn_id, os.environ) if defined else None
