"""From a store's URL and a connection to an object store. A cloud's SDK is imported only when its URL is asked for."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from clinic_backups.connections import Connection
from clinic_backups.errors import PermanentError, SettingsError
from clinic_backups.stores._wire import check_key
from clinic_backups.stores.base import LockMode, ObjectStore
from clinic_backups.stores.file import FileStore

CONNECTION_TYPES = {"s3": "aws", "gs": "google_cloud_platform", "az": "wasb", "file": ""}

_FORMS = "Use s3://bucket/prefix, gs://bucket/prefix, az://container/prefix or file:///absolute/path."
_BUCKET = re.compile(r"[A-Za-z0-9$][A-Za-z0-9._-]{1,221}\Z")


@dataclass(frozen=True)
class StoreUrl:
    """A store's URL taken apart. For ``file`` the bucket is empty and the prefix is the absolute path."""

    scheme: str
    bucket: str
    prefix: str

    @property
    def conn_type(self) -> str:
        """The type of connection that belongs to it, as Airflow calls it; empty where none is needed."""
        return CONNECTION_TYPES[self.scheme]


def parse_url(url: str) -> StoreUrl:
    """Take a store's URL apart. :raises SettingsError: it is none; the message leaves out credentials in it."""
    try:
        parts = urlsplit(url)
    except ValueError:
        raise SettingsError("The store's URL is malformed.", hint=_FORMS) from None
    if parts.scheme not in CONNECTION_TYPES or "://" not in url or not url.isprintable():
        raise SettingsError(f"The store's URL is of no known kind ({_without_secrets(url)!r}).", hint=_FORMS)
    shown = _without_secrets(url)
    if "@" in url or parts.query or parts.fragment:
        raise SettingsError(
            f"The store's URL {shown!r} has more than a place in it.",
            hint="Credentials and options belong into the connection. " + _FORMS,
        )
    if parts.scheme == "file":
        path = unquote(parts.path)
        if parts.netloc not in ("", "localhost") or not path.strip("/"):
            raise SettingsError(f"The store's URL {shown!r} is no absolute path.", hint="Use file:///absolute/path.")
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
    return StoreUrl(parts.scheme, parts.netloc if parts.scheme != "file" else "", prefix)


def _without_secrets(url: str) -> str:
    """What may be shown of a URL, however malformed: nothing before an @ or after a ?, and nothing without ://."""
    scheme, _, rest = url.partition("://")
    return f"{scheme}://{re.split('[?#;]', rest.rpartition('@')[2])[0]}" if rest and scheme.isalnum() else "…"


def open_store(
    url: str,
    connection: Connection | None,
    *,
    encryption: tuple[str, str] = ("none", ""),
    lock_mode: LockMode = "governance",
) -> ObjectStore:
    """The store at ``url``, with a client made from ``connection``. Nothing is sent yet.

    :param connection: ``None`` for the credentials that the machine itself has (role, profile, environment).
    :param encryption: ``Settings.encryption_at_store``.
    :param lock_mode: of the objects that are put with ``locked_until``.
    :raises SettingsError: the URL, the connection or what they ask for together is wrong; never repeats a secret.
    """
    place = parse_url(url)
    if place.scheme == "file":
        return store_from_client(url, None, encryption=encryption)
    if connection is not None:
        require_type(connection, url)
    given = connection or Connection(conn_id="(none)", conn_type=place.conn_type)
    return store_from_client(
        url,
        make_client(given),
        encryption=encryption,
        lock_mode=lock_mode,
        conditional_writes=conditional_writes(given.extra),
    )


def require_type(connection: Connection, url: str) -> None:
    """:raises SettingsError: the connection is of another type than the store at ``url`` wants."""
    wanted = parse_url(url).conn_type
    if connection.conn_type != wanted:
        raise SettingsError(
            f"Connection {connection.conn_id!r} is of type {connection.conn_type!r}, which does not fit {url!r}.",
            hint=f"Use a connection of type {wanted!r}.",
        )


