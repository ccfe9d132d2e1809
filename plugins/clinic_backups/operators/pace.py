"""Limits how often a long task writes into its log."""

from __future__ import annotations

import time

SECONDS_BETWEEN_LINES = 10


class Pace:
    """Tells when the next line is due: one every few seconds, the first one after that time."""

    def __init__(self) -> None:
        self._next = time.monotonic() + SECONDS_BETWEEN_LINES

    def due(self) -> bool:
        """Whether to write now. If so, the next line is due a few seconds later."""
        if time.monotonic() < self._next:
            return False
        self._next = time.monotonic() + SECONDS_BETWEEN_LINES
        return True
