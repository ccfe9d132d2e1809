"""Opens a store from its URL and a connection. A cloud's SDK is imported only when its URL is used."""

from __future__ import annotations

from typing import Any, Unpack

from clinic_backups.base.connections import Connection
from clinic_backups.base.errors import SettingsError
from clinic_backups.base.settings import StoreOptions
from clinic_backups.stores.base import ObjectStore
from clinic_backups.stores.kinds import StoreConfig, parse_url


def open_store(
    url: str,
    connection: Connection | None,
    **options: Unpack[StoreOptions],
) -> ObjectStore:
    """The store at ``url``, with a client made from ``connection``. Nothing is sent yet.

    :param connection: ``None`` for the machine's own credentials (role, profile, environment).
    :param options: see :class:`StoreConfig`.
    :raises SettingsError: the URL or the connection is wrong, or they do not fit together. Never repeats a secret.
    """
    kind = parse_url(url).kind
    if connection is not None and kind.conn_type:
        require_type(connection, url)
        given = connection
    else:
        given = Connection(conn_id="(none)", conn_type=kind.conn_type)
    return store_from_client(url, kind.load().make_client(given), connection=given, **options)


def require_type(connection: Connection, url: str) -> None:
    """:raises SettingsError: the connection does not have the type that the store at ``url`` needs."""
    wanted = parse_url(url).kind.conn_type
    if connection.conn_type != wanted:
        raise SettingsError(
            f"Connection {connection.conn_id!r} is of type {connection.conn_type!r}, which does not fit {url!r}.",
            hint=f"Use a connection of type {wanted!r}.",
        )


def store_from_client(
    url: str, client: Any, *, connection: Connection | None = None, **options: Unpack[StoreOptions]
) -> ObjectStore:
    """The store at ``url`` around a ready client, such as those of Airflow's hooks.

    :param connection, options: see :class:`StoreConfig`.
    :raises SettingsError: the URL or the connection's extra is wrong, or the store does not support the options.
    """
    place = parse_url(url)
    return place.kind.load().make_store(client, place, StoreConfig(**options, connection=connection))
