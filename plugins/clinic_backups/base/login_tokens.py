"""Passwords that a cloud makes for some minutes, in place of one that is kept: each new connection asks for its own.

The libraries are those of the stores. Each is imported only if a connection names its cloud.

- Amazon RDS and Aurora, IAM database authentication:
  https://docs.aws.amazon.com/AmazonRDS/latest/UserGuide/UsingWithRDS.IAMDBAuth.Connecting.html
- Cloud SQL, IAM database authentication: https://cloud.google.com/sql/docs/postgres/iam-logins
- Azure Database for PostgreSQL, Microsoft Entra:
  https://learn.microsoft.com/azure/postgresql/flexible-server/how-to-configure-sign-in-azure-ad-authentication
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from clinic_backups.base.errors import SettingsError, TransientError
from clinic_backups.base.given_values import is_given

if TYPE_CHECKING:
    from clinic_backups.base.connections import Connection

EXTRA = "login_token"
GOOGLE_SCOPE = "https://www.googleapis.com/auth/sqlservice.login"
AZURE_SCOPE = "https://ossrdbms-aad.database.windows.net/.default"
DEFAULT_PORT = 5432
ANSWER_SECONDS = 10
"""Azure's library would wait five minutes for each of several answers."""


def is_wanted(connection: Connection) -> bool:
    """Whether a connection logs in with a token. Airflow's own spelling for Amazon is ``"iam": true``.

    :raises SettingsError: ``iam`` is neither true nor false.
    """
    return is_given(connection.extra.get(EXTRA)) or connection.flag("iam", default=False)


def login_token(connection: Connection) -> str:
    """A new token for the connection's user. It is used as the password.

    :raises SettingsError: no such cloud, its library is not installed, or the connection or the worker is set wrongly.
    :raises TransientError: the cloud does not answer, or knows no identity of this worker. A worker that has just
        started may have none yet, and the libraries report both in the same way.
    """
    cloud = str(connection.extra.get(EXTRA) or "aws")
    make = _CLOUDS.get(cloud)
    if make is None:
        raise SettingsError(
            f"Connection {connection.conn_id!r}: {EXTRA} is {cloud[:40]!r} in its extra.",
            hint=f"Set it to one of {', '.join(_CLOUDS)}, or leave it out and give a password.",
        )
    try:
        return make(connection)
    except ImportError:
        raise SettingsError(
            f"Connection {connection.conn_id!r} needs a token of {cloud}, whose library is not installed.",
            hint=f"Install the Airflow provider of {cloud}: docs/compatibility.md names it.",
        ) from None
    except ValueError as error:
        raise _set_wrongly(connection, cloud, error) from None
    except OSError as error:  # such as the file with the token of a pod's service account
        raise _silent(connection, cloud, error) from None


def _of_amazon(connection: Connection) -> str:
    import boto3
    from botocore.exceptions import (
        BotoCoreError,
        ClientError,
        NoCredentialsError,
        NoRegionError,
        PartialCredentialsError,
        ProfileNotFound,
    )

    region = connection.extra.get("region_name")
    try:
        # Signed here. Only a role whose keys have ended is asked for new ones, by a request.
        token = boto3.client("rds", region_name=region).generate_db_auth_token(
            connection.host, connection.port or DEFAULT_PORT, connection.login
        )
    except (NoRegionError, PartialCredentialsError, ProfileNotFound) as error:
        raise _set_wrongly(connection, "aws", error) from None
    except NoCredentialsError:
        raise _unknown_here(connection, "aws", "rds-db:connect") from None
    except (BotoCoreError, ClientError) as error:
        raise _silent(connection, "aws", error) from None
    return str(token)


def _of_google(connection: Connection) -> str:
    import google.auth
    from google.auth.exceptions import DefaultCredentialsError, GoogleAuthError
    from google.auth.transport.requests import Request

    try:
        credentials, _ = google.auth.default(scopes=[GOOGLE_SCOPE])
        credentials.refresh(Request())  # type: ignore[no-untyped-call]
    except DefaultCredentialsError:
        raise _unknown_here(connection, "google", "roles/cloudsql.instanceUser") from None
    except GoogleAuthError as error:
        raise _silent(connection, "google", error) from None
    return str(credentials.token)


def _of_azure(connection: Connection) -> str:
    from azure.core.exceptions import AzureError, ClientAuthenticationError
    from azure.identity import DefaultAzureCredential

    try:
        known = DefaultAzureCredential(connection_timeout=ANSWER_SECONDS, read_timeout=ANSWER_SECONDS, retry_total=1)
        return str(known.get_token(AZURE_SCOPE).token)
    except ClientAuthenticationError:
        raise _unknown_here(connection, "azure", "a login at the server (pgaadauth_create_principal)") from None
    except AzureError as error:
        raise _silent(connection, "azure", error) from None


def _set_wrongly(connection: Connection, cloud: str, error: Exception) -> SettingsError:
    region = ", and set AWS_DEFAULT_REGION or region_name in the extra" if cloud == "aws" else ""
    return SettingsError(
        f"Connection {connection.conn_id!r}: no token of {cloud} ({type(error).__name__}).",
        hint=f"Correct the worker's settings of {cloud}{region}.",
    )


def _unknown_here(connection: Connection, cloud: str, needed: str) -> TransientError:
    return TransientError(
        f"Connection {connection.conn_id!r}: {cloud} does not know who this worker is, so it gives no token.",
        hint=f"It is tried again. If that does not help, give the worker an identity of {cloud} that has {needed}.",
    )


def _silent(connection: Connection, cloud: str, error: Exception) -> TransientError:
    """The error's own text is left out, because a library may repeat what it was sent."""
    code = getattr(error, "response", None) if cloud == "aws" else None
    told = f"{type(error).__name__} {code.get('Error', {}).get('Code', '')}".strip() if code else type(error).__name__
    return TransientError(
        f"Connection {connection.conn_id!r}: {cloud} gave no token ({told}).",
        hint="It is tried again. If that does not help, look at the worker's identity and its way to the cloud.",
    )


_CLOUDS: Mapping[str, Callable[[Connection], str]] = {"aws": _of_amazon, "google": _of_google, "azure": _of_azure}
