"""Transactions in the catalog's database, with its errors made ours."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property

import psycopg2
from sqlalchemy import Connection as SqlConnection
from sqlalchemy import Engine, create_engine
from sqlalchemy.exc import DBAPIError

from clinic_backups.connections import Connection
from clinic_backups.database import connect, raise_database_error
from clinic_backups.errors import PermanentError

NO_TABLE, NO_SCHEMA, NO_COLUMN = "42P01", "3F000", "42703"


class CatalogDatabase:
    """The database that holds the schema ``clinic_backups``."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    @cached_property
    def _engine(self) -> Engine:
        # Few connections, opened anew where they broke while a long upload went on.
        return create_engine(
            "postgresql+psycopg2://", creator=lambda: connect(self._connection), pool_size=1, pool_pre_ping=True
        )

    @contextmanager
    def transaction(self, doing: str) -> Iterator[SqlConnection]:
        """One transaction; its errors come out as ours, without values of rows.

        :param doing: what is under way, for the error.
        """
        try:
            with self._engine.begin() as db:
                yield db
        except DBAPIError as error:
            if not isinstance(error.orig, psycopg2.Error):
                raise
            if error.orig.pgcode in (NO_TABLE, NO_SCHEMA, NO_COLUMN):
                raise PermanentError(
                    "The catalog has not been set up, or is older than this package.",
                    hint="Run `clinic-backups catalog migrate`.",
                ) from None
            raise_database_error(error.orig, doing)
