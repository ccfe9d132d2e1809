"""The kinds of stores: one line each here, and one module each that is imported when its URL is first asked for."""

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
    """How a store is used.

    :param encryption: ``Settings.encryption_at_store``.
    :param lock_mode: of the objects that are put with ``locked_until``.
    :param extra: what the connection's extra says.
    """

    encryption: tuple[str, str] = ("none", "")
    lock_mode: LockMode = "governance"
    extra: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class AirflowHook:
    """The provider's hook that logs in as Airflow does.

    :param path: of the class.
    :param conn_argument: the name under which it takes the connection's id.
    :param arguments: its further arguments for a connection.
    :param extra: what it is to find in the connection's extra unless that says otherwise.
    """

    path: str
    conn_argument: str
    arguments: Callable[[Connection], Mapping[str, Any]] = lambda connection: {}
    extra: Mapping[str, Any] = field(default_factory=dict)


class StoreModule(Protocol):
    """What the module of a kind has."""

    @property
    def HOOK(self) -> AirflowHook | None:
        """Of Airflow's provider; ``None`` where no client is needed."""

    def make_client(self, connection: Connection) -> Any:
        """The SDK's client, with time-outs and bounded retries.

        :raises SettingsError: the connection does not suffice; never repeats a secret.
        """

    def make_store(self, client: Any, place: StoreUrl, config: StoreConfig) -> ObjectStore:
        """The store around a ready client. :raises SettingsError: it cannot do what is asked of it."""


@dataclass(frozen=True)
class StoreKind:
    """One kind of stores.

    :param form: of its URLs.
    :param module: below ``clinic_backups.stores``: a :class:`StoreModule`.
    :param conn_type: the type of connection that belongs to it, as Airflow calls it; empty where none is needed, and
        then its URLs hold a path.
    """

    scheme: str
    form: str
    module: str
    conn_type: str = ""

    def load(self) -> StoreModule:
        """Its module, and with it the cloud's SDK."""
        return cast(StoreModule, import_module(f"clinic_backups.stores.{self.module}"))


KINDS = {
    kind.scheme: kind
    for kind in (
        StoreKind("s3", "s3://bucket/prefix", "s3", "aws"),
        StoreKind("gs", "gs://bucket/prefix", "gcs", "google_cloud_platform"),
        StoreKind("az", "az://container/prefix", "azure", "wasb"),
        StoreKind("file", "file:///absolute/path", "file"),
    )
}
_FORMS = f"Use {', '.join(kind.form for kind in KINDS.values())}."


@dataclass(frozen=True)
class StoreUrl:
    """A store's URL taken apart. Of a path the bucket is empty, and the prefix is the absolute path."""

    scheme: str
    bucket: str
    prefix: str

    @property
    def kind(self) -> StoreKind:
        """What it is a URL of."""
        return KINDS[self.scheme]


def parse_url(url: str) -> StoreUrl:
    """Take a store's URL apart.

    :raises SettingsError: it is not a store's URL. The message leaves out credentials in it.
    """
    try:
        parts = urlsplit(url)
    except ValueError:
        raise SettingsError("The store's URL is malformed.", hint=_FORMS) from None
    if parts.scheme not in KINDS or "://" not in url or not url.isprintable():
        raise SettingsError(f"The store's URL is of no known kind ({_without_secrets(url)!r}).", hint=_FORMS)
    shown = _without_secrets(url)
    if "@" in url or parts.query or parts.fragment:
        raise SettingsError(
            f"The store's URL {shown!r} has more than a place in it.",
            hint="Credentials and options belong into the connection. " + _FORMS,
        )
    kind = KINDS[parts.scheme]
    is_path = not kind.conn_type
    if is_path:
        path = unquote(parts.path)
        if parts.netloc not in ("", "localhost") or not path.strip("/"):
            raise SettingsError(f"The store's URL {shown!r} is no absolute path.", hint=f"Use {kind.form}.")
        prefix = path
    else:
        if not _BUCKET.match(parts.netloc):
            raise SettingsError(f"The store's URL {shown!r} has no usable bucket name.", hint=_FORMS)
        prefix = parts.path.strip("/")
    if prefix.strip("/"):
        try:
            check_key(prefix.strip("/"), what="prefix")
        except PermanentError as error:
            raise SettingsError(f"The store's URL {shown!r}: {error.message}", hint=error.hint) from None
    return StoreUrl(parts.scheme, "" if is_path else parts.netloc, prefix)


def _without_secrets(url: str) -> str:
    """What may be shown of a URL, however malformed: nothing before an @ or after a ?, and nothing without ://."""
    scheme, _, rest = url.partition("://")
    return f"{scheme}://{re.split('[?#;]', rest.rpartition('@')[2])[0]}" if rest and scheme.isalnum() else "…"
