"""Translates the errors of PostgreSQL into those of this package, without text that may be a patient's data."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Literal, NoReturn, TypeVar

import psycopg2

from clinic_backups.base.errors import ClinicBackupsError, PermanentError, TransientError
from clinic_backups.base.silence import Silent

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
        "42P01": "Write the table with its schema, as in public.orders. If it does not exist, create it.",
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
        f"The database was silent for {error.seconds:.0f} seconds while {doing}; the connection was closed.{unknown}",
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


E = TypeVar("E", bound=ClinicBackupsError)


def _with(refused: Refused, error: E) -> E:
    error.refused = refused  # type: ignore[attr-defined]
    return error
