"""Connections to PostgreSQL, and its errors made ours: used for the clinics' database and for the catalog."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NoReturn, TypeVar

import psycopg2
import psycopg2.extensions

from clinic_backups.connections import Connection
from clinic_backups.errors import ClinicBackupsError, PermanentError, TransientError

SHOWN_STATES = (
    "08", "0A", "25", "28", "40", "53", "54", "55000", "55006", "55P03", "57", "58030", "42501", "42809", "42P07",
)  # fmt: skip
"""SQLSTATEs, and classes of them, whose text PostgreSQL makes of names alone. Any other text may hold a value.

A function may raise any SQLSTATE with any text, so that nothing of what happened inside of one is shown either, but for
the catalog's own functions.
"""
PARSED_STATES = ("3D", "3F", "42601", "42703", "42704", "42883", "42P01")
"""Those whose text names what a statement mentions, where the error has a place in the statement. Without one a value
was looked up as a name: ``nombres::regclass``, ``to_tsquery(nombres)``."""
LANGUAGES = "pl"
"""What the source files of procedural languages begin with: what they raise names what the function's author wanted."""
TRANSIENT_CLASSES = ("08", "40", "53", "57", "58")
TRANSIENT_STATES = ("55P03", "55006", "25P03", "25P04", "72000")


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
) -> psycopg2.extensions.connection:
    """Open a PostgreSQL connection that notices a dead peer within about a minute.

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
    try:
        opened: psycopg2.extensions.connection = psycopg2.connect(
            **(parameters | connection.libpq_parameters() | {"client_encoding": "UTF8"})
        )
        return opened
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


def raise_database_error(error: psycopg2.Error, doing: str, *, in_catalog: bool = False) -> NoReturn:
    """Turn a driver's error into one of ours, without what may be a patient's data.

    :param doing: what was under way, for instance ``reading public.usuarios_paciente``.
    :param in_catalog: only the catalog's tables were touched, whose triggers say no values.
    """
    state = error.pgcode or ""
    name = type(error).__name__
    diag = error.diag
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
                hint="A retry usually helps; else see the PostgreSQL server's log of this moment.",
            ),
        ) from None
    hints = {
        "42501": "Grant SELECT on the table to the backup's role; row security needs BYPASSRLS or no policy for it.",
        "42P01": "Create the table, or remove or correct its extract in include/sql/extract.",
        "42703": "Correct the extract: it names a column that the table does not have.",
    }
    raise _with(
        refused,
        PermanentError(
            f"The database refused while {doing}{detail}{where}.",
            hint=hints.get(state, "Run the rendered extract in psql to see the whole message."),
        ),
    ) from None


def refusal_of(error: BaseException) -> Refused | None:
    """What the database said of an error that :func:`raise_database_error` raised; none for any other error."""
    return getattr(error, "refused", None)


def is_conflict(error: BaseException) -> bool:
    """Two transactions wrote the same rows at the same moment, or waited for each other."""
    refused = refusal_of(error)
    return refused is not None and refused.state in ("40001", "40P01")


E = TypeVar("E", bound=ClinicBackupsError)


def _with(refused: Refused, error: E) -> E:
    error.refused = refused  # type: ignore[attr-defined]
    return error