def make_client(connection: Connection) -> Any:
    """The SDK's client for a connection of type aws, google_cloud_platform or wasb, with time-outs and bounded retries.

    :raises SettingsError: the connection does not suffice; never repeats a secret.
    """
    makers = {"aws": _s3_client, "google_cloud_platform": _gcs_client, "wasb": _azure_client}
    return makers[connection.conn_type](connection)


def store_from_client(
    url: str,
    client: Any,
    *,
    encryption: tuple[str, str] = ("none", ""),
    lock_mode: LockMode = "governance",
    conditional_writes: bool = True,
) -> ObjectStore:
    """The store at ``url`` around a ready client, such as those of Airflow's hooks.

    :param client: a boto3 S3 client, a ``google.cloud.storage.Client`` or a ``BlobServiceClient``; ``None`` for a file.
    :param conditional_writes: of S3: see :func:`conditional_writes`.
    :raises SettingsError: the URL is wrong, or the store cannot do the encryption.
    """
    place = parse_url(url)
    options: dict[str, Any] = {"encryption": encryption, "lock_mode": lock_mode}
    if place.scheme == "s3":
        from clinic_backups.stores.s3 import S3Store

        return S3Store(client, place.bucket, place.prefix, conditional_writes=conditional_writes, **options)
    if place.scheme == "gs":
        from clinic_backups.stores.gcs import GcsStore

        return GcsStore(client, place.bucket, place.prefix, **options)
    if place.scheme == "az":
        from clinic_backups.stores.azure import AzureStore

        return AzureStore(client, place.bucket, place.prefix, **options)
    if encryption[0] == "kms":
        raise SettingsError(
            "A local folder cannot encrypt with a KMS key.",
            hint="Set CLINIC_BACKUPS_SERVER_SIDE_ENCRYPTION=none; archives are encrypted before they are stored.",
        )
    return FileStore(Path(place.prefix))


def conditional_writes(extra: Mapping[str, Any]) -> bool:
    """The connection extra ``"conditional_writes"``: false for services without ``If-None-Match``, as Backblaze B2."""
    return str(extra.get("conditional_writes", True)).lower() not in ("false", "0", "no")


def _s3_client(connection: Connection) -> Any:
    import boto3
    from botocore.exceptions import BotoCoreError

    extra = connection.extra
    if bool(connection.login) != bool(connection.password):
        raise SettingsError(
            f"Connection {connection.conn_id!r} has only one half of a key pair.",
            hint="Set both login (access key) and password (secret key), or neither for this machine's own role.",
        )
    endpoint = _s3_endpoint(connection)
    try:
        config = s3_config(connection)
        session = boto3.Session(
            aws_access_key_id=connection.login or None,
            aws_secret_access_key=connection.password or None,
            aws_session_token=extra.get("aws_session_token"),
            region_name=extra.get("region_name") or ("us-east-1" if endpoint else None),
        )
        if extra.get("role_arn"):
            session = _with_role(session, extra["role_arn"], _mapping(connection, "assume_role_kwargs"))
        return session.client("s3", endpoint_url=endpoint, config=config, verify=extra.get("verify"))
    except (BotoCoreError, ValueError, TypeError) as error:
        raise _unusable(connection, error, "login, password and, in the extra, region_name and endpoint_url") from None


def s3_config(connection: Connection) -> Any:
    """The ``botocore`` configuration for a connection: ours, then what its extra says in ``config_kwargs``."""
    from botocore.config import Config

    from clinic_backups.stores.s3 import CLIENT_CONFIG

    config = CLIENT_CONFIG
    if _s3_endpoint(connection):
        # Names of buckets below a host of one's own seldom resolve.
        config = config.merge(Config(s3={"addressing_style": "path"}))
    return config.merge(Config(**_mapping(connection, "config_kwargs")))


def _s3_endpoint(connection: Connection) -> str | None:
    services = _mapping(connection, "service_config")
    return services.get("s3", {}).get("endpoint_url") or connection.extra.get("endpoint_url") or None


