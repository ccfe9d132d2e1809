"""Connects to PostgreSQL and translates its errors. Used for the clinics' database and for the catalog."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NoReturn, TypeVar

import psycopg2
import psycopg2.extensions
from psycopg2 import sql

from clinic_backups.base.connections import Connection
from clinic_backups.base.errors import ClinicBackupsError, PermanentError, TransientError
from clinic_backups.base.silence import ASK_SECONDS, OWN_PATH, Silent, WatchedConnection, WatchedCursor

SHOWN_STATES = (
    "08", "0A", "25", "28", "40", "53", "54", "55000", "55006", "55P03", "57", "58030", "42501", "42809",
    "42710", "42P06", "42P07",
)  # fmt: skip
"""SQLSTATEs, and classes of them, whose text contains only names. Any other text may hold a value.

A function may raise any SQLSTATE with any text. So no text from inside a function is shown, except from the catalog's
own functions.
"""
PARSED_STATES = ("3D", "3F", "42601", "42701", "42703", "42704", "42883", "42P01")
"""SQLSTATEs whose text may be shown only if the error has a position in the statement. Without a position, a value was
looked up as a name: ``nombres::regclass``, ``to_tsquery(nombres)``."""
LANGUAGES = "pl"
"""Prefixes of the source files of procedural languages. The author of a function chooses the text of its errors."""
TRANSIENT_CLASSES = ("08", "40", "53", "57", "58")
TRANSIENT_STATES = ("55P03", "55006", "25P03", "25P04", "72000")

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
SqlOrigin = Literal["own", "extract", "file", "catalog", "migration", "restore"]
"""The origin of the SQL that failed. own: this package's reading. extract: include/sql/extract. file: another file of
include/sql. catalog, migration: the catalog. restore: staging, comparing and writing of a restore."""
_LOG = "The PostgreSQL server's log has the whole message."
_RETRY = f"A retry usually helps. {_LOG}"
_TRANSIENT = {
    "53100": f"The server's disk is full: free some space. {_LOG}",
    "53200": f"The server is out of memory: give it more, or set a smaller work_mem. {_LOG}",
    "53300": "The server has too many connections: raise max_connections, or give the pool clinic_backups fewer slots.",
    "55P03": "Another session holds a lock on it. Try again later. pg_stat_activity and pg_locks show the session.",
    "57014": "The statement took longer than statement_timeout allows (CLINIC_BACKUPS_STATEMENT_TIMEOUT_SECONDS), or"
    " somebody cancelled it.",
}
_HINTS: dict[SqlOrigin, dict[str, str]] = {
    "own": {
        "42501": "Grant that to the role of the connection.",
        "": f"{_LOG} If nothing was changed in the database, report the message.",
    },
    "extract": {
        "42501": "Grant SELECT on the table to the backup's role; row security needs BYPASSRLS or no policy for it.",
        "42P01": "Create the table, or remove or correct its extract in include/sql/extract.",
        "42703": "Correct the extract: it names a column that the table does not have.",
        "25006": "An extract may only read. Remove the part that writes, which may be in a function that it calls.",
        "": "Run the rendered extract in psql to see the whole message.",
    },
    "file": {
        "42501": "Grant SELECT on the tables of that file to the role of the connection clinic_db.",
        "": "Run the file's query in psql to see the whole message, and correct it in include/sql.",
    },
    "catalog": {
        "42501": "Define the connection backup_catalog; without it clinic_db is used, whose role only reads. If it is"
        " defined, grant this right to its role, or make the role the owner of the schema clinic_backups.",
        "25006": "The catalog's database is read-only, for instance a standby. Point backup_catalog to the primary.",
        "": f"Nothing of this step was recorded. {_LOG}",
    },
    "migration": {
        "42501": "Run it with a role that owns the schema clinic_backups and may create in the database.",
        "25006": "The catalog's database is read-only, for instance a standby. Point backup_catalog to the primary.",
        "": "The catalog is unchanged, because a migration is one transaction. Undo manual changes in the schema"
        f" clinic_backups, and run `clinic-backups catalog migrate` again. {_LOG}",
    },
    "restore": {
        "42501": "Grant this right to the role of the connection restore_db.",
        "25006": "The database is read-only, for instance a standby. Point restore_db to the primary.",
        "23514": "Nothing was changed. Drop or widen the constraint for the time of the restore, or restore without the"
        " table.",
        "23502": "Nothing was changed. Drop the NOT NULL for the time of the restore, or restore without the table.",
        "23503": "Nothing was changed. Restore the tables on both sides of the foreign key together.",
        "23505": "Nothing was changed. Change or delete the other row, or restore without the table.",
        "23P01": "Nothing was changed. Change or delete the other row, or restore without the table.",
        "": f"Nothing was changed. {_LOG}",
    },
}
_UNQUALIFIED = (
    "A function of the application names something without its schema. An index, a key of partitions or a condition"
    " calls it, and backups and restores have a search path of their own. ALTER FUNCTION … SET search_path = … ends"
    " that. The server's log has the function's name."
)
_UNKNOWN_NAMES = ("42883", "42P01", "42704")
SINCE = {"transaction_timeout": 170000}
"""Settings that an older server does not know."""


@dataclass(frozen=True)
class Refused:
    """The parts of a server's error besides its text: only names of the schema, never a value.

    :param state: the SQLSTATE; empty if the connection broke.
    :param functions: the names of functions without arguments that were running. They are only compared, never shown.
    """

    state: str
    schema: str | None = None
    table: str | None = None
    column: str | None = None
    constraint: str | None = None
    functions: frozenset[str] = field(default=frozenset(), repr=False)

    @property
    def named(self) -> str:
        """The constraint or column, and the table, for an error's text."""
        table = ".".join(filter(None, (self.schema, self.table)))
        what = f"constraint {self.constraint}" if self.constraint else f"column {self.column}" if self.column else ""
        return f": {what} of {table}" if what and table else f": {what or table}" if what or table else ""


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
        opened.reopen = lambda: psycopg2.connect(**(parameters | {"connect_timeout": ASK_SECONDS}))
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
    try:
        pin(opened, also)
    except psycopg2.Error as error:
        opened.close()
        raise_database_error(error, f"asking the server of connection {connection.conn_id!r} for its settings")
    return opened


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


