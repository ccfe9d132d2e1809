"""Database connections that stay open between requests. A database that is down does not block other requests."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import cached_property

import psycopg2.extensions
from sqlalchemy import Engine, create_engine

from clinic_backups.base.connections import Connection
from clinic_backups.base.database import connect
from clinic_backups.base.errors import ClinicBackupsError
from clinic_backups.catalog.catalog_database import CatalogDatabase
from clinic_backups.web.problems import Unavailable
from clinic_backups.web.threads import THREADS

CONNECT_SECONDS = 3
STATEMENT_SECONDS = 10
POOL_SECONDS = 5
REST_SECONDS = 5
"""After a failed connection, nobody tries again for this time, because each try blocks a thread."""


class WebDatabase(CatalogDatabase):
    """A database of the API server, with a pool and time limits. When it is down, it is not used for a while.

    :param find: looks up the connection whenever a new one is opened, so that a changed password needs no restart.
    :param name: its name in errors.
    :param own_path: see :func:`clinic_backups.base.database.connect`.
    """

    def __init__(self, find: Callable[[], Connection], name: str, *, own_path: bool = True) -> None:
        self._find, self._name, self._own_path = find, name, own_path
        self._rest_until = 0.0

    @cached_property
    def _engine(self) -> Engine:
        # As many more as there are threads, because a request that starts a run needs a second connection for its lock.
        return create_engine(
            "postgresql+psycopg2://",
            creator=self._open,
            pool_size=THREADS // 2,
            max_overflow=2 * THREADS - THREADS // 2,
            pool_timeout=POOL_SECONDS,
            pool_pre_ping=True,
        )

    def _open(self) -> psycopg2.extensions.connection:
        """:raises Unavailable: it was down a moment ago."""
        if time.monotonic() < self._rest_until:
            raise Unavailable(
                f"{self._name} cannot be reached now.",
                hint="Try again in a few seconds.",
                retry_after_seconds=REST_SECONDS,
            )
        try:
            opened = connect(
                self._find(),
                application_name="clinic-backups web",
                connect_seconds=CONNECT_SECONDS,
                unanswered_seconds=STATEMENT_SECONDS,
                own_path=self._own_path,
            )
        except ClinicBackupsError:
            self._rest_until = time.monotonic() + REST_SECONDS
            raise
        with opened.cursor() as cursor:
            cursor.execute(f"SET statement_timeout = '{STATEMENT_SECONDS}s'")
        opened.pins = {name: value for name, value in opened.pins.items() if name != "statement_timeout"}
        opened.commit()
        return opened
