"""The client of an Azure Blob connection."""

from __future__ import annotations

from typing import Any

from azure.core.exceptions import AzureError
from azure.identity import ClientSecretCredential, DefaultAzureCredential
from azure.storage.blob import BlobServiceClient

from clinic_backups.base.connections import Connection
from clinic_backups.stores._connection_extra import text, unusable
from clinic_backups.stores._provider import CONNECT_SECONDS, READ_SECONDS

REQUEST: dict[str, Any] = {"connection_timeout": CONNECT_SECONDS, "read_timeout": READ_SECONDS}

# For every BlobServiceClient of the stores: limited retries, and downloads in small pieces instead of 32 MiB at once.
CLIENT_OPTIONS: dict[str, Any] = {
    "retry_total": 3,
    "initial_backoff": 2,
    "max_single_get_size": 4 * 1024 * 1024,
    "max_chunk_get_size": 4 * 1024 * 1024,
    **REQUEST,
}


def make_client(connection: Connection) -> BlobServiceClient:
    login, password = connection.login, connection.password
    dsn, sas_token, tenant_id = (text(connection, name) for name in ("connection_string", "sas_token", "tenant_id"))
    try:
        if dsn:
            return BlobServiceClient.from_connection_string(dsn, **CLIENT_OPTIONS)
        if sas_token.startswith("https://"):
            return BlobServiceClient(sas_token, **CLIENT_OPTIONS)
        account_url = _account_url(connection)
        credential: Any
        if tenant_id:
            credential = ClientSecretCredential(tenant_id, login, password)
        elif sas_token:
            credential = sas_token.lstrip("?")
        elif password or text(connection, "shared_access_key"):
            # The signature contains the account's name, which is not always the first part of the host.
            key = password or text(connection, "shared_access_key")
            credential = {"account_name": login, "account_key": key} if login else key
        else:
            credential = DefaultAzureCredential()
        return BlobServiceClient(account_url, credential=credential, **CLIENT_OPTIONS)
    except (AzureError, ValueError, TypeError) as error:
        raise unusable(
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
