"""The steps of a recovery: each is timed, and noted in the target when it is done."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from clinic_backups.base.connections import Connection
from clinic_backups.base.listening import Listener
from clinic_backups.recovery import notes
from clinic_backups.recovery.session import Session

T = TypeVar("T")
R = TypeVar("R")


class Work:
    """Does the steps.

    :param jobs: how much is done at once.
    :ivar seconds: of each step of this run.
    """

    def __init__(self, connection: Connection, jobs: int, listener: Listener) -> None:
        self._connection, self._jobs, self._listener = connection, jobs, listener
        self.seconds: dict[str, float] = {}

    def step(self, name: str, work: Callable[[Session], T]) -> T:
        """:meth:`noted`, and timed."""
        return self.timed(name, lambda: self.noted(name, work))

    def noted(self, name: str, work: Callable[[Session], T]) -> T:
        """Do a step in one transaction with its note, unless it is done. The result is plain JSON."""
        with Session(self._connection) as session:
            done = notes.steps(session) if notes.begun(session) else {}
            if name in done:
                found: T = done[name][1]
                return found
            began = time.monotonic()
            result = work(session)
            notes.note_step(session, name, time.monotonic() - began, result)
            session.commit(name)
            return result

    def timed(self, name: str, work: Callable[[], T]) -> T:
        """Do a step, and tell of it."""
        self._listener.step(name)
        began = time.monotonic()
        result = work()
        self.seconds[name] = time.monotonic() - began
        return result

    def at_once(self, work: Callable[[T], R], items: Iterable[T]) -> list[R]:
        """Do work for all items, some at once; the results in their order. After an error nothing more is begun."""
        with ThreadPoolExecutor(self._jobs, thread_name_prefix="recover") as pool:
            futures = [pool.submit(work, item) for item in items]
            try:
                return [future.result() for future in futures]
            except BaseException:
                pool.shutdown(wait=True, cancel_futures=True)
                raise
