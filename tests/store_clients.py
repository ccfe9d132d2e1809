"""Clients of stores, made from a connection alone: the product makes them for a URL."""

from __future__ import annotations

from typing import Any

from clinic_backups.base.connections import Connection
from clinic_backups.stores.kinds import KINDS


def make_client(connection: Connection) -> Any:
    """The client of the first kind of store that has this type of connection."""
    return (
        next(kind for kind in KINDS.values() if kind.conn_type == connection.conn_type).load().make_client(connection)
    )