def raise_database_error(error: psycopg2.Error, doing: str, *, source: SqlOrigin = "own") -> NoReturn:
    """Raise a driver's error as one of this package's, without text that may be a patient's data.

    :param doing: the step that failed, for instance ``reading public.usuarios_paciente``.
    :param source: the origin of the SQL, which decides the hint. The catalog's triggers never name values.
    """
    if isinstance(error, Silent):
        raise _given_up(error, doing) from None
    state = error.pgcode or ""
    name = type(error).__name__
    diag = error.diag
    in_catalog = source in ("catalog", "migration")
    parsed = state.startswith(PARSED_STATES) and (in_catalog or diag.statement_position is not None)
    shown = (parsed or state.startswith(SHOWN_STATES)) and (in_catalog or not diag.context)
    text = (diag.message_primary or "").strip() if shown or not state else ""
    refused = Refused(state, functions=_running(diag.context or ""))
    if not (diag.source_file or LANGUAGES).startswith(LANGUAGES):
        names = (diag.schema_name, diag.table_name, diag.column_name, diag.constraint_name)
        refused = Refused(state, *names, refused.functions)
    detail = f": {text}" if text else refused.named
    where = f" (SQLSTATE {state} {name})" if state else f" ({name})"
    if not state or state.startswith(TRANSIENT_CLASSES) or state in TRANSIENT_STATES:
        raise _with(
            refused,
            TransientError(
                f"The database failed while {doing}{detail}{where}.",
                hint=_TRANSIENT.get(state, _RETRY),
            ),
        ) from None
    hints = _HINTS[source]
    better = _right(text) if state == "42501" else ""
    if state in _UNKNOWN_NAMES and diag.context and not in_catalog:
        better = _UNQUALIFIED
    raise _with(
        refused,
        PermanentError(
            f"The database refused while {doing}{detail}{where}.",
            hint=better or hints.get(state, hints[""]),
        ),
    ) from None


def _running(context: str) -> frozenset[str]:
    """The bare names before ``()`` in the places where an error happened. Every language of the server has these."""
    found = re.findall(r'(?:"((?:[^"]|"")+)"|([^\s."(]+))\(\)', context)
    return frozenset(quoted.replace('""', '"') or plain for quoted, plain in found)


def _right(text: str) -> str:
    """The hint for a missing right on a schema, function or sequence.

    It is empty for a table, or if the server's text is not recognised.
    """
    found = re.search(r"permission denied for (schema|function|sequence) (\S+)", text)
    if not found:
        return ""
    right = {"schema": "USAGE", "function": "EXECUTE", "sequence": "USAGE"}[found[1]]
    return (
        f"GRANT {right} ON {found[1].upper()} {found[2]} TO the role of the connection, if it is the one that is meant."
    )


def _given_up(error: Silent, doing: str) -> TransientError:
    """The error for a wait that was ended. After an unanswered COMMIT nobody knows whether it was done."""
    unknown = " Nobody knows whether the transaction was committed." if error.committing else ""
    if error.stopped:
        return TransientError(f"Stopped while {doing}.{unknown}", hint="Somebody ended this program.")
    hint = "A retry usually helps. If not, look for a proxy or firewall in between that forwards nothing."
    if error.committing:
        hint = (
            "Run the same command again: it finds or refuses work that was committed. After a restore, make a new plan:"
            " if it has nothing to write, the restore was committed."
        )
    return TransientError(
        f"The database was silent for {error.seconds:.0f} seconds while {doing}; the connection was given up.{unknown}",
        hint=hint,
    )


def refusal_of(error: BaseException) -> Refused | None:
    """The database's details of an error that :func:`raise_database_error` raised; none for any other error."""
    return getattr(error, "refused", None)


def is_conflict(error: BaseException) -> bool:
    """Whether two transactions wrote the same rows at the same moment, or waited for each other."""
    refused = refusal_of(error)
    return refused is not None and refused.state in ("40001", "40P01")


def is_taken(error: BaseException) -> bool:
    """The same, or another transaction holds what this one needed, and it did not wait for longer."""
    refused = refusal_of(error)
    return is_conflict(error) or (refused is not None and refused.state == "55P03")


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


E = TypeVar("E", bound=ClinicBackupsError)


def _with(refused: Refused, error: E) -> E:
    error.refused = refused  # type: ignore[attr-defined]
    return error
