"""Airflow connections without Airflow: the same ``AIRFLOW_CONN_*`` variables serve the command line.

Format of both spellings (URI and JSON):
https://airflow.apache.org/docs/apache-airflow/stable/howto/connection.html#storing-connections-in-environment-variables
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

from clinic_backups.base.errors import SettingsError
from clinic_backups.base.login_tokens import is_wanted, login_token

LIBPQ_EXTRAS = (
    "sslmode", "sslcert", "sslkey", "sslrootcert", "sslcrl", "sslpassword", "channel_binding", "gssencmode",
    "target_session_attrs", "connect_timeout", "keepalives", "keepalives_idle", "keepalives_interval",
    "keepalives_count", "tcp_user_timeout", "application_name", "options", "hostaddr", "service", "passfile",
)  # fmt: skip


@dataclass(frozen=True)
class Connection:
    """One named connection with Airflow's fields. ``repr`` leaves out the secret ones."""

    conn_id: str
    conn_type: str
    host: str = ""
    port: int | None = None
    login: str = ""
    password: str = field(default="", repr=False)
    schema: str = ""
    extra: Mapping[str, Any] = field(default_factory=dict, repr=False)

    def libpq_parameters(self) -> dict[str, Any]:
        """Keyword arguments for ``psycopg2.connect``. Of the extras only those that libpq knows are used.

        Ask for them for each new connection: a password that is a token ends after some minutes.

        :raises ClinicBackupsError: there is no token.
        """
        password = login_token(self) if is_wanted(self.extra) else self.password
        named = {
            "host": self.host, "port": self.port, "user": self.login, "password": password, "dbname": self.schema,
        }  # fmt: skip
        known = {key: self.extra[key] for key in LIBPQ_EXTRAS if key in self.extra}
        return {key: value for key, value in named.items() if value} | known


def parse(conn_id: str, text: str) -> Connection:
    """Read a connection from its URI or JSON spelling.

    :raises SettingsError: it is neither. The message never repeats the text, which may hold a password.
    """
    try:
        return _from_json(conn_id, text) if text.lstrip().startswith("{") else _from_uri(conn_id, text)
    except (ValueError, TypeError, AttributeError):
        raise SettingsError(
            f"Connection {conn_id!r} is neither a connection URI nor JSON.",
            hint=f"Set AIRFLOW_CONN_{conn_id.upper()} like postgres://user:password@host:5432/database",
        ) from None


def from_environment(conn_id: str, environ: Mapping[str, str]) -> Connection:
    """The connection that ``AIRFLOW_CONN_<CONN_ID>`` describes. :raises SettingsError: it is not set or malformed."""
    variable = f"AIRFLOW_CONN_{conn_id.upper()}"
    text = environ.get(variable, "")
    if not text:
        raise SettingsError(
            f"Connection {conn_id!r} is not defined.",
            hint=f"Set {variable} (URI or JSON), or create the connection in Airflow.",
        )
    return parse(conn_id, text)


def _from_json(conn_id: str, text: str) -> Connection:
    fields = json.loads(text)
    extra = fields.get("extra") or {}
    return Connection(
        conn_id=conn_id,
        conn_type=fields.get("conn_type", "").replace("-", "_"),
        host=fields.get("host") or "",
        port=int(fields["port"]) if fields.get("port") else None,
        login=fields.get("login") or "",
        password=fields.get("password") or "",
        schema=fields.get("schema") or "",
        extra=json.loads(extra) if isinstance(extra, str) else dict(extra),
    )


def _from_uri(conn_id: str, text: str) -> Connection:
    parts = urlsplit(text)
    if not parts.scheme:
        raise ValueError("no scheme")
    query = dict(parse_qsl(parts.query, keep_blank_values=True))
    # Airflow's own spelling of nested extras, and of a protocol in the host: aws://key:secret@/?__extra__={...}
    extra = json.loads(query["__extra__"]) if "__extra__" in query else query
    conn_type = parts.scheme.replace("-", "_")
    # parts.hostname would lower-case the name, but a socket folder (%2Fvar%2Frun) is case-sensitive.
    host = parts.netloc.rpartition("@")[2].removesuffix(f":{parts.port}")
    return Connection(
        conn_id=conn_id,
        conn_type="postgres" if conn_type == "postgresql" else conn_type,
        host=unquote(host),
        port=parts.port,
        login=unquote(parts.username or ""),
        password=unquote(parts.password or ""),
        schema=unquote(parts.path[1:]),
        extra=extra,
    )
