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

from clinic_backups.base import given_values
from clinic_backups.base.errors import SettingsError
from clinic_backups.base.login_tokens import is_wanted, login_token

LIBPQ_EXTRAS = (
    "sslmode", "sslcert", "sslkey", "sslrootcert", "sslcrl", "sslpassword", "channel_binding", "gssencmode",
    "target_session_attrs", "connect_timeout", "keepalives", "keepalives_idle", "keepalives_interval",
    "keepalives_count", "tcp_user_timeout", "application_name", "options", "hostaddr", "service", "passfile",
)  # fmt: skip
_NUMBERS = (
    "connect_timeout", "keepalives_idle", "keepalives_interval", "keepalives_count", "tcp_user_timeout",
)  # fmt: skip
LARGEST_PORT, _LARGEST = 65_535, 2**31 - 1


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

        :raises ClinicBackupsError: there is no token, or an extra is wrong.
        """
        password = login_token(self) if is_wanted(self) else self.password
        named = {
            "host": self.host, "port": self.port, "user": self.login, "password": password, "dbname": self.schema,
        }  # fmt: skip
        known = {key: self.extra[key] for key in LIBPQ_EXTRAS if given_values.is_given(self.extra.get(key))}
        numbers = {key: self._whole(key) for key in _NUMBERS if key in known}
        alive = {"keepalives": int(self.flag("keepalives", default=True))} if "keepalives" in known else {}
        return {key: value for key, value in named.items() if value} | known | numbers | alive

    def flag(self, name: str, *, default: bool) -> bool:
        """An extra that is true or false, whatever its spelling: in a URI each value is a word.

        :param default: the value if the extra is missing or empty.
        :raises SettingsError: it is neither.
        """
        value = self.extra.get(name)
        try:
            return given_values.truth(value) if given_values.is_given(value) else default
        except ValueError as error:
            raise self._wrong(name, error, given_values.WRITE_TRUTH) from None

    def number(self, name: str, *, default: float, least: float = 0, most: float) -> float:
        """An extra that is a number. :raises SettingsError: it is no number, or it is out of bounds."""
        value = self.extra.get(name)
        try:
            return given_values.number(value, least=least, most=most) if given_values.is_given(value) else default
        except ValueError as error:
            raise self._wrong(name, error, "Correct it, or leave it out.") from None

    def _whole(self, name: str) -> int:
        try:
            return given_values.whole_number(self.extra[name], least=0, most=_LARGEST)
        except ValueError as error:
            raise self._wrong(name, error, "Correct it, or leave it out.") from None

    def _wrong(self, name: str, error: ValueError, hint: str) -> SettingsError:
        """The value itself is left out, because it may be a password in the wrong place."""
        return SettingsError(f"Connection {self.conn_id!r}: {name} in the extra is {error}.", hint=hint)


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
        port=_port(conn_id, fields.get("port")),
        login=fields.get("login") or "",
        password=fields.get("password") or "",
        schema=fields.get("schema") or "",
        extra=json.loads(extra) if isinstance(extra, str) else dict(extra),
    )


def _port(conn_id: str, value: object) -> int | None:
    if not given_values.is_given(value) or value == 0:
        return None
    try:
        return given_values.whole_number(value, least=1, most=LARGEST_PORT)
    except ValueError as error:
        raise SettingsError(f"Connection {conn_id!r}: its port is {error}.", hint="Correct the port.") from None


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
