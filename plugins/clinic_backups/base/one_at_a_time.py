"""A part of the work that only one thread at a time does."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

LOOK_SECONDS = 0.5
"""A thread that waits looks this often whether it is to stop."""


class Turns:
    """Lets only one thread at a time into a section of code."""

    def __init__(self) -> None:
        self._free = threading.Semaphore()

    @contextmanager
    def taken(self, look: Callable[[], object]) -> Iterator[Callable[[], None]]:
        """Wait for a turn, which lasts as long as the block. The block gets a function that ends the turn earlier.

        :param look: called while this waits; what it raises ends the waiting.
        """
        look()
        while not self._free.acquire(timeout=LOOK_SECONDS):
            look()
        lock, ended = threading.Lock(), False

        def end() -> None:
            nonlocal ended
            with lock:
                if not ended:
                    ended = True
                    self._free.release()

        try:
            yield end
        finally:
            end()
