"""The kinds of stores. Each has one line here and one module, which is imported when its URL is first used."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any, Protocol, cast
from urllib.parse import unquote, urlsplit

from clinic_backups.base.connections import Connection
from clinic_backups.base.errors import PermanentError, SettingsError
from clinic_backups.stores._wire import check_key
from clinic_backups.stores.base import LockMode, ObjectStore

_BUCKET = re.compile(r"[A-Za-z0-9$][A-Za-z0-9._-]{1,221}\Z")


@dataclass(frozen=True)
class StoreConfig:
    """The options of a store.

    :param encryption: ``Settings.encryption_at_store``.
    :param lock_mode: for objects that are stored with ``locked_until``.
    :param connection: its extra may have more options. ``None``: there is no connection.
    """

    encryption: tuple[str, str] = ("none", "")
    lock_mode: LockMode = "governance"
    connection: Connection | None = None


@dataclass(frozen=True)
class AirflowHook:
    """The provider's hook that logs in as Airflow does.

    :param path: import path of the class.
    :param conn_argument: the argument's name for the connection's id.
    :param arguments: returns its further arguments for a connection.
    :param extra: defaults for the connection's extra.
    """

    path: str
    conn_argument: str
    arguments: Callable[[Connection], Mapping[str, Any]] = lambda connection: {}
    extra: Mapping[str, Any] = field(default_factory=dict)


class StoreModule(Protocol):
    """The interface of a kind's module."""

    @property
    def HOOK(self) -> AirflowHook | None:
        """The hook of Airflow's provider; ``None`` if no client is needed."""

    def make_client(self, connection: Connection) -> Any:
        """The SDK's client, with time-outs and limited retries.

        :raises SettingsError: the connection is incomplete. Never repeats a secret.
        """

    def make_store(self, client: Any, place: StoreUrl, config: StoreConfig) -> ObjectStore:
        """The store around a ready client. :raises SettingsError: it does not support the options."""


@dataclass(frozen=True)
class StoreKind:
    """One kind of stores.

    :param form: the form of its URLs.
    :param module: name of the :class:`StoreModule` in ``clinic_backups.stores``.
    :param name: its name for people, the same in every language; empty for a folder, which has a word in each.
    :param conn_type: Airflow's type of its connection; empty if it needs none, and then its URLs hold a path.
    """

    scheme: str
    form: str
    module: str
    name: str = ""
    conn_type: str = ""

    def load(self) -> StoreModule:
        """Import its module, and with it the cloud's SDK."""
        return cast(StoreModule, import_module(f"clinic_backups.stores.{self.module}"))


KINDS = {
    kind.scheme: kind
    for kind in (
        StoreKind("s3", "s3://bucket/prefix", "s3", "S3", "aws"),
        StoreKind("gs", "gs://bucket/prefix", "gcs", "Google Cloud Storage", "google_cloud_platform"),
        StoreKind("az", "az://container/prefix", "azure", "Azure Blob Storage", "wasb"),
        StoreKind("file", "file:///absolute/path", "file"),
    )
}
_FORMS = f"Use {', '.join(kind.form for kind in KINDS.values())}."


@dataclass(frozen=True)
class StoreUrl:
    """The parts of a store's URL. For a folder, the bucket is empty and the prefix is the absolute path."""

    scheme: str
    bucket: str
    prefix: str

    @property
    def kind(self) -> StoreKind:
        """The kind of store."""
        return KINDS[self.scheme]


def name_of(url: str) -> str:
    """The name of a store's kind for people; empty for a folder, and for a kind that is no longer known."""
    kind = KINDS.get(url.partition(":")[0])
    return kind.name if kind is not None else ""


def parse_url(url: str) -> StoreUrl:
    """Take a store's URL apart.

    :raises SettingsError: it is not a store's URL. The message leaves out credentials in it.
    """
    try:
        parts = urlsplit(url)
    except ValueError:
        raise SettingsError("The store's URL is malformed.", hint=_FORMS) from None
    if parts.scheme not in KINDS or "://" not in url or not url.isprintable():
        raise SettingsError(f"The store's URL has an unknown kind ({_without_secrets(url)!r}).", hint=_FORMS)
    shown = _without_secrets(url)
    if "@" in url or parts.query or parts.fragment:
        raise SettingsError(
            f"The store's URL {shown!r} contains credentials or options.",
            hint="Put credentials and options into the connection. " + _FORMS,
        )
    kind = KINDS[parts.scheme]
    is_path = not kind.conn_type
    if is_path:
        path = unquote(parts.path)
        if parts.netloc not in ("", "localhost") or not path.strip("/"):
            raise SettingsError(f"The store's URL {shown!r} is not an absolute path.", hint=f"Use {kind.form}.")
        prefix = path
    else:
        if not _BUCKET.match(parts.netloc):
            raise SettingsError(f"The store's URL {shown!r} has no valid bucket name.", hint=_FORMS)
        prefix = parts.path.strip("/")
    if prefix.strip("/"):
        try:
            check_key(prefix.strip("/"), what="prefix")
        except PermanentError as error:
            raise SettingsError(f"The store's URL {shown!r}: {error.message}", hint=error.hint) from None
    return StoreUrl(parts.scheme, "" if is_path else parts.netloc, prefix)


def _without_secrets(url: str) -> str:
    """The part of a URL that may be shown, even if it is malformed: nothing before an @, after a ?, or without ://."""
    scheme, _, rest = url.partition("://")
    return f"{scheme}://{re.split('[?#;]', rest.rpartition('@')[2])[0]}" if rest and scheme.isalnum() else "…"
