"""Transactions in the catalog's database. Errors are translated into this package's."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import cached_property
from typing import Any

import psycopg2
from psycopg2.extensions import TRANSACTION_STATUS_IDLE
from sqlalchemy import Connection as SqlConnection
from sqlalchemy import Engine, create_engine, event, func, select
from sqlalchemy.exc import DBAPIError, DisconnectionError, InvalidRequestError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.pool import ConnectionPoolEntry

from clinic_backups.base.connections import Connection
from clinic_backups.base.database import connect
from clinic_backups.base.database_errors import SqlOrigin, raise_database_error
from clinic_backups.base.errors import PermanentError, TransientError
from clinic_backups.base.silence import WatchedConnection
from clinic_backups.catalog.owners import STRANGERS, require_own
from clinic_backups.catalog.shared_round_trips import send_or_wait, together

TRUSTED_SECONDS = 1.0
"""A connection that was used so recently is not asked whether it is still open."""
NO_TABLE, NO_SCHEMA, NO_COLUMN = "42P01", "3F000", "42703"


WITHOUT = (
    "A restore needs no catalog: `clinic-backups restore --archive URL`. A lost catalog is rebuilt from the stores:"
    " `clinic-backups catalog migrate`, then `clinic-backups catalog rebuild`."
)


def connect_catalog(connection: Connection) -> WatchedConnection:
    """Open a connection to the catalog. :raises ClinicBackupsError: it cannot be reached, or is of another role.

    The hint says what still works.
    """
    try:
        opened = connect(connection, also=STRANGERS)
    except (TransientError, PermanentError) as error:
        raise type(error)(f"The catalog cannot be reached. {error.message}", hint=f"{error.hint} {WITHOUT}") from None
    try:
        require_own(opened.told["strangers"])
    except PermanentError:
        opened.close()
        raise
    return opened


class CatalogDatabase:
    """The database that holds the schema ``clinic_backups``.

    :param pool_size: the number of connections that are kept open. More are opened when they are needed.
    """

    def __init__(self, connection: Connection, *, pool_size: int = 1) -> None:
        self._connection, self._pool_size = connection, pool_size

    @cached_property
    def _engine(self) -> Engine:
        engine = create_engine(
            "postgresql+psycopg2://", creator=self._connect, pool_size=self._pool_size, hide_parameters=True
        )
        event.listen(engine, "checkin", _note_use)
        event.listen(engine, "checkout", _require_open)
        event.listen(engine, "do_execute", send_or_wait)
        return engine

    _source: SqlOrigin = "catalog"

    def _connect(self) -> Any:
        return connect_catalog(self._connection)

    @contextmanager
    def transaction(self, doing: str, *, source: SqlOrigin | None = None) -> Iterator[SqlConnection]:
        """One transaction. Its errors are translated, without values of rows.

        :param doing: the step, for the error's text.
        :param source: the origin of the SQL, by default the catalog.
        """
        with _errors_made_ours(doing, source or self._source), self._engine.begin() as db:
            yield db

    @contextmanager
    def short_transaction(self, doing: str) -> Iterator[SqlConnection]:
        """As :meth:`transaction`, with as few round trips as :func:`together` makes of it."""
        with self.statement(doing) as db, together(db):
            yield db

    @contextmanager
    def statement(self, doing: str) -> Iterator[SqlConnection]:
        """As :meth:`transaction`, for one statement that commits by itself, so that no transaction stays open."""
        with _errors_made_ours(doing, self._source), self._engine.connect() as db, _each_alone(db):
            yield db


@contextmanager
def _each_alone(db: SqlConnection) -> Iterator[None]:
    """During the block each statement commits by itself. SQLAlchemy's own way costs a round trip at the end.

    A connection that is still in a transaction afterwards is discarded.
    """
    line: WatchedConnection = db.connection.dbapi_connection  # type: ignore[assignment]
    line.set_autocommit(True)
    try:
        yield
    finally:
        if line.closed or line.info.transaction_status != TRANSACTION_STATUS_IDLE:
            db.invalidate()
        else:
            line.set_autocommit(False)


def _note_use(dbapi: Any, record: ConnectionPoolEntry) -> None:
    record.info["used_at"] = time.monotonic()


def _require_open(dbapi: Any, record: ConnectionPoolEntry, proxy: object) -> None:
    """Replace a connection that broke meanwhile, for instance during a long upload.

    One that was used just now is not asked: that would double the round trips of a small backup.

    :raises DisconnectionError: SQLAlchemy opens another one.
    """
    try:
        if time.monotonic() - record.info.get("used_at", 0.0) < TRUSTED_SECONDS and not dbapi.has_news():
            return
        dbapi.set_autocommit(True)
        with dbapi.cursor() as cursor:
            cursor.execute("SELECT 1")
        dbapi.set_autocommit(False)
    except psycopg2.Error:
        raise DisconnectionError from None


def time_of(db: SqlConnection) -> datetime:
    """The database's clock."""
    told: datetime = db.execute(select(func.clock_timestamp())).scalar_one()
    return told.astimezone(UTC)


@contextmanager
def _errors_made_ours(doing: str, source: SqlOrigin) -> Iterator[None]:
    try:
        yield
    except PoolTimeout:
        raise TransientError(
            f"All connections to the catalog are in use: {doing} would have waited too long.",
            hint="Try again in a moment.",
        ) from None
    except InvalidRequestError as error:
        # The pool's words after a second connection has ended while it was taken.
        if str(error) != "This connection is closed":
            raise
        raise TransientError(
            f"The catalog ended the connection while {doing}.", hint="Try again in a moment."
        ) from None
    except DBAPIError as error:
        if not isinstance(error.orig, psycopg2.Error):
            raise
        if source == "catalog" and error.orig.pgcode in (NO_TABLE, NO_SCHEMA, NO_COLUMN):
            raise PermanentError(
                "The catalog has not been set up, or is older than this package.",
                hint="Run `clinic-backups catalog migrate`, and after a loss also `clinic-backups catalog rebuild`.",
            ) from None
        raise_database_error(error.orig, doing, source=source)