def _with_role(session: Any, role_arn: str, arguments: Mapping[str, Any]) -> Any:
    """A session whose credentials are those of the role, renewed before they expire: an upload may outlast them."""
    import boto3
    from botocore.credentials import AssumeRoleCredentialFetcher, DeferredRefreshableCredentials
    from botocore.session import get_session

    fetcher = AssumeRoleCredentialFetcher(
        client_creator=lambda service, **options: session.client(service, **options),
        source_credentials=session.get_credentials(),
        role_arn=role_arn,
        extra_args={"RoleSessionName": "clinic-backups"} | dict(arguments),
    )
    assumed = get_session()
    assumed._credentials = DeferredRefreshableCredentials(refresh_using=fetcher.fetch_credentials, method="assume-role")
    return boto3.Session(botocore_session=assumed, region_name=session.region_name)


def _gcs_client(connection: Connection) -> Any:
    from google.auth.exceptions import GoogleAuthError
    from google.cloud import storage
    from google.oauth2 import service_account

    keyfile = _mapping(connection, "keyfile_dict")
    key_path, project = _extra(connection, "key_path"), _extra(connection, "project") or None
    try:
        if keyfile or key_path:
            keyfile = keyfile or json.loads(Path(key_path).read_text("utf-8"))
            credentials = service_account.Credentials.from_service_account_info(  # type: ignore[no-untyped-call]
                keyfile, scopes=["https://www.googleapis.com/auth/devstorage.read_write"]
            )
            return storage.Client(project=project or keyfile.get("project_id"), credentials=credentials)
        return storage.Client(project=project)
    except (GoogleAuthError, OSError, ValueError, TypeError, AttributeError) as error:
        raise _unusable(connection, error, "keyfile_dict, key_path or project in the extra") from None


def _azure_client(connection: Connection) -> Any:
    from azure.core.exceptions import AzureError
    from azure.identity import ClientSecretCredential, DefaultAzureCredential
    from azure.storage.blob import BlobServiceClient

    from clinic_backups.stores.azure import CLIENT_OPTIONS

    login, password = connection.login, connection.password
    text, sas_token, tenant_id = (_extra(connection, name) for name in ("connection_string", "sas_token", "tenant_id"))
    try:
        if text:
            return BlobServiceClient.from_connection_string(text, **CLIENT_OPTIONS)
        if sas_token.startswith("https://"):
            return BlobServiceClient(sas_token, **CLIENT_OPTIONS)
        account_url = _account_url(connection)
        credential: Any
        if tenant_id:
            credential = ClientSecretCredential(tenant_id, login, password)
        elif sas_token:
            credential = sas_token.lstrip("?")
        elif password or _extra(connection, "shared_access_key"):
            # The signature names the account, which is not always the host's first part.
            key = password or _extra(connection, "shared_access_key")
            credential = {"account_name": login, "account_key": key} if login else key
        else:
            credential = DefaultAzureCredential()
        return BlobServiceClient(account_url, credential=credential, **CLIENT_OPTIONS)
    except (AzureError, ValueError, TypeError) as error:
        raise _unusable(
            connection, error, "login and password, or connection_string or sas_token in the extra"
        ) from None


def _account_url(connection: Connection) -> str:
    """``https://account.blob.core.windows.net`` from a URL, a host name or an account name, as Airflow reads them."""
    host = connection.host or connection.login
    if not host:
        raise ValueError("no account")
    if "://" not in host:
        host = "https://" + (host if "." in host else f"{host}.blob.core.windows.net")
    return f"{host}:{connection.port}" if connection.port else host


def _extra(connection: Connection, name: str) -> str:
    """A text in the extra, under its name or under the long one that older Airflows wrote."""
    value = connection.extra.get(name) or connection.extra.get(f"extra__{connection.conn_type}__{name}")
    return value if isinstance(value, str) else ""


def _mapping(connection: Connection, name: str) -> Mapping[str, Any]:
    """An object in the extra, also when it is written as JSON text."""
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


def _unusable(connection: Connection, error: Exception, wanted: str) -> SettingsError:
    return SettingsError(
        f"No client can be made from connection {connection.conn_id!r} ({type(error).__name__}).",
        hint=f"Check its {wanted}.",
    )
