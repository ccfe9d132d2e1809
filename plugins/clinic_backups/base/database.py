"""Connections to PostgreSQL, and its errors made ours: used for the clinics' database and for the catalog."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, NoReturn, TypeVar

import psycopg2
import psycopg2.extensions
from psycopg2 import sql

from clinic_backups.base.connections import Connection
from clinic_backups.base.errors import ClinicBackupsError, PermanentError, TransientError
from clinic_backups.base.silence import ASK_SECONDS, Silent, WatchedConnection, WatchedCursor

SHOWN_STATES = (
    "08", "0A", "25", "28", "40", "53", "54", "55000", "55006", "55P03", "57", "58030", "42501", "42809",
    "42710", "42P06", "42P07",
)  # fmt: skip
"""SQLSTATEs, and classes of them, whose text PostgreSQL makes of names alone. Any other text may hold a value.

A function may raise any SQLSTATE with any text, so that nothing of what happened inside of one is shown either, but for
the catalog's own functions.
"""
PARSED_STATES = ("3D", "3F", "42601", "42701", "42703", "42704", "42883", "42P01")
"""Those whose text names what a statement mentions, where the error has a place in the statement. Without one a value
was looked up as a name: ``nombres::regclass``, ``to_tsquery(nombres)``."""
LANGUAGES = "pl"
"""What the source files of procedural languages begin with: what they raise names what the function's author wanted."""
TRANSIENT_CLASSES = ("08", "40", "53", "57", "58")
TRANSIENT_STATES = ("55P03", "55006", "25P03", "25P04", "72000")

RELIED_ON: Mapping[str, tuple[str, re.Pattern[str]]] = {
    name: (wanted, re.compile(fits))
    for name, wanted, fits in (
        # Where the schema of PostgreSQL itself is named, others may come before it.
        ("search_path", "pg_catalog", r'"?pg_catalog"?|(?!.*pg_catalog).*'),
        ("datestyle", "ISO, YMD", r"ISO, .*"),
        ("intervalstyle", "postgres", "postgres"),
        ("extra_float_digits", "3", "[123]"),
        ("bytea_output", "hex", "hex"),
        ("array_nulls", "on", "on"),
        ("transform_null_equals", "off", "off"),
        ("gin_fuzzy_search_limit", "0", "0"),
        ("exit_on_error", "off", "off"),
        ("session_replication_role", "origin", "origin"),
        # How long is waited for what is said in docs/operations.md.
        ("statement_timeout", "0", "0"),
        ("lock_timeout", "0", "0"),
        ("transaction_timeout", "0", "0"),
        ("idle_in_transaction_session_timeout", "0", "0"),
    )
}
"""What our statements need, and which values of a server will do. Some have settings of their own: they set them."""
_TRANSACTIONS = {
    "default_transaction_isolation": "read committed",
    "default_transaction_read_only": "off",
    "default_transaction_deferrable": "off",
}
Source = Literal["own", "extract", "file", "catalog", "migration", "restore"]
"""Whose SQL has failed. own: that of this package, reading. extract: include/sql/extract. file: another file of
include/sql. catalog, migration: the catalog's. restore: what a restore stages, compares and writes."""
_LOG = "See the PostgreSQL server's log of this moment for its whole message."
_RETRY = f"A retry usually helps. {_LOG}"
_TRANSIENT = {
    "53100": f"The server's disk is full: make room. {_LOG}",
    "53200": f"The server is out of memory: give it more, or set a smaller work_mem. {_LOG}",
    "53300": "The server has too many connections: raise max_connections, or give the pool clinic_backups fewer slots.",
    "55P03": "Somebody holds a lock on it: try again when that has ended. pg_stat_activity and pg_locks say who.",
    "57014": "The statement took longer than statement_timeout allows (CLINIC_BACKUPS_STATEMENT_TIMEOUT_SECONDS), or"
    " somebody has cancelled it.",
}
_HINTS: dict[Source, dict[str, str]] = {
    "own": {
        "42501": "Grant that to the role of the connection.",
        "": f"{_LOG} If nothing was changed in the database, report the message.",
    },
    "extract": {
        "42501": "Grant SELECT on the table to the backup's role; row security needs BYPASSRLS or no policy for it.",
        "42P01": "Create the table, or remove or correct its extract in include/sql/extract.",
        "42703": "Correct the extract: it names a column that the table does not have.",
        "25006": "An extract only reads: take out what writes, also in functions that it calls.",
        "": "Run the rendered extract in psql to see the whole message.",
    },
    "file": {
        "42501": "Grant SELECT on the tables of that file to the role of the connection clinic_db.",
        "": "Run the file's query in psql to see the whole message, and correct it in include/sql.",
    },
    "catalog": {
        "42501": "Is the connection backup_catalog defined here? Without it clinic_db is used, whose role only reads."
        " If it is, grant that to its role, or let it own the schema clinic_backups.",
        "25006": "The catalog's database can only be read, as a standby can: let backup_catalog lead to the primary.",
        "": f"Nothing of this step was recorded. {_LOG}",
    },
    "migration": {
        "42501": "Run it with a role that owns the schema clinic_backups and may create in the database.",
        "25006": "The catalog's database can only be read, as a standby can: let backup_catalog lead to the primary.",
        "": "The catalog is as it was before: a migration is one transaction. Undo what was changed in the schema"
        f" clinic_backups by hand, and run `clinic-backups catalog migrate` again. {_LOG}",
    },
    "restore": {
        "42501": "Grant that to the role of the connection restore_db.",
        "25006": "The database can only be read, as a standby can: let restore_db lead to the primary.",
        "23514": "Nothing was changed. Drop or widen the constraint for the time of the restore, or restore without the"
        " table.",
        "23502": "Nothing was changed. Drop the NOT NULL for the time of the restore, or restore without the table.",
        "23503": "Nothing was changed. Restore the tables on both sides of the foreign key together.",
        "23505": "Nothing was changed. Change or delete the other row, or restore without the table.",
        "23P01": "Nothing was changed. Change or delete the other row, or restore without the table.",
        "": f"Nothing was changed. {_LOG}",
    },
}
SINCE = {"transaction_timeout": 170000}
"""Settings that an older server does not know."""


