"""The client of an S3 connection."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import boto3
from botocore.config import Config
from botocore.credentials import AssumeRoleCredentialFetcher, DeferredRefreshableCredentials
from botocore.exceptions import BotoCoreError
from botocore.session import get_session

from clinic_backups.base.connections import Connection
from clinic_backups.base.errors import SettingsError
from clinic_backups.base.given_values import FALSE, TRUE, is_given
from clinic_backups.stores._connection_extra import mapping, unusable
from clinic_backups.stores._provider import CONNECT_SECONDS, READ_SECONDS

# For every S3 client of the stores, also for S3Hook(config=...). botocore's own checksums are off, because some
# services refuse their headers. Every request of S3Store has a Content-MD5, which all services check.
CLIENT_CONFIG = Config(
    connect_timeout=CONNECT_SECONDS,
    read_timeout=READ_SECONDS,
    retries={"mode": "standard", "total_max_attempts": 4},
    signature_version="s3v4",
    request_checksum_calculation="when_required",
    response_checksum_validation="when_required",
)


def make_client(connection: Connection) -> Any:
    extra = connection.extra
    if bool(connection.login) != bool(connection.password):
        raise SettingsError(
            f"Connection {connection.conn_id!r} has only one half of a key pair.",
            hint="Set login (access key) and password (secret key). To use this machine's own role, set neither.",
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
            session = _with_role(session, extra["role_arn"], mapping(connection, "assume_role_kwargs"))
        return session.client("s3", endpoint_url=endpoint, config=config, verify=verify_of(connection))
    except (BotoCoreError, ValueError, TypeError) as error:
        raise unusable(connection, error, "login, password and, in the extra, region_name and endpoint_url") from None


def s3_config(connection: Connection) -> Any:
    """The ``botocore`` configuration for a connection: the default, changed by ``config_kwargs`` in its extra."""
    config = CLIENT_CONFIG
    if _s3_endpoint(connection):
        # With a custom host, a bucket's name as a subdomain seldom resolves.
        config = config.merge(Config(s3={"addressing_style": "path"}))
    return config.merge(Config(**mapping(connection, "config_kwargs")))


def verify_of(connection: Connection) -> bool | str | None:
    """The extra ``verify``: whether TLS certificates are checked, or the path of the authorities' file.

    ``None`` leaves it to botocore, which checks them. botocore would take the word ``false`` for a path.
    """
    value = connection.extra.get("verify")
    if isinstance(value, str) and value.strip().lower() not in (*TRUE, *FALSE):
        return value.strip() or None
    return connection.flag("verify", default=True) if is_given(value) else None


def _s3_endpoint(connection: Connection) -> str | None:
    services = mapping(connection, "service_config")
    return services.get("s3", {}).get("endpoint_url") or connection.extra.get("endpoint_url") or None


def _with_role(session: Any, role_arn: str, arguments: Mapping[str, Any]) -> Any:
    """A session with the role's credentials. They are renewed before they expire, because an upload may take longer."""
    fetcher = AssumeRoleCredentialFetcher(
        client_creator=lambda service, **options: session.client(service, **options),
        source_credentials=session.get_credentials(),
        role_arn=role_arn,
        extra_args={"RoleSessionName": "clinic-backups"} | dict(arguments),
    )
    assumed = get_session()
    assumed._credentials = DeferredRefreshableCredentials(refresh_using=fetcher.fetch_credentials, method="assume-role")
    return boto3.Session(botocore_session=assumed, region_name=session.region_name)
