"""What can be found out about a server that says nothing: when its last byte came, and whether it still works."""

from __future__ import annotations

import fcntl
import os
import socket
import struct
import termios
import time
from collections.abc import Callable
from contextlib import suppress

import psycopg2
import psycopg2.extensions

from clinic_backups.base.search_path import IN_OWN_PATH

ON_ITS_WAY_SECONDS = 0.2
"""pg_stat_activity shows the end of a statement a moment before the statement's answer arrives."""
# Of struct tcp_info of Linux: milliseconds since the last data came in.
_LAST_DATA_RECEIVED = slice(52, 56)
# The state of our backend. ClientRead and ClientWrite mean that it waits for us while we wait for it.
_WORKS = """
    SELECT coalesce(bool_or(state = 'active' AND wait_event_type IS DISTINCT FROM 'Client'), false), count(*) > 0
      FROM pg_catalog.pg_stat_activity
     WHERE pid = %(pid)s AND usename = session_user AND application_name = current_setting('application_name')
"""
# Behind a pooling proxy the driver does not know the real number of the server's process.
_SOME_WORKS = """
    SELECT coalesce(bool_or(state = 'active' AND wait_event_type IS DISTINCT FROM 'Client'), false)
      FROM pg_catalog.pg_stat_activity
     WHERE pid <> pg_backend_pid() AND usename = session_user AND datname = current_database()
       AND application_name = current_setting('application_name')
       AND query_start < now() - %(seconds)s * interval '1 second'
"""
_END = "SELECT pg_terminate_backend(%(pid)s)"


def heard_at(connection: psycopg2.extensions.connection, now: float) -> float:
    """When the last byte came in, if the operating system tells; otherwise 0. Times are of ``time.monotonic``."""
    # A connection that ends at this moment has the number -1, which is a ValueError.
    with suppress(OSError, ValueError, psycopg2.Error, struct.error):
        number = connection.fileno()
        (unread,) = struct.unpack("i", fcntl.ioctl(number, termios.FIONREAD, b"\0" * 4))
        if unread:
            return now  # bytes are waiting: this process is not reading
        with socket.socket(fileno=os.dup(number)) as line:
            if line.family != socket.AF_UNIX and hasattr(socket, "TCP_INFO"):
                told = line.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 104)
                (milliseconds,) = struct.unpack("I", told[_LAST_DATA_RECEIVED])
                return float(now - milliseconds / 1000)
    return 0.0


def still_works(
    other: psycopg2.extensions.connection, pid: int, is_still_silent: Callable[[], bool], *, seconds: float
) -> bool:
    """Whether the server says that it still runs the statement of a silent connection.

    If it does not, its process is ended, because it would keep its locks although nobody waits any more. The statement
    may be answered while the server is asked.

    :param other: a second connection to the same server.
    :param pid: the silent connection's process in the server.
    :param seconds: how long the connection has been silent at least.
    """
    other.autocommit = True
    with other.cursor() as cursor:
        cursor.execute(f"{IN_OWN_PATH}; {_WORKS}", {"pid": pid})
        works, known = cursor.fetchone() or (False, False)
        if known and not works:
            time.sleep(ON_ITS_WAY_SECONDS)
            if is_still_silent():
                cursor.execute(f"{IN_OWN_PATH}; {_END}", {"pid": pid})
        elif not known:
            cursor.execute(f"{IN_OWN_PATH}; {_SOME_WORKS}", {"seconds": seconds})
            (works,) = cursor.fetchone() or (False,)
    return bool(works)