@dataclass(frozen=True)
class Refused:
    """What a server's error says besides its text: names of the schema alone, never a value.

    :param state: the SQLSTATE; empty where the connection broke.
    """

    state: str
    schema: str | None = None
    table: str | None = None
    column: str | None = None
    constraint: str | None = None

    @property
    def named(self) -> str:
        """For an error's text: which constraint or column of which table."""
        table = ".".join(filter(None, (self.schema, self.table)))
        what = f"constraint {self.constraint}" if self.constraint else f"column {self.column}" if self.column else ""
        return f": {what} of {table}" if what and table else f": {what or table}" if what or table else ""


def connect(
    connection: Connection,
    *,
    application_name: str = "clinic-backups",
    connect_seconds: int = 15,
    unanswered_seconds: int | None = None,
) -> WatchedConnection:
    """Open a PostgreSQL connection that notices a dead peer within about a minute, and a silent one after
    ``CLINIC_BACKUPS_SILENCE_SECONDS``.

    :param connect_seconds: longest wait for the server, unless the connection's extras say another one.
    :param unanswered_seconds: give the line up when what was sent is not acknowledged for so long.

    :raises TransientError: the server cannot be reached or refuses for now.
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
        opened: WatchedConnection = psycopg2.connect(
            connection_factory=WatchedConnection, cursor_factory=WatchedCursor, **parameters
        )
        opened.reopen = lambda: psycopg2.connect(**(parameters | {"connect_timeout": ASK_SECONDS}))
    except psycopg2.OperationalError as error:
        # The first line says which server and why; then come advice, and what a second way to it (no TLS) gave.
        text = str(error).strip().splitlines()[0]
        # libpq gives no SQLSTATE for a refused login; these texts are the server's own, in English or not.
        refused = any(word in text for word in ("password authentication", "does not exist", "pg_hba.conf", "role "))
        kind = PermanentError if refused else TransientError
        raise kind(
            f"Connection {connection.conn_id!r}: {text}",
            hint="Check host, database, user and password of the connection, and that the server is up.",
        ) from None
    except (psycopg2.ProgrammingError, UnicodeError):
        raise PermanentError(
            f"Connection {connection.conn_id!r} has an option that libpq does not know.",
            hint="Compare the connection's extras with PostgreSQL's documentation of connection parameters.",
        ) from None
    try:
        _pin(opened)
    except psycopg2.Error as error:
        opened.close()
        raise_database_error(error, f"asking the server of connection {connection.conn_id!r} for its settings")
    return opened


def raise_database_error(error: psycopg2.Error, doing: str, *, source: Source = "own") -> NoReturn:
    """Turn a driver's error into one of ours, without what may be a patient's data.

    :param doing: what was under way, for instance ``reading public.usuarios_paciente``.
    :param source: whose SQL it was: which remedy there is depends on it. The catalog's triggers say no values.
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
    refused = Refused(state)
    if not (diag.source_file or LANGUAGES).startswith(LANGUAGES):
        refused = Refused(state, diag.schema_name, diag.table_name, diag.column_name, diag.constraint_name)
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
    right = _right(text) if state == "42501" else ""
    raise _with(
        refused,
        PermanentError(
            f"The database refused while {doing}{detail}{where}.",
            hint=right or hints.get(state, hints[""]),
        ),
    ) from None


