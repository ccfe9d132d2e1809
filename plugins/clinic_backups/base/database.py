"""Connects to PostgreSQL: to the clinics' database and to the catalog."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Any

import psycopg2
import psycopg2.extensions
from psycopg2 import sql

from clinic_backups.base.connections import Connection
from clinic_backups.base.database_errors import raise_database_error
from clinic_backups.base.errors import PermanentError, TransientError
from clinic_backups.base.login_tokens import is_wanted
from clinic_backups.base.search_path import OWN_PATH
from clinic_backups.base.silence import ASK_SECONDS, WatchedConnection, WatchedCursor

RELIED_ON: Mapping[str, tuple[str, re.Pattern[str]]] = {
    name: (wanted, re.compile(fits))
    for name, wanted, fits in (
        # Under any other path, somebody's operator or function whose types fit better is run instead of PostgreSQL's.
        ("search_path", OWN_PATH, r'"?pg_catalog"?, ?"?pg_temp"?'),
        ("datestyle", "ISO, YMD", r"ISO, .*"),
        ("intervalstyle", "postgres", "postgres"),
        ("extra_float_digits", "3", "[123]"),
        ("bytea_output", "hex", "hex"),
        ("array_nulls", "on", "on"),
        ("transform_null_equals", "off", "off"),
        ("gin_fuzzy_search_limit", "0", "0"),
        ("exit_on_error", "off", "off"),
        ("session_replication_role", "origin", "origin"),
        # docs/operations.md lists all time limits.
        ("statement_timeout", "0", "0"),
        ("lock_timeout", "0", "0"),
        ("transaction_timeout", "0", "0"),
        ("idle_in_transaction_session_timeout", "0", "0"),
    )
}
"""The values that our statements need, and the values of a server that are accepted. Some statements set more."""
_TRANSACTIONS = {
    "default_transaction_isolation": "read committed",
    "default_transaction_read_only": "off",
    "default_transaction_deferrable": "off",
}
OLDEST = 150000
"""Version 14 has no view that reads with the rights of its reader, and no right to one setting alone. The PostgreSQL
project ended it in November 2026: https://www.postgresql.org/support/versioning/"""
SINCE = {"transaction_timeout": 170000}
"""Settings that an older server does not know."""


def connect(
    connection: Connection,
    *,
    application_name: str = "clinic-backups",
    connect_seconds: int = 15,
    unanswered_seconds: int | None = None,
    own_path: bool = True,
    also: str = "",
) -> WatchedConnection:
    """Open a PostgreSQL connection that notices a dead or silent peer.

    A dead peer is noticed within about a minute, a silent one after ``CLINIC_BACKUPS_SILENCE_SECONDS``.

    :param connect_seconds: longest wait for the server, unless the connection's extras set another one.
    :param unanswered_seconds: close the connection if sent data is not acknowledged for this long.
    :param own_path: ask for a session with this package's search path, which saves a round trip in each transaction.
        Without it, the default path of the session is the role's.
    :param also: a query that returns names and texts, asked in the same round trip as the server's settings. Its names
        have their schemas. The answers are in ``told`` of the connection.
    :raises TransientError: the server cannot be reached, or refuses for the moment.
    :raises PermanentError: the password, the database or the role is wrong.
    """
    keepalive: dict[str, Any] = {
        "keepalives": 1,
        "keepalives_idle": 30,
        "keepalives_interval": 10,
        "keepalives_count": 3,
    }
    if unanswered_seconds is not None:
        keepalive["tcp_user_timeout"] = unanswered_seconds * 1000
    parameters = keepalive | {"connect_timeout": connect_seconds, "application_name": application_name}
    parameters |= connection.libpq_parameters() | {"client_encoding": "UTF8"}
    try:
        opened = _with_path(parameters) if own_path else _open(parameters)
        opened.reopen = lambda: _reopened(connection, parameters | {"connect_timeout": ASK_SECONDS})
    except psycopg2.OperationalError as error:
        # The first line names the server and the cause. Advice and the result of a second try without TLS follow.
        text = str(error).strip().splitlines()[0]
        # libpq has no SQLSTATE for a refused login. The texts come from the server, in its own language.
        refused = any(word in text for word in ("password authentication", "does not exist", "pg_hba.conf", "role "))
        kind = PermanentError if refused else TransientError
        raise kind(
            f"Connection {connection.conn_id!r}: {text}",
            hint="Check host, database, user and password of the connection, and whether the server is up.",
        ) from None
    except (psycopg2.ProgrammingError, UnicodeError):
        raise PermanentError(
            f"Connection {connection.conn_id!r} has an option that libpq does not know.",
            hint="Compare the connection's extras with PostgreSQL's documentation of connection parameters.",
        ) from None
    if opened.server_version < OLDEST:
        version = opened.get_parameter_status("server_version")
        opened.close()
        raise PermanentError(
            f"Connection {connection.conn_id!r}: the server is PostgreSQL {version}, and {OLDEST // 10000} is the"
            " oldest that this package works with.",
            hint="Upgrade it (pg_upgrade, or your provider's upgrade of major versions). Nothing was read or changed.",
        )
    try:
        pin(opened, also)
    except psycopg2.Error as error:
        opened.close()
        raise_database_error(error, f"asking the server of connection {connection.conn_id!r} for its settings")
    return opened


