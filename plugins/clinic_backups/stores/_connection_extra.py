"""Reads a connection's extra as Airflow's providers do."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from clinic_backups.base.connections import Connection
from clinic_backups.base.errors import SettingsError


def text(connection: Connection, name: str) -> str:
    """A text in the extra, under its name or under the long name of older Airflow versions; empty if it is missing.

    :raises SettingsError: it is something else, such as a number.
    """
    value = connection.extra.get(name) or connection.extra.get(f"extra__{connection.conn_type}__{name}")
    if value is None or isinstance(value, str):
        return value or ""
    raise SettingsError(
        f"Connection {connection.conn_id!r}: {name} in the extra is not a text.", hint="Write it in quotes."
    )


def mapping(connection: Connection, name: str) -> Mapping[str, Any]:
    """An object in the extra, which may also be JSON text."""
    value = connection.extra.get(name) or connection.extra.get(f"extra__{connection.conn_type}__{name}") or {}
    try:
        found = json.loads(value) if isinstance(value, str) else value
    except ValueError:
        found = None
    if not isinstance(found, Mapping):
        raise SettingsError(
            f"Connection {connection.conn_id!r}: {name} in the extra is not a JSON object.", hint="Correct the extra."
        )
    return found


def unusable(connection: Connection, error: Exception, wanted: str) -> SettingsError:
    return SettingsError(
        f"Connection {connection.conn_id!r} does not give a usable client ({type(error).__name__}).",
        hint=f"Check its {wanted}.",
    )
