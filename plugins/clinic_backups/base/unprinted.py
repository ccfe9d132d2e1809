"""Keeps the driver from printing a row of the database.

If a connection ends in the middle of a COPY, psycopg2 gets two errors. It prints the first one through
``sys.excepthook`` and raises the second one. PostgreSQL puts the line that it was loading into the text of the first.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType

import psycopg2

_lock = threading.Lock()
_inside = 0
_before = sys.excepthook


@contextmanager
def unprinted() -> Iterator[None]:
    """While the block lasts, in any thread, no error of the driver is printed. Other errors are."""
    global _inside, _before
    with _lock:
        if not _inside:
            _before, sys.excepthook = sys.excepthook, _hook
        _inside += 1
    try:
        yield
    finally:
        with _lock:
            _inside -= 1
            if not _inside and sys.excepthook is _hook:  # else somebody has set another one meanwhile
                sys.excepthook = _before


def _hook(kind: type[BaseException], error: BaseException, traceback: TracebackType | None) -> None:
    # The driver notices that there is an error already, and that one becomes the cause.
    if not isinstance(error, psycopg2.Error) and not isinstance(error.__cause__, psycopg2.Error):
        _before(kind, error, traceback)