def _reopened(connection: Connection, parameters: Mapping[str, Any]) -> Any:
    """A second connection to the same server.

    A password that is a token is used again while the server takes it: the cloud may be silent, and then a statement
    that the server works at must go on all the same.
    """
    try:
        return psycopg2.connect(**parameters)
    except psycopg2.OperationalError:
        if not is_wanted(connection):
            raise
    return psycopg2.connect(**{**parameters, "password": connection.libpq_parameters()["password"]})


def _open(parameters: Mapping[str, Any]) -> WatchedConnection:
    opened: WatchedConnection = psycopg2.connect(
        connection_factory=WatchedConnection, cursor_factory=WatchedCursor, **parameters
    )
    return opened


def _with_path(parameters: Mapping[str, Any]) -> WatchedConnection:
    """A session with this package's search path, unless a pooling proxy refuses such an option."""
    if "service" in parameters:
        return _open(parameters)  # options of its own would hide those in the service's file
    given = str(parameters.get("options") or os.environ.get("PGOPTIONS", ""))
    try:
        return _open({**parameters, "options": f"{given} -c search_path={OWN_PATH.replace(' ', '')}".strip()})
    except psycopg2.OperationalError as error:
        if not any(word in str(error) for word in ("startup parameter", "command-line options")):
            raise
    return _open(parameters)


def pin(opened: WatchedConnection, also: str = "") -> None:
    """Override settings of a role or a database that differ from what is needed, in each transaction.

    Usually nothing differs, and this costs one query.

    :param also: see :func:`connect`.
    """
    opened.pins, opened.begins_alone = {}, ""
    opened.set_autocommit(True)
    with opened.cursor() as cursor:
        names = [*RELIED_ON, *_TRANSACTIONS]
        # No path is set yet, so every name has its schema.
        query = "SELECT name, pg_catalog.current_setting(name, true) FROM pg_catalog.unnest(%s) AS name"
        cursor.execute(f"{query} UNION ALL ({also})" if also else query, (names,))
        found: dict[str, Any] = dict(cursor.fetchall())
        opened.told = found
    pins = {
        name: wanted
        for name, (wanted, fits) in RELIED_ON.items()
        if found[name] is not None and not fits.fullmatch(found[name])
    }
    # standard_conforming_strings is not overridden: the driver has read it already and quotes accordingly.
    if any(found[name] != usual for name, usual in _TRANSACTIONS.items()):
        pins |= _TRANSACTIONS
        opened.begins_alone = "SET TRANSACTION ISOLATION LEVEL READ COMMITTED, READ WRITE; "
    opened.pins = pins
    opened.set_autocommit(False)


def session_settings(cursor: Any, settings: Mapping[str, str]) -> str:
    """Settings for this transaction only, because a pooling proxy may give the session to other clients afterwards."""
    known = {name: value for name, value in settings.items() if cursor.connection.server_version >= SINCE.get(name, 0)}
    calls = ", ".join(["set_config(%s, %s, true)"] * len(known))
    text: bytes = cursor.mogrify(f"SELECT {calls}", [word for pair in known.items() for word in pair])
    return text.decode()


def qualified(table: str) -> sql.Identifier:
    """``schema.table`` as SQL."""
    return sql.Identifier(*table.split(".", 1))
