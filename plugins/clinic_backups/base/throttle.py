"""Limits how many bytes a second a piece of work takes."""

from __future__ import annotations

import time
from collections.abc import Callable

LONGEST_SLEEP_SECONDS = 1.0
"""After this time the caller's ``look`` is called again."""


class Throttle:
    """Makes its caller wait until the bytes so far have taken the time that they should.

    A slow time, for instance of a query that computes long, is not made up for with a burst afterwards.

    :param bytes_per_second: none: no limit.
    """

    def __init__(
        self,
        bytes_per_second: float | None,
        *,
        now: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], object] = time.sleep,
    ) -> None:
        self._rate, self._now, self._sleep = bytes_per_second, now, sleep
        self._free_at = now()

    def took(self, size: int, look: Callable[[], object]) -> None:
        """So many bytes were taken, since the call before or since this object was made: wait if that was too fast.

        :param look: called while this waits; what it raises ends the waiting.
        """
        if self._rate is None:
            return
        seconds = size / self._rate
        self._free_at = max(self._free_at, self._now() - seconds) + seconds
        while (left := self._free_at - self._now()) > 0:
            look()
            self._sleep(min(left, LONGEST_SLEEP_SECONDS))