def _right(text: str) -> str:
    """What to grant, where it is another right than one on a table; empty: it is one, or the server's words are not
    known."""
    found = re.search(r"permission denied for (schema|function|sequence) (\S+)", text)
    if not found:
        return ""
    right = {"schema": "USAGE", "function": "EXECUTE", "sequence": "USAGE"}[found[1]]
    return (
        f"GRANT {right} ON {found[1].upper()} {found[2]} TO the role of the connection, if it is the one that is meant."
    )


def _given_up(error: Silent, doing: str) -> TransientError:
    """For a wait that had to end; after a COMMIT nobody knows whether it happened."""
    unknown = " Whether that was committed is not known." if error.committing else ""
    if error.stopped:
        return TransientError(f"Stopped while {doing}.{unknown}", hint="Somebody ended this program.")
    hint = "Is there a proxy or a firewall in between that forwards nothing? A retry usually helps."
    if error.committing:
        hint = (
            "Do the same again: what was committed is found, or refused as done. After a restore, plan it once more:"
            " nothing to write means that it was committed."
        )
    return TransientError(
        f"The database was silent for {error.seconds:.0f} seconds while {doing}; the connection was given up.{unknown}",
        hint=hint,
    )


def refusal_of(error: BaseException) -> Refused | None:
    """What the database said of an error that :func:`raise_database_error` raised; none for any other error."""
    return getattr(error, "refused", None)


def is_conflict(error: BaseException) -> bool:
    """Two transactions wrote the same rows at the same moment, or waited for each other."""
    refused = refusal_of(error)
    return refused is not None and refused.state in ("40001", "40P01")


def _pin(opened: WatchedConnection) -> None:
    """A role's or a database's own settings change nothing here: what differs is set in each transaction.

    Where nothing differs, as nearly everywhere, this costs one question.
    """
    opened.autocommit = True
    with opened.cursor() as cursor:
        names = [*RELIED_ON, *_TRANSACTIONS]
        cursor.execute("SELECT name, current_setting(name, true) FROM unnest(%s) AS name", (names,))
        found = dict(cursor.fetchall())
    opened.autocommit = False
    pins = {
        name: wanted
        for name, (wanted, fits) in RELIED_ON.items()
        if found[name] is not None and not fits.fullmatch(found[name])
    }
    # Not standard_conforming_strings: the driver has seen it, and quotes for it from here on.
    if any(found[name] != usual for name, usual in _TRANSACTIONS.items()):
        pins |= _TRANSACTIONS
        opened.set_session(isolation_level="READ COMMITTED", readonly=False, deferrable=False)
        opened.begins_alone = "SET TRANSACTION ISOLATION LEVEL READ COMMITTED, READ WRITE; "
    opened.pins = pins


def session_settings(cursor: Any, settings: Mapping[str, str]) -> str:
    """Settings for this transaction: a pooling proxy may hand the session to others afterwards."""
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
