"""Connections that stay open between requests, and a database that is down without holding anybody up."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cached_property

import psycopg2.extensions
from sqlalchemy import Connection as SqlConnection
from sqlalchemy import Engine, create_engine

from clinic_backups.catalog.database import CatalogDatabase
from clinic_backups.connections import Connection
from clinic_backups.database import connect
from clinic_backups.errors import ClinicBackupsError
from clinic_backups.web.problems import Unavailable
from clinic_backups.web.threads import THREADS

CONNECT_SECONDS = 3
STATEMENT_SECONDS = 10
REST_SECONDS = 5
"""After a connection failed, nobody tries again for that long: each try holds a thread."""


class WebDatabase(CatalogDatabase):
    """A database of the API server: pooled, bounded in time, left alone for a while when it is down.

    :param find: looks up the connection whenever a new one is opened, so that a changed password needs no restart.
    """

    def __init__(self, find: Callable[[], Connection]) -> None:
        self._find = find
        self._rest_until = 0.0

    @cached_property
    def _engine(self) -> Engine:
        # Two for each thread: whoever starts a run keeps others away with one, and looks around with the other.
        return create_engine(
            "postgresql+psycopg2://", creator=self._open, pool_size=2 * THREADS, max_overflow=0, pool_pre_ping=True
        )

    @contextmanager
    def transaction(self, doing: str) -> Iterator[SqlConnection]:
        """See :meth:`CatalogDatabase.transaction`. :raises Unavailable: the database was down a moment ago."""
        if time.monotonic() < self._rest_until:
            raise Unavailable("The backups' catalog cannot be reached now.", hint="Try again in a few seconds.",
                              retry_after_seconds=REST_SECONDS)  # fmt: skip
        with super().transaction(doing) as db:
            yield db

    def _open(self) -> psycopg2.extensions.connection:
        try:
            opened = connect(self._find(), application_name="clinic-backups web", connect_seconds=CONNECT_SECONDS)
        except ClinicBackupsError:
            self._rest_until = time.monotonic() + REST_SECONDS
            raise
        with opened.cursor() as cursor:
            cursor.execute(f"SET statement_timeout = '{STATEMENT_SECONDS}s'")
        opened.commit()
        return opened
