"""From a store's URL and a connection to an object store. A cloud's SDK is imported only when its URL is asked for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Unpack

from clinic_backups.base.connections import Connection
from clinic_backups.base.errors import SettingsError
from clinic_backups.base.settings import StoreOptions
from clinic_backups.stores.base import ObjectStore
from clinic_backups.stores.kinds import KINDS, StoreConfig, parse_url


def open_store(
    url: str,
    connection: Connection | None,
    **options: Unpack[StoreOptions],
) -> ObjectStore:
    """The store at ``url``, with a client made from ``connection``. Nothing is sent yet.

    :param connection: ``None`` for the credentials that the machine itself has (role, profile, environment).
    :param options: see :class:`StoreConfig`.
    :raises SettingsError: the URL, the connection or what they ask for together is wrong; never repeats a secret.
    """
    conn_type = parse_url(url).kind.conn_type
    if connection is not None and conn_type:
        require_type(connection, url)
        given = connection
    else:
        given = Connection(conn_id="(none)", conn_type=conn_type)
    return store_from_client(url, make_client(given), extra=given.extra, **options)


def require_type(connection: Connection, url: str) -> None:
    """:raises SettingsError: the connection is of another type than the store at ``url`` wants."""
    wanted = parse_url(url).kind.conn_type
    if connection.conn_type != wanted:
        raise SettingsError(
            f"Connection {connection.conn_id!r} is of type {connection.conn_type!r}, which does not fit {url!r}.",
            hint=f"Use a connection of type {wanted!r}.",
        )


def make_client(connection: Connection) -> Any:
    """The SDK's client for a connection that one of the stores takes.

    :raises SettingsError: the connection does not suffice; never repeats a secret.
    """
    (kind,) = (kind for kind in KINDS.values() if kind.conn_type == connection.conn_type)
    return kind.load().make_client(connection)


def store_from_client(
    url: str, client: Any, *, extra: Mapping[str, Any] | None = None, **options: Unpack[StoreOptions]
) -> ObjectStore:
    """The store at ``url`` around a ready client, such as those of Airflow's hooks.

    :param extra, options: see :class:`StoreConfig`.
    :raises SettingsError: the URL is wrong, or the store cannot do what is asked of it.
    """
    place = parse_url(url)
    return place.kind.load().make_store(client, place, StoreConfig(**options, extra=extra or {}))
